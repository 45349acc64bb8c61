//! Large rows replaced at random: what value files save, Strata against itself without them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::Durability;
use strata_oltp::metrics::MetricValue;
use strata_oltp::{Db, Options};

use crate::data::{Random, fill, key};
use crate::machine;
use crate::peers::strata::{TABLE, full_key, open_shaped};

#[derive(clap::Args)]
pub struct Values {
    /// Rows
    #[arg(long, default_value_t = 20_000)]
    rows: u64,
    /// Bytes of a row's value
    #[arg(long, default_value_t = 16 << 10)]
    value_bytes: usize,
    /// How often the table is written over
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Sizes from which rows go to value files, one after the other, each `--times` times; 0 for never
    #[arg(long, value_delimiter = ',', default_values_t = [0, 4 << 10])]
    large_value_bytes: Vec<u64>,
    /// Runs of each, interleaved
    #[arg(long, default_value_t = 3)]
    times: u64,
    /// Where the databases are made
    #[arg(long, default_value = "target/compare/values")]
    dir: PathBuf,
}

/// # Errors
/// Whatever the engine met.
pub fn run(values: &Values) -> Result<()> {
    println!("large_value_bytes  rows/s  written/user  of it values  disk/live  µs/read");
    for _ in 0..values.times {
        for large_value_bytes in &values.large_value_bytes {
            once(values, *large_value_bytes)?;
        }
    }
    Ok(())
}

fn once(values: &Values, large_value_bytes: u64) -> Result<()> {
    if values.dir.exists() {
        std::fs::remove_dir_all(&values.dir)?;
    }
    std::fs::create_dir_all(&values.dir)?;
    // The block cache holds the keys, not the rows, either way.
    let options = Options { memtable_bytes_max: 16 << 20, block_cache_bytes_max: 8 << 20, ..Options::default() };
    let compaction =
        CompactionOptions { large_value_bytes, first_level_bytes_max: 64 << 20, ..CompactionOptions::default() };
    let (db, schema) = open_shaped(&values.dir, options, compaction)?;
    let (mut random, mut value) = (Random(5), vec![0; values.value_bytes]);
    let started = Instant::now();
    for nth in 0..values.rows * (1 + values.rounds) {
        let id = if nth < values.rows { nth } else { random.next() % values.rows };
        fill(&mut random, &mut value);
        let mut transaction = db.begin()?;
        transaction.put(TABLE, full_key(&key(id)).to_vec(), value.clone())?;
        transaction.commit(Durability::Buffered)?;
    }
    db.flush(None)?;
    while db.step()? {
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = started.elapsed().as_secs_f64();
    let read_started = Instant::now();
    for _ in 0..values.rows {
        db.get(&schema, &full_key(&key(random.next() % values.rows)))?.context("a row is gone")?;
    }
    let read_micros = read_started.elapsed().as_secs_f64() * 1e6 / values.rows as f64;
    let user = (values.rows * (1 + values.rounds)) as f64 * values.value_bytes as f64;
    let of_values = metric(&db, "strata_value_write_bytes_total");
    let of_runs = metric(&db, "strata_flush_bytes_total") + metric(&db, "strata_merge_write_bytes_total");
    db.close()?;
    let disk: u64 = machine::files(&values.dir.join("runs"))?.iter().map(|file| file.disk_bytes).sum();
    println!(
        "{large_value_bytes:17}  {:6.0}  {:12.2}  {:12.2}  {:9.2}  {read_micros:7.1}",
        (values.rows * (1 + values.rounds)) as f64 / seconds,
        (of_runs + of_values) / user,
        of_values / user,
        // Half of each value is a copy of the other half.
        disk as f64 / (values.rows as f64 * values.value_bytes as f64 / 2.0),
    );
    Ok(())
}

fn metric(db: &Db, name: &str) -> f64 {
    let value = db.metrics().iter().find(|metric| metric.name == name).map(|metric| metric.value);
    match value {
        Some(MetricValue::Counter(count) | MetricValue::Gauge(count)) => count as f64,
        _ => 0.0,
    }
}
