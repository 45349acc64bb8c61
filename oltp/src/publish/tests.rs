//! Two threads that commit, or one that commits and one that installs, beside a reader, in every order that memory and
//! scheduler allow: Norris and Demsky (OOPSLA 2013), as loom implements it. What a commit writes and
//! what a layout holds are cells of loom's, so that a read which nothing orders behind the write is noticed as such.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy knows only within a test")]
#![expect(clippy::arc_with_non_send_sync, reason = "loom's cells are shared by what loom checks")]

use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64 as LoomU64, AtomicUsize};
use loom::sync::{Arc as LoomArc, Mutex};
use loom::thread;

use super::*;
use Durability::{Buffered, Durable};

impl Cell for LoomU64 {
    fn new(value: u64) -> LoomU64 {
        LoomU64::new(value)
    }

    fn load(&self, order: Ordering) -> u64 {
        LoomU64::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        LoomU64::store(self, value, order);
    }
}

/// What `arc-swap` promises, and no more: storing releases, loading acquires. Nothing is freed meanwhile.
struct Slot<V> {
    at: AtomicUsize,
    // Of the standard library, which loom does not see, so that it orders nothing.
    all: std::sync::Mutex<Vec<Arc<V>>>,
}

impl<V> Slot<V> {
    fn new(first: V) -> Slot<V> {
        Slot { at: AtomicUsize::new(0), all: std::sync::Mutex::new(vec![Arc::new(first)]) }
    }
}

impl<V> Current<V> for Slot<V> {
    fn load_full(&self) -> Arc<V> {
        let at = self.at.load(Ordering::Acquire);
        Arc::clone(&self.all.lock().unwrap()[at])
    }

    fn with<R>(&self, look: impl FnOnce(&V) -> R) -> R {
        look(&self.load_full())
    }

    fn store(&self, next: Arc<V>) {
        let at = {
            let mut all = self.all.lock().unwrap();
            all.push(next);
            all.len() - 1
        };
        self.at.store(at, Ordering::Release);
    }
}

struct View {
    read_point: Rising<LoomU64>,
    /// Newest commit when the layout was made.
    made_at: UnsafeCell<u64>,
    /// Newest commit when it was replaced.
    replaced_at: std::sync::Mutex<Option<u64>>,
}

impl View {
    fn new(seqno: SeqNo) -> View {
        View {
            read_point: Rising::new(seqno.0),
            made_at: UnsafeCell::new(seqno.0),
            replaced_at: std::sync::Mutex::new(None),
        }
    }
}

impl Layout for View {
    type Cell = LoomU64;

    fn read_point(&self) -> &Rising<LoomU64> {
        &self.read_point
    }
}

struct Sequencer {
    last: u64,
    ring: Ring<LoomU64>,
}

/// The pipeline of `commit` and `wal` with memtables and log of a cell for each commit.
struct Pipeline {
    sequencer: Mutex<Sequencer>,
    memtable: [UnsafeCell<Option<Durability>>; 2],
    /// How far the log is synced, and what of it.
    tail: Mutex<u64>,
    synced: [UnsafeCell<bool>; 2],
    durable: Rising<LoomU64>,
    current: Slot<View>,
}

impl Pipeline {
    fn new() -> Pipeline {
        Pipeline {
            sequencer: Mutex::new(Sequencer { last: 0, ring: Ring::new() }),
            memtable: [UnsafeCell::new(None), UnsafeCell::new(None)],
            tail: Mutex::new(0),
            synced: [UnsafeCell::new(false), UnsafeCell::new(false)],
            durable: Rising::new(0),
            current: Slot::new(View::new(SeqNo::ZERO)),
        }
    }

    fn commit(&self, durability: Durability) {
        let pending = {
            let mut sequencer = self.sequencer.lock().unwrap();
            sequencer.last += 1;
            let last = sequencer.last;
            let pending = Arc::new(Pending::new(SeqNo(last), Lsn(last), durability));
            sequencer.ring.push(Arc::clone(&pending));
            pending
        };
        // SAFETY: a cell for each commit; loom checks that nobody reads it meanwhile.
        self.memtable[pending.seqno.0 as usize - 1].with_mut(|entry| unsafe { *entry = Some(durability) });
        pending.set_applied();
        if durability == Durable {
            self.sync();
        }
        let mut sequencer = self.sequencer.lock().unwrap();
        if let Some(newest) = sequencer.ring.take_ready(Lsn(self.durable.get())) {
            advance(&self.current, newest);
        }
    }

    fn sync(&self) {
        let mut tail = self.tail.lock().unwrap();
        let end = self.sequencer.lock().unwrap().last;
        for at in *tail..end {
            // SAFETY: as above.
            self.synced[at as usize].with_mut(|synced| unsafe { *synced = true });
        }
        *tail = end.max(*tail);
        self.durable.rise(*tail);
    }

    /// Reads everything at the read point, which must not be below `last`.
    fn look(&self, last: u64) -> u64 {
        let at = self.current.load_full().read_point.get();
        assert!(at >= last, "I2: the read point went back");
        for nth in 0..at as usize {
            // SAFETY: as above.
            let durability = self.memtable[nth].with(|entry| unsafe { *entry }).expect("I2: readable and not applied");
            // SAFETY: as above.
            let is_synced = || self.synced[nth].with(|synced| unsafe { *synced });
            assert!(durability == Buffered || is_synced(), "readable, and a power loss would take it");
        }
        at
    }
}

/// Up to two preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says; with 20 all there are, for minutes.
fn model(play: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(play);
}

fn race(durabilities: [Durability; 2]) {
    let newest_seen = Arc::new(AtomicU64::new(0));
    let newest = Arc::clone(&newest_seen);
    model(move || {
        let pipeline = LoomArc::new(Pipeline::new());
        // Not the first thread: loom would run its reads before all else.
        let reader = {
            let (pipeline, newest) = (pipeline.clone(), Arc::clone(&newest));
            thread::spawn(move || {
                let last = pipeline.look(0);
                newest.fetch_max(pipeline.look(last), Ordering::Relaxed);
            })
        };
        let committer = {
            let pipeline = pipeline.clone();
            thread::spawn(move || pipeline.commit(durabilities[1]))
        };
        pipeline.commit(durabilities[0]);
        committer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(pipeline.look(0), 2, "P4: acknowledged and not readable");
    });
    assert_eq!(newest_seen.load(Ordering::Relaxed), 2, "the reader never came late: nothing was tried");
}

#[test]
fn durable_commits_are_read_applied_and_synced() {
    race([Durable, Durable]);
}

#[test]
fn buffered_commits_do_not_overtake_durable_ones() {
    race([Durable, Buffered]);
}

/// Both take turns in the commit mutex; the reader takes no lock.
#[test]
fn a_replaced_layout_keeps_its_read_point() {
    let newest_seen = Arc::new(AtomicU64::new(0));
    let newest = Arc::clone(&newest_seen);
    model(move || {
        let current = LoomArc::new(Slot::new(View::new(SeqNo::ZERO)));
        let mutex = LoomArc::new(Mutex::new(0));
        let reader = {
            let current = current.clone();
            let newest = Arc::clone(&newest);
            thread::spawn(move || {
                let mut last = 0;
                for _ in 0..2 {
                    let view = current.load_full();
                    let at = view.read_point.get();
                    // SAFETY: as above.
                    let made_at = view.made_at.with(|made_at| unsafe { *made_at });
                    assert!(at >= made_at && at >= last, "a layout newer than its read point");
                    let replaced_at = *view.replaced_at.lock().unwrap();
                    assert!(
                        replaced_at.is_none_or(|replaced_at| at <= replaced_at),
                        "an old layout with a newer read point"
                    );
                    last = at;
                }
                newest.fetch_max(last, Ordering::Relaxed);
            })
        };
        let installer = {
            let (current, mutex) = (current.clone(), mutex.clone());
            thread::spawn(move || {
                let _last = mutex.lock().unwrap();
                replace(&*current, |old, seqno| {
                    *old.replaced_at.lock().unwrap() = Some(seqno.0);
                    let next = View::new(SeqNo::ZERO);
                    next.read_point.rise(seqno.0);
                    // SAFETY: nobody else knows it yet; loom checks that whoever finds it is ordered behind this.
                    next.made_at.with_mut(|made_at| unsafe { *made_at = seqno.0 });
                    Arc::new(next)
                });
            })
        };
        for _ in 0..2 {
            let mut last = mutex.lock().unwrap();
            *last += 1;
            advance(&*current, SeqNo(*last));
        }
        installer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(current.load_full().read_point.get(), 2, "a publication is lost");
    });
    assert_eq!(newest_seen.load(Ordering::Relaxed), 2, "the reader never came late: nothing was tried");
}
