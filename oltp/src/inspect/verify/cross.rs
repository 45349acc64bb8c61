//! What runs and segments of a table say about each other: order, one home for each row (I6), no version twice (I5).

use super::logs::LogFacts;
use super::{Check, Runs, Segments};
use crate::cold::SegmentRecord;
use crate::error::Result;
use crate::file::{FileId, FileKind};
use crate::inspect::merge::LooseMerge;
use crate::inspect::{Fault, OpenSegment, StoredRow};
use crate::iter::Cursor;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::{ConcatCursor, Run};
use crate::sync::Arc;

/// Checks every table.
pub(super) fn check(check: &mut Check<'_>, runs: &Runs, segments: &Segments, log: &LogFacts) {
    let newest = log.last.max(check.version.last_seqno);
    for (table, runs) in runs {
        for run in runs.iter().flat_map(|files| files.iter()).filter(|run| run.meta().seqno_max > newest) {
            let path = check.path(FileKind::Run, run.id());
            let what = format!("holds commit {}, but log and manifest end at {newest}", run.meta().seqno_max);
            check.fault(FileKind::Run, &path, what);
        }
        let none = Vec::new();
        let table_segments = segments.get(table).unwrap_or(&none);
        if let Err(error) = merged(check, *table, runs, table_segments, log) {
            check.push(&error, FileKind::Run, &check.dir.join("runs"));
        }
    }
    for segments in segments.values() {
        for (at, (record, segment)) in segments.iter().enumerate() {
            if let Err(error) = overlaps(check, record, segment.as_ref(), &segments[at + 1..], log) {
                check.push(&error, FileKind::Keys, &check.path(FileKind::Keys, record.segment));
            }
        }
    }
}

type Open = (SegmentRecord, Box<dyn OpenSegment>);

/// All versions of the row part in order, against each other and against the segments.
fn merged(
    check: &mut Check<'_>,
    table: TableId,
    runs: &[Arc<[Arc<Run>]>],
    segments: &[Open],
    log: &LogFacts,
) -> Result<()> {
    // Newest first, so that a smaller source is a newer sorted run.
    let sources: Vec<_> = runs.iter().rev().filter(|files| !files.is_empty()).collect();
    let cursor = |files: &Arc<[Arc<Run>]>| {
        Box::new(ConcatCursor::new(Arc::clone(files), 0..files.len(), false)) as Box<dyn Cursor>
    };
    let mut versions = LooseMerge::new(sources.iter().map(|files| cursor(files)).collect())?;
    let mut last: Option<(Vec<u8>, SeqNo, usize)> = None;
    while let Some((key, seqno, source, _)) = versions.current() {
        let of_key = sources[source].iter().find(|run| run.meta().key_max.as_slice() >= key);
        let run = of_key.map_or(FileId(0), |run| run.id());
        if let Some((_, newer, newer_source)) = last.as_ref().filter(|(last, _, _)| last == key) {
            let path = check.path(FileKind::Run, run);
            if *newer == seqno {
                let what = format!("a version of commit {seqno} is in another run of table {} too", table.0);
                check.fault(FileKind::Run, &path, what);
            } else if *newer_source > source {
                let what = format!("commit {seqno} is in a newer run than commit {newer} of the same key");
                check.fault(FileKind::Run, &path, what);
            }
        }
        for (record, segment) in segments {
            against_segment(check, run, key, seqno, record, segment.as_ref(), log);
        }
        last = Some((key.to_vec(), seqno, source));
        versions.advance()?;
    }
    Ok(())
}

/// A version of the row part must be newer than every version of its key in a segment, and these must be marked.
fn against_segment(
    check: &mut Check<'_>,
    run: FileId,
    key: &[u8],
    seqno: SeqNo,
    record: &SegmentRecord,
    segment: &dyn OpenSegment,
    log: &LogFacts,
) {
    let (first, last) = segment.key_range();
    if key < &first[..] || key > &last[..] {
        return;
    }
    // A damaged block was said when the segment was checked.
    let Ok(rows) = segment.versions(key) else { return };
    let path = check.path(FileKind::Run, run);
    for row in rows {
        let position = format!("position {} of segment {}", row.position, record.segment);
        if row.seqno == seqno {
            check.fault(FileKind::Run, &path, format!("a version of commit {seqno} is also at {position}"));
        } else if row.seqno > seqno {
            check.fault(
                FileKind::Run,
                &path,
                format!("commit {seqno} is older than commit {} at {position}", row.seqno),
            );
        } else if !is_superseded(&row, seqno, record, log) {
            let what = format!("{position} is live, although commit {seqno} in run {run} supersedes it");
            let path = check.path(FileKind::Segment, record.segment);
            check.found.faults.push(Fault::new(FileKind::Marks, &path, 0, what));
        }
    }
}

/// Whether the row is marked by `seqno` or before, or will be when the log is replayed.
fn is_superseded(row: &StoredRow, seqno: SeqNo, record: &SegmentRecord, log: &LogFacts) -> bool {
    row.mark.is_some_and(|mark| mark <= seqno) || (seqno > record.marks_through && log.holds(seqno))
}

/// Of the versions of one key in several segments all but the newest must be marked.
fn overlaps(
    check: &mut Check<'_>,
    record: &SegmentRecord,
    segment: &dyn OpenSegment,
    others: &[Open],
    log: &LogFacts,
) -> Result<()> {
    let (first, last) = segment.key_range();
    let others: Vec<&Open> = others
        .iter()
        .filter(|(_, other)| {
            let (low, high) = other.key_range();
            low <= last && high >= first
        })
        .collect();
    let mut position = 0;
    while let Some((key, row)) = segment.row_at(position)?.filter(|_| !others.is_empty()) {
        for (other_record, other) in &others {
            for other_row in other.versions(&key).unwrap_or_default() {
                let (older, newer) = if row.seqno < other_row.seqno {
                    ((record, &row), (other_record, &other_row))
                } else {
                    ((other_record, &other_row), (record, &row))
                };
                let (older_record, older_row) = older;
                let path = check.path(FileKind::Segment, older_record.segment);
                let place = format!("position {} of segment {}", newer.1.position, newer.0.segment);
                if row.seqno == other_row.seqno {
                    let what = format!("position {} is the same version as {place}", older_row.position);
                    check.fault(FileKind::Segment, &path, what);
                } else if !is_superseded(older_row, newer.1.seqno, older_record, log) {
                    let what = format!("position {} is live, although {place} supersedes it", older_row.position);
                    check.fault(FileKind::Marks, &path, what);
                }
            }
        }
        position += 1;
    }
    Ok(())
}
