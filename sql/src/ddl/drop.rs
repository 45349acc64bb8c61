//! DROP of everything: what depends on a thing goes with it or forbids it.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use super::{Context, Done, index, refuse_system_schema, schema, sequence, view as views};
use crate::catalog::{Catalog, Table, TableName};
use crate::error::{Error, Result, SqlState};
use crate::statement::name_parts;

pub(super) fn run(
    context: &mut Context<'_>,
    kind: ast::ObjectType,
    if_exists: bool,
    names: &[ast::ObjectName],
    cascade: bool,
) -> Result<Done> {
    if kind == ast::ObjectType::Schema {
        names.iter().try_for_each(|name| schema::drop(context, name, if_exists, cascade))?;
        return Ok(Done::tag("DROP SCHEMA"));
    }
    for name in names {
        let name = context.catalog.locate(&name_parts(name)?)?;
        refuse_system_schema(&name.schema)?;
        match kind {
            ast::ObjectType::Table => match context.catalog.table(&name) {
                Err(error) if if_exists && error.state() != SqlState::WrongObjectType => {}
                Err(error) => return Err(error),
                Ok(_) => table(context, &name, cascade)?,
            },
            ast::ObjectType::View => match context.catalog.find_view(&name) {
                None if if_exists => {}
                None => return Err(views::undefined(context.catalog, &name)),
                Some(_) => view(context, &name, cascade)?,
            },
            ast::ObjectType::Sequence => sequence::drop(context, &name, if_exists)?,
            ast::ObjectType::Index => index::drop(context, &name, if_exists)?,
            other => return Err(Error::unsupported(format!("DROP {other}"))),
        }
    }
    Ok(Done::tag(match kind {
        ast::ObjectType::View => "DROP VIEW",
        ast::ObjectType::Sequence => "DROP SEQUENCE",
        ast::ObjectType::Index => "DROP INDEX",
        _ => "DROP TABLE",
    }))
}

/// Drops a table; with `cascade` also the views that read it and the foreign keys that refer to it.
pub(super) fn table(context: &mut Context<'_>, name: &TableName, cascade: bool) -> Result<()> {
    let table = Arc::clone(context.catalog.table(name)?);
    let readers = views::readers(context.catalog, name)?;
    let referring: Vec<Arc<Table>> = context
        .catalog
        .referring_to(table.id())
        .map(|(child, _)| Arc::clone(child))
        .filter(|child| child.id() != table.id())
        .collect();
    if !(cascade || readers.is_empty() && referring.is_empty()) {
        let views = readers.iter().map(|view| format!("view {view}"));
        let keys = referring.iter().map(|child| format!("a foreign key of table {}", child.qualified_name()));
        return Err(depended_on("table", name, &views.chain(keys).collect::<Vec<_>>()));
    }
    for reader in readers {
        if context.catalog.find_view(&reader).is_some() {
            view(context, &reader, true)?;
        }
    }
    for child in referring {
        let mut rules = child.rules.clone();
        rules.foreign_keys.retain(|key| key.parent != table.id().0);
        let child = child.with_rules(rules)?;
        Arc::make_mut(context.catalog).put_table(context.txn, child)?;
    }
    Arc::make_mut(context.catalog).remove_table(context.txn, name)?;
    context.effects.dropped.extend(table.storages());
    sequence::drop_owned(context, table.id(), None)
}

/// Drops a view; with `cascade` also those that read it.
pub(super) fn view(context: &mut Context<'_>, name: &TableName, cascade: bool) -> Result<()> {
    let readers = views::readers(context.catalog, name)?;
    if !cascade && !readers.is_empty() {
        let readers: Vec<String> = readers.iter().map(|view| format!("view {view}")).collect();
        return Err(depended_on("view", name, &readers));
    }
    Arc::make_mut(context.catalog).remove_view(context.txn, name)?;
    for reader in readers {
        if context.catalog.find_view(&reader).is_some() {
            view(context, &reader, true)?;
        }
    }
    Ok(())
}

fn depended_on(kind: &str, name: &TableName, by: &[String]) -> Error {
    Error::new(SqlState::DependentObjects, format!("{kind} {name} is needed by other objects"))
        .with_detail(format!("they are {}", by.join(", ")))
        .with_hint(format!("drop them first, or use DROP {} … CASCADE", kind.to_uppercase()))
}

/// Forgets an index of `table`.
pub(super) fn forget_index(context: &mut Context<'_>, table: &Table, id: u32) -> Result<()> {
    let mut rules = table.rules.clone();
    rules.indexes.retain(|index| index.id != id);
    let table = table.with_rules(rules)?;
    Catalog::put_table(Arc::make_mut(context.catalog), context.txn, table)?;
    context.effects.dropped.push(TableId(id));
    Ok(())
}
