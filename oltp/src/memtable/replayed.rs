//! `Replayed`: versions read back from the log, collected and sorted before they enter a memtable.
//!
//! A version that enters a large list at random reads a dozen nodes that no cache holds. In order, each finds its place
//! beside the one before it; sorting costs less than a fifth of what it saves.

use std::cmp::{Ordering, Reverse};

use crate::iter::VersionKind;
use crate::seqno::SeqNo;

/// What a version takes in a memtable besides key and value: header and tower.
const VERSION_OVERHEAD_BYTES: u64 = 48;
/// Bytes of a key that are compared without following a pointer.
const PREFIX_BYTES: usize = 16;

/// Versions of one table in the order of their arrival, until they are sorted.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    versions: Vec<Version>,
    /// Keys and values, each key before its value.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Version {
    /// The first bytes of the key, zero-filled, as a number. Where two differ, their keys have the same order.
    prefix: u128,
    seqno: SeqNo,
    at: usize,
    key_bytes: u32,
    value_bytes: u32,
    kind: VersionKind,
}

impl Replayed {
    /// Adds a copy of a version.
    pub(crate) fn push(&mut self, key: &[u8], seqno: SeqNo, kind: VersionKind, value: &[u8]) {
        let mut prefix = [0; PREFIX_BYTES];
        let known = key.len().min(PREFIX_BYTES);
        prefix[..known].copy_from_slice(&key[..known]);
        // Both come from one frame of the log, which is shorter than 4 GiB.
        let (key_bytes, value_bytes) = (key.len() as u32, value.len() as u32);
        let at = self.bytes.len();
        self.versions.push(Version { prefix: u128::from_be_bytes(prefix), seqno, at, key_bytes, value_bytes, kind });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// What its versions will take in a memtable, about.
    pub(crate) fn memtable_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.versions.len() as u64 * VERSION_OVERHEAD_BYTES
    }

    /// Oldest and newest commit of its versions, `None` if there are none.
    pub(crate) fn seqno_range(&self) -> Option<(SeqNo, SeqNo)> {
        let seqnos = || self.versions.iter().map(|version| version.seqno);
        seqnos().min().zip(seqnos().max())
    }

    /// Puts the versions into the order of a memtable: by key, the newest of each first.
    pub(crate) fn sort(&mut self) {
        let Replayed { versions, bytes } = self;
        let key = |version: &Version| &bytes[version.at..][..version.key_bytes as usize];
        versions.sort_unstable_by(|left, right| match left.prefix.cmp(&right.prefix) {
            Ordering::Equal => (key(left), Reverse(left.seqno)).cmp(&(key(right), Reverse(right.seqno))),
            unequal => unequal,
        });
    }

    /// Key, SeqNo, kind and value of each version.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&[u8], SeqNo, VersionKind, &[u8])> {
        self.versions.iter().map(|version| {
            let bytes = &self.bytes[version.at..][..version.key_bytes as usize + version.value_bytes as usize];
            let (key, value) = bytes.split_at(version.key_bytes as usize);
            (key, version.seqno, version.kind, value)
        })
    }

    /// Forgets the versions and keeps the memory for the next.
    pub(crate) fn clear(&mut self) {
        self.versions.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Keys of few letters, some empty, many the same, many a prefix of the next: as a plain sort has them.
        #[test]
        fn the_order_is_that_of_a_memtable(
            keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..20), 0..60),
        ) {
            let mut replayed = Replayed::default();
            for (at, key) in keys.iter().enumerate() {
                replayed.push(key, SeqNo(at as u64 + 1), VersionKind::Put, &[at as u8]);
            }
            replayed.sort();
            let mut expected: Vec<_> =
                keys.iter().enumerate().map(|(at, key)| (key.clone(), Reverse(SeqNo(at as u64 + 1)), vec![at as u8])).collect();
            expected.sort();
            let found: Vec<_> =
                replayed.versions().map(|(key, seqno, _, value)| (key.to_vec(), Reverse(seqno), value.to_vec())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
