//! Which keys a filter asks for: the way to few rows of a large table, by its primary key or by an index.
//!
//! An index is tried while the query is planned: its entries are read until they are more than are worth it. So what the
//! planner goes by is no estimate, and a wrong guess costs at most that many entries. Beyond, the table is scanned, which
//! per row is much cheaper than looking rows up one by one.
//!
//! Always true: the keys found are those of all rows that may pass the filters, at the scan's snapshot and with the
//! transaction's own writes. Filters stay above the scan, so more rows do no harm.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion_common::{Column, Result, ScalarValue};
use datafusion_expr::expr::InList;
use datafusion_expr::{Between, BinaryExpr, Expr, Operator};
use strata_oltp::key::{prefix_end, table_prefix};
use strata_oltp::{SeqNo, TableSchema};

use super::morsel::external;
use super::view::TableView;
use crate::convert::batch::{BatchBuilder, BatchEncoder};
use crate::state::TableSegments;

/// Keys that IN lists multiply to, at most.
const KEYS_MAX: usize = 4096;
/// Of how many rows one may be looked up by index before a scan is cheaper.
const ROWS_PER_LOOKUP: u64 = 200;
/// As many look-ups are always cheaper than opening a scan.
const LOOKUPS_MIN: u64 = 32;

/// An index of a table: a table of its own, of kind `row`.
#[derive(Clone, Debug)]
pub struct IndexAccess {
    /// Its name, for plans.
    pub name: String,
    /// Shape of its rows; the indexed columns come first in its key.
    pub shape: Arc<TableSchema>,
    /// Positions in the table of its columns; `None` for one that the table does not have.
    pub columns: Vec<Option<usize>>,
    /// How many of its columns are indexed.
    pub indexed_count: usize,
    /// Positions in the index of the table's primary key, in key order.
    pub key: Vec<usize>,
}

/// How to get at the rows that filters ask for.
#[derive(Debug)]
pub(super) enum Access {
    /// These full keys of the table.
    Keys(Vec<Vec<u8>>),
    /// Full keys of the table, found in the index.
    Index { name: String, keys: Vec<Vec<u8>> },
    /// Rows of the index, which hold all that is wanted.
    IndexOnly { index: IndexAccess, rows: Vec<Vec<u8>> },
}

/// What filters say about one column.
#[derive(Default)]
struct Bounds {
    /// Values of which it must have one; `None` if it may have any.
    equal: Option<Vec<ScalarValue>>,
    low: Option<(ScalarValue, bool)>,
    high: Option<(ScalarValue, bool)>,
}

/// The cheapest access for `filters`, if any is cheaper than a scan; `wanted` are the columns to be read.
pub(super) fn choose(
    view: &TableView,
    indexes: &[IndexAccess],
    filters: &[Expr],
    wanted: &[usize],
) -> Result<Option<Access>> {
    let mut bounds = HashMap::new();
    for filter in filters {
        note(filter, view.table(), &mut bounds);
    }
    if bounds.is_empty() {
        return Ok(None);
    }
    let table = view.table();
    if let Some(columns) = equal_columns(table, &table.primary_key, &bounds)
        && columns.first().is_some_and(|first| first.len() as u64 <= lookups_max(view))
    {
        return Ok(Some(Access::Keys(keys_of(table, &columns)?)));
    }
    let mut best: Option<(usize, &IndexAccess)> = None;
    for index in indexes {
        let score = score(index, &bounds);
        if score > 0 && best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, index));
        }
    }
    match best {
        Some((_, index)) => through(view, index, &bounds, filters, wanted),
        None => Ok(None),
    }
}

/// Look-ups that are cheaper than a scan of the table.
fn lookups_max(view: &TableView) -> u64 {
    let fresh = view.rows().map_or(0, |rows| rows.entry_count());
    let cold = view.segments().map_or(0, TableSegments::row_count);
    ((fresh + cold) / ROWS_PER_LOOKUP).clamp(LOOKUPS_MIN, KEYS_MAX as u64)
}

/// Notes what `filter` says about single columns; what it says besides is left to the filter itself.
fn note(filter: &Expr, table: &TableSchema, bounds: &mut HashMap<usize, Bounds>) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            note(left, table, bounds);
            note(right, table, bounds);
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
            // What the optimizer makes of a short IN list.
            if let Some((position, values)) = alternatives(filter, table) {
                bounds.entry(position).or_default().equal = Some(values);
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, op, value) = match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => (column, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => match op.swap() {
                    Some(op) => (column, op, value),
                    None => return,
                },
                _ => return,
            };
            let Some(position) = usable(column, std::slice::from_ref(value), table) else { return };
            let known = bounds.entry(position).or_default();
            match op {
                Operator::Eq => known.equal = Some(vec![value.clone()]),
                Operator::Gt => known.low = Some((value.clone(), false)),
                Operator::GtEq => known.low = Some((value.clone(), true)),
                Operator::Lt => known.high = Some((value.clone(), false)),
                Operator::LtEq => known.high = Some((value.clone(), true)),
                _ => {}
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                (expr.as_ref(), low.as_ref(), high.as_ref())
                && let Some(position) = usable(column, &[low.clone(), high.clone()], table)
            {
                let known = bounds.entry(position).or_default();
                (known.low, known.high) = (Some((low.clone(), true)), Some((high.clone(), true)));
            }
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let values: Option<Vec<ScalarValue>> = list.iter().map(|item| item.as_literal().cloned()).collect();
            if let (Expr::Column(column), Some(values)) = (expr.as_ref(), values) {
                // NULL among them makes no row pass that does not pass without it.
                let values: Vec<ScalarValue> = values.into_iter().filter(|value| !value.is_null()).collect();
                if let Some(position) = usable(column, &values, table) {
                    bounds.entry(position).or_default().equal = Some(values);
                }
            }
        }
        _ => {}
    }
}

/// `c = 1 OR c = 2 OR …`: the column and its values.
fn alternatives(filter: &Expr, table: &TableSchema) -> Option<(usize, Vec<ScalarValue>)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    match (op, left.as_ref(), right.as_ref()) {
        (Operator::Eq, Expr::Column(column), Expr::Literal(value, _))
        | (Operator::Eq, Expr::Literal(value, _), Expr::Column(column)) => {
            Some((usable(column, std::slice::from_ref(value), table)?, vec![value.clone()]))
        }
        (Operator::Or, left, right) => {
            let ((position, mut values), (other, more)) = (alternatives(left, table)?, alternatives(right, table)?);
            values.extend(more);
            (position == other).then_some((position, values))
        }
        _ => None,
    }
}

/// Position of `column` if values of its type are searched for and none is NULL.
fn usable(column: &Column, values: &[ScalarValue], table: &TableSchema) -> Option<usize> {
    let position = table.columns.iter().position(|known| known.field.name() == &column.name)?;
    let data_type = table.columns[position].field.data_type();
    let fits = values.iter().all(|value| !value.is_null() && value.data_type() == *data_type);
    (fits && values.len() <= KEYS_MAX).then_some(position)
}

/// One array per column of `positions`, their rows being every combination of the values asked for; `None` unless all
/// of them are given.
fn equal_columns(
    table: &TableSchema,
    positions: &[usize],
    bounds: &HashMap<usize, Bounds>,
) -> Option<Vec<Vec<ScalarValue>>> {
    let mut rows: Vec<Vec<ScalarValue>> = vec![Vec::new()];
    for position in positions {
        debug_assert!(*position < table.columns.len());
        let values = bounds.get(position)?.equal.as_ref()?;
        if rows.len() * values.len() > KEYS_MAX {
            return None;
        }
        rows = rows
            .iter()
            .flat_map(|row| values.iter().map(move |value| [&row[..], std::slice::from_ref(value)].concat()))
            .collect();
    }
    let columns = (0..positions.len()).map(|at| rows.iter().map(|row| row[at].clone()).collect());
    Some(columns.collect())
}

fn arrays(columns: &[Vec<ScalarValue>], types: &[DataType]) -> Result<Vec<Option<ArrayRef>>> {
    let array = |(values, data_type): (&Vec<ScalarValue>, &DataType)| match values.is_empty() {
        true => Ok(Some(arrow::array::new_empty_array(data_type))),
        false => ScalarValue::iter_to_array(values.iter().cloned()).map(Some),
    };
    columns.iter().zip(types).map(array).collect()
}

/// Full keys of `table` from the values of its key columns.
fn keys_of(table: &TableSchema, columns: &[Vec<ScalarValue>]) -> Result<Vec<Vec<u8>>> {
    let mut keys = prefixes(table, &table.primary_key, columns)?;
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// What keys begin with whose first columns, at `positions`, have these values.
fn prefixes(table: &TableSchema, positions: &[usize], columns: &[Vec<ScalarValue>]) -> Result<Vec<Vec<u8>>> {
    let row_count = columns.first().map_or(0, Vec::len);
    if columns.is_empty() {
        return Ok(vec![table_prefix(table.table).to_vec()]);
    }
    let kept: Vec<_> = positions[..columns.len()].iter().map(|position| table.columns[*position].clone()).collect();
    let types: Vec<DataType> = kept.iter().map(|column| column.field.data_type().clone()).collect();
    let shape = TableSchema::new(table.table, table.version, kept, (0..columns.len()).collect()).map_err(external)?;
    let encoder = BatchEncoder::new(&Arc::new(shape));
    let encoded = encoder.encode_columns(&arrays(columns, &types)?, row_count).map_err(external)?;
    Ok((0..row_count).map(|row| encoded.key(row).to_vec()).collect())
}

/// How much of the index the bounds make use of; 0 if nothing.
fn score(index: &IndexAccess, bounds: &HashMap<usize, Bounds>) -> usize {
    let indexed = || index.columns[..index.indexed_count].iter().map(|column| column.and_then(|at| bounds.get(&at)));
    let equal = indexed().take_while(|bounds| bounds.is_some_and(|bounds| bounds.equal.is_some())).count();
    let next = indexed().nth(equal).flatten();
    2 * equal + usize::from(next.is_some_and(|bounds| bounds.low.is_some() || bounds.high.is_some()))
}

/// Reads the part of the index that the bounds ask for, unless it is too much.
fn through(
    view: &TableView,
    index: &IndexAccess,
    bounds: &HashMap<usize, Bounds>,
    filters: &[Expr],
    wanted: &[usize],
) -> Result<Option<Access>> {
    let Some(ranges) = ranges(index, bounds)? else { return Ok(None) };
    let mut rows = Vec::new();
    let entries_max = lookups_max(view);
    for range in ranges {
        let mut cursor = view.index_entries(index.shape.table, range.start.as_slice()..range.end.as_slice())?;
        while cursor.next().map_err(external)? {
            if rows.len() as u64 == entries_max {
                return Ok(None);
            }
            rows.push(cursor.value().map_err(external)?.to_vec());
        }
    }
    let mut needed: Vec<usize> = wanted.to_vec();
    for column in filters.iter().flat_map(Expr::column_refs) {
        let position = view.table().columns.iter().position(|known| *known.field.name() == column.name);
        needed.extend(position);
    }
    if needed.iter().all(|position| index.columns.contains(&Some(*position))) {
        return Ok(Some(Access::IndexOnly { index: index.clone(), rows }));
    }
    Ok(Some(Access::Index { name: index.name.clone(), keys: table_keys(view.table(), index, &rows)? }))
}

/// Ranges of the index's keys that hold every entry the bounds ask for.
fn ranges(index: &IndexAccess, bounds: &HashMap<usize, Bounds>) -> Result<Option<Vec<Range<Vec<u8>>>>> {
    let shape = &index.shape;
    let bounds_at = |at: usize| index.columns[at].and_then(|column| bounds.get(&column));
    let mut equal_count = 0;
    while equal_count < index.indexed_count && bounds_at(equal_count).is_some_and(|bounds| bounds.equal.is_some()) {
        equal_count += 1;
    }
    let positions: Vec<usize> = (0..equal_count).collect();
    let by_index: HashMap<usize, Bounds> = positions
        .iter()
        .filter_map(|at| Some((*at, Bounds { equal: bounds_at(*at)?.equal.clone(), ..Bounds::default() })))
        .collect();
    let Some(columns) = equal_columns(shape, &positions, &by_index) else { return Ok(None) };
    let prefixes = prefixes(shape, &positions, &columns)?;
    let next = (equal_count < index.indexed_count).then(|| bounds_at(equal_count)).flatten();
    // The order of negative NaN differs between keys and comparisons, so floats are not searched by range.
    let next = next.filter(|_| !shape.columns[equal_count].field.data_type().is_floating());
    let mut ranges = Vec::new();
    for prefix in prefixes {
        let (mut start, mut end) = (prefix.clone(), prefix_end(&prefix));
        if let Some(bounds) = next {
            let encoded = |value: &ScalarValue| suffix(shape, equal_count, value);
            if let Some((low, is_inclusive)) = &bounds.low {
                let low = [&prefix[..], &encoded(low)?].concat();
                start = if *is_inclusive { low } else { prefix_end(&low) };
            }
            if let Some((high, is_inclusive)) = &bounds.high {
                let high = [&prefix[..], &encoded(high)?].concat();
                end = if *is_inclusive { prefix_end(&high) } else { high };
            }
        } else if equal_count == 0 {
            return Ok(None);
        }
        if start < end {
            ranges.push(start..end);
        }
    }
    // IN lists may name a value twice; its entries count once.
    ranges.sort_unstable_by(|left, right| left.start.cmp(&right.start));
    ranges.dedup();
    Ok(Some(ranges))
}

/// Bytes of one value in the place of column `at` of the index's key.
fn suffix(shape: &TableSchema, at: usize, value: &ScalarValue) -> Result<Vec<u8>> {
    let key = prefixes(shape, &[at], &[vec![value.clone()]])?;
    let skipped = table_prefix(shape.table).len();
    Ok(key.first().map(|key| key[skipped..].to_vec()).unwrap_or_default())
}

/// Full keys of the table's rows that entries of an index stand for, in key order.
fn table_keys(table: &TableSchema, index: &IndexAccess, rows: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut builder = BatchBuilder::new(&index.shape, Some(&index.key), false);
    for row in rows {
        builder.push(row, SeqNo(0)).map_err(external)?;
    }
    let batch = builder.finish().map_err(external)?;
    let kept: Vec<_> = table.primary_key.iter().map(|position| table.columns[*position].clone()).collect();
    let key = (0..kept.len()).collect();
    let shape = Arc::new(TableSchema::new(table.table, table.version, kept, key).map_err(external)?);
    let columns: Vec<Option<ArrayRef>> = batch.columns().iter().cloned().map(Some).collect();
    let encoded = BatchEncoder::new(&shape).encode_columns(&columns, rows.len()).map_err(external)?;
    let mut keys: Vec<Vec<u8>> = (0..rows.len()).map(|row| encoded.key(row).to_vec()).collect();
    keys.sort_unstable();
    Ok(keys)
}
