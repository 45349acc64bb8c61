//! Key bytes back into values. Accepts exactly what the encoder writes, so that no two byte strings mean one key.

use super::{KeyColumn, NOT_NULL, NULL};
use crate::error::{Error, Result};
use crate::row::{OwnedValue, ValueKind};

/// Values of the `columns` of `key`, which must start with `prefix` and end with the last column.
pub(super) fn decode(prefix: &[u8], columns: &[KeyColumn], key: &[u8]) -> Result<Vec<OwnedValue>> {
    let mut reader = Reader { key, at: 0 };
    if !key.starts_with(prefix) {
        return Err(reader.malformed("the key is of another table or index"));
    }
    reader.at = prefix.len();
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        values.push(reader.column(column)?);
    }
    if reader.at != key.len() {
        return Err(reader.malformed("there are bytes after the last column"));
    }
    Ok(values)
}

struct Reader<'a> {
    key: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn column(&mut self, column: &KeyColumn) -> Result<OwnedValue> {
        if column.is_nullable {
            match self.take::<1>()? {
                [NOT_NULL] => {}
                [NULL] => return Ok(OwnedValue::Null),
                _ => return Err(self.malformed("a NULL marker has an unknown value")),
            }
        }
        Ok(match column.kind {
            ValueKind::Boolean => match self.take()? {
                [0] => OwnedValue::Boolean(false),
                [1] => OwnedValue::Boolean(true),
                [_] => return Err(self.malformed("a boolean is neither 0 nor 1")),
            },
            ValueKind::Int16 => OwnedValue::Int16(i16::from_be_bytes(self.take()?) ^ i16::MIN),
            ValueKind::Int32 => OwnedValue::Int32(self.i32()?),
            ValueKind::Date32 => OwnedValue::Date32(self.i32()?),
            ValueKind::Int64 => OwnedValue::Int64(self.i64()?),
            ValueKind::Time64 => OwnedValue::Time64(self.i64()?),
            ValueKind::Timestamp => OwnedValue::Timestamp(self.i64()?),
            ValueKind::Decimal128 => OwnedValue::Decimal128(i128::from_be_bytes(self.take()?) ^ i128::MIN),
            ValueKind::Uuid => OwnedValue::Uuid(self.take()?),
            ValueKind::List | ValueKind::Interval => return Err(self.malformed("a list or interval is in a key")),
            ValueKind::Float32 => OwnedValue::Float32(self.f32()?),
            ValueKind::Float64 => OwnedValue::Float64(self.f64()?),
            ValueKind::Binary => OwnedValue::Binary(self.bytes()?),
            ValueKind::Text => {
                let bytes = self.bytes()?;
                OwnedValue::Text(String::from_utf8(bytes).map_err(|_| self.malformed("text is not UTF-8"))?)
            }
        })
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?) ^ i32::MIN)
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?) ^ i64::MIN)
    }

    fn f32(&mut self) -> Result<f32> {
        let ordered = u32::from_be_bytes(self.take()?);
        let value = f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered });
        let is_canonical = if value.is_nan() { value.to_bits() == 0x7FC0_0000 } else { value.to_bits() != 1 << 31 };
        if is_canonical { Ok(value) } else { Err(self.malformed("a number is not in its one legal form")) }
    }

    fn f64(&mut self) -> Result<f64> {
        let ordered = u64::from_be_bytes(self.take()?);
        let value = f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered });
        let is_canonical =
            if value.is_nan() { value.to_bits() == 0x7FF8_0000_0000_0000 } else { value.to_bits() != 1 << 63 };
        if is_canonical { Ok(value) } else { Err(self.malformed("a number is not in its one legal form")) }
    }

    /// Unescapes text or bytes up to and including the terminator.
    fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        loop {
            let rest = &self.key[self.at..];
            let zero = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
            value.extend_from_slice(&rest[..zero]);
            self.at += zero;
            match self.take()? {
                [0x00, 0x00] => return Ok(value),
                [0x00, 0xFF] => value.push(0),
                _ => return Err(self.malformed("a zero byte is neither escaped nor a terminator")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = *self.key[self.at..].first_chunk().ok_or_else(|| self.malformed("the key is cut short"))?;
        self.at += N;
        Ok(taken)
    }

    fn malformed(&self, what: &'static str) -> Error {
        Error::malformed("key", self.at, what)
    }
}
