//! `PastRows`: rows of an earlier schema version, read as rows of the newest.
//!
//! This is the one place where an old row turns into a new one: each column comes from where that version had it, widened
//! to what it is now, or is the value it has in rows older than it. Whoever reads rows gets here through
//! [`RowCodec::read`] or [`crate::TableSchema::newest`].

use super::{OwnedValue, RowCodec, RowRef, malformed, schema_version};
use crate::error::Result;
use crate::schema::Widening;
use crate::schema::evolution::{Evolution, Form};

/// Layout of the rows of one earlier version, and what becomes of its columns.
#[derive(Debug)]
pub(crate) struct PastRows {
    codec: RowCodec,
    /// For each column of the newest version.
    sources: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    /// A column of the old row.
    Column(usize, Widening),
    Missing(OwnedValue),
}

impl PastRows {
    pub(crate) fn new(evolution: &Evolution, version: u16) -> Result<PastRows> {
        let stored: Vec<_> = evolution.forms.iter().filter(|form| form.is_in(version)).collect();
        let source = |form: &Form| match stored.iter().position(|old| old.id == form.id) {
            Some(position) => {
                let widening = Widening::of(&stored[position].data_type, &form.data_type);
                Ok(Source::Column(position, widening.expect("forms of a column only widen")))
            }
            None => evolution.missing_value(form).map(Source::Missing),
        };
        let sources = evolution.live().map(source).collect::<Result<Vec<_>>>()?;
        Ok(PastRows { codec: RowCodec::of_forms(version, stored.into_iter()), sources })
    }
}

impl PastRows {
    fn write(&self, old: RowRef<'_>, newest: &RowCodec, out: &mut Vec<u8>) -> Result<()> {
        let mut builder = newest.begin(out);
        for (slot, source) in newest.slots.iter().zip(&self.sources) {
            let value = match source {
                Source::Column(position, widening) => widening.widen(old.get(*position)?),
                Source::Missing(value) => Some(value.as_value()),
            };
            let value = value.ok_or_else(|| malformed(0, "a value is beyond the range of its column"))?;
            builder.value(*slot, &value);
        }
        builder.finish().map(|_| ())
    }
}

impl Evolution {
    /// Writes `row`, of an earlier version, to `out` as a row of `newest`.
    #[cold]
    pub(crate) fn upgrade(&self, newest: &RowCodec, row: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let version = schema_version(row).ok_or_else(|| malformed(row.len(), "the row is cut short"))?;
        let past = self.past(version);
        let past = past.ok_or_else(|| malformed(0, "the schema version is not one that the table had"))?;
        let start = out.len();
        let written = past.write(RowRef::new(&past.codec, row)?, newest, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}
