//! `Flights`: of several readers that miss the same block, one reads it and the others get what it read.

use crate::error::Result;
use crate::file::FileId;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks for the lists of what is being read: more than there are cores that could miss at once on a small server.
const STRIPES: usize = 16;

type Flight<T> = Arc<Mutex<Option<Arc<T>>>>;
type Flying<T> = Vec<((FileId, u64), Flight<T>)>;

/// What is being read at the moment, by (file, offset).
#[derive(Debug)]
pub(super) struct Flights<T> {
    stripes: [Mutex<Flying<T>>; STRIPES],
}

impl<T> Default for Flights<T> {
    fn default() -> Flights<T> {
        Flights { stripes: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<T> Flights<T> {
    /// What `read` returns, or what it returned on another thread for which this one had to wait. After an error there
    /// each of those who waited reads for itself.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn share(&self, id: (FileId, u64), read: impl FnOnce() -> Result<Arc<T>>) -> Result<Arc<T>> {
        let flight = self.join(id);
        let mut landed = flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*landed {
            return Ok(Arc::clone(value));
        }
        let result = read();
        if let Ok(value) = &result {
            *landed = Some(Arc::clone(value));
        }
        drop(landed);
        self.stripe(id).retain(|(_, other)| !Arc::ptr_eq(other, &flight));
        result
    }

    /// How many wait for what another thread reads at `id`.
    #[cfg(test)]
    pub fn waiting(&self, id: (FileId, u64)) -> usize {
        let flying = self.stripe(id);
        // One reference is the list's, one the reader's.
        flying.iter().find(|(other, _)| *other == id).map_or(0, |(_, flight)| Arc::strong_count(flight) - 2)
    }

    fn join(&self, id: (FileId, u64)) -> Flight<T> {
        let mut flying = self.stripe(id);
        if let Some((_, flight)) = flying.iter().find(|(other, _)| *other == id) {
            return Arc::clone(flight);
        }
        let flight = Flight::default();
        flying.push((id, Arc::clone(&flight)));
        flight
    }

    fn stripe(&self, (file, offset): (FileId, u64)) -> MutexGuard<'_, Flying<T>> {
        // Blocks are kilobytes apart: the low bits of an offset say little.
        let at = (file.0 ^ (offset >> 12)) as usize % STRIPES;
        self.stripes[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
