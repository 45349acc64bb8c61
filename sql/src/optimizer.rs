//! Our rules for logical plans: subqueries that DataFusion 55 cannot decorrelate, and repairs of its own rules.
//!
//! ```text
//! planner ──► unnesting ──► expr's rules, type coercion ──► DataFusion's rules, some repaired ──► null-safe keys
//!            (analyzer)                                          (optimizer)                       (before execution)
//! ```
//!
//! * [`unnesting`]: a subquery as a value, correlated in any way, becomes joins.
//! * [`null_safe`]: `IS NOT DISTINCT FROM` as the key of a hash join, but only once every other rule has run.
//! * [`complexity`]: refuses what would not end.
//! * [`cross_joins`], [`global_aggregates`], [`in_lists`], [`single_distinct`]: rules of DataFusion kept from what they get
//!   wrong, by [`rules`]; the same for physical plans in [`physical`], by the [`boundary`].
//! * [`dependencies`]: what the rules may believe about the rows of aggregates; [`relations`]: what the planner may.
//! * [`outer_types`]: references to an outer query, typed as the columns they refer to.
//! * [`single_value`]: the aggregate behind "a scalar subquery has at most one row".
//!
//! Deliberately not here: what expressions mean, which is [`crate::expr`]'s.

mod boundary;
pub(crate) mod complexity;
mod cross_joins;
mod dependencies;
mod global_aggregates;
mod in_lists;
mod null_safe;
mod outer_types;
mod physical;
mod relations;
mod rules;
mod single_distinct;
mod single_value;
mod unnesting;

use std::sync::Arc;

use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

pub(crate) use null_safe::Planner;
pub(crate) use outer_types::{Coercion, retyped};
pub(crate) use relations::Relations;
pub(crate) use rules::rules;

/// The rule that comes before all others.
pub(crate) fn first_analyzer_rule() -> Arc<dyn AnalyzerRule + Send + Sync> {
    Arc::new(unnesting::Unnesting)
}

/// DataFusion's rules for physical plans, with ours in place of those that answer wrongly.
pub(crate) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    physical::repaired(PhysicalOptimizer::new().rules)
}
