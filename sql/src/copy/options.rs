//! Options of COPY: their names, defaults and what goes with what, as in PostgreSQL.

use std::path::Path;

use datafusion::parquet::basic::{Compression, ZstdLevel};

use crate::error::{Error, Result, SqlState, near};
use crate::statement::copy::{CopyOption, CopyPlace, CopyStatement, CopyValue};

const NAMES: [&str; 12] = [
    "compression",
    "delimiter",
    "encoding",
    "escape",
    "force_not_null",
    "force_null",
    "force_quote",
    "format",
    "header",
    "null",
    "on_error",
    "quote",
];

/// How a file holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// PostgreSQL's own: tabs, `\N` and backslashes.
    Text,
    Csv,
    Json,
    Parquet,
    Arrow,
}

impl Format {
    fn is_delimited(self) -> bool {
        matches!(self, Format::Text | Format::Csv)
    }
}

/// Whether the first line names the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Absent,
    Present,
    /// And must name those that are meant.
    Match,
}

/// Some columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    These(Vec<String>),
    All,
}

impl Columns {
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Columns::These(names) => names.iter().any(|known| known == name),
            Columns::All => true,
        }
    }

    /// Refuses names that are not among `known`.
    pub(crate) fn check(&self, option: &str, known: &[&str]) -> Result<()> {
        let Columns::These(names) = self else { return Ok(()) };
        match names.iter().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let message = format!("{option} names column {name}, which is not copied");
                Err(Error::new(SqlState::InvalidColumnReference, message))
            }
        }
    }
}

/// Options of one COPY, with their defaults.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub format: Format,
    pub header: Header,
    pub delimiter: u8,
    pub null: String,
    pub quote: u8,
    pub escape: u8,
    pub force_quote: Columns,
    pub force_not_null: Columns,
    pub force_null: Columns,
    pub compression: Compression,
}

impl Options {
    /// # Errors
    /// 42601 for options that do not exist or do not go together, 22023 for values they cannot have, 0A000 for what
    /// PostgreSQL has and we do not.
    pub(crate) fn new(copy: &CopyStatement) -> Result<Options> {
        let given = Given { copy };
        given.check()?;
        let (format, extension_delimiter) = given.format()?;
        let is_csv = format == Format::Csv;
        let delimiter = given.byte("delimiter")?.unwrap_or(if is_csv { extension_delimiter } else { b'\t' });
        let quote = given.byte("quote")?.unwrap_or(b'"');
        let options = Options {
            format,
            header: given.header()?,
            delimiter,
            null: given.text("null")?.unwrap_or_else(|| if is_csv { String::new() } else { "\\N".to_owned() }),
            quote,
            escape: given.byte("escape")?.unwrap_or(quote),
            force_quote: given.columns("force_quote")?,
            force_not_null: given.columns("force_not_null")?,
            force_null: given.columns("force_null")?,
            compression: given.compression()?,
        };
        given.check_fit(&options)?;
        Ok(options)
    }
}

/// Options as they were written.
struct Given<'a> {
    copy: &'a CopyStatement,
}

impl Given<'_> {
    fn find(&self, name: &str) -> Option<&CopyOption> {
        self.copy.options.iter().find(|option| option.name == name)
    }

    /// Names, repetitions, and options with one possible value.
    fn check(&self) -> Result<()> {
        for (at, option) in self.copy.options.iter().enumerate() {
            let name = option.name.as_str();
            if name == "freeze" {
                return Err(Error::unsupported("COPY … FREEZE"));
            }
            if !NAMES.contains(&name) {
                let hint = near::nearest(name, NAMES).map(|near| format!("did you mean {near}?"));
                let hint = hint.unwrap_or_else(|| format!("the options are {}", NAMES.join(", ")));
                return Err(
                    Error::new(SqlState::Syntax, format!("option {name} of COPY does not exist")).with_hint(hint)
                );
            }
            if self.copy.options[..at].iter().any(|earlier| earlier.name == name) {
                return Err(Error::new(SqlState::Syntax, format!("option {name} of COPY is given twice")));
            }
        }
        if let Some(encoding) = self.text("encoding")?
            && !matches!(encoding.to_lowercase().replace(['-', '_'], "").as_str(), "utf8" | "unicode")
        {
            return Err(
                Error::unsupported(format!("encoding {encoding}")).with_hint("files are read and written as UTF-8")
            );
        }
        match self.text("on_error")?.map(|value| value.to_lowercase()) {
            Some(value) if value != "stop" => {
                Err(Error::unsupported(format!("ON_ERROR {value}")).with_hint("a COPY that fails loads nothing"))
            }
            _ => Ok(()),
        }
    }

    /// The format, given or guessed, and the delimiter of a CSV file with that name.
    fn format(&self) -> Result<(Format, u8)> {
        let path = match &self.copy.place {
            CopyPlace::File(path) => Path::new(path),
            CopyPlace::Client => Path::new(""),
        };
        let extension =
            path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
        let delimiter = if extension == "tsv" { b'\t' } else { b',' };
        if let Some(name) = self.text("format")? {
            let format = match name.to_lowercase().as_str() {
                "text" => Format::Text,
                "csv" => Format::Csv,
                "json" | "jsonl" | "ndjson" => Format::Json,
                "parquet" => Format::Parquet,
                "arrow" => Format::Arrow,
                "binary" => return Err(Error::unsupported("COPY in format binary").with_hint("use parquet or arrow")),
                other => {
                    return Err(Error::new(SqlState::InvalidParameter, format!("COPY format {other} does not exist"))
                        .with_hint("the formats are text, csv, json, parquet and arrow"));
                }
            };
            return Ok((format, b','));
        }
        let format = match extension.as_str() {
            "csv" | "tsv" => Format::Csv,
            "json" | "jsonl" | "ndjson" => Format::Json,
            "parquet" => Format::Parquet,
            "arrow" | "feather" | "ipc" => Format::Arrow,
            _ => Format::Text,
        };
        Ok((format, delimiter))
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        match self.find(name).map(|option| &option.value) {
            None => Ok(None),
            Some(CopyValue::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::new(SqlState::Syntax, format!("option {name} of COPY wants one value"))),
        }
    }

    fn byte(&self, name: &str) -> Result<Option<u8>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.as_bytes() {
            [byte] if !matches!(byte, b'\n' | b'\r' | 0) => Ok(Some(*byte)),
            _ => Err(Error::new(SqlState::InvalidParameter, format!("{name} of COPY cannot be {text:?}"))
                .with_hint("it is one character of one byte, and no end of a line")),
        }
    }

    fn header(&self) -> Result<Header> {
        let Some(option) = self.find("header") else { return Ok(Header::Absent) };
        let text = match &option.value {
            CopyValue::None => return Ok(Header::Present),
            CopyValue::Text(text) => text.to_lowercase(),
            _ => String::new(),
        };
        match text.as_str() {
            "true" | "on" | "1" => Ok(Header::Present),
            "false" | "off" | "0" => Ok(Header::Absent),
            "match" if self.copy.is_from => Ok(Header::Match),
            "match" => Err(Error::new(SqlState::InvalidParameter, "HEADER MATCH is for COPY … FROM")),
            _ => Err(Error::new(SqlState::Syntax, "header of COPY is true, false or match")),
        }
    }

    fn columns(&self, name: &str) -> Result<Columns> {
        match self.find(name).map(|option| &option.value) {
            None => Ok(Columns::These(Vec::new())),
            Some(CopyValue::All) => Ok(Columns::All),
            Some(CopyValue::Names(names)) => Ok(Columns::These(names.clone())),
            Some(CopyValue::Text(column)) => Ok(Columns::These(vec![column.clone()])),
            Some(CopyValue::None) => {
                Err(Error::new(SqlState::Syntax, format!("option {name} of COPY wants a list of columns")))
            }
        }
    }

    fn compression(&self) -> Result<Compression> {
        Ok(match self.text("compression")?.map(|name| name.to_lowercase()).as_deref() {
            None | Some("snappy") => Compression::SNAPPY,
            Some("zstd") => Compression::ZSTD(ZstdLevel::default()),
            Some("lz4" | "lz4_raw") => Compression::LZ4_RAW,
            Some("none" | "uncompressed") => Compression::UNCOMPRESSED,
            Some(other) => {
                return Err(Error::unsupported(format!("compression {other}"))
                    .with_hint("use snappy, zstd, lz4 or uncompressed"));
            }
        })
    }

    /// Refuses options that the format or the direction has no use for, and characters that would be mistaken.
    fn check_fit(&self, options: &Options) -> Result<()> {
        let (format, is_from) = (options.format, self.copy.is_from);
        for option in &self.copy.options {
            let (is_fit, need) = match option.name.as_str() {
                "delimiter" | "null" | "header" => (format.is_delimited(), "format csv or text"),
                "quote" | "escape" => (format == Format::Csv, "format csv"),
                "force_quote" => (format == Format::Csv && !is_from, "format csv and COPY … TO"),
                "force_null" | "force_not_null" => (format == Format::Csv && is_from, "format csv and COPY … FROM"),
                "compression" => (format == Format::Parquet && !is_from, "format parquet and COPY … TO"),
                "on_error" => (is_from, "COPY … FROM"),
                _ => (true, ""),
            };
            if !is_fit {
                let message = format!("option {} of COPY needs {need}", option.name);
                return Err(Error::new(SqlState::Syntax, message));
            }
        }
        let clash = |what: &str| Err(Error::new(SqlState::InvalidParameter, format!("COPY would mistake {what}")));
        let null = options.null.as_bytes();
        match format {
            Format::Csv | Format::Text if null.iter().any(|byte| matches!(byte, b'\n' | b'\r')) => {
                clash("the null text for the end of a line")
            }
            Format::Csv | Format::Text if null.contains(&options.delimiter) => clash("the null text for a delimiter"),
            Format::Csv if options.delimiter == options.quote => clash("the delimiter for a quote"),
            Format::Csv if null.contains(&options.quote) => clash("the null text for a quote"),
            Format::Text if options.delimiter.is_ascii_alphanumeric() || matches!(options.delimiter, b'\\' | b'.') => {
                clash("the delimiter for an escape")
            }
            _ => Ok(()),
        }
    }
}
