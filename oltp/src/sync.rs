//! Locks, condition variables, atomics and threads, from one place, so that a test can put a scheduler of its own in theirs.
//!
//! In every ordinary build these are the types of `std` and `arc-swap`, re-exported: no cost, no wrapper. The package
//! `oltp/schedules` compiles these very sources once more with `cfg(shuttle)`, where each call of them is
//! a point at which the test's scheduler may let another thread run. Why this way: docs/decisions/0010.
//!
//! Always true: the rest of the crate names no lock, condition variable, atomic or thread of `std`, or schedules that
//! matter would not be tried. Exempt are `env`, which is the machine and not the program under test, and the memtable's
//! arena and list, which loom checks by itself (`memtable/skiplist/tests.rs`). `Arc` and `Weak` stay those of `std`.

pub(crate) use std::sync::{Arc, PoisonError, Weak};

#[cfg(not(shuttle))]
pub(crate) use arc_swap::ArcSwap;
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread,
};

#[cfg(not(shuttle))]
pub(crate) use quick_cache::sync::Cache;

#[cfg(shuttle)]
pub(crate) use self::scheduled::{ArcSwap, Cache};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread,
};

/// A place between two steps that touch no lock, where a scheduler may switch all the same; nothing in ordinary builds.
#[inline]
pub(crate) fn point() {
    #[cfg(shuttle)]
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}

#[cfg(shuttle)]
mod scheduled {
    //! What the scheduler does not bring along.

    use std::hash::Hash;
    use std::ops::Deref;

    use quick_cache::{Weighter, unsync};

    use super::{Arc, Mutex, MutexGuard, PoisonError};

    /// `quick_cache::sync::Cache` as far as this crate uses it: its locks are `std`'s, and what it evicts may reach a point
    /// where another thread runs, which then must not find one of them taken.
    pub(crate) struct Cache<K, V, W>(Mutex<unsync::Cache<K, V, W>>);

    impl<K: Hash + Eq, V: Clone, W: Weighter<K, V>> Cache<K, V, W> {
        pub(crate) fn with_weighter(entry_count: usize, weight_max: u64, weighter: W) -> Cache<K, V, W> {
            Cache(Mutex::new(unsync::Cache::with_weighter(entry_count, weight_max, weighter)))
        }

        fn entries(&self) -> MutexGuard<'_, unsync::Cache<K, V, W>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn get(&self, key: &K) -> Option<V> {
            self.entries().get(key).cloned()
        }

        pub(crate) fn insert(&self, key: K, value: V) {
            self.entries().insert(key, value);
        }

        pub(crate) fn retain(&self, keep: impl Fn(&K, &V) -> bool) {
            self.entries().retain(|key, value| keep(key, value));
        }

        pub(crate) fn clear(&self) {
            self.entries().clear();
        }

        pub(crate) fn weight(&self) -> u64 {
            self.entries().weight()
        }

        pub(crate) fn set_capacity(&self, weight_max: u64) {
            self.entries().set_capacity(weight_max);
        }
    }

    /// `arc_swap::ArcSwap` as far as this crate uses it: one step per call, at which others may run.
    #[derive(Debug, Default)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    /// What `load` borrows; here simply another reference.
    pub(crate) struct Guard<T>(Arc<T>);

    impl<T> Deref for Guard<T> {
        type Target = Arc<T>;

        fn deref(&self) -> &Arc<T> {
            &self.0
        }
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn new(value: Arc<T>) -> ArcSwap<T> {
            ArcSwap(Mutex::new(value))
        }

        pub(crate) fn load(&self) -> Guard<T> {
            Guard(self.load_full())
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), value);
            // Outside the lock, because what goes with the old value may take locks of its own.
            drop(old);
        }

        /// Replaces the value by `change` of it, over again if another thread was quicker.
        pub(crate) fn rcu<R: Into<Arc<T>>>(&self, mut change: impl FnMut(&Arc<T>) -> R) -> Arc<T> {
            loop {
                let seen = self.load_full();
                let next: Arc<T> = change(&seen).into();
                let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if Arc::ptr_eq(&current, &seen) {
                    *current = next;
                    return seen;
                }
            }
        }
    }
}
