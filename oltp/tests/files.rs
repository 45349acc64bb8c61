//! How long files live, and what the maintenance calls leave.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, SHORT_LIVED, contents, key, register, row};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::event::{Event, Listener};
use strata_oltp::schema::StorageKind;
use strata_oltp::{Db, MemoryBudget, Options, Snapshot, TableId};

fn open(env: &SimEnv, listener: Option<Arc<dyn Listener>>) -> Db {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let (dir, options) = (Path::new(DIR), Options::default());
    let budget = MemoryBudget::new(options.memory_bytes_max);
    let tier = RowTier::make(&shared, dir);
    let db = Db::open_with(shared, dir, options, budget, tier, listener).unwrap();
    register(&db);
    db
}

/// One run of three rows.
fn flush_rows(db: &Db, table: TableId, amount: i64) {
    let mut transaction = db.begin().unwrap();
    for id in 1..=3 {
        transaction.put(table, key(table, id), row(table, id, amount)).unwrap();
    }
    transaction.commit(Durability::Durable).unwrap();
    db.flush(Some(table)).unwrap();
}

fn files(env: &SimEnv, extension: &str) -> Vec<PathBuf> {
    let all = env.files().into_iter().map(|(path, _)| path);
    all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn run_count(snapshot: &Snapshot, table: TableId) -> usize {
    snapshot.view().rows(table).map_or(0, |rows| rows.runs().len())
}

/// I4, seen from the other side: a dropped file stays until the last snapshot that reads it is gone, and no longer.
#[test]
fn files_live_as_long_as_a_snapshot_names_them() {
    let env = SimEnv::new(1);
    let db = open(&env, None);
    flush_rows(&db, HYBRID, 1);
    let old = files(&env, "run");
    assert_eq!(old.len(), 1);
    let reader = db.snapshot();
    db.convert(HYBRID).unwrap();
    assert_eq!(files(&env, "run"), old, "a reader may still open it");
    assert_eq!(contents(&reader, HYBRID).len(), 3);
    drop(reader);
    while db.step().unwrap() {}
    assert!(files(&env, "run").is_empty(), "nobody names it any more");
    assert_eq!(contents(&db.snapshot(), HYBRID).len(), 3);
}

#[test]
fn compacting_a_row_table_leaves_one_run_of_its_newest_rows() {
    let db = open(&SimEnv::new(2), None);
    for amount in 0..3 {
        flush_rows(&db, ROW, amount);
    }
    assert_eq!(run_count(&db.snapshot(), ROW), 3);
    db.compact(ROW).unwrap();
    let snapshot = db.snapshot();
    assert_eq!(run_count(&snapshot, ROW), 1);
    assert_eq!(snapshot.view().rows(ROW).unwrap().entry_count(), 3, "older versions are gone");
    assert_eq!(contents(&snapshot, ROW)[&key(ROW, 1)], row(ROW, 1, 2));
    assert_eq!(snapshot.view().cold().segments(ROW), [], "it stays a table of rows");
}

/// Writes and flushes after every conversion.
#[derive(Default)]
struct BusyWriter {
    db: OnceLock<Db>,
    conversions: AtomicU32,
}

impl Listener for BusyWriter {
    fn notify(&self, event: &Event) {
        if let (Event::Converted { .. }, Some(db)) = (event, self.db.get()) {
            let nth = self.conversions.fetch_add(1, Ordering::Relaxed);
            assert!(nth < 10, "it goes on for as long as somebody writes");
            flush_rows(db, HYBRID, i64::from(nth) + 10);
        }
    }
}

#[test]
fn compaction_ends_while_somebody_writes() {
    let writer = Arc::new(BusyWriter::default());
    let db = open(&SimEnv::new(3), Some(Arc::clone(&writer) as Arc<dyn Listener>));
    flush_rows(&db, HYBRID, 0);
    assert!(writer.db.set(db.clone()).is_ok());
    db.compact(HYBRID).unwrap();
    let snapshot = db.snapshot();
    assert_eq!(contents(&snapshot, HYBRID).len(), 3);
    assert_eq!(snapshot.view().cold().segments(HYBRID).len(), 1, "what was there at the call is in a segment");
}

/// Files that somebody put into the wrong folder, or under a number in another spelling, are not ours: opening removes
/// neither them nor the live files whose names they have.
#[test]
fn misplaced_files_are_left_alone() {
    let env = SimEnv::new(9);
    let db = open(&env, None);
    flush_rows(&db, HYBRID, 1);
    db.close().unwrap();
    for (path, _) in env.files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        for folder in ["wal", "runs", "segments"] {
            let other = Path::new(DIR).join(folder).join(name);
            if name != "LOCK" && env.read_file(&other).is_err() {
                env.write_file(&other, &env.read_file(&path).unwrap()).unwrap();
            }
        }
    }
    let strangers = ["runs/3.run", "runs/+000000001.run", "wal/1.wal", "manifest-7", "wal/18446744073709551615.wal"];
    strangers.iter().for_each(|name| env.write_file(&Path::new(DIR).join(name), b"mine").unwrap());
    for _ in 0..2 {
        let db = open(&env, None);
        assert_eq!(contents(&db.snapshot(), HYBRID).len(), 3);
        db.close().unwrap();
    }
    assert!(strangers.iter().all(|name| env.read_file(&Path::new(DIR).join(name)).unwrap() == b"mine"));
}

/// A drop is in the manifest only after all that was committed before it is durable: who drops has taken the catalog entry
/// away just before, and a table whose entry comes back must not have lost its rows. Its files go at once.
#[test]
fn a_drop_comes_after_what_was_committed_before_it() {
    let env = SimEnv::new(10);
    let db = open(&env, None);
    db.register_table(harness::schema(SHORT_LIVED), StorageKind::Hybrid);
    flush_rows(&db, SHORT_LIVED, 1);
    let mut transaction = db.begin().unwrap();
    transaction.put(ROW, key(ROW, 1), row(ROW, 1, 1)).unwrap();
    transaction.commit(Durability::Buffered).unwrap();
    db.drop_table(SHORT_LIVED).unwrap();
    assert_eq!(files(&env, "run"), Vec::<PathBuf>::new());
    drop(db);
    let db = open(&env.reboot(PowerLoss::DropUnsynced), None);
    assert_eq!(contents(&db.snapshot(), ROW).len(), 1);
    assert!(db.version().table(SHORT_LIVED).is_none());
}

/// Format version of the only run: 2 with a binary fuse filter, 1 without.
fn version_of_run(env: &SimEnv) -> u32 {
    let runs = files(env, "run");
    let bytes = env.read_file(&runs[0]).unwrap();
    assert_eq!(runs.len(), 1);
    let at = bytes.len() - 20;
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Files of the last level live long, so they get the filter that is dear to build.
#[test]
fn the_last_level_has_the_better_filter() {
    let env = SimEnv::new(1);
    let db = open(&env, None);
    // A run that refers to value files is of a later version whatever its filter.
    harness::shape(&db, CompactionOptions { large_value_bytes: 0, ..CompactionOptions::default() });
    flush_rows(&db, ROW, 1);
    assert_eq!(version_of_run(&env), 1);
    // One run alone would be moved as it is.
    flush_rows(&db, ROW, 2);
    db.merge_runs(ROW).unwrap();
    assert_eq!(version_of_run(&env), 2);
    assert_eq!(contents(&db.snapshot(), ROW).len(), 3);
}
