//! The commit record: one transaction's writes as the payload of one log frame. Layout: FORMAT.md.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::iter::VersionKind;
use crate::memtable::{Entries, EntrySpan};
use crate::schema::TableId;
use crate::txn::Overlay;

/// An encoded transaction, and where its entries lie.
#[derive(Debug)]
pub(crate) struct CommitRecord<'a> {
    pub(crate) entries: Arc<Entries<'a>>,
    /// Entries of each table, as a range of all.
    pub(crate) tables: Vec<(TableId, Range<usize>)>,
}

impl<'a> CommitRecord<'a> {
    /// Encodes the writes, ascending by key.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] beyond 4 GiB, where offsets no longer fit.
    pub(crate) fn encode(writes: &BTreeMap<TableId, Arc<Overlay>>) -> Result<CommitRecord<'static>> {
        let entry_count: usize = writes.values().map(|overlay| overlay.len()).sum();
        let mut bytes = Vec::with_capacity(encoded_bytes_max(writes));
        let mut spans = Vec::with_capacity(entry_count);
        let mut tables = Vec::with_capacity(writes.len());
        put_varint(&mut bytes, entry_count);
        for (table, overlay) in writes.iter().filter(|(_, overlay)| !overlay.is_empty()) {
            let first = spans.len();
            for (key, row) in overlay.iter() {
                spans.push(put_entry(&mut bytes, key, row.as_deref())?);
            }
            tables.push((*table, first..spans.len()));
        }
        Ok(CommitRecord { entries: Arc::new(Entries { bytes: Cow::Owned(bytes), spans }), tables })
    }

    /// Decodes a payload read back from the log.
    ///
    /// # Errors
    /// What does not hold, and at which byte of the payload.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<CommitRecord<'a>, (usize, &'static str)> {
        let mut reader = Reader { bytes, at: 0 };
        let entry_count = reader.varint()?;
        let (mut spans, mut tables): (Vec<EntrySpan>, Vec<(TableId, Range<usize>)>) = (Vec::new(), Vec::new());
        for at in 0..entry_count {
            let span = reader.entry()?;
            let key = span_key(bytes, &span);
            let table = TableId(u32::from_be_bytes(
                key.first_chunk::<4>().copied().ok_or((span.key_at as usize, "key without a table"))?,
            ));
            if spans.last().is_some_and(|last: &EntrySpan| span_key(bytes, last) >= key) {
                return Err((span.key_at as usize, "keys do not ascend"));
            }
            match tables.last_mut() {
                Some((last, range)) if *last == table => range.end = at as usize + 1,
                _ => tables.push((table, at as usize..at as usize + 1)),
            }
            spans.push(span);
        }
        if reader.at != bytes.len() {
            return Err((reader.at, "bytes after the last entry"));
        }
        Ok(CommitRecord { entries: Arc::new(Entries { bytes: Cow::Borrowed(bytes), spans }), tables })
    }

    /// The encoded record.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.entries.bytes
    }

    /// Number of entries.
    pub(crate) fn entry_count(&self) -> usize {
        self.entries.spans.len()
    }

    /// Full keys in record order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.entries.spans.len()).map(|at| self.entries.get(at).0)
    }

    /// Whether an entry has this full key.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.entries.spans.binary_search_by(|span| span_key(self.bytes(), span).cmp(key)).is_ok()
    }

    /// Key, kind and row bytes of the entries `range`.
    pub(crate) fn versions(&self, range: Range<usize>) -> impl Iterator<Item = (&[u8], VersionKind, &[u8])> {
        range.map(|at| self.entries.get(at))
    }
}

fn span_key<'a>(bytes: &'a [u8], span: &EntrySpan) -> &'a [u8] {
    &bytes[span.key_at as usize..][..span.key_bytes as usize]
}

fn encoded_bytes_max(writes: &BTreeMap<TableId, Arc<Overlay>>) -> usize {
    let entries = writes.values().flat_map(|overlay| overlay.iter());
    5 + entries.map(|(key, row)| 11 + key.len() + row.as_ref().map_or(0, |row| row.len())).sum::<usize>()
}

fn put_entry(bytes: &mut Vec<u8>, key: &[u8], row: Option<&[u8]>) -> Result<EntrySpan> {
    bytes.push(if row.is_some() { VersionKind::Put } else { VersionKind::Delete } as u8);
    put_varint(bytes, key.len());
    let key_at = bytes.len();
    bytes.extend_from_slice(key);
    if let Some(row) = row {
        put_varint(bytes, row.len());
    }
    let value_at = bytes.len();
    bytes.extend_from_slice(row.unwrap_or_default());
    let offset = |at: usize| {
        u32::try_from(at).map_err(|_| Error::LimitExceeded {
            budget: "size of one commit record",
            requested_bytes: at as u64,
            used_bytes: 0,
            limit_bytes: u64::from(u32::MAX),
        })
    };
    Ok(EntrySpan {
        kind: if row.is_some() { VersionKind::Put } else { VersionKind::Delete },
        key_at: offset(key_at)?,
        key_bytes: offset(key.len())?,
        value_at: offset(value_at)?,
        value_bytes: offset(bytes.len())? - offset(value_at)?,
    })
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, (usize, &'static str)> {
        let byte = *self.bytes.get(self.at).ok_or((self.at, "record ends within an entry"))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u32, (usize, &'static str)> {
        let (start, mut value) = (self.at, 0u64);
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| (start, "number too large"));
            }
        }
        Err((start, "number too long"))
    }

    fn span(&mut self) -> Result<(u32, u32), (usize, &'static str)> {
        let length = self.varint()?;
        let at = self.at;
        self.at =
            at.checked_add(length as usize).filter(|end| *end <= self.bytes.len()).ok_or((at, "entry too long"))?;
        // The payload of a frame is shorter than 4 GiB, which the frame's own length field ensures.
        Ok((u32::try_from(at).map_err(|_| (at, "record too long"))?, length))
    }

    fn entry(&mut self) -> Result<EntrySpan, (usize, &'static str)> {
        let at = self.at;
        let kind = match self.byte()? {
            0 => VersionKind::Delete,
            1 => VersionKind::Put,
            _ => return Err((at, "unknown kind of entry")),
        };
        let (key_at, key_bytes) = self.span()?;
        let (value_at, value_bytes) = match kind {
            VersionKind::Delete => (key_at + key_bytes, 0),
            VersionKind::Put | VersionKind::Reference => self.span()?,
        };
        Ok(EntrySpan { kind, key_at, key_bytes, value_at, value_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(table: u32, rest: &[u8]) -> Vec<u8> {
        [&table.to_be_bytes()[..], &[0, 0], rest].concat()
    }

    type Entry = (u32, Vec<u8>, Option<Vec<u8>>);

    fn writes(entries: &[Entry]) -> BTreeMap<TableId, Arc<Overlay>> {
        let mut writes: BTreeMap<TableId, Overlay> = BTreeMap::new();
        for (table, rest, row) in entries {
            writes.entry(TableId(*table)).or_default().insert(key(*table, rest), row.clone().map(Arc::from));
        }
        writes.into_iter().map(|(table, overlay)| (table, Arc::new(overlay))).collect()
    }

    #[test]
    fn the_worked_example_of_the_format_holds() {
        let format = include_str!("FORMAT.md");
        let hex = format.split("```hex").nth(1).unwrap().split("```").next().unwrap();
        let expected: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let writes = writes(&[(7, vec![0x81], Some(vec![0x2a])), (7, vec![0x82], None)]);
        assert_eq!(CommitRecord::encode(&writes).unwrap().bytes(), expected);
    }

    proptest! {
        #[test]
        fn a_record_decodes_to_what_was_encoded_and_no_cut_or_flip_panics(
            entries in prop::collection::vec(
                (0u32..3, prop::collection::vec(any::<u8>(), 0..200), prop::option::of(prop::collection::vec(any::<u8>(), 0..200))),
                1..20,
            ),
            flip in any::<(usize, u8)>(),
        ) {
            let record = CommitRecord::encode(&writes(&entries)).unwrap();
            let decoded = CommitRecord::decode(record.bytes()).unwrap();
            prop_assert_eq!(&decoded.entries.spans, &record.entries.spans);
            prop_assert_eq!(&decoded.tables, &record.tables);
            for length in 0..record.bytes().len() {
                prop_assert!(CommitRecord::decode(&record.bytes()[..length]).is_err());
            }
            let mut damaged = record.bytes().to_vec();
            let at = flip.0 % damaged.len();
            damaged[at] ^= flip.1;
            let _ = CommitRecord::decode(&damaged);
        }
    }
}
