//! `RunCursor`: a run in order. `IndexCursor` below it walks the one or two levels of the index.

use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, BlockCursor};
use super::index::Handle;
use super::node::Leaf;
use super::reader::{Run, in_bounds};
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// Largest piece that a scan reads ahead. Pieces start small and double, so that a short scan reads little.
const READ_AHEAD_BYTES_MAX: usize = 256 << 10;
const READ_AHEAD_BYTES_MIN: usize = 16 << 10;

/// Position in the index: on the entry of one data block.
#[derive(Debug, Default)]
pub(super) struct IndexCursor {
    /// The partition under the cursor, and which one of the root's it is.
    leaf: Option<Arc<Leaf>>,
    leaf_at: usize,
    /// The current entry of the partition.
    at: usize,
}

impl IndexCursor {
    /// Before the first entry.
    pub fn new() -> IndexCursor {
        IndexCursor::default()
    }

    /// Moves to the first block whose separator is at or after `key`; `false` if all keys lie before it.
    pub fn seek(&mut self, run: &Run, key: &[u8]) -> Result<bool> {
        // A seek needs its partition soon again; a walk through the whole index does not.
        let Some((leaf_at, leaf)) = run.leaf_for(key)? else {
            // Where `next` finds nothing either.
            self.leaf_at = run.leaf_count();
            self.leaf = None;
            return Ok(false);
        };
        self.leaf_at = leaf_at;
        self.at = leaf.search(key);
        let found = self.at < leaf.count();
        self.leaf = Some(leaf.into_arc());
        Ok(found)
    }

    /// Moves to the next block, or onto the first. A partition it enters stays in the cache only with `fill_cache`.
    pub fn next(&mut self, run: &Run, fill_cache: bool) -> Result<bool> {
        if let Some(leaf) = &self.leaf {
            self.at += 1;
            if self.at < leaf.count() {
                return Ok(true);
            }
            self.leaf = None;
            self.leaf_at += 1;
        }
        if self.leaf_at >= run.leaf_count() {
            return Ok(false);
        }
        self.leaf = Some(run.leaf(self.leaf_at, fill_cache)?.into_arc());
        self.at = 0;
        Ok(true)
    }

    /// The partition under the cursor.
    ///
    /// # Panics
    /// If the cursor stands on no entry.
    #[expect(clippy::expect_used, reason = "read only after a move that found an entry")]
    pub fn leaf(&self) -> &Arc<Leaf> {
        self.leaf.as_ref().expect("the cursor stands on an entry")
    }

    /// Which of the partition's entries is the current one.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Separator of the current block.
    pub fn separator(&self) -> Vec<u8> {
        self.leaf().separator(self.at)
    }

    /// Place of the current block.
    pub fn handle(&self) -> Handle {
        self.leaf().handle(self.at)
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
        RunCursor { run, index: IndexCursor::new(), block: None, valid: false, fill_cache, ahead: ReadAhead::default() }
    }

    /// The run under the cursor.
    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Loads the block that the index cursor stands on and puts the block cursor before its first entry.
    fn load_block(&mut self, fill_cache: bool) -> Result<&mut BlockCursor> {
        let (leaf, at) = (self.index.leaf(), self.index.at());
        let block = if fill_cache {
            self.run.block(leaf, at)?.into_arc()
        } else {
            match self.run.cached(leaf, at) {
                Some(block) => block.into_arc(),
                None => self.ahead.block(&self.run, leaf.handle(at))?,
            }
        };
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
            let block = self.load_block(self.fill_cache)?;
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
        // Who has come this far goes on: the next piece is on its way while this one is worked on.
        if self.next_bytes == READ_AHEAD_BYTES_MAX {
            run.file().will_read(handle.offset + bytes as u64, READ_AHEAD_BYTES_MAX as u64);
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

    fn load(&self) -> Result<Bytes> {
        let entry = self.entry();
        match entry.kind() {
            VersionKind::Reference => {
                self.run.read_value(entry.key(), entry.seqno(), entry.value(), entry.block().offset())
            }
            VersionKind::Put | VersionKind::Delete => Ok(Bytes::copy_from_slice(entry.value())),
        }
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
        let mut in_range = self.index.seek(&self.run, key)?;
        // Versions of `key` may fill several blocks, so each is searched until one has an entry at or after the target.
        while in_range {
            // A short scan is much like a point read: its first block may be wanted again.
            let block = self.load_block(true)?;
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
