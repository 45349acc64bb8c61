//! `StrataTable`: a table as DataFusion sees it.
//!
//! It knows the table's shape and nothing of its rows: those come from the [`BoundView`] in the configuration of the
//! session that plans, so that a cached logical plan can be run at any snapshot. A scan planned without one is an
//! error, because it would read whatever is newest, table by table (P3).
//!
//! Deliberately absent: `insert_into`, `delete_from` and `update`. DataFusion loses predicates on the way to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion_catalog::TableProvider;
use datafusion_common::config::TableParquetOptions;
use datafusion_common::{Constraint, Constraints, Result, Statistics, plan_datafusion_err};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource::file_scan_config::FileScanConfigBuilder;
use datafusion_datasource::source::DataSourceExec;
use datafusion_execution::object_store::ObjectStoreUrl;
use datafusion_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::empty::EmptyExec;
use datafusion_session::Session;
use strata_oltp::TableSchema;

use super::access::{self, IndexAccess};
use super::items::{self, RowGroupItem};
use super::lookup::LookupExec;
use super::source::{Pruned, SegmentSource, deal};
use super::view::{BoundView, TableView};
use super::{prune, statistics};

/// One table at one schema version. Cheap to clone through its `Arc`; holds no file and no snapshot.
#[derive(Debug)]
pub struct StrataTable {
    table: Arc<TableSchema>,
    schema: SchemaRef,
    constraints: Constraints,
    indexes: Vec<IndexAccess>,
}

impl StrataTable {
    /// The table with the columns that users see.
    ///
    /// # Errors
    /// None today; the Arrow schema of a table cannot fail to be narrowed to its leading columns.
    pub fn new(table: Arc<TableSchema>) -> Result<StrataTable> {
        let exposed = table.visible_column_count();
        StrataTable::exposing(table, exposed)
    }

    /// The table with its hidden columns too, so that a statement can name the row it read by its key.
    ///
    /// # Errors
    /// As [`StrataTable::new`].
    pub fn with_hidden(table: Arc<TableSchema>) -> Result<StrataTable> {
        let exposed = table.columns.len();
        StrataTable::exposing(table, exposed)
    }

    fn exposing(table: Arc<TableSchema>, exposed: usize) -> Result<StrataTable> {
        let schema = Arc::new(table.arrow().project(&(0..exposed).collect::<Vec<_>>())?);
        let key_is_exposed = table.primary_key.iter().all(|&column| column < exposed);
        let key = key_is_exposed.then(|| Constraint::PrimaryKey(table.primary_key.clone()));
        let constraints = Constraints::new_unverified(key.into_iter().collect());
        Ok(StrataTable { table, schema, constraints, indexes: Vec::new() })
    }

    /// The table with indexes that queries may use.
    #[must_use]
    pub fn with_indexes(mut self, indexes: Vec<IndexAccess>) -> StrataTable {
        self.indexes = indexes;
        self
    }

    /// The table's shape.
    #[must_use]
    pub fn table(&self) -> &Arc<TableSchema> {
        &self.table
    }

    /// What is known of the table's rows at `view`, for planning: every column, exact only where that is certain.
    ///
    /// Cost is a pass over the row group statistics in memory.
    ///
    /// # Errors
    /// A statistic that cannot be read as a value of its column.
    pub fn statistics_at(&self, view: &BoundView) -> Result<Statistics> {
        let every_column: Vec<usize> = (0..self.schema.fields().len()).collect();
        statistics::of_table(&self.view(view), &every_column)
    }

    fn view(&self, bound: &BoundView) -> TableView {
        let ids = self.indexes.iter().map(|index| index.shape.table);
        TableView::new(Arc::clone(&self.table), Arc::clone(&self.schema), bound).with_indexes(ids, bound)
    }

    /// Items of fresh rows that may pass `filters`.
    fn fresh_items(&self, session: &dyn Session, view: &TableView, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let files = items::fresh_items(view)?;
        let statistics: Vec<_> = files.iter().filter_map(|file| file.statistics.clone()).collect();
        let keep = prune::survivors(session, &self.schema, filters, &statistics)?;
        Ok(files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    /// Row group items that may pass `filters` and hold a visible row.
    fn row_group_items(
        &self,
        session: &dyn Session,
        view: &TableView,
        filters: &[Expr],
        wanted: &[usize],
    ) -> Result<(Vec<PartitionedFile>, Pruned)> {
        let mut groups = Vec::new();
        let mut group_statistics = Vec::new();
        for segment in view.segments().iter().flat_map(|segments| segments.segments()) {
            for row_group in 0..segment.row_group_count() {
                group_statistics.push(statistics::of_row_group(view, segment, row_group, wanted)?);
                groups.push(RowGroupItem { segment: Arc::clone(segment), row_group });
            }
        }
        let keep = prune::survivors(session, &self.schema, filters, &group_statistics)?;
        let kept: BTreeSet<_> =
            groups.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(group, _)| group.segment.id()).collect();
        let all: BTreeSet<_> = groups.iter().map(|group| group.segment.id()).collect();
        let pruned =
            Pruned { segments: all.len() - kept.len(), row_groups: keep.iter().filter(|keep| !**keep).count() };
        let overlaid = items::overlaid(view)?;
        let mut files = Vec::with_capacity(groups.len());
        for ((group, statistics), _) in groups.into_iter().zip(group_statistics).zip(keep).filter(|(_, keep)| *keep) {
            let hidden = overlaid.get(&group.segment.id());
            files.extend(items::row_group_item(view, group, statistics, hidden)?);
        }
        Ok((files, pruned))
    }
}

#[async_trait]
impl TableProvider for StrataTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let bound = session.config().get_extension::<BoundView>().ok_or_else(|| {
            plan_datafusion_err!("the scan of a Strata table is bound to no snapshot; plan it through a Strata session")
        })?;
        let view = Arc::new(self.view(&bound));
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        if let Some(access) = access::choose(&view, &self.indexes, filters, &wanted)? {
            return Ok(Arc::new(LookupExec::new(view, access, wanted)?));
        }
        let mut scan_items = self.fresh_items(session, &view, filters)?;
        let (groups, pruned) = self.row_group_items(session, &view, filters, &wanted)?;
        scan_items.extend(groups);
        if scan_items.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?))));
        }
        let parquet = session.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global: parquet, ..TableParquetOptions::default() };
        let source = SegmentSource::new(Arc::clone(&view), options);
        source.note_pruned(pruned);
        // The URL is never read from, see `reader`; DataFusion wants one that some store is registered for.
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(deal(scan_items, session.config().target_partitions()))
            .with_constraints(self.constraints.clone())
            .with_statistics(statistics::of_table(&view, &wanted)?)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
