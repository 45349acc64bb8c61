//! Morsels of a table scan: fresh rows merged at the snapshot, and row groups read by the Parquet machinery.
//!
//! A fresh morsel runs the row store's visibility merge over one key range and builds batches of the projected
//! columns only. A Parquet morsel is DataFusion's own; here it is only counted, because the selection that leaves
//! out invisible rows was fixed when the item was made (`items`).

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, Result};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use datafusion_physical_expr::projection::{ProjectionExprs, Projector};
use datafusion_physical_expr::utils::reassign_expr_columns;
use datafusion_physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use strata_oltp::iter::{Cursor, OverlayCursor, SourceKind, VisibleCursor};

use super::items::FreshRange;
use super::view::{ScanCounters, TableView};
use crate::convert::batch::BatchBuilder;

/// Turns the items of a table scan into morsels, for one partition.
pub(crate) struct TableMorselizer {
    parquet: Box<dyn Morselizer>,
    fresh: Arc<FreshScan>,
    counts: RowCounts,
}

impl TableMorselizer {
    /// `projection` is in terms of the view's exposed columns.
    pub(crate) fn new(
        parquet: Box<dyn Morselizer>,
        view: &Arc<TableView>,
        projection: &ProjectionExprs,
        batch_rows: usize,
        metrics: &ExecutionPlanMetricsSet,
        partition: usize,
    ) -> Result<TableMorselizer> {
        let fresh = Arc::new(FreshScan::new(Arc::clone(view), projection, batch_rows)?);
        Ok(TableMorselizer { parquet, fresh, counts: RowCounts::new(metrics, partition, view) })
    }
}

impl Debug for TableMorselizer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableMorselizer").field("parquet", &self.parquet).finish_non_exhaustive()
    }
}

impl Morselizer for TableMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        if let Some(range) = file.extension::<FreshRange>() {
            let (scan, counts) = (Arc::clone(&self.fresh), self.counts.clone());
            return Ok(Box::new(FreshMorsel { scan, range: range.clone(), counts }));
        }
        let inner = self.parquet.plan_file(file)?;
        Ok(Box::new(CountedPlanner { inner, counts: self.counts.clone() }))
    }
}

/// Where produced rows are counted: for the statement and for `EXPLAIN ANALYZE`.
#[derive(Clone)]
struct RowCounts {
    memtable: Count,
    run: Count,
    segment: Count,
    statement: Arc<ScanCounters>,
}

impl RowCounts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize, view: &TableView) -> RowCounts {
        let counter = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        RowCounts {
            memtable: counter("memtable_rows"),
            run: counter("run_rows"),
            segment: counter("segment_rows"),
            statement: Arc::clone(view.counters()),
        }
    }

    fn add_fresh(&self, memtable: usize, run: usize) {
        self.memtable.add(memtable);
        self.run.add(run);
        self.statement.add_fresh(memtable, run);
    }

    fn add_segment(&self, rows: usize) {
        self.segment.add(rows);
        self.statement.add_segment(rows);
    }
}

/// What all fresh morsels of a partition share.
struct FreshScan {
    view: Arc<TableView>,
    /// Positions in the table of the columns to decode, ascending.
    columns: Vec<usize>,
    /// Schema of the decoded columns.
    decoded: SchemaRef,
    /// From decoded columns to the scan's output.
    projector: Projector,
    batch_rows: usize,
}

impl FreshScan {
    fn new(view: Arc<TableView>, projection: &ProjectionExprs, batch_rows: usize) -> Result<FreshScan> {
        let columns = projection.column_indices();
        let decoded = Arc::new(view.schema().project(&columns)?);
        let narrowed = projection.clone().try_map_exprs(|expr| reassign_expr_columns(expr, &decoded))?;
        let projector = narrowed.make_projector(&decoded)?;
        Ok(FreshScan { view, columns, decoded, projector, batch_rows })
    }

    fn open(&self, range: &FreshRange) -> Result<VisibleCursor> {
        let view = &self.view;
        let keys = range.low.as_slice()..range.high.as_slice();
        match (view.snapshot().view().rows(view.table().table), view.overlay()) {
            (Some(rows), overlay) => rows.scan(keys, view.at(), overlay).map_err(external),
            (None, overlay) => {
                // Nothing was ever committed to the table.
                let own = overlay.map(|overlay| -> (SourceKind, Box<dyn Cursor>) {
                    (SourceKind::Overlay, Box::new(OverlayCursor::new(Arc::clone(overlay))))
                });
                Ok(VisibleCursor::new(own.into_iter().collect(), keys, view.at()))
            }
        }
    }
}

/// A key range of fresh rows, both before and after it is turned into a stream: it needs no I/O to plan.
struct FreshMorsel {
    scan: Arc<FreshScan>,
    range: FreshRange,
    counts: RowCounts,
}

impl Debug for FreshMorsel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshMorsel").finish_non_exhaustive()
    }
}

impl MorselPlanner for FreshMorsel {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_morsels(vec![self])))
    }
}

impl Morsel for FreshMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let FreshMorsel { scan, range, counts } = *self;
        let builder = BatchBuilder::new(scan.view.table(), Some(&scan.columns), false);
        let batches = FreshBatches { scan, range, counts, builder, cursor: None, state: State::Unopened };
        stream::iter(batches).boxed()
    }
}

#[derive(PartialEq)]
enum State {
    Unopened,
    Reading,
    Finished,
}

/// Batches of one fresh morsel; the merge is opened by the first of them.
struct FreshBatches {
    scan: Arc<FreshScan>,
    range: FreshRange,
    counts: RowCounts,
    builder: BatchBuilder,
    cursor: Option<VisibleCursor>,
    state: State,
}

impl FreshBatches {
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        if self.state == State::Unopened {
            self.cursor = Some(self.scan.open(&self.range)?);
            self.state = State::Reading;
        }
        let Some(cursor) = self.cursor.as_mut() else { return Ok(None) };
        let scan = &self.scan;
        let (mut memtable_rows, mut run_rows) = (0, 0);
        while memtable_rows + run_rows < scan.batch_rows && cursor.next().map_err(external)? {
            if !scan.columns.is_empty() {
                self.builder.push(cursor.value(), cursor.seqno()).map_err(external)?;
            }
            match cursor.source() {
                SourceKind::Run => run_rows += 1,
                SourceKind::Overlay | SourceKind::Memtable => memtable_rows += 1,
            }
        }
        let row_count = memtable_rows + run_rows;
        if row_count == 0 {
            return Ok(None);
        }
        self.counts.add_fresh(memtable_rows, run_rows);
        let decoded = if scan.columns.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(row_count));
            RecordBatch::try_new_with_options(Arc::clone(&scan.decoded), Vec::new(), &options)?
        } else {
            self.builder.finish().map_err(external)?
        };
        scan.projector.project_batch(&decoded).map(Some)
    }
}

impl Iterator for FreshBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.state == State::Finished {
            return None;
        }
        let batch = self.read().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.state = State::Finished;
            self.cursor = None;
        }
        batch
    }
}

/// A Parquet planner whose morsels count their rows, through all the planners it hands on.
#[derive(Debug)]
struct CountedPlanner {
    inner: Box<dyn MorselPlanner>,
    counts: RowCounts,
}

impl Debug for RowCounts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowCounts").finish_non_exhaustive()
    }
}

impl MorselPlanner for CountedPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let CountedPlanner { inner, counts } = *self;
        let Some(mut plan) = inner.plan()? else { return Ok(None) };
        let counted = |inner: Box<dyn MorselPlanner>, counts: RowCounts| -> Box<dyn MorselPlanner> {
            Box::new(CountedPlanner { inner, counts })
        };
        let morsels = plan
            .take_morsels()
            .into_iter()
            .map(|inner| -> Box<dyn Morsel> { Box::new(CountedMorsel { inner, counts: counts.clone() }) });
        let planners = plan.take_ready_planners().into_iter().map(|inner| counted(inner, counts.clone()));
        let mut wrapped = MorselPlan::new().with_morsels(morsels.collect()).with_planners(planners.collect());
        if let Some(pending) = plan.take_pending_planner() {
            wrapped.set_pending_planner(async move { Ok(counted(pending.await?, counts)) });
        }
        Ok(Some(wrapped))
    }
}

/// A row group's batches, counted.
#[derive(Debug)]
struct CountedMorsel {
    inner: Box<dyn Morsel>,
    counts: RowCounts,
}

impl Morsel for CountedMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let CountedMorsel { inner, counts } = *self;
        let count = move |batch: &Result<RecordBatch>| {
            if let Ok(batch) = batch {
                counts.add_segment(batch.num_rows());
            }
        };
        inner.into_stream().inspect(count).boxed()
    }
}

/// Carries a storage error to the client of the query, with its cause.
pub(crate) fn external(error: strata_oltp::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
