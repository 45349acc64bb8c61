//! Filters stay above aggregates without groups, and above grouping sets.
//!
//! DataFusion 55 moves a condition below an aggregate if all of its columns are groups. One without columns, such as
//! `0.5 = 2` after a constant was put in, passes that test always: below `count(*)` it would leave no row to count and yet
//! one row of result, where the condition above it leaves none. Below ROLLUP the same happens to its totals.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

pub(super) fn rewrite(
    rule: &dyn OptimizerRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Filter(filter) = &plan
        && let LogicalPlan::Aggregate(aggregate) = filter.input.as_ref()
    {
        let is_global = aggregate.group_expr.is_empty();
        if is_global || aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return Ok(Transformed::no(plan));
        }
    }
    rule.rewrite(plan, config)
}
