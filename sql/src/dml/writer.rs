//! `TableWriter`: batches of a table's columns → checked, encoded rows and index entries in a transaction.
//!
//! A statement hands over all of its changes at once. Old entries go first, new ones come after, and uniqueness is looked
//! at when they do: so it holds at the end of the statement, not between its rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use strata_olap::convert::batch::{BatchEncoder, EncodedRows};
use strata_oltp::txn::Transaction;
use strata_oltp::{Db, TableSchema};

use super::shown_columns;
use crate::catalog::Table;
use crate::catalog::index::TableIndex;
use crate::error::{Error, Result, SqlState};
use crate::expr::json;
use crate::types::{check_length, is_json_field};

/// Batches below this size look every key up; the range check costs about as much as a few look-ups.
const RANGE_CHECK_ROWS_MIN: usize = 8;

/// Writes rows of one table. Holds no rows itself.
pub(crate) struct TableWriter<'a> {
    table: &'a Table,
}

/// Rows before and after an UPDATE: same number, same order.
pub(crate) struct Change {
    pub old: Old,
    pub new: RecordBatch,
}

/// What is known of rows before an UPDATE.
pub(crate) enum Old {
    /// Their keys stay, and no index depends on what changes.
    SameKeys,
    /// Their full keys; no index depends on what changes.
    Keys(Vec<Vec<u8>>),
    /// All stored columns.
    Rows(RecordBatch),
}

impl<'a> TableWriter<'a> {
    pub(crate) fn new(table: &'a Table) -> TableWriter<'a> {
        TableWriter { table }
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
        let rows = self.table.encoder.encode(batch)?;
        let are_new = self.table.has_hidden_key() || self.are_certainly_new(txn, &rows)?;
        for row in 0..rows.len() {
            if !are_new && txn.contains(self.table.id(), rows.key(row))? {
                return Err(self.duplicate_key(batch, row));
            }
            self.put(txn, &rows, row)?;
        }
        for index in &self.table.indexes {
            let entries = index.entries(batch, &rows)?;
            self.add_entries(txn, index, &entries, batch, |_| true)?;
        }
        Ok(rows.len() as u64)
    }

    /// Deletes the rows under `keys`.
    ///
    /// # Errors
    /// 53200 if the transaction grows too large.
    pub(crate) fn delete_keys(&self, txn: &mut Transaction, keys: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
        keys.into_iter().try_for_each(|key| Ok(txn.delete(self.table.id(), key)?))
    }

    /// Deletes rows with their index entries; `batch` holds all of their stored columns.
    ///
    /// # Errors
    /// 53200 if the transaction grows too large.
    pub(crate) fn delete(&self, txn: &mut Transaction, batch: &RecordBatch) -> Result<()> {
        let rows = self.table.encoder.encode(batch)?;
        self.delete_keys(txn, (0..rows.len()).map(|row| rows.key(row).to_vec()))?;
        for index in &self.table.indexes {
            let entries = index.entries(batch, &rows)?;
            for row in 0..entries.len() {
                txn.delete(index.id(), entries.key(row).to_vec())?;
            }
        }
        Ok(())
    }

    /// Puts new rows in place of old ones. All old keys and entries go first, so that keys may be exchanged within the
    /// statement.
    ///
    /// # Errors
    /// 23505 naming the first new key that is taken at the end of the statement.
    pub(crate) fn update(&self, txn: &mut Transaction, changes: &[Change]) -> Result<()> {
        let encoded: Vec<Encoded> = changes.iter().map(|change| self.encode(change)).collect::<Result<_>>()?;
        for encoded in &encoded {
            let moved =
                encoded.old_keys.iter().enumerate().filter(|(row, key)| encoded.rows.key(*row) != key.as_slice());
            for (_, key) in moved {
                txn.delete(self.table.id(), key.clone())?;
            }
        }
        for (change, encoded) in changes.iter().zip(&encoded) {
            for row in 0..encoded.rows.len() {
                let is_moved = encoded.old_keys.get(row).is_some_and(|old| encoded.rows.key(row) != old.as_slice());
                if is_moved && txn.contains(self.table.id(), encoded.rows.key(row))? {
                    return Err(self.duplicate_key(&change.new, row));
                }
                self.put(txn, &encoded.rows, row)?;
            }
        }
        for index in &self.table.indexes {
            self.update_entries(txn, index, changes, &encoded)?;
        }
        Ok(())
    }

    fn encode(&self, change: &Change) -> Result<Encoded> {
        let rows = self.table.encoder.encode(&change.new)?;
        let (old_keys, old_rows) = match &change.old {
            Old::SameKeys => (Vec::new(), None),
            Old::Keys(keys) => (keys.clone(), None),
            Old::Rows(batch) => {
                let old = self.table.encoder.encode(batch)?;
                ((0..old.len()).map(|row| old.key(row).to_vec()).collect(), Some(old))
            }
        };
        Ok(Encoded { rows, old_keys, old_rows })
    }

    fn update_entries(
        &self,
        txn: &mut Transaction,
        index: &TableIndex,
        changes: &[Change],
        encoded: &[Encoded],
    ) -> Result<()> {
        let mut pairs = Vec::new();
        for (change, encoded) in changes.iter().zip(encoded) {
            let (Old::Rows(old), Some(old_rows)) = (&change.old, &encoded.old_rows) else { continue };
            let (old, new) = (index.entries(old, old_rows)?, index.entries(&change.new, &encoded.rows)?);
            for row in (0..old.len()).filter(|row| old.key(*row) != new.key(*row)) {
                txn.delete(index.id(), old.key(row).to_vec())?;
            }
            pairs.push((&change.new, old, new));
        }
        for (batch, old, new) in &pairs {
            let has_changed = |row: usize| old.key(row) != new.key(row) || old.row(row) != new.row(row);
            // An entry that keeps its key and gets other contents stands where its old self did.
            for row in (0..new.len()).filter(|row| old.key(*row) == new.key(*row) && has_changed(*row)) {
                txn.put(index.id(), new.key(row).to_vec(), new.row(row).to_vec())?;
            }
            self.add_entries(txn, index, new, batch, |row| old.key(row) != new.key(row))?;
        }
        Ok(())
    }

    /// Adds those entries that `is_new` asks for.
    pub(crate) fn add_entries(
        &self,
        txn: &mut Transaction,
        index: &TableIndex,
        entries: &EncodedRows,
        batch: &RecordBatch,
        is_new: impl Fn(usize) -> bool,
    ) -> Result<()> {
        for row in (0..entries.len()).filter(|row| is_new(*row)) {
            if index.index.is_unique && txn.contains(index.id(), entries.key(row))? {
                return Err(self.duplicate_entry(index, batch, row));
            }
            txn.put(index.id(), entries.key(row).to_vec(), entries.row(row).to_vec())?;
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
        let message = format!("duplicate key in table {}", self.table.name);
        self.duplicate(message, &self.table.shape.primary_key, batch, row)
            .with_hint("choose another key, or UPDATE the existing row")
    }

    /// 23505 naming table, constraint and values.
    pub(crate) fn duplicate_entry(&self, index: &TableIndex, batch: &RecordBatch, row: usize) -> Error {
        let what = if index.index.is_constraint { "unique constraint" } else { "unique index" };
        let message = format!("a row for table {} violates {what} {}", self.table.name, index.index.name);
        self.duplicate(message, &index.columns, batch, row)
    }

    fn duplicate(&self, message: String, columns: &[usize], batch: &RecordBatch, row: usize) -> Error {
        let (names, values) = shown_columns(batch, row, columns.iter().copied());
        Error::new(SqlState::UniqueViolation, message).with_detail(format!("key ({names})=({values}) already exists"))
    }
}

struct Encoded {
    rows: EncodedRows,
    /// Empty if keys stay.
    old_keys: Vec<Vec<u8>>,
    old_rows: Option<EncodedRows>,
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
