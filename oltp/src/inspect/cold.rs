//! `ColdFiles`: what the tools for closed and damaged databases ask of the column side about its files.
//!
//! The counterpart of [`crate::ColdTier`] for files that may be damaged and that no view holds.

use std::path::Path;

use super::{Dump, Fault};
use crate::backup::copy::copy_file;
use crate::cold::SegmentRecord;
use crate::env::Env;
use crate::error::Result;
use crate::file::{FileId, FileKind};
use crate::repair::Loss;
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

    /// Brings what is readable of a segment into another folder: its files as they are if they are sound, else new ones
    /// made of the row groups that can be read. Reports what is lost.
    ///
    /// # Errors
    /// The new files cannot be written.
    fn repair(&self, job: &SegmentRepair<'_>, losses: &mut Vec<Loss>) -> Result<RepairedSegment>;

    /// Opens a segment that [`ColdFiles::repair`] has just brought there.
    ///
    /// # Errors
    /// It is damaged after all.
    fn open(&self, env: &Arc<dyn Env>, dir: &Path, record: &SegmentRecord) -> Result<Box<dyn OpenSegment>>;

    /// Writes and syncs `id`, a file of marks (position and superseding commit, ascending) for `segment`.
    ///
    /// # Errors
    /// I/O.
    fn write_marks(&self, env: &dyn Env, dir: &Path, id: FileId, segment: FileId, marks: &[(u32, SeqNo)])
    -> Result<()>;
}

/// A segment to be brought from one folder into another.
pub struct SegmentRepair<'a> {
    /// Files of both folders.
    pub env: &'a Arc<dyn Env>,
    /// The damaged database.
    pub from: &'a Path,
    /// The new one.
    pub into: &'a Path,
    /// The segment.
    pub segment: FileId,
    /// What the manifest knows of it; nothing if the manifest is lost.
    pub record: Option<&'a SegmentRecord>,
    /// Allocates the number of a new file.
    pub next_file: &'a (dyn Fn() -> FileId + Sync),
}

impl SegmentRepair<'_> {
    /// Brings a file over as it is, synced.
    ///
    /// # Errors
    /// I/O.
    pub fn copy(&self, kind: FileKind, id: FileId) -> Result<()> {
        copy_file(self.env.as_ref(), &kind.path(self.from, id), &kind.path(self.into, id)).map(drop)
    }
}

/// What became of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairedSegment {
    /// For the new manifest; none if nothing could be read.
    pub records: Vec<SegmentRecord>,
    /// Whether marks may be missing, so that superseded rows look live.
    pub are_marks_lost: bool,
}

/// A row of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its place.
    pub position: u32,
    /// The commit that wrote it.
    pub seqno: SeqNo,
    /// The commit that superseded it, as far as sealed marks know; where they have forgotten which, the earliest that it can
    /// have been.
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
