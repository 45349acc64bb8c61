//! Rewriting: the rows of a segment as a cursor, so that small or much-deleted segments merge into fresh ones.
//!
//! A rewrite is a conversion whose input happens to be columns; `convert` merges these rows with those of runs and
//! applies the marks that no snapshot can look behind.

use std::sync::Arc;

use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use strata_oltp::{Error, Result, SeqNo, TableSchema};

use arrow::array::AsArray;
use arrow::array::types::UInt64Type;

use crate::convert::batch::{BatchEncoder, EncodedRows};
use crate::error;
use crate::segment::Segment;
use crate::segment::stored::StoredColumn;

/// Rows decoded at a time: bounds the memory of a merge of many segments.
const BATCH_ROWS: usize = 8192;

/// Rows of one segment in order, with their commits and marks as of the cursor's creation.
pub(crate) struct SegmentRows {
    segment: Arc<Segment>,
    encoder: Arc<BatchEncoder>,
    /// The table's columns, as the segment has them.
    columns: Vec<StoredColumn>,
    reader: ParquetRecordBatchReader,
    rows: EncodedRows,
    seqnos: Vec<u64>,
    /// Row within `rows`.
    at: usize,
    /// Position of the first of `rows`.
    base: u32,
    marks: Vec<(u32, SeqNo)>,
    next_mark: usize,
}

impl SegmentRows {
    /// A cursor on the first row of `segment`, in the shape of `schema`.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub(crate) fn new(
        segment: &Arc<Segment>,
        schema: &Arc<TableSchema>,
        encoder: &Arc<BatchEncoder>,
    ) -> Result<SegmentRows> {
        let mut rows = SegmentRows {
            reader: segment.batches(BATCH_ROWS)?,
            marks: segment.marks().all(),
            segment: Arc::clone(segment),
            encoder: Arc::clone(encoder),
            columns: segment.stored_columns(schema)?,
            rows: EncodedRows::default(),
            seqnos: Vec::new(),
            at: 0,
            base: 0,
            next_mark: 0,
        };
        rows.load()?;
        Ok(rows)
    }

    pub(crate) fn valid(&self) -> bool {
        self.at < self.rows.len()
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.rows.key(self.at)
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.rows.row(self.at)
    }

    pub(crate) fn seqno(&self) -> SeqNo {
        SeqNo(self.seqnos[self.at])
    }

    /// The commit that superseded the current row.
    pub(crate) fn mark(&self) -> Option<SeqNo> {
        let position = self.base + self.at as u32;
        self.marks.get(self.next_mark).filter(|mark| mark.0 == position).map(|mark| mark.1)
    }

    pub(crate) fn next(&mut self) -> Result<()> {
        self.at += 1;
        if self.at >= self.rows.len() {
            self.base += self.rows.len() as u32;
            self.load()?;
        }
        let position = self.base + self.at as u32;
        while self.marks.get(self.next_mark).is_some_and(|mark| mark.0 < position) {
            self.next_mark += 1;
        }
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        self.at = 0;
        let batch = self.reader.next().transpose().map_err(|e| error::reading_arrow(self.segment.path(), e))?;
        let Some(batch) = batch else {
            if self.base != self.segment.row_count() {
                return Err(self.segment.corrupt("the file ends before its last row"));
            }
            self.rows = EncodedRows::default();
            return Ok(());
        };
        let seqnos = batch.column(self.segment.seqno_column()).as_primitive_opt::<UInt64Type>();
        self.seqnos = seqnos.ok_or_else(|| self.segment.corrupt("the SeqNo column is no number"))?.values().to_vec();
        let values = |column: &StoredColumn| {
            let stored = column.file_column().map(|index| Arc::clone(batch.column(index)));
            column.values(stored, batch.num_rows()).map(Some)
        };
        let columns = self.columns.iter().map(values).collect::<Result<Vec<_>>>()?;
        self.rows = self.encoder.encode_columns(&columns, batch.num_rows()).map_err(|error| match error {
            Error::Invalid(what) => {
                Error::Invalid(format!("segment {} cannot be rewritten: {what}", self.segment.id()))
            }
            other => other,
        })?;
        Ok(())
    }
}
