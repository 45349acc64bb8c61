//! `GcCursor`: a sorted sequence of versions without those that no snapshot can see.
//!
//! The snapshots that somebody may still read at cut the commit order into stripes. A version is seen by a snapshot only
//! if it is the newest one of its key in its stripe, so one old snapshot costs one version a key, not all that came after
//! it. Source: RocksDB's compaction iterator.
//!
//! Above the newest of those points, the *horizon*, every version stays: snapshots taken while the job runs lie there.
//! The newest version of the oldest stripe goes too if it is a tombstone with nothing older below it to hide.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// What may be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Where somebody may read.
    pub snapshots: Stripes,
    /// What becomes of a key's last tombstone.
    pub tombstones: Tombstones,
}

/// Where somebody may read: at each of some SeqNos, and anywhere from the last of them, the horizon, on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripes(
    /// Ascending, without repetition, never empty.
    Arc<[SeqNo]>,
);

impl Stripes {
    /// Everything from `horizon` on, and of `snapshots` those below it.
    #[must_use]
    pub fn new(snapshots: impl IntoIterator<Item = SeqNo>, horizon: SeqNo) -> Stripes {
        let mut points: Vec<SeqNo> = snapshots.into_iter().filter(|seqno| *seqno < horizon).collect();
        points.push(horizon);
        points.sort_unstable();
        points.dedup();
        Stripes(points.into())
    }

    /// The oldest SeqNo that somebody may read at.
    #[must_use]
    pub fn oldest(&self) -> SeqNo {
        self.0.first().copied().unwrap_or_default()
    }

    /// Number of the stripe that `seqno` lies in, from 0 for the oldest; `None` above the horizon.
    fn stripe(&self, seqno: SeqNo) -> Option<usize> {
        let at = self.0.partition_point(|point| *point < seqno);
        (at < self.0.len()).then_some(at)
    }
}

/// Whether tombstones that hide nothing within the merge still hide something outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstones {
    /// Older versions of these keys may lie in older runs or in segments.
    Keep,
    /// Nothing older exists: a tombstone every snapshot sees says the same as no entry.
    Drop,
}

/// Passes on the versions of its input that somebody may still read.
pub struct GcCursor<C> {
    input: C,
    options: GcOptions,
    /// Key whose newest version in the stripe `decided` has passed, if any has.
    key: Vec<u8>,
    decided: Option<usize>,
    dropped_count: u64,
}

impl<C: Cursor> GcCursor<C> {
    /// Reads `input` under `options`.
    pub fn new(input: C, options: GcOptions) -> GcCursor<C> {
        GcCursor { input, options, key: Vec::new(), decided: None, dropped_count: 0 }
    }

    /// Versions passed over so far.
    pub fn dropped_count(&self) -> u64 {
        self.dropped_count
    }

    /// Moves on from versions that nobody sees.
    fn settle(&mut self) -> Result<()> {
        while self.input.valid() && !self.keeps_current() {
            self.dropped_count += 1;
            self.input.next()?;
        }
        Ok(())
    }

    fn keeps_current(&mut self) -> bool {
        let Some(stripe) = self.options.snapshots.stripe(self.input.seqno()) else { return true };
        if self.decided.is_some() && self.input.key() == &self.key[..] {
            if self.decided == Some(stripe) {
                return false;
            }
        } else {
            self.key.clear();
            self.key.extend_from_slice(self.input.key());
        }
        self.decided = Some(stripe);
        // In a newer stripe a tombstone hides what an older snapshot still sees.
        stripe > 0 || self.input.kind() != VersionKind::Delete || self.options.tombstones == Tombstones::Keep
    }
}

impl<C: Cursor> Cursor for GcCursor<C> {
    fn valid(&self) -> bool {
        self.input.valid()
    }

    fn key(&self) -> &[u8] {
        self.input.key()
    }

    fn seqno(&self) -> SeqNo {
        self.input.seqno()
    }

    fn kind(&self) -> VersionKind {
        self.input.kind()
    }

    fn value(&self) -> &[u8] {
        self.input.value()
    }

    fn load(&self) -> Result<Bytes> {
        self.input.load()
    }

    fn next(&mut self) -> Result<()> {
        self.input.next()?;
        self.settle()
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        // From the key's newest version on, because a newer one decides whether the one sought is kept.
        self.decided = None;
        self.input.seek(key, SeqNo::MAX)?;
        self.settle()?;
        while self.valid() && self.key() == key && self.seqno() > seqno {
            self.next()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::iter::{VecCursor, Version};

    /// Row at a time, from the definition: a version stays if it is above the horizon, or if some snapshot sees it, unless
    /// it is a tombstone at or below all snapshots, which nobody needs.
    fn oracle(versions: &[Version], snapshots: &[u64], horizon: u64, tombstones: Tombstones) -> Vec<Version> {
        let points: Vec<SeqNo> =
            snapshots.iter().copied().filter(|s| *s < horizon).chain([horizon]).map(SeqNo).collect();
        let keeps = |version: &&Version| {
            let newer = versions.iter().filter(|other| other.key == version.key && other.seqno > version.seqno);
            let next = newer.map(|other| other.seqno).min().unwrap_or(SeqNo::MAX);
            let seen = points.iter().any(|at| version.seqno <= *at && *at < next);
            let needless = version.kind == VersionKind::Delete
                && tombstones == Tombstones::Drop
                && points.iter().all(|at| version.seqno <= *at);
            version.seqno.0 > horizon || (seen && !needless)
        };
        versions.iter().filter(keeps).cloned().collect()
    }

    fn any_versions() -> impl Strategy<Value = Vec<Version>> {
        prop::collection::btree_map(("[ab]{0,2}", 1u64..12), any::<bool>(), 0..40).prop_map(|entries| {
            let version = |((key, seqno), put)| match put {
                true => Version::put(key, seqno, seqno.to_string()),
                false => Version::delete(key, seqno),
            };
            let mut versions: Vec<Version> = entries.into_iter().map(version).collect();
            versions.sort_by(Version::order);
            versions
        })
    }

    fn visible(versions: &[Version], at: SeqNo) -> Vec<Version> {
        let mut seen = BTreeSet::new();
        let newest = versions.iter().filter(|v| v.seqno <= at && seen.insert(v.key.clone()));
        newest.filter(|v| v.kind == VersionKind::Put).cloned().collect()
    }

    proptest! {
        /// Exactly the versions of the definition remain, also from any seek position, and no snapshot notices: neither
        /// one of those named, nor one that begins at the horizon or later.
        #[test]
        fn only_invisible_versions_go(
            versions in any_versions(),
            snapshots in prop::collection::vec(0u64..13, 0..4),
            horizon in 0u64..13,
            drops in any::<bool>(),
            target in ("[ab]{0,2}", 0u64..13),
        ) {
            let tombstones = if drops { Tombstones::Drop } else { Tombstones::Keep };
            let stripes = Stripes::new(snapshots.iter().copied().map(SeqNo), SeqNo(horizon));
            let options = GcOptions { snapshots: stripes, tombstones };
            let mut cursor = GcCursor::new(VecCursor::new(versions.clone()), options);
            cursor.next().unwrap();
            let kept = Version::rest_of(&mut cursor).unwrap();
            prop_assert_eq!(&kept, &oracle(&versions, &snapshots, horizon, tombstones));
            prop_assert_eq!(cursor.dropped_count(), (versions.len() - kept.len()) as u64);
            for at in (horizon..13).chain(snapshots.into_iter().filter(|at| *at < horizon)) {
                prop_assert_eq!(visible(&kept, SeqNo(at)), visible(&versions, SeqNo(at)), "at {}", at);
            }
            let (key, seqno) = (target.0.as_bytes(), SeqNo(target.1));
            cursor.seek(key, seqno).unwrap();
            let expected: Vec<Version> = kept.into_iter().filter(|v| !v.is_before(key, seqno)).collect();
            prop_assert_eq!(Version::rest_of(&mut cursor).unwrap(), expected);
        }
    }
}
