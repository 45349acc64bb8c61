//! Random damage to a small closed database: `verify` names the damaged file; `repair` makes a database that verifies,
//! whose rows were all once written, and where each row that is not as it was is covered by a reported loss.
//!
//! Segments are the column store's; its own tests do the same with them.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, Rows, contents, key, row, small_log};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::inspect::verify;
use strata_oltp::repair::{Effect, Loss, RepairOptions, RepairReport, repair};
use strata_oltp::wal::WalOptions;
use strata_oltp::{Db, FileKind, Options, TableId};

const NEW: &str = "/new";

/// Every row a key ever had, and what it is in the end.
#[derive(Default)]
struct Model {
    history: BTreeSet<(Vec<u8>, Vec<u8>)>,
    rows: [Rows; 2],
}

fn open(env: &SimEnv, dir: &str, wal: WalOptions) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let dir = Path::new(dir);
    let db = Db::open(Arc::clone(&env), dir, Options { wal, ..Options::default() }, RowTier::make(&env, dir)).unwrap();
    harness::register(&db);
    db
}

/// Runs of many blocks and of one, tombstones, old versions, a log that is needed and one that is not.
fn build(seed: u64) -> (SimEnv, Model) {
    let (env, mut model) = (SimEnv::new(seed), Model::default());
    let db = open(&env, DIR, WalOptions { segment_bytes: 20_000, ..small_log() });
    let mut write = |from: i32, count: i32, amount: i64| {
        let mut transaction = db.begin().unwrap();
        for id in from..from + count {
            for (at, table) in [ROW, HYBRID].into_iter().enumerate() {
                let key = key(table, id);
                if (i64::from(id) + amount) % 7 == 0 {
                    transaction.delete(table, key.clone()).unwrap();
                    model.rows[at].remove(&key);
                } else {
                    let row = row(table, id, amount * 1_000_003);
                    transaction.put(table, key.clone(), row.clone()).unwrap();
                    model.history.insert((key.clone(), row.clone()));
                    model.rows[at].insert(key, row);
                }
            }
        }
        transaction.commit(Durability::Durable).unwrap();
    };
    write(0, 900, 1);
    db.flush(None).unwrap();
    write(300, 100, 2);
    write(380, 30, 3);
    db.flush(None).unwrap();
    write(100, 20, 4);
    write(110, 20, 5);
    write(385, 9, 6);
    db.close().unwrap();
    (env, model)
}

fn files(env: &SimEnv) -> Vec<(FileKind, PathBuf, u64)> {
    let named = |path: &PathBuf| FileKind::parse(&path.file_name().unwrap().to_string_lossy());
    env.files().into_iter().filter_map(|(path, bytes)| Some((named(&path)?.0, path, bytes))).collect()
}

fn shared(env: &SimEnv) -> Arc<dyn Env> {
    Arc::new(env.clone())
}

fn covers(loss: &Loss, table: TableId, key: &[u8], is_missing: bool) -> bool {
    let effect = loss.effect == Effect::Lost || (loss.effect == Effect::Reappear && !is_missing);
    let keys = loss.keys.as_ref().is_none_or(|(first, last)| &first[..] <= key && key <= &last[..]);
    effect && loss.table.is_none_or(|of| of == table) && keys
}

/// Repairs into a new folder and holds the result against the model and the report.
fn repair_and_check(env: &SimEnv, model: &Model, options: RepairOptions, what: &str) -> RepairReport {
    let before: BTreeMap<_, _> =
        env.files().into_iter().map(|(p, _)| (p.clone(), env.read_file(&p).unwrap())).collect();
    let report = repair(&shared(env), Path::new(DIR), Path::new(NEW), None, options).unwrap();
    for (path, bytes) in &before {
        assert_eq!(&env.read_file(path).unwrap(), bytes, "{what}: the original is not touched");
    }
    let found = verify(&shared(env), Path::new(NEW), None).unwrap();
    assert_eq!((found.faults, found.unused), (vec![], vec![]), "{what}: {:?}", report.losses);
    let db = open(env, NEW, small_log());
    let snapshot = db.snapshot();
    for (expected, table) in model.rows.iter().zip([ROW, HYBRID]) {
        let rows = contents(&snapshot, table);
        for (key, row) in &rows {
            assert!(model.history.contains(&(key.clone(), row.clone())), "{what}: a row nobody wrote");
            let is_right = expected.get(key) == Some(row);
            let covered = report.losses.iter().any(|loss| covers(loss, table, key, false));
            assert!(is_right || covered, "{what}: {key:?} is back or old, unreported: {:#?}", report.losses);
        }
        for key in expected.keys().filter(|key| !rows.contains_key(*key)) {
            let covered = report.losses.iter().any(|loss| covers(loss, table, key, true));
            assert!(covered, "{what}: {key:?} is missing, unreported: {:#?}", report.losses);
        }
        if report.is_lossless() {
            assert_eq!(&rows, expected, "{what}");
        }
    }
    drop(snapshot);
    // The result takes writes, under new commit numbers.
    let mut transaction = db.begin().unwrap();
    transaction.put(ROW, key(ROW, 1), row(ROW, 1, 77)).unwrap();
    transaction.commit(Durability::Durable).unwrap();
    assert_eq!(contents(&db.snapshot(), ROW)[&key(ROW, 1)], row(ROW, 1, 77));
    db.close().unwrap();
    for (path, _) in env.files().into_iter().filter(|(path, _)| path.starts_with(NEW)) {
        env.remove(&path).unwrap();
    }
    report
}

#[test]
fn a_sound_database_is_copied_without_a_loss() {
    let (env, model) = build(1);
    let report = repair_and_check(&env, &model, RepairOptions::default(), "sound");
    assert_eq!(report.losses, []);
}

#[test]
fn random_damage_loses_nothing_that_is_not_reported() {
    let (env, model) = build(2);
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below.max(1)
    };
    let all = files(&env);
    let newest_log = all.iter().rfind(|(kind, ..)| *kind == FileKind::Wal).unwrap().1.clone();
    let mut lossless = 0;
    for nth in 0..80 {
        let (kind, path, bytes) = &all[usize::try_from(draw(all.len() as u64)).unwrap()];
        let original = env.read_file(path).unwrap();
        let (mut other, mut damaged) = (None, original.clone());
        let what = match draw(8) {
            0 if *path != newest_log => {
                env.remove(path).unwrap();
                "missing"
            }
            1 => {
                damaged.truncate(usize::try_from(draw(*bytes)).unwrap());
                "cut"
            }
            2 => {
                let second = &all[usize::try_from(draw(all.len() as u64)).unwrap()].1;
                let swapped = env.read_file(second).unwrap();
                env.write_file(second, &original).unwrap();
                other = Some((second.clone(), swapped.clone()));
                damaged = swapped;
                "exchanged"
            }
            _ => {
                for _ in 0..=draw(3) {
                    let at = usize::try_from(draw(*bytes)).unwrap();
                    let length_max = if draw(2) == 0 { 4 } else { 600 };
                    let length = usize::try_from(draw(length_max)).unwrap() + 1;
                    let end = (at + length).min(damaged.len());
                    damaged[at..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
                }
                "flipped"
            }
        };
        if what != "missing" {
            env.write_file(path, &damaged).unwrap();
        }
        let what = format!("{nth}: {} {what}", path.display());
        let faults = verify(&shared(&env), Path::new(DIR), None).unwrap().faults;
        let options = RepairOptions { salvage_log: nth % 2 == 0 };
        // The unproven end of a log, and zeros behind it, are all that may be damaged unnoticed.
        let named =
            faults.iter().any(|fault| fault.file == *path) || (*kind == FileKind::Manifest && !faults.is_empty());
        assert!(
            named || matches!(kind, FileKind::Wal | FileKind::Manifest) || damaged == original,
            "{what}: {faults:?}"
        );
        let report = repair_and_check(&env, &model, options, &what);
        lossless += u32::from(report.is_lossless());
        if let Some((second, bytes)) = other {
            env.write_file(&second, &bytes).unwrap();
        }
        env.write_file(path, &original).unwrap();
    }
    assert!(lossless > 1, "some damage costs nothing: {lossless}");
    assert_eq!(verify(&shared(&env), Path::new(DIR), None).unwrap().faults, []);
}

/// Damage to index, filter, properties or footer of a run costs no row.
#[test]
fn what_can_be_made_anew_is_no_loss() {
    let (env, model) = build(3);
    for (kind, path, bytes) in files(&env) {
        if kind != FileKind::Run {
            continue;
        }
        let original = env.read_file(&path).unwrap();
        let mut rebuilt = 0;
        for back in (3..bytes.min(900)).step_by(61) {
            env.corrupt(&path, bytes - back, 0x40).unwrap();
            let report = repair_and_check(&env, &model, RepairOptions::default(), &format!("{back} before the end"));
            rebuilt += u32::from(report.is_lossless());
            env.write_file(&path, &original).unwrap();
        }
        assert!(rebuilt >= 3, "{}: {rebuilt}", path.display());
    }
}

/// One damaged block of many: the report names its bytes and keys and just how many versions were in it.
#[test]
fn a_damaged_block_is_reported_with_its_keys_and_count() {
    let (env, model) = build(4);
    let (_, path, _) = files(&env).into_iter().filter(|(kind, ..)| *kind == FileKind::Run).max_by_key(|f| f.2).unwrap();
    env.corrupt(&path, 100, 1).unwrap();
    let report = repair_and_check(&env, &model, RepairOptions::default(), "first block");
    let [loss] = &report.losses[..] else { panic!("{:#?}", report.losses) };
    assert_eq!((loss.effect, loss.bytes.start, &loss.file), (Effect::Lost, 0, &path));
    assert!(loss.bytes.end < 10_000 && loss.table.is_some());
    let missing = loss.rows.unwrap();
    assert!((50..600).contains(&missing), "{missing}");
    let (first, last) = loss.keys.clone().unwrap();
    let at = usize::from(loss.table != Some(ROW));
    let lost = model.rows[at].range(first..=last).count() as u64;
    assert!(lost <= missing + 1 && lost * 2 > missing, "{lost} of {missing}");
}

#[test]
fn the_log_behind_a_bad_record_is_taken_only_if_asked_for() {
    let (env, model) = build(5);
    let logs: Vec<PathBuf> = files(&env).into_iter().filter(|f| f.0 == FileKind::Wal).map(|f| f.1).collect();
    // The first record of the oldest file that recovery needs.
    let needed = logs.iter().find(|path| {
        let before = env.read_file(path).unwrap();
        env.corrupt(path, 4096 + 44, 1).unwrap();
        let faults = verify(&shared(&env), Path::new(DIR), None).unwrap().faults;
        env.write_file(path, &before).unwrap();
        !faults.is_empty()
    });
    let path = needed.unwrap();
    env.corrupt(path, 4096 + 44, 1).unwrap();
    let cut = repair_and_check(&env, &model, RepairOptions { salvage_log: false }, "cut");
    let salvaged = repair_and_check(&env, &model, RepairOptions { salvage_log: true }, "salvaged");
    assert!(salvaged.commit_count > cut.commit_count, "{} and {}", salvaged.commit_count, cut.commit_count);
    assert!(cut.losses.iter().any(|loss| loss.what.contains("left out")));
    assert!(!salvaged.losses.iter().any(|loss| loss.what.contains("left out")));
}

#[test]
fn without_a_manifest_everything_comes_back_from_the_files() {
    let (env, model) = build(6);
    let manifest = files(&env).into_iter().find(|file| file.0 == FileKind::Manifest).unwrap().1;
    env.remove(&manifest).unwrap();
    let report = repair(&shared(&env), Path::new(DIR), Path::new(NEW), None, RepairOptions::default()).unwrap();
    let [loss] = &report.losses[..] else { panic!("{:#?}", report.losses) };
    assert_eq!((loss.effect, loss.kind), (Effect::Reappear, FileKind::Manifest));
    let db = open(&env, NEW, small_log());
    for (rows, table) in model.rows.iter().zip([ROW, HYBRID]) {
        assert_eq!(&contents(&db.snapshot(), table), rows, "nothing was left over, so nothing is back");
    }
}

#[test]
fn repair_refuses_folders_that_are_in_use() {
    let (env, _) = build(7);
    let go = |into: &str| repair(&shared(&env), Path::new(DIR), Path::new(into), None, RepairOptions::default());
    assert!(go(DIR).is_err() && go("/db/inside").is_err());
    env.create_dir_all(Path::new("/full")).unwrap();
    env.write_file(Path::new("/full/letter"), b"mine").unwrap();
    assert!(go("/full").is_err());
    let _db = open(&env, DIR, small_log());
    assert!(matches!(go(NEW), Err(strata_oltp::Error::Locked { .. })));
}
