//! The log's files: which one is written, which are kept, which are spare.
//!
//! A file gets the name `*.wal` by a rename, after its header was synced, so whatever carries that name has a
//! complete header. Before that its predecessor was synced to the end. Released files become spares (`*.spare`) and
//! are written again: their blocks are allocated already, which is what makes syncing them cheap. What stands in them
//! never verifies again, because checksums depend on the file number.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::sync::{Arc, Mutex};
use crate::wal::header::{FileHeader, HEADER_BYTES};
use crate::wal::pin::ArchiveGate;
use crate::wal::reader::SegmentInfo;
use crate::wal::record::{self, Identity};
use crate::wal::writer::lock;
use crate::wal::{DbId, FileAllocator, Lsn, WalOptions};

/// Bytes of zeros written at once.
const ZERO_BYTES: usize = 256 << 10;
/// A file without a spare grows by at most this much ahead of the records, or one commit would wait for all of it.
const FILL_STEP_BYTES_MAX: u64 = 4 << 20;

/// What all files of a log have in common.
pub(crate) struct LogFolder {
    pub(crate) env: Arc<dyn Env>,
    /// The database directory.
    pub(crate) dir: PathBuf,
    pub(crate) db_id: DbId,
    pub(crate) options: WalOptions,
    pub(crate) next_file: FileAllocator,
    /// Files with records, oldest first; the last one is written or was the last to be.
    pub(crate) live: Mutex<VecDeque<SegmentInfo>>,
    /// Files ready for reuse.
    spares: Mutex<Vec<PathBuf>>,
    /// The oldest file that each copy in progress needs.
    pub(crate) pins: Mutex<Vec<FileId>>,
    /// What an archive needs, if there is one. Its files may hold notes.
    pub(crate) archived: Option<ArchiveGate>,
}

impl LogFolder {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        dir: &Path,
        db_id: DbId,
        options: WalOptions,
        next_file: FileAllocator,
        archived: Option<ArchiveGate>,
    ) -> LogFolder {
        let (live, spares, pins) = (Mutex::default(), Mutex::default(), Mutex::default());
        LogFolder { env, dir: dir.to_path_buf(), db_id, options, next_file, live, spares, pins, archived }
    }

    fn folder(&self) -> PathBuf {
        self.dir.join("wal")
    }

    fn spare_path(&self, file: FileId) -> PathBuf {
        self.folder().join(format!("{file}.spare"))
    }

    /// Removes the spares left by an earlier process, and the files before `oldest`, which were released.
    ///
    /// They are not taken over, because after a power loss in the middle of a rename the two names may stand for the
    /// same file, and reusing one would overwrite the other.
    pub(crate) fn clean(&self, oldest: Option<FileId>) -> Result<()> {
        let folder = self.folder();
        let names = self.env.list(&folder).map_err(|error| Error::io("list", &folder, error))?;
        for name in names {
            let released = match FileKind::parse(&name) {
                Some((FileKind::Wal, file)) => oldest.is_some_and(|oldest| file < oldest),
                _ => name.ends_with(".spare"),
            };
            if released {
                let path = folder.join(&name);
                self.env.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// Turns a released log file into a spare, or removes it if there are enough.
    pub(crate) fn recycle(&self, file: FileId) -> Result<()> {
        let (path, spare) = (FileKind::Wal.path(&self.dir, file), self.spare_path(file));
        self.env.rename(&path, &spare).map_err(|error| Error::io("rename", &path, error))?;
        let mut spares = lock(&self.spares);
        // A file of an oversized record is not kept: its size would never be needed again.
        if spares.len() < self.options.spare_count_max && self.size_of(&spare)? <= self.options.segment_bytes {
            spares.push(spare);
            return Ok(());
        }
        self.env.remove(&spare).map_err(|error| Error::io("remove", &spare, error))
    }

    fn size_of(&self, path: &Path) -> Result<u64> {
        let file = self.env.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
        file.len().map_err(|error| Error::io("measure", path, error))
    }

    /// Zero-fills one spare file if the newest log file is over half full and no spare is ready.
    pub(crate) fn prepare_spare(&self) -> Result<bool> {
        let filled = lock(&self.live).back().map_or(0, |info| info.end_lsn.0 - info.first_lsn.0);
        if filled < self.options.segment_bytes / 2
            || !lock(&self.spares).is_empty()
            || self.options.spare_count_max == 0
        {
            return Ok(false);
        }
        let path = self.spare_path((self.next_file)());
        let fill = || {
            let file = self.env.open(&path, OpenMode::CreateNew).map_err(|error| Error::io("create", &path, error))?;
            write_zeros(file.as_ref(), 0, self.options.segment_bytes)
                .map_err(|error| Error::io("fill", &path, error))?;
            file.sync().map_err(|error| Error::io("sync", &path, error))
        };
        // Or a full disk would fill up with attempts, each under a number of its own.
        fill().inspect_err(|_| drop(self.env.remove(&path)))?;
        lock(&self.spares).push(path);
        Ok(true)
    }

    /// Sizes of the spare files, in bytes.
    pub(crate) fn spare_bytes(&self) -> Result<u64> {
        let spares = lock(&self.spares).clone();
        let mut total = 0;
        for path in spares {
            total += self.size_of(&path)?;
        }
        Ok(total)
    }

    /// Creates the file that follows `previous` and starts at `first_lsn`.
    fn create(&self, previous: Option<FileId>, first_lsn: Lsn) -> Result<Segment> {
        let id = (self.next_file)();
        assert!(previous.is_none_or(|previous| previous < id), "file numbers must rise");
        let header = FileHeader { db_id: self.db_id, file: id, first_lsn, previous };
        let spare = lock(&self.spares).pop();
        let (temporary, mode) = match spare {
            Some(path) => (path, OpenMode::ReadWrite),
            None => (self.spare_path(id), OpenMode::CreateNew),
        };
        let failed = |action| move |error| Error::io(action, &FileKind::Wal.path(&self.dir, id), error);
        let file = self.env.open_log(&temporary, mode).map_err(failed("create"))?;
        let block = if self.archived.is_some() { header.encode_annotated() } else { header.encode(FileKind::Wal) };
        file.write_at(0, &block).map_err(failed("write"))?;
        let mut file_bytes = file.len().map_err(failed("measure"))?;
        if mode == OpenMode::CreateNew {
            let target = self.options.fill_bytes.min(self.options.segment_bytes).max(file_bytes);
            write_zeros(file.as_ref(), file_bytes, target).map_err(failed("fill"))?;
            file_bytes = target;
        }
        file.sync().map_err(failed("sync"))?;
        let path = FileKind::Wal.path(&self.dir, id);
        self.env.rename(&temporary, &path).map_err(failed("rename"))?;
        self.env.sync_dir(&self.folder()).map_err(failed("sync the folder of"))?;
        let info = SegmentInfo { file: id, first_lsn, end_lsn: first_lsn, newest_seqno: SeqNo::ZERO, file_bytes };
        lock(&self.live).push_back(info);
        let identity = Identity::new(FileKind::Wal, &self.db_id, id);
        Ok(Segment { file, path, identity, info })
    }
}

/// The file being written.
struct Segment {
    file: Arc<dyn File>,
    path: PathBuf,
    identity: Identity,
    info: SegmentInfo,
}

/// Writes frames to the newest file and starts the next one when it is full. Owned by whoever has the flush turn.
pub(crate) struct LogTail {
    folder: Arc<LogFolder>,
    active: Option<Segment>,
    /// The newest file there is, written by this process or an earlier one.
    previous: Option<FileId>,
    /// Everything below was synced.
    pub(crate) durable: Lsn,
}

impl LogTail {
    /// Continues behind `durable`, in a new file that is created with the first write.
    pub(crate) fn new(folder: Arc<LogFolder>, previous: Option<FileId>, durable: Lsn) -> LogTail {
        LogTail { folder, active: None, previous, durable }
    }

    /// Starts the next file at `first_lsn`; the current one must have been synced.
    pub(crate) fn start_segment(&mut self, first_lsn: Lsn) -> Result<()> {
        assert_eq!(self.durable, first_lsn);
        self.active = None;
        let segment = self.folder.create(self.previous, first_lsn)?;
        self.previous = Some(segment.info.file);
        self.active = Some(segment);
        Ok(())
    }

    /// Writes begun frames, the first of which stands at `lsn`, completing each on the way.
    pub(crate) fn write(&mut self, frames: &mut [u8], lsn: Lsn) -> Result<()> {
        let segment_bytes = self.folder.options.segment_bytes;
        let mut rest = frames;
        let mut lsn = lsn;
        while !rest.is_empty() {
            if self.active.is_none() {
                self.start_segment(lsn)?;
            }
            let Some(segment) = &mut self.active else { unreachable!("a segment was just started") };
            let group_bytes = segment.seal_fitting(rest, segment_bytes, self.durable);
            let (group, behind) = rest.split_at_mut(group_bytes);
            if group.is_empty() {
                self.sync(lsn)?;
                self.active = None;
            } else {
                segment.write(group, segment_bytes)?;
                lsn = Lsn(lsn.0 + group_bytes as u64);
                self.publish_info();
            }
            rest = behind;
        }
        Ok(())
    }

    /// Syncs everything written, which reaches to `end`.
    pub(crate) fn sync(&mut self, end: Lsn) -> Result<()> {
        if let Some(segment) = &self.active {
            segment.file.sync().map_err(|error| Error::io("sync", &segment.path, error))?;
        }
        self.durable = end;
        Ok(())
    }

    fn publish_info(&self) {
        if let (Some(segment), Some(info)) = (&self.active, lock(&self.folder.live).back_mut()) {
            *info = segment.info;
        }
    }
}

impl Segment {
    fn offset(&self) -> u64 {
        HEADER_BYTES as u64 + (self.info.end_lsn.0 - self.info.first_lsn.0)
    }

    /// Completes the leading frames of `frames` that fit into this file; returns their bytes. An empty file takes at
    /// least one, however large.
    fn seal_fitting(&mut self, frames: &mut [u8], segment_bytes: u64, durable: Lsn) -> usize {
        let start = self.offset();
        let mut at = 0;
        while at < frames.len() {
            let frame_bytes = record::claimed_bytes(&frames[at..]);
            let end = start + (at + frame_bytes) as u64;
            let is_first = start + at as u64 == HEADER_BYTES as u64;
            if end > segment_bytes && !is_first {
                break;
            }
            let frame = &mut frames[at..at + frame_bytes];
            record::seal_frame(self.identity, frame, durable);
            self.info.newest_seqno = self.info.newest_seqno.max(record::begun_seqno(frame));
            at += frame_bytes;
        }
        at
    }

    fn write(&mut self, group: &[u8], segment_bytes: u64) -> Result<()> {
        let offset = self.offset();
        let end = offset + group.len() as u64;
        self.file.write_at(offset, group).map_err(|error| Error::io("write", &self.path, error))?;
        self.info.end_lsn = Lsn(self.info.end_lsn.0 + group.len() as u64);
        if end > self.info.file_bytes {
            let step = self.info.file_bytes.min(FILL_STEP_BYTES_MAX);
            let target = (end + step).min(segment_bytes).max(end);
            write_zeros(self.file.as_ref(), end, target).map_err(|error| Error::io("fill", &self.path, error))?;
            self.info.file_bytes = target;
        }
        Ok(())
    }
}

fn write_zeros(file: &dyn File, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZERO_BYTES.min(to.saturating_sub(from) as usize)];
    let mut at = from;
    while at < to {
        let count = (to - at).min(ZERO_BYTES as u64);
        file.write_at(at, &zeros[..count as usize])?;
        at += count;
    }
    Ok(())
}
