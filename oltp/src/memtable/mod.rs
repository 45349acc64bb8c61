//! `Memtable`: the newest versions of one table, in memory, sorted.
//!
//! Life: active (takes commits) → sealed (no new commit is routed to it) → flushed to a run and dropped.
//!
//! Always true:
//! * entries are only added, so a reader needs no lock: versions above its snapshot are skipped (I7);
//! * an entry is a copy of its bytes in the commit's record, which goes when the commit is applied;
//! * a commit that would fill a memtable alone is one, as it stands in its record ([`batch`]);
//! * a sealed memtable may still receive the commits that were routed to it before it was sealed; `wait_applied`
//!   returns when the last of them has arrived.

mod arena;
mod batch;
mod replayed;
mod skiplist;

use std::ops::Range;

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::memory::{MemoryBudget, Reservation};
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use batch::Batch;
use skiplist::{Entry, Position, SkipList};

pub(crate) use batch::{Entries, EntrySpan};
pub(crate) use replayed::Replayed;

/// Versions of one table, sorted by (key, newest first). Shared by writers and readers.
pub struct Memtable {
    versions: Versions,
    entry_count: AtomicU64,
    bytes: AtomicU64,
    seqno_min: AtomicU64,
    seqno_max: AtomicU64,
    arrivals: Mutex<Arrivals>,
    applied: Condvar,
}

/// What holds them.
enum Versions {
    /// Versions of any number of commits, each copied when it arrives.
    List(SkipList),
    /// All there will ever be, of one large commit.
    Batch(Batch),
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

impl Arrivals {
    /// Takes `bytes` from the budget, whether or not they fit, for as long as the memtable lives.
    fn charge(&mut self, budget: &Arc<MemoryBudget>, bytes: u64) {
        let reserve = || budget.reserve("memtables", 0).expect("nothing always fits");
        self.reservation.get_or_insert_with(reserve).grow(bytes);
    }
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
            versions: Versions::List(SkipList::new()),
            entry_count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            seqno_min: AtomicU64::new(u64::MAX),
            seqno_max: AtomicU64::new(0),
            arrivals: Mutex::default(),
            applied: Condvar::new(),
        }
    }

    /// A memtable of the entries `range` of one commit, ascending by key. It is complete, and can only be sealed.
    pub(crate) fn of_commit(
        budget: &Arc<MemoryBudget>,
        entries: Arc<Entries<'static>>,
        range: Range<usize>,
        seqno: SeqNo,
    ) -> Memtable {
        let batch = Batch::new(entries, range, seqno);
        let memtable = Memtable {
            entry_count: AtomicU64::new(batch.len() as u64),
            bytes: AtomicU64::new(batch.bytes()),
            seqno_min: AtomicU64::new(batch.seqno().0),
            seqno_max: AtomicU64::new(batch.seqno().0),
            versions: Versions::Batch(batch),
            ..Memtable::new()
        };
        memtable.arrivals().charge(budget, memtable.bytes());
        memtable
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
        let bytes = self.insert(versions.map(|(key, kind, value)| (key, seqno, kind, value)));
        let mut arrivals = self.arrivals();
        arrivals.charge(budget, bytes);
        arrivals.in_flight -= 1;
        if arrivals.waiters > 0 {
            self.applied.notify_all();
        }
    }

    /// Adds versions read back from the log, all at once and quicker than [`Memtable::apply`] commit by commit; empties
    /// `replayed`.
    pub(crate) fn restore(&self, budget: &Arc<MemoryBudget>, replayed: &mut Replayed) {
        let Some((oldest, newest)) = replayed.seqno_range() else { return };
        self.seqno_min.fetch_min(oldest.0, AcqRel);
        self.seqno_max.fetch_max(newest.0, AcqRel);
        replayed.sort();
        let bytes = self.insert(replayed.versions());
        self.arrivals().charge(budget, bytes);
        replayed.clear();
    }

    /// Copies versions into the list; what they take is the caller's to charge.
    fn insert<'a>(&self, versions: impl Iterator<Item = (&'a [u8], SeqNo, VersionKind, &'a [u8])>) -> u64 {
        let (mut entry_count, mut bytes) = (0, 0);
        let Versions::List(list) = &self.versions else { unreachable!("nothing is added to a complete memtable") };
        let mut splice = list.splice();
        for (key, seqno, kind, value) in versions {
            entry_count += 1;
            bytes += list.insert(&mut splice, key, seqno, kind, value) as u64;
        }
        self.entry_count.fetch_add(entry_count, Relaxed);
        self.bytes.fetch_add(bytes, Release);
        bytes
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
        match &self.versions {
            Versions::List(list) => {
                let entry = list.lower_bound(key, at)?;
                (entry.key() == key).then(|| (entry.seqno(), entry.kind(), entry.value()))
            }
            Versions::Batch(batch) => {
                let found = batch.lower_bound(key, at);
                let (entry_key, kind, value) = (found < batch.len()).then(|| batch.entry(found))?;
                (entry_key == key).then_some((batch.seqno(), kind, value))
            }
        }
    }

    /// A cursor over all versions, including those added while it moves.
    #[must_use]
    pub fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor { memtable: Arc::clone(self), at: At::Nowhere, started: false }
    }

    /// Up to `parts - 1` keys that cut the memtable into parts of about equal size, ascending. Looks at a sample.
    #[must_use]
    pub fn split_keys(&self, parts: usize) -> Vec<Vec<u8>> {
        if parts < 2 {
            return Vec::new();
        }
        let mut keys: Vec<Vec<u8>> = match &self.versions {
            Versions::List(list) => {
                let sample = list.sample(parts * SAMPLES_PER_PART);
                let cuts = (1..parts).filter_map(|part| sample.get(part * sample.len() / parts));
                cuts.map(|entry| entry.key().to_vec()).collect()
            }
            Versions::Batch(batch) => {
                let cuts = (1..parts).map(|part| part * batch.len() / parts);
                cuts.map(|at| batch.entry(at).0.to_vec()).collect()
            }
        };
        keys.dedup();
        keys
    }
}

/// Enough for parts that differ by a factor of two at most, nearly always.
const SAMPLES_PER_PART: usize = 16;

/// Walks a memtable.
pub struct MemtableCursor {
    memtable: Arc<Memtable>,
    at: At,
    started: bool,
}

/// Where a cursor stands.
#[derive(Clone, Copy)]
enum At {
    Nowhere,
    /// On an entry of the list.
    Listed(Position),
    /// On an entry of the batch, counted from 0.
    Batched(usize),
}

impl MemtableCursor {
    /// Key, commit, kind and row of the current entry.
    ///
    /// # Panics
    /// If the cursor does not stand on one: the caller has not looked.
    #[inline]
    fn current(&self) -> (&[u8], SeqNo, VersionKind, &[u8]) {
        match (&self.memtable.versions, self.at) {
            (Versions::List(list), At::Listed(position)) => {
                // SAFETY: positions of this cursor come from the list of its memtable, which it keeps alive.
                let entry = unsafe { list.at(position) };
                (entry.key(), entry.seqno(), entry.kind(), entry.value())
            }
            (Versions::Batch(batch), At::Batched(at)) => {
                let (key, kind, value) = batch.entry(at);
                (key, batch.seqno(), kind, value)
            }
            _ => unreachable!("the contract of `Cursor`: read only while valid"),
        }
    }

    /// On entry `at` of `batch`, if there is one.
    fn stand(batch: &Batch, at: usize) -> At {
        if at < batch.len() { At::Batched(at) } else { At::Nowhere }
    }
}

fn listed(entry: Option<Entry<'_>>) -> At {
    entry.map_or(At::Nowhere, |entry| At::Listed(entry.position()))
}

impl Cursor for MemtableCursor {
    fn valid(&self) -> bool {
        !matches!(self.at, At::Nowhere)
    }

    fn key(&self) -> &[u8] {
        self.current().0
    }

    fn seqno(&self) -> SeqNo {
        self.current().1
    }

    fn kind(&self) -> VersionKind {
        self.current().2
    }

    fn value(&self) -> &[u8] {
        self.current().3
    }

    fn next(&mut self) -> Result<()> {
        self.at = match (&self.memtable.versions, self.at) {
            (Versions::List(list), At::Nowhere) if !self.started => listed(list.first()),
            (Versions::Batch(batch), At::Nowhere) if !self.started => Self::stand(batch, 0),
            // SAFETY: as in `current`.
            (Versions::List(list), At::Listed(position)) => listed(unsafe { list.at(position) }.next()),
            (Versions::Batch(batch), At::Batched(at)) => Self::stand(batch, at + 1),
            _ => At::Nowhere,
        };
        self.started = true;
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.at = match &self.memtable.versions {
            Versions::List(list) => listed(list.lower_bound(key, seqno)),
            Versions::Batch(batch) => Self::stand(batch, batch.lower_bound(key, seqno)),
        };
        self.started = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
