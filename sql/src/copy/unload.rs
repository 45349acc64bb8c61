//! COPY … TO: rows of a query as a file, or to whoever asked.

use std::io::{self, Write};

use arrow::record_batch::RecordBatch;

use super::Output;
use super::columnar::ColumnarSink;
use super::delimited::DelimitedSink;
use super::files::{NewFile, failed};
use super::objects;
use super::options::{Format, Options};
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::query::Rows;

/// Where bytes go.
enum Place<'a> {
    File(NewFile),
    Stream(&'a mut (dyn Write + Send)),
}

impl Write for Place<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Place::File(file) => file.write(bytes),
            Place::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Place::File(file) => file.flush(),
            Place::Stream(stream) => stream.flush(),
        }
    }
}

enum Sink<'a> {
    Delimited(Place<'a>, Box<DelimitedSink>),
    Objects(Place<'a>, Vec<String>, Vec<u8>),
    Columnar(ColumnarSink<Place<'a>>),
}

impl<'a> Sink<'a> {
    fn new(place: Place<'a>, options: &Options, rows: &Rows) -> Result<Sink<'a>> {
        let schema = rows.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if !matches!(options.format, Format::Csv | Format::Text) {
            objects::check_names(&names)?;
        }
        Ok(match options.format {
            Format::Csv | Format::Text => Sink::Delimited(place, Box::new(DelimitedSink::new(options, &names)?)),
            Format::Json => Sink::Objects(place, objects::keys(&names), Vec::new()),
            Format::Parquet => Sink::Columnar(ColumnarSink::parquet(place, &schema, options.compression)?),
            Format::Arrow if matches!(place, Place::File(_)) => {
                Sink::Columnar(ColumnarSink::arrow_file(place, &schema)?)
            }
            Format::Arrow => Sink::Columnar(ColumnarSink::arrow_stream(place, &schema)?),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Sink::Delimited(place, sink) => {
                place.write_all(sink.encode(batch)?).map_err(unwritten)?;
                sink.clear();
            }
            Sink::Objects(place, keys, buffer) => {
                objects::encode(batch, keys, buffer)?;
                place.write_all(buffer).map_err(unwritten)?;
                buffer.clear();
            }
            Sink::Columnar(sink) => sink.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Place<'a>> {
        match self {
            // A header stands also above no rows.
            Sink::Delimited(mut place, mut sink) => {
                place.write_all(sink.rest()).map_err(unwritten)?;
                Ok(place)
            }
            Sink::Objects(place, ..) => Ok(place),
            Sink::Columnar(sink) => sink.finish(),
        }
    }
}

fn unwritten(error: io::Error) -> Error {
    failed("write", std::path::Path::new("the output"), error)
}

/// Writes `rows` to `output`; their number.
///
/// # Errors
/// Whatever the query runs into, and failures of the operating system; a file of that name is then as it was.
pub(crate) async fn unload(engine: &Engine, mut rows: Rows, options: &Options, output: Output<'_>) -> Result<u64> {
    let place = match output {
        Output::File(path) => Place::File(NewFile::create(engine.files(), &path)?),
        Output::Stream(stream) => Place::Stream(stream),
    };
    let mut sink = Sink::new(place, options, &rows)?;
    let mut count = 0;
    while let Some(batch) = rows.next().await? {
        count += batch.num_rows() as u64;
        sink.write(&batch)?;
    }
    match sink.finish()? {
        Place::File(file) => file.finish()?,
        Place::Stream(stream) => {
            stream.flush().map_err(|error| {
                Error::new(SqlState::IoError, format!("cannot write the output: {error}")).with_source(error)
            })?;
        }
    }
    Ok(count)
}
