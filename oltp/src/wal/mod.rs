//! Write-ahead log: makes a commit durable before anyone can read it.
//!
//! `commit` hands over one encoded batch; `recovery` replays it after a crash. [`record`] and [`header`] are the
//! format and are shared with the manifest; [`writer`] is append and group sync; [`segments`] owns the files;
//! [`reader`] tells a torn tail from corruption.
//!
//! What each durability level survives:
//!
//! | level | caller does | survives |
//! |---|---|---|
//! | `durable` | [`Wal::append`], then [`Wal::sync_to`] before acknowledging | kill -9 and power loss |
//! | `buffered` | [`Wal::append`]; a background step calls [`Wal::write_out`] | kill -9 after the step; power loss after the next sync |
//!
//! Always true:
//! * a record is acknowledged only after `File::sync` returned for its file (I1);
//! * a file named `*.wal` has a complete header and a durable predecessor before its first record is written;
//! * a log is never appended in place after it was opened: writing continues in a new file;
//! * an unfinished last record is normal; a bad checksum in a part proven to have been synced is corruption.
//!
//! Knows nothing of tables or columns: a record is bytes. Records name keys, never positions.
#![doc = include_str!("FORMAT.md")]

pub mod header;
pub mod pin;
pub mod reader;
pub mod record;
mod segments;
pub mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

pub use pin::ArchiveGate;
pub use reader::{Place, ReplayReport, SegmentInfo, Tail, replay};
pub use record::{Frame, RecordKind};
pub use writer::Wal;

use crate::file::FileId;

/// Position in the log: bytes since its beginning, counted across all its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a database: drawn at random when it is created, and part of every checksum of its logs.
pub type DbId = [u8; 16];

/// Allocates file numbers; each call returns a greater one than every file that ever existed.
pub type FileAllocator = Arc<dyn Fn() -> FileId + Send + Sync>;

/// Where the part of the log that is still needed begins. Files before it may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalStart {
    /// The oldest file still needed.
    pub file: FileId,
    /// Position of its first record.
    pub lsn: Lsn,
}

/// Sizes of the log's files and buffers.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Size of a log file. A single record larger than this gets a file of its own.
    pub segment_bytes: u64,
    /// How much of a fresh file is zero-filled at once when no spare is ready, so that small databases stay small.
    pub fill_bytes: u64,
    /// Spare files kept for reuse.
    pub spare_count_max: usize,
    /// [`Wal::make_room`] writes the buffer out above this.
    pub buffer_bytes_max: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        // Zero-filled and recycled files sync in 106 us where a growing file takes 180 us, because no metadata changes.
        WalOptions { segment_bytes: 64 << 20, fill_bytes: 1 << 20, spare_count_max: 2, buffer_bytes_max: 64 << 20 }
    }
}
