//! `TableWriter`: batches of a table's columns → checked, encoded rows in a transaction.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::array_value_to_string;
use strata_olap::convert::batch::{BatchEncoder, EncodedRows};
use strata_oltp::txn::Transaction;
use strata_oltp::{Db, TableSchema};

use crate::catalog::Table;
use crate::error::{Error, Result, SqlState};
use crate::expr::json;
use crate::types::{check_length, is_json_field};

/// Batches below this size look every key up; the range check costs about as much as a few look-ups.
const RANGE_CHECK_ROWS_MIN: usize = 8;

/// Writes rows of one table. Holds no rows itself.
pub(crate) struct TableWriter<'a> {
    table: &'a Table,
    encoder: BatchEncoder,
}

impl<'a> TableWriter<'a> {
    pub(crate) fn new(table: &'a Table) -> TableWriter<'a> {
        TableWriter { table, encoder: BatchEncoder::new(&table.shape) }
    }

    /// A batch of all stored columns from one array per visible column; a hidden row id is drawn from `db`.
    ///
    /// # Errors
    /// 23502 for NULL where none may be, 22001 for text that is too long.
    pub(crate) fn complete(&self, db: &Db, mut columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        debug_assert_eq!(columns.len(), self.table.columns().len());
        if self.table.has_hidden_key() {
            let first = db.allocate_row_ids(self.table.id(), rows as u64)?.cast_signed();
            columns.push(Arc::new(Int64Array::from_iter_values(first..first + rows as i64)));
        }
        self.batch(columns, rows)
    }

    /// A batch of all stored columns, checked.
    ///
    /// # Errors
    /// As [`TableWriter::complete`].
    pub(crate) fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        for (position, (column, array)) in self.table.shape.columns.iter().zip(&columns).enumerate() {
            if !column.field.is_nullable() && array.null_count() > 0 {
                return Err(self.not_null(position));
            }
            if let Some(limit) = self.table.chars_max.get(&position) {
                check_length(array, *limit, column.field.name())?;
            }
            if is_json_field(&column.field) {
                json::check(array.as_string_view(), Some(column.field.name()))?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(self.table.shape.arrow()), columns, &options)?)
    }

    fn not_null(&self, position: usize) -> Error {
        let name = self.table.shape.columns[position].field.name();
        let is_key = self.table.shape.primary_key.contains(&position);
        let what = if is_key { "is part of the primary key" } else { "is NOT NULL" };
        let message = format!("NULL in column {name} of table {}, which {what}", self.table.name);
        Error::new(SqlState::NotNullViolation, message).with_hint(format!("give {name} a value in every row"))
    }

    /// Inserts rows whose keys must be new. Returns their number.
    ///
    /// # Errors
    /// 23505 naming the first key that exists already, in the table or within the batch.
    pub(crate) fn insert(&self, txn: &mut Transaction, batch: &RecordBatch) -> Result<u64> {
        let rows = self.encoder.encode(batch)?;
        let are_new = self.table.has_hidden_key() || self.are_certainly_new(txn, &rows)?;
        for row in 0..rows.len() {
            if !are_new && txn.contains(self.table.id(), rows.key(row))? {
                return Err(self.duplicate_key(batch, row));
            }
            self.put(txn, &rows, row)?;
        }
        Ok(rows.len() as u64)
    }

    /// Replaces rows in place: `batch` holds their new values under unchanged keys.
    ///
    /// # Errors
    /// 53200 if the transaction grows too large.
    pub(crate) fn replace(&self, txn: &mut Transaction, batch: &RecordBatch) -> Result<()> {
        let rows = self.encoder.encode(batch)?;
        (0..rows.len()).try_for_each(|row| self.put(txn, &rows, row))
    }

    /// Moves rows to new keys: `batch` holds the new values, `old` the keys they had. Rows whose key stays are
    /// replaced. All old keys go first, so that keys may be exchanged within the statement.
    ///
    /// # Errors
    /// 23505 naming the first new key that is taken at the end of the statement.
    pub(crate) fn rekey(&self, txn: &mut Transaction, batches: &[(RecordBatch, Vec<Vec<u8>>)]) -> Result<()> {
        let encoded: Vec<EncodedRows> =
            batches.iter().map(|(batch, _)| self.encoder.encode(batch)).collect::<Result<_, _>>()?;
        for ((_, old), rows) in batches.iter().zip(&encoded) {
            for (row, old) in old.iter().enumerate().filter(|(row, old)| rows.key(*row) != old.as_slice()) {
                debug_assert!(row < rows.len());
                txn.delete(self.table.id(), old.clone())?;
            }
        }
        for ((batch, old), rows) in batches.iter().zip(&encoded) {
            for (row, old) in old.iter().enumerate() {
                if rows.key(row) != old.as_slice() && txn.contains(self.table.id(), rows.key(row))? {
                    return Err(self.duplicate_key(batch, row));
                }
                self.put(txn, rows, row)?;
            }
        }
        Ok(())
    }

    fn put(&self, txn: &mut Transaction, rows: &EncodedRows, row: usize) -> Result<()> {
        Ok(txn.put(self.table.id(), rows.key(row).to_vec(), rows.row(row).to_vec())?)
    }

    /// Whether the keys of `rows` can be seen to be new without looking each up: they rise strictly, and nothing in
    /// the table lies between the first and the last. This is how loads arrive.
    fn are_certainly_new(&self, txn: &Transaction, rows: &EncodedRows) -> Result<bool> {
        if rows.len() < RANGE_CHECK_ROWS_MIN || !(1..rows.len()).all(|row| rows.key(row - 1) < rows.key(row)) {
            return Ok(false);
        }
        let (first, mut end) = (rows.key(0), rows.key(rows.len() - 1).to_vec());
        end.push(0);
        let id = self.table.id();
        if let Some(own) = txn.overlay(id)
            && own.range(first.to_vec()..end.clone()).next().is_some()
        {
            return Ok(false);
        }
        let (view, at) = (txn.snapshot().view(), txn.snapshot().seqno());
        for segment in view.cold().segments(id) {
            let is_apart = view
                .cold()
                .key_range(segment)
                .is_some_and(|(smallest, largest)| largest.as_slice() < first || smallest >= end);
            if !is_apart {
                return Ok(false);
            }
        }
        match view.rows(id) {
            Some(fresh) => Ok(!fresh.scan(first..end.as_slice(), at, None)?.next()?),
            None => Ok(true),
        }
    }

    /// 23505 naming table and key.
    fn duplicate_key(&self, batch: &RecordBatch, row: usize) -> Error {
        let key = &self.table.shape.primary_key;
        let names: Vec<&str> = key.iter().map(|at| self.table.shape.columns[*at].field.name().as_str()).collect();
        let values: Vec<String> = key
            .iter()
            .map(|at| array_value_to_string(batch.column(*at), row).unwrap_or_else(|_| "?".to_owned()))
            .collect();
        let message = format!("duplicate key in table {}", self.table.name);
        Error::new(SqlState::UniqueViolation, message)
            .with_detail(format!("key ({})=({}) already exists", names.join(", "), values.join(", ")))
            .with_hint("choose another key, or UPDATE the existing row")
    }
}

/// Key columns, in key order → full keys.
pub(crate) struct KeyEncoder(BatchEncoder, Arc<TableSchema>);

impl KeyEncoder {
    /// # Errors
    /// None for the shape of an existing table.
    pub(crate) fn new(shape: &TableSchema) -> Result<KeyEncoder> {
        // A table of nothing but its key has the same keys.
        let columns: Vec<_> = shape.primary_key.iter().map(|position| shape.columns[*position].clone()).collect();
        let key = (0..columns.len()).collect();
        let shape = Arc::new(TableSchema::new(shape.table, shape.version, columns, key)?);
        Ok(KeyEncoder(BatchEncoder::new(&shape), shape))
    }

    /// Full keys of the rows whose key columns are `columns`.
    ///
    /// # Errors
    /// Keys that are too long.
    pub(crate) fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u8>>> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(self.1.arrow()), columns.to_vec(), &options)?;
        let encoded = self.0.encode(&batch)?;
        Ok((0..rows).map(|row| encoded.key(row).to_vec()).collect())
    }
}
