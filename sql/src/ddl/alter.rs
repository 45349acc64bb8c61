//! ALTER TABLE: columns, types, names and defaults of a table that keeps its rows.
//!
//! Each action is a change of the transaction's catalog, so that the next one, and queries of the transaction, see the
//! table as it is by then. No row is written: rows and segments are read in the newest shape (see `TableSchema`). Background
//! work takes the shape up with the commit, see [`super::Effects`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast;
use strata_olap::convert::batch::BatchEncoder;
use strata_oltp::row::{OwnedValue, RowCodec, RowRef, Value};
use strata_oltp::schema::{Column, Widening};
use strata_oltp::{ColumnId, TableId, TableSchema};

use super::columns::{depending_views, rename_in, uses_column};
use super::{Context, constraint as constraints, drop, qualify, refuse_system_schema, sequence, view as views};
use crate::catalog::{Rules, Table, TableName, check_name};
use crate::dml::computed;
use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, name_parts, parse_expression, parse_own};
use crate::types::{ColumnType, check_length, column_type, is_json_type, json_field, sql_name};

/// Runs the actions of one statement, in order.
///
/// # Errors
/// Names that are not right, changes that would touch rows or break what depends on a column, rows that a new rule does
/// not allow.
pub(super) async fn run(context: &mut Context<'_>, alter: &ast::AlterTable) -> Result<()> {
    let mut name = context.catalog.locate(&name_parts(&alter.name)?)?;
    refuse_system_schema(&name.schema)?;
    match context.catalog.table(&name) {
        Err(error) if alter.if_exists && error.state() != SqlState::WrongObjectType => return Ok(()),
        other => _ = other?,
    }
    for operation in &alter.operations {
        let table = Arc::clone(context.catalog.table(&name)?);
        apply(context, &table, operation, &mut name).await?;
        context.effects.reshaped.insert(table.id());
    }
    Ok(())
}

async fn apply(
    context: &mut Context<'_>,
    table: &Table,
    operation: &ast::AlterTableOperation,
    name: &mut TableName,
) -> Result<()> {
    use ast::AlterTableOperation as Operation;
    match operation {
        Operation::AddColumn { if_not_exists, column_def, column_position, .. } => {
            if column_position.is_some() {
                return Err(Error::unsupported("ADD COLUMN … FIRST or AFTER")
                    .with_hint("new columns stand last; name columns in queries in the order you want"));
            }
            add_column(context, table, column_def, *if_not_exists).await
        }
        Operation::DropColumn { column_names, if_exists, drop_behavior, .. } => {
            let cascade = *drop_behavior == Some(ast::DropBehavior::Cascade);
            for column in column_names {
                let table = Arc::clone(context.catalog.table(name)?);
                drop_column(context, &table, &identifier(column), *if_exists, cascade)?;
            }
            Ok(())
        }
        Operation::RenameColumn { old_column_name, new_column_name } => {
            rename_column(context, table, &identifier(old_column_name), &identifier(new_column_name))
        }
        Operation::RenameTable { table_name: ast::RenameTableNameKind::To(to) | ast::RenameTableNameKind::As(to) } => {
            rename_table(context, table, to, name)
        }
        Operation::AlterColumn { column_name, op } => {
            let position = table.column_position(&identifier(column_name))?;
            alter_column(context, table, position, op).await
        }
        Operation::AddConstraint { constraint, not_valid } => {
            constraints::add(context, table, constraint, *not_valid).await
        }
        Operation::DropConstraint { if_exists, name: constraint, drop_behavior } => {
            let cascade = *drop_behavior == Some(ast::DropBehavior::Cascade);
            constraints::drop(context, table, &identifier(constraint), *if_exists, cascade)
        }
        Operation::RenameConstraint { old_name, new_name } => {
            constraints::rename(context, table, &identifier(old_name), &identifier(new_name))
        }
        Operation::ValidateConstraint { name: constraint } => {
            constraints::validate(context, table.id(), &identifier(constraint)).await
        }
        other => Err(Error::unsupported(format!("ALTER TABLE … {other}")).with_hint(
            "ADD, DROP, RENAME and ALTER of columns and constraints, and RENAME TO, are what a table can be altered by",
        )),
    }
}

/// Puts `table` in place of what the transaction has under its name.
fn put(context: &mut Context<'_>, table: Table) -> Result<()> {
    Arc::make_mut(context.catalog).put_table(context.txn, table)
}

/// `table` with another shape and other rules; limits of text follow their columns.
fn reshaped(table: &Table, shape: TableSchema, rules: Rules) -> Result<Table> {
    let id = |position: &usize| table.shape.columns[*position].id;
    let place = |id: ColumnId| shape.columns.iter().position(|column| column.id == id);
    let limits = table.chars_max.iter().filter_map(|(position, limit)| Some((place(id(position))?, *limit)));
    let limits: BTreeMap<usize, u32> = limits.collect();
    Table::new(table.qualified_name(), shape, table.storage.clone(), limits, rules)
}

async fn add_column(
    context: &mut Context<'_>,
    table: &Table,
    definition: &ast::ColumnDef,
    if_not_exists: bool,
) -> Result<()> {
    let name = identifier(&definition.name);
    if table.columns().iter().any(|column| *column.field.name() == name) {
        return if if_not_exists { Ok(()) } else { Err(duplicate_column(table, &name)) };
    }
    check_name("column", &name)?;
    let ColumnType { data_type, chars_max } = column_type(&definition.data_type)?;
    let mut options = Options::of(&name, &definition.options)?;
    options.default = options.default.map(|default| qualify::expression(context.catalog, default));
    // First with NULL in every row, so that the default can be computed as that of a column of the table.
    let field = Field::new(&name, data_type, true);
    let field = if is_json_type(&definition.data_type) { json_field(field) } else { field };
    let nulls = table.shape.with_column(field.clone(), Value::Null)?;
    let position = nulls.visible_column_count() - 1;
    let id = nulls.columns[position].id.0;
    let mut rules = table.rules.clone();
    rules.defaults.extend(options.default.iter().map(|default| (id, default.to_string())));
    rules.column_comments.extend(options.comment.map(|comment| (id, comment)));
    let draft = reshaped(table, nulls, rules.clone())?;
    let missing = match &options.default {
        None => OwnedValue::Null,
        Some(default) => {
            if computed::is_volatile(&default.to_string(), context)? {
                return Err(Error::unsupported(format!(
                    "ADD COLUMN {name} with a default that differs from row to row"
                ))
                .with_hint("add the column without it, then ALTER COLUMN … SET DEFAULT, then UPDATE the rows"));
            }
            let values = computed::of(&draft, context)?.missing(&draft, position, 1, context)?;
            if let Some(limit) = chars_max {
                check_length(&values, limit, &name)?;
            }
            value_of(&values)?
        }
    };
    if options.is_not_null && missing == OwnedValue::Null {
        refuse_rows(context, table, None, &name).await?;
    }
    let shape = table.shape.with_column(field.with_nullable(!options.is_not_null), missing.as_value())?;
    let mut added = reshaped(table, shape, rules)?;
    added.chars_max.extend(chars_max.map(|limit| (position, limit)));
    put(context, added)?;
    for constraint in constraints::of_column(definition) {
        let table = Arc::clone(context.catalog.table(&table.qualified_name())?);
        constraints::add(context, &table, &constraint, false).await?;
    }
    Ok(())
}

/// What a column definition says besides name and type.
struct Options {
    is_not_null: bool,
    default: Option<ast::Expr>,
    comment: Option<String>,
}

impl Options {
    fn of(name: &str, options: &[ast::ColumnOptionDef]) -> Result<Options> {
        let (mut is_null_said, mut found) = (false, Options { is_not_null: false, default: None, comment: None });
        for option in options {
            match &option.option {
                ast::ColumnOption::Null => is_null_said = true,
                ast::ColumnOption::NotNull => found.is_not_null = true,
                ast::ColumnOption::Default(expr) if found.default.replace(expr.clone()).is_none() => {}
                ast::ColumnOption::Default(_) => {
                    return Err(Error::new(SqlState::Syntax, format!("column {name} is given two defaults")));
                }
                ast::ColumnOption::Comment(text) => found.comment = Some(text.clone()),
                // Added once the column is there.
                ast::ColumnOption::Unique(_) | ast::ColumnOption::Check(_) | ast::ColumnOption::ForeignKey(_) => {}
                other => {
                    return Err(Error::unsupported(format!("ADD COLUMN {name} … {other}"))
                        .with_hint("add the column by itself, or copy the rows into a new table that has it"));
                }
            }
        }
        if is_null_said && found.is_not_null {
            let message = format!("column {name} is declared both NULL and NOT NULL");
            return Err(Error::new(SqlState::InvalidTableDefinition, message));
        }
        Ok(found)
    }
}

fn duplicate_column(table: &Table, name: &str) -> Error {
    Error::new(SqlState::DuplicateColumn, format!("column {name} of table {} already exists", table.name))
}

/// The only value of an array, as rows hold it.
fn value_of(values: &ArrayRef) -> Result<OwnedValue> {
    // A row encoder wants a key beside the value, which may be of a type that is none.
    if values.is_null(0) {
        return Ok(OwnedValue::Null);
    }
    let fields = [Field::new("value", values.data_type().clone(), false), Field::new("key", DataType::Boolean, false)];
    let columns = fields.into_iter().zip(0..).map(|(field, id)| Column { id: ColumnId(id), field }).collect();
    let shape = TableSchema::new(TableId(0), 0, columns, vec![1])?;
    let codec = RowCodec::new(&shape);
    let key: ArrayRef = Arc::new(BooleanArray::from(vec![false]));
    let row = BatchEncoder::encode_row(&shape, &codec, &[Some(Arc::clone(values)), Some(key)], 0)?;
    Ok(RowRef::new(&codec, &row)?.get(0)?.to_owned_value())
}

/// Refuses NOT NULL if a row has NULL in the column, or if there is any row and the column is still to come. Rows that others
/// write until the commit make it fail, because nobody looked at them.
async fn refuse_rows(context: &mut Context<'_>, table: &Table, column: Option<usize>, name: &str) -> Result<()> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let condition = column.map(|at| format!(" WHERE {} IS NULL", quoted(table.shape.columns[at].field.name())));
    let (schema, known_as) = (quoted(&table.schema_name), quoted(&table.name));
    let query = format!("SELECT 1 FROM {schema}.{known_as}{} LIMIT 1", condition.unwrap_or_default());
    context.txn.require_untouched(table.id());
    let found = context.drain(parse_own(&query)?).await?;
    if found.batches.iter().any(|batch| batch.num_rows() > 0) {
        let message = format!("column {name} of table {} contains NULL", table.name);
        return Err(Error::new(SqlState::NotNullViolation, message)
            .with_hint("give every row a value first; for a new column, with DEFAULT"));
    }
    Ok(())
}

fn drop_column(context: &mut Context<'_>, table: &Table, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
    let position = match table.column_position(name) {
        Err(_) if if_exists => return Ok(()),
        other => other?,
    };
    if table.shape.primary_key.contains(&position) {
        return Err(Error::unsupported(format!("dropping column {name}, which is part of the primary key"))
            .with_hint("copy the table into a new one with CREATE TABLE … AS"));
    }
    if table.columns().len() == 1 {
        let message = format!("column {name} is the only one of table {}", table.name);
        return Err(Error::new(SqlState::InvalidTableDefinition, message).with_hint("drop the table"));
    }
    let id = table.column_id(position);
    drop_dependents(context, table, name, id, cascade)?;
    // Keys within the table may have gone with it.
    let table = Arc::clone(context.catalog.table(&table.qualified_name())?);
    let mut rules = table.rules.clone();
    rules.defaults.remove(&id);
    rules.column_comments.remove(&id);
    if let Some(identity) = rules.identities.remove(&id) {
        context.effects.dropped.push(TableId(identity.sequence.counter));
    }
    let (gone, kept) = rules.indexes.into_iter().partition(|index| index.columns.contains(&id));
    rules.indexes = kept;
    let gone: Vec<crate::catalog::index::Index> = gone;
    context.effects.dropped.extend(gone.iter().map(|index| TableId(index.id)));
    let mut checks = Vec::new();
    for check in rules.checks {
        if !uses_column(&parse_expression(&check.condition)?, name) {
            checks.push(check);
        }
    }
    rules.checks = checks;
    let shape = table.shape.without_column(position)?;
    put(context, reshaped(&table, shape, rules)?)?;
    sequence::drop_owned(context, table.id(), Some(id))
}

/// Foreign keys over the column go with it; those of other tables, and views, only with CASCADE.
fn drop_dependents(context: &mut Context<'_>, table: &Table, name: &str, id: u32, cascade: bool) -> Result<()> {
    let is_over = |owner: &Table, key: &crate::catalog::table::ForeignKey| {
        (owner.id() == table.id() && key.columns.contains(&id))
            || (key.parent == table.id().0 && key.parent_columns.contains(&id))
    };
    let owners: Vec<Arc<Table>> = context.catalog.tables().cloned().collect();
    let readers = depending_views(context.catalog, table, name)?;
    let mut needed: Vec<String> = readers.iter().map(|view| format!("view {view}")).collect();
    for owner in owners.iter().filter(|owner| owner.id() != table.id()) {
        let keys = owner.rules.foreign_keys.iter().filter(|key| is_over(owner, key));
        needed.extend(keys.map(|key| format!("foreign key {} of table {}", key.name, owner.qualified_name())));
    }
    if !cascade && !needed.is_empty() {
        let message = format!("column {name} of table {} is needed by other objects", table.name);
        return Err(Error::new(SqlState::DependentObjects, message)
            .with_detail(format!("they are {}", needed.join(", ")))
            .with_hint("drop them first, or use DROP COLUMN … CASCADE"));
    }
    for reader in readers {
        if context.catalog.find_view(&reader).is_some() {
            drop::view(context, &reader, true)?;
        }
    }
    for owner in owners {
        let mut rules = owner.rules.clone();
        rules.foreign_keys.retain(|key| !is_over(&owner, key));
        if rules != owner.rules {
            put(context, owner.with_rules(rules)?)?;
        }
    }
    Ok(())
}

fn rename_column(context: &mut Context<'_>, table: &Table, from: &str, to: &str) -> Result<()> {
    let position = table.column_position(from)?;
    check_name("column", to)?;
    if table.columns().iter().any(|column| column.field.name() == to) {
        return Err(duplicate_column(table, to));
    }
    refuse_views(&depending_views(context.catalog, table, from)?, &format!("column {from} of table {}", table.name))?;
    let mut rules = table.rules.clone();
    for check in &mut rules.checks {
        check.condition = rename_in(parse_expression(&check.condition)?, from, to).to_string();
    }
    let shape = table.shape.with_name(position, to)?;
    put(context, reshaped(table, shape, rules)?)
}

fn rename_table(context: &mut Context<'_>, table: &Table, to: &ast::ObjectName, name: &mut TableName) -> Result<()> {
    let parts = name_parts(to)?;
    let [to] = parts.as_slice() else {
        return Err(Error::new(SqlState::Syntax, format!("{to} is not a plain name"))
            .with_hint("RENAME TO keeps the table in its schema"));
    };
    check_name("table", to)?;
    let renamed = TableName { schema: name.schema.clone(), table: to.clone() };
    context.catalog.check_free("table", &renamed)?;
    let readers: Vec<TableName> = views::readers(context.catalog, name)?.into_iter().collect();
    refuse_views(&readers, &format!("table {name}"))?;
    let mut rules = table.rules.clone();
    // The key keeps the name that it was known by.
    rules.primary_key = (!table.has_hidden_key()).then(|| table.key_name());
    let shape = TableSchema::clone(&table.shape);
    let moved = Table::new(renamed.clone(), shape, table.storage.clone(), table.chars_max.clone(), rules)?;
    let catalog = Arc::make_mut(context.catalog);
    catalog.remove_table(context.txn, name)?;
    catalog.put_table(context.txn, moved)?;
    *name = renamed;
    Ok(())
}

/// Views are kept as text, which would no longer mean what it did.
fn refuse_views(readers: &[TableName], what: &str) -> Result<()> {
    if readers.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = readers.iter().map(ToString::to_string).collect();
    Err(Error::unsupported(format!("renaming {what}, which views read"))
        .with_detail(format!("they are {}", names.join(", ")))
        .with_hint("drop them first and create them anew afterwards"))
}

async fn alter_column(
    context: &mut Context<'_>,
    table: &Table,
    position: usize,
    operation: &ast::AlterColumnOperation,
) -> Result<()> {
    use ast::AlterColumnOperation as Operation;
    let Column { id, field } = &table.shape.columns[position];
    let (name, mut rules) = (field.name().clone(), table.rules.clone());
    let is_identity = rules.identities.contains_key(&id.0);
    let shape = match operation {
        Operation::SetNotNull if !field.is_nullable() => return Ok(()),
        Operation::SetNotNull => {
            refuse_rows(context, table, Some(position), &name).await?;
            table.shape.with_nullable(position, false)?
        }
        Operation::DropNotNull if table.shape.primary_key.contains(&position) => {
            let message = format!("column {name} is part of the primary key of table {}", table.name);
            return Err(Error::new(SqlState::InvalidTableDefinition, message));
        }
        Operation::DropNotNull if is_identity => {
            return Err(Error::new(SqlState::Syntax, format!("column {name} numbers its rows and is never NULL")));
        }
        Operation::DropNotNull => table.shape.with_nullable(position, true)?,
        Operation::SetDefault { .. } if is_identity => {
            let message = format!("column {name} numbers its rows and cannot have a default too");
            return Err(Error::new(SqlState::Syntax, message));
        }
        Operation::SetDefault { value } => {
            let value = qualify::expression(context.catalog, value.clone());
            rules.defaults.insert(id.0, value.to_string());
            TableSchema::clone(&table.shape)
        }
        Operation::DropDefault => {
            rules.defaults.remove(&id.0);
            TableSchema::clone(&table.shape)
        }
        Operation::SetDataType { using: Some(_), .. } => {
            return Err(Error::unsupported("ALTER COLUMN … TYPE … USING").with_hint(REWRITE));
        }
        Operation::SetDataType { data_type, .. } => return set_type(context, table, position, data_type),
        Operation::AddGenerated { .. } => {
            return Err(Error::unsupported(format!("ALTER COLUMN {name} {operation}")));
        }
    };
    let altered = reshaped(table, shape, rules)?;
    // A default that makes no sense is refused here and not by the next INSERT.
    computed::of(&altered, context)?;
    put(context, altered)
}

fn is_of_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => *item.data_type() == DataType::Utf8View,
        other => *other == DataType::Utf8View,
    }
}

pub(super) const REWRITE: &str = "rewrite the rows with CREATE TABLE … AS SELECT …, then rename the tables";

fn set_type(context: &mut Context<'_>, table: &Table, position: usize, sql: &ast::DataType) -> Result<()> {
    let Column { id, field } = &table.shape.columns[position];
    let (name, before) = (field.name(), field.data_type());
    let ColumnType { data_type, chars_max } = column_type(sql)?;
    let limit = table.chars_max.get(&position);
    let is_shorter = chars_max.is_some_and(|next| is_of_text(before) && limit.is_none_or(|now| next < *now));
    if Widening::of(before, &data_type).is_none() || is_shorter {
        let shown = |data_type: &DataType, limit: Option<u32>| match limit {
            Some(limit) => format!("varchar({limit})"),
            None => sql_name(data_type),
        };
        let (from, to) = (shown(before, limit.copied()), shown(&data_type, chars_max));
        return Err(Error::unsupported(format!("changing column {name} from {from} to {to}"))
            .with_detail("only changes that are exact for every value can be made without writing rows again")
            .with_hint(REWRITE));
    }
    if *before != data_type {
        let refused = |what: &str| {
            Err(Error::unsupported(format!("changing the type of column {name}, which is part of {what}")))
        };
        let mut owners =
            context.catalog.tables().flat_map(|owner| owner.rules.foreign_keys.iter().map(move |key| (owner, key)));
        let is_over = |(owner, key): (&Arc<Table>, &crate::catalog::table::ForeignKey)| {
            (owner.id() == table.id() && key.columns.contains(&id.0))
                || (key.parent == table.id().0 && key.parent_columns.contains(&id.0))
        };
        if table.shape.primary_key.contains(&position) {
            return refused("the primary key").map_err(|error: Error| error.with_hint(REWRITE));
        }
        if let Some(index) = table.rules.indexes.iter().find(|index| index.columns.contains(&id.0)) {
            let hint = "drop the index first and create it anew afterwards";
            return refused(&format!("index {}", index.name)).map_err(|error: Error| error.with_hint(hint));
        }
        if owners.any(is_over) {
            return refused("a foreign key").map_err(|error: Error| error.with_hint(REWRITE));
        }
    }
    let shape = table.shape.with_type(position, &data_type)?;
    let mut altered = reshaped(table, shape, table.rules.clone())?;
    altered.chars_max.remove(&position);
    altered.chars_max.extend(chars_max.map(|limit| (position, limit)));
    computed::of(&altered, context)?;
    put(context, altered)
}
