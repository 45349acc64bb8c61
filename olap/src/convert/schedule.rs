//! When to convert which runs, and which segments to rewrite: a pure function of shapes.
//!
//! Analytical cost is `1 + f·(r−1)`, with `f` the share of rows still in row format and `r` (5 to 40) how much dearer a row
//! scan is, so the row part is kept under [`ScheduleOptions::row_share_max_percent`] of the table. Against that stands
//! write amplification: many small segments are merged later. So a load converts about a segment's worth at a time, a
//! quiet table everything at once, and small segments merge by size class, each row about once a class.
//!
//! Always true: the runs of a plan are the oldest ones without a gap, so that a tombstone leaves only together with all
//! that it hides.

use strata_oltp::FileId;
use strata_oltp::cold::{ColdPlan, RowPart, RunShape};

/// Tunables of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// Row part allowed, as a share of the rows in segments.
    pub row_share_max_percent: u64,
    /// Row part allowed whatever the table's size: one batch costs a scan nothing worth the name.
    pub row_versions_max: u64,
    /// Rows a segment should have: eight row groups.
    pub segment_rows: u64,
    /// Milliseconds without a commit after which a row part above its limit converts.
    pub quiet_ms: u64,
    /// Milliseconds without a commit after which any row part converts.
    pub idle_ms: u64,
    /// Age in milliseconds at which a run above the limit converts although commits go on.
    pub run_age_ms_max: u64,
    /// Share of marked rows at which a quiet table's segment is rewritten.
    pub marked_percent_start: u64,
    /// Share of marked rows at which a segment is rewritten at once.
    pub marked_percent_force: u64,
    /// Small segments of one size class that are merged together.
    pub merge_fan_in: usize,
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        ScheduleOptions {
            row_share_max_percent: 1,
            row_versions_max: 8192,
            segment_rows: 8 * 122_880,
            quiet_ms: 100,
            idle_ms: 1000,
            run_age_ms_max: 2000,
            marked_percent_start: 20,
            marked_percent_force: 50,
            merge_fan_in: 4,
        }
    }
}

/// A segment as the schedule sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    /// The segment.
    pub segment: FileId,
    /// Physical rows.
    pub rows: u64,
    /// Marked rows that a rewrite can be expected to drop.
    pub marks: u64,
    /// Smallest and largest key.
    pub key_range: (Vec<u8>, Vec<u8>),
}

impl SegmentShape {
    fn live_rows(&self) -> u64 {
        self.rows.saturating_sub(self.marks)
    }

    fn is_marked(&self, percent: u64) -> bool {
        self.marks > 0 && self.marks * 100 >= self.rows * percent
    }
}

/// Marked segments rewritten in one forced job: bounds how long it runs and how much disk it needs besides its inputs.
const FORCED_SEGMENTS_MAX: usize = 4;

/// What to do next, if anything is due. `segments` are those of the table, ascending by smallest key.
#[must_use]
pub fn plan(rows: &RowPart, segments: &[SegmentShape], options: &ScheduleOptions) -> Option<ColdPlan> {
    let plan = if rows.force { forced(rows, segments) } else { due(rows, segments, options) };
    plan.filter(|plan| !plan.runs.is_empty() || !plan.segments.is_empty())
}

/// Everything, in jobs of bearable size: first the runs, then marked segments in key order.
fn forced(rows: &RowPart, segments: &[SegmentShape]) -> Option<ColdPlan> {
    if !rows.runs.is_empty() {
        return Some(convert(&rows.runs));
    }
    let marked = segments.iter().filter(|segment| segment.marks > 0).take(FORCED_SEGMENTS_MAX);
    Some(rewrite(marked))
}

fn due(rows: &RowPart, segments: &[SegmentShape], options: &ScheduleOptions) -> Option<ColdPlan> {
    conversion_due(rows, segments, options).or_else(|| rewrite_due(rows, segments, options))
}

fn conversion_due(rows: &RowPart, segments: &[SegmentShape], options: &ScheduleOptions) -> Option<ColdPlan> {
    let versions: u64 = rows.runs.iter().map(|run| run.version_count).sum();
    if versions == 0 {
        // Runs without a version cannot be; runs that are not there need nothing.
        return (!rows.runs.is_empty()).then(|| convert(&rows.runs));
    }
    // Three quarters of a segment are near enough, and together with one more run rarely exceed a segment's maximum.
    let batch_rows = options.segment_rows * 3 / 4;
    if versions >= batch_rows {
        let mut sum = 0;
        let count = rows.runs.iter().take_while(|run| {
            let is_needed = sum < batch_rows;
            sum += run.version_count;
            is_needed
        });
        return Some(convert(&rows.runs[..count.count()]));
    }
    let table_rows: u64 = segments.iter().map(|segment| segment.rows).sum();
    let allowed = (table_rows * options.row_share_max_percent / 100).max(options.row_versions_max);
    let is_aged = rows.runs.iter().any(|run| run.age_ms >= options.run_age_ms_max);
    let is_over = versions > allowed && (rows.idle_ms >= options.quiet_ms || is_aged);
    (is_over || rows.idle_ms >= options.idle_ms).then(|| convert(&rows.runs))
}

fn rewrite_due(rows: &RowPart, segments: &[SegmentShape], options: &ScheduleOptions) -> Option<ColdPlan> {
    let share =
        if rows.idle_ms >= options.idle_ms { options.marked_percent_start } else { options.marked_percent_force };
    let worst = segments.iter().filter(|segment| segment.is_marked(share));
    if let Some(segment) = worst.max_by_key(|segment| segment.marks * 100 / segment.rows.max(1)) {
        return Some(rewrite([segment]));
    }
    // Size classes: each holds segments up to four times as large as the one before.
    let class = |segment: &&SegmentShape| (segment.live_rows() / options.row_versions_max.max(1)).max(1).ilog2() / 2;
    let small: Vec<&SegmentShape> = segments.iter().filter(|s| s.live_rows() * 2 < options.segment_rows).collect();
    let largest = small.iter().map(class).max()?;
    for wanted in 0..=largest {
        let members: Vec<&SegmentShape> = small.iter().copied().filter(|segment| class(segment) == wanted).collect();
        if members.len() >= options.merge_fan_in.max(2) {
            let mut sum = 0;
            let fitting = members.into_iter().take_while(|segment| {
                sum += segment.live_rows();
                sum <= 4 * options.segment_rows
            });
            return Some(rewrite(fitting));
        }
    }
    None
}

fn convert(runs: &[RunShape]) -> ColdPlan {
    ColdPlan { runs: runs.iter().map(|run| run.run).collect(), segments: Vec::new() }
}

fn rewrite<'a>(segments: impl IntoIterator<Item = &'a SegmentShape>) -> ColdPlan {
    ColdPlan { runs: Vec::new(), segments: segments.into_iter().map(|segment| segment.segment).collect() }
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
