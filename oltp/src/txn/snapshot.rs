//! Read points in use: which history must stay, and which recent commits a transaction may still be checked against.

use std::collections::BTreeMap;

use crate::compaction::Stripes;
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::txn::{Isolation, TransactionOptions};
use crate::view::{Snapshot, Views};

/// Counts the snapshots at each SeqNo, and the transactions that may write.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    live: Mutex<Live>,
    serializable_count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Live {
    snapshots: Counts,
    /// Begin of every transaction that may write.
    writers: Counts,
    /// Begin of those among them that are serializable.
    serializable: Counts,
}

/// How many of something there are at each SeqNo.
#[derive(Debug, Default)]
struct Counts(BTreeMap<SeqNo, usize>);

/// Which recent commits somebody may still ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) fingerprints_above: SeqNo,
    pub(crate) keys_above: SeqNo,
}

impl Counts {
    fn add(&mut self, seqno: SeqNo) {
        *self.0.entry(seqno).or_default() += 1;
    }

    fn remove(&mut self, seqno: SeqNo) {
        if let Some(count) = self.0.get_mut(&seqno) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&seqno);
            }
        }
    }

    fn oldest(&self) -> Option<SeqNo> {
        self.0.keys().next().copied()
    }
}

impl Snapshots {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the current view at its read point. Loading and registering are one step under the lock, so that
    /// [`Snapshots::watermark`] cannot slip past a snapshot that is just being taken.
    pub(crate) fn take(self: &Arc<Self>, views: &Views) -> Snapshot {
        self.take_locked(views, &mut self.lock())
    }

    fn take_locked(self: &Arc<Self>, views: &Views, live: &mut Live) -> Snapshot {
        let view = views.load();
        let seqno = view.read_point();
        live.snapshots.add(seqno);
        Snapshot::new(view, seqno, Arc::new(Pin { snapshots: Arc::clone(self), seqno }))
    }

    /// The snapshot of a transaction, and its claim on recent commits if it may write.
    pub(crate) fn begin(
        self: &Arc<Self>,
        views: &Views,
        options: &TransactionOptions,
    ) -> (Snapshot, Option<WriterPin>) {
        let mut live = self.lock();
        let snapshot = self.take_locked(views, &mut live);
        if options.read_only {
            return (snapshot, None);
        }
        let (seqno, is_serializable) = (snapshot.seqno(), options.isolation == Isolation::Serializable);
        live.writers.add(seqno);
        if is_serializable {
            live.serializable.add(seqno);
            self.serializable_count.fetch_add(1, Ordering::Release);
        }
        (snapshot, Some(WriterPin { snapshots: Arc::clone(self), seqno, is_serializable }))
    }

    /// The oldest SeqNo that any present or future snapshot can read at.
    pub(crate) fn watermark(&self, views: &Views) -> SeqNo {
        let live = self.lock();
        let read_point = views.load().read_point();
        live.snapshots.oldest().map_or(read_point, |oldest| read_point.min(oldest))
    }

    /// Where any present or future snapshot can read.
    pub(crate) fn stripes(&self, views: &Views) -> Stripes {
        let live = self.lock();
        // Under the lock, as in `take`: a snapshot that is not in the list yet will read at this point or above.
        let horizon = views.load().read_point();
        Stripes::new(live.snapshots.0.keys().copied(), horizon)
    }

    /// Which recent commits a present or future transaction may be checked against.
    pub(crate) fn needed_commits(&self, views: &Views) -> Needed {
        let live = self.lock();
        let read_point = views.load().read_point();
        let above = |counts: &Counts| counts.oldest().map_or(read_point, |oldest| read_point.min(oldest));
        Needed { fingerprints_above: above(&live.writers), keys_above: above(&live.serializable) }
    }

    /// Whether commits are to keep their keys, because a serializable transaction is open.
    pub(crate) fn wants_keys(&self) -> bool {
        self.serializable_count.load(Ordering::Acquire) > 0
    }

    /// Number of live snapshots.
    pub(crate) fn count(&self) -> usize {
        self.lock().snapshots.0.values().sum()
    }
}

/// Keeps a SeqNo registered until dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    snapshots: Arc<Snapshots>,
    seqno: SeqNo,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.snapshots.lock().snapshots.remove(self.seqno);
    }
}

/// Keeps the commits above a SeqNo in memory until dropped, because a transaction that began there will be checked.
#[derive(Debug)]
pub(crate) struct WriterPin {
    snapshots: Arc<Snapshots>,
    seqno: SeqNo,
    is_serializable: bool,
}

impl Drop for WriterPin {
    fn drop(&mut self) {
        let mut live = self.snapshots.lock();
        live.writers.remove(self.seqno);
        if self.is_serializable {
            live.serializable.remove(self.seqno);
            self.snapshots.serializable_count.fetch_sub(1, Ordering::Release);
        }
    }
}
