//! Merging runs: several runs become one, with versions that no snapshot can see left out.

use std::sync::{Arc, PoisonError};

use crate::compaction::gc::GcOptions;
use crate::compaction::job::merge_runs;
use crate::compaction::picker::{MergePlan, MergePolicy, merge_all, pick_merge};
use crate::db::{Db, Inner, Registered};
use crate::error::Result;
use crate::event::Event;
use crate::file::{FileId, FileKind};
use crate::iter::Cursor;
use crate::manifest::{Edit, RunMeta};
use crate::schema::TableId;
use crate::sstable::Run;
use crate::view::TableRows;
use crate::work::disagreement;

impl Db {
    /// Flushes `table` and merges all of its runs into one.
    ///
    /// # Errors
    /// I/O; the runs then stay as they were.
    pub fn merge_runs(&self, table: TableId) -> Result<()> {
        self.flush(Some(table))?;
        self.inner.merge(table, |runs| {
            let has_garbage = runs.iter().any(|run| run.tombstone_count > 0 || !run.unique_keys);
            merge_all(runs.len(), has_garbage)
        })?;
        Ok(())
    }
}

impl Inner {
    /// Merges the runs of a `row` table if the policy wants it.
    pub(crate) fn merge_due(&self, known: &Registered) -> Result<bool> {
        self.merge(known.schema.table, |runs| {
            let run_bytes: Vec<u64> = runs.iter().map(|run| run.file_bytes).collect();
            pick_merge(&run_bytes, MergePolicy::default())
        })
    }

    /// Merges the runs that `choose` picks, given all of them, oldest first. `false` if it picked none.
    fn merge(&self, table: TableId, choose: impl FnOnce(&[RunMeta]) -> Option<MergePlan>) -> Result<bool> {
        let _restructuring = self.work.restructuring.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.views.load();
        let Some(rows) = view.rows(table) else { return Ok(false) };
        let metas: Vec<RunMeta> = rows.runs().iter().map(|run| run.meta().clone()).collect();
        let Some(plan) = choose(&metas) else { return Ok(false) };
        let inputs = rows.runs()[plan.runs.clone()].iter().rev();
        let inputs: Vec<Box<dyn Cursor>> = inputs.map(|run| Box::new(run.cursor(false)) as Box<dyn Cursor>).collect();
        // A tombstone of the oldest run has nothing left to hide, in a hybrid table either: rows in segments were
        // marked when the delete committed.
        let _span = tracing::debug_span!("merge", table = table.0).entered();
        let start = self.env.monotonic();
        let options = GcOptions { snapshots: self.stripes(), tombstones: plan.tombstones };
        let run = merge_runs(inputs, self.run_writer(table)?, options)?
            .map(|meta| Run::open(&self.env, &self.dir, &meta, Arc::clone(&self.block_cache)))
            .transpose()?;
        let read_bytes: u64 = metas[plan.runs.clone()].iter().map(|meta| meta.file_bytes).sum();
        let write_bytes = run.as_ref().map_or(0, |run| run.meta().file_bytes);
        let removed: Vec<FileId> = metas[plan.runs].iter().map(|meta| meta.run).collect();
        drop(view);
        self.install_merge(table, &removed, run)?;
        let elapsed = self.env.monotonic().saturating_sub(start);
        self.metrics.merge.record(elapsed);
        self.metrics.merge_read_bytes.add(read_bytes);
        self.metrics.merge_write_bytes.add(write_bytes);
        tracing::debug!(runs = removed.len(), read_bytes, write_bytes, ?elapsed, "merged");
        self.remove_garbage();
        self.notify(&Event::Merged { table, runs: removed });
        Ok(true)
    }

    fn install_merge(&self, table: TableId, removed: &[FileId], run: Option<Arc<Run>>) -> Result<()> {
        let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let added = run.as_ref().map(|run| run.meta().clone());
        self.append_edits(&[Edit::MergeRuns { table, removed: removed.to_vec(), added }])?;
        let _sequencer = self.lock_sequencer();
        let view = self.views.load();
        let mut tables = view.tables.clone();
        if let Some(rows) = tables.get(&table) {
            let mut rows = TableRows::clone(rows);
            rows.runs.merge(removed, run).map_err(disagreement)?;
            tables.insert(table, Arc::new(rows));
        }
        let dropped = removed.iter().map(|run| (FileKind::Run, *run)).collect();
        self.views.install(tables, Arc::clone(&view.cold), dropped);
        Ok(())
    }
}
