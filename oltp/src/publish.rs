//! The order in which commits become readable: the few atomics that readers follow without a lock.
//!
//! ```text
//!   applied      the commit's entries are in its memtables             set by the committer, without a lock
//!   durable      the log is synced up to here                          set by who synced it, without a lock
//!   read point   everything up to here is readable in this layout      advanced in the commit mutex
//!   layout       memtables, runs and segments, with their read point   replaced in the commit mutex
//! ```
//!
//! Always true:
//! * who reads one of them sees everything that was written before it was set, which is what its ordering is for;
//! * the read point passes a commit only after all commits before it were applied and, where they asked for it, durable (I2);
//! * a layout that was replaced keeps the read point that it had then, so no old layout is paired with a newer read point.
//!
//! Atomics and the cell that holds the layout are parameters, so that loom can bring its own: it tries every order that memory
//! and scheduler allow (`tests`). What `arc-swap` does inside is its own business; it is taken at its word, which is that a
//! load sees what was written before the store.

use std::collections::VecDeque;

use crate::commit::Durability;
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, ArcSwap};
use crate::wal::Lsn;

/// An atomic number.
pub(crate) trait Cell: Send + Sync {
    fn new(value: u64) -> Self;
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
}

impl Cell for AtomicU64 {
    fn new(value: u64) -> AtomicU64 {
        AtomicU64::new(value)
    }

    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
}

/// A number that says how far something has come. Who reads it sees all that was written before it rose there.
#[derive(Debug)]
pub(crate) struct Rising<C: Cell = AtomicU64>(C);

impl<C: Cell> Rising<C> {
    pub(crate) fn new(value: u64) -> Rising<C> {
        Rising(C::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// One thread at a time.
    #[inline]
    pub(crate) fn rise(&self, to: u64) {
        self.0.store(to, Ordering::Release);
    }
}

/// A commit between its SeqNo and its publication.
#[derive(Debug)]
pub(crate) struct Pending<C: Cell = AtomicU64> {
    pub(crate) seqno: SeqNo,
    pub(crate) lsn: Lsn,
    durability: Durability,
    applied: Rising<C>,
}

impl<C: Cell> Pending<C> {
    pub(crate) fn new(seqno: SeqNo, lsn: Lsn, durability: Durability) -> Pending<C> {
        Pending { seqno, lsn, durability, applied: Rising::new(0) }
    }

    /// All of its entries are in memtables.
    pub(crate) fn set_applied(&self) {
        self.applied.rise(1);
    }

    fn is_ready(&self, durable: Lsn) -> bool {
        self.applied.get() == 1 && (self.durability == Durability::Buffered || self.lsn <= durable)
    }
}

/// Commits that are not published yet, in their order. Guarded by the commit mutex.
#[derive(Debug)]
pub(crate) struct Ring<C: Cell = AtomicU64>(VecDeque<Arc<Pending<C>>>);

impl<C: Cell> Ring<C> {
    pub(crate) fn new() -> Ring<C> {
        Ring(VecDeque::new())
    }

    pub(crate) fn push(&mut self, pending: Arc<Pending<C>>) {
        debug_assert!(self.0.back().is_none_or(|last| last.seqno < pending.seqno), "I2: SeqNos rise");
        self.0.push_back(pending);
    }

    /// Takes the commits at the front that are ready, and returns the newest of them.
    pub(crate) fn take_ready(&mut self, durable: Lsn) -> Option<SeqNo> {
        let mut newest = None;
        while let Some(pending) = self.0.front()
            && pending.is_ready(durable)
        {
            newest = Some(pending.seqno);
            self.0.pop_front();
        }
        newest
    }
}

/// A layout with the read point that belongs to it.
pub(crate) trait Layout {
    type Cell: Cell;
    fn read_point(&self) -> &Rising<Self::Cell>;
}

/// The cell that holds the current layout. Who loads one sees all that was written before it was stored.
pub(crate) trait Current<V> {
    fn load_full(&self) -> Arc<V>;
    /// Without touching the reference count.
    fn with<R>(&self, look: impl FnOnce(&V) -> R) -> R;
    fn store(&self, next: Arc<V>);
}

impl<V> Current<V> for ArcSwap<V> {
    fn load_full(&self) -> Arc<V> {
        ArcSwap::load_full(self)
    }

    fn with<R>(&self, look: impl FnOnce(&V) -> R) -> R {
        look(&self.load())
    }

    fn store(&self, next: Arc<V>) {
        ArcSwap::store(self, next);
    }
}

/// Makes everything up to `seqno` readable in the current layout. Only inside the commit mutex.
pub(crate) fn advance<V: Layout>(current: &impl Current<V>, seqno: SeqNo) {
    current.with(|view| {
        debug_assert!(seqno.0 >= view.read_point().get(), "I2: SeqNos rise");
        view.read_point().rise(seqno.0);
    });
}

/// Puts what `next` makes of the current layout and its read point in its place, and returns the old one, whose read point
/// stays as it is from now on. Only inside the commit mutex.
pub(crate) fn replace<V: Layout>(current: &impl Current<V>, next: impl FnOnce(&V, SeqNo) -> Arc<V>) -> Arc<V> {
    let old = current.load_full();
    current.store(next(&old, SeqNo(old.read_point().get())));
    old
}

#[cfg(all(test, not(shuttle)))]
mod tests;
