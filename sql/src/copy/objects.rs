//! JSON: objects one after the other, one a line or not, or an array of them. A key is a column's name; a key that is
//! left out gets the column's default. Values are read as in `INSERT INTO t {…}`.
//!
//! Objects are found by their braces, outside of strings, so that the file is never in memory as a whole. A JSON `null`
//! is NULL also for a column of JSON, whose document `null` is therefore not kept apart from it.

use std::io::Read;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::load::{Piece, Places, Target};
use super::records::bad;
use crate::dml::{Context, insert};
use crate::error::{Error, Result, SqlState};
use crate::statement::json::{JsonObject, parse_objects};
use crate::types::{is_json_field, json, write_text};

const PIECE_ROWS: usize = 8192;
const PIECE_BYTES: usize = 4 << 20;
const STEP_BYTES: usize = 256 << 10;
/// As for records of delimited files: an end that never comes.
const OBJECT_BYTES_MAX: usize = 64 << 20;

/// What stands around objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Nothing was read yet.
    Unknown,
    Lines,
    /// Within `[…]`; whether an object, or a comma and an object, must come.
    Array {
        is_first: bool,
    },
    /// Behind `]`.
    Closed,
}

/// Rows of a JSON file.
pub(super) struct ObjectSource {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    at: usize,
    is_at_end: bool,
    line: u64,
    frame: Frame,
    failed: Option<Error>,
}

impl ObjectSource {
    pub(super) fn new(input: Box<dyn Read + Send>) -> ObjectSource {
        ObjectSource {
            input,
            buffer: Vec::new(),
            at: 0,
            is_at_end: false,
            line: 1,
            frame: Frame::Unknown,
            failed: None,
        }
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// 22P04 for what is no JSON, 42703 for keys that are no columns, and those of values.
    pub(super) fn next(&mut self, context: &Context<'_>, target: &Target) -> Result<Option<Piece>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let (mut lines, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0);
        while lines.len() < PIECE_ROWS && bytes < PIECE_BYTES {
            match self.object(target) {
                Ok(None) => break,
                Ok(Some((line, length, object))) => {
                    lines.push(line);
                    objects.push(object);
                    bytes += length;
                }
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        if lines.is_empty() {
            return self.failed.take().map_or(Ok(None), Err);
        }
        let only = target.is_named.then_some(target.positions.as_slice());
        let columns = insert::object_columns(context, &target.table, &objects, only).map_err(|error| {
            for (line, object) in lines.iter().zip(&objects) {
                let one = std::slice::from_ref(object);
                if let Err(error) = insert::object_columns(context, &target.table, one, only) {
                    return target.at_line(error, *line, None);
                }
            }
            error
        })?;
        Ok(Some(Piece { columns, rows: lines.len(), places: Places::Lines(lines) }))
    }

    /// Line, length and members of the next object.
    fn object(&mut self, target: &Target) -> Result<Option<(u64, usize, JsonObject)>> {
        let fail = |line: u64, message: &str| target.at_line(bad(message), line, None);
        if !self.find_start().map_err(|message| fail(self.line, &message))? {
            return Ok(None);
        }
        let line = self.line;
        let length = self.find_length().map_err(|message| fail(line, &message))?;
        let bytes = &self.buffer[self.at..self.at + length];
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let message = format!("invalid byte sequence for encoding \"UTF8\": 0x{:02x}", bytes[error.valid_up_to()]);
            target.at_line(Error::new(SqlState::InvalidEncoding, message), line, None)
        })?;
        let (mut objects, _) = parse_objects(text, 0).map_err(|error| {
            let what = error.message().strip_prefix("syntax error: ").unwrap_or(error.message());
            // The position within the object is worth nothing beside the line.
            fail(line, &format!("no JSON object: {}", what.split(" at Line").next().unwrap_or(what)))
        })?;
        self.line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at += length;
        Ok(objects.pop().map(|object| (line, length, object)))
    }

    fn fill(&mut self) -> std::result::Result<bool, String> {
        if self.is_at_end {
            return Ok(false);
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + STEP_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(before + read.as_ref().copied().unwrap_or(0));
        let count = read.map_err(|error| format!("cannot read the input: {error}"))?;
        self.is_at_end = count == 0;
        Ok(count > 0)
    }

    /// Goes on to the next `{`, over blanks and what an array has between objects; false at the end.
    fn find_start(&mut self) -> std::result::Result<bool, String> {
        if self.frame == Frame::Unknown {
            while self.buffer.len() < 3 && self.fill()? {}
            if self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.at = 3;
            }
        }
        let mut has_comma = false;
        loop {
            let Some(byte) = self.buffer.get(self.at).copied() else {
                if self.fill()? {
                    continue;
                }
                return match self.frame {
                    Frame::Array { .. } => Err("the array is not closed".to_owned()),
                    _ => Ok(false),
                };
            };
            match (byte, self.frame) {
                (b' ' | b'\t' | b'\r', _) => {}
                (b'\n', _) => self.line += 1,
                (b'[', Frame::Unknown) => self.frame = Frame::Array { is_first: true },
                (b'{', Frame::Unknown | Frame::Lines) => {
                    self.frame = Frame::Lines;
                    return Ok(true);
                }
                (b',', Frame::Array { is_first: false }) if !has_comma => has_comma = true,
                (b'{', Frame::Array { is_first }) if is_first || has_comma => {
                    self.frame = Frame::Array { is_first: false };
                    return Ok(true);
                }
                (b']', Frame::Array { .. }) if !has_comma => self.frame = Frame::Closed,
                _ => return Err("expected a JSON object".to_owned()),
            }
            self.at += 1;
        }
    }

    /// Length of the object that begins here.
    fn find_length(&mut self) -> std::result::Result<usize, String> {
        let (mut length, mut depth, mut in_string, mut is_escaped) = (0, 0_u32, false, false);
        loop {
            let Some(byte) = self.buffer.get(self.at + length).copied() else {
                if length > OBJECT_BYTES_MAX {
                    return Err("an object is longer than 64 MiB".to_owned());
                }
                if self.fill()? {
                    continue;
                }
                return Err("the object is not closed".to_owned());
            };
            length += 1;
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_string => is_escaped = true,
                b'"' => in_string = !in_string,
                b'{' if !in_string => depth += 1,
                b'}' if !in_string => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(length);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Appends the rows as objects, one a line.
///
/// # Errors
/// Values that have no text.
pub(super) fn encode(batch: &RecordBatch, keys: &[String], out: &mut Vec<u8>) -> Result<()> {
    let schema: SchemaRef = batch.schema();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        text.clear();
        for (at, (array, field)) in batch.columns().iter().zip(schema.fields()).enumerate() {
            text.push(if at == 0 { '{' } else { ',' });
            text.push_str(&keys[at]);
            text.push(':');
            push_value(array, field, row, &mut text)?;
        }
        text.push_str(if batch.num_columns() == 0 { "{}\n" } else { "}\n" });
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

/// Keys of the objects: names in quotes.
pub(super) fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| json::quoted(name)).collect()
}

fn push_value(array: &ArrayRef, field: &Field, row: usize, out: &mut String) -> Result<()> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    if let Some(lists) = array.as_list_opt::<i32>() {
        let items = lists.value(row);
        let item = Field::new("item", items.data_type().clone(), true);
        out.push('[');
        for at in 0..items.len() {
            if at > 0 {
                out.push(',');
            }
            push_value(&items, &item, at, out)?;
        }
        out.push(']');
        return Ok(());
    }
    let mut text = String::new();
    match array.data_type() {
        DataType::Boolean => text.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        _ => write_text(array.as_ref(), row, &mut text)?,
    }
    // NaN and infinity are no numbers of JSON.
    let is_number = array.data_type().is_numeric() && text.bytes().any(|byte| byte.is_ascii_digit());
    if is_json_field(field) {
        // Ends of lines in a document can only be blanks.
        out.extend(text.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    } else if is_number || *array.data_type() == DataType::Boolean {
        out.push_str(&text);
    } else {
        out.push_str(&json::quoted(&text));
    }
    Ok(())
}

/// Refuses names that two columns have, where columns go by name.
///
/// # Errors
/// 42701.
pub(super) fn check_names(names: &[&str]) -> Result<()> {
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(Error::new(SqlState::DuplicateColumn, format!("two columns are named {name}"))
                .with_hint("columns go by name in this format: name them apart with AS"));
        }
    }
    Ok(())
}
