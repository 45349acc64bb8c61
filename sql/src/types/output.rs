//! Values → PostgreSQL's text: the one place where a value becomes what a person or a text protocol reads.
//!
//! [`write_text`] is the output function of every type, as psql shows it and the wire will carry it; [`texts`] is the cast
//! to TEXT, which differs for BOOLEAN only (`true` instead of `t`).
//!
//! Always true: reading the text back as the same type gives the same value, infinities and NaN included.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Float32Type, Float64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow::util::display::array_value_to_string;

use super::calendar::{DAY_MICROS, civil_from_days};
use super::interval;
use crate::error::Result;

/// Appends the text of the value at `row`, which must not be NULL, to `out`.
///
/// Booleans are `t` and `f`; numbers have the fewest digits that read back the same; timestamps are
/// `2024-01-01 10:00:00.5`, with `+00` if they have a time zone, because the session's is UTC; bytes are `\xdead`;
/// arrays are `{1,NULL,"a b"}`.
///
/// # Errors
/// `XX000` for types that no query yields.
pub fn write_text(array: &dyn Array, row: usize, out: &mut String) -> Result<()> {
    match array.data_type() {
        DataType::Boolean => out.push(if array.as_boolean().value(row) { 't' } else { 'f' }),
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            push_float(out, &format!("{value:e}"), f64::from(value), 6);
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            push_float(out, &format!("{value:e}"), value, 15);
        }
        DataType::Date32 => push_date(out, i64::from(array.as_primitive::<Date32Type>().value(row)), ""),
        DataType::Time64(TimeUnit::Microsecond) => {
            push_clock(out, array.as_primitive::<Time64MicrosecondType>().value(row));
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let zone = if zone.is_some() { "+00" } else { "" };
            push_timestamp(out, array.as_primitive::<TimestampMicrosecondType>().value(row), zone);
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            interval::write(array.as_primitive::<IntervalMonthDayNanoType>().value(row), out);
        }
        DataType::FixedSizeBinary(16) => push_uuid(out, array.as_fixed_size_binary().value(row)),
        DataType::Binary => push_bytes(out, array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => push_bytes(out, array.as_binary::<i64>().value(row)),
        DataType::BinaryView => push_bytes(out, array.as_binary_view().value(row)),
        DataType::List(_) => push_list(out, &array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => push_list(out, &array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => push_list(out, &array.as_fixed_size_list().value(row))?,
        // Of other resolution, as some functions give; the value itself is among those above.
        DataType::Time32(_) | DataType::Time64(_) => {
            let one = cast(&array.slice(row, 1), &DataType::Time64(TimeUnit::Microsecond))?;
            write_text(&one, 0, out)?;
        }
        DataType::Timestamp(_, zone) => {
            let one = cast(&array.slice(row, 1), &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            write_text(&one, 0, out)?;
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            write_text(&interval::from_any(&array.slice(row, 1))?, 0, out)?;
        }
        _ => out.push_str(&array_value_to_string(array, row)?),
    }
    Ok(())
}

/// The values cast to TEXT; NULL stays NULL.
///
/// # Errors
/// As [`write_text`].
pub(crate) fn texts(array: &dyn Array) -> Result<ArrayRef> {
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(&DataType::Utf8View, array.len()));
    }
    let mut builder = StringViewBuilder::with_capacity(array.len());
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
            continue;
        }
        text.clear();
        match array.as_boolean_opt() {
            Some(values) => text.push_str(if values.value(row) { "true" } else { "false" }),
            None => write_text(array, row, &mut text)?,
        }
        builder.append_value(&text);
    }
    Ok(Arc::new(builder.finish()))
}

/// `scientific` is the shortest form that reads back, such as `-1.25e-7`; without an exponent if that is above −5 and below
/// `digits_max`, as PostgreSQL does.
fn push_float(out: &mut String, scientific: &str, value: f64, digits_max: i32) {
    if !value.is_finite() {
        return out.push_str(if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    out.push_str(sign);
    if !(-4..digits_max).contains(&exponent) {
        let (sign, size) = if exponent < 0 { ('-', -exponent) } else { ('+', exponent) };
        let _ = write!(out, "{mantissa}e{sign}{size:02}");
        return;
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let point = usize::try_from(exponent + 1).unwrap_or(0);
    if exponent < 0 {
        let _ = write!(out, "0.{}{digits}", zeros(-exponent - 1));
    } else if point >= digits.len() {
        let _ = write!(out, "{digits}{}", zeros(exponent + 1 - i32::try_from(digits.len()).unwrap_or(0)));
    } else {
        let _ = write!(out, "{}.{}", &digits[..point], &digits[point..]);
    }
}

/// A date, then `rest`, then the era where it is not the common one.
fn push_date(out: &mut String, days: i64, rest: &str) {
    let (year, month, day) = civil_from_days(days);
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}{rest}{era}");
}

fn push_timestamp(out: &mut String, micros: i64, zone: &str) {
    let mut rest = String::from(" ");
    push_clock(&mut rest, micros.rem_euclid(DAY_MICROS));
    rest.push_str(zone);
    push_date(out, micros.div_euclid(DAY_MICROS), &rest);
}

/// `04:05:06.789`, without zeros at the end.
pub(super) fn push_clock(out: &mut String, micros: i64) {
    let seconds = micros / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

fn push_uuid(out: &mut String, bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
}

fn push_bytes(out: &mut String, bytes: &[u8]) {
    out.push_str("\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

fn push_list(out: &mut String, items: &ArrayRef) -> Result<()> {
    out.push('{');
    let is_list = items.data_type().is_nested();
    let mut text = String::new();
    for row in 0..items.len() {
        if row > 0 {
            out.push(',');
        }
        if items.is_null(row) {
            out.push_str("NULL");
            continue;
        }
        text.clear();
        write_text(items, row, &mut text)?;
        let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '{' | '}' | ',' | '"' | '\\');
        if is_list || !text.is_empty() && text.chars().all(is_plain) && !text.eq_ignore_ascii_case("null") {
            out.push_str(&text);
        } else {
            out.push('"');
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float32Array, Float64Array, TimestampMicrosecondArray};

    use super::*;

    fn shown(array: &dyn Array) -> Vec<String> {
        (0..array.len())
            .map(|row| {
                let mut text = String::new();
                write_text(array, row, &mut text).unwrap();
                text
            })
            .collect()
    }

    #[test]
    fn floats_have_the_digits_that_postgresql_prints() {
        let doubles = [
            (1.5, "1.5"),
            (100_000.0, "100000"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (1e300, "1e+300"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ];
        let (values, expected): (Vec<f64>, Vec<&str>) = doubles.into_iter().unzip();
        assert_eq!(shown(&Float64Array::from(values)), expected);
        let singles = Float32Array::from(vec![0.1, 16_777_216.0, 999_999.0, 1e20]);
        assert_eq!(shown(&singles), ["0.1", "1.6777216e+07", "999999", "1e+20"]);
    }

    #[test]
    fn dates_of_any_age_are_shown() {
        let dates = Date32Array::from(vec![0, -1, -719_163, 2_932_897]);
        assert_eq!(shown(&dates), ["1970-01-01", "1969-12-31", "0001-12-31 BC", "10000-01-01"]);
        let stamps = TimestampMicrosecondArray::from(vec![-1, 500_000]);
        assert_eq!(shown(&stamps), ["1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.5"]);
        assert_eq!(shown(&stamps.with_timezone("UTC"))[1], "1970-01-01 00:00:00.5+00");
    }
}
