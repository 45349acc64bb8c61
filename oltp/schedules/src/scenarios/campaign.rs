//! Plays scenarios over and over, by a scheduler and a seed, and says which schedule failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::Scenario;

/// Who picks the thread that goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picker {
    /// Any, with equal chances.
    Random,
    /// The one with the highest priority, which changes at that many places less one: Burckhardt et al., "A randomized
    /// scheduler with probabilistic guarantees of finding bugs" (2010).
    Pct(usize),
}

impl std::fmt::Display for Picker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Picker::Random => f.write_str("random"),
            Picker::Pct(depth) => write!(f, "pct{depth}"),
        }
    }
}

/// The pickers that take turns.
pub const PICKERS: [Picker; 4] = [Picker::Random, Picker::Pct(2), Picker::Pct(3), Picker::Pct(5)];

/// A schedule that showed a failure. The same scenario, picker and seed show it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was played.
    pub scenario: &'static str,
    /// By whom.
    pub picker: Picker,
    /// The seed of its batch.
    pub seed: u64,
    /// Which schedule of the batch failed, from 1.
    pub schedule: u64,
    /// What the panic said.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { scenario, picker, seed, schedule, message } = self;
        write!(f, "{scenario} --picker {picker} --seed {seed}, schedule {schedule}: {message}")
    }
}

/// Plays `count` schedules of a scenario. The same arguments play the same schedules.
///
/// # Errors
/// The first schedule that failed.
pub fn play(scenario: &Scenario, picker: Picker, seed: u64, count: usize) -> Result<(), Failure> {
    let played = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&played);
    let history = scenario.play;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let scheduler: Box<dyn Scheduler + Send> = match picker {
            Picker::Random => Box::new(RandomScheduler::new_from_seed(seed, count)),
            Picker::Pct(depth) => Box::new(PctScheduler::new_from_seed(seed, depth, count)),
        };
        Runner::new(scheduler, config()).run(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            history();
        });
    }));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let message = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Failure { scenario: scenario.name, picker, seed, schedule: played.load(Ordering::Relaxed), message }
    })
}

fn config() -> Config {
    let mut config = Config::new();
    // Recovery and merging need more than the 32 KiB that shuttle gives a thread.
    config.stack_size = 256 << 10;
    // A seed says enough, and schedules are long.
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(200_000);
    // That atomics are sequentially consistent here is known; the other orderings are loom's part.
    config.silence_warnings = true;
    config
}
