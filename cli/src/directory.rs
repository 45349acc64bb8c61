//! Commands on a database directory as a whole: checkpoint, compact.

use std::path::Path;

use anyhow::{Result, ensure};
use strata_sql::{Background, Engine, EngineOptions};

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

fn say(line: &str) {
    println!("{line}");
}
