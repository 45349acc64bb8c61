//! `FreshLayout`: how the row part of a table is cut into items, and where its decoded columns are kept.
//!
//! Made once per layout of the row part (a set of runs and sealed memtables) and kept with it, because cutting walks
//! indexes and memtables. As long as the layout lasts, a range of it into which nothing was written since is the same to
//! every snapshot that sees all of its runs: such a range is decoded once, and its columns wait in the column cache.
//!
//! Always true: a cache key holds the layout's own number, which is used once in the life of a process, so columns of
//! one layout are never taken for those of another.

use std::ops::{Bound, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion_common::stats::Precision;
use datafusion_common::{ColumnStatistics, Result, ScalarValue, Statistics};
use strata_oltp::iter::Cursor;
use strata_oltp::key::{KeyCodec, table_range};
use strata_oltp::row::OwnedValue;
use strata_oltp::view::TableRows;
use strata_oltp::{FileId, SeqNo, TableSchema};

use super::morsel::external;
use super::view::TableView;
use crate::cache::ChunkKey;

/// Numbers of layouts, from where no database's file numbers reach.
static NEXT_LAYOUT: AtomicU64 = AtomicU64::new(1 << 63);

/// Rows of a range by where they lie: in sealed memtables, in runs.
pub(super) type RangeRows = (usize, usize);

/// The row part of a table, cut into ranges of keys.
pub(super) struct FreshLayout {
    id: FileId,
    /// The shape that its columns were decoded in.
    table: Arc<TableSchema>,
    /// From the first possible key to the last, one more than there are ranges.
    cuts: Vec<Vec<u8>>,
    /// The first key column's value at each cut, where it is known.
    values: Vec<Option<ScalarValue>>,
    version_count: u64,
    /// Newest commit in runs and sealed memtables.
    newest: SeqNo,
    row_counts: Vec<OnceLock<RangeRows>>,
}

impl FreshLayout {
    /// The layout of `rows`, which may be missing while only the overlay has rows. Cut anew when the row part has
    /// doubled since, or if the table has another shape, be it one that a transaction has not committed.
    pub(super) fn of(view: &TableView, rows: Option<&Arc<TableRows>>) -> Result<Arc<FreshLayout>> {
        let Some(rows) = rows else { return FreshLayout::cut(view, None).map(Arc::new) };
        let version_count = rows.entry_count();
        if let Some(layout) = rows.derived().get::<FreshLayout>()
            && version_count <= 2 * layout.version_count.max(view.range_versions())
            && (Arc::ptr_eq(&layout.table, view.table()) || layout.table.is_shaped_as(view.table()))
        {
            return Ok(layout);
        }
        let layout = Arc::new(FreshLayout::cut(view, Some(rows))?);
        rows.derived().set(Arc::clone(&layout));
        Ok(layout)
    }

    fn cut(view: &TableView, rows: Option<&Arc<TableRows>>) -> Result<FreshLayout> {
        let table = view.table();
        let version_count = rows.map_or(0, |rows| rows.entry_count());
        let range_count = usize::try_from(version_count.div_ceil(view.range_versions())).unwrap_or(usize::MAX);
        let whole = table_range(table.table);
        let mut cuts = vec![whole.start];
        if let Some(rows) = rows.filter(|_| range_count > 1) {
            cuts.extend(rows.split_keys(range_count).map_err(external)?);
        }
        cuts.push(whole.end);
        cuts.dedup();
        let codec = KeyCodec::new(table);
        Ok(FreshLayout {
            id: FileId(NEXT_LAYOUT.fetch_add(1, Ordering::Relaxed)),
            table: Arc::clone(table),
            values: cuts.iter().map(|cut| first_value(table, &codec, cut)).collect(),
            row_counts: (1..cuts.len()).map(|_| OnceLock::new()).collect(),
            cuts,
            version_count,
            newest: rows.map_or(SeqNo::ZERO, |rows| newest_settled(rows)),
        })
    }

    pub(super) fn range_count(&self) -> usize {
        self.cuts.len() - 1
    }

    pub(super) fn keys(&self, range: usize) -> Range<&[u8]> {
        self.cuts[range].as_slice()..self.cuts[range + 1].as_slice()
    }

    /// Where the decoded column at `position` in the table is cached.
    pub(super) fn chunk(&self, range: usize, position: usize) -> ChunkKey {
        let narrow = |index: usize| u32::try_from(index).expect("a table has fewer than 2^32 ranges and columns");
        ChunkKey { segment: self.id, row_group: narrow(range), column: narrow(position) }
    }

    /// Rows of a settled range, once it was read.
    pub(super) fn row_count(&self, range: usize) -> &OnceLock<RangeRows> {
        &self.row_counts[range]
    }

    /// Whether a range is the same to every snapshot that sees all of its runs, `view` being one: neither the active
    /// memtable nor the transaction itself wrote into it.
    pub(super) fn is_settled(&self, view: &TableView, rows: &TableRows, range: usize) -> Result<bool> {
        let keys = self.keys(range);
        let own_keys = (Bound::Included(keys.start), Bound::Excluded(keys.end));
        let wrote_here = view.overlay().is_some_and(|own| own.range::<[u8], _>(own_keys).next().is_some());
        if view.at() < self.newest || wrote_here {
            return Ok(false);
        }
        let Some(active) = rows.memtables().next_back().filter(|active| !active.is_empty()) else { return Ok(true) };
        let mut cursor = active.cursor();
        cursor.seek(keys.start, SeqNo::MAX).map_err(external)?;
        Ok(!cursor.valid() || cursor.key() >= keys.end)
    }

    /// What is known of a range: bounds of the first key column.
    pub(super) fn statistics(&self, view: &TableView, range: usize) -> Arc<Statistics> {
        let mut columns = Statistics::unknown_column(view.schema());
        let known = |value: &Option<ScalarValue>| value.clone().map_or(Precision::Absent, Precision::Exact);
        if let Some(column) = columns.get_mut(view.table().primary_key[0]) {
            *column = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: known(&self.values[range]),
                max_value: known(&self.values[range + 1]),
                ..ColumnStatistics::new_unknown()
            };
        }
        Arc::new(Statistics {
            num_rows: Precision::Absent,
            total_byte_size: Precision::Absent,
            column_statistics: columns,
        })
    }
}

/// The newest commit in everything that changes no more.
fn newest_settled(rows: &TableRows) -> SeqNo {
    let sealed = rows.memtables().rev().skip(1).filter(|memtable| !memtable.is_empty());
    let sealed = sealed.map(|memtable| memtable.seqno_range().1);
    let runs = rows.runs().iter().map(|run| run.meta().seqno_max);
    sealed.chain(runs).max().unwrap_or_default()
}

/// The first key column of a full key. Unknown for the ends of the table, which are no keys, and for types whose order
/// is not that of their bounds (floats) or that no query compares.
fn first_value(table: &TableSchema, codec: &KeyCodec, key: &[u8]) -> Option<ScalarValue> {
    let value = codec.decode(key).ok()?.into_iter().next()?;
    let data_type = table.columns[table.primary_key[0]].field.data_type();
    let value = match value {
        OwnedValue::Int16(v) => ScalarValue::Int16(Some(v)),
        OwnedValue::Int32(v) => ScalarValue::Int32(Some(v)),
        OwnedValue::Int64(v) => ScalarValue::Int64(Some(v)),
        OwnedValue::Date32(v) => ScalarValue::Date32(Some(v)),
        OwnedValue::Text(v) => ScalarValue::Utf8View(Some(v)),
        _ => return None,
    };
    (value.data_type() == *data_type).then_some(value)
}
