//! Zone maps: per column and row group the least and greatest value and the number of NULLs, in memory.
//!
//! Bounds come from the Parquet footer, which the block checksums vouch for; those of float columns from the manifest,
//! because Parquet leaves NaN out of them and pruning by such bounds loses rows.
//!
//! Always true: a bound bounds every physical row of its group, whether marked or not. Where text was truncated it is
//! still a bound, but not a value of the column (`*_exact` is false).

use std::sync::Arc;

use arrow::array::types::{Float32Type, Float64Type};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::meta::{FloatBounds, SegmentMeta};

/// Statistics of every file column, the hidden SeqNo column last.
#[derive(Clone, Debug)]
pub struct SegmentStatistics {
    columns: Vec<ColumnStatistics>,
}

/// Statistics of one column: arrays with one element per row group.
#[derive(Clone, Debug)]
pub struct ColumnStatistics {
    /// Least values; an element is NULL if the group has no value, or (floats) if it may hold NaN.
    pub mins: ArrayRef,
    /// Greatest values, likewise.
    pub maxes: ArrayRef,
    /// Whether the least value occurs in the column; false for truncated text.
    pub mins_exact: BooleanArray,
    /// Whether the greatest value occurs in the column.
    pub maxes_exact: BooleanArray,
    /// NULLs; an element is NULL if they were not counted, as in columns of lists.
    pub null_counts: UInt64Array,
    /// Estimated number of distinct values in the segment.
    pub distinct_estimate: u64,
}

impl SegmentStatistics {
    /// Statistics of the file column `column`.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn column(&self, column: usize) -> &ColumnStatistics {
        &self.columns[column]
    }

    /// Columns, the hidden one included.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn collect(
        parquet: &ParquetMetaData,
        schema: &SchemaRef,
        meta: &SegmentMeta,
    ) -> Result<SegmentStatistics, ParquetError> {
        let descriptor = parquet.file_metadata().schema_descr();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let recorded = meta.columns.get(index);
            let distinct_estimate = recorded.map_or(u64::from(meta.row_count), |column| column.distinct_estimate);
            let floats = recorded.and_then(|column| column.floats.as_deref());
            columns.push(match floats {
                Some(groups) => of_floats(field.data_type(), groups, distinct_estimate),
                None => {
                    let converter = StatisticsConverter::try_new(field.name(), schema, descriptor)?;
                    let groups = || parquet.row_groups().iter();
                    ColumnStatistics {
                        mins: converter.row_group_mins(groups())?,
                        maxes: converter.row_group_maxes(groups())?,
                        mins_exact: converter.row_group_is_min_value_exact(groups())?,
                        maxes_exact: converter.row_group_is_max_value_exact(groups())?,
                        null_counts: converter.row_group_null_counts(groups())?,
                        distinct_estimate,
                    }
                }
            });
        }
        Ok(SegmentStatistics { columns })
    }
}

fn of_floats(data_type: &DataType, groups: &[FloatBounds], distinct_estimate: u64) -> ColumnStatistics {
    let bound = |pick: fn((f64, f64)) -> f64| -> ArrayRef {
        let values = groups.iter().map(|group| group.bounds.map(pick));
        match data_type {
            // Lossless: the bounds of a single-precision column were widened from it.
            DataType::Float32 => Arc::new(values.map(|v| v.map(|v| v as f32)).collect::<Float32Array>()),
            _ => Arc::new(values.collect::<Float64Array>()),
        }
    };
    // Not exact, because a zero bound stands for both signs of zero.
    let exact = BooleanArray::from(vec![false; groups.len()]);
    ColumnStatistics {
        mins: bound(|(least, _)| least),
        maxes: bound(|(_, greatest)| greatest),
        mins_exact: exact.clone(),
        maxes_exact: exact,
        null_counts: groups.iter().map(|group| Some(group.null_count)).collect(),
        distinct_estimate,
    }
}

/// NULLs and bounds of every float column of `batch`, a whole row group; `None` for other columns.
pub(crate) fn float_bounds(batch: &RecordBatch) -> Vec<Option<FloatBounds>> {
    let of_column = |column: &ArrayRef| {
        let bounds = match column.data_type() {
            DataType::Float32 => bounds(column.as_primitive::<Float32Type>().iter().flatten().map(f64::from)),
            DataType::Float64 => bounds(column.as_primitive::<Float64Type>().iter().flatten()),
            _ => return None,
        };
        Some(FloatBounds { null_count: column.null_count() as u64, bounds })
    };
    batch.columns().iter().map(of_column).collect()
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut bounds: Option<(f64, f64)> = None;
    for value in values {
        if value.is_nan() {
            return None;
        }
        let (least, greatest) = bounds.get_or_insert((value, value));
        *least = least.min(value);
        *greatest = greatest.max(value);
    }
    // Arrow orders -0.0 before 0.0, SQL does not: a zero bound must let both signs pass.
    bounds.map(|(least, greatest)| (if least == 0.0 { -0.0 } else { least }, greatest + 0.0))
}
