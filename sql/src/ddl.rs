//! CREATE and DROP of tables and schemas: a checked change of the transaction's catalog.
//!
//! Nothing happens outside the transaction but that a new table's shape is told to the store, which is harmless if the
//! transaction never commits. The storage of a dropped table goes after the commit, see [`Effects`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast;
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::schema::{Column, ROW_ID_COLUMN, StorageKind};
use strata_oltp::txn::Transaction;
use strata_oltp::{ColumnId, Db, TableId, TableSchema};

use crate::catalog::{
    Catalog, DEFAULT_SCHEMA, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Storage, Table, TableName, check_name,
};
use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, name_parts};
use crate::types::{ColumnType, column_type, is_json_type, json_field};

/// What is left to do once the transaction has committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    /// Tables whose storage goes.
    pub dropped: Vec<TableId>,
}

/// Runs a DDL statement within `txn`; `catalog` becomes what the transaction sees from now on. Returns the tag.
///
/// # Errors
/// Names that exist or do not exist, and definitions that cannot be.
pub(crate) fn run(
    statement: &ast::Statement,
    db: &Db,
    txn: &mut Transaction,
    catalog: &mut Arc<Catalog>,
    effects: &mut Effects,
) -> Result<&'static str> {
    match statement {
        ast::Statement::CreateTable(create) => {
            create_table(create, db, txn, catalog)?;
            Ok("CREATE TABLE")
        }
        ast::Statement::CreateSchema { schema_name, if_not_exists, .. } => {
            create_schema(schema_name, *if_not_exists, txn, catalog)?;
            Ok("CREATE SCHEMA")
        }
        ast::Statement::Drop { object_type: ast::ObjectType::Table, if_exists, names, .. } => {
            for name in names {
                drop_table(name, *if_exists, txn, catalog, effects)?;
            }
            Ok("DROP TABLE")
        }
        ast::Statement::Drop { object_type: ast::ObjectType::Schema, if_exists, names, cascade, .. } => {
            for name in names {
                drop_schema(name, *if_exists, *cascade, txn, catalog, effects)?;
            }
            Ok("DROP SCHEMA")
        }
        ast::Statement::Drop { object_type, .. } => Err(Error::unsupported(format!("DROP {object_type}"))),
        other => Err(Error::unsupported(format!("{other}"))),
    }
}

fn refuse_system_schema(schema: &str) -> Result<()> {
    if schema == SYSTEM_SCHEMA || schema == INFORMATION_SCHEMA {
        return Err(Error::new(SqlState::InvalidName, format!("schema {schema} belongs to Strata"))
            .with_hint("use another schema"));
    }
    Ok(())
}

fn create_schema(
    name: &ast::SchemaName,
    if_not_exists: bool,
    txn: &mut Transaction,
    catalog: &mut Arc<Catalog>,
) -> Result<()> {
    let ast::SchemaName::Simple(name) = name else {
        return Err(Error::unsupported("CREATE SCHEMA … AUTHORIZATION"));
    };
    let name = schema_name(name)?;
    check_name("schema", &name)?;
    refuse_system_schema(&name)?;
    if catalog.tables_of(&name).is_some() {
        if if_not_exists {
            return Ok(());
        }
        return Err(Error::new(SqlState::DuplicateSchema, format!("schema {name} already exists")));
    }
    *catalog = Arc::new(catalog.with_schema(txn, &name)?);
    Ok(())
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

fn drop_schema(
    name: &ast::ObjectName,
    if_exists: bool,
    cascade: bool,
    txn: &mut Transaction,
    catalog: &mut Arc<Catalog>,
    effects: &mut Effects,
) -> Result<()> {
    let name = schema_name(name)?;
    refuse_system_schema(&name)?;
    if name == DEFAULT_SCHEMA {
        return Err(Error::new(SqlState::DependentObjects, format!("schema {DEFAULT_SCHEMA} cannot be dropped")));
    }
    let Some(tables) = catalog.tables_of(&name) else {
        return if if_exists { Ok(()) } else { Err(catalog.undefined_schema(&name)) };
    };
    let tables: Vec<String> = tables.map(|table| table.name.clone()).collect();
    if !tables.is_empty() && !cascade {
        return Err(Error::new(SqlState::DependentObjects, format!("schema {name} still has tables"))
            .with_detail(format!("they are {}", tables.join(", ")))
            .with_hint("drop them first, or use DROP SCHEMA … CASCADE"));
    }
    for table in tables {
        drop_named(&TableName { schema: name.clone(), table }, txn, catalog, effects)?;
    }
    *catalog = Arc::new(catalog.without_schema(txn, &name)?);
    Ok(())
}

fn drop_table(
    name: &ast::ObjectName,
    if_exists: bool,
    txn: &mut Transaction,
    catalog: &mut Arc<Catalog>,
    effects: &mut Effects,
) -> Result<()> {
    let name = TableName::from_parts(&name_parts(name)?)?;
    refuse_system_schema(&name.schema)?;
    match catalog.table(&name) {
        Err(_) if if_exists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => drop_named(&name, txn, catalog, effects),
    }
}

fn drop_named(
    name: &TableName,
    txn: &mut Transaction,
    catalog: &mut Arc<Catalog>,
    effects: &mut Effects,
) -> Result<()> {
    let id = catalog.table(name)?.id();
    *catalog = Arc::new(catalog.without_table(txn, name)?);
    effects.dropped.push(id);
    Ok(())
}

fn create_table(create: &ast::CreateTable, db: &Db, txn: &mut Transaction, catalog: &mut Arc<Catalog>) -> Result<()> {
    refuse_unsupported(create)?;
    let name = TableName::from_parts(&name_parts(&create.name)?)?;
    check_name("table", &name.table)?;
    refuse_system_schema(&name.schema)?;
    if catalog.tables_of(&name.schema).is_none() {
        return Err(catalog.undefined_schema(&name.schema));
    }
    if catalog.find(&name).is_some() {
        if create.if_not_exists {
            return Ok(());
        }
        return Err(Error::new(SqlState::DuplicateTable, format!("table {name} already exists"))
            .with_hint("drop it first, or use CREATE TABLE IF NOT EXISTS"));
    }
    let storage = storage(&create.table_options)?;
    let (shape, chars_max) = define(create, &name, catalog.next_table())?;
    let table = Table::new(name.schema, name.table, shape, storage, chars_max)?;
    db.register_table_with(Arc::clone(&table.shape), table.storage.kind, table.storage.compaction.clone());
    *catalog = Arc::new(catalog.with_table(txn, table)?);
    Ok(())
}

fn refuse_unsupported(create: &ast::CreateTable) -> Result<()> {
    let refused = [
        (create.or_replace, "CREATE OR REPLACE TABLE"),
        (create.temporary, "CREATE TEMPORARY TABLE"),
        (create.external, "CREATE EXTERNAL TABLE"),
        (create.query.is_some(), "CREATE TABLE … AS"),
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

/// `WITH (storage = 'row', compaction = 'tiered', size_ratio = 4, runs_per_level = 3, large_value_bytes = 8192)`.
fn storage(options: &ast::CreateTableOptions) -> Result<Storage> {
    let options = match options {
        ast::CreateTableOptions::None => return Ok(Storage::default()),
        ast::CreateTableOptions::With(options) => options,
        other => return Err(Error::unsupported(format!("table options of the form {other}"))),
    };
    let mut storage = Storage::default();
    for option in options {
        let ast::SqlOption::KeyValue { key, value } = option else {
            return Err(Error::unsupported(format!("table option {option}")));
        };
        let value = match value {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, _) => digits.clone(),
                other => other.clone().into_string().unwrap_or_default(),
            },
            ast::Expr::Identifier(ident) => identifier(ident),
            other => other.to_string(),
        };
        match (identifier(key).as_str(), value.to_lowercase().as_str()) {
            ("storage", "hybrid") => storage.kind = StorageKind::Hybrid,
            ("storage", "row") => storage.kind = StorageKind::Row,
            ("storage", _) => {
                let message = format!("storage '{value}' does not exist");
                return Err(Error::new(SqlState::InvalidParameter, message)
                    .with_hint("storage is 'hybrid' (rows turn into columns, the default) or 'row'"));
            }
            (other, value) => {
                if !storage.compaction.set(other, value)? {
                    let message = format!("table option {other} does not exist");
                    return Err(Error::new(SqlState::InvalidParameter, message).with_hint(
                        "the options are: storage, compaction, size_ratio, runs_per_level, large_value_bytes",
                    ));
                }
            }
        }
    }
    storage.compaction.check()?;
    if storage.kind == StorageKind::Hybrid && storage.compaction != CompactionOptions::default() {
        let message = "a hybrid table has no levels: its rows turn into columns";
        return Err(Error::new(SqlState::InvalidParameter, message).with_hint(
            "leave compaction, size_ratio, runs_per_level and large_value_bytes out, or add storage = 'row'",
        ));
    }
    Ok(storage)
}

/// The columns of a definition on their way to a schema.
#[derive(Default)]
struct Definition {
    columns: Vec<Column>,
    chars_max: BTreeMap<usize, u32>,
    primary_key: Option<Vec<usize>>,
}

fn define(create: &ast::CreateTable, name: &TableName, id: TableId) -> Result<(TableSchema, BTreeMap<usize, u32>)> {
    let mut definition = Definition::default();
    for column in &create.columns {
        definition.add_column(column)?;
    }
    for constraint in &create.constraints {
        definition.add_constraint(constraint, name)?;
    }
    let Definition { mut columns, chars_max, primary_key } = definition;
    if columns.is_empty() {
        return Err(Error::new(SqlState::InvalidTableDefinition, format!("table {name} has no columns")));
    }
    let primary_key = primary_key.unwrap_or_else(|| {
        let field = Field::new(ROW_ID_COLUMN, DataType::Int64, false);
        columns.push(Column { id: ColumnId(u32::try_from(columns.len()).unwrap_or(u32::MAX)), field });
        vec![columns.len() - 1]
    });
    for position in &primary_key {
        // The key is NOT NULL whether or not the definition says so.
        let field = columns[*position].field.clone().with_nullable(false);
        columns[*position].field = field;
    }
    Ok((TableSchema::new(id, 1, columns, primary_key)?, chars_max))
}

impl Definition {
    fn add_column(&mut self, column: &ast::ColumnDef) -> Result<()> {
        let name = identifier(&column.name);
        check_name("column", &name)?;
        if self.columns.iter().any(|known| *known.field.name() == name) {
            return Err(Error::new(SqlState::DuplicateColumn, format!("column {name} is declared twice")));
        }
        let ColumnType { data_type, chars_max } = column_type(&column.data_type)?;
        let position = self.columns.len();
        let (mut is_nullable, mut is_null_said) = (true, false);
        for option in &column.options {
            match &option.option {
                ast::ColumnOption::Null => is_null_said = true,
                ast::ColumnOption::NotNull => is_nullable = false,
                ast::ColumnOption::PrimaryKey(_) => {
                    is_nullable = false;
                    self.set_primary_key(vec![position])?;
                }
                ast::ColumnOption::Comment(_) => {}
                other => return Err(Error::unsupported(format!("column {name}: {other}"))),
            }
        }
        if is_null_said && !is_nullable {
            let message = format!("column {name} is declared both NULL and NOT NULL");
            return Err(Error::new(SqlState::InvalidTableDefinition, message));
        }
        if let Some(limit) = chars_max {
            self.chars_max.insert(position, limit);
        }
        let id = ColumnId(u32::try_from(position).unwrap_or(u32::MAX));
        let field = Field::new(name, data_type, is_nullable);
        let field = if is_json_type(&column.data_type) { json_field(field) } else { field };
        self.columns.push(Column { id, field });
        Ok(())
    }

    fn add_constraint(&mut self, constraint: &ast::TableConstraint, table: &TableName) -> Result<()> {
        let ast::TableConstraint::PrimaryKey(key) = constraint else {
            return Err(Error::unsupported(format!("constraint {constraint}"))
                .with_hint("PRIMARY KEY and NOT NULL are the constraints there are"));
        };
        let mut positions = Vec::new();
        for column in &key.columns {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                return Err(Error::new(SqlState::InvalidTableDefinition, format!("{column:?} is not a column name")));
            };
            let name = identifier(ident);
            let names = || self.columns.iter().map(|known| known.field.name().as_str());
            let position = names()
                .position(|known| known == name)
                .ok_or_else(|| Error::undefined_column(&name, &format!("table {table}"), names()))?;
            if positions.contains(&position) {
                let message = format!("column {name} appears twice in the primary key");
                return Err(Error::new(SqlState::DuplicateColumn, message));
            }
            positions.push(position);
        }
        self.set_primary_key(positions)
    }

    fn set_primary_key(&mut self, positions: Vec<usize>) -> Result<()> {
        if self.primary_key.replace(positions).is_some() {
            return Err(Error::new(SqlState::InvalidTableDefinition, "a table has only one primary key")
                .with_hint("name all of its columns in one PRIMARY KEY (…)"));
        }
        Ok(())
    }
}
