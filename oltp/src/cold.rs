//! `ColdTier`: what the row store asks of the column side, without knowing it.
//!
//! The row store owns the manifest, the commit order and the moment of installation; the tier owns the contents of
//! its segments and their deletion vectors. Keys, never positions, cross a restart: positions change with every
//! rewrite.
//!
//! Always true:
//! * a view is immutable but for marks, which only grow and carry the SeqNo that makes them visible (I7);
//! * a position carries one mark, the earliest SeqNo that superseded it;
//! * `mark` and `install` touch memory only and cannot fail, because they run inside the commit mutex.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::file::FileId;
use crate::iter::Cursor;
use crate::schema::{TableId, TableSchema};
use crate::seqno::SeqNo;

/// A row's place in the cold tier: valid in the view that named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The segment.
    pub segment: FileId,
    /// Row number within it.
    pub position: u32,
}

/// One segment as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// The segment's Parquet file; its key index has the same number.
    pub segment: FileId,
    /// Its table.
    pub table: TableId,
    /// The tier's own description (row counts, fences, statistics): opaque to the row store.
    pub meta: Vec<u8>,
    /// File of sealed marks, if any were sealed.
    pub marks: Option<FileId>,
    /// Every mark by a commit at or below this is in `marks`; later ones are replayed from the log.
    pub marks_through: SeqNo,
}

/// A run offered for conversion, described for the tier's scheduling.
#[derive(Clone, Debug)]
pub struct RunShape {
    /// The run's file.
    pub run: FileId,
    /// Size in bytes.
    pub file_bytes: u64,
    /// Versions in it, tombstones included.
    pub version_count: u64,
    /// Smallest and largest key.
    pub key_range: (Vec<u8>, Vec<u8>),
    /// Milliseconds since the run was written.
    pub age_ms: u64,
}

/// Row part of one table, oldest run first, for the tier to choose from.
#[derive(Clone, Debug)]
pub struct RowPart {
    /// The table.
    pub table: Arc<TableSchema>,
    /// Its runs, oldest first.
    pub runs: Vec<RunShape>,
    /// Milliseconds since the last commit to the table.
    pub idle_ms: u64,
    /// Positions marked at or below this can be dropped by a rewrite; later marks must be kept for some snapshot.
    pub watermark: SeqNo,
    /// Whether the caller wants everything converted and every marked segment rewritten, now.
    pub force: bool,
}

/// Work the tier wants done: convert these runs together with these segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColdPlan {
    /// Runs to convert: always closed towards older runs that overlap their keys.
    pub runs: Vec<FileId>,
    /// Segments to rewrite.
    pub segments: Vec<FileId>,
}

/// Everything a conversion or rewrite needs. It writes files and changes nothing visible.
pub struct ColdJob<'a> {
    /// Shape of the rows.
    pub schema: Arc<TableSchema>,
    /// Versions of the chosen runs, merged in cursor order, tombstones included. Not moved yet: the first `next`
    /// stands on the first version.
    pub versions: Box<dyn Cursor>,
    /// Versions of newer runs and memtables in the same key range, merged in cursor order. The oldest version of a
    /// key here supersedes the newest version of that key in the job.
    pub newer: Box<dyn Cursor>,
    /// Segments whose live rows are rewritten into the output.
    pub segments: Vec<FileId>,
    /// Versions superseded at or below this are invisible to every snapshot and are dropped.
    pub watermark: SeqNo,
    /// Marks by commits at or below this are complete in the output.
    pub marks_through: SeqNo,
    /// Allocates the number of an output file.
    pub next_file: &'a (dyn Fn() -> FileId + Sync),
}

/// Result of a [`ColdJob`]: finished, synced files, not yet part of any view.
pub struct ColdOutput {
    /// The new segments, for the manifest; empty if no row survived.
    pub segments: Vec<SegmentRecord>,
    /// The segments that the output replaces.
    pub replaced: Vec<FileId>,
    /// The tier's own handle on the opened output.
    pub handle: Box<dyn Any + Send>,
}

/// Marks of one segment, written to a file and synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedMarks {
    /// The segment.
    pub segment: FileId,
    /// The file; `None` if the segment has no mark.
    pub marks: Option<FileId>,
    /// Every mark by a commit at or below this is in it.
    pub marks_through: SeqNo,
}

/// The cold side of one read view.
pub trait ColdView: Send + Sync {
    /// For a downcast by the tier's own scan.
    fn as_any(&self) -> &dyn Any;

    /// Where the version of `key` visible at `at` lives, with its SeqNo; `None` if the cold tier has none.
    /// [`SeqNo::MAX`] finds the live version. `key` is a full key. Reads fences and filters from memory and at most
    /// one key block per candidate.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn locate(&self, table: TableId, key: &[u8], at: SeqNo) -> Result<Option<(Location, SeqNo)>>;

    /// The encoded row at `location`.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn read_row(&self, schema: &TableSchema, location: Location) -> Result<Vec<u8>>;

    /// Full keys of rows visible at `at` within `keys`, ascending, with their locations.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn scan_keys(&self, table: TableId, keys: Range<&[u8]>, at: SeqNo) -> Result<Vec<(Vec<u8>, Location)>>;

    /// The table's segments, for system tables and tests.
    fn segments(&self, table: TableId) -> Vec<FileId>;

    /// Smallest and largest full key in `segment`; `None` if the view has no such segment. Memory only.
    fn key_range(&self, segment: FileId) -> Option<(Vec<u8>, Vec<u8>)>;
}

/// The column side, as seen by the row store.
pub trait ColdTier: Send + Sync + 'static {
    /// Opens the recorded segments and their sealed marks.
    ///
    /// # Errors
    /// Corrupt, missing or unreadable files.
    fn restore(&self, segments: &[SegmentRecord]) -> Result<Arc<dyn ColdView>>;

    /// Marks `location` as superseded at `seqno`. Called inside the commit mutex, in commit order. Memory only.
    fn mark(&self, view: &dyn ColdView, location: Location, seqno: SeqNo);

    /// During recovery: marks the newest version of `key` below `seqno` in every segment whose sealed marks do not
    /// reach `seqno` yet. Replaying twice changes nothing.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn replay_mark(&self, view: &dyn ColdView, key: &[u8], seqno: SeqNo) -> Result<()>;

    /// What to convert or rewrite next for this table, if anything. Pure but for reading the view.
    fn plan(&self, view: &dyn ColdView, rows: &RowPart) -> Option<ColdPlan>;

    /// Runs a conversion or rewrite: writes, syncs and re-reads the output files.
    ///
    /// # Errors
    /// Corrupt input, I/O, or an exhausted budget. Files written so far are then orphans for the caller to remove.
    fn run(&self, view: &dyn ColdView, job: ColdJob<'_>) -> Result<ColdOutput>;

    /// Finds the positions in `output` of the (key, SeqNo) pairs that superseded its inputs while the job ran, each
    /// the newest version below its SeqNo. May do I/O; called outside the commit mutex but for a last few entries.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    fn translate(&self, output: &ColdOutput, superseded: &[(Vec<u8>, SeqNo)]) -> Result<Vec<(Location, SeqNo)>>;

    /// The view with `output` in place of what it replaces, `marks` applied to it. Memory only.
    fn install(&self, view: &dyn ColdView, output: ColdOutput, marks: &[(Location, SeqNo)]) -> Arc<dyn ColdView>;

    /// Writes and syncs the marks of the table's segments through `through`; the caller records them in the manifest.
    /// A segment that is complete further than `through` already is sealed that far again, never less.
    ///
    /// # Errors
    /// I/O. The caller then removes all files of the call, so the tier must not hold to any of them.
    fn seal(
        &self,
        view: &dyn ColdView,
        table: TableId,
        through: SeqNo,
        next_file: &dyn Fn() -> FileId,
    ) -> Result<Vec<SealedMarks>>;

    /// Reads every file of the view whole and checks it against its checksums and its neighbours; returns how many
    /// segments that were.
    ///
    /// # Errors
    /// The first damage found.
    fn verify(&self, view: &dyn ColdView) -> Result<u64>;

    /// The view without any segment of `table`. Memory only.
    fn drop_table(&self, view: &dyn ColdView, table: TableId) -> Arc<dyn ColdView>;
}
