//! Row locks and commits: a locked row changes for nobody else, and whoever waits for one learns what became of it.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, contents, key, row, schema};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::row::{RowCodec, RowRef};
use strata_oltp::{Db, Error, LockMode, Options, Result, SeqNo, Transaction, TransactionOptions};

const NOW: Option<Duration> = Some(Duration::ZERO);

fn open(options: Options) -> Db {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap()
}

fn put(transaction: &mut Transaction, id: i32, amount: i64) {
    transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, amount)).unwrap();
}

fn lock(transaction: &mut Transaction, id: i32, timeout: Option<Duration>) -> Result<()> {
    transaction.lock(HYBRID, &key(HYBRID, id), LockMode::Exclusive, timeout)
}

fn commit(transaction: Transaction) -> Result<SeqNo> {
    transaction.commit(Durability::Buffered)
}

/// A write of row `id` that waits for at most `timeout` when it commits.
fn writer(db: &Db, id: i32, timeout: Option<Duration>) -> Transaction {
    let options = TransactionOptions { lock_timeout: timeout, ..TransactionOptions::default() };
    let mut transaction = db.begin_with(options).unwrap();
    put(&mut transaction, id, 1);
    transaction
}

#[test]
fn nobody_else_commits_a_change_to_a_locked_row() {
    let db = open(Options::default());
    for mode in [LockMode::Shared, LockMode::Exclusive] {
        let mut holder = db.begin().unwrap();
        holder.lock(HYBRID, &key(HYBRID, 1), mode, None).unwrap();
        let refused = commit(writer(&db, 1, NOW));
        assert!(matches!(refused, Err(Error::LockTimeout { table: HYBRID, .. })), "{mode:?}");
        commit(writer(&db, 2, NOW)).unwrap();
        put(&mut holder, 1, 5);
        commit(holder).unwrap();
        commit(writer(&db, 1, NOW)).unwrap();
    }
}

/// Many rows written and few locked, which is looked up the other way round.
#[test]
fn a_large_commit_meets_a_locked_row() {
    let db = open(Options::default());
    let mut holder = db.begin().unwrap();
    lock(&mut holder, 77, None).unwrap();
    let mut large = writer(&db, 0, NOW);
    (1..200).for_each(|id| put(&mut large, id, 1));
    assert!(matches!(commit(large), Err(Error::LockTimeout { .. })));
}

#[test]
fn a_commit_waits_for_the_holder_and_is_checked_then() {
    let db = open(Options::default());
    for (changes, succeeds) in [(false, true), (true, false)] {
        let mut holder = db.begin().unwrap();
        lock(&mut holder, 1, None).unwrap();
        let waiting = writer(&db, 1, None);
        std::thread::scope(|scope| {
            let (sender, done) = mpsc::channel();
            scope.spawn(move || sender.send(commit(waiting)).unwrap());
            assert!(done.recv_timeout(Duration::from_millis(30)).is_err(), "the row is locked");
            if changes {
                put(&mut holder, 1, 9);
            } else {
                put(&mut holder, 2, 9);
            }
            commit(holder).unwrap();
            let outcome = done.recv().unwrap();
            assert_eq!(outcome.is_ok(), succeeds, "{outcome:?}");
            assert_eq!(matches!(outcome, Err(Error::Conflict { .. })), !succeeds, "{outcome:?}");
        });
    }
}

/// As in PostgreSQL at repeatable read: the lock is refused if the row is not what the snapshot shows any more.
#[test]
fn a_lock_on_a_row_that_changed_is_a_conflict() {
    let db = open(Options::default());
    let mut late = db.begin().unwrap();
    commit(writer(&db, 1, NOW)).unwrap();
    assert!(matches!(lock(&mut late, 1, None), Err(Error::Conflict { table: HYBRID, .. })));
    lock(&mut late, 2, None).unwrap();
    // The refused lock is not held.
    lock(&mut db.begin().unwrap(), 1, NOW).unwrap();

    // The same after waiting.
    let mut holder = db.begin().unwrap();
    lock(&mut holder, 1, None).unwrap();
    let mut waiting = db.begin().unwrap();
    std::thread::scope(|scope| {
        let waited = scope.spawn(|| lock(&mut waiting, 1, None));
        put(&mut holder, 1, 9);
        commit(holder).unwrap();
        assert!(matches!(waited.join().unwrap(), Err(Error::Conflict { .. })));
    });
}

#[test]
fn locks_end_with_their_transaction_or_savepoint() {
    let db = open(Options::default());
    let mut holder = db.begin().unwrap();
    lock(&mut holder, 1, None).unwrap();
    let savepoint = holder.savepoint();
    lock(&mut holder, 2, None).unwrap();
    holder.rollback_to(&savepoint);
    commit(writer(&db, 2, NOW)).unwrap();
    assert!(commit(writer(&db, 1, NOW)).is_err(), "taken before the savepoint");
    drop(holder);
    commit(writer(&db, 1, NOW)).unwrap();

    let mut reader = db.begin().unwrap();
    lock(&mut reader, 1, None).unwrap();
    commit(reader).unwrap();
    commit(writer(&db, 1, NOW)).unwrap();
}

#[test]
fn two_transactions_that_lock_crosswise_do_not_both_wait() {
    let db = open(Options::default());
    let (mut a, mut b) = (db.begin().unwrap(), db.begin().unwrap());
    lock(&mut a, 1, None).unwrap();
    lock(&mut b, 2, None).unwrap();
    let outcomes = std::thread::scope(|scope| {
        // Whoever is refused lets go at once, so that the other one gets on.
        let first = scope.spawn(move || lock(&mut a, 2, None));
        let second = scope.spawn(move || lock(&mut b, 1, None));
        [first.join().unwrap(), second.join().unwrap()]
    });
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Deadlock { .. }))).count();
    assert_eq!((refused, outcomes.iter().filter(|outcome| outcome.is_ok()).count()), (1, 1), "{outcomes:?}");
}

/// A commit waits like a lock does, so it can close a circle too.
#[test]
fn a_commit_can_be_the_victim_of_a_deadlock() {
    let db = open(Options::default());
    let (mut a, mut b) = (db.begin().unwrap(), db.begin().unwrap());
    lock(&mut a, 1, None).unwrap();
    lock(&mut b, 2, None).unwrap();
    put(&mut a, 2, 1);
    put(&mut b, 1, 1);
    let outcomes = std::thread::scope(|scope| {
        let (first, second) = (scope.spawn(|| commit(a)), scope.spawn(|| commit(b)));
        [first.join().unwrap(), second.join().unwrap()]
    });
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Deadlock { .. }))).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
}

#[test]
fn locks_are_paid_for_from_the_budget() {
    let db = open(Options { memory_bytes_max: 8 << 20, block_cache_bytes_max: 0, ..Options::default() });
    let mut holder = db.begin().unwrap();
    let refused = (0..100_000).find_map(|id| lock(&mut holder, id, None).err());
    assert!(matches!(refused, Some(Error::LimitExceeded { .. })), "{refused:?}");
    drop(holder);
    assert_eq!(db.budget().usage_by_consumer().into_iter().find(|(name, _)| *name == "transactions").unwrap().1, 0);
}

/// Counters raised by many, each under a lock: every raise counts, and nobody meets a conflict after the lock.
#[test]
fn read_modify_write_under_a_lock_loses_nothing() {
    let db = open(Options { memtable_bytes_max: 4_000, idle_flush_ms: 5, ..Options::default() });
    db.start_background();
    let amount = |transaction: &Transaction, id: i32| {
        let found = transaction.get(&schema(HYBRID), &key(HYBRID, id)).unwrap();
        found.map_or(0, |bytes| RowRef::new(&RowCodec::new(&schema(HYBRID)), &bytes).unwrap().i64(1))
    };
    std::thread::scope(|scope| {
        for thread in 0..4i32 {
            let (db, amount) = (&db, &amount);
            scope.spawn(move || {
                for nth in 0..100i32 {
                    let (first, second) = ((nth + thread) % 3, (nth * 7 + thread * 2) % 3);
                    loop {
                        let mut transaction = db.begin().unwrap();
                        // Crosswise on purpose: circles are refused, and tried again.
                        let locked =
                            lock(&mut transaction, first, None).and_then(|()| lock(&mut transaction, second, None));
                        match locked {
                            Ok(()) => {}
                            Err(Error::Conflict { .. } | Error::Deadlock { .. }) => continue,
                            Err(error) => panic!("{error}"),
                        }
                        let raised = amount(&transaction, first) + 1;
                        put(&mut transaction, first, raised);
                        commit(transaction).unwrap();
                        break;
                    }
                }
            });
        }
    });
    let last = db.begin().unwrap();
    assert_eq!((0..3).map(|id| amount(&last, id)).sum::<i64>(), 400);
    assert_eq!(contents(last.snapshot(), HYBRID).len(), 3);
}
