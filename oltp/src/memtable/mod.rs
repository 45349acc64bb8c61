//! `Memtable`: the newest versions of one table, in memory, sorted.
//!
//! Life: active (takes commits) → sealed (no new commit is routed to it) → flushed to a run and dropped.
//!
//! Always true:
//! * entries are only added, so a reader needs no lock: versions above its snapshot are skipped (I7);
//! * an entry is a copy of its bytes in the commit's record, which goes when the commit is applied;
//! * a sealed memtable may still receive the commits that were routed to it before it was sealed; `wait_applied`
//!   returns when the last of them has arrived.

mod arena;
mod skiplist;

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::memory::{MemoryBudget, Reservation};
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use skiplist::{Entry, Position, SkipList};

/// Versions of one table, sorted by (key, newest first). Shared by writers and readers.
pub struct Memtable {
    versions: SkipList,
    entry_count: AtomicU64,
    bytes: AtomicU64,
    seqno_min: AtomicU64,
    seqno_max: AtomicU64,
    arrivals: Mutex<Arrivals>,
    applied: Condvar,
}

/// What changes as commits arrive.
#[derive(Default)]
struct Arrivals {
    /// Announced and not arrived.
    in_flight: u64,
    /// Threads that wait for the last arrival: waking nobody costs a system call as well.
    waiters: u64,
    /// What has arrived, in the name of the budget it came from.
    reservation: Option<Reservation>,
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memtable").field("entries", &self.entry_count()).field("bytes", &self.bytes()).finish()
    }
}

impl Default for Memtable {
    fn default() -> Self {
        Memtable::new()
    }
}

impl Memtable {
    /// An empty memtable.
    #[must_use]
    pub fn new() -> Memtable {
        Memtable {
            versions: SkipList::new(),
            entry_count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            seqno_min: AtomicU64::new(u64::MAX),
            seqno_max: AtomicU64::new(0),
            arrivals: Mutex::default(),
            applied: Condvar::new(),
        }
    }

    /// Announces a commit that will be applied; called in the commit mutex, so that sealing cannot miss it.
    pub fn announce(&self, seqno: SeqNo) {
        self.seqno_min.fetch_min(seqno.0, AcqRel);
        self.seqno_max.fetch_max(seqno.0, AcqRel);
        self.arrivals().in_flight += 1;
    }

    /// Adds the announced commit's versions, each a key, what happens to it, and the row. Several threads may do this at
    /// once; it is quickest when the keys ascend. What they take comes from `budget`, whether or not it fits, for as long as
    /// the memtable lives: the commit has its place in the log and cannot be refused any more.
    ///
    /// # Panics
    /// Never: an empty reservation always fits.
    pub fn apply<'a>(
        &self,
        budget: &Arc<MemoryBudget>,
        seqno: SeqNo,
        versions: impl Iterator<Item = (&'a [u8], VersionKind, &'a [u8])>,
    ) {
        let (mut entry_count, mut bytes) = (0, 0);
        let mut splice = self.versions.splice();
        for (key, kind, value) in versions {
            entry_count += 1;
            bytes += self.versions.insert(&mut splice, key, seqno, kind, value) as u64;
        }
        self.entry_count.fetch_add(entry_count, Relaxed);
        self.bytes.fetch_add(bytes, Release);
        let mut arrivals = self.arrivals();
        let reserve = || budget.reserve("memtables", 0).expect("nothing always fits");
        arrivals.reservation.get_or_insert_with(reserve).grow(bytes);
        arrivals.in_flight -= 1;
        if arrivals.waiters > 0 {
            self.applied.notify_all();
        }
    }

    /// Blocks until every announced commit has been applied.
    pub fn wait_applied(&self) {
        let mut arrivals = self.arrivals();
        arrivals.waiters += 1;
        while arrivals.in_flight > 0 {
            arrivals = self.applied.wait(arrivals).unwrap_or_else(PoisonError::into_inner);
        }
        arrivals.waiters -= 1;
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of versions applied so far.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.entry_count.load(Relaxed)
    }

    /// Bytes of the versions applied so far, with all that goes with them. The arena has up to a mebibyte more, for the next.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Acquire)
    }

    /// Whether no commit was ever announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seqno_max.load(Acquire) == 0
    }

    /// Smallest and largest commit announced; meaningless while empty.
    #[must_use]
    pub fn seqno_range(&self) -> (SeqNo, SeqNo) {
        (SeqNo(self.seqno_min.load(Acquire)), SeqNo(self.seqno_max.load(Acquire)))
    }

    /// The newest version of `key` at or below `at`, and its row bytes, empty for a delete.
    #[must_use]
    pub fn get(&self, key: &[u8], at: SeqNo) -> Option<(SeqNo, VersionKind, &[u8])> {
        let entry = self.versions.lower_bound(key, at)?;
        (entry.key() == key).then(|| (entry.seqno(), entry.kind(), entry.value()))
    }

    /// A cursor over all versions, including those added while it moves.
    #[must_use]
    pub fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor { memtable: Arc::clone(self), at: None, started: false }
    }

    /// Up to `parts - 1` keys that cut the memtable into parts of about equal size, ascending. Looks at a sample.
    #[must_use]
    pub fn split_keys(&self, parts: usize) -> Vec<Vec<u8>> {
        if parts < 2 {
            return Vec::new();
        }
        let sample = self.versions.sample(parts * SAMPLES_PER_PART);
        let cuts = (1..parts).filter_map(|part| sample.get(part * sample.len() / parts));
        let mut keys: Vec<Vec<u8>> = cuts.map(|entry| entry.key().to_vec()).collect();
        keys.dedup();
        keys
    }
}

/// Enough for parts that differ by a factor of two at most, nearly always.
const SAMPLES_PER_PART: usize = 16;

/// Walks a memtable.
pub struct MemtableCursor {
    memtable: Arc<Memtable>,
    at: Option<Position>,
    started: bool,
}

impl MemtableCursor {
    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        // SAFETY: positions of this cursor come from the list of its memtable, which it keeps alive.
        self.at.map(|position| unsafe { self.memtable.versions.at(position) })
    }

    /// The current entry.
    ///
    /// # Panics
    /// If the cursor does not stand on one: the caller has not looked.
    #[inline]
    #[expect(clippy::expect_used, reason = "the contract of `Cursor`")]
    fn current(&self) -> Entry<'_> {
        self.entry().expect("the cursor stands on an entry")
    }
}

impl Cursor for MemtableCursor {
    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> &[u8] {
        self.current().key()
    }

    fn seqno(&self) -> SeqNo {
        self.current().seqno()
    }

    fn kind(&self) -> VersionKind {
        self.current().kind()
    }

    fn value(&self) -> &[u8] {
        self.current().value()
    }

    fn next(&mut self) -> Result<()> {
        let next = if self.started { self.entry().and_then(Entry::next) } else { self.memtable.versions.first() };
        self.at = next.map(Entry::position);
        self.started = true;
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.at = self.memtable.versions.lower_bound(key, seqno).map(Entry::position);
        self.started = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
