//! Random transactions of several sessions at once, whose history is checked for every anomaly its level forbids.
//!
//! A case is a database in the simulated machine and some rounds. In a round each session, on a thread of its own, runs
//! transactions over a few lists: it appends, reads lists by key, and reads ranges of keys, all in SQL. In between rows are
//! flushed, converted and compacted by the same threads. A round ends with the database closed, or with the machine dying
//! in the middle of an operation and losing what was not synced; then it is opened again and the lists are read. What was
//! acknowledged must be there, what was aborted must not, and the history as a whole must fit its level ([`check`]).
//!
//! Threads make the histories, so a seed gives the same workload but not the same history twice. A violation therefore
//! reports what was seen, not only its number.

mod check;
mod session;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, anyhow, bail};
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_sql::Engine;

use crate::ledger::Counts;
use crate::numbers::Numbers;
use crate::placement::options;
use crate::runner::{Campaign, no_obstacle};
use check::{Anomalies, End, G2, G2_ITEM, History, Observed, check};
use session::{Client, Workload, lists};

/// Rounds of a case.
const ROUNDS: u64 = 4;
const SESSIONS: u64 = 4;
/// Transactions that a session tries in a round.
const TRANSACTIONS: usize = 150;

pub fn campaign() -> Campaign {
    Campaign {
        name: "histories",
        about: "concurrent transactions show no anomaly that their level forbids, crashes included",
        goal: ("transactions", 1_000_000),
        parallel: true,
        obstacle: no_obstacle,
        case,
    }
}

/// Isolation levels that sessions offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Snapshot,
    Serializable,
}

impl Level {
    fn sql(self) -> &'static str {
        match self {
            Level::Snapshot => "SNAPSHOT",
            Level::Serializable => "SERIALIZABLE",
        }
    }

    /// What of a history the level forbids.
    fn forbids(self, name: &str) -> bool {
        self == Level::Serializable || !(name == G2 || name == G2_ITEM)
    }
}

fn case(number: u64, _: &Path) -> Result<Counts> {
    let mut numbers = Numbers::new(number);
    let mut env = SimEnv::new(number);
    let mut counts = Counts::new();
    let engine = open(&env)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(session::create_tables(&engine)).map_err(|error| anyhow!(error.report()))?;
    engine.close().map_err(|error| anyhow!(error.report()))?;
    for round in 0..ROUNDS {
        let level = if numbers.chance(50) { Level::Snapshot } else { Level::Serializable };
        let crashes = numbers.chance(50);
        let workload = Workload { seed: numbers.next(), round, level: level.sql(), transactions: TRANSACTIONS };
        let (transactions, after) = play(&env, &workload, crashes.then(|| 200 + numbers.next() % 4_000), &mut numbers)?;
        env = after;
        let engine = open(&env).context("reopening after a round")?;
        let lists = runtime.block_on(lists(&engine, round)).map_err(|error| anyhow!(error.report()))?;
        engine.close().map_err(|error| anyhow!(error.report()))?;
        let history = History { transactions, lists };
        let found = check(&history);
        add(&mut counts, &history, &found, crashes);
        if let Some((name, example)) = found.iter().find(|(name, _)| level.forbids(name)) {
            bail!("{name} at {level:?} in round {round} of seed {number}: {example}\n{}", excerpt(&history, example));
        }
    }
    Ok(counts)
}

fn open(env: &SimEnv) -> Result<Engine> {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    Engine::open_with_env(env, Path::new("db"), options(1)).map_err(|error| anyhow!(error.report()))
}

/// One round. The machine dies `crash` operations later, if asked for. Returns what was seen, and the machine after it.
fn play(
    env: &SimEnv,
    workload: &Workload,
    crash: Option<u64>,
    numbers: &mut Numbers,
) -> Result<(Vec<Observed>, SimEnv)> {
    let engine = open(env)?;
    if let Some(operations) = crash {
        env.crash_at(env.ops() + operations);
    }
    let clock = AtomicU64::new(1);
    let mut observed = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let client = Client::new(&engine, env, &clock, workload, number);
                scope.spawn(move || client.run())
            })
            .collect();
        for thread in threads {
            observed.extend(thread.join().map_err(|_| anyhow!("a session panics"))??);
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let closed = engine.close();
    if env.crashed() {
        let loss = match numbers.below(3) {
            0 => PowerLoss::DropUnsynced,
            1 => PowerLoss::KeepAll,
            _ => PowerLoss::Random(numbers.next()),
        };
        return Ok((observed, env.reboot(loss)));
    }
    closed.map_err(|error| anyhow!(error.report()))?;
    // Without a crash it reboots all the same: what is on the disk is what counts.
    Ok((observed, env.reboot(PowerLoss::DropUnsynced)))
}

fn add(counts: &mut Counts, history: &History, found: &Anomalies, crashes: bool) {
    let mut add = |name, count| *counts.entry(name).or_default() += count;
    let ended = |wanted: fn(&End) -> bool| history.transactions.iter().filter(|t| wanted(&t.end)).count() as u64;
    add("transactions", ended(|end| *end != End::Aborted));
    add("aborted", ended(|end| *end == End::Aborted));
    add("in_doubt", ended(|end| *end == End::Unknown));
    add("crashes", u64::from(crashes));
    add("rounds", 1);
    add("rounds_with_write_skew", u64::from(found.contains_key(G2) || found.contains_key(G2_ITEM)));
}

/// The transactions that an example names.
fn excerpt(history: &History, example: &str) -> String {
    let numbers = example.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| word.strip_prefix('T'));
    let named: BTreeMap<usize, ()> = numbers.filter_map(|number| number.parse().ok().map(|at| (at, ()))).collect();
    let lines = named.keys().filter_map(|at| history.transactions.get(*at).map(|t| format!("T{at}: {t:?}\n")));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some thousand transactions; snapshot isolation must show the skew it allows, or the workload proves nothing.
    #[test]
    fn short_histories_are_sound_and_skewed() {
        let sum = case(0, Path::new("")).unwrap();
        assert!(sum["transactions"] > 1_000 && sum["crashes"] > 0 && sum["rounds_with_write_skew"] > 0, "{sum:?}");
    }
}
