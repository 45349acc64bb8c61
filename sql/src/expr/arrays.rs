//! Arrays in expressions: what `ARRAY[…]` holds, operators, subscripts.
//!
//! An array is Arrow's `List`, of one dimension and counted from 1; elements may be NULL.
//!
//! * [`function`]: functions and operators as calls, and the types of their arguments;
//! * [`edit`]: arrays made of others;
//! * [`compare`]: what is equal, what comes first, ANY and ALL;
//! * [`series`]: arrays of numbers and times one after the other;
//! * [`text`]: arrays joined to texts and split from them.

mod compare;
mod edit;
mod function;
mod series;
mod text;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::operators::constant_type;
use crate::error::Error;
use crate::types::is_text;
use function::{Op, common, operate};

pub(super) use function::{OR_EMPTY, functions, quantified_name};
pub(super) use series::{EXPANDED, SERIES, SUBSCRIPTS};

/// The elements of `ARRAY[…]`, constants of unknown type as what the others are.
///
/// # Errors
/// 0A000 for arrays of arrays.
pub(super) fn elements(exprs: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
    let is_unknown = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
    let mut known = None;
    for expr in &exprs {
        let data_type = expr.get_type(schema)?;
        if data_type.is_nested() {
            let error = Error::unsupported("an array of arrays").with_hint("arrays have one dimension here");
            return Err(error.into());
        }
        if !is_unknown(expr) && data_type != DataType::Null && known.is_none() {
            known = Some(data_type);
        }
    }
    let Some(known) = known else { return Ok(exprs) };
    let typed = |expr: Expr| {
        let target = match &expr {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => constant_type(text, &known),
            _ => None,
        };
        match target {
            Some(target) => Expr::Cast(Cast::new(Box::new(expr), target)),
            None => expr,
        }
    };
    Ok(exprs.into_iter().map(typed).collect())
}

/// The operator `op`, if an operand is an array and it is one of arrays.
pub(super) fn operator(op: &BinaryOperator, left: &Expr, l: &DataType, right: &Expr, r: &DataType) -> Option<Expr> {
    let is_list = |data_type: &DataType| matches!(data_type, DataType::List(_));
    if !is_list(l) && !is_list(r) {
        return None;
    }
    // A constant beside an array is one, also where an element could stand.
    let is_array = |expr: &Expr, data_type: &DataType| {
        is_list(data_type)
            || *data_type == DataType::Null
            || is_text(data_type) && matches!(expr, Expr::Literal(ScalarValue::Utf8(_), _))
    };
    let args = vec![left.clone(), right.clone()];
    let (op, name) = match op {
        BinaryOperator::AtArrow => (Op::Contains, "array_contains"),
        BinaryOperator::ArrowAt => (Op::IsContained, "array_is_contained"),
        BinaryOperator::PGOverlap => (Op::Overlaps, "array_overlaps"),
        BinaryOperator::StringConcat => match (is_array(left, l), is_array(right, r)) {
            (true, true) => (Op::Concatenate, "array_cat"),
            (true, false) => (Op::Append, "array_append"),
            (false, _) => (Op::Prepend, "array_prepend"),
        },
        _ => return None,
    };
    Some(operate(op, name, args))
}

/// `array[i]` or `array[i:j]`; `None` for other values.
///
/// # Errors
/// None for names that exist.
pub(super) fn subscript(access: &GetFieldAccess, expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    if !matches!(expr.get_type(schema)?, DataType::List(_)) {
        return Ok(None);
    }
    Ok(match access {
        GetFieldAccess::ListIndex { key } => {
            Some(operate(Op::Item, "array_item", vec![expr.clone(), key.as_ref().clone()]))
        }
        GetFieldAccess::ListRange { start, stop, .. } => {
            let args = vec![expr.clone(), start.as_ref().clone(), stop.as_ref().clone()];
            Some(operate(Op::Slice, "array_slice_from", args))
        }
        GetFieldAccess::NamedStructField { .. } => None,
    })
}

/// Two arrays with elements of one type, to be compared; `None` if they have one already, or none in common.
pub(super) fn aligned(left: &Expr, l: &DataType, right: &Expr, r: &DataType) -> Option<(Expr, Expr)> {
    let (DataType::List(from), DataType::List(to)) = (l, r) else { return None };
    let target = DataType::new_list(common(from.data_type(), to.data_type())?, true);
    let cast = |expr: &Expr, data_type: &DataType| match *data_type == target {
        true => expr.clone(),
        false => Expr::Cast(Cast::new(Box::new(expr.clone()), target.clone())),
    };
    (l != r).then(|| (cast(left, l), cast(right, r)))
}

/// What sorts, and is equal, as the array `expr` is.
pub(super) fn order_of(expr: Expr) -> Expr {
    operate(Op::Order, "array_order", vec![expr])
}
