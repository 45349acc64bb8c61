//! SQLite's sqllogictest corpus: millions of queries with the answers that several engines agreed on.
//!
//! The corpus is not part of this repository. It comes from <https://www.sqlite.org/sqllogictest> (public domain, as
//! SQLite; a mirror is github.com/gregrahn/sqllogictest): `--dir` is its folder `test`. What is run and what is not is
//! said in [`play`] and in the list of [`exclusions`].
//!
//! Each file is played against a database of its own, in one placement of its rows. Files that are on record are not
//! played again, unless asked for. A sample plays files in an order made of its seed, all of their statements and one of
//! [`SAMPLE_ONE_IN`] queries, until it has run as many records as it should.

mod exclusions;
mod md5;
mod play;
mod record;
mod script;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;

use crate::numbers::Numbers;
use crate::placement::Placement;
use exclusions::Exclusions;
use play::{Failure, Manner, Played, play};
use record::FileRecord;

/// A sample runs one query of this many, so that it sees many files.
const SAMPLE_ONE_IN: usize = 10;
/// Deep expressions recurse.
const STACK_BYTES: usize = 64 << 20;

#[derive(Args)]
pub struct Arguments {
    /// The corpus: its folder `test`
    #[arg(long)]
    dir: PathBuf,
    /// Where rows lie
    #[arg(long, value_enum, default_value_t = Placement::Segments)]
    placement: Placement,
    /// Only files whose path contains this
    #[arg(long)]
    only: Option<String>,
    /// Run a sample of about this many records
    #[arg(long, requires = "seed")]
    sample: Option<u64>,
    /// What the sample is made of
    #[arg(long)]
    seed: Option<u64>,
    /// Which files on record are played again
    #[arg(long, value_enum, default_value_t = Again::None)]
    again: Again,
    /// Files played at the same time
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Begin no file after this time
    #[arg(long)]
    minutes: Option<f64>,
    /// Where the reasons of this run's failures are written, ranked, with examples
    #[arg(long)]
    failures: Option<PathBuf>,
    /// Where the counts accumulate
    #[arg(long, default_value = "benches/results/sqllogictest.json")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Again {
    None,
    /// Those with failures.
    Failed,
    All,
}

/// What the threads share.
struct Run<'a> {
    arguments: &'a Arguments,
    exclusions: Exclusions,
    column: String,
    clock: OsEnv,
    state: Mutex<State>,
}

struct State {
    files: Vec<String>,
    record: FileRecord,
    failures: BTreeMap<String, Failure>,
    run: u64,
    failed: u64,
}

/// Plays the files that are due. Whether nothing failed.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let exclusions = Exclusions::load().map_err(|error| anyhow!(error))?;
    let record = FileRecord::open(&arguments.out)?;
    let column = match arguments.seed.filter(|_| arguments.sample.is_some()) {
        Some(seed) => format!("{}, sample of seed {seed}", arguments.placement.name()),
        None => arguments.placement.name().to_owned(),
    };
    let files = due(arguments, &record, &column)?;
    println!("corpus: {} files to play, {}", files.len(), column);
    let state = State { files, record, failures: BTreeMap::new(), run: 0, failed: 0 };
    let run = Run { arguments, exclusions, column, clock: OsEnv::new(), state: Mutex::new(state) };
    std::thread::scope(|scope| {
        let threads: Result<Vec<_>> = (0..arguments.threads.max(1))
            .map(|_| {
                let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
                builder.spawn_scoped(scope, || run.work()).context("cannot start a thread")
            })
            .collect();
        let outcomes = threads?.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("panic"))));
        outcomes.collect::<Result<()>>()
    })?;
    let state = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    print_total(&run.column, &state.record.total(&run.column));
    if let Some(path) = &arguments.failures {
        write_failures(path, &state.failures)?;
    }
    Ok(state.failed == 0)
}

/// The files to play, the last first.
fn due(arguments: &Arguments, record: &FileRecord, column: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(&arguments.dir, &arguments.dir, &mut files)?;
    ensure!(!files.is_empty(), "no file *.test lies below {}", arguments.dir.display());
    files.sort_unstable();
    if let Some(seed) = arguments.seed {
        Numbers::new(seed).shuffle(&mut files);
    }
    files.reverse();
    files.retain(|file| arguments.only.as_ref().is_none_or(|only| file.contains(only)));
    files.retain(|file| match (record.failed(column, file), arguments.again) {
        (None, _) | (_, Again::All) => true,
        (Some(failed), Again::Failed) => failed > 0,
        (Some(_), Again::None) => false,
    });
    Ok(files)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the corpus is no database")]
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "test") {
            files.push(path.strip_prefix(root)?.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

impl Run<'_> {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next file, unless enough was done.
    fn next(&self) -> Option<String> {
        let minutes = self.clock.monotonic().as_secs_f64() / 60.0;
        if self.arguments.minutes.is_some_and(|limit| minutes >= limit) {
            return None;
        }
        let mut state = self.state();
        let total = || state.record.total(&self.column)["run"].as_u64().unwrap_or(0);
        if self.arguments.sample.is_some_and(|sample| total() >= sample) {
            return None;
        }
        state.files.pop()
    }

    fn work(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        while let Some(file) = self.next() {
            let started = self.clock.monotonic();
            let path = self.arguments.dir.join(&file);
            #[expect(clippy::disallowed_methods, reason = "the corpus is no database")]
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let sample = self.arguments.seed.filter(|_| self.arguments.sample.is_some());
            let manner = Manner {
                path: &file,
                placement: self.arguments.placement,
                exclusions: &self.exclusions,
                sample: sample.map(|seed| (SAMPLE_ONE_IN, Numbers::new(seed ^ bytes.len() as u64))),
            };
            let played = runtime.block_on(play(&String::from_utf8_lossy(&bytes), manner));
            let played = played.map_err(|error| anyhow!("{file}: {error}"))?;
            let seconds = (self.clock.monotonic() - started).as_secs_f64();
            self.note(&file, played, seconds)?;
        }
        Ok(())
    }

    fn note(&self, file: &str, played: Played, seconds: f64) -> Result<()> {
        let failed: u64 = played.failures.values().map(|failure| failure.count).sum();
        let mut state = self.state();
        state.record.note(&self.column, file, &played)?;
        state.run += played.passed + failed;
        state.failed += failed;
        println!("  {file}: {} passed, {failed} failed, {seconds:.1} s; {} run so far", played.passed, state.run);
        for (reason, failure) in played.failures {
            let known = state.failures.entry(reason).or_default();
            known.count += failure.count;
            known.examples.extend(failure.examples);
            known.examples.truncate(3);
        }
        Ok(())
    }
}

fn print_total(column: &str, total: &Value) {
    let count = |name: &str| total[name].as_u64().unwrap_or(0);
    let ours = count("records").saturating_sub(count("other_engines")).max(1);
    println!("{column}: {} files, {} records", count("files"), count("records"));
    println!("  marked for other engines {}, not in the sample {}", count("other_engines"), count("not_sampled"));
    println!("  excluded {} ({:.2} % of ours)", count("excluded"), count("excluded") as f64 * 100.0 / ours as f64);
    let share = count("passed") as f64 * 100.0 / count("run").max(1) as f64;
    println!("  run {}, passed {} ({share:.3} %), failed {}", count("run"), count("passed"), count("failed"));
    for group in ["excluded_by", "failed_by"] {
        let mut reasons: Vec<(&String, u64)> = total[group]
            .as_object()
            .map(|reasons| reasons.iter().map(|(name, count)| (name, count.as_u64().unwrap_or(0))).collect())
            .unwrap_or_default();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        println!("  {group}:");
        reasons.iter().take(40).for_each(|(name, count)| println!("    {count:>9}  {name}"));
    }
}

/// Wrong answers first, then by how often.
fn write_failures(path: &Path, failures: &BTreeMap<String, Failure>) -> Result<()> {
    let mut ranked: Vec<(&String, &Failure)> = failures.iter().collect();
    ranked.sort_by_key(|(reason, failure)| (!reason.starts_with("wrong"), std::cmp::Reverse(failure.count)));
    let mut text = String::new();
    for (reason, failure) in ranked {
        text.push_str(&format!("## {} × {reason}\n\n", failure.count));
        for example in &failure.examples {
            text.push_str(&format!("```\n{}\n```\n", example.trim_end()));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "a report is no file of a database")]
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
