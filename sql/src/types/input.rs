//! PostgreSQL's text → values: what casts from TEXT, constants of unknown type and INSERT read.
//!
//! Blanks around a value are ignored, except in text itself. Refused although PostgreSQL takes it, with SQLSTATE 0A000:
//! infinite dates, NaN and infinity as DECIMAL. A leap second (`:60`) is refused with 22008, where PostgreSQL rounds
//! it into the next minute.

mod moment;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewBuilder, BooleanArray, FixedSizeBinaryBuilder,
    PrimitiveArray, StringViewArray, StringViewBuilder, new_empty_array,
};
use arrow::compute::{cast, concat};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::{interval, sql_name};
use crate::error::{Error, Result, SqlState};

/// Why a text is no value.
pub(crate) enum Refusal {
    /// It does not read as the type.
    Syntax,
    /// It reads, but the type has no such number.
    Range,
    /// It reads, but there is no such date or time.
    Moment,
    /// A value that is not built.
    Unsupported(&'static str),
}

type Read<T> = std::result::Result<T, Refusal>;

/// `texts` read as `target`; NULL stays NULL. `column` is named in errors, if the values are for one.
///
/// # Errors
/// 22P02 for what does not read (22007 if dates and times do not), 22003 for numbers out of range, 22008 for dates that do not exist, 0A000 for values and
/// types that are not built.
pub(crate) fn read_texts(texts: &StringViewArray, target: &DataType, column: Option<&str>) -> Result<ArrayRef> {
    let reader = Reader { texts, target, column };
    Ok(match target {
        DataType::Boolean => {
            let values: Vec<Option<bool>> = reader.values(boolean)?;
            Arc::new(BooleanArray::from(values))
        }
        DataType::Int8 => reader.primitive::<Int8Type>(integer)?,
        DataType::Int16 => reader.primitive::<Int16Type>(integer)?,
        DataType::Int32 => reader.primitive::<Int32Type>(integer)?,
        DataType::Int64 => reader.primitive::<Int64Type>(integer)?,
        DataType::Float32 => reader.primitive::<Float32Type>(|text| {
            let value: f32 = float(text)?;
            finite(text, value.is_finite(), value == 0.0).map(|()| value)
        })?,
        DataType::Float64 => reader.primitive::<Float64Type>(|text| {
            let value: f64 = float(text)?;
            finite(text, value.is_finite(), value == 0.0).map(|()| value)
        })?,
        DataType::Decimal128(precision, scale) => {
            reader.primitive::<Decimal128Type>(|text| decimal(text, *precision, *scale))?
        }
        DataType::Date32 => reader.primitive::<Date32Type>(moment::date)?,
        DataType::Time64(TimeUnit::Microsecond) => reader.primitive::<Time64MicrosecondType>(moment::time)?,
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let is_zoned = zone.is_some();
            reader.primitive::<TimestampMicrosecondType>(|text| moment::timestamp(text, is_zoned))?
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            reader.primitive::<IntervalMonthDayNanoType>(|text| interval::parse(text).ok_or(Refusal::Syntax))?
        }
        DataType::FixedSizeBinary(16) => reader.uuids()?,
        DataType::BinaryView => reader.bytes()?,
        DataType::Utf8View => Arc::new(texts.clone()),
        DataType::List(item) => reader.lists(item)?,
        // Other resolutions and sizes, which only functions ask for.
        DataType::Timestamp(_, zone) => {
            let micros = read_texts(texts, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), column)?;
            cast(&micros, target)?
        }
        DataType::Binary | DataType::LargeBinary => cast(&reader.bytes()?, target)?,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Null => cast(texts, target)?,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            cast(&read_texts(texts, &DataType::Decimal128(20, 0), column)?, target)?
        }
        other => return Err(Error::unsupported(format!("reading text as {}", sql_name(other)))),
    })
}

struct Reader<'a> {
    texts: &'a StringViewArray,
    target: &'a DataType,
    column: Option<&'a str>,
}

impl Reader<'_> {
    fn values<T>(&self, read: impl Fn(&str) -> Read<T>) -> Result<Vec<Option<T>>> {
        let one = |text: Option<&str>| match text {
            None => Ok(None),
            Some(text) => read(text.trim_ascii()).map(Some).map_err(|refusal| self.error(&refusal, text)),
        };
        self.texts.iter().map(one).collect()
    }

    fn primitive<T: ArrowPrimitiveType>(&self, read: impl Fn(&str) -> Read<T::Native>) -> Result<ArrayRef> {
        let values: PrimitiveArray<T> = self.values(read)?.into_iter().collect();
        Ok(Arc::new(values.with_data_type(self.target.clone())))
    }

    /// `550e8400-e29b-41d4-a716-446655440000`; hyphens and braces optional.
    fn uuids(&self) -> Result<ArrayRef> {
        let mut builder = FixedSizeBinaryBuilder::with_capacity(self.texts.len(), 16);
        for value in self.values(uuid)? {
            match value {
                Some(bytes) => builder.append_value(bytes)?,
                None => builder.append_null(),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    fn bytes(&self) -> Result<ArrayRef> {
        let mut builder = BinaryViewBuilder::with_capacity(self.texts.len());
        for text in self.texts {
            // Blanks are bytes as well, so the text is not trimmed.
            builder.append_option(match text {
                Some(text) => Some(bytes(text).map_err(|refusal| self.error(&refusal, text))?),
                None => None,
            });
        }
        Ok(Arc::new(builder.finish()))
    }

    /// `{1,NULL,"a b"}`: one dimension.
    fn lists(&self, item: &Arc<Field>) -> Result<ArrayRef> {
        let mut rows: Vec<ArrayRef> = Vec::with_capacity(self.texts.len());
        for text in self.texts {
            let mut items = StringViewBuilder::new();
            if let Some(text) = text {
                let parsed = elements(text.trim_ascii()).map_err(|refusal| self.error(&refusal, text))?;
                parsed.into_iter().for_each(|element| items.append_option(element));
            }
            rows.push(read_texts(&items.finish(), item.data_type(), self.column)?);
        }
        let lengths = rows.iter().map(Array::len);
        let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
        let parts: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
        let values = if parts.is_empty() { new_empty_array(item.data_type()) } else { concat(&parts)? };
        let nulls = self.texts.nulls().cloned();
        Ok(Arc::new(arrow::array::ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
    }

    fn error(&self, refusal: &Refusal, text: &str) -> Error {
        let type_name = sql_name(self.target);
        let shown: String = text.chars().take(60).collect();
        let (state, what) = match refusal {
            Refusal::Syntax if self.target.is_temporal() => (SqlState::InvalidDatetime, "invalid input"),
            Refusal::Syntax => (SqlState::InvalidText, "invalid input"),
            Refusal::Range => (SqlState::NumericOutOfRange, "value out of range"),
            Refusal::Moment => (SqlState::DatetimeOutOfRange, "date or time out of range"),
            Refusal::Unsupported(what) => return Error::unsupported(format!("{what} as {type_name}")),
        };
        match self.column {
            Some(column) => Error::new(state, format!("{what} for column {column} of type {type_name}"))
                .with_detail(format!("{shown:?} does not read as {type_name}")),
            None => Error::new(state, format!("{what} for type {type_name}: {shown:?}")),
        }
    }
}

/// Any beginning of true, false, yes and no; on, off, 1 and 0.
fn boolean(text: &str) -> Read<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&text);
    if begins("true") || begins("yes") || text == "on" || text == "1" {
        Ok(true)
    } else if begins("false") || begins("no") || text == "off" || text == "of" || text == "0" {
        Ok(false)
    } else {
        Err(Refusal::Syntax)
    }
}

fn integer<T: TryFrom<i128>>(text: &str) -> Read<T> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    // Everything that is left is a number, perhaps too long even for 128 bits.
    let value: i128 = text.parse().map_err(|_| Refusal::Range)?;
    T::try_from(value).map_err(|_| Refusal::Range)
}

fn float<T: std::str::FromStr>(text: &str) -> Read<T> {
    text.parse().map_err(|_| Refusal::Syntax)
}

/// Infinity must be written as such, and so must zero.
fn finite(text: &str, is_finite: bool, is_zero: bool) -> Read<()> {
    let names_a_number = text.contains(|c: char| c.is_ascii_digit());
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_lost = is_zero && mantissa.contains(|c: char| ('1'..='9').contains(&c));
    if names_a_number && !is_finite || is_lost { Err(Refusal::Range) } else { Ok(()) }
}

/// Digits with a point and an exponent, rounded half away from zero at the last place.
pub(crate) fn decimal(text: &str, precision: u8, scale: i8) -> Read<i128> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if ["nan", "inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Err(Refusal::Unsupported("NaN or infinity"));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| Refusal::Syntax)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    // How many of the digits stand before the last place kept.
    let kept = i64::try_from(whole.len()).unwrap_or(i64::MAX) + i64::from(exponent) + i64::from(scale);
    let limit = 10_i128.pow(u32::from(precision));
    let mut value: i128 = 0;
    let mut append = |digit: u8| {
        value = value * 10 + i128::from(digit);
        if value < limit { Ok(()) } else { Err(Refusal::Range) }
    };
    let available = i64::try_from(whole.len() + fraction.len()).unwrap_or(i64::MAX);
    for digit in digits().take(usize::try_from(kept.clamp(0, available)).unwrap_or(0)) {
        append(digit - b'0')?;
    }
    let is_zero = digits().all(|digit| digit == b'0');
    if !is_zero {
        for _ in available..kept {
            append(0)?;
        }
    }
    let next = usize::try_from(kept).ok().and_then(|kept| digits().nth(kept));
    if kept >= 0 && next.is_some_and(|digit| digit >= b'5') {
        value += 1;
    }
    if value >= limit {
        return Err(Refusal::Range);
    }
    Ok(if is_negative { -value } else { value })
}

fn uuid(text: &str) -> Read<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or(Refusal::Syntax)?,
        None => text,
    };
    let mut digits = String::with_capacity(32);
    for group in inner.split('-') {
        // Hyphens stand behind groups of four digits only.
        if group.len() % 4 != 0 || group.is_empty() {
            return Err(Refusal::Syntax);
        }
        digits.push_str(group);
    }
    hex(&digits).and_then(|bytes| bytes.try_into().ok()).ok_or(Refusal::Syntax)
}

/// `\x` and hexadecimal digits, or text with `\\` and `\ooo`.
fn bytes(text: &str) -> Read<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: String = digits.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return hex(&digits).ok_or(Refusal::Syntax);
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => (b'\\', tail),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), tail)
            }
            (b'\\', _) => return Err(Refusal::Syntax),
            (byte, tail) => (*byte, tail),
        };
        out.push(byte);
        rest = tail;
    }
    Ok(out)
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// The elements of `{…}`; `None` is NULL.
fn elements(text: &str) -> Read<Vec<Option<String>>> {
    if text.starts_with('[') {
        return Err(Refusal::Unsupported("an array that does not begin at 1"));
    }
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(Refusal::Syntax)?;
    let mut found = Vec::new();
    if inner.trim().is_empty() {
        return Ok(found);
    }
    let mut chars = inner.chars();
    loop {
        let (mut element, mut is_quoted, mut is_open) = (String::new(), false, false);
        let mut is_escaped = false;
        loop {
            match chars.next() {
                Some('"') if is_open => is_open = false,
                Some('"') if element.trim().is_empty() && !is_quoted => {
                    (is_quoted, is_open) = (true, true);
                    element.clear();
                }
                Some('"') if !is_open => return Err(Refusal::Syntax),
                Some('\\') if is_quoted && !is_open => return Err(Refusal::Syntax),
                Some('\\') => {
                    is_escaped = true;
                    element.push(chars.next().ok_or(Refusal::Syntax)?);
                }
                Some(',') if !is_open => break,
                Some('{') if !is_open && element.trim().is_empty() && !is_quoted => {
                    return Err(Refusal::Unsupported("an array of arrays"));
                }
                Some('{' | '}') if !is_open => return Err(Refusal::Syntax),
                Some(c) if is_quoted && !is_open && c.is_whitespace() => {}
                Some(_) if is_quoted && !is_open => return Err(Refusal::Syntax),
                Some(c) => element.push(c),
                None if is_open => return Err(Refusal::Syntax),
                None => {
                    found.push(finished(element, is_quoted, is_escaped)?);
                    return Ok(found);
                }
            }
        }
        found.push(finished(element, is_quoted, is_escaped)?);
    }
}

fn finished(element: String, is_quoted: bool, is_escaped: bool) -> Read<Option<String>> {
    if is_quoted {
        return Ok(Some(element));
    }
    match element.trim() {
        "" => Err(Refusal::Syntax),
        word if word.eq_ignore_ascii_case("null") && !is_escaped => Ok(None),
        word => Ok(Some(word.to_owned())),
    }
}

/// The text array as views, whatever its own type.
///
/// # Errors
/// None for text.
pub(crate) fn text_views(array: &dyn Array) -> Result<StringViewArray> {
    Ok(cast(array, &DataType::Utf8View)?.as_string_view().clone())
}

#[cfg(test)]
mod tests;
