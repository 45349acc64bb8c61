//! Checksummed segment files: what was written is what is read, or an error says where it is not (P6).
//!
//! Parquet protects neither its footer nor, in most writers, its pages. So the writer sums every block of
//! [`SUM_BLOCK_BYTES`] and keeps the sums beside the file, in `.keys`; every read is widened to whole blocks and checked
//! before a byte is handed out. XXH3 runs at several GB/s, two orders above decoding, so the check is not worth caching.
//!
//! Always true: the seed of a sum holds file number and block number, so a misplaced block does not pass.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use strata_oltp::env::{Access, Env, File, OpenMode};
use strata_oltp::{Error, FileId, FileKind, Result};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes under one checksum: small enough that a point read of one page does not read much more than the page, large
/// enough that the sums of an 80 MB segment take 40 KB of memory.
pub const SUM_BLOCK_BYTES: u64 = 16 * 1024;

/// Bytes collected before they are written.
const WRITE_BUFFER_BYTES: usize = 1024 * 1024;
const _: () = assert!((WRITE_BUFFER_BYTES as u64).is_multiple_of(SUM_BLOCK_BYTES));

/// Checksum of `bytes` found at `place` of file `id`: the place is a block number or an offset, whatever the format
/// says.
#[must_use]
pub fn checksum(id: FileId, place: u64, bytes: &[u8]) -> u64 {
    // Odd multiplier: distinct (id, place) pairs of one database give distinct seeds in practice.
    xxh3_64_with_seed(bytes, id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ place)
}

/// An open Parquet file whose every byte is verified on read.
#[derive(Debug)]
pub struct SegmentFile {
    id: FileId,
    path: PathBuf,
    file: Arc<dyn File>,
    file_bytes: u64,
    sums: Vec<u64>,
}

impl SegmentFile {
    /// Opens the Parquet file of segment `id`, of which `file_bytes` and `sums` are known from its key index.
    ///
    /// # Errors
    /// I/O, or [`Error::Corrupt`] if the file has another length.
    pub fn open(env: &dyn Env, dir: &Path, id: FileId, file_bytes: u64, sums: Vec<u64>) -> Result<SegmentFile> {
        let path = FileKind::Segment.path(dir, id);
        let file = env.open_immutable(&path, Access::InOrder).map_err(|e| Error::io("open", &path, e))?;
        let found = file.len().map_err(|e| Error::io("read the length of", &path, e))?;
        if found != file_bytes {
            return Err(Error::corrupt(
                FileKind::Segment,
                &path,
                found.min(file_bytes),
                format!("file has {found} bytes instead of {file_bytes}"),
            ));
        }
        if sums.len() as u64 != file_bytes.div_ceil(SUM_BLOCK_BYTES) {
            return Err(Error::corrupt(FileKind::Segment, &path, 0, "number of checksums does not match the length"));
        }
        Ok(SegmentFile { id, path, file, file_bytes, sums })
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Memory held by the sums.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.sums.len() * size_of::<u64>()
    }

    /// The bytes of `range`, verified.
    ///
    /// # Errors
    /// I/O, or [`Error::Corrupt`] naming the first bad block.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.file_bytes {
            return Err(Error::corrupt(FileKind::Segment, &self.path, range.start, "a reference leaves the file"));
        }
        let first_block = range.start / SUM_BLOCK_BYTES;
        let wide = first_block * SUM_BLOCK_BYTES..range.end.next_multiple_of(SUM_BLOCK_BYTES).min(self.file_bytes);
        let mut buffer = vec![0; usize_of(wide.end - wide.start)];
        self.file.read_at(wide.start, &mut buffer).map_err(|e| Error::io("read", &self.path, e))?;
        for (index, block) in (first_block..).zip(buffer.chunks(SUM_BLOCK_BYTES as usize)) {
            if checksum(self.id, index, block) != self.sums[usize_of(index)] {
                let offset = index * SUM_BLOCK_BYTES;
                return Err(Error::corrupt(
                    FileKind::Segment,
                    &self.path,
                    offset,
                    "checksum of a block does not match",
                ));
            }
        }
        let inner = usize_of(range.start - wide.start)..usize_of(range.end - wide.start);
        Ok(Bytes::from(buffer).slice(inner))
    }
}

/// Writes a new file in order, in large pieces, summing its blocks on the way.
#[derive(Debug)]
pub struct SumWriter {
    id: FileId,
    file: Arc<dyn File>,
    written_bytes: u64,
    buffer: Vec<u8>,
    sums: Vec<u64>,
}

impl SumWriter {
    /// Creates the file `id` of `kind`.
    ///
    /// # Errors
    /// I/O.
    pub fn create(env: &dyn Env, dir: &Path, kind: FileKind, id: FileId) -> Result<SumWriter> {
        let path = kind.path(dir, id);
        let file = env.open(&path, OpenMode::CreateNew).map_err(|e| Error::io("create", &path, e))?;
        Ok(SumWriter { id, file, written_bytes: 0, buffer: Vec::with_capacity(WRITE_BUFFER_BYTES), sums: Vec::new() })
    }

    /// Bytes accepted so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    /// Writes what is left, syncs, and returns length and sums.
    ///
    /// # Errors
    /// I/O; the file is then useless.
    pub fn finish(mut self) -> io::Result<(u64, Vec<u64>)> {
        self.drain(self.buffer.len())?;
        self.file.sync()?;
        Ok((self.written_bytes, self.sums))
    }

    fn drain(&mut self, bytes: usize) -> io::Result<()> {
        let piece = &self.buffer[..bytes];
        debug_assert_eq!(self.written_bytes % SUM_BLOCK_BYTES, 0, "sums start at block boundaries");
        self.file.write_at(self.written_bytes, piece)?;
        for block in piece.chunks(SUM_BLOCK_BYTES as usize) {
            self.sums.push(checksum(self.id, self.sums.len() as u64, block));
        }
        self.written_bytes += bytes as u64;
        self.buffer.drain(..bytes);
        Ok(())
    }
}

impl Write for SumWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(WRITE_BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == WRITE_BUFFER_BYTES {
            self.drain(WRITE_BUFFER_BYTES)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Partial blocks have no sum yet; `finish` writes them.
    }
}

/// A byte count that was checked against a file or buffer in memory fits the address space.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a piece of a file that fits in memory")
}
