//! `+ - *` of integers and `+ - * / %` of floating-point numbers that fail where the result does not fit.
//!
//! DataFusion wraps integers and lets floats become infinite. Here the result is computed the same way, without a branch
//! per value; that something was lost is noticed afterwards, once per batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, Float32Array, Float64Array, PrimitiveArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{
    ArrowNativeTypeOp, DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use super::function::{Function, Run, call, is_nowhere};
use crate::types::sql_name;

/// An operator that fails when its result does not fit the type of both operands.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

/// `left op right`, checked, if that is ours: both of one type, which is INTEGER-like, or floating-point.
pub(super) fn checked(left: Expr, op: Operator, right: Expr) -> Expr {
    call(Checked { op, signature: Signature::any(2, Volatility::Immutable) }, vec![left, right])
}

/// Whether the result of this operator on decimals may have more digits than its type.
pub(super) fn may_leave_range(op: Operator, left: &DataType, right: &DataType) -> bool {
    let (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) = (left, right) else { return false };
    let (p1, p2) = (i32::from(*p1), i32::from(*p2));
    let (s1, s2) = (i32::from(*s1), i32::from(*s2));
    let digits = match op {
        Operator::Plus | Operator::Minus => (p1 - s1).max(p2 - s2) + s1.max(s2) + 1,
        Operator::Multiply => p1 + p2 + 1,
        _ => 0,
    };
    digits > 38
}

/// `expr`, a decimal computed in 128 bits, if it has at most 38 digits.
pub(super) fn in_range(expr: Expr) -> Expr {
    let run: Run = |args, _| {
        let is_wide = |value: i128| value.unsigned_abs() >= 10_u128.pow(38);
        let values = args[0].as_primitive::<Decimal128Type>();
        if values.values().iter().any(|value| is_wide(*value)) && values.iter().flatten().any(is_wide) {
            return Err(ArrowError::ArithmeticOverflow("a decimal has more than 38 digits".to_owned()).into());
        }
        Ok(Arc::clone(&args[0]))
    };
    Function::any("decimal_range", 1, |types| Ok(types[0].clone()), run).call(vec![expr])
}

/// `round` of a floating-point number to a whole one: halves to even, where DataFusion rounds them away from zero.
pub(super) fn rounded_to_even(function: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let [arg] = function.args.as_slice() else { return None };
    let is_float = matches!(arg.get_type(schema), Ok(DataType::Float32 | DataType::Float64));
    let run: Run = |args, _| {
        Ok(match args[0].data_type() {
            DataType::Float32 => {
                let values: Float32Array = args[0].as_primitive::<Float32Type>().unary(f32::round_ties_even);
                Arc::new(values)
            }
            _ => {
                let values: Float64Array = args[0].as_primitive::<Float64Type>().unary(f64::round_ties_even);
                Arc::new(values)
            }
        })
    };
    (is_float && function.name() == "round")
        .then(|| Function::any("round_to_even", 1, |types| Ok(types[0].clone()), run).call(vec![arg.clone()]))
}

/// `expr`, a floating-point number, with -0 as 0.
pub(super) fn without_negative_zero(expr: Expr) -> Expr {
    let run: Run = |args, _| {
        Ok(match args[0].data_type() {
            DataType::Float32 => {
                let values: Float32Array = args[0].as_primitive::<Float32Type>().unary(|value| value + 0.0);
                Arc::new(values)
            }
            _ => {
                let values: Float64Array = args[0].as_primitive::<Float64Type>().unary(|value| value + 0.0);
                Arc::new(values)
            }
        })
    };
    Function::any("float_order", 1, |types| Ok(types[0].clone()), run).call(vec![expr])
}

/// Whether [`checked`] takes this operator of this type.
pub(super) fn is_checked(op: Operator, data_type: &DataType) -> bool {
    match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
        }
        DataType::Float32 | DataType::Float64 => {
            matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
        }
        _ => false,
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "plus",
            Operator::Minus => "minus",
            Operator::Multiply => "times",
            Operator::Divide => "divided_by",
            _ => "modulo",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if is_nowhere(&args) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?));
        }
        let [left, right] = args.args.as_slice() else { return internal_err!("an operator of two") };
        let op = self.op;
        match left.data_type() {
            DataType::Int16 => apply(left, right, |l, r| integers::<Int16Type>(l, r, op)),
            DataType::Int32 => apply(left, right, |l, r| integers::<Int32Type>(l, r, op)),
            DataType::Int64 => apply(left, right, |l, r| integers::<Int64Type>(l, r, op)),
            DataType::Float32 => apply(left, right, |l, r| floats::<Float32Type>(l, r, op)),
            DataType::Float64 => apply(left, right, |l, r| floats::<Float64Type>(l, r, op)),
            other => internal_err!("checked arithmetic of {other}"),
        }
    }
}

/// Integers whose operators tell whether they wrapped.
trait Wrapping: Copy {
    fn plus(self, other: Self) -> (Self, bool);
    fn minus(self, other: Self) -> (Self, bool);
    fn times(self, other: Self) -> (Self, bool);
}

macro_rules! wrapping {
    ($($native:ty),*) => {$(
        impl Wrapping for $native {
            #[inline]
            fn plus(self, other: Self) -> (Self, bool) {
                self.overflowing_add(other)
            }
            #[inline]
            fn minus(self, other: Self) -> (Self, bool) {
                self.overflowing_sub(other)
            }
            #[inline]
            fn times(self, other: Self) -> (Self, bool) {
                self.overflowing_mul(other)
            }
        }
    )*};
}
wrapping!(i16, i32, i64);

fn integers<T>(left: &dyn Datum, right: &dyn Datum, op: Operator) -> Result<ArrayRef, ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: Wrapping,
{
    match op {
        Operator::Plus => each::<T>(left, right, Wrapping::plus),
        Operator::Minus => each::<T>(left, right, Wrapping::minus),
        _ => each::<T>(left, right, Wrapping::times),
    }
}

fn each<T: ArrowPrimitiveType>(
    left: &dyn Datum,
    right: &dyn Datum,
    op: impl Fn(T::Native, T::Native) -> (T::Native, bool),
) -> Result<ArrayRef, ArrowError> {
    let ((left, left_is_one), (right, right_is_one)) = (left.get(), right.get());
    let (l, r) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    let rows = if left_is_one { r.len() } else { l.len() };
    if left_is_one && l.is_null(0) || right_is_one && r.is_null(0) {
        return Ok(new_null_array(&T::DATA_TYPE, rows));
    }
    let mut wrapped = false;
    let mut one = |a: T::Native, b: T::Native| {
        let (value, overflow) = op(a, b);
        wrapped |= overflow;
        value
    };
    let values: Vec<T::Native> = match (left_is_one, right_is_one) {
        (false, true) => {
            let b = r.value(0);
            l.values().iter().map(|a| one(*a, b)).collect()
        }
        (true, false) => {
            let a = l.value(0);
            r.values().iter().map(|b| one(a, *b)).collect()
        }
        _ => l.values().iter().zip(r.values()).map(|(a, b)| one(*a, *b)).collect(),
    };
    let nulls = NullBuffer::union(l.nulls().filter(|_| !left_is_one), r.nulls().filter(|_| !right_is_one));
    if wrapped {
        // What stands behind a NULL may wrap; it is no value.
        let at = |values: &PrimitiveArray<T>, is_one: bool, row: usize| values.value(if is_one { 0 } else { row });
        let is_value = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
        let lost = |row: usize| op(at(l, left_is_one, row), at(r, right_is_one, row)).1;
        if (0..rows).filter(is_value).any(lost) {
            return Err(ArrowError::ArithmeticOverflow(format!("{} out of range", sql_name(&T::DATA_TYPE))));
        }
    }
    Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
}

fn floats<T>(left: &dyn Datum, right: &dyn Datum, op: Operator) -> Result<ArrayRef, ArrowError>
where
    T: ArrowPrimitiveType,
    T::Native: ArrowNativeTypeOp + Into<f64>,
{
    let result = match op {
        Operator::Plus => numeric::add_wrapping(left, right)?,
        Operator::Minus => numeric::sub_wrapping(left, right)?,
        Operator::Multiply => numeric::mul_wrapping(left, right)?,
        Operator::Divide => numeric::div(left, right)?,
        _ => numeric::rem(left, right)?,
    };
    let values = result.as_primitive::<T>();
    let is_product = matches!(op, Operator::Multiply | Operator::Divide);
    let is_quotient = matches!(op, Operator::Divide | Operator::Modulo);
    let suspicious = |value: f64| !value.is_finite() || is_product && value == 0.0;
    if !values.values().iter().any(|value| suspicious((*value).into())) {
        return Ok(result);
    }
    let ((left, left_is_one), (right, right_is_one)) = (left.get(), right.get());
    let (l, r) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
        let value: f64 = values.value(row).into();
        let a: f64 = l.value(if left_is_one { 0 } else { row }).into();
        let b: f64 = r.value(if right_is_one { 0 } else { row }).into();
        if is_quotient && b == 0.0 {
            return Err(ArrowError::DivideByZero);
        }
        if value.is_infinite() && a.is_finite() && b.is_finite() {
            return Err(ArrowError::ArithmeticOverflow("value out of range: overflow".to_owned()));
        }
        if is_product && value == 0.0 && a != 0.0 && b != 0.0 && b.is_finite() {
            return Err(ArrowError::ArithmeticOverflow("value out of range: underflow".to_owned()));
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Scalar};

    use super::*;

    #[test]
    fn integers_fail_where_they_would_wrap_but_not_behind_null() {
        let big = Int32Array::from(vec![Some(i32::MAX), None, Some(3)]);
        let one = Scalar::new(Int32Array::from(vec![1]));
        assert!(integers::<Int32Type>(&big, &one, Operator::Plus).is_err());
        let hidden = Int32Array::new(vec![i32::MAX, 3].into(), Some(vec![false, true].into()));
        let sum = integers::<Int32Type>(&hidden, &one, Operator::Plus).unwrap();
        assert_eq!(sum.as_primitive::<Int32Type>().value(1), 4);
        assert!(sum.is_null(0));
        assert!(integers::<Int32Type>(&one, &Int32Array::from(vec![i32::MIN]), Operator::Minus).is_err());
        let products = integers::<Int32Type>(&big, &Int32Array::from(vec![1, 2, 3]), Operator::Multiply).unwrap();
        assert_eq!(products.as_primitive::<Int32Type>().value(2), 9);
    }

    #[test]
    fn floats_fail_where_they_would_become_infinite_or_vanish() {
        let run = |a: f64, b: f64, op| {
            floats::<Float64Type>(&Float64Array::from(vec![a]), &Float64Array::from(vec![b]), op)
                .map(|values| values.as_primitive::<Float64Type>().value(0))
        };
        assert!(matches!(run(1.0, 0.0, Operator::Divide), Err(ArrowError::DivideByZero)));
        assert!(matches!(run(1.0, 0.0, Operator::Modulo), Err(ArrowError::DivideByZero)));
        assert!(run(1e308, 10.0, Operator::Multiply).is_err());
        assert!(run(1e-308, 1e-308, Operator::Multiply).is_err());
        assert!(run(f64::INFINITY, 1.0, Operator::Plus).unwrap().is_infinite());
        assert!(run(1.0, f64::INFINITY, Operator::Divide).unwrap() == 0.0);
        assert!(run(0.0, 5.0, Operator::Multiply).unwrap() == 0.0);
    }
}
