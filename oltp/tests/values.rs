//! Large values in a whole database: where they go, when they are read, what collects them, and what every tool that
//! knows the files of a database knows of theirs. The model, crash, fault, backup, verify and repair tests have them too:
//! the harness gives its table of rows a bound that some rows are above.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, ROW, Rows, contents, key, row_with, schema, shape, tiny_levels, with_large_values};
use proptest::prelude::*;
use strata_oltp::compaction::{CompactionOptions, CompactionPolicy};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::inspect::verify;
use strata_oltp::key::table_range;
use strata_oltp::metrics::MetricValue;
use strata_oltp::{Db, Error, FileKind, Options, TableId};

fn try_open(env: &SimEnv, dir: &str, levels: &CompactionOptions) -> strata_oltp::Result<Db> {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let db = Db::open(Arc::clone(&shared), Path::new(dir), Options::default(), RowTier::make(&shared, Path::new(dir)))?;
    harness::register(&db);
    shape(&db, levels.clone());
    Ok(db)
}

fn open(env: &SimEnv, levels: &CompactionOptions) -> Db {
    try_open(env, DIR, levels).unwrap()
}

/// Commits rows of about `bytes` that do not compress.
fn put(db: &Db, ids: impl IntoIterator<Item = i32>, amount: i64, bytes: usize) {
    let mut transaction = db.begin().unwrap();
    for id in ids {
        transaction.put(ROW, key(ROW, id), noisy_row(id, amount, bytes)).unwrap();
    }
    transaction.commit(Durability::Durable).unwrap();
}

fn noisy_row(id: i32, amount: i64, bytes: usize) -> Vec<u8> {
    let mut state = (amount as u64) << 32 | id as u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 57) as u8 % 90)
    };
    let note: String = (0..bytes).map(|_| draw()).collect();
    row_with(ROW, id, amount, Some(&note))
}

fn metric(db: &Db, name: &str) -> u64 {
    match db.metrics().iter().find(|metric| metric.name == name).unwrap().value {
        MetricValue::Counter(value) | MetricValue::Gauge(value) => value,
        MetricValue::Histogram(_) => panic!("{name} is a histogram"),
    }
}

fn value_paths(env: &SimEnv, dir: &str) -> Vec<PathBuf> {
    let is_values = |path: &PathBuf| path.starts_with(dir) && path.extension().is_some_and(|name| name == "values");
    env.files().into_iter().map(|(path, _)| path).filter(is_values).collect()
}

fn settle(db: &Db) {
    while db.step().unwrap() {}
}

/// Levels so small that a few hundred references fill several.
fn small_levels() -> CompactionOptions {
    CompactionOptions {
        size_ratio: 4,
        level0_runs_min: 2,
        first_level_bytes_max: 4_000,
        file_bytes_max: 2_000,
        job_bytes_max: 1 << 20,
        large_value_bytes: 1_000,
        value_file_bytes_max: 100_000,
        ..CompactionOptions::default()
    }
}

/// What a load of new rows costs in merges: bytes that merges wrote, of runs and of values, per byte of rows.
fn merge_cost(large_value_bytes: u64) -> (f64, f64) {
    let env = SimEnv::new(1);
    let sizes = CompactionOptions { first_level_bytes_max: 40_000, file_bytes_max: 20_000, ..small_levels() };
    let db = open(&env, &CompactionOptions { large_value_bytes, ..sizes });
    for round in 0..40 {
        put(&db, (0..8).map(|nth| (round * 8 + nth) * 37 % 320), 1, 2_000);
        db.flush(None).unwrap();
        settle(&db);
    }
    let written = 320.0 * 2_000.0;
    let values = metric(&db, "strata_value_write_bytes_total") as f64;
    (metric(&db, "strata_merge_write_bytes_total") as f64 / written, values / written)
}

#[test]
fn merges_do_not_rewrite_large_values() {
    let (whole, none) = merge_cost(0);
    let (references, values) = merge_cost(1_000);
    assert!(whole > 3.0 && none == 0.0, "rows in runs are written again and again: {whole}");
    assert!(references < whole / 20.0, "references are small: {references} against {whole}");
    assert!((0.99..1.1).contains(&values), "each value is written once: {values}");
}

#[test]
fn values_are_read_only_when_they_are_asked_for() {
    let env = SimEnv::new(1);
    let db = open(&env, &small_levels());
    put(&db, 0..20, 1, 2_000);
    put(&db, 20..22, 1, 3);
    db.flush(None).unwrap();
    assert_eq!(contents(&db.snapshot(), ROW).len(), 22);
    let [path] = &value_paths(&env, DIR)[..] else { panic!("one value file") };
    // Everything in it is damaged.
    for offset in (0..40_000).step_by(100) {
        env.corrupt(path, offset, 0xff).unwrap();
    }
    let snapshot = db.snapshot();
    let range = table_range(ROW);
    let mut scan = snapshot.view().rows(ROW).unwrap().scan(&range.start..&range.end, snapshot.seqno(), None).unwrap();
    let mut refused = 0;
    for id in 0..22 {
        assert!(scan.next().unwrap());
        assert_eq!(scan.key(), key(ROW, id));
        let is_there = snapshot.view().contains(ROW, &key(ROW, id), snapshot.seqno());
        assert!(is_there.unwrap(), "whether a row is there does not depend on what is in it");
        match (scan.value(), snapshot.get(&schema(ROW), &key(ROW, id))) {
            (Ok(row), found) => assert_eq!(Some(row), found.unwrap().as_deref()),
            (Err(Error::Corrupt { file, kind, .. }), Err(Error::Corrupt { .. })) => {
                assert_eq!((&file, kind), (path, FileKind::Values));
                refused += 1;
            }
            (scanned, found) => panic!("{scanned:?} by scan, {found:?} by key"),
        }
    }
    assert_eq!((refused, scan.next().unwrap()), (20, false));
    // Merges pass the damage on as they pass the rest: verification finds it.
    put(&db, 30..31, 1, 2_000);
    db.merge_runs(ROW).unwrap();
    assert!(matches!(db.verify(), Err(Error::Corrupt { kind: FileKind::Values, .. })));
}

#[test]
fn garbage_is_collected_though_nothing_else_is_due() {
    let env = SimEnv::new(1);
    // A level 0 that is never due: by itself nothing would merge what is below.
    let levels = CompactionOptions { level0_runs_min: 2, ..small_levels() };
    let db = open(&env, &levels);
    put(&db, 0..100, 1, 2_000);
    db.merge_runs(ROW).unwrap();
    assert_eq!(db.value_stats(ROW).garbage_bytes, 0);
    let held = db.snapshot();
    let before = contents(&held, ROW);
    for round in 0..3 {
        put(&db, 20..90, 2 + round, 2_000);
        db.flush(None).unwrap();
        settle(&db);
    }
    // The snapshot keeps the values it sees.
    assert_eq!(contents(&held, ROW), before);
    drop(held);
    put(&db, 20..90, 9, 2_000);
    db.flush(None).unwrap();
    put(&db, 0..1, 9, 2_000);
    db.flush(None).unwrap();
    settle(&db);
    let stats = db.value_stats(ROW);
    assert!(stats.garbage_bytes <= stats.live_bytes, "at most half is garbage at rest: {stats:?}");
    assert!(metric(&db, "strata_value_move_bytes_total") > 0);
    // Whatever is asked for is given back.
    db.vacuum().unwrap();
    let stats = db.value_stats(ROW);
    assert_eq!((stats.value_count, stats.garbage_bytes), (100, 0));
    assert_eq!(metric(&db, "strata_value_garbage_bytes"), 0);
    assert_eq!(metric(&db, "strata_value_file_bytes"), stats.file_bytes);
    let on_disk: u64 =
        env.files().iter().filter(|(path, _)| value_paths(&env, DIR).contains(path)).map(|(_, bytes)| bytes).sum();
    assert_eq!(on_disk, stats.file_bytes, "dropped files are removed");
    let rows = contents(&db.snapshot(), ROW);
    assert!(
        (0..100).all(
            |id| rows[&key(ROW, id)] == noisy_row(id, if id == 0 || (20..90).contains(&id) { 9 } else { 1 }, 2_000)
        )
    );
    db.verify().unwrap();
    // Deleting everything leaves no value file.
    let mut transaction = db.begin().unwrap();
    (0..100).for_each(|id| transaction.delete(ROW, key(ROW, id)).unwrap());
    transaction.commit(Durability::Durable).unwrap();
    db.vacuum().unwrap();
    assert_eq!((value_paths(&env, DIR), db.value_stats(ROW).file_count), (vec![], 0));
}

#[test]
fn files_live_as_long_as_somebody_reads_them() {
    let env = SimEnv::new(1);
    let db = open(&env, &small_levels());
    put(&db, 0..10, 1, 2_000);
    db.flush(None).unwrap();
    let old = value_paths(&env, DIR);
    let held = db.snapshot();
    put(&db, 0..10, 2, 2_000);
    let expected: Rows = (0..10).map(|id| (key(ROW, id), noisy_row(id, 1, 2_000))).collect();
    db.merge_runs(ROW).unwrap();
    assert_eq!(contents(&held, ROW), expected);
    // A cursor outlives its snapshot, and reads on when the files have lost their names.
    let range = table_range(ROW);
    let mut scan = held.view().rows(ROW).unwrap().scan(&range.start..&range.end, held.seqno(), None).unwrap();
    drop(held);
    put(&db, 0..10, 3, 2_000);
    db.vacuum().unwrap();
    assert!(old.iter().all(|path| !value_paths(&env, DIR).contains(path)), "nothing refers to it any more");
    for row in expected.values() {
        assert!(scan.next().unwrap());
        assert_eq!(scan.value().unwrap(), row);
        assert_eq!(scan.value().unwrap(), row, "a second look costs no second read");
    }
}

#[test]
fn a_dropped_table_takes_its_value_files_along() {
    let env = SimEnv::new(1);
    let db = open(&env, &small_levels());
    put(&db, 0..10, 1, 2_000);
    db.flush(None).unwrap();
    assert_eq!(value_paths(&env, DIR).len(), 1);
    db.drop_table(ROW).unwrap();
    assert!(value_paths(&env, DIR).is_empty());
}

#[test]
fn the_option_may_change_over_the_life_of_a_table() {
    let env = SimEnv::new(1);
    let off = CompactionOptions { large_value_bytes: 0, ..small_levels() };
    let db = open(&env, &off);
    put(&db, 0..10, 1, 2_000);
    db.flush(None).unwrap();
    assert!(value_paths(&env, DIR).is_empty(), "off is off");
    shape(&db, small_levels());
    put(&db, 5..15, 2, 2_000);
    db.merge_runs(ROW).unwrap();
    assert_eq!(db.value_stats(ROW).value_count, 15, "a merge separates what it writes");
    // Off again: what merges everything takes all values back into runs.
    shape(&db, off);
    put(&db, 0..1, 3, 2_000);
    db.merge_runs(ROW).unwrap();
    assert_eq!(db.value_stats(ROW).file_count, 0);
    let rows = contents(&db.snapshot(), ROW);
    assert_eq!((rows.len(), &rows[&key(ROW, 7)]), (15, &noisy_row(7, 2, 2_000)));
    drop(db);
    // A kind changed by whoever registers: conversion reads the values out of their files.
    let env = SimEnv::new(1);
    let db = open(&env, &small_levels());
    put(&db, 0..10, 1, 2_000);
    db.flush(None).unwrap();
    db.register_table(schema(ROW), strata_oltp::schema::StorageKind::Hybrid);
    db.convert(ROW).unwrap();
    assert_eq!((contents(&db.snapshot(), ROW).len(), value_paths(&env, DIR).len()), (10, 0));
}

#[test]
fn leftovers_go_and_missing_files_are_named() {
    let env = SimEnv::new(1);
    let db = open(&env, &small_levels());
    put(&db, 0..10, 1, 2_000);
    db.flush(None).unwrap();
    db.close().unwrap();
    let [path] = &value_paths(&env, DIR)[..] else { panic!("one value file") };
    let orphan = FileKind::Values.path(Path::new(DIR), strata_oltp::FileId(900));
    env.write_file(&orphan, b"left by a crash").unwrap();
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let found = verify(&shared, Path::new(DIR), None).unwrap();
    assert_eq!((found.faults, found.unused, found.value_file_count), (vec![], vec![orphan.clone()], 1));
    let db = open(&env, &small_levels());
    assert_eq!(value_paths(&env, DIR), std::slice::from_ref(path));
    // Its number is not given out again.
    put(&db, 0..10, 2, 2_000);
    db.flush(None).unwrap();
    assert!(value_paths(&env, DIR).iter().all(|path| *path != orphan));
    db.close().unwrap();
    let bytes = env.read_file(path).unwrap();
    env.remove(path).unwrap();
    match try_open(&env, DIR, &small_levels()).map(drop) {
        Err(Error::Io { file, .. }) => assert_eq!(&file, path),
        other => panic!("{other:?}"),
    }
    env.write_file(path, &bytes[..bytes.len() - 1]).unwrap();
    match try_open(&env, DIR, &small_levels()).map(drop) {
        Err(Error::Corrupt { file, .. }) => assert_eq!(&file, path),
        other => panic!("{other:?}"),
    }
    env.write_file(path, &bytes).unwrap();
    assert_eq!(contents(&open(&env, &small_levels()).snapshot(), ROW).len(), 10);
}

#[test]
fn copies_have_the_values() {
    let env = SimEnv::new(1);
    let db = open(&env, &small_levels());
    put(&db, 0..10, 1, 2_000);
    let expected = contents(&db.snapshot(), ROW);
    db.checkpoint(Path::new("/copy")).unwrap();
    let first = db.backup(Path::new("/backups")).unwrap();
    put(&db, 10..12, 1, 2_000);
    db.flush(None).unwrap();
    let both = contents(&db.snapshot(), ROW);
    let second = db.backup(Path::new("/backups")).unwrap();
    assert!(second.shared_count >= 2 && second.copied_bytes < first.copied_bytes, "{first:?}, then {second:?}");
    put(&db, 0..12, 2, 2_000);
    db.vacuum().unwrap();
    db.close().unwrap();
    let copy = try_open(&env, "/copy", &small_levels()).unwrap();
    assert_eq!(contents(&copy.snapshot(), ROW), expected);
    copy.verify().unwrap();
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let repository = strata_oltp::backup::Repository::new(shared, Path::new("/backups"));
    for (number, rows) in [(1, &expected), (2, &both)] {
        let dir = format!("/restored{number}");
        repository.restore(number, Path::new(&dir)).unwrap();
        let restored = try_open(&env, &dir, &small_levels()).unwrap();
        assert_eq!(&contents(&restored.snapshot(), ROW), rows);
        assert!(restored.verify().unwrap().value_count >= 10);
    }
    // A damaged value file does not enter a repository as if it were sound.
    let db = open(&env, &small_levels());
    put(&db, 0..12, 3, 2_000);
    db.flush(None).unwrap();
    let newest = value_paths(&env, DIR).pop().unwrap();
    env.corrupt(&newest, 50, 1).unwrap();
    match db.backup(Path::new("/backups")) {
        Err(Error::Corrupt { kind: FileKind::Values, file, .. }) => assert_eq!(file, newest),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Act {
    Put(i32, usize),
    Delete(i32),
    Flush,
    Step,
    Hold,
    Merge,
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (0i32..12, prop::sample::select(&[0usize, 30, 300, 3_000][..])).prop_map(|(id, bytes)| Act::Put(id, bytes)),
        2 => (0i32..12).prop_map(Act::Delete),
        5 => Just(Act::Flush),
        5 => Just(Act::Step),
        1 => Just(Act::Hold),
        1 => Just(Act::Merge),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(150), ..ProptestConfig::default() })]

    /// Whatever is written and merged, rows are as a map has them; at rest no value file is sparse, and what the
    /// manifest says of value files is what is in them and in the runs.
    #[test]
    fn collection_loses_nothing_and_comes_to_rest(
        acts in prop::collection::vec(act(), 1..80),
        percent in 1u32..100,
        large_value_bytes in prop::sample::select(&[1u64, 100, 1_000][..]),
    ) {
        let mut env = SimEnv::new(1);
        let levels = CompactionOptions {
            value_garbage_percent_min: percent,
            large_value_bytes,
            value_file_bytes_max: 5_000,
            ..tiny_levels(CompactionPolicy::Leveled)
        };
        let mut db = open(&env, &levels);
        let (mut rows, mut held) = (Rows::new(), Vec::new());
        for (at, act) in (0..).zip(&acts) {
            match *act {
                Act::Put(id, bytes) => {
                    put(&db, [id], at, bytes);
                    rows.insert(key(ROW, id), noisy_row(id, at, bytes));
                }
                Act::Delete(id) => {
                    let mut transaction = db.begin().unwrap();
                    transaction.delete(ROW, key(ROW, id)).unwrap();
                    transaction.commit(Durability::Durable).unwrap();
                    rows.remove(&key(ROW, id));
                }
                Act::Flush => db.flush(None).unwrap(),
                Act::Step => drop(db.step().unwrap()),
                Act::Hold => held = vec![(db.snapshot(), rows.clone())],
                Act::Merge => db.merge_runs(ROW).unwrap(),
                Act::Reopen => {
                    held.clear();
                    drop(db);
                    env = env.kill();
                    db = open(&env, &levels);
                }
            }
        }
        prop_assert_eq!(&contents(&db.snapshot(), ROW), &rows);
        for (snapshot, rows) in &held {
            prop_assert_eq!(&contents(snapshot, ROW), rows);
        }
        held.clear();
        db.flush(None).unwrap();
        settle(&db);
        prop_assert_eq!(&contents(&db.snapshot(), ROW), &rows);
        let version = db.version();
        for file in version.table(ROW).into_iter().flat_map(|table| table.values.values()) {
            prop_assert!(!file.is_sparse(percent), "{file:?}");
        }
        db.vacuum().unwrap();
        prop_assert_eq!(db.value_stats(ROW).garbage_bytes, 0);
        let large = rows.values().filter(|row| row.len() as u64 >= large_value_bytes).count() as u64;
        prop_assert_eq!(db.value_stats(ROW).value_count, large);
        prop_assert_eq!(&contents(&db.snapshot(), ROW), &rows);
        db.verify().unwrap();
        db.close().unwrap();
        let found = verify(&(Arc::new(env.clone()) as Arc<dyn Env>), Path::new(DIR), None).unwrap();
        prop_assert_eq!((found.faults, found.unused), (vec![], vec![]));
    }
}

/// A life with flushes, merges and collection, cut by a power loss at each of its operations.
#[test]
fn a_power_loss_at_any_operation_loses_no_value() {
    let levels = CompactionOptions { large_value_bytes: 100, value_garbage_percent_min: 20, ..small_levels() };
    let live = |env: &SimEnv, acknowledged: &mut Vec<Rows>| -> strata_oltp::Result<()> {
        let db = try_open(env, DIR, &levels)?;
        let mut rows = Rows::new();
        for round in 0..8 {
            let mut transaction = db.begin()?;
            for id in [round % 3, 3 + round % 2, 9] {
                let row = noisy_row(id, i64::from(round), 150 * (id as usize % 3 + 1));
                transaction.put(ROW, key(ROW, id), row.clone())?;
                rows.insert(key(ROW, id), row);
            }
            acknowledged.push(rows.clone());
            transaction.commit(Durability::Durable)?;
            db.flush(None)?;
            while db.step()? {}
        }
        db.merge_runs(ROW)?;
        db.close()
    };
    let env = SimEnv::new(3);
    live(&env, &mut Vec::new()).unwrap();
    let operations = env.ops();
    for op in (1..operations).step_by(2) {
        let (env, mut states) = (SimEnv::new(3), vec![Rows::new()]);
        env.crash_at(op);
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(&env, &mut states)));
        drop(lived);
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll, PowerLoss::Random(op)] {
            let machine = env.reboot(loss);
            let db = open(&machine, &levels);
            let found = contents(&db.snapshot(), ROW);
            // All acknowledged: the last one tried may or may not be.
            let is_known = states.iter().rev().take(2).any(|rows| *rows == found);
            assert!(is_known, "crash at {op}, {loss:?}: {} rows", found.len());
            db.verify().unwrap();
            let live = db.live_files();
            let files =
                machine.files().into_iter().filter_map(|(path, _)| FileKind::parse(path.file_name()?.to_str()?));
            let left = files
                .filter(|(kind, id)| matches!(kind, FileKind::Values | FileKind::Run) && !live.contains(&(*kind, *id)));
            assert_eq!(left.collect::<Vec<_>>(), [], "crash at {op}, {loss:?}: orphans");
            db.vacuum().unwrap();
            assert_eq!(db.value_stats(ROW).garbage_bytes, 0);
        }
    }
}

#[test]
fn the_usual_shape_has_a_bound_that_rows_are_on_both_sides_of() {
    let long = row_with(ROW, 1, 1, Some("note 1")).len() as u64;
    let short = row_with(ROW, 1, 1, None).len() as u64;
    let bound = with_large_values().large_value_bytes;
    assert!(short < bound && bound <= long, "{short} and {long}");
    let _: TableId = ROW;
}
