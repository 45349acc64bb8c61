//! `Value`: one SQL value on its way into or out of a row or key.
//!
//! A value borrows its text and bytes; [`OwnedValue`] is the same thing for keeping. The Arrow type of a column fixes
//! the [`ValueKind`] of its values: units, precision, scale and time zone belong to the column, not to the value.

use arrow_schema::{DataType, IntervalUnit, TimeUnit};

/// A span of time: its parts do not convert into each other, because months and days differ in length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// One value, borrowing variable-length bytes.
///
/// Equality is that of the Rust types: NaN differs from itself and -0.0 equals 0.0. The order of keys is defined by
/// [`crate::key`] instead.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL, a value of every kind.
    Null,
    /// Truth value.
    Boolean(bool),
    /// 16-bit integer.
    Int16(i16),
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer.
    Int64(i64),
    /// Single precision.
    Float32(f32),
    /// Double precision.
    Float64(f64),
    /// Unscaled decimal; the column's type has the scale. Precision is not checked here.
    Decimal128(i128),
    /// UTF-8 text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// Days since 1970-01-01.
    Date32(i32),
    /// Microseconds since midnight.
    Time64(i64),
    /// Microseconds since 1970-01-01 00:00, UTC if the column has a time zone.
    Timestamp(i64),
    /// 16 bytes in network order.
    Uuid([u8; 16]),
    /// Span of time.
    Interval(Interval),
    /// Elements of one kind, as [`super::list`] encodes them.
    List(&'a [u8]),
}

/// A [`Value`] that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedValue {
    /// [`Value::Null`].
    Null,
    /// [`Value::Boolean`].
    Boolean(bool),
    /// [`Value::Int16`].
    Int16(i16),
    /// [`Value::Int32`].
    Int32(i32),
    /// [`Value::Int64`].
    Int64(i64),
    /// [`Value::Float32`].
    Float32(f32),
    /// [`Value::Float64`].
    Float64(f64),
    /// [`Value::Decimal128`].
    Decimal128(i128),
    /// [`Value::Text`].
    Text(String),
    /// [`Value::Binary`].
    Binary(Vec<u8>),
    /// [`Value::Date32`].
    Date32(i32),
    /// [`Value::Time64`].
    Time64(i64),
    /// [`Value::Timestamp`].
    Timestamp(i64),
    /// [`Value::Uuid`].
    Uuid([u8; 16]),
    /// [`Value::Interval`].
    Interval(Interval),
    /// [`Value::List`].
    List(Vec<u8>),
}

/// Type of a column as the codecs see it: how its values are laid out and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// [`Value::Boolean`].
    Boolean,
    /// [`Value::Int16`].
    Int16,
    /// [`Value::Int32`].
    Int32,
    /// [`Value::Int64`].
    Int64,
    /// [`Value::Float32`].
    Float32,
    /// [`Value::Float64`].
    Float64,
    /// [`Value::Decimal128`].
    Decimal128,
    /// [`Value::Text`].
    Text,
    /// [`Value::Binary`].
    Binary,
    /// [`Value::Date32`].
    Date32,
    /// [`Value::Time64`].
    Time64,
    /// [`Value::Timestamp`].
    Timestamp,
    /// [`Value::Uuid`].
    Uuid,
    /// [`Value::Interval`].
    Interval,
    /// [`Value::List`].
    List,
}

impl ValueKind {
    /// The value whose little-endian bytes `bytes` begins with; `None` for a kind of variable width.
    ///
    /// # Panics
    /// If `bytes` is shorter than the kind.
    #[inline]
    pub(super) fn fixed_value<'a>(self, bytes: &[u8]) -> Option<Value<'a>> {
        fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().expect("the caller has checked the length")
        }
        Some(match self {
            ValueKind::Boolean => Value::Boolean(fixed::<1>(bytes)[0] != 0),
            ValueKind::Int16 => Value::Int16(i16::from_le_bytes(fixed(bytes))),
            ValueKind::Int32 => Value::Int32(i32::from_le_bytes(fixed(bytes))),
            ValueKind::Int64 => Value::Int64(i64::from_le_bytes(fixed(bytes))),
            ValueKind::Float32 => Value::Float32(f32::from_le_bytes(fixed(bytes))),
            ValueKind::Float64 => Value::Float64(f64::from_le_bytes(fixed(bytes))),
            ValueKind::Decimal128 => Value::Decimal128(i128::from_le_bytes(fixed(bytes))),
            ValueKind::Date32 => Value::Date32(i32::from_le_bytes(fixed(bytes))),
            ValueKind::Time64 => Value::Time64(i64::from_le_bytes(fixed(bytes))),
            ValueKind::Timestamp => Value::Timestamp(i64::from_le_bytes(fixed(bytes))),
            ValueKind::Uuid => Value::Uuid(fixed(bytes)),
            ValueKind::Interval => Value::Interval(Interval::from_le_bytes(fixed(bytes))),
            ValueKind::Text | ValueKind::Binary | ValueKind::List => return None,
        })
    }
}

impl<'a> Value<'a> {
    /// Whether this is NULL.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The kind of column that takes this value; `None` for NULL, which fits all.
    #[must_use]
    pub fn kind(&self) -> Option<ValueKind> {
        Some(match self {
            Value::Null => return None,
            Value::Boolean(_) => ValueKind::Boolean,
            Value::Int16(_) => ValueKind::Int16,
            Value::Int32(_) => ValueKind::Int32,
            Value::Int64(_) => ValueKind::Int64,
            Value::Float32(_) => ValueKind::Float32,
            Value::Float64(_) => ValueKind::Float64,
            Value::Decimal128(_) => ValueKind::Decimal128,
            Value::Text(_) => ValueKind::Text,
            Value::Binary(_) => ValueKind::Binary,
            Value::Date32(_) => ValueKind::Date32,
            Value::Time64(_) => ValueKind::Time64,
            Value::Timestamp(_) => ValueKind::Timestamp,
            Value::Uuid(_) => ValueKind::Uuid,
            Value::Interval(_) => ValueKind::Interval,
            Value::List(_) => ValueKind::List,
        })
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned_value(self) -> OwnedValue {
        match self {
            Value::Null => OwnedValue::Null,
            Value::Boolean(v) => OwnedValue::Boolean(v),
            Value::Int16(v) => OwnedValue::Int16(v),
            Value::Int32(v) => OwnedValue::Int32(v),
            Value::Int64(v) => OwnedValue::Int64(v),
            Value::Float32(v) => OwnedValue::Float32(v),
            Value::Float64(v) => OwnedValue::Float64(v),
            Value::Decimal128(v) => OwnedValue::Decimal128(v),
            Value::Text(v) => OwnedValue::Text(v.to_owned()),
            Value::Binary(v) => OwnedValue::Binary(v.to_vec()),
            Value::Date32(v) => OwnedValue::Date32(v),
            Value::Time64(v) => OwnedValue::Time64(v),
            Value::Timestamp(v) => OwnedValue::Timestamp(v),
            Value::Uuid(v) => OwnedValue::Uuid(v),
            Value::Interval(v) => OwnedValue::Interval(v),
            Value::List(v) => OwnedValue::List(v.to_vec()),
        }
    }
}

impl OwnedValue {
    /// The value, borrowed.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            OwnedValue::Null => Value::Null,
            OwnedValue::Boolean(v) => Value::Boolean(*v),
            OwnedValue::Int16(v) => Value::Int16(*v),
            OwnedValue::Int32(v) => Value::Int32(*v),
            OwnedValue::Int64(v) => Value::Int64(*v),
            OwnedValue::Float32(v) => Value::Float32(*v),
            OwnedValue::Float64(v) => Value::Float64(*v),
            OwnedValue::Decimal128(v) => Value::Decimal128(*v),
            OwnedValue::Text(v) => Value::Text(v),
            OwnedValue::Binary(v) => Value::Binary(v),
            OwnedValue::Date32(v) => Value::Date32(*v),
            OwnedValue::Time64(v) => Value::Time64(*v),
            OwnedValue::Timestamp(v) => Value::Timestamp(*v),
            OwnedValue::Uuid(v) => Value::Uuid(*v),
            OwnedValue::Interval(v) => Value::Interval(*v),
            OwnedValue::List(v) => Value::List(v),
        }
    }
}

impl Interval {
    /// The bytes of a row: months, days and microseconds, little-endian.
    #[must_use]
    pub fn to_le_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.months.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.days.to_le_bytes());
        bytes[8..].copy_from_slice(&self.micros.to_le_bytes());
        bytes
    }

    /// What [`Interval::to_le_bytes`] wrote.
    #[must_use]
    pub fn from_le_bytes(bytes: [u8; 16]) -> Interval {
        let [a, b, c, d, e, f, g, h, micros @ ..] = bytes;
        Interval {
            months: i32::from_le_bytes([a, b, c, d]),
            days: i32::from_le_bytes([e, f, g, h]),
            micros: i64::from_le_bytes(micros),
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> OwnedValue {
        value.to_owned_value()
    }
}

impl ValueKind {
    /// The kind of the values of a column of type `data_type`; `None` for a type that tables cannot store.
    #[must_use]
    pub fn of(data_type: &DataType) -> Option<ValueKind> {
        Some(match data_type {
            DataType::Boolean => ValueKind::Boolean,
            DataType::Int16 => ValueKind::Int16,
            DataType::Int32 => ValueKind::Int32,
            DataType::Int64 => ValueKind::Int64,
            DataType::Float32 => ValueKind::Float32,
            DataType::Float64 => ValueKind::Float64,
            DataType::Decimal128(_, _) => ValueKind::Decimal128,
            DataType::Utf8View => ValueKind::Text,
            DataType::BinaryView => ValueKind::Binary,
            DataType::Date32 => ValueKind::Date32,
            DataType::Time64(TimeUnit::Microsecond) => ValueKind::Time64,
            DataType::Timestamp(TimeUnit::Microsecond, _) => ValueKind::Timestamp,
            DataType::FixedSizeBinary(16) => ValueKind::Uuid,
            DataType::Interval(IntervalUnit::MonthDayNano) => ValueKind::Interval,
            DataType::List(_) => ValueKind::List,
            _ => return None,
        })
    }

    /// Width in a row, or `None` for text, bytes and lists.
    #[must_use]
    pub fn fixed_bytes(self) -> Option<usize> {
        Some(match self {
            ValueKind::Boolean => 1,
            ValueKind::Int16 => 2,
            ValueKind::Int32 | ValueKind::Float32 | ValueKind::Date32 => 4,
            ValueKind::Int64 | ValueKind::Float64 | ValueKind::Time64 | ValueKind::Timestamp => 8,
            ValueKind::Decimal128 | ValueKind::Uuid | ValueKind::Interval => 16,
            ValueKind::Text | ValueKind::Binary | ValueKind::List => return None,
        })
    }
}
