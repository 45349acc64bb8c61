//! Keeps the optimizer from two mistakes: what it would conclude from primary keys, and subqueries in ON.
//!
//! DataFusion 55 takes a column that is a key of one joined table for a key of their join once it is grouped by
//! (`aggregate_functional_dependencies` calls it `Single`). Then it drops other columns from an ORDER BY, and from a
//! second GROUP BY, which merges rows that differ: a wrong answer. The one thing that keys are wanted for is done when a
//! plan is first made: `GROUP BY key` lets other columns of the table be selected. So they are forgotten right after.
//!
//! Deliberately not here: keys in the physical plan, which speak of one table's rows and are right.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{FunctionalDependencies, Result};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, Filter, JoinType, LogicalPlan};
use strata_olap::scan::StrataTable;

use crate::error::Error;

/// The same plan over tables without keys.
///
/// # Errors
/// None that depends on the query: every schema is made again as it was.
pub(crate) fn forget_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let forgotten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else {
            return subqueries_above_joins(node.recompute_schema()?).map(Transformed::yes);
        };
        if let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<StrataTable>()
        {
            scan.source = provider_as_source(Arc::new(table.without_key()));
            let schema = scan.projected_schema.as_ref().clone();
            scan.projected_schema = Arc::new(schema.with_functional_dependencies(FunctionalDependencies::empty())?);
        }
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(forgotten.data)
}

/// DataFusion drops a subquery from the condition of a join. Above an inner join it means the same; that of an outer join
/// is refused.
fn subqueries_above_joins(plan: LogicalPlan) -> Result<LogicalPlan> {
    let has_subquery = |expr: &Expr| {
        expr.exists(|part| {
            let is_subquery = matches!(
                part,
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
            );
            Ok(is_subquery)
        })
    };
    let LogicalPlan::Join(mut join) = plan else { return Ok(plan) };
    let mut found = false;
    for expr in join.filter.iter().chain(join.on.iter().flat_map(|(left, right)| [left, right])) {
        found |= has_subquery(expr)?;
    }
    if !found {
        return Ok(LogicalPlan::Join(join));
    }
    if join.join_type != JoinType::Inner {
        let error = Error::unsupported("a subquery in the condition of an outer join");
        return Err(error.with_hint("join a derived table (SELECT …) that was filtered before").into());
    }
    let mut conditions: Vec<Expr> = join.on.drain(..).map(|(left, right)| left.eq(right)).collect();
    conditions.extend(join.filter.take());
    let condition = conditions.into_iter().reduce(Expr::and);
    let joined = LogicalPlan::Join(join);
    match condition {
        Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(joined))?)),
        None => Ok(joined),
    }
}
