//! Sums beside a DISTINCT aggregate are summed once.
//!
//! DataFusion 55 computes `count(DISTINCT a), sum(b)` in two steps, where the second adds up the sums of the first. A sum
//! here is wider than what it adds, so a sum of sums has another type than the query was planned with.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

pub(super) fn rewrite(
    rule: &dyn OptimizerRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Aggregate(aggregate) = &plan
        && widens(aggregate)?
    {
        return Ok(Transformed::no(plan));
    }
    rule.rewrite(plan, config)
}

/// Whether one of its aggregates, applied to its own result, gives another type.
fn widens(aggregate: &Aggregate) -> Result<bool> {
    for expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(call) = expr else { continue };
        let [argument] = call.params.args.as_slice() else { continue };
        let schema = aggregate.input.schema();
        let is_closed = call.params.distinct || expr.get_type(schema)? == argument.get_type(schema)?;
        if !is_closed {
            return Ok(true);
        }
    }
    Ok(false)
}
