//! Repairs of DataFusion's physical rules.
//!
//! * [`UniqueNames`]: filters are moved down by the names of columns, so not into inputs where two have one name.
//!   DataFusion 55 looks columns up by name in `FilterRemapper` and in `ProjectionExec::collect_reverse_alias`, and a filter
//!   on `a.k IS NULL` has ended on the scan of `b`.
//! * [`Constants`]: a column that is constant in the input of an outer join is not in its output, where rows without a
//!   partner have NULL. `EquivalenceGroup::join` keeps it, and an ORDER BY of that column is dropped. And a constant of one
//!   input of UNION ALL is none of the union; that `f(constant)` need not be sorted is forgotten on the way there. After
//!   `WHERE a * 2 = a` a window partitioned by `a` is found to be sorted by `a * 2`, and then not by `a`.
//! * [`CertainBounds`]: what is only estimated is no bound. `FilterExec` narrows estimated bounds by its condition, and
//!   takes a column for constant where they meet: one segment full of sevens, and fresh rows with anything.
//! * [`PlainNames`]: `SELECT -a AS a … GROUP BY a ORDER BY 1 LIMIT 2` groups only the two least of `a`, because the limit is
//!   moved below by the name `a`. It stays where a projection gives a column's name to something else.
//! * [`SortedEnough`]: sorts that were dropped for a constant are put back where a later rule lost sight of the constant.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result, Statistics};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::ensure_requirements::EnsureRequirements;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::boundary::Boundary;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;
type Plan = Arc<dyn ExecutionPlan>;

/// `rules`, repaired.
pub(super) fn repaired(rules: Vec<Rule>) -> Vec<Rule> {
    let mut repaired: Vec<Rule> = Vec::with_capacity(rules.len() + 2);
    // Answers from statistics, so after estimates are gone, which the order of joins is chosen by.
    let mut answers: Option<Rule> = None;
    for rule in rules {
        match rule.name() {
            "aggregate_statistics" => answers = Some(rule),
            "join_selection" => {
                repaired.push(rule);
                repaired.push(Arc::new(CertainBounds));
                repaired.push(Arc::new(Constants));
                repaired.extend(answers.take());
            }
            "LimitAggregation" => repaired.push(Arc::new(PlainNames(rule))),
            "SanityCheckPlan" => repaired.push(Arc::new(SortedEnough(rule))),
            name if name.starts_with("FilterPushdown") => repaired.push(Arc::new(UniqueNames(rule))),
            _ => repaired.push(rule),
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

/// A rule that follows columns by name through projections, where no name changes hands.
#[derive(Debug)]
struct PlainNames(Rule);

impl PhysicalOptimizerRule for PlainNames {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        let reuses_a_name = |plan: &Plan| {
            plan.downcast_ref::<ProjectionExec>().is_some_and(|projection| {
                projection.expr().iter().any(|column| {
                    let is_itself =
                        column.expr.downcast_ref::<Column>().is_some_and(|source| source.name() == column.alias);
                    !is_itself && projection.input().schema().field_with_name(&column.alias).is_ok()
                })
            })
        };
        if plan.exists(|node| Ok(reuses_a_name(node)))? { Ok(plan) } else { self.0.optimize(plan, config) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Puts the inputs of outer joins and unions that have constants behind boundaries, and what equals a column with more
/// than a column or constant.
#[derive(Debug)]
struct Constants;

impl PhysicalOptimizerRule for Constants {
    fn optimize(&self, plan: Plan, _: &ConfigOptions) -> Result<Plan> {
        let loses_constants = |node: &Plan, at: usize| {
            let is_union = node.is::<UnionExec>();
            let side = match join_type(node) {
                _ if is_union => Some(at),
                Some(JoinType::Left) => Some(1),
                Some(JoinType::Right) => Some(0),
                Some(JoinType::Full) => Some(at),
                _ => None,
            };
            let child = node.children()[at];
            equates_expressions(child) || side == Some(at) && !child.equivalence_properties().constants().is_empty()
        };
        bounded(plan, &loses_constants, Boundary::opaque)
    }

    fn name(&self) -> &'static str {
        "constants_of_inputs"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether rows are kept for a column that equals an expression.
fn equates_expressions(plan: &Plan) -> bool {
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return false };
    let is_column = |expr: &Arc<dyn PhysicalExpr>| expr.is::<Column>();
    let is_expression = |expr: &Arc<dyn PhysicalExpr>| !expr.is::<Column>() && !expr.is::<Literal>();
    split_conjunction(filter.predicate()).into_iter().any(|part| match part.downcast_ref::<BinaryExpr>() {
        Some(binary) if *binary.op() == Operator::Eq => {
            let (left, right) = (binary.left(), binary.right());
            is_column(left) && is_expression(right) || is_expression(left) && is_column(right)
        }
        _ => false,
    })
}

/// Scans without bounds that are not exact.
#[derive(Debug)]
struct CertainBounds;

impl PhysicalOptimizerRule for CertainBounds {
    fn optimize(&self, plan: Plan, _: &ConfigOptions) -> Result<Plan> {
        let certain = plan.transform_up(|node| {
            let scan = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
            let Some(config) = scan.and_then(|source| source.downcast_ref::<FileScanConfig>()) else {
                return Ok(Transformed::no(node));
            };
            let Some(statistics) = certain(config.statistics()) else { return Ok(Transformed::no(node)) };
            let config = FileScanConfigBuilder::from(config.clone()).with_statistics(statistics).build();
            Ok(Transformed::yes(DataSourceExec::from_data_source(config) as Plan))
        })?;
        Ok(certain.data)
    }

    fn name(&self) -> &'static str {
        "certain_bounds"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Without estimated bounds; nothing if there are none.
fn certain(mut statistics: Statistics) -> Option<Statistics> {
    let mut has_changed = false;
    for column in &mut statistics.column_statistics {
        for bound in [&mut column.min_value, &mut column.max_value] {
            if matches!(bound, Precision::Inexact(_)) {
                *bound = Precision::Absent;
                has_changed = true;
            }
        }
    }
    has_changed.then_some(statistics)
}

/// The check of the finished plan, which may have its sorts put back once.
#[derive(Debug)]
struct SortedEnough(Rule);

impl PhysicalOptimizerRule for SortedEnough {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        self.0.optimize(Arc::clone(&plan), config).or_else(|_| {
            let sorted = EnsureRequirements::new().optimize(plan, config)?;
            self.0.optimize(sorted, config)
        })
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
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
