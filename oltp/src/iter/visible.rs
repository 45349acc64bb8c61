//! `VisibleCursor`: the rows of one table's row part that a snapshot sees, in key order.
//!
//! Of each key the newest version at or before the snapshot counts; a delete hides the key. A transaction's own
//! uncommitted writes come before everything. Rows that live in column segments are not here: each visible row has
//! one home (P5), so a full scan is this and the segments, one after the other.

use std::ops::Range;

use bytes::Bytes;

use super::{Cursor, MergeCursor, VersionKind};
use crate::error::Result;
use crate::seqno::SeqNo;

/// What kind of component a row was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// The reading transaction's own uncommitted writes: visible to it whatever its snapshot.
    Overlay,
    /// A memtable, active or sealed.
    Memtable,
    /// A run.
    Run,
}

/// Visible rows within a key range. Starts before the first.
pub struct VisibleCursor {
    merge: MergeCursor,
    kinds: Vec<SourceKind>,
    lower: Vec<u8>,
    upper: Vec<u8>,
    at: SeqNo,
    state: State,
    /// Key whose versions are decided: the current row's, or that of a delete passed over.
    decided: Vec<u8>,
    /// Of the current row.
    kind: VersionKind,
    /// The current row, once it was read from its value file.
    loaded: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    OnRow,
    Done,
}

impl VisibleCursor {
    /// Rows visible at `at` with `keys.start <= key < keys.end`, out of `sources`, which come newest first.
    #[must_use]
    pub fn new(sources: Vec<(SourceKind, Box<dyn Cursor>)>, keys: Range<&[u8]>, at: SeqNo) -> VisibleCursor {
        let (kinds, cursors) = sources.into_iter().unzip();
        let (lower, upper) = (keys.start.to_vec(), keys.end.to_vec());
        let merge = MergeCursor::new(cursors);
        let (state, kind) = (State::Fresh, VersionKind::Delete);
        VisibleCursor { merge, kinds, lower, upper, at, state, decided: Vec::new(), kind, loaded: None }
    }

    /// Moves to the next row; `false` if there is none. Not to be called again after an error.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    #[expect(clippy::should_implement_trait, reason = "an iterator's items could not borrow from the cursor")]
    pub fn next(&mut self) -> Result<bool> {
        let mut undecided = match self.state {
            State::Fresh => {
                self.merge.seek(&self.lower, SeqNo::MAX)?;
                true
            }
            State::OnRow => {
                self.merge.next()?;
                false
            }
            State::Done => return Ok(false),
        };
        self.state = State::Done;
        self.loaded = None;
        while self.merge.valid() && self.merge.key() < &self.upper[..] {
            let hidden = !undecided && self.merge.key() == &self.decided[..];
            if hidden || !self.in_snapshot() {
                self.merge.next()?;
                continue;
            }
            self.decided.clear();
            self.decided.extend_from_slice(self.merge.key());
            undecided = false;
            self.kind = self.merge.kind();
            if self.kind != VersionKind::Delete {
                self.state = State::OnRow;
                return Ok(true);
            }
            self.merge.next()?;
        }
        Ok(false)
    }

    fn in_snapshot(&self) -> bool {
        self.merge.seqno() <= self.at || self.source() == SourceKind::Overlay
    }

    /// Full key of the current row. Only after [`VisibleCursor::next`] said `true`.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.decided
    }

    /// Bytes of the current row. A large value is read from its file when it is first asked for.
    ///
    /// # Errors
    /// A corrupt or unreadable value file; other rows never fail here.
    #[inline]
    pub fn value(&mut self) -> Result<&[u8]> {
        if self.kind == VersionKind::Reference {
            return self.load();
        }
        Ok(self.merge.value())
    }

    #[cold]
    fn load(&mut self) -> Result<&[u8]> {
        let row = match self.loaded.take() {
            Some(row) => row,
            None => self.merge.load()?,
        };
        Ok(self.loaded.insert(row))
    }

    /// Commit that wrote the current row; [`SeqNo::MAX`] if it is uncommitted.
    #[inline]
    #[must_use]
    pub fn seqno(&self) -> SeqNo {
        self.merge.seqno()
    }

    /// Kind of component the current row was read from.
    #[inline]
    #[must_use]
    pub fn source(&self) -> SourceKind {
        self.kinds[self.merge.source()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::iter::{Overlay, OverlayCursor, VecCursor, Version};

    /// What a snapshot sees, from the definition: one row per key, by the newest version it may see.
    fn oracle(
        versions: &[(SourceKind, Version)],
        keys: Range<&[u8]>,
        at: SeqNo,
    ) -> Vec<(SourceKind, Vec<u8>, SeqNo, Vec<u8>)> {
        let mut newest: BTreeMap<&[u8], &(SourceKind, Version)> = BTreeMap::new();
        for entry in versions {
            let (kind, version) = entry;
            let visible = *kind == SourceKind::Overlay || version.seqno <= at;
            let newer = newest.get(&version.key[..]).is_none_or(|(_, other)| other.seqno < version.seqno);
            if visible && newer && keys.contains(&&version.key[..]) {
                newest.insert(&version.key, entry);
            }
        }
        let rows = newest.into_values().filter(|(_, version)| version.kind == VersionKind::Put);
        rows.map(|(kind, version)| (*kind, version.key.clone(), version.seqno, version.value.clone())).collect()
    }

    proptest! {
        #[test]
        fn a_snapshot_sees_the_newest_version_of_each_key(
            versions in prop::collection::btree_map(("[a-d]{1,3}", 1u64..8), (any::<bool>(), 0usize..4), 0..50),
            overlay in prop::collection::btree_map("[a-d]{1,3}", any::<bool>(), 0..6),
            bounds in ("[a-d]{0,2}", "[a-e]{0,2}"),
            at in 0u64..9,
        ) {
            let mut all: Vec<(SourceKind, Version)> = Vec::new();
            let mut homes: Vec<Vec<Version>> = vec![Vec::new(); 4];
            for ((key, seqno), (put, home)) in versions {
                let version = if put { Version::put(&key, seqno, seqno.to_string()) } else { Version::delete(&key, seqno) };
                all.push((if home < 2 { SourceKind::Memtable } else { SourceKind::Run }, version.clone()));
                homes[home].push(version);
            }
            let mut writes = Overlay::new();
            for (key, put) in overlay {
                let mine = if put { Version::put(&key, u64::MAX, "mine") } else { Version::delete(&key, u64::MAX) };
                all.push((SourceKind::Overlay, mine));
                writes.insert(key.into_bytes(), put.then(|| Arc::from(&b"mine"[..])));
            }
            let mut sources: Vec<(SourceKind, Box<dyn Cursor>)> =
                vec![(SourceKind::Overlay, Box::new(OverlayCursor::new(Arc::new(writes))))];
            for (home, mut versions) in homes.into_iter().enumerate() {
                versions.sort_by(Version::order);
                let kind = if home < 2 { SourceKind::Memtable } else { SourceKind::Run };
                sources.push((kind, Box::new(VecCursor::new(versions))));
            }
            let keys = bounds.0.as_bytes()..bounds.1.as_bytes();
            let mut cursor = VisibleCursor::new(sources, keys.clone(), SeqNo(at));
            let mut found = Vec::new();
            while cursor.next().unwrap() {
                let value = cursor.value().unwrap().to_vec();
                found.push((cursor.source(), cursor.key().to_vec(), cursor.seqno(), value));
            }
            prop_assert!(!cursor.next().unwrap());
            prop_assert_eq!(found, oracle(&all, keys, SeqNo(at)));
        }
    }
}
