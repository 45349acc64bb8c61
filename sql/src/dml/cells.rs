//! Constants of INSERT, from SQL or JSON, as columns of the table's types, without a query plan.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, NullBufferBuilder, StringArray, new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::sql::sqlparser::ast;

use crate::error::{Error, Result, SqlState};
use crate::statement::json::{JsonValue, array_elements};
use crate::types::{Origin, assign, interval, is_json_field, json, sql_name};

/// One constant. Numbers keep the digits they were written with.
pub(crate) type Cell = JsonValue;

/// The constant that `expr` is, if it is a plain one.
pub(crate) fn cell(expr: &ast::Expr) -> Option<Cell> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Null => Some(Cell::Null),
            ast::Value::Boolean(value) => Some(Cell::Boolean(*value)),
            ast::Value::Number(digits, _) => Some(Cell::Number(digits.clone())),
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => {
                Some(Cell::Text(text.clone()))
            }
            ast::Value::DollarQuotedString(text) => Some(Cell::Text(text.value.clone())),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match cell(expr)? {
            Cell::Number(digits) if !digits.starts_with('-') => Some(Cell::Number(format!("-{digits}"))),
            _ => None,
        },
        ast::Expr::Nested(inner) => cell(inner),
        // DATE '2024-01-01' in a row reads as the text would: its column knows what it is.
        ast::Expr::TypedString(typed) if is_time_type(&typed.data_type) => {
            typed.value.value.clone().into_string().map(Cell::Text)
        }
        // INTERVAL '1 day' likewise, as the value itself would be written.
        ast::Expr::Interval(ast::Interval {
            value,
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        }) => match cell(value)? {
            Cell::Text(text) => {
                let mut written = String::new();
                interval::write(interval::parse(&text)?, &mut written);
                Some(Cell::Text(written))
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_time_type(data_type: &ast::DataType) -> bool {
    matches!(data_type, ast::DataType::Date | ast::DataType::Time(..) | ast::DataType::Timestamp(..))
}

/// The keyword DEFAULT, which the parser reads as a name.
pub(crate) fn is_default(ident: &ast::Ident) -> bool {
    ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default")
}

/// The constants of one column as an array of the column's type.
///
/// # Errors
/// 42804 for a constant of another kind, 22P02 and 22003 for values that do not fit.
pub(crate) fn column<'a>(cells: impl Iterator<Item = &'a Cell> + Clone, field: &Field) -> Result<ArrayRef> {
    let (name, target) = (field.name(), field.data_type());
    let is_json = is_json_field(field);
    let is_document = |cell: &Cell| matches!(cell, Cell::Nested(_));
    if let DataType::List(item) = target
        && cells.clone().any(is_document)
    {
        return lists(cells, field, item);
    }
    for cell in cells.clone() {
        check_kind(cell, name, target, is_json)?;
    }
    if cells.clone().all(|cell| *cell == Cell::Null) {
        return Ok(new_null_array(target, cells.count()));
    }
    if *target == DataType::Boolean && cells.clone().all(|cell| matches!(cell, Cell::Null | Cell::Boolean(_))) {
        let values = cells.map(|cell| match cell {
            Cell::Boolean(value) => Some(*value),
            _ => None,
        });
        return Ok(Arc::new(BooleanArray::from_iter(values)));
    }
    let is_fraction = |cell: &Cell| matches!(cell, Cell::Number(digits) if digits.contains(['.', 'e', 'E']));
    let has_fraction = cells.clone().any(is_fraction);
    let texts: ArrayRef = Arc::new(StringArray::from_iter(cells.map(text)));
    if target.is_integer() && has_fraction {
        // Integers round what has a fraction; reading it as a decimal first does so without a detour over floats.
        let decimals = assign(&texts, &DataType::Decimal128(38, 10), Origin::Literal, name)?;
        return assign(&decimals, target, Origin::Literal, name);
    }
    assign(&texts, target, Origin::Literal, name)
}

/// Arrays, of which some are written as JSON's.
fn lists<'a>(cells: impl Iterator<Item = &'a Cell> + Clone, field: &Field, item: &FieldRef) -> Result<ArrayRef> {
    let element = Field::new(field.name(), item.data_type().clone(), true);
    let mut rows: Vec<ArrayRef> = Vec::new();
    let mut nulls = NullBufferBuilder::new(0);
    for cell in cells {
        nulls.append(*cell != Cell::Null);
        let elements = match cell {
            Cell::Nested(document) if document.starts_with('[') => {
                let elements = array_elements(document)?;
                if elements.iter().any(|element| matches!(element, Cell::Nested(_))) {
                    return Err(Error::unsupported(format!("column {}: an array of arrays or objects", field.name())));
                }
                column(elements.iter(), &element)?
            }
            Cell::Null => new_empty_array(item.data_type()),
            Cell::Nested(_) => return Err(wrong_kind(field.name(), field.data_type(), false, "a JSON object")),
            other => column(std::iter::once(other), field)?.as_list::<i32>().value(0),
        };
        rows.push(elements);
    }
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Array::len));
    let parts: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    let elements = if parts.is_empty() { new_empty_array(item.data_type()) } else { concat(&parts)? };
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, elements, nulls.finish())?))
}

fn text(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Boolean(value) => Some(value.to_string()),
        Cell::Number(digits) => Some(without_exponent(digits)),
        Cell::Text(text) | Cell::Nested(text) => Some(text.clone()),
    }
}

/// A value of the JSON form as a whole document, for a column of JSON.
pub(crate) fn document(cell: Cell) -> Cell {
    match cell {
        Cell::Text(text) => Cell::Nested(json::quoted(&text)),
        Cell::Boolean(value) => Cell::Nested(value.to_string()),
        Cell::Number(digits) => Cell::Nested(digits),
        Cell::Null | Cell::Nested(_) => cell,
    }
}

/// `1.5e2` as `150`: Arrow reads exponents into floats only. Exponents beyond any decimal are left alone, to be read
/// as floats or refused.
fn without_exponent(digits: &str) -> String {
    let Some((mantissa, exponent)) = digits.split_once(['e', 'E']) else { return digits.to_owned() };
    let Some(exponent) = exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 76) else {
        return digits.to_owned();
    };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    // Where the point comes to stand, counted from the front of `all`.
    let point = i32::try_from(whole.len()).unwrap_or(i32::MAX).saturating_add(exponent);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    match usize::try_from(point) {
        Ok(point) if point >= all.len() => {
            let missing = i32::try_from(point - all.len()).unwrap_or(0);
            format!("{sign}{all}{}", zeros(missing))
        }
        Ok(point) if point > 0 => format!("{sign}{}.{}", &all[..point], &all[point..]),
        _ => format!("{sign}0.{}{all}", zeros(-point)),
    }
}

fn check_kind(cell: &Cell, column: &str, target: &DataType, is_json: bool) -> Result<()> {
    let is_text = *target == DataType::Utf8View && !is_json;
    let (fits, kind) = match cell {
        Cell::Null | Cell::Text(_) => (true, "text"),
        Cell::Boolean(_) => (is_text || *target == DataType::Boolean, "boolean"),
        Cell::Number(_) => (is_text || target.is_numeric(), "numeric"),
        Cell::Nested(_) => (is_json, "a JSON array or object"),
    };
    if fits {
        return Ok(());
    }
    Err(wrong_kind(column, target, is_json, kind))
}

fn wrong_kind(column: &str, target: &DataType, is_json: bool, kind: &str) -> Error {
    let type_name = if is_json { "json".to_owned() } else { sql_name(target) };
    let message = format!("column {column} is of type {type_name} but the value is of type {kind}");
    Error::new(SqlState::DatatypeMismatch, message)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Decimal128Type, Int32Type};

    use super::*;

    fn array(cells: &[Cell], target: DataType) -> Result<ArrayRef> {
        column(cells.iter(), &Field::new("c", target, true))
    }

    fn number(digits: &str) -> Cell {
        Cell::Number(digits.to_owned())
    }

    #[test]
    fn numbers_keep_their_digits_and_round_into_integers() {
        let wide = array(&[number("12345678901234567890.12"), Cell::Null], DataType::Decimal128(22, 2)).unwrap();
        assert_eq!(wide.as_primitive::<Decimal128Type>().value(0), 1_234_567_890_123_456_789_012);
        assert!(wide.is_null(1));
        let rounded = array(&[number("2.5"), number("-2.5"), number("1e2")], DataType::Int32).unwrap();
        assert_eq!(rounded.as_primitive::<Int32Type>().values(), &[3, -3, 100]);
    }

    #[test]
    fn exponents_move_the_point() {
        for (written, plain) in [
            ("1e2", "100"),
            ("-1.5E2", "-150"),
            ("1.25e1", "12.5"),
            ("125e-2", "1.25"),
            ("1.5e-3", "0.0015"),
            ("5e-1", "0.5"),
            ("7", "7"),
            ("1e300", "1e300"),
        ] {
            assert_eq!(without_exponent(written), plain);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_kind_of_failure() {
        for (cell, target, state) in [
            (number("1"), DataType::Boolean, "42804"),
            (Cell::Boolean(true), DataType::Int32, "42804"),
            (Cell::Nested("{}".to_owned()), DataType::Utf8View, "42804"),
            (number("1"), DataType::Date32, "42804"),
            (Cell::Text("abc".to_owned()), DataType::Int32, "22P02"),
            (Cell::Text("2024-13-01".to_owned()), DataType::Date32, "22008"),
            (number("99999999999"), DataType::Int32, "22003"),
            (number("12345"), DataType::Decimal128(4, 2), "22003"),
        ] {
            let error = array(std::slice::from_ref(&cell), target.clone()).unwrap_err();
            assert_eq!(error.sqlstate(), state, "{cell:?} as {target}: {error:?}");
            assert!(error.message().contains("column c"), "{error:?}");
        }
    }
}
