//! Arrays and the texts that they are joined to and split from.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, NullBufferBuilder, StringViewArray, StringViewBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::FieldRef;
use datafusion::common::Result;

use super::compare::range;
use crate::types::write_text;

/// The texts of all elements with a separator between; NULL elements as `null`, or left out.
pub(super) fn joined(lists: &ArrayRef, separators: &ArrayRef, null: Option<&ArrayRef>) -> Result<ArrayRef> {
    let (lists, separators) = (lists.as_list::<i32>(), separators.as_string_view());
    let null = null.map(AsArray::as_string_view);
    let mut out = StringViewBuilder::with_capacity(lists.len());
    let mut text = String::new();
    for row in 0..lists.len() {
        if lists.is_null(row) || separators.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        let mut is_first = true;
        for at in range(lists.offsets(), row) {
            let instead = null.filter(|null| null.is_valid(row)).map(|null| null.value(row));
            if lists.values().is_null(at) && instead.is_none() {
                continue;
            }
            if !is_first {
                text.push_str(separators.value(row));
            }
            is_first = false;
            match (lists.values().is_null(at), instead) {
                (true, Some(instead)) => text.push_str(instead),
                _ => write_text(lists.values().as_ref(), at, &mut text)?,
            }
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

/// Texts cut at a separator: NULL cuts behind every character, an empty one nowhere. A piece that is `null` becomes NULL.
pub(super) fn split(
    texts: &ArrayRef,
    separators: &ArrayRef,
    null: Option<&ArrayRef>,
    item: &FieldRef,
) -> Result<ArrayRef> {
    let (texts, separators) = (texts.as_string_view(), separators.as_string_view());
    let null = null.map(AsArray::as_string_view);
    let (mut elements, mut lengths) = (StringViewBuilder::new(), Vec::new());
    let mut nulls = NullBufferBuilder::new(0);
    for row in 0..texts.len() {
        nulls.append(texts.is_valid(row));
        let pieces = if texts.is_null(row) { Vec::new() } else { pieces(texts, separators, row) };
        let none = null.filter(|null| null.is_valid(row)).map(|null| null.value(row));
        lengths.push(pieces.len());
        for piece in pieces {
            elements.append_option((Some(piece) != none).then_some(piece));
        }
    }
    let offsets = OffsetBuffer::from_lengths(lengths);
    let elements: ArrayRef = Arc::new(elements.finish());
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, elements, nulls.finish())?))
}

fn pieces<'a>(texts: &'a StringViewArray, separators: &StringViewArray, row: usize) -> Vec<&'a str> {
    let text = texts.value(row);
    if text.is_empty() {
        return Vec::new();
    }
    match separators.is_valid(row).then(|| separators.value(row)) {
        None => text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect(),
        Some("") => vec![text],
        Some(separator) => text.split(separator).collect(),
    }
}
