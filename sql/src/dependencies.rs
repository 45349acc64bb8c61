//! Keeps the optimizer from what it would conclude from primary keys.
//!
//! DataFusion 55 takes a column that is a key of one joined table for a key of their join once it is grouped by
//! (`aggregate_functional_dependencies` calls it `Single`). Then it drops other columns from an ORDER BY, and from a
//! second GROUP BY, which merges rows that differ: a wrong answer. The one thing that keys are wanted for is done when a
//! plan is first made: `GROUP BY key` lets other columns of the table be selected. So they are forgotten right after.
//!
//! Deliberately not here: keys in the physical plan, which speak of one table's rows and are right.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{FunctionalDependencies, Result};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::LogicalPlan;
use strata_olap::scan::StrataTable;

/// The same plan over tables without keys.
///
/// # Errors
/// None that depends on the query: every schema is made again as it was.
pub(crate) fn forget_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let forgotten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else {
            return node.recompute_schema().map(Transformed::yes);
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
