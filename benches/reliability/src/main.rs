//! The reliability campaigns: one command each, with its seeds, stopped and resumed at will.
//!
//! ```text
//! cargo run --release -p strata-reliability -- power-loss [--count N | --minutes M] [--seed S]
//! ```
//!
//! A campaign is a row of numbered cases, and a case follows from its number alone. Without `--seed` a campaign goes on
//! behind the last case on record; with it, a case that failed is run again. Counts, the numbers of the cases, the commit
//! they ran on and every violation accumulate in `benches/results/reliability.json` ([`ledger`]), written every few
//! seconds, so that Ctrl-C loses no more than that.
//!
//! What a campaign checks is in the row store's test harness, whose quick versions run with `cargo test`; here it is
//! repeated. Campaigns that need a process, a file system or the column store of their own are in [`process`] and
//! `byte_flips`.

#[path = "../../../oltp/tests/harness/mod.rs"]
mod harness;

#[cfg(feature = "columns")]
mod byte_flips;
mod ledger;
mod process;
mod runner;
mod simulated;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use ledger::Ledger;
use runner::{Campaign, Limits};

#[derive(Parser)]
#[command(about = "Runs a reliability campaign and adds to its record")]
struct Args {
    /// One of the campaigns; `list` names them
    campaign: String,
    /// Cases to run; until the campaign's goal if neither this nor --minutes is given
    #[arg(long)]
    count: Option<u64>,
    /// Time to run for
    #[arg(long)]
    minutes: Option<f64>,
    /// First case; behind the last one on record if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Cases run at the same time, for campaigns in the simulated machine
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Where the counts accumulate
    #[arg(long, default_value = "benches/results/reliability.json")]
    out: PathBuf,
    /// Where databases and file systems of campaigns on real files lie
    #[arg(long, default_value = "target/reliability")]
    scratch: PathBuf,
    /// Be the process that is killed, over the database in this folder
    #[arg(long, hide = true)]
    writer: Option<PathBuf>,
}

fn campaigns() -> Vec<Campaign> {
    let mut all = simulated::campaigns();
    all.extend(process::campaigns());
    #[cfg(feature = "columns")]
    all.push(byte_flips::campaign());
    all
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no violation was found.
fn run(args: &Args) -> Result<bool> {
    if let Some(dir) = &args.writer {
        writer::run(dir, args.seed.unwrap_or(0))?;
        return Ok(true);
    }
    if args.campaign == "list" {
        for campaign in campaigns() {
            println!("{:<16} {}", campaign.name, campaign.about);
        }
        return Ok(true);
    }
    let Some(campaign) = campaigns().into_iter().find(|campaign| campaign.name == args.campaign) else {
        bail!("no campaign is called {}; `list` names them", args.campaign);
    };
    if let Some(reason) = (campaign.obstacle)() {
        println!("skipped: {} {reason}", campaign.name);
        return Ok(true);
    }
    if campaign.name == process::EXT4_POWER && !process::has_private_mounts() {
        return process::again_with_private_mounts();
    }
    let mut ledger = Ledger::open(&args.out)?;
    let limits = Limits {
        first: args.seed,
        count: args.count,
        minutes: args.minutes,
        threads: args.threads.max(1),
        scratch: args.scratch.clone(),
    };
    runner::run(&campaign, &limits, &mut ledger)
}
