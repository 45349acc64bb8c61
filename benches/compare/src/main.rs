//! Strata beside other engines: the same work, in turns, in one run. What each figure means: README.md.
//!
//! ```text
//! chrt -f 10 cargo run --release --manifest-path benches/compare/Cargo.toml -- rows --json rows.json
//! chrt -f 10 cargo run --release --manifest-path benches/compare/Cargo.toml -- statements --json statements.json
//! ```
//!
//! Every piece of work runs `--rounds` times on every engine, the engines taking turns, each time in a process of its own
//! on a disk at rest, and the median counts: a ratio says something on a noisy machine, a number does not. An engine
//! that is not installed is named as left out.

#![expect(clippy::disallowed_methods, reason = "the other engines know nothing of our environment")]

mod data;
mod machine;
mod memory;
mod overwrite;
mod peers;
mod report;
mod statements;
mod values;
mod works;
mod ycsb;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use peers::Peer;
use report::Report;
use works::{Again, Figure, Size, Unit, Work};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Everything a row store is asked to do, on every engine that is installed
    Rows(Rows),
    /// Strata alone: much data and a mixed load under a small memory budget
    Memory(memory::Memory),
    /// Strata alone: large rows replaced at random, with and without value files
    Values(values::Values),
    /// Small SQL statements, beside SQLite
    Statements(statements::Statements),
    /// One piece of work on one engine, once; `rows` calls this
    #[command(hide = true)]
    One(One),
    /// The same for `statements`
    #[command(hide = true)]
    OneStatement(statements::OneStatement),
}

#[derive(clap::Args)]
struct Rows {
    /// Only work or engines whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Rounds per piece of work
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    #[command(flatten)]
    size: Size,
    /// Where databases are made, on the disk to be measured
    #[arg(long, default_value = "target/compare")]
    dir: PathBuf,
    /// Where the figures go, besides the table
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct One {
    #[arg(long)]
    peer: String,
    #[arg(long)]
    work: String,
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    size: Size,
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Rows(rows) => compare(&rows),
        What::Memory(memory) => memory::run(&memory),
        What::Values(values) => values::run(&values),
        What::Statements(what) => statements::compare(&what),
        What::One(one) => run_one(&one),
        What::OneStatement(one) => statements::run_one(&one),
    }
}

fn compare(rows: &Rows) -> Result<()> {
    let engine_names: Vec<&str> = peers::all().iter().map(|peer| peer.name()).collect();
    let (engines_only, works_only): (Vec<&String>, Vec<&String>) =
        rows.only.iter().partition(|only| engine_names.iter().any(|name| name.contains(only.as_str())));
    let wanted = |list: &[&String], name: &str| list.is_empty() || list.iter().any(|only| name.contains(only.as_str()));
    let wanted_engine = |peer: &dyn Peer| wanted(&engines_only, peer.name()) || peer.name() == "strata";
    let (mut engines, mut left_out) = (Vec::new(), Vec::new());
    for peer in peers::all().into_iter().filter(|peer| wanted_engine(peer.as_ref())) {
        match peer.missing() {
            None => engines.push(peer),
            Some(reason) => left_out.push((peer.name(), reason)),
        }
    }
    let works: Vec<Work> = Work::all().into_iter().filter(|work| wanted(&works_only, &work.name())).collect();
    ensure!(!works.is_empty(), "no work is called {:?}; there are {:?}", rows.only, names());
    if works.iter().any(|work| work.is_durable()) && !machine::is_real_time() {
        eprintln!("warning: not under `chrt -f 10`, so durable figures measure the scheduler");
    }
    let mut report = Report::new(left_out);
    let mut prepared = BTreeSet::new();
    for work in works {
        for round in 0..rows.rounds {
            let mut turn: Vec<&dyn Peer> = engines.iter().map(AsRef::as_ref).filter(|peer| peer.does(work)).collect();
            // Nobody is always first, nobody always behind the same one.
            let by = round as usize % turn.len();
            turn.rotate_left(by);
            if round % 2 == 1 {
                turn.reverse();
            }
            for peer in turn {
                prepare(rows, peer, work, &mut prepared)?;
                for figure in in_process(rows, peer, work, round)? {
                    report.add(&work.name(), peer.name(), &figure);
                }
            }
        }
        report.print_new();
        // After each, so that a run that is stopped keeps what it has.
        if let Some(path) = &rows.json {
            report.write(path)?;
        }
    }
    report.print_left_out();
    Ok(())
}

fn prepare(rows: &Rows, peer: &dyn Peer, work: Work, done: &mut BTreeSet<(String, String)>) -> Result<()> {
    let Some((before, again)) = work.needs() else { return Ok(()) };
    if again == Again::EachRound || done.insert((peer.name().to_owned(), before.name())) {
        in_process(rows, peer, before, 0)?;
    }
    Ok(())
}

/// Does `work` once in a process of its own, so that no engine inherits memory, threads or counters from another.
fn in_process(rows: &Rows, peer: &dyn Peer, work: Work, round: u64) -> Result<Vec<Figure>> {
    let dir = rows.dir.join(peer.name()).join(work.folder());
    if work.starts_fresh() {
        empty(&dir)?;
    }
    machine::wait_for_disk()?;
    let program = std::env::current_exe()?;
    // Latencies of what is not synced are about processor time, of which a real-time process leaves the others none.
    let mut command = if work == Work::Overwrite && machine::is_real_time() {
        let mut command = Command::new("chrt");
        command.args(["-o", "0"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let size = &rows.size;
    command.args(["one", "--peer", peer.name(), "--work", &work.name()]).arg("--dir").arg(&dir);
    for (flag, value) in [
        ("--seconds", size.seconds),
        ("--rows", size.rows),
        ("--ycsb-rows", size.ycsb_rows),
        ("--ycsb-threads", size.ycsb_threads as u64),
        ("--overwrite-seconds", size.overwrite_seconds),
        ("--log-rows", size.log_rows),
        ("--round", round),
    ] {
        command.args([flag, &value.to_string()]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    let killed_itself = work == Work::WriteLog && output.status.signal() == Some(9);
    ensure!(output.status.success() || killed_itself, "{} failed at {}: {}", peer.name(), work.name(), output.status);
    let text = String::from_utf8(output.stdout)?;
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(|line| parse(&line)).collect()
}

fn run_one(one: &One) -> Result<()> {
    let peer = peers::all().into_iter().find(|peer| peer.name() == one.peer).context("no such engine")?;
    let work = Work::named(&one.work).context("no such work")?;
    for figure in works::run(peer.as_ref(), work, &one.dir, &one.size)? {
        println!("{}", json!({"what": figure.what, "unit": figure.unit.name, "value": figure.value}));
    }
    Ok(())
}

fn parse(line: &Value) -> Result<Figure> {
    let unit = line["unit"].as_str().and_then(Unit::named).context("a unit")?;
    // Few, and kept to the end anyway.
    let what = line["what"].as_str().context("a name")?.to_owned().leak();
    // A figure that is no number, such as a rate of nothing.
    Ok(Figure::new(what, unit, line["value"].as_f64().unwrap_or(f64::NAN)))
}

/// Makes `dir` an empty folder.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}

fn names() -> Vec<String> {
    Work::all().into_iter().map(Work::name).collect()
}
