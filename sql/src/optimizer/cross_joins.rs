//! Keys of joins that stand between more than two inputs are conditions while joins are put in another order.
//!
//! DataFusion 55 takes neighbouring inner joins apart and puts them together again by their keys (`EliminateCrossJoin`). A
//! key that no longer stands between the inputs of one join is lost with the rows it keeps out: `false = b.x` after a
//! constant was put in for a column of the other side, or `a.x + b.y = c.z` once `a` and `c` have met. Conditions of a join
//! are kept, so such keys become conditions first; filters are pushed down, and keys found, after it as before.

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, Operator, binary_expr};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

pub(super) fn rewrite(
    rule: &dyn OptimizerRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    let mut has_losable = false;
    plan.apply_with_subqueries(|node| {
        has_losable |= matches!(node, LogicalPlan::Join(join) if losable(join));
        Ok(if has_losable { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !has_losable {
        return rule.rewrite(plan, config);
    }
    let safe = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if losable(&join) => Ok(Transformed::yes(LogicalPlan::Join(with_conditions(join)))),
        node => Ok(Transformed::no(node)),
    })?;
    Ok(Transformed::yes(rule.rewrite(safe.data, config)?.data))
}

fn losable(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.on.iter().any(|(left, right)| !is_safe(left) || !is_safe(right))
}

/// Whether the expression reads exactly one input, whichever way the joins are put together.
fn is_safe(side: &Expr) -> bool {
    let columns = side.column_refs();
    let mut relations = columns.iter().map(|column| &column.relation);
    match (relations.next(), columns.len()) {
        (None, _) => false,
        (Some(_), 1) => true,
        (Some(first), _) => first.is_some() && relations.all(|relation| relation == first),
    }
}

fn with_conditions(mut join: Join) -> Join {
    let (kept, moved): (Vec<_>, Vec<_>) =
        join.on.into_iter().partition(|(left, right)| is_safe(left) && is_safe(right));
    join.on = kept;
    let equal = match join.null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    let moved = moved.into_iter().map(|(left, right)| binary_expr(left, equal, right));
    join.filter = conjunction(join.filter.take().into_iter().chain(moved));
    join
}
