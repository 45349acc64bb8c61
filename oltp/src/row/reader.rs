//! `RowRef`: a checked row, read in place.

use std::str;

use super::{RowCodec, Slot, Value, ValueKind, malformed, u32_at};
use crate::error::Result;

/// A row whose layout was checked once, so that reading a column is a load or two.
///
/// Accessors take a column number; those ending in `_at` take a [`Slot`] of the same codec instead, for loops over
/// many rows. None of them looks at the null bitmap but [`RowRef::is_null`] and [`RowRef::get`]: a NULL reads as zero or
/// empty.
///
/// # Panics
/// Every accessor panics if the column does not exist; typed ones also if the column is not as wide as the type.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    codec: &'a RowCodec,
    bytes: &'a [u8],
}

impl<'a> RowRef<'a> {
    /// Checks `bytes` with [`RowCodec::check`].
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] with the offset within the row.
    #[inline]
    pub fn new(codec: &'a RowCodec, bytes: &'a [u8]) -> Result<RowRef<'a>> {
        codec.check(bytes)?;
        Ok(RowRef { codec, bytes })
    }

    /// The encoded row.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The row's codec.
    #[must_use]
    pub fn codec(&self) -> &'a RowCodec {
        self.codec
    }

    /// The value of a column.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] if a text column is not UTF-8.
    pub fn get(&self, column: usize) -> Result<Value<'a>> {
        let slot = self.codec.slots[column];
        if self.is_null_at(slot) {
            return Ok(Value::Null);
        }
        Ok(match slot.kind {
            ValueKind::Text => Value::Text(self.text_at(slot)?),
            ValueKind::Binary => Value::Binary(self.variable_at(slot)),
            ValueKind::List => Value::List(self.variable_at(slot)),
            kind => kind.fixed_value(&self.bytes[slot.at as usize..]).expect("the other kinds have a fixed width"),
        })
    }

    /// All values in schema order.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] if a text column is not UTF-8.
    pub fn values(&self) -> Result<Vec<Value<'a>>> {
        (0..self.codec.column_count()).map(|column| self.get(column)).collect()
    }

    /// Whether a column is NULL.
    #[must_use]
    #[inline]
    pub fn is_null(&self, column: usize) -> bool {
        self.is_null_at(self.codec.slots[column])
    }

    /// Bytes of a fixed-width column, little-endian.
    #[must_use]
    #[inline]
    pub fn fixed(&self, column: usize) -> &'a [u8] {
        let slot = self.codec.slots[column];
        let width = slot.kind.fixed_bytes().expect("the caller asks for a fixed-width column");
        &self.bytes[slot.at as usize..][..width]
    }

    /// Bytes of a text, byte or list column.
    #[must_use]
    #[inline]
    pub fn variable(&self, column: usize) -> &'a [u8] {
        self.variable_at(self.codec.slots[column])
    }

    /// A text column.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] if it is not UTF-8.
    #[inline]
    pub fn text(&self, column: usize) -> Result<&'a str> {
        self.text_at(self.codec.slots[column])
    }

    /// A boolean column.
    #[must_use]
    #[inline]
    pub fn boolean(&self, column: usize) -> bool {
        self.fixed_at::<1>(self.codec.slots[column])[0] != 0
    }

    /// An `Int16` column.
    #[must_use]
    #[inline]
    pub fn i16(&self, column: usize) -> i16 {
        i16::from_le_bytes(self.fixed_at(self.codec.slots[column]))
    }

    /// An `Int32` or `Date32` column.
    #[must_use]
    #[inline]
    pub fn i32(&self, column: usize) -> i32 {
        i32::from_le_bytes(self.fixed_at(self.codec.slots[column]))
    }

    /// An `Int64`, `Time64` or `Timestamp` column.
    #[must_use]
    #[inline]
    pub fn i64(&self, column: usize) -> i64 {
        i64::from_le_bytes(self.fixed_at(self.codec.slots[column]))
    }

    /// A `Float32` column.
    #[must_use]
    #[inline]
    pub fn f32(&self, column: usize) -> f32 {
        f32::from_le_bytes(self.fixed_at(self.codec.slots[column]))
    }

    /// A `Float64` column.
    #[must_use]
    #[inline]
    pub fn f64(&self, column: usize) -> f64 {
        f64::from_le_bytes(self.fixed_at(self.codec.slots[column]))
    }

    /// A `Decimal128` column, unscaled.
    #[must_use]
    #[inline]
    pub fn i128(&self, column: usize) -> i128 {
        i128::from_le_bytes(self.fixed_at(self.codec.slots[column]))
    }

    /// Whether a column is NULL.
    #[must_use]
    #[inline]
    pub fn is_null_at(&self, slot: Slot) -> bool {
        self.bytes[slot.null_at as usize] & slot.null_mask != 0
    }

    /// Little-endian bytes of a fixed-width column.
    #[must_use]
    #[inline]
    pub fn fixed_at<const N: usize>(&self, slot: Slot) -> [u8; N] {
        debug_assert_eq!(slot.kind.fixed_bytes(), Some(N), "the column has this width");
        *self.bytes[slot.at as usize..].first_chunk().expect("a checked row has all its fixed-width columns")
    }

    /// Bytes of a text, byte or list column.
    #[must_use]
    #[inline]
    pub fn variable_at(&self, slot: Slot) -> &'a [u8] {
        assert!(slot.is_variable, "the caller asks for a text or byte column");
        let (start, end) = (slot.start(self.bytes), u32_at(self.bytes, slot.at as usize) as usize);
        &self.bytes[slot.variable_at as usize..][start..end]
    }

    /// A text column.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] if it is not UTF-8.
    #[inline]
    pub fn text_at(&self, slot: Slot) -> Result<&'a str> {
        str::from_utf8(self.variable_at(slot)).map_err(|e| {
            let start = slot.variable_at as usize + slot.start(self.bytes);
            malformed(start + e.valid_up_to(), "text is not UTF-8")
        })
    }

    /// Checks that every text column is UTF-8; one pass over the bytes if no other variable-length column is between.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] with the offset of the first bad byte.
    pub fn check_text(&self) -> Result<()> {
        let is_clean = self.codec.variable_is_text && {
            // Valid as a whole and cut at character boundaries means valid in parts.
            let ends = (0..self.codec.variable_count).map(|v| u32_at(self.bytes, self.codec.ends_at + v * 4) as usize);
            str::from_utf8(&self.bytes[self.codec.header_bytes()..])
                .is_ok_and(|all| ends.into_iter().all(|end| all.is_char_boundary(end)))
        };
        if is_clean {
            return Ok(());
        }
        self.codec.slots.iter().filter(|s| s.kind == ValueKind::Text).try_for_each(|&s| self.text_at(s).map(|_| ()))
    }
}
