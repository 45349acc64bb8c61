//! AS OF: tables as they were.
//!
//! `FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '…'` reads what was committed by that time, `FROM t VERSION AS OF n` what
//! commit n left. Each table has a time of its own; those that say none are read at the statement's snapshot. Names, columns
//! and views are those of the time as well.
//!
//! A reference to the past is replaced by a name of the hidden schema that holds the commit, before anything is planned;
//! the table behind it scans its own snapshot instead of the statement's. How far back one may go is the store's affair:
//! `Options::retention_ms`, and never before the last drop of a table, index or storage.
//!
//! Times are those of `Db::snapshot_as_of`: to the second. A transaction does not look into what is its own future.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Constraints;
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use strata_olap::scan::{BoundView, StrataTable};
use strata_oltp::{Error as StoreError, SeqNo, Snapshot};

use crate::catalog::path::PATH_SCHEMA;
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, INFORMATION_SCHEMA, SYSTEM_SCHEMA, TableName};
use crate::embed::BoundSession;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::expr::spelling::respell;
use crate::pg_catalog::PG_SCHEMA;
use crate::statement::{name_parts, parse_own};

/// What a table is read as of.
type Points = HashMap<ast::TableVersion, SeqNo>;

/// Whether the statement reads a table of the past.
pub(crate) fn is_asked(statement: &ast::Statement) -> bool {
    !versions(statement).is_empty()
}

fn versions(statement: &ast::Statement) -> Vec<ast::TableVersion> {
    struct Found(Vec<ast::TableVersion>);
    impl ast::Visitor for Found {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<()> {
            if let ast::TableFactor::Table { version: Some(version), .. } = factor
                && !self.0.contains(version)
            {
                self.0.push(version.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Found(Vec::new());
    let _ = ast::Visit::visit(statement, &mut found);
    found.0
}

/// Replaces references to the past by names that hold the commit; `now` is the snapshot of everything else.
///
/// # Errors
/// 22023 for a time that is no longer or not yet readable, 0A000 for other forms, 42804 for what is no time.
pub(crate) async fn bind(
    engine: &Engine,
    state: &SessionState,
    now: &Snapshot,
    statement: &mut ast::Statement,
) -> Result<()> {
    let versions = versions(statement);
    if versions.is_empty() {
        return Ok(());
    }
    // On the heap, because every statement's future would hold the room for this otherwise, and they nest deeply.
    Box::pin(bind_to(engine, state, now, statement, versions)).await
}

async fn bind_to(
    engine: &Engine,
    state: &SessionState,
    now: &Snapshot,
    statement: &mut ast::Statement,
    versions: Vec<ast::TableVersion>,
) -> Result<()> {
    let mut points = Points::new();
    for version in versions {
        let point = resolve(engine, state, &version).await?;
        if point > now.seqno() {
            let message = format!("commit {point} is later than commit {}, which the statement reads", now.seqno());
            return Err(Error::new(SqlState::InvalidParameter, message).with_hint("read it in a new transaction"));
        }
        points.insert(version, point);
    }
    let mut replace = Replace { points, failed: None };
    let _ = ast::VisitMut::visit(statement, &mut replace);
    replace.failed.map_or(Ok(()), Err)
}

/// The commit that is meant.
async fn resolve(engine: &Engine, state: &SessionState, version: &ast::TableVersion) -> Result<SeqNo> {
    let expr = match version {
        ast::TableVersion::VersionAsOf(ast::Expr::Value(value)) => {
            let ast::Value::Number(digits, _) = &value.value else { return Err(no_version(value)) };
            return digits.parse().map(SeqNo).map_err(|_| no_version(value));
        }
        ast::TableVersion::ForSystemTimeAsOf(expr) | ast::TableVersion::TimestampAsOf(expr) => expr,
        other => {
            return Err(Error::unsupported(other).with_hint("write FOR SYSTEM_TIME AS OF, or VERSION AS OF"));
        }
    };
    if let ast::Expr::Value(value) = expr
        && matches!(value.value, ast::Value::Number(..))
    {
        return Err(Error::new(SqlState::DatatypeMismatch, format!("AS OF {expr} is a number, not a time"))
            .with_hint(format!("for a commit, write VERSION AS OF {expr}")));
    }
    let micros = time_of(state, expr).await?;
    let time = u64::try_from(micros).map(Duration::from_micros).map_err(|_| gone(0))?;
    let snapshot = engine.db().snapshot_as_of(time).map_err(of_the_past)?;
    Ok(snapshot.seqno())
}

fn no_version(value: &impl std::fmt::Display) -> Error {
    Error::new(SqlState::InvalidParameter, format!("{value} is no number of a commit"))
        .with_hint("SELECT read_point FROM strata.transactions shows the newest one")
}

/// Microseconds since the Unix epoch; a timestamp without a zone counts as UTC.
async fn time_of(state: &SessionState, expr: &ast::Expr) -> Result<i64> {
    let mut query = parse_own("SELECT NULL")?;
    if let ast::Statement::Query(query) = &mut query
        && let ast::SetExpr::Select(select) = query.body.as_mut()
    {
        let expr = Box::new(expr.clone());
        let data_type = ast::DataType::Timestamp(None, ast::TimezoneInfo::WithTimeZone);
        let cast = ast::Expr::Cast { kind: ast::CastKind::Cast, expr, data_type, array: false, format: None };
        select.projection = vec![ast::SelectItem::UnnamedExpr(cast)];
    }
    respell(&mut query)?;
    let mut state = state.clone();
    state.mark_start_execution();
    let plan = state.statement_to_plan(DfStatement::Statement(Box::new(query))).await?;
    let physical = state.create_physical_plan(&plan).await?;
    let batches = collect(physical, state.task_ctx()).await?;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1);
    let time = batch.and_then(|batch| batch.column(0).as_primitive_opt::<TimestampMicrosecondType>());
    match time {
        Some(time) if time.is_valid(0) => Ok(time.value(0)),
        _ => Err(Error::new(SqlState::InvalidParameter, format!("AS OF {expr} is no time"))),
    }
}

/// An error of the store, said in SQL's words.
fn of_the_past(error: StoreError) -> Error {
    match &error {
        StoreError::HistoryGone { oldest, .. } => gone(*oldest).with_source(error),
        _ => Error::from(error),
    }
}

fn gone(oldest: u64) -> Error {
    let error =
        Error::new(SqlState::InvalidParameter, "the state asked for is no longer kept, or its time is not known")
            .with_hint(
                "storage.retention_ms says how long states are kept; dropping or truncating a table ends them too",
            );
    if oldest == 0 { error } else { error.with_detail(format!("the oldest one is VERSION AS OF {oldest}")) }
}

struct Replace {
    points: Points,
    failed: Option<Error>,
}

impl ast::VisitorMut for Replace {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        let ast::TableFactor::Table { name, alias, version, .. } = factor else { return ControlFlow::Continue(()) };
        let Some(version) = version.take() else { return ControlFlow::Continue(()) };
        match hidden_name(name, self.points[&version]) {
            Ok((hidden, table)) => {
                *name = hidden;
                let called = || ast::TableAlias { explicit: true, name: quoted(&table), columns: Vec::new(), at: None };
                alias.get_or_insert_with(called);
                ControlFlow::Continue(())
            }
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

fn quoted(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

/// The hidden name of a table at a commit, and what the statement calls it.
fn hidden_name(name: &ast::ObjectName, point: SeqNo) -> Result<(ast::ObjectName, String)> {
    let parts = name_parts(name)?;
    let TableName { schema, table } = match parts.as_slice() {
        // The path is gone along in the past.
        [table] => TableName { schema: PATH_SCHEMA.to_owned(), table: table.clone() },
        parts => TableName::from_parts(parts)?,
    };
    if schema == SYSTEM_SCHEMA || schema == INFORMATION_SCHEMA || schema == PG_SCHEMA {
        return Err(
            Error::unsupported(format!("AS OF for {schema}.{table}")).with_detail("it shows the database as it is")
        );
    }
    let hidden = format!("{point}:{}:{schema}{table}", schema.len());
    let parts = [CATALOG_NAME, HIDDEN_SCHEMA, &hidden].map(quoted);
    Ok((ast::ObjectName::from(parts.to_vec()), table))
}

/// The commit and the table that a hidden name holds, if it is of this kind.
pub(crate) fn parse_name(hidden: &str) -> Option<(SeqNo, TableName)> {
    let (point, rest) = hidden.split_once(':')?;
    let (length, names) = rest.split_once(':')?;
    let (schema, table) = names.split_at_checked(length.parse().ok()?)?;
    Some((SeqNo(point.parse().ok()?), TableName { schema: schema.to_owned(), table: table.to_owned() }))
}

/// The snapshot right after a commit.
///
/// # Errors
/// 22023 if it is no longer or not yet readable.
pub(crate) fn snapshot_at(engine: &Engine, point: SeqNo) -> Result<Snapshot> {
    engine.db().snapshot_at(point).map_err(of_the_past)
}

/// A table at a snapshot of its own. Reads count as the statement's.
pub(crate) struct PastTable {
    inner: Arc<StrataTable>,
    snapshot: Snapshot,
}

impl PastTable {
    pub(crate) fn new(inner: Arc<StrataTable>, snapshot: Snapshot) -> PastTable {
        PastTable { inner, snapshot }
    }
}

impl std::fmt::Debug for PastTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PastTable").field("at", &self.snapshot.seqno()).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for PastTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        // The past is read as a derived table is, which has no key either (`optimizer::relations`).
        None
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let mut view = BoundView::new(self.snapshot.clone());
        if let Some(own) = session.config().get_extension::<BoundView>() {
            view = view.with_counters(Arc::clone(own.counters()));
        }
        let config = session.config().clone().with_extension(Arc::new(view));
        let bound = BoundSession { inner: session, config };
        self.inner.scan(&bound, projection, filters, limit).await
    }
}
