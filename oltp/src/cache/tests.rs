//! What the cache promises: bytes bounded and charged, scans that drive out nothing else, index partitions that data
//! blocks do not drive out, one read per missing block.
//!
//! Blocks are made here, not read: each has one entry and lies at a place of its own in an index of one file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::iter::VersionKind;
use crate::seqno::SeqNo;
use crate::sstable::block::BlockBuilder;
use crate::sstable::index::{Handle, IndexBuilder};

const BLOCK_BYTES: u64 = 1000;
/// What one block takes in the cache.
const WEIGHT: u64 = BLOCK_BYTES + ENTRY_OVERHEAD_BYTES;
const FILE: FileId = FileId(3);

fn leaf(blocks: usize, offset: u64) -> Leaf {
    let mut index = IndexBuilder::new(usize::MAX);
    for at in 0..blocks {
        index.add(format!("{at:06}").as_bytes(), Handle { offset: at as u64 * BLOCK_BYTES, bytes: 0 });
    }
    Leaf::decode(index.finish().remove(0).1.into(), offset).unwrap()
}

fn block(at: usize) -> Block {
    let mut builder = BlockBuilder::new(1);
    let value = vec![at as u8; BLOCK_BYTES as usize - 16 - 4 - 6];
    builder.add(b"", 0, SeqNo(1), VersionKind::Put, &value, None);
    let mut bytes = Vec::new();
    builder.finish_into(&mut bytes);
    Block::new(bytes.into(), at as u64 * BLOCK_BYTES).unwrap()
}

/// A cache, the leaf whose blocks it keeps, and how often a block had to be made.
struct Fixture {
    budget: Arc<MemoryBudget>,
    cache: Arc<BlockCache>,
    leaf: Arc<Leaf>,
}

impl Fixture {
    fn new(budget_bytes: u64, blocks_max: u64) -> Fixture {
        let budget = MemoryBudget::new(budget_bytes);
        let cache = BlockCache::new(&budget, blocks_max * WEIGHT).unwrap();
        Fixture { budget, cache, leaf: Arc::new(leaf(1000, 1)) }
    }

    /// Reads block `at` as a run does; whether it was there.
    fn read(&self, at: usize) -> bool {
        if let Some(found) = self.leaf.child(at) {
            assert_eq!(found.offset(), at as u64 * BLOCK_BYTES);
            return true;
        }
        self.cache.keep_block(FILE, &self.leaf, at, block(at));
        false
    }

    fn resident(&self) -> usize {
        (0..self.leaf.count()).filter(|&at| self.leaf.slot(at).get().is_some()).count()
    }
}

#[test]
fn blocks_made_here_have_the_weight_that_the_tests_count_with() {
    assert!(block(3).byte_count() as u64 <= BLOCK_BYTES && block(3).byte_count() as u64 > BLOCK_BYTES - 8);
}

#[test]
fn a_scan_drives_out_nothing_that_is_used() {
    let fixture = Fixture::new(1 << 30, 100);
    for _ in 0..4 {
        (0..60).for_each(|at| _ = fixture.read(at));
    }
    // Six times the cache, each block once.
    (100..700).for_each(|at| _ = fixture.read(at));
    assert_eq!((0..60).filter(|&at| fixture.read(at)).count(), 60);
    assert!(fixture.cache.used_bytes() <= 100 * WEIGHT);
}

#[test]
fn what_comes_back_soon_stays_the_second_time() {
    let fixture = Fixture::new(1 << 30, 100);
    (0..110).for_each(|at| _ = fixture.read(at));
    assert!(!fixture.read(0), "the first ones had to go");
    // Read again, it went to the main queue: what passes through the small one does not touch it.
    (200..400).for_each(|at| _ = fixture.read(at));
    assert!(fixture.read(0));
}

#[test]
fn data_blocks_do_not_drive_out_index_partitions() {
    let budget = MemoryBudget::new(100_000);
    let cache = BlockCache::new(&budget, 1 << 20).unwrap();
    let mut index = IndexBuilder::new(usize::MAX);
    index.add(b"z", Handle { offset: 1, bytes: 0 });
    let root = Arc::new(Root::decode(index.finish().remove(0).1.into(), 9).unwrap());
    let leaf = cache.keep_leaf(FILE, &root, 0, leaf(500, 1));
    let metadata = budget.used();
    assert!(metadata > 500 * 30);
    // The budget is smaller than the cache may be: blocks make room for each other and for nothing else.
    for at in 0..500 {
        cache.keep_block(FILE, &leaf, at, block(at));
    }
    assert!(root.child(0).is_some());
    assert!(cache.used_bytes() > 50 * WEIGHT && budget.used() <= budget.limit());
    // A query that needs all gets all but what is in somebody's hands.
    let query = budget.reserve("query", 100_000 - metadata).unwrap();
    assert!(root.child(0).is_some());
    assert_eq!(cache.used_bytes(), 0);
    drop(leaf);
    let other = Arc::new(self::leaf(5, 1));
    cache.keep_block(FILE, &other, 1, block(1));
    assert!(root.child(0).is_some() && other.child(1).is_none(), "a block that takes a partition's room");
    let rest = budget.reserve("query", metadata).unwrap();
    assert!(root.child(0).is_none());
    // And a block finds no room, which is no error.
    let leaf = Arc::new(self::leaf(5, 1));
    cache.keep_block(FILE, &leaf, 1, block(1));
    assert!(leaf.child(1).is_none());
    drop((query, rest));
    cache.keep_block(FILE, &leaf, 1, block(1));
    assert!(leaf.child(1).is_some());
}

#[test]
fn blocks_of_closed_runs_leave_nothing_behind() {
    let fixture = Fixture::new(1 << 30, 1 << 20);
    for _ in 0..200 {
        let leaf = Arc::new(leaf(10, 1));
        (0..10).for_each(|at| drop(fixture.cache.keep_block(FILE, &leaf, at, block(at))));
    }
    assert_eq!(fixture.budget.used(), 0, "blocks go with their index");
    let entries = fixture.cache.store.as_ref().unwrap().blocks.fifo().entry_count();
    assert!(entries < 200, "{entries} entries for blocks that are gone");
}

#[test]
fn of_many_who_miss_one_reads() {
    let fixture = Fixture::new(1 << 30, 100);
    let (reads, barrier) = (AtomicUsize::new(0), Barrier::new(4));
    let read = |fails: bool| {
        fixture.cache.read_block((FILE, 5000), || {
            if let Some(found) = fixture.leaf.child(5) {
                return Ok(found.into_arc());
            }
            reads.fetch_add(1, Ordering::SeqCst);
            if fails { Err(Error::Closed) } else { Ok(fixture.cache.keep_block(FILE, &fixture.leaf, 5, block(5))) }
        })
    };
    let everybody = |fails: bool| {
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        read(fails).map(|block| block.offset()).ok()
                    })
                })
                .collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
        })
    };
    // An error is everybody's own, and nothing of it stays.
    assert_eq!(everybody(true), [None; 4]);
    assert_eq!(reads.swap(0, Ordering::SeqCst), 4);
    assert_eq!(everybody(false), [Some(5000); 4]);
    assert_eq!(reads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_block_that_nobody_keeps_is_shared_all_the_same() {
    let fixture = Fixture::new(1 << 30, 0);
    let (reads, waiting) = (AtomicUsize::new(0), Barrier::new(2));
    std::thread::scope(|scope| {
        let second = || {
            waiting.wait();
            fixture.cache.read_block((FILE, 0), || {
                reads.fetch_add(1, Ordering::SeqCst);
                Ok(Arc::new(block(0)))
            })
        };
        let mut reader = None;
        let first = fixture.cache.read_block((FILE, 0), || {
            reader = Some(scope.spawn(second));
            waiting.wait();
            // The second holds a reference to this flight once it waits for it.
            let flights = &fixture.cache.store.as_ref().unwrap().blocks.flights;
            while flights.waiting((FILE, 0)) == 0 {
                std::thread::yield_now();
            }
            Ok(Arc::new(block(0)))
        });
        assert!(Arc::ptr_eq(&first.unwrap(), &reader.unwrap().join().unwrap().unwrap()));
    });
    assert_eq!(reads.load(Ordering::SeqCst), 0);
}

#[test]
fn readers_and_evictions_at_the_same_time_agree_on_every_byte() {
    let fixture = Fixture::new(1 << 30, 20);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let fixture = &fixture;
            scope.spawn(move || {
                let mut state = thread as u64 + 1;
                for round in 0..20_000 {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let at = (state >> 33) as usize % 60;
                    let held = fixture.leaf.child(at);
                    let block = match held {
                        Some(block) => block.into_arc(),
                        None => fixture
                            .cache
                            .read_block((FILE, at as u64 * BLOCK_BYTES), || match fixture.leaf.child(at) {
                                Some(block) => Ok(block.into_arc()),
                                None => Ok(fixture.cache.keep_block(FILE, &fixture.leaf, at, block(at))),
                            })
                            .unwrap(),
                    };
                    let found = block.find(b"", 0, SeqNo(1)).unwrap();
                    let crate::sstable::block::Find::Found { value, .. } = found else { panic!("{found:?}") };
                    assert!(value.iter().all(|&byte| byte == at as u8));
                    match round % 5_000 {
                        4_998 => fixture.cache.evict_file(FILE),
                        4_999 => drop(fixture.cache.reclaim(5 * WEIGHT)),
                        _ => {}
                    }
                }
            });
        }
    });
    assert!(fixture.resident() <= 20);
    fixture.cache.clear();
    assert_eq!((fixture.resident(), fixture.budget.used()), (0, 0));
}

proptest! {
    /// Whatever is read, the bytes stay below the capacity, are all charged, and equal what is in the slots.
    #[test]
    fn bytes_are_bounded_and_charged(reads in prop::collection::vec(0usize..40, 1..300), capacity in 0u64..20) {
        let fixture = Fixture::new(1 << 30, capacity);
        for at in reads {
            fixture.read(at);
            prop_assert!(fixture.cache.used_bytes() <= capacity * WEIGHT);
            prop_assert_eq!(fixture.cache.used_bytes(), fixture.budget.used());
            let weight = block(0).byte_count() as u64 + ENTRY_OVERHEAD_BYTES;
            prop_assert_eq!(fixture.cache.used_bytes(), fixture.resident() as u64 * weight);
        }
        fixture.cache.evict_file(FileId(4));
        prop_assert_eq!(fixture.cache.used_bytes(), fixture.budget.used());
        fixture.cache.evict_file(FILE);
        prop_assert_eq!(fixture.budget.used(), 0);
    }
}
