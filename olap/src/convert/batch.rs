//! Rows ↔ columns: encoded rows into record batches, and record batches into keys and rows.
//!
//! [`BatchBuilder`] feeds conversion and the scan of fresh rows; [`BatchEncoder`] feeds bulk loads, segment rewrites and
//! point reads. Both look at a column's type once per batch, not once per value.
//!
//! Always true: a batch that went through both ways comes back as it was, bit for bit (signs of zero and NaN included).

mod column;
mod source;

use std::sync::Arc;

use arrow::array::types::UInt64Type;
use arrow::array::{Array, ArrayRef, PrimitiveArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use strata_oltp::key;
use strata_oltp::row::{RowCodec, schema_version};
use strata_oltp::schema::SEQNO_COLUMN;
use strata_oltp::{Error, Result, SeqNo, TableId, TableSchema};

use crate::error;
use column::ColumnBuilder;
use source::{Source, sources, write_row};

pub(crate) use column::missing_value;

/// Bytes of a text buffer; long enough that views rarely change buffer, short enough for small batches.
const TEXT_BLOCK_BYTES: u32 = 64 * 1024;
/// The same for batches of a few rows: about one text.
const FEW_TEXT_BLOCK_BYTES: u32 = 64;

/// Collects encoded rows into a record batch.
///
/// Reusable: [`BatchBuilder::finish`] leaves an empty builder with the same shape.
#[derive(Debug)]
pub struct BatchBuilder {
    table: TableId,
    version: u16,
    codec: Arc<RowCodec>,
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    seqnos: Option<Vec<u64>>,
    row_count: usize,
    row_bytes: usize,
    /// A row of an earlier schema version, turned into one of the newest.
    upgraded: Vec<u8>,
}

impl BatchBuilder {
    /// A builder for rows of `schema`: all columns or those at the positions in `projection`, in its order, and after
    /// them the commit of each row (`_strata_seq`, `UInt64`) if `with_seqno`. Columns take NULL where rows have room for it.
    ///
    /// # Panics
    /// If a position does not exist.
    #[must_use]
    pub fn new(schema: &TableSchema, projection: Option<&[usize]>, with_seqno: bool) -> BatchBuilder {
        let all: Vec<usize> = (0..schema.columns.len()).collect();
        let positions = projection.unwrap_or(&all);
        BatchBuilder::with_codec(schema, Arc::new(RowCodec::new(schema)), positions, with_seqno, TEXT_BLOCK_BYTES)
    }

    /// A builder for batches of one or a few rows of the table that `encoder` is for: cheaper to make, and no batch holds
    /// more memory than its values take.
    ///
    /// # Panics
    /// If a position does not exist.
    #[must_use]
    pub fn for_few(encoder: &BatchEncoder, positions: &[usize]) -> BatchBuilder {
        let codec = Arc::clone(&encoder.codec);
        BatchBuilder::with_codec(&encoder.schema, codec, positions, false, FEW_TEXT_BLOCK_BYTES)
    }

    fn with_codec(
        schema: &TableSchema,
        codec: Arc<RowCodec>,
        positions: &[usize],
        with_seqno: bool,
        text_block_bytes: u32,
    ) -> BatchBuilder {
        let stored = schema.stored_nullability();
        let field = |&p: &usize| schema.columns[p].field.clone().with_nullable(stored[p]);
        let mut fields: Vec<Field> = positions.iter().map(field).collect();
        let column = |&p: &usize| ColumnBuilder::new(codec.slot(p), &schema.columns[p].field, text_block_bytes);
        let columns = positions.iter().map(column).collect();
        if with_seqno {
            fields.push(Field::new(SEQNO_COLUMN, DataType::UInt64, false));
        }
        BatchBuilder {
            table: schema.table,
            version: schema.version,
            schema: Arc::new(Schema::new(fields)),
            codec,
            columns,
            seqnos: with_seqno.then(Vec::new),
            row_count: 0,
            row_bytes: 0,
            upgraded: Vec::new(),
        }
    }

    /// Schema of the batches.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends an encoded row, written by the commit `seqno` at the schema's version or an earlier one.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the bytes are not a row of the table, [`Error::Reshaped`] if they are one of a later version;
    /// the builder is then useless.
    #[inline]
    pub fn push(&mut self, row: &[u8], seqno: SeqNo) -> Result<()> {
        let row_ref = match self.codec.read(row, &mut self.upgraded) {
            Ok(row_ref) => row_ref,
            Err(_) if schema_version(row) > Some(self.version) => return Err(Error::Reshaped { table: self.table }),
            Err(error) => return Err(error),
        };
        for column in &mut self.columns {
            column.push(&row_ref)?;
        }
        if let Some(seqnos) = &mut self.seqnos {
            seqnos.push(seqno.0);
        }
        self.row_count += 1;
        self.row_bytes += row.len();
        Ok(())
    }

    /// Rows collected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// Memory held, estimated from the rows' own size: columns are about as wide as rows, views a little wider.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.row_bytes + self.row_count * (16 * self.columns.len().min(8) + 8)
    }

    /// The columns of [`BatchBuilder::finish`], but for the commits.
    ///
    /// # Errors
    /// As [`BatchBuilder::finish`].
    pub fn finish_columns(&mut self) -> Result<Vec<ArrayRef>> {
        (self.row_count, self.row_bytes) = (0, 0);
        let mut arrays = Vec::with_capacity(self.columns.len() + 1);
        for column in &mut self.columns {
            arrays.push(column.finish().map_err(|e| error::invalid(&e))?);
        }
        Ok(arrays)
    }

    /// The rows collected since the last call.
    ///
    /// # Errors
    /// Never for rows of the schema: columns and schema agree by construction.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let row_count = self.row_count;
        let mut arrays = self.finish_columns()?;
        if let Some(seqnos) = &mut self.seqnos {
            arrays.push(Arc::new(PrimitiveArray::<UInt64Type>::from(std::mem::take(seqnos))));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(|e| error::invalid(&e))
    }
}

/// Encodes record batches as full keys and rows.
#[derive(Debug)]
pub struct BatchEncoder {
    schema: Arc<TableSchema>,
    codec: Arc<RowCodec>,
}

/// Keys and rows of one batch, in its order.
#[derive(Debug, Default)]
pub struct EncodedRows {
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    rows: Vec<u8>,
    row_ends: Vec<usize>,
}

impl EncodedRows {
    /// Rows in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.row_ends.is_empty()
    }

    /// Full key of a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn key(&self, row: usize) -> &[u8] {
        piece(&self.keys, &self.key_ends, row)
    }

    /// Encoded row.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        piece(&self.rows, &self.row_ends, row)
    }

    /// Memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.keys.capacity() + self.rows.capacity() + (self.key_ends.capacity() + self.row_ends.capacity()) * 8
    }
}

fn piece<'a>(bytes: &'a [u8], ends: &[usize], index: usize) -> &'a [u8] {
    let start = if index == 0 { 0 } else { ends[index - 1] };
    &bytes[start..ends[index]]
}

impl BatchEncoder {
    /// An encoder for batches whose columns are those of `schema`, in order; further columns are ignored.
    #[must_use]
    pub fn new(schema: &Arc<TableSchema>) -> BatchEncoder {
        BatchEncoder { codec: Arc::new(RowCodec::new(schema)), schema: Arc::clone(schema) }
    }

    /// How the table's rows are laid out.
    #[must_use]
    pub fn codec(&self) -> &RowCodec {
        &self.codec
    }

    /// Keys and rows of `batch`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a column has another type than the table's, a NULL is where none may be, or a key or row
    /// is too long.
    pub fn encode(&self, batch: &RecordBatch) -> Result<EncodedRows> {
        for (column, array) in self.schema.columns.iter().zip(batch.columns()) {
            if !column.field.is_nullable() && array.null_count() > 0 {
                let name = column.field.name();
                return Err(Error::Invalid(format!("null value in column \"{name}\", which is not nullable")));
            }
        }
        let columns: Vec<Option<ArrayRef>> = batch.columns().iter().cloned().map(Some).collect();
        self.encode_columns(&columns, batch.num_rows())
    }

    /// [`BatchEncoder::encode`] for loose columns; a missing one is NULL in every row. Takes NULL wherever rows have room
    /// for it, because columns may hold superseded rows from before SET NOT NULL.
    ///
    /// # Errors
    /// As [`BatchEncoder::encode`].
    pub fn encode_columns(&self, columns: &[Option<ArrayRef>], row_count: usize) -> Result<EncodedRows> {
        let sources = sources(&self.schema, &self.codec, columns)?;
        let keys: Vec<&Source<'_>> = self.schema.primary_key.iter().map(|&position| &sources[position]).collect();
        let prefix = key::table_prefix(self.schema.table);
        let mut encoded = EncodedRows {
            keys: Vec::with_capacity(row_count * (prefix.len() + 12)),
            key_ends: Vec::with_capacity(row_count),
            rows: Vec::with_capacity(row_count * (self.codec.header_bytes() + 16)),
            row_ends: Vec::with_capacity(row_count),
        };
        for row in 0..row_count {
            let start = encoded.keys.len();
            encoded.keys.extend_from_slice(&prefix);
            for key in &keys {
                if key.nulls.is_some_and(|nulls| nulls.is_null(row)) {
                    key.values.push_null_key(&mut encoded.keys);
                } else {
                    key.values.push_key(row, &mut encoded.keys);
                }
            }
            let key_bytes = encoded.keys.len() - start;
            if key_bytes > key::KEY_BYTES_MAX {
                let limit = key::KEY_BYTES_MAX;
                return Err(Error::Invalid(format!("a key of {key_bytes} bytes exceeds the limit of {limit}")));
            }
            encoded.key_ends.push(encoded.keys.len());
            write_row(&self.codec, &sources, row, &mut encoded.rows)?;
            encoded.row_ends.push(encoded.rows.len());
        }
        Ok(encoded)
    }

    /// One row of loose columns, encoded; a missing column is NULL.
    ///
    /// # Errors
    /// As [`BatchEncoder::encode`].
    pub fn encode_row(
        schema: &TableSchema,
        codec: &RowCodec,
        columns: &[Option<ArrayRef>],
        row: usize,
    ) -> Result<Vec<u8>> {
        let sources = sources(schema, codec, columns)?;
        let mut out = Vec::with_capacity(codec.header_bytes() + 64);
        write_row(codec, &sources, row, &mut out)?;
        Ok(out)
    }
}
