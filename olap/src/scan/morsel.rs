//! Morsels of a table scan: what becomes of an item, and the counting of its rows.
//!
//! A key range of fresh rows is merged (`fresh`), a row group is read from the column cache (`cached`) or by DataFusion's
//! Parquet machinery. The latter's morsels are only counted here, because the selection that leaves out invisible rows
//! was fixed when the item was made (`items`).

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion_common::{DataFusionError, Result};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use datafusion_pruning::FilePruner;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::cached::CachedMorsel;
use super::fresh::FreshMorsel;
use super::items::{FreshItem, RowGroupItem};
use super::output::ScanOutput;
use super::view::{ScanCounters, TableView};

/// Turns the items of a table scan into morsels, for one partition.
pub(super) struct TableMorselizer {
    pub(super) parquet: Box<dyn Morselizer>,
    pub(super) output: Arc<ScanOutput>,
    /// Filters above the scan, dynamic ones included, for skipping whole row groups.
    pub(super) predicate: Option<Arc<dyn PhysicalExpr>>,
    pub(super) counts: RowCounts,
}

impl Debug for TableMorselizer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableMorselizer").field("parquet", &self.parquet).finish_non_exhaustive()
    }
}

impl TableMorselizer {
    /// Whether the filters, as they are by now, rule out the whole item.
    fn is_ruled_out(&self, file: &PartitionedFile) -> Result<bool> {
        let Some(predicate) = &self.predicate else { return Ok(false) };
        let schema = self.output.view.schema();
        match FilePruner::try_new(Arc::clone(predicate), schema, file, Count::new()) {
            Some(mut pruner) => pruner.should_prune(),
            None => Ok(false),
        }
    }
}

impl Morselizer for TableMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        if let Some(item) = file.extension::<FreshItem>() {
            if self.is_ruled_out(&file)? {
                return Ok(Box::new(Nothing));
            }
            let (output, counts) = (Arc::clone(&self.output), self.counts.clone());
            return Ok(Box::new(FreshMorsel { output, item: item.clone(), counts }));
        }
        if let Some(item) = file.extension::<RowGroupItem>()
            && let Some(cached) = CachedMorsel::of(&file, item, &self.output, self.predicate.as_ref(), &self.counts)?
        {
            return Ok(if self.is_ruled_out(&file)? { Box::new(Nothing) } else { Box::new(cached) });
        }
        let inner = self.parquet.plan_file(file)?;
        Ok(Box::new(CountedPlanner { inner, counts: self.counts.clone() }))
    }
}

/// The planner of an item that needs no reading.
#[derive(Debug)]
struct Nothing;

impl MorselPlanner for Nothing {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(None)
    }
}

/// Where produced rows are counted: for the statement and for `EXPLAIN ANALYZE`.
#[derive(Clone)]
pub(super) struct RowCounts {
    memtable: Count,
    run: Count,
    segment: Count,
    statement: Arc<ScanCounters>,
}

impl Debug for RowCounts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowCounts").finish_non_exhaustive()
    }
}

impl RowCounts {
    pub(super) fn new(metrics: &ExecutionPlanMetricsSet, partition: usize, view: &TableView) -> RowCounts {
        let counter = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        RowCounts {
            memtable: counter("memtable_rows"),
            run: counter("run_rows"),
            segment: counter("segment_rows"),
            statement: Arc::clone(view.counters()),
        }
    }

    pub(super) fn add_fresh(&self, memtable: usize, run: usize) {
        self.memtable.add(memtable);
        self.run.add(run);
        self.statement.add_fresh(memtable, run);
    }

    pub(super) fn add_segment(&self, rows: usize) {
        self.segment.add(rows);
        self.statement.add_segment(rows);
    }
}

/// A Parquet planner whose morsels count their rows, through all the planners it hands on.
#[derive(Debug)]
struct CountedPlanner {
    inner: Box<dyn MorselPlanner>,
    counts: RowCounts,
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
pub(super) fn external(error: strata_oltp::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
