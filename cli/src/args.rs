//! What can be typed after `strata`, and what happens then.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::backup::{self, BackupCommand};
use crate::directory;
use crate::output::Format;
use crate::progress::note;
use crate::shell::{self, ShellOptions, error_text};
use crate::tools;
use crate::tpch::{self, Placement, TpchOptions, queries};

/// One database for rows and columns.
#[derive(Debug, Parser)]
#[command(name = "strata", version, about, max_term_width = 110)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Memory for row store, caches and queries together, such as 512MiB or 4GiB
    #[arg(long, global = true, default_value = "4GiB", value_parser = parse_bytes)]
    memory: u64,
    /// Log to standard error: error, warn, info, debug, or per module
    #[arg(long, global = true, default_value = "error")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load TPC-H, run its 22 queries and check every answer
    Tpch(TpchArgs),
    /// Run SQL: statements, a script, or a prompt
    Sql(SqlArgs),
    /// Write any file of a database, or an overview of its folder, as text; works on damaged files
    Inspect {
        /// A file or a database
        path: PathBuf,
        /// Do not cut long lists and long keys
        #[arg(long)]
        all: bool,
    },
    /// Check everything about a closed database and list every fault; changes nothing
    Verify {
        /// The database
        dir: PathBuf,
        /// Open it then, and compare every index with its table
        #[arg(long)]
        indexes: bool,
    },
    /// Bring what can be read of a damaged database into a new folder, and report every loss; exit code 1 if there is one
    Repair {
        /// The damaged database, which is only read
        dir: PathBuf,
        /// A folder that is empty or does not exist yet
        #[arg(long)]
        into: PathBuf,
        /// Take commits from behind a bad log record too, without what was between
        #[arg(long)]
        salvage_log: bool,
        /// Write the report to this file
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// The write-ahead log
    Wal {
        #[command(subcommand)]
        command: WalCommand,
    },
    /// Make a copy of a database that shares its immutable files
    Checkpoint {
        /// The database
        dir: PathBuf,
        /// A directory that does not exist yet
        dest: PathBuf,
    },
    /// Make, list, verify, prune and restore backups
    Backup {
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// Move all rows into segments, and rewrite segments with deletions
    Compact {
        /// The database
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum WalCommand {
    /// Print the commits in the log, also beside a running process
    Tail {
        /// The database
        dir: PathBuf,
        /// Wait for more
        #[arg(long)]
        follow: bool,
        /// One JSON object per commit
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct TpchArgs {
    /// Scale factor; 1 is 8.66 million rows
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    scale: f64,
    /// Where the database lies; a second run reuses its rows [default: ./strata-tpch-sf<SCALE>]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Which queries, such as 1,6 or 3-5
    #[arg(long, default_value = "1-22")]
    queries: String,
    /// How often each query runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the rows are when the queries run
    #[arg(long, value_enum, default_value = "segments")]
    placement: Placement,
    /// Write measurements to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Update every fifth order and delete every seventh, with their lines, before the queries run
    #[arg(long)]
    changes: bool,
    /// At scales without stored answers: do not load all three placements to compare them
    #[arg(long)]
    no_compare: bool,
}

#[derive(Debug, clap::Args)]
struct SqlArgs {
    /// The database; in memory if left out
    #[arg(long, conflicts_with = "url")]
    dir: Option<PathBuf>,
    /// A server to connect to
    #[arg(long)]
    url: Option<String>,
    /// Statements to run; may be repeated
    #[arg(short = 'c', long = "command")]
    commands: Vec<String>,
    /// A script to run; - is standard input
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Form of results
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Reads the command line, does what it says, and returns the exit code: 0, or 1 after an error or a wrong answer
/// (2 for a command line that makes no sense).
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(&error_text(&error));
            ExitCode::FAILURE
        }
    }
}

/// `false` means that the work was done and its result is bad.
fn run(args: Args) -> Result<bool> {
    start_log(&args.log)?;
    let memory = args.memory;
    match args.command {
        Command::Tpch(tpch) => tpch::run(&TpchOptions {
            scale: tpch.scale,
            dir: tpch.dir,
            queries: queries::parse_query_list(&tpch.queries)?,
            runs: tpch.runs,
            placement: tpch.placement,
            json: tpch.json,
            memory_bytes: memory,
            changes: tpch.changes,
            compare_placements: !tpch.no_compare,
        }),
        Command::Sql(sql) => {
            shell::refuse_url(sql.url.as_deref())?;
            let SqlArgs { dir, commands, file, format, .. } = sql;
            shell::run(&ShellOptions { dir, commands, file, format, memory_bytes: memory }).map(|()| true)
        }
        Command::Inspect { path, all } => tools::inspect(&path, all),
        Command::Verify { dir, indexes } => {
            Ok(tools::verify(&dir)? && (!indexes || directory::verify_indexes(&dir, memory)?))
        }
        Command::Repair { dir, into, salvage_log, json } => tools::repair(&dir, &into, salvage_log, json.as_deref()),
        Command::Wal { command: WalCommand::Tail { dir, follow, json } } => {
            tools::wal_tail(&dir, follow, json).map(|()| true)
        }
        Command::Checkpoint { dir, dest } => directory::checkpoint(&dir, &dest, memory).map(|()| true),
        Command::Backup { command } => backup::run(command, memory),
        Command::Compact { dir } => directory::compact(&dir, memory).map(|()| true),
    }
}

fn start_log(filter: &str) -> Result<()> {
    let filter = filter.parse::<tracing_subscriber::EnvFilter>().context("--log")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

/// `4GiB`, `512 MB`, `1000000`: binary and decimal units.
fn parse_bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().with_context(|| format!("'{text}' is not a number of bytes"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => anyhow::bail!("unknown unit '{}'; use KiB, MiB, GiB, kB, MB or GB", unit.trim()),
    };
    let bytes = number.checked_mul(factor).context("too many bytes")?;
    ensure!(bytes >= 64 << 20, "at least 64MiB are needed");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("4GiB").unwrap(), 4 << 30);
        assert_eq!(parse_bytes("100 MB").unwrap(), 100_000_000);
        for bad in ["", "x", "4 apples", "1KiB", "99999999999999GiB", "-1"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
