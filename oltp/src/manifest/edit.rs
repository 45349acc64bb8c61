//! `Edit`: one change to the set of live files.

use crate::file::FileId;
use crate::schema::TableId;
use crate::seqno::SeqNo;

/// A sorted run as the manifest knows it; what a reader needs before it opens the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// The run's file.
    pub run: FileId,
    /// The only table whose versions are in it.
    pub table: TableId,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Versions in it, tombstones included.
    pub version_count: u64,
    /// Tombstones in it.
    pub tombstone_count: u64,
    /// Smallest full key.
    pub key_min: Vec<u8>,
    /// Largest full key, itself in the run.
    pub key_max: Vec<u8>,
    /// SeqNo of the oldest version.
    pub seqno_min: SeqNo,
    /// SeqNo of the newest version.
    pub seqno_max: SeqNo,
    /// Whether no key occurs twice, so that a reader may stop at the first version of a key.
    pub unique_keys: bool,
    /// XXH3-64 of the whole file.
    pub checksum: u64,
    /// When the run was written, in milliseconds since the Unix epoch; for display and idle ages only.
    pub created_ms: u64,
}
