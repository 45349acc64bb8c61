//! Conversion: runs (and segments due for a rewrite) become segments, installed in one manifest edit.
//!
//! While a job runs, commits go on. Every commit that touches the job's key range is noted in its `JobLog`; at
//! install the notes are translated into marks on the new segments, inside the commit mutex, so no key has two homes or
//! none (I6). The job pins the log above its own horizon until then, so a crash replays the same marks.

use crate::cold::{ColdJob, ColdOutput, ColdPlan, Location, RowPart, RunShape};
use crate::commit::JobLog;
use crate::db::{Db, Inner, Registered};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::file::{FileId, FileKind};
use crate::iter::bounded::BoundedCursor;
use crate::iter::merge::MergeCursor;
use crate::iter::{Cursor, LoadedCursor};
use crate::manifest::Edit;
use crate::schema::{StorageKind, TableId};
use crate::seqno::SeqNo;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::view::{ReadView, TableRows};
use crate::work::disagreement;
use crate::work::leftovers::Numbered;

/// Superseded keys left to translate inside the commit mutex: few enough that no commit notices.
const TRANSLATE_LOCKED_MAX: usize = 64;

impl Db {
    /// Flushes `table` and converts all of its runs. Returns when its rows, as of the call, are in segments.
    ///
    /// A table of kind [`StorageKind::Row`] is only flushed: its readers look for it in the row store alone.
    ///
    /// # Errors
    /// I/O, an exhausted budget, or an unregistered table; what was converted before stays converted.
    pub fn convert(&self, table: TableId) -> Result<()> {
        self.flush(Some(table))?;
        let known = self.inner.known(table)?;
        if known.kind == StorageKind::Row {
            return Ok(());
        }
        // All that are there once the lock is ours: no older run may stay behind a converted one, or its rows would be
        // read in place of newer ones.
        self.inner.restructure(&known, |_, part| {
            let runs: Vec<FileId> = part.runs.iter().map(|shape| shape.run).collect();
            (!runs.is_empty()).then(|| ColdPlan { runs, segments: Vec::new() })
        })?;
        Ok(())
    }

    /// Flushes `table`, converts all of its runs, and rewrites every segment with deleted rows. A table of kind
    /// [`StorageKind::Row`] has its runs merged instead.
    ///
    /// # Errors
    /// As [`Db::convert`].
    pub fn compact(&self, table: TableId) -> Result<()> {
        self.flush(Some(table))?;
        let known = self.inner.known(table)?;
        if known.kind == StorageKind::Row {
            return self.merge_runs(table);
        }
        let cold = Arc::clone(&self.inner.cold);
        // Rows that an open snapshot needs keep their marks in the output, so the output is not rewritten again. Neither
        // are runs converted that were flushed meanwhile, or this would not end while somebody writes.
        let first_output = self.inner.manifest.next_file();
        while self.inner.restructure(&known, |view, part| {
            let mut part = part;
            let known_runs = part.runs.iter().take_while(|shape| shape.run < first_output).count();
            part.runs.truncate(known_runs);
            let mut plan = cold.plan(view.cold.as_ref(), &RowPart { force: true, ..part })?;
            plan.segments.retain(|segment| *segment < first_output);
            (plan != ColdPlan::default()).then_some(plan)
        })? {}
        self.flush(Some(table))
    }

    /// One conversion, rewrite or merge that is due; `false` if none is.
    ///
    /// # Errors
    /// I/O, or an exhausted budget; nothing is installed then.
    pub fn convert_step(&self) -> Result<bool> {
        for known in self.inner.registered_tables() {
            if known.kind == StorageKind::Row {
                if self.inner.compact_due(&known)? {
                    return Ok(true);
                }
                continue;
            }
            if self.inner.work.conversion_paused.load(Ordering::Acquire) {
                continue;
            }
            let cold = Arc::clone(&self.inner.cold);
            if self.inner.restructure(&known, |view, part| cold.plan(view.cold.as_ref(), &part))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Inner {
    pub(super) fn known(&self, table: TableId) -> Result<Registered> {
        self.registered(table).ok_or_else(|| Error::Invalid(format!("table {} is not registered", table.0)))
    }

    pub(super) fn registered_tables(&self) -> Vec<Registered> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<Registered> = tables.values().cloned().collect();
        known.sort_by_key(|known| known.schema.table);
        known
    }

    fn row_part(&self, known: &Registered, view: &ReadView) -> RowPart {
        let table = known.schema.table;
        let now_ms = u64::try_from(self.env.wall_clock().as_millis()).unwrap_or(u64::MAX);
        let shape = |meta: &crate::manifest::RunMeta| RunShape {
            run: meta.run,
            file_bytes: meta.file_bytes,
            version_count: meta.version_count,
            key_range: (meta.key_min.clone(), meta.key_max.clone()),
            age_ms: now_ms.saturating_sub(meta.created_ms),
        };
        let runs = view.rows(table).map_or_else(Vec::new, |rows| rows.runs().iter().map(|r| shape(r.meta())).collect());
        let watermark = self.stripes().oldest();
        RowPart { table: Arc::clone(&known.schema), runs, idle_ms: self.idle_ms(table), watermark, force: false }
    }

    /// Asks `choose` for a plan and carries it out. `false` if it had none.
    pub(super) fn restructure(
        &self,
        known: &Registered,
        choose: impl FnOnce(&ReadView, RowPart) -> Option<ColdPlan>,
    ) -> Result<bool> {
        let _restructuring = self.work.restructuring.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.views.load();
        let Some(plan) = choose(&view, self.row_part(known, &view)) else { return Ok(false) };
        drop(view);
        let _span = tracing::debug_span!("convert", table = known.schema.table.0).entered();
        let start = self.env.monotonic();
        let (known, job, view) = self.start_job(known, &plan);
        let files = Numbered::new(self);
        let result = self.run_job(&known, &plan, &job, &view, &files);
        if result.is_err() {
            files.discard();
            self.lock_sequencer().jobs.retain(|running| !Arc::ptr_eq(running, &job));
        }
        drop(view);
        let event = result?;
        let elapsed = self.env.monotonic().saturating_sub(start);
        self.metrics.convert.record(elapsed);
        tracing::debug!(runs = plan.runs.len(), segments = plan.segments.len(), ?elapsed, "converted");
        self.release_log()?;
        self.remove_garbage();
        self.notify(&event);
        Ok(true)
    }

    /// Registers the job inside the commit mutex: commits up to its horizon are visible to it, later ones are noted. The
    /// shape that it writes is the table's at its horizon, where commits change it: no row of its inputs is of a newer one, and
    /// no snapshot that will see its output has an older one, because the horizon is published before (`run_job`).
    fn start_job(&self, known: &Registered, plan: &ColdPlan) -> (Registered, Arc<JobLog>, Arc<ReadView>) {
        let mut sequencer = self.lock_sequencer();
        let view = self.views.load();
        let table = known.schema.table;
        let known = self.registered(table).unwrap_or_else(|| known.clone());
        let job = Arc::new(JobLog {
            table,
            keys: key_range(&view, table, plan),
            through: sequencer.last,
            superseded: Mutex::new(Vec::new()),
        });
        sequencer.jobs.push(Arc::clone(&job));
        (known, job, view)
    }

    fn run_job(
        &self,
        known: &Registered,
        plan: &ColdPlan,
        job: &Arc<JobLog>,
        view: &ReadView,
        files: &Numbered<'_>,
    ) -> Result<Event> {
        // Commits at or below the horizon may still be on their way into the memtables that `newer` reads.
        self.settle()?;
        let (inputs, newer) = self.job_cursors(known.schema.table, plan, job, view);
        let output = self.cold.run(
            view.cold.as_ref(),
            ColdJob {
                schema: Arc::clone(&known.schema),
                versions: inputs,
                newer,
                segments: plan.segments.clone(),
                watermark: self.stripes().oldest(),
                marks_through: job.through,
                next_file: &|| files.next_file(),
            },
        )?;
        let event = Event::Converted {
            table: known.schema.table,
            runs: plan.runs.clone(),
            segments: output.segments.iter().map(|segment| segment.segment).collect(),
        };
        self.install_job(known.schema.table, plan, job, output)?;
        Ok(event)
    }

    fn job_cursors(
        &self,
        table: TableId,
        plan: &ColdPlan,
        job: &JobLog,
        view: &ReadView,
    ) -> (Box<dyn Cursor>, Box<dyn Cursor>) {
        let mut inputs: Vec<Box<dyn Cursor>> = Vec::new();
        let mut newer: Vec<Box<dyn Cursor>> = Vec::new();
        if let Some(rows) = view.rows(table) {
            for memtable in rows.memtables().rev().filter(|memtable| !memtable.is_empty()) {
                newer.push(Box::new(memtable.cursor()));
            }
            for run in rows.runs().iter().rev() {
                let cursor = Box::new(run.cursor(false));
                if plan.runs.contains(&run.meta().run) { inputs.push(cursor) } else { newer.push(cursor) }
            }
        }
        let bounded = |cursors| -> Box<dyn Cursor> {
            let cursor = BoundedCursor::new(MergeCursor::new(cursors), job.keys.0.clone(), job.keys.1.clone());
            // Segments take whole rows.
            Box::new(LoadedCursor::new(cursor))
        };
        (bounded(inputs), bounded(newer))
    }

    /// Manifest edit, then the swap inside the commit mutex.
    fn install_job(&self, table: TableId, plan: &ColdPlan, job: &Arc<JobLog>, output: ColdOutput) -> Result<()> {
        let mut marks: Vec<(Location, SeqNo)> = Vec::new();
        let mut translated = 0;
        loop {
            let noted = job.noted_from(translated);
            translated += noted.len();
            marks.extend(self.cold.translate(&output, &noted)?);
            if noted.len() <= TRANSLATE_LOCKED_MAX {
                break;
            }
        }
        let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        self.wal.sync_to(self.wal.end_lsn())?;
        let mut edits: Vec<Edit> = plan.runs.iter().map(|run| Edit::RemoveRun { table, run: *run }).collect();
        edits.extend(output.replaced.iter().map(|segment| Edit::RemoveSegment { table, segment: *segment }));
        edits.extend(output.segments.iter().map(|segment| Edit::AddSegment(segment.clone())));
        let dropped = self.dropped_files(plan, &output);
        let dropped = [dropped, self.append_edits(&edits)?].concat();

        let mut sequencer = self.lock_sequencer();
        // From here on manifest and memory must agree: a failure leaves this process on the old layout, refusing
        // writes, and the next open on the new one.
        let noted = job.noted_from(translated);
        match self.cold.translate(&output, &noted) {
            Ok(last) => marks.extend(last),
            Err(error) => {
                self.wal.poison(&error.to_string());
                return Err(error);
            }
        }
        let view = self.views.load();
        let cold = self.cold.install(view.cold.as_ref(), output, &marks);
        let mut tables = view.tables.clone();
        if let Some(rows) = tables.get(&table) {
            let mut rows = TableRows::clone(rows);
            rows.runs.remove(&plan.runs).map_err(disagreement)?;
            tables.insert(table, Arc::new(rows));
        }
        self.views.install(tables, cold, dropped);
        sequencer.jobs.retain(|running| !Arc::ptr_eq(running, job));
        Ok(())
    }

    fn dropped_files(&self, plan: &ColdPlan, output: &ColdOutput) -> Vec<(FileKind, FileId)> {
        let version = self.manifest.version();
        let mut dropped: Vec<(FileKind, FileId)> = plan.runs.iter().map(|run| (FileKind::Run, *run)).collect();
        for segment in &output.replaced {
            dropped.extend([(FileKind::Segment, *segment), (FileKind::Keys, *segment)]);
            let marks = version.tables.values().find_map(|table| table.segments.get(segment)?.marks);
            dropped.extend(marks.map(|marks| (FileKind::Marks, marks)));
        }
        dropped
    }
}

impl JobLog {
    fn noted_from(&self, from: usize) -> Vec<(Vec<u8>, SeqNo)> {
        self.superseded.lock().unwrap_or_else(PoisonError::into_inner)[from..].to_vec()
    }
}

/// Smallest and largest key of everything that the plan reads.
fn key_range(view: &ReadView, table: TableId, plan: &ColdPlan) -> (Vec<u8>, Vec<u8>) {
    let runs = view.rows(table).into_iter().flat_map(|rows| rows.runs()).map(|run| run.meta());
    let runs = runs.filter(|meta| plan.runs.contains(&meta.run)).map(|m| (m.key_min.clone(), m.key_max.clone()));
    let segments = plan.segments.iter().filter_map(|segment| view.cold.key_range(*segment));
    runs.chain(segments).reduce(|left, right| (left.0.min(right.0), left.1.max(right.1))).unwrap_or_default()
}
