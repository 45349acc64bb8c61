//! `StoredColumn`: a column of the table as a segment has it, which may be older than the table's shape.
//!
//! Columns are matched by number, never by name. One that the segment is older than has its missing value in every row, one
//! that was dropped is not asked for, and one in a narrower type is widened as it is read. What is cached is what the file
//! holds, so nothing in the cache depends on a shape.
//!
//! A segment *newer* than the reader's shape may lack what the reader wants. Only snapshots of the past meet one, because
//! others keep the segments they began with; they get [`Error::Reshaped`].

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::DataType;
use arrow::util::display::FormatOptions;
use strata_oltp::schema::Widening;
use strata_oltp::{Error, Result, TableSchema};

use super::{Segment, spans};
use crate::convert::batch::missing_value;
use crate::error;

/// Where the values of a table's column are for the rows of one segment.
#[derive(Clone, Debug)]
pub(crate) enum StoredColumn {
    /// At this place of the file, as the table has them.
    Same(usize),
    /// At this place of the file, in a narrower type than this one, which is the table's.
    Narrower(usize, DataType),
    /// At this place of the file, as the numbers that an interval consists of.
    Interval(usize),
    /// Nowhere: every row has this one value.
    Missing(ArrayRef),
}

impl Segment {
    /// The column at `position` of `table`, as this segment has it.
    ///
    /// # Errors
    /// [`Error::Reshaped`] if the segment was written after the column was dropped or given a wider type; `Corrupt` if it
    /// contradicts the table.
    pub(crate) fn stored(&self, table: &TableSchema, position: usize) -> Result<StoredColumn> {
        let column = &table.columns[position];
        let target = column.field.data_type();
        let is_newer = self.meta().schema_version > table.version;
        match self.column_index(column.id) {
            Some(index) => {
                let data_type = &self.meta().columns[index].data_type;
                match Widening::of(data_type, target) {
                    Some(Widening::Same) if *target == spans::INTERVAL => Ok(StoredColumn::Interval(index)),
                    Some(Widening::Same) => Ok(StoredColumn::Same(index)),
                    Some(_) => Ok(StoredColumn::Narrower(index, target.clone())),
                    None if is_newer => Err(Error::Reshaped { table: table.table }),
                    None => Err(self.corrupt("a column has a type that the table's never had")),
                }
            }
            None if table.since(position) > self.meta().schema_version => {
                missing_value(table, position).map(StoredColumn::Missing)
            }
            None if is_newer => Err(Error::Reshaped { table: table.table }),
            None => Err(self.corrupt("a column of the table is missing")),
        }
    }

    /// All columns of `table`, as this segment has them.
    ///
    /// # Errors
    /// As [`Segment::stored`].
    pub(crate) fn stored_columns(&self, table: &TableSchema) -> Result<Vec<StoredColumn>> {
        (0..table.columns.len()).map(|position| self.stored(table, position)).collect()
    }
}

impl StoredColumn {
    /// Its place in the file.
    pub(crate) fn file_column(&self) -> Option<usize> {
        match self {
            StoredColumn::Same(index) | StoredColumn::Interval(index) | StoredColumn::Narrower(index, _) => {
                Some(*index)
            }
            StoredColumn::Missing(_) => None,
        }
    }

    /// `row_count` values as the table has them; `stored` are those in the file, if it has the column.
    ///
    /// # Errors
    /// Values beyond the range of their own type.
    pub(crate) fn values(&self, stored: Option<ArrayRef>, row_count: usize) -> Result<ArrayRef> {
        match (self, stored) {
            (StoredColumn::Missing(value), _) => repeat(value, row_count),
            (StoredColumn::Same(_), Some(stored)) => Ok(stored),
            (StoredColumn::Interval(_), Some(stored)) => spans::from_file(&stored),
            (StoredColumn::Narrower(_, target), Some(stored)) => {
                let options = CastOptions { safe: false, format_options: FormatOptions::default() };
                cast_with_options(&stored, target, &options).map_err(|e| error::invalid(&e))
            }
            (_, None) => Err(Error::Invalid("a stored column was not read".to_owned())),
        }
    }
}

fn repeat(value: &ArrayRef, row_count: usize) -> Result<ArrayRef> {
    if value.is_null(0) {
        return Ok(new_null_array(value.data_type(), row_count));
    }
    take(value, &UInt32Array::from(vec![0; row_count]), None).map_err(|e| error::invalid(&e))
}
