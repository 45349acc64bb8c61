//! JSON objects of `INSERT INTO name {"column": value, …}`.
//!
//! Read by hand, not with a JSON library, because numbers must keep all their digits on the way into a DECIMAL and the
//! text goes on after the last object. Follows RFC 8259; nested values keep their text, for columns of JSON.

use super::script::skip_blank;
use crate::error::{Error, Result, SqlState};

/// Deepest nesting that is read before it is refused.
const DEPTH_MAX: usize = 64;

/// `INSERT INTO table {…}, {…}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonInsert {
    /// Parts of the table's name.
    pub table: Vec<String>,
    /// One row each: key and value in the order written.
    pub objects: Vec<JsonObject>,
}

/// A JSON value as far as a column can take it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JsonValue {
    Null,
    Boolean(bool),
    /// As written.
    Number(String),
    Text(String),
    /// An array or object, as written.
    Nested(String),
}

/// Members of an object, in the order written.
pub(crate) type JsonObject = Vec<(String, JsonValue)>;

/// One object, several separated by commas, or an array of objects, at `at`; and where they end.
///
/// # Errors
/// 42601 with line and column.
pub(crate) fn parse_objects(script: &str, at: usize) -> Result<(Vec<JsonObject>, usize)> {
    let mut reader = Reader { script, at };
    let mut objects = Vec::new();
    if reader.peek() == Some(b'[') {
        reader.at += 1;
        reader.skip_blank();
        if reader.peek() == Some(b']') {
            return Err(reader.error("expected an object: an empty array has no rows"));
        }
        loop {
            objects.push(reader.object(0)?);
            if !reader.more(b']')? {
                return Ok((objects, reader.at));
            }
        }
    }
    loop {
        objects.push(reader.object(0)?);
        let end = reader.at;
        reader.at = skip_blank(script, end);
        if reader.peek() != Some(b',') {
            return Ok((objects, end));
        }
        reader.at += 1;
    }
}

/// The elements of the JSON array `text`.
///
/// # Errors
/// 42601 if it is none.
pub(crate) fn array_elements(text: &str) -> Result<Vec<JsonValue>> {
    let mut reader = Reader { script: text, at: 0 };
    reader.skip_blank();
    let elements = reader.array(0)?;
    reader.skip_blank();
    if reader.at < text.len() { Err(reader.error("expected the end of the array")) } else { Ok(elements) }
}

/// A syntax error at byte `at` of `script`.
pub(crate) fn syntax_error(script: &str, at: usize, what: &str) -> Error {
    let before = &script[..floor_char(script, at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Error::new(SqlState::Syntax, format!("syntax error: {what} at Line: {line}, Column: {column}"))
        .with_hint("the JSON form is INSERT INTO table {\"column\": value, …}")
}

fn floor_char(script: &str, at: usize) -> usize {
    (0..=at.min(script.len())).rev().find(|at| script.is_char_boundary(*at)).unwrap_or(0)
}

struct Reader<'a> {
    script: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.script.as_bytes().get(self.at).copied()
    }

    fn error(&self, what: &str) -> Error {
        syntax_error(self.script, self.at, what)
    }

    /// JSON's own white space; SQL comments may stand between objects but not within.
    fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Result<()> {
        self.skip_blank();
        if self.peek() != Some(byte) {
            return Err(self.error(&format!("expected '{}'", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    /// Behind a comma (true) or behind `close` (false).
    fn more(&mut self, close: u8) -> Result<bool> {
        self.skip_blank();
        let found = self.peek();
        if found != Some(b',') && found != Some(close) {
            return Err(self.error(&format!("expected ',' or '{}'", char::from(close))));
        }
        self.at += 1;
        Ok(found == Some(b','))
    }

    fn object(&mut self, depth: usize) -> Result<JsonObject> {
        self.take(b'{')?;
        let mut members = JsonObject::new();
        self.skip_blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(members);
        }
        loop {
            self.skip_blank();
            let start = self.at;
            let key = self.text()?;
            if depth == 0 && members.iter().any(|(known, _)| *known == key) {
                self.at = start;
                return Err(self.error(&format!("key {key:?} appears twice")));
            }
            self.take(b':')?;
            let value = self.value(depth)?;
            members.push((key, value));
            if !self.more(b'}')? {
                return Ok(members);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<JsonValue> {
        if depth >= DEPTH_MAX {
            return Err(self.error("JSON is nested too deeply"));
        }
        self.skip_blank();
        match self.peek() {
            Some(b'"') => Ok(JsonValue::Text(self.text()?)),
            Some(b'{') => {
                let start = self.at;
                self.object(depth + 1)?;
                Ok(JsonValue::Nested(self.script[start..self.at].to_owned()))
            }
            Some(b'[') => {
                let start = self.at;
                self.array(depth + 1)?;
                Ok(JsonValue::Nested(self.script[start..self.at].to_owned()))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<JsonValue>> {
        self.take(b'[')?;
        self.skip_blank();
        let mut elements = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(elements);
        }
        loop {
            elements.push(self.value(depth)?);
            if !self.more(b']')? {
                return Ok(elements);
            }
        }
    }

    fn word(&mut self) -> Result<JsonValue> {
        let words =
            [("null", JsonValue::Null), ("true", JsonValue::Boolean(true)), ("false", JsonValue::Boolean(false))];
        for (word, value) in words {
            if self.script[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.error("expected a JSON value"))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<JsonValue> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.digits() == 0 {
            return Err(self.error("expected a digit"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.error("expected a digit after the point"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.error("expected a digit in the exponent"));
            }
        }
        Ok(JsonValue::Number(self.script[start..self.at].to_owned()))
    }

    fn text(&mut self) -> Result<String> {
        self.take(b'"')?;
        let mut text = String::new();
        loop {
            let rest = &self.script[self.at..];
            let Some(next) = rest.chars().next() else { return Err(self.error("unfinished JSON string")) };
            self.at += next.len_utf8();
            match next {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                control if control < ' ' => return Err(self.error("control characters must be escaped")),
                plain => text.push(plain),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let Some(escaped) = self.peek() else { return Err(self.error("unfinished JSON string")) };
        self.at += 1;
        match escaped {
            b'"' => Ok('"'),
            b'\\' => Ok('\\'),
            b'/' => Ok('/'),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'u' => self.unicode(),
            _ => {
                self.at -= 1;
                Err(self.error("unknown escape"))
            }
        }
    }

    /// `\uXXXX`, or two of them for a character beyond the basic plane.
    fn unicode(&mut self) -> Result<char> {
        let high = self.hex4()?;
        if (0xd800..0xdc00).contains(&high) && self.script[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code).ok_or_else(|| self.error("no such character"));
            }
            return Err(self.error("half of a surrogate pair"));
        }
        char::from_u32(high).ok_or_else(|| self.error("half of a surrogate pair"))
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.script.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}
