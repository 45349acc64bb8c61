//! Arrays in expressions: what `ARRAY[…]` holds.
//!
//! An array is Arrow's `List`, of one dimension; elements may be NULL.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::operators::constant_type;
use crate::error::Error;

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
