//! Versions of several sources in one order, where nothing is promised about them: a version may be in two of them.
//!
//! The merge of readers asserts that it is not (I5), which is just what damaged databases break.

use crate::error::Result;
use crate::iter::Cursor;
use crate::seqno::SeqNo;
use crate::sstable::block::compare;

/// Sources merged by (key ascending, SeqNo descending); equal versions come in the order of the sources.
pub(crate) struct LooseMerge {
    sources: Vec<Box<dyn Cursor>>,
    current: Option<usize>,
}

impl LooseMerge {
    /// A merge that stands on the first version.
    ///
    /// # Errors
    /// Corrupt or unreadable sources.
    pub fn new(mut sources: Vec<Box<dyn Cursor>>) -> Result<LooseMerge> {
        for source in &mut sources {
            source.next()?;
        }
        let mut merge = LooseMerge { sources, current: None };
        merge.find();
        Ok(merge)
    }

    fn find(&mut self) {
        let valid = (0..self.sources.len()).filter(|at| self.sources[*at].valid());
        let version = |at: usize| (self.sources[at].key(), self.sources[at].seqno());
        self.current = valid.min_by(|a, b| compare(version(*a), version(*b)).then(a.cmp(b)));
    }

    /// The current version and the number of its source; `None` at the end.
    pub fn current(&self) -> Option<(&[u8], SeqNo, usize, &dyn Cursor)> {
        let at = self.current?;
        let source = self.sources[at].as_ref();
        Some((source.key(), source.seqno(), at, source))
    }

    /// Moves to the next version.
    ///
    /// # Errors
    /// Corrupt or unreadable sources.
    pub fn advance(&mut self) -> Result<()> {
        if let Some(at) = self.current {
            self.sources[at].next()?;
        }
        self.find();
        Ok(())
    }
}
