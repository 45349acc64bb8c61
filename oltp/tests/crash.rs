//! Power loss at every operation of a workload; see `harness/crash.rs`.

mod harness;

use harness::crash::{History, crash_everywhere, workload};
use harness::row_tier::RowTier;
use strata_oltp::env::sim::SimEnv;

#[test]
fn every_operation_can_be_the_last() {
    crash_everywhere(RowTier::make, 1);
}

#[test]
fn the_simulation_is_deterministic() {
    let log = || {
        let env = SimEnv::new(7);
        workload(&env, RowTier::make, &mut History::default()).unwrap();
        format!("{:?}", env.op_log())
    };
    assert_eq!(log(), log(), "one seed, one run");
}
