//! `Records`: bytes of a delimited file → one record at a time, with the number of its first line.
//!
//! Lines end as the first one does: with a line feed, a carriage return, or both. Within the quotes of CSV, and behind a
//! backslash in format text, an end of line is part of the value. Any other is refused, because guessing would glue or
//! cut rows.

use std::io::Read;

use super::options::{Format, Options};
use crate::error::{Error, Result, SqlState};

const STEP_BYTES: usize = 256 << 10;
/// A quote that is never closed makes the rest of the file one record; it is refused before it fills the memory.
const RECORD_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Unknown,
    Lf,
    Cr,
    CrLf,
}

/// What a byte means to the search for the end of a record.
struct Marks {
    is_csv: bool,
    quote: u8,
    /// `None` if quotes are escaped by being doubled, which needs no care here.
    escape: Option<u8>,
}

/// Records of a delimited file.
pub(super) struct Records {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Where the next record begins in the buffer.
    start: usize,
    is_at_end: bool,
    is_first: bool,
    line_end: LineEnd,
    marks: Marks,
    /// Number of the line at `start`.
    line: u64,
}

/// Where the search has come to.
struct Search {
    at: usize,
    lines: u64,
    in_quotes: bool,
    is_escaped: bool,
}

/// One record, without its end of line.
pub(super) struct Record<'r> {
    pub bytes: &'r [u8],
    pub line: u64,
}

impl Records {
    pub(super) fn new(input: Box<dyn Read + Send>, options: &Options) -> Records {
        let is_csv = options.format == Format::Csv;
        let escape = if is_csv { Some(options.escape).filter(|escape| *escape != options.quote) } else { Some(b'\\') };
        Records {
            input,
            buffer: Vec::new(),
            start: 0,
            is_at_end: false,
            is_first: true,
            line_end: LineEnd::Unknown,
            marks: Marks { is_csv, quote: options.quote, escape },
            line: 1,
        }
    }

    /// Number of the line that was begun last.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next record; `None` at the end of the file, and behind `\.` in format text.
    ///
    /// # Errors
    /// 22P04 for ends of lines that differ, quotes that are not closed and records beyond 64 MiB; failures of reading.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if std::mem::take(&mut self.is_first) {
            while self.buffer.len() < 3 && self.fill()? {}
            // The mark of UTF-8 that some programs put first is no data.
            if self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
        }
        let mut search = Search { at: 0, lines: 0, in_quotes: false, is_escaped: false };
        let (end, next) = loop {
            if let Some(found) = self.find_end(&mut search)? {
                break found;
            }
            if self.buffer.len() > RECORD_BYTES_MAX {
                return Err(bad("a record is longer than 64 MiB").with_hint("look for a quote that is not closed"));
            }
            if !self.fill()? {
                if search.in_quotes {
                    return Err(bad("unterminated CSV quoted field"));
                }
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                break (self.buffer.len(), self.buffer.len());
            }
        };
        if !self.marks.is_csv && &self.buffer[..end] == b"\\." {
            return Ok(None);
        }
        let line = self.line;
        self.line += search.lines;
        self.start = next;
        Ok(Some(Record { bytes: &self.buffer[..end], line }))
    }

    fn fill(&mut self) -> Result<bool> {
        if self.is_at_end {
            return Ok(false);
        }
        let before = self.buffer.len();
        self.buffer.resize(before + STEP_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = read.map_err(|error| {
            Error::new(SqlState::IoError, format!("cannot read the input: {error}")).with_source(error)
        });
        self.buffer.truncate(before + count.as_ref().copied().unwrap_or(0));
        self.is_at_end = count? == 0;
        Ok(!self.is_at_end)
    }

    /// Where the record ends and where the next one begins, if the buffer goes that far.
    fn find_end(&mut self, search: &mut Search) -> Result<Option<(usize, usize)>> {
        while let Some(byte) = self.buffer.get(search.at).copied() {
            let at = search.at;
            if matches!(byte, b'\n' | b'\r') {
                if byte == b'\r' && at + 1 == self.buffer.len() && !self.is_at_end {
                    // What follows decides.
                    return Ok(None);
                }
                let is_pair = byte == b'\r' && self.buffer.get(at + 1) == Some(&b'\n');
                let width = if is_pair { 2 } else { 1 };
                search.lines += 1;
                if !search.in_quotes && !search.is_escaped {
                    self.check_line_end(byte, is_pair)?;
                    return Ok(Some((at, at + width)));
                }
                search.is_escaped = false;
                search.at += width;
                continue;
            }
            let may_escape = self.marks.escape == Some(byte) && (search.in_quotes || !self.marks.is_csv);
            if may_escape {
                search.is_escaped = !search.is_escaped;
            } else {
                if self.marks.is_csv && byte == self.marks.quote && !search.is_escaped {
                    search.in_quotes = !search.in_quotes;
                }
                search.is_escaped = false;
            }
            search.at += 1;
        }
        Ok(None)
    }

    fn check_line_end(&mut self, byte: u8, is_pair: bool) -> Result<()> {
        let found = match (byte, is_pair) {
            (b'\n', _) => LineEnd::Lf,
            (_, true) => LineEnd::CrLf,
            _ => LineEnd::Cr,
        };
        if self.line_end == LineEnd::Unknown {
            self.line_end = found;
        }
        if self.line_end == found {
            return Ok(());
        }
        let name = if byte == b'\n' { "newline" } else { "carriage return" };
        if self.marks.is_csv {
            Err(bad(&format!("unquoted {name} found in data")).with_hint("put it in quotes, or end all lines alike"))
        } else {
            let escaped = if byte == b'\n' { "\\n" } else { "\\r" };
            Err(bad(&format!("literal {name} found in data")).with_hint(format!("write it as \"{escaped}\"")))
        }
    }
}

/// 22P04.
pub(super) fn bad(message: &str) -> Error {
    Error::new(SqlState::BadCopyFormat, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::copy::{CopyOption, CopyPlace, CopyStatement, CopyValue, CopyWhat};

    /// Gives one byte at a time.
    struct Slow(std::io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn records(format: &str, text: &str) -> Result<Vec<(u64, String)>> {
        let option = CopyOption { name: "format".to_owned(), value: CopyValue::Text(format.to_owned()) };
        let what = CopyWhat::Table { name: Vec::new(), columns: Vec::new() };
        let copy = CopyStatement { what, is_from: true, place: CopyPlace::Client, options: vec![option] };
        let options = Options::new(&copy).unwrap();
        let mut records = Records::new(Box::new(Slow(std::io::Cursor::new(text.into()))), &options);
        let mut found = Vec::new();
        while let Some(record) = records.next()? {
            found.push((record.line, String::from_utf8_lossy(record.bytes).into_owned()));
        }
        Ok(found)
    }

    #[test]
    fn records_end_where_lines_do_but_not_in_quotes() {
        let owned =
            |found: &[(u64, &str)]| found.iter().map(|(line, text)| (*line, (*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            records("csv", "a,b\n\"x\ny\",c\n\nz").unwrap(),
            owned(&[(1, "a,b"), (2, "\"x\ny\",c"), (4, ""), (5, "z")])
        );
        assert_eq!(records("csv", "\u{feff}a\r\nb\r\n").unwrap(), owned(&[(1, "a"), (2, "b")]));
        assert_eq!(records("csv", "a\rb").unwrap(), owned(&[(1, "a"), (2, "b")]));
        assert_eq!(records("csv", "\\.\nb").unwrap(), owned(&[(1, "\\."), (2, "b")]));
        assert_eq!(records("text", "a\\\nb\nc\n\\.\nd").unwrap(), owned(&[(1, "a\\\nb"), (3, "c")]));
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        for text in ["a\nb\r\n", "a\r\nb\nc", "a\nb\rc\n", "a\n\"b\n"] {
            assert_eq!(records("csv", text).unwrap_err().sqlstate(), "22P04", "{text:?}");
        }
        assert_eq!(records("text", "a\nb\rc\n").unwrap_err().sqlstate(), "22P04");
    }
}
