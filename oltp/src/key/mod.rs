//! Key codec: column values as bytes whose order is the order of the values.
//!
//! Memtables, runs, segments and conflict checks compare keys as plain bytes; only this module knows what they mean.
//! `KeyCodec` encodes and decodes whole keys of one table or index; `push` appends single columns, for bulk encoders.
//!
//! Always true:
//! * byte order of two keys of one index is the order of their columns, left to right (-0 = 0, one NaN above infinity,
//!   text by bytes, NULL last); equal keys have equal bytes, and only equal keys do;
//! * no column's bytes are a prefix of another value's bytes, so columns may be concatenated, and the first columns of a
//!   key are a byte prefix that selects a range;
//! * a full key starts with its table and index, so keys of different tables never mix.
//!
//! Lossy where values are equal but not identical: the sign of zero and the payload of NaN stay in the row only.
#![doc = include_str!("FORMAT.md")]

mod decode;
pub mod push;

#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::row::{OwnedValue, RowRef, Value, ValueKind};
use crate::schema::{TableId, TableSchema};

/// Number of an index within its table, never reused; 0 is the primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexId(pub u16);

/// The index that every table has: its primary key.
pub const PRIMARY_INDEX: IndexId = IndexId(0);
/// Bytes of the table and index number at the start of a full key.
pub const PREFIX_BYTES: usize = 6;
/// Longest full key. Keys are copied into blocks, fences, filters and conflict sets, so a long key costs many times.
pub const KEY_BYTES_MAX: usize = 32_768;

/// Precedes the bytes of a nullable column that has a value.
pub(crate) const NOT_NULL: u8 = 0x01;
/// Stands for NULL in a nullable column; the larger one, so that NULL sorts last as in PostgreSQL.
pub(crate) const NULL: u8 = 0x02;

/// Encoder and decoder of the full keys of one index. Build it once per table; immutable and shared freely.
#[derive(Clone, Debug)]
pub struct KeyCodec {
    prefix: [u8; PREFIX_BYTES],
    columns: Vec<KeyColumn>,
    /// Columns of a row of the table.
    row_column_count: usize,
}

/// One column of a key.
#[derive(Clone, Debug)]
pub(crate) struct KeyColumn {
    /// Its position in the table's rows.
    position: usize,
    kind: ValueKind,
    is_nullable: bool,
    name: String,
}

impl KeyCodec {
    /// The codec of the table's primary key.
    #[must_use]
    pub fn new(schema: &TableSchema) -> KeyCodec {
        KeyCodec::of_index(schema, PRIMARY_INDEX, &schema.primary_key)
    }

    /// The codec of an index over the columns at `positions` of the schema, in key order.
    ///
    /// # Panics
    /// If there is no column at a position.
    #[must_use]
    pub fn of_index(schema: &TableSchema, index: IndexId, positions: &[usize]) -> KeyCodec {
        let columns = positions.iter().map(|&position| {
            let field = &schema.columns[position].field;
            KeyColumn {
                position,
                kind: ValueKind::of(field.data_type()).expect("TableSchema::new refuses types that are not storable"),
                is_nullable: field.is_nullable(),
                name: field.name().clone(),
            }
        });
        KeyCodec {
            prefix: index_prefix(schema.table, index),
            columns: columns.collect(),
            row_column_count: schema.columns.len(),
        }
    }

    /// How many columns the key has.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.columns.len()
    }

    /// First bytes of every key of this codec.
    #[must_use]
    pub fn prefix(&self) -> [u8; PREFIX_BYTES] {
        self.prefix
    }

    /// Appends the full key with these column values, in key order, to `out`. Fewer values than the key has columns
    /// give a byte prefix of every key that starts with them: with [`prefix_end`] a range. On error `out` is as it was.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the column with a value of the wrong kind or a NULL that it does not allow, or says
    /// that there are too many values or the key is longer than [`KEY_BYTES_MAX`].
    pub fn encode(&self, key: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        if key.len() > self.columns.len() {
            let (found, expected) = (key.len(), self.columns.len());
            return Err(Error::Invalid(format!("a key of {expected} columns was given {found} values")));
        }
        self.encode_values(key.iter().copied(), out)
    }

    /// Appends the full key of the row `values`, one per column of the table, to `out`. On error `out` is as it was.
    ///
    /// # Errors
    /// As [`KeyCodec::encode`].
    pub fn encode_row(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        if values.len() != self.row_column_count {
            let (found, expected) = (values.len(), self.row_column_count);
            return Err(Error::Invalid(format!("a row of {expected} columns was given {found} values")));
        }
        self.encode_values(self.columns.iter().map(|c| values[c.position]), out)
    }

    /// Appends the full key of an encoded row of the table to `out`. On error `out` is as it was.
    ///
    /// # Errors
    /// As [`KeyCodec::encode`]; [`Error::Malformed`] if a text column of the key is not UTF-8.
    pub fn encode_from(&self, row: RowRef<'_>, out: &mut Vec<u8>) -> Result<()> {
        let values = self.columns.iter().map(|c| row.get(c.position)).collect::<Result<Vec<_>>>()?;
        self.encode_values(values.into_iter(), out)
    }

    /// Column values of the full key `key`, in key order.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless `key` is exactly what [`KeyCodec::encode`] writes for these values.
    pub fn decode(&self, key: &[u8]) -> Result<Vec<OwnedValue>> {
        decode::decode(&self.prefix, &self.columns, key)
    }

    fn encode_values<'v>(&self, values: impl Iterator<Item = Value<'v>>, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&self.prefix);
        for (column, value) in self.columns.iter().zip(values) {
            if let Err(error) = column.push(value, out) {
                out.truncate(start);
                return Err(error);
            }
        }
        let key_bytes = out.len() - start;
        if key_bytes > KEY_BYTES_MAX {
            out.truncate(start);
            return Err(Error::Invalid(format!("a key of {key_bytes} bytes exceeds the limit of {KEY_BYTES_MAX}")));
        }
        Ok(())
    }
}

impl KeyColumn {
    fn push(&self, value: Value<'_>, out: &mut Vec<u8>) -> Result<()> {
        match value.kind() {
            None if self.is_nullable => out.push(NULL),
            None => {
                return Err(Error::Invalid(format!(
                    "null value in key column \"{}\", which is not nullable",
                    self.name
                )));
            }
            Some(kind) if kind == self.kind => {
                if self.is_nullable {
                    out.push(NOT_NULL);
                }
                push::value(out, value);
            }
            Some(kind) => {
                let (name, expected) = (&self.name, self.kind);
                return Err(Error::Invalid(format!("key column \"{name}\" holds {expected:?}, not {kind:?}")));
            }
        }
        Ok(())
    }
}

/// First bytes of every primary key of `table`.
#[must_use]
pub fn table_prefix(table: TableId) -> [u8; PREFIX_BYTES] {
    index_prefix(table, PRIMARY_INDEX)
}

/// First bytes of every key of an index.
#[must_use]
pub fn index_prefix(table: TableId, index: IndexId) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&table.0.to_be_bytes());
    prefix[4..].copy_from_slice(&index.0.to_be_bytes());
    prefix
}

/// Every primary key of `table`, and nothing else.
#[must_use]
pub fn table_range(table: TableId) -> Range<Vec<u8>> {
    prefix_range(&table_prefix(table))
}

/// Every key that starts with `prefix`.
///
/// # Panics
/// As [`prefix_end`].
#[must_use]
pub fn prefix_range(prefix: &[u8]) -> Range<Vec<u8>> {
    prefix.to_vec()..prefix_end(prefix)
}

/// Smallest byte string above all that start with `prefix`.
///
/// # Panics
/// If `prefix` is nothing but 0xFF, because nothing is above it. A prefix of a full key never is: table numbers end
/// below `u32::MAX`.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let last = prefix.iter().rposition(|&b| b != 0xFF).expect("a key prefix has a byte below 0xFF");
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

/// Table that the full key `key` belongs to; `None` if it is too short to say.
#[must_use]
pub fn table_of(key: &[u8]) -> Option<TableId> {
    key.first_chunk().map(|&b| TableId(u32::from_be_bytes(b)))
}
