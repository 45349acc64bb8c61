//! Flush: a sealed memtable becomes a run, in one manifest edit with the marks that the log would otherwise have to keep.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use crate::commit::Sequencer;
use crate::compaction::gc::{GcOptions, Tombstones};
use crate::compaction::job::{Merged, Outputs, ValueOutputs, merge_runs};
use crate::compaction::options::CompactionOptions;
use crate::db::{Db, Inner};
use crate::error::Result;
use crate::event::Event;
use crate::file::{FileId, FileKind};
use crate::iter::Cursor;
use crate::manifest::Edit;
use crate::manifest::levels::LAST_LEVEL;
use crate::memtable::Memtable;
use crate::schema::{StorageKind, TableId};
use crate::seqno::SeqNo;
use crate::sstable::{Compression, FilterKind, Run, RunOptions, RunWriter};
use crate::values::{ValueFile, ValueFileMeta, ValueFiles, ValueWriter};
use crate::view::TableRows;
use crate::work::disagreement;
use crate::work::leftovers::Numbered;

impl Db {
    /// Seals and flushes the memtable of `table`, or of every table. When this returns, recovery would read none of
    /// their rows from the log.
    ///
    /// # Errors
    /// I/O, or a log that failed.
    pub fn flush(&self, table: Option<TableId>) -> Result<()> {
        let tables = table.map_or_else(|| self.inner.tables_with_rows(), |table| vec![table]);
        for table in tables {
            self.inner.seal_memtable(table);
        }
        // What is sealed from here on is not waited for, or this would not end while somebody writes.
        let through = self.inner.lock_sequencer().last;
        while self.inner.has_sealed(through) {
            self.inner.flush_sealed()?;
        }
        while self.inner.seal_marks()? {}
        self.inner.release_log()
    }

    /// One step of flushing: a sealed memtable, or one that should be sealed because its table is idle or pins too
    /// much log. `false` if there was nothing to do.
    ///
    /// # Errors
    /// I/O, or a log that failed.
    pub fn flush_step(&self) -> Result<bool> {
        if self.inner.flush_sealed()? {
            return Ok(true);
        }
        if let Some(table) = self.inner.memtable_due() {
            self.inner.seal_memtable(table);
            return self.inner.flush_sealed();
        }
        if self.inner.seal_marks()? {
            return Ok(true);
        }
        self.inner.remove_garbage();
        self.inner.save_times(false)?;
        self.inner.wal.prepare_spare()?;
        Ok(false)
    }
}

impl Inner {
    fn tables_with_rows(&self) -> Vec<TableId> {
        self.views.load().tables.keys().copied().collect()
    }

    /// Moves the table's memtable aside, if it has anything, so that it can be flushed.
    pub(crate) fn seal_memtable(&self, table: TableId) {
        let _sequencer = self.lock_sequencer();
        let view = self.views.load();
        let Some(rows) = view.tables.get(&table).filter(|rows| !rows.active.is_empty()) else { return };
        let mut rows = TableRows::clone(rows);
        rows.seal_active();
        let mut tables = view.tables.clone();
        tables.insert(table, Arc::new(rows));
        self.views.install(tables, Arc::clone(&view.cold), Vec::new());
    }

    /// Whether a sealed memtable holds a commit at or below `through`.
    fn has_sealed(&self, through: SeqNo) -> bool {
        let view = self.views.load();
        view.tables.values().flat_map(|rows| &rows.sealed).any(|memtable| memtable.seqno_range().0 <= through)
    }

    /// A table whose memtable should be flushed although it is not full.
    fn memtable_due(&self) -> Option<TableId> {
        let view = self.views.load();
        if let Some(table) = self.memtables_over_cap(&view) {
            return Some(table);
        }
        let filled = view.tables.iter().filter(|(_, rows)| !rows.active.is_empty());
        // Only the log that memtables hold back counts: flushing frees nothing of what a copy in progress has pinned.
        let oldest = filled.clone().map(|(table, rows)| (rows.active.seqno_range().0, *table)).min();
        if let Some((seqno, table)) = oldest
            && self.wal.bytes_since(seqno) > self.options.wal_bytes_max
        {
            return Some(table);
        }
        let is_hybrid = |table| self.registered(table).is_some_and(|known| known.kind == StorageKind::Hybrid);
        filled
            .map(|(table, _)| *table)
            .find(|table| is_hybrid(*table) && self.idle_ms(*table) >= self.options.idle_flush_ms)
    }

    /// Flushes the sealed memtable with the oldest commit. `false` if none is sealed.
    pub(crate) fn flush_sealed(&self) -> Result<bool> {
        let _flushing = self.work.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.views.load();
        let sealed = view.tables.iter().filter_map(|(table, rows)| Some((*table, rows.sealed.first()?)));
        let Some((table, memtable)) = sealed.min_by_key(|(_, memtable)| memtable.seqno_range().0) else {
            return Ok(false);
        };
        let memtable = Arc::clone(memtable);
        drop(view);
        memtable.wait_applied();
        let (_, through) = memtable.seqno_range();
        let _span = tracing::debug_span!("flush", table = table.0).entered();
        let start = self.env.monotonic();
        self.wal.sync_to(self.wal.end_lsn())?;
        let written = self.write_memtable(table, &memtable)?;
        let run_id = written.runs.first().map(|run| run.meta().run);
        let file_bytes: u64 = written.runs.iter().map(|run| run.meta().file_bytes).sum();
        self.install_flush(table, &memtable, written, through)?;
        let elapsed = self.env.monotonic().saturating_sub(start);
        self.metrics.flush.record(elapsed);
        self.metrics.flush_bytes.add(file_bytes);
        self.work.pacer.flushed(memtable.bytes(), elapsed);
        self.note_compaction_debt();
        self.work.traffic.count(table, 0, |traffic| traffic.written_bytes += file_bytes);
        tracing::debug!(rows = memtable.entry_count(), file_bytes, ?elapsed, "flushed");
        drop(memtable);
        self.release_log()?;
        self.remove_garbage();
        self.notify(&Event::Flushed { table, run: run_id });
        self.work.wake();
        Ok(true)
    }

    fn write_memtable(&self, table: TableId, memtable: &Arc<Memtable>) -> Result<Written> {
        // Tombstones stay: an older run may hold what they hide.
        let options = GcOptions { snapshots: self.stripes(), tombstones: Tombstones::Keep };
        let place = WritePlace { table, level: 0, file_bytes_max: u64::MAX };
        self.write_runs(vec![Box::new(memtable.cursor())], &ValueFiles::new(), place, options, BTreeSet::new())
    }

    /// Merges `inputs` into new files, open and ready to be installed. References of the inputs lead into `files`; those
    /// into `emptied` ones are followed, and their values written anew.
    pub(super) fn write_runs(
        &self,
        inputs: Vec<Box<dyn Cursor>>,
        files: &ValueFiles,
        place: WritePlace,
        options: GcOptions,
        emptied: BTreeSet<FileId>,
    ) -> Result<Written> {
        let WritePlace { table, level, file_bytes_max } = place;
        let known = self.registered(table).filter(|known| known.kind == StorageKind::Row);
        let shape = known.map(|known| known.compaction);
        let create = || self.run_writer(table, level);
        let create_values = || self.value_writer(table, level);
        let remove = |kind, file| self.remove_file(kind, file);
        let values = ValueOutputs {
            large_bytes_min: shape.as_ref().and_then(CompactionOptions::large_bytes_min),
            emptied,
            create: &create_values,
            file_bytes_max: shape.unwrap_or_default().value_file_bytes_max,
        };
        let merged =
            merge_runs(inputs, &Outputs { create: &create, remove: &remove, file_bytes_max, values }, options)?;
        let opened = self.open_written(&merged, files);
        if opened.is_err() {
            merged.runs.iter().for_each(|meta| remove(FileKind::Run, meta.run));
            merged.values.iter().for_each(|meta| remove(FileKind::Values, meta.file));
        }
        let runs = opened?;
        self.metrics.value_write_bytes.add(merged.values.iter().map(|meta| meta.file_bytes).sum());
        self.metrics.value_move_bytes.add(merged.moved_bytes);
        Ok(Written { runs, values: merged.values, moved_bytes: merged.moved_bytes })
    }

    /// Removes what was written and is not to be installed.
    fn remove_written(&self, written: &Written) {
        written.runs.iter().for_each(|run| self.remove_file(FileKind::Run, run.id()));
        written.values.iter().for_each(|meta| self.remove_file(FileKind::Values, meta.file));
    }

    fn open_written(&self, merged: &Merged, files: &ValueFiles) -> Result<Vec<Arc<Run>>> {
        let mut files = files.clone();
        for meta in &merged.values {
            files.insert(meta.file, ValueFile::open(&self.env, &self.dir, meta)?);
        }
        let open = |meta| Run::open_with(&self.env, &self.dir, meta, Arc::clone(&self.block_cache), &files);
        merged.runs.iter().map(open).collect()
    }

    /// Starts a value file for runs of `level`.
    fn value_writer(&self, table: TableId, level: u8) -> Result<ValueWriter> {
        let compression = compression_of(level);
        let writer = ValueWriter::new(Arc::clone(&self.env), &self.dir, self.manifest.next_file(), table, compression)?;
        Ok(writer.limited(self.work.io_limit.clone()))
    }

    /// Starts a file of `level`.
    pub(super) fn run_writer(&self, table: TableId, level: u8) -> Result<RunWriter> {
        // What is asked most often whether it has a key is made with most care: nine keys of ten are in it.
        let filter = if level == LAST_LEVEL { FilterKind::Fuse } else { FilterKind::Bloom };
        let options = RunOptions { compression: compression_of(level), filter, ..RunOptions::default() };
        let writer = RunWriter::new(Arc::clone(&self.env), &self.dir, self.manifest.next_file(), table, options)?;
        Ok(writer.charged(self.budget.reserve("run writers", 0)?).limited(self.work.io_limit.clone()))
    }

    fn install_flush(&self, table: TableId, memtable: &Arc<Memtable>, written: Written, through: SeqNo) -> Result<()> {
        let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.views.load();
        let mut edits = vec![Edit::FlushedThrough { table, seqno: through }];
        edits.extend(written.values.iter().cloned().map(Edit::AddValueFile));
        edits.extend(written.runs.iter().map(|run| Edit::AddRun(run.meta().clone())));
        let sealed = self.seal(table, through, view.cold.as_ref());
        edits.extend(sealed.inspect_err(|_| self.remove_written(&written))?);
        let dropped = self.append_edits(&edits)?;
        let _sequencer = self.lock_sequencer();
        let view = self.views.load();
        let mut tables = view.tables.clone();
        // A dropped table's memtable may still have been in flight.
        if let Some(rows) = tables.get(&table) {
            let mut rows = TableRows::clone(rows);
            rows.sealed.retain(|sealed| !Arc::ptr_eq(sealed, memtable));
            written.runs.into_iter().try_for_each(|run| rows.runs.push(run)).map_err(disagreement)?;
            tables.insert(table, Arc::new(rows));
        }
        self.views.install(tables, Arc::clone(&view.cold), dropped);
        Ok(())
    }

    /// Seals the marks of `table` through `through`, as edits.
    fn seal(&self, table: TableId, through: SeqNo, cold: &dyn crate::cold::ColdView) -> Result<Vec<Edit>> {
        let files = Numbered::new(self);
        let sealed = self.cold.seal(cold, table, through, &|| files.next_file()).inspect_err(|_| files.discard())?;
        Ok(sealed.into_iter().map(Edit::SetMarks).collect())
    }

    /// Appends edits to the manifest, and with them the drops of the value files that they leave without a reference; returns
    /// the mark files that they replaced and those value files. If it fails, what the edits bring in belongs to
    /// [`super::leftovers`]. Under the lock that guards installing.
    pub(crate) fn append_edits(&self, edits: &[Edit]) -> Result<Vec<(FileKind, FileId)>> {
        let before: HashMap<FileId, Option<FileId>> =
            self.manifest.version().segments().into_iter().map(|record| (record.segment, record.marks)).collect();
        let replaced = edits.iter().filter_map(|edit| match edit {
            Edit::SetMarks(sealed) => {
                let old = before.get(&sealed.segment).copied().flatten()?;
                (Some(old) != sealed.marks).then_some((FileKind::Marks, old))
            }
            _ => None,
        });
        let mut dropped: Vec<_> = replaced.collect();
        let drops = self.manifest.version().drops_after(edits);
        for edit in &drops {
            if let Edit::DropValueFiles { files, .. } = edit {
                dropped.extend(files.iter().map(|file| (FileKind::Values, *file)));
            }
        }
        let history: Vec<Edit> = self.history_edit().into_iter().collect();
        let appended = self.manifest.append(&[edits, &drops, &history].concat());
        let version = appended.inspect_err(|_| self.work.leftovers.doubt(edits, &self.manifest.version()))?;
        for (kind, file) in self.work.leftovers.settle(edits, &version) {
            self.remove_file(kind, file);
        }
        Ok(dropped)
    }

    /// Seals the marks of one table whose rows are all flushed but whose marks pin the log. `false` if there is none.
    fn seal_marks(&self) -> Result<bool> {
        let _flushing = self.work.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.manifest.version();
        let (table, newest, view) = {
            let sequencer = self.lock_sequencer();
            let view = self.views.load();
            let flushed = |table: TableId| {
                view.tables.get(&table).is_none_or(|rows| rows.active.is_empty() && rows.sealed.is_empty())
            };
            let newest = |table: TableId| sequencer.newest.get(&table).copied().unwrap_or_default();
            let segments = version.segments();
            let pinned = segments.iter().find(|s| newest(s.table) > s.marks_through && flushed(s.table));
            let Some(segment) = pinned else { return Ok(false) };
            (segment.table, newest(segment.table), Arc::clone(&view))
        };
        self.wal.sync_to(self.wal.end_lsn())?;
        let edits = self.seal(table, newest, view.cold.as_ref())?;
        let dropped = self.append_edits(&edits)?;
        let _sequencer = self.lock_sequencer();
        let view = self.views.load();
        self.views.install(view.tables.clone(), Arc::clone(&view.cold), dropped);
        Ok(true)
    }

    /// Frees log files whose every commit is flushed and whose every mark is sealed.
    pub(crate) fn release_log(&self) -> Result<()> {
        let _installing = self.work.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let through = self.log_needless_through(&self.lock_sequencer());
        if let Some(start) = self.wal.releasable(through) {
            // With the log goes the record of the newest commit; the manifest takes it over.
            self.append_edits(&[Edit::LastSeqNo(through), Edit::WalReleased(start)])?;
            self.wal.release(start)?;
        }
        Ok(())
    }

    /// The newest commit up to which nobody needs the log: every row is flushed and every mark sealed. Under the lock that
    /// guards installing.
    pub(crate) fn log_needless_through(&self, sequencer: &Sequencer) -> SeqNo {
        let view = self.views.load();
        let mut through = sequencer.last;
        let memtables = view.tables.values().flat_map(|rows| rows.memtables()).filter(|m| !m.is_empty());
        for memtable in memtables {
            through = through.min(SeqNo(memtable.seqno_range().0.0 - 1));
        }
        for job in &sequencer.jobs {
            through = through.min(job.through);
        }
        for segment in self.manifest.version().segments() {
            if sequencer.newest.get(&segment.table).is_some_and(|newest| *newest > segment.marks_through) {
                through = through.min(segment.marks_through);
            }
        }
        through
    }
}

/// Files that a flush or merge wrote: not part of any view yet.
pub(super) struct Written {
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) values: Vec<ValueFileMeta>,
    /// Bytes of values that were read to get there.
    pub(super) moved_bytes: u64,
}

/// Where a flush or merge writes its runs.
#[derive(Clone, Copy)]
pub(super) struct WritePlace {
    pub(super) table: TableId,
    pub(super) level: u8,
    pub(super) file_bytes_max: u64,
}

/// What is written last and read most seldom is compressed best.
fn compression_of(level: u8) -> Compression {
    if level == LAST_LEVEL { Compression::Zstd } else { Compression::Lz4 }
}
