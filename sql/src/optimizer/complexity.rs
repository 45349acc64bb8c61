//! Statements that would grow beyond all bounds while they are planned are refused before.
//!
//! DataFusion 55 checks a subquery twice for every expression around it that is a subquery too, and writes some operands
//! several times: `coalesce(a, b)` as `CASE WHEN a IS NOT NULL THEN a ELSE b END`, `a BETWEEN …` and short lists of IN as
//! comparisons. Nested, that is twice the work with every level.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use crate::error::{Error, SqlState};

/// Deepest nesting of subqueries as expressions.
const SUBQUERIES_MAX: usize = 12;
/// How often one operand may be written.
const COPIES_MAX: usize = 1 << 12;
/// Longest list of IN that becomes comparisons.
const SHORT_LIST: usize = 3;

/// Refuses a plan that would not be done in reasonable time.
///
/// # Errors
/// 54001.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    plan_within(plan, 0)
}

fn plan_within(plan: &LogicalPlan, depth: usize) -> Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expression(expr, depth, 1)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .map(|_| ())
}

fn expression(expr: &Expr, depth: usize, copies: usize) -> Result<()> {
    if copies > COPIES_MAX {
        return Err(Error::new(SqlState::StatementTooComplex, "calls are nested too deeply")
            .with_detail(
                "coalesce, BETWEEN and IN repeat what they are applied to, so its size doubles with every level",
            )
            .with_hint("compute the inner values in a subquery in FROM, or name more values in one coalesce")
            .into());
    }
    match expr {
        Expr::ScalarSubquery(subquery) | Expr::Exists(Exists { subquery, .. }) => within(subquery, depth),
        Expr::InSubquery(InSubquery { expr, subquery, .. })
        | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
            within(subquery, depth)?;
            expression(expr, depth, copies)
        }
        Expr::ScalarFunction(call) if ["coalesce", "nvl", "nvl2"].contains(&call.name()) => {
            let last = call.args.len().saturating_sub(1);
            call.args
                .iter()
                .enumerate()
                .try_for_each(|(at, arg)| expression(arg, depth, if at < last { copies * 2 } else { copies }))
        }
        Expr::Between(between) => {
            expression(&between.expr, depth, copies * 2)?;
            expression(&between.low, depth, copies)?;
            expression(&between.high, depth, copies)
        }
        Expr::InList(list) if list.list.len() <= SHORT_LIST => {
            expression(&list.expr, depth, copies * list.list.len().max(1))?;
            list.list.iter().try_for_each(|item| expression(item, depth, copies))
        }
        expr => expr
            .apply_children(|child| {
                expression(child, depth, copies)?;
                Ok(TreeNodeRecursion::Continue)
            })
            .map(|_| ()),
    }
}

fn within(subquery: &Subquery, depth: usize) -> Result<()> {
    if depth == SUBQUERIES_MAX {
        return Err(Error::new(SqlState::StatementTooComplex, "subqueries are nested too deeply")
            .with_detail(format!("within expressions they may be nested {SUBQUERIES_MAX} deep"))
            .with_hint("put some of them into WITH or FROM")
            .into());
    }
    plan_within(&subquery.subquery, depth + 1)
}
