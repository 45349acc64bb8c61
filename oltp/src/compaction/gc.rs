//! `GcCursor`: a sorted sequence of versions without those that no snapshot can see.
//!
//! With *W* the oldest snapshot anybody may still read: of a key's versions at or below *W* only the newest can be
//! seen. It goes too if it is a tombstone with nothing older below it to hide. Versions above *W* stay, all of them,
//! even where no open snapshot lies between two: the next merge finds them below *W*.

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// What may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// The oldest readable snapshot. [`SeqNo::ZERO`] keeps everything.
    pub watermark: SeqNo,
    /// What becomes of a key's last tombstone.
    pub tombstones: Tombstones,
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
    /// Key whose newest version at or below the watermark has passed, if `decided`.
    key: Vec<u8>,
    decided: bool,
    dropped_count: u64,
}

impl<C: Cursor> GcCursor<C> {
    /// Reads `input` under `options`.
    pub fn new(input: C, options: GcOptions) -> GcCursor<C> {
        GcCursor { input, options, key: Vec::new(), decided: false, dropped_count: 0 }
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
        if self.input.seqno() > self.options.watermark {
            return true;
        }
        if self.decided && self.input.key() == &self.key[..] {
            return false;
        }
        self.decided = true;
        self.key.clear();
        self.key.extend_from_slice(self.input.key());
        self.input.kind() == VersionKind::Put || self.options.tombstones == Tombstones::Keep
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

    fn next(&mut self) -> Result<()> {
        self.input.next()?;
        self.settle()
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        // From the key's newest version on, because a newer one decides whether the one sought is kept.
        self.decided = false;
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

    /// Row at a time, from the definition: a version stays if it is above the watermark, or is what the snapshot at
    /// the watermark sees of its key, unless that is a tombstone nobody needs.
    fn oracle(versions: &[Version], options: GcOptions) -> Vec<Version> {
        let keeps = |version: &&Version| {
            let newer = |other: &&Version| {
                other.key == version.key && other.seqno > version.seqno && other.seqno <= options.watermark
            };
            let hidden = versions.iter().find(newer).is_some();
            let needless = version.kind == VersionKind::Delete && options.tombstones == Tombstones::Drop;
            version.seqno > options.watermark || (!hidden && !needless)
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
        /// Exactly the versions of the definition remain, also from any seek position, and no readable snapshot
        /// notices.
        #[test]
        fn only_invisible_versions_go(
            versions in any_versions(),
            watermark in 0u64..13,
            drops in any::<bool>(),
            target in ("[ab]{0,2}", 0u64..13),
        ) {
            let tombstones = if drops { Tombstones::Drop } else { Tombstones::Keep };
            let options = GcOptions { watermark: SeqNo(watermark), tombstones };
            let mut cursor = GcCursor::new(VecCursor::new(versions.clone()), options);
            cursor.next().unwrap();
            let kept = Version::rest_of(&mut cursor).unwrap();
            prop_assert_eq!(&kept, &oracle(&versions, options));
            prop_assert_eq!(cursor.dropped_count(), (versions.len() - kept.len()) as u64);
            for at in watermark..13 {
                prop_assert_eq!(visible(&kept, SeqNo(at)), visible(&versions, SeqNo(at)));
            }
            let (key, seqno) = (target.0.as_bytes(), SeqNo(target.1));
            cursor.seek(key, seqno).unwrap();
            let expected: Vec<Version> = kept.into_iter().filter(|v| !v.is_before(key, seqno)).collect();
            prop_assert_eq!(Version::rest_of(&mut cursor).unwrap(), expected);
        }
    }
}
