//! What `generate_series` and its like unnest: arrays of numbers, times or subscripts, one after the other.
//!
//! Times are counted as PostgreSQL counts them, each from the one before, so a month after January 31st every later one is
//! on the 29th or 28th. An array is made for each row at once, so its length has a limit.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::types::{Int64Type, IntervalMonthDayNanoType, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, AsArray, Int64Builder, ListBuilder, PrimitiveArray, StructArray, TimestampMicrosecondBuilder,
};
use arrow::array::{Int32Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, SqlState};
use crate::expr::function::over_arrays;
use crate::types::interval::{INTERVAL, order_micros};
use crate::types::{is_text, sql_name};

/// `_strata_series(first, last[, step])`.
pub(in crate::expr) const SERIES: &str = "_strata_series";
/// `_strata_subscripts(lower, array, …)`: of the longest array, from `lower` on.
pub(in crate::expr) const SUBSCRIPTS: &str = "_strata_subscripts";
/// `_strata_expanded(array)`: its elements `x` with their places `n`.
pub(in crate::expr) const EXPANDED: &str = "_strata_expanded";

/// Elements that the rows of one batch may come to: 128 MiB of them.
const ELEMENTS_MAX: usize = 1 << 24;

pub(super) fn functions() -> Vec<ScalarUDF> {
    let make = |what, name| SeriesFunction { what, name, signature: Signature::user_defined(Volatility::Immutable) };
    [(What::Series, SERIES), (What::Subscripts, SUBSCRIPTS), (What::Expanded, EXPANDED)]
        .map(|(what, name)| ScalarUDF::from(make(what, name)))
        .into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Series,
    Subscripts,
    Expanded,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SeriesFunction {
    what: What,
    name: &'static str,
    signature: Signature,
}

fn stamp(has_zone: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, has_zone.then(|| "UTC".into()))
}

fn undefined(types: &[DataType]) -> DataFusionError {
    let types: Vec<String> = types.iter().map(sql_name).collect();
    let message = format!("function generate_series({}) does not exist", types.join(", "));
    let hint = "there is one of integers, and one of timestamps with an interval";
    Error::new(SqlState::UndefinedFunction, message).with_hint(hint).into()
}

/// What the arguments of a series are taken as.
fn series_types(types: &[DataType]) -> Result<Vec<DataType>> {
    let is_open = |data_type: &DataType| *data_type == DataType::Null || is_text(data_type);
    if types.iter().all(|data_type| data_type.is_integer() || is_open(data_type)) {
        return Ok(vec![DataType::Int64; types.len()]);
    }
    let (ends, step) = types.split_at(2.min(types.len()));
    let is_moment = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_) | DataType::Duration(_));
    let is_series = ends.iter().all(|end| is_moment(end) || is_open(end))
        && matches!(step, [step] if is_interval(step) || is_open(step));
    if !is_series {
        return Err(undefined(types));
    }
    // A series of dates is one of moments with a zone.
    let has_zone = ends.iter().any(|end| matches!(end, DataType::Timestamp(_, Some(_)) | DataType::Date32));
    Ok(vec![stamp(has_zone), stamp(has_zone), INTERVAL])
}

impl ScalarUDFImpl for SeriesFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match self.what {
            What::Series => series_types(types),
            What::Subscripts | What::Expanded => {
                let lists = if self.what == What::Expanded { types } else { &types[1.min(types.len())..] };
                if let Some(other) = lists.iter().find(|ty| !matches!(ty, DataType::List(_) | DataType::Null)) {
                    let message = format!("{} is no array", sql_name(other));
                    return Err(Error::new(SqlState::DatatypeMismatch, message).into());
                }
                let mut types = types.to_vec();
                if self.what == What::Subscripts {
                    types[0] = DataType::Int64;
                }
                Ok(types)
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let element = match self.what {
            What::Series => types.first().cloned().unwrap_or(DataType::Int64),
            What::Subscripts => DataType::Int32,
            What::Expanded => DataType::Struct(expanded_fields(&types[0])),
        };
        Ok(DataType::new_list(element, true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_arrays(&args, |arrays| match self.what {
            What::Series if *arrays[0].data_type() == DataType::Int64 => numbers(arrays),
            What::Series => moments(arrays),
            What::Subscripts => subscripts(arrays),
            What::Expanded => expanded(&arrays[0]),
        })
    }
}

fn too_many() -> DataFusionError {
    Error::new(SqlState::InvalidParameter, "a series has more elements than can be made at once")
        .with_detail(format!("the rows of a batch may have {ELEMENTS_MAX} together"))
        .with_hint("FROM generate_series(first, last), of constants, makes them as they are read")
        .into()
}

fn no_step() -> DataFusionError {
    Error::new(SqlState::InvalidParameter, "step size cannot equal zero").into()
}

fn numbers(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let columns: Vec<_> = arrays.iter().map(AsArray::as_primitive::<Int64Type>).collect();
    let mut lists = ListBuilder::new(Int64Builder::new());
    let mut count = 0;
    for row in 0..arrays[0].len() {
        if columns.iter().any(|column| column.is_null(row)) {
            lists.append(false);
            continue;
        }
        let (first, last) = (columns[0].value(row), columns[1].value(row));
        let step = columns.get(2).map_or(1, |steps| steps.value(row));
        if step == 0 {
            return Err(no_step());
        }
        let (mut next, is_up) = (Some(first), step > 0);
        while let Some(value) = next.filter(|value| if is_up { *value <= last } else { *value >= last }) {
            count += 1;
            if count > ELEMENTS_MAX {
                return Err(too_many());
            }
            lists.values().append_value(value);
            next = value.checked_add(step);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn moments(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let utc: Tz = "+00:00".parse()?;
    let moment = |at: usize| arrays[at].as_primitive::<TimestampMicrosecondType>();
    let (firsts, lasts, steps) = (moment(0), moment(1), arrays[2].as_primitive::<IntervalMonthDayNanoType>());
    let values = TimestampMicrosecondBuilder::new().with_data_type(arrays[0].data_type().clone());
    let field = Field::new_list_field(arrays[0].data_type().clone(), true);
    let mut lists = ListBuilder::new(values).with_field(field);
    let mut count = 0;
    for row in 0..arrays[0].len() {
        if firsts.is_null(row) || lasts.is_null(row) || steps.is_null(row) {
            lists.append(false);
            continue;
        }
        let (last, step): (i64, IntervalMonthDayNano) = (lasts.value(row), steps.value(row));
        let is_up = match order_micros(step) {
            0 => return Err(no_step()),
            micros => micros > 0,
        };
        let mut next = Some(firsts.value(row));
        while let Some(value) = next.filter(|value| if is_up { *value <= last } else { *value >= last }) {
            count += 1;
            if count > ELEMENTS_MAX {
                return Err(too_many());
            }
            lists.values().append_value(value);
            next = TimestampMicrosecondType::add_month_day_nano(value, step, utc);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

/// Length of the array in a row; none of NULL.
fn length(array: &ArrayRef, row: usize) -> Option<usize> {
    let lists = array.as_list_opt::<i32>()?;
    lists.is_valid(row).then(|| usize::try_from(lists.value_length(row)).unwrap_or(0))
}

fn subscripts(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let (lowers, arrays) = (arrays[0].as_primitive::<Int64Type>(), &arrays[1..]);
    let mut values = Vec::new();
    let mut lengths = Vec::with_capacity(lowers.len());
    for row in 0..lowers.len() {
        let longest = arrays.iter().filter_map(|array| length(array, row)).max().unwrap_or(0);
        let lower = i32::try_from(lowers.value(row)).unwrap_or(1);
        values.extend((lower..).take(longest));
        lengths.push(longest);
    }
    let item = Arc::new(Field::new_list_field(DataType::Int32, true));
    let values: ArrayRef = Arc::new(Int32Array::from(values));
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), values, None)?))
}

fn expanded_fields(list: &DataType) -> Fields {
    let element = match list {
        DataType::List(item) => item.data_type().clone(),
        _ => DataType::Int16,
    };
    Fields::from(vec![Field::new("x", element, true), Field::new("n", DataType::Int32, true)])
}

fn expanded(array: &ArrayRef) -> Result<ArrayRef> {
    let fields = expanded_fields(array.data_type());
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true));
    let Some(lists) = array.as_list_opt::<i32>() else {
        return Ok(arrow::array::new_null_array(&DataType::List(item), array.len()));
    };
    let (mut places, mut lengths, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..lists.len() {
        let count = length(array, row).unwrap_or(0);
        places.extend((1..).take(count));
        lengths.push(count);
        if count > 0 {
            parts.push(lists.value(row));
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let elements = match parts.is_empty() {
        true => lists.values().slice(0, 0),
        false => arrow::compute::concat(&parts)?,
    };
    let places: PrimitiveArray<_> = Int32Array::from(places);
    let rows = StructArray::try_new(fields, vec![elements, Arc::new(places)], None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(rows), None)?))
}
