//! What determines a row: of an aggregate all its groups, or a key among them that determines the others.
//!
//! DataFusion 55 says of a key of one side of a join that it determines every column of a GROUP BY above, and of a key that
//! it determines the elements of a list next to it. Then it leaves the other columns out of ORDER BY and GROUP BY: a wrong
//! answer. This puts right what it says before each rule that relies on it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Dependency, FunctionalDependence, FunctionalDependencies, Result};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Puts right the functional dependencies of aggregates and of lists made rows.
#[derive(Debug)]
pub(super) struct CertainDependencies;

impl OptimizerRule for CertainDependencies {
    fn name(&self) -> &'static str {
        "certain_dependencies"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut is_concerned = false;
        plan.apply_with_subqueries(|node| {
            is_concerned = is_wrong(node);
            Ok(if is_concerned { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !is_concerned {
            return Ok(Transformed::no(plan));
        }
        // The plan means what it meant; it is no change that another pass has to look at.
        plan.transform_up_with_subqueries(corrected).data().map(Transformed::no)
    }
}

fn corrected(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        // Written into the node: what makes an aggregate anew computes them as before.
        LogicalPlan::Aggregate(mut aggregate) => {
            let schema = aggregate.schema.as_ref().clone();
            aggregate.schema = Arc::new(schema.with_functional_dependencies(certain(&aggregate))?);
            Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
        }
        LogicalPlan::Unnest(mut unnest) => {
            let schema = unnest.schema.as_ref().clone();
            unnest.schema = Arc::new(schema.with_functional_dependencies(FunctionalDependencies::empty())?);
            Ok(Transformed::yes(LogicalPlan::Unnest(unnest)))
        }
        // These say it again of what is below them; the others ask it.
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Join(_) | LogicalPlan::Window(_) => {
            node.recompute_schema().map(Transformed::yes)
        }
        node => Ok(Transformed::no(node)),
    }
}

fn is_wrong(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Aggregate(aggregate) => *aggregate.schema.functional_dependencies() != certain(aggregate),
        LogicalPlan::Unnest(unnest) => !unnest.schema.functional_dependencies().is_empty(),
        _ => false,
    }
}

/// What determines the rows of `aggregate`: the groups, and each smaller key among them.
fn certain(aggregate: &Aggregate) -> FunctionalDependencies {
    let fields = aggregate.schema.fields();
    let groups = fields.len().saturating_sub(aggregate.aggr_expr.len());
    // A group named twice has one column, and a grouping set has several.
    if groups == 0 || groups != aggregate.group_expr.len() {
        return FunctionalDependencies::empty();
    }
    let whole = |sources: Vec<usize>, nullable| {
        FunctionalDependence::new(sources, (0..fields.len()).collect(), nullable).with_mode(Dependency::Single)
    };
    let input = aggregate.input.schema();
    let read: Vec<Option<usize>> = aggregate
        .group_expr
        .iter()
        .map(|group| group.try_as_col().and_then(|column| input.maybe_index_of_column(column)))
        .collect();
    let mut keys = Vec::new();
    for key in input.functional_dependencies().iter().filter(|key| !key.nullable) {
        let group_of = |source: &usize| read.iter().position(|column| *column == Some(*source));
        let Some(sources) = key.source_indices.iter().map(group_of).collect::<Option<Vec<_>>>() else { continue };
        let is_determined = |column: &Option<usize>| {
            column.is_some_and(|at| key.source_indices.contains(&at) || key.target_indices.contains(&at))
        };
        // Where a row of the input has the key alone, so has everything computed from it.
        let is_row = key.mode == Dependency::Single && !aggregate.group_expr.iter().any(Expr::is_volatile);
        if is_row || read.iter().all(is_determined) {
            keys.push(whole(sources, false));
        }
    }
    if keys.is_empty() {
        keys.push(whole((0..groups).collect(), fields[..groups].iter().any(|field| field.is_nullable())));
    }
    FunctionalDependencies::new(keys)
}
