//! `Batch`: one oversized commit's entries for one table, where its encoded record has them.
//!
//! The record is sorted by key already. So it serves as a memtable as it is: sealed from the start, without a copy of each
//! row in a skip list, and gone with its flush. Source: Pebble's flushable batches.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::iter::VersionKind;
use crate::seqno::SeqNo;
use crate::sync::Arc;

/// Where an entry's key and value lie in a commit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntrySpan {
    pub(crate) kind: VersionKind,
    pub(crate) key_at: u32,
    pub(crate) key_bytes: u32,
    pub(crate) value_at: u32,
    /// Zero for a delete.
    pub(crate) value_bytes: u32,
}

/// The entries of an encoded commit.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) spans: Vec<EntrySpan>,
}

impl Entries<'_> {
    /// Key, kind and row bytes of the entry at `at`.
    pub(crate) fn get(&self, at: usize) -> (&[u8], VersionKind, &[u8]) {
        let span = self.spans[at];
        let slice = |at: u32, bytes: u32| &self.bytes[at as usize..][..bytes as usize];
        (slice(span.key_at, span.key_bytes), span.kind, slice(span.value_at, span.value_bytes))
    }

    /// Bytes of memory that the entries `range` take: their part of the record, and where each of them lies.
    pub(crate) fn bytes_of(&self, range: &Range<usize>) -> u64 {
        let end = |span: &EntrySpan| u64::from(span.value_at + span.value_bytes);
        let (Some(first), Some(last)) =
            (self.spans.get(range.start), range.end.checked_sub(1).map(|at| &self.spans[at]))
        else {
            return 0;
        };
        end(last).saturating_sub(u64::from(first.key_at)) + (range.len() * size_of::<EntrySpan>()) as u64
    }

    /// The same entries in memory of their own.
    pub(crate) fn into_owned(self) -> Entries<'static> {
        Entries { bytes: Cow::Owned(self.bytes.into_owned()), spans: self.spans }
    }
}

/// A range of a commit's entries, ascending by key, no key twice.
pub(super) struct Batch {
    entries: Arc<Entries<'static>>,
    range: Range<usize>,
    seqno: SeqNo,
}

impl Batch {
    pub(super) fn new(entries: Arc<Entries<'static>>, range: Range<usize>, seqno: SeqNo) -> Batch {
        Batch { entries, range, seqno }
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.bytes_of(&self.range)
    }

    pub(super) fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// Key, kind and row bytes of the entry at `at`, counted from 0.
    pub(super) fn entry(&self, at: usize) -> (&[u8], VersionKind, &[u8]) {
        self.entries.get(self.range.start + at)
    }

    /// The first entry at or after (`key`, `seqno`) in cursor order; `len` if there is none.
    pub(super) fn lower_bound(&self, key: &[u8], seqno: SeqNo) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            // Newer versions of a key come first, so an entry of this very key is before a sought one that is older.
            let is_before = match self.entry(middle).0.cmp(key) {
                Ordering::Less => true,
                Ordering::Equal => self.seqno > seqno,
                Ordering::Greater => false,
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
