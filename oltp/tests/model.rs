//! The row store as a whole against a versioned map; see `harness/model.rs`.

mod harness;

use harness::model::{Machine, Step, any_compaction, step};
use harness::row_tier::RowTier;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_000), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_equals_a_versioned_map(
        compaction in any_compaction(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut machine = Machine::new(RowTier::make).with_compaction(compaction);
        for step in &steps {
            machine.apply(step);
            machine.check();
        }
    }

    /// With retention, every state since the beginning stays readable, wherever its rows lie by now.
    #[test]
    fn the_past_equals_a_versioned_map(steps in prop::collection::vec(step(), 1..80)) {
        let mut machine = Machine::with_retention(RowTier::make, 3_600_000);
        for (at, step) in steps.iter().enumerate() {
            machine.apply(step);
            machine.apply(&Step::AsOf(at * 7));
        }
        machine.check();
    }
}
