//! Benchmarks of Strata against its peers, and long tests that need a process of their own.
//!
//! * `tpch_vs_datafusion`: the 22 TPC-H queries over segments against plain DataFusion over Parquet files;
//! * `crash_loop`: kill -9 at random while loading and updating, reopen, compare with a model.
//!
//! Each writes its numbers to `benches/results/`, together with the machine, the commit and the command
//! ([`provenance`]), because a number without them says nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use strata_cli::files;
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;

/// Machine, commit, command and time of this run.
#[must_use]
pub fn provenance() -> Value {
    let text = |path: &str| files::read_text(Path::new(path)).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "processor": field(&text("/proc/cpuinfo"), "model name"),
        "cores": cores,
        "memory": field(&text("/proc/meminfo"), "MemTotal"),
        "kernel": text("/proc/sys/kernel/osrelease").trim(),
        "commit": git(&["rev-parse", "HEAD"]),
        "changed_files": git(&["status", "--porcelain"]).map(|status| status.lines().count()),
        "command": std::env::args().skip(1).map(without_folder).collect::<Vec<_>>().join(" "),
        "unix_seconds": OsEnv::new().wall_clock().as_secs(),
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
    })
}

/// An absolute path says more about the machine than about the run: its last part is enough.
fn without_folder(argument: String) -> String {
    match Path::new(&argument).file_name() {
        Some(name) if argument.starts_with('/') => name.to_string_lossy().into_owned(),
        _ => argument,
    }
}

/// The middle value; of an even number, the mean of the two in the middle.
///
/// # Panics
/// If there are no values.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// The geometric mean of positive values.
#[must_use]
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.max(1e-9).ln()).sum::<f64>() / values.len().max(1) as f64).exp()
}

/// Three digits behind the point: finer than times repeat.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
