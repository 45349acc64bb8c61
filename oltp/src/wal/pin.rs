//! What keeps log files that nobody in the database needs any more: copies in progress and the archive.
//!
//! A pin is taken while a checkpoint or backup copies the log, so that neither commits nor flushes wait for the copy:
//! releasing the log leaves the pinned files out and goes on. The next release after the pin takes them along.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::file::FileId;
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::wal::Lsn;
use crate::wal::header::HEADER_BYTES;
use crate::wal::reader::SegmentInfo;
use crate::wal::segments::LogFolder;
use crate::wal::writer::{Wal, lock};

/// While this lives, every log file that was kept when it was taken stays.
pub(crate) struct LogPin {
    folder: Arc<LogFolder>,
    oldest: FileId,
}

impl Drop for LogPin {
    fn drop(&mut self) {
        let mut pins = lock(&self.folder.pins);
        if let Some(at) = pins.iter().position(|pin| *pin == self.oldest) {
            pins.swap_remove(at);
        }
    }
}

impl Wal {
    /// Keeps the log files there are now. To be taken under the lock that guards releasing, or a release that has been
    /// decided on may still take them.
    pub(crate) fn pin(&self) -> LogPin {
        let oldest = self.start().file;
        lock(&self.folder.pins).push(oldest);
        LogPin { folder: Arc::clone(&self.folder), oldest }
    }

    /// Bytes of the log from the file that holds commit `seqno` on, without the newest file, which always stays: what
    /// flushing everything since would free, were nothing pinned.
    #[must_use]
    pub fn bytes_since(&self, seqno: SeqNo) -> u64 {
        let live = lock(&self.folder.live);
        let older = live.iter().take(live.len().saturating_sub(1));
        let needed = older.skip_while(|info| info.newest_seqno < seqno);
        needed.map(|info| HEADER_BYTES as u64 + info.end_lsn.0 - info.first_lsn.0).sum()
    }
}

/// How far the log has been archived, and for how much of it that is not archived the log is kept. Clones are one gate.
#[derive(Clone, Debug)]
pub struct ArchiveGate {
    state: Arc<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    through: AtomicU64,
    skipped_bytes: AtomicU64,
    kept_bytes_max: u64,
}

impl ArchiveGate {
    /// A gate that keeps all of the log that is not archived, but no more than `kept_bytes_max`.
    #[must_use]
    pub fn new(kept_bytes_max: u64) -> ArchiveGate {
        ArchiveGate { state: Arc::new(GateState { kept_bytes_max, ..GateState::default() }) }
    }

    /// Everything below this is in the archive, synced.
    #[must_use]
    pub fn through(&self) -> Lsn {
        Lsn(self.state.through.load(Ordering::Acquire))
    }

    /// Bytes of log that were given up before they were archived, because more than the bound was waiting.
    #[must_use]
    pub fn skipped_bytes(&self) -> u64 {
        self.state.skipped_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn advance(&self, through: Lsn) {
        self.state.through.fetch_max(through.0, Ordering::AcqRel);
    }

    pub(crate) fn note_release(&self, info: &SegmentInfo) {
        let missing = info.end_lsn.0.saturating_sub(self.through().0.max(info.first_lsn.0));
        if missing > 0 {
            self.state.skipped_bytes.fetch_add(missing, Ordering::AcqRel);
            tracing::warn!(
                bytes = missing,
                from = info.end_lsn.0 - missing,
                to = info.end_lsn.0,
                "log given up before it was archived: more than the bound was waiting; take a new backup"
            );
        }
    }

    /// How many leading files of `live` may go: those archived, and those above the bound.
    fn free(&self, live: &VecDeque<SegmentInfo>) -> usize {
        let mut waiting: u64 =
            live.iter().map(|info| info.end_lsn.0.saturating_sub(self.through().0.max(info.first_lsn.0))).sum();
        live.iter()
            .take_while(|info| {
                let missing = info.end_lsn.0.saturating_sub(self.through().0.max(info.first_lsn.0));
                let may_go = missing == 0 || waiting > self.state.kept_bytes_max;
                waiting -= missing;
                may_go
            })
            .count()
    }
}

/// How many leading files of `live` neither a pin nor the archive keeps.
pub(crate) fn unpinned(folder: &LogFolder, live: &VecDeque<SegmentInfo>) -> usize {
    let pinned = lock(&folder.pins).iter().copied().min();
    let free = live.iter().take_while(|info| pinned.is_none_or(|pinned| info.file < pinned)).count();
    folder.archived.as_ref().map_or(free, |gate| free.min(gate.free(live)))
}
