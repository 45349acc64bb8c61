//! The budget's arithmetic, its refusals, and caches that are asked to shrink.

use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;

/// A cache of entries of 100 bytes each.
struct TestCache {
    reservation: Reservation,
    asked_bytes: AtomicU64,
}

impl TestCache {
    fn new(budget: &Arc<MemoryBudget>, entry_count: u64) -> Arc<TestCache> {
        let reservation = budget.reserve("cache", entry_count * 100).unwrap();
        let cache = Arc::new(TestCache { reservation, asked_bytes: AtomicU64::new(0) });
        let weak: Weak<TestCache> = Arc::downgrade(&cache);
        budget.register_cache(weak);
        cache
    }
}

impl Reclaim for TestCache {
    fn reclaim(&self, bytes: u64) -> u64 {
        self.asked_bytes.fetch_add(bytes, Ordering::Relaxed);
        let given = self.reservation.bytes().min(bytes.next_multiple_of(100));
        self.reservation.shrink(given);
        given
    }
}

#[test]
fn a_refusal_names_the_budget_and_the_numbers_and_takes_nothing() {
    let budget = MemoryBudget::new(1000);
    let held = budget.reserve("memtable", 700).unwrap();
    let error = budget.reserve("query", 301).unwrap_err();
    assert_eq!(error.to_string(), "memory budget exhausted: 301 bytes asked for, 700 of 1000 in use");
    assert_eq!(budget.used(), 700);
    assert!(held.try_grow(301).is_err());
    assert_eq!(held.bytes(), 700);
    assert_eq!(budget.usage_by_consumer(), [("memtable", 700), ("query", 0)]);
    held.try_grow(300).unwrap();
    assert_eq!(budget.used(), budget.limit());
    assert!(held.try_grow(u64::MAX).is_err(), "no overflow");
}

#[test]
fn caches_shrink_before_a_request_is_refused() {
    let budget = MemoryBudget::new(1000);
    let cache = TestCache::new(&budget, 8);
    let query = budget.reserve("query", 500).unwrap();
    assert_eq!(cache.reservation.bytes(), 500, "asked for the 300 bytes that were short");
    assert_eq!(cache.asked_bytes.load(Ordering::Relaxed), 300);
    query.try_grow(500).unwrap();
    assert_eq!(cache.reservation.bytes(), 0);
    assert!(query.try_grow(1).is_err());
}

#[test]
fn what_can_never_fit_leaves_the_caches_alone() {
    let budget = MemoryBudget::new(1000);
    let cache = TestCache::new(&budget, 8);
    assert!(budget.reserve("query", 1001).is_err());
    assert_eq!(cache.reservation.bytes(), 800);
}

#[test]
fn a_dropped_cache_is_forgotten() {
    let budget = MemoryBudget::new(1000);
    drop(TestCache::new(&budget, 8));
    assert_eq!(budget.used(), 0);
    let _full = budget.reserve("query", 1000).unwrap();
    assert!(budget.reserve("query", 1).is_err());
    assert!(budget.caches.lock().unwrap().is_empty());
}

#[test]
fn unchecked_growth_may_pass_the_limit_and_is_seen_by_others() {
    let budget = MemoryBudget::new(100);
    let memtable = budget.reserve("memtable", 0).unwrap();
    memtable.grow(150);
    assert_eq!(budget.used(), 150);
    assert!(budget.reserve("query", 1).is_err());
    memtable.resize(40).unwrap();
    assert_eq!(budget.reserve("query", 60).unwrap().bytes(), 60);
}

#[test]
#[should_panic(expected = "memtable gives back 11 bytes but holds 10")]
fn giving_back_too_much_is_a_bug() {
    let budget = MemoryBudget::new(100);
    budget.reserve("memtable", 10).unwrap().shrink(11);
}

#[test]
fn threads_never_pass_the_limit_and_leave_nothing_behind() {
    let budget = MemoryBudget::new(1000);
    let cache = TestCache::new(&budget, 5);
    let names = ["a", "b", "c", "d"];
    thread::scope(|scope| {
        for (thread, name) in names.into_iter().enumerate() {
            let budget = &budget;
            scope.spawn(move || {
                for step in 0..2000_u64 {
                    let bytes = (step * 37 + thread as u64 * 11) % 400;
                    if let Ok(held) = budget.reserve(name, bytes) {
                        assert!(budget.used() <= budget.limit());
                        held.resize(bytes / 2).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(budget.used(), cache.reservation.bytes());
    assert_eq!(budget.usage_by_consumer().len(), 5, "one entry per name, however many threads brought it");
}

#[test]
fn threads_that_bring_the_same_new_name_share_one_account() {
    for _ in 0..100 {
        let budget = MemoryBudget::new(1000);
        let start = Barrier::new(4);
        let reserve = || {
            start.wait();
            budget.reserve("query", 1).unwrap()
        };
        let held: Vec<Reservation> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(reserve)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(budget.usage_by_consumer(), [("query", held.len() as u64)]);
    }
}

proptest! {
    /// Used bytes are always the sum of what the reservations and the consumers hold, and within the limit.
    #[test]
    fn used_is_the_sum_of_its_parts(steps in prop::collection::vec((0_usize..4, 0_u8..4, 0_u64..600), 1..100)) {
        const NAMES: [&str; 2] = ["memtable", "cache"];
        let budget = MemoryBudget::new(1000);
        let mut held: Vec<Reservation> = Vec::new();
        for (slot, action, bytes) in steps {
            match (action, held.get(slot)) {
                (_, None) => held.extend(budget.reserve(NAMES[slot % 2], bytes).ok()),
                (0, Some(reservation)) => drop(reservation.try_grow(bytes)),
                (1, Some(reservation)) => reservation.shrink(bytes.min(reservation.bytes())),
                (2, Some(reservation)) => drop(reservation.resize(bytes)),
                (_, Some(_)) => drop(held.swap_remove(slot)),
            }
            let sum: u64 = held.iter().map(Reservation::bytes).sum();
            prop_assert_eq!(budget.used(), sum);
            prop_assert_eq!(budget.usage_by_consumer().iter().map(|(_, bytes)| bytes).sum::<u64>(), sum);
            prop_assert!(sum <= budget.limit());
        }
    }
}
