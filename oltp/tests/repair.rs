//! Random damage to a small closed database: `verify` names the damaged file; `repair` makes a database that verifies,
//! whose rows were all once written, and where each row that is not as it was is covered by a reported loss.
//!
//! Segments are the column store's; its own tests do the same with them.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::backup::Picky;
use harness::row_tier::RowTier;
use harness::salvage::{LONG, Model, files, remove_all};
use harness::{DIR, HYBRID, ROW, contents, key, row, small_log};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::inspect::verify;
use strata_oltp::repair::{Effect, RepairOptions, RepairReport, repair};
use strata_oltp::wal::{RecordKind, Wal, WalOptions};
use strata_oltp::{Db, FileId, FileKind, Options, SeqNo, manifest};

const NEW: &str = "/new";

fn open(env: &SimEnv, dir: &str, wal: WalOptions) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let dir = Path::new(dir);
    let db = Db::open(Arc::clone(&env), dir, Options { wal, ..Options::default() }, RowTier::make(&env, dir)).unwrap();
    harness::register(&db);
    harness::shape(&db, CompactionOptions { large_value_bytes: LONG, ..CompactionOptions::default() });
    db
}

/// Runs of many blocks and of one, tombstones, old versions, a log that is needed and one that is not.
fn build(seed: u64) -> (SimEnv, Model) {
    build_with(seed, 20_000)
}

fn build_with(seed: u64, segment_bytes: u64) -> (SimEnv, Model) {
    let (env, mut model) = (SimEnv::new(seed), Model::default());
    let db = open(&env, DIR, WalOptions { segment_bytes, ..small_log() });
    model.write(&db, 0, 900, 1);
    db.flush(None).unwrap();
    model.write(&db, 300, 100, 2);
    model.write(&db, 380, 30, 3);
    db.flush(None).unwrap();
    model.write(&db, 100, 20, 4);
    model.write(&db, 110, 20, 5);
    model.write(&db, 385, 9, 6);
    db.close().unwrap();
    (env, model)
}

fn shared(env: &SimEnv) -> Arc<dyn Env> {
    Arc::new(env.clone())
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
    model.check(&db, &report, what);
    // The result takes writes, under new commit numbers.
    let mut transaction = db.begin().unwrap();
    transaction.put(ROW, key(ROW, 1), row(ROW, 1, 77)).unwrap();
    transaction.commit(Durability::Durable).unwrap();
    assert_eq!(contents(&db.snapshot(), ROW)[&key(ROW, 1)], row(ROW, 1, 77));
    db.close().unwrap();
    remove_all(env, NEW);
    report
}

#[test]
fn a_sound_database_is_copied_without_a_loss() {
    let (env, model) = build(1);
    let report = repair_and_check(&env, &model, RepairOptions::default(), "sound");
    let commit_count = verify(&shared(&env), Path::new(DIR), None).unwrap().commit_count;
    assert_eq!((report.losses, report.commit_count), (vec![], commit_count), "of the log's other records none counts");
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
        let (reach, step, rebuilt_min) = match kind {
            FileKind::Run => (900, 61, 3),
            // The list of its records, and its footer.
            FileKind::Values => (72 + 13, 7, 9),
            _ => continue,
        };
        let original = env.read_file(&path).unwrap();
        let mut rebuilt = 0;
        for back in (3..bytes.min(reach)).step_by(step) {
            env.corrupt(&path, bytes - back, 0x40).unwrap();
            let report = repair_and_check(&env, &model, RepairOptions::default(), &format!("{back} before the end"));
            rebuilt += u32::from(report.is_lossless());
            assert!(report.losses.iter().any(|loss| loss.file == path), "{back} before the end: {:?}", report.losses);
            // A block besides: without an index nothing says where its keys end.
            env.corrupt(&path, bytes / 3, 0x40).unwrap();
            repair_and_check(&env, &model, RepairOptions::default(), &format!("{back} before the end, and a block"));
            env.write_file(&path, &original).unwrap();
        }
        assert!(rebuilt >= rebuilt_min, "{}: {rebuilt}", path.display());
    }
}

/// Of a value file with a damaged record one row is lost, and of one that is missing all that runs refer to: both reports
/// say which, and the other values are in runs now.
#[test]
fn a_damaged_value_costs_one_row() {
    let (env, model) = build(8);
    let (_, path, _) = files(&env).into_iter().find(|(kind, ..)| *kind == FileKind::Values).unwrap();
    let original = env.read_file(&path).unwrap();
    env.corrupt(&path, 30, 1).unwrap();
    let report = repair_and_check(&env, &model, RepairOptions::default(), "first value");
    let lost: Vec<_> = report.losses.iter().filter(|loss| loss.effect == Effect::Lost).collect();
    let [loss] = &lost[..] else { panic!("{:#?}", report.losses) };
    assert_eq!((&loss.file, loss.rows, loss.table, loss.bytes.start), (&path, Some(1), Some(ROW), 0));
    assert_eq!(loss.keys, Some((key(ROW, 5), key(ROW, 5))));
    env.remove(&path).unwrap();
    let report = repair_and_check(&env, &model, RepairOptions::default(), "no value file");
    let lost = report.losses.iter().filter(|loss| loss.kind == FileKind::Values && loss.effect == Effect::Lost);
    let rows: u64 = lost.map(|loss| loss.rows.unwrap()).sum();
    assert!((15..25).contains(&rows), "{:#?}", report.losses);
    env.write_file(&path, &original).unwrap();
    assert_eq!(repair_and_check(&env, &model, RepairOptions::default(), "sound again").losses, []);
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
    let lost = model.rows[&loss.table.unwrap()].range(first..=last).count() as u64;
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
    assert!(!report.is_lossless(), "who knows");
    for (table, rows) in &model.rows {
        assert_eq!(&contents(&db.snapshot(), *table), rows, "nothing was left over, so nothing is back");
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

/// Each log file that is needed, missing or cut to nothing: what comes behind it is taken only if asked for.
#[test]
fn a_missing_or_empty_log_file_is_said() {
    let (env, model) = build_with(8, 5_000);
    let logs: Vec<_> = files(&env).into_iter().filter(|file| file.0 == FileKind::Wal).map(|file| file.1).collect();
    let mut found = 0;
    for path in &logs {
        let original = env.read_file(path).unwrap();
        for cut in [0, 100] {
            env.remove(path).unwrap();
            if cut > 0 {
                env.write_file(path, &original[..cut]).unwrap();
            }
            for salvage_log in [false, true] {
                let what = format!("{} cut to {cut}", path.display());
                found += usize::from(
                    !repair_and_check(&env, &model, RepairOptions { salvage_log }, &what).losses.is_empty(),
                );
            }
            env.write_file(path, &original).unwrap();
        }
    }
    assert!(found >= 8, "{found}: two files of {} are needed", logs.len());
    logs.iter().for_each(|path| env.remove(path).unwrap());
    let report = repair_and_check(&env, &model, RepairOptions::default(), "no log at all");
    assert!(report.losses.iter().any(|loss| loss.kind == FileKind::Wal && loss.effect == Effect::Lost));
}

/// A device that refuses some sectors of a file: what the others hold is saved.
#[test]
fn unreadable_sectors_cost_what_is_in_them() {
    let (env, model) = build(9);
    for (kind, path, bytes) in files(&env).into_iter().filter(|file| matches!(file.0, FileKind::Run | FileKind::Wal)) {
        for at in [0, bytes / 2, bytes - 1] {
            let picky = Arc::new(Picky::new(env.clone()));
            picky.refuse_bytes(&path, at..at + 1);
            let shared: Arc<dyn Env> = picky;
            let what = format!("{} at {at}", path.display());
            let faults = verify(&shared, Path::new(DIR), None).unwrap().faults;
            assert!(faults.iter().any(|fault| fault.file == path) || kind == FileKind::Wal, "{what}: {faults:?}");
            let options = RepairOptions { salvage_log: true };
            let report = repair(&shared, Path::new(DIR), Path::new(NEW), None, options).unwrap();
            model.check(&open(&env, NEW, small_log()), &report, &what);
            if kind == FileKind::Run && bytes > 20_000 {
                let kept = report.losses.iter().filter_map(|loss| loss.rows).sum::<u64>();
                assert!(kept < 600, "{what}: {:?}", report.losses);
            }
            remove_all(&env, NEW);
        }
    }
}

/// Without a manifest nothing else says that a run was to be there.
#[test]
fn a_run_that_cannot_be_opened_is_said_without_a_manifest_too() {
    let (env, _) = build(10);
    let all = files(&env);
    let manifest = &all.iter().find(|file| file.0 == FileKind::Manifest).unwrap().1;
    env.remove(manifest).unwrap();
    let run = &all.iter().find(|file| file.0 == FileKind::Run).unwrap().1;
    let picky = Arc::new(Picky::new(env));
    picky.refuse(Some(run.to_str().unwrap()));
    let shared: Arc<dyn Env> = picky;
    let report = repair(&shared, Path::new(DIR), Path::new(NEW), None, RepairOptions::default()).unwrap();
    assert!(report.losses.iter().any(|loss| loss.file == *run && loss.effect == Effect::Lost), "{:?}", report.losses);
}

/// What repair has returned survives a power loss, copied or made anew.
#[test]
fn a_repaired_database_is_durable() {
    for what in ["sound", "damaged"] {
        let (env, model) = build(11);
        let run = files(&env).into_iter().find(|file| file.0 == FileKind::Run).unwrap().1;
        if what == "damaged" {
            env.corrupt(&run, 100, 1).unwrap();
        }
        let report = repair(&shared(&env), Path::new(DIR), Path::new(NEW), None, RepairOptions::default()).unwrap();
        let env = env.reboot(PowerLoss::DropUnsynced);
        let found = verify(&shared(&env), Path::new(NEW), None).unwrap();
        assert_eq!((found.faults, found.unused), (vec![], vec![]), "{what}");
        model.check(&open(&env, NEW, small_log()), &report, what);
    }
}

fn identity(env: &SimEnv, dir: &str) -> [u8; 16] {
    manifest::load(env, Path::new(dir)).unwrap().unwrap().db_id
}

/// A log that is written anew counts its positions from nothing. Under the old identity its archive would be taken for that
/// of the original, and a restore would mix the two.
#[test]
fn only_a_log_that_is_copied_keeps_its_identity() {
    let (env, _) = build(12);
    let original = identity(&env, DIR);
    let repaired = || {
        repair(&shared(&env), Path::new(DIR), Path::new(NEW), None, RepairOptions::default()).unwrap();
        let identity = identity(&env, NEW);
        remove_all(&env, NEW);
        identity
    };
    let all = files(&env);
    let run = &all.iter().find(|file| file.0 == FileKind::Run).unwrap().1;
    env.corrupt(run, 100, 1).unwrap();
    assert_eq!(repaired(), original, "the log is the same, file by file");
    let log = &all.iter().rfind(|file| file.0 == FileKind::Wal).unwrap().1;
    let bytes = env.read_file(log).unwrap();
    env.corrupt(log, 100, 1).unwrap();
    assert_ne!(repaired(), original);
    env.write_file(log, &bytes).unwrap();
    env.remove(&all.iter().find(|file| file.0 == FileKind::Manifest).unwrap().1).unwrap();
    assert_ne!(repaired(), original);
}

/// A commit whose frame is sound and whose contents are not, as a defect would write it.
#[test]
fn a_commit_that_does_not_decode_is_said() {
    let (env, model) = build(13);
    let (manifest, version) = manifest::Manifest::open(shared(&env), Path::new(DIR)).unwrap();
    let (id, start, options) = (manifest.db_id(), version.wal_start, WalOptions::default());
    let next_file = Arc::new(|| FileId(9_999));
    let (wal, report) =
        Wal::open(shared(&env), Path::new(DIR), id, start, options, next_file, &mut |_, _| Ok(())).unwrap();
    wal.append(RecordKind::Commit, SeqNo(report.last_seqno.0 + 1), &[b"\x01\0\0\0garbage"]).unwrap();
    wal.close().unwrap();
    drop(manifest);
    let path = FileKind::Wal.path(Path::new(DIR), FileId(9_999));
    assert!(verify(&shared(&env), Path::new(DIR), None).unwrap().faults.iter().any(|fault| fault.file == path));
    let report = repair_and_check(&env, &model, RepairOptions::default(), "garbage");
    assert!(report.losses.iter().any(|loss| loss.file == path && loss.effect == Effect::Lost), "{:?}", report.losses);
}

/// Row ids that rows may have are not given out again: the manifest knows, and without it the keys do.
#[test]
fn a_repaired_database_gives_out_no_row_id_twice() {
    let env = SimEnv::new(14);
    let db = open(&env, DIR, small_log());
    let first = db.allocate_row_ids(HYBRID, 5_000_000).unwrap();
    let mut transaction = db.begin().unwrap();
    // A key of a table without a primary key: its row id, with the sign flipped.
    let id = (first + 4_999_999) ^ (1 << 63);
    let full_key = [&key(HYBRID, 1)[..6], &id.to_be_bytes()].concat();
    transaction.put(HYBRID, full_key, row(HYBRID, 1, 1)).unwrap();
    transaction.commit(Durability::Durable).unwrap();
    db.flush(None).unwrap();
    db.close().unwrap();
    for what in ["sound", "without a manifest"] {
        repair(&shared(&env), Path::new(DIR), Path::new(NEW), None, RepairOptions::default()).unwrap();
        let next = open(&env, NEW, small_log()).allocate_row_ids(HYBRID, 1).unwrap();
        assert!(next >= first + 5_000_000, "{what}: {next}");
        remove_all(&env, NEW);
        if let Some((_, manifest, _)) = files(&env).into_iter().find(|file| file.0 == FileKind::Manifest) {
            env.remove(&manifest).unwrap();
        }
    }
}

/// With retention the states of the past are part of what is copied.
#[test]
fn the_past_of_a_sound_database_comes_along() {
    let env = SimEnv::new(15);
    let options = Options { retention_ms: 3_600_000, wal: small_log(), ..Options::default() };
    let db = harness::open(&shared(&env), options, RowTier::make(&shared(&env), Path::new(DIR))).unwrap();
    let mut model = Model::default();
    for amount in 1..6 {
        model.write(&db, 0, 9, amount);
        env.advance(std::time::Duration::from_secs(90));
        db.flush(None).unwrap();
    }
    db.close().unwrap();
    let known = |dir| {
        let version = manifest::load(&env, Path::new(dir)).unwrap().unwrap().version;
        (version.kept_from, version.times.len())
    };
    let before = known(DIR);
    assert!(before.0.is_some() && before.1 > 3, "{before:?}");
    let report = repair(&shared(&env), Path::new(DIR), Path::new(NEW), None, RepairOptions::default()).unwrap();
    assert!(report.is_lossless());
    assert_eq!(known(NEW), before);
}
