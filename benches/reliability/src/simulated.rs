//! Campaigns in the simulated machine: power loss, failing calls, full disks, and the model.

use std::path::Path;

use anyhow::Result;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::faults::{FAILURES, Failure, call_count, case, disk_full};
use crate::harness::model::{Machine, step};
use crate::harness::power_loss;
use crate::harness::random::{Numbers, random_options};
use crate::harness::row_tier::RowTier;
use crate::ledger::Counts;
use crate::runner::{Campaign, no_obstacle};

/// Actions of a workload whose calls fail one by one: about a thousand calls.
const FAULT_ACTIONS: u64 = 30;
/// Steps of one model history.
const MODEL_STEPS: u64 = 1_000;
/// Different options of the model histories.
const MODEL_OPTIONS: u64 = 32;

pub fn campaigns() -> Vec<Campaign> {
    let simulated =
        |name, about, goal, case| Campaign { name, about, goal, parallel: true, obstacle: no_obstacle, case };
    vec![
        simulated(
            "power-loss",
            "random workloads and options; power lost at random operations, disks torn and reordered",
            ("states", 1_000_000),
            lose_power,
        ),
        simulated(
            "syscall-faults",
            "every call of a workload failing with EIO, ENOSPC or half-way, once or for good",
            ("workloads", 50),
            fail_every_call,
        ),
        simulated("disk-full", "disks that fill up at random and are given room again", ("cycles", 10_000), fill_disk),
        simulated("model", "random histories against a versioned map", ("operations", 10_000_000), model),
    ]
}

fn lose_power(number: u64, _: &Path) -> Result<Counts> {
    let tally = power_loss::case(RowTier::make, number, 70, 60);
    Ok(Counts::from([("states", tally.states), ("crashes", tally.reboots)]))
}

fn fail_every_call(number: u64, _: &Path) -> Result<Counts> {
    let (mut faults, mut errors) = (0, 0);
    let calls = call_count(RowTier::make, number, FAULT_ACTIONS);
    for call in 0..calls {
        for (kind, repeat) in FAILURES {
            let tally = case(RowTier::make, number, FAULT_ACTIONS, Failure { call, kind, repeat });
            faults += tally.faults;
            errors += tally.errors;
        }
    }
    Ok(Counts::from([("workloads", 1), ("calls", calls), ("faults", faults), ("errors_reported", errors)]))
}

fn fill_disk(number: u64, _: &Path) -> Result<Counts> {
    let tally = disk_full(RowTier::make, number, 10);
    Ok(Counts::from([("cycles", tally.faults), ("errors_reported", tally.errors)]))
}

fn model(number: u64, _: &Path) -> Result<Counts> {
    let mut options = random_options(&mut Numbers::new(number % MODEL_OPTIONS));
    // Time stands still here, and an idle flush after every commit would leave nothing else to try.
    options.idle_flush_ms = u64::MAX;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let strategy = step();
    let mut machine = Machine::with_options(RowTier::make, options);
    for _ in 0..MODEL_STEPS {
        let step = strategy.new_tree(&mut runner).map_err(|reason| anyhow::anyhow!("no step: {reason}"))?.current();
        machine.apply(&step);
        machine.check();
    }
    Ok(Counts::from([("operations", MODEL_STEPS)]))
}
