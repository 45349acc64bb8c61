//! What the fuzz targets share: a table shape drawn from the first bytes of the input.

use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use strata_oltp::schema::{Column, ColumnId, TableId, TableSchema};

/// A schema of up to seven columns and the rest of the input. The first byte says how many columns follow the key, one
/// byte each: type in the low bits, nullable in the highest.
pub fn schema_and_rest(input: &[u8]) -> Option<(TableSchema, &[u8])> {
    let (&count, rest) = input.split_first()?;
    let (shape, rest) = rest.split_at_checked(usize::from(count % 7))?;
    // Neither lists nor intervals are keys.
    let key = Field::new("id", data_type(count / 7 % 14), false);
    let others = shape.iter().map(|byte| Field::new(format!("c{byte}"), data_type(byte & 0x7F), byte >> 7 == 1));
    let columns = [key].into_iter().chain(others).zip(0..).map(|(field, id)| Column {
        id: ColumnId(id),
        field: field.clone().with_name(format!("{}_{id}", field.name())),
    });
    Some((TableSchema::new(TableId(7), 1, columns.collect(), vec![0]).expect("a legal shape"), rest))
}

fn data_type(byte: u8) -> DataType {
    match byte % 18 {
        0 => DataType::Boolean,
        1 => DataType::Int16,
        2 => DataType::Int32,
        3 => DataType::Int64,
        4 => DataType::Float32,
        5 => DataType::Float64,
        6 => DataType::Decimal128(20, 4),
        7 => DataType::Date32,
        8 => DataType::Time64(TimeUnit::Microsecond),
        9 => DataType::Timestamp(TimeUnit::Microsecond, None),
        10 => DataType::FixedSizeBinary(16),
        11 => DataType::BinaryView,
        14 => DataType::Interval(IntervalUnit::MonthDayNano),
        15 => DataType::new_list(DataType::Int32, true),
        16 => DataType::new_list(DataType::Boolean, true),
        17 => DataType::new_list(DataType::Utf8View, true),
        _ => DataType::Utf8View,
    }
}
