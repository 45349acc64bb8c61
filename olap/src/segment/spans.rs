//! Intervals in Parquet, and columns that are several of Parquet's.
//!
//! Parquet's own INTERVAL counts milliseconds, which loses what SQL keeps, and few tools read it. So an interval is a group of
//! three numbers, `months`, `days` and `microseconds`, which every tool reads. In memory it is Arrow's `MonthDayNano`.
//!
//! Always true: a column of the table is one field of the file's root, and its *leaves* are what Parquet calls columns: three
//! of an interval, one of everything else. What stands before a column may thus have more leaves than columns.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::types::{Int32Type, Int64Type, IntervalMonthDayNanoType};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNano, IntervalUnit};
use parquet::schema::types::SchemaDescriptor;
use strata_oltp::row::Interval;
use strata_oltp::{Error, Result};

use crate::error;

/// The type of an interval in memory.
pub(crate) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Nanoseconds of a microsecond.
const MICRO_NANOS: i64 = 1_000;

fn parts() -> Fields {
    let part = |name: &str, data_type| Field::new(name, data_type, false);
    Fields::from(vec![
        part("months", DataType::Int32),
        part("days", DataType::Int32),
        part("microseconds", DataType::Int64),
    ])
}

/// The type that a column of type `data_type` has in a segment file.
pub(crate) fn file_type(data_type: &DataType) -> DataType {
    if *data_type == INTERVAL { DataType::Struct(parts()) } else { data_type.clone() }
}

/// Whether `data_type`, of a file, is that of intervals.
pub(crate) fn is_interval_group(data_type: &DataType) -> bool {
    let DataType::Struct(fields) = data_type else { return false };
    let expected = parts();
    fields.len() == expected.len()
        && fields.iter().zip(&expected).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
}

/// `array` as a segment file holds it.
///
/// # Errors
/// None: the parts of an interval are of one length.
pub(crate) fn to_file(array: &ArrayRef) -> Result<ArrayRef> {
    if *array.data_type() != INTERVAL {
        return Ok(Arc::clone(array));
    }
    let values = array.as_primitive::<IntervalMonthDayNanoType>();
    let months: PrimitiveArray<Int32Type> = values.values().iter().map(|v| v.months).collect();
    let days: PrimitiveArray<Int32Type> = values.values().iter().map(|v| v.days).collect();
    let micros: PrimitiveArray<Int64Type> = values.values().iter().map(|v| of_arrow(*v).micros).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(months), Arc::new(days), Arc::new(micros)];
    let group = StructArray::try_new(parts(), columns, values.nulls().cloned()).map_err(|e| error::invalid(&e))?;
    Ok(Arc::new(group))
}

/// The intervals that [`to_file`] wrote as `group`.
///
/// # Errors
/// [`Error::Invalid`] for another array, or more microseconds than the type in memory holds.
pub(crate) fn from_file(group: &ArrayRef) -> Result<ArrayRef> {
    let other = || Error::Invalid("a column of intervals holds something else".to_owned());
    let group = group.as_struct_opt().filter(|group| group.num_columns() == 3).ok_or_else(other)?;
    let months = group.column(0).as_primitive_opt::<Int32Type>().ok_or_else(other)?;
    let days = group.column(1).as_primitive_opt::<Int32Type>().ok_or_else(other)?;
    let micros = group.column(2).as_primitive_opt::<Int64Type>().ok_or_else(other)?;
    let mut values = Vec::with_capacity(group.len());
    for row in 0..group.len() {
        // A NULL has no parts, whatever its place holds.
        let is_null = group.is_null(row);
        let parts = Interval { months: months.value(row), days: days.value(row), micros: micros.value(row) };
        values.push(to_arrow(if is_null { Interval::default() } else { parts })?);
    }
    let values = PrimitiveArray::<IntervalMonthDayNanoType>::new(values.into(), group.nulls().cloned());
    Ok(Arc::new(values))
}

/// An interval in memory; what is below a microsecond is cut off, which no SQL value has.
pub(crate) fn of_arrow(value: IntervalMonthDayNano) -> Interval {
    Interval { months: value.months, days: value.days, micros: value.nanoseconds.div_euclid(MICRO_NANOS) }
}

/// An interval as it is in memory.
///
/// # Errors
/// [`Error::Invalid`] for more microseconds than the type in memory holds, 292 years.
pub(crate) fn to_arrow(value: Interval) -> Result<IntervalMonthDayNano> {
    let nanos = value.micros.checked_mul(MICRO_NANOS);
    let nanos = nanos.ok_or_else(|| Error::Invalid("an interval has more microseconds than fit".to_owned()))?;
    Ok(IntervalMonthDayNano::new(value.months, value.days, nanos))
}

/// Parquet's columns of the root field `index`.
pub(crate) fn leaves(descriptor: &SchemaDescriptor, index: usize) -> Range<usize> {
    let count = descriptor.num_columns();
    if count == descriptor.root_schema().get_fields().len() {
        return index..index + 1;
    }
    let is_before = |leaf: usize| descriptor.get_column_root_idx(leaf) < index;
    let is_of = |leaf: usize| descriptor.get_column_root_idx(leaf) == index;
    let start = (0..count).take_while(|leaf| is_before(*leaf)).count();
    start..start + (start..count).take_while(|leaf| is_of(*leaf)).count()
}
