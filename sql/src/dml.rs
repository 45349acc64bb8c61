//! INSERT, UPDATE and DELETE: read everything first, then write into the transaction.
//!
//! UPDATE and DELETE are rewritten to a SELECT that yields the old key and the new values, run through the ordinary
//! optimizer, and drained before the first write, so that a statement never meets its own rows (the Halloween problem).
//! DataFusion's own `delete_from` and `update` lose predicates and are never called.
//!
//! Always true:
//! * a key is given out once: inserts look for the key first, and two transactions that insert the same one conflict;
//! * uniqueness and foreign keys hold at the end of the statement, not between its rows;
//! * a statement that fails leaves nothing: the session rolls back to its beginning.

pub(crate) mod cells;
pub(crate) mod change;
pub(crate) mod computed;
pub(crate) mod conflict;
pub(crate) mod foreign_keys;
pub(crate) mod insert;
pub(crate) mod lock;
pub(crate) mod merge;
pub(crate) mod returning;
pub(crate) mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::sql::sqlparser::ast;
use strata_olap::scan::{BoundView, ScanCounters};
use strata_oltp::Snapshot;
use strata_oltp::txn::Transaction;

use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, store};
use crate::ddl::Effects;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::pg_catalog::PG_SCHEMA;
use crate::query::{Reader, Rows};
use crate::statement::name_parts;
use foreign_keys::Suspects;

/// Rows that a query of ours reads besides tables, by the name they have in it.
pub(crate) type Frames = BTreeMap<String, Vec<RecordBatch>>;

/// What a writing statement works with.
pub(crate) struct Context<'a> {
    pub engine: &'a Engine,
    pub base: &'a SessionState,
    /// What the transaction sees; DDL changes it.
    pub catalog: &'a mut Arc<Catalog>,
    pub txn: &'a mut Transaction,
    pub counters: &'a mut Arc<ScanCounters>,
    pub effects: &'a mut Effects,
    /// Foreign keys to be looked at before the statement ends.
    pub suspects: &'a mut Vec<Suspects>,
    /// Foreign keys to be looked at before the transaction commits.
    pub deferred: &'a mut Vec<Suspects>,
}

/// What a statement wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub count: u64,
    /// Rows of RETURNING.
    pub returned: Option<Rows>,
}

impl Context<'_> {
    /// The table that a statement writes; its definition may not change until the commit.
    ///
    /// # Errors
    /// Unknown and read-only tables.
    pub(crate) fn target(&mut self, parts: &[String]) -> Result<Arc<Table>> {
        let table = find_target(self.catalog, parts)?;
        self.pin(&table)?;
        Ok(table)
    }

    /// Sees to it that the definition of `table` does not change until the commit.
    ///
    /// # Errors
    /// None for an existing table.
    pub(crate) fn pin(&mut self, table: &Table) -> Result<()> {
        store::pin_table(self.txn, table)
    }

    /// Reads the query to its end: its column count and its rows. Nothing of the plan is left afterwards, because a plan
    /// holds the transaction's writes, and the next write would have to copy them.
    ///
    /// # Errors
    /// Whatever the query runs into; 53200 if its result does not fit the memory budget.
    pub(crate) async fn drain(&mut self, query: ast::Statement) -> Result<Drained> {
        self.drain_at(query, None, Frames::new()).await
    }

    /// [`Context::drain`] with `frames` under [`crate::catalog::provider::HIDDEN_SCHEMA`], at another snapshot than the
    /// transaction's if one is given. What is read at another snapshot is not noted for the commit: the caller sees to it
    /// that it cannot change.
    ///
    /// # Errors
    /// As [`Context::drain`].
    pub(crate) async fn drain_at(
        &mut self,
        query: ast::Statement,
        snapshot: Option<Snapshot>,
        frames: Frames,
    ) -> Result<Drained> {
        let (reader, query) = self.reader_at(query, snapshot, frames).await?;
        let mut rows = reader.query(query).await?;
        let memory = MemoryConsumer::new("rows to be written").register(reader.memory_pool());
        let (schema, mut batches) = (rows.schema(), Vec::new());
        while let Some(batch) = rows.next().await? {
            memory.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        Ok(Drained { schema, batches, _memory: memory })
    }

    /// Hands the rows of the query to `visit` as they come.
    ///
    /// # Errors
    /// Whatever the query or `visit` runs into.
    pub(crate) async fn visit(
        &mut self,
        query: ast::Statement,
        mut visit: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let (reader, query) = self.reader_at(query, None, Frames::new()).await?;
        let mut rows = reader.query(query).await?;
        while let Some(batch) = rows.next().await? {
            visit(batch)?;
        }
        Ok(())
    }

    /// What reads the query, and the query bound to it.
    async fn reader_at(
        &mut self,
        query: ast::Statement,
        snapshot: Option<Snapshot>,
        frames: Frames,
    ) -> Result<(Reader, ast::Statement)> {
        let is_own = snapshot.is_none();
        let view = view_at(self.txn, snapshot.unwrap_or_else(|| self.txn.snapshot().clone()));
        if is_own {
            *self.counters = Arc::clone(view.counters());
        }
        let reader = Reader::new(self.base, self.engine, self.catalog, view, frames)?;
        self.txn.check_age()?;
        let query = reader.bind(query).await?;
        if is_own {
            reader.note(self.txn, &query)?;
        }
        Ok((reader, query))
    }
}

/// What a statement of the transaction `txn` reads: its snapshot and its own writes.
pub(crate) fn view_of(txn: &Transaction) -> BoundView {
    view_at(txn, txn.snapshot().clone())
}

fn view_at(txn: &Transaction, snapshot: Snapshot) -> BoundView {
    txn.overlays().fold(BoundView::new(snapshot), |view, (table, overlay)| view.with_overlay(table, overlay))
}

/// The table `parts` as the target of a write.
///
/// # Errors
/// Unknown and read-only tables.
pub(crate) fn find_target(catalog: &Catalog, parts: &[String]) -> Result<Arc<Table>> {
    let name = catalog.locate(parts)?;
    if name.schema == SYSTEM_SCHEMA || name.schema == INFORMATION_SCHEMA || name.schema == PG_SCHEMA {
        return Err(Error::new(
            SqlState::InvalidStatement,
            format!("table {name} cannot be written: it shows the database itself"),
        ));
    }
    catalog.table(&name).map(Arc::clone)
}

/// Names and values of some columns of a row, for messages.
pub(crate) fn shown_columns(batch: &RecordBatch, row: usize, columns: impl Iterator<Item = usize>) -> (String, String) {
    let schema = batch.schema();
    let value = |at: usize| {
        let array = batch.column(at);
        if array.is_null(row) {
            "NULL".to_owned()
        } else {
            array_value_to_string(array, row).unwrap_or_else(|_| "?".to_owned())
        }
    };
    let (names, values): (Vec<String>, Vec<String>) =
        columns.map(|at| (schema.field(at).name().clone(), value(at))).unzip();
    (names.join(", "), values.join(", "))
}

/// A row, for messages; long ones are cut.
pub(crate) fn shown(batch: &RecordBatch, row: usize) -> String {
    const CHARS_MAX: usize = 200;
    let (_, values) = shown_columns(batch, row, 0..batch.num_columns());
    if values.chars().count() > CHARS_MAX {
        return format!("({}…)", values.chars().take(CHARS_MAX).collect::<String>());
    }
    format!("({values})")
}

/// Parts of the name of a plain table in FROM, UPDATE or DELETE, and its alias.
pub(crate) fn plain_table(
    from: &ast::TableWithJoins,
) -> Result<(Vec<String>, &ast::ObjectName, Option<&ast::TableAlias>)> {
    match &from.relation {
        ast::TableFactor::Table { name, alias, args: None, version: None, .. } if from.joins.is_empty() => {
            Ok((name_parts(name)?, name, alias.as_ref()))
        }
        _ => Err(Error::unsupported("writing to anything but one table")),
    }
}

/// Rows that a statement read and has not written yet; counted as memory of the query.
pub(crate) struct Drained {
    pub schema: arrow::datatypes::SchemaRef,
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
