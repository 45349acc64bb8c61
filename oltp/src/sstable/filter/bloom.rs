//! Blocked Bloom filter: one cache line per question.
//!
//! Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters" (2007). Of a key's hash the
//! upper half chooses a 512-bit line, the lower half the bits within. Blocking costs a little accuracy against a
//! plain Bloom filter: ten bits per key give 0.97 % false positives instead of 0.83 %.

use bytes::Bytes;

use super::{Damage, Reader};

const LINE_BYTES: usize = 64;
const HEADER_BYTES: usize = 8;

/// Bit positions of `hash` within its line: multiplicative stepping, the top nine bits of each step.
#[inline]
fn bits(hash: u64, probe_count: u32) -> impl Iterator<Item = usize> {
    let mut step = hash as u32;
    (0..probe_count).map(move |_| {
        step = step.wrapping_mul(0x9e37_79b9);
        (step >> (32 - 9)) as usize
    })
}

/// Maps the hash's upper half evenly onto the lines, without a division.
#[inline]
fn line(hash: u64, line_count: usize) -> usize {
    (((hash >> 32) * line_count as u64) >> 32) as usize
}

/// The filter's bytes for keys with these hashes.
pub fn build(hashes: &[u64], bits_per_key: u32) -> Vec<u8> {
    // ln 2 times the bits per key are optimal; a blocked filter wants slightly fewer, hence rounding down.
    let probe_count = (bits_per_key * 69 / 100).clamp(1, 16);
    let line_count = (hashes.len() * bits_per_key as usize).div_ceil(8 * LINE_BYTES).max(1);
    let mut bytes = vec![0; HEADER_BYTES + line_count * LINE_BYTES];
    bytes[..4].copy_from_slice(&probe_count.to_le_bytes());
    bytes[4..8].copy_from_slice(&(line_count as u32).to_le_bytes());
    for &hash in hashes {
        let at = HEADER_BYTES + line(hash, line_count) * LINE_BYTES;
        for bit in bits(hash, probe_count) {
            bytes[at + bit / 8] |= 1 << (bit % 8);
        }
    }
    bytes
}

/// A Bloom filter read from a file.
#[derive(Debug)]
pub struct Bloom {
    bytes: Bytes,
    probe_count: u32,
    line_count: usize,
}

impl Bloom {
    /// Checks that the header agrees with the length.
    pub fn new(bytes: Bytes) -> Result<Bloom, Damage> {
        let mut header = Reader::new(&bytes, 0);
        let (probe_count, line_count) = (header.u32()?, header.u32()? as usize);
        if probe_count == 0 || probe_count > 16 || line_count == 0 {
            return Err(Damage { at: 0, what: "filter header out of range" });
        }
        if bytes.len() != HEADER_BYTES + line_count * LINE_BYTES {
            return Err(Damage { at: 4, what: "filter length disagrees with its header" });
        }
        Ok(Bloom { bytes, probe_count, line_count })
    }

    /// `false` means that no key with this hash is in the run.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let at = HEADER_BYTES + line(hash, self.line_count) * LINE_BYTES;
        let line = &self.bytes[at..at + LINE_BYTES];
        bits(hash, self.probe_count).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
    }

    /// Bytes held in memory.
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }
}
