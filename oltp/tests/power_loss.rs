//! Power loss at random operations of random workloads; see `harness/power_loss.rs`. A million of them, by hand:
//! `cargo run --release -p strata-reliability -- power-loss`.

mod harness;

use harness::power_loss::case;
use harness::row_tier::RowTier;

#[test]
fn random_workloads_survive_power_loss() {
    let mut states = 0;
    for seed in 0..12 {
        states += case(RowTier::make, seed, 60, 60).states;
    }
    assert!(states > 1_000, "{states} disks are too few to mean anything");
}
