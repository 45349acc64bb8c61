//! Lists: elements of one kind in the bytes of one column.
//!
//! The row codec carries a list as bytes; whoever needs the elements reads them here, with the kind that the column's type
//! gives. Layout: FORMAT.md.
//!
//! Always true: equal lists have equal bytes, and [`ListRef::new`] accepts nothing else.

use super::{Value, ValueKind, u32_at};
use crate::error::{Error, Result};

const COUNT_BYTES: usize = 4;
const END_BYTES: usize = 4;

/// Appends the list `elements`, each of kind `kind` or NULL, to `out`.
///
/// # Errors
/// [`Error::Invalid`] for an element of another kind, or more than 2³² elements or variable bytes.
pub fn encode(kind: ValueKind, elements: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
    let count = u32::try_from(elements.len()).map_err(|_| too_long())?;
    let start = out.len();
    out.extend_from_slice(&count.to_le_bytes());
    let bitmap_at = out.len();
    out.resize(bitmap_at + elements.len().div_ceil(8), 0);
    let ends_at = out.len();
    if kind.fixed_bytes().is_none() {
        out.resize(ends_at + elements.len() * END_BYTES, 0);
    }
    let variable_at = out.len();
    for (at, element) in elements.iter().enumerate() {
        match element.kind() {
            None => out[bitmap_at + at / 8] |= 1 << (at % 8),
            Some(found) if found == kind => {}
            Some(found) => {
                out.truncate(start);
                return Err(Error::Invalid(format!("an element of a list of {kind:?} is {found:?}")));
            }
        }
        push(kind, *element, out);
        if kind.fixed_bytes().is_none() {
            let end = u32::try_from(out.len() - variable_at).map_err(|_| too_long())?;
            let at = ends_at + at * END_BYTES;
            out[at..at + END_BYTES].copy_from_slice(&end.to_le_bytes());
        }
    }
    Ok(())
}

fn too_long() -> Error {
    Error::Invalid("a list is too long".to_owned())
}

fn push(kind: ValueKind, element: Value<'_>, out: &mut Vec<u8>) {
    match element {
        Value::Null => out.resize(out.len() + kind.fixed_bytes().unwrap_or(0), 0),
        Value::Boolean(v) => out.push(u8::from(v)),
        Value::Int16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Int32(v) | Value::Date32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Int64(v) | Value::Time64(v) | Value::Timestamp(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Float32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Float64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Decimal128(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Uuid(v) => out.extend_from_slice(&v),
        Value::Interval(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Text(v) => out.extend_from_slice(v.as_bytes()),
        Value::Binary(v) | Value::List(v) => out.extend_from_slice(v),
    }
}

/// A list whose layout was checked, read in place.
#[derive(Clone, Copy, Debug)]
pub struct ListRef<'a> {
    kind: ValueKind,
    bytes: &'a [u8],
    count: usize,
    values_at: usize,
    variable_at: usize,
}

impl<'a> ListRef<'a> {
    /// Checks `bytes` as a list of elements of `kind`.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the offset within the list.
    pub fn new(kind: ValueKind, bytes: &'a [u8]) -> Result<ListRef<'a>> {
        if bytes.len() < COUNT_BYTES {
            return Err(malformed(bytes.len(), "the list is cut short"));
        }
        // Counted in 64 bits, because a forged count times a width must not wrap.
        let count = u64::from(u32_at(bytes, 0));
        let values_at = COUNT_BYTES as u64 + count.div_ceil(8);
        let width = kind.fixed_bytes().unwrap_or(END_BYTES) as u64;
        let variable_at = values_at + count * width;
        let has_room = match kind.fixed_bytes() {
            Some(_) => bytes.len() as u64 == variable_at,
            None => bytes.len() as u64 >= variable_at,
        };
        if !has_room {
            return Err(malformed(0, "the list is not as long as its number of elements says"));
        }
        let list = ListRef {
            kind,
            bytes,
            count: count as usize,
            values_at: values_at as usize,
            variable_at: variable_at as usize,
        };
        list.check()?;
        Ok(list)
    }

    fn check(&self) -> Result<()> {
        if !self.count.is_multiple_of(8) && self.bytes[self.values_at - 1] >> (self.count % 8) != 0 {
            return Err(malformed(self.values_at - 1, "a spare bit of the null bitmap is set"));
        }
        let mut end = 0;
        for at in 0..self.count {
            let is_blank = match self.kind.fixed_bytes() {
                Some(width) => {
                    let value = &self.bytes[self.values_at + at * width..][..width];
                    if self.kind == ValueKind::Boolean && value[0] > 1 {
                        return Err(malformed(self.values_at + at, "a boolean is neither 0 nor 1"));
                    }
                    value.iter().all(|byte| *byte == 0)
                }
                None => {
                    let next = u32_at(self.bytes, self.values_at + at * END_BYTES) as usize;
                    if next < end {
                        return Err(malformed(self.values_at + at * END_BYTES, "an element ends before it starts"));
                    }
                    let is_empty = next == end;
                    end = next;
                    is_empty
                }
            };
            if self.is_null(at) && !is_blank {
                return Err(malformed(self.values_at, "a NULL has a value"));
            }
        }
        if self.bytes.len() - self.variable_at != end {
            return Err(malformed(self.variable_at, "the last element does not end with the list"));
        }
        Ok(())
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn is_null(&self, at: usize) -> bool {
        self.bytes[COUNT_BYTES + at / 8] & 1 << (at % 8) != 0
    }

    /// The element at `at`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is text and not UTF-8.
    ///
    /// # Panics
    /// If there is no such element.
    pub fn get(&self, at: usize) -> Result<Value<'a>> {
        assert!(at < self.count, "the list has this element");
        if self.is_null(at) {
            return Ok(Value::Null);
        }
        Ok(match (self.kind, self.kind.fixed_bytes()) {
            (kind, Some(width)) => {
                kind.fixed_value(&self.bytes[self.values_at + at * width..]).expect("the kind has a fixed width")
            }
            (ValueKind::Text, None) => Value::Text(
                std::str::from_utf8(self.variable(at)).map_err(|_| malformed(self.variable_at, "text is not UTF-8"))?,
            ),
            (ValueKind::List, None) => Value::List(self.variable(at)),
            (_, None) => Value::Binary(self.variable(at)),
        })
    }

    fn variable(&self, at: usize) -> &'a [u8] {
        let end_of = |at: usize| u32_at(self.bytes, self.values_at + at * END_BYTES) as usize;
        let start = if at == 0 { 0 } else { end_of(at - 1) };
        &self.bytes[self.variable_at..][start..end_of(at)]
    }
}

fn malformed(offset: usize, what: &'static str) -> Error {
    Error::malformed("list", offset, what)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::OwnedValue;
    use super::super::arbitrary::{any_value, is_same};
    use super::*;

    fn any_list() -> impl Strategy<Value = (ValueKind, Vec<OwnedValue>)> {
        let kinds = vec![
            ValueKind::Boolean,
            ValueKind::Int16,
            ValueKind::Int32,
            ValueKind::Int64,
            ValueKind::Float32,
            ValueKind::Float64,
            ValueKind::Decimal128,
            ValueKind::Text,
            ValueKind::Binary,
            ValueKind::Date32,
            ValueKind::Time64,
            ValueKind::Timestamp,
            ValueKind::Uuid,
            ValueKind::Interval,
        ];
        select(kinds).prop_flat_map(|kind| {
            (Just(kind), vec(prop_oneof![3 => any_value(kind), 1 => Just(OwnedValue::Null)], 0..20))
        })
    }

    proptest! {
        #[test]
        fn lists_come_back_as_they_went_in((kind, elements) in any_list()) {
            let elements: Vec<Value<'_>> = elements.iter().map(OwnedValue::as_value).collect();
            let mut bytes = Vec::new();
            encode(kind, &elements, &mut bytes).unwrap();
            let list = ListRef::new(kind, &bytes).unwrap();
            prop_assert_eq!(list.len(), elements.len());
            for (at, expected) in elements.iter().enumerate() {
                prop_assert!(is_same(&list.get(at).unwrap(), expected));
            }
        }

        #[test]
        fn damage_is_an_error_or_another_list(
            (kind, elements) in any_list(), at in any::<Index>(), flip in 1..=255_u8, cut in any::<Index>(),
        ) {
            let elements: Vec<Value<'_>> = elements.iter().map(OwnedValue::as_value).collect();
            let mut bytes = Vec::new();
            encode(kind, &elements, &mut bytes).unwrap();
            prop_assert!(ListRef::new(kind, &bytes[..cut.index(bytes.len())]).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(list) = ListRef::new(kind, &bytes) {
                let read: Result<Vec<_>> = (0..list.len()).map(|at| list.get(at)).collect();
                if let Ok(read) = read {
                    let mut again = Vec::new();
                    encode(kind, &read, &mut again).unwrap();
                    prop_assert_eq!(again, bytes);
                }
            }
        }

        #[test]
        fn foreign_bytes_never_panic((kind, _) in any_list(), bytes in vec(any::<u8>(), 0..60)) {
            if let Ok(list) = ListRef::new(kind, &bytes) {
                (0..list.len()).for_each(|at| drop(list.get(at)));
            }
        }
    }

    #[test]
    fn a_list_has_elements_of_one_kind() {
        let mut out = vec![7];
        assert!(encode(ValueKind::Int32, &[Value::Int32(1), Value::Text("x")], &mut out).is_err());
        assert_eq!(out, [7]);
        encode(ValueKind::Int32, &[Value::Int32(1), Value::Null], &mut out).unwrap();
        assert_eq!(out, [7, 2, 0, 0, 0, 0b10, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
