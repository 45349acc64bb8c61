//! A log file piece by piece, sound or not: frames, and the gaps between them.
//!
//! A damaged frame hides where the next one begins. But each frame says its own position, so the search goes on eight
//! bytes further until a frame verifies again; its `durable` field then says whether the gap had been synced.

use std::path::Path;

use super::dump::{hex, title};
use super::{Dump, Fault};
use crate::commit::record::CommitRecord;
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::VersionKind;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::values::ValueRef;
use crate::wal::header::{FileHeader, HEADER_BYTES, LSN_MAX};
use crate::wal::reader::LogReader;
use crate::wal::record::{FRAME_ALIGN, FRAME_HEADER_BYTES};
use crate::wal::{Frame, Lsn, RecordKind};

/// One piece of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A verified frame, and where in the file it begins.
    Frame(u64, Frame<'a>),
    /// Bytes that do not verify, before a frame that does.
    Gap {
        /// First bad byte.
        offset: u64,
        /// Where the next good frame begins.
        end: u64,
        /// Whether that frame or a later one proves that the gap had been synced.
        is_proven: bool,
    },
    /// Nothing verifies from here on.
    End {
        /// Where the last frame ends.
        offset: u64,
        /// Whether the last frame says that the log was closed in order.
        is_closed: bool,
    },
}

/// One entry of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Table of the row.
    pub table: TableId,
    /// Whether the row was written or deleted.
    pub kind: VersionKind,
    /// Full key.
    pub key: Vec<u8>,
    /// Encoded row, empty for a delete.
    pub value: Vec<u8>,
}

/// Calls `visit` with the frames of the file in order, the gaps between them and its end. What lies behind the first gap is
/// read twice, because any frame there may prove that the gap had been synced.
///
/// # Errors
/// [`Error::Io`]; whatever `visit` returns.
pub(crate) fn walk(reader: &mut LogReader, visit: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
    reader.read_patiently();
    let mut offset = HEADER_BYTES as u64;
    let mut is_closed = false;
    let mut proven = None;
    loop {
        if let Some(frame) = reader.frame_at(offset)? {
            let end = offset + (frame.end.0 - frame.lsn.0);
            is_closed = frame.kind == RecordKind::CleanClose as u8;
            visit(Piece::Frame(offset, frame))?;
            offset = end;
            continue;
        }
        let Some(next) = next_frame(reader, offset + FRAME_ALIGN as u64)? else {
            return visit(Piece::End { offset, is_closed });
        };
        let proven = match proven {
            Some(proven) => proven,
            None => *proven.insert(proven_behind(reader, next)?),
        };
        let is_proven = proven > reader.lsn_of(offset);
        visit(Piece::Gap { offset, end: next.offset, is_proven })?;
        offset = next.offset;
    }
}

/// A frame that was found behind a gap.
#[derive(Clone, Copy)]
struct Found {
    offset: u64,
    bytes: u64,
    durable: Lsn,
}

/// The next frame at or behind `from` that verifies.
fn next_frame(reader: &mut LogReader, mut from: u64) -> Result<Option<Found>> {
    while let Some(offset) = reader.find_candidate(from)? {
        if let Some(frame) = reader.frame_at(offset)? {
            return Ok(Some(Found { offset, bytes: frame.end.0 - frame.lsn.0, durable: frame.durable }));
        }
        from = offset + FRAME_ALIGN as u64;
    }
    Ok(None)
}

/// Below which position `found` and all frames behind it prove the log to have been synced. Not the next frame alone: it may
/// have been written in one go with the bytes of the gap.
fn proven_behind(reader: &mut LogReader, found: Found) -> Result<Lsn> {
    let (mut proven, mut next) = (Lsn(0), Some(found));
    while let Some(frame) = next {
        proven = proven.max(frame.durable);
        next = next_frame(reader, frame.offset + frame.bytes)?;
    }
    Ok(proven)
}

/// The entries of a commit's payload.
///
/// # Errors
/// At which byte of the payload what does not hold.
pub fn entries(payload: &[u8]) -> Result<Vec<LogEntry>, (usize, &'static str)> {
    let record = CommitRecord::decode(payload)?;
    let mut entries = Vec::new();
    for (table, range) in &record.tables {
        entries.extend(record.versions(range.clone()).map(|(key, kind, value)| LogEntry {
            table: *table,
            kind,
            key: key.to_vec(),
            value: value.to_vec(),
        }));
    }
    Ok(entries)
}

/// Opens a log or manifest file of which only the path is known.
pub(crate) fn open(env: &dyn Env, kind: FileKind, path: &Path, id: Option<FileId>) -> Result<LogReader> {
    let id = match id {
        Some(id) => id,
        None => FileId(number_in_header(env, path)?),
    };
    LogReader::open_at(env, kind, path.to_path_buf(), id)
}

/// Opens a log file whose header is damaged, from what its first frame and the database's identity say.
pub(crate) fn open_headless(env: &dyn Env, path: &Path, file: FileId, db_id: crate::wal::DbId) -> Result<LogReader> {
    let handle = env.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
    let mut lsn = [0; 8];
    handle
        .read_at((HEADER_BYTES + crate::wal::record::LSN_AT) as u64, &mut lsn)
        .map_err(|error| Error::io("read", path, error))?;
    // A wild position fits no frame.
    let first_lsn = Lsn(u64::from_le_bytes(lsn)).min(LSN_MAX);
    let header = FileHeader { db_id, file, first_lsn, previous: None };
    LogReader::with_header(env, FileKind::Wal, path.to_path_buf(), header)
}

fn number_in_header(env: &dyn Env, path: &Path) -> Result<u64> {
    let file = env.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
    let mut number = [0; 8];
    file.read_at(32, &mut number).map_err(|error| Error::io("read", path, error))?;
    Ok(u64::from_le_bytes(number))
}

/// Says what the header of a log or manifest file says.
pub(crate) fn say_header(reader: &LogReader, kind: FileKind, dump: &mut Dump<'_>) {
    let FileHeader { db_id, file, first_lsn, previous } = reader.header;
    dump.say(0, format!("{}, {} bytes", title(kind, Some(file)), reader.file_bytes));
    let previous = previous.map_or_else(|| "none before it".to_owned(), |file| format!("after file {file}"));
    dump.say(1, format!("database {}, first position {first_lsn}, {previous}", hex(&db_id)));
}

/// `strata inspect` of a write-ahead log file.
///
/// # Errors
/// [`Error::Io`].
pub fn inspect(env: &dyn Env, path: &Path, id: Option<FileId>, dump: &mut Dump<'_>) -> Result<()> {
    let mut reader = match open(env, FileKind::Wal, path, id) {
        Ok(reader) => reader,
        Err(error @ Error::Io { .. }) => return Err(error),
        Err(error) => {
            dump.say(0, title(FileKind::Wal, id));
            dump.fault(1, Fault::of(&error, FileKind::Wal, path));
            return Ok(());
        }
    };
    say_header(&reader, FileKind::Wal, dump);
    let (mut count, mut last) = (0, SeqNo::ZERO);
    walk(&mut reader, &mut |piece| {
        match piece {
            Piece::Frame(offset, frame) => {
                let is_commit = frame.kind == RecordKind::Commit as u8;
                if is_commit && frame.seqno <= last {
                    dump.fault(1, Fault::new(FileKind::Wal, path, offset, "commit numbers do not rise"));
                }
                last = last.max(frame.seqno);
                say_frame(path, offset, &frame, count, dump);
                count += 1;
            }
            Piece::Gap { offset, end, is_proven: true } => {
                let what = format!("{} bytes that do not verify, although they had been synced", end - offset);
                dump.fault(1, Fault::new(FileKind::Wal, path, offset, what));
            }
            Piece::Gap { offset, end, .. } => {
                dump.say(1, format!("{offset}: torn, {} bytes that may never have been synced", end - offset));
            }
            Piece::End { offset, is_closed } => {
                dump.end_list(1, count);
                let how = if is_closed { "closed in order" } else { "not closed" };
                dump.say(1, format!("{count} frames end at byte {offset}, {how}"));
            }
        }
        Ok(())
    })
}

fn say_frame(path: &Path, offset: u64, frame: &Frame<'_>, at: u64, dump: &mut Dump<'_>) {
    let kind = match RecordKind::from_u8(frame.kind) {
        Some(RecordKind::Commit) => "commit",
        Some(RecordKind::CleanClose) => "clean close",
        Some(RecordKind::Watermark) => "watermark",
        Some(RecordKind::Clock) => "clock",
        Some(RecordKind::RowIds) => "row ids",
        Some(RecordKind::ManifestSnapshot | RecordKind::ManifestEdits) | None => {
            dump.fault(1, Fault::new(FileKind::Wal, path, offset, "record of a kind that does not belong here"));
            return;
        }
    };
    dump.item(1, at, |_| {
        let Frame { lsn, durable, seqno, payload, .. } = frame;
        format!("{offset}: {kind} {seqno} at position {lsn}, durable below {durable}, {} bytes", payload.len())
    });
    if frame.kind != RecordKind::Commit as u8 {
        return;
    }
    match entries(frame.payload) {
        Ok(entries) if dump.shows(at) => {
            for (nth, entry) in (0..).zip(&entries) {
                dump.item(2, nth, |dump| say_version(dump, &entry.key, None, entry.kind, &entry.value));
            }
            dump.end_list(2, entries.len() as u64);
        }
        Ok(_) => {}
        Err((byte, what)) => {
            let offset = offset + (FRAME_HEADER_BYTES + byte) as u64;
            dump.fault(2, Fault::new(FileKind::Wal, path, offset, what));
        }
    }
}

/// One version in a line.
pub(crate) fn say_version(
    dump: &Dump<'_>,
    key: &[u8],
    seqno: Option<SeqNo>,
    kind: VersionKind,
    value: &[u8],
) -> String {
    let key = dump.key(key);
    let seqno = seqno.map_or_else(String::new, |seqno| format!(" @{seqno}"));
    match kind {
        VersionKind::Put => format!("put {key}{seqno} = {}", dump.hex(value)),
        VersionKind::Delete => format!("delete {key}{seqno}"),
        VersionKind::Reference => match ValueRef::decode(value) {
            Ok(at) => format!("put {key}{seqno} = {} bytes at {} of value file {}", at.bytes, at.offset, at.file),
            Err(_) => format!("put {key}{seqno} = malformed reference {}", dump.hex(value)),
        },
    }
}
