//! The row store as a whole against a versioned map; see `harness/model.rs`.

mod harness;

use harness::model::{Machine, step};
use harness::row_tier::RowTier;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_000), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_equals_a_versioned_map(steps in prop::collection::vec(step(), 1..120)) {
        let mut machine = Machine::new(RowTier::make);
        for step in &steps {
            machine.apply(step);
            machine.check();
        }
    }
}
