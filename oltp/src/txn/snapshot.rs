//! Read points in use: which history must stay, and which recent commits a transaction may still be checked against.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::compaction::Stripes;
use crate::error::{Error, Result};
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::txn::{Isolation, TransactionOptions};
use crate::view::{ReadView, Snapshot, Views};

/// Counts the snapshots at each SeqNo, and the transactions that may write.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    live: Mutex<Live>,
    serializable_count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Live {
    snapshots: Counts,
    /// When the first of those at a SeqNo was taken.
    since: BTreeMap<SeqNo, Duration>,
    /// Begin of every transaction that may write.
    writers: Counts,
    /// Begin of those among them that are serializable.
    serializable: Counts,
    /// Below this, versions may be gone that no open snapshot needs.
    floor: SeqNo,
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

    /// Whether it was the last one there.
    fn remove(&mut self, seqno: SeqNo) -> bool {
        let Some(count) = self.0.get_mut(&seqno) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(&seqno);
        }
        is_last
    }

    fn oldest(&self) -> Option<SeqNo> {
        self.0.keys().next().copied()
    }
}

impl Snapshots {
    /// No state below `floor` can be read.
    pub(crate) fn new(floor: SeqNo) -> Snapshots {
        Snapshots { live: Mutex::new(Live { floor, ..Live::default() }), ..Snapshots::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of the current view at its read point. Loading and registering are one step under the lock, so that
    /// [`Snapshots::watermark`] cannot slip past a snapshot that is just being taken.
    pub(crate) fn take(self: &Arc<Self>, views: &Views, now: Duration) -> Snapshot {
        self.take_locked(views, &mut self.lock(), now)
    }

    fn take_locked(self: &Arc<Self>, views: &Views, live: &mut Live, now: Duration) -> Snapshot {
        let view = views.load();
        let seqno = view.read_point();
        self.pin(view, seqno, live, now)
    }

    fn pin(self: &Arc<Self>, view: Arc<ReadView>, seqno: SeqNo, live: &mut Live, now: Duration) -> Snapshot {
        live.snapshots.add(seqno);
        live.since.entry(seqno).or_insert(now);
        Snapshot::new(view, seqno, Arc::new(Pin { snapshots: Arc::clone(self), seqno }))
    }

    /// A snapshot of the current view at an earlier read point.
    pub(crate) fn take_at(self: &Arc<Self>, views: &Views, seqno: SeqNo, now: Duration) -> Result<Snapshot> {
        let mut live = self.lock();
        if seqno < live.floor {
            return Err(Error::HistoryGone { requested: seqno.0, oldest: live.floor.0 });
        }
        let view = views.load();
        if seqno > view.read_point() {
            return Err(Error::Invalid(format!("there is no commit {seqno} yet")));
        }
        Ok(self.pin(view, seqno, &mut live, now))
    }

    /// Below this, only snapshots that are open already can read.
    pub(crate) fn floor(&self) -> SeqNo {
        self.lock().floor
    }

    /// From now on nothing older than what is published can be read by new snapshots.
    pub(crate) fn forget_past(&self, views: &Views) {
        let mut live = self.lock();
        live.floor = live.floor.max(views.load().read_point());
    }

    /// When the oldest of the open snapshots at the oldest SeqNo was taken.
    pub(crate) fn oldest_since(&self) -> Option<Duration> {
        self.lock().since.values().min().copied()
    }

    /// The snapshot of a transaction, and its claim on recent commits if it may write.
    pub(crate) fn begin(
        self: &Arc<Self>,
        views: &Views,
        options: &TransactionOptions,
        now: Duration,
    ) -> (Snapshot, Option<WriterPin>) {
        let mut live = self.lock();
        let snapshot = self.take_locked(views, &mut live, now);
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

    /// Where any present or future snapshot can read, if states from `kept_from` on are to stay. What lies elsewhere counts
    /// as gone from now on.
    pub(crate) fn stripes(&self, views: &Views, kept_from: Option<SeqNo>) -> Stripes {
        let mut live = self.lock();
        // Under the lock, as in `take`: a snapshot that is not in the list yet will read at this point or above.
        let horizon = views.load().read_point().min(kept_from.unwrap_or(SeqNo::MAX));
        live.floor = live.floor.max(horizon);
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
        let mut live = self.snapshots.lock();
        if live.snapshots.remove(self.seqno) {
            live.since.remove(&self.seqno);
        }
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
