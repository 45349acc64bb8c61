//! Embedding: what makes a plain `SessionContext` read Strata's tables at one snapshot.
//!
//! [`SnapshotPlanner`] stands in for DataFusion's query planner. It takes one snapshot per plan and puts it where every
//! scan of the plan finds it; then DataFusion plans as ever.
//!
//! Always true: all scans of one plan see one read point (P3), and a plan whose tables have changed shape since their
//! names were looked up is refused, not answered from another table.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, ScanArgs, ScanResult, Session, TableProvider,
};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraints, DFSchema, DataFusionError, Result};
use datafusion::config::{ConfigOptions, TableOptions};
use datafusion::datasource::{TableType, source_as_provider};
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::registry::ExtensionTypeRegistryRef;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableProviderFilterPushDown, WindowUDF,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::prelude::SessionConfig;
use strata_olap::scan::{BoundView, StrataTable};

use crate::catalog::CATALOG_NAME;
use crate::catalog::provider::Schemas;
use crate::engine::{Engine, live_names};
use crate::error::{Error, SqlState};
use crate::optimizer::{Planner, complexity};

/// A catalog list that holds ours, and room for the user's own.
pub(crate) fn catalogs(engine: &Engine) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    let ours: Arc<dyn CatalogProvider> = Arc::new(Schemas(live_names(engine).0));
    list.register_catalog(CATALOG_NAME.to_owned(), ours);
    Arc::new(list)
}

/// Binds one snapshot per plan.
#[derive(Debug)]
pub(crate) struct SnapshotPlanner {
    engine: Engine,
}

impl SnapshotPlanner {
    pub(crate) fn new(engine: Engine) -> SnapshotPlanner {
        SnapshotPlanner { engine }
    }

    /// Refuses a plan made for another shape of a table than the snapshot has.
    fn check_tables(&self, plan: &LogicalPlan, view: &BoundView) -> Result<()> {
        let catalog = self.engine.catalog_at(view.snapshot())?;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Ok(provider) = source_as_provider(&scan.source)
                && let Some(ours) = provider.downcast_ref::<EmbeddedTable>()
            {
                let planned = ours.inner.table();
                if catalog.find_id(planned.table).is_none_or(|table| table.shape != *planned) {
                    let message =
                        format!("table {} was dropped or changed since the query was planned", scan.table_name);
                    let error = Error::new(SqlState::UndefinedTable, message).with_hint("plan the query again");
                    return Err(DataFusionError::from(error));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }
}

#[async_trait]
impl QueryPlanner for SnapshotPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let LogicalPlan::Dml(_) = logical_plan {
            return Err(refused("writing").into());
        }
        let view = BoundView::new(self.engine.db().snapshot());
        self.check_tables(logical_plan, &view)?;
        let config = session.config().clone().with_extension(Arc::new(view));
        let bound = BoundSession { inner: session, config };
        Planner.create_physical_plan(logical_plan, &bound).await
    }
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("{what} through a SessionContext"))
        .with_hint("use strata_sql::Session: it has transactions, checks and durability")
}

/// A table of the embedded context: reads are Strata's, writes are refused with words that say where to go.
#[derive(Debug)]
pub(crate) struct EmbeddedTable {
    inner: Arc<StrataTable>,
}

impl EmbeddedTable {
    pub(crate) fn new(inner: Arc<StrataTable>) -> EmbeddedTable {
        EmbeddedTable { inner }
    }
}

#[async_trait]
impl TableProvider for EmbeddedTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        // Too much would be concluded from a key where a `DataFrame` aggregates twice: only statements are kept from that, by
        // `optimizer::relations`.
        None
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.inner.scan(session, projection, filters, limit).await
    }

    async fn scan_with_args<'a>(&self, session: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        self.inner.scan_with_args(session, args).await
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        _: Arc<dyn ExecutionPlan>,
        _: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(refused("INSERT").into())
    }

    async fn delete_from(&self, _: &dyn Session, _: Vec<Expr>) -> Result<Arc<dyn ExecutionPlan>> {
        Err(refused("DELETE").into())
    }

    async fn update(&self, _: &dyn Session, _: Vec<(String, Expr)>, _: Vec<Expr>) -> Result<Arc<dyn ExecutionPlan>> {
        Err(refused("UPDATE").into())
    }

    async fn truncate(&self, _: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        Err(refused("TRUNCATE").into())
    }
}

/// The caller's session with one more thing in its configuration.
pub(crate) struct BoundSession<'a> {
    pub inner: &'a dyn Session,
    pub config: SessionConfig,
}

#[async_trait]
impl Session for BoundSession<'_> {
    fn session_id(&self) -> &str {
        self.inner.session_id()
    }

    fn config(&self) -> &SessionConfig {
        &self.config
    }

    fn catalog_list(&self) -> Arc<dyn CatalogProviderList> {
        self.inner.catalog_list()
    }

    fn config_options(&self) -> &ConfigOptions {
        self.config.options()
    }

    fn query_planner(&self) -> Arc<dyn QueryPlanner + Send + Sync> {
        self.inner.query_planner()
    }

    fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        complexity::check(plan)?;
        self.inner.optimize(plan)
    }

    fn physical_optimizers(&self) -> &[Arc<dyn PhysicalOptimizerRule + Send + Sync>] {
        self.inner.physical_optimizers()
    }

    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.inner.statistics_registry()
    }

    async fn create_physical_plan(&self, logical_plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        Planner.create_physical_plan(&self.inner.optimize(logical_plan)?, self).await
    }

    fn create_physical_expr(&self, expr: Expr, df_schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        self.inner.create_physical_expr(expr, df_schema)
    }

    fn scalar_functions(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        self.inner.scalar_functions()
    }

    fn higher_order_functions(&self) -> &HashMap<String, Arc<HigherOrderUDF>> {
        self.inner.higher_order_functions()
    }

    fn aggregate_functions(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        self.inner.aggregate_functions()
    }

    fn window_functions(&self) -> &HashMap<String, Arc<WindowUDF>> {
        self.inner.window_functions()
    }

    fn extension_type_registry(&self) -> &ExtensionTypeRegistryRef {
        self.inner.extension_type_registry()
    }

    fn runtime_env(&self) -> &Arc<RuntimeEnv> {
        self.inner.runtime_env()
    }

    fn execution_props(&self) -> &ExecutionProps {
        self.inner.execution_props()
    }

    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }

    fn table_options(&self) -> &TableOptions {
        self.inner.table_options()
    }

    fn table_options_mut(&mut self) -> &mut TableOptions {
        // DataFusion calls this on a session of its own, never while planning on a shared one.
        unreachable!("table options of a bound session are not changed")
    }

    fn task_ctx(&self) -> Arc<TaskContext> {
        self.inner.task_ctx()
    }
}
