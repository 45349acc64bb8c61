//! Columns of a batch on their way into rows: the values of each array, as rows and keys have them.

use arrow::array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, StringViewArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit};
use strata_oltp::key::push;
use strata_oltp::row::{RowBuilder, RowCodec, Slot, Value, ValueKind, list};
use strata_oltp::{Error, Result, TableSchema};

use crate::segment::spans;

/// A column being encoded.
pub(super) struct Source<'a> {
    slot: Slot,
    pub(super) nulls: Option<&'a NullBuffer>,
    pub(super) values: Column<'a>,
}

/// The values of one array.
pub(super) enum Column<'a> {
    Missing,
    Boolean(&'a BooleanArray),
    Two(&'a [i16]),
    Four(&'a [i32]),
    Eight(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal(&'a [i128]),
    Uuid(&'a FixedSizeBinaryArray),
    Interval(&'a [IntervalMonthDayNano]),
    Text(&'a StringViewArray),
    Binary(&'a BinaryViewArray),
    List(Box<Lists<'a>>),
}

/// A column of lists: where each begins and ends among the elements of all.
pub(super) struct Lists<'a> {
    kind: ValueKind,
    offsets: &'a OffsetBuffer<i32>,
    nulls: Option<&'a NullBuffer>,
    elements: Column<'a>,
}

/// The columns of `schema` in `columns`; a missing one is NULL in every row.
pub(super) fn sources<'a>(
    schema: &TableSchema,
    codec: &RowCodec,
    columns: &'a [Option<ArrayRef>],
) -> Result<Vec<Source<'a>>> {
    if columns.len() < schema.columns.len() {
        let (found, expected) = (columns.len(), schema.columns.len());
        return Err(Error::Invalid(format!("a batch of {expected} columns was given {found}")));
    }
    let pairs = schema.columns.iter().zip(columns).enumerate();
    pairs.map(|(position, (column, array))| source(codec.slot(position), &column.field, array.as_ref())).collect()
}

fn source<'a>(slot: Slot, field: &Field, array: Option<&'a ArrayRef>) -> Result<Source<'a>> {
    let refused = |found: &str| {
        let (name, expected) = (field.name(), field.data_type());
        Error::Invalid(format!("column \"{name}\" holds {expected}, not {found}"))
    };
    let Some(array) = array else {
        if slot.is_nullable() {
            return Ok(Source { slot, nulls: None, values: Column::Missing });
        }
        return Err(refused("nothing"));
    };
    if array.data_type() != field.data_type() {
        return Err(refused(&array.data_type().to_string()));
    }
    if array.null_count() > 0 && !slot.is_nullable() {
        return Err(Error::Invalid(format!("null value in column \"{}\", which is not nullable", field.name())));
    }
    let values = column(array).ok_or_else(|| refused(&array.data_type().to_string()))?;
    Ok(Source { slot, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), values })
}

/// The values of `array`; `None` if they cannot be stored.
fn column(array: &ArrayRef) -> Option<Column<'_>> {
    Some(match array.data_type() {
        DataType::Boolean => Column::Boolean(array.as_boolean()),
        DataType::Int16 => Column::Two(array.as_primitive::<Int16Type>().values()),
        DataType::Int32 => Column::Four(array.as_primitive::<Int32Type>().values()),
        DataType::Date32 => Column::Four(array.as_primitive::<Date32Type>().values()),
        DataType::Int64 => Column::Eight(array.as_primitive::<Int64Type>().values()),
        DataType::Time64(_) => Column::Eight(array.as_primitive::<Time64MicrosecondType>().values()),
        DataType::Timestamp(_, _) => Column::Eight(array.as_primitive::<TimestampMicrosecondType>().values()),
        DataType::Float32 => Column::Float32(array.as_primitive::<Float32Type>().values()),
        DataType::Float64 => Column::Float64(array.as_primitive::<Float64Type>().values()),
        DataType::Decimal128(_, _) => Column::Decimal(array.as_primitive::<Decimal128Type>().values()),
        DataType::FixedSizeBinary(_) => Column::Uuid(array.as_fixed_size_binary()),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Column::Interval(array.as_primitive::<IntervalMonthDayNanoType>().values())
        }
        DataType::Utf8View => Column::Text(array.as_string_view()),
        DataType::BinaryView => Column::Binary(array.as_binary_view()),
        DataType::List(item) => {
            let lists = array.as_list::<i32>();
            Column::List(Box::new(Lists {
                kind: ValueKind::of(item.data_type())?,
                offsets: lists.offsets(),
                nulls: lists.values().nulls(),
                elements: column(lists.values())?,
            }))
        }
        _ => return None,
    })
}

/// Appends the row at `row` to `out`.
pub(super) fn write_row(codec: &RowCodec, sources: &[Source<'_>], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut builder = codec.begin(out);
    for source in sources {
        if source.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            builder.null(source.slot);
        } else {
            source.values.write(row, source.slot, &mut builder)?;
        }
    }
    builder.finish().map(|_| ())
}

impl Column<'_> {
    #[inline]
    fn write(&self, row: usize, slot: Slot, out: &mut RowBuilder<'_>) -> Result<()> {
        match self {
            Column::Missing => out.null(slot),
            Column::Boolean(values) => out.fixed(slot, [u8::from(values.value(row))]),
            Column::Two(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Four(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Eight(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Float32(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Float64(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Decimal(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Uuid(values) => out.fixed(slot, uuid(values, row)),
            Column::Interval(values) => out.fixed(slot, spans::of_arrow(values[row]).to_le_bytes()),
            Column::Text(values) => out.variable(values.value(row).as_bytes()),
            Column::Binary(values) => out.variable(values.value(row)),
            Column::List(lists) => out.variable(&lists.encoded(row)?),
        }
        Ok(())
    }

    /// The value at `row`, of kind `kind`.
    fn value(&self, row: usize, kind: ValueKind) -> Value<'_> {
        match self {
            Column::Missing | Column::List(_) => Value::Null,
            Column::Interval(values) => Value::Interval(spans::of_arrow(values[row])),
            Column::Boolean(values) => Value::Boolean(values.value(row)),
            Column::Two(values) => Value::Int16(values[row]),
            Column::Four(values) if kind == ValueKind::Date32 => Value::Date32(values[row]),
            Column::Four(values) => Value::Int32(values[row]),
            Column::Eight(values) if kind == ValueKind::Time64 => Value::Time64(values[row]),
            Column::Eight(values) if kind == ValueKind::Timestamp => Value::Timestamp(values[row]),
            Column::Eight(values) => Value::Int64(values[row]),
            Column::Float32(values) => Value::Float32(values[row]),
            Column::Float64(values) => Value::Float64(values[row]),
            Column::Decimal(values) => Value::Decimal128(values[row]),
            Column::Uuid(values) => Value::Uuid(uuid(values, row)),
            Column::Text(values) => Value::Text(values.value(row)),
            Column::Binary(values) => Value::Binary(values.value(row)),
        }
    }

    #[inline]
    pub(super) fn push_key(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Column::Missing => unreachable!("key columns are never NULL"),
            Column::Boolean(values) => push::push_bool(out, values.value(row)),
            Column::Two(values) => push::push_i16(out, values[row]),
            Column::Four(values) => push::push_i32(out, values[row]),
            Column::Eight(values) => push::push_i64(out, values[row]),
            Column::Float32(values) => push::push_f32(out, values[row]),
            Column::Float64(values) => push::push_f64(out, values[row]),
            Column::Decimal(values) => push::push_i128(out, values[row]),
            Column::Uuid(values) => push::push_uuid(out, &uuid(values, row)),
            Column::Text(values) => push::push_bytes(out, values.value(row).as_bytes()),
            Column::Binary(values) => push::push_bytes(out, values.value(row)),
            Column::List(_) | Column::Interval(_) => unreachable!("TableSchema::new refuses them as keys"),
        }
    }
}

impl Column<'_> {
    /// NULL in the key of an index: zero or empty, whatever the array holds in its place, so that the same row always has
    /// the same key. Primary keys have none.
    #[cold]
    pub(super) fn push_null_key(&self, out: &mut Vec<u8>) {
        match self {
            Column::Missing => unreachable!("key columns are never missing"),
            Column::Boolean(_) => push::push_bool(out, false),
            Column::Two(_) => push::push_i16(out, 0),
            Column::Four(_) => push::push_i32(out, 0),
            Column::Eight(_) => push::push_i64(out, 0),
            Column::Float32(_) => push::push_f32(out, 0.0),
            Column::Float64(_) => push::push_f64(out, 0.0),
            Column::Decimal(_) => push::push_i128(out, 0),
            Column::Uuid(_) => push::push_uuid(out, &[0; 16]),
            Column::Text(_) | Column::Binary(_) => push::push_bytes(out, &[]),
            Column::List(_) | Column::Interval(_) => unreachable!("TableSchema::new refuses them as keys"),
        }
    }
}

impl Lists<'_> {
    fn encoded(&self, row: usize) -> Result<Vec<u8>> {
        let elements = self.offsets[row] as usize..self.offsets[row + 1] as usize;
        let value = |at: usize| match self.nulls {
            Some(nulls) if nulls.is_null(at) => Value::Null,
            _ => self.elements.value(at, self.kind),
        };
        let values: Vec<Value<'_>> = elements.map(value).collect();
        let mut out = Vec::new();
        list::encode(self.kind, &values, &mut out)?;
        Ok(out)
    }
}

fn uuid(values: &FixedSizeBinaryArray, row: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(values.value(row));
    bytes
}
