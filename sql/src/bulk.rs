//! The bulk path: Arrow batches in, rows out, through the same transactions and the same log as every other write.
//!
//! Keys are looked up only where they could exist already: a batch whose keys rise and whose key range is empty in the
//! table is written straight away.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::record_batch::RecordBatch;
use strata_oltp::commit::Durability;
use strata_oltp::txn::Transaction;

use crate::catalog::{Table, TableName, store};
use crate::dml::writer::TableWriter;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::types::{Origin, assign};

/// Loads rows into one table in transactions of bounded size. Blocks; use it from an ordinary thread.
///
/// Several writers may load one table at a time, as long as their keys differ. Rows of a transaction that failed are
/// not in the table; those of earlier ones are.
///
/// # Examples
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, Int64Array};
/// # use arrow::record_batch::RecordBatch;
/// # use strata_sql::{Engine, EngineOptions};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::open_in_memory(EngineOptions::default()).unwrap();
/// engine.session().execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
/// let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
/// let mut writer = engine.bulk_writer("t", 1000).unwrap();
/// writer.write(&RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap();
/// assert_eq!(writer.finish().unwrap(), 10_000);
/// # });
/// ```
pub struct BulkWriter {
    engine: Engine,
    name: TableName,
    rows_per_transaction: usize,
    durability: Durability,
    open: Option<Open>,
    /// Rows committed so far.
    committed: u64,
}

struct Open {
    txn: Transaction,
    table: Arc<Table>,
    rows: usize,
}

impl BulkWriter {
    pub(crate) fn new(engine: Engine, table: &str, rows_per_transaction: usize) -> Result<BulkWriter> {
        let name = TableName::parse(table)?;
        let durability = engine.options().durability;
        let rows_per_transaction = rows_per_transaction.max(1);
        let mut writer = BulkWriter { engine, name, rows_per_transaction, durability, open: None, committed: 0 };
        writer.open = Some(writer.begin()?);
        Ok(writer)
    }

    /// Sets what later commits survive.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Rows committed so far.
    #[must_use]
    pub fn committed_rows(&self) -> u64 {
        self.committed
    }

    /// Takes the rows of `batch`, matched to columns by name; columns that are missing are NULL. Commits, at the
    /// writer's durability, whenever a transaction is full. Returns the number of rows taken.
    ///
    /// # Errors
    /// As INSERT; the transaction that was open is rolled back.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<u64> {
        let mut at = 0;
        while at < batch.num_rows() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin()?,
            };
            let rows = (self.rows_per_transaction - open.rows).min(batch.num_rows() - at);
            insert(&self.engine, &mut open.txn, &open.table, &batch.slice(at, rows))?;
            open.rows += rows;
            at += rows;
            if open.rows == self.rows_per_transaction {
                self.commit(open)?;
            } else {
                self.open = Some(open);
            }
        }
        Ok(batch.num_rows() as u64)
    }

    /// Commits what is left; returns the number of rows committed in all.
    ///
    /// # Errors
    /// As [`BulkWriter::write`].
    pub fn finish(mut self) -> Result<u64> {
        if let Some(open) = self.open.take() {
            self.commit(open)?;
        }
        Ok(self.committed)
    }

    fn begin(&self) -> Result<Open> {
        let mut txn = self.engine.db().begin()?;
        let catalog = self.engine.catalog_at(txn.snapshot())?;
        let table = Arc::clone(catalog.table(&self.name)?);
        store::pin_table(&mut txn, &table)?;
        Ok(Open { txn, table, rows: 0 })
    }

    fn commit(&mut self, open: Open) -> Result<()> {
        open.txn.commit(self.durability)?;
        self.committed += open.rows as u64;
        Ok(())
    }
}

/// Inserts the rows of `batch` into `table`, columns matched by name.
///
/// # Errors
/// As INSERT.
pub(crate) fn insert(engine: &Engine, txn: &mut Transaction, table: &Table, batch: &RecordBatch) -> Result<u64> {
    let schema = batch.schema();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; table.columns().len()];
    for (at, field) in schema.fields().iter().enumerate() {
        let position = table.column_position(field.name())?;
        let target = &table.columns()[position].field;
        // Text from files is as untyped as text in a statement.
        let array = assign(batch.column(at), target.data_type(), Origin::Literal, target.name())?;
        if columns[position].replace(array).is_some() {
            let message = format!("column {} appears twice in the batch", field.name());
            return Err(Error::new(SqlState::DuplicateColumn, message));
        }
    }
    let missing = |position: usize| new_null_array(table.columns()[position].field.data_type(), batch.num_rows());
    let columns = columns.into_iter().enumerate().map(|(at, array)| array.unwrap_or_else(|| missing(at))).collect();
    let writer = TableWriter::new(table);
    let rows = writer.complete(engine.db(), columns, batch.num_rows())?;
    writer.insert(txn, &rows)
}
