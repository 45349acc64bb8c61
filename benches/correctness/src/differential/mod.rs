//! Random scripts, run by Strata and by SQLite: definitions, writes, transactions and queries, with conversion, merging,
//! flushing and reopening in between.
//!
//! [`generate`] makes a script from a seed, within what both engines mean by the same words; [`engines`] runs it on both
//! and compares rows (in order where ORDER BY leaves nothing open, otherwise as a bag), numbers of rows written, and kinds
//! of failure. A script on which they differ is made smaller, statement by statement, while they still do.

mod cells;
mod engines;
mod features;
mod generate;

use std::path::Path;

use anyhow::{Result, anyhow};
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;

use crate::ledger::Counts;
use crate::runner::{Campaign, no_obstacle};
use engines::{Agreement, Pair, Step};
use features::Features;

/// Making a script smaller ends after this long.
const MINIMISING_SECONDS: u64 = 120;

pub fn campaign() -> Campaign {
    Campaign {
        name: "differential",
        about: "random scripts give what they give in SQLite, with rows moved in between",
        goal: ("statements", 200_000),
        parallel: true,
        obstacle: no_obstacle,
        case,
    }
}

fn case(number: u64, _: &Path) -> Result<Counts> {
    case_with(number, features::available()?)
}

fn case_with(number: u64, features: Features) -> Result<Counts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let script = generate::script(number, features);
    match runtime.block_on(play(number, &script)) {
        Ok(counts) => Ok(counts),
        Err(difference) => {
            let smaller = runtime.block_on(minimise(number, script, &difference));
            Err(anyhow!("seed {number}: {}\n{}", smaller.what, listing(&smaller.script)))
        }
    }
}

/// Where and how the engines differ.
struct Difference {
    at: usize,
    what: String,
}

impl Difference {
    /// Whether `other`, found in a smaller script, is this difference: the same statement fails in the same manner. Without
    /// what came before it a statement often differs for another reason, which is not the one to look for.
    fn is_alike(&self, other: &Difference) -> bool {
        let manner = |difference: &Difference| {
            let words = difference.what.lines().nth(1).unwrap_or_default().to_owned();
            let words = words.trim_start_matches(|letter: char| letter.is_ascii_digit());
            words.split(['(', ';']).next().unwrap_or_default().to_owned()
        };
        self.what.lines().next() == other.what.lines().next() && manner(self) == manner(other)
    }
}

async fn play(seed: u64, script: &[Step]) -> Result<Counts, Difference> {
    let mut counts = Counts::new();
    let partitions = 1 + (seed % 2) as usize;
    let mut pair = Pair::new(partitions).map_err(|what| Difference { at: 0, what })?;
    for (at, step) in script.iter().enumerate() {
        let agreement = pair.step(step).await.map_err(|what| Difference { at, what: format!("{step}\n{what}") })?;
        if let Step::Move(_) = step {
            *counts.entry("moves").or_default() += 1;
            continue;
        }
        *counts.entry("statements").or_default() += 1;
        let kind = match (agreement, step) {
            (Agreement::Unsupported, _) => "unsupported",
            (Agreement::Failed, _) => "failed_in_both",
            (_, Step::Query { .. }) => "queries",
            (_, Step::Write(_)) => "writes",
            _ => "transaction_control",
        };
        *counts.entry(kind).or_default() += 1;
    }
    Ok(counts)
}

struct Smaller {
    script: Vec<Step>,
    what: String,
}

/// Drops ever smaller parts of a script as long as the engines still differ. Source: "Simplifying and Isolating
/// Failure-Inducing Input" (Zeller and Hildebrandt, 2002), without its search among complements of two.
async fn minimise(seed: u64, mut script: Vec<Step>, difference: &Difference) -> Smaller {
    let clock = OsEnv::new();
    script.truncate(difference.at + 1);
    let mut what = difference.what.clone();
    let mut part = script.len().div_ceil(2);
    loop {
        let (mut at, mut dropped) = (0, false);
        while at < script.len() && clock.monotonic().as_secs() < MINIMISING_SECONDS {
            let mut candidate = script.clone();
            candidate.drain(at..(at + part).min(script.len()));
            match play(seed, &candidate).await {
                Err(found) if difference.is_alike(&found) => {
                    candidate.truncate(found.at + 1);
                    (script, what, dropped) = (candidate, found.what, true);
                }
                Ok(_) | Err(_) => at += part,
            }
        }
        if clock.monotonic().as_secs() >= MINIMISING_SECONDS || (part == 1 && !dropped) {
            return Smaller { script, what };
        }
        part = if part > 1 { part / 2 } else { 1 };
    }
}

fn listing(script: &[Step]) -> String {
    script.iter().map(|step| format!("{step};\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some thousand statements, always the same.
    #[test]
    fn a_few_scripts_give_what_they_give_in_sqlite() {
        let mut sum = Counts::new();
        for number in 0..16 {
            let features = Features::default();
            for (name, count) in case_with(number, features).unwrap() {
                *sum.entry(name).or_default() += count;
            }
        }
        assert!(sum["statements"] > 1_000 && sum["queries"] > 300 && sum["writes"] > 300, "{sum:?}");
        assert!(sum["failed_in_both"] * 4 < sum["statements"], "{sum:?}");
    }

    #[test]
    fn a_difference_is_found_and_made_small() {
        let write = |sql: &str| Step::Write(sql.to_owned());
        let query = |sql: &str| Step::Query { sql: sql.to_owned(), ordered: false };
        let script = vec![
            write("CREATE TABLE a (t TEXT)"),
            write("CREATE TABLE b (x INT)"),
            write("INSERT INTO a VALUES ('ä')"),
            write("INSERT INTO b VALUES (3)"),
            query("SELECT * FROM b"),
            // SQLite knows only the letters of ASCII.
            query("SELECT upper(t) FROM a"),
            query("SELECT * FROM a"),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let difference = runtime.block_on(play(0, &script)).unwrap_err();
        let smaller = runtime.block_on(minimise(0, script, &difference));
        assert_eq!(smaller.script.len(), 3, "{}", listing(&smaller.script));
    }
}
