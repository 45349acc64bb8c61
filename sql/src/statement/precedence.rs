//! Puts right what the parser binds too loosely: it reads all that follows `IS [NOT] DISTINCT FROM` as its operand, AND and
//! OR included, so that `a IS DISTINCT FROM b OR c` would mean `a IS DISTINCT FROM (b OR c)`.
//!
//! Parentheses are nodes of their own. So a bare AND or OR where the grammar has an operand of something that binds tighter
//! comes from this mistake alone, and is lifted above it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator as Op, Expr, UnaryOperator};

/// Lifts every AND and OR that was read as an operand of IS DISTINCT FROM.
pub(super) fn lift_conditions(statement: &mut ast::Statement) {
    // Nothing in it breaks off.
    let _: ControlFlow<()> = ast::VisitMut::visit(statement, &mut Lift);
}

struct Lift;

impl ast::VisitorMut for Lift {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let wrong = match expr {
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => is(right, &[Op::And, Op::Or]),
            // What was lifted below is not to be below NOT, or as OR below AND.
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => is(expr, &[Op::And, Op::Or]),
            Expr::BinaryOp { op: Op::And, right, .. } => is(right, &[Op::Or]),
            _ => false,
        };
        if wrong {
            lift(expr);
        }
        ControlFlow::Continue(())
    }
}

fn is(expr: &Expr, ops: &[Op]) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if ops.contains(op))
}

/// The operand's tree takes the place of `expr`, and `expr` that of the tree's first operand, which becomes its own.
fn lift(expr: &mut Expr) {
    let ops: &[Op] = if is(expr, &[Op::And]) { &[Op::Or] } else { &[Op::And, Op::Or] };
    let nothing = || Expr::Value(ast::Value::Null.into());
    let mut tree = match expr {
        Expr::IsDistinctFrom(_, operand)
        | Expr::IsNotDistinctFrom(_, operand)
        | Expr::UnaryOp { expr: operand, .. }
        | Expr::BinaryOp { right: operand, .. } => std::mem::replace(operand.as_mut(), nothing()),
        _ => return,
    };
    let mut first = &mut tree;
    while is(first, ops) {
        let Expr::BinaryOp { left, .. } = first else { return };
        first = left;
    }
    let first_operand = std::mem::replace(first, nothing());
    let mut inner = std::mem::replace(expr, nothing());
    if let Expr::IsDistinctFrom(_, operand)
    | Expr::IsNotDistinctFrom(_, operand)
    | Expr::UnaryOp { expr: operand, .. }
    | Expr::BinaryOp { right: operand, .. } = &mut inner
    {
        **operand = first_operand;
    }
    *first = inner;
    *expr = tree;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::parse_own;

    /// The condition with a pair of parentheses around every operator.
    fn shape(expr: &Expr) -> String {
        match expr {
            Expr::Nested(inner) => shape(inner),
            Expr::UnaryOp { op, expr } => format!("({op} {})", shape(expr)),
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", shape(left), shape(right)),
            Expr::IsDistinctFrom(left, right) => format!("({} <> {})", shape(left), shape(right)),
            Expr::IsNotDistinctFrom(left, right) => format!("({} = {})", shape(left), shape(right)),
            other => other.to_string(),
        }
    }

    fn condition(text: &str) -> String {
        let ast::Statement::Query(query) = parse_own(&format!("SELECT 1 WHERE {text}")).unwrap() else { panic!() };
        let ast::SetExpr::Select(select) = *query.body else { panic!() };
        shape(&select.selection.unwrap())
    }

    #[test]
    fn conditions_behind_is_distinct_from() {
        for (words, sign) in [("IS DISTINCT FROM", "<>"), ("IS NOT DISTINCT FROM", "=")] {
            let same = |written: &str, meant: &str| {
                assert_eq!(condition(&written.replace('~', words)), meant.replace('~', sign), "{written}");
            };
            same("a ~ b OR c", "((a ~ b) OR c)");
            same("a ~ b AND c OR d", "(((a ~ b) AND c) OR d)");
            same("x AND a ~ b OR c", "((x AND (a ~ b)) OR c)");
            same("x OR a ~ b AND c", "(x OR ((a ~ b) AND c))");
            same("NOT a ~ b OR c", "((NOT (a ~ b)) OR c)");
            same("a ~ b OR c ~ d AND e", "((a ~ b) OR ((c ~ d) AND e))");
            same("a ~ (b OR c) OR d", "((a ~ (b OR c)) OR d)");
        }
    }
}
