//! Plays one script of the corpus against a database of its own, and sorts the outcomes.
//!
//! Every record is run that the corpus does not mark for other engines alone (`onlyif`). A `skipif` is heeded for none,
//! PostgreSQL included: what the corpus excuses PostgreSQL from is mostly a name without AS, which PostgreSQL reads since
//! version 14, and so does Strata; where an excuse is right for us too, it has a line in the list of exclusions. The one
//! thing obeyed is `halt` behind a `skipif`: the rest of such a file is about SQLite itself.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use strata_sql::{Engine, Session, StatementResult};

use super::exclusions::Exclusions;
use super::script::{Kind, Record, Script};
use super::values::{self, Verdict};
use crate::numbers::Numbers;
use crate::placement::{Placement, options};

/// No statement takes this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows move at the latest after this many writes, and before the next statement that reads.
const WRITES_MAX: u64 = 200;
/// Examples kept of one reason.
const EXAMPLES_MAX: usize = 3;

/// What playing a file gave.
#[derive(Default)]
pub struct Played {
    pub records: u64,
    /// Marked for other engines alone.
    pub other_engines: u64,
    /// Queries left out of a sample.
    pub not_sampled: u64,
    pub excluded: BTreeMap<String, u64>,
    pub passed: u64,
    pub failures: BTreeMap<String, Failure>,
}

/// One reason for failing.
#[derive(Default)]
pub struct Failure {
    pub count: u64,
    pub examples: Vec<String>,
}

/// How to play.
pub struct Manner<'a> {
    pub path: &'a str,
    pub placement: Placement,
    pub exclusions: &'a Exclusions,
    /// Which queries are run: all of them, or one in this many, chosen by the numbers.
    pub sample: Option<(usize, Numbers)>,
}

struct Player<'a> {
    manner: Manner<'a>,
    engine: Engine,
    session: Session,
    writes: u64,
    moves: u64,
    played: Played,
}

/// Plays `text` from the first record to the last.
pub async fn play(text: &str, manner: Manner<'_>) -> Result<Played, String> {
    // Half of the files with several partitions, so that repartitioning plans are looked at too.
    let partitions = 1 + manner.path.len() % 2;
    let engine = Engine::open_in_memory(options(partitions)).map_err(|error| error.report())?;
    let session = engine.session();
    let mut player = Player { manner, engine, session, writes: 0, moves: 0, played: Played::default() };
    let mut halted = false;
    for record in Script::new(text) {
        let record = record?;
        match record.kind {
            Kind::Halt => halted |= record.only.is_empty(),
            _ => player.record(&record, halted).await,
        }
    }
    Ok(player.played)
}

/// What came of a statement.
enum Outcome {
    Rows(Vec<RecordBatch>),
    Done,
    Refused { sqlstate: &'static str, report: String },
    Broken(String),
}

impl Player<'_> {
    async fn record(&mut self, record: &Record<'_>, halted: bool) {
        self.played.records += 1;
        if !record.only.is_empty() {
            self.played.other_engines += 1;
            return;
        }
        if halted {
            return self.exclude("halted unless SQLite");
        }
        if let Some(group) = self.manner.exclusions.before(self.manner.path, &record.sql) {
            let group = group.to_owned();
            return self.exclude(&group);
        }
        let is_query = matches!(record.kind, Kind::Query { .. });
        if let Some((one_in, numbers)) = &mut self.manner.sample
            && is_query
            && numbers.below(*one_in) != 0
        {
            self.played.not_sampled += 1;
            return;
        }
        let outcome = self.run(record, is_query).await;
        if let Outcome::Refused { sqlstate, .. } = &outcome
            && record.kind != (Kind::Statement { ok: false })
            && let Some(group) = self.manner.exclusions.after(self.manner.path, &record.sql, sqlstate)
        {
            let group = group.to_owned();
            return self.exclude(&group);
        }
        match judge(record, outcome, self.manner.path) {
            Ok(()) => self.played.passed += 1,
            Err((reason, detail)) => {
                let failure = self.played.failures.entry(reason).or_default();
                failure.count += 1;
                if failure.examples.len() < EXAMPLES_MAX {
                    failure.examples.push(format!("{}:{}\n{}\n{detail}", self.manner.path, record.line, record.sql));
                }
            }
        }
    }

    fn exclude(&mut self, group: &str) {
        *self.played.excluded.entry(group.to_owned()).or_default() += 1;
    }

    async fn run(&mut self, record: &Record<'_>, is_query: bool) -> Outcome {
        let first = record.sql.trim_start().get(..6).unwrap_or_default().to_ascii_uppercase();
        let reads = is_query || first == "UPDATE" || first == "DELETE";
        if self.writes > 0 && (reads || self.writes >= WRITES_MAX) {
            self.moves += 1;
            self.writes = 0;
            if let Err(error) = self.manner.placement.move_rows(&self.engine, self.moves).await {
                return Outcome::Broken(format!("moving rows: {}", error.report()));
            }
        }
        let running = AssertUnwindSafe(self.session.execute(&record.sql)).catch_unwind();
        let mut results = match tokio::time::timeout(PATIENCE, running).await {
            Err(_) => return Outcome::Broken(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(Err(_)) => return Outcome::Broken("panic".to_owned()),
            Ok(Ok(Err(error))) => {
                return Outcome::Refused { sqlstate: error.sqlstate(), report: error.report() };
            }
            Ok(Ok(Ok(results))) => results,
        };
        match results.pop() {
            Some(StatementResult::Rows(rows)) => match rows.collect().await {
                Ok(batches) => Outcome::Rows(batches),
                Err(error) => Outcome::Refused { sqlstate: error.sqlstate(), report: error.report() },
            },
            Some(StatementResult::Affected { count, .. }) => {
                self.writes += u64::from(count.is_some());
                Outcome::Done
            }
            None => Outcome::Done,
        }
    }
}

/// Whether the outcome is the expected one; otherwise the reason, and words about this record.
fn judge(record: &Record<'_>, outcome: Outcome, path: &str) -> Result<(), (String, String)> {
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    let wrong = |what: &str, detail: String| Err((format!("wrong answer: {what} in {folder}"), detail));
    match (&record.kind, outcome) {
        (_, Outcome::Broken(what)) => Err((format!("broken: {what}"), String::new())),
        (Kind::Statement { ok: false }, Outcome::Refused { .. }) => Ok(()),
        (_, Outcome::Refused { report, .. }) => Err((normalised(&report), report)),
        (Kind::Statement { ok: false }, _) => wrong("an error was expected", String::new()),
        (Kind::Statement { ok: true } | Kind::Halt, _) => Ok(()),
        (Kind::Query { .. }, Outcome::Done) => wrong("no rows", String::new()),
        (Kind::Query { types, sort, expected }, Outcome::Rows(batches)) => {
            let rows = match values::rows(&batches, types) {
                Ok(rows) => rows,
                Err(what) => return wrong("columns", what),
            };
            match values::compare(expected, rows, *sort) {
                Verdict::Right => Ok(()),
                Verdict::OtherOrder => wrong("another order", expectation(expected, &[])),
                Verdict::Wrong(found) => wrong("values", expectation(expected, &found)),
            }
        }
    }
}

fn expectation(expected: &[&str], found: &[String]) -> String {
    let start = |values: &[&str]| values.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    format!("expected {}: {}\nfound {}: {}", expected.len(), start(expected), found.len(), start(&found))
}

/// The first line of a report without its numbers, so that one reason has one name.
fn normalised(report: &str) -> String {
    let (head, message) = report.lines().next().unwrap_or_default().split_at_checked(12).unwrap_or((report, ""));
    let mut text = head.to_owned();
    let mut in_number = false;
    for c in message.chars() {
        if !c.is_ascii_digit() {
            text.push(c);
        } else if !in_number {
            text.push('N');
        }
        in_number = c.is_ascii_digit();
    }
    text.chars().take(110).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(text: &str, placement: Placement) -> Played {
        let exclusions = Exclusions::load().unwrap();
        let manner = Manner { path: "a/b.test", placement, exclusions: &exclusions, sample: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(text, manner)).unwrap()
    }

    const TEXT: &str = "statement ok\nCREATE TABLE t (a INTEGER, b VARCHAR(8))\n\n\
        statement ok\nINSERT INTO t VALUES (1, 'x'), (2, NULL)\n\n\
        onlyif mysql # DIV\nquery I\nSELECT a DIV 2 FROM t\n----\n0\n1\n\n\
        skipif mysql # not compatible\nquery I rowsort\nSELECT a / 2 col0 FROM t\n----\n0\n1\n\n\
        query IT rowsort\nSELECT a, b FROM t\n----\n4 values hashing to 1ce02ba46a7eb1ef2a4eae0e7a4f5e0c\n\n\
        query I nosort\nSELECT a FROM t ORDER BY a DESC\n----\n1\n2\n\n\
        statement error\nSELECT nothing FROM t\n\n\
        statement error\nDELETE FROM t WHERE a = 2\n\n\
        statement ok\nREPLACE INTO t VALUES (1, 'y')\n\n\
        query I\nSELECT nothing FROM t\n----\n1\n\n\
        skipif sqlite\nhalt\n\nquery I\nSELECT count(*) FROM t\n----\n7\n";

    #[test]
    fn outcomes_are_counted_by_kind_in_every_placement() {
        for placement in Placement::ALL {
            let played = played(TEXT, placement);
            assert_eq!((played.records, played.other_engines), (11, 1));
            assert_eq!(played.excluded.values().sum::<u64>(), 2, "{:?}", played.excluded);
            let failures: Vec<(&str, u64)> = played.failures.iter().map(|(r, f)| (r.as_str(), f.count)).collect();
            assert_eq!(failures.len(), 4, "{failures:?}");
            assert!(failures[0].0.starts_with("ERROR 42703"), "{failures:?}");
            let wrong = ["an error was expected", "another order", "values"];
            for (found, wrong) in failures[1..].iter().zip(wrong) {
                assert_eq!(*found, (format!("wrong answer: {wrong} in a").as_str(), 1));
            }
            assert_eq!(played.passed, 4, "two statements, a query, an error");
        }
    }
}
