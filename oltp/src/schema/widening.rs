//! `Widening`: changes of a column's type that lose nothing, so that what is stored need not be written again.
//!
//! Always true: every value of the narrower type has exactly one image in the wider one, and the images keep their order.

use arrow_schema::DataType;

use crate::row::Value;

/// How a value of a narrower type becomes one of a wider type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widening {
    /// The types are laid out alike.
    Same,
    /// Any integer to `Int32`.
    Int32,
    /// Any integer to `Int64`.
    Int64,
    /// `Float32` to `Float64`.
    Float64,
    /// An integer or decimal to a decimal: times this power of ten.
    Decimal(i128),
}

impl Widening {
    /// How values of type `from` become values of type `to`; `None` unless that is exact for every one of them.
    #[must_use]
    pub fn of(from: &DataType, to: &DataType) -> Option<Widening> {
        use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64};
        match (from, to) {
            (from, to) if from == to => Some(Widening::Same),
            (Int16, Int32) => Some(Widening::Int32),
            (Int16 | Int32, Int64) => Some(Widening::Int64),
            (Float32, Float64) => Some(Widening::Float64),
            // As many digits before the point as the largest value has.
            (Int16, Decimal128(precision, scale)) => decimal(5, 0, *precision, *scale),
            (Int32, Decimal128(precision, scale)) => decimal(10, 0, *precision, *scale),
            (Int64, Decimal128(precision, scale)) => decimal(19, 0, *precision, *scale),
            (Decimal128(precision, scale), Decimal128(wider, finer)) => {
                let digits = i16::from(*precision) - i16::from(*scale);
                decimal(digits, *scale, *wider, *finer)
            }
            _ => None,
        }
    }

    /// `value` in the wider type. `None` for a decimal beyond its own precision, which no checked value is, that would
    /// leave 128 bits.
    #[must_use]
    pub fn widen<'a>(&self, value: Value<'a>) -> Option<Value<'a>> {
        let integer = || match value {
            Value::Int16(v) => Some(i64::from(v)),
            Value::Int32(v) => Some(i64::from(v)),
            Value::Int64(v) => Some(v),
            _ => None,
        };
        Some(match (self, value) {
            (Widening::Same, value) => value,
            (_, Value::Null) => Value::Null,
            (Widening::Int32, _) => Value::Int32(i32::try_from(integer()?).ok()?),
            (Widening::Int64, _) => Value::Int64(integer()?),
            (Widening::Float64, Value::Float32(v)) => Value::Float64(f64::from(v)),
            (Widening::Decimal(factor), Value::Decimal128(v)) => Value::Decimal128(v.checked_mul(*factor)?),
            (Widening::Decimal(factor), _) => Value::Decimal128(i128::from(integer()?).checked_mul(*factor)?),
            (Widening::Float64, _) => return None,
        })
    }
}

/// From `digits` before the point and `scale` behind it.
fn decimal(digits: i16, scale: i8, precision: u8, finer: i8) -> Option<Widening> {
    let more = u32::try_from(finer.checked_sub(scale)?).ok()?;
    let has_room = i16::from(precision) - i16::from(finer) >= digits;
    has_room.then(|| 10_i128.checked_pow(more).map(Widening::Decimal)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_exact_for_every_value_widens() {
        use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64, Utf8View};
        let cases = [
            (Int16, Int64, Some(Widening::Int64)),
            (Int64, Int32, None),
            (Int32, Float64, None),
            (Float32, Float64, Some(Widening::Float64)),
            (Float64, Float32, None),
            (Int32, Utf8View, None),
            (Int16, Decimal128(5, 0), Some(Widening::Decimal(1))),
            (Int16, Decimal128(4, 0), None),
            (Int32, Decimal128(12, 2), Some(Widening::Decimal(100))),
            (Int32, Decimal128(11, 2), None),
            (Int64, Decimal128(38, 19), Some(Widening::Decimal(10_i128.pow(19)))),
            (Decimal128(10, 2), Decimal128(12, 4), Some(Widening::Decimal(100))),
            (Decimal128(10, 2), Decimal128(12, 2), Some(Widening::Decimal(1))),
            (Decimal128(10, 2), Decimal128(10, 3), None),
            (Decimal128(10, 2), Decimal128(12, 1), None),
            (Utf8View, Utf8View, Some(Widening::Same)),
        ];
        for (from, to, expected) in cases {
            assert_eq!(Widening::of(&from, &to), expected, "{from} to {to}");
        }
    }

    #[test]
    fn the_ends_of_each_type_fit() {
        let cases = [
            (DataType::Int16, DataType::Decimal128(5, 0), Value::Int16(i16::MIN), Value::Decimal128(-32_768)),
            (DataType::Int32, DataType::Int64, Value::Int32(i32::MIN), Value::Int64(i64::from(i32::MIN))),
            (
                DataType::Int64,
                DataType::Decimal128(38, 19),
                Value::Int64(i64::MIN),
                Value::Decimal128(i128::from(i64::MIN) * 10_i128.pow(19)),
            ),
            (DataType::Float32, DataType::Float64, Value::Float32(0.1), Value::Float64(f64::from(0.1_f32))),
        ];
        for (from, to, value, wide) in cases {
            assert_eq!(Widening::of(&from, &to).unwrap().widen(value), Some(wide));
        }
        assert_eq!(Widening::Decimal(10).widen(Value::Decimal128(i128::MAX)), None);
        assert_eq!(Widening::Int64.widen(Value::Null), Some(Value::Null));
    }
}
