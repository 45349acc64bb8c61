//! `FROM t, unnest(t.a) AS u(x)`: what makes its rows of one row of the outer query and nothing else is computed on top of
//! that query, row by row, so that no domain has to be found and met again.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Unnest};

use super::references::{free, has_subquery};
use super::{filtered, named_as, projected};

/// The rows of `outer` with those that `body`, a lateral subquery, has for each; `None` if `body` is more than functions of
/// the row.
pub(super) fn over(body: &LogicalPlan, outer: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let schema = outer.schema();
    if !free(body)?.iter().all(|column| schema.has_column(column)) {
        return Ok(None);
    }
    match body {
        LogicalPlan::EmptyRelation(empty) => Ok(empty.produce_one_row.then(|| outer.clone())),
        LogicalPlan::Projection(projection) => projection_over(projection, &projection.schema.columns(), outer),
        // Under their own names the columns might be called like some of `outer`.
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Projection(projection) => projection_over(projection, &alias.schema.columns(), outer),
            _ => Ok(None),
        },
        LogicalPlan::Filter(filter) if !has_subquery(&filter.predicate) => {
            let Some(input) = over(&filter.input, outer)? else { return Ok(None) };
            Ok(Some(filtered(input, vec![bound(filter.predicate.clone())?])?))
        }
        LogicalPlan::Unnest(unnest) => {
            let Some(input) = over(&unnest.input, outer)? else { return Ok(None) };
            let plan = Unnest::try_new(Arc::new(input), unnest.exec_columns.clone(), unnest.options.clone())?;
            Ok(Some(LogicalPlan::Unnest(plan)))
        }
        _ => Ok(None),
    }
}

fn projection_over(projection: &Projection, names: &[Column], outer: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let schema = outer.schema();
    let clashes =
        names.iter().any(|name| name.relation.is_none() && schema.has_column_with_unqualified_name(&name.name));
    if clashes || projection.expr.iter().any(|expr| has_subquery(expr) || expr.is_volatile()) {
        return Ok(None);
    }
    let Some(input) = over(&projection.input, outer)? else { return Ok(None) };
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    for (expr, name) in projection.expr.iter().zip(names) {
        exprs.push(named_as(bound(expr.clone())?, name));
    }
    Ok(Some(projected(exprs, Arc::new(input))?))
}

/// `expr` with the columns of the outer query in place of references to them.
fn bound(expr: Expr) -> Result<Expr> {
    let bound = expr.transform_up(|part| match part {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        part => Ok(Transformed::no(part)),
    })?;
    Ok(bound.data)
}
