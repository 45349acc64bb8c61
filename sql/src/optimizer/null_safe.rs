//! Joins on `IS NOT DISTINCT FROM`: keys of a hash join, where NULL meets NULL, but not before the plan is done.
//!
//! DataFusion 55 has one switch per join for all of its keys, `NullEqualsNull`, and two of its rules forget it: filters
//! `a = b` that are moved into such a join become keys of it (`ExtractEquijoinPredicate`), and inner joins beside it are
//! taken apart and put together again with the switch of the topmost (`EliminateCrossJoin`). Rows with NULL then meet where
//! they must not. So the switch is set by nobody while these rules run: [`rewrite`] keeps `IS NOT DISTINCT FROM` in the
//! condition of the join, and [`with_keys`] makes it a key when the plan is about to be executed.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{NullEquality, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

/// Finds keys with DataFusion's `rule`, but for null-safe ones.
pub(super) fn rewrite(
    rule: &dyn OptimizerRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = plan else { return Ok(Transformed::no(plan)) };
    if join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let (kept, rest): (Vec<_>, Vec<_>) =
        join.filter.take().map(split_conjunction_owned).unwrap_or_default().into_iter().partition(is_null_safe);
    join.filter = conjunction(rest);
    let mut rewritten = rule.rewrite(LogicalPlan::Join(join), config)?;
    if let LogicalPlan::Join(join) = &mut rewritten.data {
        join.filter = conjunction(join.filter.take().into_iter().chain(kept));
    }
    Ok(rewritten)
}

fn is_null_safe(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { op: Operator::IsNotDistinctFrom, .. }))
}

/// The optimised `plan` with keys for its joins on `IS NOT DISTINCT FROM`. No rule may run after it.
///
/// # Errors
/// None that depends on the query.
fn with_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let keyed = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join) => Ok(keyed(join)),
        plan => Ok(Transformed::no(plan)),
    })?;
    Ok(keyed.data)
}

/// Whether [`with_keys`] may change `plan`.
fn has_keys(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::Join(join) = plan {
            found |= join.filter.iter().flat_map(split_conjunction).any(is_null_safe);
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn keyed(mut join: Join) -> Transformed<LogicalPlan> {
    let is_free = join.on.is_empty() || join.null_equality == NullEquality::NullEqualsNull;
    if !is_free || join.null_aware {
        return Transformed::no(LogicalPlan::Join(join));
    }
    let (mut keys, mut rest) = (Vec::new(), Vec::new());
    for part in join.filter.take().map(split_conjunction_owned).unwrap_or_default() {
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::IsNotDistinctFrom, right }) => {
                match sided(&join, &left, &right) {
                    Some(pair) => keys.push(pair),
                    None => {
                        rest.push(Expr::BinaryExpr(BinaryExpr { left, op: Operator::IsNotDistinctFrom, right }));
                    }
                }
            }
            part => rest.push(part),
        }
    }
    join.filter = conjunction(rest);
    if keys.is_empty() {
        return Transformed::no(LogicalPlan::Join(join));
    }
    join.on.extend(keys);
    join.null_equality = NullEquality::NullEqualsNull;
    Transformed::yes(LogicalPlan::Join(join))
}

/// The two as (left, right) expression, if each reads columns of one side.
fn sided(join: &Join, a: &Expr, b: &Expr) -> Option<(Expr, Expr)> {
    let reads = |expr: &Expr, side: &LogicalPlan| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| side.schema().has_column(column))
    };
    if reads(a, &join.left) && reads(b, &join.right) {
        Some((a.clone(), b.clone()))
    } else if reads(b, &join.left) && reads(a, &join.right) {
        Some((b.clone(), a.clone()))
    } else {
        None
    }
}

/// DataFusion's planner behind [`with_keys`].
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        if !has_keys(plan)? {
            return DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await;
        }
        let plan = with_keys(plan.clone())?;
        DefaultPhysicalPlanner::default().create_physical_plan(&plan, session).await
    }
}
