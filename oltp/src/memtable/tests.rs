//! The memtable against a sorted map of (key, newest first), and its life cycle.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::Memtable;
use crate::commit::record::CommitRecord;
use crate::iter::{Cursor, Overlay, Version, VersionKind};
use crate::memory::MemoryBudget;
use crate::schema::TableId;
use crate::seqno::SeqNo;

type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

fn build(history: &[(Vec<u8>, Option<Vec<u8>>)]) -> (Arc<Memtable>, Model) {
    let (memtable, mut model, budget) = (Arc::new(Memtable::new()), Model::new(), MemoryBudget::new(1 << 20));
    for (at, (key, value)) in history.iter().enumerate() {
        let seqno = at as u64 + 1;
        memtable.announce(SeqNo(seqno));
        let kind = if value.is_some() { VersionKind::Put } else { VersionKind::Delete };
        memtable.apply(
            &budget,
            SeqNo(seqno),
            std::iter::once((key.as_slice(), kind, value.as_deref().unwrap_or_default())),
        );
        model.insert((key.clone(), Reverse(seqno)), value.clone());
    }
    (memtable, model)
}

fn history() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Vec<u8>>)>> {
    let key = prop::collection::vec(0u8..4, 0..4);
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..8));
    prop::collection::vec((key, value), 0..700)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn get_finds_the_newest_version_at_or_below(history in history(), key in prop::collection::vec(0u8..4, 0..4), at in 0u64..800) {
        let (memtable, model) = build(&history);
        let expected = model
            .range((key.clone(), Reverse(at))..)
            .next()
            .filter(|((found, _), _)| *found == key)
            .map(|((_, Reverse(seqno)), value)| (SeqNo(*seqno), value.clone()));
        let found = memtable.get(&key, SeqNo(at)).map(|(seqno, kind, value)| {
            (seqno, (kind == VersionKind::Put).then(|| value.to_vec()))
        });
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_cursor_walks_in_order_from_any_seek(history in history(), key in prop::collection::vec(0u8..4, 0..4), at in 0u64..800) {
        let (memtable, model) = build(&history);
        let mut cursor = memtable.cursor();
        cursor.seek(&key, SeqNo(at)).unwrap();
        for ((key, Reverse(seqno)), value) in model.range((key, Reverse(at))..) {
            prop_assert!(cursor.valid());
            prop_assert_eq!(cursor.key(), key.as_slice());
            prop_assert_eq!(cursor.seqno(), SeqNo(*seqno));
            prop_assert_eq!(cursor.value(), value.as_deref().unwrap_or_default());
            cursor.next().unwrap();
        }
        prop_assert!(!cursor.valid());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One commit's record as a memtable, and the same commit applied to a list, answer alike.
    #[test]
    fn a_batch_is_the_list_of_its_commit(
        rows in prop::collection::btree_map(prop::collection::vec(0u8..4, 0..4), prop::option::of(prop::collection::vec(any::<u8>(), 0..8)), 1..60),
        key in prop::collection::vec(0u8..4, 0..4),
        at in 5u64..10,
        parts in 1usize..5,
    ) {
        let budget = MemoryBudget::new(1 << 20);
        let full = |key: &[u8]| [&[0, 0, 0, 7][..], key].concat();
        let overlay: Overlay = rows.iter().map(|(key, row)| (full(key), row.clone().map(Arc::from))).collect();
        let record = CommitRecord::encode(&BTreeMap::from([(TableId(7), Arc::new(overlay))])).unwrap();
        let range = record.tables[0].1.clone();
        let batch = Arc::new(Memtable::of_commit(&budget, Arc::clone(&record.entries), range.clone(), SeqNo(7)));
        let list = Arc::new(Memtable::new());
        list.announce(SeqNo(7));
        list.apply(&budget, SeqNo(7), record.versions(range));

        prop_assert_eq!(batch.entry_count(), list.entry_count());
        prop_assert_eq!(batch.seqno_range(), list.seqno_range());
        prop_assert_eq!(batch.get(&full(&key), SeqNo(at)), list.get(&full(&key), SeqNo(at)));
        for seek in [None, Some(SeqNo(at)), Some(SeqNo::MAX)] {
            let rest = |memtable: &Arc<Memtable>| {
                let mut cursor = memtable.cursor();
                match seek {
                    Some(seqno) => cursor.seek(&full(&key), seqno).unwrap(),
                    None => cursor.next().unwrap(),
                }
                Version::rest_of(&mut cursor).unwrap()
            };
            prop_assert_eq!(rest(&batch), rest(&list));
        }
        let cuts = batch.split_keys(parts);
        prop_assert!(cuts.len() < parts.max(2) && cuts.is_sorted() && cuts.iter().all(|cut| rows.contains_key(&cut[4..])));
        drop(list);
        prop_assert!(budget.used() >= record.bytes().len() as u64 / 2, "a batch is charged for its record");
    }
}

#[test]
fn sealing_waits_for_announced_commits() {
    let memtable = Arc::new(Memtable::new());
    memtable.announce(SeqNo(7));
    let waiter = {
        let memtable = Arc::clone(&memtable);
        std::thread::spawn(move || {
            memtable.wait_applied();
            memtable.entry_count()
        })
    };
    let versions: [(&[u8], _, &[u8]); 2] = [(b"a", VersionKind::Put, b"1"), (b"b", VersionKind::Delete, b"")];
    memtable.apply(&MemoryBudget::new(1 << 20), SeqNo(7), versions.into_iter());
    assert_eq!(waiter.join().unwrap(), 2, "the flush must see the whole commit");
    assert_eq!(memtable.seqno_range(), (SeqNo(7), SeqNo(7)));
}
