//! Row groups that a query's filters rule out while it is planned, from minima, maxima and NULL counts.
//!
//! The same test runs again when an item is opened, by then with the filters that joins and top-k produce while
//! running. This first pass saves building a selection, and an item, for every group of a large table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_common::pruning::PrunableStatistics;
use datafusion_common::{DFSchema, Result, Statistics};
use datafusion_expr::Expr;
use datafusion_expr::utils::conjunction;
use datafusion_pruning::PruningPredicateBuilder;
use datafusion_session::Session;

/// Which containers may hold a row that passes all `filters`. Filters are over `schema`, the statistics too.
///
/// A filter that cannot be turned into a test keeps every container.
pub(crate) fn survivors(
    session: &dyn Session,
    schema: &SchemaRef,
    filters: &[Expr],
    statistics: &[Arc<Statistics>],
) -> Result<Vec<bool>> {
    let everything = vec![true; statistics.len()];
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(everything) };
    if statistics.is_empty() {
        return Ok(everything);
    }
    let filter = session.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(schema))?)?;
    let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema));
    let Some(predicate) = builder.build(filter) else { return Ok(everything) };
    Ok(predicate.prune(&PrunableStatistics::new(statistics.to_vec(), Arc::clone(schema))).unwrap_or(everything))
}
