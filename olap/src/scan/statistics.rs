//! What the planner is told about a table: counts, bounds and distinct values, and how far to trust them.
//!
//! Exactness is a matter of right or wrong answers, not of taste: DataFusion answers `COUNT(*)`, `MIN` and `MAX` from
//! exact table statistics without reading a row, and takes a column for constant from exact item statistics.
//!
//! Always true:
//! * of a row group, everything is physical: rows as stored, whether visible or not;
//! * of a table, the row count is exact only if there is no fresh row and every segment knows its visible rows;
//! * of a table's columns nothing is exact once a single row is invisible or fresh;
//! * the number of distinct values is an estimate, always.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion_common::stats::Precision;
use datafusion_common::{ColumnStatistics, Result, ScalarValue, Statistics};

use super::morsel::external;
use super::view::TableView;
use crate::segment::Segment;
use crate::segment::stored::StoredColumn;
use strata_oltp::schema::is_key_type;

/// Statistics of row group `row_group` for the exposed columns in `wanted`; the others stay unknown, because nothing
/// above the scan can ask about a column that is not read.
pub(crate) fn of_row_group(
    view: &TableView,
    segment: &Segment,
    row_group: usize,
    wanted: &[usize],
) -> Result<Arc<Statistics>> {
    let mut columns = Statistics::unknown_column(view.schema());
    for &column in wanted {
        let stored = segment.stored(view.table(), column).map_err(external)?;
        let zone = Zone::of(segment, &stored, row_group)?;
        columns[column] = ColumnStatistics {
            null_count: zone.null_count.map_or(Precision::Absent, |count| Precision::Exact(to_rows(count))),
            min_value: zone.min,
            max_value: zone.max,
            ..ColumnStatistics::new_unknown()
        };
    }
    let row_count = segment.row_group_rows(row_group).len();
    let statistics = Statistics {
        num_rows: Precision::Exact(row_count),
        total_byte_size: Precision::Absent,
        column_statistics: columns,
    };
    Ok(Arc::new(statistics))
}

/// NULLs and bounds of a column of the table in one row group, in the table's type.
struct Zone {
    /// `None` if they were not counted, as in columns of lists.
    null_count: Option<u64>,
    min: Precision<ScalarValue>,
    max: Precision<ScalarValue>,
}

impl Zone {
    fn of(segment: &Segment, column: &StoredColumn, row_group: usize) -> Result<Zone> {
        let index = match column {
            StoredColumn::Same(index) | StoredColumn::Interval(index) | StoredColumn::Narrower(index, _) => *index,
            StoredColumn::Missing(value) => return Zone::of_constant(value, segment.row_group_rows(row_group).len()),
        };
        let stored = segment.statistics().column(index);
        let mut zone = Zone {
            null_count: stored.null_counts.is_valid(row_group).then(|| stored.null_counts.value(row_group)),
            min: bound(&stored.mins, &stored.mins_exact, row_group)?,
            max: bound(&stored.maxes, &stored.maxes_exact, row_group)?,
        };
        if let StoredColumn::Narrower(_, target) = column {
            // Widening keeps the order and gives each value one image, so an exact bound stays one.
            (zone.min, zone.max) = (widen(&zone.min, target)?, widen(&zone.max, target)?);
        }
        Ok(zone)
    }

    /// Of a column that the segment is older than: every row has the same value.
    fn of_constant(value: &ArrayRef, row_count: usize) -> Result<Zone> {
        if value.is_null(0) {
            return Ok(Zone { null_count: Some(row_count as u64), min: Precision::Absent, max: Precision::Absent });
        }
        let value = ScalarValue::try_from_array(value, 0)?;
        let (min, max) = match value {
            // As for bounds that segments keep: none where NaN may be, and zero stands for both signs.
            ScalarValue::Float32(Some(v)) if v.is_nan() => (Precision::Absent, Precision::Absent),
            ScalarValue::Float64(Some(v)) if v.is_nan() => (Precision::Absent, Precision::Absent),
            ScalarValue::Float32(Some(v)) => {
                let (low, high) = if v == 0.0 { (-0.0, 0.0) } else { (v, v) };
                (Precision::Inexact(ScalarValue::from(low)), Precision::Inexact(ScalarValue::from(high)))
            }
            ScalarValue::Float64(Some(v)) => {
                let (low, high) = if v == 0.0 { (-0.0, 0.0) } else { (v, v) };
                (Precision::Inexact(ScalarValue::from(low)), Precision::Inexact(ScalarValue::from(high)))
            }
            // No bounds are kept of what Arrow orders otherwise than SQL does.
            other if !is_key_type(&other.data_type()) => (Precision::Absent, Precision::Absent),
            other => (Precision::Exact(other.clone()), Precision::Exact(other)),
        };
        Ok(Zone { null_count: Some(0), min, max })
    }
}

fn widen(bound: &Precision<ScalarValue>, target: &DataType) -> Result<Precision<ScalarValue>> {
    Ok(match bound {
        Precision::Exact(value) => Precision::Exact(value.cast_to(target)?),
        Precision::Inexact(value) => Precision::Inexact(value.cast_to(target)?),
        Precision::Absent => Precision::Absent,
    })
}

/// One row group's bound; absent if there is none (all NULL, or a float column that may hold NaN).
fn bound(values: &ArrayRef, exact: &BooleanArray, row_group: usize) -> Result<Precision<ScalarValue>> {
    if values.is_null(row_group) {
        return Ok(Precision::Absent);
    }
    let value = ScalarValue::try_from_array(values, row_group)?;
    let is_exact = exact.is_valid(row_group) && exact.value(row_group);
    Ok(if is_exact { Precision::Exact(value) } else { Precision::Inexact(value) })
}

/// How many rows the table has, and whether everything stored is what the snapshot sees.
struct Rows {
    count: Precision<usize>,
    all_visible: bool,
}

/// Statistics of the whole table at the view's snapshot, for the exposed columns in `wanted`.
pub(crate) fn of_table(view: &TableView, wanted: &[usize]) -> Result<Statistics> {
    let rows = count_rows(view);
    let mut columns = Statistics::unknown_column(view.schema());
    for &column in wanted {
        columns[column] = of_column(view, column, &rows)?;
    }
    Ok(Statistics { num_rows: rows.count, total_byte_size: Precision::Absent, column_statistics: columns })
}

fn count_rows(view: &TableView) -> Rows {
    let fresh = view.rows().map_or(0, |rows| rows.entry_count());
    let fresh = fresh + view.overlay().map_or(0, |overlay| overlay.len() as u64);
    let (mut count, mut certain, mut all_visible) = (fresh, fresh == 0, fresh == 0);
    for segment in view.segments().iter().flat_map(|segments| segments.segments()) {
        let stored = u64::from(segment.row_count());
        all_visible &= segment.is_all_visible(view.at());
        match segment.visible_rows(view.at()) {
            Some(visible) => count += visible,
            None => {
                count += stored.saturating_sub(segment.marks().count());
                certain = false;
            }
        }
    }
    let count = to_rows(count);
    Rows { count: if certain { Precision::Exact(count) } else { Precision::Inexact(count) }, all_visible }
}

fn of_column(view: &TableView, column: usize, rows: &Rows) -> Result<ColumnStatistics> {
    let id = view.table().columns[column].id;
    let mut low = Bound::default();
    let mut high = Bound::default();
    let (mut null_count, mut byte_size) = (0, 0);
    for segment in view.segments().iter().flat_map(|segments| segments.segments()) {
        let stored = segment.stored(view.table(), column).map_err(external)?;
        for row_group in 0..segment.row_group_count() {
            let zone = Zone::of(segment, &stored, row_group)?;
            let Some(nulls) = zone.null_count else { return Ok(ColumnStatistics::new_unknown()) };
            let has_values = to_rows(nulls) < segment.row_group_rows(row_group).len();
            low.extend(zone.min, has_values, Ordering::Less);
            high.extend(zone.max, has_values, Ordering::Greater);
            null_count += nulls;
            if let Some(index) = stored.file_column() {
                let group = segment.parquet().row_group(row_group);
                let leaves = segment.leaves(index);
                byte_size += leaves.map(|leaf| group.column(leaf).uncompressed_size().unsigned_abs()).sum::<u64>();
            }
        }
    }
    let row_count = rows.count.get_value().copied().unwrap_or(0);
    let distinct = view.segments().and_then(|segments| segments.distinct_estimate(id)).map(to_rows);
    let width = view.schema().field(column).data_type().primitive_width();
    let statistics = ColumnStatistics {
        null_count: Precision::Exact(to_rows(null_count)),
        min_value: low.finish(),
        max_value: high.finish(),
        sum_value: Precision::Absent,
        distinct_count: distinct.map_or(Precision::Absent, |n| Precision::Inexact(n.min(row_count))),
        byte_size: width.map_or(Precision::Inexact(to_rows(byte_size)), |width| Precision::Exact(width * row_count)),
    };
    Ok(if rows.all_visible { statistics } else { statistics.to_inexact() })
}

/// The smallest or largest of many row groups' bounds; unknown as soon as one group that has values lacks one.
#[derive(Default)]
struct Bound {
    value: Option<(ScalarValue, bool)>,
    unknown: bool,
}

impl Bound {
    fn extend(&mut self, other: Precision<ScalarValue>, has_values: bool, wins: Ordering) {
        let (other, exact) = match other {
            Precision::Exact(value) => (value, true),
            Precision::Inexact(value) => (value, false),
            Precision::Absent => {
                self.unknown |= has_values;
                return;
            }
        };
        match &mut self.value {
            None => self.value = Some((other, exact)),
            Some((value, is_exact)) => match other.partial_cmp(value) {
                Some(order) if order == wins => (*value, *is_exact) = (other, exact),
                Some(Ordering::Equal) => *is_exact |= exact,
                Some(_) => {}
                None => self.unknown = true,
            },
        }
    }

    fn finish(self) -> Precision<ScalarValue> {
        match self.value {
            Some((value, true)) if !self.unknown => Precision::Exact(value),
            Some((value, false)) if !self.unknown => Precision::Inexact(value),
            _ => Precision::Absent,
        }
    }
}

fn to_rows(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
