//! The memory budget and the block cache: who takes, who gives back, who is asked to let go.

use std::sync::Arc;

use bytes::Bytes;
use shuttle::rand::Rng;
use shuttle::sync::Mutex;
use shuttle::{rand, thread};

use crate::cache::BlockCache;
use crate::file::FileId;
use crate::iter::VersionKind;
use crate::memory::{MemoryBudget, Reclaim, Reservation};
use crate::seqno::SeqNo;
use crate::sstable::block::{Block, BlockBuilder};
use crate::sstable::index::{Handle, IndexBuilder};
use crate::sstable::node::Leaf;

const LIMIT: u64 = 100;

/// Something that holds memory it can do without.
struct Hoard(Mutex<Reservation>);

impl Reclaim for Hoard {
    fn reclaim(&self, bytes: u64) -> u64 {
        let Ok(held) = self.0.try_lock() else { return 0 };
        let freed = bytes.min(held.bytes());
        held.shrink(freed);
        freed
    }
}

/// Nobody gets more than there is, a request that fits once the cache has shrunk is not refused for good, and in the end
/// nothing is taken.
pub(super) fn memory_budget() {
    let budget = MemoryBudget::new(LIMIT);
    let hoard = Arc::new(Hoard(Mutex::new(budget.reserve("hoard", 50).unwrap())));
    let weak: std::sync::Weak<Hoard> = Arc::downgrade(&hoard);
    budget.register_cache(weak);
    let names = ["queries", "queries", "memtables"];
    let threads = names.map(|name| {
        let budget = Arc::clone(&budget);
        thread::spawn(move || {
            for _ in 0..3 {
                let bytes = rand::thread_rng().gen_range(10..70);
                if let Ok(held) = budget.reserve(name, bytes) {
                    assert!(budget.used() <= LIMIT, "more taken than there is");
                    assert!(budget.used() >= held.bytes(), "taken and not counted");
                    let _ = held.try_grow(10);
                    held.shrink(5);
                    assert!(budget.used() <= LIMIT, "more taken than there is");
                }
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(budget.reserve("queries", LIMIT).expect("the cache lets go of all it has"));
    drop(hoard);
    assert_eq!(budget.used(), 0);
    assert!(budget.usage_by_consumer().iter().all(|(_, bytes)| *bytes == 0), "{budget:?}");
    assert_eq!(budget.usage_by_consumer().len(), 3, "each name once: {budget:?}");
}

fn block(offset: u64) -> Block {
    let mut builder = BlockBuilder::new(4);
    builder.add(&offset.to_be_bytes(), 0, SeqNo(1), VersionKind::Put, &[7; 50], None);
    let mut bytes = Vec::new();
    builder.finish_into(&mut bytes);
    Block::new(Bytes::from(bytes), offset).unwrap()
}

/// The index of a file of five blocks, as far apart as their numbers.
fn leaf() -> Arc<Leaf> {
    let mut index = IndexBuilder::new(usize::MAX);
    for offset in 0..5u64 {
        index.add(&offset.to_be_bytes(), Handle { offset, bytes: 1 });
    }
    Arc::new(Leaf::decode(index.finish().remove(0).1.into(), 9).unwrap())
}

/// What a run does for a block: looks into the slot, and reads what is not there unless somebody else is reading it.
fn read(cache: &BlockCache, file: FileId, leaf: &Arc<Leaf>, offset: u64) -> Arc<Block> {
    let at = offset as usize;
    let found = leaf.child(at);
    cache.count(found.is_some());
    if let Some(found) = found {
        return found.into_arc();
    }
    let read = || match leaf.child(at) {
        Some(found) => Ok(found.into_arc()),
        None => Ok(cache.keep_block(file, leaf, at, block(offset))),
    };
    cache.read_block((file, offset), read).unwrap()
}

/// Blocks are read, kept, evicted and reclaimed at once: a block found is the one asked for, and what is held is paid for.
pub(super) fn block_cache() {
    let budget = MemoryBudget::new(2000);
    let cache = BlockCache::new(&budget, 1200).unwrap();
    let mut threads = Vec::new();
    let leaves = [leaf(), leaf()];
    for file in [1, 1, 2] {
        let (cache, leaf) = (Arc::clone(&cache), Arc::clone(&leaves[file as usize - 1]));
        threads.push(thread::spawn(move || {
            for _ in 0..4 {
                let offset = rand::thread_rng().gen_range(0..5);
                let block = read(&cache, FileId(file), &leaf, offset);
                assert_eq!(block.offset(), offset, "another block than asked for");
            }
        }));
    }
    {
        let (budget, cache) = (Arc::clone(&budget), Arc::clone(&cache));
        threads.push(thread::spawn(move || {
            drop(budget.reserve("queries", 1500));
            cache.evict_file(FileId(1));
            drop(budget.reserve("queries", 1900));
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(cache.hits() + cache.misses(), 12);
    assert!(cache.used_bytes() <= 1200, "the cache outgrew its share");
    assert_eq!(budget.used(), cache.used_bytes(), "what is held is paid for, and nothing else");
    cache.clear();
    assert_eq!(budget.used(), 0, "a block in a slot that the cache does not know of");
}
