//! Conversion: versions of runs and rows of old segments in, new segments out.
//!
//! One merge by (key, SeqNo descending) over all inputs decides for every version which commit superseded it: the next
//! newer version in the merge, the oldest one in newer memtables and runs, or its mark. `batch` turns the surviving rows
//! into columns while `segment::writer` encodes the columns of the row group before.
//!
//! Always true:
//! * tombstones are never written; a version superseded at or below the watermark is dropped, one superseded above it
//!   is written with that mark;
//! * memory is two row groups and one batch for each segment being read, reserved in the budget;
//! * the output is synced, opened and decoded again before it is handed over.

pub mod batch;
pub mod schedule;

pub(crate) mod output;

use std::sync::Arc;

use strata_oltp::cold::{ColdJob, ColdOutput};
use strata_oltp::iter::{Cursor, VersionKind};
use strata_oltp::{Error, FileKind, Result, SeqNo};

use crate::convert::batch::BatchEncoder;
use crate::convert::output::SegmentsOutput;
use crate::merge::SegmentRows;
use crate::segment::{Segment, SegmentContext};
use crate::state::ColdState;
use crate::tier::{OutputHandle, Store};

/// Runs `job` against the segments of `state`.
pub(crate) fn run(store: &Store, state: &ColdState, job: ColdJob<'_>) -> Result<ColdOutput> {
    let table = job.schema.table;
    let mut segments = Vec::with_capacity(job.segments.len());
    for id in &job.segments {
        let segment = state.segment(*id).ok_or_else(|| Error::Invalid(format!("no segment {id} in this view")))?;
        segments.push(Arc::clone(segment));
    }
    let mut output = SegmentsOutput::new(store, &job)?;
    let mut merge = Merge::new(job.versions, segments, &job.schema)?;
    let mut newer = Newer::new(job.newer)?;
    let mut key: Vec<u8> = Vec::new();
    let mut successor: Option<SeqNo> = None;
    while let Some(input) = merge.next()? {
        if input.key() != key {
            key.clear();
            key.extend_from_slice(input.key());
            successor = newer.oldest(&key)?;
        }
        let superseded = earliest(input.mark(), successor);
        if input.kind() == VersionKind::Put && superseded.is_none_or(|mark| mark > job.watermark) {
            output.add(&key, input.value(), input.seqno(), superseded)?;
        }
        successor = Some(input.seqno());
    }
    let (records, segments) = output.finish()?;
    let handle = OutputHandle { table, segments };
    Ok(ColdOutput { segments: records, replaced: job.segments, handle: Box::new(handle) })
}

/// Makes new names in the segment folder durable.
///
/// # Errors
/// I/O.
pub(crate) fn sync_segments_dir(context: &SegmentContext) -> Result<()> {
    let dir = context.dir.join("segments");
    debug_assert!(FileKind::Segment.path(&context.dir, strata_oltp::FileId(0)).starts_with(&dir));
    context.env.sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))
}

fn earliest(a: Option<SeqNo>, b: Option<SeqNo>) -> Option<SeqNo> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// One sorted input.
enum Input {
    Runs(Box<dyn Cursor>),
    Segment(Box<SegmentRows>),
}

impl Input {
    fn valid(&self) -> bool {
        match self {
            Input::Runs(cursor) => cursor.valid(),
            Input::Segment(rows) => rows.valid(),
        }
    }

    fn key(&self) -> &[u8] {
        match self {
            Input::Runs(cursor) => cursor.key(),
            Input::Segment(rows) => rows.key(),
        }
    }

    fn seqno(&self) -> SeqNo {
        match self {
            Input::Runs(cursor) => cursor.seqno(),
            Input::Segment(rows) => rows.seqno(),
        }
    }

    fn kind(&self) -> VersionKind {
        match self {
            Input::Runs(cursor) => cursor.kind(),
            Input::Segment(_) => VersionKind::Put,
        }
    }

    fn value(&self) -> &[u8] {
        match self {
            Input::Runs(cursor) => cursor.value(),
            Input::Segment(rows) => rows.value(),
        }
    }

    fn mark(&self) -> Option<SeqNo> {
        match self {
            Input::Runs(_) => None,
            Input::Segment(rows) => rows.mark(),
        }
    }

    fn advance(&mut self) -> Result<()> {
        match self {
            Input::Runs(cursor) => cursor.next(),
            Input::Segment(rows) => rows.next(),
        }
    }
}

/// Merge of the job's inputs. Segments are opened when the merge reaches their first key, so that rewriting many
/// neighbours holds only those that overlap.
struct Merge {
    schema: Arc<strata_oltp::TableSchema>,
    encoder: Arc<BatchEncoder>,
    /// Not reached yet, the next one last.
    waiting: Vec<Arc<Segment>>,
    active: Vec<Input>,
    /// The input that `next` returned last.
    current: Option<usize>,
}

impl Merge {
    fn new(
        mut versions: Box<dyn Cursor>,
        mut segments: Vec<Arc<Segment>>,
        schema: &Arc<strata_oltp::TableSchema>,
    ) -> Result<Merge> {
        if !versions.valid() {
            versions.next()?;
        }
        segments.sort_by(|a, b| b.key_range().0.cmp(a.key_range().0));
        Ok(Merge {
            schema: Arc::clone(schema),
            encoder: Arc::new(BatchEncoder::new(schema)),
            waiting: segments,
            active: if versions.valid() { vec![Input::Runs(versions)] } else { Vec::new() },
            current: None,
        })
    }

    /// The next version in order; `None` at the end.
    fn next(&mut self) -> Result<Option<&Input>> {
        if let Some(current) = self.current {
            self.active[current].advance()?;
            if !self.active[current].valid() {
                self.active.swap_remove(current);
            }
        }
        loop {
            // A handful of inputs at most overlap at one key, so a scan beats a heap.
            let order =
                |input: &Input, other: &Input| input.key().cmp(other.key()).then(other.seqno().cmp(&input.seqno()));
            self.current = (0..self.active.len()).min_by(|&a, &b| order(&self.active[a], &self.active[b]));
            let front = self.current.map(|current| self.active[current].key());
            match self.waiting.last() {
                Some(segment) if front.is_none_or(|key| segment.key_range().0 <= key) => {
                    let rows = SegmentRows::new(segment, &self.schema, &self.encoder)?;
                    self.active.push(Input::Segment(Box::new(rows)));
                    self.waiting.pop();
                }
                _ => break,
            }
        }
        Ok(self.current.map(|current| &self.active[current]))
    }
}

/// Versions that are newer than the job's.
struct Newer {
    cursor: Box<dyn Cursor>,
}

impl Newer {
    fn new(mut cursor: Box<dyn Cursor>) -> Result<Newer> {
        if !cursor.valid() {
            cursor.next()?;
        }
        Ok(Newer { cursor })
    }

    /// Oldest version of `key`; keys are asked for in ascending order.
    fn oldest(&mut self, key: &[u8]) -> Result<Option<SeqNo>> {
        while self.cursor.valid() && self.cursor.key() < key {
            self.cursor.next()?;
        }
        let mut oldest = None;
        while self.cursor.valid() && self.cursor.key() == key {
            oldest = Some(self.cursor.seqno());
            self.cursor.next()?;
        }
        Ok(oldest)
    }
}
