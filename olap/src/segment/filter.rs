//! Blocked Bloom filter over full keys: most look-ups of absent keys end here, after one cache line.
//!
//! Split-block layout: the upper half of a key's hash picks a block of 256 bits, the lower half sets one bit in each of
//! its eight words. At [`BITS_PER_KEY`] about one absent key in a hundred passes. Source: Putze, Sanders, Singler,
//! "Cache-, Hash- and Space-Efficient Bloom Filters", 2007; the word-wise variant is Parquet's SBBF.

use strata_oltp::Result;
use xxhash_rust::xxh3::xxh3_64;

use super::wire::Fields;

/// Filter memory per key: 10 bits give about 1 % false positives in split blocks; 16 bits would give 0.1 % for 0.75 MB
/// more per million rows, which a key-block read (one page of the page cache) does not repay.
pub const BITS_PER_KEY: usize = 10;

const WORDS: usize = 8;
const BLOCK_BYTES: usize = WORDS * 4;
const SALTS: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Hash of a full key, as the filter takes it.
#[must_use]
pub fn hash_key(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// A set of key hashes that may claim to contain more than it does, never less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    blocks: Vec<[u32; WORDS]>,
}

impl Filter {
    /// The filter of `hashes`.
    #[must_use]
    pub fn build(hashes: &[u64]) -> Filter {
        let block_count = (hashes.len() * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8).max(1);
        let mut filter = Filter { blocks: vec![[0; WORDS]; block_count] };
        for &hash in hashes {
            let block = filter.block(hash);
            for (word, bit) in filter.blocks[block].iter_mut().zip(bits(hash)) {
                *word |= bit;
            }
        }
        filter
    }

    /// Whether a key with this hash may be in the set.
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        let block = &self.blocks[self.block(hash)];
        block.iter().zip(bits(hash)).all(|(word, bit)| word & bit != 0)
    }

    /// Memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Appends the stored form: the words, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for word in self.blocks.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads the stored form up to the end of `fields`.
    ///
    /// # Errors
    /// Corrupt if the length is not a positive number of blocks.
    pub fn decode(mut fields: Fields<'_>) -> Result<Filter> {
        let bytes = fields.take(fields.remaining())?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return Err(fields.corrupt("filter is not a whole number of blocks"));
        }
        let mut blocks = vec![[0; WORDS]; bytes.len() / BLOCK_BYTES];
        for (word, stored) in blocks.iter_mut().flatten().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([stored[0], stored[1], stored[2], stored[3]]);
        }
        Ok(Filter { blocks })
    }

    fn block(&self, hash: u64) -> usize {
        // Multiply-shift instead of a remainder: maps 32 hash bits evenly onto any number of blocks.
        let block = ((hash >> 32) * self.blocks.len() as u64) >> 32;
        usize::try_from(block).expect("less than the number of blocks")
    }
}

/// One bit for each word of a block, from the lower half of the hash.
fn bits(hash: u64) -> [u32; WORDS] {
    let low = (hash & u64::from(u32::MAX)) as u32;
    SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_what_was_put_in_and_little_else() {
        let hashes: Vec<u64> = (0..20_000_u32).map(|i| hash_key(&i.to_be_bytes())).collect();
        let filter = Filter::build(&hashes);
        assert!(hashes.iter().all(|&hash| filter.may_contain(hash)));
        let false_positives = (20_000..120_000_u32).filter(|i| filter.may_contain(hash_key(&i.to_be_bytes()))).count();
        assert!(false_positives < 2_000, "{false_positives} of 100000 absent keys pass");
    }
}
