//! Value files: rows too large to be written again with every merge of their keys.
//!
//! When a memtable is flushed, rows of at least [`large_value_bytes`](crate::compaction::CompactionOptions) go to a value
//! file and the run holds a [`ValueRef`] in their place. Merges pass references on; only those whose file has become
//! mostly garbage are resolved and written to a new one ([`crate::compaction::job`]). Source of the idea: Lu et al.,
//! `WiscKey` (FAST 2016); of immutable files and of collecting inside merges: RocksDB's integrated `BlobDB`, Pebble.
//!
//! Always true:
//! * a value file is written once, by the job that writes the first run that refers to it, and enters the manifest with it;
//! * every record names the key and commit it belongs to, and is checked against them by whoever follows a reference;
//! * the manifest knows what live runs refer to of each file ([`crate::manifest::version::LiveValues`]), as each run says
//!   what it refers to; a file that none refers to is dropped by the edit that takes the last reference away;
//! * a run holds its value files, so whoever can read a run can read its rows.
//!
//! Deliberately not here: a cache. A large value is read whole and seldom twice, and would drive out the blocks of sixty
//! small ones; the operating system keeps what is read often. Layout: FORMAT.md.

pub(crate) mod footer;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use reader::ValueFile;
pub(crate) use reader::{Record, read_record};
pub use writer::ValueWriter;

use crate::file::FileId;
use crate::schema::TableId;
use crate::sstable::varint::{Damage, Reader, put_varint};
use crate::sync::Arc;

#[doc = include_str!("FORMAT.md")]
pub mod format {}

/// Format version written by this program, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Open value files by number: what [`crate::sstable::Run::open_with`] finds those of its run in.
pub type ValueFiles = BTreeMap<FileId, Arc<ValueFile>>;

/// Where a large value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueRef {
    /// The value file.
    pub file: FileId,
    /// Where its record begins.
    pub offset: u64,
    /// Stored length of the record.
    pub bytes: u32,
}

impl ValueRef {
    /// Appends its bytes to `out`: what a run holds in place of the value.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.file.0);
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.bytes));
    }

    /// From what [`ValueRef::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<ValueRef, Damage> {
        let mut reader = Reader::new(bytes, 0);
        let (file, offset, bytes) = (FileId(reader.varint()?), reader.varint()?, reader.varint()?);
        reader.finish()?;
        let bytes = u32::try_from(bytes).map_err(|_| Damage { at: 0, what: "reference out of range" })?;
        Ok(ValueRef { file, offset, bytes })
    }
}

/// What a run refers to of one value file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueShare {
    /// The value file.
    pub file: FileId,
    /// References to it.
    pub value_count: u64,
    /// Stored bytes of the records that they name.
    pub record_bytes: u64,
}

/// Counts one more reference in `shares`, which are in the order of their files.
pub(crate) fn count_reference(shares: &mut Vec<ValueShare>, at: ValueRef) {
    let place = shares.binary_search_by_key(&at.file, |share| share.file);
    let place = place.unwrap_or_else(|place| {
        shares.insert(place, ValueShare { file: at.file, value_count: 0, record_bytes: 0 });
        place
    });
    shares[place].value_count += 1;
    shares[place].record_bytes += u64::from(at.bytes);
}

/// A value file as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueFileMeta {
    /// The file.
    pub file: FileId,
    /// The only table whose values are in it.
    pub table: TableId,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Records in it.
    pub value_count: u64,
    /// Stored bytes of the records, which begin at 0 and follow each other.
    pub record_bytes: u64,
    /// Bytes of the values before compression.
    pub raw_bytes: u64,
    /// XXH3-64 of the whole file.
    pub checksum: u64,
    /// When it was written, in milliseconds since the Unix epoch; for display only.
    pub created_ms: u64,
}
