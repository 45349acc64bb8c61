//! `avg` of integers: an exact sum and a count, divided once, rounded at the sixteenth place.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// Type of the sums. Those of fewer than 2⁶³ numbers of 64 bits fit 128 bits.
pub(super) const SUM: DataType = DataType::Decimal128(38, 0);
/// Type of the averages: at most nineteen digits before the point.
pub(super) const RESULT: DataType = DataType::Decimal128(35, PLACES);
const PLACES: i8 = 16;

/// `sum / count`, rounded half away from zero.
fn average(sum: i128, count: i64) -> Option<i128> {
    const UNIT: i128 = 10_i128.pow(16);
    let count = i128::from(count);
    if count == 0 {
        return None;
    }
    // The rest is below 2⁶³, and 2⁶³ · 10¹⁶ below 2¹¹⁷.
    let (whole, rest) = (sum / count, sum % count * UNIT);
    let (places, last) = (rest / count, rest % count);
    let up = if last.abs() * 2 >= count { sum.signum() } else { 0 };
    Some(whole * UNIT + places + up)
}

/// Of one group. Distinct values are kept; otherwise values may leave again, for windows that slide.
#[derive(Debug)]
pub(super) struct IntegerAvg {
    sum: i128,
    count: i64,
    distinct: Option<HashSet<i64>>,
}

impl IntegerAvg {
    pub(super) fn new(is_distinct: bool) -> IntegerAvg {
        IntegerAvg { sum: 0, count: 0, distinct: is_distinct.then(HashSet::new) }
    }

    fn add(&mut self, values: &Int64Array) {
        for value in values.iter().flatten() {
            if self.distinct.as_mut().is_none_or(|seen| seen.insert(value)) {
                self.sum += i128::from(value);
                self.count += 1;
            }
        }
    }
}

impl Accumulator for IntegerAvg {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values[0].as_primitive::<Int64Type>());
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            for values in states[0].as_list::<i32>().iter().flatten() {
                self.add(values.as_primitive::<Int64Type>());
            }
            return Ok(());
        }
        let counts = states[0].as_primitive::<Int64Type>();
        let sums = states[1].as_primitive::<Decimal128Type>();
        self.count += counts.iter().flatten().sum::<i64>();
        self.sum += sums.iter().flatten().sum::<i128>();
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Int64Type>().iter().flatten() {
            self.sum -= i128::from(value);
            self.count -= 1;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::new_primitive::<Decimal128Type>(average(self.sum, self.count), &RESULT)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        if let Some(seen) = &self.distinct {
            let values: Vec<ScalarValue> = seen.iter().map(|value| ScalarValue::Int64(Some(*value))).collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int64))]);
        }
        let sum = ScalarValue::new_primitive::<Decimal128Type>(Some(self.sum), &SUM)?;
        Ok(vec![ScalarValue::Int64(Some(self.count)), sum])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.distinct.as_ref().map_or(0, |seen| seen.capacity() * size_of::<(i64, u8)>())
    }
}

/// Of many groups.
#[derive(Debug, Default)]
pub(super) struct IntegerGroupsAvg {
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl IntegerGroupsAvg {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
    }
}

/// Whether a row passes: the filter is true, not false or NULL.
fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

impl GroupsAccumulator for IntegerGroupsAvg {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.resize(count);
        let values = values[0].as_primitive::<Int64Type>();
        for (row, (value, group)) in values.iter().zip(groups).enumerate() {
            if let Some(value) = value.filter(|_| passes(filter, row)) {
                self.sums[*group] += i128::from(value);
                self.counts[*group] += 1;
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.resize(count);
        let (counts, sums) = (values[0].as_primitive::<Int64Type>(), values[1].as_primitive::<Decimal128Type>());
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| counts.is_valid(*row)) {
            self.counts[*group] += counts.value(row);
            self.sums[*group] += sums.value(row);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        let averages: Decimal128Array = sums.into_iter().zip(counts).map(|(sum, count)| average(sum, count)).collect();
        Ok(Arc::new(averages.with_data_type(RESULT)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        Ok(vec![Arc::new(Int64Array::from(counts)), Arc::new(Decimal128Array::from(sums).with_data_type(SUM))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Int64Type>();
        let kept = |row: usize| (values.is_valid(row) && passes(filter, row)).then(|| values.value(row));
        let counts: Int64Array = (0..values.len()).map(|row| Some(i64::from(kept(row).is_some()))).collect();
        let sums: Decimal128Array = (0..values.len()).map(|row| Some(kept(row).map_or(0, i128::from))).collect();
        Ok(vec![Arc::new(counts), Arc::new(sums.with_data_type(SUM))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.counts.capacity() * size_of::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_rounded_half_away_from_zero() {
        for (sum, count, expected) in [
            (5, 3, 16_666_666_666_666_667),
            (-5, 3, -16_666_666_666_666_667),
            (1, 3, 3_333_333_333_333_333),
            (7, 1, 70_000_000_000_000_000),
        ] {
            assert_eq!(average(sum, count), Some(expected), "{sum} / {count}");
        }
        assert_eq!(average(0, 0), None);
        let most = i128::from(i64::MAX) * 1_000;
        assert_eq!(average(most, 1_000), Some(i128::from(i64::MAX) * 10_000_000_000_000_000));
    }
}
