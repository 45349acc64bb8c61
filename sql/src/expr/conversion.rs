//! Casts as PostgreSQL does them: text both ways, rounding where a fraction is lost, exact decimals.
//!
//! Everything else is left to Arrow, so that casts between widths of numbers, which pruning sees through, stay what they
//! are.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Int32Array, PrimitiveArray, StringViewArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, IntervalUnit, TimeUnit};
use arrow::util::display::FormatOptions;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::function::{Function, Run, call, strictly};
use crate::error::{Error, SqlState};
use crate::types::{is_text, read_texts, sql_name, text_views, texts, with_elements};

/// How a value becomes one of another type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Way {
    /// Text is read.
    Read,
    /// Anything is written as text.
    Show,
    /// A fraction is rounded away: half away from zero for decimals, to even for floats.
    Round,
    /// A float becomes the decimal that its shortest text of fifteen digits says.
    Digits,
    /// A decimal becomes the float nearest to it.
    Nearest,
    /// Text is cut to so many characters.
    Cut(u32),
    /// Each element of an array in its own way, to this type.
    Each(Box<Way>, DataType),
}

/// A cast that Arrow would do otherwise.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Conversion {
    way: Way,
    target: DataType,
    signature: Signature,
}

/// `expr`, of type `source`, cast to `target`, if that is ours to do.
pub(super) fn converted(expr: &Expr, source: &DataType, target: &DataType) -> Option<Expr> {
    Some(conversion(way(source, target)?, target, expr.clone()))
}

/// How a value of type `source` becomes one of `target`, if that is ours to do.
fn way(source: &DataType, target: &DataType) -> Option<Way> {
    let is_float = |data_type: &DataType| matches!(data_type, DataType::Float32 | DataType::Float64);
    let is_decimal = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
    if source == target || *source == DataType::Null {
        return None;
    }
    if let (DataType::List(from), DataType::List(to)) = (source, target) {
        let way = way(from.data_type(), to.data_type())?;
        return Some(Way::Each(Box::new(way), to.data_type().clone()));
    }
    Some(if is_text(source) {
        if is_text(target) || !is_read(target) {
            return None;
        }
        Way::Read
    } else if is_text(target) {
        Way::Show
    } else if target.is_signed_integer() && (is_decimal(source) || is_float(source)) {
        Way::Round
    } else if is_float(source) && is_decimal(target) {
        Way::Digits
    } else if is_decimal(source) && is_float(target) {
        Way::Nearest
    } else {
        return None;
    })
}

/// `length` and `octet_length` of bytes, which DataFusion takes of their text.
pub(super) fn byte_count(function: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let is_length = matches!(function.name(), "character_length" | "octet_length");
    let [Expr::ScalarFunction(shown)] = function.args.as_slice() else { return None };
    let [bytes] = shown.args.as_slice() else { return None };
    let is_bytes = matches!(bytes.get_type(schema), Ok(DataType::Binary | DataType::BinaryView));
    let run: Run = |args, _| {
        let values = strict(&args[0], &DataType::BinaryView)?;
        let counts = values
            .as_binary_view()
            .iter()
            .map(|bytes| bytes.map(|bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX)));
        Ok(Arc::new(counts.collect::<Int32Array>()))
    };
    (is_length && is_bytes && shown.name() == "show_text")
        .then(|| Function::any("byte_count", 1, |_| Ok(DataType::Int32), run).call(vec![bytes.clone()]))
}

/// Whether text is read as this type by us; the others appear in no table.
fn is_read(target: &DataType) -> bool {
    target.is_integer()
        || matches!(
            target,
            DataType::Boolean
                | DataType::Float32
                | DataType::Float64
                | DataType::Decimal128(..)
                | DataType::Date32
                | DataType::Time64(TimeUnit::Microsecond)
                | DataType::Timestamp(..)
                | DataType::Interval(IntervalUnit::MonthDayNano)
                | DataType::FixedSizeBinary(16)
                | DataType::Binary
                | DataType::BinaryView
                | DataType::LargeBinary
                | DataType::List(_)
        )
}

/// Text, or the elements of an array, cut to `chars` characters, as an explicit cast to VARCHAR(n) does.
pub(super) fn cut(expr: Expr, target: &DataType, chars: u32) -> Expr {
    let way = match target {
        DataType::List(item) => Way::Each(Box::new(Way::Cut(chars)), item.data_type().clone()),
        _ => Way::Cut(chars),
    };
    conversion(way, target, expr)
}

fn conversion(way: Way, target: &DataType, expr: Expr) -> Expr {
    let signature = Signature::any(1, Volatility::Immutable);
    call(Conversion { way, target: target.clone(), signature }, vec![expr])
}

impl ScalarUDFImpl for Conversion {
    fn name(&self) -> &str {
        match &self.way {
            Way::Each(..) => "each_element",
            Way::Read => "read_text",
            Way::Show => "show_text",
            Way::Round => "rounded",
            Way::Digits => "digits",
            Way::Nearest => "nearest",
            Way::Cut(_) => "cut_text",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let inner = args.first().map(|arg| arg.schema_name().to_string()).unwrap_or_default();
        Ok(format!("{}({inner} AS {})", self.name(), self.target))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        strictly(&args, |arrays| Ok(self.run(&arrays[0])?))
    }
}

impl Conversion {
    fn run(&self, array: &ArrayRef) -> crate::error::Result<ArrayRef> {
        run(&self.way, array, &self.target)
    }
}

fn run(way: &Way, array: &ArrayRef, target: &DataType) -> crate::error::Result<ArrayRef> {
    match way {
        Way::Each(way, element) => {
            let lists = array.as_list::<i32>();
            let elements = run(way, lists.values(), element)?;
            let DataType::List(item) = target else { return Err(Error::internal("elements of no array")) };
            Ok(Arc::new(with_elements(lists, item, elements)?))
        }
        Way::Read => read_texts(&text_views(array)?, target, None),
        Way::Show => strict(&texts(array)?, target),
        Way::Round => rounded(array, target),
        Way::Digits => read_texts(&fifteen_digits(array)?, target, None),
        Way::Nearest => strict(&(Arc::new(nearest(array)?) as ArrayRef), target),
        Way::Cut(chars) => {
            let values = text_views(array)?;
            let cut = values.iter().map(|text| text.map(|text| first_chars(text, *chars as usize)));
            Ok(Arc::new(cut.collect::<StringViewArray>()))
        }
    }
}

fn strict(array: &ArrayRef, target: &DataType) -> crate::error::Result<ArrayRef> {
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    Ok(cast_with_options(array, target, &options)?)
}

/// A number of any kind with its fraction rounded away, as an integer.
fn rounded(array: &ArrayRef, target: &DataType) -> crate::error::Result<ArrayRef> {
    let out_of_range = || Error::new(SqlState::NumericOutOfRange, format!("{} out of range", sql_name(target)));
    let whole: ArrayRef = match array.data_type() {
        DataType::Decimal128(_, scale) if *scale > 0 => {
            // One digit fewer behind the point than 38 is enough, because one before it is gained.
            strict(array, &DataType::Decimal128(38, 0))?
        }
        DataType::Float32 => Arc::new(ties_even(array.as_primitive::<Float32Type>())),
        DataType::Float64 => Arc::new(ties_even(array.as_primitive::<Float64Type>())),
        _ => Arc::clone(array),
    };
    strict(&whole, target).map_err(|_| out_of_range())
}

fn ties_even<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> Float64Array
where
    T::Native: Into<f64>,
{
    array.unary(|value| value.into().round_ties_even())
}

/// Floats as PostgreSQL shows them to its decimals: fifteen digits of a double, six of a single.
fn fifteen_digits(array: &ArrayRef) -> crate::error::Result<StringViewArray> {
    let text = |value: f64, digits: usize| {
        if value.is_finite() { format!("{value:.*e}", digits - 1) } else { value.to_string() }
    };
    Ok(match array.data_type() {
        DataType::Float32 => {
            array.as_primitive::<Float32Type>().iter().map(|v| v.map(|v| text(f64::from(v), 6))).collect()
        }
        _ => array.as_primitive::<Float64Type>().iter().map(|v| v.map(|v| text(v, 15))).collect(),
    })
}

/// Decimals as the nearest doubles.
fn nearest(array: &ArrayRef) -> crate::error::Result<Float64Array> {
    /// Powers of ten up to here are exact doubles, as are integers up to 2⁵³; one division of two such is rounded once.
    const POWER_MAX: i8 = 22;
    let DataType::Decimal128(_, scale) = *array.data_type() else {
        return Err(Error::internal("decimals of another width"));
    };
    let exact = |value: i128| value.unsigned_abs() <= 1 << 53 && (0..=POWER_MAX).contains(&scale);
    let divisor = 10_f64.powi(i32::from(scale));
    let convert = |value: i128| {
        if exact(value) {
            value as f64 / divisor
        } else {
            format!("{value}e{}", -i32::from(scale)).parse().unwrap_or(f64::NAN)
        }
    };
    Ok(array.as_primitive::<Decimal128Type>().unary(convert))
}

fn first_chars(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use arrow::array::Decimal128Array;

    use super::*;

    #[test]
    fn decimals_become_the_nearest_doubles() {
        let decimals: ArrayRef = Arc::new(
            Decimal128Array::from(vec![10_000_000_000_000_000, 1, 123_456_789_012_345_678_901_234_567_890])
                .with_precision_and_scale(38, 1)
                .unwrap(),
        );
        let doubles = nearest(&decimals).unwrap();
        assert_eq!(doubles.values(), &[1e15, 0.1, 12_345_678_901_234_567_890_123_456_789.0]);
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(first_chars("fünf", 2), "fü");
        assert_eq!(first_chars("ab", 5), "ab");
    }
}
