//! `Listener`: what observers the row store need not know can learn about its background work.

use crate::file::FileId;
use crate::schema::TableId;

/// One finished piece of background work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A memtable became a run.
    Flushed {
        /// Its table.
        table: TableId,
        /// The new run; `None` if nothing in the memtable was still visible.
        run: Option<FileId>,
    },
    /// Runs and segments became new segments.
    Converted {
        /// Their table.
        table: TableId,
        /// Runs that were converted.
        runs: Vec<FileId>,
        /// The new segments.
        segments: Vec<FileId>,
    },
    /// Runs were merged, or moved to another level.
    Merged {
        /// Their table.
        table: TableId,
        /// The inputs.
        runs: Vec<FileId>,
    },
    /// A background step failed; it will be tried again.
    Failed {
        /// The error as text.
        error: String,
    },
}

/// Receives events on the thread that did the work; must return quickly.
pub trait Listener: Send + Sync {
    /// Called after the work is installed.
    fn notify(&self, event: &Event);
}
