//! The row store beside other engines: the same work, in turns, in one run.
//!
//! ```text
//! chrt -f 10 cargo run --release --manifest-path benches/compare/Cargo.toml -- rows
//! ```
//!
//! Every piece of work runs `--rounds` times on every engine, the engines taking turns, and the median counts: a ratio
//! says something on a noisy machine, a number does not. Keys have 16 bytes, values 100, as in LevelDB's `db_bench`. An
//! engine that is not installed is named as left out. RocksDB runs as `db_bench` (Debian `rocksdb-tools`), PostgreSQL is
//! not compared yet. Without real-time priority durable figures measure the scheduler.

#![expect(clippy::disallowed_methods, reason = "the other engines know nothing of our environment")]

mod data;
mod peers;
mod report;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use peers::{Peer, Work};
use report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Commits, inserts and reads of single rows
    Rows(Rows),
}

#[derive(clap::Args)]
struct Rows {
    /// Only work or engines whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Rounds per piece of work
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per piece of work and round
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rows loaded before reads
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Where databases are made, on the disk to be measured
    #[arg(long, default_value = "target/compare")]
    dir: PathBuf,
    /// Where the figures go, besides the table
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let What::Rows(rows) = Arguments::parse().what;
    let wanted = |name: &str| {
        let (works, engines): (Vec<_>, Vec<_>) =
            rows.only.iter().partition(|only| Work::ALL.iter().any(|work| work.name().contains(only.as_str())));
        let list = if Work::ALL.iter().any(|work| work.name() == name) { works } else { engines };
        list.is_empty() || list.iter().any(|only| name.contains(only.as_str())) || name == "strata"
    };
    let (mut engines, mut missing): (Vec<Box<dyn Peer>>, Vec<&str>) = (Vec::new(), Vec::new());
    for peer in peers::all(&rows.dir, rows.rows, rows.seconds) {
        if !wanted(peer.name()) {
            continue;
        }
        if peer.installed() { engines.push(peer) } else { missing.push(peer.name()) }
    }
    let mut report = Report::new(missing);
    for work in Work::ALL.into_iter().filter(|work| wanted(work.name())) {
        for round in 0..rows.rounds {
            for nth in 0..engines.len() {
                // Nobody is always first.
                let at = (nth + round) % engines.len();
                let rate = engines[at].run(work)?;
                report.add(work, engines[at].name(), rate);
            }
        }
        report.print_line(work);
    }
    report.finish(rows.json.as_deref())
}
