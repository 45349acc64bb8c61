//! Repairs of DataFusion's physical rules.
//!
//! * [`UniqueNames`]: filters are moved down by the names of columns, so not into inputs where two have one name.
//!   DataFusion 55 looks columns up by name in `FilterRemapper` and in `ProjectionExec::collect_reverse_alias`, and a filter
//!   on `a.k IS NULL` has ended on the scan of `b`.
//! * [`Constants`]: a column that is constant in the input of an outer join is not in its output, where rows without a
//!   partner have NULL. `EquivalenceGroup::join` keeps it, and an ORDER BY of that column is dropped.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::boundary::Boundary;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;
type Plan = Arc<dyn ExecutionPlan>;

/// `rules`, repaired.
pub(super) fn repaired(rules: Vec<Rule>) -> Vec<Rule> {
    let mut repaired: Vec<Rule> = Vec::with_capacity(rules.len() + 1);
    for rule in rules {
        // Sides are settled once it has run, and nothing was concluded from constants yet.
        let is_last_to_swap = rule.name() == "join_selection";
        let moves_filters = rule.name().starts_with("FilterPushdown");
        repaired.push(if moves_filters { Arc::new(UniqueNames(rule)) } else { rule });
        if is_last_to_swap {
            repaired.push(Arc::new(Constants));
        }
    }
    repaired
}

/// The plan with each input for which `is_bounded` holds behind a boundary.
fn bounded(plan: Plan, is_bounded: &dyn Fn(&Plan, usize) -> bool, bound: fn(Plan) -> Boundary) -> Result<Plan> {
    let changed = plan.transform_up(|node| {
        let children = node.children();
        let marks: Vec<bool> = (0..children.len()).map(|at| is_bounded(&node, at)).collect();
        if !marks.contains(&true) {
            return Ok(Transformed::no(node));
        }
        let behind = |(child, is_bounded): (&Plan, bool)| -> Plan {
            if is_bounded { Arc::new(bound(Arc::clone(child))) } else { Arc::clone(child) }
        };
        let children = children.into_iter().zip(marks).map(behind).collect();
        datafusion::physical_plan::execution_plan::replace_children_if_necessary(node, children).map(Transformed::yes)
    })?;
    Ok(changed.data)
}

/// A rule that moves filters, kept from inputs with ambiguous names.
#[derive(Debug)]
struct UniqueNames(Rule);

impl PhysicalOptimizerRule for UniqueNames {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        let is_ambiguous = |plan: &Plan| {
            let schema = plan.schema();
            let mut names = HashSet::with_capacity(schema.fields().len());
            !schema.fields().iter().all(|field| names.insert(field.name()))
        };
        if !plan.exists(|node| Ok(is_ambiguous(node)))? {
            return self.0.optimize(plan, config);
        }
        let plan = bounded(plan, &|node, at| is_ambiguous(node.children()[at]), Boundary::transparent)?;
        let plan = self.0.optimize(plan, config)?;
        let without = plan.transform_up(|node| match node.downcast_ref::<Boundary>() {
            Some(boundary) if boundary.is_transparent() => Ok(Transformed::yes(Arc::clone(boundary.input()))),
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(without.data)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Puts the inputs of outer joins that have constants behind boundaries.
#[derive(Debug)]
struct Constants;

impl PhysicalOptimizerRule for Constants {
    fn optimize(&self, plan: Plan, _: &ConfigOptions) -> Result<Plan> {
        let loses_constants = |node: &Plan, at: usize| {
            let side = match join_type(node) {
                Some(JoinType::Left) => Some(1),
                Some(JoinType::Right) => Some(0),
                Some(JoinType::Full) => Some(at),
                _ => None,
            };
            side == Some(at) && !node.children()[at].equivalence_properties().constants().is_empty()
        };
        bounded(plan, &loses_constants, Boundary::opaque)
    }

    fn name(&self) -> &'static str {
        "constants_of_outer_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn join_type(node: &Plan) -> Option<JoinType> {
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return Some(*join.join_type());
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        return Some(*join.join_type());
    }
    node.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type)
}
