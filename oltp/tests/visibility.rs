//! When a commit may be seen: never before its acknowledgement could be trusted, always after.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::row_tier::RowTier;
use harness::{contents, key, row, schema};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::schema::StorageKind;
use strata_oltp::{Db, Options, Result, SeqNo, TableId};

const TABLE: TableId = TableId(10);

fn open(env: &SimEnv) -> Db {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let dir = Path::new("/db");
    let db = Db::open(Arc::clone(&shared), dir, Options::default(), RowTier::make(&shared, dir)).unwrap();
    db.register_table(schema(TABLE), StorageKind::Hybrid);
    db
}

fn put(db: &Db, id: i32, durability: Durability) -> Result<SeqNo> {
    let mut transaction = db.begin()?;
    transaction.put(TABLE, key(TABLE, id), row(TABLE, id, 1))?;
    transaction.commit(durability)
}

/// A durable commit whose sync hangs, and a buffered one behind it that needs no sync of its own: readers must not see
/// the first, or power loss would take back what they read, and so not the second, or they would not see a prefix.
#[test]
fn nobody_reads_a_durable_commit_before_it_is_durable() {
    let env = SimEnv::new(1);
    let db = open(&env);
    put(&db, 1, Durability::Durable).unwrap();
    env.hold_syncs(true);
    std::thread::scope(|scope| {
        let durable = scope.spawn(|| put(&db, 2, Durability::Durable));
        env.await_held_syncs(1);
        let buffered = scope.spawn(|| put(&db, 3, Durability::Buffered));
        // The wait can only hide a failure, never make one.
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(300) {
            assert_eq!(contents(&db.snapshot(), TABLE).len(), 1, "read a commit that a power loss would take back");
        }
        env.hold_syncs(false);
        durable.join().unwrap().unwrap();
        buffered.join().unwrap().unwrap();
    });
    let seen = contents(&db.snapshot(), TABLE);
    assert_eq!(seen.len(), 3, "P4: acknowledged is visible");
    let survivors = contents(&open(&env.reboot(PowerLoss::DropUnsynced)).snapshot(), TABLE);
    assert!(survivors.contains_key(&key(TABLE, 2)), "P1");
}

/// A sync that fails under one commit must not leave the other waiting for ever.
#[test]
fn a_failed_sync_fails_every_commit_that_waits_for_it() {
    let env = SimEnv::new(2);
    let db = open(&env);
    put(&db, 1, Durability::Durable).unwrap();
    env.hold_syncs(true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| put(&db, 2, Durability::Durable));
        env.await_held_syncs(1);
        let second = scope.spawn(|| put(&db, 3, Durability::Durable));
        let behind = scope.spawn(|| put(&db, 4, Durability::Buffered));
        env.crash_at(0);
        env.hold_syncs(false);
        assert!(first.join().unwrap().is_err(), "acknowledged without a sync");
        assert!(second.join().unwrap().is_err());
        // Behind the failure or refused by it, depending on who was first; never left hanging.
        assert!(behind.join().unwrap().is_err());
    });
    assert_eq!(contents(&db.snapshot(), TABLE).len(), 1, "reads go on, without the commits that failed");
}
