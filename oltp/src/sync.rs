//! Locks, condition variables, atomics and threads, from one place, so that a test can put a scheduler of its own in theirs.
//!
//! In every ordinary build these are the types of `std` and `arc-swap`, re-exported: no cost, no wrapper. The package
//! `oltp/schedules` compiles these very sources once more with `cfg(shuttle)`, where each call of them is
//! a point at which the test's scheduler may let another thread run. Why this way: docs/decisions/0010.
//!
//! Always true: the rest of the crate names no lock, condition variable, atomic or thread of `std`, or schedules that
//! matter would not be tried. Exempt are `env`, which is the machine and not the program under test, and the memtable's
//! arena and list, which loom checks by itself (`memtable/skiplist/tests.rs`). `Arc` and `Weak` stay those of `std`, and so
//! does `OnceLock`, which only holds what everybody would compute alike without taking a lock.

pub(crate) use std::sync::{Arc, OnceLock, PoisonError, Weak};

#[cfg(not(shuttle))]
pub(crate) use arc_swap::ArcSwap;
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread,
};

#[cfg(shuttle)]
pub(crate) use self::scheduled::ArcSwap;
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

    use std::ops::Deref;

    use super::{Arc, Mutex, PoisonError};

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
