//! INSERT: VALUES, SELECT and the JSON form.
//!
//! Rows of plain constants become columns directly; anything else is a query whose result is converted to the columns'
//! types by the same rules. Either way the source is read to its end before the first row is written.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::array::{ArrayRef, new_null_array};
use datafusion::sql::sqlparser::ast;

use super::cells::{self, Cell};
use super::writer::TableWriter;
use super::{Context, is_literal};
use crate::catalog::Table;
use crate::error::{Error, Result, SqlState};
use crate::statement::json::JsonInsert;
use crate::statement::{identifier, name_parts, parse_own};
use crate::types::{Origin, assign, is_json_field};

/// Rows of constants are written in batches of this many.
const BATCH_ROWS: usize = 8192;
/// Lists of expressions up to this long become a union, whose columns find a common type where VALUES does not, as
/// for `('2024-01-01'), (current_date)`. Planning a union costs too much per row for longer ones.
const UNION_ROWS_MAX: usize = 64;

/// Runs an INSERT; returns the number of rows.
///
/// # Errors
/// Names, types, NULLs and keys that are not right; whatever the source query runs into.
pub(crate) async fn run(context: &mut Context<'_>, insert: &ast::Insert) -> Result<u64> {
    refuse_unsupported(insert)?;
    let ast::TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported("INSERT into anything but a table"));
    };
    let table = context.target(&name_parts(name)?)?;
    let targets = target_columns(insert, &table)?;
    let Some(source) = &insert.source else {
        return write_cells(context, &table, &[], &[vec![]]);
    };
    if let Some(rows) = constant_rows(source) {
        let columns = match rows.first() {
            Some(first) => targets.for_values(first.len(), &table)?,
            None => Vec::new(),
        };
        if rows.iter().any(|row| row.len() != columns.len()) {
            return Err(Error::new(SqlState::Syntax, "the rows of VALUES have different numbers of values"));
        }
        return write_cells(context, &table, &columns, &rows);
    }
    write_query(context, &table, &targets, source).await
}

/// Runs `INSERT INTO t {…}`; keys that are left out are NULL.
///
/// # Errors
/// As [`run`]; 42703 for a key that is no column.
pub(crate) fn run_json(context: &mut Context<'_>, insert: &JsonInsert) -> Result<u64> {
    let table = context.target(&insert.table)?;
    let mut columns = Vec::new();
    for (key, _) in insert.objects.iter().flatten() {
        // Keys are taken as written; SQL's folding to lower case is tried second.
        let position = table
            .column_position(key)
            .or_else(|error| table.column_position(&key.to_lowercase()).map_err(|_| error))?;
        if !columns.contains(&position) {
            columns.push(position);
        }
    }
    let value = |object: &[(String, Cell)], position: usize| {
        let field = &table.columns()[position].field;
        let found = object.iter().find(|(key, _)| key == field.name() || key.to_lowercase() == *field.name());
        let cell = found.map_or(Cell::Null, |(_, value)| value.clone());
        if is_json_field(field) { cells::document(cell) } else { cell }
    };
    let rows: Vec<Vec<Cell>> =
        insert.objects.iter().map(|object| columns.iter().map(|position| value(object, *position)).collect()).collect();
    write_cells(context, &table, &columns, &rows)
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
        (insert.on.is_some(), "INSERT … ON CONFLICT"),
        (insert.returning.is_some(), "INSERT … RETURNING"),
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
    /// Positions for `count` values: without a column list, values may be fewer than columns.
    fn for_values(&self, count: usize, table: &Table) -> Result<Vec<usize>> {
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
        match self {
            Targets::Named(positions) => Ok(positions.clone()),
            Targets::Leading => Ok((0..count).collect()),
        }
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
fn constant_rows(source: &ast::Query) -> Option<Vec<Vec<Cell>>> {
    let ast::SetExpr::Values(values) = source.body.as_ref() else { return None };
    let is_bare = source.with.is_none() && source.order_by.is_none() && source.limit_clause.is_none();
    if !is_bare || source.fetch.is_some() {
        return None;
    }
    values.rows.iter().map(|row| row.content.iter().map(cells::cell).collect()).collect()
}

fn write_cells(context: &mut Context<'_>, table: &Table, columns: &[usize], rows: &[Vec<Cell>]) -> Result<u64> {
    let writer = TableWriter::new(table);
    let mut batches = Vec::new();
    for chunk in rows.chunks(BATCH_ROWS) {
        let mut arrays: Vec<ArrayRef> = nulls(table, chunk.len());
        for (at, position) in columns.iter().enumerate() {
            let field = &table.columns()[*position].field;
            arrays[*position] = cells::column(chunk.iter().map(|row| &row[at]), field)?;
        }
        batches.push(writer.complete(context.engine.db(), arrays, chunk.len())?);
    }
    batches.iter().map(|batch| writer.insert(context.txn, batch)).sum()
}

fn nulls(table: &Table, rows: usize) -> Vec<ArrayRef> {
    table.columns().iter().map(|column| new_null_array(column.field.data_type(), rows)).collect()
}

async fn write_query(context: &mut Context<'_>, table: &Table, targets: &Targets, source: &ast::Query) -> Result<u64> {
    let literals = literal_columns(source);
    let source = plannable(source)?;
    let drained = context.drain(ast::Statement::Query(Box::new(source))).await?;
    let columns = targets.for_values(drained.column_count, table)?;
    let writer = TableWriter::new(table);
    let mut count = 0;
    for batch in &drained.batches {
        let mut arrays = nulls(table, batch.num_rows());
        for (at, position) in columns.iter().enumerate() {
            let field = &table.columns()[*position].field;
            let origin = if literals.contains(&at) { Origin::Literal } else { Origin::Expression };
            arrays[*position] = assign(batch.column(at), field.data_type(), origin, field.name())?;
        }
        let batch = writer.complete(context.engine.db(), arrays, batch.num_rows())?;
        count += writer.insert(context.txn, &batch)?;
    }
    Ok(count)
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
/// VALUES. DEFAULT becomes NULL.
fn plannable(source: &ast::Query) -> Result<ast::Query> {
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
    for expr in values.rows.iter_mut().flat_map(|row| row.content.iter_mut()) {
        if matches!(expr, ast::Expr::Identifier(ident) if cells::is_default(ident)) {
            *expr = ast::Expr::Value(ast::Value::Null.into());
        }
    }
    let is_short = values.rows.len() <= UNION_ROWS_MAX;
    if is_short || values.rows.iter().flat_map(|row| &row.content).any(has_subquery) {
        let rows = values.rows.iter().map(|row| select_of(&row.content)).collect::<Result<Vec<_>>>()?;
        *source.body = union_all(rows)?;
    }
    Ok(source)
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
