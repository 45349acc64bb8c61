//! Read points in use, and the low watermark they imply.

use std::collections::BTreeMap;

use crate::compaction::Stripes;
use crate::seqno::SeqNo;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::view::{Snapshot, Views};

/// Counts the snapshots at each SeqNo.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<SeqNo, usize>>,
}

impl Snapshots {
    /// A snapshot of the current view at its read point. Loading and registering are one step under the lock, so that
    /// [`Snapshots::watermark`] cannot slip past a snapshot that is just being taken.
    pub(crate) fn take(self: &Arc<Self>, views: &Views) -> Snapshot {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let view = views.load();
        let seqno = view.read_point();
        *live.entry(seqno).or_default() += 1;
        Snapshot::new(view, seqno, Arc::new(Pin { snapshots: Arc::clone(self), seqno }))
    }

    /// The oldest SeqNo that any present or future snapshot can read at.
    pub(crate) fn watermark(&self, views: &Views) -> SeqNo {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let read_point = views.load().read_point();
        live.keys().next().map_or(read_point, |oldest| read_point.min(*oldest))
    }

    /// Where any present or future snapshot can read.
    pub(crate) fn stripes(&self, views: &Views) -> Stripes {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, as in `take`: a snapshot that is not in the list yet will read at this point or above.
        let horizon = views.load().read_point();
        Stripes::new(live.keys().copied(), horizon)
    }

    /// Number of live snapshots.
    pub(crate) fn count(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
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
        let mut live = self.snapshots.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = live.get_mut(&self.seqno) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.seqno);
            }
        }
    }
}
