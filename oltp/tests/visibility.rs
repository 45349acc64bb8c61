//! When a commit may be seen: never before its acknowledgement could be trusted, always after.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use harness::gate::{Gate, GatedTier, Moment};
use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, contents, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::metrics::MetricValue;
use strata_oltp::{Db, Options, Result, SeqNo};

fn open(env: &SimEnv) -> Db {
    open_gated(env, &Arc::default())
}

fn open_gated(env: &SimEnv, gate: &Arc<Gate>) -> Db {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let tier = GatedTier::make(RowTier::make(&shared, Path::new(DIR)), gate);
    harness::open(&shared, Options::default(), tier).unwrap()
}

fn put(db: &Db, id: i32, durability: Durability) -> Result<SeqNo> {
    let mut transaction = db.begin()?;
    transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, 1))?;
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
        let waiting = env.await_held_syncs(1);
        let buffered = scope.spawn(|| put(&db, 3, Durability::Buffered));
        // Looking for a while can only miss a failure, never make one.
        let mut seen = 1;
        for _ in 0..20_000 {
            seen = seen.max(contents(&db.snapshot(), HYBRID).len());
            std::thread::yield_now();
        }
        env.hold_syncs(false);
        durable.join().unwrap().unwrap();
        buffered.join().unwrap().unwrap();
        assert!(waiting, "acknowledged without a sync");
        assert_eq!(seen, 1, "read a commit that a power loss would take back");
    });
    let seen = contents(&db.snapshot(), HYBRID);
    assert_eq!(seen.len(), 3, "P4: acknowledged is visible");
    let survivors = contents(&open(&env.reboot(PowerLoss::DropUnsynced)).snapshot(), HYBRID);
    assert!(survivors.contains_key(&key(HYBRID, 2)), "P1");
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
        let waiting = env.await_held_syncs(1);
        let second = scope.spawn(|| put(&db, 3, Durability::Durable));
        let behind = scope.spawn(|| put(&db, 4, Durability::Buffered));
        env.crash_at(0);
        env.hold_syncs(false);
        assert!(waiting && first.join().unwrap().is_err(), "acknowledged without a sync");
        assert!(second.join().unwrap().is_err());
        // Behind the failure or refused by it, depending on who was first; never left hanging.
        assert!(behind.join().unwrap().is_err());
    });
    assert_eq!(contents(&db.snapshot(), HYBRID).len(), 1, "reads go on, without the commits that failed");
}

/// A commit finds the row that it supersedes in a segment, and the segment is rewritten before the commit has its place
/// in the order: the row has moved, and must be superseded where it is now.
#[test]
fn a_commit_follows_a_row_that_moves() {
    let (env, gate) = (SimEnv::new(3), Arc::default());
    let db = open_gated(&env, &gate);
    for id in 1..=3 {
        put(&db, id, Durability::Durable).unwrap();
    }
    db.convert(HYBRID).unwrap();
    put(&db, 1, Durability::Durable).unwrap();
    let before = db.snapshot().view().cold().segments(HYBRID);
    let (committed, compacted) = gate.interrupt(
        Moment::AfterLocate,
        || put(&db, 3, Durability::Durable),
        || db.compact(HYBRID).map(|()| db.snapshot().view().cold().segments(HYBRID)),
    );
    committed.unwrap();
    assert_ne!(compacted.unwrap().unwrap(), before, "the segment was to be rewritten");
    assert_eq!(contents(&db.snapshot(), HYBRID).len(), 3);
    drop(db);
    assert_eq!(contents(&open(&env.reboot(PowerLoss::DropUnsynced)).snapshot(), HYBRID).len(), 3);
}

/// What a buffered commit survives: the loss of power after the log's own step, although nothing was flushed.
#[test]
fn a_buffered_commit_is_durable_after_a_step_of_the_log() {
    let env = SimEnv::new(1);
    let db = open(&env);
    put(&db, 1, Durability::Buffered).unwrap();
    assert!(!db.log_step().unwrap(), "one step makes all durable");
    put(&db, 2, Durability::Buffered).unwrap();
    let after = env.reboot(PowerLoss::DropUnsynced);
    assert_eq!(contents(&open(&after).snapshot(), HYBRID).len(), 1);
}

/// The background takes that step by itself, whatever else it does.
#[test]
fn the_background_syncs_buffered_commits() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let options = Options { buffered_sync_interval_ms: 1, idle_flush_ms: u64::MAX, ..Options::default() };
    let db = harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap();
    put(&db, 1, Durability::Buffered).unwrap();
    let syncs = || {
        db.metrics().iter().any(|metric| match metric.value {
            MetricValue::Histogram(times) => metric.name == "strata_log_sync_seconds" && times.count > 0,
            MetricValue::Counter(_) | MetricValue::Gauge(_) => false,
        })
    };
    assert!(!syncs());
    db.start_background();
    let start = env.monotonic();
    while !syncs() {
        assert!(env.monotonic() - start < Duration::from_secs(10), "nobody synced");
        std::thread::yield_now();
    }
}
