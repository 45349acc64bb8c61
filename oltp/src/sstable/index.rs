//! Block index: separator key → where the block lies.
//!
//! A separator is the shortest key that is at least the last key of its block and less than the first of the next,
//! or the key itself when its versions spill into the next block. Index blocks have the form of data blocks; a
//! partition is closed at a size, and only if there are several does a root above them name each by its last
//! separator.

use super::block::{BlockBuilder, shared_prefix};
use super::varint::{Damage, Reader, put_varint};
use crate::iter::VersionKind;
use crate::seqno::SeqNo;

/// Place of a stored block, trailer included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Where it begins in the file.
    pub offset: u64,
    /// Stored length.
    pub bytes: u32,
}

impl Handle {
    pub fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.bytes));
    }

    /// From an index entry's value.
    pub fn decode(value: &[u8]) -> Result<Handle, Damage> {
        let mut reader = Reader::new(value, 0);
        let offset = reader.varint()?;
        let bytes = reader.varint()?;
        reader.finish()?;
        let bytes = u32::try_from(bytes).map_err(|_| Damage { at: 0, what: "block handle out of range" })?;
        Ok(Handle { offset, bytes })
    }
}

/// Writes the shortest key in [`last`, `next`) into `out`; `last` itself if they are equal or nothing is shorter.
pub fn separator(last: &[u8], next: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let shared = shared_prefix(last, next);
    // The first byte after the common part, raised by one, already lies above `last`; it must stay below `next`.
    if let (Some(&a), Some(&b)) = (last.get(shared), next.get(shared))
        && a + 1 < b
        && shared + 1 < last.len()
    {
        out.extend_from_slice(&last[..shared]);
        out.push(a + 1);
    } else {
        out.extend_from_slice(last);
    }
}

/// Collects the index while data blocks are written.
#[derive(Debug)]
pub struct IndexBuilder {
    block: BlockBuilder,
    partition_bytes: usize,
    /// Finished partitions with their last separators.
    partitions: Vec<(Vec<u8>, Vec<u8>)>,
    last_separator: Vec<u8>,
    value: Vec<u8>,
}

impl IndexBuilder {
    /// Every fourth separator is stored whole: they are searched more often than they are many.
    const RESTART_INTERVAL: u16 = 4;

    /// An empty index that closes a partition at `partition_bytes`.
    pub fn new(partition_bytes: usize) -> IndexBuilder {
        IndexBuilder {
            block: BlockBuilder::new(Self::RESTART_INTERVAL),
            partition_bytes,
            partitions: Vec::new(),
            last_separator: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Appends a block; separators rise, but equal ones may follow each other.
    pub fn add(&mut self, separator: &[u8], handle: Handle) {
        if !self.block.is_empty() && self.block.byte_count() >= self.partition_bytes {
            self.close_partition();
        }
        self.value.clear();
        handle.encode(&mut self.value);
        let shared = shared_prefix(&self.last_separator, separator);
        self.block.add(separator, shared, SeqNo::ZERO, VersionKind::Put, &self.value, None);
        self.last_separator.clear();
        self.last_separator.extend_from_slice(separator);
    }

    fn close_partition(&mut self) {
        let mut bytes = Vec::new();
        self.block.finish_into(&mut bytes);
        self.partitions.push((self.last_separator.clone(), bytes));
    }

    /// The finished partitions (last separator, block), in order; one of them needs no root above it.
    pub fn finish(mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.block.is_empty() {
            self.close_partition();
        }
        self.partitions
    }

    /// The root over partitions that were written at `handles`.
    pub fn root(partitions: &[(Vec<u8>, Vec<u8>)], handles: &[Handle]) -> Vec<u8> {
        let mut root = IndexBuilder::new(usize::MAX);
        for ((separator, _), &handle) in partitions.iter().zip(handles) {
            root.add(separator, handle);
        }
        let mut bytes = Vec::new();
        root.block.finish_into(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_lie_between() {
        let mut out = Vec::new();
        for (last, next, expected) in [
            (&b"abcdef"[..], &b"abzz"[..], &b"abd"[..]),
            (b"abc", b"abd", b"abc"),
            (b"abc", b"abc", b"abc"),
            (b"abc", b"abcd", b"abc"),
            (b"a\xff\xff", b"b", b"a\xff\xff"),
            (b"", b"x", b""),
        ] {
            separator(last, next, &mut out);
            assert_eq!(out, expected);
        }
    }
}
