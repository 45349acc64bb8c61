//! Fields of CSV and of PostgreSQL's text format: records → values, values → records.
//!
//! In CSV a field is NULL if it reads as the null text and has no quotes; quotes may begin and end anywhere in a field. In
//! format text a field is NULL if it reads as the null text before escapes are looked at.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringViewBuilder};
use arrow::record_batch::RecordBatch;

use super::load::{Piece, Places, Target};
use super::options::{Format, Header, Options};
use super::records::{Record, Records, bad};
use crate::error::{Error, Result, SqlState};
use crate::types::{Origin, assign, write_text};

/// Rows go to the table in pieces of at most this many, and of about this many bytes.
const PIECE_ROWS: usize = 8192;
const PIECE_BYTES: usize = 4 << 20;

/// Fields of one record: their text, one behind the other, and where each lies.
#[derive(Default)]
struct Fields {
    text: Vec<u8>,
    /// Place in `text`, whether there were quotes, and whether it read as the null text before escapes.
    fields: Vec<(Range<usize>, bool, bool)>,
}

impl Fields {
    fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    fn split_csv(&mut self, record: &[u8], options: &Options) {
        self.clear();
        let (mut start, mut has_quotes, mut in_quotes, mut at) = (0, false, false, 0);
        while let Some(byte) = record.get(at).copied() {
            let next = record.get(at + 1).copied();
            if in_quotes
                && byte == options.escape
                && next.is_some_and(|next| next == options.escape || next == options.quote)
            {
                self.text.extend(next);
                at += 1;
            } else if byte == options.quote {
                (in_quotes, has_quotes) = (!in_quotes, true);
            } else if byte == options.delimiter && !in_quotes {
                self.end(&mut start, has_quotes, options);
                has_quotes = false;
            } else {
                self.text.push(byte);
            }
            at += 1;
        }
        self.end(&mut start, has_quotes, options);
    }

    fn end(&mut self, start: &mut usize, has_quotes: bool, options: &Options) {
        let place = *start..self.text.len();
        let is_null = !has_quotes && self.text[place.clone()] == *options.null.as_bytes();
        self.fields.push((place, has_quotes, is_null));
        *start = self.text.len();
    }

    fn split_text(&mut self, record: &[u8], options: &Options) {
        self.clear();
        let (mut from, mut at) = (0, 0);
        loop {
            // A delimiter behind a backslash is data.
            match record.get(at) {
                Some(b'\\') if at + 1 < record.len() => at += 2,
                Some(byte) if *byte != options.delimiter => at += 1,
                found => {
                    let (raw, start) = (&record[from..at], self.text.len());
                    unescape(raw, &mut self.text);
                    self.fields.push((start..self.text.len(), false, raw == options.null.as_bytes()));
                    if found.is_none() {
                        return;
                    }
                    at += 1;
                    from = at;
                }
            }
        }
    }
}

/// Escapes of format text; a backslash before anything else stands for that.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        let (b'\\', Some((escaped, tail))) = (*byte, tail.split_first()) else {
            out.push(*byte);
            continue;
        };
        rest = tail;
        let number = |digits: usize, radix: u32, from: &[u8]| {
            let count = from.iter().take(digits).take_while(|byte| char::from(**byte).is_digit(radix)).count();
            let text = std::str::from_utf8(&from[..count]).unwrap_or_default();
            // Three octal digits may go beyond a byte; PostgreSQL keeps the low bits.
            u32::from_str_radix(text, radix).ok().map(|value| ((value & 0xff) as u8, count))
        };
        match escaped {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let (value, count) = number(2, 8, tail).unwrap_or((0, 0));
                let first = escaped - b'0';
                out.push((u32::from(first) * 8_u32.pow(count as u32) + u32::from(value)) as u8);
                rest = &tail[count..];
            }
            b'x' => match number(2, 16, tail) {
                Some((value, count)) => {
                    out.push(value);
                    rest = &tail[count..];
                }
                None => out.push(b'x'),
            },
            other => out.push(*other),
        }
    }
}

/// Rows of a delimited file.
pub(super) struct DelimitedSource {
    records: Records,
    options: Options,
    fields: Fields,
    is_begun: bool,
    /// What went wrong behind the rows that were given.
    failed: Option<Error>,
}

impl DelimitedSource {
    /// # Errors
    /// 42P10 for columns in options that are not copied.
    pub(super) fn new(input: Box<dyn Read + Send>, options: &Options, target: &Target) -> Result<DelimitedSource> {
        let names: Vec<&str> = target.names().collect();
        options.force_null.check("FORCE_NULL", &names)?;
        options.force_not_null.check("FORCE_NOT_NULL", &names)?;
        let records = Records::new(input, options);
        Ok(DelimitedSource {
            records,
            options: options.clone(),
            fields: Fields::default(),
            is_begun: false,
            failed: None,
        })
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// 22P04 and 22021 with the line, and those of values.
    pub(super) fn next(&mut self, target: &Target) -> Result<Option<Piece>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !std::mem::replace(&mut self.is_begun, true) && self.options.header != Header::Absent {
            self.check_header(target)?;
        }
        let mut columns: Vec<StringViewBuilder> = target.positions.iter().map(|_| StringViewBuilder::new()).collect();
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < PIECE_ROWS && bytes < PIECE_BYTES {
            match self.read_row(target, &mut columns) {
                Ok(None) => break,
                Ok(Some((line, row_bytes))) => {
                    lines.push(line);
                    bytes += row_bytes;
                }
                // Rows before it come first, also with their failures.
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        if lines.is_empty() {
            return self.failed.take().map_or(Ok(None), Err);
        }
        // A row that failed half-way has left values behind.
        let texts: Vec<ArrayRef> = columns
            .iter_mut()
            .map(|column| column.finish().slice(0, lines.len()))
            .map(|texts| Arc::new(texts) as ArrayRef)
            .collect();
        Ok(Some(convert(target, &texts, lines)?))
    }

    fn split(options: &Options, record: &Record<'_>, fields: &mut Fields) -> Result<u64> {
        match options.format {
            Format::Csv => fields.split_csv(record.bytes, options),
            _ => fields.split_text(record.bytes, options),
        }
        Ok(record.line)
    }

    fn record(&mut self, target: &Target) -> Result<Option<u64>> {
        let found = match self.records.next() {
            Ok(Some(record)) => Self::split(&self.options, &record, &mut self.fields).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        found.map_err(|error| target.at_line(error, self.records.line(), None))
    }

    fn check_header(&mut self, target: &Target) -> Result<()> {
        let Some(line) = self.record(target)? else { return Ok(()) };
        if self.options.header != Header::Match {
            return Ok(());
        }
        let wrong = |message: String| Err(target.at_line(bad(&message), line, None));
        let (found, expected) = (&self.fields.fields, target.names().count());
        if found.len() != expected {
            return wrong(format!("wrong number of fields in header line: got {}, expected {expected}", found.len()));
        }
        for (at, ((place, ..), name)) in found.iter().zip(target.names()).enumerate() {
            let got = String::from_utf8_lossy(&self.fields.text[place.clone()]);
            if got != name {
                let message =
                    format!("column name mismatch in header line field {}: got {got:?}, expected {name:?}", at + 1);
                return wrong(message);
            }
        }
        Ok(())
    }

    /// Appends the values of the next record; its line and size.
    fn read_row(&mut self, target: &Target, columns: &mut [StringViewBuilder]) -> Result<Option<(u64, usize)>> {
        let Some(line) = self.record(target)? else { return Ok(None) };
        let text = std::str::from_utf8(&self.fields.text).map_err(|error| {
            let byte = self.fields.text[error.valid_up_to()];
            let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{byte:02x}");
            target.at_line(Error::new(SqlState::InvalidEncoding, message), line, None)
        })?;
        let count = self.fields.fields.len();
        if count > columns.len() {
            return Err(target.at_line(bad("extra data after last expected column"), line, None));
        }
        if let Some(missing) = target.names().nth(count) {
            return Err(target.at_line(bad(&format!("missing data for column {missing:?}")), line, None));
        }
        for (((place, has_quotes, is_null), column), name) in self.fields.fields.iter().zip(columns).zip(target.names())
        {
            let Some(value) = text.get(place.clone()) else {
                let error = Error::new(SqlState::InvalidEncoding, "a delimiter cuts a character in two");
                return Err(target.at_line(error, line, None));
            };
            let is_null = if *is_null {
                !self.options.force_not_null.has(name)
            } else {
                *has_quotes && value == self.options.null && self.options.force_null.has(name)
            };
            column.append_option((!is_null).then_some(value));
        }
        Ok(Some((line, text.len() + 16 * count)))
    }
}

/// Texts as values of their columns.
fn convert(target: &Target, texts: &[ArrayRef], lines: Vec<u64>) -> Result<Piece> {
    let rows = lines.len();
    let one = |at: usize, array: &ArrayRef| {
        let field = target.field(at);
        assign(array, field.data_type(), Origin::Literal, field.name())
    };
    let converted: Result<Vec<ArrayRef>> = texts.iter().enumerate().map(|(at, array)| one(at, array)).collect();
    if let Err(error) = &converted {
        // Which of them is it? The first row counts, not the first column.
        for (row, line) in lines.iter().enumerate() {
            for (at, array) in texts.iter().enumerate() {
                if let Err(error) = one(at, &array.slice(row, 1)) {
                    let mut value = String::new();
                    write_text(array.as_ref(), row, &mut value)?;
                    return Err(target.at_line(error, *line, Some((target.field(at).name(), &value))));
                }
            }
        }
        return Err(error.clone());
    }
    Ok(target.piece(converted?, rows, Places::Lines(lines)))
}

/// Writes rows as records.
pub(super) struct DelimitedSink {
    options: Options,
    /// Columns whose values are in quotes whatever they are.
    forced: Vec<bool>,
    value: String,
    out: Vec<u8>,
}

impl DelimitedSink {
    /// # Errors
    /// 42P10 for columns in options that are not copied.
    pub(super) fn new(options: &Options, names: &[&str]) -> Result<DelimitedSink> {
        options.force_quote.check("FORCE_QUOTE", names)?;
        let is_csv = options.format == Format::Csv;
        let forced = names.iter().map(|name| is_csv && options.force_quote.has(name)).collect();
        let mut sink = DelimitedSink { options: options.clone(), forced, value: String::new(), out: Vec::new() };
        if options.header != Header::Absent {
            for (at, name) in names.iter().enumerate() {
                (*name).clone_into(&mut sink.value);
                sink.field(at, names.len(), false);
            }
        }
        Ok(sink)
    }

    /// The bytes of the rows, and of the header if they are the first.
    ///
    /// # Errors
    /// Values that have no text.
    pub(super) fn encode(&mut self, batch: &RecordBatch) -> Result<&[u8]> {
        for row in 0..batch.num_rows() {
            for (at, array) in batch.columns().iter().enumerate() {
                let is_null = array.is_null(row);
                self.value.clear();
                if !is_null {
                    write_text(array.as_ref(), row, &mut self.value)?;
                }
                self.field(at, batch.num_columns(), is_null);
            }
            if batch.num_columns() == 0 {
                self.out.push(b'\n');
            }
        }
        Ok(&self.out)
    }

    /// Bytes that were not taken yet: those of the header, if there were no rows.
    pub(super) fn rest(&mut self) -> &[u8] {
        &self.out
    }

    /// Forgets the bytes that were taken.
    pub(super) fn clear(&mut self) {
        self.out.clear();
    }

    fn field(&mut self, at: usize, count: usize, is_null: bool) {
        let Options { delimiter, null, .. } = &self.options;
        if at > 0 {
            self.out.push(*delimiter);
        }
        match self.options.format {
            _ if is_null => self.out.extend_from_slice(null.as_bytes()),
            Format::Csv => self.csv_value(self.forced.get(at) == Some(&true), count == 1),
            _ => self.text_value(),
        }
        if at + 1 == count {
            self.out.push(b'\n');
        }
    }

    fn csv_value(&mut self, is_forced: bool, is_alone: bool) {
        let Options { delimiter, quote, escape, null, .. } = &self.options;
        let bytes = self.value.as_bytes();
        let is_special = |byte: &u8| *byte == *delimiter || *byte == *quote || matches!(byte, b'\n' | b'\r');
        // `\.` alone on a line ends the file for older readers; U+FEFF at its beginning is skipped by ours.
        let is_mistaken = is_alone && self.value == "\\." || self.value.starts_with('\u{feff}');
        if !is_forced && self.value != *null && !is_mistaken && !bytes.iter().any(is_special) {
            return self.out.extend_from_slice(bytes);
        }
        self.out.push(*quote);
        for byte in bytes {
            if byte == quote || byte == escape {
                self.out.push(*escape);
            }
            self.out.push(*byte);
        }
        self.out.push(*quote);
    }

    fn text_value(&mut self) {
        for byte in self.value.bytes() {
            let escaped = match byte {
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                b'\\' => b'\\',
                _ if byte == self.options.delimiter => byte,
                _ => {
                    self.out.push(byte);
                    continue;
                }
            };
            self.out.extend_from_slice(&[b'\\', escaped]);
        }
    }
}
