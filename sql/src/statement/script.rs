//! Cuts a script into statements without parsing them.
//!
//! Semicolons inside quotes, dollar quotes, comments and JSON do not count. A piece that reads
//! `INSERT INTO name {` or `INSERT INTO name [{` is the JSON form and is read here to its end, because JSON's strings
//! follow other rules than SQL's.

use super::json::{self, JsonInsert};
use crate::error::Result;

/// One statement of a script.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    /// To be parsed as SQL; `offset` is where `text` begins in the script.
    Sql { text: &'a str, offset: usize },
    /// `INSERT INTO name {…}`.
    JsonInsert { text: &'a str, insert: JsonInsert },
}

/// The pieces of `script`, blank ones left out.
///
/// # Errors
/// 42601 for broken JSON. Unfinished quotes are left for the parser to report.
pub(crate) fn split(script: &str) -> Result<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < script.len() {
        let start = skip_blank(script, at);
        if let Some((insert, end)) = json_insert(script, start)? {
            pieces.push(Piece::JsonInsert { text: &script[start..end], insert });
            at = end_of_statement(script, end)?;
            continue;
        }
        let end = find_semicolon(script, start);
        let text = script[start..end].trim_end();
        if !text.is_empty() {
            pieces.push(Piece::Sql { text, offset: start });
        }
        at = end + 1;
    }
    Ok(pieces)
}

/// After the last object of a JSON insert only a semicolon or the end may come.
fn end_of_statement(script: &str, at: usize) -> Result<usize> {
    let next = skip_blank(script, at);
    match script.as_bytes().get(next) {
        None => Ok(script.len()),
        Some(b';') => Ok(next + 1),
        Some(_) => Err(json::syntax_error(script, next, "expected ',' or ';' after a JSON object")),
    }
}

/// Position of the next semicolon that ends a statement, or the script's length.
fn find_semicolon(script: &str, mut at: usize) -> usize {
    let bytes = script.as_bytes();
    while at < bytes.len() {
        at = match bytes[at] {
            b';' => return at,
            b'\'' => {
                let escapes = at > 0 && matches!(bytes[at - 1], b'e' | b'E') && !(at > 1 && is_word(bytes[at - 2]));
                skip_quoted(bytes, at, escapes)
            }
            b'"' => skip_quoted(bytes, at, false),
            b'$' if at == 0 || !is_word(bytes[at - 1]) => skip_dollar_quoted(script, at),
            b'-' | b'/' => skip_comment(bytes, at).unwrap_or(at + 1),
            _ => at + 1,
        };
    }
    bytes.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Behind the quoted text that starts at `at`; doubled quotes end and begin again at once, which comes to the same.
fn skip_quoted(bytes: &[u8], at: usize, escapes: bool) -> usize {
    let quote = bytes[at];
    let mut next = at + 1;
    while next < bytes.len() {
        match bytes[next] {
            b'\\' if escapes => next += 2,
            byte if byte == quote => return next + 1,
            _ => next += 1,
        }
    }
    bytes.len()
}

/// Behind `$tag$ … $tag$` at `at`, or behind the `$` if it opens none.
fn skip_dollar_quoted(script: &str, at: usize) -> usize {
    let bytes = script.as_bytes();
    let Some(length) = bytes[at + 1..].iter().position(|byte| !is_word(*byte)) else { return at + 1 };
    let tag_end = at + 1 + length;
    if bytes[tag_end] != b'$' {
        return at + 1;
    }
    let tag = &script[at..=tag_end];
    match script[tag_end + 1..].find(tag) {
        Some(found) => tag_end + 1 + found + tag.len(),
        None => bytes.len(),
    }
}

/// Behind the comment at `at`, if one starts there. Block comments nest, as in PostgreSQL.
fn skip_comment(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at..].starts_with(b"--") {
        let length = bytes[at..].iter().position(|byte| *byte == b'\n');
        return Some(length.map_or(bytes.len(), |length| at + length + 1));
    }
    if !bytes[at..].starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut next) = (0_usize, at);
    while next < bytes.len() {
        if bytes[next..].starts_with(b"/*") {
            (depth, next) = (depth + 1, next + 2);
        } else if bytes[next..].starts_with(b"*/") {
            (depth, next) = (depth - 1, next + 2);
            if depth == 0 {
                return Some(next);
            }
        } else {
            next += 1;
        }
    }
    Some(bytes.len())
}

/// Behind white space and comments.
pub(crate) fn skip_blank(script: &str, mut at: usize) -> usize {
    let bytes = script.as_bytes();
    loop {
        let blank = script[at..].chars().take_while(|c| c.is_whitespace()).map(char::len_utf8).sum::<usize>();
        at += blank;
        match bytes.get(at).and_then(|_| skip_comment(bytes, at)) {
            Some(end) => at = end,
            None => return at,
        }
    }
}

/// Reads the JSON form of INSERT at `at`: the statement and where it ends.
fn json_insert(script: &str, at: usize) -> Result<Option<(JsonInsert, usize)>> {
    let Some(at) = keyword(script, at, "INSERT") else { return Ok(None) };
    let Some(at) = keyword(script, at, "INTO") else { return Ok(None) };
    let Some((table, at)) = dotted_name(script, at) else { return Ok(None) };
    let at = skip_blank(script, at);
    if !opens_json(script, at) {
        return Ok(None);
    }
    let (objects, end) = json::parse_objects(script, at)?;
    Ok(Some((JsonInsert { table, objects }, end)))
}

/// Whether an object, or an array of them, starts at `at`.
fn opens_json(script: &str, at: usize) -> bool {
    let bytes = script.as_bytes();
    match bytes.get(at) {
        Some(b'{') => true,
        Some(b'[') => matches!(bytes.get(skip_blank(script, at + 1)), Some(b'{' | b']')),
        _ => false,
    }
}

/// Behind the keyword `word` and the blank after it.
fn keyword(script: &str, at: usize, word: &str) -> Option<usize> {
    let found = script.get(at..at + word.len())?;
    let end = at + word.len();
    let ends = script.as_bytes().get(end).is_none_or(|byte| !is_word(*byte));
    (ends && found.eq_ignore_ascii_case(word)).then(|| skip_blank(script, end))
}

/// A name of one to three parts, quoted or not, and where it ends.
fn dotted_name(script: &str, mut at: usize) -> Option<(Vec<String>, usize)> {
    let bytes = script.as_bytes();
    let mut parts = Vec::new();
    loop {
        if bytes.get(at) == Some(&b'"') {
            let mut end = skip_quoted(bytes, at, false);
            while bytes.get(end) == Some(&b'"') {
                end = skip_quoted(bytes, end, false);
            }
            let inner = script.get(at + 1..end.checked_sub(1)?)?;
            parts.push(inner.replace("\"\"", "\""));
            at = end;
        } else {
            let length = bytes[at.min(bytes.len())..].iter().take_while(|byte| is_word(**byte)).count();
            if length == 0 || bytes[at].is_ascii_digit() {
                return None;
            }
            parts.push(script[at..at + length].to_lowercase());
            at += length;
        }
        if bytes.get(at) != Some(&b'.') {
            return Some((parts, at));
        }
        at += 1;
    }
}
