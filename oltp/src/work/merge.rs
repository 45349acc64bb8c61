//! Compaction: runs of a table's levels are merged with versions that no snapshot can see left out, or moved.

use std::collections::{BTreeMap, BTreeSet};

use crate::compaction::gc::{GcOptions, Tombstones};
use crate::compaction::options::CompactionOptions;
use crate::compaction::picker::{CompactionPlan, CompactionWork, Moment, compact_all, pick_compaction, pick_values};
use crate::db::{Db, Inner, Registered};
use crate::error::Result;
use crate::event::Event;
use crate::file::{FileId, FileKind};
use crate::iter::Cursor;
use crate::manifest::{Edit, Levels, Place};
use crate::schema::{StorageKind, TableId};
use crate::sstable::{ConcatCursor, Run};
use crate::sync::{Arc, PoisonError};
use crate::values::{ValueFileMeta, ValueFiles};
use crate::view::TableRows;
use crate::work::disagreement;
use crate::work::flush::{WritePlace, Written};

/// What a compaction replaces, and by what.
struct Change {
    removed: Vec<FileId>,
    added: Vec<(Place, Arc<Run>)>,
    values: Vec<ValueFileMeta>,
}

/// What a merge reads.
struct Inputs {
    /// Newest first.
    cursors: Vec<Box<dyn Cursor>>,
    bytes: u64,
    /// What their references lead into.
    files: ValueFiles,
    /// Those of the files whose values are to be written anew.
    emptied: BTreeSet<FileId>,
}

impl Inputs {
    fn new(cursors: Vec<Box<dyn Cursor>>, runs: &[Arc<Run>], emptied: BTreeSet<FileId>) -> Inputs {
        let bytes = runs.iter().map(|run| run.meta().file_bytes).sum();
        let files = runs.iter().flat_map(|run| run.value_files().clone()).collect();
        Inputs { cursors, bytes, files, emptied }
    }
}

impl Db {
    /// Flushes `table` and merges all of its runs: into one run, or for a `row` table into one sorted run, whose files
    /// follow each other.
    ///
    /// # Errors
    /// I/O; the runs then stay as they were.
    pub fn merge_runs(&self, table: TableId) -> Result<()> {
        self.flush(Some(table))?;
        let inner = &self.inner;
        let known = inner.registered(table);
        let options = known.as_ref().map_or_else(CompactionOptions::default, |known| known.compaction.clone());
        let is_row = known.is_some_and(|known| known.kind == StorageKind::Row);
        let is_leveled = |levels: &Levels<Arc<Run>>| levels.placed().any(|(place, _)| place.level > 0);
        if is_row || inner.views.load().rows(table).is_some_and(|rows| is_leveled(&rows.runs)) {
            inner.compact(table, &options, &BTreeSet::new(), compact_all)?;
            return inner.empty_values(table, &options);
        }
        inner.merge_flushed(table)
    }
}

impl Inner {
    /// Compacts a part of a `row` table's levels if one is due.
    pub(crate) fn compact_due(&self, known: &Registered) -> Result<bool> {
        let moment = Moment {
            watermark: self.stripes().oldest(),
            now_ms: u64::try_from(self.env.wall_clock().as_millis()).unwrap_or(u64::MAX),
        };
        let (table, options) = (known.schema.table, &known.compaction);
        let sparse = self.sparse_values(table, options.value_garbage_percent_min);
        self.compact(table, options, &sparse, |levels| pick_compaction(levels, options, moment, &sparse))
    }

    /// Value files of the table of which so much is garbage that they should be emptied.
    fn sparse_values(&self, table: TableId, garbage_percent_min: u32) -> BTreeSet<FileId> {
        let version = self.manifest.version();
        let files = version.table(table).map(|live| &live.values);
        let sparse = files.into_iter().flatten().filter(|(_, file)| file.is_sparse(garbage_percent_min));
        sparse.map(|(id, _)| *id).collect()
    }

    /// Writes all values anew whose files have any garbage, one run after the other; all values of a table that is to have
    /// none in files.
    fn empty_values(&self, table: TableId, options: &CompactionOptions) -> Result<()> {
        // Not those that come meanwhile, or this would not end while somebody writes.
        let sparse = match options.large_bytes_min() {
            Some(_) => self.sparse_values(table, 0),
            None => self
                .manifest
                .version()
                .table(table)
                .map_or_else(BTreeSet::new, |live| live.values.keys().copied().collect()),
        };
        while self.compact(table, options, &sparse, |levels| pick_values(levels, options, &sparse))? {}
        Ok(())
    }

    /// Carries out what `choose` plans for the table's levels, and empties those of the value files `sparse` that it meets.
    /// `false` if it planned nothing.
    fn compact(
        &self,
        table: TableId,
        options: &CompactionOptions,
        sparse: &BTreeSet<FileId>,
        choose: impl FnOnce(&Levels<Arc<Run>>) -> Option<CompactionPlan>,
    ) -> Result<bool> {
        let _restructuring = self.work.restructuring.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.views.load();
        let Some(rows) = view.rows(table) else { return Ok(false) };
        let Some(plan) = choose(&rows.runs) else { return Ok(false) };
        let sorted = rows.runs.sorted_runs();
        let inputs: Vec<Arc<Run>> =
            plan.inputs.iter().flat_map(|(at, files)| sorted[*at].files[files.clone()].iter().cloned()).collect();
        let removed = inputs.iter().map(|run| run.id()).collect();
        for (at, files) in &plan.inputs {
            let bytes: u64 = sorted[*at].files[files.clone()].iter().map(|run| run.meta().file_bytes).sum();
            let (level, is_merge) = (sorted[*at].place.level, plan.work == CompactionWork::Merge);
            self.work.traffic.count(table, level, |traffic| traffic.read_bytes += if is_merge { bytes } else { 0 });
        }
        let outputs = match plan.work {
            CompactionWork::Move => Written { runs: inputs, values: Vec::new(), moved_bytes: 0 },
            CompactionWork::Merge => {
                let cursor = |(at, files): &(usize, std::ops::Range<usize>)| -> Box<dyn Cursor> {
                    Box::new(ConcatCursor::new(Arc::clone(&sorted[*at].files), files.clone(), false))
                };
                let cursors = plan.inputs.iter().rev().map(cursor).collect();
                let emptied = emptied_by(&inputs, sparse, options.job_bytes_max);
                let place = WritePlace { table, level: plan.output.level, file_bytes_max: options.file_bytes_max };
                self.merge_files(Inputs::new(cursors, &inputs, emptied), plan.tombstones, place)?
            }
        };
        drop(view);
        let bytes: u64 = outputs.runs.iter().map(|run| run.meta().file_bytes).sum();
        self.work.traffic.count(table, plan.output.level, |traffic| match plan.work {
            CompactionWork::Move => traffic.moved_bytes += bytes,
            CompactionWork::Merge => traffic.written_bytes += bytes,
        });
        let added = outputs.runs.into_iter().map(|run| (plan.output, run)).collect();
        self.install_compaction(table, Change { removed, added, values: outputs.values })?;
        Ok(true)
    }

    /// Merges all runs of level 0 into one in their place.
    fn merge_flushed(&self, table: TableId) -> Result<()> {
        let _restructuring = self.work.restructuring.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.views.load();
        let Some(rows) = view.rows(table) else { return Ok(()) };
        let runs = rows.runs();
        let has_garbage = runs.iter().any(|run| run.meta().tombstone_count > 0 || !run.meta().unique_keys);
        if runs.is_empty() || (runs.len() == 1 && !has_garbage) {
            return Ok(());
        }
        let removed: Vec<FileId> = runs.iter().map(|run| run.id()).collect();
        let cursors = runs.iter().rev().map(|run| Box::new(run.cursor(false)) as Box<dyn Cursor>).collect();
        // A tombstone of the oldest run has nothing left to hide, in a hybrid table either: rows in segments were
        // marked when the delete committed.
        let inputs = Inputs::new(cursors, runs, BTreeSet::new());
        let merged =
            self.merge_files(inputs, Tombstones::Drop, WritePlace { table, level: 0, file_bytes_max: u64::MAX })?;
        drop(view);
        self.install_merge(table, removed, merged)
    }

    /// Merges `inputs` into files of a level, cut at a size, that are ready to be installed.
    fn merge_files(&self, inputs: Inputs, tombstones: Tombstones, place: WritePlace) -> Result<Written> {
        let _span = tracing::debug_span!("merge", table = place.table.0).entered();
        let start = self.env.monotonic();
        let options = GcOptions { snapshots: self.stripes(), tombstones };
        let written = self.write_runs(inputs.cursors, &inputs.files, place, options, inputs.emptied)?;
        let elapsed = self.env.monotonic().saturating_sub(start);
        let write_bytes = written.runs.iter().map(|run| run.meta().file_bytes).sum();
        self.metrics.merge.record(elapsed);
        self.metrics.merge_read_bytes.add(inputs.bytes);
        self.work.pacer.compacted(inputs.bytes + written.moved_bytes, elapsed);
        self.metrics.merge_write_bytes.add(write_bytes);
        tracing::debug!(read_bytes = inputs.bytes, write_bytes, ?elapsed, "merged");
        Ok(written)
    }

    fn install_compaction(&self, table: TableId, change: Change) -> Result<()> {
        let Change { removed, added, values } = change;
        let metas = added.iter().map(|(place, run)| (*place, run.meta().clone())).collect();
        let mut edits: Vec<Edit> = values.into_iter().map(Edit::AddValueFile).collect();
        edits.push(Edit::PlaceRuns { table, removed: removed.clone(), added: metas });
        self.install_runs(
            table,
            &edits,
            removed.iter().filter(|run| !added.iter().any(|(_, other)| other.id() == **run)).copied().collect(),
            |levels| levels.replace(&removed, added),
        )?;
        self.notify(&Event::Merged { table, runs: removed });
        Ok(())
    }

    fn install_merge(&self, table: TableId, removed: Vec<FileId>, written: Written) -> Result<()> {
        let merged = written.runs.into_iter().next();
        let added = merged.as_ref().map(|run| run.meta().clone());
        let mut edits: Vec<Edit> = written.values.into_iter().map(Edit::AddValueFile).collect();
        edits.push(Edit::MergeRuns { table, removed: removed.clone(), added });
        self.install_runs(table, &edits, removed.clone(), |levels| levels.merge(&removed, merged))?;
        self.notify(&Event::Merged { table, runs: removed });
        Ok(())
    }

    /// Makes a change of a table's levels durable, then visible; `dropped` runs go when no view names them any more.
    fn install_runs(
        &self,
        table: TableId,
        edits: &[Edit],
        dropped: Vec<FileId>,
        change: impl FnOnce(&mut Levels<Arc<Run>>) -> Result<(), &'static str>,
    ) -> Result<()> {
        {
            let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
            let unused = self.append_edits(edits)?;
            let _sequencer = self.lock_sequencer();
            let view = self.views.load();
            let mut tables = view.tables.clone();
            if let Some(rows) = tables.get(&table) {
                let mut rows = TableRows::clone(rows);
                change(&mut rows.runs).map_err(disagreement)?;
                tables.insert(table, Arc::new(rows));
            }
            let dropped = dropped.into_iter().map(|run| (FileKind::Run, run)).chain(unused).collect();
            self.views.install(tables, Arc::clone(&view.cold), dropped);
        }
        self.note_compaction_debt();
        self.remove_garbage();
        Ok(())
    }
}

/// Those of the value files `sparse` that a merge of `inputs` empties: as many as have `bytes_max` together, the first in any
/// case, so that a job stays about as large as without.
fn emptied_by(inputs: &[Arc<Run>], sparse: &BTreeSet<FileId>, bytes_max: u64) -> BTreeSet<FileId> {
    let mut shares: BTreeMap<FileId, u64> = BTreeMap::new();
    for share in inputs.iter().flat_map(|run| &run.meta().values).filter(|share| sparse.contains(&share.file)) {
        *shares.entry(share.file).or_default() += share.record_bytes;
    }
    let mut left = bytes_max;
    let mut emptied = BTreeSet::new();
    for (file, bytes) in shares {
        if !emptied.is_empty() && bytes > left {
            break;
        }
        left = left.saturating_sub(bytes);
        emptied.insert(file);
    }
    emptied
}
