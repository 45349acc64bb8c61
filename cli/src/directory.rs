//! Commands on a database directory as a whole: checkpoint, compact, indexes compared with their tables.

use std::path::Path;

use anyhow::{Result, ensure};
use arrow::util::display::array_value_to_string;
use strata_sql::{Background, Engine, EngineOptions};
use tokio::runtime::Runtime;

/// Opens a directory that must already hold a database, with nothing running in the background.
pub(crate) fn open_existing(dir: &Path, memory_bytes: u64) -> Result<Engine> {
    ensure!(dir.is_dir(), "there is no directory {}", dir.display());
    let options =
        EngineOptions { memory_budget_bytes: memory_bytes, background: Background::Manual, ..EngineOptions::default() };
    Ok(Engine::open(dir, options)?)
}

/// Makes a second, independent database of the present state; files are shared by links where possible.
///
/// # Errors
/// If `dest` exists or cannot be written.
pub fn checkpoint(dir: &Path, dest: &Path, memory_bytes: u64) -> Result<()> {
    ensure!(!dest.exists(), "{} exists already; a checkpoint needs a new directory", dest.display());
    let engine = open_existing(dir, memory_bytes)?;
    engine.checkpoint(dest)?;
    say(&format!("checkpoint of {} in {}", dir.display(), dest.display()));
    Ok(engine.close()?)
}

/// Moves all rows of all tables into segments and rewrites segments that have deletions.
///
/// # Errors
/// If a conversion fails.
pub fn compact(dir: &Path, memory_bytes: u64) -> Result<()> {
    let engine = open_existing(dir, memory_bytes)?;
    for table in engine.db().tables() {
        engine.db().compact(table)?;
    }
    say(&format!("compacted {}", dir.display()));
    Ok(engine.close()?)
}

/// Compares every index with its table and lists what is missing, stale or there twice; `false` if anything is.
///
/// # Errors
/// If the database cannot be opened or read.
pub fn verify_indexes(dir: &Path, memory_bytes: u64) -> Result<bool> {
    let engine = open_existing(dir, memory_bytes)?;
    let mut session = engine.session();
    let batches = Runtime::new()?.block_on(async { session.query("CALL strata.verify()").await?.collect().await })?;
    let mut fault_count = 0;
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let text = |column: usize| array_value_to_string(batch.column(column), row);
            let (schema, table, index, fault, key) = (text(0)?, text(1)?, text(2)?, text(3)?, text(4)?);
            say(&format!("index {index} of table {schema}.{table}: {fault} entry for {key}"));
            fault_count += 1;
        }
    }
    say(&match fault_count {
        0 => format!("{}: every index agrees with its table", dir.display()),
        count => format!("{}: {count} entries are wrong; REINDEX TABLE builds indexes anew", dir.display()),
    });
    drop(session);
    engine.close()?;
    Ok(fault_count == 0)
}

fn say(line: &str) {
    println!("{line}");
}
