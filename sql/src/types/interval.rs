//! INTERVAL: text in and out, order and arithmetic, as PostgreSQL defines them.
//!
//! Months, days and a time of day are kept apart, because neither a month nor a day has a fixed length; only where two
//! intervals are compared does a month count thirty days and a day twenty-four hours. The unit is the microsecond:
//! nanoseconds of Arrow's type are whole thousands.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::types::{
    DurationMicrosecondType, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType,
};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};

use super::calendar::DAY_MICROS;
use super::output::push_clock;
use crate::error::{Error, Result};

/// The Arrow type of INTERVAL.
pub(crate) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// An interval of months, days and microseconds; `None` if a part is too large.
pub(crate) fn interval(months: i64, days: i64, micros: i64) -> Option<IntervalMonthDayNano> {
    let (months, days) = (i32::try_from(months).ok()?, i32::try_from(days).ok()?);
    Some(IntervalMonthDayNano::new(months, days, micros.checked_mul(1_000)?))
}

/// Microseconds by which intervals are ordered and told apart.
pub(crate) fn order_micros(value: IntervalMonthDayNano) -> i128 {
    let days = i128::from(value.months) * 30 + i128::from(value.days);
    days * i128::from(DAY_MICROS) + i128::from(value.nanoseconds.div_euclid(1_000))
}

/// Any interval or duration as INTERVAL.
///
/// # Errors
/// `XX000` for other types.
pub(crate) fn from_any(array: &dyn Array) -> Result<ArrayRef> {
    let values: PrimitiveArray<IntervalMonthDayNanoType> = match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => array.as_primitive::<IntervalMonthDayNanoType>().clone(),
        DataType::Interval(IntervalUnit::YearMonth) => {
            array.as_primitive::<IntervalYearMonthType>().unary(|months| IntervalMonthDayNano::new(months, 0, 0))
        }
        DataType::Interval(IntervalUnit::DayTime) => array
            .as_primitive::<IntervalDayTimeType>()
            .unary(|v| IntervalMonthDayNano::new(0, v.days, i64::from(v.milliseconds) * 1_000_000)),
        DataType::Duration(_) => {
            let micros = cast(array, &DataType::Duration(TimeUnit::Microsecond))?;
            let split = |micros: i64| {
                // At most 107 million days, so the days fit and the rest is below one.
                let days = i32::try_from(micros / DAY_MICROS).unwrap_or(i32::MAX);
                IntervalMonthDayNano::new(0, days, micros % DAY_MICROS * 1_000)
            };
            micros.as_primitive::<DurationMicrosecondType>().unary(split)
        }
        other => return Err(Error::internal(format!("{other} is no interval"))),
    };
    Ok(Arc::new(values))
}

/// `1 year 2 mons -3 days +04:05:06.789`, as PostgreSQL's default style writes it.
pub(crate) fn write(value: IntervalMonthDayNano, out: &mut String) {
    let start = out.len();
    let mut was_negative = false;
    let mut part = |out: &mut String, amount: i32, unit: &str| {
        if amount != 0 {
            let space = if out.len() > start { " " } else { "" };
            let sign = if was_negative && amount > 0 { "+" } else { "" };
            let plural = if amount == 1 { "" } else { "s" };
            let _ = write!(out, "{space}{sign}{amount} {unit}{plural}");
            was_negative = amount < 0;
        }
    };
    part(out, value.months / 12, "year");
    part(out, value.months % 12, "mon");
    part(out, value.days, "day");
    let micros = value.nanoseconds / 1_000;
    if micros != 0 || out.len() == start {
        if out.len() > start {
            out.push(' ');
        }
        if micros < 0 {
            out.push('-');
        } else if was_negative {
            out.push('+');
        }
        // The smallest number has no positive counterpart in microseconds times 1000, so this cannot overflow.
        push_clock(out, micros.abs());
    }
}

/// Months, days and microseconds being read, with the fractions that a unit hands down to the next.
#[derive(Default)]
struct Parts {
    months: i64,
    days: i64,
    micros: i64,
}

impl Parts {
    /// Adds `amount` (and a fraction of it, in 10⁻⁹) of a unit.
    fn add(&mut self, whole: i64, nanos: i64, unit: &str) -> Option<()> {
        const MONTH_MICROS: i64 = 30 * DAY_MICROS;
        let months = |years: i64| -> Option<(i64, i64)> {
            let fraction = i128::from(nanos) * i128::from(years) * 12;
            Some((
                whole.checked_mul(years * 12)?,
                i64::try_from((fraction + fraction.signum() * 500_000_000) / 1_000_000_000).ok()?,
            ))
        };
        match unit {
            "millennium" | "millennia" | "mil" | "mils" => self.add_months(months(1000)?),
            "century" | "centuries" | "cent" | "c" => self.add_months(months(100)?),
            "decade" | "decades" | "dec" | "decs" => self.add_months(months(10)?),
            "year" | "years" | "y" | "yr" | "yrs" => self.add_months(months(1)?),
            "month" | "months" | "mon" | "mons" => {
                self.months = self.months.checked_add(whole)?;
                self.add_day_fraction(i128::from(nanos) * i128::from(MONTH_MICROS))
            }
            "week" | "weeks" | "w" => {
                self.days = self.days.checked_add(whole.checked_mul(7)?)?;
                self.add_day_fraction(i128::from(nanos) * i128::from(7 * DAY_MICROS))
            }
            "day" | "days" | "d" => {
                self.days = self.days.checked_add(whole)?;
                self.add_micros(i128::from(nanos) * i128::from(DAY_MICROS) / 1_000_000_000)
            }
            "hour" | "hours" | "h" | "hr" | "hrs" => self.add_time(whole, nanos, 3_600_000_000),
            "minute" | "minutes" | "m" | "min" | "mins" => self.add_time(whole, nanos, 60_000_000),
            "second" | "seconds" | "s" | "sec" | "secs" => self.add_time(whole, nanos, 1_000_000),
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => self.add_time(whole, nanos, 1_000),
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" => self.add_time(whole, nanos, 1),
            _ => None,
        }
    }

    fn add_months(&mut self, (whole, fraction): (i64, i64)) -> Option<()> {
        self.months = self.months.checked_add(whole)?.checked_add(fraction)?;
        Some(())
    }

    /// A fraction of a longer unit: whole days, and the rest as time.
    fn add_day_fraction(&mut self, nano_micros: i128) -> Option<()> {
        let micros = nano_micros / 1_000_000_000;
        self.days = self.days.checked_add(i64::try_from(micros / i128::from(DAY_MICROS)).ok()?)?;
        self.add_micros(micros % i128::from(DAY_MICROS))
    }

    fn add_time(&mut self, whole: i64, nanos: i64, unit_micros: i64) -> Option<()> {
        let total = i128::from(whole) * i128::from(unit_micros);
        let fraction = i128::from(nanos) * i128::from(unit_micros);
        self.add_micros(total + (fraction + fraction.signum() * 500_000_000) / 1_000_000_000)
    }

    fn add_micros(&mut self, micros: i128) -> Option<()> {
        self.micros = self.micros.checked_add(i64::try_from(micros).ok()?)?;
        Some(())
    }
}

/// The interval that `text` says: `1 year 2 months`, `3 days 04:05:06`, `1-2`, `P1Y2MT3H`, each with signs, fractions and
/// `ago`; `None` if it says none. A bare number at the end counts seconds.
pub(crate) fn parse(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim().to_lowercase();
    if let Some(rest) = text.strip_prefix('p') {
        return parse_iso(rest);
    }
    let mut parts = Parts::default();
    let (text, is_ago) = text.strip_suffix("ago").map_or((text.as_str(), false), |rest| (rest, true));
    let text = text.strip_prefix('@').unwrap_or(text);
    let mut words = split(text).into_iter().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            parts.add_micros(i128::from(clock(&word)?))?;
        } else if let Some((years, months)) = year_month(&word) {
            parts.months = parts.months.checked_add(years.checked_mul(12)?)?.checked_add(months)?;
        } else {
            let (whole, nanos) = number(&word)?;
            let unit = words.next_if(|next| next.starts_with(|c: char| c.is_ascii_alphabetic()));
            // A number before a time of day counts days, as in '1 02:03:04'.
            let default = if words.peek().is_some_and(|next| next.contains(':')) { "day" } else { "second" };
            parts.add(whole, nanos, unit.as_deref().unwrap_or(default))?;
        }
    }
    let sign = if is_ago { -1 } else { 1 };
    interval(parts.months * sign, parts.days * sign, parts.micros.checked_mul(sign)?)
}

/// Words, also where a number touches its unit: `3days`.
fn split(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = ' ';
    for c in text.chars() {
        let starts_unit = c.is_ascii_alphabetic() && (previous.is_ascii_digit() || previous == '.');
        let starts_number = !c.is_ascii_alphabetic() && previous.is_ascii_alphabetic();
        if c.is_whitespace() || c == ',' {
            previous = ' ';
            continue;
        }
        if previous == ' ' || starts_unit || starts_number {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
        previous = c;
    }
    words
}

/// A number and its fraction in 10⁻⁹, both with the sign.
fn number(word: &str) -> Option<(i64, i64)> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((sign * whole, sign * nanos))
}

/// Microseconds of `[-]h:m[:s[.f]]`.
fn clock(word: &str) -> Option<i64> {
    let (sign, word) = match word.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let mut fields = word.split(':');
    let (hours, minutes) = (fields.next()?, fields.next()?);
    let (seconds, nanos) = number(fields.next().unwrap_or("0"))?;
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if fields.next().is_some() || !is_digits(hours) || !is_digits(minutes) || seconds < 0 || nanos < 0 {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let whole = hours.checked_mul(3_600)?.checked_add(minutes * 60 + seconds)?;
    whole.checked_mul(1_000_000)?.checked_add((nanos + 500) / 1_000)?.checked_mul(sign)
}

/// `1-2`: a year and two months.
fn year_month(word: &str) -> Option<(i64, i64)> {
    let (sign, rest) = word.strip_prefix('-').map_or((1, word), |rest| (-1, rest));
    let (years, months) = rest.split_once('-')?;
    let (years, months): (i64, i64) = (years.parse().ok()?, months.parse().ok()?);
    (0..12).contains(&months).then_some((sign * years, sign * months))
}

/// ISO 8601, without its `P`: `1y2m3dt4h5m6.7s`.
fn parse_iso(text: &str) -> Option<IntervalMonthDayNano> {
    let (date, time) = text.split_once('t').unwrap_or((text, ""));
    let mut parts = Parts::default();
    for (fields, units) in [(date, ["y", "m", "w", "d"]), (time, ["h", "m", "s", ""])] {
        let mut rest = fields;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
            let ((whole, nanos), unit) = (number(&rest[..end])?, &rest[end..=end]);
            let position = units.iter().position(|known| *known == unit)?;
            let name = if units[0] == "y" {
                ["year", "month", "week", "day"][position]
            } else {
                ["hour", "minute", "second", ""][position]
            };
            parts.add(whole, nanos, name)?;
            rest = &rest[end + 1..];
        }
    }
    (!text.is_empty()).then(|| interval(parts.months, parts.days, parts.micros))?
}

/// The interval times `factor`, whose fractions go down from months to days and from days to time.
pub(crate) fn scaled(value: IntervalMonthDayNano, factor: f64) -> Option<IntervalMonthDayNano> {
    let part = |amount: f64| -> Option<i64> { (amount.is_finite() && amount.abs() < 9.2e18).then_some(amount as i64) };
    // Rounded to the microsecond before it is cut, or 0.1 × 10 days would lose a day to the last bit.
    let near = |amount: f64| (amount * 1e6).round_ties_even() / 1e6;
    let months = f64::from(value.months) * factor;
    let whole_months = part(near(months))?;
    let month_days = near((near(months) - whole_months as f64) * 30.0);
    let whole_month_days = part(month_days)?;
    let days = f64::from(value.days) * factor;
    let whole_days = part(near(days))?;
    let rest = near(month_days - whole_month_days as f64) + near(near(days) - whole_days as f64);
    let micros = value.nanoseconds as f64 / 1_000.0 * factor + rest * DAY_MICROS as f64;
    interval(whole_months, whole_days.checked_add(whole_month_days)?, part(micros.round_ties_even())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        let mut out = String::new();
        match parse(text) {
            Some(value) => write(value, &mut out),
            None => out.push_str("invalid"),
        }
        out
    }

    #[test]
    fn texts_are_read_and_shown_as_postgresql_does() {
        for (text, shown) in [
            ("1 day 02:03:04", "1 day 02:03:04"),
            ("1 year 2 months", "1 year 2 mons"),
            ("-1 month 1 day", "-1 mons +1 day"),
            ("1 month -1 day", "1 mon -1 days"),
            ("-1 day 2 hours", "-1 days +02:00:00"),
            ("3days", "3 days"),
            ("1.5 days", "1 day 12:00:00"),
            ("1.5 months", "1 mon 15 days"),
            ("1.5 years", "1 year 6 mons"),
            ("0.5 weeks", "3 days 12:00:00"),
            ("1-2", "1 year 2 mons"),
            ("P1Y2M3DT4H5M6.7S", "1 year 2 mons 3 days 04:05:06.7"),
            ("PT1H", "01:00:00"),
            ("90 minutes", "01:30:00"),
            ("2 days ago", "-2 days"),
            ("1 02:03", "1 day 02:03:00"),
            ("5", "00:00:05"),
            ("100 hours", "100:00:00"),
            ("-00:00:00.5", "-00:00:00.5"),
            ("0 days", "00:00:00"),
            ("1 week", "7 days"),
            ("1 century", "100 years"),
            ("1.5 seconds", "00:00:01.5"),
            ("day", "invalid"),
            ("", "invalid"),
            ("1 parsec", "invalid"),
            ("1:99", "invalid"),
            ("99999999999 years", "invalid"),
        ] {
            assert_eq!(round(text), shown, "{text}");
        }
    }

    #[test]
    fn a_month_counts_thirty_days_and_a_day_twenty_four_hours() {
        let micros = |text| order_micros(parse(text).unwrap());
        assert_eq!(micros("1 month"), micros("30 days"));
        assert!(micros("25 hours") > micros("1 day"));
        assert!(micros("-1 month") < micros("-29 days"));
    }

    #[test]
    fn fractions_go_down_to_smaller_units() {
        let mut out = String::new();
        write(scaled(parse("1 month 1 day").unwrap(), 1.5).unwrap(), &mut out);
        assert_eq!(out, "1 mon 16 days 12:00:00");
        out.clear();
        write(scaled(parse("1 day").unwrap(), 0.5).unwrap(), &mut out);
        assert_eq!(out, "12:00:00");
    }
}
