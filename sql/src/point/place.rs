//! `Place`: one row, by its primary key.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::row::{RowRef, Value};

use super::operand::{Operand, Parameters, is_exact};
use crate::catalog::{Catalog, Table};
use crate::error::Result;
use crate::pg_catalog;
use crate::statement::{identifier, name_parts};
use crate::types::is_json_field;

/// Keys of more columns are left to the planner.
const KEY_COLUMNS_MAX: usize = 8;
/// Room for a key; longer ones grow.
const KEY_BYTES: usize = 40;

/// What one table is called in a statement.
pub(super) struct Named {
    pub table: Arc<Table>,
    alias: Option<String>,
    parts: Vec<String>,
}

impl Named {
    /// The table that stands alone in FROM, if it is a plain one.
    pub(super) fn of(from: &ast::TableWithJoins, catalog: &Catalog) -> Option<Named> {
        let ast::TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } = &from.relation
        else {
            return None;
        };
        let is_plain =
            from.joins.is_empty() && with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty();
        let alias = match alias {
            Some(alias) if !alias.columns.is_empty() || alias.at.is_some() => return None,
            Some(alias) => Some(identifier(&alias.name)),
            None => None,
        };
        is_plain.then(|| Named::find(name, alias, catalog)).flatten()
    }

    /// The table `name`.
    pub(super) fn find(name: &ast::ObjectName, alias: Option<String>, catalog: &Catalog) -> Option<Named> {
        let parts = name_parts(name).ok()?;
        // Without a schema, those of PostgreSQL's catalog come first.
        if matches!(parts.as_slice(), [name] if pg_catalog::has_table(name)) {
            return None;
        }
        let table = Arc::clone(catalog.find(&catalog.locate(&parts).ok()?)?);
        Some(Named { table, alias, parts })
    }

    /// What other parts of the statement call it.
    pub(super) fn visible_name(&self) -> String {
        self.alias.as_ref().or(self.parts.last()).cloned().unwrap_or_default()
    }

    /// Position of the column that `expr` names.
    pub(super) fn column(&self, expr: &ast::Expr) -> Option<usize> {
        match expr {
            ast::Expr::Identifier(ident) => self.table.column_position(&identifier(ident)).ok(),
            ast::Expr::CompoundIdentifier(path) => {
                let (column, table) = path.split_last()?;
                self.is_meant(table).then(|| self.table.column_position(&identifier(column)).ok()).flatten()
            }
            ast::Expr::Nested(inner) => self.column(inner),
            _ => None,
        }
    }

    /// Whether `path` is what the statement calls the table.
    fn is_meant(&self, path: &[ast::Ident]) -> bool {
        let path = path.iter().map(identifier);
        match &self.alias {
            Some(alias) => path.eq([alias.clone()]),
            None => path.len() <= self.parts.len() && self.parts.ends_with(&path.collect::<Vec<_>>()),
        }
    }
}

/// One row of a table: `WHERE` gives every column of the primary key a value, and may say more.
pub(super) struct Place {
    pub table: Arc<Table>,
    /// In key order.
    key: Vec<Operand>,
    /// What other columns must be equal to.
    others: Vec<(usize, Operand)>,
}

impl Place {
    /// The row that `selection` asks for, if it asks for one by its key.
    pub(super) fn new(named: &Named, selection: Option<&ast::Expr>, types: &[ast::DataType]) -> Option<Place> {
        let table = &named.table;
        if table.has_hidden_key() || table.shape.primary_key.len() > KEY_COLUMNS_MAX {
            return None;
        }
        let mut equal = Vec::new();
        collect(selection?, named, types, &mut equal)?;
        let mut key = Vec::with_capacity(table.shape.primary_key.len());
        for position in &table.shape.primary_key {
            let at = equal.iter().position(|(known, _)| known == position)?;
            key.push(equal.swap_remove(at).1);
        }
        Some(Place { table: Arc::clone(table), key, others: equal })
    }

    /// The full key with these parameters; `None` if it takes the planner to say what is meant by them.
    pub(super) fn key(&self, parameters: Parameters<'_>) -> Option<Vec<u8>> {
        let shape = &self.table.shape;
        for (position, operand) in &self.others {
            operand.given(parameters)?.comparable(shape.columns[*position].field.data_type())?;
        }
        let mut values = [Value::Null; KEY_COLUMNS_MAX];
        for ((value, operand), position) in values.iter_mut().zip(&self.key).zip(&shape.primary_key) {
            *value = operand.given(parameters)?.comparable(shape.columns[*position].field.data_type())?;
        }
        let mut key = Vec::with_capacity(KEY_BYTES);
        // A key that is too long is not there; the planner says so in its own way.
        self.table.keys.encode(&values[..self.key.len()], &mut key).ok()?;
        Some(key)
    }

    /// Whether `row` has the other values that are asked for. Only for parameters that gave a key.
    ///
    /// # Errors
    /// A damaged row.
    pub(super) fn accepts(&self, row: &[u8], parameters: Parameters<'_>) -> Result<bool> {
        if self.others.is_empty() {
            return Ok(true);
        }
        let row = RowRef::new(self.table.encoder.codec(), row)?;
        for (position, operand) in &self.others {
            let data_type = self.table.shape.columns[*position].field.data_type();
            let wanted = operand.given(parameters).and_then(|given| given.comparable(data_type));
            if wanted != Some(row.get(*position)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Adds the equalities that `expr` joins with AND; `None` if it is anything else too.
fn collect(expr: &ast::Expr, named: &Named, types: &[ast::DataType], equal: &mut Vec<(usize, Operand)>) -> Option<()> {
    match expr {
        ast::Expr::Nested(inner) => collect(inner, named, types, equal),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            collect(left, named, types, equal)?;
            collect(right, named, types, equal)
        }
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } => {
            let (position, value) = match (named.column(left), named.column(right)) {
                (Some(position), None) => (position, right),
                (None, Some(position)) => (position, left),
                _ => return None,
            };
            let field = &named.table.shape.columns[position].field;
            if !is_exact(field.data_type()) || is_json_field(field) {
                return None;
            }
            equal.push((position, Operand::of(value, field, types)?));
            Some(())
        }
        _ => None,
    }
}
