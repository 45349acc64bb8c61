//! RocksDB, through its own `db_bench`: nobody knows better how it wants to be called.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Peer, Setup, Work};
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

    fn timed(&self, benchmark: &str) -> Vec<String> {
        vec![format!("--benchmarks={benchmark}"), format!("--duration={}", self.setup.seconds)]
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

    fn run(&mut self, work: Work) -> Result<Option<f64>> {
        let read = |what: &str, setup: &RocksDb| {
            let mut arguments = setup.timed(what);
            arguments.push("--use_existing_db=1".to_owned());
            // Before the time counts, every block is read once.
            arguments[0] = format!("--benchmarks=readseq,{what}");
            arguments
        };
        Ok(Some(match work {
            Work::DurableCommits(clients) => {
                self.setup.fresh("commits")?;
                let mut arguments = self.timed("fillrandom");
                arguments.extend(["--sync=1".to_owned(), format!("--threads={clients}")]);
                self.bench("commits", &arguments)?
            }
            Work::Inserts => {
                self.setup.fresh("commits")?;
                self.bench("commits", &self.timed("fillrandom"))?
            }
            Work::PointReads => {
                self.load()?;
                self.bench("loaded", &read("readrandom", self))?
            }
            Work::Scans => {
                self.load()?;
                let mut arguments = read("seekrandom", self);
                arguments.push("--seek_nexts=10".to_owned());
                self.bench("loaded", &arguments)?
            }
        }))
    }
}
