//! `TableSchema`: columns, primary key and schema version of a table, in Arrow's type vocabulary.
//!
//! The row codec, the key codec and the segments are all derived from it. A column is known by its [`ColumnId`];
//! names are for people and may change. How a shape changes while rows stay as they are is in `evolution`.

mod bytes;
pub(crate) mod evolution;
mod widening;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};

use crate::error::{Error, Result};
use evolution::Evolution;

pub use widening::Widening;

/// Number of a table, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// Number of a column within its table, never reused; written into Parquet as the field id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnId(pub u32);

/// Names with this prefix belong to Strata; users may not use them and `SELECT *` does not show them.
pub const HIDDEN_PREFIX: &str = "_strata_";
/// Hidden key column of a table without a primary key: a row id from a logged block allocator.
pub const ROW_ID_COLUMN: &str = "_strata_rowid";
/// Hidden last column of a segment: the commit that wrote the row.
pub const SEQNO_COLUMN: &str = "_strata_seq";

/// Most columns of a table, hidden ones included. Rows name each by its position, so a wide table costs every row.
pub const COLUMNS_MAX: usize = 4096;

/// Where a table's cold rows live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageKind {
    /// Fresh rows in runs, cold rows in column segments.
    #[default]
    Hybrid,
    /// Rows only; for the catalog, indexes and write-hot tables.
    Row,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Stable identity.
    pub id: ColumnId,
    /// Name, Arrow type and nullability.
    pub field: Field,
}

/// Shape of a table at one schema version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The table.
    pub table: TableId,
    /// Rises with every change of how rows are laid out; stored in each row.
    pub version: u16,
    /// Columns in declaration order; a hidden row id comes last.
    pub columns: Vec<Column>,
    /// Positions in `columns` of the primary key, in key order; never empty. Those of a table of rows may be nullable, as
    /// an index needs: NULL sorts last. Segments have no such keys.
    pub primary_key: Vec<usize>,
    arrow: SchemaRef,
    /// Rows of earlier versions, if there are any.
    pub(crate) evolution: Option<Arc<Evolution>>,
}

impl TableSchema {
    /// Checks and builds a schema.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a type cannot be stored, a key column is missing, repeated or of a type that keys cannot hold, or there is no
    /// key at all; if a name or column number is used twice; if there are more than [`COLUMNS_MAX`] columns or the table number is the reserved `u32::MAX`.
    pub fn new(table: TableId, version: u16, columns: Vec<Column>, primary_key: Vec<usize>) -> Result<TableSchema> {
        if table.0 == u32::MAX {
            return Err(Error::Invalid("there are no table numbers left".to_owned()));
        }
        if columns.len() > COLUMNS_MAX {
            let count = columns.len();
            return Err(Error::Invalid(format!("{count} columns exceed the limit of {COLUMNS_MAX}")));
        }
        check_identities(&columns)?;
        for column in &columns {
            if !is_storable(column.field.data_type()) {
                let (name, data_type) = (column.field.name(), column.field.data_type());
                return Err(Error::Invalid(format!("column {name} has type {data_type}, which tables cannot store")));
            }
        }
        if primary_key.is_empty() {
            return Err(Error::Invalid("a table needs a key column; give it a hidden row id".to_owned()));
        }
        for (at, &position) in primary_key.iter().enumerate() {
            let column =
                columns.get(position).ok_or_else(|| Error::Invalid(format!("key column {position} does not exist")))?;
            if primary_key[..at].contains(&position) {
                return Err(Error::Invalid(format!("key column {} is repeated", column.field.name())));
            }
            if !is_key_type(column.field.data_type()) {
                let (name, data_type) = (column.field.name(), column.field.data_type());
                return Err(Error::Invalid(format!("key column {name} has type {data_type}, which keys cannot hold")));
            }
        }
        let arrow = Arc::new(Schema::new(columns.iter().map(|c| c.field.clone()).collect::<Vec<_>>()));
        Ok(TableSchema { table, version, columns, primary_key, arrow, evolution: None })
    }

    /// The columns as an Arrow schema, hidden ones included, in the order of `columns`.
    #[must_use]
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// How many leading columns users see.
    #[must_use]
    pub fn visible_column_count(&self) -> usize {
        self.columns.iter().take_while(|c| !c.field.name().starts_with(HIDDEN_PREFIX)).count()
    }
}

/// Numbers and names tell columns apart; metadata is counted because its count is stored in 16 bits.
fn check_identities(columns: &[Column]) -> Result<()> {
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    for Column { id, field } in columns {
        if !ids.insert(*id) {
            return Err(Error::Invalid(format!("column number {} is used twice", id.0)));
        }
        if !names.insert(field.name()) {
            return Err(Error::Invalid(format!("column \"{}\" is declared twice", field.name())));
        }
        if field.metadata().len() > usize::from(u16::MAX) {
            return Err(Error::Invalid(format!("column \"{}\" has too many metadata entries", field.name())));
        }
    }
    Ok(())
}

/// Whether values of `data_type` can be stored in a row.
#[must_use]
pub fn is_storable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Timestamp(TimeUnit::Microsecond, _)
        | DataType::Utf8View
        | DataType::BinaryView
        | DataType::FixedSizeBinary(16)
        | DataType::Interval(IntervalUnit::MonthDayNano) => true,
        // The item's name and nullability are not stored, so there is one legal form of them.
        DataType::List(item) => {
            let data_type = item.data_type();
            is_key_type(data_type) && is_storable(data_type) && **item == Field::new_list_field(data_type.clone(), true)
        }
        DataType::Decimal128(precision, scale) => {
            (1..=38).contains(precision) && (0..=38).contains(scale) && *scale <= i8::try_from(*precision).unwrap_or(0)
        }
        _ => false,
    }
}

/// Whether values of the storable type `data_type` can be in a key, and in a list: neither lists nor intervals can, because
/// their bytes in a key would have to sort as SQL compares them.
#[must_use]
pub fn is_key_type(data_type: &DataType) -> bool {
    !data_type.is_nested() && !matches!(data_type, DataType::Interval(_))
}
