//! `RecentCommits`: which keys were committed since the oldest active transaction began.
//!
//! The stores are never searched for conflicts. Two views of the same commits:
//!
//! * *fingerprints*, 64-bit XXH3 hashes of the keys written, always kept: they answer "was this key committed after my
//!   snapshot?" with one hash look-up. Two keys that collide can make a transaction retry for nothing (odds about 1 in
//!   10^15 for two writers with a hundred keys each), never commit wrongly;
//! * *keys*, the sorted bytes of the keys of each commit, kept only while a serializable transaction is open: they answer
//!   "was anything in this range committed?", phantoms included. Kept commit by commit instead of in one ordered map,
//!   because a commit then adds them with one move, and the price is paid by who asks.
//!
//! Always true:
//! * memory stays within [`Room`]; what does not fit is forgotten from the old end, and who would need it is refused;
//! * inside the commit mutex nothing is done once per key for commits above [`LARGE_KEYS`].

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use std::collections::{HashMap, VecDeque};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::Result;
use crate::memory::{MemoryBudget, Reservation};
use crate::seqno::SeqNo;

/// Commits with more keys keep them in one sorted list, because adding each to a map would hold up other commits.
pub(crate) const LARGE_KEYS: usize = 1024;
/// A slot of the map at its worst load, and the entry in the commit's list.
const HASHED_KEY_BYTES: u64 = 48;
/// A commit besides its keys.
const COMMIT_BYTES: u64 = 96;
/// The share of the memory budget that recent commits may count on.
const CERTAIN_SHARE: u64 = 8;
/// The room grows and shrinks in steps of this size.
const ROOM_STEP_BYTES: u64 = 256 << 10;

/// What a full key is remembered by.
pub(crate) fn fingerprint(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Recently committed keys, for validation. Guarded by the commit mutex.
#[derive(Debug)]
pub(crate) struct RecentCommits {
    room: Arc<Room>,
    /// Newest commit of each key of the small commits.
    newest: HashMap<u64, SeqNo, PassThrough>,
    small: VecDeque<(SeqNo, Vec<u64>)>,
    large: VecDeque<(SeqNo, Arc<[u64]>)>,
    keys: VecDeque<Arc<CommitKeys>>,
    /// Commits at or below this are forgotten.
    forgotten: SeqNo,
    /// Of commits at or below this, the keys were forgotten or never kept.
    keys_forgotten: SeqNo,
}

/// What was committed after some point, as far as one look goes.
#[derive(Debug, Default)]
pub(crate) struct Since {
    /// The look covers commits up to here.
    pub(crate) through: SeqNo,
    pub(crate) fingerprints: Vec<u64>,
    /// Ascending, each.
    pub(crate) large: Vec<Arc<[u64]>>,
    pub(crate) keys: Vec<Arc<CommitKeys>>,
}

/// Needed history was dropped: nobody can tell any more whether a conflict happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten;

impl RecentCommits {
    pub(crate) fn new(room: Arc<Room>) -> RecentCommits {
        RecentCommits {
            room,
            newest: HashMap::default(),
            small: VecDeque::new(),
            large: VecDeque::new(),
            keys: VecDeque::new(),
            forgotten: SeqNo::ZERO,
            keys_forgotten: SeqNo::ZERO,
        }
    }

    /// One of `fingerprints`, ascending, that was committed after `snapshot`.
    pub(crate) fn find(&self, fingerprints: &[u64], snapshot: SeqNo) -> Result<Option<u64>, Forgotten> {
        if snapshot < self.forgotten && !fingerprints.is_empty() {
            return Err(Forgotten);
        }
        let is_newer = |key: &&u64| self.newest.get(*key).is_some_and(|seqno| *seqno > snapshot);
        let found = fingerprints.iter().find(is_newer).copied();
        let newer = self.large.iter().rev().take_while(|(seqno, _)| *seqno > snapshot);
        Ok(found.or_else(|| newer.filter_map(|(_, keys)| common(fingerprints, keys)).next()))
    }

    /// Commits after `after`: about `count_max` fingerprints and as many commits' keys, oldest first. Of the keys only
    /// if `with_keys`, of the fingerprints only if `with_fingerprints`.
    pub(crate) fn since(
        &self,
        after: SeqNo,
        last: SeqNo,
        with: (bool, bool),
        count_max: usize,
    ) -> Result<Since, Forgotten> {
        let (with_fingerprints, with_keys) = with;
        if (with_fingerprints && after < self.forgotten) || (with_keys && after < self.keys_forgotten) {
            return Err(Forgotten);
        }
        let mut since = Since { through: last, ..Since::default() };
        if with_fingerprints {
            for (seqno, fingerprints) in self.small.range(first_after(&self.small, after, |(seqno, _)| *seqno)..) {
                if since.fingerprints.len() >= count_max {
                    break;
                }
                since.fingerprints.extend_from_slice(fingerprints);
                since.through = *seqno;
            }
            if since.fingerprints.len() < count_max {
                since.through = last;
            }
            let from = first_after(&self.large, after, |(seqno, _)| *seqno);
            let covered = self.large.range(from..).take_while(|(seqno, _)| *seqno <= since.through);
            since.large.extend(covered.map(|(_, fingerprints)| Arc::clone(fingerprints)));
        }
        if with_keys {
            let from = first_after(&self.keys, after, |keys| keys.seqno);
            let covered = self.keys.range(from..).take_while(|keys| keys.seqno <= since.through);
            since.keys.extend(covered.take(count_max).cloned());
            if since.keys.len() == count_max
                && let Some(keys) = since.keys.last()
            {
                since.through = keys.seqno;
            }
        }
        Ok(since)
    }

    /// Remembers a commit; `fingerprints` ascend. Without `keys`, earlier ones are of no use any more.
    pub(crate) fn insert(&mut self, seqno: SeqNo, fingerprints: Vec<u64>, keys: Option<CommitKeys>) {
        self.room.charge(fingerprint_bytes(fingerprints.len()));
        if fingerprints.len() > LARGE_KEYS {
            self.large.push_back((seqno, fingerprints.into()));
        } else {
            for key in &fingerprints {
                self.newest.insert(*key, seqno);
            }
            self.small.push_back((seqno, fingerprints));
        }
        match keys {
            Some(mut keys) => {
                keys.seqno = seqno;
                self.room.charge(keys.memory_bytes());
                self.keys.push_back(Arc::new(keys));
            }
            None => self.forget_keys(seqno),
        }
        while self.room.is_over() {
            match self.keys.front().map(|keys| keys.seqno) {
                Some(oldest) => self.forget_keys(oldest),
                None => match self.oldest() {
                    Some(oldest) => self.forget(oldest),
                    None => break,
                },
            }
        }
    }

    fn oldest(&self) -> Option<SeqNo> {
        let small = self.small.front().map(|(seqno, _)| *seqno);
        let large = self.large.front().map(|(seqno, _)| *seqno);
        small.into_iter().chain(large).min()
    }

    /// Forgets commits at or below `watermark`.
    pub(crate) fn forget(&mut self, watermark: SeqNo) {
        while let Some((seqno, keys)) = self.small.pop_front_if(|(seqno, _)| *seqno <= watermark) {
            for key in &keys {
                if self.newest.get(key) == Some(&seqno) {
                    self.newest.remove(key);
                }
            }
            self.room.give_back(fingerprint_bytes(keys.len()));
        }
        while let Some((_, keys)) = self.large.pop_front_if(|(seqno, _)| *seqno <= watermark) {
            self.room.give_back(fingerprint_bytes(keys.len()));
        }
        self.forgotten = self.forgotten.max(watermark);
    }

    /// Forgets the keys, not the fingerprints, of commits at or below `watermark`.
    pub(crate) fn forget_keys(&mut self, watermark: SeqNo) {
        while let Some(keys) = self.keys.pop_front_if(|keys| keys.seqno <= watermark) {
            self.room.give_back(keys.memory_bytes());
        }
        self.keys_forgotten = self.keys_forgotten.max(watermark);
    }

    /// Of commits at or below this no keys are known.
    pub(crate) fn keys_forgotten(&self) -> SeqNo {
        self.keys_forgotten
    }
}

fn fingerprint_bytes(count: usize) -> u64 {
    COMMIT_BYTES + count as u64 * if count > LARGE_KEYS { 8 } else { HASHED_KEY_BYTES }
}

fn first_after<T>(commits: &VecDeque<T>, after: SeqNo, seqno: impl Fn(&T) -> SeqNo) -> usize {
    commits.partition_point(|commit| seqno(commit) <= after)
}

/// An element of both lists, which ascend. The cost is that of looking the shorter one up in the longer one.
pub(crate) fn common(a: &[u64], b: &[u64]) -> Option<u64> {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    short.iter().find(|key| long.binary_search(key).is_ok()).copied()
}

/// The full keys of one commit, ascending, in two allocations.
#[derive(Debug)]
pub(crate) struct CommitKeys {
    pub(crate) seqno: SeqNo,
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl CommitKeys {
    /// Of keys that ascend, together shorter than 4 GiB, which the commit record ensures.
    pub(crate) fn new<'a>(keys: impl Iterator<Item = &'a [u8]>) -> CommitKeys {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for key in keys {
            bytes.extend_from_slice(key);
            ends.push(bytes.len() as u32);
        }
        CommitKeys { seqno: SeqNo::ZERO, bytes, ends }
    }

    fn key(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start as usize..self.ends[at] as usize]
    }

    /// The first key in `start..end`, if there is one.
    pub(crate) fn find(&self, start: &[u8], end: &[u8]) -> Option<&[u8]> {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < start { low = middle + 1 } else { high = middle }
        }
        (low < self.ends.len()).then(|| self.key(low)).filter(|key| *key < end)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        COMMIT_BYTES + self.bytes.capacity() as u64 + 4 * self.ends.capacity() as u64
    }
}

/// Memory that recent commits may take: reserved outside the commit mutex, because a reservation may have to wait for a
/// cache to shrink, and used inside.
#[derive(Debug)]
pub(crate) struct Room {
    reservation: Reservation,
    used_bytes: AtomicU64,
    bytes_max: u64,
    /// Up to here the room is taken whether it fits or not: with none at all, no transaction that is open while memory is
    /// short could commit.
    certain_bytes_max: u64,
}

impl Room {
    pub(crate) fn new(budget: &Arc<MemoryBudget>, bytes_max: u64) -> Result<Arc<Room>> {
        let reservation = budget.reserve("recent commits", 0)?;
        let certain_bytes_max = bytes_max.min(budget.limit() / CERTAIN_SHARE);
        Ok(Arc::new(Room { reservation, used_bytes: AtomicU64::new(0), bytes_max, certain_bytes_max }))
    }

    /// Makes room for `key_count` more keys of `key_bytes` bytes. If the budget has none, returns how much is missing: without
    /// it history gets shorter, which costs retries, not correctness.
    pub(crate) fn prepare(&self, key_count: usize, key_bytes: u64) -> Result<(), u64> {
        let wanted = self.used_bytes.load(Ordering::Relaxed) + fingerprint_bytes(key_count) + key_bytes;
        let held = self.reservation.bytes();
        if wanted > held && held < self.bytes_max {
            let missing = (wanted - held).min(self.bytes_max - held);
            let step = ROOM_STEP_BYTES.max(missing).min(self.bytes_max - held);
            let grown = self.reservation.try_grow(step).or_else(|_| self.reservation.try_grow(missing));
            if grown.is_err() && held + missing > self.certain_bytes_max {
                return Err(missing);
            }
            if grown.is_err() {
                self.reservation.grow(missing);
            }
        }
        Ok(())
    }

    fn charge(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        let used = self.used_bytes.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if self.reservation.bytes() > used + 4 * ROOM_STEP_BYTES {
            self.reservation.shrink(2 * ROOM_STEP_BYTES);
        }
    }

    fn is_over(&self) -> bool {
        self.used_bytes.load(Ordering::Relaxed) > self.reservation.bytes()
    }
}

/// For keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassThrough;

impl std::hash::BuildHasher for PassThrough {
    type Hasher = PassThroughHasher;

    fn build_hasher(&self) -> PassThroughHasher {
        PassThroughHasher(0)
    }
}

pub(crate) struct PassThroughHasher(u64);

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
mod tests;
