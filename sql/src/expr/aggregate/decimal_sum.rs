//! Sums of wide decimals: of 128 bits like DataFusion's, and an error where those wrap or 38 digits do not suffice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Decimal128Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

use crate::error::{Error, SqlState};

/// The first number of 39 digits.
const LIMIT: u128 = 10_u128.pow(38);

fn out_of_range() -> DataFusionError {
    Error::new(SqlState::NumericOutOfRange, "a sum of decimals has more than 38 digits").into()
}

/// The sum of one group; values may leave again, for windows that slide.
#[derive(Debug)]
pub(super) struct DecimalSum {
    sum: i128,
    count: u64,
    result: DataType,
}

impl DecimalSum {
    pub(super) fn new(result: &DataType) -> DecimalSum {
        DecimalSum { sum: 0, count: 0, result: result.clone() }
    }

    fn fold(&mut self, array: &ArrayRef, step: fn(i128, i128) -> (i128, bool)) -> Result<u64> {
        let values = array.as_primitive::<Decimal128Type>();
        let (mut sum, mut wrapped) = (self.sum, false);
        let mut one = |value: i128| {
            let (next, overflow) = step(sum, value);
            sum = next;
            wrapped |= overflow;
        };
        match values.null_count() {
            0 => values.values().iter().for_each(|value| one(*value)),
            _ => values.iter().flatten().for_each(&mut one),
        }
        self.sum = sum;
        if wrapped { Err(out_of_range()) } else { Ok((values.len() - values.null_count()) as u64) }
    }
}

impl Accumulator for DecimalSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += self.fold(&values[0], i128::overflowing_add)?;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= self.fold(&values[0], i128::overflowing_sub)?;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.sum.unsigned_abs() >= LIMIT {
            return Err(out_of_range());
        }
        ScalarValue::new_primitive::<Decimal128Type>((self.count > 0).then_some(self.sum), &self.result)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of many groups, as decimals of type `result`.
pub(super) fn decimal_groups_sum(result: &DataType) -> Box<dyn GroupsAccumulator> {
    let wrapped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&wrapped);
    let add = move |sum: &mut i128, value: i128| {
        let (next, overflow) = sum.overflowing_add(value);
        *sum = next;
        if overflow {
            seen.store(true, Ordering::Relaxed);
        }
    };
    let sums = Box::new(PrimitiveGroupsAccumulator::<Decimal128Type, _>::new(result, add));
    Box::new(Guarded { sums, wrapped })
}

/// Sums that are only given out if none has wrapped.
struct Guarded {
    sums: Box<dyn GroupsAccumulator>,
    wrapped: Arc<AtomicBool>,
}

impl Guarded {
    fn checked(&self, arrays: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let is_wide = |array: &ArrayRef| {
            array.as_primitive::<Decimal128Type>().iter().flatten().any(|sum| sum.unsigned_abs() >= LIMIT)
        };
        // Relaxed: set and read by the one thread that runs this accumulator.
        if self.wrapped.load(Ordering::Relaxed) || arrays.iter().any(is_wide) {
            return Err(out_of_range());
        }
        Ok(arrays)
    }
}

impl GroupsAccumulator for Guarded {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.sums.update_batch(values, groups, filter, count)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.sums.merge_batch(values, groups, count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.sums.evaluate(emit_to)?;
        self.checked(vec![Arc::clone(&sums)])?;
        Ok(sums)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let state = self.sums.state(emit_to)?;
        self.checked(state)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.sums.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.sums.size() + size_of_val(self)
    }
}
