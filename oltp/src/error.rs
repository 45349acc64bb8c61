//! The one error type of the row store: a variant per distinct reaction of the caller.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::file::FileKind;
use crate::schema::TableId;

/// Result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and by its variant what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Stored bytes are damaged. Nothing was changed; restore the file from a backup or run a repair.
    #[error("corrupt {kind} {}: {what} at byte {offset}", file.display())]
    Corrupt {
        /// Kind of the damaged file.
        kind: FileKind,
        /// The damaged file.
        file: PathBuf,
        /// Where in the file the damage was noticed.
        offset: u64,
        /// What does not hold.
        what: Cow<'static, str>,
    },
    /// A row, key or schema whose bytes do not fit its layout, although every checksum around them held. A reader that
    /// knows the file names it with [`Error::in_file`]; restore that file from a backup.
    #[error("malformed {subject}: {what} at byte {offset}")]
    Malformed {
        /// What was being read: a row, a key or a table schema.
        subject: &'static str,
        /// Where in its bytes the damage was noticed.
        offset: u64,
        /// What does not hold.
        what: Cow<'static, str>,
    },
    /// Another transaction committed first. Nothing was written; retry the transaction (SQLSTATE 40001).
    #[error("a concurrent transaction changed a row of table {} first; retry the transaction", table.0)]
    Conflict {
        /// Table of the contested row.
        table: TableId,
        /// Encoded key of the contested row.
        key: Vec<u8>,
    },
    /// Waiting for a row lock would have closed a circle of transactions that wait for each other. The others go on; roll
    /// this one back and retry it (SQLSTATE 40P01).
    #[error("deadlock over a row of table {}; roll back and retry the transaction", table.0)]
    Deadlock {
        /// Table of the contested row.
        table: TableId,
        /// Encoded key of the contested row.
        key: Vec<u8>,
    },
    /// Another transaction held a row lock for longer than this one was to wait. Nothing was changed; ask again, or roll
    /// back (SQLSTATE 55P03).
    #[error("a row of table {} is locked by another transaction", table.0)]
    LockTimeout {
        /// Table of the contested row.
        table: TableId,
        /// Encoded key of the contested row.
        key: Vec<u8>,
    },
    /// The requested snapshot is older than the history that is kept.
    #[error("history before commit {oldest} is gone; commit {requested} was asked for")]
    HistoryGone {
        /// The commit that was asked for.
        requested: u64,
        /// The oldest one still readable.
        oldest: u64,
    },
    /// A point in time cannot be restored from the backups and the archive at hand. Nothing was restored; ask for a commit
    /// at or below `newest`, or find the missing part.
    #[error("{target} cannot be restored: {what}; the newest commit that can be is {newest}")]
    Unreachable {
        /// What was asked for.
        target: String,
        /// What is missing, with its range of log positions.
        what: String,
        /// The newest commit that can be restored.
        newest: u64,
    },
    /// The rows of a table that a snapshot sees lie in a shape that the table got after it, which lacks what its own has.
    /// Only snapshots taken of the past, or moved to a newer layout, get here. Read at a newer one (SQLSTATE 40001).
    #[error("table {} was altered after the snapshot, and its rows were rewritten since; read at a newer one", table.0)]
    Reshaped {
        /// The table.
        table: TableId,
    },
    /// A budget is exhausted. Nothing was changed; free memory, split the work, or raise the named budget.
    #[error("{budget} exhausted: {requested_bytes} bytes asked for, {used_bytes} of {limit_bytes} in use")]
    LimitExceeded {
        /// Name of the exhausted budget.
        budget: &'static str,
        /// Bytes that were asked for.
        requested_bytes: u64,
        /// Bytes in use at that time.
        used_bytes: u64,
        /// The budget's limit.
        limit_bytes: u64,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", file.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The request itself is wrong; the text says what and what to do.
    #[error("{0}")]
    Invalid(String),
    /// The directory was written by a newer version of Strata.
    #[error("{} has format version {found}, this program reads up to {supported}; upgrade Strata", file.display())]
    NewerFormat {
        /// The file that says so.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process; close it there first", dir.display())]
    Locked {
        /// The database directory.
        dir: PathBuf,
    },
    /// A write or sync of the log failed earlier, so the outcome of the commits in flight is unknown. Reads go on;
    /// writes are refused until the database is opened again.
    #[error("writes are refused since an earlier log failure ({reason}); reopen the database")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// An [`Error::Io`] with its context.
    #[must_use]
    pub fn io(action: &'static str, file: &Path, source: std::io::Error) -> Error {
        Error::Io { action, file: file.to_path_buf(), source }
    }

    /// An [`Error::Corrupt`] with its context.
    #[must_use]
    pub fn corrupt(kind: FileKind, file: &Path, offset: u64, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Corrupt { kind, file: file.to_path_buf(), offset, what: what.into() }
    }

    /// An [`Error::Malformed`] with its context.
    #[must_use]
    pub fn malformed(subject: &'static str, offset: usize, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Malformed { subject, offset: offset as u64, what: what.into() }
    }

    /// Gives an [`Error::Malformed`] the file its bytes came from and their offset in it; other errors pass through.
    #[must_use]
    pub fn in_file(self, kind: FileKind, file: &Path, bytes_offset: u64) -> Error {
        match self {
            Error::Malformed { subject, offset, what } => {
                Error::corrupt(kind, file, bytes_offset.saturating_add(offset), format!("malformed {subject}: {what}"))
            }
            other => other,
        }
    }
}
