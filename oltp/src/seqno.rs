//! `SeqNo`: the order of commits, and the only clock a query sees.
//!
//! Every version of a row carries the SeqNo of the commit that wrote it; no second timestamp exists anywhere (I2, I5).

use std::fmt;

/// Position of a commit in the commit order. All versions written by one transaction share one `SeqNo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// Before every commit: a snapshot here sees an empty database.
    pub const ZERO: SeqNo = SeqNo(0);
    /// After every commit; used for a transaction's own uncommitted writes and for "newest of all" look-ups.
    pub const MAX: SeqNo = SeqNo(u64::MAX);

    /// The SeqNo of the next commit.
    #[must_use]
    pub fn next(self) -> SeqNo {
        SeqNo(self.0 + 1)
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
