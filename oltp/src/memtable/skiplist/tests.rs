//! The list against `crossbeam-skiplist` and a sorted map, under threads, and under loom's every schedule.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_skiplist::SkipSet;
use proptest::prelude::*;

use super::*;

type Key = (Vec<u8>, Reverse<u64>);

fn insert(list: &SkipList, splice: &mut Splice<AtomicPtr<Header>>, key: &[u8], seqno: u64) {
    let value = [key, &seqno.to_le_bytes()].concat();
    list.insert(splice, key, SeqNo(seqno), VersionKind::Put, &value);
}

fn contents(list: &SkipList) -> Vec<Key> {
    let entries = std::iter::successors(list.first(), |entry| entry.next());
    let entries = entries.inspect(|entry| {
        assert_eq!(entry.value(), [entry.key(), &entry.seqno().0.to_le_bytes()].concat(), "a node is complete");
    });
    entries.map(|entry| (entry.key().to_vec(), Reverse(entry.seqno().0))).collect()
}

/// Every level is sorted and holds some of the level below.
fn check_levels(list: &SkipList) {
    let level = |level| -> Vec<Key> {
        let nodes = std::iter::successors(list.head.next(level), |node| node.next(level));
        nodes.map(|node| (node.key().to_vec(), Reverse(node.header().seqno))).collect()
    };
    let mut below = level(0);
    for at in 1..HEIGHT_MAX {
        let here = level(at);
        assert!(here.is_sorted(), "level {at} is sorted");
        let known: BTreeSet<&Key> = below.iter().collect();
        assert!(here.iter().all(|key| known.contains(key)), "level {at} is part of the level below");
        below = here;
    }
}

/// Keys around the length that is compared at once, with shared beginnings and zeros at the end.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![Just(0usize), 12usize..18];
    (start, prop::collection::vec(0u8..3, 0..5)).prop_map(|(zeros, tail)| [vec![0; zeros], tail].concat())
}

proptest! {
    #[test]
    fn equals_a_sorted_set(
        commits in prop::collection::vec(prop::collection::vec(any_key(), 1..12), 0..40),
        targets in prop::collection::vec((any_key(), 0u64..45), 20),
        ordered in any::<bool>(),
    ) {
        let list: SkipList = SkipList::new();
        let (oracle, mut model) = (SkipSet::new(), BTreeSet::new());
        for (seqno, mut keys) in (1..).zip(commits) {
            if ordered {
                keys.sort();
            }
            let mut splice = list.splice();
            for key in keys {
                if model.insert((key.clone(), Reverse(seqno))) {
                    oracle.insert((key.clone(), Reverse(seqno)));
                    insert(&list, &mut splice, &key, seqno);
                }
            }
        }
        prop_assert_eq!(contents(&list), model.iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(contents(&list), oracle.iter().map(|entry| entry.value().clone()).collect::<Vec<_>>());
        check_levels(&list);
        for (key, seqno) in targets {
            let found = list.lower_bound(&key, SeqNo(seqno)).map(|entry| (entry.key().to_vec(), Reverse(entry.seqno().0)));
            prop_assert_eq!(found.as_ref(), model.range((key, Reverse(seqno))..).next());
        }
    }
}

/// Threads insert interleaved runs of ascending keys, each commit with one splice, while readers walk: nothing is lost,
/// everything stays in order, and a reader never sees fewer versions than before.
#[test]
fn threads_lose_nothing() {
    const WRITERS: u64 = 4;
    const COMMITS: u64 = 400;
    const KEYS: u64 = 20;
    let list: Arc<SkipList> = Arc::new(SkipList::new());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let list = &list;
            scope.spawn(move || {
                for commit in 0..COMMITS {
                    let (seqno, mut splice) = (commit * WRITERS + writer + 1, list.splice());
                    for nth in 0..KEYS {
                        let key = (nth * 7 + commit % 3).to_be_bytes();
                        insert(list, &mut splice, &key, seqno);
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut seen = 0;
            while seen < (WRITERS * COMMITS * KEYS) as usize {
                let found = contents(&list);
                assert!(found.is_sorted() && found.len() >= seen);
                seen = found.len();
            }
        });
    });
    check_levels(&list);
}

#[test]
fn samples_spread() {
    let list: SkipList = SkipList::new();
    let mut splice = list.splice();
    for id in 0..10_000u64 {
        insert(&list, &mut splice, &id.to_be_bytes(), 1);
    }
    let sample = list.sample(64);
    assert!((64..1000).contains(&sample.len()), "{}", sample.len());
    assert!(sample.is_sorted_by_key(|entry| entry.key()));
}

/// Two writers and a reader, in every order that memory and scheduler allow: Norris and Demsky (OOPSLA 2013),
/// as loom implements it.
mod every_schedule {
    use loom::sync::atomic::AtomicPtr as LoomPtr;
    use loom::thread;

    use super::*;

    impl Link for LoomPtr<Header> {
        fn null() -> Self {
            LoomPtr::new(ptr::null_mut())
        }

        fn load(&self) -> *mut Header {
            LoomPtr::load(self, Acquire)
        }

        fn set(&self, to: *mut Header) {
            self.store(to, Relaxed);
        }

        fn replace(&self, from: *mut Header, to: *mut Header) -> bool {
            self.compare_exchange(from, to, Release, Relaxed).is_ok()
        }
    }

    type Modelled = SkipList<LoomPtr<Header>>;

    fn put(list: &Modelled, splice: &mut Splice<LoomPtr<Header>>, key: u8, height: usize) {
        list.insert_with_height(splice, height, &[key], SeqNo(1), VersionKind::Put, &[key]);
    }

    fn keys(list: &Modelled, level: usize) -> Vec<u8> {
        let nodes = std::iter::successors(list.head.next(level), |node| node.next(level));
        nodes.map(|node| node.key()[0]).collect()
    }

    /// The first writer inserts two ascending keys with one splice, the other puts keys between and around them.
    fn race(first: [(u8, usize); 2], second: &'static [(u8, usize)]) {
        loom::model(move || {
            let list: loom::sync::Arc<Modelled> = loom::sync::Arc::new(SkipList::new());
            let writer = {
                let list = list.clone();
                thread::spawn(move || {
                    let mut splice = list.splice();
                    for &(key, height) in second {
                        put(&list, &mut splice, key, height);
                    }
                })
            };
            let mut splice = list.splice();
            for (key, height) in first {
                put(&list, &mut splice, key, height);
            }
            let seen = keys(&list, 0);
            assert!(
                seen.is_sorted() && first.iter().all(|(key, _)| seen.contains(key)),
                "own writes are seen: {seen:?}"
            );
            writer.join().unwrap();
            let mut expected: Vec<(u8, usize)> = first.iter().chain(second).copied().collect();
            expected.sort_unstable();
            for level in 0..3 {
                let on_level = expected.iter().filter(|(_, height)| *height > level);
                assert_eq!(keys(&list, level), on_level.map(|(key, _)| *key).collect::<Vec<_>>(), "level {level}");
            }
        });
    }

    #[test]
    fn between_two_of_one_splice() {
        race([(10, 2), (30, 2)], &[(20, 2)]);
    }

    #[test]
    fn around_a_splice() {
        race([(10, 1), (30, 2)], &[(5, 2), (20, 1)]);
    }

    #[test]
    fn a_taller_neighbour() {
        race([(10, 3), (30, 1)], &[(20, 3)]);
    }
}
