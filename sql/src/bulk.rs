//! The bulk path: Arrow batches in, rows out, through the same transactions and the same log as every other write.
//!
//! Keys are looked up only where they could exist already: a batch whose keys rise and whose key range is empty in the
//! table is written straight away.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use strata_olap::scan::ScanCounters;
use strata_oltp::commit::Durability;
use strata_oltp::txn::Transaction;

use crate::catalog::{Catalog, Table, TableName, store};
use crate::ddl::Effects;
use crate::dml::foreign_keys::{self, Suspects};
use crate::dml::{Context, insert};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session::by_name;

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
    catalog: Arc<Catalog>,
    table: Arc<Table>,
    rows: usize,
    suspects: Vec<Suspects>,
    deferred: Vec<Suspects>,
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
            open.insert(&self.engine, &batch.slice(at, rows))?;
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
        Ok(Open { txn, catalog, table, rows: 0, suspects: Vec::new(), deferred: Vec::new() })
    }

    fn commit(&mut self, mut open: Open) -> Result<()> {
        open.settle(&self.engine)?;
        open.txn.commit(self.durability)?;
        self.committed += open.rows as u64;
        Ok(())
    }
}

impl Open {
    fn context<'a>(&'a mut self, engine: &'a Engine, rest: &'a mut (Arc<ScanCounters>, Effects)) -> Context<'a> {
        Context {
            engine,
            base: engine.base_state(),
            catalog: &mut self.catalog,
            txn: &mut self.txn,
            counters: &mut rest.0,
            effects: &mut rest.1,
            suspects: &mut self.suspects,
            deferred: &mut self.deferred,
        }
    }

    fn insert(&mut self, engine: &Engine, batch: &RecordBatch) -> Result<()> {
        let (table, mut rest) = (Arc::clone(&self.table), Default::default());
        let columns = by_name(&table, batch)?;
        let mut context = self.context(engine, &mut rest);
        // Constants and columns are written without waiting for anything.
        futures::executor::block_on(insert::write_columns(&mut context, &table, columns, batch.num_rows()))?;
        Ok(())
    }

    /// Looks at foreign keys, which may take a query.
    fn settle(&mut self, engine: &Engine) -> Result<()> {
        self.suspects.append(&mut self.deferred);
        if self.suspects.is_empty() {
            return Ok(());
        }
        let mut rest = Default::default();
        let mut context = self.context(engine, &mut rest);
        // On a thread of its own, because the caller's may belong to a runtime, where another one can neither be waited for
        // nor dropped.
        std::thread::scope(|scope| {
            let settling = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime.map_err(|error| Error::internal(format!("cannot wait for locks: {error}")))?;
                runtime.block_on(foreign_keys::settle(&mut context, true))
            });
            settling.join().unwrap_or_else(|_| Err(Error::internal("the check of foreign keys ended early")))
        })
    }
}
