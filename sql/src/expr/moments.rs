//! Dates, times and intervals: parts of them, differences, order. And functions that are not defined everywhere.

use std::sync::{Arc, LazyLock};

use arrow::array::types::{IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Float64Type, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{DFSchema, DataFusionError, Result, exec_err, internal_err};
use datafusion::functions::datetime::date_part::DatePartFunc;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::function::{Function, Returns, Run, call, strictly};
use crate::error::{Error, SqlState};
use crate::types::calendar::{DAY_MICROS, civil_from_days, month_days};
use crate::types::interval::{INTERVAL, from_any, interval, order_micros};

/// A number that orders intervals and tells them apart.
pub(super) fn order_of(expr: Expr) -> Expr {
    let returns: Returns = |_| Ok(DataType::Decimal128(38, 0));
    let run: Run = |args, _| {
        let intervals = from_any(&args[0])?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>().iter();
        let order: Decimal128Array = intervals.map(|value| value.map(order_micros)).collect();
        Ok(Arc::new(order.with_precision_and_scale(38, 0)?))
    };
    Function::any("interval_order", 1, returns, run).call(vec![expr])
}

/// `timestamp − timestamp`: days and a time of day.
pub(super) fn difference(left: Expr, right: Expr) -> Expr {
    let returns: Returns = |_| Ok(INTERVAL);
    let run: Run = |args, _| {
        let (left, right) = (micros(&args[0])?, micros(&args[1])?);
        let difference = arrow::compute::try_binary(&left, &right, |l, r| {
            let total = i128::from(l) - i128::from(r);
            let day = i128::from(DAY_MICROS);
            // Days and the rest of a difference of 64-bit numbers fit.
            let days = i64::try_from(total / day).unwrap_or(i64::MAX);
            let rest = i64::try_from(total % day).unwrap_or(0);
            interval(0, days, rest)
                .ok_or_else(|| arrow::error::ArrowError::ArithmeticOverflow("interval out of range".to_owned()))
        });
        let difference: PrimitiveArray<IntervalMonthDayNanoType> = difference?;
        Ok(Arc::new(difference))
    };
    Function::any("timestamp_minus", 2, returns, run).call(vec![left, right])
}

fn micros(array: &ArrayRef) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(array.as_primitive::<TimestampMicrosecondType>().clone())
}

/// A time of day as the interval since midnight.
pub(super) fn time_as_interval(expr: Expr) -> Expr {
    let run: Run = |args, _| {
        let times = cast(&args[0], &DataType::Time64(TimeUnit::Microsecond))?;
        let times = times.as_primitive::<Time64MicrosecondType>();
        let since: PrimitiveArray<IntervalMonthDayNanoType> =
            times.unary(|micros| IntervalMonthDayNano::new(0, 0, micros * 1_000));
        Ok(Arc::new(since))
    };
    Function::any("time_as_interval", 1, |_| Ok(INTERVAL), run).call(vec![expr])
}

/// `age(a, b)`: years, months, days and a time, counted as a person would.
pub(super) fn age() -> ScalarUDF {
    let run: Run = |args, _| {
        let (left, right) = (micros(&args[0])?, micros(&args[1])?);
        let ages: PrimitiveArray<IntervalMonthDayNanoType> = arrow::compute::try_binary(&left, &right, |l, r| {
            Ok(if l >= r { aged(l, r) } else { negated(aged(r, l)) })
        })?;
        Ok(Arc::new(ages))
    };
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let signature = Signature::exact(vec![stamp.clone(), stamp], Volatility::Immutable);
    ScalarUDF::from(Function { name: "age", signature, returns: |_| Ok(INTERVAL), run })
}

fn negated(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
    IntervalMonthDayNano::new(-value.months, -value.days, -value.nanoseconds)
}

/// From `earlier` to `later`: a missing day is borrowed from the month of `earlier`.
fn aged(later: i64, earlier: i64) -> IntervalMonthDayNano {
    let split = |micros: i64| (civil_from_days(micros.div_euclid(DAY_MICROS)), micros.rem_euclid(DAY_MICROS));
    let (((y1, m1, d1), t1), ((y2, m2, d2), t2)) = (split(later), split(earlier));
    let (mut months, mut days, mut time) = ((y1 - y2) * 12 + m1 - m2, d1 - d2, t1 - t2);
    if time < 0 {
        time += DAY_MICROS;
        days -= 1;
    }
    if days < 0 {
        days += month_days(y2, m2);
        months -= 1;
    }
    interval(months, days, time).unwrap_or_default()
}

/// `extract` and `date_part`: DataFusion's, with fractions of seconds, and with the parts that it lacks.
pub(super) fn date_part() -> ScalarUDF {
    ScalarUDF::from(DatePart { inner: DatePartFunc::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DatePart {
    inner: DatePartFunc,
}

/// A part that DataFusion does not have as PostgreSQL does: its name and its scale as a decimal.
fn own_part(name: &str) -> Option<(&'static str, i8)> {
    Some(match name.trim_matches(['\'', '"']).to_ascii_lowercase().as_str() {
        "second" | "seconds" | "sec" | "s" => ("second", 6),
        "millisecond" | "milliseconds" | "ms" => ("millisecond", 3),
        "microsecond" | "microseconds" | "us" => ("microsecond", 0),
        "epoch" => ("epoch", 6),
        "century" | "centuries" => ("century", 0),
        "decade" | "decades" => ("decade", 0),
        "millennium" | "millennia" => ("millennium", 0),
        "julian" => ("julian", 0),
        _ => return None,
    })
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let part = args.scalar_arguments.first().copied().flatten().and_then(|value| value.try_as_str().flatten());
        match part.and_then(own_part) {
            Some((_, 0)) => Ok(Arc::new(Field::new(self.name(), DataType::Int32, true))),
            Some((_, scale)) => Ok(Arc::new(Field::new(self.name(), DataType::Decimal128(20, scale), true))),
            None => self.inner.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let part = match args.args.first() {
            Some(ColumnarValue::Scalar(value)) => value.try_as_str().flatten().and_then(own_part),
            _ => None,
        };
        let Some((part, _)) = part else { return self.inner.invoke_with_args(args) };
        strictly(&args, |arrays| own(part, &arrays[1], args.return_field.data_type()))
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.preimage(args, literal, info)
    }
}

fn own(part: &str, array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let is_date = *array.data_type() == DataType::Date32;
    let is_time = matches!(array.data_type(), DataType::Time32(_) | DataType::Time64(_));
    let is_interval = matches!(array.data_type(), DataType::Interval(_) | DataType::Duration(_));
    // Days and microseconds of the day; of an interval, a year is 365.25 days long and a month thirty.
    let split: Vec<Option<(i64, i128)>> = if is_interval {
        let intervals = from_any(array)?;
        let parts = |value: IntervalMonthDayNano| {
            const YEAR_MICROS: i128 = 31_557_600_000_000;
            let days = i64::from(value.months % 12) * 30 + i64::from(value.days);
            (days, i128::from(value.months / 12) * YEAR_MICROS + i128::from(value.nanoseconds / 1_000))
        };
        intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|value| value.map(parts)).collect()
    } else if is_time {
        let times = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
        times
            .as_primitive::<Time64MicrosecondType>()
            .iter()
            .map(|micros| micros.map(|micros| (0, micros.into())))
            .collect()
    } else if is_date {
        array.as_primitive::<Date32Type>().iter().map(|days| days.map(|days| (i64::from(days), 0))).collect()
    } else {
        let stamps = micros(array)?;
        stamps.iter().map(|m| m.map(|m| (m.div_euclid(DAY_MICROS), m.rem_euclid(DAY_MICROS).into()))).collect()
    };
    let value = |(days, micros): (i64, i128)| {
        let year = civil_from_days(days).0;
        let per =
            |length: i64| if year > 0 { (year - 1).div_euclid(length) + 1 } else { -((-year).div_euclid(length) + 1) };
        i128::from(match part {
            // Numerators over the scale of the part.
            "second" | "millisecond" | "microsecond" => return micros % 60_000_000,
            "epoch" => return i128::from(days) * i128::from(DAY_MICROS) + micros,
            "century" => per(100),
            "decade" => year.div_euclid(10),
            "millennium" => per(1000),
            _ => days + 2_440_588,
        })
    };
    if is_interval && matches!(part, "century" | "decade" | "millennium" | "julian") {
        return exec_err!("the part {part} of an interval is not supported");
    }
    match *target {
        DataType::Decimal128(precision, scale) => {
            let values: Decimal128Array = split.into_iter().map(|parts| parts.map(value)).collect();
            Ok(Arc::new(values.with_precision_and_scale(precision, scale)?))
        }
        DataType::Int32 => {
            let narrow = |parts: (i64, i128)| i32::try_from(value(parts)).unwrap_or(i32::MAX);
            Ok(Arc::new(split.into_iter().map(|parts| parts.map(narrow)).collect::<Int32Array>()))
        }
        ref other => internal_err!("a date part as {other}"),
    }
}

/// `ln`, `sqrt`, `power` and others of a number outside their domain: DataFusion gives NaN or infinity, SQL an error.
pub(super) fn checked_domain(function: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    const PARTIAL: [&str; 15] = [
        "ln", "log", "log2", "log10", "sqrt", "power", "exp", "asin", "acos", "acosh", "atanh", "cot", "sinh", "cosh",
        "tan",
    ];
    let name = PARTIAL.iter().copied().find(|name| *name == function.name())?;
    let is_float = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Float64));
    let whole = Expr::ScalarFunction(function.clone());
    if !is_float(&whole) || !function.args.iter().all(is_float) {
        return None;
    }
    let mut args = vec![whole];
    args.extend(function.args.iter().cloned());
    Some(call(Domain { name, signature: SIGNATURE.clone() }, args))
}

static SIGNATURE: LazyLock<Signature> = LazyLock::new(|| Signature::variadic_any(Volatility::Immutable));

/// The first argument, which the function `name` gave for the others, if it is a number where they are.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Domain {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Domain {
    fn name(&self) -> &str {
        "in_domain"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        strictly(&args, |arrays| {
            let values = arrays[0].as_primitive::<Float64Type>();
            if values.values().iter().any(|value| !value.is_finite()) {
                let given: Vec<&Float64Array> = arrays[1..].iter().map(AsArray::as_primitive::<Float64Type>).collect();
                for row in (0..values.len()).filter(|row| values.is_valid(*row) && !values.value(*row).is_finite()) {
                    if given.iter().all(|array| array.value(row).is_finite()) {
                        return Err(DataFusionError::from(self.error(values.value(row))));
                    }
                }
            }
            Ok(Arc::clone(&arrays[0]))
        })
    }
}

impl Domain {
    fn error(&self, value: f64) -> Error {
        let (state, message) = match self.name {
            "ln" | "log" | "log2" | "log10" => {
                (SqlState::InvalidLogarithm, "cannot take logarithm of zero or a negative number")
            }
            "sqrt" => (SqlState::InvalidPower, "cannot take square root of a negative number"),
            "power" if value.is_nan() => {
                (SqlState::InvalidPower, "a negative number raised to a power that is no whole number has no value")
            }
            _ if value.is_nan() => (SqlState::NumericOutOfRange, "input is out of range"),
            _ => (SqlState::NumericOutOfRange, "value out of range: overflow"),
        };
        Error::new(state, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_count_as_people_do() {
        let at = |days: i64| days * DAY_MICROS;
        // 2024-03-01 − 2023-01-15: a year, a month, and from the fifteenth to the first seventeen days of January.
        let age = aged(at(19_783), at(19_372));
        assert_eq!((age.months, age.days, age.nanoseconds), (13, 17, 0));
    }
}
