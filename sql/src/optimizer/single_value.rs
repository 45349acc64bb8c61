//! `SingleValue`: the value of a group that has one row; a second row is an error.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};
use std::sync::Arc;

use crate::error::several_rows;

/// The one value of `expr` in each group, NULL of an empty one; 21000 for several rows, equal or not.
pub(super) fn single_value(expr: Expr) -> Expr {
    AggregateUDF::from(SingleValue { signature: Signature::any(1, Volatility::Immutable) }).call(vec![expr])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &'static str {
        "single_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single { value: ScalarValue::try_from(args.return_field.data_type())?, row_count: 0 }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let value = Field::new(format!("{}[value]", args.name), args.return_field.data_type().clone(), true);
        let row_count = Field::new(format!("{}[rows]", args.name), DataType::Int64, true);
        Ok(vec![Arc::new(value), Arc::new(row_count)])
    }
}

#[derive(Debug)]
struct Single {
    value: ScalarValue,
    row_count: i64,
}

impl Single {
    fn add(&mut self, rows: i64) -> Result<()> {
        self.row_count = self.row_count.saturating_add(rows);
        if self.row_count <= 1 {
            return Ok(());
        }
        Err(several_rows().into())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values[0].is_empty() {
            return Ok(());
        }
        self.add(i64::try_from(values[0].len()).unwrap_or(i64::MAX))?;
        self.value = ScalarValue::try_from_array(&values[0], 0)?;
        self.value.compact();
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[1].as_primitive::<Int64Type>();
        for row in 0..counts.len() {
            if counts.is_valid(row) && counts.value(row) > 0 {
                self.add(counts.value(row))?;
                self.value = ScalarValue::try_from_array(&states[0], row)?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::Int64(Some(self.row_count))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) - size_of_val(&self.value) + self.value.size()
    }
}
