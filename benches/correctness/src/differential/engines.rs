//! `Pair`: a database of Strata's and one of SQLite's that get the same statements.
//!
//! SQLite goes on after a failed statement of a transaction, PostgreSQL and Strata refuse everything up to its end. The pair
//! follows PostgreSQL: SQLite is kept from what Strata must refuse, and rolled back where Strata's COMMIT rolls back.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use rusqlite::Connection;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_sql::{Engine, Session, StatementResult};

use super::cells::{Row, cell_of_value, rows_of_batches};
use crate::placement::{for_each_table, options};

/// One step of a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Yields rows; ordered if its ORDER BY leaves nothing open.
    Query {
        sql: String,
        ordered: bool,
    },
    /// Changes rows or definitions.
    Write(String),
    Begin(String),
    Commit,
    Rollback,
    RollbackTo(String),
    /// SAVEPOINT and RELEASE.
    Mark(String),
    /// Something that only Strata does.
    Move(Move),
}

/// What happens to Strata's rows between statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Flush,
    Convert,
    Compact,
    /// Also ends an open transaction.
    Reopen,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Query { sql, .. } | Step::Write(sql) | Step::Begin(sql) | Step::Mark(sql) => f.write_str(sql),
            Step::Commit => f.write_str("COMMIT"),
            Step::Rollback => f.write_str("ROLLBACK"),
            Step::RollbackTo(name) => write!(f, "ROLLBACK TO SAVEPOINT {name}"),
            Step::Move(what) => write!(f, "-- {what:?}"),
        }
    }
}

/// What a statement gave.
#[derive(Clone, Debug, PartialEq)]
enum Outcome {
    Rows(Vec<Row>),
    /// Rows written; `None` where the engines count differently.
    Done(Option<u64>),
    Refused(Class, String),
}

/// Kinds of failure that both engines tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// NOT NULL, keys, checks, references.
    Constraint,
    /// Known to SQL, not built.
    Unsupported,
    Other,
}

/// How a step went, if the engines agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    Rows,
    Done,
    /// Both failed.
    Failed,
    /// Strata said that it does not have this; SQLite was not asked.
    Unsupported,
}

/// Both databases.
pub struct Pair {
    env: Arc<dyn Env>,
    partitions: usize,
    strata: Option<(Engine, Session)>,
    sqlite: Connection,
    in_transaction: bool,
    has_failed: bool,
}

type Disagreement = String;

impl Pair {
    pub fn new(partitions: usize) -> Result<Pair, Disagreement> {
        let env: Arc<dyn Env> = Arc::new(MemEnv::new());
        let sqlite = Connection::open_in_memory().map_err(|error| error.to_string())?;
        sqlite
            .execute_batch("PRAGMA case_sensitive_like = ON; PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = OFF")
            .map_err(|error| error.to_string())?;
        let mut pair = Pair { env, partitions, strata: None, sqlite, in_transaction: false, has_failed: false };
        pair.open()?;
        Ok(pair)
    }

    fn open(&mut self) -> Result<(), Disagreement> {
        let engine = Engine::open_with_env(Arc::clone(&self.env), Path::new("db"), options(self.partitions))
            .map_err(|error| format!("Strata does not open: {}", error.report()))?;
        let session = engine.session();
        self.strata = Some((engine, session));
        Ok(())
    }

    fn strata(&mut self) -> Result<&mut (Engine, Session), Disagreement> {
        self.strata.as_mut().ok_or_else(|| "Strata is closed".to_owned())
    }

    /// Gives a step to both.
    ///
    /// # Errors
    /// How they differ.
    pub async fn step(&mut self, step: &Step) -> Result<Agreement, Disagreement> {
        if let Step::Move(what) = step {
            return self.move_rows(*what).await.map(|()| Agreement::Done);
        }
        if self.is_out_of_place(step) {
            return Ok(Agreement::Failed);
        }
        let strata = self.run_strata(&step.to_string()).await?;
        if let Outcome::Refused(Class::Unsupported, _) = strata {
            self.has_failed |= self.in_transaction;
            return Ok(Agreement::Unsupported);
        }
        if is_checked_early(step, &strata) && !self.has_failed {
            self.has_failed |= self.in_transaction;
            return Ok(Agreement::Failed);
        }
        let ends = matches!(step, Step::Commit | Step::Rollback | Step::RollbackTo(_));
        if self.has_failed && !ends {
            return match strata {
                Outcome::Refused(_, text) if text.contains("25P02") => Ok(Agreement::Failed),
                other => Err(format!("the transaction has failed, but Strata says {other:?}")),
            };
        }
        let sqlite = match step {
            Step::Commit if self.has_failed => self.run_sqlite("ROLLBACK"),
            _ => self.run_sqlite(&for_sqlite(&step.to_string())),
        };
        let refused = matches!(strata, Outcome::Refused(..));
        let agreement = compare(step, strata, sqlite)?;
        match step {
            Step::Begin(_) => self.in_transaction |= !refused,
            Step::Commit | Step::Rollback => (self.in_transaction, self.has_failed) = (false, false),
            Step::RollbackTo(_) if !refused => self.has_failed = false,
            _ => {}
        }
        self.has_failed |= refused && self.in_transaction;
        Ok(agreement)
    }

    /// Control that makes no sense where it stands, which the engines take differently; a script that is made smaller is
    /// full of it.
    fn is_out_of_place(&self, step: &Step) -> bool {
        match step {
            Step::Begin(_) => self.in_transaction,
            Step::Commit | Step::Rollback | Step::RollbackTo(_) | Step::Mark(_) => !self.in_transaction,
            Step::Query { .. } | Step::Write(_) | Step::Move(_) => false,
        }
    }

    async fn move_rows(&mut self, what: Move) -> Result<(), Disagreement> {
        let told = |error: strata_sql::Error| format!("{what:?}: {}", error.report());
        match what {
            Move::Flush => self.strata()?.0.flush().map_err(told),
            Move::Convert => for_each_table(&self.strata()?.0, Engine::convert).await.map_err(told),
            Move::Compact => for_each_table(&self.strata()?.0, Engine::compact).await.map_err(told),
            Move::Reopen => {
                if self.in_transaction {
                    self.sqlite.execute_batch("ROLLBACK").map_err(|error| error.to_string())?;
                    (self.in_transaction, self.has_failed) = (false, false);
                }
                if let Some((engine, session)) = self.strata.take() {
                    drop(session);
                    engine.close().map_err(told)?;
                }
                self.open()
            }
        }
    }

    async fn run_strata(&mut self, sql: &str) -> Result<Outcome, Disagreement> {
        let session = &mut self.strata()?.1;
        let running = AssertUnwindSafe(execute(session, sql)).catch_unwind();
        let outcome = running.await.map_err(|_| "Strata panics".to_owned())?;
        Ok(match outcome {
            Ok((Some(batches), _)) => Outcome::Rows(rows_of_batches(&batches)?),
            Ok((None, count)) => Outcome::Done(count),
            Err(error) => {
                let class = match error.sqlstate() {
                    state if state.starts_with("23") => Class::Constraint,
                    "0A000" => Class::Unsupported,
                    state if state.starts_with("XX") => return Err(format!("Strata: {}", error.report())),
                    _ => Class::Other,
                };
                Outcome::Refused(class, error.report())
            }
        })
    }

    fn run_sqlite(&self, sql: &str) -> Outcome {
        let run = || -> rusqlite::Result<Outcome> {
            let mut statement = self.sqlite.prepare(sql)?;
            let width = statement.column_count();
            if width == 0 {
                let count = statement.execute([])?;
                return Ok(Outcome::Done(Some(count as u64)));
            }
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let cells: rusqlite::Result<Row> = (0..width).map(|at| row.get_ref(at).map(cell_of_value)).collect();
                found.push(cells?);
            }
            Ok(Outcome::Rows(found))
        };
        run().unwrap_or_else(|error| {
            let is_constraint = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
            Outcome::Refused(if is_constraint { Class::Constraint } else { Class::Other }, error.to_string())
        })
    }
}

/// What PostgreSQL and Strata refuse at once and SQLite later or never: views of tables and columns that are not there, DROP
/// of what a view reads, and values of another type than their column's. Scripts that are made smaller are full of them.
fn is_checked_early(step: &Step, strata: &Outcome) -> bool {
    let (Step::Write(sql), Outcome::Refused(Class::Other, text)) = (step, strata) else { return false };
    let has_state = |states: &[&str]| states.iter().any(|state| text.contains(state));
    match sql.split(' ').next() {
        Some("CREATE") => has_state(&["42P01", "42703", "42804"]),
        Some("DROP") => has_state(&["2BP01", "42804"]),
        _ => has_state(&["42804"]),
    }
}

/// The rows of the one statement, or how many it wrote.
async fn execute(session: &mut Session, sql: &str) -> strata_sql::Result<(Option<Vec<RecordBatch>>, Option<u64>)> {
    Ok(match session.execute(sql).await?.pop() {
        Some(StatementResult::Rows(rows)) => (Some(rows.collect().await?), None),
        Some(StatementResult::Affected { count, .. }) => (None, count),
        None => (None, None),
    })
}

fn compare(step: &Step, strata: Outcome, sqlite: Outcome) -> Result<Agreement, Disagreement> {
    match (strata, sqlite) {
        (Outcome::Rows(mut ours), Outcome::Rows(mut theirs)) => {
            if !matches!(step, Step::Query { ordered: true, .. }) {
                ours.sort_unstable();
                theirs.sort_unstable();
            }
            if ours == theirs {
                return Ok(Agreement::Rows);
            }
            let at = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
            let lengths = format!("{} rows by Strata, {} by SQLite", ours.len(), theirs.len());
            Err(format!("{lengths}; first difference at row {at}: {:?} and {:?}", ours.get(at), theirs.get(at)))
        }
        (Outcome::Done(Some(ours)), Outcome::Done(Some(theirs)))
            if matches!(step, Step::Write(_)) && ours != theirs =>
        {
            Err(format!("{ours} rows written by Strata, {theirs} by SQLite"))
        }
        (Outcome::Done(_), Outcome::Done(_)) => Ok(Agreement::Done),
        (Outcome::Refused(Class::Constraint, _), Outcome::Refused(Class::Constraint, _)) => Ok(Agreement::Failed),
        (Outcome::Refused(Class::Other, _), Outcome::Refused(Class::Other, _)) => Ok(Agreement::Failed),
        (ours, theirs) => Err(format!("Strata: {ours:?}; SQLite: {theirs:?}")),
    }
}

/// The statement in SQLite's words: its dates are text, and it has one isolation level.
fn for_sqlite(sql: &str) -> String {
    if sql.starts_with("BEGIN") {
        return "BEGIN".to_owned();
    }
    sql.replace("DATE '", "'")
}
