//! A database with many more files than it may keep open: it reads, merges and removes them all the same, and who still
//! reads a removed one reads on.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, ROW, Rows, contents, key, row, row_with};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::key::table_range;
use strata_oltp::metrics::MetricValue;
use strata_oltp::{Db, Options};

const OPEN_FILES_MAX: u64 = 3;
const FILES: i32 = 40;

fn open(env: &SimEnv) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { open_files_max: OPEN_FILES_MAX, block_cache_bytes_max: 0, ..Options::default() };
    let db = harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap();
    // Runs are counted here, without value files beside them.
    harness::shape(&db, CompactionOptions { large_value_bytes: 0, ..CompactionOptions::default() });
    db
}

fn number(db: &Db, name: &str) -> u64 {
    match db.metrics().iter().find(|metric| metric.name == name).unwrap().value {
        MetricValue::Counter(value) | MetricValue::Gauge(value) => value,
        MetricValue::Histogram(_) => unreachable!("{name} is a number"),
    }
}

/// So many files of two rows each, overlapping; the rows.
fn fill(db: &Db, amount: i64) -> Rows {
    fill_files(db, amount, FILES)
}

fn fill_files(db: &Db, amount: i64, count: i32) -> Rows {
    let mut rows = Rows::new();
    for id in 0..count {
        let mut transaction = db.begin().unwrap();
        for id in [id, (id * 7) % count] {
            rows.insert(key(ROW, id), row(ROW, id, amount));
            transaction.put(ROW, key(ROW, id), row(ROW, id, amount)).unwrap();
        }
        transaction.commit(Durability::Buffered).unwrap();
        db.flush(None).unwrap();
    }
    rows
}

fn names(env: &SimEnv) -> usize {
    env.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "run")).count()
}

#[test]
fn more_files_than_may_be_open_are_read_and_merged() {
    let machine = SimEnv::new(1);
    let db = open(&machine);
    let first = fill(&db, 1);
    assert_eq!(number(&db, "strata_held_files"), FILES as u64);
    let opened = number(&db, "strata_files_opened_total");
    assert_eq!(contents(&db.snapshot(), ROW), first);
    assert!(number(&db, "strata_files_opened_total") > opened + FILES as u64, "files were closed and opened again");
    assert!(number(&db, "strata_open_files") <= OPEN_FILES_MAX);

    // A snapshot keeps the files that a merge replaces, names and all.
    let before = db.snapshot();
    db.merge_runs(ROW).unwrap();
    let second = fill(&db, 2);
    db.merge_runs(ROW).unwrap();
    assert_eq!(names(&machine), 2 * FILES as usize + 2);
    assert_eq!((contents(&before, ROW), contents(&db.snapshot(), ROW)), (first, second.clone()));
    assert!(number(&db, "strata_open_files") <= OPEN_FILES_MAX);
    drop(before);
    db.flush(None).unwrap();
    db.vacuum().unwrap();
    assert_eq!((names(&machine), number(&db, "strata_held_files"), number(&db, "strata_open_files")), (1, 1, 1));

    db.close().unwrap();
    let db = open(&machine);
    assert_eq!(contents(&db.snapshot(), ROW), second);
}

/// Text that compression does not make smaller.
fn noise(id: i32, bytes: usize) -> String {
    let mut state = id as u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..bytes).map(|_| draw()).collect()
}

#[test]
fn a_cursor_outlives_the_names_of_its_files() {
    const ROWS_PER_FILE: i32 = 8;
    let machine = SimEnv::new(1);
    let db = open(&machine);
    let (mut rows, files) = (Rows::new(), 2 * OPEN_FILES_MAX as i32);
    for file in 0..files {
        let mut transaction = db.begin().unwrap();
        // A row per block, and more in a file than is read ahead: the files are read in turns, to the end.
        for id in (0..ROWS_PER_FILE).map(|row| row * files + file) {
            let row = row_with(ROW, id, 1, Some(&noise(id, 12_000)));
            rows.insert(key(ROW, id), row.clone());
            transaction.put(ROW, key(ROW, id), row).unwrap();
        }
        transaction.commit(Durability::Buffered).unwrap();
        db.flush(None).unwrap();
    }
    let snapshot = db.snapshot();
    let range = table_range(ROW);
    let table = Arc::clone(snapshot.view().rows(ROW).unwrap());
    let mut scan = table.scan(&range.start..&range.end, snapshot.seqno(), None).unwrap();
    assert!(scan.next().unwrap());
    let row = scan.value().unwrap().to_vec();
    let mut found = Rows::from([(scan.key().to_vec(), row)]);
    // Nothing but the cursor knows the files any more.
    drop((snapshot, table));
    db.merge_runs(ROW).unwrap();
    assert_eq!(names(&machine), 1);
    fill(&db, 2);
    while scan.next().unwrap() {
        assert_eq!(contents(&db.snapshot(), ROW).len(), rows.len(), "others take the handles meanwhile");
        let row = scan.value().unwrap().to_vec();
        found.insert(scan.key().to_vec(), row);
    }
    assert!(found == rows);
    drop(scan);
    assert!(number(&db, "strata_open_files") <= OPEN_FILES_MAX);
}

/// On a real system, in a process that may have fewer files open than the database has, with the default cap.
#[test]
fn a_process_that_may_open_few_files_reads_many() {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(36), maximum: limits.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("open_files");
    let env: Arc<dyn Env> = Arc::new(OsEnv::new());
    let clear = || {
        for folder in ["", "wal", "runs", "segments"].map(|folder| dir.join(folder)) {
            for name in env.list(&folder).unwrap_or_default() {
                env.remove(&folder.join(name)).unwrap();
            }
        }
    };
    clear();
    let db = Db::open(Arc::clone(&env), &dir, Options::default(), RowTier::make(&env, &dir)).unwrap();
    harness::register(&db);
    let rows = fill_files(&db, 1, 24);
    assert_eq!(number(&db, "strata_held_files"), 2 * 24, "runs, each with a value file");
    assert_eq!(contents(&db.snapshot(), ROW), rows);
    let open = number(&db, "strata_open_files");
    assert!(open > 10 && open <= 18, "{open} of the 36 that the process may have");
    db.merge_runs(ROW).unwrap();
    assert_eq!(contents(&db.snapshot(), ROW), rows);
    db.close().unwrap();
    clear();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limits).unwrap();
}
