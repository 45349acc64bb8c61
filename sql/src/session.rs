//! `Session`: one client's statements, in order, with its open transaction and settings.
//!
//! Without BEGIN each statement is a transaction of its own. Between BEGIN and COMMIT all statements read one snapshot
//! plus the transaction's own writes. A statement that fails there fails the transaction, as in PostgreSQL: only
//! ROLLBACK, or ROLLBACK TO a savepoint, is taken after it.

mod open;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast;
use strata_olap::scan::{BoundView, ScanCounters as Counters};
use strata_oltp::commit::Durability;
use strata_oltp::txn::{Transaction, TransactionOptions};

use crate::bulk;
use crate::call;
use crate::catalog::TableName;
use crate::ddl;
use crate::dml::{self, change, insert, view_of};
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::query::{Reader, Rows};
use crate::settings;
use crate::statement::{Kind, Statement, parse_script};
use open::Open;

/// How often a statement outside a transaction is run again after losing against a concurrent commit. Each loss means
/// that another commit succeeded, so the sum of all work goes on.
const RETRIES_MAX: usize = 20;

/// What a statement gave.
#[derive(Debug)]
pub enum StatementResult {
    /// Rows to read.
    Rows(Rows),
    /// Done, with PostgreSQL's command tag, and for INSERT, UPDATE and DELETE the number of rows.
    Affected {
        /// For example `INSERT` or `CREATE TABLE`.
        tag: &'static str,
        /// Rows written.
        count: Option<u64>,
    },
}

impl StatementResult {
    fn done(tag: &'static str) -> StatementResult {
        StatementResult::Affected { tag, count: None }
    }

    /// The rows, if it has any.
    #[must_use]
    pub fn into_rows(self) -> Option<Rows> {
        match self {
            StatementResult::Rows(rows) => Some(rows),
            StatementResult::Affected { .. } => None,
        }
    }

    /// The number of rows written, if it wrote any.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match self {
            StatementResult::Rows(_) => None,
            StatementResult::Affected { count, .. } => *count,
        }
    }
}

/// Rows that a statement's scans have read, by where they lay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounters {
    /// From memtables and the transaction's own writes.
    pub memtable_rows: u64,
    /// From sorted runs.
    pub run_rows: u64,
    /// From column segments.
    pub segment_rows: u64,
}

/// One client of an [`Engine`]. Needs a tokio runtime; dropping it rolls back.
///
/// # Examples
/// ```
/// # use strata_sql::{Engine, EngineOptions};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::open_in_memory(EngineOptions::default()).unwrap();
/// let mut session = engine.session();
/// session.execute("CREATE TABLE users (id INT PRIMARY KEY, name TEXT)").await.unwrap();
/// session.execute("INSERT INTO users {\"id\": 1, \"name\": \"Neo\"}").await.unwrap();
/// let rows = session.query("SELECT name FROM users").await.unwrap().collect().await.unwrap();
/// assert_eq!(rows[0].num_rows(), 1);
/// # });
/// ```
pub struct Session {
    engine: Engine,
    base: SessionState,
    durability: Durability,
    open: Option<Open>,
    counters: Arc<Counters>,
}

impl Session {
    pub(crate) fn new(engine: Engine, base: SessionState, durability: Durability) -> Session {
        Session { engine, base, durability, open: None, counters: Arc::new(Counters::default()) }
    }

    /// Runs the statements of a script, one after the other, and reads all of their rows into memory. Ends with the
    /// first error; what ran before stays.
    ///
    /// # Errors
    /// The first statement's that fails; a syntax error anywhere runs nothing.
    pub async fn execute(&mut self, script: &str) -> Result<Vec<StatementResult>> {
        let mut results = Vec::new();
        for statement in parse_script(script)? {
            let result = match self.run(&statement).await? {
                StatementResult::Rows(rows) => StatementResult::Rows(in_memory(rows).await?),
                affected @ StatementResult::Affected { .. } => affected,
            };
            results.push(result);
        }
        Ok(results)
    }

    /// Starts one statement that yields rows.
    ///
    /// # Errors
    /// 42601 if it is not one such statement; otherwise the statement's.
    pub async fn query(&mut self, sql: &str) -> Result<Rows> {
        let statement = single(sql)?;
        if !statement.is_query() {
            return Err(Error::new(SqlState::Syntax, "the statement yields no rows").with_hint("use execute"));
        }
        let result = self.run(&statement).await?;
        result.into_rows().ok_or_else(|| Error::internal("a query without rows"))
    }

    /// Runs one statement. Rows are not read yet: they come as the caller asks, at the snapshot the statement began with.
    ///
    /// # Errors
    /// The statement's. In a transaction, an error fails the transaction.
    pub async fn run(&mut self, statement: &Statement) -> Result<StatementResult> {
        match &statement.kind {
            Kind::Begin(options) => self.begin(options),
            Kind::Commit => self.commit().await,
            Kind::Rollback => self.rollback(),
            Kind::RollbackTo(name) => {
                self.opened()?.rollback_to(name)?;
                Ok(StatementResult::done("ROLLBACK"))
            }
            _ => self.run_within(statement).await,
        }
    }

    /// Inserts the rows of `batch` into `table`, columns matched by name, in the open transaction or one of its own.
    ///
    /// # Errors
    /// As INSERT.
    pub async fn append(&mut self, table: &str, batch: &RecordBatch) -> Result<u64> {
        let parts: Vec<String> = table.split('.').map(str::to_owned).collect();
        let work = Work::Append(&parts, batch);
        Ok(self.write(&work).await?.count().unwrap_or_default())
    }

    /// The physical plan of one statement, indented.
    ///
    /// # Errors
    /// As planning the statement.
    pub async fn explain(&mut self, sql: &str) -> Result<String> {
        let query = self.explained(single(sql)?.kind)?;
        let reader = self.reader()?;
        let plan = reader.physical(&reader.plan(query).await?).await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string())
    }

    /// Rows that the last statement has read so far; final once its rows are read to the end.
    #[must_use]
    pub fn scan_counters(&self) -> ScanCounters {
        ScanCounters {
            memtable_rows: self.counters.memtable_rows(),
            run_rows: self.counters.run_rows(),
            segment_rows: self.counters.segment_rows(),
        }
    }

    /// Whether a transaction is open, failed or not.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the open transaction has failed and only waits for its end.
    #[must_use]
    pub fn in_failed_transaction(&self) -> bool {
        self.open.as_ref().is_some_and(Open::has_failed)
    }

    /// What later commits survive.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// What later commits survive.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn begin(&mut self, options: &TransactionOptions) -> Result<StatementResult> {
        if self.open.is_some() {
            return Err(Error::new(SqlState::ActiveTransaction, "a transaction is open already")
                .with_hint("COMMIT or ROLLBACK it first; SAVEPOINT marks a point within it"));
        }
        self.open = Some(Open::new(&self.engine, options)?);
        Ok(StatementResult::done("BEGIN"))
    }

    async fn commit(&mut self) -> Result<StatementResult> {
        let Some(open) = self.open.take() else { return Err(no_transaction()) };
        if open.has_failed() {
            // As in PostgreSQL, COMMIT of a failed transaction ends it and says that it was rolled back.
            return Ok(StatementResult::done("ROLLBACK"));
        }
        commit(&self.engine, open, self.durability).await?;
        Ok(StatementResult::done("COMMIT"))
    }

    fn rollback(&mut self) -> Result<StatementResult> {
        self.open.take().map(|_| StatementResult::done("ROLLBACK")).ok_or_else(no_transaction)
    }

    fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(no_transaction)
    }

    /// Statements that a failed transaction refuses, and that fail the transaction when they fail.
    async fn run_within(&mut self, statement: &Statement) -> Result<StatementResult> {
        if self.in_failed_transaction() {
            return Err(Error::new(
                SqlState::FailedTransaction,
                "the transaction failed earlier; statements are ignored until its end",
            )
            .with_hint("ROLLBACK, or ROLLBACK TO a savepoint"));
        }
        let result = self.dispatch(statement).await;
        if let Some(open) = &self.open
            && result.is_err()
        {
            open.failed.store(true, Ordering::Release);
        }
        result
    }

    async fn dispatch(&mut self, statement: &Statement) -> Result<StatementResult> {
        match &statement.kind {
            Kind::Query(_) => self.start_query(statement.kind.clone()).await,
            Kind::Savepoint(name) => {
                self.opened()?.savepoint(name.clone());
                Ok(StatementResult::done("SAVEPOINT"))
            }
            Kind::Release(name) => {
                self.opened()?.release(name)?;
                Ok(StatementResult::done("RELEASE"))
            }
            Kind::Call(function) => {
                let procedure = call::Procedure::parse(function)?;
                let engine = self.engine.clone();
                blocking(move || procedure.run(&engine)).await?;
                Ok(StatementResult::done("CALL"))
            }
            Kind::Set(set) => {
                settings::apply(set, &mut self.durability, &mut self.base)?;
                Ok(StatementResult::done("SET"))
            }
            kind => self.write(&Work::Statement(kind)).await,
        }
    }

    /// A reader for the next statement, whose counters become the session's.
    fn reader(&mut self) -> Result<Reader> {
        let (catalog, view) = match &self.open {
            Some(open) => (Arc::clone(&open.catalog), view_of(&open.txn, &open.catalog)),
            None => {
                let snapshot = self.engine.db().snapshot();
                (self.engine.catalog_at(&snapshot)?, BoundView::new(snapshot))
            }
        };
        self.counters = Arc::clone(view.counters());
        Ok(Reader::new(&self.base, &self.engine, &catalog, view))
    }

    async fn start_query(&mut self, kind: Kind) -> Result<StatementResult> {
        let query = self.explained(kind)?;
        let reader = self.reader()?;
        if let Some(open) = &mut self.open {
            open.txn.check_age()?;
            reader.note(&mut open.txn, &query)?;
        }
        let rows = reader.query(query).await?;
        Ok(StatementResult::Rows(match &self.open {
            Some(open) => rows.reporting_to(Arc::clone(&open.failed)),
            None => rows,
        }))
    }

    /// The query to plan for a statement that reads, or that is only explained.
    fn explained(&self, kind: Kind) -> Result<ast::Statement> {
        let query = match kind {
            Kind::Query(query) => *query,
            Kind::Insert(insert) => return insert::explained(&insert),
            Kind::Update(update) => return self.explained_change(&ast::Statement::Update(*update)),
            Kind::Delete(delete) => return self.explained_change(&ast::Statement::Delete(*delete)),
            _ => return Err(Error::unsupported("EXPLAIN of this statement")),
        };
        let ast::Statement::Explain { statement: inner, analyze, .. } = &query else { return Ok(query) };
        let is_query = matches!(inner.as_ref(), ast::Statement::Query(_));
        if *analyze && !is_query {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a statement that writes"));
        }
        let replacement = match inner.as_ref() {
            ast::Statement::Query(_) => return Ok(query),
            ast::Statement::Insert(insert) => insert::explained(insert)?,
            other => self.explained_change(other)?,
        };
        let mut query = query;
        if let ast::Statement::Explain { statement, .. } = &mut query {
            **statement = replacement;
        }
        Ok(query)
    }

    fn explained_change(&self, statement: &ast::Statement) -> Result<ast::Statement> {
        match &self.open {
            Some(open) => change::explained(statement, &open.catalog),
            None => change::explained(statement, self.engine.catalog_at(&self.engine.db().snapshot())?.as_ref()),
        }
    }

    /// Runs a statement that writes: in the open transaction, or in one of its own that is retried when it loses.
    async fn write(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        if let Some(mut open) = self.open.take() {
            let result = self.write_in(&mut open, work).await;
            self.open = Some(open);
            return result;
        }
        let mut attempt = 0;
        loop {
            let mut open = Open::new(&self.engine, &TransactionOptions::default())?;
            let result = open.apply(&self.engine, &self.base, &mut self.counters, work).await?;
            match commit(&self.engine, open, self.durability).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => return other.map(|()| result),
            }
        }
    }

    /// Within a transaction a statement that fails leaves nothing behind.
    async fn write_in(&mut self, open: &mut Open, work: &Work<'_>) -> Result<StatementResult> {
        if open.txn.options().read_only {
            return Err(Error::new(SqlState::ReadOnlyTransaction, "the transaction is READ ONLY")
                .with_hint("BEGIN without READ ONLY to write"));
        }
        let before = open.txn.savepoint();
        let (catalog, effects) = (Arc::clone(&open.catalog), open.effects.clone());
        let result = open.apply(&self.engine, &self.base, &mut self.counters, work).await;
        if result.is_err() {
            open.txn.rollback_to(&before);
            (open.catalog, open.effects) = (catalog, effects);
        }
        open.txn.release(before);
        result
    }
}

/// Something that writes.
enum Work<'a> {
    Statement(&'a Kind),
    Append(&'a [String], &'a RecordBatch),
}

impl Open {
    async fn apply(
        &mut self,
        engine: &Engine,
        base: &SessionState,
        counters: &mut Arc<Counters>,
        work: &Work<'_>,
    ) -> Result<StatementResult> {
        if let Work::Statement(Kind::Ddl(statement)) = work {
            let tag = ddl::run(statement, engine.db(), &mut self.txn, &mut self.catalog, &mut self.effects)?;
            return Ok(StatementResult::done(tag));
        }
        *counters = Arc::new(Counters::default());
        let (txn, catalog) = (&mut self.txn, &self.catalog);
        let mut context = dml::Context { engine, base, catalog, txn, counters };
        let (tag, count) = match work {
            Work::Statement(Kind::Insert(insert)) => ("INSERT", insert::run(&mut context, insert).await?),
            Work::Statement(Kind::InsertJson(insert)) => ("INSERT", insert::run_json(&mut context, insert)?),
            Work::Statement(Kind::Update(update)) => ("UPDATE", change::update(&mut context, update).await?),
            Work::Statement(Kind::Delete(delete)) => ("DELETE", change::delete(&mut context, delete).await?),
            Work::Statement(other) => return Err(Error::internal(format!("{other:?} does not write"))),
            Work::Append(parts, batch) => {
                let table = context.target(parts)?;
                ("INSERT", bulk::insert(engine, context.txn, &table, batch)?)
            }
        };
        Ok(StatementResult::Affected { tag, count: Some(count) })
    }
}

/// Commits on a thread that may block, then drops the storage of dropped tables.
async fn commit(engine: &Engine, open: Open, durability: Durability) -> Result<()> {
    let Open { txn, effects, catalog, .. } = open;
    let engine = engine.clone();
    blocking(move || {
        let before = Arc::clone(&catalog);
        commit_now(txn, durability).map_err(|error| name_table(error, &before))?;
        for table in effects.dropped {
            // The catalog entry is gone whatever happens here; what is left over goes at the next open.
            if let Err(error) = engine.db().drop_table(table) {
                tracing::warn!(%error, "cannot drop the storage of table {} yet", table.0);
            }
        }
        Ok(())
    })
    .await
}

fn commit_now(txn: Transaction, durability: Durability) -> strata_oltp::Result<()> {
    txn.commit(durability).map(|_| ())
}

/// A conflict names its table by number; people know it by name.
fn name_table(error: strata_oltp::Error, catalog: &crate::catalog::Catalog) -> Error {
    let strata_oltp::Error::Conflict { table, .. } = &error else { return Error::from(error) };
    let name = match catalog.find_id(*table) {
        Some(table) => TableName { schema: table.schema_name.clone(), table: table.name.clone() }.to_string(),
        None => "the catalog".to_owned(),
    };
    Error::new(SqlState::SerializationFailure, format!("a concurrent transaction changed a row of {name} first"))
        .with_hint("run the transaction again")
        .with_source(error)
}

/// Runs `work` where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("a blocking task ended early: {error}"))),
    }
}

fn no_transaction() -> Error {
    Error::new(SqlState::NoActiveTransaction, "no transaction is open").with_hint("BEGIN one first")
}

fn single(sql: &str) -> Result<Statement> {
    let mut statements = parse_script(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(Error::new(SqlState::Syntax, "expected exactly one statement")),
    }
}

/// The same rows, read to their end.
async fn in_memory(rows: Rows) -> Result<Rows> {
    let schema = rows.schema();
    let batches = rows.collect().await?;
    let stream = futures::stream::iter(batches.into_iter().map(Ok));
    Ok(Rows::new(Box::pin(RecordBatchStreamAdapter::new(schema, stream))))
}
