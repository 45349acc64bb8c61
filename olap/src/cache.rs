//! Decoded column chunks and key blocks, kept while the budget allows, so that hot data is never decoded twice.
//!
//! A chunk is a whole column of one row group, a piece is one page-sized slice of it for point reads. Both hold
//! physical rows, marked ones included, and so do not depend on any snapshot.
//!
//! Always true: file numbers are never reused, so a cached value is never stale; what the cache holds is reserved in the
//! budget, and given back when others need it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use arrow::array::{Array, ArrayRef};
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};
use strata_oltp::memory::{MemoryBudget, Reclaim, Reservation};
use strata_oltp::{FileId, Result};

use crate::segment::keys::KeyBlock;

/// A column of a row group of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// The segment.
    pub segment: FileId,
    /// Row group in file order.
    pub row_group: u32,
    /// Column in file order.
    pub column: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Chunk(ChunkKey),
    Piece(ChunkKey, u32),
    Keys(FileId, u32),
}

#[derive(Clone, Debug)]
enum Cached {
    Array(ArrayRef),
    Keys(Arc<KeyBlock>),
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Slot, Cached> for ByBytes {
    fn weight(&self, _: &Slot, cached: &Cached) -> u64 {
        cached.bytes()
    }
}

impl Cached {
    fn bytes(&self) -> u64 {
        // Of the entry itself: slot, pointers and the map's share.
        const ENTRY_BYTES: u64 = 128;
        ENTRY_BYTES
            + match self {
                Cached::Array(array) => array.get_array_memory_size() as u64,
                Cached::Keys(block) => block.memory_bytes() as u64,
            }
    }
}

/// Chunks whose reading is remembered: ten columns of a billion rows, in about 2 MiB.
const USED_CHUNKS_MAX: usize = 80_000;

/// Counters of a [`ColumnCache`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Look-ups that found their entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
}

/// Decoded chunks under one limit and the database's budget.
#[derive(Debug)]
pub struct ColumnCache {
    cache: Cache<Slot, Cached, ByBytes>,
    /// Chunks read lately, whether kept or not.
    used: Cache<ChunkKey, ()>,
    bytes_max: u64,
    /// Equals the cache's weight whenever `accounts` is free.
    reservation: Reservation,
    accounts: Mutex<()>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl ColumnCache {
    /// A cache of at most `bytes_max` bytes, reserved from `budget` as they are used and given back on demand.
    ///
    /// # Panics
    /// Never: an empty reservation always fits.
    #[must_use]
    pub fn new(budget: &Arc<MemoryBudget>, bytes_max: u64) -> Arc<ColumnCache> {
        // Few shards, because a shard bounds the largest entry it takes and chunks of long text reach tens of MB.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(4096)
            .weight_capacity(bytes_max)
            .shards(4)
            .build()
            .expect("all required options are set");
        let cache = Arc::new(ColumnCache {
            cache: Cache::with_options(options, ByBytes, Default::default(), Default::default()),
            used: Cache::new(USED_CHUNKS_MAX),
            bytes_max,
            reservation: budget.reserve("column cache", 0).expect("nothing always fits"),
            accounts: Mutex::new(()),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        });
        let weak: Weak<ColumnCache> = Arc::downgrade(&cache);
        budget.register_cache(weak);
        cache
    }

    /// The chunk, if it is cached.
    #[must_use]
    pub fn get(&self, key: ChunkKey) -> Option<ArrayRef> {
        self.array(Slot::Chunk(key))
    }

    /// Keeps a decoded chunk, if the budget allows.
    pub fn insert(&self, key: ChunkKey, chunk: ArrayRef) {
        self.put(Slot::Chunk(key), Cached::Array(chunk));
    }

    /// Whether the chunk was read before, as far as remembered; remembers this reading. For callers that keep only
    /// what is read again.
    pub fn note_use(&self, key: ChunkKey) -> bool {
        let known = self.used.get(&key).is_some();
        if !known {
            self.used.insert(key, ());
        }
        known
    }

    /// Drops everything, what was read before included.
    pub fn clear(&self) {
        let _accounts = lock(&self.accounts);
        self.used.clear();
        self.cache.clear();
        self.balance();
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.cache.len() as u64,
            bytes: self.cache.weight(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn piece(&self, key: ChunkKey, piece: u32) -> Option<ArrayRef> {
        self.array(Slot::Piece(key, piece))
    }

    pub(crate) fn insert_piece(&self, key: ChunkKey, piece: u32, values: ArrayRef) {
        self.put(Slot::Piece(key, piece), Cached::Array(values));
    }

    /// The key block, read with `read` if it is not cached.
    pub(crate) fn key_block(
        &self,
        segment: FileId,
        block: usize,
        read: impl FnOnce() -> Result<KeyBlock>,
    ) -> Result<Arc<KeyBlock>> {
        let slot = Slot::Keys(segment, u32::try_from(block).expect("a segment has fewer blocks than rows"));
        if let Some(Cached::Keys(block)) = self.cache.get(&slot) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(block);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let block = Arc::new(read()?);
        self.put(slot, Cached::Keys(Arc::clone(&block)));
        Ok(block)
    }

    fn array(&self, slot: Slot) -> Option<ArrayRef> {
        match self.cache.get(&slot) {
            Some(Cached::Array(array)) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Some(array)
            }
            _ => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn put(&self, slot: Slot, cached: Cached) {
        let bytes = cached.bytes();
        let _accounts = lock(&self.accounts);
        if bytes > self.bytes_max {
            return;
        }
        // With the accounts held, `reclaim` of this very cache stands back; room is made here instead.
        if self.reservation.try_grow(bytes).is_err() {
            self.evict(bytes);
            if self.reservation.try_grow(bytes).is_err() {
                return;
            }
        }
        self.cache.insert(slot, cached);
        self.balance();
    }

    /// Evicts about `bytes`; only with `accounts` held.
    fn evict(&self, bytes: u64) {
        self.cache.set_capacity(self.cache.weight().saturating_sub(bytes).max(1));
        self.cache.set_capacity(self.bytes_max);
        self.balance();
    }

    /// Makes the reservation what the cache weighs; only with `accounts` held.
    fn balance(&self) {
        let (held, weight) = (self.reservation.bytes(), self.cache.weight());
        if held > weight {
            self.reservation.shrink(held - weight);
        } else {
            self.reservation.grow(weight - held);
        }
    }
}

impl Reclaim for ColumnCache {
    fn reclaim(&self, bytes: u64) -> u64 {
        let _accounts = match self.accounts.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return 0,
        };
        let before = self.reservation.bytes();
        self.evict(bytes);
        before.saturating_sub(self.reservation.bytes())
    }
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn chunk(rows: usize) -> ArrayRef {
        Arc::new(Int64Array::from(vec![7; rows]))
    }

    fn key(row_group: u32) -> ChunkKey {
        ChunkKey { segment: FileId(1), row_group, column: 0 }
    }

    #[test]
    fn gives_memory_back_when_others_need_it() {
        let budget = MemoryBudget::new(100_000);
        let cache = ColumnCache::new(&budget, 1 << 20);
        for group in 0..10 {
            cache.insert(key(group), chunk(1000));
        }
        assert!(cache.stats().entries >= 8, "{:?}", cache.stats());
        assert_eq!(budget.used(), cache.stats().bytes);
        let query = budget.reserve("query", 80_000).unwrap();
        assert!(cache.stats().bytes <= 20_000);
        assert_eq!(budget.used(), cache.stats().bytes + query.bytes());
        cache.clear();
        assert_eq!(budget.used(), query.bytes());
    }

    #[test]
    fn replaces_its_own_entries_under_pressure() {
        let budget = MemoryBudget::new(30_000);
        let cache = ColumnCache::new(&budget, 1 << 20);
        for group in 0..20 {
            cache.insert(key(group), chunk(1000));
        }
        assert!(cache.get(key(19)).is_some() || cache.stats().entries > 0);
        assert!(budget.used() <= budget.limit());
        assert_eq!(budget.used(), cache.stats().bytes);
    }
}
