//! Work items of a table scan: key ranges of fresh rows and row groups of segments.
//!
//! DataFusion knows them as `PartitionedFile`s, so that it deals, steals and prunes them like files. What an item
//! really is travels in its extensions.
//!
//! Always true:
//! * the visible rows of a table are those of all its items together, each exactly once (I5);
//! * rows of a row group that the snapshot does not see, and rows that the transaction's own writes replace, are left
//!   out by the item's access plan before the Parquet reader starts, so a limit counts visible rows only;
//! * an item's statistics describe its row group as stored, invisible rows included: `null_count == row_count` is how
//!   DataFusion recognises a column of NULLs, and taking rows off one side only would blank the column.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_common::{Result, Statistics};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::{ParquetAccessPlan, RowGroupAccess};
use parquet::file::metadata::ColumnChunkMetaData;
use roaring::RoaringBitmap;
use strata_oltp::FileId;

use super::layout::FreshLayout;
use super::morsel::external;
use super::view::TableView;
use crate::segment::{GroupAccess, Segment};

/// A key range of the table's row part.
#[derive(Clone)]
pub(crate) struct FreshItem {
    pub(super) layout: Arc<FreshLayout>,
    pub(super) range: usize,
}

/// One row group of one segment.
#[derive(Clone)]
pub(crate) struct RowGroupItem {
    pub(crate) segment: Arc<Segment>,
    pub(crate) row_group: usize,
}

/// Items for the fresh rows, at least one as soon as there is a fresh version or an own write.
pub(crate) fn fresh_items(view: &TableView) -> Result<Vec<PartitionedFile>> {
    let rows = view.rows();
    let version_count = rows.map_or(0, |rows| rows.entry_count());
    if version_count == 0 && view.overlay().is_none() {
        return Ok(Vec::new());
    }
    let layout = FreshLayout::of(view, rows)?;
    // Only shown, in plans.
    let bytes_estimate = version_count / layout.range_count() as u64 * 128;
    let item = |range: usize| {
        PartitionedFile::new(format!("fresh/{range}"), bytes_estimate)
            .with_statistics(layout.statistics(view, range))
            .with_extension(FreshItem { layout: Arc::clone(&layout), range })
    };
    Ok((0..layout.range_count()).map(item).collect())
}

/// Positions of segment rows that the transaction's own writes replace or delete.
pub(crate) fn overlaid(view: &TableView) -> Result<HashMap<FileId, RoaringBitmap>> {
    let mut hidden: HashMap<FileId, RoaringBitmap> = HashMap::new();
    let Some(overlay) = view.overlay() else { return Ok(hidden) };
    let cold = view.snapshot().view().cold();
    for key in overlay.keys() {
        if let Some((location, _)) = cold.locate(view.table().table, key, view.at()).map_err(external)? {
            hidden.entry(location.segment).or_default().insert(location.position);
        }
    }
    Ok(hidden)
}

/// The item of one row group, or `None` if no row of it is visible.
pub(crate) fn row_group_item(
    view: &TableView,
    item: RowGroupItem,
    statistics: Arc<Statistics>,
    overlaid: Option<&RoaringBitmap>,
) -> Result<Option<PartitionedFile>> {
    let RowGroupItem { segment, row_group } = &item;
    let mut plan = ParquetAccessPlan::new_none(segment.row_group_count());
    match segment.row_group_selection(*row_group, view.at(), overlaid).map_err(external)? {
        GroupAccess::Skip => return Ok(None),
        GroupAccess::All => plan.set(*row_group, RowGroupAccess::Scan),
        GroupAccess::Selection(selection) => plan.set(*row_group, RowGroupAccess::Selection(selection)),
    }
    let bytes = byte_range(segment, *row_group);
    let file = PartitionedFile::new(format!("segments/{}.parquet", segment.id()), segment.file_bytes())
        .with_range(bytes.0, bytes.1)
        .with_arrow_schema(Arc::clone(segment.arrow_schema()))
        .with_statistics(statistics)
        .with_extension(plan)
        .with_extension(item);
    Ok(Some(file))
}

/// Where the pages of a row group lie in the file.
fn byte_range(segment: &Segment, row_group: usize) -> (i64, i64) {
    let columns = segment.parquet().row_group(row_group).columns();
    let ranges = columns.iter().map(ColumnChunkMetaData::byte_range);
    let (start, end) =
        ranges.fold((u64::MAX, 0), |(low, high), (start, bytes)| (low.min(start), high.max(start + bytes)));
    (i64::try_from(start).unwrap_or(i64::MAX), i64::try_from(end).unwrap_or(i64::MAX))
}
