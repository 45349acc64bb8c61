//! Running the queries: times, rows, where the rows were read, and whether the answer was right.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::answers::Answer;
use super::database::Database;
use super::queries::QueryId;
use crate::progress::{Progress, Timer};

/// What an answer was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Equal to the expected one in every run.
    Right,
    /// Different, and how.
    Wrong(String),
    /// Nothing to compare with.
    Unchecked,
}

/// One query's measurements.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The query.
    pub query: QueryId,
    /// Each run, planning to last row.
    pub milliseconds: Vec<f64>,
    /// Rows of the answer.
    pub row_count: usize,
    /// Rows read in the first run.
    pub memtable_rows: u64,
    /// Rows read in the first run.
    pub run_rows: u64,
    /// Rows read in the first run.
    pub segment_rows: u64,
    /// The comparison.
    pub verdict: Verdict,
    /// The answer of the first run.
    pub answer: Answer,
}

impl Measured {
    /// The middle of the runs; of an even number, the mean of the two in the middle.
    #[must_use]
    pub fn median_ms(&self) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    /// The fastest run.
    #[must_use]
    pub fn min_ms(&self) -> f64 {
        self.milliseconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Runs each query `runs` times and compares every answer with the expected one, if there is one.
///
/// # Errors
/// If a query fails; a wrong answer is a verdict, not an error.
pub fn run_queries(
    database: &Database,
    queries: &[QueryId],
    scale: f64,
    runs: usize,
    expected: Option<&[Answer]>,
) -> Result<Vec<Measured>> {
    assert!(runs > 0);
    let progress = Progress::start("queries", (queries.len() * runs) as u64);
    let mut all = Vec::with_capacity(queries.len());
    for &query in queries {
        let expected = expected.map(|answers| &answers[query.index()]);
        let mut measured: Option<Measured> = None;
        for _ in 0..runs {
            let run = run_query(database, query, scale, expected)
                .with_context(|| format!("query {} failed", query.number()))?;
            match &mut measured {
                None => measured = Some(run),
                Some(first) => {
                    first.milliseconds.extend(run.milliseconds);
                    if first.verdict == Verdict::Right {
                        first.verdict = run.verdict;
                    }
                }
            }
            progress.add(1);
        }
        all.extend(measured);
    }
    let mut line = format!("ran {} queries", all.len());
    if runs > 1 {
        let _ = write!(line, ", {runs} times each");
    }
    progress.finish(&line);
    Ok(all)
}

fn run_query(database: &Database, query: QueryId, scale: f64, expected: Option<&Answer>) -> Result<Measured> {
    let sql = query.sql(scale);
    let timer = Timer::start();
    let rows = database.query(&sql)?;
    let milliseconds = timer.seconds() * 1000.0;
    let read = Answer::from_batches(&rows.schema, &rows.batches, expected);
    let (answer, verdict) = match (read, expected) {
        (Ok(answer), None) => (answer, Verdict::Unchecked),
        (Ok(answer), Some(expected)) => match expected.check(&answer, query) {
            Ok(()) => (answer, Verdict::Right),
            Err(difference) => (answer, Verdict::Wrong(difference.to_string())),
        },
        // Columns of other types than expected are a wrong answer, too.
        (Err(difference), _) => {
            (Answer::from_batches(&rows.schema, &rows.batches, None)?, Verdict::Wrong(format!("{difference:#}")))
        }
    };
    Ok(Measured {
        query,
        milliseconds: vec![milliseconds],
        row_count: answer.row_count(),
        memtable_rows: rows.read.memtable_rows,
        run_rows: rows.read.run_rows,
        segment_rows: rows.read.segment_rows,
        verdict,
        answer,
    })
}
