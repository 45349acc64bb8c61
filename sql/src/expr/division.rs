//! Division of decimals with at least sixteen places, rounded, where DataFusion gives four more than the dividend has.
//!
//! PostgreSQL chooses the places of each quotient by its size. A column has one scale, so the places here follow from the
//! types alone; quotients that do not fit 38 digits are an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::compute::kernels::numeric::div;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::Expr;

use super::function::{Function, Returns, Run};

/// Places of a quotient that are always there.
const PLACES_MIN: u8 = 16;

/// `left / right`, each a decimal or an integer. Of two integers it is whole: that both are may turn out only when
/// constants have got their types, which may make a sum beside them an integer.
pub(super) fn quotient(left: Expr, right: Expr) -> Expr {
    let returns: Returns = |types| match types {
        [l, r] if l.is_integer() && r.is_integer() => {
            Ok(if l.primitive_width() < r.primitive_width() { r.clone() } else { l.clone() })
        }
        [l, r] => match (digits(l), digits(r)) {
            (Some((p1, s1)), Some((_, s2))) => Ok(quotient_type(p1, s1, s2)),
            _ => internal_err!("a quotient of {l} and {r}"),
        },
        other => internal_err!("a quotient of {other:?}"),
    };
    let run: Run = |args, target| {
        let DataType::Decimal128(precision, scale) = *target else {
            let (left, right) = (cast(&args[0], target)?, cast(&args[1], target)?);
            return Ok(div(&left, &right)?);
        };
        let decimal = |arg: &ArrayRef| match digits(arg.data_type()) {
            Some((precision, scale)) => Ok((cast(arg, &DataType::Decimal128(precision, scale))?, scale)),
            None => internal_err!("a quotient of {}", arg.data_type()),
        };
        let ((left, s1), (right, s2)) = (decimal(&args[0])?, decimal(&args[1])?);
        let shift = scale - s1 + s2;
        let (dividends, divisors) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        let quotients: Decimal128Array = (0..dividends.len())
            .map(|row| {
                let is_null = dividends.is_null(row) || divisors.is_null(row);
                (!is_null).then(|| divide(dividends.value(row), divisors.value(row), shift, precision)).transpose()
            })
            .collect::<Result<_, ArrowError>>()?;
        Ok(Arc::new(quotients.with_precision_and_scale(precision, scale)?) as ArrayRef)
    };
    Function::any("quotient", 2, returns, run).call(vec![left, right])
}

/// Precision and scale of a decimal, or of an integer as one.
pub(super) fn digits(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        _ => None,
    }
}

/// Never fewer places than DataFusion gives.
fn quotient_type(p1: u8, s1: i8, s2: i8) -> DataType {
    let max = DECIMAL128_MAX_PRECISION.cast_signed();
    let scale = s1.saturating_add(4).max(s2).max(PLACES_MIN.cast_signed()).min(max);
    let whole = (p1.cast_signed() - s1).saturating_add(s2).max(1);
    let precision = whole.saturating_add(scale).min(max);
    DataType::Decimal128(precision.unsigned_abs(), scale)
}

/// `dividend · 10^shift / divisor`, rounded half away from zero.
fn divide(dividend: i128, divisor: i128, shift: i8, precision: u8) -> Result<i128, ArrowError> {
    if divisor == 0 {
        return Err(ArrowError::DivideByZero);
    }
    let overflow = || ArrowError::ArithmeticOverflow("the quotient has more than 38 digits".to_owned());
    let quotient = match 10_i128.checked_pow(u32::from(shift.unsigned_abs())).and_then(|f| dividend.checked_mul(f)) {
        Some(scaled) if divisor.unsigned_abs() < u128::MAX / 4 => {
            let (whole, rest) = (scaled.checked_div(divisor).ok_or_else(overflow)?, scaled % divisor);
            let is_up = rest.unsigned_abs() * 2 >= divisor.unsigned_abs();
            if is_up { whole + scaled.signum() * divisor.signum() } else { whole }
        }
        _ => {
            let factor = i256::from_i128(10).checked_pow(u32::from(shift.unsigned_abs())).ok_or_else(overflow)?;
            let scaled = i256::from_i128(dividend).checked_mul(factor).ok_or_else(overflow)?;
            let wide = i256::from_i128(divisor);
            let whole = scaled.checked_div(wide).ok_or_else(overflow)?;
            let rest = scaled.wrapping_sub(whole.wrapping_mul(wide)).wrapping_abs();
            let is_up = rest.wrapping_add(rest) >= wide.wrapping_abs();
            let step = i256::from_i128(dividend.signum() * divisor.signum());
            let rounded = if is_up { whole.wrapping_add(step) } else { whole };
            rounded.to_i128().ok_or_else(overflow)?
        }
    };
    if quotient.unsigned_abs() >= 10_u128.pow(u32::from(precision)) { Err(overflow()) } else { Ok(quotient) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        for (dividend, divisor, shift, expected) in [
            (1, 3, 4, 3333),
            (2, 3, 4, 6667),
            (-2, 3, 4, -6667),
            (1, -2, 0, -1),
            (1, 2, 0, 1),
            (-1, 2, 0, -1),
            (0, 7, 9, 0),
        ] {
            assert_eq!(divide(dividend, divisor, shift, 38).unwrap(), expected, "{dividend}/{divisor}");
        }
        let large = 10_i128.pow(37);
        assert_eq!(divide(large, 3, 0, 38).unwrap(), large / 3);
        // Beyond 128 bits in between, but not in the end.
        assert_eq!(divide(large, 10_i128.pow(30), 16, 38).unwrap(), 10_i128.pow(23));
        assert_eq!(divide(2 * large, 3 * large, 16, 38).unwrap(), 6_666_666_666_666_667);
        assert!(divide(large, 1, 2, 38).is_err());
        assert!(matches!(divide(1, 0, 2, 38), Err(ArrowError::DivideByZero)));
    }

    #[test]
    fn a_quotient_has_sixteen_places_or_more() {
        assert_eq!(quotient_type(2, 1, 0), DataType::Decimal128(17, 16));
        assert_eq!(quotient_type(38, 4, 4), DataType::Decimal128(38, 16));
        assert_eq!(quotient_type(38, 20, 4), DataType::Decimal128(38, 24));
    }
}
