//! `Cell`: a value in one notation for both engines, so that rows can be compared as text.
//!
//! SQLite has no booleans and no dates: a condition is the integer 1 or 0, a date the text of its day. Numbers are compared
//! to nine significant digits, because an average is a decimal to one engine and a double to the other.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use rusqlite::types::ValueRef;

/// One value, comparable.
pub type Cell = String;

/// One row of a result.
pub type Row = Vec<Cell>;

/// The rows of Strata's batches.
///
/// # Errors
/// A type that has no notation here.
pub fn rows_of_batches(batches: &[RecordBatch]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Result<Vec<Vec<Cell>>, String> = batch.columns().iter().map(cells_of_column).collect();
        let columns = columns?;
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect::<Row>()));
    }
    Ok(rows)
}

fn cells_of_column(column: &ArrayRef) -> Result<Vec<Cell>, String> {
    let kind = column.data_type();
    let to = |target: &DataType| cast(column, target).map_err(|error| error.to_string());
    let null = || "NULL".to_owned();
    if kind.is_integer() || matches!(kind, DataType::Boolean | DataType::Null) {
        let integers = to(&DataType::Int64)?;
        return Ok(integers
            .as_primitive::<Int64Type>()
            .iter()
            .map(|v| v.map_or_else(null, |v| v.to_string()))
            .collect());
    }
    if kind.is_floating() || kind.is_decimal() {
        let reals = to(&DataType::Float64)?;
        return Ok(reals.as_primitive::<Float64Type>().iter().map(|v| v.map_or_else(null, number)).collect());
    }
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32 => {
            let texts = to(&DataType::Utf8)?;
            Ok(texts.as_string::<i32>().iter().map(|v| v.map_or_else(null, text)).collect())
        }
        other => Err(format!("a column of type {other}")),
    }
}

/// A value of SQLite's.
pub fn cell_of_value(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(real) => number(real),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => text(&String::from_utf8_lossy(bytes)),
    }
}

fn text(text: &str) -> Cell {
    format!("'{text}'")
}

/// Whole numbers look alike, be they integers or not.
fn number(value: f64) -> Cell {
    let rounded: f64 = format!("{value:.8e}").parse().unwrap_or(value);
    if rounded == 0.0 { "0".to_owned() } else { rounded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, Float64Array};
    use std::sync::Arc;

    #[test]
    fn equal_values_look_alike() {
        let column = |array: ArrayRef| cells_of_column(&array).unwrap();
        assert_eq!(column(Arc::new(BooleanArray::from(vec![Some(true), None]))), ["1", "NULL"]);
        assert_eq!(column(Arc::new(Date32Array::from(vec![-1]))), [cell_of_value(ValueRef::Text(b"1969-12-31"))]);
        let decimals = Decimal128Array::from(vec![250, 300]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(column(Arc::new(decimals)), ["2.5", "3"]);
        assert_eq!(column(Arc::new(Float64Array::from(vec![-0.0, 1.0 / 3.0]))), ["0", "0.333333333"]);
        assert_eq!(cell_of_value(ValueRef::Real(3.0)), "3");
        assert_eq!(cell_of_value(ValueRef::Integer(3)), "3");
        assert_ne!(cell_of_value(ValueRef::Text(b"NULL")), cell_of_value(ValueRef::Null));
    }
}
