//! Which columns of the queries around it a plan reads.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

/// The subquery that `expr` is, if it is one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// Whether `expr` contains a subquery.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|part| Ok(subquery_of(part).is_some())).unwrap_or(true)
}

/// Whether `expr` itself, its subqueries apart, reads a column of a query around it.
pub(super) fn has_reference(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::OuterReferenceColumn(..)))).unwrap_or(true)
}

/// The columns that `plan` reads of queries around it, whichever: what its own subqueries read of it does not count.
pub(super) fn free(plan: &LogicalPlan) -> Result<BTreeSet<Column>> {
    let mut found = BTreeSet::new();
    plan.apply(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::OuterReferenceColumn(_, column) = part {
                    found.insert(column.clone());
                }
                if let Some(subquery) = subquery_of(part) {
                    let inner = free(&subquery.subquery)?;
                    found.extend(inner.into_iter().filter(|column| !schema.has_column(column)));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if let LogicalPlan::Join(join) = node {
            for lateral in [&join.left, &join.right].into_iter().filter_map(|side| lateral_of(side)) {
                let inner = free(&lateral.subquery)?;
                found.extend(inner.into_iter().filter(|column| !schema.has_column(column)));
            }
        }
        // A lateral subquery's references were looked at with the join above it.
        Ok(if lateral_of(node).is_some() { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The subquery in FROM that reads its neighbours, if `plan` is one, under a name or not.
pub(super) fn lateral_of(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => lateral_of(&alias.input),
        LogicalPlan::Subquery(subquery) => Some(subquery),
        _ => None,
    }
}
