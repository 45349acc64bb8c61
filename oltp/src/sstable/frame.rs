//! A stored block: bytes, compressed or not, and a trailer that proves they are the right ones.
//!
//! The checksum is seeded with the file's number and the block's offset, so that a block which the device or a copy
//! put in the wrong place is as wrong as a damaged one. Everything is verified before it is decompressed, and no
//! length is believed before it was compared with a bound.

use std::cell::RefCell;

use lz4_flex::block::CompressTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Compression;
use super::varint::{Damage, Reader};
use crate::file::FileId;

/// Bytes after a block's payload: compression tag u8, raw length u32, checksum u64.
pub const TRAILER_BYTES: usize = 13;

/// Largest block that is compressed; larger ones (a single huge value) are stored as they are, so that no length
/// read from a file can make a reader allocate more than this beyond what the file itself holds.
pub const COMPRESSED_RAW_BYTES_MAX: usize = 16 << 20;

const TAG_RAW: u8 = 0;
const TAG_LZ4: u8 = 1;
const TAG_ZSTD: u8 = 2;

/// Compresses and frames blocks; keeps its tables between blocks.
pub struct Framer {
    compression: Compression,
    lz4: CompressTable,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Framer {
    /// For blocks compressed with `compression`.
    pub fn new(compression: Compression) -> Framer {
        let zstd = match compression {
            // Level 1 always exists; without a compressor blocks are stored raw, which is never wrong.
            Compression::Zstd => zstd::bulk::Compressor::new(1).ok(),
            Compression::None | Compression::Lz4 => None,
        };
        Framer { compression, lz4: CompressTable::default(), zstd, scratch: Vec::new() }
    }

    /// Appends `raw` as a stored block to `out`; it will lie at `offset` of file `id`. Returns the stored length.
    pub fn append(&mut self, out: &mut Vec<u8>, raw: &[u8], id: FileId, offset: u64) -> usize {
        let start = out.len();
        let compressed = self.compress(raw);
        let tag = match compressed {
            // Less than an eighth saved is not worth a decompression per read.
            Some((tag, bytes)) if bytes < raw.len() - raw.len() / 8 => {
                out.extend_from_slice(&self.scratch[..bytes]);
                tag
            }
            _ => {
                out.extend_from_slice(raw);
                TAG_RAW
            }
        };
        seal(out, start, tag, raw.len(), id, offset)
    }

    /// Appends `raw` uncompressed, for bytes that would not shrink.
    pub fn append_raw(out: &mut Vec<u8>, raw: &[u8], id: FileId, offset: u64) -> usize {
        let start = out.len();
        out.extend_from_slice(raw);
        seal(out, start, TAG_RAW, raw.len(), id, offset)
    }

    fn compress(&mut self, raw: &[u8]) -> Option<(u8, usize)> {
        if raw.len() > COMPRESSED_RAW_BYTES_MAX {
            return None;
        }
        let bound = match self.compression {
            Compression::None => return None,
            Compression::Lz4 => lz4_flex::block::get_maximum_output_size(raw.len()),
            Compression::Zstd => zstd::zstd_safe::compress_bound(raw.len()),
        };
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        if self.compression == Compression::Lz4 {
            let bytes = lz4_flex::block::compress_into_with_table(raw, &mut self.scratch, &mut self.lz4).ok()?;
            return Some((TAG_LZ4, bytes));
        }
        let bytes = self.zstd.as_mut()?.compress_to_buffer(raw, &mut self.scratch[..]).ok()?;
        Some((TAG_ZSTD, bytes))
    }
}

fn seal(out: &mut Vec<u8>, start: usize, tag: u8, raw_bytes: usize, id: FileId, offset: u64) -> usize {
    out.push(tag);
    out.extend_from_slice(&(raw_bytes as u32).to_le_bytes());
    let checksum = xxh3_64_with_seed(&out[start..], seed(id, offset));
    out.extend_from_slice(&checksum.to_le_bytes());
    out.len() - start
}

/// Distinct for all (file, offset) pairs that a database meets: files are numbered from one and offsets stay far
/// below 2^40, so the rotated number does not reach into the offset's bits.
pub fn seed(id: FileId, offset: u64) -> u64 {
    id.0.rotate_right(24) ^ offset
}

/// Verifies a stored block and returns its raw bytes.
pub fn open(stored: &[u8], id: FileId, offset: u64) -> Result<Vec<u8>, Damage> {
    let (payload, tag, raw_bytes) = check(stored, id, offset)?;
    match tag {
        TAG_RAW if raw_bytes == payload.len() => Ok(payload.to_vec()),
        TAG_RAW => Err(Damage { at: payload.len(), what: "block length disagrees with its trailer" }),
        TAG_LZ4 | TAG_ZSTD if raw_bytes > COMPRESSED_RAW_BYTES_MAX => {
            Err(Damage { at: payload.len(), what: "compressed block claims more than the largest size" })
        }
        TAG_LZ4 => {
            let mut raw = vec![0; raw_bytes];
            let written = lz4_flex::block::decompress_into(payload, &mut raw).ok();
            expect_length(raw, written)
        }
        TAG_ZSTD => {
            let mut raw = vec![0; raw_bytes];
            let written = decompress_zstd(payload, &mut raw);
            expect_length(raw, written)
        }
        _ => Err(Damage { at: payload.len(), what: "unknown compression" }),
    }
}

thread_local! {
    /// Making one costs as much as a read from a fast disk: it clears some 100 KB.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Number of bytes that `payload` had before compression, now in `raw`; `None` if it does not decompress into that.
fn decompress_zstd(payload: &[u8], raw: &mut [u8]) -> Option<usize> {
    ZSTD.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        decompressor.decompress_to_buffer(payload, raw).ok()
    })
}

fn expect_length(raw: Vec<u8>, written: Option<usize>) -> Result<Vec<u8>, Damage> {
    if written == Some(raw.len()) { Ok(raw) } else { Err(Damage { at: 0, what: "block does not decompress" }) }
}

fn check(stored: &[u8], id: FileId, offset: u64) -> Result<(&[u8], u8, usize), Damage> {
    let Some(payload_bytes) = stored.len().checked_sub(TRAILER_BYTES) else {
        return Err(Damage { at: 0, what: "stored block is shorter than its trailer" });
    };
    let mut trailer = Reader::new(stored, payload_bytes);
    let tag = trailer.bytes(1)?[0];
    let raw_bytes = trailer.u32()? as usize;
    let covered = trailer.at();
    if trailer.u64()? != xxh3_64_with_seed(&stored[..covered], seed(id, offset)) {
        return Err(Damage { at: 0, what: "block checksum mismatch" });
    }
    Ok((&stored[..payload_bytes], tag, raw_bytes))
}
