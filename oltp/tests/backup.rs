//! Backups: what they hold, what they share, and that nothing that goes wrong while one is made, pruned or restored harms
//! another one or the database.
//!
//! Under load, at random points: `harness::backup`. Here besides: power loss and failure at every operation, damage to
//! every file, a full disk, two databases in one repository.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use harness::backup::{
    Changes, Dice, Picky, REPOSITORY, check_restored, commit, everything, open_at, options, populated, under_load,
};
use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, key, row};
use strata_oltp::backup::Repository;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, Repeat, SimEnv};
use strata_oltp::wal::{Tail, replay};
use strata_oltp::{Db, Error, SeqNo};

fn shared(env: &SimEnv) -> Arc<dyn Env> {
    Arc::new(env.clone())
}

fn repository(env: &SimEnv) -> Repository {
    Repository::new(shared(env), Path::new(REPOSITORY))
}

fn open(env: &SimEnv, dir: &str) -> Db {
    open_at(&shared(env), Path::new(dir), options(), RowTier::make).unwrap()
}

/// `STRATA_BACKUPS=100` takes that many instead of 40.
#[test]
fn backups_under_load_restore_to_their_commit() {
    let count: usize = std::env::var("STRATA_BACKUPS").map_or(40, |count| count.parse().unwrap());
    for seed in 1..=count.div_ceil(10) {
        under_load(RowTier::make, seed as u64, 10);
    }
}

#[test]
fn backups_share_files_and_pruning_leaves_what_others_name() {
    let env = SimEnv::new(1);
    let (changes, mut dice) = (Changes::default(), Dice::new(1));
    let db = populated(&env, RowTier::make, 1, &changes).unwrap();
    let repository = repository(&env);
    let first = repository.create(&db).unwrap();
    assert!(first.copied_count > 2 && first.shared_count == 0, "{first:?}");
    commit(&db, 0, &mut dice, &changes).unwrap();
    let second = repository.create(&db).unwrap();
    assert!(second.copied_count <= 4 && second.shared_count >= 8, "new runs and marks, nothing else: {second:?}");
    let third = repository.create(&db).unwrap();
    assert_eq!((third.copied_count, third.backup.seqno), (0, second.backup.seqno), "nothing is new");
    db.compact(HYBRID).unwrap();

    assert_eq!(repository.prune(2).unwrap(), [1]);
    repository.delete(3).unwrap();
    assert!(repository.verify().unwrap().damaged.is_empty());
    repository.restore(2, Path::new("/restored")).unwrap();
    check_restored(&shared(&env), Path::new("/restored"), RowTier::make, second.backup.seqno, &changes, 1);
    assert!(matches!(repository.restore(1, Path::new("/other")), Err(Error::Invalid(_))));
    assert!(matches!(repository.restore(2, Path::new("/restored")), Err(Error::Invalid(_))), "not over a database");
    assert!(matches!(repository.delete(1), Err(Error::Invalid(_))));
    assert!(matches!(repository.prune(0), Err(Error::Invalid(_))));
    repository.delete(2).unwrap();
    let left = env.files().into_iter().filter(|(path, _)| path.starts_with(REPOSITORY)).count();
    assert_eq!(left, 1, "only the lock file is left");
}

/// A restored database and its original may go on side by side, and back up into one repository: file numbers mean
/// different files in each.
#[test]
fn a_restored_database_is_another_one() {
    let env = SimEnv::new(2);
    let (changes, mut dice) = (Changes::default(), Dice::new(2));
    let db = populated(&env, RowTier::make, 2, &changes).unwrap();
    let repository = repository(&env);
    let first = repository.create(&db).unwrap().backup;
    repository.restore(first.number, Path::new("/restored")).unwrap();
    let copy = open(&env, "/restored");
    let copy_changes = Changes::default();
    copy_changes.add(first.seqno, changes.state_at(first.seqno).into_iter().map(|(k, v)| (k, Some(v))).collect());
    for _ in 0..5 {
        commit(&db, 0, &mut dice, &changes).unwrap();
        commit(&copy, 0, &mut dice, &copy_changes).unwrap();
    }
    let second = repository.create(&db).unwrap().backup;
    let third = repository.create(&copy).unwrap().backup;
    assert_eq!((first.db_id, second.db_id == third.db_id), (second.db_id, false));
    repository.restore(second.number, Path::new("/a")).unwrap();
    repository.restore(third.number, Path::new("/b")).unwrap();
    check_restored(&shared(&env), Path::new("/a"), RowTier::make, second.seqno, &changes, 2);
    check_restored(&shared(&env), Path::new("/b"), RowTier::make, third.seqno, &copy_changes, 2);
    assert_eq!(repository.prune(1).unwrap(), [first.number], "one of each database stays");
}

/// Every file of a repository, damaged at several places, cut, or gone: verify names it, and a restore that needs it
/// refuses, naming it too.
#[test]
fn damage_is_named_and_never_restored() {
    let env = SimEnv::new(3);
    let changes = Changes::default();
    let db = populated(&env, RowTier::make, 3, &changes).unwrap();
    let first = repository(&env).create(&db).unwrap().backup;
    drop(db);
    let files: Vec<_> =
        env.files().into_iter().filter(|(path, bytes)| path.starts_with(REPOSITORY) && *bytes > 0).collect();
    assert!(files.len() as u64 > first.file_count);
    for (path, bytes) in files {
        for damage in 0..4 {
            let env = env.reboot(PowerLoss::KeepAll);
            match damage {
                0 => env.corrupt(&path, 0, 0x40).unwrap(),
                1 => env.corrupt(&path, bytes / 2, 1).unwrap(),
                2 => env.write_file(&path, &env.read_file(&path).unwrap()[..bytes as usize - 1]).unwrap(),
                _ => Env::remove(&env, &path).unwrap(),
            }
            if damage == 3 && path.extension().unwrap() == "backup" {
                continue;
            }
            let damaged = repository(&env).verify().unwrap().damaged;
            assert_eq!(damaged.len(), 1, "{} damage {damage}: {damaged:?}", path.display());
            assert!(names(&damaged[0], &path), "{:?}", damaged[0]);
            let error = repository(&env).restore(1, Path::new("/restored")).unwrap_err();
            assert!(names(&error, &path), "{error:?}");
            assert!(
                open_at(&shared(&env), Path::new("/restored"), options(), RowTier::make).is_err()
                    || env.files().iter().all(|(path, _)| !path.starts_with("/restored/runs")),
                "no half database opens"
            );
        }
    }
}

fn names(error: &Error, path: &Path) -> bool {
    matches!(error, Error::Corrupt { file, .. } | Error::Io { file, .. } if file == path)
}

/// While a record is damaged nothing is removed, for it may name anything; the damaged backup itself can be deleted.
#[test]
fn a_damaged_record_keeps_files_from_being_removed() {
    let env = SimEnv::new(4);
    let changes = Changes::default();
    let db = populated(&env, RowTier::make, 4, &changes).unwrap();
    let repository = repository(&env);
    let first = repository.create(&db).unwrap().backup;
    db.compact(HYBRID).unwrap();
    repository.create(&db).unwrap();
    let record = Path::new(REPOSITORY).join("backups/0000000001.backup");
    env.corrupt(&record, 50, 1).unwrap();
    assert!(matches!(repository.prune(1), Err(Error::Corrupt { .. })));
    let listing = repository.list().unwrap();
    assert_eq!((listing.backups.len(), listing.damaged.len()), (1, 1));
    repository.create(&db).unwrap();
    repository.delete(2).unwrap();
    env.corrupt(&record, 50, 1).unwrap();
    repository.restore(1, Path::new("/restored")).unwrap();
    check_restored(&shared(&env), Path::new("/restored"), RowTier::make, first.seqno, &changes, 4);
    env.corrupt(&record, 50, 1).unwrap();
    repository.delete(1).unwrap();
    assert!(repository.verify().unwrap().damaged.is_empty());
}

/// The steps that change a repository, after a first backup that must survive them all.
fn steps(env: &SimEnv, db: &Db, changes: &Changes) -> Result<(), Error> {
    let (repository, mut dice) = (repository(env), Dice::new(5));
    for number in 2..5 {
        commit(db, 0, &mut dice, changes)?;
        if number == 3 {
            db.compact(HYBRID)?;
        }
        repository.create(db)?;
    }
    repository.delete(3)?;
    repository.restore(4, Path::new("/restored"))?;
    db.checkpoint(Path::new("/checkpoint"))?;
    repository.prune(1).map(drop)
}

fn check_after(env: &SimEnv, changes: &Changes, context: &str) {
    let repository = repository(env);
    let listing = repository.list().unwrap();
    assert!(listing.damaged.is_empty() && !listing.backups.is_empty(), "{context}: {:?}", listing.damaged);
    let report = repository.verify().unwrap();
    assert!(report.damaged.is_empty(), "{context}: {:?}", report.damaged);
    for backup in &listing.backups {
        let dest = format!("/check-{}", backup.number);
        repository.restore(backup.number, Path::new(&dest)).unwrap();
        let copy = open(env, &dest);
        assert_eq!(
            (copy.stats().read_point, everything(&copy)),
            (backup.seqno, changes.state_at(backup.seqno)),
            "{context}"
        );
    }
    // The folders that were being written to are whole or no database.
    for dest in ["/restored", "/checkpoint"] {
        let tier = RowTier::make(&shared(env), Path::new(dest));
        if strata_oltp::manifest::load(env, Path::new(dest)).is_ok_and(|found| found.is_some()) {
            let copy = Db::open(shared(env), Path::new(dest), options(), tier).unwrap();
            harness::register(&copy);
            assert_eq!(everything(&copy), changes.state_at(copy.stats().read_point), "{context}: {dest}");
        }
    }
    let db = open(env, DIR);
    let seqno = db.stats().read_point;
    assert_eq!(everything(&db), changes.state_at(seqno), "{context}: the source is unharmed");
    let next = repository.create(&db).unwrap().backup;
    assert_eq!(next.seqno, seqno, "{context}");
    let leftovers: BTreeSet<_> =
        env.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(REPOSITORY)).collect();
    assert!(
        leftovers.iter().all(|path| path.extension().is_none_or(|extension| extension != "tmp")),
        "{context}: {leftovers:?}"
    );
    repository.prune(1).unwrap();
    let left = env.files().into_iter().filter(|(path, _)| path.starts_with(REPOSITORY)).count() as u64;
    assert_eq!(left, next.file_count + 2, "{context}: leftovers go with the next backup and prune");
}

fn prepared(seed: u64) -> (SimEnv, Db, Changes) {
    let (env, changes) = (SimEnv::new(seed), Changes::default());
    let db = populated(&env, RowTier::make, 5, &changes).unwrap();
    repository(&env).create(&db).unwrap();
    (env, db, changes)
}

/// Commits that are known to a model only if they were acknowledged: one may have been in flight.
#[test]
fn power_loss_at_any_operation_harms_no_other_backup() {
    let (env, db, changes) = prepared(5);
    let start = env.ops();
    steps(&env, &db, &changes).unwrap();
    let end = env.ops();
    assert!(end - start > 100, "{} operations", end - start);
    drop(db);
    for op in (start..end).step_by(3) {
        let (env, db, changes) = prepared(5);
        env.crash_at(op);
        let outcome = steps(&env, &db, &changes);
        let context = format!("crash at operation {op}: {:?}", env.op_log().last());
        assert!(outcome.is_err() || !env.crashed(), "{context}: an error was swallowed");
        drop(db);
        for loss in [PowerLoss::DropUnsynced, PowerLoss::Random(op)] {
            check_after(&env.reboot(loss), &changes, &format!("{context}, {loss:?}"));
        }
    }
}

#[test]
fn a_failure_or_full_disk_at_any_operation_harms_no_other_backup() {
    let (env, db, changes) = prepared(6);
    let start = env.ops();
    steps(&env, &db, &changes).unwrap();
    let end = env.ops();
    drop(db);
    for op in (start..end).step_by(5) {
        for (kind, repeat) in [(ErrorKind::Other, Repeat::Once), (ErrorKind::StorageFull, Repeat::Forever)] {
            let (env, db, changes) = prepared(6);
            env.fail_op(op, kind, repeat);
            let _ = steps(&env, &db, &changes);
            env.clear_faults();
            drop(db);
            check_after(
                &env.kill(),
                &changes,
                &format!("{kind:?} {repeat:?} at operation {op}: {:?}", env.op_log().get(op as usize)),
            );
        }
    }
}

/// A folder on another file system cannot be linked to: the files are copied, and the report says so.
#[test]
fn a_checkpoint_on_another_file_system_is_copied() {
    let sim = SimEnv::new(7);
    let changes = Changes::default();
    let db = populated(&sim, RowTier::make, 7, &changes).unwrap();
    let linked = db.checkpoint(Path::new("/linked")).unwrap();
    let copy = strata_oltp::manifest::load(&sim, Path::new("/linked")).unwrap().unwrap();
    let log = replay(&sim, Path::new("/linked"), &copy.db_id, copy.version.wal_start, &mut |_, _| Ok(())).unwrap();
    assert_eq!(log.tail, Tail::Closed, "damage to its end would pass for a write cut short");
    assert!(linked.linked_count > 2 && linked.copied_count == 0, "{linked:?}");
    check_restored(&shared(&sim), Path::new("/linked"), RowTier::make, linked.seqno, &changes, 7);
    db.close().unwrap();

    let env: Arc<dyn Env> = Arc::new(Picky::without_links(sim));
    let db = open_at(&env, Path::new(DIR), options(), RowTier::make).unwrap();
    let copied = db.checkpoint(Path::new("/copied")).unwrap();
    assert_eq!((copied.linked_count, copied.copied_count, copied.seqno), (0, linked.linked_count, linked.seqno));
    check_restored(&env, Path::new("/copied"), RowTier::make, copied.seqno, &changes, 7);
}

/// Row ids that a commit of a copy uses are not given out again by it.
#[test]
fn a_copy_gives_out_no_row_id_twice() {
    let env = SimEnv::new(8);
    let db = open(&env, DIR);
    let first = db.allocate_row_ids(HYBRID, 10).unwrap();
    let mut transaction = db.begin().unwrap();
    transaction.put(HYBRID, key(HYBRID, 1), row(HYBRID, 1, 1)).unwrap();
    assert_eq!(transaction.commit(Durability::Durable).unwrap(), SeqNo(1));
    db.checkpoint(Path::new("/copy")).unwrap();
    assert!(open(&env, "/copy").allocate_row_ids(HYBRID, 1).unwrap() >= first + 10);
}

/// A directory that was put back to an earlier state by other means gives the same file numbers to other files. What an
/// earlier backup has under these numbers is not taken for them.
#[test]
fn files_of_one_name_and_other_content_are_copied_anew() {
    let commit = |db: &Db, table, id, amount: Option<i64>| {
        let mut transaction = db.begin().unwrap();
        match amount {
            Some(amount) => transaction.put(table, key(table, id), row(table, id, amount)).unwrap(),
            None => transaction.delete(table, key(table, id)).unwrap(),
        }
        transaction.commit(Durability::Durable).unwrap();
    };
    // Either everything is another, or only which rows of a segment are marked.
    for rewrites in [true, false] {
        let (env, db, _) = prepared(9);
        (0..6).for_each(|id| commit(&db, HYBRID, id, Some(0)));
        db.compact(HYBRID).unwrap();
        db.close().unwrap();
        let write = |amount: i64| {
            let db = open(&env, DIR);
            for id in (0..6).filter(|_| rewrites) {
                commit(&db, HYBRID, id, Some(amount));
                commit(&db, ROW, id, Some(amount));
                if id == 3 {
                    db.convert(HYBRID).unwrap();
                }
            }
            commit(&db, HYBRID, i32::try_from(amount).unwrap(), None);
            repository(&env).create(&db).unwrap();
            everything(&db)
        };
        let database = || env.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with(DIR));
        let earlier: Vec<_> = database().map(|path| (env.read_file(&path).unwrap(), path)).collect();
        write(1);
        database().for_each(|path| Env::remove(&env, &path).unwrap());
        earlier.iter().for_each(|(bytes, path)| env.write_file(path, bytes).unwrap());
        let expected = write(2);
        assert_eq!(repository(&env).list().unwrap().backups.len(), 3);
        repository(&env).restore(3, Path::new("/restored")).unwrap();
        let restored = everything(&open(&env, "/restored"));
        let differing = expected.iter().filter(|(key, row)| restored.get(*key) != Some(row)).count();
        assert_eq!((differing, restored.len()), (0, expected.len()), "rewritten: {rewrites}");
    }
}

/// A file that is gone from the repository is copied again; a run that is damaged in the database is not copied at all.
#[test]
fn backups_mend_what_is_gone_and_refuse_what_is_damaged() {
    let (env, db, _) = prepared(10);
    let repository = repository(&env);
    let stored = |env: &SimEnv| {
        let files = env.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.starts_with("/repository/files")).collect::<Vec<_>>()
    };
    let gone = stored(&env).pop().unwrap();
    Env::remove(&env, &gone).unwrap();
    assert_eq!(repository.verify().unwrap().damaged.len(), 1);
    assert_eq!(repository.create(&db).unwrap().copied_count, 1);
    assert!(repository.verify().unwrap().damaged.is_empty());
    let mut transaction = db.begin().unwrap();
    transaction.put(HYBRID, key(HYBRID, 1), row(HYBRID, 1, 5)).unwrap();
    transaction.commit(Durability::Durable).unwrap();
    db.flush(None).unwrap();
    let run = env.files().into_iter().map(|(path, _)| path).rfind(|path| path.starts_with("/db/runs")).unwrap();
    env.corrupt(&run, 3, 1).unwrap();
    let error = repository.create(&db).unwrap_err();
    assert!(names(&error, &run), "{error:?}");
    assert!(names(&db.verify().unwrap_err(), &run), "and a check of the open database says so too");
    assert_eq!(repository.list().unwrap().backups.len(), 2);
}

#[test]
fn a_repository_in_use_is_refused() {
    let (env, db, _) = prepared(11);
    let lock = env.lock(&Path::new(REPOSITORY).join("LOCK")).unwrap();
    let (repository, dest) = (repository(&env), Path::new("/x"));
    let is_locked = |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::Locked { .. })), "{outcome:?}");
    is_locked(repository.create(&db).map(drop));
    is_locked(repository.verify().map(drop));
    is_locked(repository.restore(1, dest).map(drop));
    is_locked(repository.prune(1).map(drop));
    is_locked(repository.prune_archive(dest).map(drop));
    is_locked(repository.delete(1));
    drop(lock);
    repository.delete(1).unwrap();
}
