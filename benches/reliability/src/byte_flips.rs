//! Every byte of closed databases with one bit flipped, one at a time: opening and reading everything must report an
//! error or give the same rows. Never another answer, never a panic (P6).
//!
//! Each case is a database of its own, with real segments below: runs, segments, their key indexes and marks, manifest
//! and log, of a random shape. Together they make up the megabytes; one of all the megabytes would have to be read whole
//! two million times. What was closed in order is proven to have been synced, so not even a torn end of the log is an
//! excuse.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use strata_olap::{Store, StoreOptions};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::{Db, FileKind, MemoryBudget, Options, TableId};

use crate::harness::random::Numbers;
use crate::harness::{DIR, HYBRID, ROW, Rows, key, register, row_with, small_log, try_contents};
use crate::ledger::Counts;
use crate::runner::{Campaign, no_obstacle};

pub fn campaign() -> Campaign {
    Campaign {
        name: "byte-flips",
        about: "each byte of closed databases with a bit flipped; read whole every time",
        goal: ("bytes", 2 << 20),
        parallel: true,
        obstacle: no_obstacle,
        case,
    }
}

fn case(number: u64, _: &Path) -> Result<Counts> {
    let mut numbers = Numbers::new(number);
    let (base, expected) = build(&mut numbers)?;
    let (mut bytes, mut detected, mut kinds) = (0, 0, std::collections::BTreeSet::new());
    for (path, length) in base.files() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((kind, _)) = FileKind::parse(&name) else { continue };
        kinds.insert(kind);
        for offset in 0..length {
            let copy = base.reboot(PowerLoss::KeepAll);
            copy.corrupt(&path, offset, 1 << numbers.below(8))?;
            bytes += 1;
            match read(&copy) {
                Err(_) => detected += 1,
                Ok(rows) => ensure!(rows == expected, "another answer after a flip at {offset} of {}", path.display()),
            }
        }
    }
    ensure!(kinds.len() == 7, "every kind of file takes part, not only {kinds:?}");
    Ok(Counts::from([("bytes", bytes), ("detected", detected)]))
}

fn open(env: &SimEnv) -> strata_oltp::Result<Db> {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let budget = MemoryBudget::new(32 << 20);
    let options = StoreOptions { row_group_rows_max: 60, segment_rows_max: 150, ..StoreOptions::default() };
    let store = Store::new(Arc::clone(&shared), Path::new(DIR), Arc::clone(&budget), options);
    let options = Options {
        memory_bytes_max: 32 << 20,
        block_cache_bytes_max: 1 << 20,
        idle_flush_ms: u64::MAX,
        wal: small_log(),
        ..Options::default()
    };
    let db = Db::open_with(shared, Path::new(DIR), options, budget, store, None)?;
    register(&db);
    Ok(db)
}

/// What a reader gets: rows, or the first error.
fn read(env: &SimEnv) -> strata_oltp::Result<Rows> {
    let db = open(env)?;
    db.verify()?;
    let snapshot = db.snapshot();
    let mut rows = try_contents(&snapshot, HYBRID)?;
    rows.extend(try_contents(&snapshot, ROW)?);
    Ok(rows)
}

/// Segments with sealed marks, runs of two tables, and rows that only the log has.
fn build(numbers: &mut Numbers) -> Result<(SimEnv, Rows)> {
    let env = SimEnv::new(numbers.next());
    let db = open(&env)?;
    let rows = 40 + numbers.below(160) as i32;
    write(&db, HYBRID, 0..rows, numbers)?;
    db.convert(HYBRID)?;
    write(&db, HYBRID, rows / 4..rows / 2, numbers)?;
    write(&db, ROW, 0..rows, numbers)?;
    db.flush(None)?;
    write(&db, ROW, rows / 3..rows, numbers)?;
    db.flush(None)?;
    write(&db, HYBRID, rows / 2 - 3..rows / 2 + 3, numbers)?;
    write(&db, ROW, 0..5, numbers)?;
    let snapshot = db.snapshot();
    let mut expected = try_contents(&snapshot, HYBRID)?;
    expected.extend(try_contents(&snapshot, ROW)?);
    drop(snapshot);
    db.close()?;
    Ok((env, expected))
}

fn write(db: &Db, table: TableId, ids: std::ops::Range<i32>, numbers: &mut Numbers) -> Result<()> {
    let mut transaction = db.begin()?;
    for id in ids {
        let length = numbers.below(60) as usize;
        let note = (!length.is_multiple_of(7)).then(|| "note ".repeat(length));
        let row = row_with(table, id, numbers.next() as i64 >> 20, note.as_deref());
        transaction.put(table, key(table, id), row)?;
    }
    transaction.commit(Durability::Durable)?;
    Ok(())
}
