//! `SELECT … FOR UPDATE` and `FOR SHARE`: the rows of the answer stay as they are until the transaction ends.
//!
//! The query also yields the keys of the rows it reads; each is locked before the row is handed out. A row that changed
//! after the transaction's snapshot is a conflict (40001), as at PostgreSQL's REPEATABLE READ. With SKIP LOCKED the LIMIT
//! counts rows that could be locked.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;
use strata_oltp::schema::HIDDEN_PREFIX;
use strata_oltp::txn::LockMode;

use super::writer::KeyEncoder;
use super::{Context, Frames, plain_table};
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, Table};
use crate::error::{Error, Result, SqlState};
use crate::query::Rows;
use crate::statement::{identifier, name_parts, parse_own};

/// How long one attempt to lock blocks its thread.
const SLICE: Duration = Duration::from_millis(2);

/// Whether the query asks for locks.
pub(crate) fn asks(query: &ast::Statement) -> bool {
    matches!(query, ast::Statement::Query(query) if !query.locks.is_empty())
}

/// The same query without locks, for where they would be released at once.
pub(crate) fn without(query: ast::Statement) -> ast::Statement {
    match query {
        ast::Statement::Query(mut query) => {
            query.locks.clear();
            ast::Statement::Query(query)
        }
        other => other,
    }
}

/// What one clause asks of the rows of one table.
struct Wanted {
    table: Arc<Table>,
    /// What the query calls the table.
    alias: String,
    mode: LockMode,
    nonblock: Option<ast::NonBlock>,
}

/// Runs a query with locks.
///
/// # Errors
/// 0A000 for queries whose rows are not rows of tables; 40001, 40P01, 55P03.
pub(crate) async fn run(context: &mut Context<'_>, query: &ast::Query) -> Result<Rows> {
    let mut query = query.clone();
    let clauses = std::mem::take(&mut query.locks);
    let skips = clauses.iter().any(|clause| clause.nonblock == Some(ast::NonBlock::SkipLocked));
    let window = if skips { take_window(&mut query)? } else { Window::default() };
    let is_plain = query.with.is_none() && query.fetch.is_none();
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return Err(refused("a set operation or VALUES")) };
    let group_is_empty = matches!(&select.group_by, ast::GroupByExpr::Expressions(list, modifiers) if list.is_empty() && modifiers.is_empty());
    match () {
        () if !is_plain => return Err(refused("WITH or FETCH")),
        () if select.distinct.is_some() => return Err(refused("DISTINCT")),
        () if !group_is_empty || select.having.is_some() => return Err(refused("GROUP BY or HAVING")),
        () => {}
    }
    let wanted = wanted(context, select, &clauses)?;
    let mut key_counts = Vec::new();
    for (number, wanted) in wanted.iter().enumerate() {
        let key = &wanted.table.shape.primary_key;
        key_counts.push(key.len());
        for position in key {
            let name = wanted.table.shape.columns[*position].field.name().clone();
            let path = vec![quoted(&wanted.alias), quoted(&name)];
            let alias = quoted(&format!("{HIDDEN_PREFIX}l{number}_{position}"));
            select.projection.push(ast::SelectItem::ExprWithAlias { expr: ast::Expr::CompoundIdentifier(path), alias });
        }
    }
    let drained = context.drain_at(ast::Statement::Query(Box::new(query)), None, Frames::new()).await?;
    let width = drained.schema.fields().len() - key_counts.iter().sum::<usize>();
    let shown: Vec<usize> =
        (0..width).filter(|at| !drained.schema.field(*at).name().starts_with(HIDDEN_PREFIX)).collect();
    let (mut kept, mut left, mut skipped) = (Vec::new(), window.limit, window.offset);
    for batch in &drained.batches {
        let mut keep = vec![false; batch.num_rows()];
        let keys = keys(batch, width, &wanted)?;
        for (row, keep) in keep.iter_mut().enumerate() {
            if left == Some(0) {
                break;
            }
            if !lock_row(context, &wanted, &keys, row).await? {
                continue;
            }
            if skipped > 0 {
                skipped -= 1;
                continue;
            }
            *keep = true;
            left = left.map(|left| left - 1);
        }
        kept.push(filter_record_batch(&batch.project(&shown)?, &BooleanArray::from(keep))?);
    }
    let schema = Arc::new(drained.schema.project(&shown)?);
    Ok(Rows::of(schema, kept))
}

fn refused(what: &str) -> Error {
    Error::unsupported(format!("FOR UPDATE or FOR SHARE with {what}"))
        .with_hint("lock in a plain SELECT from tables, then compute")
}

fn quoted(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

/// LIMIT and OFFSET of a query that skips rows.
#[derive(Default)]
struct Window {
    limit: Option<u64>,
    offset: u64,
}

fn take_window(query: &mut ast::Query) -> Result<Window> {
    let constant = |expr: &ast::Expr| {
        expr.to_string().parse::<u64>().map_err(|_| Error::unsupported("SKIP LOCKED with a LIMIT that is no constant"))
    };
    match query.limit_clause.take() {
        None => Ok(Window::default()),
        Some(ast::LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => Ok(Window {
            limit: limit.as_ref().map(constant).transpose()?,
            offset: offset.as_ref().map(|offset| constant(&offset.value)).transpose()?.unwrap_or(0),
        }),
        Some(other) => Err(Error::unsupported(format!("SKIP LOCKED with{other}"))),
    }
}

/// The tables whose rows are to be locked; those without a primary key are read with their hidden one from here on.
fn wanted(context: &Context<'_>, select: &mut ast::Select, clauses: &[ast::LockClause]) -> Result<Vec<Wanted>> {
    let mut found = Vec::new();
    for item in &mut select.from {
        let joined = item.joins.iter().all(|join| {
            use ast::JoinOperator as Join;
            matches!(join.join_operator, Join::Join(_) | Join::Inner(_) | Join::CrossJoin(_))
        });
        if !joined {
            return Err(refused("an outer join"));
        }
        for factor in std::iter::once(&mut item.relation).chain(item.joins.iter_mut().map(|join| &mut join.relation)) {
            let alone = ast::TableWithJoins { relation: factor.clone(), joins: Vec::new() };
            let (parts, written, alias) = plain_table(&alone).map_err(|_| refused("anything but tables in FROM"))?;
            let alias = alias
                .map(|alias| identifier(&alias.name))
                .or_else(|| written.0.last().and_then(|part| part.as_ident()).map(identifier));
            let name = context.catalog.locate(&parts)?;
            if context.catalog.find_view(&name).is_some() {
                return Err(refused("a view"));
            }
            let (table, alias) = (Arc::clone(context.catalog.table(&name)?), alias.unwrap_or_default());
            if table.has_hidden_key() {
                *factor = hidden_factor(&table, &alias)?;
            }
            found.push((table, alias));
        }
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for clause in clauses {
        let of = clause.of.as_ref().map(name_parts).transpose()?.and_then(|mut parts| parts.pop());
        let mode = match clause.lock_type {
            ast::LockType::Update => LockMode::Exclusive,
            ast::LockType::Share => LockMode::Shared,
        };
        let before = wanted.len();
        for (table, alias) in found.iter().filter(|(_, alias)| of.as_ref().is_none_or(|of| of == alias)) {
            let (table, alias) = (Arc::clone(table), alias.clone());
            wanted.push(Wanted { table, alias, mode, nonblock: clause.nonblock });
        }
        if wanted.len() == before {
            let message = format!("{} of FOR UPDATE is no table of the query", of.unwrap_or_default());
            return Err(Error::new(SqlState::UndefinedTable, message));
        }
    }
    Ok(wanted)
}

fn hidden_factor(table: &Table, alias: &str) -> Result<ast::TableFactor> {
    let alias = alias.replace('"', "\"\"");
    let text = format!("SELECT 1 FROM {CATALOG_NAME}.{HIDDEN_SCHEMA}.\"{}\" AS \"{alias}\"", table.id().0);
    let ast::Statement::Query(query) = parse_own(&text)? else {
        return Err(Error::internal("a frame that is no query"));
    };
    match *query.body {
        ast::SetExpr::Select(mut select) if select.from.len() == 1 => Ok(select.from.remove(0).relation),
        _ => Err(Error::internal("a frame that is no SELECT")),
    }
}

/// Full keys of the rows of `batch`, per table to be locked.
fn keys(batch: &RecordBatch, width: usize, wanted: &[Wanted]) -> Result<Vec<(TableId, Vec<Vec<u8>>)>> {
    let mut at = width;
    let mut keys = Vec::new();
    for wanted in wanted {
        let count = wanted.table.shape.primary_key.len();
        let encoder = KeyEncoder::new(&wanted.table.shape)?;
        keys.push((wanted.table.id(), encoder.encode(&batch.columns()[at..at + count], batch.num_rows())?));
        at += count;
    }
    Ok(keys)
}

/// Locks what a row of the answer was made of; `false` if it is to be skipped.
async fn lock_row(
    context: &mut Context<'_>,
    wanted: &[Wanted],
    keys: &[(TableId, Vec<Vec<u8>>)],
    row: usize,
) -> Result<bool> {
    for (wanted, (table, keys)) in wanted.iter().zip(keys) {
        let is_free = lock(context, *table, &keys[row], wanted.mode, wanted.nonblock.as_ref()).await?;
        if !is_free {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Locks a key; `false` if somebody holds it and it is to be skipped. Waits in slices, so that a thread that serves
/// several sessions is not lost to one of them.
async fn lock(
    context: &mut Context<'_>,
    table: TableId,
    key: &[u8],
    mode: LockMode,
    nonblock: Option<&ast::NonBlock>,
) -> Result<bool> {
    if let Some(nonblock) = nonblock {
        return match context.txn.lock(table, key, mode, Some(Duration::ZERO)) {
            Err(strata_oltp::Error::LockTimeout { .. }) if *nonblock == ast::NonBlock::SkipLocked => Ok(false),
            other => other.map(|()| true).map_err(Error::from),
        };
    }
    wait_for(context, table, key, mode).await.map(|()| true)
}

/// Locks a key, waiting for as long as `lock_timeout` says.
///
/// # Errors
/// 40001 if the row changed after the snapshot, 40P01, 55P03.
pub(super) async fn wait_for(context: &mut Context<'_>, table: TableId, key: &[u8], mode: LockMode) -> Result<()> {
    let limit = context.txn.options().lock_timeout;
    let mut waited = Duration::ZERO;
    loop {
        match context.txn.lock(table, key, mode, Some(SLICE)) {
            Err(strata_oltp::Error::LockTimeout { .. }) if limit.is_none_or(|limit| waited < limit) => {
                waited += 2 * SLICE;
                tokio::time::sleep(SLICE).await;
            }
            other => return Ok(other?),
        }
    }
}
