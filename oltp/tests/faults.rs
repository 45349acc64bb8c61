//! Failing calls and full disks; see `harness/faults.rs`. All calls of 50 workloads, by hand:
//! `cargo run --release -p strata-reliability -- syscall-faults`, and `-- disk-full`.

mod harness;

use harness::faults::{FAILURES, Failure, call_count, case, disk_full};
use harness::random::Numbers;
use harness::row_tier::RowTier;

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
