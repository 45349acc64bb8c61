//! `Node`: one block of the index, decoded, with a slot for each child.
//!
//! A root's children are partitions (leaves), a leaf's are data blocks. A search compares the first eight bytes behind what
//! all separators begin with, as integers that lie side by side: eight to a cache line. Only where these are equal the
//! rest is looked at.
//!
//! Always true: separators do not fall, and there is at least one; a slot is empty or holds what lies at its handle.

use bytes::Bytes;

use super::block::{Block, BlockCursor, shared_prefix};
use super::index::Handle;
use super::varint::Damage;
use crate::cache::slot::{Held, Slot, Uses};
use crate::cache::{Charge, Home};
use crate::sync::Arc;

/// Partition of a two-level index, or the whole index of one level.
pub(crate) type Leaf = Node<Block>;
/// Root over partitions.
pub(crate) type Root = Node<Leaf>;

/// What can be in a node's slot.
pub(crate) trait Child {
    /// How often it was found there.
    fn uses(&self) -> &Uses;
    /// Where it begins in the file.
    fn offset(&self) -> u64;
}

/// One block of the index: separators, the places they lead to, and what of that is in memory.
#[derive(Debug)]
pub(crate) struct Node<T> {
    /// What all separators begin with.
    prefix: Box<[u8]>,
    /// The next eight bytes of each, big-endian, zeros where there are fewer.
    heads: Box<[u64]>,
    places: Box<[Place<T>]>,
    /// Everything behind the prefix, one after the other, and where each ends.
    tails: Box<[u8]>,
    tail_ends: Box<[u32]>,
    offset: u64,
    uses: Uses,
    charge: Option<Charge>,
}

/// Where a child lies, and the child if it is in memory; side by side, because both are read together.
#[derive(Debug)]
struct Place<T> {
    slot: Slot<T>,
    handle: Handle,
}

impl<T> Node<T> {
    /// From the bytes of an index block that lies at `offset`.
    pub fn decode(raw: Bytes, offset: u64) -> Result<Node<T>, Damage> {
        let mut entries = BlockCursor::new(Arc::new(Block::new(raw, offset)?));
        let (mut keys, mut ends, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = 0;
        while entries.next()? {
            let at = entries.next_at();
            if &keys[last..] > entries.key() {
                return Err(Damage { at, what: "separators fall" });
            }
            last = keys.len();
            keys.extend_from_slice(entries.key());
            ends.push(u32::try_from(keys.len()).map_err(|_| Damage { at, what: "index block exceeds 4 GiB" })?);
            handles.push(Handle::decode(entries.value())?);
        }
        if handles.len() != entries.block().entry_count() as usize {
            return Err(Damage { at: 0, what: "entry count disagrees with the block" });
        }
        Ok(Node::new(&keys, &ends, handles, last, offset))
    }

    /// `keys` one after the other, ending at `ends`; the last begins at `last`.
    fn new(keys: &[u8], ends: &[u32], handles: Vec<Handle>, last: usize, offset: u64) -> Node<T> {
        let first_end = ends.first().map_or(0, |&end| end as usize);
        // They are in order, so what the first and the last have in common all have.
        let prefix = &keys[..shared_prefix(&keys[..first_end], &keys[last..])];
        let (mut heads, mut tails) = (Vec::with_capacity(ends.len()), Vec::with_capacity(keys.len()));
        let (mut tail_ends, mut start) = (Vec::with_capacity(ends.len()), 0);
        for &end in ends {
            let tail = &keys[start + prefix.len()..end as usize];
            heads.push(head(tail));
            tails.extend_from_slice(tail);
            tail_ends.push(tails.len() as u32);
            start = end as usize;
        }
        Node {
            prefix: prefix.into(),
            heads: heads.into(),
            places: handles.into_iter().map(|handle| Place { slot: Slot::default(), handle }).collect(),
            tails: tails.into(),
            tail_ends: tail_ends.into(),
            offset,
            uses: Uses::default(),
            charge: None,
        }
    }

    /// Number of children.
    pub fn count(&self) -> usize {
        self.heads.len()
    }

    /// The first child whose separator is at or after `key`; `count` if all lie before it.
    pub fn search(&self, key: &[u8]) -> usize {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            // Before all that begin with the prefix, or behind them.
            return if key < &*self.prefix { 0 } else { self.count() };
        };
        let wanted = head(rest);
        let mut low = self.heads.partition_point(|&head| head < wanted);
        if self.heads.get(low) != Some(&wanted) {
            return low;
        }
        let mut high = low + self.heads[low..].partition_point(|&head| head == wanted);
        while low < high {
            let middle = low.midpoint(high);
            if self.tail(middle) < rest { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn tail(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.tail_ends[before]) as usize;
        &self.tails[start..self.tail_ends[at] as usize]
    }

    /// Whether the separator of child `at` is `key`.
    pub fn is_separator(&self, at: usize, key: &[u8]) -> bool {
        key.strip_prefix(&*self.prefix).is_some_and(|rest| rest == self.tail(at))
    }

    /// The separator of child `at`.
    pub fn separator(&self, at: usize) -> Vec<u8> {
        [&self.prefix, self.tail(at)].concat()
    }

    /// Where child `at` lies in the file.
    pub fn handle(&self, at: usize) -> Handle {
        self.places[at].handle
    }

    /// The slot of child `at`.
    pub fn slot(&self, at: usize) -> &Slot<T> {
        &self.places[at].slot
    }

    /// Where the block begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes held in memory, children not included.
    pub fn byte_count(&self) -> usize {
        let per_child = size_of::<u64>() + size_of::<Place<T>>() + size_of::<u32>();
        size_of::<Node<T>>() + self.prefix.len() + self.tails.len() + self.count() * per_child
    }

    /// Holds `charge` for as long as the node lives.
    pub fn attach(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }
}

impl Root {
    /// The root over a single partition, which lies at `handle` and stays in memory as long as the root.
    pub fn over(leaf: Leaf, handle: Handle) -> Root {
        let last = leaf.separator(leaf.count() - 1);
        let root = Node::new(&last, &[last.len() as u32], vec![handle], 0, handle.offset);
        root.slot(0).put(Some(Arc::new(leaf)));
        root
    }
}

impl<T: Child> Node<T> {
    /// Child `at`, if it is in memory.
    ///
    /// # Panics
    /// If the slot holds what lies elsewhere.
    #[inline]
    pub fn child(&self, at: usize) -> Option<Held<T>> {
        let place = &self.places[at];
        let child = place.slot.get()?;
        assert_eq!(child.offset(), place.handle.offset, "a slot holds what lies at its handle");
        child.uses().note();
        Some(child)
    }
}

impl<T> Child for Node<T> {
    fn uses(&self) -> &Uses {
        &self.uses
    }

    fn offset(&self) -> u64 {
        self.offset
    }
}

impl<T: Child + std::fmt::Debug + Send + Sync> Home for Node<T> {
    fn uses(&self, at: usize) -> Option<u8> {
        Some(self.places[at].slot.get()?.uses().count())
    }

    fn set_uses(&self, at: usize, count: u8) {
        if let Some(child) = self.places[at].slot.get() {
            child.uses().set(count);
        }
    }

    fn vacate(&self, at: usize) {
        self.places[at].slot.put(None);
    }
}

/// The first eight bytes as an integer that orders as they do; missing ones count as zeros.
#[inline]
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut chunk = [0; 8];
            chunk[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(chunk)
        }
    }
}

#[cfg(test)]
mod tests;
