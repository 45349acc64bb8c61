//! Point-in-time restore: the newest backup at or below a point, and from there the archived log up to that point.
//!
//! The log names keys, never positions, so it applies to whatever files the backup has, whatever was converted since.
//! The restored database has an identity of its own: its log is archived in a folder of its own, and a restore never
//! mixes the two histories that began at the point.

use std::path::{Path, PathBuf};

use crate::backup::archive::{database_dir, file_of};
use crate::backup::log::LogCopy;
use crate::backup::record::BackupRecord;
use crate::backup::repository::Repository;
use crate::backup::restore::RestoreReport;
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::inspect::dump::hex;
use crate::manifest::{Edit, Version};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::wal::header::HEADER_BYTES;
use crate::wal::reader::{LogReader, list_files};
use crate::wal::record::{Frame, RecordKind, read_u32, read_u64};
use crate::wal::{DbId, Lsn};

/// The point to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every commit up to this one, and none after it.
    Commit(SeqNo),
    /// Every commit made before this time, in Unix milliseconds, and none made 100 ms after it or later.
    Time(u64),
    /// Everything in the archive.
    Newest,
}

impl Repository {
    /// Writes the state at `target` into the new folder `dest`: the newest backup at or below it, and the commits from there
    /// on out of `archive`, the folder of [`crate::backup::ArchiveOptions::dir`]. `database` says of which database, if the
    /// repository has backups of several.
    ///
    /// Cost: that of [`Repository::restore`], and one reading of the archived log from the backup to the target. Opening
    /// the result replays that log into memory before it is flushed, so backups should not lie further apart than that.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if no backup is old enough, or the archive has a gap or ends before the target: it names the
    /// missing log positions and the newest commit that can be restored; or, for [`Target::Newest`], if there is no archive of
    /// the database at all. Otherwise as [`Repository::restore`].
    pub fn restore_to(
        &self,
        archive: &Path,
        database: Option<DbId>,
        target: Target,
        dest: &Path,
    ) -> Result<RestoreReport> {
        let _lock = self.lock()?;
        let record = self.base(database, target)?;
        let archived = Archived { repository: self, dir: database_dir(archive, &record.db_id), target };
        // Read through once before anything is written: a target out of reach leaves `dest` as it was.
        archived.replay(&record, &mut |_, _| Ok(()), &mut record.version.clone())?;
        self.rebuild(&record, dest, &mut |copy: &mut LogCopy<'_>, version: &mut Version| {
            archived.replay(&record, &mut |seqno, payload| copy.append(seqno, payload), version)
        })
    }

    /// The newest backup at or below the target.
    fn base(&self, database: Option<DbId>, target: Target) -> Result<BackupRecord> {
        let (mut records, damaged) = self.records()?;
        damaged.iter().for_each(|error| tracing::warn!(%error, "a backup cannot be used"));
        records.retain(|record| database.is_none_or(|database| record.db_id == database));
        if let Some(other) = records.iter().find(|record| record.db_id != records[0].db_id) {
            let (one, two) = (hex(&records[0].db_id), hex(&other.db_id));
            return Err(Error::Invalid(format!("backups of several databases ({one}, {two}, …): say which")));
        }
        let oldest = records.first().map(|record| (record.seqno, record.taken_ms));
        let is_before = |record: &BackupRecord| match target {
            Target::Commit(seqno) => record.seqno <= seqno,
            Target::Time(at_ms) => record.taken_ms <= at_ms,
            Target::Newest => true,
        };
        records.into_iter().rfind(is_before).ok_or_else(|| Error::Unreachable {
            target: target.describe(),
            what: oldest.map_or_else(
                || "there is no backup of the database".to_owned(),
                |(seqno, at_ms)| format!("the oldest backup is of commit {seqno}, taken at {at_ms} ms"),
            ),
            newest: 0,
        })
    }
}

impl Target {
    fn describe(self) -> String {
        match self {
            Target::Commit(seqno) => format!("commit {seqno}"),
            Target::Time(at_ms) => format!("time {at_ms} ms"),
            Target::Newest => "the newest state".to_owned(),
        }
    }
}

/// The archived log of one database.
struct Archived<'a> {
    repository: &'a Repository,
    dir: PathBuf,
    target: Target,
}

/// Where a replay is.
struct Reached {
    lsn: Lsn,
    seqno: SeqNo,
    /// Whether the next commit lies behind the target.
    done: bool,
}

type Append<'a> = dyn FnMut(SeqNo, &[u8]) -> Result<()> + 'a;

impl Archived<'_> {
    /// Hands the commits behind the backup, up to and with the target, to `append`, and what row ids they use to `version`;
    /// returns the newest commit.
    fn replay(&self, record: &BackupRecord, append: &mut Append<'_>, version: &mut Version) -> Result<SeqNo> {
        let env = self.repository.env.as_ref();
        let is_there = self.target == Target::Commit(record.seqno);
        let mut reached = Reached { lsn: record.through, seqno: record.seqno, done: is_there };
        let files = if is_there { Vec::new() } else { list_files(env, &self.dir)? };
        if files.is_empty() && self.target == Target::Newest {
            // Else a mistake in the folder's name would go for an archive without commits.
            return Err(self.unreachable(&reached, format!("there is no log in {}", self.dir.display())));
        }
        // The file that holds the end of the backup, and those behind it, one by one: there may be thousands.
        let first = file_of(env, &self.dir, &files, reached.lsn).unwrap_or(0);
        for (at, file) in files.iter().enumerate().skip(first) {
            if reached.done {
                break;
            }
            let mut reader = LogReader::open(env, FileKind::Wal, &self.dir, *file)?;
            if reader.header.db_id != record.db_id {
                return Err(Error::corrupt(FileKind::Wal, &reader.path, 16, "the file belongs to another database"));
            }
            if reader.header.first_lsn > reached.lsn {
                return Err(self.gap(&reached, Some(reader.header.first_lsn)));
            }
            self.replay_file(&mut reader, at + 1 == files.len(), &mut reached, append, version)?;
        }
        let is_reached = match self.target {
            Target::Newest => true,
            Target::Commit(seqno) => reached.seqno == seqno,
            Target::Time(_) => reached.done,
        };
        if is_reached { Ok(reached.seqno) } else { Err(self.gap(&reached, None)) }
    }

    fn replay_file(
        &self,
        reader: &mut LogReader,
        is_newest: bool,
        reached: &mut Reached,
        append: &mut Append<'_>,
        version: &mut Version,
    ) -> Result<()> {
        let offset_of = |lsn: Lsn, first: Lsn| HEADER_BYTES as u64 + (lsn.0 - first.0);
        let (first, path) = (reader.header.first_lsn, reader.path.clone());
        while let Some(frame) = reader.frame_at(offset_of(reached.lsn, first))? {
            if self.is_behind(&frame) {
                reached.done = true;
                return Ok(());
            }
            match RecordKind::from_u8(frame.kind) {
                Some(RecordKind::Commit) if frame.seqno > reached.seqno => {
                    append(frame.seqno, frame.payload)?;
                    reached.seqno = frame.seqno;
                }
                Some(RecordKind::RowIds) => learn_row_ids(&frame, version),
                Some(RecordKind::Clock | RecordKind::Watermark | RecordKind::CleanClose) => {}
                _ => {
                    let offset = offset_of(frame.lsn, first);
                    return Err(Error::corrupt(FileKind::Wal, &path, offset, "record that does not belong here"));
                }
            }
            reached.lsn = frame.end;
            if self.target == Target::Commit(reached.seqno) {
                reached.done = true;
                return Ok(());
            }
        }
        // In the newest file this may be where copying stopped, or damage that hides what was copied behind it.
        if is_newest { reader.judge_tail(offset_of(reached.lsn, first)).map(drop) } else { Ok(()) }
    }

    /// Whether `frame` shows that everything from it on lies behind the target.
    fn is_behind(&self, frame: &Frame<'_>) -> bool {
        match self.target {
            Target::Commit(seqno) => frame.kind == RecordKind::Commit as u8 && frame.seqno > seqno,
            Target::Time(at_ms) => {
                frame.kind == RecordKind::Clock as u8 && frame.payload.len() == 8 && read_u64(frame.payload, 0) > at_ms
            }
            Target::Newest => false,
        }
    }

    fn gap(&self, reached: &Reached, next: Option<Lsn>) -> Error {
        let from = reached.lsn;
        let what = match next {
            Some(next) => format!("log positions {from} to {next} are missing in {}", self.dir.display()),
            None => format!("the log in {} ends at position {from}", self.dir.display()),
        };
        self.unreachable(reached, what)
    }

    fn unreachable(&self, reached: &Reached, what: String) -> Error {
        Error::Unreachable { target: self.target.describe(), what, newest: reached.seqno.0 }
    }
}

/// Row ids that commits of the archived log may use are not given out again.
fn learn_row_ids(frame: &Frame<'_>, version: &mut Version) {
    if frame.payload.len() != 12 {
        return;
    }
    let (table, next) = (TableId(read_u32(frame.payload, 0)), read_u64(frame.payload, 4));
    if version.table(table).is_none_or(|known| known.next_row_id < next) {
        // It rises, so that it cannot be refused.
        let _ = version.apply(&Edit::RowIds { table, next });
    }
}
