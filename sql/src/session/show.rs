//! Rows of SHOW.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::query::Rows;

/// One value, in a column named after the setting.
pub(super) fn one(name: &str, value: &str) -> Result<Rows> {
    rows(&[name], &[[value.to_owned()]])
}

/// Name, value and meaning of every setting.
pub(super) fn all(settings: &[[String; 3]]) -> Result<Rows> {
    rows(&["name", "setting", "description"], settings)
}

fn rows<const N: usize>(names: &[&str; N], values: &[[String; N]]) -> Result<Rows> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8View, false)).collect();
    let column = |at: usize| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(values.iter().map(|row| row[at].as_str())))
    };
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), (0..N).map(column).collect())?;
    Ok(Rows::of(batch.schema(), vec![batch]))
}
