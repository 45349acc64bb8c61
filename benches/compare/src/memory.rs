//! Much data under a small memory budget: how far resident memory goes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use strata_oltp::db::Durability;
use strata_oltp::{Db, Error, Options, TableSchema};

use crate::data::{Random, YCSB_VALUE_BYTES, fill, key, mix};
use crate::machine;
use crate::peers::strata::{TABLE, full_key, open};

#[derive(clap::Args)]
pub struct Memory {
    /// Data to write, in GiB
    #[arg(long, default_value_t = 10.0)]
    gib: f64,
    /// Memory budget, in MiB
    #[arg(long, default_value_t = 1024)]
    budget_mib: u64,
    /// Threads, each of which writes rows, replaces some, reads and scans
    #[arg(long, default_value_t = 4)]
    threads: u64,
    /// Where the database is made
    #[arg(long, default_value = "target/compare/memory")]
    dir: PathBuf,
}

/// Resident memory may exceed the budget by this share.
const SLACK: f64 = 0.2;
const ROW_BYTES: f64 = 1016.0;

#[derive(Default)]
struct Progress {
    rows: AtomicU64,
    refused: AtomicU64,
    conflicts: AtomicU64,
    done: AtomicBool,
}

/// # Errors
/// Whatever the engine met, besides refusals for want of memory, which are counted; resident memory above the limit.
pub fn run(memory: &Memory) -> Result<()> {
    if memory.dir.exists() {
        std::fs::remove_dir_all(&memory.dir)?;
    }
    std::fs::create_dir_all(&memory.dir)?;
    let budget = memory.budget_mib << 20;
    let options = Options {
        memory_bytes_max: budget,
        block_cache_bytes_max: budget / 4,
        wal_bytes_max: budget,
        sealed_bytes_max: budget / 4,
        ..Options::default()
    };
    let (db, schema) = open(&memory.dir, options)?;
    let wanted = (memory.gib * (1u64 << 30) as f64 / ROW_BYTES) as u64;
    let (progress, started) = (Progress::default(), Instant::now());
    let peak = std::thread::scope(|scope| -> Result<u64> {
        let workers: Vec<_> = (0..memory.threads)
            .map(|thread| {
                let (db, schema, progress) = (&db, &schema, &progress);
                scope.spawn(move || work(db, schema, progress, thread, wanted / memory.threads))
            })
            .collect();
        let watcher = scope.spawn(|| watch(&db, &progress, started));
        let results: Vec<Result<()>> = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
            .collect();
        progress.done.store(true, Ordering::Relaxed);
        let peak = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        results.into_iter().collect::<Result<()>>()?;
        peak
    })?;
    finish(memory, db, &progress, peak, started)
}

fn finish(memory: &Memory, db: Db, progress: &Progress, peak: u64, started: Instant) -> Result<()> {
    let budget = memory.budget_mib << 20;
    let on_disk = on_disk(&memory.dir)?;
    let share = peak as f64 / budget as f64;
    println!(
        "{} rows in {:.0} s, {} MiB on disk, peak of resident memory {} MiB: {:.0} % of the budget; {} refused, {} conflicts",
        progress.rows.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64(),
        on_disk >> 20,
        peak >> 20,
        share * 100.0,
        progress.refused.load(Ordering::Relaxed),
        progress.conflicts.load(Ordering::Relaxed),
    );
    db.close()?;
    ensure!(share <= 1.0 + SLACK, "resident memory exceeded the budget by more than {:.0} %", SLACK * 100.0);
    Ok(())
}

fn on_disk(dir: &Path) -> Result<u64> {
    Ok(machine::files(dir)?.iter().map(|file| file.disk_bytes).sum())
}

/// Of ten operations six write a new row, one replaces, two read and one scans.
fn work(db: &Db, schema: &TableSchema, progress: &Progress, thread: u64, rows: u64) -> Result<()> {
    let (mut random, mut value) = (Random(thread * 7919 + 1), vec![0; YCSB_VALUE_BYTES]);
    // Scattered over the keys, so that every merge meets all of them.
    let nth_key = |nth: u64| full_key(&key(mix(nth << 8 | thread)));
    let mut nth = 0;
    while nth < rows {
        let known = nth_key(random.next() % (nth + 1));
        let outcome = match random.next() % 10 {
            0..=5 => {
                fill(&mut random, &mut value);
                let outcome = put(db, &nth_key(nth), &value);
                if outcome.is_ok() {
                    nth += 1;
                    progress.rows.fetch_add(1, Ordering::Relaxed);
                }
                outcome
            }
            6 => {
                fill(&mut random, &mut value);
                put(db, &known, &value)
            }
            7 | 8 => db.get(schema, &known).map(drop),
            _ => scan(db, &known),
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Conflict { .. }) => drop(progress.conflicts.fetch_add(1, Ordering::Relaxed)),
            Err(Error::LimitExceeded { .. }) => {
                progress.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn put(db: &Db, key: &[u8], value: &[u8]) -> strata_oltp::Result<()> {
    let mut transaction = db.begin()?;
    transaction.put(TABLE, key.to_vec(), value.to_vec())?;
    transaction.commit(Durability::Buffered).map(drop)
}

fn scan(db: &Db, from: &[u8]) -> strata_oltp::Result<()> {
    let snapshot = db.snapshot();
    let end = strata_oltp::key::table_range(TABLE).end;
    let Some(rows) = snapshot.view().rows(TABLE) else { return Ok(()) };
    let mut cursor = rows.scan(from..&end, snapshot.seqno(), None)?;
    for _ in 0..100 {
        if !cursor.next()? {
            break;
        }
    }
    Ok(())
}

/// Samples resident memory every tenth of a second, and says every ten seconds how it stands.
fn watch(db: &Db, progress: &Progress, started: Instant) -> Result<u64> {
    let (mut peak, mut said) = (0, 0);
    while !progress.done.load(Ordering::Relaxed) {
        let now = machine::resident_bytes()?;
        peak = peak.max(now);
        let seconds = started.elapsed().as_secs();
        if seconds >= said + 10 {
            said = seconds;
            let usage = db.budget().usage_by_consumer();
            let usage: Vec<String> = usage.iter().map(|(name, bytes)| format!("{name} {}", bytes >> 20)).collect();
            println!(
                "{seconds} s: {} rows, {} refused, resident {} MiB, peak {} MiB, budget used {} MiB ({})",
                progress.rows.load(Ordering::Relaxed),
                progress.refused.load(Ordering::Relaxed),
                now >> 20,
                peak >> 20,
                db.budget().used() >> 20,
                usage.join(", "),
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(peak)
}
