//! Arrays made of others: appended to, cut, with elements left out and replaced.
//!
//! A result is written down as the places that its elements come from, and put together at once.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, NullBufferBuilder, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::interleave;
use arrow::datatypes::FieldRef;
use datafusion::common::{DataFusionError, Result};

use super::compare::{range, sortable};

/// Arrays on their way: which element of which source comes next.
struct Builder {
    places: Vec<(usize, usize)>,
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl Builder {
    fn new() -> Builder {
        Builder { places: Vec::new(), lengths: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    /// Ends an array that began when there were `start` places.
    fn end(&mut self, start: usize) {
        self.lengths.push(self.places.len() - start);
        self.nulls.append_non_null();
    }

    fn push_null(&mut self) {
        self.lengths.push(0);
        self.nulls.append_null();
    }

    fn finish(mut self, sources: &[&dyn Array], item: &FieldRef) -> Result<ArrayRef> {
        if i32::try_from(self.places.len()).is_err() {
            return Err(DataFusionError::ResourcesExhausted("arrays of more than 2^31 elements in a batch".to_owned()));
        }
        let elements = match self.places.is_empty() {
            true => new_empty_array(item.data_type()),
            false => interleave(sources, &self.places)?,
        };
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, elements, self.nulls.finish())?))
    }
}

/// Each of `left` and then each of `right`; NULL is no array, and NULL only beside another.
pub(super) fn concatenated(left: &ArrayRef, right: &ArrayRef, item: &FieldRef) -> Result<ArrayRef> {
    let (left, right) = (left.as_list::<i32>(), right.as_list::<i32>());
    let mut builder = Builder::new();
    for row in 0..left.len() {
        if left.is_null(row) && right.is_null(row) {
            builder.push_null();
            continue;
        }
        let start = builder.places.len();
        for (source, lists) in [left, right].into_iter().enumerate() {
            if lists.is_valid(row) {
                builder.places.extend(range(lists.offsets(), row).map(|at| (source, at)));
            }
        }
        builder.end(start);
    }
    builder.finish(&[left.values().as_ref(), right.values().as_ref()], item)
}

/// Arrays with one more element, behind the others or before them. NULL is an empty array here, as in PostgreSQL.
pub(super) fn extended(lists: &ArrayRef, elements: &ArrayRef, is_first: bool, item: &FieldRef) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let mut builder = Builder::new();
    for row in 0..lists.len() {
        let start = builder.places.len();
        if is_first {
            builder.places.push((1, row));
        }
        if lists.is_valid(row) {
            builder.places.extend(range(lists.offsets(), row).map(|at| (0, at)));
        }
        if !is_first {
            builder.places.push((1, row));
        }
        builder.end(start);
    }
    builder.finish(&[lists.values().as_ref(), elements.as_ref()], item)
}

/// Arrays without the elements that are `wanted`, or with those of `others` in their place. NULL is like NULL here.
pub(super) fn replaced(
    lists: &ArrayRef,
    wanted: &ArrayRef,
    others: Option<&ArrayRef>,
    item: &FieldRef,
) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let (held, wanted) = (sortable(lists.values())?, sortable(wanted)?);
    let mut builder = Builder::new();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            builder.push_null();
            continue;
        }
        let start = builder.places.len();
        for at in range(lists.offsets(), row) {
            match (held.row(at) == wanted.row(row), others) {
                (false, _) => builder.places.push((0, at)),
                (true, Some(_)) => builder.places.push((1, row)),
                (true, None) => {}
            }
        }
        builder.end(start);
    }
    builder.finish(&[lists.values().as_ref(), others.unwrap_or(lists.values()).as_ref()], item)
}

/// `list[from:to]`, counted from 1; NULL if a bound is.
pub(super) fn sliced(lists: &ArrayRef, from: &ArrayRef, to: &ArrayRef, item: &FieldRef) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let (from, to) = (from.as_primitive::<Int64Type>(), to.as_primitive::<Int64Type>());
    let mut builder = Builder::new();
    for row in 0..lists.len() {
        if lists.is_null(row) || from.is_null(row) || to.is_null(row) {
            builder.push_null();
            continue;
        }
        let start = builder.places.len();
        let all = range(lists.offsets(), row);
        let skipped = usize::try_from(from.value(row).saturating_sub(1)).unwrap_or(0);
        let end = usize::try_from(to.value(row)).unwrap_or(0).min(all.len());
        builder.places.extend((skipped..end).map(|at| (0, all.start + at)));
        builder.end(start);
    }
    builder.finish(&[lists.values().as_ref()], item)
}

/// `list[index]`, counted from 1; NULL outside.
pub(super) fn item_at(lists: &ArrayRef, index: &ArrayRef) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let index = index.as_primitive::<Int64Type>();
    let one = |row: usize| -> Option<u32> {
        if lists.is_null(row) || index.is_null(row) {
            return None;
        }
        let all = range(lists.offsets(), row);
        let at = usize::try_from(index.value(row)).ok()?.checked_sub(1)?;
        (at < all.len()).then(|| u32::try_from(all.start + at).ok()).flatten()
    };
    let places: arrow::array::UInt32Array = (0..lists.len()).map(one).collect();
    Ok(arrow::compute::take(lists.values(), &places, None)?)
}

/// Place of the first element that is `wanted`, from `start` on, counted from 1; NULL if there is none.
pub(super) fn position(lists: &ArrayRef, wanted: &ArrayRef, start: Option<&ArrayRef>) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let (held, wanted) = (sortable(lists.values())?, sortable(wanted)?);
    let one = |row: usize| -> Option<i32> {
        if lists.is_null(row) {
            return None;
        }
        let start = match start.map(AsArray::as_primitive::<Int64Type>) {
            Some(start) if start.is_null(row) => return None,
            Some(start) => usize::try_from(start.value(row).saturating_sub(1)).unwrap_or(0),
            None => 0,
        };
        let mut all = range(lists.offsets(), row).enumerate().skip(start);
        let found = all.find(|(_, at)| held.row(*at) == wanted.row(row));
        found.and_then(|(place, _)| i32::try_from(place + 1).ok())
    };
    Ok(Arc::new((0..lists.len()).map(one).collect::<Int32Array>()))
}

/// Places of all elements that are `wanted`, counted from 1.
pub(super) fn positions(lists: &ArrayRef, wanted: &ArrayRef, item: &FieldRef) -> Result<ArrayRef> {
    let lists = lists.as_list::<i32>();
    let (held, wanted) = (sortable(lists.values())?, sortable(wanted)?);
    let (mut places, mut lengths, mut nulls) = (Vec::new(), Vec::new(), NullBufferBuilder::new(0));
    for row in 0..lists.len() {
        nulls.append(lists.is_valid(row));
        let before = places.len();
        if lists.is_valid(row) {
            let all = range(lists.offsets(), row).enumerate();
            let found = all.filter(|(_, at)| held.row(*at) == wanted.row(row));
            places.extend(found.map(|(place, _)| i32::try_from(place + 1).unwrap_or(i32::MAX)));
        }
        lengths.push(places.len() - before);
    }
    let elements = Arc::new(Int32Array::from(places));
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), elements, nulls.finish())?))
}
