//! Operators whose result type DataFusion would get wrong, or refuse, already while it plans.
//!
//! * a constant of unknown type takes the type of the other operand: `'5' + 3`, `ts - '2024-01-01'`;
//! * a date plus or minus an interval is a timestamp, a timestamp minus another an interval;
//! * a quotient of decimals has sixteen places;
//! * intervals times and divided by numbers;
//! * operators of arrays and JSON, subscripts, `extract`;
//! * functions that count rows.

use arrow::array::types::{Float64Type, IntervalMonthDayNanoType};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, Cast, ScalarFunction, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawFieldAccessExpr, RawWindowExpr,
};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

use super::function::{Function, Returns, Run};
use super::{arrays, division, json, moments};
use crate::error::{Error, SqlState};
use crate::types::interval::{INTERVAL, from_any, scaled};

/// Plans operators before DataFusion's own planners do.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let (Ok(l), Ok(r)) = (left.get_type(schema), right.get_type(schema)) else {
            return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }));
        };
        if let Some(planned) = arrays::operator(&op, &left, &l, &right, &r) {
            return Ok(PlannerResult::Planned(planned));
        }
        if let Some(planned) = json::operator(&op, &left, &l, &right, &r) {
            return Ok(PlannerResult::Planned(planned));
        }
        let (left, right) = (typed_by(left, &op, &r, true), typed_by(right, &op, &l, false));
        let (l, r) = (left.get_type(schema)?, right.get_type(schema)?);
        Ok(match planned(&op, &left, &l, &right, &r) {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(RawBinaryExpr { op, left, right }),
        })
    }

    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        Ok(match arrays::subscript(&expr.field_access, &expr.expr, schema)? {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(expr),
        })
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Original(arrays::elements(exprs, schema)?))
    }

    /// Numbers of rows are BIGINT. DataFusion's are unsigned, and a quotient of an unsigned number is a fraction.
    fn plan_window(&self, expr: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        if !matches!(expr.func_def.name(), "row_number" | "rank" | "dense_rank" | "ntile") {
            return Ok(PlannerResult::Original(expr));
        }
        let RawWindowExpr { func_def, args, partition_by, order_by, window_frame, filter, null_treatment, distinct } =
            expr;
        let params =
            WindowFunctionParams { args, partition_by, order_by, window_frame, filter, null_treatment, distinct };
        let numbers = Expr::WindowFunction(Box::new(WindowFunction { fun: func_def, params }));
        Ok(PlannerResult::Planned(Expr::Cast(Cast::new(Box::new(numbers), DataType::Int64))))
    }

    fn plan_aggregate(&self, expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if !matches!(expr.func.name(), "regr_count" | "approx_distinct") {
            return Ok(PlannerResult::Original(expr));
        }
        let RawAggregateExpr { func, args, distinct, filter, order_by, null_treatment } = expr;
        let numbers = AggregateFunction::new_udf(func, args, distinct, filter, order_by, null_treatment);
        let numbers = Expr::AggregateFunction(numbers);
        Ok(PlannerResult::Planned(Expr::Cast(Cast::new(Box::new(numbers), DataType::Int64))))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let function = ScalarFunction::new_udf(Arc::new(moments::date_part()), args);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(function)))
    }
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

fn planned(op: &BinaryOperator, left: &Expr, l: &DataType, right: &Expr, r: &DataType) -> Option<Expr> {
    use BinaryOperator::{Divide, Minus, Multiply, Plus};
    let cast = |expr: &Expr, target: DataType| Expr::Cast(Cast::new(Box::new(expr.clone()), target));
    let stamp = || DataType::Timestamp(TimeUnit::Microsecond, None);
    let binary = |left: Expr, op: Operator, right: Expr| {
        Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
    };
    match (op, l, r) {
        (Plus, DataType::Date32, _) if is_interval(r) => binary(cast(left, stamp()), Operator::Plus, right.clone()),
        (Plus, _, DataType::Date32) if is_interval(l) => binary(cast(right, stamp()), Operator::Plus, left.clone()),
        (Minus, DataType::Date32, _) if is_interval(r) => binary(cast(left, stamp()), Operator::Minus, right.clone()),
        (Plus, DataType::Date32, DataType::Time64(_)) => {
            binary(cast(left, stamp()), Operator::Plus, moments::time_as_interval(right.clone()))
        }
        (Plus, DataType::Time64(_), DataType::Date32) => {
            binary(cast(right, stamp()), Operator::Plus, moments::time_as_interval(left.clone()))
        }
        (Multiply, _, _) if is_interval(l) && r.is_numeric() => Some(multiple(left, right, "interval_times")),
        (Multiply, _, _) if is_interval(r) && l.is_numeric() => Some(multiple(right, left, "times_interval")),
        (Divide, _, _) if is_interval(l) && r.is_numeric() => Some(multiple(left, right, "interval_over")),
        (Minus, DataType::Timestamp(..), DataType::Timestamp(..)) => {
            Some(moments::difference(left.clone(), right.clone()))
        }
        (Minus, DataType::Timestamp(..), DataType::Date32) => {
            Some(moments::difference(left.clone(), cast(right, stamp())))
        }
        (Minus, DataType::Date32, DataType::Timestamp(..)) => {
            Some(moments::difference(cast(left, stamp()), right.clone()))
        }
        (Divide, _, _) if is_decimal(l) || is_decimal(r) => {
            (division::digits(l).and(division::digits(r))).map(|_| division::quotient(left.clone(), right.clone()))
        }
        _ => None,
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}

/// A text constant beside something of another type, as that type.
fn typed_by(expr: Expr, op: &BinaryOperator, other: &DataType, is_left: bool) -> Expr {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &expr else { return expr };
    let target = match (op, other) {
        (Eq | NotEq | Lt | LtEq | Gt | GtEq, _) => constant_type(text, other),
        (Plus | Minus, DataType::Timestamp(..)) if !is_left && *op == Plus => Some(INTERVAL),
        (Minus, DataType::Timestamp(..) | DataType::Date32) => Some(other.clone()),
        (Plus | Minus, _) if is_interval(other) => Some(INTERVAL),
        (Plus | Minus | Multiply | Divide | Modulo, _) if other.is_numeric() => constant_type(text, other),
        _ => None,
    };
    match target {
        Some(target) => Expr::Cast(Cast::new(Box::new(expr), target)),
        None => expr,
    }
}

/// The type that the constant `text` has beside a value of type `other`; `None` if it stays text.
pub(super) fn constant_type(text: &str, other: &DataType) -> Option<DataType> {
    match other {
        // As many places as written, or 1.5 would be rounded to fit a column of whole numbers.
        DataType::Decimal128(..) => Some(decimal_type(text).unwrap_or(other.clone())),
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Interval(_)
        | DataType::BinaryView
        | DataType::List(_)
        | DataType::FixedSizeBinary(16) => Some(other.clone()),
        _ => None,
    }
}

/// The narrowest decimal that holds the number `text`; `None` if it is none or too long.
pub(super) fn decimal_type(text: &str) -> Option<DataType> {
    let text = text.trim().trim_start_matches(['+', '-']);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    let scale = length(fraction).saturating_sub(exponent).max(0);
    let digits = length(whole).saturating_add(exponent).max(0).saturating_add(scale).max(1);
    let (precision, scale) = (u8::try_from(digits).ok()?, i8::try_from(scale).ok()?);
    (precision <= 38).then_some(DataType::Decimal128(precision.max(scale.unsigned_abs()), scale))
}

/// An interval times a number, or divided by it.
fn multiple(interval: &Expr, number: &Expr, name: &'static str) -> Expr {
    let returns: Returns = |_| Ok(INTERVAL);
    let times: Run = |args, _| multiples(args, Ok);
    let over: Run = |args, _| {
        multiples(args, |divisor| match divisor {
            0.0 => Err(Error::new(SqlState::DivisionByZero, "division by zero")),
            divisor => Ok(divisor.recip()),
        })
    };
    let number = Expr::Cast(Cast::new(Box::new(number.clone()), DataType::Float64));
    let run = if name == "interval_over" { over } else { times };
    Function::any(name, 2, returns, run).call(vec![interval.clone(), number])
}

fn multiples(args: &[ArrayRef], factor: fn(f64) -> crate::error::Result<f64>) -> Result<ArrayRef> {
    let intervals = from_any(&args[0])?;
    let (intervals, numbers) =
        (intervals.as_primitive::<IntervalMonthDayNanoType>(), args[1].as_primitive::<Float64Type>());
    let one = |row: usize| {
        if intervals.is_null(row) || numbers.is_null(row) {
            return Ok(None);
        }
        let product = scaled(intervals.value(row), factor(numbers.value(row))?);
        let out_of_range = || Error::new(SqlState::DatetimeOutOfRange, "interval out of range");
        product.ok_or_else(out_of_range).map(Some)
    };
    let values = (0..intervals.len()).map(one).collect::<crate::error::Result<Vec<_>>>();
    let values: PrimitiveArray<IntervalMonthDayNanoType> = values.map_err(DataFusionError::from)?.into_iter().collect();
    Ok(Arc::new(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_decimal_type_of_its_digits() {
        for (text, precision, scale) in [
            ("1.5", 2, 1),
            ("-100", 3, 0),
            ("1e3", 4, 0),
            ("1.25e-2", 4, 4),
            (".5", 1, 1),
            ("0.001", 4, 3),
            (" 7 ", 1, 0),
        ] {
            assert_eq!(decimal_type(text), Some(DataType::Decimal128(precision, scale)), "{text}");
        }
        for text in ["", "abc", "1e99", "NaN", "1.2.3"] {
            assert_eq!(decimal_type(text), None, "{text}");
        }
    }
}
