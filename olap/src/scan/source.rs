//! `SegmentSource`: a table's one leaf in a plan, uniting fresh rows and segments.
//!
//! It wraps DataFusion's `ParquetSource`, which goes on deciding about projection, predicates and sort order, and
//! replaces what a work item is: a key range of fresh rows, or one row group of one segment (see `items`). The
//! morsels themselves are in `morsel`.
//!
//! Always true:
//! * items are never cut again by byte ranges, because the selection that hides rows belongs to one row group;
//! * the source never serialises itself: a plain Parquet scan in its place would show deleted rows;
//! * filters are used for pruning only and stay above the scan, so a fresh row needs no second evaluation.

use std::fmt::{Formatter, Result as FmtResult};
use std::sync::Arc;

use datafusion_common::config::{ConfigOptions, TableParquetOptions};
use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_common::{Result, internal_err};
use datafusion_datasource::TableSchema as FileTableSchema;
use datafusion_datasource::file::FileSource;
use datafusion_datasource::file_scan_config::FileScanConfig;
use datafusion_datasource::file_stream::FileOpener;
use datafusion_datasource::morsel::Morselizer;
use datafusion_datasource::{PartitionedFile, file_groups::FileGroup};
use datafusion_datasource_parquet::source::ParquetSource;
use datafusion_physical_expr::projection::ProjectionExprs;
use datafusion_physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion_physical_expr_common::sort_expr::PhysicalSortExpr;
use datafusion_physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};
use datafusion_physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use object_store::ObjectStore;

use super::morsel::{RowCounts, TableMorselizer};
use super::output::ScanOutput;
use super::reader::SegmentReaderFactory;
use super::view::TableView;

/// The file source of a table scan. Clones share metrics and the bound view.
#[derive(Clone)]
pub(crate) struct SegmentSource {
    /// A `ParquetSource`, kept as the trait it is used through.
    parquet: Arc<dyn FileSource>,
    batch_rows: Option<usize>,
    view: Arc<TableView>,
}

/// Segments and row groups that hold nothing a scan could want, by their statistics; whole segments' groups included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub segments: usize,
    pub row_groups: usize,
}

impl SegmentSource {
    /// A source for all columns of `view`; the planner narrows it.
    pub(crate) fn new(view: Arc<TableView>, options: TableParquetOptions) -> SegmentSource {
        // Segments carry no Parquet Bloom filters: their key index does that work.
        let parquet = ParquetSource::new(Arc::clone(view.schema()))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(SegmentReaderFactory))
            .with_pushdown_filters(false)
            .with_bloom_filter_on_read(false);
        SegmentSource { parquet: Arc::new(parquet), batch_rows: None, view }
    }

    /// Notes what planning left out, for EXPLAIN ANALYZE.
    pub(crate) fn note_pruned(&self, pruned: Pruned) {
        let note = |name: &'static str, count: usize| {
            MetricBuilder::new(self.parquet.metrics()).global_counter(name).add(count);
        };
        note("segments_pruned_by_plan", pruned.segments);
        note("row_groups_pruned_by_plan", pruned.row_groups);
    }

    fn wrap(&self, parquet: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(SegmentSource { parquet, batch_rows: self.batch_rows, view: Arc::clone(&self.view) })
    }
}

impl FileSource for SegmentSource {
    fn create_file_opener(
        &self,
        _object_store: Arc<dyn ObjectStore>,
        _base_config: &FileScanConfig,
        _partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        internal_err!("a table scan is read by morsels, not by opening files")
    }

    fn create_morselizer(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let parquet = self.parquet.create_morselizer(object_store, base_config, partition)?;
        let Some(projection) = self.parquet.projection() else {
            return internal_err!("the Parquet source of a table scan has no projection");
        };
        let batch_rows = self.batch_rows.or(base_config.batch_size).unwrap_or(8192);
        let output = Arc::new(ScanOutput::new(Arc::clone(&self.view), projection, batch_rows)?);
        let counts = RowCounts::new(self.parquet.metrics(), partition, &self.view);
        Ok(Box::new(TableMorselizer { parquet, output, predicate: self.parquet.filter(), counts }))
    }

    fn table_schema(&self) -> &FileTableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        let parquet = self.parquet.with_batch_size(batch_size);
        Arc::new(SegmentSource { parquet, batch_rows: Some(batch_size), view: Arc::clone(&self.view) })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    // DataFusion adds its skew metric to sources of this type.
    fn file_type(&self) -> &str {
        "parquet"
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut Formatter) -> FmtResult {
        self.parquet.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        // Fresh rows are not filtered by their morsels, so a session that asks for filter evaluation inside the
        // Parquet reader must not have its FilterExec removed.
        let mut pruning_only = config.clone();
        pruning_only.execution.parquet.pushdown_filters = false;
        let pushed = self.parquet.try_pushdown_filters(filters, &pruning_only)?;
        Ok(FilterPushdownPropagation {
            filters: pushed.filters,
            updated_node: pushed.updated_node.map(|parquet| self.wrap(parquet)),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        eq_properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.parquet.try_pushdown_sort(order, eq_properties)? {
            // Items are not in key order across partitions, so no order is ever promised (I6).
            SortOrderPushdownResult::Exact { inner } | SortOrderPushdownResult::Inexact { inner } => {
                SortOrderPushdownResult::Inexact { inner: self.wrap(inner) }
            }
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.parquet.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let Some(parquet) = self.parquet.try_pushdown_projection(projection)? else { return Ok(None) };
        // A virtual column (a row's number in its file) means nothing for a fresh row.
        if !parquet.table_schema().virtual_columns().is_empty() {
            return Ok(None);
        }
        Ok(Some(self.wrap(parquet)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.parquet.apply_expressions(f)
    }
}

/// Spreads `items` over at most `partitions` groups, in turn, so that neighbours run side by side.
pub(crate) fn deal(items: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
    let group_count = partitions.max(1).min(items.len());
    let mut groups: Vec<Vec<PartitionedFile>> = (0..group_count).map(|_| Vec::new()).collect();
    for (at, item) in items.into_iter().enumerate() {
        groups[at % group_count].push(item);
    }
    groups.into_iter().map(FileGroup::new).collect()
}
