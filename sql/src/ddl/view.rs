//! CREATE VIEW, and which views read what.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use super::{Context, new_name, qualify};
use crate::catalog::view::{View, ViewOptions};
use crate::catalog::{Catalog, TableName};
use crate::dml::{Frames, view_of};
use crate::error::{Error, Result, SqlState};
use crate::query::Reader;
use crate::statement::{identifier, name_parts, parse_own};

pub(super) async fn create(context: &mut Context<'_>, create: &ast::CreateView) -> Result<()> {
    let refused = [
        (create.materialized, "CREATE MATERIALIZED VIEW"),
        (create.temporary, "CREATE TEMPORARY VIEW"),
        (create.or_alter, "CREATE OR ALTER VIEW"),
        (create.to.is_some(), "CREATE VIEW … TO"),
    ];
    if let Some((_, what)) = refused.iter().find(|(found, _)| *found) {
        return Err(Error::unsupported(what));
    }
    let name = new_name(context.catalog, "view", &create.name)?;
    let old = context.catalog.find_view(&name).cloned();
    match &old {
        Some(_) if create.if_not_exists => return Ok(()),
        Some(_) if create.or_replace => {}
        _ => context.catalog.check_free("view", &name)?,
    }
    refuse_repeated(&name, &create.query)?;
    let mut query = create.query.clone();
    qualify::query(context.catalog, &mut query);
    let (text, query) = (query.to_string(), ast::Statement::Query(query));
    if old.is_some() && reads(context.catalog, &query, &name)? {
        let message = format!("view {name} would read itself");
        return Err(Error::new(SqlState::InvalidTableDefinition, message));
    }
    let view = view_of(context.txn);
    // As it will be read.
    let home = context.catalog.at_home();
    let reader = Reader::new(context.base, context.engine, &home, view, Frames::new())?;
    let plan = reader.plan(query).await?;
    let given: Vec<String> = create.columns.iter().map(|column| identifier(&column.name)).collect();
    let found: Vec<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
    if given.len() > found.len() {
        let message = format!("view {name} has {} names for {} columns", given.len(), found.len());
        return Err(Error::new(SqlState::Syntax, message));
    }
    let columns: Vec<String> = given.iter().chain(&found[given.len()..]).cloned().collect();
    if let Some(twice) = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)) {
        return Err(repeated(&name, twice.1));
    }
    let options = ViewOptions { columns, comment: create.comment.clone() };
    if let Some(old) = &old
        && options.columns.get(..old.options.columns.len()) != Some(old.options.columns.as_slice())
    {
        let message = format!("view {name} would lose or rename columns");
        return Err(Error::new(SqlState::InvalidTableDefinition, message)
            .with_detail(format!("it has {}", old.options.columns.join(", ")))
            .with_hint("DROP VIEW first; OR REPLACE may only add columns at the end"));
    }
    let view = View { name, query: text, options };
    Arc::make_mut(context.catalog).put_view(context.txn, view)
}

/// Refuses two columns of one name, which the planner would tell apart by names of its own.
fn refuse_repeated(view: &TableName, query: &ast::Query) -> Result<()> {
    match repeated_column(query) {
        Some(twice) => Err(repeated(view, &twice)),
        None => Ok(()),
    }
}

/// The name that two columns of `query` have.
pub(super) fn repeated_column(query: &ast::Query) -> Option<String> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    let name = |item: &ast::SelectItem| match item {
        ast::SelectItem::ExprWithAlias { alias, .. } => Some(identifier(alias)),
        ast::SelectItem::UnnamedExpr(ast::Expr::Identifier(ident)) => Some(identifier(ident)),
        ast::SelectItem::UnnamedExpr(ast::Expr::CompoundIdentifier(path)) => path.last().map(identifier),
        _ => None,
    };
    let names: Vec<String> = select.projection.iter().filter_map(name).collect();
    names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, twice)| twice.clone())
}

fn repeated(view: &TableName, column: &str) -> Error {
    Error::new(SqlState::DuplicateColumn, format!("view {view} has two columns {column}"))
        .with_hint("give one of them another name with AS")
}

/// 42P01 for a view, 42809 for something else of that name.
pub(super) fn undefined(catalog: &Catalog, name: &TableName) -> Error {
    if catalog.find(name).is_some() {
        return Error::new(SqlState::WrongObjectType, format!("{name} is not a view but a table"));
    }
    let known: Vec<&str> = catalog.views().map(|view| view.name.table.as_str()).collect();
    let hint = crate::error::near::nearest(&name.table, known).map(|near| format!("did you mean {near}?"));
    Error::new(SqlState::UndefinedTable, format!("view {name} does not exist")).with_hint_opt(hint)
}

/// Views whose query names the table or view `name` itself.
pub(super) fn readers(catalog: &Catalog, name: &TableName) -> Result<BTreeSet<TableName>> {
    let mut readers = BTreeSet::new();
    for view in catalog.views() {
        if relations(&parse_own(&view.query)?)?.contains(name) {
            readers.insert(view.name.clone());
        }
    }
    Ok(readers)
}

/// Whether the query reads `name`, itself or through other views.
fn reads(catalog: &Catalog, query: &ast::Statement, name: &TableName) -> Result<bool> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<TableName> = relations(query)?.into_iter().collect();
    while let Some(next) = open.pop() {
        if next == *name {
            return Ok(true);
        }
        if seen.insert(next.clone())
            && let Some(view) = catalog.find_view(&next)
        {
            open.extend(relations(&parse_own(&view.query)?)?);
        }
    }
    Ok(false)
}

/// Names of the tables and views that a query may read. Common table expressions count as well if a table has their
/// name: a dependency too many, never one too few.
pub(crate) fn relations(query: &ast::Statement) -> Result<BTreeSet<TableName>> {
    let mut names = BTreeSet::new();
    let visited = ast::visit_relations(query, |name| {
        let resolved = name_parts(name).and_then(|parts| TableName::from_parts(&parts));
        match resolved {
            Ok(resolved) => {
                names.insert(resolved);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    });
    match visited {
        ControlFlow::Continue(()) => Ok(names),
        ControlFlow::Break(error) => Err(error),
    }
}
