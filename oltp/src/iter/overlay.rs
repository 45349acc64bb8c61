//! `OverlayCursor`: a transaction's own uncommitted writes, as the newest versions of all.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Cursor, VersionKind};
use crate::error::Result;
use crate::seqno::SeqNo;

/// A transaction's uncommitted writes to one table: full key → row bytes, or `None` if deleted. Immutable once handed
/// to a reader.
pub type Overlay = BTreeMap<Vec<u8>, Option<Arc<[u8]>>>;

/// Reads an [`Overlay`]; every entry has [`SeqNo::MAX`].
///
/// A step is one search in the map, because a cursor that owns the map cannot also borrow an iterator of it.
#[derive(Clone, Debug)]
pub struct OverlayCursor {
    overlay: Arc<Overlay>,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Fresh,
    On(Vec<u8>, Option<Arc<[u8]>>),
    Done,
}

impl OverlayCursor {
    /// Before the first entry of `overlay`.
    #[must_use]
    pub fn new(overlay: Arc<Overlay>) -> OverlayCursor {
        OverlayCursor { overlay, state: State::Fresh }
    }

    fn go_to(&mut self, from: Bound<&[u8]>) {
        self.state = match self.overlay.range::<[u8], _>((from, Bound::Unbounded)).next() {
            Some((key, row)) => State::On(key.clone(), row.clone()),
            None => State::Done,
        };
    }
}

impl Cursor for OverlayCursor {
    fn valid(&self) -> bool {
        matches!(self.state, State::On(..))
    }

    fn key(&self) -> &[u8] {
        match &self.state {
            State::On(key, _) => key,
            State::Fresh | State::Done => unreachable!("read only while valid"),
        }
    }

    fn seqno(&self) -> SeqNo {
        SeqNo::MAX
    }

    fn kind(&self) -> VersionKind {
        match &self.state {
            State::On(_, Some(_)) => VersionKind::Put,
            State::On(_, None) | State::Fresh | State::Done => VersionKind::Delete,
        }
    }

    fn value(&self) -> &[u8] {
        match &self.state {
            State::On(_, Some(row)) => row,
            State::On(_, None) | State::Fresh | State::Done => &[],
        }
    }

    fn next(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Fresh => self.go_to(Bound::Unbounded),
            State::On(key, _) => self.go_to(Bound::Excluded(&key)),
            State::Done => {}
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], _seqno: SeqNo) -> Result<()> {
        // An entry (key, MAX) is at or after (key, s) in cursor order only for s = MAX; callers seek to no other.
        self.go_to(Bound::Included(key));
        Ok(())
    }
}
