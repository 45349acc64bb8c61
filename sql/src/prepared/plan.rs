//! A prepared query's optimised logical plan, kept with places for its parameters.
//!
//! What is left for each run is to put the values in, to fold what became constant, and to plan physically, which is where
//! the snapshot comes in: the plan names tables, not rows.
//!
//! Kept only where that means the same as planning anew with constants written out: parameters have types of their own (text
//! has not, a constant of text is of no type yet), none is a LIMIT or the number of a column to sort by, no function depends
//! on more than its arguments, and everything read is a table of ours.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use strata_olap::scan::StrataTable;

use crate::error::Result;
use crate::types::is_text;

/// Whether values of these types can stand for parameters in a plan that is kept.
pub(crate) fn are_typed(types: &[DataType]) -> bool {
    let is_typed = |data_type: &DataType| {
        !is_text(data_type)
            && !matches!(data_type, DataType::Null | DataType::Decimal128(..) | DataType::Decimal256(..))
    };
    types.iter().all(is_typed)
}

/// The optimised form of `plan`, whose parameters have `types`; `None` if it must be planned anew each time.
///
/// # Errors
/// Types that do not fit.
pub(crate) fn optimised(plan: LogicalPlan, types: &[DataType], state: &SessionState) -> Result<Option<LogicalPlan>> {
    if !may_be_kept(&plan)? {
        return Ok(None);
    }
    let typed = plan.transform_up_with_subqueries(|plan| {
        let typed = plan.map_expressions(|expr| expr.transform_up(|expr| Ok(typed(expr, types))))?;
        if typed.transformed { typed.map_data(LogicalPlan::recompute_schema) } else { Ok(typed) }
    })?;
    let optimised = state.optimize(&typed.data)?;
    Ok(may_be_kept(&optimised)?.then_some(optimised))
}

/// `plan` with `values` for its parameters, ready for physical planning.
///
/// # Errors
/// Constants that cannot be computed, as by planning anew.
pub(crate) fn bound(plan: &LogicalPlan, values: &[ScalarValue], state: &SessionState) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan.clone());
    }
    let plan = plan.clone().replace_params_with_values(&ParamValues::from(values.to_vec()))?;
    let folding = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
    Ok(folding.optimize(plan, state, |_, _| {})?)
}

fn typed(expr: Expr, types: &[DataType]) -> Transformed<Expr> {
    let Expr::Placeholder(Placeholder { id, field: _ }) = &expr else { return Transformed::no(expr) };
    let number = id.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
    match number.and_then(|number| types.get(number.checked_sub(1)?)) {
        Some(data_type) => {
            let field = Some(Arc::new(Field::new(id.clone(), data_type.clone(), true)));
            Transformed::yes(Expr::Placeholder(Placeholder { id: id.clone(), field }))
        }
        None => Transformed::no(expr),
    }
}

/// Whether `plan` means the same at any time and snapshot.
fn may_be_kept(plan: &LogicalPlan) -> Result<bool> {
    let mut is_kept = true;
    plan.apply_with_subqueries(|node| {
        is_kept &= match node {
            LogicalPlan::TableScan(scan) => {
                source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<StrataTable>().is_some())
            }
            LogicalPlan::Limit(_) => !has_parameter(node)?,
            LogicalPlan::Sort(sort) => !sort.expr.iter().any(|key| is_parameter(&key.expr)),
            LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.iter().any(is_parameter),
            LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_) => false,
            _ => true,
        };
        node.apply_expressions(|expr| {
            is_kept &= !expr.exists(|part| Ok(varies(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if is_kept { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(is_kept)
}

fn varies(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable)
}

fn is_parameter(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(_))
}

fn has_parameter(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found |= expr.exists(|part| Ok(is_parameter(part)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
