//! Which runs of a `row` table to merge next: a pure function of their sizes. The policy is argued in [`super`].

use std::ops::Range;

use super::gc::Tombstones;

/// When runs are alike enough to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// How many adjacent runs of similar size make a merge worth it.
    pub runs_min: usize,
    /// A run is similar to the newer ones beside it if it has at most this many times their mean size. Smaller ones
    /// always are, so that a small run between larger ones cannot block them.
    pub similar_times: u64,
    /// Sizes below this count as this, so that many tiny flushes are one tier.
    pub run_bytes_min: u64,
}

impl Default for MergePolicy {
    fn default() -> MergePolicy {
        // With four alike runs becoming one, the next tier is four times as large: two lies in the middle.
        MergePolicy { runs_min: 4, similar_times: 2, run_bytes_min: 1 << 20 }
    }
}

/// Adjacent runs to merge into one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePlan {
    /// Positions in the list of runs, oldest first.
    pub runs: Range<usize>,
    /// [`Tombstones::Drop`] if the oldest run takes part: a `row` table has nothing below it.
    pub tombstones: Tombstones,
}

impl MergePlan {
    fn new(runs: Range<usize>) -> MergePlan {
        let tombstones = if runs.start == 0 { Tombstones::Drop } else { Tombstones::Keep };
        MergePlan { runs, tombstones }
    }
}

/// The next merge among runs of `run_bytes`, oldest first, if one is due.
///
/// Looks for the newest group of at least `runs_min` adjacent similar runs and takes as many as are similar: newest
/// first, because small runs cost readers as much as large ones and are cheaper to be rid of.
#[must_use]
pub fn pick_merge(run_bytes: &[u64], policy: MergePolicy) -> Option<MergePlan> {
    let size = |at: usize| u128::from(run_bytes[at].max(policy.run_bytes_min));
    for end in (policy.runs_min.max(2)..=run_bytes.len()).rev() {
        let mut start = end - 1;
        let mut sum = size(start);
        while start > 0 && size(start - 1) * (end - start) as u128 <= sum * u128::from(policy.similar_times) {
            start -= 1;
            sum += size(start);
        }
        if end - start >= policy.runs_min.max(2) {
            return Some(MergePlan::new(start..end));
        }
    }
    None
}

/// All runs into one, for whoever asks for it; `None` if there is nothing to merge. A single run is rewritten only if
/// it `has_garbage`: tombstones, or several versions of a key.
#[must_use]
pub fn merge_all(run_count: usize, has_garbage: bool) -> Option<MergePlan> {
    (run_count > 1 || (run_count == 1 && has_garbage)).then(|| MergePlan::new(0..run_count))
}
