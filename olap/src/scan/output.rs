//! From decoded columns to the scan's output: which columns a morsel of our own decodes, and what is made of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, MutableArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_physical_expr::projection::{ProjectionExprs, Projector};
use datafusion_physical_expr::utils::reassign_expr_columns;

use super::view::TableView;

/// What all morsels of one partition share.
pub(super) struct ScanOutput {
    pub(super) view: Arc<TableView>,
    /// Positions in the table of the columns to decode, ascending.
    pub(super) columns: Vec<usize>,
    /// Most rows of a batch.
    pub(super) batch_rows: usize,
    decoded: SchemaRef,
    projector: Projector,
}

impl ScanOutput {
    /// `projection` is in terms of the view's exposed columns, and may compute.
    pub(super) fn new(view: Arc<TableView>, projection: &ProjectionExprs, batch_rows: usize) -> Result<ScanOutput> {
        let columns = projection.column_indices();
        let decoded = Arc::new(view.schema().project(&columns)?);
        let narrowed = projection.clone().try_map_exprs(|expr| reassign_expr_columns(expr, &decoded))?;
        let projector = narrowed.make_projector(&decoded)?;
        Ok(ScanOutput { view, columns, batch_rows, decoded, projector })
    }

    /// The output batch of `row_count` rows, whose decoded columns are `arrays`.
    pub(super) fn batch(&self, arrays: Vec<ArrayRef>, row_count: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        let decoded = RecordBatch::try_new_with_options(Arc::clone(&self.decoded), arrays, &options)?;
        self.projector.project_batch(&decoded)
    }
}

/// Rows `start..start + row_count` of a cached column. Numbers are copied: a slice would keep the whole column alive, and
/// operators that hold batches would be charged for all of it, once per batch. Text stays
/// shared, as it does behind the Parquet reader.
pub(super) fn rows_of(column: &ArrayRef, start: usize, row_count: usize) -> Result<ArrayRef> {
    if row_count == column.len() || !column.data_type().is_primitive() {
        return Ok(column.slice(start, row_count));
    }
    let data = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, row_count);
    copy.try_extend(0, start, start + row_count)?;
    Ok(make_array(copy.freeze()))
}
