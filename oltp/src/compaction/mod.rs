//! Merging runs: the policies in one page.
//!
//! Every read of a table's row part asks each of its sorted runs, and every update leaves a version behind. Merging bounds
//! both. Two kinds of table:
//!
//! * **hybrid** tables do not merge runs: all of them convert into column segments, which drops old versions on the
//!   way. Only an explicit request merges them.
//! * **row** tables keep theirs in levels ([`crate::manifest::levels`]), compacted by [`picker`] in one of three shapes,
//!   a table option ([`options`]).
//!
//! With a size ratio of T, a table of n·f bytes in flushes of f, and L levels below level 0, as many as n has digits to the base of T:
//!
//! | | leveled | lazy-leveled | tiered |
//! |---|---|---|---|
//! | sorted runs per level, last level | 1, 1 | T - 1, 1 | T - 1, T - 1 |
//! | a byte is written | 2 + about T / 2 per level | 2 + 1 per level, about T / 2 in the last | 2 + 1 per level |
//! | sorted runs that a scan merges | L + level 0 | (T - 1) (L - 1) + 1 + level 0 | (T - 1) L + level 0 |
//! | runs that a look-up reads | about 1, by the filters | about 1 | about 1 |
//! | space, of live data, all updates | 1 + 1 / (T - 1) | about 1 + 1 / (T - 1) | up to T |
//!
//! Source: Dayan, Idreos: "Dostoevsky" (SIGMOD 2018), whose fluid LSM has these shapes as points; measurements and the
//! choice of the default are in docs/decisions/0008.
//!
//! Which versions a merge drops is decided in [`gc`], and is the same for both kinds.

pub mod gc;
pub mod job;
pub mod options;
pub mod picker;

pub use gc::{GcCursor, GcOptions, Stripes};
pub use job::{Merged, Outputs, ValueOutputs, merge_runs};
pub use options::{CompactionOptions, CompactionPolicy};
pub use picker::{CompactionPlan, CompactionWork, LevelBytes, Moment, compact_all, pick_compaction, pick_values};
