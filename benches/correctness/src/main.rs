//! The correctness harness: SQL answers judged from outside, by more cases than a test has time for.
//!
//! ```text
//! cargo run --release -p strata-correctness -- corpus --dir DIR [--placement P] [--sample N --seed S]
//! cargo run --release -p strata-correctness -- differential [--count N | --minutes M] [--seed S]
//! cargo run --release -p strata-correctness -- histories [--count N | --minutes M] [--seed S]
//! cargo run --release -p strata-correctness -- anomalies
//! ```
//!
//! [`corpus`] runs SQLite's public sqllogictest corpus, [`differential`] random scripts beside SQLite, [`histories`]
//! concurrent transactions whose history is searched for forbidden dependencies, [`anomalies`] the anomalies by their
//! published names. The second and third are campaigns like those of `benches/reliability`: numbered cases, each made of
//! its number alone, whose counts and violations accumulate in `benches/results/correctness.json`. The corpus has a
//! record of its own, by file. All of them may be stopped at any time and go on where they were.

mod anomalies;
mod corpus;
mod differential;
mod histories;
#[path = "../../reliability/src/ledger.rs"]
mod ledger;
mod numbers;
mod placement;
#[path = "../../reliability/src/runner.rs"]
mod runner;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use ledger::Ledger;
use runner::{Campaign, Limits};

// The binary's, because planning millions of statements is mostly allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Checks SQL answers and isolation from outside")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// SQLite's sqllogictest corpus, in one placement of the rows
    Corpus(corpus::Arguments),
    /// Random scripts, run by Strata and by SQLite
    Differential(CampaignArguments),
    /// Random concurrent transactions, whose history is checked
    Histories(CampaignArguments),
    /// Hermitage's anomalies at every isolation level, in every placement
    Anomalies,
}

#[derive(Args)]
struct CampaignArguments {
    /// Cases to run; until the campaign's goal if neither this nor --minutes is given
    #[arg(long)]
    count: Option<u64>,
    /// Time to run for
    #[arg(long)]
    minutes: Option<f64>,
    /// First case; behind the last one on record if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Cases run at the same time
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Where the counts accumulate
    #[arg(long, default_value = "benches/results/correctness.json")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing wrong was found.
fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Corpus(arguments) => corpus::run(arguments),
        Command::Differential(arguments) => campaign(&differential::campaign(), arguments),
        Command::Histories(arguments) => campaign(&histories::campaign(), arguments),
        Command::Anomalies => anomalies::run(),
    }
}

fn campaign(campaign: &Campaign, arguments: &CampaignArguments) -> Result<bool> {
    println!("{}: {}", campaign.name, campaign.about);
    if let Some(reason) = (campaign.obstacle)() {
        println!("skipped: {} {reason}", campaign.name);
        return Ok(true);
    }
    let mut ledger = Ledger::open(&arguments.out)?;
    let limits = Limits {
        first: arguments.seed,
        count: arguments.count,
        minutes: arguments.minutes,
        threads: arguments.threads.max(1),
        scratch: PathBuf::new(),
    };
    runner::run(campaign, &limits, &mut ledger)
}
