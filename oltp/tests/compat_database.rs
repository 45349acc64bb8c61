//! Opens the databases in `data/compat/`: proves that a directory left behind by every released version, without a
//! clean close, still opens and holds what was committed; and that this version still writes what it wrote.
//!
//! The other `compat_*` tests look at one format each; this one has the commit records, and the formats together. A
//! simulated machine makes every byte repeatable. Missing fixtures are written with `UPDATE_GOLDENFILES=1`; those that
//! exist are never touched. Segments have their own fixtures, because here the cold tier is the tests' own.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails; clippy exempts only the test functions")]

mod harness;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{Rows, contents, key, row, schema};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::{Db, Durability};
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::options::Options;
use strata_oltp::schema::StorageKind;
use strata_oltp::{TableId, file};

const TABLES: [TableId; 2] = [TableId(10), TableId(11)];
/// What this version writes; those before it are only read.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v4/database");
const FIXTURE_V3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v3/database");
const FIXTURE_V2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v2/database");
const FIXTURE_V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v1/database");

fn dir() -> &'static Path {
    Path::new("/db")
}

fn open(env: &SimEnv) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let db = Db::open(Arc::clone(&env), dir(), Options::default(), RowTier::make(&env, dir())).unwrap();
    db.register_table(schema(TABLES[0]), StorageKind::Hybrid);
    // Rows without a note stay in their run.
    let compaction = CompactionOptions { large_value_bytes: 26, ..CompactionOptions::default() };
    db.register_table_with(schema(TABLES[1]), StorageKind::Row, compaction);
    db
}

/// Commits the rows `ids` with amounts `ids + offset`, and deletes the row before the first.
fn commit(db: &Db, ids: std::ops::Range<i32>, offset: i64) {
    let mut transaction = db.begin().unwrap();
    for table in TABLES {
        transaction.delete(table, key(table, ids.start - 1)).unwrap();
        for id in ids.clone() {
            transaction.put(table, key(table, id), row(table, id, i64::from(id) + offset)).unwrap();
        }
    }
    transaction.commit(Durability::Durable).unwrap();
}

/// A run with two versions of some rows, and a log with further versions and deletes, then kill -9.
fn write() -> SimEnv {
    let env = SimEnv::new(1);
    let db = open(&env);
    commit(&db, 0..20, 0);
    commit(&db, 10..30, 100);
    db.flush(None).unwrap();
    commit(&db, 25..35, 200);
    commit(&db, 5..6, 300);
    db.allocate_row_ids(TABLES[1], 7).unwrap();
    env.kill()
}

fn expected(table: TableId) -> Rows {
    let amount = |id: i32| match id {
        5 => 305,
        25..35 => i64::from(id) + 200,
        10..25 => i64::from(id) + 100,
        _ => i64::from(id),
    };
    let ids = (0..35).filter(|id| ![4, 9, 24].contains(id));
    ids.map(|id| (key(table, id), row(table, id, amount(id)))).collect()
}

/// Files of a machine by their path below the database; what a log file has been filled with ahead is left out.
fn files(env: &SimEnv) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for (path, _) in env.files() {
        let Some((kind, _)) = path.file_name().and_then(|name| file::FileKind::parse(name.to_str()?)) else { continue };
        let mut bytes = env.read_file(&path).unwrap();
        if kind == file::FileKind::Wal {
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.next_multiple_of(8));
        }
        files.push((path.strip_prefix(dir()).unwrap().to_path_buf(), bytes));
    }
    files
}

/// Writes the current version's fixture of `path` if it is missing and that was asked for.
fn add_fixture(path: &Path, written: &[u8]) {
    let env = OsEnv::new();
    let path = Path::new(FIXTURE).join(path);
    env.create_dir_all(path.parent().unwrap()).unwrap();
    if let Ok(file) = env.open(&path, OpenMode::CreateNew) {
        file.write_at(0, written).unwrap();
    }
}

/// The files of a fixture by their path below it.
fn stored(fixture: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let env = OsEnv::new();
    let mut files = Vec::new();
    for folder in ["", "runs", "wal"] {
        let folder = Path::new(fixture).join(folder);
        for name in env.list(&folder).unwrap() {
            let path = folder.join(name);
            let file = env.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            files.push((path.strip_prefix(fixture).unwrap().to_path_buf(), bytes));
        }
    }
    files.sort();
    files
}

fn opens(fixture: &str) {
    let machine = SimEnv::new(2);
    for (path, bytes) in stored(fixture) {
        let path = dir().join(path);
        machine.create_dir_all(path.parent().unwrap()).unwrap();
        machine.write_file(&path, &bytes).unwrap();
    }
    let db = open(&machine);
    let snapshot = db.snapshot();
    for table in TABLES {
        assert_eq!(contents(&snapshot, table), expected(table));
    }
    assert!(db.allocate_row_ids(TABLES[1], 1).unwrap() >= 7, "ids are not given out again");
}

#[test]
fn database_v1_opens() {
    opens(FIXTURE_V1);
}

#[test]
fn database_v2_opens() {
    opens(FIXTURE_V2);
}

#[test]
fn database_v3_opens() {
    opens(FIXTURE_V3);
}

#[test]
fn database_v4_is_written_as_it_was_and_opens() {
    let mut written = files(&write());
    written.sort();
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        written.iter().for_each(|(path, bytes)| add_fixture(path, bytes));
    }
    let stored = stored(FIXTURE);
    assert_eq!(written.len(), stored.len());
    for ((path, written), (stored_path, stored)) in written.iter().zip(&stored) {
        assert_eq!(path, stored_path);
        assert!(written == stored, "{} is written differently now: a new version, not an edit", path.display());
    }
    opens(FIXTURE);
}
