//! Merging runs: the policy in one page.
//!
//! Every read of a table's row part asks each of its runs, and every update leaves a version behind. Merging bounds
//! both. Two kinds of table, two policies:
//!
//! * **hybrid** tables do not merge runs: all of them convert into column segments, which drops old versions on the
//!   way. Only an explicit request merges them.
//! * **row** tables merge *size-tiered* ([`picker`]): as soon as four adjacent runs have about the same size, they
//!   become one. Adjacent, because newer components hold newer versions of a key, and a merge that skipped one would
//!   break that order.
//!
//! With flushes of size *f* and a table of *n·f* bytes there are about log₄ *n* tiers of at most three runs each.
//!
//! | cost | bound | 64 MiB flushes, 16 GiB table (n = 256) |
//! |---|---|---|
//! | write amplification | 1 (flush) + log₄ n | 5 |
//! | runs asked by a scan | 3 log₄ n + 1 | 13 |
//! | runs read by a point look-up | about 1: filters let 1 % of the others through | 1.1 |
//! | space amplification | 4 if every update overwrites, near 1 for inserts | |
//!
//! The space figure is the price: three runs of the largest tier may be full of versions that the fourth will drop.
//! [`picker::merge_all`] gives it back on request. Leveled merging would hold it at 1.1 for twice the writes; tables
//! that use this policy (catalog, indexes, write-hot rows) are small or overwritten often, so writes weigh more.
//!
//! Which versions a merge drops is decided in [`gc`], and is the same for both kinds.

pub mod gc;
pub mod job;
pub mod picker;

pub use gc::{GcCursor, GcOptions, Stripes};
pub use job::merge_runs;
pub use picker::{MergePlan, MergePolicy, merge_all, pick_merge};
