//! Lists of IN about one value stay apart where putting them together forgets NULL.
//!
//! DataFusion 55 makes `a NOT IN (1) OR a NOT IN (2)` true, because no value is in both lists; where `a` is NULL, or a list
//! has a NULL, it is unknown. In the same way `a IN (1) AND a IN (2)` becomes false, which under NOT is true. The rule
//! moves NOT inwards before it looks, so each list that stands under anything but AND and OR of a condition is hidden from
//! it. There, where only true counts, lists that are not negated can do no harm.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

pub(super) fn rewrite(
    rule: &dyn OptimizerRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    let mut is_concerned = false;
    for expr in plan.expressions() {
        is_concerned |= !listed_twice(&expr)?.is_empty();
    }
    if !is_concerned {
        return rule.rewrite(plan, config);
    }
    let is_condition = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
    let apart = plan.map_expressions(|expr| {
        let values = listed_twice(&expr)?;
        if values.is_empty() { Ok(Transformed::no(expr)) } else { hidden(expr, &values, is_condition) }
    })?;
    rule.rewrite(apart.data, config)
}

/// What `expr` has a list about, and another list or comparison. Short lists become comparisons and back.
fn listed_twice(expr: &Expr) -> Result<Vec<Expr>> {
    let mut seen: Vec<(&Expr, usize, bool)> = Vec::new();
    expr.apply(|part| {
        if let Some((value, _)) = listed(part) {
            let is_list = matches!(part, Expr::InList(_));
            match seen.iter_mut().find(|(known, ..)| *known == value) {
                Some((_, count, has_list)) => (*count, *has_list) = (*count + 1, *has_list || is_list),
                None => seen.push((value, 1, is_list)),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let twice = seen.into_iter().filter(|(_, count, has_list)| *has_list && *count > 1);
    Ok(twice.map(|(value, ..)| value.clone()).collect())
}

/// The value that is compared with a list or a literal, and whether it must not be in it.
fn listed(expr: &Expr) -> Option<(&Expr, bool)> {
    match expr {
        Expr::InList(list) => Some((&list.expr, list.negated)),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Eq | Operator::NotEq), right }) => {
            let ((Expr::Literal(..), value) | (value, Expr::Literal(..))) = (left.as_ref(), right.as_ref()) else {
                return None;
            };
            // `(a IN (1)) = FALSE` is about the list, and means NOT.
            let has_list = value.exists(|part| Ok(matches!(part, Expr::InList(_)))).unwrap_or(true);
            (!has_list).then_some((value, *op == Operator::NotEq))
        }
        _ => None,
    }
}

/// `expr` with what is said about one of `values` under its own name, where the rule does not look and everything is called
/// as before.
fn hidden(expr: Expr, values: &[Expr], is_condition: bool) -> Result<Transformed<Expr>> {
    expr.transform_down(|part| match part {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) if is_condition => {
            let (left, right) = (hidden(*left, values, true)?, hidden(*right, values, true)?);
            let is_changed = left.transformed || right.transformed;
            let expr = BinaryExpr { left: Box::new(left.data), op, right: Box::new(right.data) };
            Ok(Transformed::new(Expr::BinaryExpr(expr), is_changed, TreeNodeRecursion::Jump))
        }
        Expr::Alias(alias) if listed(&alias.expr).is_some() => {
            Ok(Transformed::new(Expr::Alias(alias), false, TreeNodeRecursion::Jump))
        }
        part => match listed(&part) {
            Some((_, false)) if is_condition => Ok(Transformed::new(part, false, TreeNodeRecursion::Jump)),
            Some((value, _)) if values.contains(value) => {
                let name = part.schema_name().to_string();
                Ok(Transformed::new(part.alias(name), true, TreeNodeRecursion::Jump))
            }
            _ if is_condition => {
                let hidden = hidden(part, values, false)?;
                Ok(Transformed::new(hidden.data, hidden.transformed, TreeNodeRecursion::Jump))
            }
            _ => Ok(Transformed::no(part)),
        },
    })
}
