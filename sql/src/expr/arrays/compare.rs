//! Arrays compared: with one another, and element by element with a value.
//!
//! Elements are told apart and ordered by bytes that sort like them ([`sortable`]), with PostgreSQL's meaning of `=`: -0 is 0,
//! one NaN is another and above all numbers, intervals go by their length. In an array NULL is above every value and equal
//! to itself; against a single value it is unknown.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::types::{Float32Type, Float64Type, IntervalMonthDayNanoType};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array};
use arrow::compute::{SortOptions, is_null, nullif};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;

use crate::types::interval::order_micros;
use crate::types::with_elements;

/// The comparisons of ANY and ALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::expr) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// All of them, by their operators.
    pub(in crate::expr) const ALL: [(&'static str, Comparison); 6] = [
        ("=", Comparison::Equal),
        ("<>", Comparison::NotEqual),
        ("<", Comparison::Less),
        ("<=", Comparison::LessOrEqual),
        (">", Comparison::Greater),
        (">=", Comparison::GreaterOrEqual),
    ];

    /// Of the functions that are ANY and ALL with it.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Comparison::Equal => ("_strata_any_equal", "_strata_all_equal"),
            Comparison::NotEqual => ("_strata_any_not_equal", "_strata_all_not_equal"),
            Comparison::Less => ("_strata_any_less", "_strata_all_less"),
            Comparison::LessOrEqual => ("_strata_any_less_or_equal", "_strata_all_less_or_equal"),
            Comparison::Greater => ("_strata_any_greater", "_strata_all_greater"),
            Comparison::GreaterOrEqual => ("_strata_any_greater_or_equal", "_strata_all_greater_or_equal"),
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// `values` with one form for all that are equal, whose bytes sort right.
fn plain(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float32 => {
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(values.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::Interval(_) => {
            let intervals = values.as_primitive::<IntervalMonthDayNanoType>();
            let order: Decimal128Array = intervals.iter().map(|value| value.map(order_micros)).collect();
            Arc::new(order.with_precision_and_scale(38, 0)?)
        }
        DataType::List(item) => {
            let lists = values.as_list::<i32>();
            let elements = plain(lists.values())?;
            let item = Arc::new(item.as_ref().clone().with_data_type(elements.data_type().clone()));
            Arc::new(with_elements(lists, &item, elements)?)
        }
        _ => Arc::clone(values),
    })
}

/// Bytes that sort as the values do, NULL last.
///
/// # Errors
/// None for types that arrays hold.
pub(super) fn sortable(values: &ArrayRef) -> Result<Rows> {
    let values = plain(values)?;
    Ok(converter(values.data_type())?.convert_columns(&[values])?)
}

fn converter(data_type: &DataType) -> Result<RowConverter> {
    let options = SortOptions { descending: false, nulls_first: false };
    Ok(RowConverter::new(vec![SortField::new_with_options(data_type.clone(), options)])?)
}

/// Bytes that sort as arrays do; NULL of NULL.
pub(super) fn order(lists: &ArrayRef) -> Result<ArrayRef> {
    let bytes: BinaryArray = sortable(lists)?.try_into_binary()?;
    if lists.null_count() == 0 {
        return Ok(Arc::new(bytes));
    }
    Ok(nullif(&bytes, &is_null(lists)?)?)
}

/// `value comparison ANY (list)`, or with `is_all` `ALL`.
pub(super) fn quantified(
    values: &ArrayRef,
    lists: &ArrayRef,
    comparison: Comparison,
    is_all: bool,
) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let (needles, elements) = (sortable(values)?, sortable(lists.values())?);
    let one = |row: usize| -> Option<bool> {
        if lists.is_null(row) {
            return None;
        }
        let mut is_unknown = false;
        for at in range(lists.offsets(), row) {
            if values.is_null(row) || lists.values().is_null(at) {
                is_unknown = true;
            } else if comparison.holds(needles.row(row).cmp(&elements.row(at))) != is_all {
                return Some(!is_all);
            }
        }
        if is_unknown { None } else { Some(is_all) }
    };
    Ok(Arc::new((0..lists.len()).map(one).collect::<BooleanArray>()))
}

/// Whether each array on the left has every element (with `is_any`, at least one) of that on the right. NULL elements are
/// equal to nothing.
pub(super) fn contains(left: &ArrayRef, right: &ArrayRef, is_any: bool) -> Result<ArrayRef> {
    let (left, right) = (left.as_list::<i32>(), right.as_list::<i32>());
    // One converter, so that the bytes of both can be compared.
    let (l, r) = (plain(left.values())?, plain(right.values())?);
    let converter = converter(l.data_type())?;
    let (held, wanted) = (converter.convert_columns(&[Arc::clone(&l)])?, converter.convert_columns(&[Arc::clone(&r)])?);
    let one = |row: usize| -> Option<bool> {
        if left.is_null(row) || right.is_null(row) {
            return None;
        }
        let held: HashSet<&[u8]> =
            range(left.offsets(), row).filter(|at| l.is_valid(*at)).map(|at| held.row(at).data()).collect();
        let mut is_found = range(right.offsets(), row).map(|at| r.is_valid(at) && held.contains(wanted.row(at).data()));
        Some(if is_any { is_found.any(|found| found) } else { is_found.all(|found| found) })
    };
    Ok(Arc::new((0..left.len()).map(one).collect::<BooleanArray>()))
}

/// Where the elements of the array at `row` are among those of all.
pub(super) fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
    at(row)..at(row + 1)
}
