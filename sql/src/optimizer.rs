//! Our rules for logical plans: subqueries that DataFusion 55 cannot decorrelate, and repairs of its own rules.
//!
//! ```text
//! planner ──► unnesting ──► expr's rules, type coercion ──► DataFusion's rules, some repaired ──► null-safe keys
//!            (analyzer)                                          (optimizer)                       (before execution)
//! ```
//!
//! * [`unnesting`]: a subquery as a value, correlated in any way, becomes joins.
//! * [`null_safe`]: `IS NOT DISTINCT FROM` as the key of a hash join, but only once every other rule has run.
//! * [`global_aggregates`], [`physical`]: rules of DataFusion kept from what they get wrong, by the [`boundary`].
//! * [`single_value`]: the aggregate behind "a scalar subquery has at most one row".
//!
//! Deliberately not here: what expressions mean, which is [`crate::expr`]'s.

mod boundary;
mod global_aggregates;
mod null_safe;
mod physical;
mod single_value;
mod unnesting;

use std::sync::Arc;

use datafusion::optimizer::{AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

use global_aggregates::FiltersAbove;
use null_safe::EqualKeys;

pub(crate) use null_safe::Planner;

/// The rule that comes before all others.
pub(crate) fn first_analyzer_rule() -> Arc<dyn AnalyzerRule + Send + Sync> {
    Arc::new(unnesting::Unnesting)
}

/// DataFusion's rules, with ours in place of those that answer wrongly.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let repaired = |rule: Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        match rule.name() {
            "extract_equijoin_predicate" => Arc::new(EqualKeys(rule)),
            "push_down_filter" => Arc::new(FiltersAbove(rule)),
            _ => rule,
        }
    };
    Optimizer::new().rules.into_iter().map(repaired).collect()
}

/// The same for rules of physical plans.
pub(crate) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    physical::repaired(PhysicalOptimizer::new().rules)
}
