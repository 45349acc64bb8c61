//! Parquet and Arrow IPC: their own libraries read and write them, a batch at a time. Columns go by name; a column of the
//! table that the file does not have gets its default, unless the statement names it.

use std::io::{BufReader, Read, Write};

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use datafusion::parquet::basic::Compression;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;

use super::files::Source as FileSource;
use super::load::{Piece, Places, Target, begins_with, unreadable};
use crate::error::{Error, Result, SqlState};
use crate::types::{Origin, assign, is_json_field, json_field};

const BATCH_ROWS: usize = 8192;

/// Which column of the file goes where.
struct Matching {
    /// Place in the file and position in the table.
    pairs: Vec<(usize, usize)>,
}

impl Matching {
    fn new(file: &Schema, target: &Target) -> Result<Matching> {
        let mut pairs = Vec::new();
        for (at, field) in file.fields().iter().enumerate() {
            let named = target.names().zip(&target.positions).find(|(name, _)| *name == field.name());
            match named {
                Some((name, position)) => {
                    if pairs.iter().any(|(_, taken)| taken == position) {
                        return Err(Error::new(SqlState::DuplicateColumn, format!("the file has two columns {name}")));
                    }
                    pairs.push((at, *position));
                }
                None if target.is_named => {}
                None => {
                    return Err(target
                        .table
                        .column_position(field.name())
                        .err()
                        .unwrap_or_else(|| Error::internal("names")));
                }
            }
        }
        if target.is_named
            && let Some((name, _)) = target
                .names()
                .zip(&target.positions)
                .find(|(_, position)| !pairs.iter().any(|(_, found)| found == *position))
        {
            let names = file.fields().iter().map(|field| field.name().as_str());
            return Err(Error::undefined_column(name, "the file", names));
        }
        Ok(Matching { pairs })
    }

    fn piece(&self, batch: &RecordBatch, first: u64, target: &Target) -> Result<Piece> {
        let places = Places::Rows(first);
        let columns = self.columns(batch, target).map_err(|error| {
            let one = |row: usize| self.columns(&batch.slice(row, 1), target).err().map(|error| (row, error));
            match (0..batch.num_rows()).find_map(one) {
                Some((row, error)) => target.within(error, &places.name(row), None),
                None => error,
            }
        })?;
        Ok(Piece { columns, rows: batch.num_rows(), places })
    }

    fn columns(&self, batch: &RecordBatch, target: &Target) -> Result<Vec<Option<ArrayRef>>> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; target.table.columns().len()];
        for (at, position) in &self.pairs {
            let field = &target.table.columns()[*position].field;
            let array = plain(batch.column(*at))?;
            columns[*position] = Some(assign(&array, field.data_type(), Origin::Literal, field.name())?);
        }
        Ok(columns)
    }
}

/// Values of a dictionary, or of runs, as they are.
fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Dictionary(_, values) => Ok(cast(array, values)?),
        DataType::RunEndEncoded(_, values) => Ok(cast(array, values.data_type())?),
        _ => Ok(array.clone()),
    }
}

/// Rows of a Parquet file.
pub(super) struct ParquetSource {
    batches: ParquetRecordBatchReader,
    matching: Matching,
    next: u64,
}

impl ParquetSource {
    /// # Errors
    /// 22P04 for what is no Parquet; columns that do not match.
    pub(super) fn new(file: FileSource, target: &Target) -> Result<ParquetSource> {
        let fail = |error: ParquetError| unreadable(target, "Parquet", &error);
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(fail)?;
        let matching = Matching::new(builder.schema(), target)?;
        let batches = builder.with_batch_size(BATCH_ROWS).build().map_err(fail)?;
        Ok(ParquetSource { batches, matching, next: 1 })
    }

    pub(super) fn next(&mut self, target: &Target) -> Result<Option<Piece>> {
        let Some(batch) = self.batches.next() else { return Ok(None) };
        let batch = batch.map_err(|error| unreadable(target, "Parquet", &error))?;
        let piece = self.matching.piece(&batch, self.next, target)?;
        self.next += batch.num_rows() as u64;
        Ok(Some(piece))
    }
}

/// Rows of an Arrow file or stream.
pub(super) struct ArrowSource {
    batches: Batches,
    matching: Matching,
    /// What is left of a batch that was larger than a piece.
    rest: Option<RecordBatch>,
    next: u64,
}

enum Batches {
    File(Box<FileReader<BufReader<FileSource>>>),
    Stream(Box<StreamReader<BufReader<Box<dyn Read + Send>>>>),
}

impl ArrowSource {
    /// A file in either of the two formats.
    ///
    /// # Errors
    /// As [`ArrowSource::from_stream`].
    pub(super) fn from_file(file: FileSource, target: &Target) -> Result<ArrowSource> {
        if !begins_with(&file, b"ARROW1")? {
            return ArrowSource::from_stream(Box::new(file), target);
        }
        let reader = FileReader::try_new(BufReader::new(file), None);
        let reader = reader.map_err(|error| unreadable(target, "Arrow", &error))?;
        let matching = Matching::new(&reader.schema(), target)?;
        Ok(ArrowSource { batches: Batches::File(Box::new(reader)), matching, rest: None, next: 1 })
    }

    /// # Errors
    /// 22P04 for what is no Arrow; columns that do not match.
    pub(super) fn from_stream(input: Box<dyn Read + Send>, target: &Target) -> Result<ArrowSource> {
        let reader = StreamReader::try_new(BufReader::new(input), None);
        let reader = reader.map_err(|error| unreadable(target, "Arrow", &error))?;
        let matching = Matching::new(&reader.schema(), target)?;
        Ok(ArrowSource { batches: Batches::Stream(Box::new(reader)), matching, rest: None, next: 1 })
    }

    pub(super) fn next(&mut self, target: &Target) -> Result<Option<Piece>> {
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => {
                let batch = match &mut self.batches {
                    Batches::File(reader) => reader.next(),
                    Batches::Stream(reader) => reader.next(),
                };
                let Some(batch) = batch else { return Ok(None) };
                batch.map_err(|error| unreadable(target, "Arrow", &error))?
            }
        };
        let rows = batch.num_rows().min(BATCH_ROWS);
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        let piece = self.matching.piece(&batch.slice(0, rows), self.next, target)?;
        self.next += rows as u64;
        Ok(Some(piece))
    }
}

/// The schema of a file: names, types, and which text is JSON. What else is known of columns is ours alone.
pub(super) fn file_schema(schema: &Schema) -> SchemaRef {
    let bare = |field: &Field| {
        let bare = Field::new(field.name(), field.data_type().clone(), field.is_nullable());
        if is_json_field(field) { json_field(bare) } else { bare }
    };
    Schema::new(schema.fields().iter().map(|field| bare(field)).collect::<Vec<_>>()).into()
}

/// Writes rows as Parquet or Arrow.
pub(super) enum ColumnarSink<W: Write + Send> {
    Parquet(SchemaRef, Box<ArrowWriter<W>>),
    ArrowFile(SchemaRef, Box<FileWriter<W>>),
    ArrowStream(SchemaRef, Box<StreamWriter<W>>),
}

impl<W: Write + Send> ColumnarSink<W> {
    /// # Errors
    /// 0A000 for types that Parquet does not have; I/O.
    pub(super) fn parquet(out: W, schema: &Schema, compression: Compression) -> Result<ColumnarSink<W>> {
        let schema = file_schema(schema);
        let properties =
            WriterProperties::builder().set_compression(compression).set_created_by("strata".to_owned()).build();
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(parquet_error)?;
        Ok(ColumnarSink::Parquet(schema, Box::new(writer)))
    }

    /// # Errors
    /// I/O.
    pub(super) fn arrow_file(out: W, schema: &Schema) -> Result<ColumnarSink<W>> {
        let schema = file_schema(schema);
        let writer = FileWriter::try_new(out, &schema)?;
        Ok(ColumnarSink::ArrowFile(schema, Box::new(writer)))
    }

    /// # Errors
    /// I/O.
    pub(super) fn arrow_stream(out: W, schema: &Schema) -> Result<ColumnarSink<W>> {
        let schema = file_schema(schema);
        let writer = StreamWriter::try_new(out, &schema)?;
        Ok(ColumnarSink::ArrowStream(schema, Box::new(writer)))
    }

    /// # Errors
    /// I/O.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let bare = |schema: &SchemaRef| batch.clone().with_schema(SchemaRef::clone(schema));
        match self {
            ColumnarSink::Parquet(schema, writer) => writer.write(&bare(schema)?).map_err(parquet_error),
            ColumnarSink::ArrowFile(schema, writer) => Ok(writer.write(&bare(schema)?)?),
            ColumnarSink::ArrowStream(schema, writer) => Ok(writer.write(&bare(schema)?)?),
        }
    }

    /// What it wrote to, everything written.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn finish(self) -> Result<W> {
        match self {
            ColumnarSink::Parquet(_, writer) => writer.into_inner().map_err(parquet_error),
            ColumnarSink::ArrowFile(_, mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner()?)
            }
            ColumnarSink::ArrowStream(_, mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner()?)
            }
        }
    }
}

fn parquet_error(error: ParquetError) -> Error {
    match error {
        ParquetError::NYI(what) => Error::unsupported(format!("Parquet: {what}")),
        other => Error::new(SqlState::IoError, format!("cannot write Parquet: {other}")).with_source(other),
    }
}
