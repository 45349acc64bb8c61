//! Single key columns: each function appends one value's order-preserving bytes to a buffer.
//!
//! For encoders that already know the column types, such as a bulk load from column arrays. They append no table
//! prefix, no NULL marker and check no length; [`super::KeyCodec`] does all three.

use super::{NOT_NULL, NULL};
use crate::row::Value;

/// Ends text and bytes; smaller than any continuation, so that a string sorts before its extensions.
const TERMINATOR: [u8; 2] = [0x00, 0x00];
/// Stands for a zero byte inside text and bytes.
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xFF];

/// Appends a boolean: false before true.
#[inline]
pub fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends a 16-bit integer.
#[inline]
pub fn push_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&(value ^ i16::MIN).to_be_bytes());
}

/// Appends a 32-bit integer or a date.
#[inline]
pub fn push_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&(value ^ i32::MIN).to_be_bytes());
}

/// Appends a 64-bit integer, a time or a timestamp.
#[inline]
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&(value ^ i64::MIN).to_be_bytes());
}

/// Appends an unscaled decimal.
#[inline]
pub fn push_i128(out: &mut Vec<u8>, value: i128) {
    out.extend_from_slice(&(value ^ i128::MIN).to_be_bytes());
}

/// Appends a single-precision number: -0 as 0, every NaN as one above infinity.
#[inline]
pub fn push_f32(out: &mut Vec<u8>, value: f32) {
    let bits = if value.is_nan() { 0x7FC0_0000 } else { (value + 0.0).to_bits() };
    // Negative numbers sort backwards by magnitude, so all their bits flip; of the others only the sign.
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    out.extend_from_slice(&ordered.to_be_bytes());
}

/// Appends a double-precision number: -0 as 0, every NaN as one above infinity.
#[inline]
pub fn push_f64(out: &mut Vec<u8>, value: f64) {
    let bits = if value.is_nan() { 0x7FF8_0000_0000_0000 } else { (value + 0.0).to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.extend_from_slice(&ordered.to_be_bytes());
}

/// Appends a UUID: compared byte by byte.
#[inline]
pub fn push_uuid(out: &mut Vec<u8>, value: &[u8; 16]) {
    out.extend_from_slice(value);
}

/// Appends text or bytes, escaped and terminated.
#[inline]
pub fn push_bytes(out: &mut Vec<u8>, value: &[u8]) {
    push_bytes_prefix(out, value);
    out.extend_from_slice(&TERMINATOR);
}

/// Appends the start of a text or byte value, escaped but not terminated: a byte prefix of every value that starts
/// with `value`, for range scans. Only as the last column.
#[inline]
pub fn push_bytes_prefix(out: &mut Vec<u8>, value: &[u8]) {
    let mut parts = value.split(|&b| b == 0);
    if let Some(first) = parts.next() {
        out.extend_from_slice(first);
    }
    for part in parts {
        out.extend_from_slice(&ESCAPED_ZERO);
        out.extend_from_slice(part);
    }
}

/// Appends the marker that a nullable column needs before its value.
#[inline]
pub fn push_not_null(out: &mut Vec<u8>) {
    out.push(NOT_NULL);
}

/// Appends a nullable column's NULL.
#[inline]
pub fn push_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

/// Appends a value that is not NULL.
#[inline]
pub(super) fn value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Null => push_null(out),
        Value::Boolean(v) => push_bool(out, v),
        Value::Int16(v) => push_i16(out, v),
        Value::Int32(v) | Value::Date32(v) => push_i32(out, v),
        Value::Int64(v) | Value::Time64(v) | Value::Timestamp(v) => push_i64(out, v),
        Value::Float32(v) => push_f32(out, v),
        Value::Float64(v) => push_f64(out, v),
        Value::Decimal128(v) => push_i128(out, v),
        Value::Text(v) => push_bytes(out, v.as_bytes()),
        Value::Binary(v) => push_bytes(out, v),
        Value::Uuid(v) => push_uuid(out, &v),
        // No key has one of these, see `TableSchema::new`; were there one, its bytes would tell values apart.
        Value::Interval(v) => push_bytes(out, &v.to_le_bytes()),
        Value::List(v) => push_bytes(out, v),
    }
}
