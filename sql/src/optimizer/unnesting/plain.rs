//! Subqueries that DataFusion decorrelates itself, rightly and into better plans: one level, read only in WHERE.
//!
//! What its rules do with others is wrong in places: NOT IN that reads the query around it loses rows where its operand is
//! NULL, and several shapes are refused only when the plan is executed.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator, Projection, Subquery};

use super::references::{free, has_reference, has_subquery};

/// Whether all of `condition`, one part of a WHERE, may stay as it is.
pub(super) fn is_plain_condition(condition: &Expr, schema: &DFSchema) -> Result<bool> {
    match condition {
        Expr::Not(inner) if matches!(inner.as_ref(), Expr::Exists(_)) => is_plain_condition(inner, schema),
        Expr::Exists(exists) => is_plain_body(&exists.subquery, schema),
        Expr::InSubquery(within) if has_subquery(&within.expr) => Ok(false),
        Expr::InSubquery(within) if within.negated => Ok(free(&within.subquery.subquery)?.is_empty()),
        Expr::InSubquery(within) => is_plain_body(&within.subquery, schema),
        _ => Ok(false),
    }
}

/// The query of one column, which is called `name`.
pub(super) fn with_column_called(body: &Arc<LogicalPlan>, name: String) -> Result<LogicalPlan> {
    let (column, input) = match body.as_ref() {
        LogicalPlan::Projection(projection) => (projection.expr[0].clone().unalias(), Arc::clone(&projection.input)),
        _ => (Expr::from(body.schema().qualified_field(0)), Arc::clone(body)),
    };
    Ok(LogicalPlan::Projection(Projection::try_new(vec![column.alias(name)], input)?))
}

/// Projections over filters over what reads nothing of the outside.
fn is_plain_body(subquery: &Subquery, schema: &DFSchema) -> Result<bool> {
    let read = free(&subquery.subquery)?;
    if read.is_empty() {
        return Ok(true);
    }
    if !read.iter().all(|column| schema.has_column(column)) {
        return Ok(false);
    }
    let mut plan = subquery.subquery.as_ref();
    while let LogicalPlan::Projection(projection) = plan {
        if projection.expr.iter().any(|expr| has_reference(expr) || has_subquery(expr)) {
            return Ok(false);
        }
        plan = &projection.input;
    }
    is_filtered(plan, &read)
}

fn is_filtered(mut plan: &LogicalPlan, read: &BTreeSet<Column>) -> Result<bool> {
    while let LogicalPlan::Filter(filter) = plan {
        for part in split_conjunction(&filter.predicate) {
            if has_subquery(part) && (has_reference(part) || reads_deeper(part, read)?) {
                return Ok(false);
            }
        }
        plan = &filter.input;
    }
    Ok(free(plan)?.is_empty())
}

/// Whether a subquery within `expr` reads one of `read`.
fn reads_deeper(expr: &Expr, read: &BTreeSet<Column>) -> Result<bool> {
    expr.exists(|part| match super::subquery_of(part) {
        Some(inner) => Ok(free(&inner.subquery)?.iter().any(|column| read.contains(column))),
        None => Ok(false),
    })
}

/// One aggregate that is NULL of no rows, and arithmetic with it, of rows found by equal columns.
pub(super) fn is_plain_scalar(subquery: &Subquery, schema: &DFSchema) -> Result<bool> {
    let read = free(&subquery.subquery)?;
    if !read.iter().all(|column| schema.has_column(column)) {
        return Ok(false);
    }
    let mut plan = subquery.subquery.as_ref();
    while let LogicalPlan::Projection(projection) = plan {
        if !projection.expr.iter().all(is_strict) {
            return Ok(false);
        }
        plan = &projection.input;
    }
    match plan {
        LogicalPlan::Aggregate(aggregate) => is_plain_aggregate(aggregate, &read),
        _ => Ok(false),
    }
}

/// NULL if any column in it is.
fn is_strict(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => is_strict(&alias.expr),
        Expr::Cast(cast) => is_strict(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let is_arithmetic = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide);
            is_arithmetic && is_strict(left) && is_strict(right)
        }
        _ => false,
    }
}

fn is_plain_aggregate(aggregate: &Aggregate, read: &BTreeSet<Column>) -> Result<bool> {
    let is_plain_call = |expr: &Expr| match expr {
        Expr::AggregateFunction(call) => {
            let is_null_of_none = matches!(call.func.name(), "min" | "max" | "sum" | "avg");
            is_null_of_none && call.params.filter.is_none() && !has_reference(expr) && !has_subquery(expr)
        }
        _ => false,
    };
    if !aggregate.group_expr.is_empty() || !aggregate.aggr_expr.iter().all(is_plain_call) {
        return Ok(false);
    }
    let LogicalPlan::Filter(filter) = aggregate.input.as_ref() else { return Ok(false) };
    let is_equality = |part: &Expr| match part {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => matches!(
            (left.as_ref(), right.as_ref()),
            (Expr::Column(_), Expr::OuterReferenceColumn(..)) | (Expr::OuterReferenceColumn(..), Expr::Column(_))
        ),
        _ => false,
    };
    for part in split_conjunction(&filter.predicate) {
        if has_subquery(part) && reads_deeper(part, read)? || has_reference(part) && !is_equality(part) {
            return Ok(false);
        }
    }
    Ok(free(&filter.input)?.is_empty())
}
