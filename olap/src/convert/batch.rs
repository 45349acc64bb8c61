//! Rows ↔ columns: encoded rows into record batches, and record batches into keys and rows.
//!
//! [`BatchBuilder`] feeds conversion and the scan of fresh rows; [`BatchEncoder`] feeds bulk loads, segment rewrites and
//! point reads. Both look at a column's type once per batch, not once per value.
//!
//! Always true: a batch that went through both ways comes back as it was, bit for bit (signs of zero and NaN included).

use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BinaryViewBuilder, BooleanArray, BooleanBufferBuilder,
    FixedSizeBinaryArray, NullBufferBuilder, PrimitiveArray, RecordBatch, RecordBatchOptions, StringViewArray,
    StringViewBuilder, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use strata_oltp::key::{self, push};
use strata_oltp::row::{RowBuilder, RowCodec, RowRef, Slot, ValueKind, schema_version};
use strata_oltp::schema::SEQNO_COLUMN;
use strata_oltp::{Error, Result, SeqNo, TableId, TableSchema};

use crate::error;

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

#[derive(Debug)]
struct ColumnBuilder {
    slot: Slot,
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Two(Vec<i16>),
    Four(Vec<i32>),
    Eight(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Uuid(Vec<u8>),
    Text(StringViewBuilder),
    Binary(BinaryViewBuilder),
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

impl ColumnBuilder {
    fn new(slot: Slot, field: &Field, text_block_bytes: u32) -> ColumnBuilder {
        let values = match slot.kind() {
            ValueKind::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            ValueKind::Int16 => Values::Two(Vec::new()),
            ValueKind::Int32 | ValueKind::Date32 => Values::Four(Vec::new()),
            ValueKind::Int64 | ValueKind::Time64 | ValueKind::Timestamp => Values::Eight(Vec::new()),
            ValueKind::Float32 => Values::Float32(Vec::new()),
            ValueKind::Float64 => Values::Float64(Vec::new()),
            ValueKind::Decimal128 => Values::Decimal(Vec::new()),
            ValueKind::Uuid => Values::Uuid(Vec::new()),
            ValueKind::Text => Values::Text(StringViewBuilder::new().with_fixed_block_size(text_block_bytes)),
            ValueKind::Binary => Values::Binary(BinaryViewBuilder::new().with_fixed_block_size(text_block_bytes)),
        };
        ColumnBuilder { slot, data_type: field.data_type().clone(), nulls: NullBufferBuilder::new(0), values }
    }

    #[inline]
    fn push(&mut self, row: &RowRef<'_>) -> Result<()> {
        let slot = self.slot;
        let is_null = slot.is_nullable() && row.is_null_at(slot);
        // A NULL reads as zero or empty, which is what its slot in the array holds as well.
        match &mut self.values {
            Values::Boolean(values) => values.append(row.fixed_at::<1>(slot)[0] != 0),
            Values::Two(values) => values.push(i16::from_le_bytes(row.fixed_at(slot))),
            Values::Four(values) => values.push(i32::from_le_bytes(row.fixed_at(slot))),
            Values::Eight(values) => values.push(i64::from_le_bytes(row.fixed_at(slot))),
            Values::Float32(values) => values.push(f32::from_le_bytes(row.fixed_at(slot))),
            Values::Float64(values) => values.push(f64::from_le_bytes(row.fixed_at(slot))),
            Values::Decimal(values) => values.push(i128::from_le_bytes(row.fixed_at(slot))),
            Values::Uuid(values) => values.extend_from_slice(&row.fixed_at::<16>(slot)),
            Values::Text(values) if is_null => values.append_null(),
            Values::Text(values) => values.append_value(row.text_at(slot)?),
            Values::Binary(values) if is_null => values.append_null(),
            Values::Binary(values) => values.append_value(row.variable_at(slot)),
        }
        if slot.is_nullable() {
            self.nulls.append(!is_null);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, arrow::error::ArrowError> {
        let nulls = self.nulls.finish();
        let data_type = &self.data_type;
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Two(values) => numbers::<Int16Type>(values, nulls, data_type),
            Values::Four(values) => match data_type {
                DataType::Date32 => numbers::<Date32Type>(values, nulls, data_type),
                _ => numbers::<Int32Type>(values, nulls, data_type),
            },
            Values::Eight(values) => match data_type {
                DataType::Time64(_) => numbers::<Time64MicrosecondType>(values, nulls, data_type),
                DataType::Timestamp(_, _) => numbers::<TimestampMicrosecondType>(values, nulls, data_type),
                _ => numbers::<Int64Type>(values, nulls, data_type),
            },
            Values::Float32(values) => numbers::<Float32Type>(values, nulls, data_type),
            Values::Float64(values) => numbers::<Float64Type>(values, nulls, data_type),
            Values::Decimal(values) => numbers::<Decimal128Type>(values, nulls, data_type),
            Values::Uuid(values) => {
                let bytes = Buffer::from_vec(std::mem::take(values));
                Arc::new(FixedSizeBinaryArray::try_new(16, bytes, nulls)?)
            }
            Values::Text(values) => Arc::new(values.finish()),
            Values::Binary(values) => Arc::new(values.finish()),
        })
    }
}

/// What the column at `position` is in rows older than it, as an array of one value.
///
/// # Errors
/// None for a schema that was built or decoded, because its values were checked.
pub(crate) fn missing_value(schema: &TableSchema, position: usize) -> Result<ArrayRef> {
    let field = &schema.columns[position].field;
    let Some(row) = schema.missing_row(position) else { return Ok(new_null_array(field.data_type(), 1)) };
    let kind = ValueKind::of(field.data_type()).expect("TableSchema::new refuses types that are not storable");
    let codec = RowCodec::of_value(kind);
    let mut column = ColumnBuilder::new(codec.slot(0), field, FEW_TEXT_BLOCK_BYTES);
    column.push(&RowRef::new(&codec, row)?)?;
    column.finish().map_err(|e| error::invalid(&e))
}

fn numbers<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    let capacity = values.len();
    let values = std::mem::replace(values, Vec::with_capacity(capacity));
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(data_type.clone()))
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

/// A column being encoded.
struct Source<'a> {
    slot: Slot,
    nulls: Option<&'a NullBuffer>,
    values: Column<'a>,
}

enum Column<'a> {
    Missing,
    Boolean(&'a BooleanArray),
    Two(&'a [i16]),
    Four(&'a [i32]),
    Eight(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal(&'a [i128]),
    Uuid(&'a FixedSizeBinaryArray),
    Text(&'a StringViewArray),
    Binary(&'a BinaryViewArray),
}

fn sources<'a>(schema: &TableSchema, codec: &RowCodec, columns: &'a [Option<ArrayRef>]) -> Result<Vec<Source<'a>>> {
    if columns.len() < schema.columns.len() {
        let (found, expected) = (columns.len(), schema.columns.len());
        return Err(Error::Invalid(format!("a batch of {expected} columns was given {found}")));
    }
    let pairs = schema.columns.iter().zip(columns).enumerate();
    pairs.map(|(position, (column, array))| source(codec.slot(position), &column.field, array.as_ref())).collect()
}

fn source<'a>(slot: Slot, field: &Field, array: Option<&'a ArrayRef>) -> Result<Source<'a>> {
    let refused = |found: &str| {
        let (name, expected) = (field.name(), field.data_type());
        Error::Invalid(format!("column \"{name}\" holds {expected}, not {found}"))
    };
    let Some(array) = array else {
        if slot.is_nullable() {
            return Ok(Source { slot, nulls: None, values: Column::Missing });
        }
        return Err(refused("nothing"));
    };
    if array.data_type() != field.data_type() {
        return Err(refused(&array.data_type().to_string()));
    }
    if array.null_count() > 0 && !slot.is_nullable() {
        return Err(Error::Invalid(format!("null value in column \"{}\", which is not nullable", field.name())));
    }
    let values = match array.data_type() {
        DataType::Boolean => Column::Boolean(array.as_boolean()),
        DataType::Int16 => Column::Two(array.as_primitive::<Int16Type>().values()),
        DataType::Int32 => Column::Four(array.as_primitive::<Int32Type>().values()),
        DataType::Date32 => Column::Four(array.as_primitive::<Date32Type>().values()),
        DataType::Int64 => Column::Eight(array.as_primitive::<Int64Type>().values()),
        DataType::Time64(_) => Column::Eight(array.as_primitive::<Time64MicrosecondType>().values()),
        DataType::Timestamp(_, _) => Column::Eight(array.as_primitive::<TimestampMicrosecondType>().values()),
        DataType::Float32 => Column::Float32(array.as_primitive::<Float32Type>().values()),
        DataType::Float64 => Column::Float64(array.as_primitive::<Float64Type>().values()),
        DataType::Decimal128(_, _) => Column::Decimal(array.as_primitive::<Decimal128Type>().values()),
        DataType::FixedSizeBinary(_) => Column::Uuid(array.as_fixed_size_binary()),
        DataType::Utf8View => Column::Text(array.as_string_view()),
        DataType::BinaryView => Column::Binary(array.as_binary_view()),
        other => return Err(refused(&other.to_string())),
    };
    Ok(Source { slot, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), values })
}

fn write_row(codec: &RowCodec, sources: &[Source<'_>], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut builder = codec.begin(out);
    for source in sources {
        if source.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            builder.null(source.slot);
        } else {
            source.values.write(row, source.slot, &mut builder);
        }
    }
    builder.finish().map(|_| ())
}

impl Column<'_> {
    #[inline]
    fn write(&self, row: usize, slot: Slot, out: &mut RowBuilder<'_>) {
        match self {
            Column::Missing => out.null(slot),
            Column::Boolean(values) => out.fixed(slot, [u8::from(values.value(row))]),
            Column::Two(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Four(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Eight(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Float32(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Float64(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Decimal(values) => out.fixed(slot, values[row].to_le_bytes()),
            Column::Uuid(values) => out.fixed(slot, uuid(values, row)),
            Column::Text(values) => out.variable(values.value(row).as_bytes()),
            Column::Binary(values) => out.variable(values.value(row)),
        }
    }

    #[inline]
    fn push_key(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Column::Missing => unreachable!("key columns are never NULL"),
            Column::Boolean(values) => push::push_bool(out, values.value(row)),
            Column::Two(values) => push::push_i16(out, values[row]),
            Column::Four(values) => push::push_i32(out, values[row]),
            Column::Eight(values) => push::push_i64(out, values[row]),
            Column::Float32(values) => push::push_f32(out, values[row]),
            Column::Float64(values) => push::push_f64(out, values[row]),
            Column::Decimal(values) => push::push_i128(out, values[row]),
            Column::Uuid(values) => push::push_uuid(out, &uuid(values, row)),
            Column::Text(values) => push::push_bytes(out, values.value(row).as_bytes()),
            Column::Binary(values) => push::push_bytes(out, values.value(row)),
        }
    }
}

impl Column<'_> {
    /// NULL in the key of an index: zero or empty, whatever the array holds in its place, so that the same row always has
    /// the same key. Primary keys have none.
    #[cold]
    fn push_null_key(&self, out: &mut Vec<u8>) {
        match self {
            Column::Missing => unreachable!("key columns are never missing"),
            Column::Boolean(_) => push::push_bool(out, false),
            Column::Two(_) => push::push_i16(out, 0),
            Column::Four(_) => push::push_i32(out, 0),
            Column::Eight(_) => push::push_i64(out, 0),
            Column::Float32(_) => push::push_f32(out, 0.0),
            Column::Float64(_) => push::push_f64(out, 0.0),
            Column::Decimal(_) => push::push_i128(out, 0),
            Column::Uuid(_) => push::push_uuid(out, &[0; 16]),
            Column::Text(_) | Column::Binary(_) => push::push_bytes(out, &[]),
        }
    }
}

fn uuid(values: &FixedSizeBinaryArray, row: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(values.value(row));
    bytes
}
