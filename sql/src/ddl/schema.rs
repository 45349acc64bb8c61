//! CREATE and DROP SCHEMA.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use super::{Context, drop, refuse_system_schema};
use crate::catalog::{DEFAULT_SCHEMA, TableName, check_name};
use crate::error::{Error, Result, SqlState};
use crate::statement::name_parts;

pub(super) fn create(context: &mut Context<'_>, name: &ast::SchemaName, if_not_exists: bool) -> Result<()> {
    let ast::SchemaName::Simple(name) = name else {
        return Err(Error::unsupported("CREATE SCHEMA … AUTHORIZATION"));
    };
    let name = schema_name(name)?;
    check_name("schema", &name)?;
    refuse_system_schema(&name)?;
    if context.catalog.tables_of(&name).is_some() {
        if if_not_exists {
            return Ok(());
        }
        return Err(Error::new(SqlState::DuplicateSchema, format!("schema {name} already exists")));
    }
    Arc::make_mut(context.catalog).add_schema(context.txn, &name)
}

/// `schema` or `strata.schema`.
fn schema_name(name: &ast::ObjectName) -> Result<String> {
    let mut parts = name_parts(name)?;
    // A schema's name has one part less than a table's; a table name gives the same checks.
    parts.push(String::new());
    if parts.len() == 1 || parts.len() > 3 {
        return Err(Error::new(SqlState::Syntax, format!("{name} is not a schema name")));
    }
    Ok(TableName::from_parts(&parts)?.schema)
}

pub(super) fn drop(context: &mut Context<'_>, name: &ast::ObjectName, if_exists: bool, cascade: bool) -> Result<()> {
    let name = schema_name(name)?;
    refuse_system_schema(&name)?;
    if name == DEFAULT_SCHEMA {
        return Err(Error::new(SqlState::DependentObjects, format!("schema {DEFAULT_SCHEMA} cannot be dropped")));
    }
    let Some(tables) = context.catalog.tables_of(&name) else {
        return if if_exists { Ok(()) } else { Err(context.catalog.undefined_schema(&name)) };
    };
    let tables: Vec<TableName> = tables.map(|table| table.qualified_name()).collect();
    let contents = context.catalog.contents_of(&name);
    if !contents.is_empty() && !cascade {
        return Err(Error::new(SqlState::DependentObjects, format!("schema {name} still has tables"))
            .with_detail(format!("in it are {}", contents.join(", ")))
            .with_hint("drop them first, or use DROP SCHEMA … CASCADE"));
    }
    for view in context.catalog.views().filter(|view| view.name.schema == name).cloned().collect::<Vec<_>>() {
        if context.catalog.find_view(&view.name).is_some() {
            drop::view(context, &view.name, true)?;
        }
    }
    for table in tables {
        drop::table(context, &table, true)?;
    }
    let sequences: Vec<TableName> = context
        .catalog
        .sequences()
        .map(|sequence| sequence.name.clone())
        .filter(|known| known.schema == name)
        .collect();
    for sequence in sequences {
        super::sequence::drop(context, &sequence, true)?;
    }
    Arc::make_mut(context.catalog).remove_schema(context.txn, &name)
}
