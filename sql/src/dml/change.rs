//! UPDATE and DELETE: rewritten to a SELECT of old keys and new values, drained, then applied.
//!
//! ```text
//! UPDATE t SET a = a + 1 WHERE p   →   SELECT t.k, t.a + 1, t.b FROM t WHERE p
//! DELETE FROM t USING u WHERE p    →   SELECT t.k FROM t, u WHERE p
//! ```
//!
//! With FROM or USING a row may match several times; the first match counts, as in PostgreSQL.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast;

use super::cells::is_default;
use super::writer::{KeyEncoder, TableWriter};
use super::{Context, Drained, find_target, is_literal, plain_table};
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, Catalog, Table};
use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, parse_own};
use crate::types::{Origin, assign};

/// Runs a DELETE; returns the number of rows.
///
/// # Errors
/// Names and types that are not right; whatever the query runs into.
pub(crate) async fn delete(context: &mut Context<'_>, delete: &ast::Delete) -> Result<u64> {
    refuse_in_delete(delete)?;
    let target = Target::of_delete(delete)?;
    let table = context.target(&target.parts)?;
    let query = target.select(&table, target.key_items(&table), delete.using.as_deref(), delete.selection.clone())?;
    let drained = context.drain(query).await?;
    let encoder = KeyEncoder::new(&table.shape)?;
    let mut keys = HashSet::new();
    for batch in &drained.batches {
        keys.extend(encoder.encode(batch.columns(), batch.num_rows())?);
    }
    let count = keys.len() as u64;
    for key in keys {
        context.txn.delete(table.id(), key)?;
    }
    Ok(count)
}

/// Runs an UPDATE; returns the number of rows.
///
/// # Errors
/// Names, types, NULLs and keys that are not right; whatever the query runs into.
pub(crate) async fn update(context: &mut Context<'_>, update: &ast::Update) -> Result<u64> {
    refuse_in_update(update)?;
    let target = Target::of(&update.table)?;
    let table = context.target(&target.parts)?;
    let assigned = assignments(update, &table)?;
    let others = from_tables(update);
    let items = target.value_items(&table, &assigned);
    let query = target.select(&table, items, others, update.selection.clone())?;
    let drained = context.drain(query).await?;
    apply(context, &table, &assigned, others.is_some(), &drained)
}

/// The query that an UPDATE or DELETE reads with, for EXPLAIN.
///
/// # Errors
/// Names that do not exist.
pub(crate) fn explained(statement: &ast::Statement, catalog: &Catalog) -> Result<ast::Statement> {
    match statement {
        ast::Statement::Update(update) => {
            refuse_in_update(update)?;
            let target = Target::of(&update.table)?;
            let table = find_target(catalog, &target.parts)?;
            let items = target.value_items(&table, &assignments(update, &table)?);
            target.select(&table, items, from_tables(update), update.selection.clone())
        }
        ast::Statement::Delete(delete) => {
            refuse_in_delete(delete)?;
            let target = Target::of_delete(delete)?;
            let table = find_target(catalog, &target.parts)?;
            target.select(&table, target.key_items(&table), delete.using.as_deref(), delete.selection.clone())
        }
        other => Err(Error::unsupported(format!("EXPLAIN {other}"))),
    }
}

fn refuse_in_delete(delete: &ast::Delete) -> Result<()> {
    refuse(&[
        (delete.returning.is_some(), "DELETE … RETURNING"),
        (!delete.order_by.is_empty() || delete.limit.is_some(), "DELETE … LIMIT"),
    ])
}

fn refuse_in_update(update: &ast::Update) -> Result<()> {
    refuse(&[
        (update.returning.is_some(), "UPDATE … RETURNING"),
        (update.limit.is_some() || !update.order_by.is_empty(), "UPDATE … LIMIT"),
        (update.or.is_some(), "UPDATE OR …"),
    ])
}

fn refuse(refused: &[(bool, &str)]) -> Result<()> {
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => Ok(()),
    }
}

fn from_tables(update: &ast::Update) -> Option<&[ast::TableWithJoins]> {
    match update.from.as_ref()? {
        ast::UpdateTableFromKind::BeforeSet(tables) | ast::UpdateTableFromKind::AfterSet(tables) => Some(tables),
    }
}

/// New values by column position.
fn assignments(update: &ast::Update, table: &Table) -> Result<BTreeMap<usize, ast::Expr>> {
    let mut assigned = BTreeMap::new();
    for assignment in &update.assignments {
        let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(Error::unsupported("assignment to several columns at once"));
        };
        let Some(ident) = name.0.last().and_then(|part| part.as_ident()) else {
            return Err(Error::new(SqlState::Syntax, format!("{name} is not a column name")));
        };
        let position = table.column_position(&identifier(ident))?;
        let value = match &assignment.value {
            ast::Expr::Identifier(ident) if is_default(ident) => ast::Expr::Value(ast::Value::Null.into()),
            other => other.clone(),
        };
        if assigned.insert(position, value).is_some() {
            return Err(Error::new(SqlState::Syntax, format!("column {ident} is assigned twice")));
        }
    }
    Ok(assigned)
}

/// The written table of an UPDATE or DELETE, and how its columns are named in the query.
struct Target {
    parts: Vec<String>,
    factor: ast::TableWithJoins,
    alias: Option<ast::Ident>,
    written: Vec<ast::Ident>,
}

impl Target {
    fn of(table: &ast::TableWithJoins) -> Result<Target> {
        let (parts, name, alias) = plain_table(table)?;
        let written = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        let alias = alias.map(|alias| alias.name.clone());
        Ok(Target { parts, factor: table.clone(), alias, written })
    }

    fn of_delete(delete: &ast::Delete) -> Result<Target> {
        let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) = &delete.from;
        match tables.as_slice() {
            [table] if delete.tables.is_empty() => Target::of(table),
            _ => Err(Error::unsupported("DELETE from several tables")),
        }
    }

    /// A reference to a column of the target that nothing else in the query can catch.
    fn column(&self, table: &Table, position: usize) -> ast::Expr {
        let mut path = match &self.alias {
            Some(alias) => vec![alias.clone()],
            None if table.has_hidden_key() => self.written.last().cloned().into_iter().collect(),
            None => self.written.clone(),
        };
        path.push(quoted(table.shape.columns[position].field.name()));
        ast::Expr::CompoundIdentifier(path)
    }

    fn key_items(&self, table: &Table) -> Vec<ast::SelectItem> {
        let key = table.shape.primary_key.iter();
        key.map(|position| item(self.column(table, *position), &format!("_strata_k{position}"))).collect()
    }

    /// One item per stored column with its new value, then the old key if the statement may change it.
    fn value_items(&self, table: &Table, assigned: &BTreeMap<usize, ast::Expr>) -> Vec<ast::SelectItem> {
        let value = |position: usize| match assigned.get(&position) {
            Some(expr) => expr.clone(),
            None => self.column(table, position),
        };
        let all = 0..table.shape.columns.len();
        let mut items: Vec<_> = all.map(|position| item(value(position), &format!("_strata_v{position}"))).collect();
        if changes_key(table, assigned) {
            items.extend(self.key_items(table));
        }
        items
    }

    fn select(
        &self,
        table: &Table,
        items: Vec<ast::SelectItem>,
        others: Option<&[ast::TableWithJoins]>,
        selection: Option<ast::Expr>,
    ) -> Result<ast::Statement> {
        let frame = if table.has_hidden_key() {
            let alias = self.alias.as_ref().or(self.written.last());
            let alias = alias.map(identifier).unwrap_or_default();
            let (id, alias) = (table.id().0, quoted(&alias));
            parse_own(&format!("SELECT 1 FROM {CATALOG_NAME}.{HIDDEN_SCHEMA}.\"{id}\" AS {alias}"))?
        } else {
            parse_own("SELECT 1 FROM t")?
        };
        let ast::Statement::Query(mut query) = frame else { return Err(Error::internal("a frame that is no query")) };
        let ast::SetExpr::Select(select) = query.body.as_mut() else {
            return Err(Error::internal("a frame that is no SELECT"));
        };
        if !table.has_hidden_key() {
            select.from = vec![self.factor.clone()];
        }
        select.from.extend(others.unwrap_or_default().iter().cloned());
        select.projection = items;
        select.selection = selection;
        Ok(ast::Statement::Query(query))
    }
}

fn quoted(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

fn item(expr: ast::Expr, alias: &str) -> ast::SelectItem {
    ast::SelectItem::ExprWithAlias { expr, alias: quoted(alias) }
}

fn changes_key(table: &Table, assigned: &BTreeMap<usize, ast::Expr>) -> bool {
    table.shape.primary_key.iter().any(|position| assigned.contains_key(position))
}

/// Writes the drained rows of an UPDATE.
fn apply(
    context: &mut Context<'_>,
    table: &Table,
    assigned: &BTreeMap<usize, ast::Expr>,
    may_repeat: bool,
    drained: &Drained,
) -> Result<u64> {
    let (writer, encoder) = (TableWriter::new(table), KeyEncoder::new(&table.shape)?);
    let width = table.shape.columns.len();
    let (mut seen, mut count) = (HashSet::new(), 0);
    let mut moved: Vec<(RecordBatch, Vec<Vec<u8>>)> = Vec::new();
    for batch in &drained.batches {
        let batch = if may_repeat { first_matches(batch, table, width, &encoder, &mut seen)? } else { batch.clone() };
        count += batch.num_rows() as u64;
        let mut columns: Vec<ArrayRef> = batch.columns()[..width].to_vec();
        for (position, expr) in assigned {
            let field = &table.shape.columns[*position].field;
            let origin = if is_literal(expr) { Origin::Literal } else { Origin::Expression };
            columns[*position] = assign(&columns[*position], field.data_type(), origin, field.name())?;
        }
        let stored = writer.batch(columns, batch.num_rows())?;
        if batch.num_columns() > width {
            moved.push((stored, encoder.encode(&batch.columns()[width..], batch.num_rows())?));
        } else {
            writer.replace(context.txn, &stored)?;
        }
    }
    writer.rekey(context.txn, &moved)?;
    Ok(count)
}

/// The rows of `batch` whose old key was not seen before.
fn first_matches(
    batch: &RecordBatch,
    table: &Table,
    width: usize,
    encoder: &KeyEncoder,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<RecordBatch> {
    let old: Vec<ArrayRef> = if batch.num_columns() > width {
        batch.columns()[width..].to_vec()
    } else {
        table.shape.primary_key.iter().map(|position| batch.column(*position).clone()).collect()
    };
    let keys = encoder.encode(&old, batch.num_rows())?;
    let keep: BooleanArray = keys.into_iter().map(|key| Some(seen.insert(key))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}
