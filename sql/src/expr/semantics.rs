//! The rule after type coercion: every type is known, so arithmetic, casts, patterns and comparisons of intervals are
//! given PostgreSQL's meaning.
//!
//! Always true: what replaces an expression has its type, because what stands around it was coerced to that. Operators with
//! another result type are replaced by [`super::operators`], before anything is coerced.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::{arithmetic, arrays, conversion, moments, pattern, sorting};

/// Rewrites the expressions of a plan whose types are settled.
#[derive(Debug)]
pub(super) struct Semantics;

impl AnalyzerRule for Semantics {
    fn name(&self) -> &'static str {
        "postgresql_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let rewritten = rewrite_plan(sorting::keyed(plan)?, &rewrite)?;
            // Said to be changed, because the parts before and behind may have.
            Ok(Transformed::yes(sorting::grouped(rewritten.data)?))
        })?;
        Ok(rewritten.data)
    }
}

/// Rewrites every expression of one plan node from the leaves up; output names stay.
pub(super) fn rewrite_plan(
    plan: LogicalPlan,
    rewrite: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::TableScan(_)) {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        // Its members are found by their names in plans above, which an alias within would not keep.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| rewrite(expr, &schema))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    if !rewritten.transformed {
        return Ok(rewritten);
    }
    rewritten.map_data(LogicalPlan::recompute_schema)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let rewritten = match &expr {
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::InList(_) => sorting::rewrite(&expr, schema)?,
        Expr::BinaryExpr(binary) => rewrite_binary(binary, schema),
        Expr::Negative(inner) if !matches!(inner.as_ref(), Expr::Literal(..)) => match inner.get_type(schema) {
            Ok(data_type) if arithmetic::is_checked(Operator::Minus, &data_type) && data_type.is_integer() => {
                let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
                Some(arithmetic::checked(zero, Operator::Minus, inner.as_ref().clone()))
            }
            _ => None,
        },
        Expr::Cast(Cast { expr: inner, field }) => match inner.get_type(schema) {
            Ok(source) => conversion::converted(inner, &source, field.data_type()),
            Err(_) => None,
        },
        Expr::Between(between) => match sorting::rewrite(&expr, schema)? {
            Some(keyed) => Some(keyed),
            None => narrowed_between(between, schema),
        },
        Expr::Like(like) => pattern::with_backslash(like),
        Expr::SimilarTo(like) => Some(pattern::similar(like)),
        Expr::ScalarFunction(function) => moments::checked_domain(function, schema)
            .or_else(|| conversion::byte_count(function, schema))
            .or_else(|| arithmetic::rounded_to_even(function, schema)),
        _ => None,
    };
    Ok(match rewritten {
        Some(rewritten) => Transformed::yes(rewritten),
        None => Transformed::no(expr),
    })
}

fn rewrite_binary(binary: &BinaryExpr, schema: &DFSchema) -> Option<Expr> {
    let BinaryExpr { left, op, right } = binary;
    let (l, r) = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
    let (left, right) = (left.as_ref().clone(), right.as_ref().clone());
    match (&l, &r) {
        _ if l == r && arithmetic::is_checked(*op, &l) => Some(arithmetic::checked(left, *op, right)),
        _ if arithmetic::may_leave_range(*op, &l, &r) => Some(arithmetic::in_range(compared(left, *op, right))),
        _ if !is_comparison(*op) => None,
        (DataType::Interval(_) | DataType::Duration(_), DataType::Interval(_) | DataType::Duration(_)) => {
            Some(compared(moments::order_of(left), *op, moments::order_of(right)))
        }
        (DataType::List(_), DataType::List(_)) if l == r => {
            Some(compared(arrays::order_of(left), *op, arrays::order_of(right)))
        }
        (DataType::Timestamp(..), DataType::Timestamp(..)) => {
            let (left, right) = (as_date(&left, schema)?, as_date(&right, schema)?);
            Some(compared(left, *op, right))
        }
        _ => None,
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn compared(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// `d BETWEEN d1 AND d2 + interval '1 year'` with three dates again, as [`as_date`].
fn narrowed_between(between: &Between, schema: &DFSchema) -> Option<Expr> {
    let Between { expr, negated, low, high } = between;
    let narrow = |expr: &Expr| as_date(expr, schema).map(Box::new);
    Some(Expr::Between(Between::new(narrow(expr)?, *negated, narrow(low)?, narrow(high)?)))
}

/// A timestamp that is a date at midnight, as that date; `None` for others.
///
/// A date plus an interval is a timestamp, so `day < date '2024-01-01' + interval '1 month'` would compare timestamps, and
/// zone maps of the column `day` would be of no use. Where the interval has no time of day, dates say the same.
fn as_date(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    match expr {
        Expr::Cast(Cast { expr: inner, field }) => {
            let is_midnight = matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, None));
            (is_midnight && inner.get_type(schema).ok()? == DataType::Date32).then(|| inner.as_ref().clone())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = right.as_ref() else {
                return None;
            };
            let date = as_date(left, schema)?;
            (interval.nanoseconds == 0).then(|| compared(date, *op, right.as_ref().clone()))
        }
        _ => None,
    }
}
