//! `BoundView`: the snapshot a statement reads, and what its scans counted.
//!
//! A session puts one into its configuration before planning; every scan of the plan takes it from there, so that
//! all of them see one read point (P3). [`TableView`] is the part of it that one table scan holds on to.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use strata_oltp::iter::{Cursor, OverlayCursor, SourceKind, VisibleCursor};
use strata_oltp::txn::Overlay;
use strata_oltp::view::{Snapshot, TableRows};
use strata_oltp::{SeqNo, TableId, TableSchema};

use super::morsel::external;
use crate::cache::ColumnCache;
use crate::state::{ColdState, TableSegments};

/// What one statement sees: a snapshot, its transaction's own uncommitted writes, and counters of the rows read.
///
/// Goes into a session's configuration with `SessionConfig::with_extension(Arc::new(view))`. Holds its snapshot, and
/// with it files and memtables, until every plan made from it is dropped.
pub struct BoundView {
    snapshot: Snapshot,
    overlays: HashMap<TableId, Arc<Overlay>>,
    counters: Arc<ScanCounters>,
    range_versions: u64,
}

/// Versions per range of fresh rows: small enough that two cores finish together, large enough that opening a merge over
/// all runs of a table (a seek in each) costs little beside reading the rows.
const RANGE_VERSIONS: u64 = 65_536;

impl BoundView {
    /// A view of committed rows at `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> BoundView {
        BoundView {
            snapshot,
            overlays: HashMap::new(),
            counters: Arc::new(ScanCounters::default()),
            range_versions: RANGE_VERSIONS,
        }
    }

    /// The view with a transaction's own writes to `table` on top.
    #[must_use]
    pub fn with_overlay(mut self, table: TableId, overlay: Arc<Overlay>) -> BoundView {
        self.overlays.insert(table, overlay);
        self
    }

    /// The view with its scans counted together with those of another.
    #[must_use]
    pub fn with_counters(mut self, counters: Arc<ScanCounters>) -> BoundView {
        self.counters = counters;
        self
    }

    /// The view with fresh rows cut into ranges of about this many versions, the unit of their parallel reading.
    #[must_use]
    pub fn with_range_versions(mut self, range_versions: u64) -> BoundView {
        self.range_versions = range_versions.max(1);
        self
    }

    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Rows read so far by scans bound to this view.
    #[must_use]
    pub fn counters(&self) -> &Arc<ScanCounters> {
        &self.counters
    }
}

impl fmt::Debug for BoundView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundView").field("at", &self.snapshot.seqno()).finish_non_exhaustive()
    }
}

/// Rows a statement's scans produced, by where they lay. Values rise while the statement runs.
#[derive(Debug, Default)]
pub struct ScanCounters {
    memtable: AtomicU64,
    run: AtomicU64,
    segment: AtomicU64,
    key: AtomicU64,
}

impl ScanCounters {
    /// Rows from memtables and from the transaction's own writes.
    #[must_use]
    pub fn memtable_rows(&self) -> u64 {
        self.memtable.load(Ordering::Relaxed)
    }

    /// Rows from sorted runs.
    #[must_use]
    pub fn run_rows(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// Rows decoded from segments.
    #[must_use]
    pub fn segment_rows(&self) -> u64 {
        self.segment.load(Ordering::Relaxed)
    }

    /// Rows found one by one, by key or in an index, wherever they lay.
    #[must_use]
    pub fn key_rows(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// Counts rows found by their keys.
    pub fn add_keys(&self, rows: usize) {
        self.key.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn add_fresh(&self, memtable: usize, run: usize) {
        self.memtable.fetch_add(memtable as u64, Ordering::Relaxed);
        self.run.fetch_add(run as u64, Ordering::Relaxed);
    }

    pub(super) fn add_segment(&self, rows: usize) {
        self.segment.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

/// One table as one statement sees it: everything its morsels need.
pub(crate) struct TableView {
    table: Arc<TableSchema>,
    schema: SchemaRef,
    snapshot: Snapshot,
    overlay: Option<Arc<Overlay>>,
    /// Own writes to the table's indexes.
    index_overlays: HashMap<TableId, Arc<Overlay>>,
    counters: Arc<ScanCounters>,
    range_versions: u64,
}

impl TableView {
    /// `schema` holds the leading columns of `table` that the scan exposes.
    pub(crate) fn new(table: Arc<TableSchema>, schema: SchemaRef, bound: &BoundView) -> TableView {
        let overlay = bound.overlays.get(&table.table).filter(|overlay| !overlay.is_empty()).cloned();
        let (snapshot, counters) = (bound.snapshot.clone(), Arc::clone(&bound.counters));
        let index_overlays = HashMap::new();
        TableView { table, schema, snapshot, overlay, index_overlays, counters, range_versions: bound.range_versions }
    }

    /// The view with what the transaction has written to the indexes `ids`.
    pub(crate) fn with_indexes(mut self, ids: impl Iterator<Item = TableId>, bound: &BoundView) -> TableView {
        self.index_overlays = ids.filter_map(|id| Some((id, Arc::clone(bound.overlays.get(&id)?)))).collect();
        self
    }

    /// Entries of the index `id` in `keys`, in key order, own writes included.
    pub(crate) fn index_entries(&self, id: TableId, keys: Range<&[u8]>) -> Result<VisibleCursor> {
        let overlay = self.index_overlays.get(&id);
        match self.snapshot.view().rows(id) {
            Some(rows) => rows.scan(keys, self.at(), overlay).map_err(external),
            None => {
                let own = overlay.map(|overlay| -> (SourceKind, Box<dyn Cursor>) {
                    (SourceKind::Overlay, Box::new(OverlayCursor::new(Arc::clone(overlay))))
                });
                Ok(VisibleCursor::new(own.into_iter().collect(), keys, self.at()))
            }
        }
    }

    pub(crate) fn table(&self) -> &Arc<TableSchema> {
        &self.table
    }

    /// The exposed columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn at(&self) -> SeqNo {
        self.snapshot.seqno()
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn overlay(&self) -> Option<&Arc<Overlay>> {
        self.overlay.as_ref()
    }

    pub(crate) fn counters(&self) -> &Arc<ScanCounters> {
        &self.counters
    }

    /// The row part, if anything was ever committed to the table.
    pub(crate) fn rows(&self) -> Option<&Arc<TableRows>> {
        self.snapshot.view().rows(self.table.table)
    }

    pub(crate) fn range_versions(&self) -> u64 {
        self.range_versions
    }

    /// The column cache.
    pub(crate) fn cache(&self) -> Option<&Arc<ColumnCache>> {
        Some(self.snapshot.view().cold().as_any().downcast_ref::<ColdState>()?.cache())
    }

    /// The table's segments; `None` if the database runs with another column side, whose rows this scan cannot read.
    pub(crate) fn segments(&self) -> Option<&TableSegments> {
        let state = self.snapshot.view().cold().as_any().downcast_ref::<ColdState>()?;
        Some(state.table(self.table.table))
    }
}
