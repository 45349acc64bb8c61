//! The archive: a folder to which the log is copied before its files are used again, for point-in-time restore.
//!
//! ```text
//! ARCHIVE/<database>/wal/0000000007.wal   a log file of the database up to where it was durable, byte for byte
//! ```
//!
//! A file of the archive grows as its original does: at each interval what became durable meanwhile is verified, written
//! behind what is there, and synced. The next file is begun when the one before it is complete.
//!
//! Always true:
//! * only what is durable in the database is copied, so the archive never knows more than a crash leaves;
//! * a log file is released when it is in the archive, synced, or when more than the stated bound is waiting; the gap
//!   that this leaves shows in the chain of files and is refused by a restore that would need it;
//! * commits wait for none of it;
//! * files go only by [`Repository::prune_archive`], the oldest first, when no backup needs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::backup::capture::wall_clock_ms;
use crate::backup::copy::length_of;
use crate::backup::log::visit_frames;
use crate::backup::repository::Repository;
use crate::db::{Db, Inner};
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::dump::hex;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};
use crate::wal::header::HEADER_BYTES;
use crate::wal::reader::{LogReader, SegmentInfo, list_files};
use crate::wal::record::{self, Frame, Identity, RecordKind};
use crate::wal::writer::describe;
use crate::wal::{ArchiveGate, DbId, Lsn};

/// A clock note is written with the first commit after this long: the resolution of restoring to a time.
const CLOCK_STEP_MS: u64 = 100;
/// Frames are written in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

/// Where and how the log is archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// The folder; several databases may share it. Best on another disk than the database.
    pub dir: PathBuf,
    /// The file being written is copied as far as it is durable when this has passed since the last copy. What a lost
    /// disk takes with it is at most what was committed in this time and the time that copying it takes. 1 second costs a
    /// sync of the archive per second of activity.
    pub interval_ms: u64,
    /// Log kept for an archive that cannot be written. Above this the oldest is given up, with a warning and
    /// [`ArchiveStats::skipped_bytes`], so that a broken archive does not fill the disk; take a new backup then. Commits
    /// never wait for the archive.
    pub kept_bytes_max: u64,
}

impl ArchiveOptions {
    /// An archive in `dir`: every second, with up to 4 GiB of log kept for it.
    #[must_use]
    pub fn new(dir: &Path) -> ArchiveOptions {
        ArchiveOptions { dir: dir.to_path_buf(), interval_ms: 1_000, kept_bytes_max: 4 << 30 }
    }
}

/// How the archive is doing, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveStats {
    /// Everything below this log position is in the archive, synced.
    pub through: Lsn,
    /// The newest commit in it, as far as this process has archived any.
    pub seqno: SeqNo,
    /// Bytes of durable log that are not in it yet.
    pub waiting_bytes: u64,
    /// Attempts that failed; each will be made again.
    pub failure_count: u64,
    /// Why the last one failed; `None` after a success.
    pub last_error: Option<String>,
    /// Bytes of log given up because more than the bound was waiting. Points in time behind them need a newer backup.
    pub skipped_bytes: u64,
}

/// The archive of an open database.
pub(crate) struct Archive {
    env: Arc<dyn Env>,
    /// The folder of this database in the archive.
    dir: PathBuf,
    options: ArchiveOptions,
    gate: ArchiveGate,
    /// Held for a whole copy.
    copying: Mutex<Copying>,
    stats: Mutex<ArchiveStats>,
    /// Wall-clock time of the last clock note. Written inside the commit mutex.
    noted_ms: AtomicU64,
}

#[derive(Default)]
struct Copying {
    /// When the last copy was made.
    at: Option<Duration>,
    /// The file being copied, and how far it is.
    file: Option<(FileId, Lsn)>,
}

impl Archive {
    pub(crate) fn new(env: Arc<dyn Env>, options: ArchiveOptions, db_id: &DbId) -> Archive {
        let (dir, gate) = (database_dir(&options.dir, db_id), ArchiveGate::new(options.kept_bytes_max));
        let (copying, stats) = (Mutex::new(Copying::default()), Mutex::new(ArchiveStats::default()));
        Archive { env, dir, options, gate, copying, stats, noted_ms: AtomicU64::new(0) }
    }

    pub(crate) fn gate(&self) -> &ArchiveGate {
        &self.gate
    }

    fn is_due(&self, copying: &Copying, segments: &[SegmentInfo], durable: Lsn) -> bool {
        let through = self.gate.through();
        let has_closed = segments.len() > 1 && segments[..segments.len() - 1].iter().any(|info| info.end_lsn > through);
        let interval = Duration::from_millis(self.options.interval_ms);
        let has_waited = copying.at.is_none_or(|at| self.env.monotonic().saturating_sub(at) >= interval);
        has_closed || (has_waited && durable > through)
    }

    /// Copies one log file as far as it is durable.
    fn copy_file(&self, db_dir: &Path, info: &SegmentInfo, end: Lsn, copying: &mut Copying) -> Result<()> {
        let mut source = LogReader::open(self.env.as_ref(), FileKind::Wal, db_dir, info.file)?;
        if !source.annotated {
            // Written before archiving was on, so it lacks notes: the archive begins behind it.
            self.gate.advance(end);
            return Ok(());
        }
        let path = FileKind::Wal.path(&self.dir, info.file);
        let from = match copying.file {
            Some((file, from)) if file == info.file => from,
            _ => self.begin_file(&mut source, &path)?,
        };
        // Until it is synced, what was written counts for nothing and is looked at again.
        copying.file = None;
        if from > end {
            return Err(diverged(&path));
        }
        let file = self.env.open(&path, OpenMode::ReadWrite).map_err(|error| Error::io("open", &path, error))?;
        let newest = append_frames(&mut source, file.as_ref(), &path, from, end)?;
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        copying.file = Some((info.file, end));
        self.gate.advance(end);
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.seqno = stats.seqno.max(newest);
        Ok(())
    }

    /// Creates a file of the archive, or finds out how far the one that is there goes.
    fn begin_file(&self, source: &mut LogReader, path: &Path) -> Result<Lsn> {
        let env = self.env.as_ref();
        let folder = self.dir.join("wal");
        env.create_dir_all(&folder).map_err(|error| Error::io("create folder", &folder, error))?;
        if env.open(path, OpenMode::Read).is_ok() {
            return self.resume_file(source, path);
        }
        let temporary = path.with_extension("tmp");
        match env.remove(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &temporary, error));
            }
            _ => {}
        }
        let file = env.open(&temporary, OpenMode::CreateNew).map_err(|error| Error::io("create", path, error))?;
        file.write_at(0, &source.header.encode_annotated()).map_err(|error| Error::io("write", path, error))?;
        file.sync().map_err(|error| Error::io("sync", path, error))?;
        env.rename(&temporary, path).map_err(|error| Error::io("rename", path, error))?;
        env.sync_dir(&folder).map_err(|error| Error::io("sync folder", &folder, error))?;
        Ok(source.header.first_lsn)
    }

    /// Where the archived part of a file ends. Whatever is there must be what the database has there: a directory that was
    /// put back to an earlier state writes another history under the same numbers, which must not be mixed with the first.
    fn resume_file(&self, source: &mut LogReader, path: &Path) -> Result<Lsn> {
        let mut archived = LogReader::open(self.env.as_ref(), FileKind::Wal, &self.dir, source.header.file)?;
        if archived.header != source.header {
            return Err(diverged(path));
        }
        let mut offset = HEADER_BYTES as u64;
        while let Some(frame) = archived.frame_at(offset)? {
            if source.frame_at(offset)? != Some(frame) {
                return Err(diverged(path));
            }
            offset += frame.end.0 - frame.lsn.0;
        }
        Ok(archived.lsn_of(offset))
    }

    fn record<T>(&self, result: Result<T>) -> Result<T> {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Ok(_) => stats.last_error = None,
            Err(error) => {
                stats.failure_count += 1;
                stats.last_error = Some(describe(error));
            }
        }
        result
    }
}

impl Db {
    /// Copies to the archive what is due: closed log files, and the one being written as far as it is durable when the
    /// interval has passed. `false` if nothing was. A background thread calls this if there is an archive.
    ///
    /// # Errors
    /// I/O on the archive. The log is kept and the next call tries again.
    pub fn archive_step(&self) -> Result<bool> {
        let inner = &self.inner;
        let Some(archive) = &inner.archive else { return Ok(false) };
        {
            let copying = archive.copying.lock().unwrap_or_else(PoisonError::into_inner);
            if !archive.is_due(&copying, &inner.wal.segments(), inner.wal.durable_lsn()) {
                return Ok(false);
            }
        }
        archive.record(inner.archive_durable())?;
        // What waited only for the archive can go now.
        inner.release_log()?;
        Ok(true)
    }

    /// Syncs the log and copies all of it to the archive, now. When this returns, every commit acknowledged before can be
    /// restored from the archive and the last backup. Does nothing without an archive.
    ///
    /// # Errors
    /// A log that failed; I/O on the archive.
    pub fn archive_log(&self) -> Result<()> {
        self.inner.archive_all()
    }

    /// How the archive is doing; `None` without one.
    #[must_use]
    pub fn archive_stats(&self) -> Option<ArchiveStats> {
        let archive = self.inner.archive.as_ref()?;
        let stats = archive.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let through = archive.gate.through();
        let waiting_bytes = self.inner.wal.durable_lsn().0.saturating_sub(through.0);
        Some(ArchiveStats { through, waiting_bytes, skipped_bytes: archive.gate.skipped_bytes(), ..stats })
    }
}

impl Inner {
    pub(crate) fn archive_all(&self) -> Result<()> {
        let Some(archive) = &self.archive else { return Ok(()) };
        self.wal.sync_to(self.wal.end_lsn())?;
        archive.record(self.archive_durable())
    }

    /// Copies every log file as far as it is durable, oldest first.
    fn archive_durable(&self) -> Result<()> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let mut copying = archive.copying.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: what is durable lies in the files that are there afterwards.
        let durable = self.wal.durable_lsn();
        for info in self.wal.segments() {
            let end = info.end_lsn.min(durable);
            if end <= archive.gate.through() || info.first_lsn >= end {
                continue;
            }
            if let Err(error) = archive.copy_file(&self.dir, &info, end, &mut copying) {
                // It may have been given up and used again while it was read; its bytes do not verify then.
                if self.wal.segments().iter().any(|kept| kept.file == info.file) {
                    return Err(error);
                }
            }
        }
        copying.at = Some(self.env.monotonic());
        Ok(())
    }

    /// Notes the time in the log, with the first commit of each step of the clock. Inside the commit mutex.
    pub(crate) fn note_time(&self) -> Result<()> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let now_ms = wall_clock_ms(self.env.as_ref());
        if now_ms.abs_diff(archive.noted_ms.load(Ordering::Relaxed)) < CLOCK_STEP_MS {
            return Ok(());
        }
        archive.noted_ms.store(now_ms, Ordering::Relaxed);
        self.wal.note(RecordKind::Clock, &now_ms.to_le_bytes())
    }
}

/// What [`Repository::prune_archive`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchivePruned {
    /// Log files.
    pub file_count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Repository {
    /// Removes from the folder `archive` the log files that no backup of this repository needs: of each database those that
    /// lie wholly before its oldest backup. What was archived of databases without a backup here stays, and so does whatever
    /// backups in *other* repositories do not need: an archive has one repository. The database may go on archiving.
    ///
    /// Cost: reads the header of each file that stays.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a backup's record cannot be read, for it may need anything (nothing is removed then);
    /// [`Error::Locked`]; I/O, after which all that is needed is still there.
    pub fn prune_archive(&self, archive: &Path) -> Result<ArchivePruned> {
        let _lock = self.lock()?;
        let (records, damaged) = self.records()?;
        if let Some(error) = damaged.into_iter().next() {
            return Err(error);
        }
        let mut needed: BTreeMap<DbId, Lsn> = BTreeMap::new();
        for record in &records {
            let from = needed.entry(record.db_id).or_insert(record.through);
            *from = record.through.min(*from);
        }
        let (env, mut pruned) = (self.env.as_ref(), ArchivePruned::default());
        for (db_id, from) in needed {
            let dir = database_dir(archive, &db_id);
            let files = list_files(env, &dir)?;
            let needless = &files[..file_of(env, &dir, &files, from).unwrap_or(0)];
            // Oldest first, so that what is left is one piece whenever this ends.
            for path in needless.iter().map(|file| FileKind::Wal.path(&dir, *file)) {
                pruned.bytes += length_of(env, &path)?.unwrap_or(0);
                env.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
                pruned.file_count += 1;
            }
        }
        Ok(pruned)
    }
}

/// Which of `files`, the archived ones of a database, ascending, holds log position `lsn`: the newest that begins at or
/// before it. None if all begin behind it. Files whose header cannot be read count as newer: whoever reads on meets them.
pub(crate) fn file_of(env: &dyn Env, dir: &Path, files: &[FileId], lsn: Lsn) -> Option<usize> {
    files.iter().rposition(|file| {
        let opened = LogReader::open(env, FileKind::Wal, dir, *file);
        opened.is_ok_and(|reader| reader.header.first_lsn <= lsn)
    })
}

/// The folder of a database in the archive `dir`.
pub(crate) fn database_dir(dir: &Path, db_id: &DbId) -> PathBuf {
    dir.join(hex(db_id))
}

/// Payload of a note that row ids of `table` below `next` may have been given out.
pub(crate) fn row_ids_note(table: TableId, next: u64) -> Vec<u8> {
    [&table.0.to_le_bytes()[..], &next.to_le_bytes()].concat()
}

fn diverged(path: &Path) -> Error {
    let what = "the archive holds another history of this database; archive it to another folder and take a new backup";
    Error::Invalid(format!("{what} ({})", path.display()))
}

/// Writes the frames of `source` from `from` to `end` behind what `file` has; returns the newest commit among them.
fn append_frames(source: &mut LogReader, file: &dyn File, path: &Path, from: Lsn, end: Lsn) -> Result<SeqNo> {
    let identity = Identity::new(FileKind::Wal, &source.header.db_id, source.header.file);
    let mut offset = HEADER_BYTES as u64 + (from.0 - source.header.first_lsn.0);
    let (mut piece, mut newest) = (Vec::new(), SeqNo::ZERO);
    let mut write = |piece: &mut Vec<u8>| {
        file.write_at(offset, piece).map_err(|error| Error::io("write", path, error))?;
        offset += piece.len() as u64;
        piece.clear();
        Ok(())
    };
    visit_frames(source, from, end, &mut |frame| {
        push_frame(&mut piece, identity, frame)?;
        newest = newest.max(frame.seqno);
        if piece.len() >= PIECE_BYTES { write(&mut piece) } else { Ok(()) }
    })?;
    write(&mut piece)?;
    Ok(newest)
}

/// The bytes of a verified frame, laid out again: the same ones.
fn push_frame(piece: &mut Vec<u8>, identity: Identity, frame: &Frame<'_>) -> Result<()> {
    let Some(kind) = RecordKind::from_u8(frame.kind) else {
        return Err(Error::Invalid(format!("log record of the unknown kind {}", frame.kind)));
    };
    let at = piece.len();
    record::begin_frame(piece, kind, frame.lsn, frame.seqno, &[frame.payload]);
    record::seal_frame(identity, &mut piece[at..], frame.durable);
    Ok(())
}
