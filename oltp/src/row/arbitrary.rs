//! Random schemas and values for the property tests of the codecs.

use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Interval, OwnedValue, Value, ValueKind};
use crate::schema::{Column, ColumnId, TableId, TableSchema, is_key_type};

/// A storable type of every kind, with the parameters that types have.
pub(crate) fn any_type() -> impl Strategy<Value = DataType> {
    let items = vec![DataType::Int32, DataType::Boolean, DataType::Utf8View, DataType::FixedSizeBinary(16)];
    prop_oneof![
        8 => any_key_type(),
        1 => select(items).prop_map(|item| DataType::new_list(item, true)),
        1 => Just(DataType::Interval(IntervalUnit::MonthDayNano)),
    ]
}

/// A type of every kind that keys hold.
pub(crate) fn any_key_type() -> impl Strategy<Value = DataType> {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into()));
    prop_oneof![
        select(vec![
            DataType::Boolean,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::Float32,
            DataType::Float64,
            DataType::Utf8View,
            DataType::BinaryView,
            DataType::Date32,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            zoned,
            DataType::FixedSizeBinary(16),
        ]),
        (1..=38_u8).prop_flat_map(|p| (Just(p), 0..=p as i8)).prop_map(|(p, s)| DataType::Decimal128(p, s)),
    ]
}

/// A value of `kind`, never NULL; small and special ones are frequent, so that values collide and touch limits.
pub(crate) fn any_value(kind: ValueKind) -> BoxedStrategy<OwnedValue> {
    match kind {
        ValueKind::Boolean => any::<bool>().prop_map(OwnedValue::Boolean).boxed(),
        ValueKind::Int16 => any_i64().prop_map(|v| OwnedValue::Int16(v as i16)).boxed(),
        ValueKind::Int32 => any_i64().prop_map(|v| OwnedValue::Int32(v as i32)).boxed(),
        ValueKind::Int64 => any_i64().prop_map(OwnedValue::Int64).boxed(),
        ValueKind::Float32 => any_f64().prop_map(|v| OwnedValue::Float32(v as f32)).boxed(),
        ValueKind::Float64 => any_f64().prop_map(OwnedValue::Float64).boxed(),
        ValueKind::Decimal128 => {
            prop_oneof![any::<i128>(), any_i64().prop_map(i128::from)].prop_map(OwnedValue::Decimal128).boxed()
        }
        ValueKind::Text => prop_oneof![
            vec(select(vec!['\0', '\u{1}', 'a', 'b', 'ÿ', '鳥', '\u{10FFFF}']), 0..4)
                .prop_map(|chars| chars.into_iter().collect::<String>()),
            ".{0,12}",
        ]
        .prop_map(OwnedValue::Text)
        .boxed(),
        ValueKind::Binary => prop_oneof![vec(select(vec![0, 1, 0xFE, 0xFF]), 0..5), vec(any::<u8>(), 0..20)]
            .prop_map(OwnedValue::Binary)
            .boxed(),
        ValueKind::Date32 => any_i64().prop_map(|v| OwnedValue::Date32(v as i32)).boxed(),
        ValueKind::Time64 => any_i64().prop_map(OwnedValue::Time64).boxed(),
        ValueKind::Timestamp => any_i64().prop_map(OwnedValue::Timestamp).boxed(),
        ValueKind::Uuid => any::<[u8; 16]>().prop_map(OwnedValue::Uuid).boxed(),
        ValueKind::Interval => (any_i64(), any_i64(), any_i64())
            .prop_map(|(months, days, micros)| {
                OwnedValue::Interval(Interval { months: months as i32, days: days as i32, micros })
            })
            .boxed(),
        // What is in a list is checked by those who read it as one.
        ValueKind::List => vec(any::<u8>(), 0..20).prop_map(OwnedValue::List).boxed(),
    }
}

fn any_i64() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -3..=3_i64, select(vec![i64::MIN, i64::MAX, 1 << 31, -(1 << 31), 1 << 15, 255, 256])]
}

fn any_f64() -> impl Strategy<Value = f64> {
    let special = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, 1.0, -1.0, 5e-324, -5e-324];
    prop_oneof![any::<u64>().prop_map(f64::from_bits), select(special), -4.0..4.0]
}

/// A value for a column: NULL now and then if it is nullable.
fn any_cell(column: &Column) -> BoxedStrategy<OwnedValue> {
    let value = any_value(ValueKind::of(column.field.data_type()).unwrap());
    if column.field.is_nullable() { prop_oneof![3 => value, 1 => Just(OwnedValue::Null)].boxed() } else { value }
}

/// A schema of one to twenty columns whose key is one to three of those that are not nullable.
pub(crate) fn any_schema() -> impl Strategy<Value = TableSchema> {
    let column = (any_type(), any::<bool>(), any::<u32>(), "[a-zé_]{0,8}");
    (0..u32::MAX, any::<u16>(), vec(column, 1..20), 1..4_usize).prop_map(|(table, version, mut columns, key_count)| {
        if !is_key_type(&columns[0].0) {
            columns[0].0 = DataType::Int64;
        }
        columns[0].1 = false;
        let is_key = |column: &usize| !columns[*column].1 && is_key_type(&columns[*column].0);
        let primary_key = (0..columns.len()).filter(is_key).rev().take(key_count).collect();
        let columns = columns.into_iter().enumerate().map(|(at, (data_type, is_nullable, id, name))| Column {
            id: ColumnId(id.wrapping_mul(32).wrapping_add(at as u32)),
            field: Field::new(format!("{name}{at}"), data_type, is_nullable),
        });
        TableSchema::new(TableId(table), version, columns.collect(), primary_key).unwrap()
    })
}

/// A schema and `row_count` rows of it.
pub(crate) fn any_rows(row_count: usize) -> impl Strategy<Value = (TableSchema, Vec<Vec<OwnedValue>>)> {
    any_schema().prop_flat_map(move |schema| {
        let row: Vec<_> = schema.columns.iter().map(any_cell).collect();
        (Just(schema), vec(row, row_count))
    })
}

/// The values, borrowed.
pub(crate) fn borrowed(row: &[OwnedValue]) -> Vec<Value<'_>> {
    row.iter().map(OwnedValue::as_value).collect()
}

/// Equal to the bit, unlike `==`: NaN equals itself and -0 differs from 0.
pub(crate) fn is_same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Float32(a), Value::Float32(b)) => a.to_bits() == b.to_bits(),
        (Value::Float64(a), Value::Float64(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

/// The bytes of the worked example of a FORMAT.md: its `hex` block without what follows a semicolon.
pub(crate) fn example_bytes(format: &str) -> Vec<u8> {
    let (_, block) = format.split_once("```hex\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let digits = block.lines().flat_map(|line| line.split(';').next().unwrap().split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
