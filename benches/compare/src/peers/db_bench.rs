//! RocksDB through its own `db_bench`: nobody knows better how it wants to be called.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Peer, Store, Tuning};
use crate::data::{KEY_BYTES, VALUE_BYTES};
use crate::works::{Place, Work};

pub struct DbBench;

fn bench(dir: &Path, rows: u64, seconds: u64, arguments: &[&str]) -> Result<f64> {
    let output = Command::new("db_bench")
        .arg(format!("--db={}", dir.display()))
        .args([
            format!("--key_size={KEY_BYTES}"),
            format!("--value_size={VALUE_BYTES}"),
            "--compression_type=lz4".to_owned(),
            "--compression_ratio=0.5".to_owned(),
            format!("--cache_size={}", Tuning::default().cache_bytes),
            "--bloom_bits=10".to_owned(),
            format!("--num={rows}"),
            format!("--duration={seconds}"),
        ])
        .args(arguments)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "db_bench: {text}{}", String::from_utf8_lossy(&output.stderr));
    // `fillrandom   :     217.905 micros/op 4589 ops/sec ...`
    let line = text.lines().rev().find(|line| line.contains("ops/sec")).context("db_bench printed no rate")?;
    let before = line.split("ops/sec").next().unwrap_or_default();
    let rate = before.split_whitespace().last().context("a rate")?;
    Ok(rate.parse()?)
}

impl Peer for DbBench {
    fn name(&self) -> &'static str {
        "db_bench"
    }

    fn missing(&self) -> Option<String> {
        let failed = Command::new("db_bench").arg("--version").output().is_err();
        failed.then(|| "no db_bench (Debian: rocksdb-tools)".to_owned())
    }

    fn does(&self, work: Work) -> bool {
        matches!(
            work,
            Work::DurableCommits(_) | Work::Inserts | Work::PointReads(Place::Cached) | Work::Scans | Work::Load
        )
    }

    fn open(&self, _: &Path, _: Tuning) -> Result<Box<dyn Store>> {
        bail!("db_bench opens its database itself")
    }

    fn own_rate(&self, work: Work, dir: &Path, rows: u64, seconds: u64) -> Result<Option<f64>> {
        let existing = "--use_existing_db=1";
        let rate = match work {
            // `compact` prints no rate of its own in every version.
            Work::Load => bench(dir, rows, 0, &["--benchmarks=fillseq,compact"]).or(Ok(f64::NAN)),
            Work::DurableCommits(clients) => {
                let threads = format!("--threads={clients}");
                bench(dir, rows, seconds, &["--benchmarks=fillrandom", "--sync=1", &threads])
            }
            Work::Inserts => bench(dir, rows, seconds, &["--benchmarks=fillrandom"]),
            // Every block was read once before the time counts.
            Work::PointReads(_) => bench(dir, rows, seconds, &["--benchmarks=readseq,readrandom", existing]),
            Work::Scans => bench(dir, rows, seconds, &["--benchmarks=readseq,seekrandom", "--seek_nexts=10", existing]),
            _ => return Ok(None),
        };
        rate.map(Some)
    }
}
