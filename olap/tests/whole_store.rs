//! Row store and column store together against a versioned map, and power loss at every operation: the machines of the
//! row store's tests (`oltp/tests/harness`), run with the real segments below. Segments are made tiny, so that rows
//! spread over several row groups and files.

#[path = "../../oltp/tests/harness/mod.rs"]
mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::crash::crash_everywhere;
use harness::model::{Machine, Step, step};
use proptest::prelude::*;
use strata_olap::{Store, StoreOptions};
use strata_oltp::env::Env;
use strata_oltp::{ColdTier, MemoryBudget};

fn make_tier(env: &Arc<dyn Env>, dir: &Path) -> Arc<dyn ColdTier> {
    let options = StoreOptions { row_group_rows_max: 3, segment_rows_max: 7, ..StoreOptions::default() };
    Store::new(Arc::clone(env), dir, MemoryBudget::new(256 << 20), options)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(300), max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_equal_a_versioned_map(steps in prop::collection::vec(step(), 1..100)) {
        let mut machine = Machine::new(make_tier);
        for step in &steps {
            machine.apply(step);
            machine.check();
        }
    }

    /// With retention, every state since the beginning stays readable, in rows and in segments.
    #[test]
    fn the_past_of_both_stores_equals_a_versioned_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut machine = Machine::with_retention(make_tier, 3_600_000);
        for (at, step) in steps.iter().enumerate() {
            machine.apply(step);
            machine.apply(&Step::AsOf(at * 7));
        }
        machine.check();
    }
}

/// Every operation is tried by the row store's own crash test; here each third keeps the suite quick.
#[test]
fn a_crash_at_any_third_operation_loses_nothing() {
    crash_everywhere(make_tier, 3);
}
