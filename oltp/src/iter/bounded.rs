//! `BoundedCursor`: the part of another cursor between two keys, both included.

use bytes::Bytes;

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// Restricts a cursor to keys in `first..=last`. Starts before the first of them, as every cursor does.
pub struct BoundedCursor<C> {
    inner: C,
    first: Vec<u8>,
    last: Vec<u8>,
    started: bool,
}

impl<C: Cursor> BoundedCursor<C> {
    /// The entries of `inner` with keys from `first` to `last`.
    pub fn new(inner: C, first: Vec<u8>, last: Vec<u8>) -> BoundedCursor<C> {
        BoundedCursor { inner, first, last, started: false }
    }
}

impl<C: Cursor> Cursor for BoundedCursor<C> {
    fn valid(&self) -> bool {
        self.started && self.inner.valid() && self.inner.key() <= self.last.as_slice()
    }

    fn key(&self) -> &[u8] {
        self.inner.key()
    }

    fn seqno(&self) -> SeqNo {
        self.inner.seqno()
    }

    fn kind(&self) -> VersionKind {
        self.inner.kind()
    }

    fn value(&self) -> &[u8] {
        self.inner.value()
    }

    fn load(&self) -> Result<Bytes> {
        self.inner.load()
    }

    fn next(&mut self) -> Result<()> {
        if self.started {
            return self.inner.next();
        }
        self.started = true;
        self.inner.seek(&self.first, SeqNo::MAX)
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.started = true;
        if key < self.first.as_slice() { self.inner.seek(&self.first, SeqNo::MAX) } else { self.inner.seek(key, seqno) }
    }
}
