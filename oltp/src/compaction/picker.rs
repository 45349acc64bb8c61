//! What to compact next in the levels of a `row` table: a pure function of their shape.
//!
//! A level is *due* when it has more bytes or more sorted runs than it may. Then a *slice* of it goes down: the files of
//! some key range from its oldest sorted run, with all that lies above them in newer ones as far as the job stays small,
//! merged with what overlaps in the level below. So a job is bounded whatever the size of the table, and a key's newer
//! versions never pass its older ones:
//!
//! * a slice has, of every sorted run between its newest and its oldest, all files that overlap it, and its oldest is the
//!   oldest of the level;
//! * it goes to the newest sorted run of the next level in use, or to a new one in front of that.
//!
//! A level that has too many sorted runs but not its bytes merges neighbours among them instead, if the level below has one
//! sorted run: passing half-empty runs through that would rewrite it for little.
//!
//! Of the slices that would do, the one is taken that rewrites least of the level below per byte that it moves (RocksDB's
//! `kMinOverlappingRatio`); if that is nothing, its file moves without being rewritten.
//!
//! Targets follow the data (RocksDB's `level_compaction_dynamic_level_bytes`): the last level holds what it holds, each
//! level above it a `size_ratio`-th, and each sorted run of the first in use at most `first_level_bytes_max`. So the upper levels never hold
//! more than about 1 / (`size_ratio` - 1) of the table, however large it is.

use std::collections::BTreeSet;
use std::ops::Range;

use super::gc::Tombstones;
use super::options::CompactionOptions;
use crate::file::FileId;
use crate::manifest::RunMeta;
use crate::manifest::levels::{LAST_LEVEL, LEVEL_COUNT, Leveled, Levels, Place, SortedRun};
use crate::seqno::SeqNo;

/// What a table's levels are compacted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The oldest SeqNo that somebody may read at.
    pub watermark: SeqNo,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Files to merge, or to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Sorted runs that take part, oldest first, as positions in [`Levels::sorted_runs`], each with the positions of its
    /// files that do.
    pub inputs: Vec<(usize, Range<usize>)>,
    /// Where the result goes.
    pub output: Place,
    /// [`Tombstones::Drop`] if nothing older than the inputs has keys in their range.
    pub tombstones: Tombstones,
    /// What is done with them.
    pub work: CompactionWork,
}

/// How inputs become output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionWork {
    /// They are merged and written anew.
    Merge,
    /// The one input file is given another place: nothing there overlaps it.
    Move,
}

/// Bytes that each level has and may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelBytes {
    /// What it has.
    pub bytes: u64,
    /// What it may have. 0 for level 0, which is bounded by its number of runs, and for levels not in use.
    pub target_bytes: u64,
    /// Sorted runs in it.
    pub sorted_runs: usize,
}

/// The next compaction of `levels`, if one is due. `sparse` are the value files that should be emptied: what is due for
/// another reason comes first, and empties those that it meets on the way.
#[must_use]
pub fn pick_compaction<F: Leveled>(
    levels: &Levels<F>,
    options: &CompactionOptions,
    moment: Moment,
    sparse: &BTreeSet<FileId>,
) -> Option<CompactionPlan> {
    let picker = Picker::new(levels, options);
    picker.pick_due().or_else(|| picker.pick_tombstones(moment)).or_else(|| picker.pick_values(sparse))
}

/// A run that refers to one of the value files `sparse`, to be written anew without them: the one that refers to most.
/// Once no run does, the files go. `None` if none does.
#[must_use]
pub fn pick_values<F: Leveled>(
    levels: &Levels<F>,
    options: &CompactionOptions,
    sparse: &BTreeSet<FileId>,
) -> Option<CompactionPlan> {
    Picker::new(levels, options).pick_values(sparse)
}

/// Everything into one sorted run in the last level, for whoever asks for it; `None` if that is what there is. A single
/// sorted run is rewritten only if it has garbage: tombstones, or several versions of a key.
#[must_use]
pub fn compact_all<F: Leveled>(levels: &Levels<F>) -> Option<CompactionPlan> {
    let sorted = levels.sorted_runs();
    let has_garbage = levels.iter().any(|file| file.meta().tombstone_count > 0 || !file.meta().unique_keys);
    (sorted.len() > 1 || (sorted.len() == 1 && has_garbage)).then(|| CompactionPlan {
        inputs: sorted.iter().enumerate().map(|(at, sorted)| (at, 0..sorted.files.len())).collect(),
        output: Place { level: LAST_LEVEL, sorted_run: 1 },
        tombstones: Tombstones::Drop,
        work: CompactionWork::Merge,
    })
}

/// Bytes and targets of every level, 0 first.
#[must_use]
pub fn level_bytes<F: Leveled>(levels: &Levels<F>, options: &CompactionOptions) -> [LevelBytes; LEVEL_COUNT as usize] {
    Picker::new(levels, options).stats
}

/// Bytes that lie above where they should: of levels over their target, and of level 0 once it is due.
#[must_use]
pub fn debt_bytes<F: Leveled>(levels: &Levels<F>, options: &CompactionOptions) -> u64 {
    let stats = level_bytes(levels, options);
    let level_0 = if stats[0].sorted_runs > options.level0_runs_min as usize { stats[0].bytes } else { 0 };
    let inner = &stats[1..usize::from(LAST_LEVEL)];
    level_0 + inner.iter().map(|level| level.bytes.saturating_sub(level.target_bytes)).sum::<u64>()
}

/// A level is due from this score on, in thousandths.
const DUE: u64 = 1000;
/// Levels above the first in use are emptied, as if they were this far over.
const DRAIN: u64 = 1500;

/// How much `have` is of `limit`, in thousandths.
fn share(have: u64, limit: u64) -> u64 {
    u64::try_from(u128::from(have) * u128::from(DUE) / u128::from(limit.max(1))).unwrap_or(u64::MAX)
}

struct Picker<'a, F> {
    sorted: &'a [SortedRun<F>],
    options: &'a CompactionOptions,
    stats: [LevelBytes; LEVEL_COUNT as usize],
    /// The first level in use below level 0.
    base: u8,
}

/// Part of a level that can go down, with what it meets there.
struct Slice {
    plan: CompactionPlan,
    /// Bytes out of the level.
    bytes: u64,
    /// Bytes it is merged with in the sorted run that it goes to.
    overlap_bytes: u64,
}

impl Slice {
    /// Bytes that are rewritten below per byte that moves, in thousandths.
    fn ratio(&self) -> u64 {
        share(self.overlap_bytes, self.bytes)
    }
}

/// A span of keys, both ends included.
#[derive(Clone, Copy)]
struct Span<'a>(&'a [u8], &'a [u8]);

impl<'a> Span<'a> {
    fn of(meta: &'a RunMeta) -> Span<'a> {
        Span(&meta.key_min, &meta.key_max)
    }

    fn with(self, other: Span<'a>) -> Span<'a> {
        Span(self.0.min(other.0), self.1.max(other.1))
    }
}

fn bytes_of<F: Leveled>(files: &[F]) -> u64 {
    files.iter().map(|file| file.meta().file_bytes).sum()
}

impl<'a, F: Leveled> Picker<'a, F> {
    fn new(levels: &'a Levels<F>, options: &'a CompactionOptions) -> Picker<'a, F> {
        let sorted = levels.sorted_runs();
        let mut stats = [LevelBytes::default(); LEVEL_COUNT as usize];
        let mut largest = 0;
        for run in sorted {
            let (level, bytes) = (&mut stats[usize::from(run.place.level)], run.file_bytes());
            level.bytes += bytes;
            level.sorted_runs += 1;
            if run.place.level == LAST_LEVEL {
                largest = bytes.max(largest);
            }
        }
        // Where the last level has several sorted runs they grow to the size of the largest, so that is what the levels
        // above it are measured by; else each of its runs would be merged into it when it is small.
        let settled = largest.saturating_mul(options.runs_max(true) as u64);
        let mut target = stats[1..].iter().map(|level| level.bytes).max().unwrap_or(0).max(settled);
        let mut base = LAST_LEVEL;
        stats[usize::from(base)].target_bytes = target;
        let first_bytes =
            |level: u8| options.first_level_bytes_max.saturating_mul(options.runs_max(level == LAST_LEVEL) as u64);
        while target > first_bytes(base) && base > 1 {
            base -= 1;
            target /= u64::from(options.size_ratio.max(2));
            if options.runs_max(false) > 1 {
                // Several sorted runs are worth having only if each is larger than what level 0 sends.
                target = target.max(options.first_level_bytes_max);
            }
            stats[usize::from(base)].target_bytes = target;
        }
        Picker { sorted, options, stats, base }
    }

    fn runs_max(&self, level: u8) -> usize {
        self.options.runs_max(level == LAST_LEVEL)
    }

    /// Positions of a level's sorted runs, oldest first.
    fn level(&self, level: u8) -> Range<usize> {
        // The list begins with the deepest level.
        let start = self.sorted.partition_point(|run| run.place.level > level);
        let end = self.sorted.partition_point(|run| run.place.level >= level);
        start..end
    }

    /// How much a level has over what it may have, in thousandths.
    fn score(&self, level: u8) -> u64 {
        let stats = self.stats[usize::from(level)];
        if level == 0 {
            return share(stats.sorted_runs as u64, u64::from(self.options.level0_runs_min));
        }
        // One more than the level may have is due.
        let by_runs = share(stats.sorted_runs as u64, self.runs_max(level) as u64 + 1);
        by_runs.max(self.score_bytes(level))
    }

    /// The part of [`Picker::score`] that bytes have in it, for a level below 0.
    fn score_bytes(&self, level: u8) -> u64 {
        let stats = self.stats[usize::from(level)];
        match level {
            LAST_LEVEL => 0,
            _ if stats.bytes == 0 => 0,
            _ if level < self.base => DRAIN,
            _ => share(stats.bytes, stats.target_bytes + 1),
        }
    }

    fn pick_due(&self) -> Option<CompactionPlan> {
        // The most overfull first; of equal ones the upper, which more reads pass.
        let due = (0..LEVEL_COUNT).rev().max_by_key(|level| self.score(*level))?;
        if self.score(due) < DUE {
            return None;
        }
        // A level that has its sorted runs cannot take another: it goes first.
        let mut level = due;
        while level < LAST_LEVEL {
            let below = self.next_level(level);
            if self.stats[usize::from(below)].sorted_runs <= self.runs_max(below) {
                break;
            }
            level = below;
        }
        // Where the level below has one sorted run, a slice costs the part of it that it falls on, whatever little it has:
        // so not before the level is full. Until then it merges within itself.
        if (1..LAST_LEVEL).contains(&level)
            && self.score_bytes(level) < DUE
            && self.runs_max(self.next_level(level)) == 1
        {
            return self.pick_within(level);
        }
        let runs = self.level(level);
        // In the last level the younger sorted runs go into the oldest.
        let seed_run = if level == LAST_LEVEL { runs.start + 1 } else { runs.start };
        let seeds = (0..self.sorted.get(seed_run)?.files.len()).map(|file| self.slice(seed_run, file, runs.end - 1));
        seeds.min_by_key(Slice::ratio).map(|slice| slice.plan)
    }

    /// Part of a sorted run into the next older one: of the two neighbours that are smallest together.
    fn pick_within(&self, level: u8) -> Option<CompactionPlan> {
        let runs = self.level(level);
        let pairs = (runs.start + 1..runs.end).map(|younger| (younger - 1, younger));
        let bytes =
            |(older, younger): &(usize, usize)| self.sorted[*older].file_bytes() + self.sorted[*younger].file_bytes();
        let (older, younger) = pairs.min_by_key(bytes)?;
        let slices = (0..self.sorted[younger].files.len()).map(|file| {
            let span = Span::of(self.sorted[younger].files[file].meta());
            let inputs = vec![(younger, file..file + 1)];
            let bytes = bytes_of(&self.sorted[younger].files[file..=file]);
            self.meet(inputs, span, bytes, self.sorted[older].place, Some(older))
        });
        slices.min_by_key(Slice::ratio).map(|slice| slice.plan)
    }

    /// The next level down that data of `level` goes to: none in use between the two may be passed over.
    fn next_level(&self, level: u8) -> u8 {
        let goal = (level + 1).max(self.base);
        (level + 1..goal).find(|between| self.stats[usize::from(*between)].bytes > 0).unwrap_or(goal).min(LAST_LEVEL)
    }

    /// A file with many tombstones, or old ones, on its way to where they can be dropped.
    fn pick_tombstones(&self, moment: Moment) -> Option<CompactionPlan> {
        let mut best: Option<(u64, usize, usize)> = None;
        for (at, run) in self.sorted.iter().enumerate() {
            for (file, meta) in run.files.iter().map(Leveled::meta).enumerate() {
                let percent = meta.tombstone_count.saturating_mul(100) / meta.version_count.max(1);
                let is_dense = run.place.level > 0 && percent >= u64::from(self.options.tombstone_percent_min.max(1));
                let is_old = moment.now_ms.saturating_sub(meta.created_ms) >= self.options.tombstone_age_ms_max;
                // At the bottom it is rewritten in its place. That must leave no tombstone, or it would go on for ever: so
                // not before every snapshot sees all of them.
                let is_bottom = run.place.level == LAST_LEVEL && at == self.level(LAST_LEVEL).start;
                let is_ripe = !is_bottom || meta.seqno_max <= moment.watermark;
                if meta.tombstone_count > 0
                    && (is_dense || is_old)
                    && is_ripe
                    && best.is_none_or(|(most, ..)| percent > most)
                {
                    best = Some((percent, at, file));
                }
            }
        }
        best.map(|(_, at, file)| self.slice_up_to(at, file, at).plan)
    }

    /// A file that keeps sparse value files alive. Below level 0 it is rewritten in its place, because its keys need no
    /// other; a file of level 0 has no place of its own to be put back to, so it goes down.
    fn pick_values(&self, sparse: &BTreeSet<FileId>) -> Option<CompactionPlan> {
        let mut best: Option<(u64, usize, usize)> = None;
        for (at, run) in self.sorted.iter().enumerate() {
            for (file, meta) in run.files.iter().map(Leveled::meta).enumerate() {
                let shares = meta.values.iter().filter(|share| sparse.contains(&share.file));
                let bytes: u64 = shares.map(|share| share.record_bytes).sum();
                if bytes > best.map_or(0, |(most, ..)| most) {
                    best = Some((bytes, at, file));
                }
            }
        }
        let (_, at, file) = best?;
        if self.sorted[at].place.level == 0 {
            return Some(self.slice_up_to(at, file, at).plan);
        }
        let span = Span::of(self.sorted[at].files[file].meta());
        let bytes = bytes_of(&self.sorted[at].files[file..=file]);
        let mut plan = self.finish(vec![(at, file..file + 1)], span, self.sorted[at].place, bytes, 0).plan;
        plan.work = CompactionWork::Merge;
        Some(plan)
    }

    /// The largest slice around a file that a job may have: as many sorted runs up to `newest` as are no burden.
    fn slice(&self, seed_run: usize, file: usize, newest: usize) -> Slice {
        let mut slice = self.slice_up_to(seed_run, file, seed_run);
        for top in seed_run + 1..=newest {
            let larger = self.slice_up_to(seed_run, file, top);
            // Level 0 is what readers and writers wait for, so there only what leaves it counts: each part of it would
            // be merged with the same files below.
            let is_level_0 = self.sorted[seed_run].place.level == 0;
            let burden = larger.bytes + if is_level_0 { 0 } else { larger.overlap_bytes };
            if burden > self.options.job_bytes_max {
                break;
            }
            slice = larger;
        }
        slice
    }

    /// The file, what overlaps it in the sorted runs of its level up to `newest`, what overlaps that in older ones, and
    /// where all of it goes.
    fn slice_up_to(&self, seed_run: usize, file: usize, newest: usize) -> Slice {
        let level = self.sorted[seed_run].place.level;
        let oldest = self.level(level).start;
        let mut span = Span::of(self.sorted[seed_run].files[file].meta());
        let mut inputs = Vec::new();
        // Newest first: what an input adds to the span must be taken from every older run, but not from newer ones, whose
        // versions stay above.
        for at in (oldest..=newest).rev() {
            let files = self.sorted[at].overlapping(span.0, span.1);
            for file in &self.sorted[at].files[files.clone()] {
                span = span.with(Span::of(file.meta()));
            }
            if !files.is_empty() {
                inputs.insert(0, (at, files));
            }
        }
        let bytes: u64 = inputs.iter().map(|(at, files)| bytes_of(&self.sorted[*at].files[files.clone()])).sum();
        if level == LAST_LEVEL {
            return self.finish(inputs, span, self.sorted[oldest].place, bytes, 0);
        }
        let (output, target) = self.target(self.next_level(level), span, bytes);
        self.meet(inputs, span, bytes, output, target)
    }

    /// Adds to the inputs what overlaps them in the sorted run that they go to, if it exists.
    fn meet<'b>(
        &'b self,
        mut inputs: Vec<(usize, Range<usize>)>,
        mut span: Span<'b>,
        bytes: u64,
        output: Place,
        target: Option<usize>,
    ) -> Slice {
        let mut overlap_bytes = 0;
        if let Some(target) = target {
            let files = self.sorted[target].overlapping(span.0, span.1);
            overlap_bytes = bytes_of(&self.sorted[target].files[files.clone()]);
            for file in &self.sorted[target].files[files.clone()] {
                span = span.with(Span::of(file.meta()));
            }
            if !files.is_empty() {
                inputs.insert(0, (target, files));
            }
        }
        self.finish(inputs, span, output, bytes, overlap_bytes)
    }

    /// The sorted run of `level` that a slice goes to, and its position if it exists.
    fn target(&self, level: u8, span: Span<'_>, bytes: u64) -> (Place, Option<usize>) {
        let runs = self.level(level);
        let Some(newest) = runs.clone().next_back() else { return (Place { level, sorted_run: 1 }, None) };
        let run = &self.sorted[newest];
        let overlap = bytes_of(&run.files[run.overlapping(span.0, span.1)]);
        let runs_max = self.runs_max(level);
        let run_bytes_max = self.stats[usize::from(level)].target_bytes / runs_max as u64;
        // Into the newest as long as it is not full, or if that costs little: parts of one level's sorted runs follow each
        // other and overlap at their seams.
        let joins = runs_max == 1 || overlap * 2 <= bytes || run.file_bytes() + bytes <= run_bytes_max;
        if joins {
            return (run.place, Some(newest));
        }
        (Place { level, sorted_run: run.place.sorted_run + 1 }, None)
    }

    fn finish(
        &self,
        inputs: Vec<(usize, Range<usize>)>,
        span: Span<'_>,
        output: Place,
        bytes: u64,
        overlap_bytes: u64,
    ) -> Slice {
        // Older than every input: what comes before the oldest of them, and before the output, in the list.
        let oldest = inputs.first().map_or(0, |(at, _)| *at);
        let older = &self.sorted[..oldest];
        let hides = older.iter().any(|run| !run.overlapping(span.0, span.1).is_empty());
        let tombstones = if hides { Tombstones::Keep } else { Tombstones::Drop };
        let is_one_file = matches!(&inputs[..], [(_, files)] if files.len() == 1);
        let moves = is_one_file && inputs.first().is_some_and(|(at, _)| self.sorted[*at].place != output);
        let work = if moves { CompactionWork::Move } else { CompactionWork::Merge };
        Slice { plan: CompactionPlan { inputs, output, tombstones, work }, bytes, overlap_bytes }
    }
}
