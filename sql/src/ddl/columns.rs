//! Which expressions and views use a column. Both are kept as text, so this is about names: a dependency too many may be
//! found, never one too few.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;

use super::view as views;
use crate::catalog::{Catalog, Table, TableName};
use crate::error::Result;
use crate::statement::{identifier, parse_own};

/// Whether `expr` names the column `name`, bare or behind a table.
pub(super) fn uses_column(expr: &ast::Expr, name: &str) -> bool {
    let visited = ast::visit_expressions(expr, |part| match names(part, name) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    visited.is_break()
}

fn names(expr: &ast::Expr, name: &str) -> bool {
    match expr {
        ast::Expr::Identifier(ident) => identifier(ident) == name,
        ast::Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|ident| identifier(ident) == name),
        _ => false,
    }
}

/// `expr` with the column `from` called `to`.
pub(super) fn rename_in(mut expr: ast::Expr, from: &str, to: &str) -> ast::Expr {
    let _ = ast::visit_expressions_mut(&mut expr, |part| {
        if names(part, from) {
            let renamed = ast::Ident::with_quote('"', to);
            match part {
                ast::Expr::CompoundIdentifier(parts) => parts.pop().map(|_| parts.push(renamed)).unwrap_or_default(),
                other => *other = ast::Expr::Identifier(renamed),
            }
        }
        ControlFlow::<()>::Continue(())
    });
    expr
}

/// Views that read `table` and use its column `name`, or all of its columns.
pub(super) fn depending_views(catalog: &Catalog, table: &Table, name: &str) -> Result<Vec<TableName>> {
    let mut depending = Vec::new();
    for reader in views::readers(catalog, &table.qualified_name())? {
        let Some(view) = catalog.find_view(&reader) else { continue };
        let query = parse_own(&view.query)?;
        let by_name = ast::visit_expressions(&query, |part| match names(part, name) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        if by_name.is_break() || view.query.contains('*') {
            depending.push(reader);
        }
    }
    Ok(depending)
}
