//! References to an outer query have the types of the columns they refer to.
//!
//! DataFusion 55 notes a column's type with every reference to it when the text is planned. What an expression such as
//! `CASE … THEN a ELSE 5 END AS c` is in the end is decided later, by the types of constants and by coercion. A comparison
//! with `c` in a correlated subquery was then coerced to the old type, and the join made of it had keys of two types.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

/// A reference to a reference is right one pass later; nobody nests deeper.
const PASSES_MAX: usize = 8;

/// Type coercion, until references no longer change.
#[derive(Debug)]
pub(crate) struct Coercion(pub Arc<dyn AnalyzerRule + Send + Sync>);

impl AnalyzerRule for Coercion {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut plan = self.0.analyze(plan, config)?;
        for _ in 0..PASSES_MAX {
            let now = retyped(plan)?;
            if !now.transformed {
                return Ok(now.data);
            }
            plan = self.0.analyze(now.data, config)?;
        }
        Ok(plan)
    }
}

/// `plan` with references of today's types.
///
/// # Errors
/// None that depends on the query.
pub(crate) fn retyped(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    within(plan, &[])
}

/// The same for a plan that may read columns of `outer`, the innermost first.
fn within(plan: LogicalPlan, outer: &[Arc<DFSchema>]) -> Result<Transformed<LogicalPlan>> {
    plan.transform_up(|node| {
        let own = Arc::new(merge_schema(&node.inputs()));
        let node = if outer.is_empty() {
            Transformed::no(node)
        } else {
            node.map_expressions(|expr| with_types(expr, outer))?
        };
        let node = node.transform_data(|node| {
            node.map_subqueries(|subquery| {
                let LogicalPlan::Subquery(mut subquery) = subquery else { return Ok(Transformed::no(subquery)) };
                let around: Vec<_> = std::iter::once(Arc::clone(&own)).chain(outer.iter().cloned()).collect();
                let body = within(Arc::unwrap_or_clone(subquery.subquery), &around)?;
                subquery.subquery = Arc::new(body.data);
                for reference in &mut subquery.outer_ref_columns {
                    *reference = with_types(reference.clone(), &around)?.data;
                }
                Ok(Transformed::new_transformed(LogicalPlan::Subquery(subquery), body.transformed))
            })
        })?;
        if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })
}

fn with_types(expr: Expr, outer: &[Arc<DFSchema>]) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| {
        let Expr::OuterReferenceColumn(field, column) = part else { return Ok(Transformed::no(part)) };
        let now = outer.iter().find_map(|schema| schema.field_from_column(&column).ok());
        Ok(match now {
            Some(now) if now.data_type() != field.data_type() => {
                Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(now), column))
            }
            _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
        })
    })
}
