//! `Repaired`: a rule of DataFusion with something done before it, after it or instead of it.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};

use super::dependencies::CertainDependencies;
use super::{cross_joins, global_aggregates, in_lists, null_safe, single_distinct};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// DataFusion's rules, with ours in place of those that answer wrongly.
pub(crate) fn rules() -> Vec<Rule> {
    let repaired = |rule: Rule| -> Rule {
        let rewrite = match rule.name() {
            "eliminate_cross_join" => cross_joins::rewrite,
            "extract_equijoin_predicate" => null_safe::rewrite,
            "push_down_filter" => global_aggregates::rewrite,
            "simplify_expressions" => in_lists::rewrite,
            "single_distinct_aggregation_to_group_by" => single_distinct::rewrite,
            _ => return rule,
        };
        Arc::new(Repaired { rule, rewrite })
    };
    let prepared = |rule: Rule| -> Vec<Rule> {
        let relies_on_keys =
            ["eliminate_duplicated_expr", "eliminate_join", "optimize_projections", "replace_distinct_aggregate"];
        let before: Option<Rule> = relies_on_keys.contains(&rule.name()).then(|| Arc::new(CertainDependencies) as Rule);
        before.into_iter().chain([repaired(rule)]).collect()
    };
    Optimizer::new().rules.into_iter().flat_map(prepared).collect()
}

/// What is done with a plan in place of the rule, which it is given.
type Rewrite = fn(&dyn OptimizerRule, LogicalPlan, &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>>;

/// A rule by its old name, in its old place and order.
struct Repaired {
    rule: Rule,
    rewrite: Rewrite,
}

impl fmt::Debug for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Repaired").field(&self.rule).finish()
    }
}

impl OptimizerRule for Repaired {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        (self.rewrite)(self.rule.as_ref(), plan, config)
    }
}
