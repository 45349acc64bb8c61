//! INSERT, UPDATE and DELETE: read everything first, then write into the transaction.
//!
//! UPDATE and DELETE are rewritten to a SELECT that yields the old key and the new values, run through the ordinary
//! optimizer, and drained before the first write, so that a statement never meets its own rows (the Halloween problem).
//! DataFusion's own `delete_from` and `update` lose predicates and are never called.
//!
//! Always true:
//! * a key is given out once: inserts look for the key first, and two transactions that insert the same one conflict;
//! * uniqueness holds at the end of the statement, not between its rows;
//! * a statement that fails leaves nothing: the session rolls back to its beginning.

pub(crate) mod cells;
pub(crate) mod change;
pub(crate) mod insert;
pub(crate) mod writer;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::sql::sqlparser::ast;
use strata_olap::scan::{BoundView, ScanCounters};
use strata_oltp::txn::Transaction;

use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, TableName, store};
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::query::Reader;
use crate::statement::name_parts;

/// What a writing statement works with.
pub(crate) struct Context<'a> {
    pub engine: &'a Engine,
    pub base: &'a SessionState,
    pub catalog: &'a Arc<Catalog>,
    pub txn: &'a mut Transaction,
    pub counters: &'a mut Arc<ScanCounters>,
}

impl Context<'_> {
    /// The table that a statement writes; its definition may not change until the commit.
    ///
    /// # Errors
    /// Unknown and read-only tables.
    pub(crate) fn target(&mut self, parts: &[String]) -> Result<Arc<Table>> {
        let table = find_target(self.catalog, parts)?;
        store::pin_table(self.txn, &table)?;
        Ok(table)
    }

    /// Reads the query to its end: its column count and its rows. Nothing of the plan is left afterwards, because a plan
    /// holds the transaction's writes, and the next write would have to copy them.
    ///
    /// # Errors
    /// Whatever the query runs into; 53200 if its result does not fit the memory budget.
    pub(crate) async fn drain(&mut self, query: ast::Statement) -> Result<Drained> {
        let view = view_of(self.txn, self.catalog);
        *self.counters = Arc::clone(view.counters());
        let reader = Reader::new(self.base, self.engine, self.catalog, view);
        self.txn.check_age()?;
        reader.note(self.txn, &query)?;
        let mut rows = reader.query(query).await?;
        let memory = MemoryConsumer::new("rows to be written").register(reader.memory_pool());
        let (column_count, mut batches) = (rows.schema().fields().len(), Vec::new());
        while let Some(batch) = rows.next().await? {
            memory.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        Ok(Drained { column_count, batches, _memory: memory })
    }
}

/// What a statement of the transaction `txn` reads: its snapshot and its own writes.
pub(crate) fn view_of(txn: &Transaction, catalog: &Catalog) -> BoundView {
    let view = BoundView::new(txn.snapshot().clone());
    if txn.is_read_only() {
        return view;
    }
    let overlays = catalog.tables().filter_map(|table| Some((table.id(), txn.overlay(table.id())?)));
    overlays.fold(view, |view, (table, overlay)| view.with_overlay(table, overlay))
}

/// The table `parts` as the target of a write.
///
/// # Errors
/// Unknown and read-only tables.
pub(crate) fn find_target(catalog: &Catalog, parts: &[String]) -> Result<Arc<Table>> {
    let name = TableName::from_parts(parts)?;
    if name.schema == SYSTEM_SCHEMA || name.schema == INFORMATION_SCHEMA {
        return Err(Error::new(
            SqlState::InvalidStatement,
            format!("table {name} cannot be written: it shows the database itself"),
        ));
    }
    catalog.table(&name).map(Arc::clone)
}

/// Parts of the name of a plain table in FROM, UPDATE or DELETE, and its alias.
pub(crate) fn plain_table(
    from: &ast::TableWithJoins,
) -> Result<(Vec<String>, &ast::ObjectName, Option<&ast::TableAlias>)> {
    match &from.relation {
        ast::TableFactor::Table { name, alias, args: None, .. } if from.joins.is_empty() => {
            Ok((name_parts(name)?, name, alias.as_ref()))
        }
        _ => Err(Error::unsupported("writing to anything but one table")),
    }
}

/// Rows that a statement read and has not written yet; counted as memory of the query.
pub(crate) struct Drained {
    pub column_count: usize,
    pub batches: Vec<RecordBatch>,
    _memory: MemoryReservation,
}

/// A constant written out in the statement, whose text is still of unknown type.
pub(crate) fn is_literal(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Value(_) => true,
        ast::Expr::Nested(inner) => is_literal(inner),
        _ => false,
    }
}
