//! Pacing: commits slow down smoothly as background work falls behind, so that they do not run into a wall.
//!
//! *Debt* is what commits have caused and background work has not done yet, as a share of its bound: bytes in sealed
//! memtables, runs in level 0, and bytes of levels over their targets. Up to a quarter it costs nothing. Above that a commit
//! pays for its bytes with time: at the rate at which the work gets done when debt is in the middle of what is left, faster
//! below, ever slower towards the bound. So debt settles where commits bring as much as the work takes away.
//!
//! What commits pay is collected until it is worth a sleep, because a row of a hundred bytes owes microseconds. No commit
//! sleeps longer than [`DELAY_MAX`]. Source: `TigerBeetle` pays for compaction with every commit (its docs/internals/lsm.md); the
//! controller is proportional, as RocksDB's write controller is not (its issue 9423).
//!
//! Compaction may fall behind for ever (its disk may be too slow for the table's shape), so its debt delays commits but
//! never stops them; [`super`] stops them for sealed memtables.

use std::time::Duration;

use crate::env::Env;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};

/// A debt, or its bound, in thousandths of the bound.
pub(crate) const BOUND: u64 = 1000;
/// Debt up to here costs nothing: one sealed memtable of four, level 0 when it is due.
const FREE: u64 = 250;
/// The longest that one commit is delayed.
pub(crate) const DELAY_MAX: Duration = Duration::from_millis(50);
/// Shorter delays are put on account: a sleep takes some sixty microseconds whatever it is asked for.
const DELAY_MIN: Duration = Duration::from_micros(200);
/// Bytes per second that background work is taken to do until it was measured.
const FIRST_RATE: u64 = 64 << 20;

/// Who owes how much.
pub(crate) struct Pacer {
    /// When everything that commits owe will have been paid, in nanoseconds of the environment's clock.
    paid_until: Mutex<Duration>,
    /// Bytes per second that flushes take off, a moving average.
    flush_rate: AtomicU64,
    /// Bytes per second that compactions take in, a moving average.
    compaction_rate: AtomicU64,
    /// The debt of compactions, kept here because finding it out walks all levels.
    compaction_debt: AtomicU64,
}

impl Pacer {
    pub(crate) fn new() -> Pacer {
        Pacer {
            paid_until: Mutex::new(Duration::ZERO),
            flush_rate: AtomicU64::new(FIRST_RATE),
            compaction_rate: AtomicU64::new(FIRST_RATE),
            compaction_debt: AtomicU64::new(0),
        }
    }

    /// A flush of so many bytes took so long.
    pub(crate) fn flushed(&self, bytes: u64, elapsed: Duration) {
        average(&self.flush_rate, bytes, elapsed);
    }

    /// A compaction read so many bytes and took so long.
    pub(crate) fn compacted(&self, bytes: u64, elapsed: Duration) {
        average(&self.compaction_rate, bytes, elapsed);
    }

    /// The debt of compactions is now so many thousandths of its bound.
    pub(crate) fn set_compaction_debt(&self, debt: u64) {
        self.compaction_debt.store(debt, Ordering::Relaxed);
    }

    /// Whether there is debt enough to pay for, with `sealed_debt` thousandths of what may wait for flushes.
    pub(crate) fn costs(&self, sealed_debt: u64) -> bool {
        sealed_debt.max(self.compaction_debt.load(Ordering::Relaxed)) > FREE
    }

    /// How long a commit of `bytes` has to sleep now, with `sealed_debt` thousandths of what may wait for flushes.
    pub(crate) fn charge(&self, now: Duration, bytes: u64, sealed_debt: u64) -> Duration {
        if !self.costs(sealed_debt) {
            return Duration::ZERO;
        }
        let compaction_debt = self.compaction_debt.load(Ordering::Relaxed);
        let for_flushes = price(bytes, sealed_debt, self.flush_rate.load(Ordering::Relaxed));
        let for_compactions = price(bytes, compaction_debt, self.compaction_rate.load(Ordering::Relaxed));
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = (*paid_until).max(now) + for_flushes.max(for_compactions);
        // Nobody pays for more than the longest delay, so nor does the account hold more.
        *paid_until = owed.min(now + DELAY_MAX);
        let delay = paid_until.saturating_sub(now);
        if delay < DELAY_MIN { Duration::ZERO } else { delay }
    }
}

/// What `bytes` cost in time at a debt, if the work does `rate` bytes per second.
fn price(bytes: u64, debt: u64, rate: u64) -> Duration {
    let over = debt.clamp(FREE, BOUND) - FREE;
    let left = BOUND - FREE - over;
    // over / left is 0 where debt begins to cost, 1 in the middle, and grows without end towards the bound.
    let nanos = u128::from(bytes) * 1_000_000_000 * u128::from(over) / u128::from((left * rate).max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(DELAY_MAX)
}

fn average(rate: &AtomicU64, bytes: u64, elapsed: Duration) {
    let micros = elapsed.as_micros();
    if bytes == 0 || micros == 0 {
        return;
    }
    let seen = u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX);
    let before = rate.load(Ordering::Relaxed);
    // A quarter of the newest; a lost update between two threads only leaves one measurement out.
    rate.store((before / 4 * 3 + seen / 4).max(1), Ordering::Relaxed);
}

/// A limit on the bytes per second that background work writes: a token bucket of one second.
#[derive(Debug)]
pub struct IoLimit {
    bytes_per_second: u64,
    /// When all that was taken so far will have been allowed.
    used_until: Mutex<Duration>,
}

impl IoLimit {
    /// A limit of `bytes_per_second`, or none for 0.
    pub(crate) fn of(bytes_per_second: u64) -> Option<Arc<IoLimit>> {
        (bytes_per_second > 0).then(|| Arc::new(IoLimit::new(bytes_per_second)))
    }

    /// A limit of `bytes_per_second`, at least 1.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> IoLimit {
        IoLimit { bytes_per_second: bytes_per_second.max(1), used_until: Mutex::new(Duration::ZERO) }
    }

    /// Waits until `bytes` more may be written. Callers that come together wait for each other's bytes too.
    pub fn take(&self, env: &dyn Env, bytes: u64) {
        let cost = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second)).unwrap_or(u64::MAX),
        );
        let now = env.monotonic();
        let delay = {
            let mut used_until = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
            *used_until = used_until.max(now) + cost;
            used_until.saturating_sub(now)
        };
        env.sleep(delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sim::SimEnv;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_little_debt_costs_nothing_and_more_costs_more() {
        assert_eq!(price(MIB, FREE, MIB), Duration::ZERO);
        let prices: Vec<Duration> = (FREE..=BOUND).map(|debt| price(1000, debt, 64 * MIB)).collect();
        assert!(prices.is_sorted());
        // In the middle a byte costs what it takes to be worked off.
        assert_eq!(price(64 * MIB / 100, (FREE + BOUND) / 2, 64 * MIB).as_millis(), 9);
        assert_eq!(price(1, BOUND, 64 * MIB), DELAY_MAX, "at the bound everybody waits");
        // From one thousandth to the next below nine tenths nothing jumps: no cliff.
        let steps = prices[..650].windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        assert!(steps.max().unwrap() < Duration::from_micros(5));
    }

    #[test]
    fn small_commits_sleep_seldom_and_for_what_they_owe_together() {
        let (env, pacer) = (SimEnv::new(1), Pacer::new());
        pacer.set_compaction_debt((FREE + BOUND) / 2);
        let (mut sleeps, start) = (0, env.monotonic());
        for _ in 0..10_000 {
            let delay = pacer.charge(env.monotonic(), 100, 0);
            assert!(delay < Duration::from_millis(1));
            sleeps += u32::from(delay > Duration::ZERO);
            env.sleep(delay);
        }
        let elapsed = env.monotonic() - start;
        // A million bytes at 64 MiB a second, but for what is still on account.
        assert!((14_500..15_000).contains(&elapsed.as_micros()), "{elapsed:?}");
        assert!((60..90).contains(&sleeps), "{sleeps}");
    }

    #[test]
    fn no_commit_pays_for_others_without_end() {
        let pacer = Pacer::new();
        for _ in 0..100 {
            assert!(pacer.charge(Duration::ZERO, MIB, BOUND) <= DELAY_MAX);
        }
        assert_eq!(pacer.charge(2 * DELAY_MAX, MIB, FREE), Duration::ZERO, "and forgets once debt is gone");
    }

    /// Commits as fast as they may against a flush that takes half as much: debt settles below its bound.
    #[test]
    fn debt_settles_where_commits_bring_what_is_taken_away() {
        let (env, pacer) = (SimEnv::new(1), Pacer::new());
        let (bound, rate) = (256 * MIB, 32 * MIB);
        let (mut debt, mut worked) = (0u64, Duration::ZERO);
        for _ in 0..40 {
            pacer.flushed(rate, Duration::from_secs(1));
        }
        let mut most = 0;
        for _ in 0..200_000 {
            let delay = pacer.charge(env.monotonic(), 10_000, debt * BOUND / bound);
            // A commit of 10 kB takes a tenth of a millisecond by itself: a hundred megabytes a second unpaced.
            env.sleep(delay + Duration::from_micros(100));
            debt += 10_000;
            let now = env.monotonic();
            let done = u64::try_from((now - worked).as_micros()).unwrap() * rate / 1_000_000;
            debt = debt.saturating_sub(done);
            worked = now;
            most = most.max(debt);
        }
        assert!(most < bound * 7 / 10, "debt reached {} MiB", most / MIB);
        assert!(debt > bound * 3 / 10, "commits were held back at {} MiB", debt / MIB);
    }

    #[test]
    fn a_limit_is_kept_and_deterministic() {
        let run = || {
            let (env, limit) = (SimEnv::new(1), IoLimit::new(10 * MIB));
            (0..50).for_each(|_| limit.take(&env, MIB));
            env.monotonic()
        };
        assert_eq!(run(), run());
        assert!((4_900..=5_000).contains(&run().as_millis()), "{:?}", run());
    }
}
