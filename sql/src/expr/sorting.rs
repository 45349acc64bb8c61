//! Values that Arrow orders or tells apart otherwise than PostgreSQL does: intervals, arrays, and -0.
//!
//! An interval of 30 days equals one of a month, and an array with NULL equals itself; Arrow compares the parts. So where values
//! are sorted, grouped, joined or the least of them is looked for, what stands in their place is a *sort key*: a number of
//! microseconds, or bytes. Comparisons are replaced in [`super::semantics`].
//!
//! Of intervals that are equal, GROUP BY and DISTINCT show the first.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, InList, NullTreatment, Sort, WindowFunction};
use datafusion::logical_expr::{Aggregate, Between, Distinct, Expr, ExprSchemable, LogicalPlan, Projection};

use super::{arithmetic, arrays, moments};
use crate::error::Error;

/// What sorts as `expr`, of type `data_type`, does in PostgreSQL; `None` if it does so itself.
pub(super) fn sort_key(expr: &Expr, data_type: &DataType) -> Option<Expr> {
    match data_type {
        DataType::Interval(IntervalUnit::MonthDayNano) | DataType::Duration(_) => Some(moments::order_of(expr.clone())),
        DataType::List(_) => Some(arrays::order_of(expr.clone())),
        _ => None,
    }
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

/// `plan` with sort keys in ORDER BY and in the pairs of a join.
///
/// # Errors
/// None for plans whose types are settled.
pub(super) fn keyed(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            let last = sort.expr.len().saturating_sub(1);
            for (at, key) in sort.expr.iter_mut().enumerate() {
                let data_type = key.expr.get_type(sort.input.schema())?;
                // Later keys decide between equals, which -0 and 0 are.
                if at < last && matches!(data_type, DataType::Float32 | DataType::Float64) {
                    key.expr = arithmetic::without_negative_zero(key.expr.clone());
                }
                if let Some(sorted) = sort_key(&key.expr, &data_type) {
                    key.expr = sorted;
                }
            }
            Ok(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                let data_type = left.get_type(join.left.schema())?;
                if let (Some(l), Some(r)) = (sort_key(left, &data_type), sort_key(right, &data_type)) {
                    (*left, *right) = (l, r);
                }
            }
            Ok(LogicalPlan::Join(join))
        }
        other => Ok(other),
    }
}

/// IN, BETWEEN, and aggregates and window functions that sort: MIN and MAX, `count(DISTINCT …)`, PARTITION BY, ORDER BY.
///
/// # Errors
/// 0A000 for `array_agg` of arrays.
pub(super) fn rewrite(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let mut found = false;
    let mut keyed = |expr: &mut Expr| {
        if let Ok(data_type) = expr.get_type(schema)
            && let Some(key) = sort_key(expr, &data_type)
        {
            *expr = key;
            found = true;
        }
    };
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            let argument = params.args.first().and_then(|arg| arg.get_type(schema).ok());
            match (func.name(), &argument) {
                ("array_agg", Some(DataType::List(_))) => {
                    return Err(Error::unsupported("array_agg of arrays, which is an array of arrays").into());
                }
                ("min" | "max", Some(data_type)) => {
                    if let Some(key) = sort_key(&params.args[0], data_type) {
                        return Ok(Some(extreme(func.name() == "min", key, params)));
                    }
                }
                _ => {}
            }
            let mut params = params.clone();
            params.order_by.iter_mut().for_each(|sort| keyed(&mut sort.expr));
            if params.distinct && func.name() == "count" {
                params.args.iter_mut().for_each(&mut keyed);
            }
            Ok(found.then(|| Expr::AggregateFunction(AggregateFunction { func: Arc::clone(func), params })))
        }
        Expr::WindowFunction(function) => {
            let WindowFunction { fun, mut params } = function.as_ref().clone();
            params.order_by.iter_mut().for_each(|sort| keyed(&mut sort.expr));
            params.partition_by.iter_mut().for_each(&mut keyed);
            Ok(found.then(|| Expr::WindowFunction(Box::new(WindowFunction { fun, params }))))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let (mut expr, mut list) = (expr.as_ref().clone(), list.clone());
            keyed(&mut expr);
            list.iter_mut().for_each(&mut keyed);
            Ok(found.then(|| Expr::InList(InList::new(Box::new(expr), list, *negated))))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let mut parts = [expr, low, high].map(|part| part.as_ref().clone());
            parts.iter_mut().for_each(&mut keyed);
            let [expr, low, high] = parts.map(Box::new);
            Ok(found.then(|| Expr::Between(Between::new(expr, *negated, low, high))))
        }
        _ => Ok(None),
    }
}

/// A window function with sort keys in an ORDER BY over intervals, over which coercion knows no frames.
pub(super) fn framed(function: &WindowFunction, schema: &DFSchema) -> Option<Expr> {
    let WindowFunction { fun, mut params } = function.clone();
    let mut found = false;
    for sort in &mut params.order_by {
        let data_type = sort.expr.get_type(schema).ok()?;
        if is_interval(&data_type) {
            sort.expr = moments::order_of(sort.expr.clone());
            found = true;
        }
    }
    found.then(|| Expr::WindowFunction(Box::new(WindowFunction { fun, params })))
}

/// MIN or MAX: the first value that is not NULL, in the order of `key`.
fn extreme(is_min: bool, key: Expr, params: &datafusion::logical_expr::expr::AggregateFunctionParams) -> Expr {
    let order = vec![Sort::new(key, is_min, false)];
    // MAX of nothing but NULL is NULL, whether or not NULL was passed over; beside values it must be.
    Expr::AggregateFunction(AggregateFunction::new_udf(
        first_value_udaf(),
        params.args.clone(),
        false,
        params.filter.clone(),
        order,
        Some(NullTreatment::IgnoreNulls),
    ))
}

/// GROUP BY and DISTINCT over intervals, by their sort keys.
///
/// # Errors
/// 0A000 for grouping sets and DISTINCT ON over intervals.
pub(super) fn grouped(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let mut has_intervals = false;
            for expr in &aggregate.group_expr {
                let parts = match expr {
                    Expr::GroupingSet(set) => set.distinct_expr().into_iter().cloned().collect(),
                    other => vec![other.clone()],
                };
                for part in parts {
                    has_intervals |= is_interval(&part.get_type(aggregate.input.schema())?);
                }
            }
            if !has_intervals {
                return Ok(LogicalPlan::Aggregate(aggregate));
            }
            if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
                return Err(Error::unsupported("grouping sets over intervals").into());
            }
            by_sort_keys(&aggregate)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            if !input.schema().fields().iter().any(|field| is_interval(field.data_type())) {
                return Ok(LogicalPlan::Distinct(Distinct::All(input)));
            }
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            by_sort_keys(&Aggregate::try_new(input, columns, Vec::new())?)
        }
        LogicalPlan::Distinct(Distinct::On(on)) => {
            for expr in &on.on_expr {
                if is_interval(&expr.get_type(on.input.schema())?) {
                    return Err(Error::unsupported("DISTINCT ON over intervals").into());
                }
            }
            Ok(LogicalPlan::Distinct(Distinct::On(on)))
        }
        other => Ok(other),
    }
}

/// `aggregate` over sort keys instead of intervals, and on top of it the first interval of each group.
fn by_sort_keys(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let input = aggregate.input.schema();
    let (mut groups, mut firsts, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    for (at, expr) in aggregate.group_expr.iter().enumerate() {
        let (qualifier, field) = aggregate.schema.qualified_field(at);
        let data_type = expr.get_type(input)?;
        if !is_interval(&data_type) {
            groups.push(expr.clone());
            shown.push(Expr::Column(Column::new(qualifier.cloned(), field.name())));
            continue;
        }
        let bare = expr.clone().unalias();
        groups.push(moments::order_of(bare.clone()).alias(format!("_strata_key_{at}")));
        let name = format!("_strata_first_{at}");
        let first = AggregateFunction::new_udf(first_value_udaf(), vec![bare], false, None, Vec::new(), None);
        firsts.push(Expr::AggregateFunction(first).alias(&name));
        shown.push(Expr::Column(Column::new_unqualified(name)).alias_qualified(qualifier.cloned(), field.name()));
    }
    for at in aggregate.group_expr.len()..aggregate.schema.fields().len() {
        let (qualifier, field) = aggregate.schema.qualified_field(at);
        shown.push(Expr::Column(Column::new(qualifier.cloned(), field.name())));
    }
    let aggregates = aggregate.aggr_expr.iter().cloned().chain(firsts).collect();
    let inner = Aggregate::try_new(Arc::clone(&aggregate.input), groups, aggregates)?;
    let inner = Arc::new(LogicalPlan::Aggregate(inner));
    Ok(LogicalPlan::Projection(Projection::try_new(shown, inner)?))
}
