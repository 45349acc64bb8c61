//! Sorted runs (SSTables): immutable files of row versions in (key ascending, SeqNo descending) order.
//!
//! A flush or a merge writes one with [`RunWriter`]; everybody else reads it through [`Run`], point by point with a
//! filter in front, or in order through a [`RunCursor`]. A run belongs to one table and never changes.
//!
//! ```text
//! data block … data block │ filter │ index partitions │ index root │ properties │ footer
//! ```
//!
//! Always true:
//! * entries rise strictly in (key, SeqNo descending) order (I5), checked when written and again when verified;
//! * every byte is under a checksum that also covers the file's number and the block's offset, so that a damaged,
//!   misplaced or foreign block is an error (P6);
//! * a finished run was synced, read back and verified before its description is handed out.
//!
//! Deliberately not here: which versions are visible ([`crate::iter::visible`]), which may be dropped
//! ([`crate::compaction`]), which runs are live ([`crate::manifest`]). Layout: FORMAT.md.

pub(crate) mod varint;

pub(crate) mod block;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod node;

pub(crate) mod filter;
pub(crate) mod footer;
pub(crate) mod properties;

pub mod concat;
pub mod cursor;
pub mod reader;
pub(crate) mod verify;
pub mod writer;

#[cfg(test)]
mod tests;

pub use concat::ConcatCursor;
pub use cursor::RunCursor;
pub use reader::Run;
pub use writer::RunWriter;

#[doc = include_str!("FORMAT.md")]
pub mod format {}

/// Newest format version that this program reads. A run is written with the oldest that has what is in it.
pub const FORMAT_VERSION: u32 = REFERENCE_VERSION;
/// From this version on a run may have a binary fuse filter.
pub(crate) const FUSE_VERSION: u32 = 2;
/// From this version on a run may refer to value files.
pub(crate) const REFERENCE_VERSION: u32 = 3;

/// How blocks of a run are compressed. A block that would not shrink is stored as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Blocks as they are.
    None,
    /// LZ4: about 500 MB/s in, several GB/s out. For flushes and upper levels.
    #[default]
    Lz4,
    /// Zstandard at level 1: a third smaller than LZ4 on rows, several times dearer. For the lowest level.
    Zstd,
}

/// What tells for certain that a run does not have a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterKind {
    /// Blocked Bloom filter: quickly built. For flushes and upper levels, whose files soon go.
    #[default]
    Bloom,
    /// Binary fuse filter: fewer bits and fewer false positives, ten times as dear to build. For the last level. A file for
    /// which it cannot be built gets a Bloom filter.
    Fuse,
}

/// How to write a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Size at which a data block is closed, before compression. 8 KiB holds some sixty rows: small enough that a
    /// point read decodes little, large enough for LZ4 to find repeats.
    pub block_bytes: usize,
    /// Every how many entries a key is stored whole.
    pub restart_interval: u16,
    /// Block compression.
    pub compression: Compression,
    /// Kind of the filter.
    pub filter: FilterKind,
    /// Bits per distinct key of a Bloom filter; ten give about one false positive in a hundred. A binary fuse filter has nine
    /// and a little whatever is said here. Zero writes no filter.
    pub filter_bits_per_key: u32,
    /// Size at which an index partition is closed; a smaller index has one level and stays in memory.
    pub index_partition_bytes: usize,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            block_bytes: 8 << 10,
            restart_interval: 16,
            compression: Compression::Lz4,
            filter: FilterKind::Bloom,
            filter_bits_per_key: 10,
            index_partition_bytes: 64 << 10,
        }
    }
}
