//! Segment writer: row groups in, one finished, synced and re-read pair of files out.
//!
//! Columns of a row group are encoded in parallel on rayon's pool while the caller builds the next group; all
//! file writes happen on the caller's thread, in order, so that a crash test sees the same bytes every time.
//!
//! Always true:
//! * rows arrive sorted by key, versions of a key newest first;
//! * at most two row groups are in memory: the one being encoded and the caller's next one;
//! * the result was opened and decoded again before anyone may install it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::arrow::{ArrowSchemaConverter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use strata_oltp::env::Env;
use strata_oltp::schema::{Column, SEQNO_COLUMN};
use strata_oltp::{Error, FileId, FileKind, Result, SeqNo, TableSchema};

use super::file::SumWriter;
use super::keys::KeyWriter;
use super::meta::{FloatBounds, RowGroupMeta, SegmentColumn, SegmentMeta};
use super::sketch::Sketch;
use super::spans;
use super::statistics::float_bounds;
use super::wire::put_varint;
use crate::error;

/// Compression of segment pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentCompression {
    /// Decodes fastest; the default.
    #[default]
    Lz4,
    /// About a fifth smaller than LZ4 at half its decoding speed; level 1 to 22.
    Zstd(i32),
    /// None, for data that does not compress.
    Uncompressed,
}

/// How segments are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingOptions {
    /// Compression of every column.
    pub compression: SegmentCompression,
    /// Rows of a data page, the unit of a point read. 8,192 is the batch size of the engine, so a page is a batch.
    pub page_rows_max: usize,
    /// Bytes of a dictionary beyond which a column chunk falls back to plain or delta encoding. 256 KiB is 32,768
    /// eight-byte values: with more distinct values in 122,880 rows a dictionary is no smaller than the values.
    pub dictionary_bytes_max: usize,
}

impl Default for EncodingOptions {
    fn default() -> Self {
        EncodingOptions {
            compression: SegmentCompression::default(),
            page_rows_max: 8192,
            dictionary_bytes_max: 256 * 1024,
        }
    }
}

/// Schema of a segment file: the table's columns with their ids as Parquet field ids, then the hidden SeqNo column.
#[must_use]
pub fn file_schema(table: &TableSchema) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::with_capacity(table.columns.len() + 1);
    for (column, is_nullable) in table.columns.iter().zip(table.stored_nullability()) {
        let id = (PARQUET_FIELD_ID_META_KEY.to_owned(), column.id.0.to_string());
        let data_type = spans::file_type(column.field.data_type());
        let field = column.field.clone().with_data_type(data_type).with_nullable(is_nullable);
        fields.push(field.with_metadata(HashMap::from([id])));
    }
    fields.push(Field::new(SEQNO_COLUMN, DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

/// One encoded column of a row group.
struct EncodedColumn {
    index: usize,
    chunks: Result<Vec<ArrowColumnChunk>>,
    sketch: Sketch,
}

/// A row group on its way through the pool.
struct PendingGroup {
    columns: Receiver<EncodedColumn>,
    column_count: usize,
}

/// Writes one segment.
pub struct SegmentWriter {
    id: FileId,
    path: PathBuf,
    table: Arc<TableSchema>,
    schema: SchemaRef,
    parquet: SerializedFileWriter<SumWriter>,
    factory: ArrowRowGroupWriterFactory,
    keys: KeyWriter,
    groups: Vec<RowGroupMeta>,
    floats: Vec<Option<Vec<FloatBounds>>>,
    sketches: Vec<Sketch>,
    pending: Option<PendingGroup>,
    row_count: u32,
}

/// A finished segment: what the manifest will keep of it.
#[derive(Clone, Debug)]
pub struct WrittenSegment {
    /// Its number.
    pub id: FileId,
    /// Its description; the number of marks is still 0.
    pub meta: SegmentMeta,
}

impl SegmentWriter {
    /// Creates the files of segment `id`.
    ///
    /// # Errors
    /// I/O.
    pub fn create(
        env: &dyn Env,
        dir: &Path,
        id: FileId,
        table: &Arc<TableSchema>,
        options: EncodingOptions,
    ) -> Result<SegmentWriter> {
        let path = FileKind::Segment.path(dir, id);
        let schema = file_schema(table);
        let out = SumWriter::create(env, dir, FileKind::Segment, id)?;
        let keys = KeyWriter::create(env, dir, id)?;
        let failed = |e| error::writing(&path, e);
        let descriptor = ArrowSchemaConverter::new().convert(&schema).map_err(failed)?;
        let properties = Arc::new(properties(table, options)?);
        let parquet = SerializedFileWriter::new(out, descriptor.root_schema_ptr(), properties).map_err(failed)?;
        let factory = ArrowRowGroupWriterFactory::new(&parquet, Arc::clone(&schema));
        let is_float = |f: &DataType| matches!(f, DataType::Float32 | DataType::Float64);
        Ok(SegmentWriter {
            id,
            path,
            table: Arc::clone(table),
            floats: table.columns.iter().map(|c| is_float(c.field.data_type()).then(Vec::new)).collect(),
            sketches: vec![Sketch::default(); table.columns.len()],
            schema,
            parquet,
            factory,
            keys,
            groups: Vec::new(),
            pending: None,
            row_count: 0,
        })
    }

    /// Indexes the key of the next row; rows of the next group are announced one by one before the group itself.
    ///
    /// # Errors
    /// I/O.
    pub fn add_key(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.keys.add(key, seqno)
    }

    /// Writes the next row group: `batch` has the table's columns and the SeqNo column. Returns while its columns are
    /// still being encoded.
    ///
    /// # Errors
    /// I/O, or a value that Parquet cannot hold.
    pub fn write_group(&mut self, batch: &RecordBatch, group: RowGroupMeta) -> Result<()> {
        assert_eq!(batch.num_columns(), self.schema.fields().len(), "a group has the table's columns and the SeqNo");
        assert_eq!(batch.num_rows(), group.rows as usize);
        self.drain_pending()?;
        let index = self.groups.len();
        let writers = self.factory.create_column_writers(index).map_err(|e| error::writing(&self.path, e))?;
        let mut writers = writers.into_iter();
        let (sender, columns) = channel();
        for (index, array) in batch.columns().iter().enumerate() {
            let leaves = spans::leaves(self.parquet.schema_descr(), index);
            let writers: Vec<ArrowColumnWriter> = writers.by_ref().take(leaves.len()).collect();
            let (sender, array) = (sender.clone(), Arc::clone(array));
            let field = Arc::clone(&self.schema.fields()[index]);
            let is_hidden = index == self.table.columns.len();
            rayon::spawn(move || {
                let mut sketch = Sketch::default();
                if !is_hidden {
                    sketch.add_column(&array);
                }
                let chunks = encode_column(writers, &field, &array);
                // The receiver is gone only if the writer was dropped after an error.
                drop(sender.send(EncodedColumn { index, chunks, sketch }));
            });
        }
        for (kept, bounds) in self.floats.iter_mut().zip(float_bounds(batch)) {
            if let (Some(kept), Some(bounds)) = (kept, bounds) {
                kept.push(bounds);
            }
        }
        self.row_count += group.rows;
        self.pending = Some(PendingGroup { columns, column_count: batch.num_columns() });
        self.groups.push(group);
        Ok(())
    }

    /// Rows in groups written so far.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.row_count
    }

    /// Finishes and syncs both files. The caller syncs the folder and opens the segment to verify it.
    ///
    /// # Errors
    /// I/O.
    ///
    /// # Panics
    /// If there is no row.
    pub fn finish(mut self) -> Result<WrittenSegment> {
        self.drain_pending()?;
        let failed = |e| error::writing(&self.path, e);
        let out = self.parquet.into_inner().map_err(failed)?;
        let (parquet_bytes, sums) = out.finish().map_err(|e| Error::io("write", &self.path, e))?;
        let mut sketches = Vec::new();
        put_varint(&mut sketches, self.sketches.len() as u64);
        self.sketches.iter().for_each(|sketch| sketch.encode(&mut sketches));
        let keys = self.keys.finish(parquet_bytes, &sums, &sketches)?;
        let columns = self.table.columns.iter().zip(self.floats).zip(&self.sketches);
        let columns = columns.map(|((column, floats), sketch)| SegmentColumn {
            id: column.id,
            data_type: column.field.data_type().clone(),
            distinct_estimate: sketch.estimate().min(u64::from(self.row_count)),
            floats,
        });
        let meta = SegmentMeta {
            table: self.table.table,
            schema_version: self.table.version,
            columns: columns.collect(),
            row_count: self.row_count,
            keys,
            parquet_bytes,
            row_groups: self.groups,
            mark_count: 0,
        };
        Ok(WrittenSegment { id: self.id, meta })
    }

    fn drain_pending(&mut self) -> Result<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let mut chunks: Vec<Vec<ArrowColumnChunk>> = (0..pending.column_count).map(|_| Vec::new()).collect();
        let failed = |e| error::writing(&self.path, e);
        for _ in 0..pending.column_count {
            let column = pending.columns.recv().expect("every column task sends its result");
            if let Some(sketch) = self.sketches.get_mut(column.index) {
                sketch.merge(&column.sketch);
            }
            chunks[column.index] = column.chunks?;
        }
        let mut group = self.parquet.next_row_group().map_err(failed)?;
        for chunk in chunks.into_iter().flatten() {
            chunk.append_to_row_group(&mut group).map_err(failed)?;
        }
        group.close().map_err(failed)?;
        Ok(())
    }
}

fn encode_column(writers: Vec<ArrowColumnWriter>, field: &Field, array: &ArrayRef) -> Result<Vec<ArrowColumnChunk>> {
    let failed = |e: ParquetError| Error::Invalid(format!("column \"{}\" cannot be written: {e}", field.name()));
    let leaves = compute_leaves(field, &spans::to_file(array)?).map_err(failed)?;
    let write = |(mut writer, leaf): (ArrowColumnWriter, ArrowLeafColumn)| {
        writer.write(&leaf)?;
        writer.close()
    };
    writers.into_iter().zip(leaves).map(|leaf| write(leaf).map_err(failed)).collect()
}

/// Encodings by column: dictionary first; integers that have no small dictionary as deltas; floats without bounds.
fn properties(table: &TableSchema, options: EncodingOptions) -> Result<WriterProperties> {
    let compression = match options.compression {
        SegmentCompression::Lz4 => Compression::LZ4_RAW,
        SegmentCompression::Zstd(level) => {
            Compression::ZSTD(ZstdLevel::try_new(level).map_err(|e| Error::Invalid(e.to_string()))?)
        }
        SegmentCompression::Uncompressed => Compression::UNCOMPRESSED,
    };
    let is_interval = |column: &Column| *column.field.data_type() == spans::INTERVAL;
    let leaf = |position: usize| {
        // An interval has two leaves more than others.
        position + 2 * table.columns[..position].iter().filter(|column| is_interval(column)).count()
    };
    let sorting = table.primary_key.iter().map(|&position| SortingColumn {
        column_idx: i32::try_from(leaf(position)).expect("a table has fewer than 2^31 columns"),
        descending: false,
        nulls_first: false,
    });
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("strata {}", env!("CARGO_PKG_VERSION")))
        .set_compression(compression)
        .set_dictionary_page_size_limit(options.dictionary_bytes_max)
        .set_data_page_row_count_limit(options.page_rows_max)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.collect()))
        .set_key_value_metadata(Some(vec![KeyValue::new("strata.segment".to_owned(), "1".to_owned())]));
    for (position, column) in table.columns.iter().enumerate() {
        let path = ColumnPath::new(vec![column.field.name().clone()]);
        match column.field.data_type() {
            // Parquet leaves NaN out of bounds, so that pruning by them would lose rows; nor may other tools do so.
            DataType::Float32 | DataType::Float64 => {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            // Bounds of elements are bounds of no list, and those of floats would be wrong as well.
            DataType::List(item) => {
                let parts = [column.field.name(), "list", item.name()].map(str::to_owned).to_vec();
                properties = properties.set_column_statistics_enabled(ColumnPath::new(parts), EnabledStatistics::None);
            }
            data_type if is_integer(data_type) => {
                properties = properties.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
                if table.primary_key.first() == Some(&position) {
                    // Sorted: deltas take a few bits, a dictionary takes the values again.
                    properties = properties.set_column_dictionary_enabled(path, false);
                }
            }
            _ => {}
        }
    }
    let seqno = ColumnPath::new(vec![SEQNO_COLUMN.to_owned()]);
    Ok(properties
        .set_column_dictionary_enabled(seqno.clone(), false)
        .set_column_encoding(seqno, Encoding::DELTA_BINARY_PACKED)
        .build())
}

/// Whether Parquet stores the type as a 32- or 64-bit integer.
fn is_integer(data_type: &DataType) -> bool {
    match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 => true,
        DataType::Time64(_) | DataType::Timestamp(_, _) => true,
        DataType::Decimal128(precision, _) => *precision <= 18,
        _ => false,
    }
}
