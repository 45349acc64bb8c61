//! `BlockCache`: blocks of runs in memory, shared by all readers.
//!
//! There is no table to look a block up in: the index node that leads to a block has a [`Slot`](slot::Slot) for it, and
//! index partitions lie in slots of their run's root. The cache decides what may be there: it admits, counts bytes and
//! evicts. A hit touches neither lock nor reference count.
//!
//! Always true:
//! * every cached byte is charged to the [`MemoryBudget`] for as long as anybody holds the block (P9);
//! * a full budget is no error here: the block is then read and not kept;
//! * whatever is in a slot is in one of the queues, or was put there by a thread that is about to queue it: nothing
//!   stays for ever;
//! * data blocks never drive out index partitions. Those go only when a query or a memtable needs the memory and no
//!   data block is left. Filters and index roots stay as long as their run is open. All of it is "run metadata";
//! * a slot belongs to one place of one file, and file numbers are never reused (I4): what is in it is never stale.

mod fifo;
mod flight;
pub(crate) mod slot;

use std::cell::Cell;
use std::fmt::Debug;

use crate::error::Result;
use crate::file::FileId;
use crate::memory::{MemoryBudget, Reclaim, Reservation};
use crate::sstable::block::Block;
use crate::sstable::node::{Leaf, Root};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use fifo::{Fifo, Resident};
use flight::Flights;

/// Bookkeeping per block besides its bytes: `Arc` and `Block`, its entry in a queue and perhaps its ghost.
const ENTRY_OVERHEAD_BYTES: u64 = 192;
/// Counters that threads share out among them, so that counting does not make them wait for each other.
const STRIPES: usize = 16;

/// What has slots. All calls are quick and take no locks.
pub(crate) trait Home: Debug + Send + Sync {
    /// How often what is in slot `at` was used lately; `None` if it is empty.
    fn uses(&self, at: usize) -> Option<u8>;
    /// As if it had been used so often.
    fn set_uses(&self, at: usize, count: u8);
    /// Empties slot `at`.
    fn vacate(&self, at: usize);
}

/// Bytes taken from the budget on behalf of one block or one open run; given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: u64,
}

/// What was taken from the budget, and in how many charges.
#[derive(Debug)]
struct Account {
    reservation: Reservation,
    charges: AtomicU64,
}

impl Account {
    /// The charge for `bytes` that were added to the reservation.
    fn charge(self: &Arc<Account>, bytes: u64) -> Charge {
        self.charges.fetch_add(1, Ordering::Relaxed);
        Charge { account: Arc::clone(self), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.charges.fetch_sub(1, Ordering::Relaxed);
        self.account.reservation.shrink(self.bytes);
    }
}

/// Cache of data blocks and index partitions.
#[derive(Default)]
pub struct BlockCache {
    store: Option<Store>,
    counters: [Counters; STRIPES],
    /// How many threads were given counters.
    threads: AtomicUsize,
}

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Store {
    blocks: Pool<Block>,
    leaves: Pool<Leaf>,
    capacity_bytes: u64,
}

/// Values of one kind: their bytes, their order of leaving, and who is reading which.
struct Pool<T> {
    account: Arc<Account>,
    fifo: Mutex<Fifo>,
    flights: Flights<T>,
}

impl<T> Pool<T> {
    fn new(reservation: Reservation) -> Pool<T> {
        let account = Arc::new(Account { reservation, charges: AtomicU64::new(0) });
        Pool { account, fifo: Mutex::default(), flights: Flights::default() }
    }

    fn bytes(&self) -> u64 {
        self.account.reservation.bytes()
    }

    fn fifo(&self) -> MutexGuard<'_, Fifo> {
        self.fifo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Evicts until `bytes` were given back or nothing is left; returns how many were.
    fn evict(&self, bytes: u64) -> u64 {
        let mut fifo = self.fifo();
        let before = self.bytes();
        let freed = || before.saturating_sub(self.bytes());
        while freed() < bytes && fifo.evict() {}
        freed()
    }
}

thread_local! {
    /// Whether this thread asks for memory in order to keep a data block.
    static FOR_A_BLOCK: Cell<bool> = const { Cell::new(false) };
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl BlockCache {
    /// A cache of at most `capacity_bytes` of data blocks, charged to `budget` and emptied by it when memory runs short.
    ///
    /// # Errors
    /// None today: an empty reservation always fits.
    pub fn new(budget: &Arc<MemoryBudget>, capacity_bytes: u64) -> Result<Arc<BlockCache>> {
        let store = Store {
            blocks: Pool::new(budget.reserve("block cache", 0)?),
            leaves: Pool::new(budget.reserve("run metadata", 0)?),
            capacity_bytes,
        };
        let cache = Arc::new(BlockCache { store: Some(store), ..BlockCache::default() });
        let weak: Weak<BlockCache> = Arc::downgrade(&cache);
        budget.register_cache(weak);
        Ok(cache)
    }

    /// A cache that keeps nothing and charges nobody, for reading a file once.
    #[must_use]
    pub fn disabled() -> Arc<BlockCache> {
        Arc::default()
    }

    /// Counts a look-up of a data block.
    #[inline]
    pub(crate) fn count(&self, hit: bool) {
        let counters = &self.counters[self.stripe()];
        let counter = if hit { &counters.hits } else { &counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `read` for the block at `id` unless another thread is reading it already: then waits for that one's.
    pub(crate) fn read_block(
        &self,
        id: (FileId, u64),
        read: impl FnOnce() -> Result<Arc<Block>>,
    ) -> Result<Arc<Block>> {
        match &self.store {
            Some(store) => store.blocks.flights.share(id, read),
            None => read(),
        }
    }

    /// As [`BlockCache::read_block`], for an index partition.
    pub(crate) fn read_leaf(&self, id: (FileId, u64), read: impl FnOnce() -> Result<Arc<Leaf>>) -> Result<Arc<Leaf>> {
        match &self.store {
            Some(store) => store.leaves.flights.share(id, read),
            None => read(),
        }
    }

    /// Keeps `block`, read from `file`, in slot `at` of `home` if there is room for it, and returns it for use.
    pub(crate) fn keep_block(&self, file: FileId, home: &Arc<Leaf>, at: usize, mut block: Block) -> Arc<Block> {
        let bytes = block.byte_count() as u64 + ENTRY_OVERHEAD_BYTES;
        let Some(store) = self.store.as_ref().filter(|store| bytes <= store.capacity_bytes) else {
            return Arc::new(block);
        };
        let pool = &store.blocks;
        // Outside the queues' locks, because a refused request makes the budget ask this very cache to shrink.
        FOR_A_BLOCK.set(true);
        let taken = pool.account.reservation.try_grow(bytes);
        FOR_A_BLOCK.set(false);
        if taken.is_err() {
            return Arc::new(block);
        }
        block.attach(pool.account.charge(bytes));
        let id = (file, block.offset());
        let block = Arc::new(block);
        home.slot(at).put(Some(Arc::clone(&block)));
        let weak: Weak<Leaf> = Arc::downgrade(home);
        let mut fifo = pool.fifo();
        fifo.admit(Resident { home: weak, at, bytes, id }, pool.account.charges.load(Ordering::Relaxed));
        while pool.bytes() > store.capacity_bytes && fifo.evict() {}
        block
    }

    /// Keeps the index partition `leaf` of `file` in slot `at` of `home`, if the budget has room for it.
    pub(crate) fn keep_leaf(&self, file: FileId, home: &Arc<Root>, at: usize, mut leaf: Leaf) -> Arc<Leaf> {
        let Some(store) = &self.store else { return Arc::new(leaf) };
        let (pool, bytes) = (&store.leaves, leaf.byte_count() as u64);
        if pool.account.reservation.try_grow(bytes).is_err() {
            return Arc::new(leaf);
        }
        leaf.attach(pool.account.charge(bytes));
        let id = (file, leaf.offset());
        let leaf = Arc::new(leaf);
        home.slot(at).put(Some(Arc::clone(&leaf)));
        let weak: Weak<Root> = Arc::downgrade(home);
        pool.fifo().admit(Resident { home: weak, at, bytes, id }, pool.account.charges.load(Ordering::Relaxed));
        leaf
    }

    /// Charges what an open run keeps in memory until it closes. It is needed to read at all, so it is not refused.
    pub(crate) fn charge_metadata(&self, bytes: u64) -> Option<Charge> {
        let account = &self.store.as_ref()?.leaves.account;
        account.reservation.grow(bytes);
        Some(account.charge(bytes))
    }

    /// Drops the blocks of a removed file. Visits every entry: about a millisecond per 100,000.
    pub fn evict_file(&self, file: FileId) {
        self.vacate_unless(|resident| resident.id.0 != file);
    }

    /// Drops every block and every index partition.
    pub fn clear(&self) {
        self.vacate_unless(|_| false);
    }

    fn vacate_unless(&self, is_wanted: impl Fn(&Resident) -> bool) {
        if let Some(store) = &self.store {
            store.blocks.fifo().vacate_unless(&is_wanted);
            store.leaves.fifo().vacate_unless(&is_wanted);
        }
    }

    /// Bytes of the data blocks held, bookkeeping included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.blocks.bytes())
    }

    /// Look-ups of data blocks that found their block.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.counters.iter().map(|counters| counters.hits.load(Ordering::Relaxed)).sum()
    }

    /// Look-ups that did not.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.counters.iter().map(|counters| counters.misses.load(Ordering::Relaxed)).sum()
    }

    /// The counters of this thread. Two threads may share theirs.
    #[inline]
    fn stripe(&self) -> usize {
        let mut stripe = STRIPE.get();
        if stripe == usize::MAX {
            stripe = self.threads.fetch_add(1, Ordering::Relaxed) % STRIPES;
            STRIPE.set(stripe);
        }
        stripe % STRIPES
    }
}

impl Reclaim for BlockCache {
    fn reclaim(&self, bytes: u64) -> u64 {
        let Some(store) = &self.store else { return 0 };
        let freed = store.blocks.evict(bytes);
        if freed >= bytes || FOR_A_BLOCK.get() {
            return freed;
        }
        freed + store.leaves.evict(bytes - freed)
    }
}

impl Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache")
            .field("used_bytes", &self.used_bytes())
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
