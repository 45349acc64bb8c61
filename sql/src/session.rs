//! `Session`: one client's statements, in order, with its open transaction and settings.
//!
//! Without BEGIN each statement is a transaction of its own. Between BEGIN and COMMIT all statements read one snapshot
//! plus the transaction's own writes. A statement that fails there fails the transaction, as in PostgreSQL: only
//! ROLLBACK, or ROLLBACK TO a savepoint, is taken after it.

mod copying;
mod explain;
mod open;
mod point;
mod show;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::physical_plan::displayable;
use datafusion::sql::sqlparser::ast;
use strata_olap::scan::{BoundView, ScanCounters as Counters};
use strata_oltp::commit::Durability;
use strata_oltp::txn::{Isolation, Transaction, TransactionOptions};
use tokio::time::Instant;

use crate::as_of;
use crate::call;
use crate::ddl::{self, Effects};
use crate::dml::{Frames, cells, change, insert, lock, view_of};
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::point::{NO_PARAMETERS, Parameters};
use crate::prepared::Prepared;
use crate::query::{Reader, Rows, timed_out};
use crate::sequences::LastNumbers;
use crate::settings::{self, Settings};
use crate::statement::{Kind, Statement, parse_script, with_modes};
use open::Open;
use work::Work;

pub(crate) use work::by_name;

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
    /// Found one by one, by primary key or through an index, wherever they lay.
    pub key_rows: u64,
}

/// What a session runs within a transaction.
#[derive(Clone, Copy)]
enum Task<'a> {
    Statement(&'a Statement),
    Prepared(&'a Prepared, Parameters<'a>),
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
    settings: Settings,
    open: Option<Open>,
    counters: Arc<Counters>,
    prepared: HashMap<String, Prepared>,
    /// When the running statement has taken too long. A commit that has begun is not cut off: what became of it would be
    /// unknown.
    deadline: Option<Instant>,
    /// When the last statement ended.
    idle_since: Instant,
}

impl Session {
    pub(crate) fn new(engine: Engine, base: SessionState, durability: Durability) -> Session {
        let mut base = base;
        base.config_mut().set_extension(Arc::new(LastNumbers::default()));
        let (settings, counters) = (Settings::new(durability), Arc::new(Counters::default()));
        let prepared = HashMap::new();
        Session { engine, base, settings, open: None, counters, prepared, deadline: None, idle_since: Instant::now() }
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
        if !statement.yields_rows() {
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
        self.begin_statement()?;
        let result = self.run_now(statement).await;
        self.idle_since = Instant::now();
        result
    }

    /// Ends a transaction that has waited too long, and sets the statement's deadline.
    fn begin_statement(&mut self) -> Result<()> {
        let was_open = self.open.is_some();
        self.expire_idle();
        if was_open && self.open.is_none() {
            return Err(Error::new(
                SqlState::IdleInTransaction,
                "the transaction waited too long for its next statement",
            )
            .with_detail("it was rolled back")
            .with_hint("see idle_in_transaction_session_timeout"));
        }
        let timeout = self.settings().statement_timeout;
        self.deadline = (!timeout.is_zero()).then(|| Instant::now() + timeout);
        Ok(())
    }

    async fn run_now(&mut self, statement: &Statement) -> Result<StatementResult> {
        match &statement.kind {
            Kind::Begin(modes) => self.begin(modes),
            Kind::Commit => self.commit().await,
            Kind::Rollback => self.rollback(),
            Kind::RollbackTo(name) => {
                self.opened()?.rollback_to(name)?;
                Ok(StatementResult::done("ROLLBACK"))
            }
            _ => self.run_within(Task::Statement(statement)).await,
        }
    }

    /// Parses one statement, in which `$1`, `$2`, … stand for parameters, to be run many times.
    ///
    /// # Errors
    /// 42601 if it is not one statement.
    pub fn prepare(&self, sql: &str) -> Result<Prepared> {
        Prepared::new(single(sql)?, Vec::new())
    }

    /// [`Session::run`] of a prepared statement, with `parameters` in place of `$1`, `$2`, ….
    ///
    /// # Errors
    /// 08P01 for another number of parameters; the statement's.
    pub async fn run_prepared(&mut self, prepared: &Prepared, parameters: &[ScalarValue]) -> Result<StatementResult> {
        self.begin_statement()?;
        let result = if prepared.is_point() {
            self.run_within(Task::Prepared(prepared, Parameters::Scalars(parameters))).await
        } else {
            let statement = prepared.bind_parameters(Parameters::Scalars(parameters))?;
            self.run_now(&statement).await
        };
        self.idle_since = Instant::now();
        result
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
            key_rows: self.counters.key_rows(),
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
        self.settings.durability = durability;
    }

    /// What later commits survive.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.settings().durability
    }

    /// What is in force: the transaction's own settings, if it has any.
    fn settings(&self) -> &Settings {
        self.open.as_ref().and_then(|open| open.local.as_ref()).unwrap_or(&self.settings)
    }

    /// Rolls an open transaction back that has waited for its next statement for longer than
    /// `idle_in_transaction_session_timeout` allows, and returns when it would: for whoever serves the session. Without
    /// it, the next statement does.
    pub fn expire_idle(&mut self) -> Option<Instant> {
        let timeout = self.settings().idle_in_transaction_timeout;
        if self.open.is_none() || timeout.is_zero() {
            return None;
        }
        let deadline = self.idle_since + timeout;
        if Instant::now() >= deadline {
            if let Some(Open { before, .. }) = self.open.take() {
                self.settings = before;
            }
            return None;
        }
        Some(deadline)
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn begin(&mut self, modes: &[ast::TransactionMode]) -> Result<StatementResult> {
        if self.open.is_some() {
            return Err(Error::new(SqlState::ActiveTransaction, "a transaction is open already")
                .with_hint("COMMIT or ROLLBACK it first; SAVEPOINT marks a point within it"));
        }
        let options = with_modes(self.settings.transaction(), modes);
        self.open = Some(Open::new(&self.engine, &options, &self.settings)?);
        Ok(StatementResult::done("BEGIN"))
    }

    async fn commit(&mut self) -> Result<StatementResult> {
        let Some(mut open) = self.open.take() else { return Err(no_transaction()) };
        if open.has_failed() {
            self.settings = open.before;
            // As in PostgreSQL, COMMIT of a failed transaction ends it and says that it was rolled back.
            return Ok(StatementResult::done("ROLLBACK"));
        }
        let durability = open.local.as_ref().unwrap_or(&self.settings).durability;
        let before = open.before.clone();
        let settled = within(self.deadline, open.settle(&self.engine, &self.base, &mut self.counters)).await;
        let committed = match settled {
            Ok(()) => commit(&self.engine, open, durability).await,
            Err(error) => Err(error),
        };
        if committed.is_err() {
            self.settings = before;
        }
        committed.map(|()| StatementResult::done("COMMIT"))
    }

    fn rollback(&mut self) -> Result<StatementResult> {
        let open = self.open.take().ok_or_else(no_transaction)?;
        self.settings = open.before;
        Ok(StatementResult::done("ROLLBACK"))
    }

    fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(no_transaction)
    }

    /// Statements that a failed transaction refuses, and that fail the transaction when they fail.
    async fn run_within(&mut self, task: Task<'_>) -> Result<StatementResult> {
        if self.in_failed_transaction() {
            return Err(Error::new(
                SqlState::FailedTransaction,
                "the transaction failed earlier; statements are ignored until its end",
            )
            .with_hint("ROLLBACK, or ROLLBACK TO a savepoint"));
        }
        let result = match task {
            Task::Statement(statement) => self.dispatch(statement).await,
            Task::Prepared(prepared, parameters) => self.dispatch_prepared(prepared, parameters).await,
        };
        if let Some(open) = &self.open
            && result.is_err()
        {
            open.failed.store(true, Ordering::Release);
        }
        result
    }

    async fn dispatch(&mut self, statement: &Statement) -> Result<StatementResult> {
        if let (Kind::Ddl(ddl), None) = (&statement.kind, &self.open)
            && let ast::Statement::CreateIndex(create) = ddl.as_ref()
        {
            return self.create_index(create).await;
        }
        match &statement.kind {
            Kind::Query(_) => match self.read_point(None, &statement.kind, NO_PARAMETERS)? {
                Some(rows) => Ok(StatementResult::Rows(rows)),
                None => self.start_query(statement.kind.clone()).await,
            },
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
                settings::changes(set)?.iter().try_for_each(|change| self.set(change))?;
                Ok(StatementResult::done("SET"))
            }
            Kind::SetTransaction(modes) => {
                self.set_transaction(modes)?;
                Ok(StatementResult::done("SET"))
            }
            Kind::Show(words) => self.show(words).map(StatementResult::Rows),
            Kind::Copy(copy) => Box::pin(self.copy(copy)).await,
            Kind::Prepare { name, types, text, kind } => {
                let prepared = Prepared::new(Statement::of(text.clone(), kind.as_ref().clone()), types.clone())?;
                if self.prepared.contains_key(name) {
                    let message = format!("prepared statement {name} already exists");
                    return Err(Error::new(SqlState::DuplicatePrepared, message).with_hint("DEALLOCATE it first"));
                }
                self.prepared.insert(name.clone(), prepared);
                Ok(StatementResult::done("PREPARE"))
            }
            Kind::Execute { name, parameters } => {
                let prepared = self.prepared.get(name).ok_or_else(|| undefined_prepared(name))?.clone();
                let cells = parameters.iter().map(cells::cell).collect::<Option<Vec<_>>>();
                match cells.filter(|_| prepared.is_point()) {
                    Some(cells) => Box::pin(self.dispatch_prepared(&prepared, Parameters::Cells(&cells))).await,
                    None => Box::pin(self.dispatch(&prepared.bind(parameters)?)).await,
                }
            }
            Kind::Deallocate(name) if name == "all" => {
                self.prepared.clear();
                Ok(StatementResult::done("DEALLOCATE ALL"))
            }
            Kind::Deallocate(name) => {
                self.prepared.remove(name).ok_or_else(|| undefined_prepared(name))?;
                Ok(StatementResult::done("DEALLOCATE"))
            }
            kind => self.write(&Work::Statement(kind)).await,
        }
    }

    fn set(&mut self, change: &settings::Change) -> Result<()> {
        if let Some(option) = change.name.strip_prefix("datafusion.") {
            return self.set_datafusion(option, change);
        }
        if let Some(open) = &mut self.open {
            let local = open.local.get_or_insert_with(|| self.settings.clone());
            settings::apply(local, change)?;
        } else if change.is_local {
            return Err(no_transaction());
        }
        if !change.is_local {
            settings::apply(&mut self.settings, change)?;
        }
        Ok(())
    }

    fn set_datafusion(&mut self, option: &str, change: &settings::Change) -> Result<()> {
        // These decide what names and constants mean, for every statement of ours too.
        if matches!(option, "catalog.default_catalog" | "catalog.default_schema" | "sql_parser.dialect") {
            let message = format!("setting {} cannot be changed", change.name);
            return Err(Error::new(SqlState::InvalidParameter, message));
        }
        let options = self.base.config_mut().options_mut();
        match &change.value {
            Some(value) => Ok(options.set(&change.name, value)?),
            None => Err(Error::unsupported(format!("RESET of {}", change.name)).with_hint("SET it to what it was")),
        }
    }

    /// SET TRANSACTION: begins the transaction anew, which has done nothing yet.
    fn set_transaction(&mut self, modes: &[ast::TransactionMode]) -> Result<()> {
        let open = self.opened()?;
        if !open.is_untouched() {
            return Err(Error::new(SqlState::ActiveTransaction, "the transaction has run statements already")
                .with_hint("SET TRANSACTION comes first; or say it in BEGIN"));
        }
        let options = with_modes(*open.txn.options(), modes);
        let begun = Open::new(&self.engine, &options, &self.settings)?;
        self.open = Some(begun);
        Ok(())
    }

    fn show(&self, words: &[String]) -> Result<Rows> {
        let name = words.join(if words.first().is_some_and(|word| word == "transaction") { " " } else { "." });
        match name.as_str() {
            "all" => show::all(&settings::all(self.settings())),
            "transaction_isolation" | "transaction isolation.level" | "transaction isolation level" => {
                let open = self.open.as_ref().map(|open| open.txn.options().isolation);
                let name = settings::isolation_name(open.unwrap_or(self.settings().isolation));
                show::one("transaction_isolation", name)
            }
            "transaction_read_only" => {
                let open = self.open.as_ref().map(|open| open.txn.options().read_only);
                show::one(&name, if open.unwrap_or(self.settings().read_only) { "on" } else { "off" })
            }
            "time.zone" => show::one("timezone", "UTC"),
            option if option.starts_with("datafusion.") => {
                let entries = self.base.config_options().entries();
                let found = entries
                    .iter()
                    .find(|entry| entry.key == option)
                    .ok_or_else(|| Error::new(SqlState::UndefinedObject, format!("setting {option} does not exist")))?;
                show::one(option, found.value.as_deref().unwrap_or_default())
            }
            _ => show::one(&name, &settings::show(self.settings(), &name)?),
        }
    }

    /// A reader for the next statement, whose counters become the session's.
    fn reader(&mut self) -> Result<Reader> {
        let (catalog, view) = match &self.open {
            Some(open) => (Arc::clone(&open.catalog), view_of(&open.txn)),
            None => {
                let snapshot = self.engine.db().snapshot();
                (self.engine.catalog_at(&snapshot)?, BoundView::new(snapshot))
            }
        };
        self.counters = Arc::clone(view.counters());
        Reader::new(&self.base, &self.engine, &catalog, view, Frames::new())
    }

    async fn start_query(&mut self, kind: Kind) -> Result<StatementResult> {
        let mut query = self.explained(kind)?;
        let explain = explain::take_options(&mut query)?;
        if explain.json
            && let ast::Statement::Explain { statement, .. } = query
        {
            return Box::pin(self.explain_json(*statement, explain)).await;
        }
        let query = match (&query, &mut self.open) {
            (ast::Statement::Query(_), _) if lock::asks(&query) && as_of::is_asked(&query) => {
                return Err(Error::unsupported("FOR UPDATE of rows of the past"));
            }
            (ast::Statement::Query(locking), Some(open)) if lock::asks(&query) && !open.txn.options().read_only => {
                open.touch();
                let mut context = open.context(&self.engine, &self.base, &mut self.counters);
                return within(self.deadline, lock::run(&mut context, locking)).await.map(StatementResult::Rows);
            }
            // Outside of a transaction they would be released at once.
            _ => lock::without(query),
        };
        self.start_rows(query, None).await
    }

    /// Plans and starts a query, by the plan that a prepared statement keeps if it can.
    async fn start_rows(
        &mut self,
        query: ast::Statement,
        prepared: Option<(&Prepared, &[ScalarValue])>,
    ) -> Result<StatementResult> {
        let reader = self.reader()?;
        let query = reader.bind(query).await?;
        if let Some(open) = &mut self.open {
            open.touch();
            open.txn.check_age()?;
            reader.note(&mut open.txn, &query)?;
        }
        let started = async {
            let Some((prepared, values)) = prepared else { return reader.query(query).await };
            match reader.query_kept(prepared, &query, values).await? {
                Some(rows) => Ok(rows),
                None => match prepared.bind_parameters(Parameters::Scalars(values))?.kind {
                    Kind::Query(bound) => reader.query(*bound).await,
                    _ => Err(Error::internal("a query that became another statement")),
                },
            }
        };
        let rows = within(self.deadline, started).await?;
        let rows = match self.deadline {
            Some(deadline) => rows.until(deadline),
            None => rows,
        };
        Ok(StatementResult::Rows(match &self.open {
            Some(open) => rows.reporting_to(Arc::clone(&open.failed)),
            None => rows,
        }))
    }

    /// EXPLAIN (FORMAT JSON): plans, and with ANALYZE runs, a query.
    async fn explain_json(&mut self, query: ast::Statement, wanted: explain::Wanted) -> Result<StatementResult> {
        let reader = self.reader()?;
        let query = reader.bind(lock::without(query)).await?;
        if let Some(open) = &mut self.open {
            open.touch();
            open.txn.check_age()?;
            reader.note(&mut open.txn, &query)?;
        }
        let deadline = self.deadline;
        let text = within(deadline, async {
            let plan = reader.plan(query).await?;
            let began = Instant::now();
            let physical = reader.physical(&plan).await?;
            if wanted.analyze {
                let mut rows = reader.run(Arc::clone(&physical))?;
                while rows.next().await?.is_some() {}
            }
            explain::tree(&physical, wanted, wanted.analyze.then_some(began))
        });
        Ok(StatementResult::Rows(show::one("QUERY PLAN", &text.await?)?))
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
        if !is_query && (*analyze || explain::take_options(&mut query.clone())?.analyze) {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a statement that writes")
                .with_hint("EXPLAIN shows the plan of what it reads; to time it, run it and ROLLBACK"));
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
        if self.open.is_some() {
            return self.write_in(work).await;
        }
        let mut attempt = 0;
        loop {
            match self.write_once(work).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => return other,
            }
        }
    }

    async fn write_once(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        if self.settings.read_only {
            return Err(read_only());
        }
        let mut open = Open::new(&self.engine, &self.own_transaction(), &self.settings)?;
        let applied = async {
            let result = open.apply(&self.engine, &self.base, &mut self.counters, work).await?;
            open.settle(&self.engine, &self.base, &mut self.counters).await?;
            Ok(result)
        };
        let result = within(self.deadline, applied).await?;
        commit(&self.engine, open, self.settings.durability).await?;
        Ok(result)
    }

    /// Options of the transaction of a single statement: alone, it is serializable whatever its level.
    fn own_transaction(&self) -> TransactionOptions {
        TransactionOptions { isolation: Isolation::Snapshot, ..self.settings.transaction() }
    }

    /// CREATE INDEX outside of a transaction: built while others write.
    async fn create_index(&mut self, create: &ast::CreateIndex) -> Result<StatementResult> {
        if self.settings.read_only {
            return Err(read_only());
        }
        let mut attempt = 0;
        let declared = loop {
            let mut open = Open::new(&self.engine, &self.own_transaction(), &self.settings)?;
            let declared = {
                let mut context = open.context(&self.engine, &self.base, &mut self.counters);
                ddl::declare(&mut context, create, true)?
            };
            match commit(&self.engine, open, self.settings.durability).await {
                Err(error) if error.state() == SqlState::SerializationFailure && attempt < RETRIES_MAX => attempt += 1,
                other => break other.map(|()| declared)?,
            }
        };
        let Some((table, id)) = declared else { return Ok(StatementResult::done("CREATE INDEX")) };
        let built = within(self.deadline, ddl::build_online(&self.engine, &self.base, table, id)).await;
        if let Err(error) = built {
            let engine = self.engine.clone();
            if let Err(left) = blocking(move || ddl::abandon(&engine, table, id)).await {
                tracing::warn!(error = %left, "an index that was not built stays declared until the next open");
            }
            return Err(error);
        }
        Ok(StatementResult::done("CREATE INDEX"))
    }

    /// Within a transaction a statement that fails leaves nothing behind.
    async fn write_in(&mut self, work: &Work<'_>) -> Result<StatementResult> {
        let open = self.open.as_mut().ok_or_else(no_transaction)?;
        if open.txn.options().read_only {
            return Err(read_only());
        }
        open.touch();
        let before = open.txn.savepoint();
        let (catalog, effects) = (Arc::clone(&open.catalog), open.effects.clone());
        // Whoever stops waiting in here leaves a transaction that can only be rolled back.
        open.interrupted = true;
        let result = within(self.deadline, open.apply(&self.engine, &self.base, &mut self.counters, work)).await;
        open.interrupted = false;
        if result.is_err() {
            open.txn.rollback_to(&before);
            (open.catalog, open.effects) = (catalog, effects);
        }
        open.txn.release(before);
        result
    }
}

/// What `work` gives, if it does so before `deadline`.
///
/// # Errors
/// 57014; otherwise those of `work`.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(timed_out())),
    }
}

/// Commits on a thread that may block, then drops the storage of dropped tables.
async fn commit(engine: &Engine, open: Open, durability: Durability) -> Result<()> {
    let Open { mut txn, effects, catalog, .. } = open;
    // Neither the disk nor background work is waited for: going to another thread and back would take longer.
    let is_quick = durability == Durability::Buffered && effects == Effects::default() && !engine.db().commits_wait();
    if is_quick {
        return commit_now(txn, durability).map_err(|error| name_table(error, &catalog));
    }
    let engine = engine.clone();
    blocking(move || {
        let before = Arc::clone(&catalog);
        for id in &effects.reshaped {
            if let Some(table) = catalog.find_id(*id) {
                txn.reshape(Arc::clone(&table.shape), table.storage.kind, table.storage.compaction.clone());
            }
        }
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
    let name = match catalog.owner_of(*table) {
        Some(table) => table.qualified_name().to_string(),
        None => "the catalog".to_owned(),
    };
    Error::new(SqlState::SerializationFailure, format!("a concurrent transaction changed a row of {name} first"))
        .with_hint("run the transaction again")
        .with_source(error)
}

/// Runs `work` where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("a blocking task ended early: {error}"))),
    }
}

fn undefined_prepared(name: &str) -> Error {
    Error::new(SqlState::UndefinedPrepared, format!("prepared statement {name} does not exist"))
        .with_hint("PREPARE it first")
}

fn read_only() -> Error {
    Error::new(SqlState::ReadOnlyTransaction, "the transaction is READ ONLY").with_hint("BEGIN READ WRITE to write")
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
    Ok(Rows::of(schema, rows.collect().await?))
}
