//! The log against itself, the manifest and the marks of segments.

use std::path::Path;

use super::{Check, Segments};
use crate::file::{FileId, FileKind};
use crate::inspect::Fault;
use crate::inspect::log::{self, LogEntry, Piece, walk};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::wal::header::HEADER_BYTES;
use crate::wal::reader::{LogReader, list_files};
use crate::wal::record::FRAME_HEADER_BYTES;
use crate::wal::{DbId, Lsn, RecordKind};

/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct LogFacts {
    /// Oldest commit in it.
    pub first: Option<SeqNo>,
    /// Newest commit in it.
    pub last: SeqNo,
}

impl LogFacts {
    /// Whether a recovery will see `seqno`.
    pub fn holds(&self, seqno: SeqNo) -> bool {
        self.first.is_some_and(|first| first <= seqno) && seqno <= self.last
    }
}

/// A file, and where its last frame ends: in the log and in the file. Unknown if the file cannot be read.
type Before = (FileId, Option<(Lsn, u64)>);

/// Checks all needed log files.
pub(super) fn check(check: &mut Check<'_>, db_id: Option<DbId>, segments: &Segments) -> LogFacts {
    let mut facts = LogFacts::default();
    let start = check.version.wal_start;
    let files = match list_files(check.env.as_ref(), check.dir) {
        Ok(files) => files,
        Err(error) => {
            let folder = check.dir.join("wal");
            check.push(&error, FileKind::Wal, &folder);
            return facts;
        }
    };
    let files: Vec<FileId> = files.into_iter().filter(|id| start.is_none_or(|start| *id >= start.file)).collect();
    if let Some(start) = start
        && files.first() != Some(&start.file)
    {
        let path = check.path(FileKind::Wal, start.file);
        check.fault(FileKind::Wal, &path, "the log must begin with this file, which is missing");
    }
    let mut expected: Option<Before> = None;
    for (at, id) in files.iter().enumerate() {
        let path = check.path(FileKind::Wal, *id);
        let mut reader = match LogReader::open(check.env.as_ref(), FileKind::Wal, check.dir, *id) {
            Ok(reader) => reader,
            Err(error) => {
                check.push(&error, FileKind::Wal, &path);
                expected = Some((*id, None));
                continue;
            }
        };
        chain(check, &reader, db_id, expected);
        let is_newest = at + 1 == files.len();
        let end = frames(check, &mut reader, &path, is_newest, segments, &mut facts);
        expected = Some((*id, end));
    }
    facts
}

/// Whether a file follows the one before it, or is where the manifest says that the log begins.
fn chain(check: &mut Check<'_>, reader: &LogReader, db_id: Option<DbId>, expected: Option<Before>) {
    let (header, path) = (reader.header, reader.path.clone());
    if Some(header.db_id) != db_id {
        check.fault(FileKind::Wal, &path, "the file belongs to another database");
    }
    match (expected, check.version.wal_start) {
        (Some((previous, end)), _) => {
            if header.previous != Some(previous) {
                let named = header.previous.unwrap_or(FileId(0));
                check.fault(FileKind::Wal, &path, format!("it follows log file {named}, which is missing"));
            }
            if let Some((end, offset)) = end
                && end != header.first_lsn
            {
                let what = "bad record before the end that its successor states";
                let path = check.path(FileKind::Wal, previous);
                check.found.faults.push(Fault::new(FileKind::Wal, &path, offset, what));
            }
        }
        (None, Some(start)) if start.lsn != header.first_lsn && start.file == header.file => {
            check.fault(FileKind::Wal, &path, "it begins at another position than the manifest says");
        }
        (None, None) if header.previous.is_some() => {
            check.fault(FileKind::Wal, &path, "it follows a log file, which is missing");
        }
        (None, _) => {}
    }
}

/// Reads one file; where it ends, unless that cannot be known.
fn frames(
    check: &mut Check<'_>,
    reader: &mut LogReader,
    path: &Path,
    is_newest: bool,
    segments: &Segments,
    facts: &mut LogFacts,
) -> Option<(Lsn, u64)> {
    let mut end = (reader.header.first_lsn, HEADER_BYTES as u64);
    let mut is_torn = false;
    let walked = walk(reader, &mut |piece| {
        let mut fault = |offset, what: &str| check.found.faults.push(Fault::new(FileKind::Wal, path, offset, what));
        match piece {
            Piece::Gap { offset, end: next, is_proven } if !is_torn && (is_proven || !is_newest) => {
                fault(offset, &format!("{} bytes of records that had been synced do not verify", next - offset));
            }
            // What follows a torn write was never acknowledged as durable, and recovery drops it.
            Piece::Gap { .. } => is_torn = true,
            Piece::End { .. } => {}
            Piece::Frame(..) if is_torn => {}
            Piece::Frame(offset, frame) => {
                end = (frame.end, offset + (frame.end.0 - frame.lsn.0));
                match RecordKind::from_u8(frame.kind) {
                    Some(RecordKind::Commit) if frame.seqno <= facts.last => {
                        fault(offset, "commit numbers do not rise");
                    }
                    Some(RecordKind::Commit) => {
                        facts.first.get_or_insert(frame.seqno);
                        facts.last = frame.seqno;
                        check.found.commit_count += 1;
                        match log::entries(frame.payload) {
                            Ok(entries) => {
                                if !entries.is_sorted_by(|a, b| a.key < b.key) {
                                    fault(offset, "entries of a commit are not in key order");
                                }
                                marks(check, segments, frame.seqno, &entries);
                            }
                            Err((at, what)) => fault(offset + (FRAME_HEADER_BYTES + at) as u64, what),
                        }
                    }
                    Some(RecordKind::CleanClose | RecordKind::Watermark | RecordKind::Clock | RecordKind::RowIds) => {
                        facts.last = facts.last.max(frame.seqno);
                    }
                    _ => fault(offset, "record of a kind that does not belong here"),
                }
            }
        }
        Ok(())
    });
    if let Err(error) = walked {
        check.push(&error, FileKind::Wal, path);
        return None;
    }
    Some(end)
}

/// A commit that marks are sealed through must have left its marks.
fn marks(check: &mut Check<'_>, segments: &Segments, seqno: SeqNo, entries: &[LogEntry]) {
    for entry in entries {
        let holding = segments.get(&entry.table).into_iter().flatten();
        for (record, segment) in holding.filter(|(record, _)| record.marks_through >= seqno) {
            let (first, last) = segment.key_range();
            if entry.key < first || entry.key > last {
                continue;
            }
            // A damaged block was said when the segment was checked.
            let Ok(rows) = segment.versions(&entry.key) else { continue };
            let superseded = rows.iter().find(|row| row.seqno < seqno);
            if let Some(row) = superseded.filter(|row| row.mark.is_none_or(|mark| mark > seqno)) {
                let path = check.path(
                    record.marks.map_or(FileKind::Segment, |_| FileKind::Marks),
                    record.marks.unwrap_or(record.segment),
                );
                let TableId(table) = entry.table;
                let what = format!(
                    "row {} of segment {} (table {table}) was superseded by commit {seqno} and has no mark for it",
                    row.position, record.segment
                );
                check.fault(FileKind::Marks, &path, what);
            }
        }
    }
}
