//! The work: what is done, what counts, and which figures come out.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::data::{Random, VALUE_BYTES, YCSB_VALUE_BYTES, fill, key};
use crate::machine::{self, Evictor};
use crate::overwrite;
use crate::peers::{Peer, Session, Store, Tuning};
use crate::ycsb;

/// Where the rows are that a point read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Written a moment ago, not flushed.
    Memtable,
    /// In the engine's cache.
    Cached,
    /// On disk: a cache of 8 MiB, the page cache emptied all the time.
    Uncached,
}

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Prepares what is read: rows of 100 bytes, settled and merged. Yields no figure.
    Load,
    /// As `Load`, rows of 1000 bytes.
    LoadYcsb,
    /// Commits of one row each, acknowledged when durable, by so many clients.
    DurableCommits(usize),
    /// Commits of one row each in random order of keys, not synced, one thread.
    Inserts,
    /// Reads of random rows that are there, one thread.
    PointReads(Place),
    /// A seek to a random row and ten steps, one thread.
    Scans,
    /// Rows replaced at random by four threads, not synced.
    Overwrite,
    /// One of YCSB's workloads; durable or not.
    Ycsb(ycsb::Mix, bool),
    /// Prepares a recovery: a log that nothing has shortened, and the end of the process. Yields the size of the log.
    WriteLog,
    /// Opens what `WriteLog` left.
    Recovery,
}

/// What a figure counts, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: &'static str,
    pub better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
    /// Says something about the run, not about the engine; or is zero where all is well.
    Neither,
}

pub const PER_SECOND: Unit = Unit { name: "operations per second", better: Better::More };
pub const MB_PER_SECOND: Unit = Unit { name: "MB per second", better: Better::More };
pub const MICROSECONDS: Unit = Unit { name: "microseconds", better: Better::Less };
pub const SECONDS: Unit = Unit { name: "seconds", better: Better::Less };
pub const BYTES_PER_BYTE: Unit = Unit { name: "bytes per byte of rows", better: Better::Less };
pub const COUNT: Unit = Unit { name: "count", better: Better::Neither };
pub const STALL: Unit = Unit { name: "milliseconds", better: Better::Neither };

impl Unit {
    /// By its name.
    pub fn named(name: &str) -> Option<Unit> {
        let all = [PER_SECOND, MB_PER_SECOND, MICROSECONDS, SECONDS, BYTES_PER_BYTE, COUNT, STALL];
        all.into_iter().find(|unit| unit.name == name)
    }
}

/// One figure of a run. `what` is empty for the main one.
#[derive(Clone, Debug)]
pub struct Figure {
    pub what: &'static str,
    pub unit: Unit,
    pub value: f64,
}

impl Figure {
    pub fn new(what: &'static str, unit: Unit, value: f64) -> Figure {
        Figure { what, unit, value }
    }
}

impl Work {
    /// All that yield figures, in the order in which they run.
    pub fn all() -> Vec<Work> {
        let mut works = vec![
            Work::DurableCommits(1),
            Work::DurableCommits(8),
            Work::DurableCommits(64),
            Work::Inserts,
            Work::PointReads(Place::Memtable),
            Work::PointReads(Place::Cached),
            Work::PointReads(Place::Uncached),
            Work::Scans,
            Work::Overwrite,
        ];
        for durable in [true, false] {
            works.extend(ycsb::Mix::ALL.map(|mix| Work::Ycsb(mix, durable)));
        }
        works.push(Work::Recovery);
        works
    }

    pub fn name(self) -> String {
        match self {
            Work::Load => "load".to_owned(),
            Work::LoadYcsb => "load ycsb".to_owned(),
            Work::DurableCommits(1) => "durable commits, 1 client".to_owned(),
            Work::DurableCommits(clients) => format!("durable commits, {clients} clients"),
            Work::Inserts => "inserts, not durable".to_owned(),
            Work::PointReads(Place::Memtable) => "point reads, memtable".to_owned(),
            Work::PointReads(Place::Cached) => "point reads, cached".to_owned(),
            Work::PointReads(Place::Uncached) => "point reads, uncached".to_owned(),
            Work::Scans => "seek and 10 next".to_owned(),
            Work::Overwrite => "overwrite, 4 threads".to_owned(),
            Work::Ycsb(mix, durable) => {
                format!("ycsb {}, {}", mix.letter(), if durable { "durable" } else { "buffered" })
            }
            Work::WriteLog => "write log".to_owned(),
            Work::Recovery => "recovery".to_owned(),
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Work> {
        let hidden = [Work::Load, Work::LoadYcsb, Work::WriteLog];
        Work::all().into_iter().chain(hidden).find(|work| work.name() == name)
    }

    /// What must have run before, once for all rounds or before each.
    pub fn needs(self) -> Option<(Work, Again)> {
        match self {
            Work::PointReads(Place::Cached | Place::Uncached) | Work::Scans => Some((Work::Load, Again::No)),
            Work::Ycsb(..) => Some((Work::LoadYcsb, Again::No)),
            Work::Recovery => Some((Work::WriteLog, Again::EachRound)),
            _ => None,
        }
    }

    /// The folder that it works in.
    pub fn folder(self) -> &'static str {
        match self {
            Work::Load | Work::PointReads(Place::Cached | Place::Uncached) | Work::Scans => "loaded",
            Work::LoadYcsb | Work::Ycsb(..) => "ycsb",
            Work::WriteLog | Work::Recovery => "recovery",
            _ => "fresh",
        }
    }

    /// Whether it starts with an empty folder.
    pub fn starts_fresh(self) -> bool {
        matches!(self.folder(), "fresh") || matches!(self, Work::Load | Work::LoadYcsb | Work::WriteLog)
    }

    /// Whether its figures are about syncs, and so about who is woken when.
    pub fn is_durable(self) -> bool {
        matches!(self, Work::DurableCommits(_) | Work::Ycsb(_, true))
    }
}

/// How often a preparation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    No,
    EachRound,
}

/// How much of everything.
#[derive(Clone, Debug, clap::Args)]
pub struct Size {
    /// Seconds per piece of work and round
    #[arg(long, default_value_t = 3)]
    pub seconds: u64,
    /// Rows of 100 bytes: loaded before reads, keys that are written
    #[arg(long, default_value_t = 1_000_000)]
    pub rows: u64,
    /// Rows of 1000 bytes that YCSB starts with
    #[arg(long, default_value_t = 200_000)]
    pub ycsb_rows: u64,
    /// Threads of YCSB
    #[arg(long, default_value_t = 4)]
    pub ycsb_threads: usize,
    /// Seconds of overwriting per round; 600 for the record
    #[arg(long, default_value_t = 10)]
    pub overwrite_seconds: u64,
    /// Commits of one row each in the log that is recovered
    #[arg(long, default_value_t = 2_000_000)]
    pub log_rows: u64,
    /// Number of the round, so that rows inserted in one are not found in the next
    #[arg(long, default_value_t = 0, hide = true)]
    pub round: u64,
}

/// Does `work` once, in `dir`, in this process.
pub fn run(peer: &dyn Peer, work: Work, dir: &Path, size: &Size) -> Result<Vec<Figure>> {
    if work.starts_fresh() && !dir.exists() {
        std::fs::create_dir_all(dir)?;
    }
    if let Some(rate) = peer.own_rate(work, dir, size.rows, size.seconds)? {
        return Ok(vec![Figure::new("", PER_SECOND, rate)]);
    }
    let rate = match work {
        Work::Load => return load(peer, dir, size.rows, VALUE_BYTES),
        Work::LoadYcsb => return load(peer, dir, size.ycsb_rows, YCSB_VALUE_BYTES),
        Work::DurableCommits(clients) => commits(peer, dir, size, clients, true)?,
        Work::Inserts => commits(peer, dir, size, 1, false)?,
        Work::PointReads(Place::Memtable) => memtable_reads(peer, dir, size)?,
        Work::PointReads(Place::Cached) => {
            let store = opened_warm(peer, dir, size)?;
            point_reads(store.as_ref(), size.rows, size.seconds)?
        }
        Work::PointReads(Place::Uncached) => {
            let store = peer.open(dir, Tuning { cache_bytes: 8 << 20, ..Tuning::default() })?;
            let _evictor = Evictor::start(dir)?;
            point_reads(store.as_ref(), size.rows, size.seconds)?
        }
        Work::Scans => scans(opened_warm(peer, dir, size)?.as_ref(), size)?,
        Work::Overwrite => return overwrite::run(peer, dir, size),
        Work::Ycsb(mix, durable) => ycsb::run(peer, dir, size, mix, durable)?,
        Work::WriteLog => return write_log(peer, dir, size),
        Work::Recovery => return recover(peer, dir, size),
    };
    Ok(vec![Figure::new("", PER_SECOND, rate)])
}

fn opened_warm(peer: &dyn Peer, dir: &Path, size: &Size) -> Result<Box<dyn Store>> {
    let store = peer.open(dir, Tuning::default())?;
    store.warm(size.rows)?;
    Ok(store)
}

/// Fills `store` with rows `0..rows`.
pub fn fill_store(store: &dyn Store, rows: u64, value_bytes: usize) -> Result<()> {
    let mut random = Random(7);
    store.load(&mut (0..rows).map(|id| {
        let mut value = vec![0; value_bytes];
        fill(&mut random, &mut value);
        (key(id), value)
    }))
}

fn load(peer: &dyn Peer, dir: &Path, rows: u64, value_bytes: usize) -> Result<Vec<Figure>> {
    let store = peer.open(dir, Tuning::default())?;
    fill_store(store.as_ref(), rows, value_bytes)?;
    store.settle(true)?;
    Ok(Vec::new())
}

fn commits(peer: &dyn Peer, dir: &Path, size: &Size, clients: usize, durable: bool) -> Result<f64> {
    let store = peer.open(dir, Tuning::default())?;
    rate(store.as_ref(), durable, clients, size.seconds, |session, random| {
        let mut value = [0; VALUE_BYTES];
        fill(random, &mut value);
        session.put(&key(random.next() % size.rows), &value)
    })
}

/// Rows of which everything fits a memtable.
const MEMTABLE_ROWS: u64 = 200_000;

fn memtable_reads(peer: &dyn Peer, dir: &Path, size: &Size) -> Result<f64> {
    let store = peer.open(dir, Tuning::default())?;
    let mut session = store.session(false)?;
    let (mut random, mut value) = (Random(7), [0; VALUE_BYTES]);
    for id in 0..MEMTABLE_ROWS {
        fill(&mut random, &mut value);
        session.put(&key(id), &value)?;
    }
    drop(session);
    point_reads(store.as_ref(), MEMTABLE_ROWS, size.seconds)
}

fn point_reads(store: &dyn Store, rows: u64, seconds: u64) -> Result<f64> {
    rate(store, false, 1, seconds, |session, random| {
        ensure!(session.get(&key(random.next() % rows))?, "a row is missing");
        Ok(())
    })
}

fn scans(store: &dyn Store, size: &Size) -> Result<f64> {
    rate(store, false, 1, size.seconds, |session, random| {
        session.scan(&key(random.next() % size.rows), 11)?;
        Ok(())
    })
}

/// Writes rows one commit each, makes the last one durable and with it all, and ends as by kill -9: this function
/// returns only if something failed.
fn write_log(peer: &dyn Peer, dir: &Path, size: &Size) -> Result<Vec<Figure>> {
    let store = peer.open(dir, Tuning::long_log())?;
    let mut session = store.session(false)?;
    let (mut random, mut value) = (Random(11), [0; VALUE_BYTES]);
    let (mut written, started) = (0u64, Instant::now());
    while written < size.log_rows && started.elapsed() < LOG_WRITE_MAX {
        fill(&mut random, &mut value);
        session.put(&key(random.next() % size.log_rows), &value)?;
        written += 1;
    }
    drop(session);
    store.session(true)?.put(&key(u64::MAX), &value)?;
    let log_bytes = match store.log_bytes()? {
        Some(bytes) => bytes,
        None => machine::files(dir)?.iter().filter(|file| peer.is_log(&file.name)).map(|file| file.bytes).sum(),
    };
    std::fs::write(log_file(dir), format!("{written} {log_bytes}"))?;
    store.kill();
    // The process must not end in order, or the log would be gone.
    machine::kill_tree(std::process::id());
    Ok(Vec::new())
}

/// Slow engines write a shorter log; figures are per commit or per byte.
const LOG_WRITE_MAX: Duration = Duration::from_secs(20);

/// Where a process that ends itself leaves how many commits it made, and the bytes of their log.
fn log_file(dir: &Path) -> PathBuf {
    dir.with_extension("log")
}

fn recover(peer: &dyn Peer, dir: &Path, size: &Size) -> Result<Vec<Figure>> {
    let log = std::fs::read_to_string(log_file(dir)).context("no log was written")?;
    let (written, log_bytes) = log.split_once(' ').context("two numbers")?;
    let (written, log_bytes): (u64, f64) = (written.parse()?, log_bytes.parse()?);
    let started = Instant::now();
    let store = peer.open(dir, Tuning::long_log())?;
    let mut session = store.session(false)?;
    ensure!(session.get(&key(u64::MAX))?, "the last commit is missing");
    let seconds = started.elapsed().as_secs_f64();
    let mut random = Random(11);
    let mut value = [0; VALUE_BYTES];
    for _ in 0..written.min(10_000) {
        fill(&mut random, &mut value);
        ensure!(session.get(&key(random.next() % size.log_rows))?, "a commit is missing");
    }
    let mut figures = vec![Figure::new("per million commits", SECONDS, seconds * 1e6 / written as f64)];
    if log_bytes > 0.0 {
        figures.push(Figure::new("log replayed", MB_PER_SECOND, log_bytes / 1e6 / seconds));
    }
    Ok(figures)
}

/// Calls of `operation` per second, by so many threads for the set time. It gets its thread's session and numbers.
pub fn rate(
    store: &dyn Store,
    durable: bool,
    threads: usize,
    seconds: u64,
    operation: impl Fn(&mut dyn Session, &mut Random) -> Result<()> + Sync,
) -> Result<f64> {
    let (done, stop, ready) = (AtomicU64::new(0), AtomicBool::new(false), std::sync::Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (done, stop, ready, operation) = (&done, &stop, &ready, &operation);
                scope.spawn(move || -> Result<()> {
                    let session = store.session(durable);
                    ready.wait();
                    let (mut session, mut random, mut count) = (session?, Random(thread as u64 * 7919 + 1), 0);
                    while !stop.load(Ordering::Relaxed) {
                        operation(session.as_mut(), &mut random)?;
                        count += 1;
                    }
                    done.fetch_add(count, Ordering::Relaxed);
                    Ok(())
                })
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        let elapsed = started.elapsed();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(done.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64())
    })
}
