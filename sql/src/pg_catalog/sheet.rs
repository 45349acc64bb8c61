//! `Sheet`: a table written row by row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Int16Array, Int16Builder, Int32Array, Int64Array, Int64Builder, ListBuilder,
    StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::error::Result;

/// What a column holds. Object numbers are `Oid`, which queries see as BIGINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Oid,
    Int2,
    Int4,
    Real,
    Bool,
    Text,
    /// `int2[]`
    Int2s,
    /// `oid[]`
    Oids,
    /// `text[]`
    Texts,
    /// `timestamptz`, in microseconds since 1970.
    Moment,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Number(i64),
    Bool(bool),
    Text(String),
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

impl From<i64> for Cell {
    fn from(number: i64) -> Cell {
        Cell::Number(number)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<Vec<i64>> for Cell {
    fn from(numbers: Vec<i64>) -> Cell {
        Cell::Numbers(numbers)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// Columns, with a type and a name each.
pub(super) type Columns = &'static [(&'static str, Kind)];

/// A table under construction.
pub(super) struct Sheet {
    columns: Columns,
    rows: Vec<Vec<Cell>>,
}

/// One row: values of any kind, in the order of the columns.
macro_rules! row {
    ($($value:expr),+ $(,)?) => {
        vec![$($crate::pg_catalog::sheet::Cell::from($value)),+]
    };
}
pub(super) use row;

impl Sheet {
    pub(super) fn new(columns: Columns) -> Sheet {
        Sheet { columns, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    pub(super) fn finish(self) -> Result<RecordBatch> {
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (at, (name, kind)) in self.columns.iter().enumerate() {
            let cells: Vec<&Cell> = self.rows.iter().map(|row| &row[at]).collect();
            let array = column(*kind, &cells);
            fields.push(Field::new(*name, array.data_type().clone(), true));
            arrays.push(array);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}

fn column(kind: Kind, cells: &[&Cell]) -> ArrayRef {
    let numbers = || {
        cells.iter().map(|cell| match cell {
            Cell::Number(number) => Some(*number),
            _ => None,
        })
    };
    let small = |number: i64| i16::try_from(number).unwrap_or(i16::MAX);
    match kind {
        Kind::Oid => Arc::new(numbers().collect::<Int64Array>()),
        Kind::Int2 => Arc::new(numbers().map(|number| number.map(small)).collect::<Int16Array>()),
        Kind::Int4 => {
            let narrow = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
            Arc::new(numbers().map(|number| number.map(narrow)).collect::<Int32Array>())
        }
        Kind::Real => Arc::new(numbers().map(|number| number.map(|number| number as f32)).collect::<Float32Array>()),
        Kind::Bool => {
            let values = cells.iter().map(|cell| match cell {
                Cell::Bool(value) => Some(*value),
                _ => None,
            });
            Arc::new(values.collect::<BooleanArray>())
        }
        Kind::Text => {
            let texts = cells.iter().map(|cell| match cell {
                Cell::Text(text) => Some(text.as_str()),
                _ => None,
            });
            Arc::new(texts.collect::<StringViewArray>())
        }
        Kind::Moment => {
            let micros: TimestampMicrosecondArray = numbers().collect();
            Arc::new(micros.with_timezone("UTC"))
        }
        Kind::Int2s | Kind::Oids | Kind::Texts => lists(kind, cells),
    }
}

/// A column of arrays.
fn lists(kind: Kind, cells: &[&Cell]) -> ArrayRef {
    let small = |number: i64| i16::try_from(number).unwrap_or(i16::MAX);
    let numbers = cells.iter().map(|cell| match cell {
        Cell::Numbers(numbers) => Some(numbers),
        _ => None,
    });
    match kind {
        Kind::Texts => {
            let mut lists = ListBuilder::new(StringViewBuilder::new());
            for cell in cells {
                let Cell::Texts(texts) = cell else {
                    lists.append(false);
                    continue;
                };
                texts.iter().for_each(|text| lists.values().append_value(text));
                lists.append(true);
            }
            Arc::new(lists.finish())
        }
        Kind::Oids => {
            let mut lists = ListBuilder::new(Int64Builder::new());
            for numbers in numbers {
                lists.values().append_slice(numbers.map_or(&[], |numbers| numbers));
                lists.append(numbers.is_some());
            }
            Arc::new(lists.finish())
        }
        _ => {
            let mut lists = ListBuilder::new(Int16Builder::new());
            for numbers in numbers {
                numbers.into_iter().flatten().for_each(|number| lists.values().append_value(small(*number)));
                lists.append(numbers.is_some());
            }
            Arc::new(lists.finish())
        }
    }
}
