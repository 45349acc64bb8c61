//! `SegmentMeta`: what the manifest keeps of a segment, so that planning and opening need not guess.
//!
//! Opaque bytes to the row store, versioned here. Layout: FORMAT.md.

use std::path::Path;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use strata_oltp::{ColumnId, Error, FileKind, Result, SeqNo, TableId};

use super::keys::KeyFile;
use super::wire::{Fields, put_bytes, put_varint};

/// Version written and the newest one read.
const VERSION: u8 = 1;

/// Description of one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentMeta {
    /// The table.
    pub table: TableId,
    /// Version of the schema the rows were written with.
    pub schema_version: u16,
    /// Columns of the file in file order, the hidden SeqNo column left out.
    pub columns: Vec<SegmentColumn>,
    /// Rows in the file.
    pub row_count: u32,
    /// Length and checksum of the key index, which vouches for the Parquet file.
    pub keys: KeyFile,
    /// Length of the Parquet file.
    pub parquet_bytes: u64,
    /// Row groups in file order.
    pub row_groups: Vec<RowGroupMeta>,
    /// Marks the segment was born with: rows superseded already, that some snapshot still needed.
    pub mark_count: u64,
}

/// One column of a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentColumn {
    /// The table's column.
    pub id: ColumnId,
    /// Type in memory.
    pub data_type: DataType,
    /// Estimated number of distinct values.
    pub distinct_estimate: u64,
    /// For floats, whose bounds Parquet cannot give because it ignores NaN: one entry per row group.
    pub floats: Option<Vec<FloatBounds>>,
}

/// NULLs and bounds of a float column in one row group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatBounds {
    /// NULLs.
    pub null_count: u64,
    /// Least and greatest value, if there is any and none is NaN. Zero counts as both its signs.
    pub bounds: Option<(f64, f64)>,
}

/// One row group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowGroupMeta {
    /// Rows in it.
    pub rows: u32,
    /// Oldest and newest commit of its rows.
    pub seqnos: (SeqNo, SeqNo),
    /// First and last full key.
    pub keys: (Vec<u8>, Vec<u8>),
}

impl SegmentMeta {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, u64::from(self.table.0));
        put_varint(&mut out, u64::from(self.schema_version));
        put_varint(&mut out, u64::from(self.row_count));
        put_varint(&mut out, self.parquet_bytes);
        put_varint(&mut out, self.keys.file_bytes);
        out.extend_from_slice(&self.keys.footer_sum.to_le_bytes());
        put_varint(&mut out, self.mark_count);
        put_varint(&mut out, self.row_groups.len() as u64);
        for group in &self.row_groups {
            put_varint(&mut out, u64::from(group.rows));
            put_varint(&mut out, group.seqnos.0.0);
            put_varint(&mut out, group.seqnos.1.0);
            put_bytes(&mut out, &group.keys.0);
            put_bytes(&mut out, &group.keys.1);
        }
        put_varint(&mut out, self.columns.len() as u64);
        for column in &self.columns {
            put_varint(&mut out, u64::from(column.id.0));
            put_type(&mut out, &column.data_type);
            put_varint(&mut out, column.distinct_estimate);
            for group in column.floats.iter().flatten() {
                put_varint(&mut out, group.null_count);
                out.push(u8::from(group.bounds.is_some()));
                if let Some((least, greatest)) = group.bounds {
                    out.extend_from_slice(&least.to_le_bytes());
                    out.extend_from_slice(&greatest.to_le_bytes());
                }
            }
        }
        out
    }

    /// Reads the stored form; errors name `file`, the segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::NewerFormat`].
    pub fn decode(bytes: &[u8], file: &Path) -> Result<SegmentMeta> {
        let mut fields = Fields::new(FileKind::Manifest, file, 0, bytes);
        let version = fields.u8()?;
        if version > VERSION {
            return Err(Error::NewerFormat {
                file: file.to_path_buf(),
                found: u32::from(version),
                supported: u32::from(VERSION),
            });
        }
        let table = TableId(fields.varint32()?);
        let schema_version =
            u16::try_from(fields.varint32()?).map_err(|_| fields.corrupt("schema version too wide"))?;
        let row_count = fields.varint32()?;
        let parquet_bytes = fields.varint()?;
        let keys = KeyFile { file_bytes: fields.varint()?, footer_sum: fields.u64()? };
        let mark_count = fields.varint()?;
        let row_groups = (0..fields.count(1)?).map(|_| decode_group(&mut fields)).collect::<Result<Vec<_>>>()?;
        let mut columns = Vec::new();
        for _ in 0..fields.count(1)? {
            columns.push(decode_column(&mut fields, row_groups.len())?);
        }
        let total: u64 = row_groups.iter().map(|group| u64::from(group.rows)).sum();
        if total != u64::from(row_count) || row_count == 0 || row_groups.iter().any(|group| group.rows == 0) {
            return Err(fields.corrupt("row groups do not add up to the segment"));
        }
        fields.finish()?;
        Ok(SegmentMeta { table, schema_version, columns, row_count, keys, parquet_bytes, row_groups, mark_count })
    }
}

fn decode_group(fields: &mut Fields<'_>) -> Result<RowGroupMeta> {
    Ok(RowGroupMeta {
        rows: fields.varint32()?,
        seqnos: (SeqNo(fields.varint()?), SeqNo(fields.varint()?)),
        keys: (fields.bytes()?.to_vec(), fields.bytes()?.to_vec()),
    })
}

fn decode_column(fields: &mut Fields<'_>, group_count: usize) -> Result<SegmentColumn> {
    let id = ColumnId(fields.varint32()?);
    let data_type = decode_type(fields)?;
    let distinct_estimate = fields.varint()?;
    let is_float = matches!(data_type, DataType::Float32 | DataType::Float64);
    let floats = is_float.then(|| (0..group_count).map(|_| decode_bounds(fields)).collect()).transpose()?;
    Ok(SegmentColumn { id, data_type, distinct_estimate, floats })
}

fn decode_bounds(fields: &mut Fields<'_>) -> Result<FloatBounds> {
    let null_count = fields.varint()?;
    let bounds = match fields.u8()? {
        0 => None,
        1 => Some((f64::from_bits(fields.u64()?), f64::from_bits(fields.u64()?))),
        _ => return Err(fields.corrupt("unknown bounds flag")),
    };
    Ok(FloatBounds { null_count, bounds })
}

/// Numbers of the storable types, fixed for ever.
fn put_type(out: &mut Vec<u8>, data_type: &DataType) {
    let tag = match data_type {
        DataType::Boolean => 1,
        DataType::Int16 => 2,
        DataType::Int32 => 3,
        DataType::Int64 => 4,
        DataType::Float32 => 5,
        DataType::Float64 => 6,
        DataType::Date32 => 7,
        DataType::Time64(_) => 8,
        DataType::Timestamp(_, None) => 9,
        DataType::Timestamp(_, Some(_)) => 10,
        DataType::Utf8View => 11,
        DataType::BinaryView => 12,
        DataType::FixedSizeBinary(_) => 13,
        DataType::Decimal128(_, _) => 14,
        DataType::List(_) => 15,
        DataType::Interval(_) => 16,
        other => unreachable!("TableSchema refuses {other}"),
    };
    out.push(tag);
    match data_type {
        DataType::Timestamp(_, Some(zone)) => put_bytes(out, zone.as_bytes()),
        DataType::Decimal128(precision, scale) => out.extend_from_slice(&[*precision, scale.to_le_bytes()[0]]),
        DataType::List(item) => put_type(out, item.data_type()),
        _ => {}
    }
}

fn decode_type(fields: &mut Fields<'_>) -> Result<DataType> {
    let tag = fields.u8()?;
    if tag == 15 {
        let item = fields.u8()?;
        return Ok(DataType::new_list(decode_scalar_type(item, fields)?, true));
    }
    decode_scalar_type(tag, fields)
}

fn decode_scalar_type(tag: u8, fields: &mut Fields<'_>) -> Result<DataType> {
    Ok(match tag {
        16 => DataType::Interval(IntervalUnit::MonthDayNano),
        1 => DataType::Boolean,
        2 => DataType::Int16,
        3 => DataType::Int32,
        4 => DataType::Int64,
        5 => DataType::Float32,
        6 => DataType::Float64,
        7 => DataType::Date32,
        8 => DataType::Time64(TimeUnit::Microsecond),
        9 => DataType::Timestamp(TimeUnit::Microsecond, None),
        10 => {
            let zone = std::str::from_utf8(fields.bytes()?).map_err(|_| fields.corrupt("time zone is not text"))?;
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))
        }
        11 => DataType::Utf8View,
        12 => DataType::BinaryView,
        13 => DataType::FixedSizeBinary(16),
        14 => DataType::Decimal128(fields.u8()?, i8::from_le_bytes([fields.u8()?])),
        _ => return Err(fields.corrupt("unknown column type")),
    })
}
