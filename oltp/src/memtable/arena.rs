//! `Arena`: memory that is only ever added to, handed out in aligned pieces, and freed as a whole.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Every piece is aligned to this.
pub(super) const ALIGN: usize = 8;
/// Size of the first block. Small, because a database may have thousands of tables with a few rows in memory each.
const FIRST_BYTES: usize = 4 << 10;
/// Blocks double up to this size; a larger piece gets a block of its own.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Memory for values without a destructor. Pieces are handed out to several threads at once, almost always by one
/// atomic addition.
pub(super) struct Arena {
    current: AtomicPtr<Block>,
    /// All blocks, for freeing; also held while a block is added.
    blocks: Mutex<Vec<NonNull<Block>>>,
}

struct Block {
    memory: NonNull<u8>,
    layout: Layout,
    used: AtomicUsize,
}

// SAFETY: blocks are reached only through the arena; `used` hands every byte to one caller, and the list is behind a lock.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Block {
    /// A block with the first `used` bytes taken.
    fn new(bytes: usize, used: usize) -> NonNull<Block> {
        let layout = Layout::from_size_align(bytes, ALIGN).unwrap_or(Layout::new::<u64>());
        assert!(layout.size() >= used, "a piece of {used} bytes exceeds the address space");
        // SAFETY: the layout has a size above zero.
        let Some(memory) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let block = Box::new(Block { memory, layout, used: AtomicUsize::new(used) });
        NonNull::from(Box::leak(block))
    }
}

impl Arena {
    pub(super) fn new() -> Arena {
        Arena { current: AtomicPtr::default(), blocks: Mutex::new(Vec::new()) }
    }

    /// `bytes` of uninitialised memory, aligned to [`ALIGN`], valid until the arena is dropped.
    pub(super) fn allocate(&self, bytes: usize) -> NonNull<u8> {
        let bytes = bytes.next_multiple_of(ALIGN);
        loop {
            let current = self.current.load(Ordering::Acquire);
            // SAFETY: a block in `current` lives as long as the arena.
            if let Some(block) = unsafe { current.as_ref() } {
                let at = block.used.fetch_add(bytes, Ordering::Relaxed);
                if at.checked_add(bytes).is_some_and(|end| end <= block.layout.size()) {
                    // SAFETY: `at + bytes` lies within the block.
                    return unsafe { block.memory.add(at) };
                }
            }
            if let Some(memory) = self.grow(current, bytes) {
                return memory;
            }
        }
    }

    /// Adds a block unless another thread has done so since `seen` was read. A piece too large to share a block comes
    /// back at once.
    #[cold]
    fn grow(&self, seen: *mut Block, bytes: usize) -> Option<NonNull<u8>> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let next_bytes = (FIRST_BYTES << blocks.len().min(16)).min(BLOCK_BYTES_MAX);
        if bytes > next_bytes / 4 {
            let block = add(&mut blocks, bytes, bytes);
            // SAFETY: just made, and never freed before the arena.
            return Some(unsafe { block.as_ref() }.memory);
        }
        if self.current.load(Ordering::Acquire) == seen {
            let block = add(&mut blocks, next_bytes, 0);
            self.current.store(block.as_ptr(), Ordering::Release);
        }
        None
    }
}

fn add(blocks: &mut Vec<NonNull<Block>>, bytes: usize, used: usize) -> NonNull<Block> {
    let block = Block::new(bytes, used);
    blocks.push(block);
    block
}

impl Drop for Arena {
    fn drop(&mut self) {
        let blocks = self.blocks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for block in blocks.drain(..) {
            // SAFETY: the list holds each block once, and nobody can reach it any more.
            let block = unsafe { Box::from_raw(block.as_ptr()) };
            // SAFETY: allocated with this layout.
            unsafe { dealloc(block.memory.as_ptr(), block.layout) };
        }
    }
}
