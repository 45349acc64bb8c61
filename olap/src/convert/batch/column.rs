//! Columns of a batch under construction: values out of encoded rows, one builder per column.
//!
//! Always true: a NULL leaves zero or nothing in its place, so equal rows give equal arrays.

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{
    ArrayRef, BinaryViewBuilder, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray, ListArray,
    NullBufferBuilder, PrimitiveArray, StringViewBuilder, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano};
use strata_oltp::row::list::ListRef;
use strata_oltp::row::{Interval, RowCodec, RowRef, Slot, Value, ValueKind};
use strata_oltp::{Error, Result, TableSchema};

use super::FEW_TEXT_BLOCK_BYTES;
use crate::error;
use crate::segment::spans;

/// One column of a batch: where it lies in a row, and the values taken so far.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    slot: Slot,
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Two(Vec<i16>),
    Four(Vec<i32>),
    Eight(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Uuid(Vec<u8>),
    Interval(Vec<IntervalMonthDayNano>),
    Text(StringViewBuilder),
    Binary(BinaryViewBuilder),
    List(Box<ListBuilder>),
}

/// Lists of one column, and all their elements as another.
#[derive(Debug)]
struct ListBuilder {
    kind: ValueKind,
    item: FieldRef,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
    values: Values,
}

impl ColumnBuilder {
    pub(super) fn new(slot: Slot, field: &Field, text_block_bytes: u32) -> ColumnBuilder {
        let values = Values::new(slot.kind(), field.data_type(), text_block_bytes);
        ColumnBuilder { slot, data_type: field.data_type().clone(), nulls: NullBufferBuilder::new(0), values }
    }

    #[inline]
    pub(super) fn push(&mut self, row: &RowRef<'_>) -> Result<()> {
        let slot = self.slot;
        let is_null = slot.is_nullable() && row.is_null_at(slot);
        // A NULL reads as zero or empty, which is what its slot in the array holds as well.
        match &mut self.values {
            Values::Boolean(values) => values.append(row.fixed_at::<1>(slot)[0] != 0),
            Values::Two(values) => values.push(i16::from_le_bytes(row.fixed_at(slot))),
            Values::Four(values) => values.push(i32::from_le_bytes(row.fixed_at(slot))),
            Values::Eight(values) => values.push(i64::from_le_bytes(row.fixed_at(slot))),
            Values::Float32(values) => values.push(f32::from_le_bytes(row.fixed_at(slot))),
            Values::Float64(values) => values.push(f64::from_le_bytes(row.fixed_at(slot))),
            Values::Decimal(values) => values.push(i128::from_le_bytes(row.fixed_at(slot))),
            Values::Uuid(values) => values.extend_from_slice(&row.fixed_at::<16>(slot)),
            Values::Interval(values) => {
                values.push(spans::to_arrow(Interval::from_le_bytes(row.fixed_at::<16>(slot)))?);
            }
            Values::Text(values) if is_null => values.append_null(),
            Values::Text(values) => values.append_value(row.text_at(slot)?),
            Values::Binary(values) if is_null => values.append_null(),
            Values::Binary(values) => values.append_value(row.variable_at(slot)),
            Values::List(lists) => lists.push((!is_null).then(|| row.variable_at(slot)))?,
        }
        if slot.is_nullable() {
            self.nulls.append(!is_null);
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef, arrow::error::ArrowError> {
        let nulls = self.nulls.finish();
        self.values.finish(&self.data_type, nulls)
    }
}

impl Values {
    fn new(kind: ValueKind, data_type: &DataType, text_block_bytes: u32) -> Values {
        match kind {
            ValueKind::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            ValueKind::Int16 => Values::Two(Vec::new()),
            ValueKind::Int32 | ValueKind::Date32 => Values::Four(Vec::new()),
            ValueKind::Int64 | ValueKind::Time64 | ValueKind::Timestamp => Values::Eight(Vec::new()),
            ValueKind::Float32 => Values::Float32(Vec::new()),
            ValueKind::Float64 => Values::Float64(Vec::new()),
            ValueKind::Decimal128 => Values::Decimal(Vec::new()),
            ValueKind::Uuid => Values::Uuid(Vec::new()),
            ValueKind::Interval => Values::Interval(Vec::new()),
            ValueKind::Text => Values::Text(StringViewBuilder::new().with_fixed_block_size(text_block_bytes)),
            ValueKind::Binary => Values::Binary(BinaryViewBuilder::new().with_fixed_block_size(text_block_bytes)),
            ValueKind::List => {
                let DataType::List(item) = data_type else { unreachable!("a list is of type List") };
                let kind = ValueKind::of(item.data_type()).expect("TableSchema::new refuses what cannot be stored");
                Values::List(Box::new(ListBuilder {
                    values: Values::new(kind, item.data_type(), text_block_bytes),
                    item: Arc::clone(item),
                    kind,
                    offsets: vec![0],
                    nulls: NullBufferBuilder::new(0),
                }))
            }
        }
    }

    /// Appends an element of a list; NULL as zero or empty.
    fn push_value(&mut self, value: Value<'_>) {
        match (self, value) {
            (Values::Boolean(values), Value::Boolean(v)) => values.append(v),
            (Values::Boolean(values), _) => values.append(false),
            (Values::Two(values), Value::Int16(v)) => values.push(v),
            (Values::Two(values), _) => values.push(0),
            (Values::Four(values), Value::Int32(v) | Value::Date32(v)) => values.push(v),
            (Values::Four(values), _) => values.push(0),
            (Values::Eight(values), Value::Int64(v) | Value::Time64(v) | Value::Timestamp(v)) => values.push(v),
            (Values::Eight(values), _) => values.push(0),
            (Values::Float32(values), Value::Float32(v)) => values.push(v),
            (Values::Float32(values), _) => values.push(0.0),
            (Values::Float64(values), Value::Float64(v)) => values.push(v),
            (Values::Float64(values), _) => values.push(0.0),
            (Values::Decimal(values), Value::Decimal128(v)) => values.push(v),
            (Values::Decimal(values), _) => values.push(0),
            (Values::Uuid(values), Value::Uuid(v)) => values.extend_from_slice(&v),
            (Values::Uuid(values), _) => values.extend_from_slice(&[0; 16]),
            (Values::Text(values), Value::Text(v)) => values.append_value(v),
            (Values::Text(values), _) => values.append_null(),
            (Values::Binary(values), Value::Binary(v)) => values.append_value(v),
            (Values::Binary(values), _) => values.append_null(),
            (Values::List(_) | Values::Interval(_), _) => {
                unreachable!("TableSchema::new refuses lists of lists and of intervals")
            }
        }
    }

    fn finish(
        &mut self,
        data_type: &DataType,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, arrow::error::ArrowError> {
        Ok(match self {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Two(values) => numbers::<Int16Type>(values, nulls, data_type),
            Values::Four(values) => match data_type {
                DataType::Date32 => numbers::<Date32Type>(values, nulls, data_type),
                _ => numbers::<Int32Type>(values, nulls, data_type),
            },
            Values::Eight(values) => match data_type {
                DataType::Time64(_) => numbers::<Time64MicrosecondType>(values, nulls, data_type),
                DataType::Timestamp(_, _) => numbers::<TimestampMicrosecondType>(values, nulls, data_type),
                _ => numbers::<Int64Type>(values, nulls, data_type),
            },
            Values::Float32(values) => numbers::<Float32Type>(values, nulls, data_type),
            Values::Float64(values) => numbers::<Float64Type>(values, nulls, data_type),
            Values::Decimal(values) => numbers::<Decimal128Type>(values, nulls, data_type),
            Values::Uuid(values) => {
                let bytes = Buffer::from_vec(std::mem::take(values));
                Arc::new(FixedSizeBinaryArray::try_new(16, bytes, nulls)?)
            }
            Values::Interval(values) => numbers::<IntervalMonthDayNanoType>(values, nulls, data_type),
            Values::Text(values) => Arc::new(values.finish()),
            Values::Binary(values) => Arc::new(values.finish()),
            Values::List(lists) => lists.finish(nulls)?,
        })
    }
}

impl ListBuilder {
    fn push(&mut self, list: Option<&[u8]>) -> Result<()> {
        if let Some(bytes) = list {
            let list = ListRef::new(self.kind, bytes)?;
            for at in 0..list.len() {
                let value = list.get(at)?;
                self.nulls.append(!value.is_null());
                self.values.push_value(value);
            }
        }
        let end = i32::try_from(self.nulls.len());
        // More elements than offsets can count would be over 2 GiB of rows in one batch.
        self.offsets.push(end.map_err(|_| Error::Invalid("a batch has too many elements of lists".to_owned()))?);
        Ok(())
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, arrow::error::ArrowError> {
        let elements = self.values.finish(self.item.data_type(), self.nulls.finish())?;
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.offsets, vec![0]).into());
        Ok(Arc::new(ListArray::try_new(Arc::clone(&self.item), offsets, elements, nulls)?))
    }
}

fn numbers<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    let capacity = values.len();
    let values = std::mem::replace(values, Vec::with_capacity(capacity));
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(data_type.clone()))
}

/// What the column at `position` is in rows older than it, as an array of one value.
///
/// # Errors
/// None for a schema that was built or decoded, because its values were checked.
pub(crate) fn missing_value(schema: &TableSchema, position: usize) -> Result<ArrayRef> {
    let field = &schema.columns[position].field;
    let Some(row) = schema.missing_row(position) else { return Ok(new_null_array(field.data_type(), 1)) };
    let kind = ValueKind::of(field.data_type()).expect("TableSchema::new refuses types that are not storable");
    let codec = RowCodec::of_value(kind);
    let mut column = ColumnBuilder::new(codec.slot(0), field, FEW_TEXT_BLOCK_BYTES);
    column.push(&RowRef::new(&codec, row)?)?;
    column.finish().map_err(|e| error::invalid(&e))
}
