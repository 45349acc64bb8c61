//! A SELECT from a table that is empty in every database: no rows, its expressions forgotten, because the planner cannot run
//! all that clients write there.

use datafusion::sql::sqlparser::ast::{self, Expr, Function, SelectItem, SetExpr, TableFactor};

use super::super::{PG_SCHEMA, empty, functions};
use super::name_of;
use crate::statement::{identifier, name_parts};

/// Whether the SELECT has no rows because a table of its FROM never has any.
pub(super) fn is_from_nothing(select: &ast::Select) -> bool {
    let is_empty = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: None, .. } => match name_parts(name).as_deref() {
            Ok([table]) => empty::is_empty(table),
            Ok([schema, table]) => schema == PG_SCHEMA && empty::is_empty(table),
            _ => false,
        },
        _ => false,
    };
    // Without rows an aggregate still gives one.
    let may_aggregate = select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            matches!(expr, Expr::Function(function) if !is_of_catalog(function))
        }
        _ => true,
    });
    let keeps_left = |join: &ast::Join| {
        use ast::JoinOperator as Op;
        matches!(join.join_operator, Op::Join(_) | Op::Inner(_) | Op::Left(_) | Op::LeftOuter(_))
    };
    !may_aggregate
        && select.having.is_none()
        && select.from.iter().any(|from| is_empty(&from.relation) && from.joins.iter().all(keeps_left))
}

fn is_of_catalog(function: &Function) -> bool {
    name_parts(&function.name).is_ok_and(|parts| parts.last().is_some_and(|name| functions::is_known(name)))
}

/// Branches of a set operation that have no rows.
pub(super) fn empty_branches(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            empty_branches(left);
            empty_branches(right);
        }
        SetExpr::Select(select) if is_from_nothing(select) => {
            select.from.clear();
            select.projection = nothings(&select.projection);
            select.selection = Some(Expr::Value(ast::Value::Boolean(false).into()));
        }
        _ => {}
    }
}

/// NULLs in place of expressions, under the names that PostgreSQL gives them; one name is given once only.
pub(super) fn nothings(projection: &[SelectItem]) -> Vec<SelectItem> {
    let mut names: Vec<String> = Vec::new();
    for (at, item) in projection.iter().enumerate() {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(identifier(alias)),
            SelectItem::UnnamedExpr(expr) => name_of(expr),
            _ => None,
        };
        names.push(name.filter(|name| !names.contains(name)).unwrap_or_else(|| format!("column{}", at + 1)));
    }
    let item = |name: String| {
        let null = Box::new(Expr::Value(ast::Value::Null.into()));
        let data_type = ast::DataType::Text;
        let expr = Expr::Cast { kind: ast::CastKind::Cast, expr: null, data_type, array: false, format: None };
        SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', name) }
    };
    names.into_iter().map(item).collect()
}
