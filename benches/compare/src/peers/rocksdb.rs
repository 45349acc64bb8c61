//! RocksDB, through its own `db_bench`: nobody knows better how it wants to be called.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Peer, Setup};
use crate::data::{KEY_BYTES, VALUE_BYTES};

pub struct RocksDb {
    setup: Setup,
    loaded: bool,
}

impl RocksDb {
    pub fn new(setup: Setup) -> RocksDb {
        RocksDb { setup, loaded: false }
    }

    fn bench(&self, folder: &str, arguments: &[String]) -> Result<f64> {
        let output = Command::new("db_bench")
            .arg(format!("--db={}", self.setup.dir.join(folder).display()))
            .args([
                format!("--key_size={KEY_BYTES}"),
                format!("--value_size={VALUE_BYTES}"),
                "--compression_type=lz4".to_owned(),
                "--compression_ratio=0.5".to_owned(),
                "--cache_size=536870912".to_owned(),
                "--bloom_bits=10".to_owned(),
                format!("--num={}", self.setup.rows),
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

    /// The benchmark over the loaded database, of which every block was read once before the time counts.
    fn read(&mut self, arguments: &[String]) -> Result<f64> {
        self.load()?;
        let common = ["--use_existing_db=1".to_owned(), format!("--duration={}", self.setup.seconds)];
        self.bench("loaded", &[arguments, &common].concat())
    }

    fn load(&mut self) -> Result<()> {
        if !self.loaded {
            self.setup.fresh("loaded")?;
            self.bench("loaded", &["--benchmarks=fillseq,compact".to_owned()]).map(drop).or_else(|error| {
                // `compact` prints no rate of its own in every version.
                if error.to_string().contains("no rate") { Ok(()) } else { Err(error) }
            })?;
            self.loaded = true;
        }
        Ok(())
    }
}

impl Peer for RocksDb {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn installed(&self) -> bool {
        Command::new("db_bench").arg("--help").output().is_ok()
    }

    fn commits(&mut self, clients: usize, durable: bool) -> Result<f64> {
        self.setup.fresh("commits")?;
        self.bench(
            "commits",
            &[
                "--benchmarks=fillrandom".to_owned(),
                format!("--duration={}", self.setup.seconds),
                format!("--sync={}", u8::from(durable)),
                format!("--threads={clients}"),
            ],
        )
    }

    fn point_reads(&mut self) -> Result<f64> {
        self.read(&["--benchmarks=readseq,readrandom".to_owned()])
    }

    fn scans(&mut self) -> Result<f64> {
        self.read(&["--benchmarks=readseq,seekrandom".to_owned(), "--seek_nexts=10".to_owned()])
    }
}
