//! `ColdFiles`: what the tools for closed and damaged databases ask of the column side about its files.
//!
//! The counterpart of [`crate::ColdTier`] for files that may be damaged and that no view holds.

use std::path::Path;

use super::{Dump, Fault};
use crate::cold::SegmentRecord;
use crate::env::Env;
use crate::error::Result;
use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::sync::Arc;

/// Reads the files of segments, sound or not.
pub trait ColdFiles: Send + Sync {
    /// Writes one file of a segment as text. `id` is the number in the file's name, if it has one.
    ///
    /// # Errors
    /// The file cannot be opened or read; damage becomes a fault of the dump.
    fn inspect(
        &self,
        env: &Arc<dyn Env>,
        kind: FileKind,
        path: &Path,
        id: Option<FileId>,
        dump: &mut Dump<'_>,
    ) -> Result<()>;

    /// What the manifest's description of a segment says, in one line.
    fn describe(&self, meta: &[u8]) -> String;

    /// Checks the files of one segment against each other and against their record, and pushes all faults found.
    /// Returns the segment for questions across files, unless its key index is unreadable.
    fn verify(
        &self,
        env: &Arc<dyn Env>,
        dir: &Path,
        record: &SegmentRecord,
        faults: &mut Vec<Fault>,
    ) -> Option<Box<dyn OpenSegment>>;
}

/// A row of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its place.
    pub position: u32,
    /// The commit that wrote it.
    pub seqno: SeqNo,
    /// The commit that superseded it, as far as sealed marks know.
    pub mark: Option<SeqNo>,
}

/// A segment whose keys can be read.
pub trait OpenSegment {
    /// Its number.
    fn id(&self) -> FileId;

    /// Smallest and largest full key.
    fn key_range(&self) -> (Vec<u8>, Vec<u8>);

    /// Versions of `key`, newest first.
    ///
    /// # Errors
    /// A damaged key block.
    fn versions(&self, key: &[u8]) -> Result<Vec<StoredRow>>;

    /// The row at `position` and its full key, or `None` behind the last.
    ///
    /// # Errors
    /// A damaged key block.
    fn row_at(&self, position: u32) -> Result<Option<(Vec<u8>, StoredRow)>>;
}
