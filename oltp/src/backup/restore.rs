//! Restore: a backup becomes a directory that opens as the database was at its SeqNo, not one commit more.
//!
//! Every file is checked against the record while it is copied, and the log frame by frame; whatever does not fit is
//! refused by name. The manifest comes last, so an interrupted restore leaves no database behind.

use std::path::Path;

use crate::backup::capture::{claim_folder, finish_copy, numbers};
use crate::backup::copy::{copy_file, digest_file};
use crate::backup::log::{LOG_FILE_BYTES, LogCopy, visit_commits};
use crate::backup::record::BackupRecord;
use crate::backup::repository::{Repository, check_digest};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::manifest::{Version, draw_db_id};
use crate::seqno::SeqNo;
use crate::wal::Lsn;
use crate::wal::header::HEADER_BYTES;
use crate::wal::reader::LogReader;

/// What a restore brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The backup that was taken.
    pub backup: u64,
    /// The newest commit in the restored database: every commit up to this one is, and none after it.
    pub seqno: SeqNo,
    /// Files copied.
    pub file_count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of log that opening the database will replay.
    pub log_bytes: u64,
}

impl Repository {
    /// Writes backup `number` into the new folder `dest`, as a database of its own identity, synced.
    ///
    /// Cost: reads every file of the backup and writes it. Opening replays the log that the backup holds.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file of the repository that is damaged; [`Error::Invalid`] if there is no such backup
    /// or `dest` already holds a database; [`Error::Locked`]; I/O. An unfinished restore does not open.
    pub fn restore(&self, number: u64, dest: &Path) -> Result<RestoreReport> {
        let _lock = self.lock()?;
        let record = self.record(FileId(number))?;
        self.rebuild(&record, dest, &mut |_, _| Ok(record.seqno))
    }

    pub(crate) fn record(&self, number: FileId) -> Result<BackupRecord> {
        let (records, damaged) = self.records()?;
        if let Some(record) = records.into_iter().find(|record| record.number == number) {
            return Ok(record);
        }
        let path = FileKind::Backup.path(&self.dir, number);
        let is_it = |error: &Error| matches!(error, Error::Corrupt { file, .. } | Error::NewerFormat { file, .. } | Error::Io { file, .. } if *file == path);
        let missing = || Error::Invalid(format!("there is no backup {} in {}", number.0, self.dir.display()));
        Err(damaged.into_iter().find(is_it).unwrap_or_else(missing))
    }

    /// Restores `record`; `more` may add later commits to its log, and says which is the newest then.
    pub(crate) fn rebuild(
        &self,
        record: &BackupRecord,
        dest: &Path,
        more: &mut dyn FnMut(&mut LogCopy<'_>, &mut Version) -> Result<SeqNo>,
    ) -> Result<RestoreReport> {
        let env = self.env.as_ref();
        claim_folder(env, dest)?;
        let mut report =
            RestoreReport { backup: record.number.0, seqno: record.seqno, file_count: 0, bytes: 0, log_bytes: 0 };
        for file in &record.files {
            let from = file.path(&self.dir, &record.db_id);
            let found = copy_file(env, &from, &file.kind.path(dest, file.id))?;
            check_digest(file.kind, &from, file.digest, found)?;
            report.file_count += 1;
            report.bytes += found.bytes;
        }
        let db_id = draw_db_id(env);
        let mut version = record.version.clone();
        // What `more` learns about the version is applied behind the numbering, which owns it meanwhile.
        let mut learnt = record.version.clone();
        let mut next_file = numbers(&mut version);
        let mut copy = LogCopy::create(env, dest, db_id, record.log_start, LOG_FILE_BYTES, &mut next_file)?;
        self.copy_log(record, &mut copy)?;
        report.seqno = more(&mut copy, &mut learnt)?;
        let log = copy.finish()?;
        report.log_bytes = log.bytes;
        drop(next_file);
        let next_file = version.next_file;
        let version = Version { last_seqno: report.seqno, next_file, ..learnt };
        finish_copy(env, dest, &db_id, &version, log.start)?;
        Ok(report)
    }

    fn copy_log(&self, record: &BackupRecord, copy: &mut LogCopy<'_>) -> Result<()> {
        let env = self.env.as_ref();
        let path = FileKind::Wal.path(&self.dir, record.number);
        check_digest(FileKind::Wal, &path, record.log, digest_file(env, &path)?)?;
        let mut reader = LogReader::open(env, FileKind::Wal, &self.dir, record.number)?;
        let end = Lsn(record.log_start.0.saturating_add(record.log.bytes.saturating_sub(HEADER_BYTES as u64)));
        visit_commits(&mut reader, record.log_start, end, &mut |seqno, payload| {
            if seqno > record.seqno {
                return Err(Error::corrupt(FileKind::Wal, &path, 0, "holds a commit that the backup does not have"));
            }
            copy.append(seqno, payload)
        })
    }
}
