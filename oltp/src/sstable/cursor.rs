//! `RunCursor`: a run in order. `IndexCursor` below it walks the one or two levels of the index.

use std::sync::Arc;

use super::block::{Block, BlockCursor};
use super::index::Handle;
use super::reader::{Run, in_bounds};
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// Largest piece that a scan reads ahead. Pieces start small and double, so that a short scan reads little.
const READ_AHEAD_BYTES_MAX: usize = 256 << 10;
const READ_AHEAD_BYTES_MIN: usize = 16 << 10;

/// Position in the index: on the entry of one data block.
#[derive(Debug)]
pub(super) struct IndexCursor {
    root: BlockCursor,
    /// Cursor in the current partition of a two-level index.
    partition: Option<BlockCursor>,
}

impl IndexCursor {
    /// Before the first entry.
    pub fn new(run: &Run) -> IndexCursor {
        IndexCursor { root: BlockCursor::new(Arc::clone(run.root())), partition: None }
    }

    fn two_levels(run: &Run) -> bool {
        run.footer().index_levels == 2
    }

    /// Moves to the first block whose separator is at or after `key`; `false` if all keys lie before it.
    pub fn seek(&mut self, run: &Run, key: &[u8], fill_cache: bool) -> Result<bool> {
        let root_at = run.root().offset();
        if !self.root.seek(key, SeqNo::MAX).map_err(|d| run.damaged(root_at, d))? {
            self.partition = None;
            return Ok(false);
        }
        if !Self::two_levels(run) {
            return Ok(true);
        }
        let partition = self.open_partition(run, fill_cache)?;
        let offset = partition.block().offset();
        if partition.seek(key, SeqNo::MAX).map_err(|d| run.damaged(offset, d))? {
            return Ok(true);
        }
        // The root names each partition by its last separator, so the search cannot run off its end.
        Err(Error::corrupt(FileKind::Run, run.path(), offset, "index partition ends before its separator"))
    }

    /// Moves to the next block, or onto the first.
    pub fn next(&mut self, run: &Run, fill_cache: bool) -> Result<bool> {
        if let Some(partition) = &mut self.partition {
            let offset = partition.block().offset();
            if partition.next().map_err(|d| run.damaged(offset, d))? {
                return Ok(true);
            }
        }
        let root_at = run.root().offset();
        if !self.root.next().map_err(|d| run.damaged(root_at, d))? {
            return Ok(false);
        }
        if !Self::two_levels(run) {
            return Ok(true);
        }
        let partition = self.open_partition(run, fill_cache)?;
        let offset = partition.block().offset();
        partition.next().map_err(|d| run.damaged(offset, d))
    }

    fn open_partition(&mut self, run: &Run, fill_cache: bool) -> Result<&mut BlockCursor> {
        let handle = Handle::decode(self.root.value()).map_err(|d| run.damaged(run.root().offset(), d))?;
        let block = run.block(handle, fill_cache)?;
        Ok(match &mut self.partition {
            Some(partition) => {
                partition.reset(block);
                partition
            }
            vacant => vacant.insert(BlockCursor::new(block)),
        })
    }

    fn entry(&self) -> &BlockCursor {
        self.partition.as_ref().unwrap_or(&self.root)
    }

    /// Separator of the current block.
    pub fn separator(&self) -> &[u8] {
        self.entry().key()
    }

    /// Place of the current block.
    pub fn handle(&self, run: &Run) -> Result<Handle> {
        Handle::decode(self.entry().value()).map_err(|d| run.damaged(self.entry().block().offset(), d))
    }
}

/// A position in a run; see [`Run::cursor`]. Holds the run open and one block in memory, without `fill_cache` up to
/// 256 KiB of read-ahead besides.
#[derive(Debug)]
pub struct RunCursor {
    run: Arc<Run>,
    index: IndexCursor,
    block: Option<BlockCursor>,
    valid: bool,
    fill_cache: bool,
    ahead: ReadAhead,
}

#[derive(Debug, Default)]
struct ReadAhead {
    offset: u64,
    bytes: Vec<u8>,
    next_bytes: usize,
}

impl RunCursor {
    pub(super) fn new(run: Arc<Run>, fill_cache: bool) -> RunCursor {
        let index = IndexCursor::new(&run);
        RunCursor { run, index, block: None, valid: false, fill_cache, ahead: ReadAhead::default() }
    }

    /// The run under the cursor.
    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Loads the block that the index cursor stands on and puts the block cursor before its first entry.
    fn load_block(&mut self) -> Result<&mut BlockCursor> {
        let handle = self.index.handle(&self.run)?;
        let block =
            if self.fill_cache { self.run.block(handle, true)? } else { self.ahead.block(&self.run, handle)? };
        Ok(match &mut self.block {
            Some(cursor) => {
                cursor.reset(block);
                cursor
            }
            vacant => vacant.insert(BlockCursor::new(block)),
        })
    }

    /// Moves on to the first entry of the next block that has one.
    fn next_block(&mut self) -> Result<bool> {
        while self.index.next(&self.run, self.fill_cache)? {
            let block = self.load_block()?;
            let offset = block.block().offset();
            if block.next().map_err(|d| self.run.damaged(offset, d))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn entry(&self) -> &BlockCursor {
        debug_assert!(self.valid, "read only while valid");
        // A cursor that was never moved is not valid, and moving it sets the block.
        self.block.as_ref().expect("a valid cursor has a block")
    }
}

impl ReadAhead {
    fn block(&mut self, run: &Run, handle: Handle) -> Result<Arc<Block>> {
        if let Some(block) = run.cache().get(run.id(), handle.offset) {
            return Ok(block);
        }
        let bytes = handle.bytes as usize;
        let start = handle.offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        let held = start.and_then(|start| self.bytes.get(start..start.checked_add(bytes)?));
        if let Some(stored) = held {
            return run.open_block(stored, handle.offset);
        }
        self.fill(run, handle)?;
        run.open_block(&self.bytes[..bytes], handle.offset)
    }

    /// Reads at least the block at `handle`. The piece never reaches beyond the file, so neither does the memory.
    fn fill(&mut self, run: &Run, handle: Handle) -> Result<()> {
        let file_bytes = run.meta().file_bytes;
        if !in_bounds(handle, file_bytes) {
            let what = "block handle points beyond the blocks";
            return Err(Error::corrupt(FileKind::Run, run.path(), handle.offset, what));
        }
        self.next_bytes = (self.next_bytes * 2).clamp(READ_AHEAD_BYTES_MIN, READ_AHEAD_BYTES_MAX);
        let rest = usize::try_from(file_bytes - handle.offset).unwrap_or(usize::MAX);
        let bytes = self.next_bytes.max(handle.bytes as usize).min(rest);
        self.bytes.clear();
        self.bytes.resize(bytes, 0);
        self.offset = handle.offset;
        let read = run.file().read_at(handle.offset, &mut self.bytes);
        if read.is_err() {
            self.bytes.clear();
        }
        read.map_err(|e| Error::io("read", run.path(), e))
    }
}

impl Cursor for RunCursor {
    fn valid(&self) -> bool {
        self.valid
    }

    fn key(&self) -> &[u8] {
        self.entry().key()
    }

    fn seqno(&self) -> SeqNo {
        self.entry().seqno()
    }

    fn kind(&self) -> VersionKind {
        self.entry().kind()
    }

    fn value(&self) -> &[u8] {
        self.entry().value()
    }

    fn next(&mut self) -> Result<()> {
        let moved = match &mut self.block {
            Some(block) => {
                let offset = block.block().offset();
                block.next().map_err(|d| self.run.damaged(offset, d))
            }
            None => Ok(false),
        };
        // Not valid unless the move succeeds, also when it ends in an error.
        self.valid = false;
        self.valid = moved? || self.next_block()?;
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.valid = false;
        let mut in_range = self.index.seek(&self.run, key, self.fill_cache)?;
        // Versions of `key` may fill several blocks, so each is searched until one has an entry at or after the target.
        while in_range {
            let block = self.load_block()?;
            let offset = block.block().offset();
            if block.seek(key, seqno).map_err(|d| self.run.damaged(offset, d))? {
                self.valid = true;
                return Ok(());
            }
            in_range = self.index.next(&self.run, self.fill_cache)?;
        }
        // Beyond the last entry, where `next` must find nothing either.
        self.block = None;
        Ok(())
    }
}
