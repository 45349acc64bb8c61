//! The engines, and the work they do.

mod fjall;
mod redb;
mod rocksdb;
mod strata;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::data::Random;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Commits of one row each, acknowledged when durable, by so many clients.
    DurableCommits(usize),
    /// Commits of one row each in random order of keys, not synced, one thread. What such a commit survives differs:
    /// RocksDB and fjall hand each one to the operating system, so it survives the end of the process; Strata keeps it in
    /// memory for up to a tenth of a second, and redb until the next durable commit.
    Inserts,
    /// Reads of random rows that are there, everything in caches, one thread.
    PointReads,
    /// A seek to a random row and ten steps, one thread.
    Scans,
}

impl Work {
    pub const ALL: [Work; 6] = [
        Work::DurableCommits(1),
        Work::DurableCommits(8),
        Work::DurableCommits(64),
        Work::Inserts,
        Work::PointReads,
        Work::Scans,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Work::DurableCommits(1) => "durable commits, 1 client",
            Work::DurableCommits(8) => "durable commits, 8 clients",
            Work::DurableCommits(_) => "durable commits, 64 clients",
            Work::Inserts => "inserts, not durable",
            Work::PointReads => "point reads, cached",
            Work::Scans => "seek and 10 next",
        }
    }
}

/// An engine.
pub trait Peer {
    fn name(&self) -> &'static str;

    /// Whether it can run on this machine.
    fn installed(&self) -> bool;

    /// Commits per second of one row each, by so many clients, to a fresh database.
    fn commits(&mut self, clients: usize, durable: bool) -> Result<f64>;

    /// Reads per second of random rows that are there.
    fn point_reads(&mut self) -> Result<f64>;

    /// Seeks per second to a random row, each with ten steps behind it.
    fn scans(&mut self) -> Result<f64>;

    /// Operations per second.
    fn run(&mut self, work: Work) -> Result<f64> {
        match work {
            Work::DurableCommits(clients) => self.commits(clients, true),
            Work::Inserts => self.commits(1, false),
            Work::PointReads => self.point_reads(),
            Work::Scans => self.scans(),
        }
    }
}

pub fn all(dir: &Path, rows: u64, seconds: u64) -> Vec<Box<dyn Peer>> {
    let setup = |name: &str| Setup { dir: dir.join(name), rows, seconds };
    vec![
        Box::new(strata::Strata::new(setup("strata"))),
        Box::new(rocksdb::RocksDb::new(setup("rocksdb"))),
        Box::new(fjall::Fjall::new(setup("fjall"))),
        Box::new(redb::Redb::new(setup("redb"))),
    ]
}

/// Where and how long an engine works.
pub struct Setup {
    pub dir: std::path::PathBuf,
    pub rows: u64,
    pub seconds: u64,
}

impl Setup {
    /// An empty folder for a fresh database, on a disk that has nothing left to write for others.
    pub fn fresh(&self, what: &str) -> Result<std::path::PathBuf> {
        let dir = self.dir.join(what);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        std::process::Command::new("sync").status()?;
        Ok(dir)
    }

    /// Calls of `operation` per second, by so many threads for the set time. It gets its thread's random numbers.
    pub fn rate(&self, threads: usize, operation: impl Fn(&mut Random) -> Result<()> + Sync) -> Result<f64> {
        let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let started = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (done, stop, operation) = (&done, &stop, &operation);
                    scope.spawn(move || -> Result<()> {
                        let (mut random, mut count) = (Random(thread as u64 * 7919 + 1), 0);
                        while !stop.load(Ordering::Relaxed) {
                            operation(&mut random)?;
                            count += 1;
                        }
                        done.fetch_add(count, Ordering::Relaxed);
                        Ok(())
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_secs(self.seconds));
            stop.store(true, Ordering::Relaxed);
            for worker in workers {
                worker.join().expect("a worker panicked")?;
            }
            Ok(done.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
        })
    }
}
