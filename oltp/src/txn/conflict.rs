//! First committer wins: which keys were committed since the oldest active transaction began.
//!
//! The stores are never searched for conflicts. Keys are held as 64-bit XXH3 hashes: two keys that collide can make a
//! transaction retry for nothing (odds about 1 in 10^15 per pair of writers), never commit wrongly.

use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_64;

use crate::seqno::SeqNo;

/// Newest commit of each recently written key.
#[derive(Debug, Default)]
pub(crate) struct ConflictIndex {
    newest: HashMap<u64, SeqNo, PassThrough>,
    commits: VecDeque<(SeqNo, Vec<u64>)>,
    /// Commits at or below this are forgotten: no transaction began before them.
    forgotten: SeqNo,
}

/// What a full key is remembered by.
pub(crate) fn fingerprint(key: &[u8]) -> u64 {
    xxh3_64(key)
}

impl ConflictIndex {
    /// The position in `keys` of a key that was committed after `snapshot`.
    pub(crate) fn find(&self, keys: &[u64], snapshot: SeqNo) -> Option<usize> {
        debug_assert!(snapshot >= self.forgotten, "a transaction older than the index cannot be validated");
        keys.iter().position(|key| self.newest.get(key).is_some_and(|seqno| *seqno > snapshot))
    }

    /// Remembers a commit.
    pub(crate) fn insert(&mut self, seqno: SeqNo, keys: Vec<u64>) {
        for key in &keys {
            self.newest.insert(*key, seqno);
        }
        self.commits.push_back((seqno, keys));
    }

    /// Forgets commits at or below `watermark`.
    pub(crate) fn forget(&mut self, watermark: SeqNo) {
        while let Some((seqno, _)) = self.commits.front()
            && *seqno <= watermark
        {
            let Some((seqno, keys)) = self.commits.pop_front() else { return };
            for key in keys {
                if self.newest.get(&key) == Some(&seqno) {
                    self.newest.remove(&key);
                }
            }
        }
        self.forgotten = self.forgotten.max(watermark);
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct PassThrough;

impl std::hash::BuildHasher for PassThrough {
    type Hasher = PassThroughHasher;

    fn build_hasher(&self) -> PassThroughHasher {
        PassThroughHasher(0)
    }
}

struct PassThroughHasher(u64);

impl std::hash::Hasher for PassThroughHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_committer_of_a_key_is_found_and_old_commits_are_forgotten() {
        let mut index = ConflictIndex::default();
        index.insert(SeqNo(5), vec![fingerprint(b"a"), fingerprint(b"b")]);
        index.insert(SeqNo(6), vec![fingerprint(b"b")]);
        let keys = [fingerprint(b"c"), fingerprint(b"b")];
        assert_eq!(index.find(&keys, SeqNo(5)), Some(1));
        assert_eq!(index.find(&keys, SeqNo(6)), None);
        index.forget(SeqNo(5));
        assert_eq!(index.find(&[fingerprint(b"b")], SeqNo(5)), Some(0), "the newer commit of b stays");
        index.forget(SeqNo(6));
        assert!(index.newest.is_empty() && index.commits.is_empty());
    }
}
