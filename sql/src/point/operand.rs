//! Values that a point statement is given: constants written in it, and parameters.

use std::ops::ControlFlow;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use strata_oltp::row::Value;

use crate::dml::cells::{self, Cell};
use crate::error::{Error, Result};
use crate::types::{Origin, assign, column_type, is_json_field, is_text};

/// Values for `$1`, `$2`, ….
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parameters<'a> {
    /// From a program, with types of their own.
    Scalars(&'a [ScalarValue]),
    /// From EXECUTE, as they are written there.
    Cells(&'a [Cell]),
}

/// For statements without parameters.
pub(crate) const NO_PARAMETERS: Parameters<'static> = Parameters::Scalars(&[]);

impl<'a> Parameters<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Parameters::Scalars(values) => values.len(),
            Parameters::Cells(values) => values.len(),
        }
    }

    fn get(self, number: usize) -> Option<Given<'a>> {
        match self {
            Parameters::Scalars(values) => values.get(number).map(Given::Scalar),
            Parameters::Cells(values) => values.get(number).map(Given::Cell),
        }
    }
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Operand {
    Constant(Cell),
    /// Counted from 0.
    Parameter(usize),
}

/// A value as it was given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    Scalar(&'a ScalarValue),
    Cell(&'a Cell),
}

impl Operand {
    /// The constant or parameter that `expr` is, if it is one. `types` are those that PREPARE gives its parameters: a
    /// parameter is only taken where `field` has its type, so that it means the same with and without the conversion.
    pub(super) fn of(expr: &ast::Expr, field: &Field, types: &[ast::DataType]) -> Option<Operand> {
        if let Some(number) = parameter(expr) {
            let fits = match types.get(number) {
                Some(declared) => column_type(declared).is_ok_and(|declared| {
                    declared.data_type == *field.data_type() && declared.chars_max.is_none() && !is_json_field(field)
                }),
                None => true,
            };
            return fits.then_some(Operand::Parameter(number));
        }
        // DATE '…' and its like say their type, which may not be the column's.
        match expr {
            ast::Expr::TypedString(_) | ast::Expr::Interval(_) => None,
            _ => cells::cell(expr).map(Operand::Constant),
        }
    }

    /// [`Operand::of`] for a value of an INSERT, which takes the type of its column whatever it says.
    pub(super) fn of_inserted(expr: &ast::Expr, field: &Field, types: &[ast::DataType]) -> Option<Operand> {
        Operand::of(expr, field, types).or_else(|| cells::cell(expr).map(Operand::Constant))
    }

    pub(super) fn given<'a>(&'a self, parameters: Parameters<'a>) -> Option<Given<'a>> {
        match self {
            Operand::Constant(cell) => Some(Given::Cell(cell)),
            Operand::Parameter(number) => parameters.get(*number),
        }
    }
}

/// Which parameter `expr` is, counted from 0.
pub(super) fn parameter(expr: &ast::Expr) -> Option<usize> {
    let ast::Expr::Value(value) = expr else { return None };
    let ast::Value::Placeholder(name) = &value.value else { return None };
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// Whether a parameter stands anywhere in `part` of a statement.
pub(super) fn has_parameters(part: &impl ast::Visit) -> bool {
    let is_parameter = |expr: &ast::Expr| match parameter(expr) {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    };
    ast::visit_expressions(part, is_parameter).is_break()
}

impl<'a> Given<'a> {
    /// The value to look for in a column of `data_type`; `None` where finding out what the comparison means takes more
    /// than a look: NULL, another type, a number beyond the column's.
    pub(super) fn comparable(self, data_type: &DataType) -> Option<Value<'a>> {
        match data_type {
            DataType::Int16 => i16::try_from(self.integer()?).ok().map(Value::Int16),
            DataType::Int32 => i32::try_from(self.integer()?).ok().map(Value::Int32),
            DataType::Int64 => self.integer().map(Value::Int64),
            DataType::Utf8View => self.text().map(Value::Text),
            DataType::FixedSizeBinary(16) => self.uuid().map(Value::Uuid),
            _ => self.same_type(data_type),
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Given::Scalar(ScalarValue::Int8(value)) => value.map(i64::from),
            Given::Scalar(ScalarValue::Int16(value)) => value.map(i64::from),
            Given::Scalar(ScalarValue::Int32(value)) => value.map(i64::from),
            Given::Scalar(ScalarValue::Int64(value)) => *value,
            Given::Scalar(ScalarValue::UInt8(value)) => value.map(i64::from),
            Given::Scalar(ScalarValue::UInt16(value)) => value.map(i64::from),
            Given::Scalar(ScalarValue::UInt32(value)) => value.map(i64::from),
            Given::Cell(Cell::Number(digits)) => digits.parse().ok(),
            _ => None,
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Given::Scalar(ScalarValue::Utf8(value) | ScalarValue::Utf8View(value) | ScalarValue::LargeUtf8(value)) => {
                value.as_deref()
            }
            Given::Cell(Cell::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn uuid(self) -> Option<[u8; 16]> {
        if let Given::Scalar(ScalarValue::FixedSizeBinary(16, Some(bytes))) = self {
            return bytes.as_slice().try_into().ok();
        }
        let text = self.text().filter(|text| text.len() == 36)?;
        let read = assign(
            &(std::sync::Arc::new(arrow::array::StringArray::from(vec![text])) as ArrayRef),
            &DataType::FixedSizeBinary(16),
            Origin::Literal,
            "",
        );
        read.ok()?.as_fixed_size_binary().value(0).try_into().ok()
    }

    /// A scalar of the very type.
    fn same_type(self, data_type: &DataType) -> Option<Value<'a>> {
        let Given::Scalar(scalar) = self else {
            return match (self, data_type) {
                (Given::Cell(Cell::Boolean(value)), DataType::Boolean) => Some(Value::Boolean(*value)),
                _ => None,
            };
        };
        if scalar.data_type() != *data_type {
            return None;
        }
        match scalar {
            ScalarValue::Boolean(value) => value.map(Value::Boolean),
            ScalarValue::Date32(value) => value.map(Value::Date32),
            ScalarValue::Time64Microsecond(value) => value.map(Value::Time64),
            ScalarValue::TimestampMicrosecond(value, _) => value.map(Value::Timestamp),
            ScalarValue::Decimal128(value, ..) => value.map(Value::Decimal128),
            ScalarValue::BinaryView(value) => value.as_deref().map(Value::Binary),
            _ => None,
        }
    }

    /// The value as an array of one, of its own type if that can be assigned to `field`, else of the field's.
    ///
    /// # Errors
    /// Whatever is wrong with it; the planner then says so in its own words.
    pub(super) fn array(self, field: &Field) -> Result<ArrayRef> {
        match self {
            Given::Scalar(scalar) => Ok(scalar.to_array()?),
            Given::Cell(cell) => cells::column(std::iter::once(cell), field),
        }
    }

    /// The value as one to be stored in `field`.
    ///
    /// # Errors
    /// As [`Given::array`].
    pub(super) fn stored(self, field: &Field) -> Result<ArrayRef> {
        if let Given::Scalar(scalar) = self
            && is_json_field(field)
            && !is_text(&scalar.data_type())
            && !scalar.is_null()
        {
            return Err(Error::internal("a value that is no document"));
        }
        assign(&self.array(field)?, field.data_type(), Origin::Literal, field.name())
    }
}

/// Whether a comparison of the kind that [`Given::comparable`] does is what `=` means for values of `data_type`. It is not
/// for floats, where keys take -0 for 0 and one NaN for another.
pub(super) fn is_exact(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Utf8View
            | DataType::BinaryView
            | DataType::Date32
            | DataType::Time64(TimeUnit::Microsecond)
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Decimal128(..)
            | DataType::FixedSizeBinary(16)
    )
}
