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
use strata_oltp::iter::VersionKind;
use strata_oltp::manifest::{Edit, Manifest, RunMeta};
use strata_oltp::sstable::{RunOptions, RunWriter};
use strata_oltp::values::ValueRef;
use strata_oltp::wal::{RecordKind, Wal, WalOptions};
use strata_oltp::{Db, Error, FileId, FileKind, Options, SeqNo};

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

/// Commits that are written in one go prove nothing about each other; the one behind them proves all. Whatever damage an
/// open refuses, `verify` says.
#[test]
fn damage_within_a_group_of_commits_is_named() {
    let env = SimEnv::new(7);
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { wal: WalOptions { fill_bytes: 0, ..WalOptions::default() }, ..Options::default() };
    let open = |shared: &Arc<dyn Env>| harness::open(shared, options.clone(), RowTier::make(shared, Path::new(DIR)));
    let db = open(&shared).unwrap();
    for nth in 0..9 {
        let mut transaction = db.begin().unwrap();
        transaction.put(ROW, key(ROW, nth), row(ROW, nth, 1)).unwrap();
        let durability = if nth % 3 == 2 { Durability::Durable } else { Durability::Buffered };
        transaction.commit(durability).unwrap();
    }
    drop(db);
    let log = files(&env).into_iter().find(|(kind, ..)| *kind == FileKind::Wal).unwrap().1;
    let (mut refused, bytes) = (0, env.read_file(&log).unwrap());
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for offset in (4096..used).step_by(24) {
        let env = env.reboot(PowerLoss::KeepAll);
        env.corrupt(&log, offset, 1).unwrap();
        let faults = check(&env).faults;
        let shared: Arc<dyn Env> = Arc::new(env.clone());
        if let Err(error) = open(&shared) {
            assert!(faults.iter().any(|fault| fault.file == log), "{offset}: {error}, but {faults:?}");
            refused += 1;
        }
    }
    assert!(refused >= 15, "{refused}");
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

fn first_run(manifest: &Manifest) -> RunMeta {
    (*manifest.version().table(ROW).unwrap().runs[0]).clone()
}

/// A run of one version, not yet named by a manifest.
fn forge_run(env: &SimEnv, id: u64, key: &[u8], seqno: SeqNo) -> RunMeta {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let mut writer = RunWriter::new(shared, Path::new(DIR), FileId(id), ROW, RunOptions::default()).unwrap();
    writer.add(key, seqno, VersionKind::Put, &row(ROW, 1, 1)).unwrap();
    writer.finish().unwrap()
}

type Lie = (&'static str, fn(&SimEnv, &Manifest) -> Vec<Edit>);

/// What is said of a manifest, and how it lied.
const LIES: [Lie; 14] = [
    // The order of two runs is exchanged, so that a reader would find the older version first.
    ("is in a newer run than", |_, manifest| {
        let first = first_run(manifest);
        vec![Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(first)]
    }),
    // Fewer versions than there are.
    ("disagree", |_, manifest| {
        let mut first = first_run(manifest);
        first.version_count -= 1;
        vec![Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(first)]
    }),
    // A file that is sound in itself, and another one than was written.
    ("file checksum disagrees", |_, manifest| {
        let mut first = first_run(manifest);
        first.checksum ^= 1;
        vec![Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(first)]
    }),
    // A run under another table.
    ("another run or table", |_, manifest| {
        let mut first = first_run(manifest);
        first.table = HYBRID;
        // To those of another table it cannot refer.
        first.values.clear();
        vec![Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(first)]
    }),
    // A run under two tables.
    ("is named twice", |_, manifest| {
        vec![Edit::AddRun(RunMeta { table: HYBRID, values: Vec::new(), ..first_run(manifest) })]
    }),
    // The log is said to begin elsewhere.
    ("another position than the manifest says", |_, manifest| {
        let mut start = manifest.version().wal_start.unwrap();
        start.lsn.0 += 8;
        vec![Edit::WalReleased(start)]
    }),
    // A run of commits that the log is to bring back as well.
    ("through which it was flushed", |_, manifest| {
        vec![Edit::DropTable { table: ROW }, Edit::AddRun(RunMeta { values: Vec::new(), ..first_run(manifest) })]
    }),
    // Fewer bytes of large values than a run refers to, so that its value file would seem to have garbage.
    ("properties disagree", |_, manifest| {
        let mut first = first_run(manifest);
        first.values[0].record_bytes -= 1;
        vec![Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(first)]
    }),
    // A run that gives one key the value of another.
    ("a reference does not lead to its value", |env, manifest| {
        let first = first_run(manifest);
        let share = first.values[0];
        // All of its values are of one length.
        let bytes = (share.record_bytes / share.value_count) as u32;
        let mut reference = Vec::new();
        ValueRef { file: share.file, offset: 0, bytes }.encode(&mut reference);
        let shared: Arc<dyn Env> = Arc::new(env.clone());
        let mut writer = RunWriter::new(shared, Path::new(DIR), FileId(2_000), ROW, RunOptions::default()).unwrap();
        writer.add(&key(ROW, 999), SeqNo(1), VersionKind::Reference, &reference).unwrap();
        vec![Edit::RemoveRun { table: ROW, run: first.run }, Edit::AddRun(writer.finish().unwrap())]
    }),
    // A value file without a reference.
    ("no run refers to it", |_, manifest| vec![Edit::RemoveRun { table: ROW, run: first_run(manifest).run }]),
    ("has a number not given out yet", |env, _| vec![Edit::AddRun(forge_run(env, 7_777, &key(ROW, 999), SeqNo(1)))]),
    ("a key of another table", |env, _| vec![Edit::AddRun(forge_run(env, 7_777, &key(HYBRID, 999), SeqNo(1)))]),
    // I5: a version twice.
    ("is in another run of table 11 too", |env, manifest| {
        let first = first_run(manifest);
        vec![Edit::AddRun(forge_run(env, 7_777, &first.key_min, first.seqno_min))]
    }),
    // Commits that neither log nor manifest know of.
    ("but log and manifest end at", |env, _| {
        let run = forge_run(env, 7_777, &key(ROW, 999), SeqNo(5_000));
        vec![Edit::AddRun(run), Edit::FlushedThrough { table: ROW, seqno: SeqNo(5_000) }]
    }),
];

#[test]
fn a_manifest_that_lies_is_found_out() {
    for (said, lie) in LIES {
        let env = build(5);
        let (manifest, _) = Manifest::open(Arc::new(env.clone()), Path::new(DIR)).unwrap();
        manifest.append(&lie(&env, &manifest)).unwrap();
        drop(manifest);
        let faults = check(&env).faults;
        assert!(faults.iter().any(|fault| fault.what.contains(said)), "{said}: {faults:?}");
    }
}

/// Logs whose frames are sound and whose contents are not.
#[test]
fn a_log_that_lies_is_found_out() {
    let forge = |said: &str, kind: RecordKind, seqno: u64| {
        let env = build(8);
        let shared: Arc<dyn Env> = Arc::new(env.clone());
        let (manifest, version) = Manifest::open(Arc::clone(&shared), Path::new(DIR)).unwrap();
        let next_file = Arc::new(|| FileId(9_999));
        let (dir, id, options) = (Path::new(DIR), manifest.db_id(), WalOptions::default());
        let (wal, _) = Wal::open(shared, dir, id, version.wal_start, options, next_file, &mut |_, _| Ok(())).unwrap();
        wal.append(kind, SeqNo(seqno), &[b"what is this"]).unwrap();
        wal.close().unwrap();
        drop(manifest);
        let faults = check(&env).faults;
        assert!(faults.iter().any(|fault| fault.what.contains(said)), "{said}: {faults:?}");
    };
    forge("does not belong here", RecordKind::ManifestEdits, 100);
    let (env, other) = (build(9), build(10));
    let log = files(&env).into_iter().find(|(kind, ..)| *kind == FileKind::Wal).unwrap().1;
    env.write_file(&log, &other.read_file(&log).unwrap()).unwrap();
    let faults = check(&env).faults;
    assert!(faults.iter().any(|fault| fault.what.contains("another database")), "{faults:?}");
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
