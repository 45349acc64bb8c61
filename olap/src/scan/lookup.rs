//! `LookupExec`: rows of a table by their keys, or rows of an index that hold all that is wanted.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::stats::Precision;
use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_common::{Result, Statistics};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion_physical_plan::statistics::StatisticsArgs;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use strata_oltp::SeqNo;

use super::access::Access;
use super::morsel::external;
use super::view::TableView;
use crate::convert::batch::BatchBuilder;

/// Reads few rows one by one, in key order, as one batch per `batch_size`.
pub(super) struct LookupExec {
    view: Arc<TableView>,
    access: Arc<Access>,
    /// Positions in the table of the columns read.
    wanted: Vec<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LookupExec {
    pub(super) fn new(view: Arc<TableView>, access: Access, wanted: Vec<usize>) -> Result<LookupExec> {
        let schema: SchemaRef = Arc::new(Schema::project(view.schema(), &wanted)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative));
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(LookupExec { view, access: Arc::new(access), wanted, schema, properties, metrics })
    }

    fn row_count(&self) -> usize {
        match self.access.as_ref() {
            Access::Keys(keys) | Access::Index { keys, .. } => keys.len(),
            Access::IndexOnly { rows, .. } => rows.len(),
        }
    }
}

impl fmt::Debug for LookupExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupExec").field("rows", &self.row_count()).finish_non_exhaustive()
    }
}

impl DisplayAs for LookupExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = columns.join(", ");
        match self.access.as_ref() {
            Access::Keys(keys) => write!(f, "LookupExec: by=primary key, keys={}, projection=[{columns}]", keys.len()),
            Access::Index { name, keys } => {
                write!(f, "LookupExec: by={name}, keys={}, projection=[{columns}]", keys.len())
            }
            Access::IndexOnly { index, rows } => {
                write!(f, "LookupExec: only={}, entries={}, projection=[{columns}]", index.name, rows.len())
            }
        }
    }
}

impl ExecutionPlan for LookupExec {
    fn name(&self) -> &'static str {
        "LookupExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = Batches {
            view: Arc::clone(&self.view),
            access: Arc::clone(&self.access),
            wanted: self.wanted.clone(),
            schema: Arc::clone(&self.schema),
            batch_rows: context.session_config().batch_size(),
            next: 0,
        };
        let output = BaselineMetrics::new(&self.metrics, 0);
        let keys = MetricBuilder::new(&self.metrics).counter("key_rows", 0);
        let counted = batches.inspect(move |batch| {
            let rows = batch.as_ref().map_or(0, RecordBatch::num_rows);
            output.record_output(rows);
            keys.add(rows);
        });
        let stream = futures::stream::iter(counted);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let rows = Precision::Inexact(self.row_count());
        Ok(Arc::new(Statistics::new_unknown(&self.schema).with_num_rows(rows)))
    }
}

struct Batches {
    view: Arc<TableView>,
    access: Arc<Access>,
    wanted: Vec<usize>,
    schema: SchemaRef,
    batch_rows: usize,
    next: usize,
}

impl Batches {
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let access = Arc::clone(&self.access);
        match access.as_ref() {
            Access::Keys(keys) | Access::Index { keys, .. } => self.by_key(keys),
            Access::IndexOnly { index, rows } => {
                let at = |position: &usize| index.columns.iter().position(|column| *column == Some(*position));
                let columns: Option<Vec<usize>> = self.wanted.iter().map(at).collect();
                let columns = columns.unwrap_or_default();
                let end = rows.len().min(self.next + self.batch_rows);
                let mut builder = BatchBuilder::new(&index.shape, Some(&columns), false);
                for row in &rows[self.next..end] {
                    builder.push(row, SeqNo(0)).map_err(external)?;
                }
                self.view.counters().add_keys(end - self.next);
                self.next = end;
                self.finish(&mut builder)
            }
        }
    }

    fn by_key(&mut self, keys: &[Vec<u8>]) -> Result<Option<RecordBatch>> {
        let mut builder = BatchBuilder::new(self.view.table(), Some(&self.wanted), false);
        while builder.len() < self.batch_rows && self.next < keys.len() {
            let key = &keys[self.next];
            self.next += 1;
            let own = self.view.overlay().and_then(|overlay| overlay.get(key));
            let row = match own {
                Some(own) => own.as_deref().map(<[u8]>::to_vec),
                None => self.view.snapshot().get(self.view.table(), key).map_err(external)?,
            };
            if let Some(row) = row {
                builder.push(&row, SeqNo(0)).map_err(external)?;
            }
        }
        self.view.counters().add_keys(builder.len());
        self.finish(&mut builder)
    }

    fn finish(&self, builder: &mut BatchBuilder) -> Result<Option<RecordBatch>> {
        let rows = builder.len();
        if rows == 0 {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = builder.finish().map_err(external)?.columns().to_vec();
        debug_assert_eq!(columns.len(), self.schema.fields().len());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.read().transpose()
    }
}
