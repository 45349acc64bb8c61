//! Results as the corpus writes them, and whether they are the expected ones.
//!
//! The type letters of a query say how its values are printed, whatever their own type is: `I` as `printf("%d")` of the
//! value made an integer as SQLite does (fractions cut off, text read as far as it is a number), `R` as `%.3f`, `T` as
//! text. Conditions are integers to SQLite, so true is `1`.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::md5;
use super::script::Sort;

/// How a result compares with the expected one.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Right,
    /// The same rows in another order, of a query whose order counts.
    OtherOrder,
    /// What was found, in the order it is compared in.
    Wrong(Vec<String>),
}

/// The rows as the corpus prints them.
///
/// # Errors
/// Another number of columns, or values of types that the corpus does not have.
pub fn rows(batches: &[RecordBatch], types: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        if batch.num_columns() != types.len() {
            return Err(format!("{} columns instead of {}", batch.num_columns(), types.len()));
        }
        let columns: Result<Vec<Vec<String>>, ArrowError> =
            batch.columns().iter().zip(types.chars()).map(|(column, letter)| texts(column, letter)).collect();
        let columns = columns.map_err(|error| error.to_string())?;
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    }
    Ok(rows)
}

/// The values of a column under a type letter.
fn texts(column: &ArrayRef, letter: char) -> Result<Vec<String>, ArrowError> {
    let is_text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_real = column.data_type().is_floating() || column.data_type().is_decimal();
    let is_number = is_real || column.data_type().is_integer() || column.data_type() == &DataType::Boolean;
    let null = || "NULL".to_owned();
    // A decimal of many places would not survive becoming a double.
    let is_text = is_text || letter == 'I' && column.data_type().is_decimal();
    if is_text || !(is_number || column.data_type() == &DataType::Null) {
        let strings = cast(column, &DataType::Utf8)?;
        let text = |text: &str| match letter {
            'I' => leading_number(text, false),
            'R' => format!("{:.3}", leading_number(text, true).parse::<f64>().unwrap_or(0.0)),
            _ => printable(text),
        };
        return Ok(strings.as_string::<i32>().iter().map(|value| value.map_or_else(null, text)).collect());
    }
    if is_real || letter == 'R' {
        let reals = cast(column, &DataType::Float64)?;
        let text = |value: f64| match letter {
            'I' => (value as i64).to_string(),
            'R' => format!("{value:.3}"),
            _ => real_text(value),
        };
        return Ok(reals.as_primitive::<Float64Type>().iter().map(|value| value.map_or_else(null, text)).collect());
    }
    let integers = cast(column, &DataType::Int64)?;
    let integers = integers.as_primitive::<Int64Type>().iter();
    Ok(integers.map(|value| value.map_or_else(null, |value| value.to_string())).collect())
}

/// The number that `text` begins with; 0 if it begins otherwise.
fn leading_number(text: &str, fraction: bool) -> String {
    let text = text.trim_start();
    let is_part = |(at, c): &(usize, char)| c.is_ascii_digit() || (*at == 0 && *c == '-') || (fraction && *c == '.');
    let number: String = text.char_indices().take_while(is_part).map(|(_, c)| c).collect();
    if number.parse::<f64>().is_ok() { number } else { "0".to_owned() }
}

/// SQLite's `%!.15g`.
fn real_text(value: f64) -> String {
    let rounded: f64 = format!("{value:.14e}").parse().unwrap_or(value);
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { format!("{rounded:.1}") } else { rounded.to_string() }
}

fn printable(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '@' }).collect()
}

/// Compares `rows` with the lines that the corpus expects.
pub fn compare(expected: &[&str], rows: Vec<Vec<String>>, sort: Sort) -> Verdict {
    let found = arranged(rows, sort);
    if agrees(expected, &found) {
        return Verdict::Right;
    }
    let is_hashed = matches!(expected, [line] if line.contains(" values hashing to "));
    if sort == Sort::Nothing && !is_hashed {
        let mut found_values = found.clone();
        let mut expected_values: Vec<String> = expected.iter().map(ToString::to_string).collect();
        found_values.sort_unstable();
        expected_values.sort_unstable();
        if found_values == expected_values {
            return Verdict::OtherOrder;
        }
    }
    Verdict::Wrong(found)
}

/// All values in the order in which they are compared: by the bytes of their texts where they are sorted.
fn arranged(mut rows: Vec<Vec<String>>, sort: Sort) -> Vec<String> {
    if sort == Sort::Rows {
        rows.sort_unstable();
    }
    let mut values: Vec<String> = rows.into_iter().flatten().collect();
    if sort == Sort::Values {
        values.sort_unstable();
    }
    values
}

fn agrees(expected: &[&str], found: &[String]) -> bool {
    if let [line] = expected
        && let Some((count, digest)) = line.split_once(" values hashing to ")
    {
        let mut bytes = Vec::new();
        for value in found {
            bytes.extend(value.as_bytes());
            bytes.push(b'\n');
        }
        return count.parse() == Ok(found.len()) && md5::hex_digest(&bytes) == digest;
    }
    expected.len() == found.len() && expected.iter().zip(found).all(|(expected, found)| expected == found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn text(column: &ArrayRef, letter: char) -> Vec<String> {
        texts(column, letter).unwrap()
    }

    #[test]
    fn values_are_printed_as_the_letters_say() {
        let reals: ArrayRef = Arc::new(Float64Array::from(vec![Some(-2.75), None, Some(3.0)]));
        assert_eq!(text(&reals, 'I'), ["-2", "NULL", "3"]);
        assert_eq!(text(&reals, 'R'), ["-2.750", "NULL", "3.000"]);
        assert_eq!(text(&reals, 'T'), ["-2.75", "NULL", "3.0"]);
        let decimals = Decimal128Array::from(vec![12_345]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(text(&(Arc::new(decimals) as ArrayRef), 'I'), ["123"]);
        assert_eq!(text(&(Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef), 'I'), ["1", "0"]);
        assert_eq!(text(&(Arc::new(Int64Array::from(vec![7])) as ArrayRef), 'R'), ["7.000"]);
        let strings: ArrayRef = Arc::new(StringArray::from(vec!["", "a\tb", "12x", "-3.5"]));
        assert_eq!(text(&strings, 'T'), ["(empty)", "a@b", "12x", "-3.5"]);
        assert_eq!(text(&strings, 'I'), ["0", "0", "12", "-3"]);
        assert_eq!(text(&strings, 'R'), ["0.000", "0.000", "12.000", "-3.500"]);
        assert_eq!(text(&arrow::array::new_null_array(&DataType::Null, 1), 'R'), ["NULL"]);
    }

    #[test]
    fn results_are_compared_in_their_order() {
        let rows = |rows: &[[&str; 2]]| rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect::<Vec<_>>();
        let found = rows(&[["9", "a"], ["10", "b"]]);
        assert_eq!(compare(&["10", "b", "9", "a"], found.clone(), Sort::Rows), Verdict::Right);
        assert_eq!(compare(&["10", "9", "a", "b"], found.clone(), Sort::Values), Verdict::Right);
        assert_eq!(compare(&["9", "a", "10", "b"], found.clone(), Sort::Nothing), Verdict::Right);
        assert_eq!(compare(&["10", "b", "9", "a"], found.clone(), Sort::Nothing), Verdict::OtherOrder);
        assert!(matches!(compare(&["9", "a"], found.clone(), Sort::Nothing), Verdict::Wrong(_)));
        let digest = format!("4 values hashing to {}", md5::hex_digest(b"10\nb\n9\na\n"));
        assert_eq!(compare(&[&digest], found.clone(), Sort::Rows), Verdict::Right);
        assert!(matches!(compare(&[&digest], found, Sort::Nothing), Verdict::Wrong(_)));
    }
}
