//! `BlockCache`: decoded blocks of runs, shared by all readers.
//!
//! Keyed by (file, offset). File numbers are never reused (I4), so an entry can be stale in no way; evicting a removed
//! file only frees memory sooner. Admission and eviction are `quick_cache`'s (Clock-PRO, scan resistant).
//!
//! Always true:
//! * every cached byte is charged to the [`MemoryBudget`] for as long as anybody holds the block (P9);
//! * a full budget is no error here: the block is then read and not kept;
//! * filters and index roots of open runs are not in here, data blocks cannot evict them; they are charged as "run
//!   metadata".

use quick_cache::Weighter;

use crate::error::Result;
use crate::file::FileId;
use crate::memory::{MemoryBudget, Reclaim, Reservation};
use crate::sstable::block::Block;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Cache, Mutex, Weak};

/// Bookkeeping per entry besides the block's bytes: key, `Arc`, `Block` and the cache's own slot.
const ENTRY_OVERHEAD_BYTES: u64 = 192;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct BlockKey {
    file: FileId,
    offset: u64,
}

#[derive(Clone)]
struct ByteWeighter;

impl Weighter<BlockKey, Arc<Block>> for ByteWeighter {
    fn weight(&self, _: &BlockKey, block: &Arc<Block>) -> u64 {
        weight(block)
    }
}

fn weight(block: &Block) -> u64 {
    block.byte_count() as u64 + ENTRY_OVERHEAD_BYTES
}

/// Bytes taken from the budget on behalf of one block or one open run; given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    reservation: Arc<Reservation>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.reservation.shrink(self.bytes);
    }
}

/// Cache of data and index blocks.
pub struct BlockCache {
    store: Option<Store>,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Store {
    blocks: Cache<BlockKey, Arc<Block>, ByteWeighter>,
    capacity_bytes: u64,
    reservation: Arc<Reservation>,
    metadata: Arc<Reservation>,
    reclaiming: Mutex<()>,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`, charged to `budget` and emptied by it when memory runs short.
    ///
    /// # Errors
    /// None today: an empty reservation always fits.
    pub fn new(budget: &Arc<MemoryBudget>, capacity_bytes: u64) -> Result<Arc<BlockCache>> {
        // The number of entries is only an estimate for sizing the table; blocks have 8 KiB by default.
        let entry_count = usize::try_from(capacity_bytes / (8 << 10)).unwrap_or(usize::MAX).max(16);
        let store = Store {
            blocks: Cache::with_weighter(entry_count, capacity_bytes, ByteWeighter),
            capacity_bytes,
            reservation: Arc::new(budget.reserve("block cache", 0)?),
            metadata: Arc::new(budget.reserve("run metadata", 0)?),
            reclaiming: Mutex::new(()),
        };
        let cache = Arc::new(BlockCache { store: Some(store), hits: AtomicU64::new(0), misses: AtomicU64::new(0) });
        let weak: Weak<BlockCache> = Arc::downgrade(&cache);
        budget.register_cache(weak);
        Ok(cache)
    }

    /// A cache that keeps nothing and charges nobody, for reading a file once.
    #[must_use]
    pub fn disabled() -> Arc<BlockCache> {
        Arc::new(BlockCache { store: None, hits: AtomicU64::new(0), misses: AtomicU64::new(0) })
    }

    /// The block at `offset` of `file`, if it is here.
    #[inline]
    pub(crate) fn get(&self, file: FileId, offset: u64) -> Option<Arc<Block>> {
        let found = self.store.as_ref().and_then(|store| store.blocks.get(&BlockKey { file, offset }));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps `block`, read from `file`, if there is room for it, and returns it for use.
    pub(crate) fn insert(&self, file: FileId, mut block: Block) -> Arc<Block> {
        let Some(store) = &self.store else { return Arc::new(block) };
        let bytes = weight(&block);
        // Outside the cache's locks, because a refused request makes the budget ask this very cache to shrink.
        if store.reservation.try_grow(bytes).is_err() {
            return Arc::new(block);
        }
        block.attach(Charge { reservation: Arc::clone(&store.reservation), bytes });
        let block = Arc::new(block);
        store.blocks.insert(BlockKey { file, offset: block.offset() }, Arc::clone(&block));
        block
    }

    /// Charges what an open run keeps in memory until it closes. It is needed to read at all, so it is not refused.
    pub(crate) fn charge_metadata(&self, bytes: u64) -> Option<Charge> {
        let store = self.store.as_ref()?;
        store.metadata.grow(bytes);
        Some(Charge { reservation: Arc::clone(&store.metadata), bytes })
    }

    /// Drops the blocks of a removed file. Visits every entry: about a millisecond per 100,000.
    pub fn evict_file(&self, file: FileId) {
        if let Some(store) = &self.store {
            store.blocks.retain(|key, _| key.file != file);
        }
    }

    /// Drops every block.
    pub fn clear(&self) {
        if let Some(store) = &self.store {
            store.blocks.clear();
        }
    }

    /// Bytes of the blocks held, bookkeeping included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.blocks.weight())
    }

    /// Look-ups that found their block.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Look-ups that did not.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}

impl Reclaim for BlockCache {
    fn reclaim(&self, bytes: u64) -> u64 {
        let Some(store) = &self.store else { return 0 };
        // One at a time, because the capacity is lowered for a moment; whoever comes second finds memory anyway.
        let Ok(_guard) = store.reclaiming.try_lock() else { return 0 };
        let before = store.reservation.bytes();
        store.blocks.set_capacity(store.blocks.weight().saturating_sub(bytes));
        store.blocks.set_capacity(store.capacity_bytes);
        before.saturating_sub(store.reservation.bytes())
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache")
            .field("used_bytes", &self.used_bytes())
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}
