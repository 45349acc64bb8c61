//! `Store`: the `ColdTier` that the row store sees: locate, read, mark, absorb.
//!
//! It opens, converts, seals and installs; it owns no list of segments, because that belongs to the read view
//! (`state`) and the manifest. Marks live in the segments, which views share.
//!
//! Always true:
//! * `mark` and `install` touch memory only;
//! * files named in a returned record are synced, and so are their names.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strata_oltp::cold::{ColdJob, ColdOutput, ColdPlan, RowPart, SealedMarks, SegmentRecord};
use strata_oltp::env::Env;
use strata_oltp::key::table_of;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::{ColdTier, ColdView, Error, FileId, FileKind, Location, Result, SeqNo, TableId};

use crate::cache::ColumnCache;
use crate::convert;
use crate::convert::schedule::{self, ScheduleOptions, SegmentShape};
use crate::delete_vector::{self, Marks, Sealed};
use crate::segment::meta::SegmentMeta;
use crate::segment::{EncodingOptions, Segment, SegmentContext};
use crate::state::ColdState;

/// Tunables of the column store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// How columns are encoded.
    pub encoding: EncodingOptions,
    /// Rows of a row group, the unit of scheduling, pruning and caching. DuckDB's number: 15 batches of 8,192.
    pub row_group_rows_max: usize,
    /// Rows after which a new segment starts: ten row groups, a quarter more than what conversion aims at, so that
    /// runs which do not add up to a whole segment leave no small rest.
    pub segment_rows_max: usize,
    /// Bytes of encoded rows after which a row group ends early, because its rows are wide.
    pub row_group_bytes_max: usize,
    /// Most that the cache of decoded columns takes from the budget.
    pub cache_bytes_max: u64,
    /// When to convert and rewrite.
    pub schedule: ScheduleOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            encoding: EncodingOptions::default(),
            row_group_rows_max: 122_880,
            segment_rows_max: 1_228_800,
            row_group_bytes_max: 64 << 20,
            cache_bytes_max: 1 << 30,
            schedule: ScheduleOptions::default(),
        }
    }
}

/// The column store of one database.
#[derive(Debug)]
pub struct Store {
    context: SegmentContext,
    options: StoreOptions,
    /// Highest watermark seen: no snapshot is below it, now or ever.
    watermark: AtomicU64,
}

/// Opened output of a job, between `run` and `install`.
pub(crate) struct OutputHandle {
    pub(crate) table: TableId,
    pub(crate) segments: Vec<Arc<Segment>>,
}

impl Store {
    /// A column store for the database directory `dir`. Touches no file yet.
    #[must_use]
    pub fn new(env: Arc<dyn Env>, dir: &Path, budget: Arc<MemoryBudget>, options: StoreOptions) -> Arc<Store> {
        let cache = ColumnCache::new(&budget, options.cache_bytes_max);
        let context = SegmentContext { env, dir: Arc::from(dir), budget, cache };
        Arc::new(Store { context, options, watermark: AtomicU64::new(0) })
    }

    /// The cache of decoded columns.
    #[must_use]
    pub fn cache(&self) -> &Arc<ColumnCache> {
        &self.context.cache
    }

    /// The tunables.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn context(&self) -> &SegmentContext {
        &self.context
    }

    fn open_record(&self, record: &SegmentRecord) -> Result<Arc<Segment>> {
        let dir = &*self.context.dir;
        let meta = SegmentMeta::decode(&record.meta, &FileKind::Segment.path(dir, record.segment))?;
        if meta.table != record.table {
            let path = FileKind::Segment.path(dir, record.segment);
            return Err(Error::corrupt(FileKind::Manifest, &path, 0, "a segment is recorded under another table"));
        }
        let marks = match record.marks {
            Some(file) => {
                let (env, through) = (&*self.context.env, record.marks_through);
                delete_vector::load(env, dir, file, record.segment, meta.row_count, through)?
            }
            None => Marks::new(Vec::new(), Sealed { file: None, through: record.marks_through, count: 0 }),
        };
        Ok(Arc::new(Segment::open(&self.context, record.segment, meta, marks)?))
    }
}

/// A segment for the schedule: of its marks only those count that a rewrite drops, or it would be rewritten again.
fn shape(segment: &Segment, watermark: SeqNo) -> SegmentShape {
    let (first, last) = segment.key_range();
    SegmentShape {
        segment: segment.id(),
        rows: u64::from(segment.row_count()),
        marks: segment.marks().count_at(watermark),
        key_range: (first.to_vec(), last.to_vec()),
    }
}

impl ColdTier for Store {
    fn restore(&self, segments: &[SegmentRecord]) -> Result<Arc<dyn ColdView>> {
        let opened = segments.iter().map(|record| self.open_record(record)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ColdState::build(Arc::clone(&self.context.cache), opened)))
    }

    fn mark(&self, view: &dyn ColdView, location: Location, seqno: SeqNo) {
        let segment = ColdState::of(view).segment(location.segment);
        segment.expect("a location names a segment of its view").marks().mark(location.position, seqno);
    }

    fn replay_mark(&self, view: &dyn ColdView, key: &[u8], seqno: SeqNo) -> Result<()> {
        let Some(table) = table_of(key) else { return Ok(()) };
        for segment in ColdState::of(view).table(table).holding(key) {
            if segment.marks().sealed().through >= seqno {
                continue;
            }
            let newest = segment.versions(key)?.into_iter().find(|&(_, written)| written < seqno);
            if let Some((position, _)) = newest {
                segment.marks().mark(position, seqno);
            }
        }
        Ok(())
    }

    fn plan(&self, view: &dyn ColdView, rows: &RowPart) -> Option<ColdPlan> {
        let segments = ColdState::of(view).table(rows.table.table).segments();
        self.watermark.fetch_max(rows.watermark.0, Ordering::Relaxed);
        let shapes: Vec<SegmentShape> = segments.iter().map(|segment| shape(segment, rows.watermark)).collect();
        schedule::plan(rows, &shapes, &self.options.schedule)
    }

    fn run(&self, view: &dyn ColdView, job: ColdJob<'_>) -> Result<ColdOutput> {
        self.watermark.fetch_max(job.watermark.0, Ordering::Relaxed);
        convert::run(self, ColdState::of(view), job)
    }

    fn translate(&self, output: &ColdOutput, superseded: &[(Vec<u8>, SeqNo)]) -> Result<Vec<(Location, SeqNo)>> {
        let handle: &OutputHandle = output.handle.downcast_ref().expect("the output of this tier's own job");
        let mut found = Vec::new();
        for (key, seqno) in superseded {
            let mut newest: Option<(SeqNo, Location)> = None;
            for segment in &handle.segments {
                let version = segment.versions(key)?.into_iter().find(|&(_, written)| written < *seqno);
                let here = version.map(|(position, written)| (written, Location { segment: segment.id(), position }));
                newest = newest.max(here);
            }
            found.extend(newest.map(|(_, location)| (location, *seqno)));
        }
        Ok(found)
    }

    fn install(&self, view: &dyn ColdView, output: ColdOutput, marks: &[(Location, SeqNo)]) -> Arc<dyn ColdView> {
        let handle: Box<OutputHandle> = output.handle.downcast().expect("the output of this tier's own job");
        for (location, seqno) in marks {
            let segment = handle.segments.iter().find(|segment| segment.id() == location.segment);
            segment.expect("translated to the output").marks().mark(location.position, *seqno);
        }
        let state = ColdState::of(view);
        let old = state.table(handle.table).segments().iter();
        let kept = old.filter(|segment| !output.replaced.contains(&segment.id())).cloned();
        let segments = kept.chain(handle.segments).collect();
        Arc::new(state.with_table(handle.table, segments))
    }

    fn seal(
        &self,
        view: &dyn ColdView,
        table: TableId,
        through: SeqNo,
        next_file: &dyn Fn() -> FileId,
    ) -> Result<Vec<SealedMarks>> {
        let (env, dir) = (&*self.context.env, &*self.context.dir);
        let settled = SeqNo(self.watermark.load(Ordering::Relaxed)).min(through);
        let (mut sealed, mut is_written) = (Vec::new(), false);
        for segment in ColdState::of(view).table(table).segments() {
            let marks = segment.marks();
            let before = marks.sealed();
            marks.settle(settled);
            let after = delete_vector::seal(env, dir, segment.id(), marks, through, next_file)?;
            is_written |= after.file != before.file;
            sealed.push((segment, after));
        }
        if is_written {
            convert::sync_segments_dir(&self.context)?;
        }
        // Only now, or after a failure the next call would hand over files whose names were never synced.
        let hand_over = |(segment, after): (&Arc<Segment>, Sealed)| {
            segment.marks().set_sealed(after);
            SealedMarks { segment: segment.id(), marks: after.file, marks_through: after.through }
        };
        Ok(sealed.into_iter().map(hand_over).collect())
    }

    fn verify(&self, view: &dyn ColdView) -> Result<u64> {
        let state = ColdState::of(view);
        let mut count = 0;
        for table in state.tables() {
            for segment in state.table(table).segments() {
                segment.verify()?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn drop_table(&self, view: &dyn ColdView, table: TableId) -> Arc<dyn ColdView> {
        Arc::new(ColdState::of(view).with_table(table, Vec::new()))
    }
}
