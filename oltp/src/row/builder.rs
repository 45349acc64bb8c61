//! `RowBuilder`: writes one row at the end of a buffer, column by column, without looking at types twice.

use super::{END_BYTES, ROW_BYTES_MAX, RowCodec, Slot, Value};
use crate::error::{Error, Result};

/// A row being written. Fixed-width columns may come in any order and default to zero; variable-length columns must
/// come in schema order, each exactly once.
///
/// Dropping it unfinished leaves part of a row at the end of the buffer, which the caller truncates.
pub struct RowBuilder<'a> {
    codec: &'a RowCodec,
    out: &'a mut Vec<u8>,
    start: usize,
    /// Offset in `out` of the next end offset to write.
    end_at: usize,
}

impl<'a> RowBuilder<'a> {
    #[inline]
    pub(super) fn new(codec: &'a RowCodec, out: &'a mut Vec<u8>) -> RowBuilder<'a> {
        let start = out.len();
        out.extend_from_slice(&codec.template);
        RowBuilder { codec, out, start, end_at: start + codec.ends_at }
    }

    /// Writes a fixed-width value: `value` is its little-endian bytes, 0 or 1 for a boolean, network order for a UUID.
    ///
    /// # Panics
    /// If the slot is not of this codec or (debug builds) not `N` bytes wide.
    #[inline]
    pub fn fixed<const N: usize>(&mut self, slot: Slot, value: [u8; N]) {
        debug_assert_eq!(slot.kind.fixed_bytes(), Some(N), "the column has this width");
        let at = self.start + slot.at as usize;
        self.out[at..at + N].copy_from_slice(&value);
    }

    /// Appends the next variable-length value in schema order; text must be UTF-8.
    ///
    /// # Panics
    /// In debug builds if all variable-length columns were written.
    #[inline]
    pub fn variable(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
        self.end_variable();
    }

    /// Makes a column NULL; for a variable-length column this is its turn in the order.
    ///
    /// # Panics
    /// In debug builds if the column is not nullable.
    #[inline]
    pub fn null(&mut self, slot: Slot) {
        debug_assert!(slot.is_nullable(), "the column may be NULL");
        self.out[self.start + slot.null_at as usize] |= slot.null_mask;
        if slot.is_variable {
            self.end_variable();
        }
    }

    /// Writes a value of the slot's kind.
    #[inline]
    pub(super) fn value(&mut self, slot: Slot, value: &Value<'_>) {
        match *value {
            Value::Null => self.null(slot),
            Value::Boolean(v) => self.fixed(slot, [u8::from(v)]),
            Value::Int16(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Int32(v) | Value::Date32(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Int64(v) | Value::Time64(v) | Value::Timestamp(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Float32(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Float64(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Decimal128(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Uuid(v) => self.fixed(slot, v),
            Value::Interval(v) => self.fixed(slot, v.to_le_bytes()),
            Value::Text(v) => self.variable(v.as_bytes()),
            Value::Binary(v) | Value::List(v) => self.variable(v),
        }
    }

    /// Ends the row and returns its length.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is longer than [`ROW_BYTES_MAX`]; the buffer is then as it was before the row.
    ///
    /// # Panics
    /// If a variable-length column was left out.
    #[inline]
    pub fn finish(self) -> Result<usize> {
        let row_bytes = self.out.len() - self.start;
        assert_eq!(self.end_at, self.start + self.codec.template.len(), "every variable-length column was written");
        if row_bytes > ROW_BYTES_MAX {
            self.out.truncate(self.start);
            return Err(Error::Invalid(format!("a row of {row_bytes} bytes exceeds the limit of {ROW_BYTES_MAX}")));
        }
        debug_assert!(self.codec.check(&self.out[self.start..]).is_ok(), "what was written can be read");
        Ok(row_bytes)
    }

    #[inline]
    fn end_variable(&mut self) {
        let variable_at = self.start + self.codec.template.len();
        debug_assert!(self.end_at < variable_at, "the codec has this many variable-length columns");
        // Wraps only beyond 4 GiB, and then `finish` refuses the row.
        let end = (self.out.len() - variable_at) as u32;
        self.out[self.end_at..self.end_at + END_BYTES].copy_from_slice(&end.to_le_bytes());
        self.end_at += END_BYTES;
    }
}
