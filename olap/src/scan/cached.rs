//! Cached morsels: row groups whose columns are, or are about to be, in the column cache, and those of segments that are
//! older than the table's shape, because the Parquet machinery matches columns by name and we by number.
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
use arrow::datatypes::FieldRef;
use datafusion_common::{Result, internal_err};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner};
use datafusion_datasource_parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::utils::collect_columns;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parquet::arrow::arrow_reader::RowSelection;
use strata_oltp::ColumnId;
use strata_oltp::schema::Column;

use super::items::RowGroupItem;
use super::morsel::{RowCounts, external};
use super::output::{ScanOutput, rows_of};
use super::view::TableView;
use crate::segment::Segment;
use crate::segment::stored::StoredColumn;

/// One row group read through the column cache.
pub(super) struct CachedMorsel {
    item: RowGroupItem,
    /// The output's decoded columns, as the segment has them.
    columns: Vec<StoredColumn>,
    visible: Option<BooleanBuffer>,
    output: Arc<ScanOutput>,
    counts: RowCounts,
}

impl CachedMorsel {
    /// The morsel of `file`, or `None` if the Parquet reader should read it: because the file has the columns as the table
    /// has them and a chunk is read for the first time.
    ///
    /// # Errors
    /// A segment newer than the view, which lacks a column.
    pub(super) fn of(
        file: &PartitionedFile,
        item: &RowGroupItem,
        output: &Arc<ScanOutput>,
        predicate: Option<&Arc<dyn PhysicalExpr>>,
        counts: &RowCounts,
    ) -> Result<Option<CachedMorsel>> {
        let RowGroupItem { segment, row_group } = item;
        let table = output.view.table();
        let stored = output.columns.iter().map(|&column| segment.stored(table, column));
        let columns: Vec<StoredColumn> = stored.collect::<strata_oltp::Result<_>>().map_err(external)?;
        let indices: Vec<usize> = columns.iter().filter_map(StoredColumn::file_column).collect();
        let is_known = segment.note_use(*row_group, &indices);
        if is_plain(segment, &output.view, &output.columns, predicate) && (columns.is_empty() || !is_known) {
            return Ok(None);
        }
        let row_count = segment.row_group_rows(*row_group).len();
        let plan = file.extension::<ParquetAccessPlan>().and_then(|plan| plan.inner().get(*row_group));
        let visible = match plan {
            None => return internal_err!("{} has no access plan", file.path()),
            Some(RowGroupAccess::Scan) => None,
            Some(RowGroupAccess::Selection(selection)) => Some(mask(selection, row_count)),
            Some(RowGroupAccess::Skip) => Some(BooleanBuffer::new_unset(row_count)),
        };
        let (output, counts) = (Arc::clone(output), counts.clone());
        Ok(Some(CachedMorsel { item: item.clone(), columns, visible, output, counts }))
    }
}

/// Whether a reader that goes by names finds what the table means: the columns read and those that `predicate` compares are
/// in the file under the same name, type and nullability, and no other column has the name of one of the table's.
fn is_plain(segment: &Segment, view: &TableView, columns: &[usize], predicate: Option<&Arc<dyn PhysicalExpr>>) -> bool {
    let (table, file) = (view.table(), segment.arrow_schema());
    let is_same = |column: &Column, index: usize| {
        let (stored, field) = (file.field(index), &column.field);
        segment.meta().columns[index].id == column.id
            && stored.name() == field.name()
            && stored.data_type() == field.data_type()
            && stored.is_nullable() == field.is_nullable()
    };
    let is_as_a_whole = table.columns.len() == segment.seqno_column()
        && table.columns.iter().enumerate().all(|(index, column)| is_same(column, index));
    if is_as_a_whole {
        return true;
    }
    let mut wanted = columns.to_vec();
    for column in predicate.map(collect_columns).unwrap_or_default() {
        let Ok(position) = view.schema().index_of(column.name()) else { return false };
        wanted.push(position);
    }
    let is_found = |position: &usize| {
        let column = &table.columns[*position];
        segment.column_index(column.id).is_some_and(|index| is_same(column, index))
    };
    let is_another = |(id, stored): (ColumnId, &FieldRef)| {
        table.columns.iter().any(|column| column.field.name() == stored.name() && column.id != id)
    };
    wanted.iter().all(is_found) && !segment.column_ids().zip(file.fields()).any(is_another)
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
            let indices: Vec<usize> = columns.iter().filter_map(StoredColumn::file_column).collect();
            self.chunks = Some(item.segment.cached_columns(item.row_group, &indices).map_err(external)?);
        }
        let chunks = self.chunks.as_deref().unwrap_or_default();
        let CachedMorsel { columns, visible, output, counts, .. } = &self.morsel;
        let visible = visible.as_ref().map(|bits| bits.slice(start, length));
        let visible_count = visible.as_ref().map_or(length, BooleanBuffer::count_set_bits);
        if visible_count == 0 {
            return Ok(None);
        }
        counts.add_segment(visible_count);
        let stored: Vec<ArrayRef> = match visible {
            Some(bits) if visible_count < length => {
                let filter = FilterBuilder::new(&BooleanArray::new(bits, None)).optimize().build();
                chunks.iter().map(|chunk| filter.filter(&chunk.slice(start, length))).collect::<Result<_, _>>()?
            }
            _ => chunks.iter().map(|chunk| rows_of(chunk, start, length)).collect::<Result<_>>()?,
        };
        let mut stored = stored.into_iter();
        let values = columns.iter().map(|column| {
            let stored = column.file_column().and_then(|_| stored.next());
            column.values(stored, visible_count).map_err(external)
        });
        output.batch(values.collect::<Result<_>>()?, visible_count).map(Some)
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
