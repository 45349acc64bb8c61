//! Reads logs back; tells a torn tail from corruption.
//!
//! A bad frame at X in the newest file is a torn tail, and replay stops there, unless something proves that X had
//! been synced: a later frame of the file that says so. A bad frame in any older file is corruption, because its
//! successor was created only after it was synced to the end. An I/O error is never taken for an end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::patient::Patient;
use crate::seqno::SeqNo;
use crate::wal::header::{FileHeader, HEADER_BYTES};
use crate::wal::record::{self, FRAME_ALIGN, FRAME_HEADER_BYTES, Frame, Identity, LSN_AT, RecordKind};
use crate::wal::{DbId, Lsn, WalStart};

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// One log file as replay found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub file: FileId,
    /// Position of its first frame.
    pub first_lsn: Lsn,
    /// Position behind its last frame.
    pub end_lsn: Lsn,
    /// Newest commit named by any of its frames.
    pub newest_seqno: SeqNo,
    /// Size of the file.
    pub file_bytes: u64,
}

/// How the log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Closed in order.
    Closed,
    /// Not closed, but nothing unfinished is visible behind the last frame.
    Open,
    /// An unfinished write stood behind the last frame; it was never acknowledged as durable.
    Torn {
        /// The file.
        file: PathBuf,
        /// Where the first unfinished frame starts.
        offset: u64,
        /// How much of the log is given up.
        dropped_bytes: u64,
    },
}

/// What [`replay`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayReport {
    /// The files, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Position behind the last frame: where writing continues.
    pub end: Lsn,
    /// Everything below this is known to have been synced.
    pub proven: Lsn,
    /// Newest commit named by any frame; zero for an empty log.
    pub last_seqno: SeqNo,
    /// Frames replayed, all kinds.
    pub frame_count: u64,
    /// How the log ended.
    pub tail: Tail,
}

/// Where a frame was found, for errors about what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log file.
    pub file: FileId,
    /// Where in it the frame's payload begins.
    pub payload_at: u64,
}

/// Calls `visit` with every frame of the log below `dir`, oldest first, together with its place.
///
/// `start` is where the manifest says the needed part begins; `None` only while nothing was ever released. Changes
/// nothing on disk. Memory: one window of 1 MiB, or one frame if that is larger.
///
/// # Errors
/// [`Error::Corrupt`] naming file and offset if a file is missing, damaged or foreign in a part that had been synced;
/// [`Error::NewerFormat`]; [`Error::Io`]; whatever `visit` returns.
pub fn replay(
    env: &dyn Env,
    dir: &Path,
    db_id: &DbId,
    start: Option<WalStart>,
    visit: &mut dyn FnMut(Place, &Frame<'_>) -> Result<()>,
) -> Result<ReplayReport> {
    let mut readers = open_chain(env, dir, db_id, start)?;
    let mut report = ReplayReport {
        segments: Vec::with_capacity(readers.len()),
        end: readers.first().map_or(Lsn(0), |reader| reader.header.first_lsn),
        proven: readers.last().map_or(Lsn(0), |reader| reader.header.first_lsn),
        last_seqno: SeqNo::ZERO,
        frame_count: 0,
        tail: Tail::Open,
    };
    let finals: Vec<Option<Lsn>> =
        (1..=readers.len()).map(|next| readers.get(next).map(|reader| reader.header.first_lsn)).collect();
    for (reader, final_lsn) in readers.iter_mut().zip(finals) {
        replay_file(reader, final_lsn, &mut report, visit)?;
    }
    Ok(report)
}

/// Opens all needed files and checks that each follows the one before it.
fn open_chain(env: &dyn Env, dir: &Path, db_id: &DbId, start: Option<WalStart>) -> Result<Vec<LogReader>> {
    let oldest = start.map_or(FileId(0), |start| start.file);
    let mut readers: Vec<LogReader> = Vec::new();
    for file in list_files(env, dir)?.into_iter().filter(|&file| file >= oldest) {
        let reader = LogReader::open(env, FileKind::Wal, dir, file)?;
        let corrupt = |what: String| Err(Error::corrupt(FileKind::Wal, &reader.path, 0, what));
        if reader.header.db_id != *db_id {
            return corrupt("the file belongs to another database".to_owned());
        }
        let expected = match (readers.last(), start) {
            (Some(previous), _) => Some(previous.header.file),
            (None, None) => None,
            // What came before the recorded start was released.
            (None, Some(start)) if start == (WalStart { file, lsn: reader.header.first_lsn }) => reader.header.previous,
            (None, Some(start)) => return corrupt(format!("log file {} must come first but is missing", start.file)),
        };
        if reader.header.previous != expected {
            let previous = reader.header.previous.unwrap_or(FileId(0));
            return corrupt(format!("it follows log file {previous}, which is missing"));
        }
        readers.push(reader);
    }
    if let (Some(start), true) = (start, readers.is_empty()) {
        let path = FileKind::Wal.path(dir, start.file);
        return Err(Error::corrupt(FileKind::Wal, &path, 0, "the file is missing"));
    }
    Ok(readers)
}

/// Numbers of the log files below `dir`, ascending.
pub(crate) fn list_files(env: &dyn Env, dir: &Path) -> Result<Vec<FileId>> {
    let folder = dir.join("wal");
    let names = match env.list(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("list", &folder, error)),
    };
    let mut files: Vec<FileId> = names
        .iter()
        .filter_map(|name| FileKind::parse(name))
        .filter(|(kind, _)| *kind == FileKind::Wal)
        .map(|(_, file)| file)
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Replays one file: to `final_lsn`, where its successor starts, or as far as it goes if it is the newest.
fn replay_file(
    reader: &mut LogReader,
    final_lsn: Option<Lsn>,
    report: &mut ReplayReport,
    visit: &mut dyn FnMut(Place, &Frame<'_>) -> Result<()>,
) -> Result<()> {
    let (file, path, first_lsn) = (reader.header.file, reader.path.clone(), reader.header.first_lsn);
    let corrupt = |offset: u64, what: &'static str| Err(Error::corrupt(FileKind::Wal, &path, offset, what));
    let mut newest_seqno = SeqNo::ZERO;
    let mut offset = HEADER_BYTES as u64;
    let mut closed = false;
    while final_lsn.is_none_or(|end| reader.lsn_of(offset) < end) && !(closed && final_lsn.is_none()) {
        let Some(frame) = reader.frame_at(offset)? else { break };
        let Some(kind) = RecordKind::from_u8(frame.kind) else {
            return corrupt(offset, "record of an unknown kind");
        };
        if kind == RecordKind::Commit && frame.seqno <= report.last_seqno {
            return corrupt(offset, "commit numbers do not rise");
        }
        if closed {
            return corrupt(offset, "record behind the end of a closed log");
        }
        closed = kind == RecordKind::CleanClose;
        visit(Place { file, payload_at: offset + FRAME_HEADER_BYTES as u64 }, &frame)?;
        newest_seqno = newest_seqno.max(frame.seqno);
        report.last_seqno = report.last_seqno.max(frame.seqno);
        report.proven = report.proven.max(frame.durable);
        report.frame_count += 1;
        offset += frame.end.0 - frame.lsn.0;
    }
    let end_lsn = reader.lsn_of(offset);
    match final_lsn {
        Some(end) if end_lsn != end => return corrupt(offset, "bad record before the end that its successor states"),
        Some(_) => {}
        None if closed => report.tail = Tail::Closed,
        None => report.tail = reader.judge_tail(offset)?,
    }
    report.end = end_lsn;
    report.segments.push(SegmentInfo { file, first_lsn, end_lsn, newest_seqno, file_bytes: reader.file_bytes });
    Ok(())
}

/// Reads the frames of one log file, of the WAL or the manifest, through a window.
pub(crate) struct LogReader {
    pub(crate) header: FileHeader,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    /// Whether it may hold notes.
    pub(crate) annotated: bool,
    kind: FileKind,
    file: Arc<dyn File>,
    identity: Identity,
    window: Vec<u8>,
    window_start: u64,
}

impl LogReader {
    /// Opens file `id` and checks its header.
    pub(crate) fn open(env: &dyn Env, kind: FileKind, dir: &Path, id: FileId) -> Result<LogReader> {
        LogReader::open_at(env, kind, kind.path(dir, id), id)
    }

    /// [`LogReader::open`] for a file that may lie anywhere.
    pub(crate) fn open_at(env: &dyn Env, kind: FileKind, path: PathBuf, id: FileId) -> Result<LogReader> {
        let file = env.open(&path, OpenMode::Read).map_err(|error| Error::io("open", &path, error))?;
        let file_bytes = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let mut block = vec![0; file_bytes.min(HEADER_BYTES as u64) as usize];
        file.read_at(0, &mut block).map_err(|error| Error::io("read", &path, error))?;
        let header = FileHeader::decode(&block, kind, id, &path)?;
        let annotated = FileHeader::is_annotated(&block);
        Ok(LogReader { annotated, ..LogReader::with_header(env, kind, path, header)? })
    }

    /// A reader of a file whose own header is damaged, by what its header must have been.
    pub(crate) fn with_header(env: &dyn Env, kind: FileKind, path: PathBuf, header: FileHeader) -> Result<LogReader> {
        let file = env.open(&path, OpenMode::Read).map_err(|error| Error::io("open", &path, error))?;
        let file_bytes = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let identity = Identity::new(kind, &header.db_id, header.file);
        Ok(LogReader {
            header,
            path,
            file_bytes,
            annotated: false,
            kind,
            file,
            identity,
            window: Vec::new(),
            window_start: 0,
        })
    }

    /// From here on takes bytes that the device does not give for damage, and reads on behind them.
    pub(crate) fn read_patiently(&mut self) {
        self.file = Arc::new(Patient(Arc::clone(&self.file)));
    }

    /// Forgets what was read, because the file may have grown or changed since.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.window.clear();
        self.file_bytes = self.file.len().map_err(|error| Error::io("measure", &self.path, error))?;
        Ok(())
    }

    /// Position in the log of the byte at `offset` of this file.
    pub(crate) fn lsn_of(&self, offset: u64) -> Lsn {
        Lsn(self.header.first_lsn.0 + (offset - HEADER_BYTES as u64))
    }

    /// The frame at `offset`, or `None` if no valid one is there.
    pub(crate) fn frame_at(&mut self, offset: u64) -> Result<Option<Frame<'_>>> {
        let (identity, lsn) = (self.identity, self.lsn_of(offset));
        let Some(header) = self.bytes(offset, FRAME_HEADER_BYTES as u64)? else { return Ok(None) };
        let claimed = record::claimed_bytes(header) as u64;
        if record::claimed_lsn(header) != lsn {
            return Ok(None);
        }
        let Some(bytes) = self.bytes(offset, claimed)? else { return Ok(None) };
        Ok(record::decode_frame(identity, bytes, lsn))
    }

    /// Decides what the bad frame at `offset` of the newest file means.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a later frame proves that the bytes at `offset` had been synced.
    pub(crate) fn judge_tail(&mut self, offset: u64) -> Result<Tail> {
        let bad_lsn = self.lsn_of(offset);
        let mut torn_end = offset;
        if let Some(header) = self.bytes(offset, FRAME_HEADER_BYTES as u64)?
            && record::claimed_lsn(header) == bad_lsn
        {
            torn_end = (offset + record::claimed_bytes(header) as u64).min(self.file_bytes);
        }
        let mut from = offset + FRAME_ALIGN as u64;
        while let Some(at) = self.find_candidate(from)? {
            let Some(frame) = self.frame_at(at)? else {
                from = at + FRAME_ALIGN as u64;
                continue;
            };
            let (durable, bytes) = (frame.durable, frame.end.0 - frame.lsn.0);
            if durable > bad_lsn {
                let what = format!("bad record in a part that the record at byte {at} proves to have been synced");
                return Err(Error::corrupt(self.kind, &self.path, offset, what));
            }
            from = at + bytes;
            torn_end = torn_end.max(from);
        }
        if torn_end == offset {
            return Ok(Tail::Open);
        }
        Ok(Tail::Torn { file: self.path.clone(), offset, dropped_bytes: torn_end - offset })
    }

    /// Next place at or behind `from` whose bytes claim the position they have: a frame, or what is left of one.
    pub(crate) fn find_candidate(&mut self, mut from: u64) -> Result<Option<u64>> {
        const HEADER: u64 = FRAME_HEADER_BYTES as u64;
        while from + HEADER <= self.file_bytes {
            let lsn = self.lsn_of(from).0;
            let available = (self.file_bytes - from).min(WINDOW_BYTES);
            let Some(block) = self.bytes(from, available)? else { return Ok(None) };
            let last = block.len() - FRAME_HEADER_BYTES;
            let found =
                (0..=last).step_by(FRAME_ALIGN).find(|&at| record::read_u64(block, at + LSN_AT) == lsn + at as u64);
            if let Some(at) = found {
                return Ok(Some(from + at as u64));
            }
            from += (last as u64 + 1).next_multiple_of(FRAME_ALIGN as u64);
        }
        Ok(None)
    }

    /// `count` bytes at `offset`, or `None` if the file ends before.
    fn bytes(&mut self, offset: u64, count: u64) -> Result<Option<&[u8]>> {
        if offset.checked_add(count).is_none_or(|end| end > self.file_bytes) {
            return Ok(None);
        }
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + count > window_end {
            let window_bytes = count.max(WINDOW_BYTES).min(self.file_bytes - offset);
            self.window.resize(window_bytes as usize, 0);
            self.window_start = offset;
            if let Err(error) = self.file.read_at(offset, &mut self.window) {
                self.window.clear();
                return Err(Error::io("read", &self.path, error));
            }
        }
        let at = (offset - self.window_start) as usize;
        Ok(Some(&self.window[at..at + count as usize]))
    }
}
