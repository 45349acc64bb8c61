//! `MemoryBudget`: one cap that memtables, caches and queries draw from (P9).
//!
//! Whoever holds memory in proportion to data holds a [`Reservation`] for it, under its own name, so that one number
//! bounds the process and `strata.memory` can say who has how much. Caches register as [`Reclaim`]: before a request
//! is refused they are asked to let go, so that memory nobody needs never makes a query fail.
//!
//! Always true:
//! * `used` is the sum of all live reservations, and the sum over all consumers (each exact at rest);
//! * a fallible request never lifts `used` above the limit;
//! * a request that fits costs two atomic additions and takes no lock.
//!
//! Deliberately absent: allocation itself. A reservation is a promise about bytes, held beside them by their owner.

use std::fmt;

use crate::error::{Error, Result};
use crate::sync::ArcSwap;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError, Weak};

/// How errors call this budget.
const BUDGET_NAME: &str = "memory budget";

/// Rounds of asking the caches before a request is refused although each round freed something. Other threads may
/// take what was freed; without an end two greedy threads could evict every cache for nothing.
const RECLAIM_ROUNDS_MAX: usize = 8;

/// One cap on memory, shared by everything that holds memory in proportion to data.
///
/// # Examples
/// ```
/// use strata_oltp::memory::MemoryBudget;
///
/// let budget = MemoryBudget::new(1000);
/// let memtable = budget.reserve("memtable", 600)?;
/// assert!(budget.reserve("query", 600).is_err());
/// drop(memtable);
/// assert_eq!(budget.reserve("query", 600)?.bytes(), 600);
/// # Ok::<(), strata_oltp::Error>(())
/// ```
pub struct MemoryBudget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    // Few and for ever: read without a lock, copied when a new name appears.
    consumers: ArcSwap<Vec<Arc<Consumer>>>,
    caches: Mutex<Vec<Weak<dyn Reclaim>>>,
}

/// Something that holds memory it can do without, such as a cache.
pub trait Reclaim: Send + Sync {
    /// Lets go of about `bytes` bytes, shrinking the reservations for them, and returns how many it gave back.
    ///
    /// Runs on the thread that asks for memory, possibly inside a call of this very cache. So it must neither reserve
    /// memory nor wait for a lock that is held while memory is reserved; if it cannot do anything it returns 0.
    fn reclaim(&self, bytes: u64) -> u64;
}

#[derive(Debug)]
struct Consumer {
    name: &'static str,
    used_bytes: AtomicU64,
}

impl MemoryBudget {
    /// A budget of `limit_bytes`, all of it free.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            consumers: ArcSwap::default(),
            caches: Mutex::default(),
        })
    }

    /// Takes `bytes` from the budget in the name of `consumer` until the reservation drops. `bytes` may be 0: a
    /// reservation to grow later.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] if they do not fit even after the caches were asked to shrink; nothing is taken then.
    pub fn reserve(self: &Arc<MemoryBudget>, consumer: &'static str, bytes: u64) -> Result<Reservation> {
        let reservation =
            Reservation { budget: Arc::clone(self), consumer: self.consumer(consumer), bytes: AtomicU64::new(0) };
        reservation.try_grow(bytes)?;
        Ok(reservation)
    }

    /// Asks `cache` to shrink from now on whenever a request does not fit; dropping the cache ends that. Caches are
    /// asked in the order of registration, so the cheapest to refill comes first.
    pub fn register_cache(&self, cache: Weak<dyn Reclaim>) {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).push(cache);
    }

    /// Bytes taken at the moment.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may be taken in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes taken at the moment by each consumer that ever asked, sorted by name.
    #[must_use]
    pub fn usage_by_consumer(&self) -> Vec<(&'static str, u64)> {
        let consumers = self.consumers.load();
        let mut usage: Vec<_> = consumers.iter().map(|c| (c.name, c.used_bytes.load(Ordering::Relaxed))).collect();
        usage.sort_unstable();
        usage
    }

    fn consumer(&self, name: &'static str) -> Arc<Consumer> {
        let named = |consumers: &[Arc<Consumer>]| consumers.iter().find(|known| known.name == name).cloned();
        loop {
            if let Some(known) = named(&self.consumers.load()) {
                return known;
            }
            // Two threads may arrive with the same new name: one adds it, and both look it up again.
            self.consumers.rcu(|consumers| {
                let mut consumers = Vec::clone(consumers);
                if named(&consumers).is_none() {
                    consumers.push(Arc::new(Consumer { name, used_bytes: AtomicU64::new(0) }));
                }
                consumers
            });
        }
    }

    /// Takes `bytes` if they fit; otherwise returns how many are in use.
    fn take(&self, bytes: u64) -> Result<(), u64> {
        // Nothing always fits, even after unchecked growth has passed the limit.
        let fits = |used: u64| used.checked_add(bytes).filter(|&total| total <= self.limit_bytes || bytes == 0);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(drop)
    }

    #[cold]
    fn take_after_reclaim(&self, bytes: u64) -> Result<()> {
        for _ in 0..RECLAIM_ROUNDS_MAX {
            let used_bytes = self.used();
            let shortfall = used_bytes.saturating_add(bytes).saturating_sub(self.limit_bytes);
            // What can never fit must not empty the caches on its way to the error.
            let freed = if bytes > self.limit_bytes { 0 } else { self.reclaim(shortfall) };
            if self.take(bytes).is_ok() {
                return Ok(());
            }
            if freed == 0 {
                break;
            }
        }
        Err(Error::LimitExceeded {
            budget: BUDGET_NAME,
            requested_bytes: bytes,
            used_bytes: self.used(),
            limit_bytes: self.limit_bytes,
        })
    }

    /// Asks the caches in turn until `bytes` were given back, and returns how many were.
    fn reclaim(&self, bytes: u64) -> u64 {
        let caches: Vec<Arc<dyn Reclaim>> = {
            let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
            caches.retain(|cache| cache.strong_count() > 0);
            caches.iter().filter_map(Weak::upgrade).collect()
        };
        // Outside the lock, because a cache dropped here may hold the last reference to another one.
        let mut freed = 0;
        for cache in caches {
            if freed >= bytes {
                break;
            }
            freed += cache.reclaim(bytes - freed);
        }
        freed
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("limit_bytes", &self.limit_bytes)
            .field("usage", &self.usage_by_consumer())
            .finish_non_exhaustive()
    }
}

/// Bytes taken from a [`MemoryBudget`]; dropping gives them back.
///
/// All methods may be called from several threads at once.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    consumer: Arc<Consumer>,
    bytes: AtomicU64,
}

impl Reservation {
    /// Bytes this reservation holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] if they do not fit even after the caches were asked to shrink; the reservation is
    /// then what it was.
    pub fn try_grow(&self, bytes: u64) -> Result<()> {
        if self.budget.take(bytes).is_err() {
            self.budget.take_after_reclaim(bytes)?;
        }
        self.note_growth(bytes);
        Ok(())
    }

    /// Takes `bytes` more whether or not they fit. For memory that is in use already and cannot be refused any more;
    /// it makes later requests of others fail.
    pub fn grow(&self, bytes: u64) {
        self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.note_growth(bytes);
    }

    /// Gives `bytes` back.
    ///
    /// # Panics
    /// If the reservation holds fewer: the owner's accounts are wrong.
    pub fn shrink(&self, bytes: u64) {
        let before = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| held.checked_sub(bytes));
        assert!(before.is_ok(), "{} gives back {bytes} bytes but holds {}", self.consumer.name, self.bytes());
        self.consumer.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Grows or shrinks to hold exactly `bytes`. Must not run at the same time as another change of this reservation.
    ///
    /// # Errors
    /// As [`Reservation::try_grow`]; shrinking never fails.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        let held = self.bytes();
        if bytes > held {
            return self.try_grow(bytes - held);
        }
        self.shrink(held - bytes);
        Ok(())
    }

    fn note_growth(&self, bytes: u64) {
        self.consumer.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes());
    }
}

#[cfg(test)]
mod tests;
