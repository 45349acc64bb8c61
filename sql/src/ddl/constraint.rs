//! Constraints of a table that has rows: ADD, DROP, RENAME, ALTER and VALIDATE CONSTRAINT.
//!
//! Within a transaction the rows are looked at in it; it commits only if nobody else wrote to the table, or to the one
//! referred to, meanwhile. Outside of one, a single ADD goes on beside writers, as CREATE INDEX does:
//!
//! 1. declare: from this commit on every writer keeps the constraint, or conflicts with the commit and tries again;
//! 2. look at all rows at one later snapshot. Those written since satisfy it, so this one settles it;
//! 3. say so. If a row does not satisfy it, or the process ends, the constraint is removed: by the statement, or when the
//!    database is opened.
//!
//! NOT VALID is the first step alone, VALIDATE CONSTRAINT the others.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use super::definition::Definition;
use super::{Context, drop as drops, index, register_new_indexes};
use crate::catalog::table::{Check, ForeignKey, Validity};
use crate::catalog::{Rules, Table, TableName, check_name};
use crate::dml::{computed, foreign_keys};
use crate::error::{Error, Result, SqlState, near};
use crate::statement::identifier;

/// A constraint that was added to the catalog and may not hold yet.
#[derive(Clone, Debug)]
pub(crate) enum Added {
    /// A check or foreign key, by name.
    Condition(String),
    /// An index, by its number.
    Unique(u32),
    /// An index that will take the place of another one.
    Rebuilt { id: u32, old: u32 },
}

/// ADD CONSTRAINT within a transaction.
///
/// # Errors
/// Definitions that cannot be; 23505, 23514, 23503 for rows that are there.
pub(super) async fn add(
    context: &mut Context<'_>,
    table: &Table,
    constraint: &ast::TableConstraint,
    not_valid: bool,
) -> Result<()> {
    let validity = if not_valid { Validity::NotValid } else { Validity::Pending };
    match declare(context, table, constraint, validity)? {
        Added::Unique(id) | Added::Rebuilt { id, .. } => index::fill_within(context, table.id(), id).await,
        Added::Condition(_) if not_valid => Ok(()),
        Added::Condition(name) => validate(context, table.id(), &name).await,
    }
}

/// Adds the constraint to the catalog. A unique one has an empty index, which is built beside writers if it is pending.
///
/// # Errors
/// Definitions that cannot be.
pub(super) fn declare(
    context: &mut Context<'_>,
    table: &Table,
    constraint: &ast::TableConstraint,
    validity: Validity,
) -> Result<Added> {
    let is_unique = matches!(constraint, ast::TableConstraint::Unique(_));
    match constraint {
        ast::TableConstraint::PrimaryKey(_) if table.has_hidden_key() => {
            return Err(Error::unsupported(format!("adding a primary key to table {}, which has none", table.name))
                .with_detail("the primary key is what rows are stored by")
                .with_hint("add a UNIQUE constraint and NOT NULL, or copy the rows into a table with the key"));
        }
        _ if is_unique && validity == Validity::NotValid => {
            return Err(Error::unsupported("a unique constraint that is NOT VALID")
                .with_hint("ADD … UNIQUE is built while others write"));
        }
        _ => {}
    }
    let name = table.qualified_name();
    let mut definition = Definition::of(Arc::make_mut(context.catalog), &name, table);
    definition.add_constraint(constraint)?;
    let mut rules = definition.finish_rules()?;
    let added = mark(&mut rules, &table.rules, validity)?;
    let altered = table.with_rules(rules)?;
    // A condition that makes no sense is the definition's mistake, not some row's.
    computed::of(&altered, context)?;
    register_new_indexes(context.engine, table, &altered);
    let catalog = Arc::make_mut(context.catalog);
    catalog.put_table(context.txn, altered)?;
    // Whoever writes the parent from an older snapshot does not know that rows may refer to it: they conflict.
    let parents = catalog.table(&name)?.rules.foreign_keys[table.rules.foreign_keys.len()..].iter();
    let parents: Vec<TableId> = parents.map(|key| TableId(key.parent)).filter(|id| *id != table.id()).collect();
    for parent in parents {
        if let Some(parent) = catalog.find_id(parent).cloned() {
            catalog.put_table(context.txn, parent.with_rules(parent.rules.clone())?)?;
        }
    }
    Ok(added)
}

/// Marks what `rules` have more than `before`, which is one constraint.
fn mark(rules: &mut Rules, before: &Rules, validity: Validity) -> Result<Added> {
    if let Some(check) = rules.checks.get_mut(before.checks.len()) {
        check.validity = validity;
        return Ok(Added::Condition(check.name.clone()));
    }
    if let Some(key) = rules.foreign_keys.get_mut(before.foreign_keys.len()) {
        key.validity = validity;
        return Ok(Added::Condition(key.name.clone()));
    }
    match rules.indexes.get_mut(before.indexes.len()) {
        Some(index) => {
            index.is_building = validity == Validity::Pending;
            Ok(Added::Unique(index.id))
        }
        None => Err(Error::internal("a constraint that adds nothing")),
    }
}

/// Looks at every row of the table for the check or foreign key `name`, and notes that it holds.
///
/// # Errors
/// 42704; 23514 or 23503 for a row that does not satisfy it.
pub(crate) async fn validate(context: &mut Context<'_>, table: TableId, name: &str) -> Result<()> {
    let table = context.catalog.find_id(table).cloned();
    let table = table.ok_or_else(|| Error::new(SqlState::UndefinedTable, "the table was dropped meanwhile"))?;
    let check = table.rules.checks.iter().find(|check| check.name == name);
    let key = table.rules.foreign_keys.iter().find(|key| key.name == name);
    if check.is_some_and(|check| check.validity.is_valid()) || key.is_some_and(|key| key.validity.is_valid()) {
        return Ok(());
    }
    // Writers that know of the constraint keep it; others must not have committed since the snapshot.
    let committed = context.engine.catalog_at(context.txn.snapshot())?;
    let committed = committed.find_id(table.id()).map(|table| &table.rules);
    if let Some(check) = check {
        let is_same = |known: &Check| known.name == check.name && known.condition == check.condition;
        if !committed.is_some_and(|rules| rules.checks.iter().any(is_same)) {
            context.txn.require_untouched(table.id());
        }
        check_rows(context, &table, &check.name).await?;
    } else if let Some(key) = key {
        let is_same = |known: &ForeignKey| ForeignKey { validity: key.validity, ..known.clone() } == *key;
        if !committed.is_some_and(|rules| rules.foreign_keys.iter().any(is_same)) {
            context.txn.require_untouched(table.id());
            context.txn.require_untouched(TableId(key.parent));
        }
        foreign_keys::check_rows(context, &table, key).await?;
    } else if table.constraint_names().iter().any(|known| known == name) {
        return Ok(());
    } else {
        return Err(undefined(&table, name));
    }
    let mut rules = table.rules.clone();
    rules.checks.iter_mut().filter(|check| check.name == name).for_each(|check| check.validity = Validity::Valid);
    rules.foreign_keys.iter_mut().filter(|key| key.name == name).for_each(|key| key.validity = Validity::Valid);
    Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
}

/// Looks at every row for one check of the table; older rows need not satisfy the others.
async fn check_rows(context: &mut Context<'_>, table: &Table, name: &str) -> Result<()> {
    let mut rules = table.rules.clone();
    rules.checks.retain(|check| check.name == name);
    let table = table.with_rules(rules)?;
    let computed = computed::of(&table, context)?;
    context.visit(index::all_rows(&table)?, |batch| computed.check(&table, &batch)).await
}

/// Drops a CHECK, UNIQUE or FOREIGN KEY constraint.
pub(super) fn drop(context: &mut Context<'_>, table: &Table, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
    if let Some(index) = table.rules.indexes.iter().find(|index| index.is_constraint && index.name == name) {
        let is_same = |ids: &[u32]| ids.len() == index.columns.len() && ids.iter().all(|id| index.columns.contains(id));
        let referring = context.catalog.referring_to(table.id()).filter(|(_, key)| is_same(&key.parent_columns));
        let referring: Vec<(Arc<Table>, String)> =
            referring.map(|(child, key)| (Arc::clone(child), key.name.clone())).collect();
        if let (Some((child, key)), false) = (referring.first(), cascade) {
            let message = format!("constraint {name} is needed by foreign key {key} of table {}", child.name);
            return Err(Error::new(SqlState::DependentObjects, message)
                .with_hint("drop the foreign key first, or use DROP CONSTRAINT … CASCADE"));
        }
        for (child, key) in referring {
            let child = Arc::clone(context.catalog.table(&child.qualified_name())?);
            forget(context, &child, &key)?;
        }
        let table = Arc::clone(context.catalog.table(&table.qualified_name())?);
        return drops::forget_index(context, &table, index.id);
    }
    let is_known = table.constraint_names().iter().any(|known| known == name);
    if is_known && name == table.key_name() && !table.has_hidden_key() {
        return Err(Error::unsupported("dropping a primary key").with_hint(super::alter::REWRITE));
    }
    match is_known {
        true => forget(context, table, name),
        false if if_exists => Ok(()),
        false => Err(undefined(table, name)),
    }
}

/// Removes a check or foreign key.
fn forget(context: &mut Context<'_>, table: &Table, name: &str) -> Result<()> {
    let mut rules = table.rules.clone();
    rules.checks.retain(|check| check.name != name);
    rules.foreign_keys.retain(|key| key.name != name);
    Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
}

/// RENAME CONSTRAINT; a unique one's index is renamed with it.
pub(super) fn rename(context: &mut Context<'_>, table: &Table, from: &str, to: &str) -> Result<()> {
    check_name("constraint", to)?;
    let known = table.constraint_names();
    if !known.iter().any(|known| known == from) {
        return Err(undefined(table, from));
    }
    if known.iter().any(|known| known == to) {
        let message = format!("constraint {to} of table {} already exists", table.name);
        return Err(Error::new(SqlState::DuplicateObject, message));
    }
    let mut rules = table.rules.clone();
    let is_index = rules.indexes.iter().any(|index| index.name == from);
    if is_index || from == table.key_name() {
        context.catalog.check_free("index", &TableName { schema: table.schema_name.clone(), table: to.to_owned() })?;
    }
    if !table.has_hidden_key() && from == table.key_name() {
        rules.primary_key = Some(to.to_owned());
    }
    rules.indexes.iter_mut().filter(|index| index.name == from).for_each(|index| to.clone_into(&mut index.name));
    rules.checks.iter_mut().filter(|check| check.name == from).for_each(|check| to.clone_into(&mut check.name));
    rules.foreign_keys.iter_mut().filter(|key| key.name == from).for_each(|key| to.clone_into(&mut key.name));
    Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
}

/// ALTER CONSTRAINT: when a foreign key is looked at.
pub(super) fn alter(
    context: &mut Context<'_>,
    table: &Table,
    name: &str,
    said: &ast::ConstraintCharacteristics,
) -> Result<()> {
    let mut rules = table.rules.clone();
    let Some(key) = rules.foreign_keys.iter_mut().find(|key| key.name == name) else {
        if table.constraint_names().iter().any(|known| known == name) {
            let message = format!("constraint {name} of table {} is not a foreign key", table.name);
            return Err(Error::new(SqlState::WrongObjectType, message));
        }
        return Err(undefined(table, name));
    };
    let is_deferred = said.initially == Some(ast::DeferrableInitial::Deferred);
    if is_deferred && said.deferrable == Some(false) {
        return Err(Error::new(SqlState::Syntax, "a constraint that is INITIALLY DEFERRED must be DEFERRABLE"));
    }
    key.is_deferrable = said.deferrable.unwrap_or(is_deferred);
    key.is_deferred = is_deferred;
    Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
}

fn undefined(table: &Table, name: &str) -> Error {
    let known = table.constraint_names();
    let hint = match near::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "strata.constraints lists them".to_owned(),
    };
    Error::new(SqlState::UndefinedObject, format!("constraint {name} of table {} does not exist", table.name))
        .with_hint(hint)
}

/// The constraint and whether NOT VALID was said, of an ALTER TABLE that does nothing but add one that is to be looked at.
pub(crate) fn only_addition(alter: &ast::AlterTable) -> Option<&ast::TableConstraint> {
    match alter.operations.as_slice() {
        [ast::AlterTableOperation::AddConstraint { constraint, not_valid: false }] => Some(constraint),
        _ => None,
    }
}

/// What a column definition says of constraints, as constraints of the table.
pub(super) fn of_column(column: &ast::ColumnDef) -> Vec<ast::TableConstraint> {
    let name = |option: &ast::ColumnOptionDef| option.name.clone();
    let ident = || ast::Ident::with_quote('"', identifier(&column.name));
    let constraint = |option: &ast::ColumnOptionDef| match &option.option {
        ast::ColumnOption::Unique(unique) => {
            let mut unique = unique.clone();
            unique.name = name(option).or(unique.name);
            unique.columns = vec![ident().into()];
            Some(ast::TableConstraint::Unique(unique))
        }
        ast::ColumnOption::Check(check) => {
            let mut check = check.clone();
            check.name = name(option).or(check.name);
            Some(ast::TableConstraint::Check(check))
        }
        ast::ColumnOption::ForeignKey(key) => {
            let mut key = key.clone();
            key.name = name(option).or(key.name);
            key.columns = vec![ident()];
            Some(ast::TableConstraint::ForeignKey(key))
        }
        _ => None,
    };
    column.options.iter().filter_map(constraint).collect()
}
