//! Query results as text or bytes: table, CSV, JSON, JSON lines, Parquet, Arrow IPC.
//!
//! All formats but `table` are written batch by batch, so a result larger than memory can be exported. A table needs all
//! rows first, because its column widths depend on them.

use std::io::{IsTerminal, Write, stdout};

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use strata_sql::Rows;

/// A form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A drawn table, for people.
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    Jsonl,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
}

/// Where results go and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
    is_terminal: bool,
}

impl Output {
    /// Standard output.
    #[must_use]
    pub fn to_stdout(format: Format) -> Output {
        Output { format, is_terminal: stdout().is_terminal() }
    }

    /// Whether commands without rows should say what they did.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Writes all of `rows` and returns how many there were.
    ///
    /// # Errors
    /// The query's, or if standard output is closed, or is a terminal and the format binary.
    pub async fn write(&self, rows: Rows) -> Result<u64> {
        let is_binary = matches!(self.format, Format::Parquet | Format::Arrow);
        ensure!(!(is_binary && self.is_terminal), "a terminal cannot show this format; send the output to a file");
        let out = std::io::BufWriter::new(stdout());
        write_rows(self.format, rows, out).await
    }
}

/// Writes all of `rows` to `out` as `format`, and returns how many there were.
///
/// # Errors
/// The query's, or that of `out`.
pub async fn write_rows<W: Write + Send>(format: Format, mut rows: Rows, out: W) -> Result<u64> {
    let schema = rows.schema().clone();
    let mut writer = BatchWriter::new(format, &schema, out)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await? {
        count += batch.num_rows() as u64;
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(count)
}

/// One result being written.
enum BatchWriter<W: Write + Send> {
    Table { schema: SchemaRef, batches: Vec<RecordBatch>, out: W },
    Csv(Box<arrow::csv::Writer<W>>),
    Json(arrow::json::ArrayWriter<W>),
    Jsonl(arrow::json::LineDelimitedWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
    Arrow(Box<arrow::ipc::writer::StreamWriter<W>>),
}

impl<W: Write + Send> BatchWriter<W> {
    fn new(format: Format, schema: &SchemaRef, out: W) -> Result<Self> {
        Ok(match format {
            Format::Table => BatchWriter::Table { schema: schema.clone(), batches: Vec::new(), out },
            Format::Csv => {
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(out);
                // An empty result still has its header.
                writer.write(&RecordBatch::new_empty(schema.clone()))?;
                BatchWriter::Csv(Box::new(writer))
            }
            Format::Json => {
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                BatchWriter::Json(builder.build::<_, arrow::json::writer::JsonArray>(out))
            }
            Format::Jsonl => {
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                BatchWriter::Jsonl(builder.build::<_, arrow::json::writer::LineDelimited>(out))
            }
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                BatchWriter::Parquet(Box::new(ArrowWriter::try_new(out, schema.clone(), Some(properties))?))
            }
            Format::Arrow => BatchWriter::Arrow(Box::new(arrow::ipc::writer::StreamWriter::try_new(out, schema)?)),
        })
    }

    fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match self {
            BatchWriter::Table { batches, .. } => batches.push(batch),
            BatchWriter::Csv(writer) => writer.write(&batch)?,
            BatchWriter::Json(writer) => writer.write(&batch)?,
            BatchWriter::Jsonl(writer) => writer.write(&batch)?,
            BatchWriter::Parquet(writer) => writer.write(&batch)?,
            BatchWriter::Arrow(writer) => writer.write(&batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        match self {
            BatchWriter::Table { schema, mut batches, mut out } => {
                if batches.is_empty() {
                    batches.push(RecordBatch::new_empty(schema));
                }
                let options = FormatOptions::default().with_null("NULL");
                writeln!(out, "{}", pretty_format_batches_with_options(&batches, &options)?)?;
                out.flush().context("cannot write the result")?;
            }
            BatchWriter::Csv(writer) => writer.into_inner().flush()?,
            BatchWriter::Json(mut writer) => {
                writer.finish()?;
                let mut out = writer.into_inner();
                writeln!(out)?;
                out.flush()?;
            }
            BatchWriter::Jsonl(mut writer) => {
                writer.finish()?;
                writer.into_inner().flush()?;
            }
            BatchWriter::Parquet(writer) => writer.into_inner()?.flush()?,
            BatchWriter::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()?.flush()?;
            }
        }
        Ok(())
    }
}
