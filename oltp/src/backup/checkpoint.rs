//! Checkpoint: a complete copy of the database in another folder, made while everything goes on.
//!
//! Immutable files are hard-linked; a folder on another file system gets copies. The log is copied commit by commit up
//! to the point of the checkpoint, because its files are overwritten in place. The manifest comes last.

use std::io::ErrorKind;
use std::path::Path;

use crate::backup::capture::{claim_folder, finish_copy, numbers};
use crate::backup::copy::copy_file;
use crate::backup::log::{LOG_FILE_BYTES, LogCopy};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::manifest::draw_db_id;
use crate::seqno::SeqNo;

/// What a checkpoint holds and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// The newest commit in it: every commit up to this one is, and none after it.
    pub seqno: SeqNo,
    /// Files that share their bytes with the original.
    pub linked_count: u64,
    /// Files that had to be copied, because the folder lies on another file system.
    pub copied_count: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Bytes of log copied.
    pub log_bytes: u64,
}

impl Db {
    /// Writes a complete copy of the database, as of one commit, into the new folder `dest`, while everything goes on.
    /// The copy opens like any database, and is another database: it has an identity of its own.
    ///
    /// Cost: on the same file system a hard link per file and a copy of the log since the last flush, so it is quick and
    /// takes no space until the originals are dropped. On another file system every live file is read and written, so it
    /// takes as long and as much space as copying the database. Commits and flushes wait for neither; the log is kept
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `dest` already holds a database; I/O. An unfinished copy does not open.
    pub fn checkpoint(&self, dest: &Path) -> Result<CheckpointReport> {
        let inner = &self.inner;
        let env = inner.env.as_ref();
        claim_folder(env, dest)?;
        // With everything flushed the copy has little log to replay.
        self.flush(None)?;
        let capture = inner.capture()?;
        let mut report = CheckpointReport { seqno: capture.seqno, ..CheckpointReport::default() };
        for (kind, id) in capture.version.files() {
            let (from, to) = (kind.path(&inner.dir, id), kind.path(dest, id));
            match env.hard_link(&from, &to) {
                Ok(()) => report.linked_count += 1,
                Err(error) if cannot_link(error.kind()) => {
                    report.copied_bytes += copy_file(env, &from, &to)?.bytes;
                    report.copied_count += 1;
                }
                Err(error) => return Err(Error::io("link", &to, error)),
            }
        }
        let db_id = draw_db_id(env);
        let mut version = capture.version_of_copy();
        let mut next_file = numbers(&mut version);
        let mut copy = LogCopy::create(env, dest, db_id, capture.log_start(), LOG_FILE_BYTES, &mut next_file)?;
        capture.copy_log(env, &inner.dir, &mut copy)?;
        let log = copy.finish()?;
        report.log_bytes = log.bytes;
        drop(next_file);
        finish_copy(env, dest, &db_id, &version, log.start)?;
        if report.copied_count > 0 {
            let (files, bytes) = (report.copied_count, report.copied_bytes);
            tracing::info!(files, bytes, "the checkpoint lies on another file system, so its files were copied");
        }
        Ok(report)
    }
}

/// Another file system, or one without hard links, or too many links to one file.
fn cannot_link(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::CrossesDevices | ErrorKind::Unsupported | ErrorKind::TooManyLinks | ErrorKind::PermissionDenied
    )
}
