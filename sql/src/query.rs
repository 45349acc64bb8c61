//! Plans and runs a SELECT at one snapshot.
//!
//! Each statement gets its own copy of the session's DataFusion state, into which the snapshot and the names visible at
//! it are put. That copy clones the function tables, which is some tens of microseconds: fine for queries, and the
//! reason that statements on single keys should one day not come this way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::TableProvider;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use futures::{StreamExt, TryStreamExt};
use strata_olap::scan::BoundView;
use strata_oltp::Snapshot;
use strata_oltp::key::table_range;
use strata_oltp::txn::{Isolation, Transaction};
use tokio::time::Instant;

use crate::as_of;
use crate::catalog::provider::{Catalogs, HIDDEN_SCHEMA, Names};
use crate::catalog::view::View;
use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, store};
use crate::dml::Frames;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::expr::spelling::{respell, shown};
use crate::optimizer::complexity;
use crate::pg_catalog::{self, PG_SCHEMA};
use crate::prepared::{Prepared, plan};
use crate::sequences;
use crate::statement::parse_own;
use crate::system;

/// Rows of a running query. Dropping it stops the query.
pub struct Rows {
    stream: SendableRecordBatchStream,
}

impl Rows {
    pub(crate) fn new(stream: SendableRecordBatchStream) -> Rows {
        Rows { stream }
    }

    /// Rows in memory.
    pub(crate) fn of(schema: SchemaRef, batches: Vec<RecordBatch>) -> Rows {
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        Rows::new(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    /// Names and types of the columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next batch, or `None` at the end.
    ///
    /// # Errors
    /// Whatever the query runs into.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        Ok(self.stream.next().await.transpose()?)
    }

    /// All rows in memory.
    ///
    /// # Errors
    /// Whatever the query runs into.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        Ok(self.stream.try_collect().await?)
    }

    /// The stream itself, for handing on; its errors convert into [`Error`].
    #[must_use]
    pub fn into_stream(self) -> SendableRecordBatchStream {
        self.stream
    }

    /// The same rows, as long as they come before `deadline`.
    pub(crate) fn until(self, deadline: Instant) -> Rows {
        let schema = self.stream.schema();
        let stream = futures::stream::unfold(Some(self.stream), move |stream| async move {
            let mut stream = stream?;
            match tokio::time::timeout_at(deadline, stream.next()).await {
                Ok(batch) => batch.map(|batch| (batch, Some(stream))),
                Err(_) => Some((Err(timed_out().into()), None)),
            }
        });
        Rows { stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)) }
    }

    /// The same rows, their columns called as people know them: several may have one name.
    fn with_shown_names(self) -> Rows {
        let schema = self.stream.schema();
        if schema.fields().iter().all(|field| shown(field.name()) == field.name()) {
            return self;
        }
        let fields = schema.fields().iter().map(|field| Field::clone(field).with_name(shown(field.name())));
        let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()));
        let renamed = Arc::clone(&schema);
        let stream = self.stream.map(move |batch| {
            let batch = batch?;
            // Also of a batch without columns, whose rows only this counts.
            let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&renamed), batch.columns().to_vec(), &rows)?)
        });
        Rows { stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)) }
    }

    /// The same rows; the first error also sets `failed`.
    pub(crate) fn reporting_to(self, failed: Arc<AtomicBool>) -> Rows {
        let schema = self.stream.schema();
        let stream = self.stream.inspect_err(move |_| failed.store(true, Ordering::Release));
        Rows { stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)) }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema()).finish_non_exhaustive()
    }
}

/// 57014 for a statement that took too long.
pub(crate) fn timed_out() -> Error {
    Error::new(SqlState::QueryCanceled, "the statement took longer than statement_timeout allows")
        .with_hint("SET statement_timeout to more, or to 0 for no limit")
}

/// What a name in FROM means.
enum Relation {
    Table(Arc<Table>),
    View(Arc<View>),
}

fn tables_of(frames: Frames) -> Result<BTreeMap<String, Arc<dyn TableProvider>>> {
    let table = |(name, batches): (String, Vec<RecordBatch>)| {
        let schema = batches.first().map(RecordBatch::schema).unwrap_or_else(|| Arc::new(Schema::empty()));
        Ok((name, Arc::new(MemTable::try_new(schema, vec![batches])?) as Arc<dyn TableProvider>))
    };
    frames.into_iter().map(table).collect()
}

/// Everything a statement reads with: a snapshot, its names, and DataFusion bound to both.
pub(crate) struct Reader {
    state: SessionState,
    catalog: Arc<Catalog>,
    engine: Engine,
    snapshot: Snapshot,
}

impl Reader {
    /// Binds a copy of `base` to `view` and `catalog`, and to rows that only this statement knows.
    ///
    /// # Errors
    /// Frames whose batches differ in shape.
    pub(crate) fn new(
        base: &SessionState,
        engine: &Engine,
        catalog: &Arc<Catalog>,
        view: BoundView,
        frames: Frames,
    ) -> Result<Reader> {
        let mut state = base.clone();
        let (catalog, snapshot) = (Arc::clone(catalog), view.snapshot().clone());
        let frames = Arc::new(tables_of(frames)?);
        let names =
            Names::Fixed { engine: engine.clone(), catalog: Arc::clone(&catalog), snapshot: snapshot.clone(), frames };
        state.config_mut().set_extension(Arc::new(view));
        state.register_catalog_list(Arc::new(Catalogs(names)));
        state.mark_start_execution();
        sequences::register(&mut state, engine, &catalog)?;
        Ok(Reader { state, catalog, engine: engine.clone(), snapshot })
    }

    /// The statement with tables of the past named by their commit.
    ///
    /// # Errors
    /// 22023 for a time that cannot be read.
    pub(crate) async fn bind(&self, mut statement: ast::Statement) -> Result<ast::Statement> {
        pg_catalog::respell(&mut statement);
        as_of::bind(&self.engine, &self.state, &self.snapshot, &mut statement).await?;
        Ok(statement)
    }

    /// Tells `txn`, if its commit will be checked for what it read, that it reads every table of `query` whole, and that
    /// their definitions must not change. Must come before the query starts.
    ///
    /// # Errors
    /// Unknown names, and memory for what was read.
    pub(crate) fn note(&self, txn: &mut Transaction, query: &ast::Statement) -> Result<()> {
        if txn.options().isolation != Isolation::Serializable || txn.options().read_only {
            return Ok(());
        }
        let mut reads_catalog = false;
        let home = self.catalog.at_home();
        let mut open = vec![(&self.catalog, query.clone())];
        while let Some((catalog, next)) = open.pop() {
            let statement = DfStatement::Statement(Box::new(next));
            for reference in self.state.resolve_table_references(&statement)? {
                match check_reference(&self.state, catalog, &reference)? {
                    Some(Relation::Table(table)) => {
                        store::pin_table(txn, &table)?;
                        let keys = table_range(table.id());
                        txn.note_range(table.id(), &keys.start..&keys.end);
                    }
                    Some(Relation::View(view)) => {
                        reads_catalog = true;
                        open.push((&home, parse_own(&view.query)?));
                    }
                    None => reads_catalog = true,
                }
            }
        }
        if reads_catalog {
            store::note_catalog(txn);
        }
        Ok(())
    }

    /// The logical plan of a statement that only reads.
    ///
    /// # Errors
    /// Unknown names, types that do not fit, and everything DataFusion cannot plan.
    pub(crate) async fn plan(&self, statement: ast::Statement) -> Result<LogicalPlan> {
        let mut statement = self.bind(statement).await?;
        let mut own = None;
        if pg_catalog::respell(&mut statement) {
            let mut state = self.state.clone();
            pg_catalog::functions::register(&mut state, &self.catalog, &self.snapshot)?;
            own = Some(state);
        }
        let state = own.as_ref().unwrap_or(&self.state);
        respell(&mut statement)?;
        let statement = DfStatement::Statement(Box::new(statement));
        for reference in self.state.resolve_table_references(&statement)? {
            check_reference(&self.state, &self.catalog, &reference)?;
        }
        let plan = state.statement_to_plan(statement).await?;
        complexity::check(&plan)?;
        Ok(plan)
    }

    /// The optimised physical plan.
    ///
    /// # Errors
    /// As DataFusion.
    pub(crate) async fn physical(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.state.create_physical_plan(plan).await?)
    }

    /// Plans and starts a statement that only reads.
    ///
    /// # Errors
    /// As [`Reader::plan`] and [`Reader::physical`].
    pub(crate) async fn query(&self, statement: ast::Statement) -> Result<Rows> {
        let plan = self.plan(statement).await?;
        self.start(&plan).await
    }

    /// [`Reader::query`] of a prepared statement by a plan that it keeps, made now if need be; `None` if it has to be planned
    /// anew each time.
    ///
    /// # Errors
    /// What computing its constants runs into, and as DataFusion's physical planning.
    pub(crate) async fn query_kept(
        &self,
        prepared: &Prepared,
        statement: &ast::Statement,
        values: &[ScalarValue],
    ) -> Result<Option<Rows>> {
        let types: Vec<DataType> = values.iter().map(ScalarValue::data_type).collect();
        if prepared.has_declared_types() || !plan::are_typed(&types) {
            return Ok(None);
        }
        let kept = match prepared.kept_plan(&self.catalog, &types) {
            Some(kept) => kept,
            None => {
                // What cannot be planned with places for parameters may well be with constants.
                let planned = self.plan(statement.clone()).await;
                let kept = planned.and_then(|planned| plan::optimised(planned, &types, &self.state));
                let kept = kept.ok().flatten().map(Arc::new);
                prepared.keep_plan(&self.catalog, types, kept.clone());
                kept
            }
        };
        let Some(kept) = kept else { return Ok(None) };
        let bound = plan::bound(&kept, values, &self.state)?;
        let physical = self.state.query_planner().create_physical_plan(&bound, &self.state).await?;
        Ok(Some(Rows::new(execute_stream(physical, self.state.task_ctx())?).with_shown_names()))
    }

    /// Starts a plan.
    ///
    /// # Errors
    /// As [`Reader::physical`].
    pub(crate) async fn start(&self, plan: &LogicalPlan) -> Result<Rows> {
        let physical = self.physical(plan).await?;
        self.run(physical)
    }

    /// Starts a physical plan.
    ///
    /// # Errors
    /// As DataFusion.
    pub(crate) fn run(&self, physical: Arc<dyn ExecutionPlan>) -> Result<Rows> {
        Ok(Rows::new(execute_stream(physical, self.state.task_ctx())?).with_shown_names())
    }

    /// Memory that a statement holds between reading and writing is drawn from the same pool as its query.
    pub(crate) fn memory_pool(&self) -> &Arc<dyn datafusion::execution::memory_pool::MemoryPool> {
        &self.state.runtime_env().memory_pool
    }
}

/// The table or view that is meant; `None` if it shows the catalog or the database itself. Unknown ones get our error,
/// with the nearest name, before DataFusion words its own.
fn check_reference(state: &SessionState, catalog: &Catalog, reference: &TableReference) -> Result<Option<Relation>> {
    let parts: Vec<String> = [reference.catalog(), reference.schema(), Some(reference.table())]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    if parts.len() == 1 && state.table_functions().contains_key(reference.table()) {
        return Ok(None);
    }
    let name = catalog.locate(&parts)?;
    match name.schema.as_str() {
        INFORMATION_SCHEMA | HIDDEN_SCHEMA => Ok(None),
        PG_SCHEMA if pg_catalog::has_table(&name.table) => Ok(None),
        PG_SCHEMA => Err(Error::undefined_table(&name.to_string(), pg_catalog::table_names())),
        SYSTEM_SCHEMA if system::TABLE_NAMES.contains(&name.table.as_str()) => Ok(None),
        SYSTEM_SCHEMA => Err(Error::undefined_table(&name.to_string(), system::TABLE_NAMES)),
        _ => match catalog.find_view(&name) {
            Some(view) => Ok(Some(Relation::View(Arc::clone(view)))),
            None => catalog.table(&name).map(|table| Some(Relation::Table(Arc::clone(table)))),
        },
    }
}
