//! Compaction: runs of a table's levels are merged with versions that no snapshot can see left out, or moved.

use crate::compaction::gc::{GcOptions, Tombstones};
use crate::compaction::job::{Outputs, merge_runs};
use crate::compaction::options::CompactionOptions;
use crate::compaction::picker::{CompactionPlan, CompactionWork, Moment, compact_all, pick_compaction};
use crate::db::{Db, Inner, Registered};
use crate::error::Result;
use crate::event::Event;
use crate::file::{FileId, FileKind};
use crate::iter::Cursor;
use crate::manifest::{Edit, Levels, Place};
use crate::schema::{StorageKind, TableId};
use crate::sstable::{ConcatCursor, Run};
use crate::sync::{Arc, PoisonError};
use crate::view::TableRows;
use crate::work::disagreement;

/// What a compaction replaces, and by what.
struct Change {
    removed: Vec<FileId>,
    added: Vec<(Place, Arc<Run>)>,
}

/// What a merge reads.
struct Inputs {
    /// Newest first.
    cursors: Vec<Box<dyn Cursor>>,
    bytes: u64,
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
            return inner.compact(table, &options, compact_all).map(drop);
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
        let options = &known.compaction;
        self.compact(known.schema.table, options, |levels| pick_compaction(levels, options, moment))
    }

    /// Carries out what `choose` plans for the table's levels. `false` if it planned nothing.
    fn compact(
        &self,
        table: TableId,
        options: &CompactionOptions,
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
            CompactionWork::Move => inputs,
            CompactionWork::Merge => {
                let bytes = inputs.iter().map(|run| run.meta().file_bytes).sum();
                drop(inputs);
                let cursor = |(at, files): &(usize, std::ops::Range<usize>)| -> Box<dyn Cursor> {
                    Box::new(ConcatCursor::new(Arc::clone(&sorted[*at].files), files.clone(), false))
                };
                let cursors = plan.inputs.iter().rev().map(cursor).collect();
                self.merge_files(
                    table,
                    Inputs { cursors, bytes },
                    plan.tombstones,
                    (plan.output.level, options.file_bytes_max),
                )?
            }
        };
        drop(view);
        let bytes: u64 = outputs.iter().map(|run| run.meta().file_bytes).sum();
        self.work.traffic.count(table, plan.output.level, |traffic| match plan.work {
            CompactionWork::Move => traffic.moved_bytes += bytes,
            CompactionWork::Merge => traffic.written_bytes += bytes,
        });
        let added = outputs.into_iter().map(|run| (plan.output, run)).collect();
        self.install_compaction(table, Change { removed, added })?;
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
        let bytes = runs.iter().map(|run| run.meta().file_bytes).sum();
        let merged = self.merge_files(table, Inputs { cursors, bytes }, Tombstones::Drop, (0, u64::MAX))?;
        drop(view);
        self.install_merge(table, removed, merged.into_iter().next())
    }

    /// Merges `inputs` into files of a level, cut at a size, that are ready to be installed.
    fn merge_files(
        &self,
        table: TableId,
        inputs: Inputs,
        tombstones: Tombstones,
        (level, file_bytes_max): (u8, u64),
    ) -> Result<Vec<Arc<Run>>> {
        let _span = tracing::debug_span!("merge", table = table.0).entered();
        let start = self.env.monotonic();
        let options = GcOptions { snapshots: self.stripes(), tombstones };
        let create = || self.run_writer(table, level);
        let remove = |run| self.remove_file(FileKind::Run, run);
        let metas = merge_runs(inputs.cursors, &Outputs { create: &create, remove: &remove, file_bytes_max }, options)?;
        let open = |meta| Run::open(&self.env, &self.dir, meta, Arc::clone(&self.block_cache));
        let runs: Result<Vec<Arc<Run>>> = metas.iter().map(open).collect();
        if runs.is_err() {
            metas.iter().for_each(|meta| remove(meta.run));
        }
        let elapsed = self.env.monotonic().saturating_sub(start);
        let write_bytes = metas.iter().map(|meta| meta.file_bytes).sum();
        self.metrics.merge.record(elapsed);
        self.metrics.merge_read_bytes.add(inputs.bytes);
        self.work.pacer.compacted(inputs.bytes, elapsed);
        self.metrics.merge_write_bytes.add(write_bytes);
        tracing::debug!(read_bytes = inputs.bytes, write_bytes, ?elapsed, "merged");
        runs
    }

    fn install_compaction(&self, table: TableId, change: Change) -> Result<()> {
        let Change { removed, added } = change;
        let metas = added.iter().map(|(place, run)| (*place, run.meta().clone())).collect();
        self.install_runs(
            table,
            Edit::PlaceRuns { table, removed: removed.clone(), added: metas },
            removed.iter().filter(|run| !added.iter().any(|(_, other)| other.id() == **run)).copied().collect(),
            |levels| levels.replace(&removed, added),
        )?;
        self.notify(&Event::Merged { table, runs: removed });
        Ok(())
    }

    fn install_merge(&self, table: TableId, removed: Vec<FileId>, merged: Option<Arc<Run>>) -> Result<()> {
        let added = merged.as_ref().map(|run| run.meta().clone());
        let edit = Edit::MergeRuns { table, removed: removed.clone(), added };
        self.install_runs(table, edit, removed.clone(), |levels| levels.merge(&removed, merged))?;
        self.notify(&Event::Merged { table, runs: removed });
        Ok(())
    }

    /// Makes a change of a table's levels durable, then visible; `dropped` runs go when no view names them any more.
    fn install_runs(
        &self,
        table: TableId,
        edit: Edit,
        dropped: Vec<FileId>,
        change: impl FnOnce(&mut Levels<Arc<Run>>) -> Result<(), &'static str>,
    ) -> Result<()> {
        {
            let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
            self.append_edits(&[edit])?;
            let _sequencer = self.lock_sequencer();
            let view = self.views.load();
            let mut tables = view.tables.clone();
            if let Some(rows) = tables.get(&table) {
                let mut rows = TableRows::clone(rows);
                change(&mut rows.runs).map_err(disagreement)?;
                tables.insert(table, Arc::new(rows));
            }
            let dropped = dropped.into_iter().map(|run| (FileKind::Run, run)).collect();
            self.views.install(tables, Arc::clone(&view.cold), dropped);
        }
        self.note_compaction_debt();
        self.remove_garbage();
        Ok(())
    }
}
