//! UPDATE and DELETE: rewritten to a SELECT of old keys and new values, drained, then applied.
//!
//! ```text
//! UPDATE t SET a = a + 1 WHERE p   →   SELECT t.k, t.a + 1, t.b FROM t WHERE p
//! DELETE FROM t USING u WHERE p    →   SELECT t.k FROM t, u WHERE p
//! ```
//!
//! With FROM or USING a row may match several times; the first match counts, as in PostgreSQL.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast;

use super::cells::is_default;
use super::returning::{self, Returning};
use super::writer::{Change, KeyEncoder, Old, TableWriter};
use super::{Context, Drained, Written, computed, find_target, foreign_keys, is_literal, plain_table};
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, Catalog, Table};
use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, parse_own};
use crate::types::{Origin, assign};

/// Runs a DELETE.
///
/// # Errors
/// Names and types that are not right; rows that others refer to; whatever the query runs into.
pub(crate) async fn delete(context: &mut Context<'_>, delete: &ast::Delete) -> Result<Written> {
    refuse_in_delete(delete)?;
    let target = Target::of_delete(delete)?;
    let table = context.target(&target.parts)?;
    let returning = Returning::new(delete.returning.as_deref(), &target.visible_name());
    let is_referred = foreign_keys::is_referred_to(context, &table);
    let needs_rows = returning.is_some() || is_referred || !table.indexes.is_empty();
    let items = if needs_rows { target.stored_items(&table, "_strata_v") } else { target.key_items(&table) };
    let query = target.select(&table, items, delete.using.as_deref(), delete.selection.clone())?;
    let drained = context.drain(query).await?;
    let (writer, encoder) = (TableWriter::new(&table), KeyEncoder::new(&table.shape)?);
    let mut seen = HashSet::new();
    if !needs_rows {
        for batch in &drained.batches {
            seen.extend(encoder.encode(batch.columns(), batch.num_rows())?);
        }
        let count = seen.len() as u64;
        writer.delete_keys(context.txn, seen)?;
        return Ok(Written { count, returned: None });
    }
    let mut rows = Vec::with_capacity(drained.batches.len());
    for batch in &drained.batches {
        let first = first_matches(batch, &table, 0, &encoder, &mut seen)?;
        rows.push(writer.batch(first.columns().to_vec(), first.num_rows())?);
    }
    delete_rows(context, &table, rows, returning).await
}

/// Deletes `rows`, which have all stored columns, with their index entries, and does to others what foreign keys ask for.
///
/// # Errors
/// 23503, and what actions of foreign keys run into.
pub(crate) async fn delete_rows(
    context: &mut Context<'_>,
    table: &Arc<Table>,
    rows: Vec<RecordBatch>,
    returning: Option<Returning<'_>>,
) -> Result<Written> {
    let (writer, mut count) = (TableWriter::new(table), 0);
    for batch in &rows {
        writer.delete(context.txn, batch)?;
        count += batch.num_rows() as u64;
    }
    if foreign_keys::is_referred_to(context, table) {
        for batch in &rows {
            foreign_keys::after_delete(context, table, batch.clone()).await?;
        }
    }
    Ok(Written { count, returned: returning::rows(context, table, returning, rows).await? })
}

/// Runs an UPDATE.
///
/// # Errors
/// Names, types, NULLs, keys and rows that are not right; whatever the query runs into.
pub(crate) async fn update(context: &mut Context<'_>, update: &ast::Update) -> Result<Written> {
    refuse_in_update(update)?;
    let target = Target::of(&update.table)?;
    let table = context.target(&target.parts)?;
    let returning = Returning::new(update.returning.as_deref(), &target.visible_name());
    let assigned = Assigned::of(&update.assignments, &table)?;
    let others = from_tables(update);
    let tracks = Tracked::of(context, &table, &assigned);
    let items = target.value_items(&table, &assigned, tracks);
    let query = target.select(&table, items, others, update.selection.clone())?;
    let drained = context.drain(query).await?;
    let changes = changes(context, &table, &assigned, others.is_some(), tracks, &drained)?;
    let (count, new) = write_changes(context, &table, &assigned, changes).await?;
    Ok(Written { count, returned: returning::rows(context, &table, returning, new).await? })
}

/// What an UPDATE reads of the rows it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracked {
    Nothing,
    Keys,
    Rows,
}

impl Tracked {
    pub(crate) fn of(context: &Context<'_>, table: &Table, assigned: &Assigned) -> Tracked {
        let has_entries = table.indexes.iter().any(|index| index.depends_on(assigned.positions()));
        let is_assigned = |id: &u32| table.position_of(*id).is_ok_and(|position| assigned.contains(position));
        let is_referred =
            context.catalog.referring_to(table.id()).any(|(_, key)| key.parent_columns.iter().any(is_assigned));
        match () {
            () if has_entries || is_referred => Tracked::Rows,
            () if changes_key(table, assigned) => Tracked::Keys,
            () => Tracked::Nothing,
        }
    }
}

/// Writes changes of rows of `table`; returns their number and the new rows.
///
/// # Errors
/// 23505, 23514; what actions of foreign keys run into.
pub(crate) async fn write_changes(
    context: &mut Context<'_>,
    table: &Arc<Table>,
    assigned: &Assigned,
    changes: Vec<Change>,
) -> Result<(u64, Vec<RecordBatch>)> {
    let computed = computed::of(table, context)?;
    for change in &changes {
        computed.check(table, &change.new)?;
    }
    TableWriter::new(table).update(context.txn, &changes)?;
    let mut count = 0;
    for change in &changes {
        count += change.new.num_rows() as u64;
        foreign_keys::note_children(context, table, &change.new, &|position| assigned.contains(position))?;
        if let Old::Rows(old) = &change.old
            && foreign_keys::is_referred_to(context, table)
        {
            foreign_keys::after_update(context, table, old.clone(), change.new.clone()).await?;
        }
    }
    Ok((count, changes.into_iter().map(|change| change.new).collect()))
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
            let items = target.value_items(&table, &Assigned::of(&update.assignments, &table)?, Tracked::Nothing);
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
    refuse(&[(!delete.order_by.is_empty() || delete.limit.is_some(), "DELETE … LIMIT")])
}

fn refuse_in_update(update: &ast::Update) -> Result<()> {
    refuse(&[
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

/// New values of an UPDATE.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    /// By column position.
    pub values: BTreeMap<usize, ast::Expr>,
    /// Positions of columns that are set to their default.
    pub defaulted: BTreeSet<usize>,
}

impl Assigned {
    pub(crate) fn of(assignments: &[ast::Assignment], table: &Table) -> Result<Assigned> {
        let mut assigned = Assigned::default();
        for assignment in assignments {
            match (&assignment.target, &assignment.value) {
                (ast::AssignmentTarget::ColumnName(name), value) => assigned.add(table, name, value)?,
                (ast::AssignmentTarget::Tuple(names), ast::Expr::Tuple(values)) if names.len() == values.len() => {
                    names.iter().zip(values).try_for_each(|(name, value)| assigned.add(table, name, value))?;
                }
                _ => return Err(Error::unsupported("assignment of a row to several columns at once")),
            }
        }
        Ok(assigned)
    }

    fn add(&mut self, table: &Table, name: &ast::ObjectName, value: &ast::Expr) -> Result<()> {
        let Some(ident) = name.0.last().and_then(|part| part.as_ident()) else {
            return Err(Error::new(SqlState::Syntax, format!("{name} is not a column name")));
        };
        let position = table.column_position(&identifier(ident))?;
        if self.contains(position) {
            return Err(Error::new(SqlState::Syntax, format!("column {ident} is assigned twice")));
        }
        match value {
            ast::Expr::Identifier(word) if is_default(word) => {
                self.defaulted.insert(position);
            }
            _ if table.rules.identities.get(&table.column_id(position)).is_some_and(|identity| identity.is_always) => {
                let message = format!("column {ident} is GENERATED ALWAYS and can only be set to DEFAULT");
                return Err(Error::new(SqlState::GeneratedAlways, message));
            }
            other => {
                self.values.insert(position, other.clone());
            }
        }
        Ok(())
    }

    pub(super) fn contains(&self, position: usize) -> bool {
        self.values.contains_key(&position) || self.defaulted.contains(&position)
    }

    fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.values.keys().copied().chain(self.defaulted.iter().copied())
    }

    /// Columns of rows as read, `columns`, as columns of rows to be stored: assigned ones converted, defaults put in.
    pub(crate) fn convert(
        &self,
        context: &Context<'_>,
        table: &Table,
        columns: &mut [ArrayRef],
        rows: usize,
    ) -> Result<()> {
        for (position, expr) in &self.values {
            let field = &table.shape.columns[*position].field;
            let origin = if is_literal(expr) { Origin::Literal } else { Origin::Expression };
            columns[*position] = assign(&columns[*position], field.data_type(), origin, field.name())?;
        }
        if !self.defaulted.is_empty() {
            let computed = computed::of(table, context)?;
            for position in &self.defaulted {
                columns[*position] = computed.missing(table, *position, rows, context)?;
            }
        }
        Ok(())
    }
}

/// The written table of an UPDATE or DELETE, and how its columns are named in the query.
pub(super) struct Target {
    pub parts: Vec<String>,
    factor: ast::TableWithJoins,
    alias: Option<ast::Ident>,
    written: Vec<ast::Ident>,
}

impl Target {
    pub(super) fn of(table: &ast::TableWithJoins) -> Result<Target> {
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
    pub(super) fn column(&self, table: &Table, position: usize) -> ast::Expr {
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

    /// The table as it stands in FROM, hidden key included.
    pub(super) fn factor_text(&self, table: &Table) -> String {
        if table.has_hidden_key() {
            let alias = quoted(&self.visible_name());
            return format!("{CATALOG_NAME}.{HIDDEN_SCHEMA}.\"{}\" AS {alias}", table.id().0);
        }
        self.factor.to_string()
    }

    /// One item per stored column.
    pub(super) fn stored_items(&self, table: &Table, alias: &str) -> Vec<ast::SelectItem> {
        let all = 0..table.shape.columns.len();
        all.map(|position| item(self.column(table, position), &format!("{alias}{position}"))).collect()
    }

    /// One item per stored column with its new value, then what is read of the old row.
    fn value_items(&self, table: &Table, assigned: &Assigned, tracks: Tracked) -> Vec<ast::SelectItem> {
        let value = |position: usize| match assigned.values.get(&position) {
            Some(expr) => expr.clone(),
            None => self.column(table, position),
        };
        let all = 0..table.shape.columns.len();
        let mut items: Vec<_> = all.map(|position| item(value(position), &format!("_strata_v{position}"))).collect();
        match tracks {
            Tracked::Nothing => {}
            Tracked::Keys => items.extend(self.key_items(table)),
            Tracked::Rows => items.extend(self.stored_items(table, "_strata_o")),
        }
        items
    }

    /// The name that the statement knows its table by.
    fn visible_name(&self) -> String {
        self.alias.as_ref().or(self.written.last()).map(identifier).unwrap_or_default()
    }

    fn select(
        &self,
        table: &Table,
        items: Vec<ast::SelectItem>,
        others: Option<&[ast::TableWithJoins]>,
        selection: Option<ast::Expr>,
    ) -> Result<ast::Statement> {
        let frame = if table.has_hidden_key() {
            parse_own(&format!("SELECT 1 FROM {}", self.factor_text(table)))?
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

fn changes_key(table: &Table, assigned: &Assigned) -> bool {
    table.shape.primary_key.iter().any(|position| assigned.contains(*position))
}

/// The drained rows of an UPDATE as rows to be stored.
fn changes(
    context: &Context<'_>,
    table: &Table,
    assigned: &Assigned,
    may_repeat: bool,
    tracks: Tracked,
    drained: &Drained,
) -> Result<Vec<Change>> {
    let (writer, encoder) = (TableWriter::new(table), KeyEncoder::new(&table.shape)?);
    let width = table.shape.columns.len();
    // Where the old key's columns are: among themselves, in the old row, or, if they stay, in the new one.
    let old_at = if tracks == Tracked::Nothing { 0 } else { width };
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for batch in &drained.batches {
        let batch = match (may_repeat, tracks) {
            (false, _) => batch.clone(),
            (true, Tracked::Keys) => first_of_keys(batch, &batch.columns()[width..], &encoder, &mut seen)?,
            (true, _) => first_matches(batch, table, old_at, &encoder, &mut seen)?,
        };
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = batch.columns()[..width].to_vec();
        assigned.convert(context, table, &mut columns, rows)?;
        let old = match tracks {
            Tracked::Nothing => Old::SameKeys,
            Tracked::Keys => Old::Keys(encoder.encode(&batch.columns()[width..], rows)?),
            Tracked::Rows => Old::Rows(writer.batch(batch.columns()[width..].to_vec(), rows)?),
        };
        changes.push(Change { old, new: writer.batch(columns, rows)? });
    }
    Ok(changes)
}

/// The rows of `batch` whose key was not seen before; all stored columns begin at `at`.
fn first_matches(
    batch: &RecordBatch,
    table: &Table,
    at: usize,
    encoder: &KeyEncoder,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<RecordBatch> {
    let key: Vec<ArrayRef> =
        table.shape.primary_key.iter().map(|position| batch.column(at + position).clone()).collect();
    first_of_keys(batch, &key, encoder, seen)
}

fn first_of_keys(
    batch: &RecordBatch,
    key: &[ArrayRef],
    encoder: &KeyEncoder,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<RecordBatch> {
    let keys = encoder.encode(key, batch.num_rows())?;
    let keep: BooleanArray = keys.into_iter().map(|key| Some(seen.insert(key))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}
