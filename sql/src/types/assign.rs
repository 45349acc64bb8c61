//! Assignment casts: an Arrow array as the result of an expression → an Arrow array as a column stores it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;

use super::input::{read_texts, text_views};
use super::interval::{INTERVAL, from_any};
use super::output::texts;
use super::{is_text, sql_name};
use crate::error::{Error, Result, SqlState};

/// Where a value comes from; decides what text may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Written as a constant in the statement: text is still of unknown type.
    Literal,
    /// The result of an expression with a type of its own.
    Expression,
}

/// `array` as values of `target` for the column `column`, which is only named in errors.
///
/// # Errors
/// 42804 if the types do not fit, 22P02 if text does not read as the target, 22003 if a number is out of range.
pub(crate) fn assign(array: &ArrayRef, target: &DataType, origin: Origin, column: &str) -> Result<ArrayRef> {
    let source = array.data_type();
    if source == target {
        return Ok(Arc::clone(array));
    }
    if *source == DataType::Null {
        return Ok(new_null_array(target, array.len()));
    }
    if let (DataType::LargeList(item) | DataType::FixedSizeList(item, _), DataType::List(_)) = (source, target) {
        // As files of other programs have them.
        return assign(&cast(array, &DataType::List(Arc::clone(item)))?, target, origin, column);
    }
    if let (DataType::List(from), DataType::List(to)) = (source, target) {
        // What an array holds has a type, however it was written.
        let elements = array.as_list::<i32>().values();
        if from.data_type() == to.data_type() || is_assignable(from.data_type(), to.data_type(), Origin::Expression) {
            let elements = assign(elements, to.data_type(), Origin::Expression, column)?;
            return Ok(Arc::new(with_elements(array.as_list::<i32>(), to, elements)?));
        }
    }
    if !is_assignable(source, target, origin) {
        let message =
            format!("column {column} is of type {} but the value is of type {}", sql_name(target), sql_name(source));
        let hint = format!("convert it with CAST(… AS {})", sql_name(target));
        return Err(Error::new(SqlState::DatatypeMismatch, message).with_hint(hint));
    }
    let array = if source.is_numeric() && target.is_integer() { rounded(array)? } else { Arc::clone(array) };
    if *target == INTERVAL && is_interval(array.data_type()) {
        return from_any(&array);
    }
    let stored = match (is_text(array.data_type()), is_text(target)) {
        (true, false) => read_texts(&text_views(&array)?, target, Some(column))?,
        (false, true) => texts(&array)?,
        _ => strict_cast(&array, target).map_err(|error| in_column(&error, target, column))?,
    };
    debug_assert_eq!(stored.data_type(), target);
    Ok(stored)
}

/// `lists` with `elements` in place of theirs, one for one.
///
/// # Errors
/// None for as many elements of the type that `item` says.
pub(crate) fn with_elements(lists: &ListArray, item: &FieldRef, elements: ArrayRef) -> Result<ListArray> {
    Ok(ListArray::try_new(Arc::clone(item), lists.offsets().clone(), elements, lists.nulls().cloned())?)
}

/// Checks the limit of VARCHAR(n), or of the elements of VARCHAR(n)[].
///
/// # Errors
/// 22001, naming column, limit and the beginning of the value.
pub(crate) fn check_length(array: &ArrayRef, chars_max: u32, column: &str) -> Result<()> {
    if let Some(lists) = array.as_list_opt::<i32>() {
        return check_length(lists.values(), chars_max, column);
    }
    let limit = chars_max as usize;
    for text in array.as_string_view().iter().flatten() {
        // A text has at most as many characters as bytes, so counting is rarely needed.
        if text.len() > limit && text.chars().count() > limit {
            let shown: String = text.chars().take(limit).collect();
            let message = format!("value too long for column {column}, which holds up to {limit} characters");
            return Err(Error::new(SqlState::StringTooLong, message).with_detail(format!("it begins with {shown:?}")));
        }
    }
    Ok(())
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn is_date_or_timestamp(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

fn is_assignable(source: &DataType, target: &DataType, origin: Origin) -> bool {
    if is_text(source) {
        return is_text(target) || origin == Origin::Literal;
    }
    *source == DataType::Null
        || source.is_numeric() && target.is_numeric()
        || is_text(target) && !is_binary(source) && (!source.is_nested() || matches!(source, DataType::List(_)))
        || is_binary(source) && is_binary(target)
        || is_date_or_timestamp(source) && is_date_or_timestamp(target)
        || is_time(source) && is_time(target)
        || is_interval(source) && is_interval(target)
        || source == target
}

/// Arrow cuts fractions off where SQL rounds: halves away from zero for decimals, to even for floats.
fn rounded(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) if *s > 0 => {
            Ok(strict_cast(array, &DataType::Decimal128(38, 0))?)
        }
        DataType::Decimal256(_, s) if *s > 0 => Ok(strict_cast(array, &DataType::Decimal256(76, 0))?),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let doubles = strict_cast(array, &DataType::Float64)?;
            let rounded: Float64Array = doubles.as_primitive::<Float64Type>().unary(f64::round_ties_even);
            Ok(Arc::new(rounded))
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn strict_cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(array, target, &options)
}

/// Says which column and, where Arrow does, which value was refused.
fn in_column(error: &ArrowError, target: &DataType, column: &str) -> Error {
    let cause = Error::from(clone_text(error));
    let what = match cause.state() {
        SqlState::NumericOutOfRange => "value out of range for",
        _ => "invalid input for",
    };
    Error::new(cause.state(), format!("{what} column {column} of type {}", sql_name(target)))
        .with_detail(cause.message())
}

fn clone_text(error: &ArrowError) -> ArrowError {
    match error {
        ArrowError::ParseError(text) => ArrowError::ParseError(text.clone()),
        ArrowError::InvalidArgumentError(text) => ArrowError::InvalidArgumentError(text.clone()),
        ArrowError::ArithmeticOverflow(text) => ArrowError::ArithmeticOverflow(text.clone()),
        ArrowError::CastError(text) => ArrowError::CastError(text.clone()),
        other => ArrowError::CastError(other.to_string()),
    }
}
