//! Binary fuse filter: about nine bits per key, one false positive in 256, three bytes to look at.
//!
//! Graf, Lemire: "Binary Fuse Filters: Fast and Smaller Than Xor Filters" (2022). A key has three places, in three
//! neighbouring segments of one array of bytes; the bytes there, combined by exclusive or, are its fingerprint. Which
//! values make that so for all keys at once is found by the `xorf` crate, which needs all hashes in memory for it, and may
//! in theory not find any. What the bytes mean is ours (FORMAT.md), and whatever was built is asked for every key before
//! it is used, so that another version of that crate cannot make a filter that does not know its keys.
//!
//! Slower to build than a Bloom filter, smaller and more exact ever after: for files that live long.

use bytes::Bytes;
use xorf::BinaryFuse8;

use super::Damage;
use crate::sstable::varint::Reader;

/// Stands where a Bloom filter has its number of probes, which is never 0.
pub const TAG: u32 = 0;
const HEADER_BYTES: usize = 24;
/// Bits of a fingerprint; others are for later versions.
const FINGERPRINT_BITS: u32 = 8;
/// Segments are at most this long, as a power of two: what the builder's own bound is.
const SEGMENT_POWER_MAX: u32 = 18;

/// Bytes of memory that building takes per key, besides the hashes: the order of peeling, and per place its key's hash, a
/// count, a queue and the fingerprint, with an eighth more places than keys, or more if there are few.
pub const BUILD_BYTES_PER_KEY: usize = 9 + 14 * 5 / 4;
/// More keys than this in one file get a Bloom filter, whose building takes no memory to speak of: at 26 bytes each these
/// take 109 MB for a moment. A file of rows has half a million.
pub const KEYS_MAX: usize = 1 << 22;

/// The filter's bytes for keys with these hashes, which it puts in order and makes distinct; `None` if none was found.
pub fn build(hashes: &mut Vec<u64>) -> Option<Vec<u8>> {
    hashes.sort_unstable();
    hashes.dedup();
    let built = BinaryFuse8::try_from(&hashes[..]).ok()?;
    let segment_count = built.descriptor.segment_count_length / built.descriptor.segment_length;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + built.fingerprints.len());
    bytes.extend_from_slice(&TAG.to_le_bytes());
    bytes.extend_from_slice(&FINGERPRINT_BITS.to_le_bytes());
    bytes.extend_from_slice(&built.descriptor.seed.to_le_bytes());
    bytes.extend_from_slice(&built.descriptor.segment_length.trailing_zeros().to_le_bytes());
    bytes.extend_from_slice(&segment_count.to_le_bytes());
    bytes.extend_from_slice(&built.fingerprints);
    let fuse = Fuse::new(bytes.into()).ok()?;
    let knows_all = hashes.iter().all(|&hash| fuse.may_contain(hash));
    // The only reference to the bytes, so this takes them back.
    knows_all.then(|| fuse.bytes.into())
}

/// A binary fuse filter read from a file.
#[derive(Debug)]
pub struct Fuse {
    bytes: Bytes,
    seed: u64,
    segment_power: u32,
    /// Places that the first of a key's three may have.
    first_count: u64,
}

impl Fuse {
    /// Checks that the header agrees with the length.
    pub fn new(bytes: Bytes) -> Result<Fuse, Damage> {
        let mut header = Reader::new(&bytes, 0);
        let (tag, bits, seed) = (header.u32()?, header.u32()?, header.u64()?);
        let (segment_power, segment_count) = (header.u32()?, header.u32()?);
        if tag != TAG || bits != FINGERPRINT_BITS || segment_power > SEGMENT_POWER_MAX || segment_count == 0 {
            return Err(Damage { at: 0, what: "filter header out of range" });
        }
        let first_count = u64::from(segment_count) << segment_power;
        if (bytes.len() - HEADER_BYTES) as u64 != first_count + (2 << segment_power) {
            return Err(Damage { at: 16, what: "filter length disagrees with its header" });
        }
        Ok(Fuse { bytes, seed, segment_power, first_count })
    }

    /// `false` means that no key with this hash is in the run.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let mixed = mix(hash.wrapping_add(self.seed));
        let segment = 1u64 << self.segment_power;
        let first = ((u128::from(mixed) * u128::from(self.first_count)) >> 64) as u64;
        // Flipping low bits stays within a segment, as segments begin at multiples of their length.
        let second = (first + segment) ^ ((mixed >> 18) & (segment - 1));
        let third = (first + 2 * segment) ^ (mixed & (segment - 1));
        let fingerprints = &self.bytes[HEADER_BYTES..];
        let found = fingerprints[first as usize] ^ fingerprints[second as usize] ^ fingerprints[third as usize];
        found == (mixed ^ (mixed >> 32)) as u8
    }

    /// Bytes held in memory.
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }
}

/// The finalizer of `MurmurHash3` (Appleby).
#[inline]
fn mix(hash: u64) -> u64 {
    let mut mixed = hash;
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}
