//! `Index`: another order over a table's rows, kept as rows of its own.
//!
//! An index is a table of kind `row` that no statement can name: its rows hold the indexed columns and the primary key of
//! the row they stand for, never a position, and change in the same commit as that row. So log, recovery, compaction,
//! backup and verification of indexes are those of tables.
//!
//! | index | key of its rows |
//! |---|---|
//! | plain | indexed columns, then those of the primary key |
//! | unique | indexed columns, then `_strata_tie`: empty, or the row's full key where an indexed column is NULL |
//!
//! So two rows that must not be equal have the same key, which two transactions that write them conflict on, and NULLs
//! are distinct. Indexed columns count as nullable whatever the table says, so that SET and DROP NOT NULL leave indexes
//! alone; NULL sorts last.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewBuilder};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use strata_olap::convert::batch::{BatchEncoder, EncodedRows};
use strata_olap::scan::IndexAccess;
use strata_oltp::schema::{Column, is_key_type};
use strata_oltp::{ColumnId, TableId, TableSchema};

use super::table::position_of;
use crate::error::{Error, Result};
use crate::types::sql_name;

/// What tells equal entries of a unique index apart where they may be equal.
const TIE_COLUMN: &str = "_strata_tie";

/// An index as the catalog stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub name: String,
    /// Number of the table that holds its rows.
    pub id: u32,
    /// Numbers of the indexed columns, in order.
    pub columns: Vec<u32>,
    #[serde(default)]
    pub is_unique: bool,
    /// Whether NULLs count as equal.
    #[serde(default)]
    pub nulls_are_equal: bool,
    /// Whether it backs a UNIQUE constraint and goes with that.
    #[serde(default)]
    pub is_constraint: bool,
    /// Whether rows from before its creation may still be missing: it is written, but not read.
    #[serde(default)]
    pub is_building: bool,
}

/// An index of one table, ready to encode entries.
#[derive(Debug)]
pub(crate) struct TableIndex {
    pub index: Index,
    pub shape: Arc<TableSchema>,
    /// Positions in the table of the indexed columns.
    pub columns: Vec<usize>,
    /// Positions in the table of the columns after them; the tie is none of them.
    rest: Vec<usize>,
    encoder: BatchEncoder,
}

impl TableIndex {
    pub(crate) fn new(index: &Index, table: &TableSchema) -> Result<TableIndex> {
        let columns = index.columns.iter().map(|id| position_of(table, *id)).collect::<Result<Vec<_>>>()?;
        let rest: Vec<usize> = table.primary_key.iter().copied().filter(|key| !columns.contains(key)).collect();
        let mut fields: Vec<Field> =
            columns.iter().map(|position| table.columns[*position].field.clone().with_nullable(true)).collect();
        let key_columns = if index.is_unique {
            fields.push(Field::new(TIE_COLUMN, DataType::BinaryView, false));
            fields.len()
        } else {
            fields.len() + rest.len()
        };
        fields.extend(rest.iter().map(|position| table.columns[*position].field.clone()));
        let numbered = fields.into_iter().zip(0..).map(|(field, id)| Column { id: ColumnId(id), field });
        let shape = TableSchema::new(TableId(index.id), 1, numbered.collect(), (0..key_columns).collect())?;
        let shape = Arc::new(shape);
        Ok(TableIndex { index: index.clone(), columns, rest, encoder: BatchEncoder::new(&shape), shape })
    }

    /// The index as a scan of the table uses it.
    pub(crate) fn access(&self, table: &TableSchema) -> IndexAccess {
        let tie = self.index.is_unique.then_some(None);
        let columns: Vec<Option<usize>> =
            self.columns.iter().copied().map(Some).chain(tie).chain(self.rest.iter().copied().map(Some)).collect();
        let place = |position: &usize| columns.iter().position(|column| *column == Some(*position)).unwrap_or_default();
        let key = table.primary_key.iter().map(place).collect();
        let (name, shape) = (self.index.name.clone(), Arc::clone(&self.shape));
        IndexAccess { name, shape, key, columns, indexed_count: self.columns.len() }
    }

    pub(crate) fn id(&self) -> TableId {
        self.shape.table
    }

    /// Keys and rows of the entries for the table's rows `batch`, whose full keys are `keys`. The entry of each row is at
    /// the row's place.
    ///
    /// # Errors
    /// 54000 for indexed values that are too long for a key.
    pub(crate) fn entries(&self, batch: &RecordBatch, keys: &EncodedRows) -> Result<EncodedRows> {
        let mut columns: Vec<ArrayRef> = self.columns.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        if self.index.is_unique {
            columns.push(self.ties(&columns, keys));
        }
        columns.extend(self.rest.iter().map(|at| Arc::clone(batch.column(*at))));
        let columns: Vec<Option<ArrayRef>> = columns.into_iter().map(Some).collect();
        Ok(self.encoder.encode_columns(&columns, batch.num_rows())?)
    }

    /// The primary key's columns of the rows that `entries` stand for, in key order.
    pub(crate) fn key_columns(&self, entries: &RecordBatch, table: &TableSchema) -> Vec<ArrayRef> {
        self.access(table).key.iter().map(|at| Arc::clone(entries.column(*at))).collect()
    }

    /// Keys under which rows with these values of the indexed columns lie in a unique index, none of them NULL.
    ///
    /// # Errors
    /// As [`TableIndex::entries`].
    pub(crate) fn unique_keys(&self, values: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u8>>> {
        let mut ties = BinaryViewBuilder::with_capacity(rows);
        (0..rows).for_each(|_| ties.append_value([]));
        let columns = self.shape.columns[..values.len() + 1].to_vec();
        let shape = Arc::new(TableSchema::new(self.id(), 1, columns, (0..=values.len()).collect())?);
        let mut columns: Vec<Option<ArrayRef>> = values.iter().map(|array| Some(Arc::clone(array))).collect();
        columns.push(Some(Arc::new(ties.finish())));
        let encoded = BatchEncoder::new(&shape).encode_columns(&columns, rows)?;
        Ok((0..rows).map(|row| encoded.key(row).to_vec()).collect())
    }

    /// What the keys of all entries begin with whose first columns have these values.
    ///
    /// # Errors
    /// As [`TableIndex::entries`].
    pub(crate) fn prefixes(&self, values: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u8>>> {
        let shape =
            TableSchema::new(self.id(), 1, self.shape.columns[..values.len()].to_vec(), (0..values.len()).collect());
        let columns: Vec<Option<ArrayRef>> = values.iter().map(|array| Some(Arc::clone(array))).collect();
        let encoded = BatchEncoder::new(&Arc::new(shape?)).encode_columns(&columns, rows)?;
        Ok((0..rows).map(|row| encoded.key(row).to_vec()).collect())
    }

    fn ties(&self, indexed: &[ArrayRef], keys: &EncodedRows) -> ArrayRef {
        let mut ties = BinaryViewBuilder::with_capacity(keys.len());
        for row in 0..keys.len() {
            let nulls: Vec<u8> = indexed.iter().map(|array| u8::from(array.is_null(row))).collect();
            // In a key NULL looks like zero, which it is not equal to.
            ties.append_value(match () {
                () if !nulls.contains(&1) => &[],
                () if self.index.nulls_are_equal => nulls.as_slice(),
                () => keys.key(row),
            });
        }
        Arc::new(ties.finish())
    }

    /// Whether an UPDATE that assigns the columns at `assigned` may change entries.
    pub(crate) fn depends_on(&self, mut assigned: impl Iterator<Item = usize>) -> bool {
        assigned.any(|position| self.columns.contains(&position) || self.rest.contains(&position))
    }

    /// Refuses types that have no order as a key.
    ///
    /// # Errors
    /// 0A000 for arrays.
    pub(crate) fn check_type(column: &Field) -> Result<()> {
        if !is_key_type(column.data_type()) {
            let type_name = sql_name(column.data_type());
            return Err(Error::unsupported(format!("column {} of type {type_name} in a key or index", column.name()))
                .with_hint("leave it out, or keep what is searched for in a column of its own"));
        }
        Ok(())
    }
}
