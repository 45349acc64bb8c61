//! `ReadSet`: what a transaction read and must find unchanged when it commits.
//!
//! Single keys are held as fingerprints, absent ones included; ranges as their bounds, merged where they touch. Memory is
//! bounded by giving up precision: more than [`KEYS_MAX`] keys of a table become the whole table, more than
//! [`RANGES_MAX`] ranges of it the one range around them. That can refuse a commit for nothing, never let one pass. Source of
//! the idea: granularity promotion of PostgreSQL's predicate locks (Ports and Grittner, VLDB 2012).

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use crate::key::prefix_range;
use crate::memory::Reservation;
use crate::schema::TableId;
use crate::txn::conflict::{PassThrough, fingerprint};

/// Keys of one table that are told apart: 1 MiB of fingerprints and slots.
const KEYS_MAX: usize = 1 << 16;
/// Ranges of one table that are told apart.
const RANGES_MAX: usize = 1 << 10;
/// A slot of the hash set, at the load where it grows.
const KEY_BYTES: u64 = 16;
/// Bookkeeping of one range besides its bounds.
const RANGE_OVERHEAD_BYTES: u64 = 80;
/// The reservation grows in steps of this size.
const STEP_BYTES: u64 = 64 << 10;

/// Keys and ranges that were read.
#[derive(Debug, Default)]
pub(crate) struct ReadSet {
    tables: BTreeMap<TableId, TableReads>,
    bytes: u64,
    reserved_bytes: u64,
}

#[derive(Debug, Default)]
struct TableReads {
    keys: HashSet<u64, PassThrough>,
    /// Start → end, exclusive. Neither overlapping nor touching.
    ranges: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl ReadSet {
    /// Remembers that `key` was read, present or absent.
    pub(crate) fn note_key(&mut self, table: TableId, key: &[u8], reservation: &Reservation) {
        let reads = self.tables.entry(table).or_default();
        if reads.covers(key) || !reads.keys.insert(fingerprint(key)) {
            return;
        }
        self.bytes += KEY_BYTES;
        let too_many = reads.keys.len() > KEYS_MAX;
        if too_many || !self.has_room(reservation) {
            self.note_table(table);
        }
    }

    /// Remembers that everything in `start..end` was read, and nothing else found there.
    pub(crate) fn note_range(&mut self, table: TableId, start: &[u8], end: &[u8], reservation: &Reservation) {
        if start >= end {
            return;
        }
        let reads = self.tables.entry(table).or_default();
        self.bytes += reads.add_range(start, end);
        if reads.ranges.len() > RANGES_MAX {
            reads.merge_all();
        }
        if !self.has_room(reservation) {
            self.note_table(table);
        }
    }

    /// Remembers that all of `table` was read: the coarsest note, and the smallest.
    fn note_table(&mut self, table: TableId) {
        let reads = self.tables.entry(table).or_default();
        reads.keys = HashSet::default();
        // Of all its indexes.
        let range = prefix_range(&table.0.to_be_bytes());
        reads.add_range(&range.start, &range.end);
    }

    fn has_room(&mut self, reservation: &Reservation) -> bool {
        if self.bytes > self.reserved_bytes {
            let step = STEP_BYTES.max(self.bytes - self.reserved_bytes);
            if reservation.try_grow(step).is_err() {
                return false;
            }
            self.reserved_bytes += step;
        }
        true
    }

    /// Fingerprints of the keys read, ascending.
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.tables.values().flat_map(|reads| reads.keys.iter().copied()).collect();
        keys.sort_unstable();
        keys
    }

    /// The table whose key has this fingerprint, if one was read.
    pub(crate) fn table_of(&self, fingerprint: u64) -> Option<TableId> {
        self.tables.iter().find(|(_, reads)| reads.keys.contains(&fingerprint)).map(|(table, _)| *table)
    }

    /// The ranges read, with their tables.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (TableId, &[u8], &[u8])> {
        self.tables
            .iter()
            .flat_map(|(table, reads)| reads.ranges.iter().map(|(start, end)| (*table, &start[..], &end[..])))
    }
}

impl TableReads {
    fn covers(&self, key: &[u8]) -> bool {
        let before = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, end)| end.as_slice() > key)
    }

    /// Adds a range, united with those that it touches; returns the bytes that it takes at most.
    fn add_range(&mut self, start: &[u8], end: &[u8]) -> u64 {
        let (mut start, mut end) = (start.to_vec(), end.to_vec());
        let touching = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(&end[..]))).rev();
        let touching: Vec<Vec<u8>> =
            touching.take_while(|(_, until)| until.as_slice() >= &start[..]).map(|(from, _)| from.clone()).collect();
        for from in touching {
            if let Some(until) = self.ranges.remove(&from) {
                end = end.max(until);
            }
            start = start.min(from);
        }
        let bytes = (start.len() + end.len()) as u64 + RANGE_OVERHEAD_BYTES;
        self.ranges.insert(start, end);
        bytes
    }

    fn merge_all(&mut self) {
        let ranges = std::mem::take(&mut self.ranges);
        // They do not overlap, so the last one ends last.
        if let (Some((start, _)), Some((_, end))) = (ranges.first_key_value(), ranges.last_key_value()) {
            self.ranges.insert(start.clone(), end.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemoryBudget;

    const TABLE: TableId = TableId(7);

    fn key(rest: &[u8]) -> Vec<u8> {
        [&TABLE.0.to_be_bytes()[..], rest].concat()
    }

    proptest! {
        /// A key is covered exactly if it lies in one of the ranges noted, and those kept neither overlap nor touch.
        #[test]
        fn ranges_unite_to_the_same_set(ranges in prop::collection::vec((0u8..20, 0u8..20), 0..20), probe in 0u8..20) {
            let reservation = MemoryBudget::new(1 << 20).reserve("test", 0).unwrap();
            let mut reads = ReadSet::default();
            for (start, end) in &ranges {
                reads.note_range(TABLE, &key(&[*start]), &key(&[*end]), &reservation);
            }
            let expected = ranges.iter().any(|(start, end)| (start..end).contains(&&probe));
            let kept: Vec<_> = reads.ranges().collect();
            let found = kept.iter().any(|(_, start, end)| *start <= &key(&[probe])[..] && &key(&[probe])[..] < *end);
            prop_assert_eq!(found, expected);
            prop_assert!(kept.windows(2).all(|pair| pair[0].2 < pair[1].1));
        }
    }

    #[test]
    fn too_much_to_remember_becomes_the_whole_table() {
        let budget = MemoryBudget::new(100 << 10);
        let reservation = budget.reserve("test", 0).unwrap();
        let mut reads = ReadSet::default();
        let (first, last) = (key(&[0, 0, 0]), key(&[0xFF, 0xFF]));
        for id in 0..10_000u16 {
            reads.note_key(TABLE, &key(&id.to_be_bytes()), &reservation);
        }
        let whole: Vec<_> = reads.ranges().collect();
        assert_eq!(whole.len(), 1, "the budget does not hold ten thousand keys");
        assert!(whole[0].1 <= &first[..] && &last[..] < whole[0].2);
        assert!(reads.fingerprints().is_empty(), "a range covers later keys");
        assert!(budget.used() <= 100 << 10);
    }

    #[test]
    fn too_many_ranges_become_the_one_around_them() {
        let reservation = MemoryBudget::new(1 << 30).reserve("test", 0).unwrap();
        let mut reads = ReadSet::default();
        for id in 0..=RANGES_MAX as u16 {
            reads.note_range(TABLE, &key(&(2 * id).to_be_bytes()), &key(&(2 * id + 1).to_be_bytes()), &reservation);
        }
        let last = 2 * RANGES_MAX as u16 + 1;
        assert_eq!(reads.ranges().collect::<Vec<_>>(), [(TABLE, &key(&[0, 0])[..], &key(&last.to_be_bytes())[..])]);
    }
}
