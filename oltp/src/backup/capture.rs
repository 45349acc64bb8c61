//! `Capture`: one point of the commit order with everything needed to copy the database as of that point.
//!
//! Taking one costs commits nothing but an instant inside their mutex, and flushes the few loads made under their
//! installation lock; the copying happens afterwards, with files pinned by a read view and the log by a pin.
//!
//! Always true:
//! * the log up to `through` ends with commit `seqno`, and is durable before anything is copied. The end of the log is
//!   read first and synced to second, never the other way round (as in Pebble #5142, RocksDB #12670);
//! * the version is loaded after that, so every row id that a commit at or below `seqno` used is reserved in it, and
//!   before anything else can be installed, so no file in it holds a later commit;
//! * version and view agree, so the view keeps every file that the version names.

use std::path::Path;
use std::sync::Arc;

use crate::backup::log::{LogCopy, visit_commits};
use crate::db::Inner;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::manifest::{self, Version};
use crate::seqno::SeqNo;
use crate::sync::PoisonError;
use crate::view::ReadView;
use crate::wal::pin::LogPin;
use crate::wal::reader::{LogReader, SegmentInfo};
use crate::wal::{DbId, Lsn, WalStart};

/// See the module.
pub(crate) struct Capture {
    /// The newest commit that belongs to it; none after it does.
    pub(crate) seqno: SeqNo,
    /// Up to this one nothing is needed of the log.
    flushed: SeqNo,
    /// Where the log ends with that commit.
    pub(crate) through: Lsn,
    /// Wall-clock milliseconds at that point: every commit in it was sequenced before.
    pub(crate) taken_ms: u64,
    /// The files, and how far each table is flushed.
    pub(crate) version: Arc<Version>,
    /// Log files that hold what is not flushed, oldest first.
    pub(crate) segments: Vec<SegmentInfo>,
    _view: Arc<ReadView>,
    _pin: LogPin,
}

impl Inner {
    /// Freezes the present. Waits for one sync of the log.
    ///
    /// # Errors
    /// A log that failed.
    pub(crate) fn capture(&self) -> Result<Capture> {
        let installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let (seqno, through, flushed, taken_ms) = {
            let sequencer = self.lock_sequencer();
            let flushed = self.log_needless_through(&sequencer);
            (sequencer.last, self.wal.end_lsn(), flushed, wall_clock_ms(self.env.as_ref()))
        };
        let version = self.manifest.version();
        let (view, pin) = (self.views.load(), self.wal.pin());
        drop(installing);
        self.wal.sync_to(through)?;
        let needed = version.wal_start.map_or(Lsn(0), |start| start.lsn);
        let segments =
            self.wal.segments().into_iter().filter(|info| info.first_lsn >= needed && info.first_lsn < through);
        let segments = segments.collect();
        Ok(Capture { seqno, flushed, through, taken_ms, version, segments, _view: view, _pin: pin })
    }
}

impl Capture {
    /// Copies the commits that are needed, and no others, from the log in `dir` into `copy`.
    pub(crate) fn copy_log(&self, env: &dyn Env, dir: &Path, copy: &mut LogCopy<'_>) -> Result<()> {
        for info in &self.segments {
            let mut reader = LogReader::open(env, FileKind::Wal, dir, info.file)?;
            let end = info.end_lsn.min(self.through);
            visit_commits(&mut reader, info.first_lsn, end, &mut |seqno, payload| {
                // A commit after the point would be one too many, however it got below its end.
                if seqno > self.seqno {
                    return Err(Error::corrupt(FileKind::Wal, dir, 0, "the log is not in commit order"));
                }
                if seqno > self.flushed { copy.append(seqno, payload) } else { Ok(()) }
            })?;
        }
        Ok(())
    }

    /// The version of a copy. Times and the floor of history may have been saved after the point; the copy will give the
    /// SeqNos behind it to other commits.
    pub(crate) fn version_of_copy(&self) -> Version {
        let mut version = (*self.version).clone();
        Arc::make_mut(&mut version.times).retain(|mark| mark.seqno <= self.seqno);
        let kept_from = version.kept_from.map(|oldest| oldest.min(self.seqno));
        Version { last_seqno: self.seqno, kept_from, ..version }
    }

    /// Where the copied log begins.
    pub(crate) fn log_start(&self) -> Lsn {
        self.segments.first().map_or(self.through, |info| info.first_lsn)
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_clock_ms(env: &dyn Env) -> u64 {
    u64::try_from(env.wall_clock().as_millis()).unwrap_or(u64::MAX)
}

/// The last step of making a copy in `dest`, whose data files and log are there and synced: an identity of its own, so
/// that its later logs are never taken for the original's, and the manifest.
pub(crate) fn finish_copy(env: &dyn Env, dest: &Path, db_id: &DbId, version: &Version, start: WalStart) -> Result<()> {
    for folder in ["runs", "segments", "wal"].map(|folder| dest.join(folder)) {
        env.sync_dir(&folder).map_err(|error| Error::io("sync folder", &folder, error))?;
    }
    let version = Version { wal_start: Some(start), ..version.clone() };
    manifest::create(env, dest, db_id, &version)
}

/// Creates the folders of a database in `dest`, which must hold nothing of one.
///
/// # Errors
/// [`Error::Invalid`] if it does; I/O.
pub(crate) fn claim_folder(env: &dyn Env, dest: &Path) -> Result<()> {
    for folder in [dest.to_path_buf(), dest.join("wal"), dest.join("runs"), dest.join("segments")] {
        env.create_dir_all(&folder).map_err(|error| Error::io("create folder", &folder, error))?;
        let names = env.list(&folder).map_err(|error| Error::io("list", &folder, error))?;
        if names.iter().any(|name| FileKind::parse(name).is_some()) {
            let what = format!("{} already holds a database or a part of one; choose an empty folder", dest.display());
            return Err(Error::Invalid(what));
        }
    }
    Ok(())
}

/// File numbers of a copy: those that its version has not given out.
pub(crate) fn numbers(version: &mut Version) -> impl FnMut() -> FileId + '_ {
    move || {
        let id = version.next_file;
        version.next_file = FileId(id.0 + 1);
        id
    }
}
