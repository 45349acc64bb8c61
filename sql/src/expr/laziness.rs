//! `CarefulProjections`: DataFusion's rule that moves projections below filters and joins, except for what may fail.
//!
//! `SELECT 1 / x FROM t WHERE x <> 0` must not divide by the zeros that the filter leaves out, but DataFusion computes a
//! projection first where that leaves fewer columns for the filter.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, remove_unnecessary_projections};

/// Functions of ours and of DataFusion that fail for some values.
const FALLIBLE: [&str; 20] = [
    "plus",
    "minus",
    "times",
    "divided_by",
    "modulo",
    "quotient",
    "read_text",
    "rounded",
    "digits",
    "in_domain",
    "interval_over",
    "interval_times",
    "times_interval",
    "decimal_range",
    "json",
    "json_array_length",
    "abs",
    "sqrt",
    "chr",
    "substr",
];

/// `rule`, or ours in its place if it moves projections.
pub(super) fn careful(
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
) -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
    if rule.name() == "ProjectionPushdown" { Arc::new(CarefulProjections(rule)) } else { rule }
}

#[derive(Debug)]
struct CarefulProjections(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for CarefulProjections {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let is_at_risk = |plan: &Arc<dyn ExecutionPlan>| plan.downcast_ref::<ProjectionExec>().is_some_and(stays);
        if !plan.exists(|plan| Ok(is_at_risk(plan)))? {
            return self.0.optimize(plan, config);
        }
        let moved = plan.transform_down(|plan| match is_at_risk(&plan) {
            true => Ok(Transformed::no(plan)),
            false => remove_unnecessary_projections(plan),
        })?;
        Ok(moved.data)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether a projection may fail and has something below it that leaves rows out.
fn stays(projection: &ProjectionExec) -> bool {
    !projection.input().is::<DataSourceExec>() && projection.expr().iter().any(|column| may_fail(&column.expr))
}

fn may_fail(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let is_division = |binary: &BinaryExpr| matches!(binary.op(), Operator::Divide | Operator::Modulo);
    expr.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| FALLIBLE.contains(&call.fun().name()))
        || expr.downcast_ref::<BinaryExpr>().is_some_and(is_division)
        || expr.is::<CastExpr>()
        || expr.children().into_iter().any(may_fail)
}
