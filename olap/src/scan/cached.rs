//! Cached morsels: row groups whose columns are, or are about to be, in the column cache.
//!
//! A chunk enters the cache when it is read for the second time. The first time it streams through the Parquet
//! reader in pieces that fit the processor's cache; a query that reads a table once neither pays for keeping it nor
//! drives out what others keep. A query that reads a table three times decodes it twice.
//!
//! Always true: a cached chunk holds the rows as stored, so invisible ones are masked here, by the same access plan that
//! the Parquet reader would get.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::FilterBuilder;
use datafusion_common::Result;
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner};
use datafusion_datasource_parquet::{ParquetAccessPlan, RowGroupAccess};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parquet::arrow::arrow_reader::RowSelection;

use super::items::RowGroupItem;
use super::morsel::{RowCounts, external};
use super::output::{ScanOutput, rows_of};

/// One row group read through the column cache.
pub(super) struct CachedMorsel {
    item: RowGroupItem,
    /// Columns of the file, in the order of the output's decoded columns.
    columns: Vec<usize>,
    visible: Option<BooleanBuffer>,
    output: Arc<ScanOutput>,
    counts: RowCounts,
}

impl CachedMorsel {
    /// The morsel of `file`, or `None` if the Parquet reader should read it: because a chunk is read for the first time,
    /// or because the file lacks a column.
    pub(super) fn of(
        file: &PartitionedFile,
        item: &RowGroupItem,
        output: &Arc<ScanOutput>,
        counts: &RowCounts,
    ) -> Option<CachedMorsel> {
        let RowGroupItem { segment, row_group } = item;
        let table = output.view.table();
        let columns = output.columns.iter().map(|&column| segment.column_index(table.columns[column].id));
        let columns: Vec<usize> = columns.collect::<Option<_>>()?;
        if columns.is_empty() || !segment.note_use(*row_group, &columns) {
            return None;
        }
        let row_count = segment.row_group_rows(*row_group).len();
        let visible = match file.extension::<ParquetAccessPlan>()?.inner().get(*row_group)? {
            RowGroupAccess::Scan => None,
            RowGroupAccess::Selection(selection) => Some(mask(selection, row_count)),
            RowGroupAccess::Skip => Some(BooleanBuffer::new_unset(row_count)),
        };
        let (output, counts) = (Arc::clone(output), counts.clone());
        Some(CachedMorsel { item: item.clone(), columns, visible, output, counts })
    }
}

fn mask(selection: &RowSelection, row_count: usize) -> BooleanBuffer {
    let mut bits = BooleanBufferBuilder::new(row_count);
    for run in selection.iter() {
        bits.append_n(run.row_count, !run.skip);
    }
    debug_assert_eq!(bits.len(), row_count, "a selection covers its row group");
    bits.finish()
}

impl Debug for CachedMorsel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedMorsel").field("row_group", &self.item.row_group).finish_non_exhaustive()
    }
}

impl MorselPlanner for CachedMorsel {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_morsels(vec![self])))
    }
}

impl Morsel for CachedMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let row_count = self.item.segment.row_group_rows(self.item.row_group).len();
        stream::iter(CachedBatches { morsel: *self, chunks: None, next: 0, row_count }).boxed()
    }
}

/// Batches of one cached morsel, cut out of the chunks.
struct CachedBatches {
    morsel: CachedMorsel,
    chunks: Option<Vec<ArrayRef>>,
    next: usize,
    row_count: usize,
}

impl CachedBatches {
    /// The batch of rows `start..start + length`; `None` if none of them is visible.
    fn batch(&mut self, start: usize, length: usize) -> Result<Option<RecordBatch>> {
        if self.chunks.is_none() {
            let CachedMorsel { item, columns, .. } = &self.morsel;
            self.chunks = Some(item.segment.cached_columns(item.row_group, columns).map_err(external)?);
        }
        let chunks = self.chunks.as_deref().unwrap_or_default();
        let CachedMorsel { visible, output, counts, .. } = &self.morsel;
        let visible = visible.as_ref().map(|bits| bits.slice(start, length));
        let visible_count = visible.as_ref().map_or(length, BooleanBuffer::count_set_bits);
        if visible_count == 0 {
            return Ok(None);
        }
        counts.add_segment(visible_count);
        let arrays = match visible {
            Some(bits) if visible_count < length => {
                let filter = FilterBuilder::new(&BooleanArray::new(bits, None)).optimize().build();
                chunks.iter().map(|chunk| filter.filter(&chunk.slice(start, length))).collect::<Result<_, _>>()?
            }
            _ => chunks.iter().map(|chunk| rows_of(chunk, start, length)).collect::<Result<_>>()?,
        };
        output.batch(arrays, visible_count).map(Some)
    }
}

impl Iterator for CachedBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        while self.next < self.row_count {
            let start = self.next;
            let length = self.morsel.output.batch_rows.min(self.row_count - start);
            self.next = start + length;
            match self.batch(start, length) {
                Ok(None) => {}
                Ok(Some(batch)) => return Some(Ok(batch)),
                Err(error) => {
                    self.next = self.row_count;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
