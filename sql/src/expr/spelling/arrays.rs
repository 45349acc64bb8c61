//! Spellings of arrays that the planner does not read, or reads otherwise than PostgreSQL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;

use super::{function, number, set_returning};
use crate::error::{Error, Result, SqlState};
use crate::expr::arrays;
use crate::statement::parse_own;

/// `left op ANY (array)` and ALL as calls. With a list of constants they are IN, which keys and indexes are looked up by.
///
/// # Errors
/// 0A000 for operators that are no comparisons.
pub(super) fn quantified(
    left: &ast::Expr,
    op: &ast::BinaryOperator,
    right: &ast::Expr,
    is_all: bool,
) -> Result<Option<ast::Expr>> {
    let mut right = right;
    while let ast::Expr::Nested(inner) = right {
        right = inner;
    }
    if matches!(right, ast::Expr::Subquery(_)) {
        return Ok(None);
    }
    if let ast::Expr::Array(array) = right
        && !array.elem.is_empty()
        && array.elem.iter().all(|element| matches!(element, ast::Expr::Value(_)))
    {
        let in_list = |negated| ast::Expr::InList { expr: Box::new(left.clone()), list: array.elem.clone(), negated };
        match (op, is_all) {
            (ast::BinaryOperator::Eq, false) => return Ok(Some(in_list(false))),
            (ast::BinaryOperator::NotEq, true) => return Ok(Some(in_list(true))),
            _ => {}
        }
    }
    let word = if is_all { "ALL" } else { "ANY" };
    let name = arrays::quantified_name(&op.to_string(), is_all);
    let name = name.ok_or_else(|| Error::unsupported(format!("{op} {word} (array)")))?;
    Ok(Some(function(name, vec![left.clone(), right.clone()])))
}

/// `a[:n]` and `a[n:]` with both bounds, which the planner wants; `None` if they are there.
pub(super) fn whole_slices(root: &ast::Expr, chain: &[ast::AccessExpr]) -> Option<ast::Expr> {
    let mut chain = chain.to_vec();
    let mut found = false;
    for access in &mut chain {
        if let ast::AccessExpr::Subscript(ast::Subscript::Slice { lower_bound, upper_bound, .. }) = access {
            found |= lower_bound.is_none() || upper_bound.is_none();
            lower_bound.get_or_insert_with(|| number("1"));
            upper_bound.get_or_insert_with(|| number("2147483647"));
        }
    }
    found.then(|| ast::Expr::CompoundFieldAccess { root: Box::new(root.clone()), access_chain: chain })
}

/// `ARRAY(SELECT …)`: the rows of one column, in their order, as an array.
///
/// # Errors
/// 42601 for more columns than one, 0A000 where the order would be lost.
pub(super) fn of_rows(call: &ast::Function) -> Result<Option<ast::Expr>> {
    let (ast::FunctionArguments::Subquery(query), true) =
        (&call.args, call.name.to_string().eq_ignore_ascii_case("array"))
    else {
        return Ok(None);
    };
    let mut query = query.as_ref().clone();
    let refused = || Error::unsupported("ARRAY (a query of this form)").with_hint("use array_agg(… ORDER BY …)");
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Err(refused()) };
    let expr = match select.projection.as_slice() {
        [ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. }] => expr.clone(),
        _ => return Err(Error::new(SqlState::Syntax, "ARRAY (query) takes a query of one column")),
    };
    let is_grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty());
    let is_plain = select.distinct.is_none() && select.having.is_none() && !is_grouped;
    if !is_plain || query.limit_clause.is_some() || query.fetch.is_some() || has_aggregate(&expr) {
        return Err(refused());
    }
    if set_returning::is_in(&expr) {
        return of_sets(query);
    }
    let ast::Expr::Function(mut aggregate) = function("array_agg", vec![expr]) else { return Err(refused()) };
    if let (Some(order), ast::FunctionArguments::List(list)) = (query.order_by.take(), &mut aggregate.args) {
        let ast::OrderByKind::Expressions(keys) = order.kind else { return Err(refused()) };
        if keys.iter().any(|key| matches!(key.expr, ast::Expr::Value(_))) {
            return Err(refused());
        }
        list.clauses.push(ast::FunctionArgumentClause::OrderBy(keys));
    }
    select.projection = vec![ast::SelectItem::UnnamedExpr(ast::Expr::Function(aggregate))];
    Ok(Some(function(arrays::OR_EMPTY, vec![ast::Expr::Subquery(Box::new(query))])))
}

/// The same where the column is a set for each row: aggregated one level above, which is where these have become rows.
fn of_sets(mut query: ast::Query) -> Result<Option<ast::Expr>> {
    let refused = Error::unsupported("ARRAY (a query of sets with ORDER BY)").with_hint("use array_agg(… ORDER BY …)");
    let (ast::SetExpr::Select(select), None) = (query.body.as_mut(), &query.order_by) else { return Err(refused) };
    if let Some(ast::SelectItem::UnnamedExpr(expr)) = select.projection.first() {
        let alias = ast::Ident::with_quote('"', "element");
        select.projection = vec![ast::SelectItem::ExprWithAlias { expr: expr.clone(), alias }];
    }
    let ast::Statement::Query(mut outer) =
        parse_own("SELECT array_agg(element) FROM (SELECT NULL AS element) AS sets")?
    else {
        return Err(refused);
    };
    if let ast::SetExpr::Select(outer) = outer.body.as_mut()
        && let Some(ast::SelectItem::UnnamedExpr(aggregated)) = outer.projection.first_mut()
        && let ast::TableFactor::Derived { subquery, .. } = &mut outer.from[0].relation
    {
        if let Some(ast::SelectItem::ExprWithAlias { alias, .. }) = select.projection.first() {
            *aggregated = function("array_agg", vec![ast::Expr::Identifier(alias.clone())]);
        }
        **subquery = query;
    }
    Ok(Some(function(arrays::OR_EMPTY, vec![ast::Expr::Subquery(outer)])))
}

/// Whether a call in `expr` may be one of an aggregate.
fn has_aggregate(expr: &ast::Expr) -> bool {
    const KNOWN: [&str; 8] = ["count", "sum", "avg", "min", "max", "array_agg", "string_agg", "bool_and"];
    let visited = ast::visit_expressions(expr, |part| match part {
        ast::Expr::Function(call) if KNOWN.contains(&call.name.to_string().to_lowercase().as_str()) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    visited.is_break()
}
