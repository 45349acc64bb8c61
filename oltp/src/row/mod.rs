//! Row codec: all columns of one row in one byte string, any fixed-width column readable without decoding the rest.
//!
//! `RowCodec` knows where each column of a schema version lies. `RowBuilder` writes a row, `RowRef` reads one.
//!
//! Always true:
//! * equal values give equal bytes: spare bits, NULL slots and offsets have one legal form, and `check` refuses others;
//! * a [`RowRef`] has passed `check`, so its accessors cannot leave the row whatever its bytes say;
//! * a row names its schema version and is only read with the codec of that version; [`RowCodec::read`] gives rows of
//!   earlier versions as rows of the newest.
//!
//! No checksum: blocks and frames around rows have theirs. UTF-8 is checked when a column is read as text, not before.
#![doc = include_str!("FORMAT.md")]

mod builder;
pub mod list;
pub(crate) mod past;
mod reader;
mod value;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::schema::TableSchema;
use crate::schema::evolution::{Evolution, Form};
use crate::sync::Arc;

pub use builder::RowBuilder;
pub use reader::RowRef;
pub use value::{Interval, OwnedValue, Value, ValueKind};

/// Largest encoded row. Far below the 4 GiB that offsets could name, because a row must fit a log frame, a block and
/// the memory budget several times over.
pub const ROW_BYTES_MAX: usize = 1 << 30;

const VERSION_BYTES: usize = 2;
const END_BYTES: usize = 4;

/// Layout of the rows of one schema version. Build it once per table; it is immutable and shared freely.
#[derive(Clone, Debug)]
pub struct RowCodec {
    slots: Vec<Slot>,
    columns: Vec<Described>,
    /// First bytes of every row: the version, then zeros up to the variable bytes.
    template: Vec<u8>,
    /// Legal bits of the last bitmap byte, with its offset; `None` if all eight are or there is no bitmap.
    spare_bits: Option<(usize, u8)>,
    /// Null bitmap, as an offset range in the row.
    bitmap: (usize, usize),
    /// Offset of the first end offset.
    ends_at: usize,
    variable_count: usize,
    /// Offsets of boolean columns, whose bytes may only be 0 and 1.
    booleans: Vec<usize>,
    /// Whether every variable-length column is text, so that all can be validated in one pass.
    variable_is_text: bool,
    /// How to read rows of earlier versions.
    past: Option<Arc<Evolution>>,
}

/// What a column is besides its place.
#[derive(Clone, Debug)]
struct Described {
    name: String,
    /// Whether it takes NULL; a row may have room for one all the same.
    is_nullable: bool,
}

/// A column on its way to a place in a row.
struct Placed {
    kind: ValueKind,
    is_stored_nullable: bool,
    described: Described,
}

/// Where one column lies in a row: looked up once with [`RowCodec::slot`], then used for many rows of that codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    kind: ValueKind,
    /// Bit of this column in the byte at `null_at`; zero for a column that is never NULL.
    null_mask: u8,
    null_at: u16,
    /// Offset of the value, or of the value's end offset if `is_variable`.
    at: u32,
    is_variable: bool,
    /// First of the variable-length columns: starts where the variable bytes start.
    is_first_variable: bool,
    variable_at: u32,
}

impl Slot {
    /// Kind of the column's values.
    #[must_use]
    pub fn kind(&self) -> ValueKind {
        self.kind
    }

    /// Whether the column may hold NULL.
    #[must_use]
    pub fn is_nullable(&self) -> bool {
        self.null_mask != 0
    }
}

impl RowCodec {
    /// The layout for `schema`.
    ///
    /// # Panics
    /// Never: a [`TableSchema`] has only storable types.
    #[must_use]
    pub fn new(schema: &TableSchema) -> RowCodec {
        let placed =
            schema.columns.iter().zip(schema.stored_nullability()).map(|(column, is_stored_nullable)| Placed {
                kind: ValueKind::of(column.field.data_type())
                    .expect("TableSchema::new refuses types that are not storable"),
                is_stored_nullable,
                described: Described { name: column.field.name().clone(), is_nullable: column.field.is_nullable() },
            });
        RowCodec { past: schema.evolution.clone(), ..RowCodec::of_columns(schema.version, placed.collect()) }
    }

    /// The layout of rows of one nullable column, at version 0: how a single value is kept.
    #[must_use]
    pub fn of_value(kind: ValueKind) -> RowCodec {
        let described = Described { name: "value".to_owned(), is_nullable: true };
        RowCodec::of_columns(0, vec![Placed { kind, is_stored_nullable: true, described }])
    }

    /// The layout of rows that hold `forms`. Their columns have no names.
    pub(crate) fn of_forms<'a>(version: u16, forms: impl Iterator<Item = &'a Form>) -> RowCodec {
        let placed = forms.map(|form| Placed {
            kind: form.kind(),
            is_stored_nullable: form.is_nullable,
            described: Described { name: String::new(), is_nullable: form.is_nullable },
        });
        RowCodec::of_columns(version, placed.collect())
    }

    fn of_columns(version: u16, columns: Vec<Placed>) -> RowCodec {
        let kinds: Vec<ValueKind> = columns.iter().map(|column| column.kind).collect();
        let nullable_count = columns.iter().filter(|column| column.is_stored_nullable).count();
        let bitmap = (VERSION_BYTES, VERSION_BYTES + nullable_count.div_ceil(8));
        let fixed_bytes: usize = kinds.iter().filter_map(|k| k.fixed_bytes()).sum();
        let variable_count = kinds.iter().filter(|k| k.fixed_bytes().is_none()).count();
        let ends_at = bitmap.1 + fixed_bytes;
        let variable_at = ends_at + variable_count * END_BYTES;

        let mut slots = Vec::with_capacity(kinds.len());
        let (mut fixed_at, mut end_at, mut null_bit) = (bitmap.1, ends_at, 0);
        for (column, &kind) in columns.iter().zip(&kinds) {
            let (null_at, null_mask) =
                if column.is_stored_nullable { (bitmap.0 + null_bit / 8, 1 << (null_bit % 8)) } else { (0, 0) };
            null_bit += usize::from(column.is_stored_nullable);
            let cursor = if kind.fixed_bytes().is_some() { &mut fixed_at } else { &mut end_at };
            slots.push(Slot {
                kind,
                null_mask,
                null_at: null_at as u16,
                at: *cursor as u32,
                is_variable: kind.fixed_bytes().is_none(),
                is_first_variable: kind.fixed_bytes().is_none() && *cursor == ends_at,
                variable_at: variable_at as u32,
            });
            *cursor += kind.fixed_bytes().unwrap_or(END_BYTES);
        }
        assert!(fixed_at == ends_at && end_at == variable_at, "every byte of the header belongs to a column");

        let mut template = vec![0; variable_at];
        template[..VERSION_BYTES].copy_from_slice(&version.to_le_bytes());
        RowCodec {
            columns: columns.into_iter().map(|column| column.described).collect(),
            past: None,
            template,
            spare_bits: (nullable_count % 8 != 0).then(|| (bitmap.1 - 1, (1 << (nullable_count % 8)) - 1)),
            bitmap,
            ends_at,
            variable_count,
            booleans: slots.iter().filter(|s| s.kind == ValueKind::Boolean).map(|s| s.at as usize).collect(),
            variable_is_text: slots.iter().filter(|s| s.is_variable).all(|s| s.kind == ValueKind::Text),
            slots,
        }
    }

    /// How many columns a row has.
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.slots.len()
    }

    /// Where column `column` lies.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn slot(&self, column: usize) -> Slot {
        self.slots[column]
    }

    /// Bytes of a row before its variable bytes: a row is this long plus the lengths of its text and byte values.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.template.len()
    }

    /// Appends the row `values`, one per column in schema order, to `out`. On error `out` is as it was.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the column with a value of the wrong kind or a NULL that it does not allow, or says
    /// that the number of values or the size of the row is wrong.
    pub fn encode(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        if values.len() != self.slots.len() {
            let (found, expected) = (values.len(), self.slots.len());
            return Err(Error::Invalid(format!("a row of {expected} columns was given {found} values")));
        }
        let start = out.len();
        let encoded = self.encode_values(values, out);
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    fn encode_values(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        let mut row = self.begin(out);
        for (column, (&slot, value)) in self.slots.iter().zip(values).enumerate() {
            match value.kind() {
                None if self.columns[column].is_nullable => row.null(slot),
                None => {
                    let name = &self.columns[column].name;
                    return Err(Error::Invalid(format!("null value in column \"{name}\", which is not nullable")));
                }
                Some(kind) if kind == slot.kind => row.value(slot, value),
                Some(kind) => {
                    let (name, expected) = (&self.columns[column].name, slot.kind);
                    return Err(Error::Invalid(format!("column \"{name}\" holds {expected:?}, not {kind:?}")));
                }
            }
        }
        row.finish().map(|_| ())
    }

    /// Starts a row at the end of `out`, for callers that already hold values of the right types.
    #[inline]
    pub fn begin<'a>(&'a self, out: &'a mut Vec<u8>) -> RowBuilder<'a> {
        RowBuilder::new(self, out)
    }

    /// The row `bytes`, whichever version of the table it was written at: read in place if at the newest, otherwise turned
    /// into a row of that in `scratch`.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the offset within the row.
    #[inline]
    pub fn read<'a>(&'a self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<RowRef<'a>> {
        if bytes.get(..VERSION_BYTES) == self.template.get(..VERSION_BYTES) {
            return RowRef::new(self, bytes);
        }
        let Some(past) = &self.past else { return RowRef::new(self, bytes) };
        scratch.clear();
        past.upgrade(self, bytes, scratch)?;
        RowRef::new(self, scratch)
    }

    /// Whether `bytes` is a row of this codec: version, lengths, offsets, NULL slots and booleans, but not UTF-8.
    /// Cost does not depend on the row's size, only on its number of variable-length and NULL columns.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the offset within the row.
    #[inline]
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        let variable_at = self.template.len();
        if bytes.len() < variable_at {
            return Err(malformed(bytes.len(), "the row is cut short"));
        }
        if bytes[..VERSION_BYTES] != self.template[..VERSION_BYTES] {
            return Err(malformed(0, "the schema version is not the one asked for"));
        }
        if let Some((at, legal)) = self.spare_bits
            && bytes[at] & !legal != 0
        {
            return Err(malformed(at, "a spare bit of the null bitmap is set"));
        }
        let mut end = 0;
        for variable in 0..self.variable_count {
            let at = self.ends_at + variable * END_BYTES;
            let next = u32_at(bytes, at);
            if next < end {
                return Err(malformed(at, "a value ends before it starts"));
            }
            end = next;
        }
        if (bytes.len() - variable_at) as u64 != u64::from(end) {
            return Err(malformed(variable_at, "the last value does not end with the row"));
        }
        for &at in &self.booleans {
            if bytes[at] > 1 {
                return Err(malformed(at, "a boolean is neither 0 nor 1"));
            }
        }
        if bytes[self.bitmap.0..self.bitmap.1].iter().any(|&b| b != 0) { self.check_nulls(bytes) } else { Ok(()) }
    }

    #[cold]
    fn check_nulls(&self, bytes: &[u8]) -> Result<()> {
        for slot in self.slots.iter().filter(|s| bytes[s.null_at as usize] & s.null_mask != 0) {
            let at = slot.at as usize;
            let is_blank = match slot.kind.fixed_bytes() {
                Some(width) => bytes[at..at + width].iter().all(|&b| b == 0),
                None => slot.start(bytes) == u32_at(bytes, at) as usize,
            };
            if !is_blank {
                return Err(malformed(at, "a NULL has a value"));
            }
        }
        Ok(())
    }
}

impl Slot {
    /// Start of a variable-length value, counted from the first variable byte.
    #[inline]
    fn start(&self, bytes: &[u8]) -> usize {
        if self.is_first_variable { 0 } else { u32_at(bytes, self.at as usize - END_BYTES) as usize }
    }
}

/// Schema version that the row `bytes` says it was written with; `None` if it is too short to be a row.
#[must_use]
pub fn schema_version(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|&b| u16::from_le_bytes(b))
}

fn malformed(offset: usize, what: &'static str) -> Error {
    Error::malformed("row", offset, what)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
