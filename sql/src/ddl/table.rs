//! CREATE TABLE, with a definition or AS a query.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;

use super::definition::{Defined, Definition};
use super::storage::storage;
use super::view::repeated_column;
use super::{Context, Done, new_name, register};
use crate::catalog::{Table, TableName};
use crate::dml::{computed, insert};
use crate::error::{Error, Result};
use crate::statement::identifier;
use crate::types::{Origin, assign, stored_type};

pub(super) async fn create(context: &mut Context<'_>, create: &ast::CreateTable) -> Result<Done> {
    refuse_unsupported(create)?;
    let name = new_name(context.catalog, "table", &create.name)?;
    if create.if_not_exists && context.catalog.find(&name).is_some() {
        return Ok(Done::tag("CREATE TABLE"));
    }
    context.catalog.check_free("table", &name)?;
    match &create.query {
        Some(query) => create_as(context, create, &name, query).await,
        None => {
            let catalog = Arc::make_mut(context.catalog);
            let id = catalog.new_storage();
            let mut definition = Definition::new(catalog, &name, id);
            for column in &create.columns {
                definition.add_column(column)?;
            }
            for constraint in &create.constraints {
                definition.add_constraint(constraint)?;
            }
            let defined = definition.finish()?;
            add(context, create, &name, defined)?;
            Ok(Done::tag("CREATE TABLE"))
        }
    }
}

fn add(context: &mut Context<'_>, create: &ast::CreateTable, name: &TableName, defined: Defined) -> Result<Arc<Table>> {
    let Defined { shape, chars_max, mut rules } = defined;
    if let Some(comment) = &create.comment {
        rules.comment = Some(comment.to_string());
    }
    let parents: Vec<u32> = rules.foreign_keys.iter().map(|key| key.parent).filter(|id| *id != shape.table.0).collect();
    let table = Table::new(name.clone(), shape, storage(&create.table_options)?, chars_max, rules)?;
    // A default or condition that makes no sense is the definition's mistake, not the first row's.
    computed::of(&table, context)?;
    register(context.engine, &table);
    let catalog = Arc::make_mut(context.catalog);
    catalog.put_table(context.txn, table)?;
    for parent in parents {
        // Whoever writes the parent from an older snapshot does not know that rows may refer to it: they conflict.
        if let Some(parent) = catalog.find_id(strata_oltp::TableId(parent)).cloned() {
            catalog.put_table(context.txn, parent.with_rules(parent.rules.clone())?)?;
        }
    }
    context.catalog.table(name).map(Arc::clone)
}

/// CREATE TABLE … AS: columns are those of the query, the rows are inserted in the same transaction.
async fn create_as(
    context: &mut Context<'_>,
    create: &ast::CreateTable,
    name: &TableName,
    query: &ast::Query,
) -> Result<Done> {
    if let (true, Some(twice)) = (create.columns.is_empty(), repeated_column(query)) {
        return Err(Error::new(
            crate::SqlState::DuplicateColumn,
            format!("column {twice} of table {name} comes twice"),
        )
        .with_hint("give one of them another name with AS"));
    }
    let drained = context.drain(ast::Statement::Query(Box::new(query.clone()))).await?;
    let fields = drained.schema.fields();
    if !create.columns.is_empty() && create.columns.len() != fields.len() {
        let message = format!("{} column names for a query of {} columns", create.columns.len(), fields.len());
        return Err(Error::new(crate::SqlState::Syntax, message));
    }
    let catalog = Arc::make_mut(context.catalog);
    let id = catalog.new_storage();
    let mut definition = Definition::new(catalog, name, id);
    for (at, field) in fields.iter().enumerate() {
        let column = create.columns.get(at).map_or_else(|| field.name().clone(), |column| identifier(&column.name));
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8View,
            other => stored_type(other).ok_or_else(|| {
                Error::unsupported(format!("column {column} of type {other}")).with_hint("CAST it in the query")
            })?,
        };
        definition.add_plain_column(column, data_type, true)?;
    }
    let defined = definition.finish()?;
    let table = add(context, create, name, defined)?;
    let mut count = 0;
    for batch in drained.batches {
        let stored = batch.columns().iter().zip(table.columns()).map(|(array, column)| {
            assign(array, column.field.data_type(), Origin::Expression, column.field.name()).map(Some)
        });
        count += insert::write_columns(context, &table, stored.collect::<Result<_>>()?, batch.num_rows()).await?;
    }
    Ok(Done { tag: "SELECT", count: Some(count) })
}

fn refuse_unsupported(create: &ast::CreateTable) -> Result<()> {
    let refused = [
        (create.or_replace, "CREATE OR REPLACE TABLE"),
        (create.temporary, "CREATE TEMPORARY TABLE"),
        (create.external, "CREATE EXTERNAL TABLE"),
        (create.like.is_some(), "CREATE TABLE … LIKE"),
        (create.inherits.is_some(), "INHERITS"),
        (create.partition_by.is_some() || create.partition_of.is_some(), "PARTITION"),
        (create.on_commit.is_some(), "ON COMMIT"),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => Ok(()),
    }
}
