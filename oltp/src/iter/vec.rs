//! `VecCursor`: versions held in a vector, as a cursor; for small dumps and for tests.

use std::cmp::Ordering;

use super::{Cursor, VersionKind};
use crate::error::Result;
use crate::seqno::SeqNo;

/// One version of one row, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Full key.
    pub key: Vec<u8>,
    /// Commit that wrote it.
    pub seqno: SeqNo,
    /// What it does to the key.
    pub kind: VersionKind,
    /// Row bytes, empty for a delete.
    pub value: Vec<u8>,
}

impl Version {
    /// A version that sets `key` to `value`.
    pub fn put(key: impl AsRef<[u8]>, seqno: u64, value: impl AsRef<[u8]>) -> Version {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        Version { key, seqno: SeqNo(seqno), kind: VersionKind::Put, value }
    }

    /// A tombstone for `key`.
    pub fn delete(key: impl AsRef<[u8]>, seqno: u64) -> Version {
        Version { key: key.as_ref().to_vec(), seqno: SeqNo(seqno), kind: VersionKind::Delete, value: Vec::new() }
    }

    /// A copy of what `cursor` stands on.
    #[must_use]
    pub fn at(cursor: &dyn Cursor) -> Version {
        let (key, value) = (cursor.key().to_vec(), cursor.value().to_vec());
        Version { key, seqno: cursor.seqno(), kind: cursor.kind(), value }
    }

    /// Copies of what `cursor` stands on and of everything behind it.
    ///
    /// # Errors
    /// Those of the cursor.
    pub fn rest_of(cursor: &mut dyn Cursor) -> Result<Vec<Version>> {
        let mut found = Vec::new();
        while cursor.valid() {
            found.push(Version::at(cursor));
            cursor.next()?;
        }
        Ok(found)
    }

    /// Cursor order: key ascending, SeqNo descending.
    #[must_use]
    pub fn order(&self, other: &Version) -> Ordering {
        self.key.cmp(&other.key).then_with(|| other.seqno.cmp(&self.seqno))
    }

    /// Whether it comes before (`key`, `seqno`) in cursor order.
    #[must_use]
    pub fn is_before(&self, key: &[u8], seqno: SeqNo) -> bool {
        self.key[..].cmp(key).then_with(|| seqno.cmp(&self.seqno)).is_lt()
    }
}

/// A cursor over versions in memory.
#[derive(Clone, Debug)]
pub struct VecCursor {
    versions: Vec<Version>,
    /// Position of the next entry; the current one is before it.
    next: usize,
    valid: bool,
}

impl VecCursor {
    /// Over `versions`, which are in cursor order.
    ///
    /// # Panics
    /// If they do not rise strictly (I5).
    #[must_use]
    pub fn new(versions: Vec<Version>) -> VecCursor {
        assert!(versions.is_sorted_by(|a, b| a.order(b).is_lt()), "versions rise strictly"); // I5
        VecCursor { versions, next: 0, valid: false }
    }

    fn current(&self) -> &Version {
        &self.versions[self.next - 1]
    }
}

impl Cursor for VecCursor {
    fn valid(&self) -> bool {
        self.valid
    }

    fn key(&self) -> &[u8] {
        &self.current().key
    }

    fn seqno(&self) -> SeqNo {
        self.current().seqno
    }

    fn kind(&self) -> VersionKind {
        self.current().kind
    }

    fn value(&self) -> &[u8] {
        &self.current().value
    }

    fn next(&mut self) -> Result<()> {
        self.valid = self.next < self.versions.len();
        self.next += usize::from(self.valid);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.next = self.versions.partition_point(|version| version.is_before(key, seqno));
        self.next()
    }
}
