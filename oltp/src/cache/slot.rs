//! `Slot`: a place for one shared value, read without a lock and without touching its reference count.
//!
//! An index node has one per child. A reader that finds the child there has found it: no key is hashed, no table asked.

#[cfg(not(shuttle))]
use std::ops::Deref;

#[cfg(not(shuttle))]
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU8, Ordering};

#[cfg(not(shuttle))]
use arc_swap::{ArcSwapOption, Guard};

/// Empty, or holds a `T` that readers share.
#[cfg(not(shuttle))]
#[derive(Debug)]
pub(crate) struct Slot<T>(ArcSwapOption<T>);

/// A value found in a [`Slot`], or one that never was in any. Lives on when the slot is emptied.
#[cfg(not(shuttle))]
#[derive(Debug)]
pub(crate) struct Held<T>(Guard<Option<Arc<T>>>);

#[cfg(not(shuttle))]
impl<T> Slot<T> {
    /// What is here.
    #[inline]
    pub fn get(&self) -> Option<Held<T>> {
        let held = self.0.load();
        held.is_some().then_some(Held(held))
    }

    /// Puts `value` here, in place of what was here.
    pub fn put(&self, value: Option<Arc<T>>) {
        self.0.store(value);
    }
}

#[cfg(not(shuttle))]
impl<T> Held<T> {
    /// The value as one that may be kept: its reference count is touched only now.
    pub fn into_arc(self) -> Arc<T> {
        Arc::clone(&self)
    }
}

#[cfg(not(shuttle))]
impl<T> From<Arc<T>> for Held<T> {
    fn from(value: Arc<T>) -> Held<T> {
        Held(Guard::from_inner(Some(value)))
    }
}

#[cfg(not(shuttle))]
impl<T> Deref for Held<T> {
    type Target = Arc<T>;

    #[inline]
    #[expect(clippy::expect_used, reason = "both ways of making one put a value in")]
    fn deref(&self) -> &Arc<T> {
        self.0.as_ref().expect("a held value is there")
    }
}

#[cfg(not(shuttle))]
impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot(ArcSwapOption::empty())
    }
}

#[cfg(shuttle)]
pub(crate) use scheduled::{Held, Slot};

#[cfg(shuttle)]
mod scheduled {
    //! The same behind a lock, where the test's scheduler sees every step.

    use std::ops::Deref;

    use crate::sync::{Arc, Mutex, PoisonError};

    #[derive(Debug)]
    pub(crate) struct Slot<T>(Mutex<Option<Arc<T>>>);

    #[derive(Debug)]
    pub(crate) struct Held<T>(Arc<T>);

    impl<T> Slot<T> {
        pub fn get(&self) -> Option<Held<T>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().map(Held)
        }

        pub fn put(&self, value: Option<Arc<T>>) {
            let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), value);
            drop(old);
        }
    }

    impl<T> Held<T> {
        pub fn into_arc(self) -> Arc<T> {
            self.0
        }
    }

    impl<T> From<Arc<T>> for Held<T> {
        fn from(value: Arc<T>) -> Held<T> {
            Held(value)
        }
    }

    impl<T> Deref for Held<T> {
        type Target = Arc<T>;

        fn deref(&self) -> &Arc<T> {
            &self.0
        }
    }

    impl<T> Default for Slot<T> {
        fn default() -> Slot<T> {
            Slot(Mutex::new(None))
        }
    }
}

/// How often something in a slot was found lately: a small number that uses raise and eviction lowers.
#[derive(Debug, Default)]
pub(crate) struct Uses(AtomicU8);

impl Uses {
    /// Two bits, as S3-FIFO has them: enough to tell hot from warm, and soon nothing is written any more.
    const MAX: u8 = 3;

    /// One more.
    #[inline]
    pub fn note(&self) {
        // Two readers may count as one. Not written once it is full, so that readers do not fight for the line.
        let uses = self.0.load(Ordering::Relaxed);
        if uses < Self::MAX {
            self.0.store(uses + 1, Ordering::Relaxed);
        }
    }

    /// How many.
    pub fn count(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// As if there had been so many.
    pub fn set(&self, count: u8) {
        self.0.store(count, Ordering::Relaxed);
    }
}
