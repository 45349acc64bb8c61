//! Failing calls and full disks; see `harness/faults.rs`. All calls of 50 workloads, by hand:
//! `cargo run --release -p strata-reliability -- syscall-faults`, and `-- disk-full`.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use harness::faults::{FAILURES, Failure, call_count, case, disk_full};
use harness::random::{Numbers, open_at};
use harness::row_tier::RowTier;
use harness::{DIR, ROW, contents, key, row, small_log};
use strata_oltp::Options;
use strata_oltp::db::Durability;
use strata_oltp::env::sim::{PowerLoss, Repeat, SimEnv};

const ACTIONS: u64 = 30;

/// Some calls of some workloads, each failing in one of the ways.
#[test]
fn a_failing_call_loses_nothing() {
    let mut numbers = Numbers::new(1);
    let mut errors = 0;
    for seed in 0..10 {
        let calls = call_count(RowTier::make, seed, ACTIONS);
        for _ in 0..40 {
            let (kind, repeat) = numbers.pick(&FAILURES);
            errors += case(RowTier::make, seed, ACTIONS, Failure { call: numbers.below(calls), kind, repeat }).errors;
        }
    }
    assert!(errors > 400, "{errors} errors: the faults do not reach the workload");
}

#[test]
fn a_full_disk_needs_no_repair() {
    let mut errors = 0;
    for seed in 0..40 {
        errors += disk_full(RowTier::make, seed, 4).errors;
    }
    assert!(errors > 100, "{errors} errors: the disk was never full");
}

/// A new database whose first open fails at any of its calls, opened again: what it then acknowledges survives power
/// loss. The second open must not rely on names that the first one did not get to sync.
#[test]
fn an_open_that_failed_leaves_nothing_to_rely_on() {
    let options = Options { wal: small_log(), ..Options::default() };
    let open = |env: &SimEnv| open_at(env, Path::new(DIR), &options, RowTier::make, &Arc::default());
    let env = SimEnv::new(1);
    drop(open(&env).unwrap());
    for call in 0..env.calls() {
        let env = SimEnv::new(1);
        env.fail_call(call, ErrorKind::Other, Repeat::Once);
        drop(open(&env));
        let db = open(&env).unwrap_or_else(|error| panic!("after call {call} failed: {error}"));
        let mut transaction = db.begin().unwrap();
        transaction.put(ROW, key(ROW, 1), row(ROW, 1, 1)).unwrap();
        transaction.commit(Durability::Durable).unwrap();
        let env = env.reboot(PowerLoss::DropUnsynced);
        let db = open(&env).unwrap_or_else(|error| panic!("after call {call} failed, and power loss: {error}"));
        assert_eq!(contents(&db.snapshot(), ROW).len(), 1, "after call {call} failed");
    }
}
