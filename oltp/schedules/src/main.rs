//! The long campaign: plays all scenarios under a scheduler for as many schedules as asked for, and goes on from there the
//! next time.
//!
//! ```text
//! cargo run --release -p strata-schedules -- --schedules 1000000        until that many were played in all
//! cargo run --release -p strata-schedules -- --only flush --seconds 60  one scenario, for a minute
//! cargo run --release -p strata-schedules -- --only flush --picker pct3 --seed 17   one batch again
//! ```
//!
//! Each batch of schedules has a seed, drawn in order; counts and seeds accumulate in `benches/results/schedules.json`,
//! with the commit they ran on. A failure is printed with what plays it again, and noted too.
#![expect(clippy::disallowed_methods, reason = "keeps results, not a database")]

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};
use strata_schedules::scenarios::campaign::{Failure, PICKERS, Picker, play};
use strata_schedules::scenarios::{SCENARIOS, Scenario};

/// Schedules of one seed.
const BATCH: usize = 250;
/// Batches between two notes of how far it got.
const BATCHES_PER_NOTE: u64 = 100;

struct Args {
    schedules: u64,
    seconds: u64,
    threads: usize,
    only: Option<String>,
    picker: Option<String>,
    seed: Option<u64>,
    out: String,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let scenarios = SCENARIOS.iter().filter(|scenario| args.only.as_ref().is_none_or(|only| *only == scenario.name));
    let scenarios: Vec<&Scenario> = scenarios.collect();
    match args.seed {
        Some(seed) => again(&scenarios, &args, seed),
        None => campaign(&scenarios, &args),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let out = "benches/results/schedules.json".to_owned();
    let (schedules, seconds) = (u64::MAX, u64::MAX);
    let mut args = Args { schedules, seconds, threads: 1, only: None, picker: None, seed: None, out };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{word} needs a number"));
        match word.as_str() {
            "--schedules" => args.schedules = number()?,
            "--seconds" => args.seconds = number()?,
            "--seed" => args.seed = Some(number()?),
            "--threads" => args.threads = number()?.max(1) as usize,
            "--only" => args.only = Some(value),
            "--picker" => args.picker = Some(value),
            "--out" => args.out = value,
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if args.schedules == u64::MAX && args.seconds == u64::MAX && args.seed.is_none() {
        args.schedules = 1_000_000;
    }
    Ok(args)
}

/// Plays one seed's batch.
fn again(scenarios: &[&Scenario], args: &Args, seed: u64) -> ExitCode {
    let wanted = |picker: &&Picker| args.picker.as_ref().is_none_or(|name| *name == picker.to_string());
    for scenario in scenarios {
        for picker in PICKERS.iter().filter(wanted) {
            if let Err(failure) = play(scenario, *picker, seed, BATCH) {
                println!("FAILED {failure}");
                return ExitCode::FAILURE;
            }
            println!("{} {picker} seed {seed}: {BATCH} schedules", scenario.name);
        }
    }
    ExitCode::SUCCESS
}

/// What this run has played, by scenario.
struct Progress {
    runs: Vec<Value>,
    counts: Map<String, Value>,
    first_batch: u64,
    failures: Vec<Failure>,
}

fn campaign(scenarios: &[&Scenario], args: &Args) -> ExitCode {
    let runs = std::fs::read_to_string(&args.out).ok().and_then(|text| serde_json::from_str(&text).ok());
    let runs: Vec<Value> = runs.unwrap_or_default();
    let sum = |field: &str| runs.iter().filter_map(|run| run[field].as_u64()).sum::<u64>();
    let before = sum("schedules");
    let first_batch = runs.iter().filter_map(|run| run["next_seed"].as_u64()).max().unwrap_or(1);
    println!("{before} schedules so far; going on with seed {first_batch}");
    let progress = Progress { runs, counts: Map::new(), first_batch, failures: Vec::new() };
    let (progress, next, begun) = (Mutex::new(progress), AtomicU64::new(first_batch), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    let played = (batch - first_batch) * BATCH as u64;
                    let full = before.saturating_add(played) >= args.schedules;
                    if full || begun.elapsed().as_secs() >= args.seconds {
                        next.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                    let scenario = scenarios[(batch % scenarios.len() as u64) as usize];
                    let picker = PICKERS[(batch / scenarios.len() as u64 % PICKERS.len() as u64) as usize];
                    let outcome = play(scenario, picker, batch, BATCH);
                    let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    progress.note(scenario, picker, outcome);
                    if batch.is_multiple_of(BATCHES_PER_NOTE) {
                        progress.save(args, batch + 1, begun);
                    }
                }
            });
        }
    });
    let progress = progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    progress.save(args, next.load(Ordering::Relaxed), begun);
    if progress.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Progress {
    fn note(&mut self, scenario: &Scenario, picker: Picker, outcome: Result<(), Failure>) {
        let played = match outcome {
            Ok(()) => BATCH as u64,
            Err(failure) => {
                println!("FAILED {failure}");
                let schedule = failure.schedule;
                self.failures.push(failure);
                schedule
            }
        };
        let counts = self.counts.entry(scenario.name).or_insert_with(|| json!({}));
        let picker = picker.to_string();
        counts[&picker] = json!(counts[&picker].as_u64().unwrap_or(0) + played);
    }

    /// Writes all runs, this one last.
    fn save(&self, args: &Args, next_seed: u64, begun: Instant) {
        let by_picker = self.counts.values().filter_map(Value::as_object).flat_map(|counts| counts.values());
        let schedules: u64 = by_picker.filter_map(Value::as_u64).sum();
        let git = |arguments: &[&str]| {
            let output = Command::new("git").args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
        };
        let run = json!({
            "commit": git(&["rev-parse", "HEAD"]),
            "changed_files": git(&["status", "--porcelain", "--", "oltp"]).map(|status| status.lines().count()),
            "first_seed": self.first_batch,
            "next_seed": next_seed,
            "batch": BATCH,
            "schedules": schedules,
            "seconds": begun.elapsed().as_secs(),
            "by_scenario": self.counts,
            "failures": self.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        let all: Vec<&Value> = self.runs.iter().chain([&run]).collect();
        let total: u64 = all.iter().filter_map(|run| run["schedules"].as_u64()).sum();
        println!("{total} schedules, {schedules} of them now, {} failures", self.failures.len());
        let text = serde_json::to_string_pretty(&all).unwrap_or_default() + "\n";
        if let Err(error) = std::fs::write(&args.out, text) {
            eprintln!("cannot write {}: {error}", args.out);
        }
    }
}
