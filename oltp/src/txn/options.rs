//! `TransactionOptions`: how a transaction reads, and what its commit is checked for.

use std::time::Duration;

/// What concurrent transactions may do to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All reads come from one snapshot, and the first committer of a key wins. Two transactions that read what the other
    /// one writes may both commit (write skew).
    #[default]
    Snapshot,
    /// As if the transactions at this level had run one after the other, in the order of their commits. What was read
    /// is checked at commit, by key and by range; see [`crate::Transaction::note_range`].
    Serializable,
}

/// Settings of one transaction. Start from `TransactionOptions::default()` and change fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// What concurrent transactions may do to this one.
    pub isolation: Isolation,
    /// Whether writes are refused. A transaction that says so costs commits of others nothing, however long it runs, and
    /// is serializable without any check.
    pub read_only: bool,
    /// How long its commit waits for rows that others hold locked; `None`, as in PostgreSQL, for as long as it takes:
    /// deadlocks are found at once, so a long wait is one for a holder at work.
    pub lock_timeout: Option<Duration>,
}
