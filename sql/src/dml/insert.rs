//! INSERT: VALUES, SELECT and the JSON form.
//!
//! Rows of plain constants become columns directly; anything else is a query whose result is converted to the columns'
//! types by the same rules. Either way the source is read to its end before the first row is written.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave;
use datafusion::sql::sqlparser::ast;

use super::cells::{self, Cell};
use super::conflict::OnConflict;
use super::returning::{self, Returning};
use super::writer::TableWriter;
use super::{Context, Written, computed, foreign_keys, is_literal};
use crate::catalog::Table;
use crate::error::{Error, Result, SqlState};
use crate::statement::json::{JsonInsert, JsonObject};
use crate::statement::{identifier, name_parts, parse_expression, parse_own};
use crate::types::{Origin, assign, is_json_field};

/// Rows of constants are written in batches of this many.
const BATCH_ROWS: usize = 8192;
/// Lists of expressions up to this long become a union, whose columns find a common type where VALUES does not, as
/// for `('2024-01-01'), (current_date)`. Planning a union costs too much per row for longer ones.
const UNION_ROWS_MAX: usize = 64;

/// A constant of an INSERT; `None` stands for DEFAULT.
type Given = Option<Cell>;

/// Runs an INSERT.
///
/// # Errors
/// Names, types, NULLs, keys and rows that are not right; whatever the source query runs into.
pub(crate) async fn run(context: &mut Context<'_>, insert: &ast::Insert) -> Result<Written> {
    refuse_unsupported(insert)?;
    let ast::TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into anything but a table"));
    };
    let parts = name_parts(name)?;
    let table = context.target(&parts)?;
    let alias = insert.table_alias.as_ref().map(|alias| identifier(&alias.alias));
    let name = alias.unwrap_or_else(|| parts.last().cloned().unwrap_or_default());
    let mut sink = Sink::new(&table, name, insert)?;
    let targets = target_columns(insert, &table)?;
    let Some(source) = &insert.source else {
        write_cells(context, &mut sink, &[], &[vec![]]).await?;
        return sink.finish(context).await;
    };
    let (source, dropped) = without_default_columns(source);
    if let Some(rows) = constant_rows(&source) {
        let columns = match rows.first() {
            Some(first) => targets.for_values(first.len(), &dropped, &table)?,
            None => Vec::new(),
        };
        if rows.iter().any(|row| row.len() != columns.len()) {
            return Err(Error::new(SqlState::Syntax, "the rows of VALUES have different numbers of values"));
        }
        refuse_generated(&table, &columns, |at| rows.iter().any(|row| row[at].is_some()))?;
        write_cells(context, &mut sink, &columns, &rows).await?;
    } else {
        write_query(context, &mut sink, &targets, &source, &dropped).await?;
    }
    sink.finish(context).await
}

/// Runs `INSERT INTO t {…}`; keys that are left out get their defaults.
///
/// # Errors
/// As [`run`]; 42703 for a key that is no column.
pub(crate) async fn run_json(context: &mut Context<'_>, insert: &JsonInsert) -> Result<Written> {
    let table = context.target(&insert.table)?;
    let columns = keys_of(&table, &insert.objects, None)?;
    let rows = rows_of(&table, &columns, &insert.objects);
    refuse_generated(&table, &columns, |_| true)?;
    let mut sink = Sink::plain(&table);
    write_cells(context, &mut sink, &columns, &rows).await?;
    sink.finish(context).await
}

/// The columns of objects, by position: `None` for those that no object has, and defaults where one lacks a key that
/// others have. With `only`, other keys are passed over.
///
/// # Errors
/// 42703 for a key that is no column; values that are not right.
pub(crate) fn object_columns(
    context: &Context<'_>,
    table: &Table,
    objects: &[JsonObject],
    only: Option<&[usize]>,
) -> Result<Vec<Option<ArrayRef>>> {
    let columns = keys_of(table, objects, only)?;
    let rows = rows_of(table, &columns, objects);
    cell_columns(context, table, &columns, &rows)
}

/// Positions of the columns that the keys of the objects name.
fn keys_of(table: &Table, objects: &[JsonObject], only: Option<&[usize]>) -> Result<Vec<usize>> {
    let mut columns = Vec::new();
    // Most objects have the keys of the one before, in the same order.
    let mut before: Vec<&str> = Vec::new();
    for object in objects {
        if object.iter().map(|(key, _)| key.as_str()).eq(before.iter().copied()) {
            continue;
        }
        before = object.iter().map(|(key, _)| key.as_str()).collect();
        for (key, _) in object {
            // Keys are taken as written; SQL's folding to lower case is tried second.
            let position = table
                .column_position(key)
                .or_else(|error| table.column_position(&key.to_lowercase()).map_err(|_| error));
            match (position, only) {
                (Ok(position), Some(only)) if !only.contains(&position) => {}
                (Err(_), Some(_)) => {}
                (position, _) => {
                    let position = position?;
                    if !columns.contains(&position) {
                        columns.push(position);
                    }
                }
            }
        }
    }
    Ok(columns)
}

fn rows_of(table: &Table, columns: &[usize], objects: &[JsonObject]) -> Vec<Vec<Given>> {
    let value = |object: &JsonObject, position: usize| {
        let field = &table.columns()[position].field;
        let exact = object.iter().find(|(key, _)| key == field.name());
        let found = exact.or_else(|| object.iter().find(|(key, _)| key.to_lowercase() == *field.name()));
        let cell = found.map(|(_, value)| value.clone());
        if is_json_field(field) { cell.map(cells::document) } else { cell }
    };
    objects.iter().map(|object| columns.iter().map(|position| value(object, *position)).collect()).collect()
}

/// Writes rows that a query or a batch gave: `columns` holds one array per visible column, `None` where the column's
/// default is wanted.
///
/// # Errors
/// As [`run`].
pub(crate) async fn write_columns(
    context: &mut Context<'_>,
    table: &Arc<Table>,
    columns: Vec<Option<ArrayRef>>,
    rows: usize,
) -> Result<u64> {
    let mut sink = Sink::plain(table);
    sink.write(context, columns, rows).await?;
    Ok(sink.finish(context).await?.count)
}

/// The columns and values of `INSERT … VALUES`, if every column that is named gets one in every row.
pub(crate) fn placed_values<'a>(insert: &'a ast::Insert, table: &Table) -> Option<(Vec<usize>, Vec<&'a [ast::Expr]>)> {
    refuse_unsupported(insert).ok()?;
    let values = bare_values(insert.source.as_ref()?)?;
    let rows: Vec<&[ast::Expr]> = values.rows.iter().map(|row| row.content.as_slice()).collect();
    let width = rows.first()?.len();
    if rows.iter().any(|row| row.len() != width || row.iter().any(is_default)) {
        return None;
    }
    let columns = target_columns(insert, table).ok()?.for_values(width, &BTreeSet::new(), table).ok()?;
    refuse_generated(table, &columns, |_| true).ok()?;
    Some((columns, rows))
}

/// Writes the rows of `insert` with ON CONFLICT and RETURNING as it says; `columns` as for [`write_columns`].
///
/// # Errors
/// As [`run`].
pub(crate) async fn write_row_columns(
    context: &mut Context<'_>,
    table: &Arc<Table>,
    name: &str,
    insert: &ast::Insert,
    columns: Vec<Option<ArrayRef>>,
    rows: usize,
) -> Result<Written> {
    let mut sink = Sink::new(table, name.to_owned(), insert)?;
    sink.write(context, columns, rows).await?;
    sink.finish(context).await
}

/// Where rows of one INSERT go.
struct Sink<'a> {
    table: Arc<Table>,
    /// What the statement calls the table.
    name: String,
    on: Option<OnConflict>,
    returning: Option<Returning<'a>>,
    /// Keys that the statement has inserted or met, if it has an ON CONFLICT.
    accepted: HashSet<Vec<u8>>,
    count: u64,
    /// Rows for RETURNING.
    written: Vec<RecordBatch>,
}

impl<'a> Sink<'a> {
    fn plain(table: &Arc<Table>) -> Sink<'a> {
        let (name, accepted) = (table.name.clone(), HashSet::new());
        Sink { table: Arc::clone(table), name, on: None, returning: None, accepted, count: 0, written: Vec::new() }
    }

    fn new(table: &Arc<Table>, name: String, insert: &'a ast::Insert) -> Result<Sink<'a>> {
        let on = match &insert.on {
            None => None,
            Some(ast::OnInsert::OnConflict(on)) => Some(OnConflict::new(on, table)?),
            Some(_) => return Err(Error::unsupported("INSERT … ON DUPLICATE KEY").with_hint("use ON CONFLICT")),
        };
        let returning = Returning::new(insert.returning.as_deref(), &name);
        Ok(Sink { name, on, returning, ..Sink::plain(table) })
    }

    /// Completes rows with defaults, checks them, and writes them.
    async fn write(&mut self, context: &mut Context<'_>, columns: Vec<Option<ArrayRef>>, rows: usize) -> Result<()> {
        let table = Arc::clone(&self.table);
        let computed = computed::of(&table, context)?;
        let mut arrays = Vec::with_capacity(columns.len());
        for (position, array) in columns.into_iter().enumerate() {
            arrays.push(match array {
                Some(array) => array,
                None => computed.missing(&table, position, rows, context)?,
            });
        }
        let writer = TableWriter::new(&table);
        let batch = writer.complete(context.engine.db(), arrays, rows)?;
        computed.check(&table, &batch)?;
        let Some(on) = &self.on else {
            return self.insert(context, batch);
        };
        let resolved = on.resolve(context, &table, &batch, &mut self.accepted)?;
        let (count, met) = on.settle(context, &table, &self.name, &resolved).await?;
        self.count += count;
        if self.returning.is_some() {
            self.written.extend(met);
        }
        self.insert(context, resolved.fresh)
    }

    fn insert(&mut self, context: &mut Context<'_>, batch: RecordBatch) -> Result<()> {
        self.count += TableWriter::new(&self.table).insert(context.txn, &batch)?;
        foreign_keys::note_children(context, &self.table, &batch, &|_| true)?;
        if self.returning.is_some() {
            self.written.push(batch);
        }
        Ok(())
    }

    async fn finish(self, context: &mut Context<'_>) -> Result<Written> {
        let returned = returning::rows(context, &self.table, self.returning, self.written).await?;
        Ok(Written { count: self.count, returned })
    }
}

/// Refuses values for columns that are GENERATED ALWAYS; `is_given` says whether a target has any but DEFAULT.
pub(super) fn refuse_generated(table: &Table, columns: &[usize], is_given: impl Fn(usize) -> bool) -> Result<()> {
    for (at, position) in columns.iter().enumerate() {
        let identity = table.rules.identities.get(&table.column_id(*position));
        if identity.is_some_and(|identity| identity.is_always) && is_given(at) {
            let name = table.columns()[*position].field.name();
            let message = format!("column {name} of table {} is GENERATED ALWAYS", table.name);
            return Err(Error::new(SqlState::GeneratedAlways, message)
                .with_hint(format!("leave {name} out, or write DEFAULT for it")));
        }
    }
    Ok(())
}

/// The query that an INSERT reads from, for EXPLAIN.
pub(crate) fn explained(insert: &ast::Insert) -> Result<ast::Statement> {
    match &insert.source {
        Some(source) => Ok(ast::Statement::Query(source.clone())),
        None => parse_own("SELECT NULL"),
    }
}

fn refuse_unsupported(insert: &ast::Insert) -> Result<()> {
    let refused = [
        (insert.overwrite, "INSERT OVERWRITE"),
        (insert.or.is_some() || insert.ignore || insert.replace_into, "INSERT that ignores or replaces rows"),
        (!insert.assignments.is_empty(), "INSERT … SET"),
        (insert.partitioned.is_some() || !insert.after_columns.is_empty(), "INSERT … PARTITION"),
        (insert.format_clause.is_some() || insert.settings.is_some(), "INSERT … FORMAT"),
        (insert.multi_table_insert_type.is_some(), "INSERT into several tables"),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => Ok(()),
    }
}

/// Columns that an INSERT names, or all of them.
enum Targets {
    Named(Vec<usize>),
    Leading,
}

impl Targets {
    /// Positions for `count` values and those `dropped`, which were DEFAULT in every row: without a column list, values
    /// may be fewer than columns.
    fn for_values(&self, count: usize, dropped: &BTreeSet<usize>, table: &Table) -> Result<Vec<usize>> {
        let given = count;
        let count = count + dropped.len();
        let (expected, is_exact) = match self {
            Targets::Named(positions) => (positions.len(), true),
            Targets::Leading => (table.columns().len(), false),
        };
        if count > expected || is_exact && count < expected {
            let message = format!("INSERT into {} has {count} values for {expected} columns", table.name);
            let names: Vec<&str> = match self {
                Targets::Named(positions) => {
                    positions.iter().map(|at| table.columns()[*at].field.name().as_str()).collect()
                }
                Targets::Leading => table.columns().iter().map(|column| column.field.name().as_str()).collect(),
            };
            return Err(
                Error::new(SqlState::Syntax, message).with_detail(format!("the columns are {}", names.join(", ")))
            );
        }
        let all = match self {
            Targets::Named(positions) => positions.clone(),
            Targets::Leading => (0..count).collect(),
        };
        let kept = all.into_iter().enumerate().filter(|(at, _)| !dropped.contains(at)).map(|(_, position)| position);
        let kept: Vec<usize> = kept.collect();
        debug_assert_eq!(kept.len(), given);
        Ok(kept)
    }
}

fn target_columns(insert: &ast::Insert, table: &Table) -> Result<Targets> {
    if insert.columns.is_empty() {
        return Ok(Targets::Leading);
    }
    let mut positions = Vec::with_capacity(insert.columns.len());
    for column in &insert.columns {
        let Some(ident) = column.0.last().and_then(|part| part.as_ident()) else {
            return Err(Error::new(SqlState::Syntax, format!("{column} is not a column name")));
        };
        let position = table.column_position(&identifier(ident))?;
        if positions.contains(&position) {
            return Err(Error::new(SqlState::DuplicateColumn, format!("column {ident} is named twice")));
        }
        positions.push(position);
    }
    Ok(Targets::Named(positions))
}

/// The rows of a bare `VALUES`, if all are plain constants.
fn constant_rows(source: &ast::Query) -> Option<Vec<Vec<Given>>> {
    let values = bare_values(source)?;
    let given = |expr: &ast::Expr| if is_default(expr) { Some(None) } else { cells::cell(expr).map(Some) };
    values.rows.iter().map(|row| row.content.iter().map(given).collect()).collect()
}

fn bare_values(source: &ast::Query) -> Option<&ast::Values> {
    let ast::SetExpr::Values(values) = source.body.as_ref() else { return None };
    let is_bare = source.with.is_none() && source.order_by.is_none() && source.limit_clause.is_none();
    (is_bare && source.fetch.is_none()).then_some(values)
}

pub(super) fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(ident) if cells::is_default(ident))
}

/// The source without columns that are DEFAULT in every row of VALUES, and the places these had.
fn without_default_columns(source: &ast::Query) -> (Cow<'_, ast::Query>, BTreeSet<usize>) {
    let Some(values) = bare_values(source) else { return (Cow::Borrowed(source), BTreeSet::new()) };
    let width = values.rows.iter().map(|row| row.content.len()).min().unwrap_or(0);
    let is_same_width = values.rows.iter().all(|row| row.content.len() == width);
    let is_dropped = |at: &usize| is_same_width && values.rows.iter().all(|row| is_default(&row.content[*at]));
    let dropped: BTreeSet<usize> = (0..width).filter(is_dropped).collect();
    if dropped.is_empty() {
        return (Cow::Borrowed(source), dropped);
    }
    let mut source = source.clone();
    if let ast::SetExpr::Values(values) = source.body.as_mut() {
        for row in &mut values.rows {
            let mut at = 0;
            row.content.retain(|_| {
                at += 1;
                !dropped.contains(&(at - 1))
            });
        }
    }
    (Cow::Owned(source), dropped)
}

async fn write_cells(
    context: &mut Context<'_>,
    sink: &mut Sink<'_>,
    columns: &[usize],
    rows: &[Vec<Given>],
) -> Result<()> {
    let table = Arc::clone(&sink.table);
    for chunk in rows.chunks(BATCH_ROWS) {
        let arrays = cell_columns(context, &table, columns, chunk)?;
        sink.write(context, arrays, chunk.len()).await?;
    }
    Ok(())
}

/// One array per column of the table that `columns` names; `None` for the others.
fn cell_columns(
    context: &Context<'_>,
    table: &Table,
    columns: &[usize],
    rows: &[Vec<Given>],
) -> Result<Vec<Option<ArrayRef>>> {
    let mut arrays: Vec<Option<ArrayRef>> = vec![None; table.columns().len()];
    for (at, position) in columns.iter().enumerate() {
        arrays[*position] = Some(given_column(context, table, *position, rows.iter().map(|row| &row[at]))?);
    }
    Ok(arrays)
}

/// One column of constants, defaults put in where they are asked for.
fn given_column<'c>(
    context: &Context<'_>,
    table: &Table,
    position: usize,
    given: impl Iterator<Item = &'c Given> + Clone,
) -> Result<ArrayRef> {
    const NULL: &Cell = &Cell::Null;
    let field = &table.columns()[position].field;
    let array = cells::column(given.clone().map(|cell| cell.as_ref().unwrap_or(NULL)), field)?;
    let default_count = given.clone().filter(|cell| cell.is_none()).count();
    if default_count == 0 {
        return Ok(array);
    }
    let computed = computed::of(table, context)?;
    let defaults = computed.missing(table, position, default_count, context)?;
    let mut used = 0;
    let place = |(row, cell): (usize, &Given)| {
        used += usize::from(cell.is_none());
        if cell.is_none() { (1, used - 1) } else { (0, row) }
    };
    let places: Vec<(usize, usize)> = given.enumerate().map(place).collect();
    Ok(interleave(&[array.as_ref(), defaults.as_ref()], &places)?)
}

async fn write_query(
    context: &mut Context<'_>,
    sink: &mut Sink<'_>,
    targets: &Targets,
    source: &ast::Query,
    dropped: &BTreeSet<usize>,
) -> Result<()> {
    let table = Arc::clone(&sink.table);
    let literals = literal_columns(source);
    let width = bare_values(source).and_then(|values| values.rows.first()).map(|row| row.content.len());
    let known = width.map(|width| targets.for_values(width, dropped, &table)).transpose()?;
    let source = plannable(source, &table, known.as_deref())?;
    let drained = context.drain(ast::Statement::Query(Box::new(source))).await?;
    let columns = targets.for_values(drained.schema.fields().len(), dropped, &table)?;
    refuse_generated(&table, &columns, |_| true)?;
    for batch in &drained.batches {
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; table.columns().len()];
        for (at, position) in columns.iter().enumerate() {
            let field = &table.columns()[*position].field;
            let origin = if literals.contains(&at) { Origin::Literal } else { Origin::Expression };
            arrays[*position] = Some(assign(batch.column(at), field.data_type(), origin, field.name())?);
        }
        sink.write(context, arrays, batch.num_rows()).await?;
    }
    Ok(())
}

/// Output columns that are constants in every row, so that their text may become anything.
fn literal_columns(source: &ast::Query) -> BTreeSet<usize> {
    match source.body.as_ref() {
        ast::SetExpr::Values(values) => {
            let width = values.rows.first().map_or(0, |row| row.content.len());
            let is_constant = |at: &usize| values.rows.iter().all(|row| row.content.get(*at).is_some_and(is_literal));
            (0..width).filter(is_constant).collect()
        }
        ast::SetExpr::Select(select) => {
            let is_constant = |item: &ast::SelectItem| match item {
                ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => is_literal(expr),
                _ => false,
            };
            // A wildcard makes positions unknown; nothing after it counts as constant.
            let is_wild = |item: &ast::SelectItem| {
                matches!(item, ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..))
            };
            let known = select.projection.iter().take_while(|item| !is_wild(item)).enumerate();
            known.filter(|(_, item)| is_constant(item)).map(|(at, _)| at).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// The source with names that never clash, because `SELECT a, a` is fine as a source but not for the planner; and
/// a `VALUES` list with subqueries as `SELECT … UNION ALL SELECT …`, because the planner cannot run those inside
/// VALUES. DEFAULT becomes the expression of the column's default; `columns` are the positions of the values.
fn plannable(source: &ast::Query, table: &Table, columns: Option<&[usize]>) -> Result<ast::Query> {
    let mut source = source.clone();
    if source.order_by.is_none()
        && let ast::SetExpr::Select(select) = source.body.as_mut()
    {
        for (at, item) in select.projection.iter_mut().enumerate() {
            if let ast::SelectItem::UnnamedExpr(expr) = item {
                *item = select_item((at, expr.clone()));
            }
        }
    }
    let ast::SetExpr::Values(values) = source.body.as_mut() else { return Ok(source) };
    for row in &mut values.rows {
        for (at, expr) in row.content.iter_mut().enumerate().filter(|(_, expr)| is_default(expr)) {
            *expr = default_of(table, columns.and_then(|columns| columns.get(at)).copied())?;
        }
    }
    let is_short = values.rows.len() <= UNION_ROWS_MAX;
    if is_short || values.rows.iter().flat_map(|row| &row.content).any(has_subquery) {
        let rows = values.rows.iter().map(|row| select_of(&row.content)).collect::<Result<Vec<_>>>()?;
        *source.body = union_all(rows)?;
    }
    Ok(source)
}

/// The default of the column at `position`, written out.
fn default_of(table: &Table, position: Option<usize>) -> Result<ast::Expr> {
    let Some(position) = position else { return Ok(ast::Expr::Value(ast::Value::Null.into())) };
    let id = table.column_id(position);
    if table.rules.identities.contains_key(&id) {
        let name = table.columns()[position].field.name();
        return Err(Error::unsupported(format!("DEFAULT for column {name} in some rows only, beside expressions"))
            .with_hint("leave the column out in a statement of its own for those rows"));
    }
    match table.rules.defaults.get(&id) {
        Some(text) => parse_expression(text),
        None => Ok(ast::Expr::Value(ast::Value::Null.into())),
    }
}

fn has_subquery(expr: &ast::Expr) -> bool {
    let is_subquery = |expr: &ast::Expr| match expr {
        ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    ast::visit_expressions(expr, is_subquery).is_break()
}

fn select_of(row: &[ast::Expr]) -> Result<ast::SetExpr> {
    let ast::Statement::Query(frame) = parse_own("SELECT NULL")? else {
        return Err(Error::internal("a frame that is no query"));
    };
    let ast::SetExpr::Select(mut select) = *frame.body else {
        return Err(Error::internal("a frame that is no SELECT"));
    };
    select.projection = row.iter().cloned().enumerate().map(select_item).collect();
    Ok(ast::SetExpr::Select(select))
}

/// A balanced tree, because a chain as deep as the list is long would exhaust the stack.
fn union_all(mut rows: Vec<ast::SetExpr>) -> Result<ast::SetExpr> {
    let half = rows.len() / 2;
    if half == 0 {
        return rows.pop().ok_or_else(|| Error::new(SqlState::Syntax, "VALUES without rows"));
    }
    let right = rows.split_off(half);
    Ok(ast::SetExpr::SetOperation {
        op: ast::SetOperator::Union,
        set_quantifier: ast::SetQuantifier::All,
        left: Box::new(union_all(rows)?),
        right: Box::new(union_all(right)?),
    })
}

fn select_item((at, expr): (usize, ast::Expr)) -> ast::SelectItem {
    ast::SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', format!("column{}", at + 1)) }
}
