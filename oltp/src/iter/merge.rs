//! `MergeCursor`: several sorted sources as one.
//!
//! A loser tree (Knuth, TAOCP vol. 3, 5.4.1): each inner node remembers the source that lost there, so replacing the
//! winner costs one comparison per level, against the two of a heap.
//!
//! Always true:
//! * the merged order is (key ascending, SeqNo descending), strictly: two sources never hold the same version (I5);
//! * sources come newest first, so that even a violation of the above would read the newer one.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Cursor, VersionKind};
use crate::error::Result;
use crate::seqno::SeqNo;

/// Leading key bytes that are compared without asking the source: table and index take six, ten remain.
const PREFIX_BYTES: usize = 16;

/// A k-way merge of cursors; itself a [`Cursor`].
pub struct MergeCursor {
    sources: Vec<Box<dyn Cursor>>,
    heads: Vec<Head>,
    /// `losers[0]` is the winner, `losers[1..]` the inner nodes; leaf `i` hangs below node `(i + k) / 2`.
    losers: Vec<usize>,
    positioned: bool,
}

/// What a comparison needs to know of a source's current entry.
#[derive(Clone, Copy, Debug)]
struct Head {
    valid: bool,
    prefix: u128,
    seqno: SeqNo,
}

impl Head {
    const EXHAUSTED: Head = Head { valid: false, prefix: u128::MAX, seqno: SeqNo::ZERO };

    fn of(source: &dyn Cursor) -> Head {
        if !source.valid() {
            return Head::EXHAUSTED;
        }
        let key = source.key();
        let mut prefix = [0; PREFIX_BYTES];
        match key.first_chunk() {
            Some(chunk) => prefix = *chunk,
            None => prefix[..key.len()].copy_from_slice(key),
        }
        Head { valid: true, prefix: u128::from_be_bytes(prefix), seqno: source.seqno() }
    }
}

impl MergeCursor {
    /// Merges `sources`, newest first. They are not moved before this cursor is.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn Cursor>>) -> MergeCursor {
        let heads = vec![Head::EXHAUSTED; sources.len()];
        MergeCursor { losers: vec![0; sources.len()], heads, sources, positioned: false }
    }

    /// Which source the current entry comes from, as its position in the list. Only while valid.
    #[inline]
    #[must_use]
    pub fn source(&self) -> usize {
        self.losers[0]
    }

    fn current(&self) -> &dyn Cursor {
        &*self.sources[self.losers[0]]
    }

    /// Whether source `a` is to be read before source `b`.
    #[inline]
    fn before(&self, a: usize, b: usize) -> bool {
        let (x, y) = (&self.heads[a], &self.heads[b]);
        if !x.valid || !y.valid {
            return x.valid;
        }
        match x.prefix.cmp(&y.prefix) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.before_in_full(a, b),
        }
    }

    fn before_in_full(&self, a: usize, b: usize) -> bool {
        let order = self.sources[a].key().cmp(self.sources[b].key());
        match order.then_with(|| self.heads[b].seqno.cmp(&self.heads[a].seqno)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => {
                debug_assert!(false, "two sources hold the same version"); // I5
                a < b
            }
        }
    }

    /// Takes in the current entry of every source and plays all matches.
    fn rebuild(&mut self) {
        self.positioned = true;
        for (head, source) in self.heads.iter_mut().zip(&self.sources) {
            *head = Head::of(&**source);
        }
        let count = self.sources.len();
        if count < 2 {
            return;
        }
        let mut winners = vec![0; 2 * count];
        for (source, winner) in winners[count..].iter_mut().enumerate() {
            *winner = source;
        }
        for node in (1..count).rev() {
            let (a, b) = (winners[2 * node], winners[2 * node + 1]);
            let (winner, loser) = if self.before(a, b) { (a, b) } else { (b, a) };
            winners[node] = winner;
            self.losers[node] = loser;
        }
        self.losers[0] = winners[1];
    }

    /// Moves the winner's source on and plays its matches again, from its leaf to the root.
    fn advance(&mut self) -> Result<()> {
        let mut winner = self.losers[0];
        let moved = self.sources[winner].next();
        if moved.is_err() {
            // After an error no source may pass for the next entry: the cursor is invalid until it is sought.
            self.heads.fill(Head::EXHAUSTED);
            return moved;
        }
        self.heads[winner] = Head::of(&*self.sources[winner]);
        let mut node = usize::midpoint(winner, self.sources.len());
        while node > 0 {
            if self.before(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
        Ok(())
    }

    fn move_all(&mut self, mut step: impl FnMut(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        self.heads.fill(Head::EXHAUSTED);
        for source in &mut self.sources {
            step(&mut **source)?;
        }
        self.rebuild();
        Ok(())
    }
}

impl Cursor for MergeCursor {
    #[inline]
    fn valid(&self) -> bool {
        self.losers.first().is_some_and(|&winner| self.heads[winner].valid)
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.current().key()
    }

    #[inline]
    fn seqno(&self) -> SeqNo {
        self.heads[self.losers[0]].seqno
    }

    #[inline]
    fn kind(&self) -> VersionKind {
        self.current().kind()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current().value()
    }

    fn load(&self) -> Result<Bytes> {
        self.current().load()
    }

    fn next(&mut self) -> Result<()> {
        if !self.positioned {
            return self.move_all(|source| source.next());
        }
        if self.valid() { self.advance() } else { Ok(()) }
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.move_all(|source| source.seek(key, seqno))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iter::vec::{VecCursor, Version};

    proptest! {
        /// Versions dealt to sources at random come back in order, from any seek position.
        #[test]
        fn merging_is_sorting(
            versions in prop::collection::btree_map(("[a-c]{0,20}", 0u64..6), (0usize..5, "[a-z]{0,3}"), 0..60),
            source_count in 0usize..6,
            target in ("[a-c]{0,20}", 0u64..6),
        ) {
            let mut all: Vec<(usize, Version)> = versions
                .iter()
                .map(|((key, seqno), (source, value))| (source % source_count.max(1), Version::put(key, *seqno, value)))
                .collect();
            all.sort_by(|a, b| a.1.order(&b.1));
            if source_count == 0 {
                all.clear();
            }
            let sources = (0..source_count).map(|source| {
                let own = all.iter().filter(|(home, _)| *home == source).map(|(_, v)| v.clone()).collect();
                Box::new(VecCursor::new(own)) as Box<dyn Cursor>
            });
            let mut merge = MergeCursor::new(sources.collect());
            merge.next().unwrap();
            let expected: Vec<Version> = all.iter().map(|(_, v)| v.clone()).collect();
            prop_assert_eq!(Version::rest_of(&mut merge).unwrap(), expected);
            merge.next().unwrap();
            prop_assert!(!merge.valid());

            let (key, seqno) = (target.0.as_bytes(), SeqNo(target.1));
            merge.seek(key, seqno).unwrap();
            if merge.valid() {
                prop_assert_eq!(&all.iter().find(|(_, v)| !v.is_before(key, seqno)).unwrap().0, &merge.source());
            }
            let expected: Vec<Version> =
                all.iter().map(|(_, v)| v.clone()).filter(|v| !v.is_before(key, seqno)).collect();
            prop_assert_eq!(Version::rest_of(&mut merge).unwrap(), expected);
        }
    }
}
