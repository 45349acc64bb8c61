//! Dates, times and timestamps read from text: ISO 8601 and the common spellings with month names.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::string_to_datetime;

use super::super::calendar::{DAY_MICROS, civil_from_days, days_from_civil, month_days};
use super::{Read, Refusal};

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Days since 1970-01-01. A time behind the date is ignored.
pub(super) fn date(text: &str) -> Read<i32> {
    let moment = Moment::read(text)?;
    i32::try_from(moment.days).map_err(|_| Refusal::Moment)
}

/// Microseconds since 1970-01-01 00:00. Without `is_zoned` a zone is ignored, as PostgreSQL does; with it, a time without
/// zone is UTC.
pub(super) fn timestamp(text: &str, is_zoned: bool) -> Read<i64> {
    let moment = Moment::read(text)?;
    let offset = if is_zoned { moment.offset_micros()? } else { 0 };
    let days = moment.days.checked_mul(DAY_MICROS).ok_or(Refusal::Moment)?;
    days.checked_add(moment.micros - offset).ok_or(Refusal::Moment)
}

/// Microseconds since midnight.
pub(super) fn time(text: &str) -> Read<i64> {
    let text = text.to_ascii_lowercase();
    let (micros, rest) = clock(&text)?;
    match rest.trim() {
        "" | "z" | "utc" if micros < DAY_MICROS => Ok(micros),
        "" => Err(Refusal::Moment),
        _ => Err(Refusal::Syntax),
    }
}

struct Moment {
    days: i64,
    micros: i64,
    /// As written, empty if there is none.
    zone: String,
}

impl Moment {
    fn read(text: &str) -> Read<Moment> {
        let lower = text.to_ascii_lowercase();
        match lower.trim_start_matches(['+', '-']) {
            "infinity" | "inf" => return Err(Refusal::Unsupported("an infinite date")),
            "epoch" => return Ok(Moment { days: 0, micros: 0, zone: String::new() }),
            "now" | "today" | "tomorrow" | "yesterday" => {
                return Err(Refusal::Unsupported("a date relative to the current one"));
            }
            _ => {}
        }
        let (lower, is_bc) = lower.strip_suffix("bc").map_or((lower.as_str(), false), |rest| (rest.trim_end(), true));
        let (days, rest) = calendar_date(lower, is_bc)?;
        let rest = rest.trim_start_matches(|c: char| c == 't' || c.is_whitespace());
        if rest.is_empty() {
            return Ok(Moment { days, micros: 0, zone: String::new() });
        }
        let (micros, left) = clock(rest)?;
        // The zone as it was written: names of zones have capitals.
        let zone = text[..text.len() - if is_bc { 2 } else { 0 }].trim_end();
        let zone = &zone[zone.len().saturating_sub(left.trim().len())..];
        Ok(Moment { days, micros, zone: zone.to_owned() })
    }

    /// How far the zone is ahead of UTC.
    fn offset_micros(&self) -> Read<i64> {
        let zone = self.zone.trim();
        if zone.is_empty() || ["z", "utc", "gmt", "zulu"].iter().any(|name| zone.eq_ignore_ascii_case(name)) {
            return Ok(0);
        }
        if let Some(digits) = zone.strip_prefix(['+', '-']) {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            return Ok(sign * offset_minutes(digits)? * 60_000_000);
        }
        // A name: what its clock shows then depends on the date.
        let (year, month, day) = civil_from_days(self.days);
        let seconds = self.micros / 1_000_000;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let local = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        let utc = utc()?;
        let there = string_to_datetime(&utc, &format!("{local} {zone}")).map_err(|_| Refusal::Syntax)?;
        let here = string_to_datetime(&utc, &format!("{local}Z")).map_err(|_| Refusal::Syntax)?;
        Ok(here.timestamp_micros() - there.timestamp_micros())
    }
}

/// The zone of UTC, as Arrow names it.
fn utc() -> Read<Tz> {
    "+00:00".parse().map_err(|_| Refusal::Syntax)
}

/// `05`, `0530` or `05:30`.
fn offset_minutes(digits: &str) -> Read<i64> {
    let parse = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some((hours, minutes)), _) => (parse(hours), parse(minutes)),
        (None, 1 | 2) => (parse(digits), Some(0)),
        (None, 4) => (parse(&digits[..2]), parse(&digits[2..])),
        _ => (None, None),
    };
    match (hours, minutes) {
        (Some(hours @ 0..=15), Some(minutes @ 0..=59)) => Ok(hours * 60 + minutes),
        _ => Err(Refusal::Syntax),
    }
}

/// Days since 1970-01-01 of the date that `text` begins with, and what follows it.
fn calendar_date(text: &str, is_bc: bool) -> Read<(i64, &str)> {
    let (year, month, day, rest) = if text.starts_with(|c: char| c.is_ascii_alphabetic()) || has_month_name(text) {
        named_date(text)?
    } else {
        numeric_date(text)?
    };
    let year = if is_bc { 1 - year } else { year };
    // 4713 BC is where PostgreSQL's calendar begins; the end is Arrow's.
    let is_date = (-4712..=262_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=month_days(year, month)).contains(&day)
        && (is_bc || year != 0);
    if !is_date {
        return Err(Refusal::Moment);
    }
    Ok((days_from_civil(year, month, day), rest))
}

/// `5 jan 2024`.
fn has_month_name(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric()).nth(1).is_some_and(|word| month_of(word).is_some())
}

fn month_of(word: &str) -> Option<i64> {
    let at = MONTHS.iter().position(|month| word == *month || word.len() == 3 && month.starts_with(word))?;
    i64::try_from(at + 1).ok()
}

/// `jan 5 2024`, `5 january 2024`, `january 5, 2024`.
fn named_date(text: &str) -> Read<(i64, i64, i64, &str)> {
    let (mut month, mut numbers, mut rest) = (None, Vec::new(), text);
    while month.is_none() || numbers.len() < 2 {
        rest = rest.trim_start_matches(|c: char| c == ',' || c == '-' || c.is_whitespace());
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        match month_of(word) {
            Some(found) if month.is_none() => month = Some(found),
            _ => numbers.push(digits(word, 1, 6)?),
        }
    }
    match (month, numbers.as_slice()) {
        (Some(month), [day, year]) => Ok((*year, month, *day, rest)),
        _ => Err(Refusal::Syntax),
    }
}

/// `2024-01-05`, `2024/1/5`, `20240105`, `1/5/2024`.
fn numeric_date(text: &str) -> Read<(i64, i64, i64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    let separator = rest.chars().next().filter(|c| matches!(c, '-' | '/' | '.'));
    let Some(separator) = separator else {
        if first.len() != 8 {
            return Err(Refusal::Syntax);
        }
        return Ok((digits(&first[..4], 4, 4)?, digits(&first[4..6], 2, 2)?, digits(&first[6..], 2, 2)?, rest));
    };
    let rest = &rest[1..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (second, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(separator).ok_or(Refusal::Syntax)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (third, rest) = rest.split_at(end);
    if first.len() >= 3 {
        Ok((digits(first, 3, 6)?, digits(second, 1, 2)?, digits(third, 1, 2)?, rest))
    } else {
        Ok((digits(third, 4, 6)?, digits(first, 1, 2)?, digits(second, 1, 2)?, rest))
    }
}

fn digits(text: &str, least: usize, most: usize) -> Read<i64> {
    if !(least..=most).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    text.parse().map_err(|_| Refusal::Syntax)
}

/// Microseconds since midnight of the time of day that `text` begins with, and what follows it.
fn clock(text: &str) -> Read<(i64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(text.len());
    let (clock, rest) = text.split_at(end);
    let mut fields = clock.split(':');
    let hour = digits(fields.next().unwrap_or_default(), 1, 2)?;
    let minute = digits(fields.next().ok_or(Refusal::Syntax)?, 1, 2)?;
    let (second, micros) = match fields.next() {
        None => (0, 0),
        Some(field) => {
            let (second, fraction) = field.split_once('.').unwrap_or((field, ""));
            (digits(second, 1, 2)?, fraction_micros(fraction)?)
        }
    };
    if fields.next().is_some() {
        return Err(Refusal::Syntax);
    }
    let (hour, rest) = match (hour, rest.trim_start()) {
        (1..=12, half) if half.starts_with("am") => (hour % 12, &half[2..]),
        (1..=12, half) if half.starts_with("pm") => (hour % 12 + 12, &half[2..]),
        _ => (hour, rest),
    };
    let total = (hour * 3_600 + minute * 60 + second) * 1_000_000 + micros;
    if minute > 59 || second > 59 || total > DAY_MICROS {
        return Err(Refusal::Moment);
    }
    Ok((total, rest))
}

fn fraction_micros(fraction: &str) -> Read<i64> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::Syntax);
    }
    let padded = format!("{fraction:0<7}");
    let micros = digits(&padded[..6], 6, 6)?;
    Ok(micros + i64::from(padded.as_bytes()[6] >= b'5'))
}
