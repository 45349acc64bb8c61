//! Filters over whole user keys: what says for certain that a run does not have a key.
//!
//! A run has one for all its keys. Of two kinds: a [`Bloom`] filter is built in passing and lets one absent key in a hundred
//! through; a binary [`Fuse`] filter takes ten times as long to build, is a tenth smaller and lets one in 256 through. So
//! the last level, where files live long and nine keys of ten are, has the second. The first bytes say which it is.
//!
//! Both take a key's XXH3-64, so a reader hashes once for all runs and for the hash index of blocks. Why these two and why
//! so many bits: docs/decisions/0014.

mod bloom;
mod fuse;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use self::bloom::Bloom;
use self::fuse::Fuse;
use super::FilterKind;
use super::varint::{Damage, Reader};
use crate::memory::Reservation;

/// The hash by which a key is known to filters and to the hash index of blocks.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The bytes of a filter for keys with these hashes, and its kind: `kind`, or a Bloom filter where that cannot be: too many
/// keys to have the memory for, in `memory` or at all, or none found.
pub fn build(
    mut hashes: Vec<u64>,
    kind: FilterKind,
    bits_per_key: u32,
    memory: Option<&Reservation>,
) -> (Vec<u8>, FilterKind) {
    if kind == FilterKind::Fuse && hashes.len() <= fuse::KEYS_MAX {
        let bytes = (hashes.len() * fuse::BUILD_BYTES_PER_KEY) as u64;
        if memory.is_none_or(|memory| memory.try_grow(bytes).is_ok()) {
            let built = fuse::build(&mut hashes);
            if let Some(memory) = memory {
                memory.shrink(bytes);
            }
            if let Some(built) = built {
                return (built, FilterKind::Fuse);
            }
        }
    }
    (bloom::build(&hashes, bits_per_key), FilterKind::Bloom)
}

/// A filter read from a file.
#[derive(Debug)]
pub enum Filter {
    /// See [`Bloom`].
    Bloom(Bloom),
    /// See [`Fuse`].
    Fuse(Fuse),
}

impl Filter {
    /// Checks that the header agrees with the length.
    pub fn new(bytes: Bytes) -> Result<Filter, Damage> {
        match Reader::new(&bytes, 0).u32()? {
            fuse::TAG => Fuse::new(bytes).map(Filter::Fuse),
            _ => Bloom::new(bytes).map(Filter::Bloom),
        }
    }

    /// Which of them it is.
    pub fn kind(&self) -> FilterKind {
        match self {
            Filter::Bloom(_) => FilterKind::Bloom,
            Filter::Fuse(_) => FilterKind::Fuse,
        }
    }

    /// `false` means that no key with this hash is in the run.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        match self {
            Filter::Bloom(bloom) => bloom.may_contain(hash),
            Filter::Fuse(fuse) => fuse.may_contain(hash),
        }
    }

    /// Bytes held in memory.
    pub fn byte_count(&self) -> usize {
        match self {
            Filter::Bloom(bloom) => bloom.byte_count(),
            Filter::Fuse(fuse) => fuse.byte_count(),
        }
    }
}

#[cfg(test)]
mod tests;
