//! `Session`: one client's statements, in order, with its open transaction and settings.
//!
//! Without BEGIN each statement is a transaction of its own. Between BEGIN and COMMIT all statements read one snapshot
//! plus the transaction's own writes. A statement that fails there fails the transaction, as in PostgreSQL: only
//! ROLLBACK, or ROLLBACK TO a savepoint, is taken after it.

mod copying;
mod explain;
mod maintenance;
mod open;
mod point;
mod read;
mod setting;
mod transaction;
mod work;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::physical_plan::displayable;
use strata_olap::scan::ScanCounters as Counters;
use strata_oltp::commit::Durability;
use tokio::time::Instant;

use crate::activity::{Activity, State};
use crate::catalog::Catalog;
use crate::catalog::path::PathCache;
use crate::catalog::store::ReadPoint;
use crate::ddl::Online;
use crate::dml::cells;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::point::{NO_PARAMETERS, Parameters};
use crate::prepared::Prepared;
use crate::query::{Rows, timed_out};
use crate::sequences::LastNumbers;
use crate::settings::{self, CurrentSettings, Settings};
use crate::statement::{Kind, Statement, parse_script};
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
    /// The catalog with this session's search path.
    names: PathCache,
    /// What functions of its statements see.
    current: Arc<CurrentSettings>,
    counters: Arc<Counters>,
    /// What others see of it.
    activity: Activity,
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
        let (names, current) = (PathCache::default(), Arc::new(CurrentSettings::default()));
        base.config_mut().set_extension(Arc::clone(&current));
        let activity = Activity::new(&engine);
        base.config_mut().set_extension(Arc::new(activity.number()));
        let (settings, counters) = (Settings::new(durability), Arc::new(Counters::default()));
        let prepared = HashMap::new();
        let idle_since = Instant::now();
        Session {
            engine,
            base,
            settings,
            open: None,
            names,
            current,
            counters,
            activity,
            prepared,
            deadline: None,
            idle_since,
        }
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
        self.begin_statement(statement.text())?;
        let result = self.run_now(statement).await;
        self.end_statement();
        result
    }

    /// Ends a transaction that has waited too long, and sets the statement's deadline.
    fn begin_statement(&mut self, text: &str) -> Result<()> {
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
        self.activity.begin(text);
        Ok(())
    }

    fn end_statement(&mut self) {
        self.idle_since = Instant::now();
        let state = match &self.open {
            None => State::Idle,
            Some(open) if open.has_failed() => State::InFailedTransaction,
            Some(_) => State::InTransaction,
        };
        let failed = self.open.as_ref().map(|open| &open.failed);
        self.activity.end(state, failed, &self.settings().application_name);
    }

    async fn run_now(&mut self, statement: &Statement) -> Result<StatementResult> {
        match &statement.kind {
            Kind::Begin(modes) => self.begin(modes),
            Kind::Commit => self.commit().await,
            Kind::Rollback => self.rollback(),
            Kind::RollbackTo(name) => self.rollback_to(name),
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
        self.begin_statement(prepared.statement().text())?;
        let result = if prepared.is_point() {
            self.run_within(Task::Prepared(prepared, Parameters::Scalars(parameters))).await
        } else {
            match prepared.bind_parameters(Parameters::Scalars(parameters)) {
                Ok(statement) => self.run_now(&statement).await,
                Err(error) => Err(error),
            }
        };
        self.end_statement();
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

    /// The catalog that `from` sees, with names looked up as the session does.
    fn catalog_at<'a>(&self, from: impl Into<ReadPoint<'a>>) -> Result<Arc<Catalog>> {
        Ok(self.names.on(self.engine.catalog_at(from)?, &self.settings().search_path))
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
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
            && let Some(online) = Online::of(ddl)
        {
            return Box::pin(self.add_online(online)).await;
        }
        match &statement.kind {
            Kind::Query(_) => match self.read_point(None, &statement.kind, NO_PARAMETERS)? {
                Some(rows) => Ok(StatementResult::Rows(rows)),
                None => self.start_query(statement.kind.clone()).await,
            },
            Kind::Savepoint(name) => {
                let settings = self.settings.clone();
                self.opened()?.savepoint(name.clone(), settings);
                Ok(StatementResult::done("SAVEPOINT"))
            }
            Kind::Release(name) => {
                self.opened()?.release(name)?;
                Ok(StatementResult::done("RELEASE"))
            }
            Kind::Call(function) => Box::pin(self.call(function)).await,
            Kind::Own(own) => Box::pin(self.run_own(&statement.kind, own)).await,
            Kind::Set(set) => {
                settings::changes(set)?.iter().try_for_each(|change| self.set(change))?;
                Ok(StatementResult::done("SET"))
            }
            Kind::Discard(what) => self.discard(*what),
            Kind::GiveBack(tag) => Ok(StatementResult::done(tag)),
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
