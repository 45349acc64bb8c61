//! Reads of the past: [`Db::snapshot_at`], [`Db::snapshot_as_of`], and what background work must keep for them.
//!
//! With [`crate::Options::retention_ms`] every state of that time stays readable: the horizon above which merges keep all
//! versions, and conversions all marks, is held back to the oldest such state. The *floor* is the highest horizon that was ever
//! handed out. Below it versions may be gone, so nothing below it is read, but by snapshots that were open all along.
//! The manifest knows the floor before anything that was written under it becomes visible.

use std::time::Duration;

use crate::compaction::Stripes;
use crate::db::{Db, Inner};
use crate::error::{Error, Result};
use crate::manifest::Edit;
use crate::seqno::SeqNo;
use crate::sync::PoisonError;
use crate::txn::history::History;
use crate::view::Snapshot;

/// Times are saved this often: what a crash takes can be read by SeqNo only.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

impl Db {
    /// A snapshot of the state right after commit `seqno`.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] if it is older than what is kept: without [`crate::Options::retention_ms`] that is next to
    /// nothing. [`Error::Invalid`] if there is no such commit yet.
    pub fn snapshot_at(&self, seqno: SeqNo) -> Result<Snapshot> {
        let inner = &self.inner;
        inner.snapshots.take_at(&inner.views, seqno, inner.env.monotonic())
    }

    /// A snapshot of the state at a wall-clock time, as the duration since the Unix epoch. The time is taken down to a
    /// whole second, or with a retention above 10,000 seconds to a ten-thousandth of it. Every commit acknowledged before is
    /// in it, none that began after. May wait for commits in flight.
    ///
    /// Times follow the machine's clock as it was: while it went back, commits count as of the latest time it had shown.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] if the time is before what is kept, or within the last minute before a crash or a start
    /// with retention newly switched on, whose commits' times are not known. [`Error::Invalid`] if it is to come.
    pub fn snapshot_as_of(&self, time: Duration) -> Result<Snapshot> {
        let inner = &self.inner;
        if time > inner.env.wall_clock() {
            return Err(Error::Invalid("the time asked for is still to come".to_owned()));
        }
        let found = {
            let sequencer = inner.lock_sequencer();
            let last = sequencer.last;
            sequencer.history.as_ref().and_then(|history| history.seqno_at(millis(time), last))
        };
        let oldest = inner.snapshots.floor();
        let seqno = found.ok_or(Error::HistoryGone { requested: 0, oldest: oldest.0 })?;
        inner.publish_through(seqno)?;
        self.snapshot_at(seqno)
    }
}

impl Inner {
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.env.wall_clock())
    }

    /// Where anybody may read from now on, for work that is about to drop what nobody can see.
    pub(crate) fn stripes(&self) -> Stripes {
        let now_ms = self.now_ms();
        let kept_from = {
            let mut sequencer = self.lock_sequencer();
            let last = sequencer.last;
            sequencer.history.as_mut().map(|history| history.kept_from(now_ms, last))
        };
        self.snapshots.stripes(&self.views, kept_from)
    }

    /// The edit that must go with whatever is written to the manifest, if states of the past are kept.
    pub(crate) fn history_edit(&self) -> Option<Edit> {
        let known = self.manifest.version().kept_from?;
        let floor = self.snapshots.floor();
        (floor > known).then(|| Edit::History { kept_from: Some(floor), marks: Vec::new() })
    }

    /// Saves the times of commits since the last save, if that was long ago; or, if the database is being closed, all
    /// times and that of its end.
    pub(crate) fn save_times(&self, is_closing: bool) -> Result<()> {
        let now = self.env.monotonic();
        let mut saved = self.work.times_saved.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_closing && now.saturating_sub(*saved) < SAVE_INTERVAL {
            return Ok(());
        }
        *saved = now;
        let (now_ms, mut marks) = (self.now_ms(), Vec::new());
        {
            let mut sequencer = self.lock_sequencer();
            let last = sequencer.last;
            if let Some(history) = &mut sequencer.history {
                if is_closing {
                    history.close(now_ms, last);
                } else {
                    history.note(now_ms, last);
                }
                marks = history.unsaved();
            }
        }
        let Some(newest) = marks.last().copied() else { return Ok(()) };
        // A mark names commits, so it must not outlive them.
        self.wal.sync_to(self.wal.end_lsn())?;
        let kept_from = self.manifest.version().kept_from.max(Some(self.snapshots.floor()));
        self.append_edits(&[Edit::History { kept_from, marks }])?;
        if let Some(history) = &mut self.lock_sequencer().history {
            history.set_saved(&newest);
        }
        Ok(())
    }
}

/// The times and the floor of a database that is being opened, and the edit that says so if the manifest says otherwise.
pub(crate) fn restore(
    retention_ms: u64,
    version: &crate::manifest::Version,
    now_ms: u64,
    last: SeqNo,
) -> (Option<History>, SeqNo, Option<Edit>) {
    if retention_ms == 0 {
        let edit = version.kept_from.map(|_| Edit::History { kept_from: None, marks: Vec::new() });
        return (None, last, edit);
    }
    let history = History::restore(retention_ms, &version.times, now_ms, last);
    let floor = version.kept_from.unwrap_or(last);
    let edit = Edit::History { kept_from: Some(floor), marks: history.unsaved() };
    (Some(history), floor, Some(edit))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
