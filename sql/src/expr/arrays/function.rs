//! `ArrayFunction`: PostgreSQL's functions and operators on arrays, in place of DataFusion's of the same names, which count
//! in unsigned numbers, take out one element where PostgreSQL takes out all, and know no unknown in ANY and ALL.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, Scalar, new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::is_not_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::compare::{self, Comparison};
use super::{edit, series, text};
use crate::error::{Error, SqlState};
use crate::expr::function::{call, over_arrays};
use crate::types::{is_text, sql_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::expr) enum Op {
    Length,
    Cardinality,
    Upper,
    Lower,
    Dimensions,
    Append,
    Prepend,
    Concatenate,
    Position,
    Positions,
    Remove,
    Replace,
    ToText,
    FromText,
    Item,
    Slice,
    Trim,
    Contains,
    IsContained,
    Overlaps,
    Any(Comparison),
    All(Comparison),
    /// Bytes that sort as arrays do.
    Order,
    /// An empty array for NULL.
    OrEmpty,
}

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    List,
    Element,
    Number,
    Text,
}

impl Op {
    /// The arguments, and how many of them must be there.
    fn roles(self) -> (&'static [Role], usize) {
        use Role::{Element, List, Number, Text};
        match self {
            Op::Length | Op::Upper | Op::Lower | Op::Trim | Op::Item => (&[List, Number], 2),
            Op::Cardinality | Op::Dimensions | Op::Order | Op::OrEmpty => (&[List], 1),
            Op::Append | Op::Positions | Op::Remove => (&[List, Element], 2),
            Op::Prepend | Op::Any(_) | Op::All(_) => (&[Element, List], 2),
            Op::Concatenate | Op::Contains | Op::IsContained | Op::Overlaps => (&[List, List], 2),
            Op::Position => (&[List, Element, Number], 2),
            Op::Replace => (&[List, Element, Element], 3),
            Op::ToText => (&[List, Text, Text], 2),
            Op::FromText => (&[Text, Text, Text], 2),
            Op::Slice => (&[List, Number, Number], 3),
        }
    }

    /// Whether NULL in the place of an array, or of the first text, is NULL as a result.
    fn is_strict(self) -> bool {
        !matches!(self, Op::Append | Op::Prepend | Op::Concatenate | Op::OrEmpty)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::expr) struct ArrayFunction {
    op: Op,
    name: &'static str,
    signature: Signature,
}

impl ArrayFunction {
    fn new(op: Op, name: &'static str) -> ArrayFunction {
        let signature = Signature::user_defined(Volatility::Immutable);
        ArrayFunction { op, name, signature }
    }
}

/// A call of the function or operator `op`.
pub(in crate::expr) fn operate(op: Op, name: &'static str, args: Vec<Expr>) -> Expr {
    call(ArrayFunction::new(op, name), args)
}

/// What `operator` with ANY, or ALL, is called as a function, for statements that are rewritten before they are planned.
pub(in crate::expr) fn quantified_name(operator: &str, is_all: bool) -> Option<&'static str> {
    let (_, comparison) = Comparison::ALL.iter().find(|(known, _)| *known == operator)?;
    let (any, all) = comparison.names();
    Some(if is_all { all } else { any })
}

/// What makes `ARRAY(SELECT …)` an array where there is no row.
pub(in crate::expr) const OR_EMPTY: &str = "_strata_array_or_empty";

/// All of them.
pub(in crate::expr) fn functions() -> Vec<ScalarUDF> {
    let mut functions = vec![
        ArrayFunction::new(Op::Length, "array_length"),
        ArrayFunction::new(Op::Cardinality, "cardinality"),
        ArrayFunction::new(Op::Upper, "array_upper"),
        ArrayFunction::new(Op::Lower, "array_lower"),
        ArrayFunction::new(Op::Dimensions, "array_ndims"),
        ArrayFunction::new(Op::Append, "array_append"),
        ArrayFunction::new(Op::Prepend, "array_prepend"),
        ArrayFunction::new(Op::Concatenate, "array_cat"),
        ArrayFunction::new(Op::Position, "array_position"),
        ArrayFunction::new(Op::Positions, "array_positions"),
        ArrayFunction::new(Op::Remove, "array_remove"),
        ArrayFunction::new(Op::Replace, "array_replace"),
        ArrayFunction::new(Op::ToText, "array_to_string"),
        ArrayFunction::new(Op::FromText, "string_to_array"),
        ArrayFunction::new(Op::Trim, "trim_array"),
        ArrayFunction::new(Op::OrEmpty, OR_EMPTY),
    ];
    for (_, comparison) in Comparison::ALL {
        functions.push(ArrayFunction::new(Op::Any(comparison), comparison.names().0));
        functions.push(ArrayFunction::new(Op::All(comparison), comparison.names().1));
    }
    functions.into_iter().map(ScalarUDF::from).chain(series::functions()).collect()
}

/// The type of elements that both have room for; `None` if there is none. Text beside another type was written as a constant,
/// or is refused when it is read.
pub(super) fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    let common = match (left, right) {
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (left, right) if left == right => left.clone(),
        (text, other) | (other, text) if is_text(text) && !is_text(other) => other.clone(),
        (left, right) => comparison_coercion(left, right)?,
    };
    Some(if is_text(&common) { DataType::Utf8View } else { common })
}

fn element_of(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type().clone())
        }
        _ => None,
    }
}

impl ScalarUDFImpl for ArrayFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (roles, needed) = self.op.roles();
        let undefined = || {
            let types: Vec<String> = types.iter().map(sql_name).collect();
            let message = format!("function {}({}) does not exist", self.name, types.join(", "));
            DataFusionError::from(
                Error::new(SqlState::UndefinedFunction, message).with_hint("CAST the arguments to one type of array"),
            )
        };
        if types.len() < needed || types.len() > roles.len() {
            return Err(undefined());
        }
        let mut element = DataType::Null;
        for (role, data_type) in roles.iter().zip(types) {
            let found = match role {
                Role::List => match element_of(data_type) {
                    Some(found) => found,
                    None if *data_type == DataType::Null || is_text(data_type) => DataType::Null,
                    None => return Err(undefined()),
                },
                Role::Element => data_type.clone(),
                Role::Number | Role::Text => continue,
            };
            if found.is_nested() {
                return Err(Error::unsupported("an array of arrays").into());
            }
            element = common(&element, &found).ok_or_else(undefined)?;
        }
        let has_list = types.iter().any(|data_type| element_of(data_type).is_some());
        if element == DataType::Null || !has_list && roles.contains(&Role::List) && is_text(&element) {
            element = DataType::Utf8View;
        }
        let typed = |role: &Role| match role {
            Role::List => DataType::new_list(element.clone(), true),
            Role::Element => element.clone(),
            Role::Number => DataType::Int64,
            Role::Text => DataType::Utf8View,
        };
        Ok(roles.iter().take(types.len()).map(typed).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let list = || types.iter().find(|data_type| element_of(data_type).is_some()).cloned().unwrap_or(DataType::Null);
        Ok(match self.op {
            Op::Length | Op::Cardinality | Op::Upper | Op::Lower | Op::Dimensions | Op::Position => DataType::Int32,
            Op::Append
            | Op::Prepend
            | Op::Concatenate
            | Op::Remove
            | Op::Replace
            | Op::Slice
            | Op::Trim
            | Op::OrEmpty => list(),
            Op::Positions => DataType::new_list(DataType::Int32, true),
            Op::ToText => DataType::Utf8View,
            Op::FromText => DataType::new_list(DataType::Utf8View, true),
            Op::Item => element_of(&list()).unwrap_or(DataType::Null),
            Op::Contains | Op::IsContained | Op::Overlaps | Op::Any(_) | Op::All(_) => DataType::Boolean,
            Op::Order => DataType::Binary,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        // NULLs that have a type are what some of these functions look for.
        let has_untyped_null = args.args.iter().any(|arg| arg.data_type() == DataType::Null);
        if has_untyped_null && self.op.is_strict() {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(&result)?));
        }
        let list = if element_of(&result).is_some() { result.clone() } else { DataType::Null };
        over_arrays(&args, |arrays| {
            let roles = self.op.roles().0;
            let typed = |(array, role): (&ArrayRef, &Role)| match (array.data_type(), role) {
                (DataType::Null, Role::List) => new_null_array(&list, array.len()),
                (DataType::Null, Role::Element) => {
                    new_null_array(&element_of(&list).unwrap_or(DataType::Null), array.len())
                }
                _ => Arc::clone(array),
            };
            let arrays: Vec<ArrayRef> = arrays.iter().zip(roles).map(typed).collect();
            self.run(&arrays, &result)
        })
    }
}

impl ArrayFunction {
    fn run(&self, args: &[ArrayRef], result: &DataType) -> Result<ArrayRef> {
        let item = match result {
            DataType::List(item) => Arc::clone(item),
            other => Arc::new(Field::new_list_field(other.clone(), true)),
        };
        match self.op {
            Op::Length => Ok(by_dimension(args, |length| (length > 0).then_some(length))),
            Op::Upper => Ok(by_dimension(args, |length| (length > 0).then_some(length))),
            Op::Lower => Ok(by_dimension(args, |length| (length > 0).then_some(1))),
            Op::Cardinality => Ok(by_length(&args[0], Some)),
            Op::Dimensions => Ok(by_length(&args[0], |length| (length > 0).then_some(1))),
            Op::Append => edit::extended(&args[0], &args[1], false, &item),
            Op::Prepend => edit::extended(&args[1], &args[0], true, &item),
            Op::Concatenate => edit::concatenated(&args[0], &args[1], &item),
            Op::Position => edit::position(&args[0], &args[1], args.get(2)),
            Op::Positions => edit::positions(&args[0], &args[1], &item),
            Op::Remove => edit::replaced(&args[0], &args[1], None, &item),
            Op::Replace => edit::replaced(&args[0], &args[1], Some(&args[2]), &item),
            Op::ToText => text::joined(&args[0], &args[1], args.get(2)),
            Op::FromText => text::split(&args[0], &args[1], args.get(2), &item),
            Op::Item => edit::item_at(&args[0], &args[1]),
            Op::Slice => edit::sliced(&args[0], &args[1], &args[2], &item),
            Op::Trim => trimmed(&args[0], &args[1], &item),
            Op::Contains => compare::contains(&args[0], &args[1], false),
            Op::IsContained => compare::contains(&args[1], &args[0], false),
            Op::Overlaps => compare::contains(&args[0], &args[1], true),
            Op::Any(comparison) => compare::quantified(&args[0], &args[1], comparison, false),
            Op::All(comparison) => compare::quantified(&args[0], &args[1], comparison, true),
            Op::Order => compare::order(&args[0]),
            Op::OrEmpty => without_null(&args[0]),
        }
    }
}

/// Arrays with an empty one for NULL.
fn without_null(lists: &ArrayRef) -> Result<ArrayRef> {
    if lists.null_count() == 0 {
        return Ok(Arc::clone(lists));
    }
    let DataType::List(item) = lists.data_type() else { return Err(Error::internal("no array").into()) };
    let elements = new_empty_array(item.data_type());
    let empty = ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths([0]), elements, None)?;
    Ok(zip(&is_not_null(lists)?, lists, &Scalar::new(empty))?)
}

fn by_length(lists: &ArrayRef, result: impl Fn(i32) -> Option<i32>) -> ArrayRef {
    let lists = lists.as_list::<i32>();
    let one = |row: usize| lists.is_valid(row).then(|| lists.value_length(row)).and_then(&result);
    Arc::new((0..lists.len()).map(one).collect::<Int32Array>())
}

/// Of the first dimension; there is no other.
fn by_dimension(args: &[ArrayRef], result: impl Fn(i32) -> Option<i32>) -> ArrayRef {
    let (lists, dimensions) = (args[0].as_list::<i32>(), args[1].as_primitive::<Int64Type>());
    let is_first = |row: usize| dimensions.is_valid(row) && dimensions.value(row) == 1;
    let one = |row: usize| (lists.is_valid(row) && is_first(row)).then(|| lists.value_length(row)).and_then(&result);
    Arc::new((0..lists.len()).map(one).collect::<Int32Array>())
}

/// Arrays without their last elements.
fn trimmed(lists: &ArrayRef, counts: &ArrayRef, item: &FieldRef) -> Result<ArrayRef> {
    let (all, counts) = (lists.as_list::<i32>(), counts.as_primitive::<Int64Type>());
    let mut ends = Vec::with_capacity(all.len());
    for row in 0..all.len() {
        let length = i64::from(all.value_length(row));
        if all.is_null(row) || counts.is_null(row) {
            ends.push(None);
            continue;
        }
        if !(0..=length).contains(&counts.value(row)) {
            let message = format!("number of elements to trim must be between 0 and {length}");
            return Err(Error::new(SqlState::InvalidParameter, message).into());
        }
        ends.push(Some(length - counts.value(row)));
    }
    let ends: ArrayRef = Arc::new(ends.into_iter().collect::<Int64Array>());
    let ones: ArrayRef = Arc::new(Int64Array::from(vec![1; all.len()]));
    edit::sliced(lists, &ones, &ends, item)
}
