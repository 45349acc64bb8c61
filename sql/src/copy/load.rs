//! COPY … FROM: pieces of a file, written to the table one after the other, as INSERT writes rows.

use std::io::Read;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::execution::memory_pool::MemoryConsumer;

use super::columnar::{ArrowSource, ParquetSource};
use super::delimited::DelimitedSource;
use super::files::Source as FileSource;
use super::objects::ObjectSource;
use super::options::{Format, Options};
use super::{Input, files};
use crate::catalog::Table;
use crate::dml::{Context, insert};
use crate::error::{Error, Result, SqlState};
use crate::statement::copy::{CopyStatement, CopyWhat};

/// Longest value that is shown in an error.
const SHOWN_CHARS_MAX: usize = 100;

/// The table a file goes to, and which of its columns.
pub(super) struct Target {
    pub table: Arc<Table>,
    /// In the order of the file, where places count.
    pub positions: Vec<usize>,
    /// Whether the statement names them.
    pub is_named: bool,
    /// The file, if it is one.
    file: Option<String>,
}

impl Target {
    fn new(table: Arc<Table>, columns: &[String], input: &Input) -> Result<Target> {
        let mut positions = Vec::with_capacity(columns.len());
        for name in columns {
            let position = table.column_position(name)?;
            if positions.contains(&position) {
                return Err(Error::new(SqlState::DuplicateColumn, format!("column {name} is named twice")));
            }
            positions.push(position);
        }
        let is_named = !columns.is_empty();
        if !is_named {
            positions = (0..table.columns().len()).collect();
        }
        let file = match input {
            Input::File(path) => Some(path.display().to_string()),
            Input::Stream(_) => None,
        };
        Ok(Target { table, positions, is_named, file })
    }

    /// Names of the columns.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.positions.iter().map(|position| self.table.columns()[*position].field.name().as_str())
    }

    /// The column that stands at `at` in the file.
    pub(super) fn field(&self, at: usize) -> &Field {
        &self.table.columns()[self.positions[at]].field
    }

    /// Values of the columns, in their order, as a piece.
    pub(super) fn piece(&self, values: Vec<ArrayRef>, rows: usize, places: Places) -> Piece {
        let mut columns = vec![None; self.table.columns().len()];
        for (position, array) in self.positions.iter().zip(values) {
            columns[*position] = Some(array);
        }
        Piece { columns, rows, places }
    }

    /// `error`, with the line of the file, and the column and its value if they are known.
    pub(super) fn at_line(&self, error: Error, line: u64, value: Option<(&str, &str)>) -> Error {
        self.within(error, &format!("line {line}"), value)
    }

    /// `error`, with a place of the file.
    pub(super) fn within(&self, error: Error, place: &str, value: Option<(&str, &str)>) -> Error {
        let value = value.map(|(column, value)| {
            let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
            let dots = if shown.len() < value.len() { "…" } else { "" };
            format!(", column {column}: \"{shown}{dots}\"")
        });
        let file = self.file.as_ref().map(|file| format!("; file {file}"));
        let (value, file) = (value.unwrap_or_default(), file.unwrap_or_default());
        error.with_context(format!("COPY {}, {place}{value}{file}", self.table.name))
    }
}

/// Some rows of a file.
pub(super) struct Piece {
    /// By position in the table; `None` where the column's default is wanted.
    pub columns: Vec<Option<ArrayRef>>,
    pub rows: usize,
    pub places: Places,
}

/// Where rows stand in the file.
pub(super) enum Places {
    /// Each on its line.
    Lines(Vec<u64>),
    /// Counted from 1; the number of the first one.
    Rows(u64),
}

impl Places {
    pub(super) fn name(&self, row: usize) -> String {
        match self {
            Places::Lines(lines) => format!("line {}", lines.get(row).copied().unwrap_or_default()),
            Places::Rows(first) => format!("row {}", first + row as u64),
        }
    }
}

enum Source {
    Delimited(DelimitedSource),
    Objects(ObjectSource),
    Parquet(ParquetSource),
    Arrow(ArrowSource),
}

impl Source {
    fn open(context: &Context<'_>, input: &Input, options: &Options, target: &Target) -> Result<Source> {
        let file = match input {
            Input::File(path) => Some(FileSource::open(context.engine.files(), path)?),
            Input::Stream(_) => None,
        };
        if options.format == Format::Parquet {
            let file = file.ok_or_else(|| {
                Error::unsupported("COPY … FROM STDIN in format parquet")
                    .with_hint("its footer is at the end: use a file")
            })?;
            return Ok(Source::Parquet(ParquetSource::new(file, target)?));
        }
        if let (Format::Arrow, Some(file)) = (options.format, &file) {
            return Ok(Source::Arrow(ArrowSource::from_file(file.clone(), target)?));
        }
        let reader: Box<dyn Read + Send> = match file {
            Some(file) => Box::new(file),
            None => input.take().ok_or_else(|| {
                Error::new(SqlState::SerializationFailure, "a concurrent transaction won, and the input is used up")
                    .with_hint("run the COPY again, or in a transaction of its own")
            })?,
        };
        Ok(match options.format {
            Format::Json => Source::Objects(ObjectSource::new(reader)),
            Format::Arrow => Source::Arrow(ArrowSource::from_stream(reader, target)?),
            _ => Source::Delimited(DelimitedSource::new(reader, options, target)?),
        })
    }

    fn next(&mut self, context: &Context<'_>, target: &Target) -> Result<Option<Piece>> {
        match self {
            Source::Delimited(source) => source.next(target),
            Source::Objects(source) => source.next(context, target),
            Source::Parquet(source) => source.next(target),
            Source::Arrow(source) => source.next(target),
        }
    }
}

/// Copies `input` into the table that `copy` names; the number of rows.
///
/// # Errors
/// As INSERT, and those of files and formats; what was written stays in the transaction, which the session rolls back.
pub(crate) async fn load(context: &mut Context<'_>, copy: &CopyStatement, input: &Input) -> Result<u64> {
    let CopyWhat::Table { name, columns } = &copy.what else { return Err(Error::internal("COPY into a query")) };
    let options = Options::new(copy)?;
    let target = Target::new(context.target(name)?, columns, input)?;
    let mut source = Source::open(context, input, &options, &target)?;
    let memory = MemoryConsumer::new("COPY").register(&context.base.runtime_env().memory_pool);
    let mut count = 0;
    while let Some(piece) = source.next(context, &target)? {
        let bytes = piece.columns.iter().flatten().map(|array| array.get_array_memory_size()).sum();
        memory.try_resize(bytes)?;
        count += write(context, &target, piece).await?;
        // A file of many pieces must not keep a timeout from being noticed.
        tokio::task::yield_now().await;
    }
    Ok(count)
}

async fn write(context: &mut Context<'_>, target: &Target, piece: Piece) -> Result<u64> {
    let Piece { columns, rows, places } = piece;
    let before = context.txn.savepoint();
    let written = insert::write_columns(context, &target.table, columns.clone(), rows).await;
    let result = match written {
        Err(error) => {
            context.txn.rollback_to(&before);
            Err(locate(context, target, &columns, rows, &places, error).await)
        }
        written => written,
    };
    context.txn.release(before);
    result
}

/// `error` with the place of the row that it is about: the first one that fails when they are written one by one.
async fn locate(
    context: &mut Context<'_>,
    target: &Target,
    columns: &[Option<ArrayRef>],
    rows: usize,
    places: &Places,
    error: Error,
) -> Error {
    if matches!(error.state(), SqlState::OutOfMemory | SqlState::IoError | SqlState::DiskFull | SqlState::DataCorrupted)
    {
        return error;
    }
    for row in 0..rows {
        let one = columns.iter().map(|array| array.as_ref().map(|array| array.slice(row, 1))).collect();
        if let Err(error) = insert::write_columns(context, &target.table, one, 1).await {
            return target.within(error, &places.name(row), None);
        }
    }
    error
}

/// What reading a library's format ran into, as an error of the file.
pub(super) fn unreadable(target: &Target, format: &str, error: &dyn std::fmt::Display) -> Error {
    let message = format!("the file does not read as {format}: {error}");
    target.within(Error::new(SqlState::BadCopyFormat, message), "reading", None)
}

/// Reads the first bytes of a file without moving on.
pub(super) fn begins_with(file: &FileSource, magic: &[u8]) -> Result<bool> {
    let mut first = vec![0; magic.len()];
    let mut head = file.clone().take(magic.len() as u64);
    let mut count = 0;
    while count < first.len() {
        match head.read(&mut first[count..]) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) => return Err(files::failed("read", std::path::Path::new("the file"), error)),
        }
    }
    Ok(first[..count] == *magic)
}
