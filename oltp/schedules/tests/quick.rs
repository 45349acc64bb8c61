//! Some schedules of every scenario, the same ones each time; `cargo run --release -p strata-schedules` plays more.

use strata_schedules::scenarios::SCENARIOS;
use strata_schedules::scenarios::campaign::{PICKERS, play};

/// Schedules of a scenario by each picker.
const SCHEDULES: usize = 40;

macro_rules! quick {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name).replace('_', "-");
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
            for picker in PICKERS {
                play(scenario, picker, 0, SCHEDULES).unwrap_or_else(|failure| panic!("{failure}"));
            }
        })*

        #[test]
        fn none_is_left_out() {
            let mut tried = vec![$(stringify!($name).replace('_', "-")),*];
            let mut all: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            tried.sort_unstable();
            all.sort_unstable();
            assert_eq!(tried, all);
        }
    };
}

quick! {
    durable_commits, mixed_commits, failed_sync, conflicting_commits, closing, flush, sealing, log_release, conversion,
    rewrite, background, old_files, read_view, watermark, old_snapshot, memory_budget, block_cache,
}
