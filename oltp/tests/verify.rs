//! `verify` on closed databases: silent on sound ones, also after crashes, and for every kind of damage a fault that
//! names the damaged file. Segments are the column store's; its own tests go on from here.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, key, row, small_log};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::inspect::{Verification, verify};
use strata_oltp::manifest::{Edit, Manifest};
use strata_oltp::{Db, Error, FileKind, Options};

fn open(env: &SimEnv) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { wal: small_log(), ..Options::default() };
    harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap()
}

fn write(db: &Db, from: i32, amount: i64) {
    let mut transaction = db.begin().unwrap();
    for id in from..from + 4 {
        for table in [ROW, HYBRID] {
            transaction.put(table, key(table, id), row(table, id, amount)).unwrap();
        }
    }
    transaction.delete(ROW, key(ROW, from + 1)).unwrap();
    transaction.commit(Durability::Durable).unwrap();
}

/// Several runs per table, and a log of several files with what is in no run yet.
fn build(seed: u64) -> SimEnv {
    let env = SimEnv::new(seed);
    let db = open(&env);
    for nth in 0..9 {
        write(&db, nth % 5, i64::from(nth));
        if nth % 3 == 2 && nth < 8 {
            db.flush(None).unwrap();
        }
    }
    write(&db, 2, 50);
    db.close().unwrap();
    env
}

fn check(env: &SimEnv) -> Verification {
    verify(&(Arc::new(env.clone()) as Arc<dyn Env>), Path::new(DIR), None).unwrap()
}

fn files(env: &SimEnv) -> Vec<(FileKind, PathBuf, u64)> {
    let named = |path: &PathBuf| FileKind::parse(&path.file_name().unwrap().to_string_lossy());
    env.files().into_iter().filter_map(|(path, bytes)| Some((named(&path)?.0, path, bytes))).collect()
}

#[test]
fn sound_databases_have_no_fault_whenever_the_power_fails() {
    let env = build(1);
    let found = check(&env);
    assert_eq!((found.faults, found.unused), (vec![], vec![]));
    assert!(found.run_count >= 4 && found.version_count > 20 && found.commit_count >= 2);
    let operations = env.ops();
    for op in (1..operations).step_by(3) {
        let env = SimEnv::new(1);
        env.crash_at(op);
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let shared: Arc<dyn Env> = Arc::new(env.clone());
            let options = Options { wal: small_log(), ..Options::default() };
            let Ok(db) = harness::open(&shared, options, RowTier::make(&shared, Path::new(DIR))) else { return };
            for nth in 0..9 {
                let mut transaction = db.begin().unwrap();
                transaction.put(ROW, key(ROW, nth % 5), row(ROW, nth % 5, i64::from(nth))).unwrap();
                if transaction.commit(Durability::Durable).is_err() || (nth % 3 == 2 && db.flush(None).is_err()) {
                    return;
                }
            }
            drop(db.close());
        })));
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll, PowerLoss::Random(op)] {
            let machine = env.reboot(loss);
            match verify(&(Arc::new(machine.clone()) as Arc<dyn Env>), Path::new(DIR), None) {
                Ok(found) => assert_eq!(found.faults, [], "crash at {op}, {loss:?}"),
                // Nothing was there yet.
                Err(Error::Invalid(_)) => assert!(files(&machine).is_empty()),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What is damaged is named, and a database that opens and reads right has no other fault.
#[test]
fn every_kind_of_damage_is_a_fault_that_names_the_file() {
    let env = build(2);
    for (kind, path, bytes) in files(&env) {
        let original = env.read_file(&path).unwrap();
        let expect_named = |what: &str| {
            let found = check(&env);
            assert!(!found.faults.is_empty(), "{what} of {} goes unnoticed", path.display());
            assert!(
                found.faults.iter().any(|fault| fault.file == path),
                "{what} of {}: {:?}",
                path.display(),
                found.faults
            );
        };
        // Behind its last frame a log has only zeros, and the end of both kinds of log is a write that nothing proves.
        let used = original.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
        let covered = match kind {
            FileKind::Wal => used.saturating_sub(48),
            FileKind::Manifest => bytes - 40,
            _ => bytes,
        };
        for offset in (0..covered).step_by(11) {
            env.corrupt(&path, offset, 0x20).unwrap();
            expect_named(&format!("flip at {offset}"));
            env.corrupt(&path, offset, 0x20).unwrap();
        }
        for cut in (0..covered.saturating_sub(100)).step_by(211) {
            env.write_file(&path, &original[..usize::try_from(cut).unwrap()]).unwrap();
            if kind == FileKind::Run || cut < 4096 {
                expect_named(&format!("cut to {cut}"));
            }
        }
        env.write_file(&path, &original).unwrap();
    }
    assert_eq!(check(&env).faults, []);
}

#[test]
fn missing_and_exchanged_files_are_named() {
    let env = build(3);
    let all = files(&env);
    let newest_log = &all.iter().rfind(|(kind, ..)| *kind == FileKind::Wal).unwrap().1;
    for (kind, path, _) in &all {
        let original = env.read_file(path).unwrap();
        env.remove(path).unwrap();
        let found = check(&env);
        // FIXME: nothing else knows of the newest log file, so that its commits can be lost without a trace.
        assert!(path == newest_log || !found.faults.is_empty(), "{} is missing and nobody says so", path.display());
        if *kind != FileKind::Manifest && path != newest_log {
            let named = found.faults.iter().any(|fault| fault.file == *path || fault.what.contains("is missing"));
            assert!(named, "{}: {:?}", path.display(), found.faults);
        }
        env.write_file(path, &original).unwrap();
        for (other_kind, other, _) in all.iter().filter(|(k, p, _)| k == kind && p > path) {
            let second = env.read_file(other).unwrap();
            env.write_file(path, &second).unwrap();
            env.write_file(other, &original).unwrap();
            let faults = check(&env).faults;
            for swapped in [path, other] {
                assert!(faults.iter().any(|fault| fault.file == *swapped), "{other_kind} {}", swapped.display());
            }
            env.write_file(path, &original).unwrap();
            env.write_file(other, &second).unwrap();
        }
    }
}

/// Several faults at once are all said: verification does not stop at the first.
#[test]
fn all_faults_are_reported() {
    let env = build(4);
    let runs: Vec<PathBuf> = files(&env).into_iter().filter(|(k, ..)| *k == FileKind::Run).map(|(_, p, _)| p).collect();
    for path in &runs {
        env.corrupt(path, 3, 1).unwrap();
    }
    let wal = files(&env).into_iter().find(|(kind, ..)| *kind == FileKind::Wal).unwrap().1;
    env.corrupt(&wal, 4100, 1).unwrap();
    let faults = check(&env).faults;
    for path in runs.iter().chain([&wal]) {
        assert!(faults.iter().any(|fault| fault.file == *path), "{}", path.display());
    }
}

#[test]
fn a_manifest_that_lies_is_found_out() {
    let lies: [fn(&Manifest); 4] = [
        // The order of two runs is exchanged, so that a reader would find the older version first.
        |manifest| {
            let table = Arc::clone(manifest.version().table(ROW).unwrap());
            let first = (*table.runs[0]).clone();
            manifest.append(&[Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(first)]).unwrap();
        },
        // Fewer versions than there are.
        |manifest| {
            let table = Arc::clone(manifest.version().table(ROW).unwrap());
            let mut last = (**table.runs.last().unwrap()).clone();
            last.version_count -= 1;
            manifest.append(&[Edit::RemoveRun { table: ROW, run: last.run }, Edit::AddRun(last)]).unwrap();
        },
        // A run under another table.
        |manifest| {
            let table = Arc::clone(manifest.version().table(ROW).unwrap());
            let mut last = (**table.runs.last().unwrap()).clone();
            last.table = HYBRID;
            manifest.append(&[Edit::RemoveRun { table: ROW, run: last.run }, Edit::AddRun(last)]).unwrap();
        },
        // The log is said to begin elsewhere.
        |manifest| {
            let mut start = manifest.version().wal_start.unwrap();
            start.lsn.0 += 8;
            manifest.append(&[Edit::WalReleased(start)]).unwrap();
        },
    ];
    for (nth, lie) in lies.into_iter().enumerate() {
        let env = build(5);
        let (manifest, _) = Manifest::open(Arc::new(env.clone()), Path::new(DIR)).unwrap();
        lie(&manifest);
        drop(manifest);
        assert!(!check(&env).faults.is_empty(), "lie {nth} goes unnoticed");
    }
}

#[test]
fn a_running_database_is_refused_and_a_foreign_folder_too() {
    let env = SimEnv::new(6);
    let db = open(&env);
    write(&db, 1, 1);
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    assert!(matches!(verify(&shared, Path::new(DIR), None), Err(Error::Locked { .. })));
    db.close().unwrap();
    assert_eq!(check(&env).faults, []);
    env.create_dir_all(Path::new("/empty")).unwrap();
    assert!(matches!(verify(&shared, Path::new("/empty"), None), Err(Error::Invalid(_))));
}
