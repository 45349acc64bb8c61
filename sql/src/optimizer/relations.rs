//! What stands in FROM: only tables themselves have keys that a query's GROUP BY may lean on.
//!
//! `SELECT name … GROUP BY id` is right where `id` is the key of a table in FROM, as in PostgreSQL. DataFusion 55 believes it
//! of derived tables and views too, and there it believes too much: of `SELECT a.id, b.id … GROUP BY a.id, b.id` it takes
//! `a.id` for a key, and a query that groups it by `a.id` is silently grouped by both.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef, FunctionalDependencies, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::logical_plan::Distinct;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::sql::sqlparser::ast::TableFactor;

thread_local! {
    /// Whether the next relation is one that comes back from us. It does so at once and on this thread.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Plans what stands in FROM as DataFusion does, without keys unless it is a table.
#[derive(Debug)]
pub(crate) struct Relations;

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let has_keys = matches!(relation, TableFactor::Derived { .. } | TableFactor::Table { args: None, .. });
        if IS_OURS.take() || !has_keys {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        IS_OURS.set(true);
        let plan = context.plan(relation)?;
        let plan = if is_table(&plan) { plan } else { without_keys(plan)? };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

/// Whether it is a table, under other names perhaps.
fn is_table(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_table(&alias.input),
        LogicalPlan::Projection(projection) => is_table(&projection.input),
        _ => false,
    }
}

/// `plan`, of which nobody above learns what determines its rows.
fn without_keys(mut plan: LogicalPlan) -> Result<LogicalPlan> {
    let below = |input: &mut Arc<LogicalPlan>| -> Result<()> {
        *input = Arc::new(without_keys(Arc::unwrap_or_clone(std::mem::take(input)))?);
        Ok(())
    };
    match &mut plan {
        LogicalPlan::Projection(node) => forget(&mut node.schema)?,
        LogicalPlan::SubqueryAlias(node) => forget(&mut node.schema)?,
        LogicalPlan::Aggregate(node) => forget(&mut node.schema)?,
        LogicalPlan::Window(node) => forget(&mut node.schema)?,
        LogicalPlan::Join(node) => forget(&mut node.schema)?,
        LogicalPlan::Union(node) => forget(&mut node.schema)?,
        LogicalPlan::Unnest(node) => forget(&mut node.schema)?,
        LogicalPlan::TableScan(node) => forget(&mut node.projected_schema)?,
        // These have the schema of what they read.
        LogicalPlan::Filter(node) => below(&mut node.input)?,
        LogicalPlan::Sort(node) => below(&mut node.input)?,
        LogicalPlan::Limit(node) => below(&mut node.input)?,
        LogicalPlan::Distinct(Distinct::All(input)) => below(input)?,
        LogicalPlan::Subquery(node) => below(&mut node.subquery)?,
        _ => {}
    }
    Ok(plan)
}

fn forget(schema: &mut DFSchemaRef) -> Result<()> {
    let known: DFSchema = schema.as_ref().clone();
    *schema = Arc::new(known.with_functional_dependencies(FunctionalDependencies::empty())?);
    Ok(())
}
