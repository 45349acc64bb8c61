//! Output of a conversion: rows in key order, cut into row groups and segments, written, synced, read again.

use std::sync::Arc;

use arrow::array::types::UInt64Type;
use arrow::array::{ArrayRef, AsArray};
use strata_oltp::cold::{ColdJob, SegmentRecord};
use strata_oltp::memory::Reservation;
use strata_oltp::{Error, FileId, Result, SeqNo, TableSchema};

use super::batch::{BatchBuilder, BatchEncoder};
use crate::convert::sync_segments_dir;
use crate::delete_vector::{self, Contents, Marks, Sealed};
use crate::segment::meta::RowGroupMeta;
use crate::segment::{Segment, SegmentWriter, WrittenSegment};
use crate::tier::Store;

/// Rows between two looks at the budget.
const CHECK_ROWS: usize = 8192;

/// A row group in the making is held as columns; the one before as columns and as pages. Three times the columns
/// covers both.
const MEMORY_FACTOR: usize = 3;

pub(crate) struct SegmentsOutput<'a> {
    store: &'a Store,
    schema: Arc<TableSchema>,
    marks_through: SeqNo,
    next_file: &'a (dyn Fn() -> FileId + Sync),
    builder: BatchBuilder,
    /// Keys and SeqNos of the group being built.
    group: Option<RowGroupMeta>,
    writer: Option<SegmentWriter>,
    /// Marks of the segment being written.
    marks: Vec<(u32, SeqNo)>,
    memory: Reservation,
    last_key: Vec<u8>,
    records: Vec<SegmentRecord>,
    segments: Vec<Arc<Segment>>,
}

impl<'a> SegmentsOutput<'a> {
    pub(crate) fn new(store: &'a Store, job: &ColdJob<'a>) -> Result<SegmentsOutput<'a>> {
        Ok(SegmentsOutput {
            store,
            schema: Arc::clone(&job.schema),
            marks_through: job.marks_through,
            next_file: job.next_file,
            builder: BatchBuilder::new(&job.schema, None, true),
            group: None,
            writer: None,
            marks: Vec::new(),
            memory: store.context().budget.reserve("conversion", 0)?,
            last_key: Vec::new(),
            records: Vec::new(),
            segments: Vec::new(),
        })
    }

    /// Adds a row; `mark` is the commit that superseded it.
    pub(crate) fn add(&mut self, key: &[u8], row: &[u8], seqno: SeqNo, mark: Option<SeqNo>) -> Result<()> {
        if self.is_segment_full() && key != self.last_key {
            self.end_segment()?;
        }
        let options = *self.store.options();
        if self.builder.len() >= options.row_group_rows_max || self.builder.memory_bytes() > options.row_group_bytes_max
        {
            self.end_group()?;
        }
        if self.builder.len() % CHECK_ROWS == CHECK_ROWS - 1 {
            self.reserve()?;
        }
        let position = self.written_rows() + self.builder.len() as u32;
        self.builder.push(row, seqno)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let context = self.store.context();
                let dir = context.dir.join("segments");
                context.env.create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
                let id = (self.next_file)();
                none.insert(SegmentWriter::create(&*context.env, &context.dir, id, &self.schema, options.encoding)?)
            }
        };
        writer.add_key(key, seqno)?;
        self.marks.extend(mark.map(|mark| (position, mark)));
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        match &mut self.group {
            Some(group) => {
                group.rows += 1;
                group.seqnos = (group.seqnos.0.min(seqno), group.seqnos.1.max(seqno));
            }
            None => {
                self.group = Some(RowGroupMeta { rows: 1, seqnos: (seqno, seqno), keys: (key.to_vec(), Vec::new()) });
            }
        }
        Ok(())
    }

    /// Ends the last segment and hands over everything, after syncing the names.
    pub(crate) fn finish(mut self) -> Result<(Vec<SegmentRecord>, Vec<Arc<Segment>>)> {
        if self.writer.is_some() {
            self.end_segment()?;
        }
        if !self.records.is_empty() {
            sync_segments_dir(self.store.context())?;
        }
        Ok((self.records, self.segments))
    }

    fn written_rows(&self) -> u32 {
        self.writer.as_ref().map_or(0, SegmentWriter::row_count)
    }

    fn is_segment_full(&self) -> bool {
        self.written_rows() as usize + self.builder.len() >= self.store.options().segment_rows_max
    }

    /// Grows the reservation to what is held. Under pressure the group ends early, which frees its memory soon.
    fn reserve(&mut self) -> Result<()> {
        let bytes = (self.builder.memory_bytes() * MEMORY_FACTOR) as u64;
        let held = self.memory.bytes();
        if bytes <= held || self.memory.try_grow(bytes - held).is_ok() {
            return Ok(());
        }
        self.end_group()?;
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let Some(mut group) = self.group.take() else { return Ok(()) };
        group.keys.1.clone_from(&self.last_key);
        let batch = self.builder.finish()?;
        let writer = self.writer.as_mut().expect("rows are added to a writer");
        writer.write_group(&batch, group)
    }

    fn end_segment(&mut self) -> Result<()> {
        self.end_group()?;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let WrittenSegment { id, mut meta } = writer.finish()?;
        let pairs = std::mem::take(&mut self.marks);
        meta.mark_count = pairs.len() as u64;
        let context = self.store.context();
        let mut sealed = Sealed { file: None, through: self.marks_through, count: pairs.len() as u64 };
        if !pairs.is_empty() {
            let file = (self.next_file)();
            delete_vector::write_file(&*context.env, &context.dir, file, id, &Contents::of_pairs(&pairs))?;
            sealed.file = Some(file);
        }
        let record = SegmentRecord {
            segment: id,
            table: meta.table,
            meta: meta.encode(),
            marks: sealed.file,
            marks_through: self.marks_through,
        };
        let marks = Marks::new(pairs.into_iter().map(|(position, seqno)| (seqno, position)).collect(), sealed);
        let segment = Segment::open(context, id, meta, marks)?;
        verify_written(&segment, &self.schema)?;
        self.records.push(record);
        self.segments.push(Arc::new(segment));
        Ok(())
    }
}

/// Decodes keys and SeqNos of a new segment from its files and compares them with what is recorded and indexed.
fn verify_written(segment: &Segment, schema: &Arc<TableSchema>) -> Result<()> {
    segment.verify()?;
    let keys_only = keys_only(schema)?;
    let encoder = BatchEncoder::new(&keys_only);
    let mut columns = schema.primary_key.clone();
    columns.push(segment.seqno_column());
    for group in 0..segment.row_group_count() {
        let mut arrays = segment.decode_columns(group, &columns)?;
        let seqnos = arrays.pop().expect("the SeqNo column was asked for");
        let seqnos = seqnos.as_primitive::<UInt64Type>().values();
        let range = (seqnos.iter().min().copied(), seqnos.iter().max().copied());
        let (oldest, newest) = segment.seqno_range(group);
        if range != (Some(oldest.0), Some(newest.0)) {
            return Err(segment.corrupt("SeqNos differ from what was written"));
        }
        let ends = [0, seqnos.len() - 1].map(|row| arrays.iter().map(|array| array.slice(row, 1)).collect::<Vec<_>>());
        let (first, last) = segment.row_group_keys(group);
        let rows = segment.row_group_rows(group);
        for (arrays, key, position) in [(&ends[0], first, rows.start), (&ends[1], last, rows.end - 1)] {
            let arrays: Vec<Option<ArrayRef>> = arrays.iter().cloned().map(Some).collect();
            let encoded = encoder.encode_columns(&arrays, 1)?;
            if encoded.key(0) != key || segment.key_at(position)? != key {
                return Err(segment.corrupt("keys differ from what was written"));
            }
        }
    }
    Ok(())
}

/// The table cut down to its key columns, in key order.
fn keys_only(schema: &TableSchema) -> Result<Arc<TableSchema>> {
    let columns = schema.primary_key.iter().map(|&position| schema.columns[position].clone()).collect::<Vec<_>>();
    let primary_key = (0..columns.len()).collect();
    Ok(Arc::new(TableSchema::new(schema.table, schema.version, columns, primary_key)?))
}
