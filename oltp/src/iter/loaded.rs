//! `LoadedCursor`: another cursor with every large value read from its file, for readers that want all values anyway.

use bytes::Bytes;

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// Reads the value of each entry that it comes to, so that none is a [`VersionKind::Reference`].
pub struct LoadedCursor<C> {
    inner: C,
    loaded: Option<Bytes>,
}

impl<C: Cursor> LoadedCursor<C> {
    /// The entries of `inner`, with their values.
    pub fn new(inner: C) -> LoadedCursor<C> {
        LoadedCursor { inner, loaded: None }
    }

    fn load_current(&mut self) -> Result<()> {
        let is_reference = self.inner.valid() && self.inner.kind() == VersionKind::Reference;
        self.loaded = if is_reference { Some(self.inner.load()?) } else { None };
        Ok(())
    }
}

impl<C: Cursor> Cursor for LoadedCursor<C> {
    fn valid(&self) -> bool {
        // Where a value could not be read the cursor stands on nothing.
        self.inner.valid() && (self.loaded.is_some() || self.inner.kind() != VersionKind::Reference)
    }

    fn key(&self) -> &[u8] {
        self.inner.key()
    }

    fn seqno(&self) -> SeqNo {
        self.inner.seqno()
    }

    fn kind(&self) -> VersionKind {
        if self.loaded.is_some() { VersionKind::Put } else { self.inner.kind() }
    }

    fn value(&self) -> &[u8] {
        self.loaded.as_deref().unwrap_or_else(|| self.inner.value())
    }

    fn next(&mut self) -> Result<()> {
        self.loaded = None;
        self.inner.next()?;
        self.load_current()
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.loaded = None;
        self.inner.seek(key, seqno)?;
        self.load_current()
    }
}
