//! Keeps statements shallow: much of what follows parsing walks a statement by recursion, and a stack that is exhausted
//! ends the process.
//!
//! `a OR b OR c …` is parsed as a chain as deep as it is long. Chains of AND and OR become balanced trees, which mean the
//! same; other chains (`1 + 1 + …`, `… UNION …`) are refused beyond a length that nobody writes by hand.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;

use crate::error::{Error, Result, SqlState};

/// Longest chain of operators that is left alone or accepted.
const CHAIN_MAX: usize = 400;
/// Deepest nesting of expressions and queries. The parser reads arguments of functions, and what stands behind CASE, more
/// than once where they nest, which doubles its work with every level; beyond this it would not end.
const NESTING_MAX: usize = 50;
/// Texts beyond this are parsed on a stack of their own, because even dropping a chain is recursive. A term takes at
/// least two bytes, and its share of the stack is below 200.
const TEXT_BYTES_MAX: usize = 8 << 10;
const STACK_BYTES_PER_TEXT_BYTE: usize = 128;
const STACK_BYTES_MIN: usize = 16 << 20;
const STACK_BYTES_MAX: usize = 1 << 30;

/// Runs `parse` over `text` where its depth can do no harm: with the nesting that it may allow.
///
/// # Errors
/// Those of `parse`; 54001 if there is no memory for the stack.
pub(super) fn with_room<T: Send>(text: &str, parse: impl Fn(&str, usize) -> Result<T> + Sync) -> Result<T> {
    if text.len() <= TEXT_BYTES_MAX {
        return parse(text, NESTING_MAX);
    }
    let stack_bytes = text.len().saturating_mul(STACK_BYTES_PER_TEXT_BYTE).clamp(STACK_BYTES_MIN, STACK_BYTES_MAX);
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("parse".to_owned()).stack_size(stack_bytes);
        let thread = builder.spawn_scoped(scope, || parse(text, NESTING_MAX)).map_err(|_| too_complex())?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("the parser ended early")))
    })
}

/// Balances chains of AND and OR.
///
/// # Errors
/// 54001 for other chains that are too long.
pub(super) fn make_shallow(statement: &mut ast::Statement) -> Result<()> {
    match ast::VisitMut::visit(statement, &mut Shallow) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(too_complex()),
    }
}

pub(super) fn too_complex() -> Error {
    Error::new(SqlState::StatementTooComplex, "the statement is nested too deeply")
        .with_hint("use IN (…) or VALUES (…) for long lists, or split the statement")
}

struct Shallow;

impl ast::VisitorMut for Shallow {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        let (mut length, mut body) = (0, query.body.as_ref());
        while let ast::SetExpr::SetOperation { left, .. } = body {
            (length, body) = (length + 1, left);
        }
        if length > CHAIN_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::BinaryOp { op: op @ (ast::BinaryOperator::And | ast::BinaryOperator::Or), .. } = expr {
            let op = op.clone();
            balance(expr, &op);
        }
        let (mut length, mut left) = (0, &*expr);
        while let ast::Expr::BinaryOp { left: next, .. } = left {
            (length, left) = (length + 1, next);
        }
        if length > CHAIN_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Turns a long chain of `op` into a tree of logarithmic depth, operands in their order.
fn balance(expr: &mut ast::Expr, op: &ast::BinaryOperator) {
    let (mut length, mut left) = (0, &*expr);
    while let ast::Expr::BinaryOp { left: next, op: found, .. } = left
        && found == op
    {
        (length, left) = (length + 1, next);
    }
    if length <= CHAIN_MAX / 2 {
        return;
    }
    let mut operands = Vec::with_capacity(length + 1);
    let mut rest = std::mem::replace(expr, ast::Expr::Value(ast::Value::Null.into()));
    loop {
        match rest {
            ast::Expr::BinaryOp { left, op: found, right } if found == *op => {
                operands.push(*right);
                rest = *left;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operands.reverse();
    if let Some(tree) = tree(operands, op) {
        *expr = tree;
    }
}

fn tree(mut operands: Vec<ast::Expr>, op: &ast::BinaryOperator) -> Option<ast::Expr> {
    if operands.len() <= 1 {
        return operands.pop();
    }
    let right = operands.split_off(operands.len() / 2);
    let (left, right) = (Box::new(tree(operands, op)?), Box::new(tree(right, op)?));
    Some(ast::Expr::BinaryOp { left, op: op.clone(), right })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::parse_own;

    fn condition(sql: &str) -> String {
        let mut statement = parse_own(sql).unwrap();
        make_shallow(&mut statement).unwrap();
        statement.to_string()
    }

    #[test]
    fn long_chains_of_and_and_or_keep_their_operands_in_order() {
        let terms: Vec<String> = (0..3000).map(|at| format!("a{at}")).collect();
        let sql = format!("SELECT 1 WHERE {}", terms.join(" OR "));
        // A tree prints without parentheses, so the text is the chain's again.
        assert_eq!(condition(&sql), sql);
        let sql = format!("SELECT 1 WHERE b AND ({}) AND c", terms.join(" AND "));
        assert_eq!(condition(&sql), sql);
    }

    #[test]
    fn other_long_chains_are_refused() {
        for sql in [
            format!("SELECT {}", vec!["1"; 1000].join(" + ")),
            format!("SELECT 1 WHERE x IN (SELECT {})", vec!["'a'"; 1000].join(" || ")),
            vec!["SELECT 1"; 1000].join(" UNION ALL "),
        ] {
            let error = make_shallow(&mut parse_unchecked(&sql)).unwrap_err();
            assert_eq!(error.sqlstate(), "54001");
        }
    }

    fn parse_unchecked(sql: &str) -> ast::Statement {
        let dialect = datafusion::sql::sqlparser::dialect::PostgreSqlDialect {};
        datafusion::sql::sqlparser::parser::Parser::parse_sql(&dialect, sql).unwrap().remove(0)
    }
}
