//! Lists of IN stay apart where putting them together forgets NULL.
//!
//! DataFusion 55 makes `a NOT IN (1) OR a NOT IN (2)` true, because no value is in both lists; where `a` is NULL, or a list
//! has a NULL, it is unknown. In the same way `a IN (1) AND a IN (2)` becomes false, which under NOT is true. Only
//! `IN … OR … IN` and `NOT IN … AND … NOT IN` mean what one list of all values means, and are left to the rule.
//!
//! Still wrong: `NOT (a IN (…) AND a IN (…))` with lists of more than three, where the rule itself makes the pair.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

pub(super) fn rewrite(
    rule: &dyn OptimizerRule,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    let mut is_concerned = false;
    for expr in plan.expressions() {
        is_concerned |= expr.exists(|part| Ok(is_pair(part)))?;
    }
    if !is_concerned {
        return rule.rewrite(plan, config);
    }
    // Under its own name a list is not seen as one, and everything is called as before.
    let apart = plan.map_expressions(|expr| {
        expr.transform_up(|part| match part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_listed(&left, op, &right) => {
                let name = left.schema_name().to_string();
                let left = Box::new(left.alias(name));
                Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
            }
            part => Ok(Transformed::no(part)),
        })
    })?;
    rule.rewrite(apart.data, config)
}

fn is_pair(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_listed(left, *op, right))
}

/// Whether two lists about one expression are joined so that one list would say something else.
fn is_listed(left: &Expr, op: Operator, right: &Expr) -> bool {
    let (Expr::InList(left), Expr::InList(right)) = (left, right) else { return false };
    let is_sum = match op {
        Operator::Or => !left.negated && !right.negated,
        Operator::And => left.negated && right.negated,
        _ => return false,
    };
    !is_sum && left.expr == right.expr
}
