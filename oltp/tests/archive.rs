//! Point-in-time restore: any commit since a backup, and any time, comes back exactly; what is missing is named; and
//! nothing that happens to the archive harms the database, or the other way round.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness::backup::{Changes, Dice, Picky, REPOSITORY, check_restored, commit, everything, open_at, work};
use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, key, row};
use strata_oltp::backup::{ArchiveOptions, ArchivePruned, BackupInfo, Repository, Target};
use strata_oltp::db::Durability;
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::sim::{PowerLoss, Repeat, SimEnv};
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::wal::{ArchiveGate, Lsn, RecordKind, Wal, WalOptions, replay};
use strata_oltp::{Db, Error, FileId, FileKind, Options, SeqNo};

const ARCHIVE: &str = "/archive";

fn shared(env: &SimEnv) -> Arc<dyn Env> {
    Arc::new(env.clone())
}

fn options(kept_bytes_max: u64) -> Options {
    let archive = ArchiveOptions { interval_ms: 50, kept_bytes_max, ..ArchiveOptions::new(Path::new(ARCHIVE)) };
    Options { archive: Some(archive), ..harness::backup::options() }
}

fn open(env: &Arc<dyn Env>) -> Db {
    open_at(env, Path::new(DIR), options(1 << 30), RowTier::make).unwrap()
}

fn repository(env: &Arc<dyn Env>) -> Repository {
    Repository::new(Arc::clone(env), Path::new(REPOSITORY))
}

/// A database with a history in an archive.
struct History {
    env: SimEnv,
    db: Db,
    changes: Changes,
    backups: Vec<BackupInfo>,
    /// When each commit was made.
    times: Vec<(u64, SeqNo)>,
}

fn now_ms(env: &SimEnv) -> u64 {
    u64::try_from(env.wall_clock().as_millis()).unwrap()
}

/// Commits with time passing between them, background work, backups at a quarter and a half, a restart in the middle.
fn history(seed: u64, rounds: i32) -> History {
    let env = SimEnv::new(seed);
    let shared = shared(&env);
    let (mut db, changes, mut dice) = (open(&shared), Changes::default(), Dice::new(seed));
    let (mut backups, mut times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        commit(&db, round % 2, &mut dice, &changes).unwrap();
        times.push((now_ms(&env), changes.newest()));
        env.advance(Duration::from_millis(u64::try_from(dice.below(90)).unwrap()));
        work(&db, &mut dice).unwrap();
        if round == rounds / 4 || round == rounds / 2 {
            backups.push(repository(&shared).create(&db).unwrap().backup);
        }
        if round == rounds / 3 {
            db.close().unwrap();
            db = open(&shared);
        }
    }
    db.archive_log().unwrap();
    History { env, db, changes, backups, times }
}

#[test]
fn any_commit_since_a_backup_comes_back() {
    for seed in 1..=2 {
        let History { env, db, changes, backups, .. } = history(seed, 120);
        let env = shared(&env);
        let (oldest, newest) = (backups[0].seqno, changes.newest());
        let mut dice = Dice::new(seed);
        for nth in 0..10 {
            let span = i32::try_from(newest.0 - oldest.0).unwrap();
            let target = SeqNo(oldest.0 + u64::try_from(dice.below(span + 1)).unwrap());
            let dest = PathBuf::from(format!("/restored-{nth}"));
            let report = repository(&env).restore_to(Path::new(ARCHIVE), None, Target::Commit(target), &dest).unwrap();
            assert_eq!(report.seqno, target);
            let base = backups.iter().rfind(|backup| backup.seqno <= target).unwrap();
            assert_eq!(report.backup, base.number, "the newest backup at or below the target");
            check_restored(&env, &dest, RowTier::make, target, &changes, seed);
        }
        let report =
            repository(&env).restore_to(Path::new(ARCHIVE), None, Target::Newest, Path::new("/newest")).unwrap();
        assert_eq!(report.seqno, newest);
        check_restored(&env, Path::new("/newest"), RowTier::make, newest, &changes, seed);
        assert_eq!(everything(&db), changes.state_at(newest), "the source is unharmed");
        let stats = db.archive_stats().unwrap();
        assert_eq!((stats.seqno, stats.waiting_bytes, stats.failure_count), (newest, 0, 0));
    }
}

/// Every commit made before the time is there, and none that was made 100 ms after it or later.
#[test]
fn a_time_comes_back_to_a_tenth_of_a_second() {
    let History { env, db, changes, backups, times } = history(3, 120);
    drop(db);
    let (shared, end) = (shared(&env), times.last().unwrap().0);
    let mut dice = Dice::new(3);
    for nth in 0..10 {
        let span = i32::try_from(end - backups[0].taken_ms - 300).unwrap();
        let at = backups[0].taken_ms + u64::try_from(dice.below(span)).unwrap();
        let dest = PathBuf::from(format!("/restored-{nth}"));
        let report = repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Time(at), &dest).unwrap();
        let before = times.iter().rfind(|(time, _)| *time < at).unwrap().1;
        let after = times.iter().find(|(time, _)| *time >= at + 100).unwrap().1;
        assert!(report.seqno >= before && report.seqno < after, "{at}: {before} <= {} < {after}", report.seqno);
        check_restored(&shared, &dest, RowTier::make, report.seqno, &changes, 3);
    }
    let early = repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Time(1), Path::new("/x"));
    assert!(matches!(early, Err(Error::Unreachable { .. })), "{early:?}");
    let late = repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Time(end + 1000), Path::new("/x"));
    assert!(
        matches!(late, Err(Error::Unreachable { newest, .. }) if newest == changes.newest().0),
        "nobody knows of it yet"
    );
}

fn archived(env: &SimEnv) -> Vec<PathBuf> {
    let files = env.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.starts_with(ARCHIVE) && path.extension().is_some_and(|end| end == "wal")).collect()
}

fn lsn_range(env: &SimEnv, file: &Path) -> (u64, u64) {
    let first = |bytes: Vec<u8>| u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    let files = archived(env);
    let at = files.iter().position(|path| path == file).unwrap();
    (first(env.read_file(file).unwrap()), first(env.read_file(&files[at + 1]).unwrap()))
}

/// A file of the archive that is gone, cut or damaged: the error names the missing positions and the newest commit that can
/// be had, and that commit can indeed be had. Nothing was written by the attempt.
#[test]
fn a_gap_is_named_with_what_can_be_had() {
    let History { env: intact, db, changes, backups, .. } = history(4, 80);
    drop(db);
    let files = archived(&intact);
    let middle = &files[files.len() - 4];
    let (first, next) = lsn_range(&intact, middle);
    for damage in 0..3 {
        let env = intact.reboot(PowerLoss::KeepAll);
        match damage {
            0 => Env::remove(&env, middle).unwrap(),
            1 => env.write_file(middle, &env.read_file(middle).unwrap()[..4096 + 64]).unwrap(),
            _ => env.corrupt(middle, 4096 + 20, 1).unwrap(),
        }
        let shared = shared(&env);
        let restore = |target, dest| repository(&shared).restore_to(Path::new(ARCHIVE), None, target, Path::new(dest));
        let error = restore(Target::Commit(changes.newest()), "/restored").unwrap_err();
        let Error::Unreachable { what, newest, .. } = &error else { panic!("{error:?}") };
        assert!(what.contains(&format!("to {next} are missing")), "{damage}: {error}");
        assert!(damage == 1 || what.contains(&format!("positions {first} to")), "{damage}: {error}");
        assert!(env.files().iter().all(|(path, _)| !path.starts_with("/restored")), "nothing was written");
        let newest = SeqNo(*newest);
        assert!(newest >= backups[1].seqno && newest < changes.newest());
        assert_eq!(restore(Target::Commit(newest), "/restored").unwrap().seqno, newest);
        check_restored(&shared, Path::new("/restored"), RowTier::make, newest, &changes, 4);
    }
    let future = repository(&shared(&intact.reboot(PowerLoss::KeepAll))).restore_to(
        Path::new(ARCHIVE),
        None,
        Target::Commit(changes.newest().next()),
        Path::new("/restored"),
    );
    assert!(matches!(future, Err(Error::Unreachable { newest, .. }) if newest == changes.newest().0));
}

/// In the newest file damage may look like the place where copying stopped; a file may be another database's.
#[test]
fn damage_to_the_newest_file_and_foreign_files_are_refused() {
    // Two databases whose files have the same names, with all their commits in one log file.
    let [(env, _), (other, _)] = [7, 99].map(|seed| {
        let (env, changes, mut dice) = (SimEnv::new(seed), Changes::default(), Dice::new(18));
        let wal = WalOptions { segment_bytes: 60_000, ..options(1 << 30).wal };
        let db = open_at(&shared(&env), Path::new(DIR), Options { wal, ..options(1 << 30) }, RowTier::make).unwrap();
        repository(&shared(&env)).create(&db).unwrap();
        for _ in 0..3 {
            commit(&db, 0, &mut dice, &changes).unwrap();
            db.archive_log().unwrap();
        }
        (env, changes)
    });
    let shared = shared(&env);
    let restore = |dest| repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Newest, Path::new(dest));
    let newest = archived(&env).pop().unwrap();
    env.corrupt(&newest, 4096 + 20, 1).unwrap();
    let error = restore("/a").unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, .. } if *file == newest), "{error}");
    let foreign = archived(&other).pop().unwrap();
    assert_eq!(foreign.file_name(), newest.file_name());
    env.write_file(&newest, &other.read_file(&foreign).unwrap()).unwrap();
    let error = restore("/b").unwrap_err();
    assert!(error.to_string().contains("another database"), "{error}");
}

fn log_files(env: &SimEnv) -> usize {
    env.files()
        .iter()
        .filter(|(path, _)| path.starts_with("/db/wal") && path.extension().is_some_and(|e| e == "wal"))
        .count()
}

/// While the archive cannot be written the log is kept and commits go on; afterwards nothing is missing.
#[test]
fn a_broken_archive_keeps_the_log() {
    let sim = SimEnv::new(5);
    let picky = Arc::new(Picky::new(sim.clone()));
    let env: Arc<dyn Env> = Arc::clone(&picky) as Arc<dyn Env>;
    let (db, changes, mut dice) = (open(&env), Changes::default(), Dice::new(5));
    commit(&db, 0, &mut dice, &changes).unwrap();
    db.backup(Path::new(REPOSITORY)).unwrap();
    picky.refuse(Some(ARCHIVE));
    for round in 0..40 {
        commit(&db, round % 2, &mut dice, &changes).unwrap();
        sim.advance(Duration::from_millis(60));
        while db.flush_step().unwrap() {}
        assert!(db.archive_step().is_err());
    }
    db.flush(None).unwrap();
    let stats = db.archive_stats().unwrap();
    assert!(stats.failure_count >= 40 && stats.last_error.is_some() && stats.waiting_bytes > 4_000, "{stats:?}");
    let kept = log_files(&sim);
    assert!(kept > 8, "{kept} log files are kept");
    picky.refuse(None);
    while db.archive_step().unwrap() {}
    assert!(log_files(&sim) < kept, "they go once they are archived");
    let stats = db.archive_stats().unwrap();
    assert_eq!((stats.waiting_bytes, stats.last_error, stats.skipped_bytes), (0, None, 0));
    repository(&env).restore_to(Path::new(ARCHIVE), None, Target::Newest, Path::new("/restored")).unwrap();
    check_restored(&env, Path::new("/restored"), RowTier::make, changes.newest(), &changes, 5);
}

/// Above the bound the oldest log is given up, with a figure that says so; the gap is refused, and a new backup begins a
/// chain without one.
#[test]
fn a_bound_ends_the_keeping() {
    let sim = SimEnv::new(6);
    let picky = Arc::new(Picky::new(sim.clone()));
    let env: Arc<dyn Env> = Arc::clone(&picky) as Arc<dyn Env>;
    let db = open_at(&env, Path::new(DIR), options(3_000), RowTier::make).unwrap();
    let (changes, mut dice) = (Changes::default(), Dice::new(6));
    commit(&db, 0, &mut dice, &changes).unwrap();
    let first = db.backup(Path::new(REPOSITORY)).unwrap().backup;
    picky.refuse(Some(ARCHIVE));
    for round in 0..60 {
        commit(&db, round % 2, &mut dice, &changes).unwrap();
        if round % 5 == 0 {
            db.flush(None).unwrap();
        }
    }
    db.flush(None).unwrap();
    assert!(db.archive_stats().unwrap().skipped_bytes > 0);
    // A file holds one commit or two, so most of what is kept is headers.
    assert!(db.stats().wal_bytes < 15 * 4_600, "{}", db.stats().wal_bytes);
    picky.refuse(None);
    db.archive_log().unwrap();
    let restore = |target, dest| repository(&env).restore_to(Path::new(ARCHIVE), None, target, Path::new(dest));
    let error = restore(Target::Commit(changes.newest()), "/a").unwrap_err();
    assert!(matches!(error, Error::Unreachable { newest, .. } if newest == first.seqno.0), "{error}");
    db.backup(Path::new(REPOSITORY)).unwrap();
    for _ in 0..10 {
        commit(&db, 0, &mut dice, &changes).unwrap();
    }
    db.archive_log().unwrap();
    restore(Target::Commit(changes.newest()), "/a").unwrap();
    check_restored(&env, Path::new("/a"), RowTier::make, changes.newest(), &changes, 6);
}

/// Commits that are written but not synced may be lost by the database, so the archive must not have them.
#[test]
fn what_is_not_durable_is_not_archived() {
    let (env, db, _) = prepared();
    let commit = |durability| {
        let mut transaction = db.begin().unwrap();
        transaction.put(HYBRID, key(HYBRID, 1), row(HYBRID, 1, 1)).unwrap();
        transaction.commit(durability).unwrap()
    };
    let durable = commit(Durability::Durable);
    for _ in 0..3 {
        commit(Durability::Buffered);
    }
    env.advance(Duration::from_millis(60));
    assert!(db.archive_step().unwrap());
    assert_eq!(db.archive_stats().unwrap().seqno, durable);
    let target = (Target::Newest, Path::new("/restored"));
    let report = repository(&shared(&env)).restore_to(Path::new(ARCHIVE), None, target.0, target.1).unwrap();
    assert_eq!(report.seqno, durable);
    db.archive_log().unwrap();
    assert_eq!(db.archive_stats().unwrap().seqno, SeqNo(durable.0 + 3), "what is synced is");
}

/// What the crash tests below run: commits, log filled and released, archive and backups.
fn workload(env: &SimEnv, db: &Db, changes: &Changes) -> Result<(), Error> {
    let mut dice = Dice::new(7);
    for round in 0..16 {
        commit(db, round % 2, &mut dice, changes)?;
        env.advance(Duration::from_millis(60));
        match round {
            4 | 12 => db.flush(None)?,
            8 => drop(repository(&shared(env)).create(db)?),
            _ => drop(db.archive_step()?),
        }
    }
    db.archive_log()
}

fn prepared() -> (SimEnv, Db, Changes) {
    prepared_with(7)
}

fn prepared_with(seed: u64) -> (SimEnv, Db, Changes) {
    let (env, changes) = (SimEnv::new(seed), Changes::default());
    let db = open(&shared(&env));
    commit(&db, 0, &mut Dice::new(1), &changes).unwrap();
    repository(&shared(&env)).create(&db).unwrap();
    (env, db, changes)
}

/// `safe` commits had been reported as archived.
fn check_after(env: &SimEnv, changes: &Changes, safe: SeqNo, context: &str) {
    let shared = shared(env);
    let restore = |dest| {
        let outcome = repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Newest, Path::new(dest));
        match outcome {
            // Before anything was archived the backup is all there is, and the error says so.
            Err(Error::Unreachable { newest, .. }) if archived(env).is_empty() => {
                let backup = repository(&shared).list()?.backups.pop().unwrap();
                assert_eq!(backup.seqno, SeqNo(newest), "{context}");
                repository(&shared).restore(backup.number, Path::new(dest))
            }
            outcome => outcome,
        }
    };
    // The database is lost: what was reported as archived comes back, and a prefix in any case.
    let report = restore("/lost").unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(report.seqno >= safe, "{context}: {} of {safe} archived commits", report.seqno);
    check_restored(&shared, Path::new("/lost"), RowTier::make, report.seqno, changes, 7);
    // It is not lost: it opens, goes on, and archives without a gap.
    let db = open(&shared);
    assert!(db.stats().read_point >= report.seqno, "{context}: the archive never knows more");
    let seqno = db.stats().read_point;
    assert_eq!(everything(&db), changes.state_at(seqno), "{context}");
    db.archive_log().unwrap_or_else(|error| panic!("{context}: {error}"));
    let report = restore("/again").unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(report.seqno, seqno, "{context}");
    check_restored(&shared, Path::new("/again"), RowTier::make, seqno, changes, 7);
}

#[test]
fn power_loss_at_any_operation_loses_nothing_archived() {
    let (env, db, changes) = prepared();
    let start = env.ops();
    workload(&env, &db, &changes).unwrap();
    let end = env.ops();
    assert!(end - start > 100, "{} operations", end - start);
    drop(db);
    for op in (start..end).step_by(3) {
        let (env, db, changes) = prepared();
        env.crash_at(op);
        let outcome = workload(&env, &db, &changes);
        let context = format!("crash at operation {op}: {:?}", env.op_log().last());
        assert!(outcome.is_err() || !env.crashed(), "{context}: an error was swallowed");
        let safe = db.archive_stats().unwrap().seqno;
        drop(db);
        for loss in [PowerLoss::DropUnsynced, PowerLoss::Random(op)] {
            check_after(&env.reboot(loss), &changes, safe, &format!("{context}, {loss:?}"));
        }
    }
}

/// A failure, or a full disk, at any operation of a copy to the archive: the database goes on, and the next copy catches up.
#[test]
fn a_failed_copy_is_made_good_by_the_next() {
    let prepare = || {
        let (env, db, changes) = prepared();
        let mut dice = Dice::new(8);
        (0..8).for_each(|_| commit(&db, 0, &mut dice, &changes).unwrap());
        // The log is durable, so that a failure is one of the archive.
        db.flush(None).unwrap();
        (env, db, changes)
    };
    let (env, db, _) = prepare();
    let start = env.ops();
    db.archive_log().unwrap();
    let end = env.ops();
    assert!(end - start > 10, "{} operations", end - start);
    for op in start..end {
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            let (env, db, changes) = prepare();
            env.fail_op(op, kind, Repeat::Once);
            let failed = db.archive_log().is_err();
            let stats = db.archive_stats().unwrap();
            assert!(!failed || stats.failure_count == 1, "operation {op}: {stats:?}");
            commit(&db, 1, &mut Dice::new(9), &changes).unwrap();
            db.flush(None).unwrap();
            let safe = db.archive_stats().unwrap().seqno;
            drop(db);
            check_after(&env.kill(), &changes, safe, &format!("{kind:?} at operation {op}"));
        }
    }
}

/// A directory that was put back to an earlier state by other means has another history from there on, under the same file
/// numbers: it is not mixed with the one in the archive.
#[test]
fn another_history_is_not_archived_over_the_first() {
    let (env, db, changes) = prepared();
    db.archive_log().unwrap();
    let earlier = env.reboot(PowerLoss::KeepAll);
    let env = env.reboot(PowerLoss::KeepAll);
    drop(db);
    let db = open(&shared(&env));
    let mut dice = Dice::new(10);
    (0..6).for_each(|_| commit(&db, 0, &mut dice, &changes).unwrap());
    db.archive_log().unwrap();
    for path in archived(&env) {
        earlier.write_file(&path, &env.read_file(&path).unwrap()).unwrap();
    }
    let other = open(&shared(&earlier));
    let (other_changes, mut dice) = (Changes::default(), Dice::new(11));
    other_changes.add(SeqNo(1), changes.state_at(SeqNo(1)).into_iter().map(|(k, v)| (k, Some(v))).collect());
    (0..6).for_each(|_| commit(&other, 0, &mut dice, &other_changes).unwrap());
    let error = other.archive_log().unwrap_err();
    assert!(error.to_string().contains("another history"), "{error}");
    assert_eq!(other.archive_stats().unwrap().failure_count, 1);
    for path in archived(&env) {
        assert_eq!(earlier.read_file(&path).unwrap(), env.read_file(&path).unwrap(), "the first history is as it was");
    }
}

/// A restored database goes on in the same archive under an identity of its own: both histories can be restored.
#[test]
fn a_restored_database_archives_beside_the_first() {
    let History { env, db, changes, backups, .. } = history(12, 40);
    let env = shared(&env);
    let point = SeqNo(backups[1].seqno.0 + 5);
    db.allocate_row_ids(HYBRID, 7).unwrap();
    let archive = Path::new(ARCHIVE);
    repository(&env).restore_to(archive, None, Target::Commit(point), Path::new("/second")).unwrap();
    let second = open_at(&env, Path::new("/second"), options(1 << 30), RowTier::make).unwrap();
    let (second_changes, mut dice) = (Changes::default(), Dice::new(13));
    second_changes.add(point, changes.state_at(point).into_iter().map(|(k, v)| (k, Some(v))).collect());
    let info = second.backup(Path::new(REPOSITORY)).unwrap().backup;
    for _ in 0..20 {
        commit(&db, 0, &mut dice, &changes).unwrap();
        commit(&second, 0, &mut dice, &second_changes).unwrap();
    }
    db.archive_log().unwrap();
    second.archive_log().unwrap();
    let restore =
        |database, dest: &str| repository(&env).restore_to(archive, database, Target::Newest, Path::new(dest));
    assert!(matches!(restore(None, "/x"), Err(Error::Invalid(_))), "which of the two?");
    restore(Some(backups[0].db_id), "/a").unwrap();
    restore(Some(info.db_id), "/b").unwrap();
    check_restored(&env, Path::new("/a"), RowTier::make, changes.newest(), &changes, 12);
    check_restored(&env, Path::new("/b"), RowTier::make, second_changes.newest(), &second_changes, 12);
}

/// Row ids that were given out after the backup are known from the log.
#[test]
fn a_point_in_time_gives_out_no_row_id_twice() {
    let (env, db, changes) = prepared();
    let shared = shared(&env);
    let first = db.allocate_row_ids(HYBRID, 3_000_000).unwrap();
    commit(&db, 0, &mut Dice::new(14), &changes).unwrap();
    db.archive_log().unwrap();
    assert!(db.archive_stats().unwrap().through > Lsn(0));
    repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Newest, Path::new("/restored")).unwrap();
    let restored = open_at(&shared, Path::new("/restored"), harness::backup::options(), RowTier::make).unwrap();
    assert!(restored.allocate_row_ids(HYBRID, 1).unwrap() >= first + 3_000_000);
}

fn log_positions(env: &SimEnv) -> Vec<(PathBuf, u64)> {
    let first = |path: &PathBuf| u64::from_le_bytes(env.read_file(path).unwrap()[40..48].try_into().unwrap());
    archived(env).into_iter().map(|path| (path.clone(), first(&path))).collect()
}

/// The archive is cleared of what no backup needs, all of it and nothing else: whatever could be restored since the oldest
/// backup that is left still can be, whenever the power fails meanwhile, and the database goes on archiving.
#[test]
fn a_pruned_archive_has_what_the_backups_need_and_no_more() {
    let History { env, db, changes, backups, .. } = history(15, 120);
    let shared = shared(&env);
    let restore = |env: &Arc<dyn Env>, target, dest: &str| {
        repository(env).restore_to(Path::new(ARCHIVE), None, target, Path::new(dest))
    };
    let check_from = |env: &Arc<dyn Env>, oldest: &BackupInfo, newest: SeqNo, context: &str| {
        for (nth, target) in [oldest.seqno, oldest.seqno.next(), SeqNo(oldest.seqno.0.midpoint(newest.0)), newest]
            .into_iter()
            .enumerate()
        {
            let dest = format!("/{context}-{nth}");
            let report = restore(env, Target::Commit(target), &dest).unwrap();
            assert_eq!((report.seqno, report.backup >= oldest.number), (target, true), "{context}");
            check_restored(env, Path::new(&dest), RowTier::make, target, &changes, 15);
        }
    };
    for (keep, oldest) in [(2, &backups[0]), (1, &backups[1])] {
        repository(&shared).prune(keep).unwrap();
        let before = log_positions(&env);
        let pruned = repository(&shared).prune_archive(Path::new(ARCHIVE)).unwrap();
        assert_eq!((before.len() - archived(&env).len()) as u64, pruned.file_count);
        assert!(pruned.file_count > 2 && pruned.bytes > 4096, "{pruned:?}");
        assert_eq!(repository(&shared).prune_archive(Path::new(ARCHIVE)).unwrap(), ArchivePruned::default());
        let needless = log_positions(&env).into_iter().skip(1).filter(|(_, at)| *at <= through(&env, oldest));
        assert_eq!(needless.count(), 0, "the first file that is left is the one that the backup ends in");
        check_from(&shared, oldest, changes.newest(), &format!("keep-{keep}"));
    }
    let early = restore(&shared, Target::Commit(backups[0].seqno.next()), "/early");
    assert!(matches!(early, Err(Error::Unreachable { .. })), "{early:?}");

    db.close().unwrap();
    let db = open(&shared);
    let mut dice = Dice::new(16);
    (0..10).for_each(|_| commit(&db, 0, &mut dice, &changes).unwrap());
    db.archive_log().unwrap();
    check_from(&shared, &backups[1], changes.newest(), "later");
}

/// Stopped half-way, what is left of the archive is one piece.
#[test]
fn power_loss_while_an_archive_is_pruned_costs_nothing() {
    let mut removed = Vec::new();
    for stop in 0..4 {
        let History { env, db, changes, backups, .. } = history(17, 60);
        repository(&shared(&env)).prune(1).unwrap();
        let count = archived(&env).len();
        env.crash_at(env.ops() + stop);
        let outcome = repository(&shared(&env)).prune_archive(Path::new(ARCHIVE));
        assert!(outcome.is_err() && env.crashed());
        drop(db);
        let env = env.reboot(PowerLoss::Random(stop));
        removed.push(count - archived(&env).len());
        let shared = shared(&env);
        for (nth, target) in [backups[1].seqno.next(), changes.newest()].into_iter().enumerate() {
            let dest = PathBuf::from(format!("/restored-{nth}"));
            repository(&shared).restore_to(Path::new(ARCHIVE), None, Target::Commit(target), &dest).unwrap();
            check_restored(&shared, &dest, RowTier::make, target, &changes, 17);
        }
    }
    assert!(removed.iter().any(|count| *count > 0), "{removed:?}");
}

/// What nobody can say is not needed stays.
#[test]
fn an_archive_is_not_pruned_of_what_may_be_needed() {
    let History { env, db, backups, .. } = history(16, 60);
    let shared = shared(&env);
    let all = archived(&env);
    let record = Path::new(REPOSITORY).join("backups/0000000001.backup");
    env.corrupt(&record, 50, 1).unwrap();
    assert!(matches!(repository(&shared).prune_archive(Path::new(ARCHIVE)), Err(Error::Corrupt { .. })));
    env.corrupt(&record, 50, 1).unwrap();
    let other = Repository::new(Arc::clone(&shared), Path::new("/other"));
    let second = open_at(&shared, Path::new("/second"), options(1 << 30), RowTier::make).unwrap();
    other.create(&second).unwrap();
    assert_eq!(other.prune_archive(Path::new(ARCHIVE)).unwrap(), ArchivePruned::default(), "it knows nothing of it");
    assert!(all.iter().all(|path| env.read_file(path).is_ok()));
    // A header that cannot be read may be that of a file that is needed.
    repository(&shared).prune(1).unwrap();
    let positions = log_positions(&env);
    let needed = positions.iter().rposition(|(_, first)| *first <= through(&env, &backups[1])).unwrap();
    env.corrupt(&positions[needed].0, 20, 1).unwrap();
    repository(&shared).prune_archive(Path::new(ARCHIVE)).unwrap();
    let left = archived(&env);
    assert!(left.contains(&positions[needed].0) && left.contains(&positions[needed - 1].0));
    drop(db);
}

/// Where the log of the database ended with this backup's commit, out of its record.
fn through(env: &SimEnv, backup: &BackupInfo) -> u64 {
    let record = FileKind::Backup.path(Path::new(REPOSITORY), FileId(backup.number));
    u64::from_le_bytes(env.read_file(&record).unwrap()[48..56].try_into().unwrap())
}

/// A folder without an archive is no archive without commits.
#[test]
fn the_newest_state_is_not_found_in_a_folder_that_has_none() {
    let (env, db, changes) = prepared();
    commit(&db, 0, &mut Dice::new(3), &changes).unwrap();
    db.archive_log().unwrap();
    let shared = shared(&env);
    let restore = |archive| repository(&shared).restore_to(Path::new(archive), None, Target::Newest, Path::new("/x"));
    assert!(matches!(restore("/archvie"), Err(Error::Unreachable { .. })));
    assert_eq!(restore(ARCHIVE).unwrap().seqno, changes.newest());
}

/// Files of the log with notes (version 2) are written as they were, and read: the fixture is written with
/// `UPDATE_GOLDENFILES=1` if it is missing, and never touched again.
#[test]
fn a_log_with_notes_is_written_as_it_was() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v2/wal.bin"));
    let (dir, db_id) = (Path::new(DIR), *b"strata compat v2");
    let next = std::sync::atomic::AtomicU64::new(2);
    let next_file = Arc::new(move || FileId(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
    let options = WalOptions { segment_bytes: 8192, fill_bytes: 0, ..WalOptions::default() };
    let (sim, gate) = (SimEnv::new(1), Some(ArchiveGate::new(1 << 20)));
    let (wal, _) =
        Wal::open_archived(shared(&sim), dir, db_id, None, options, next_file, gate, &mut |_, _| Ok(())).unwrap();
    wal.note(RecordKind::Clock, &1_700_000_000_000_u64.to_le_bytes()).unwrap();
    wal.append(RecordKind::Commit, SeqNo(1), &[b"one"]).unwrap();
    wal.note(RecordKind::RowIds, &[10, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let end = wal.append(RecordKind::Commit, SeqNo(2), &[b"two"]).unwrap();
    wal.sync_to(end).unwrap();
    let written = sim.read_file(&FileKind::Wal.path(dir, FileId(2))).unwrap();
    let env = OsEnv::new();
    if std::env::var_os("UPDATE_GOLDENFILES").is_some()
        && let Ok(file) = env.open(path, OpenMode::CreateNew)
    {
        file.write_at(0, &written).unwrap();
    }
    let file = env.open(path, OpenMode::Read).unwrap();
    let mut stored = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut stored).unwrap();
    assert!(written == stored, "the bytes of format version 2 changed");

    let machine = SimEnv::new(2);
    machine.create_dir_all(&dir.join("wal")).unwrap();
    machine.write_file(&FileKind::Wal.path(dir, FileId(2)), &stored).unwrap();
    let mut kinds = Vec::new();
    replay(&machine, dir, &db_id, None, &mut |_, frame| {
        kinds.push((frame.kind, frame.seqno.0, frame.payload.len()));
        Ok(())
    })
    .unwrap();
    assert_eq!(kinds, [(4, 0, 8), (1, 1, 3), (5, 1, 12), (1, 2, 3)]);
}
