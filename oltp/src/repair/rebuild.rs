//! Without a manifest: every file there is takes part, and the newest version of each key wins.
//!
//! A folder may hold files that were not in use any more, or not yet: inputs of a merge beside its output, a segment
//! beside the runs it was made of. Their versions are all of commits that happened, so that the newest of each key is
//! right wherever it is found twice. Wrong it can be only where the newest was a delete whose tombstone and whose row had
//! both been dropped while an old file with the row was left over, and the report says so.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Effect, Loss, Repair, apply};
use crate::cache::BlockCache;
use crate::cold::SegmentRecord;
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::OpenSegment;
use crate::inspect::log::{self, LogEntry};
use crate::inspect::manifest::Remains;
use crate::inspect::merge::LooseMerge;
use crate::inspect::run::{Piece, RunFile};
use crate::iter::{Cursor, VersionKind};
use crate::key::{PREFIX_BYTES, table_of};
use crate::manifest::{Edit, RunMeta, Version, draw_db_id};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::block::BlockCursor;
use crate::sstable::{Run, RunOptions, RunWriter};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::wal::reader::LogReader;
use crate::wal::{DbId, Wal, WalOptions};

/// Bytes of log entries sorted in memory at a time.
const LOG_BYTES_MAX: usize = 64 << 20;

type Entries = BTreeMap<(Vec<u8>, Reverse<SeqNo>), (VersionKind, Vec<u8>)>;

impl Repair<'_> {
    /// Builds a version from the files; `manifest` is the damaged one, if there is one.
    pub(super) fn rebuild_version(
        &mut self,
        manifest: Option<PathBuf>,
        remains: Option<&Remains>,
        files: &[(FileKind, FileId, u64)],
    ) -> Result<(DbId, Version)> {
        let what = "the manifest was rebuilt from the files: rows deleted long ago may be back if a file was left over \
                    that was not in use, and so may dropped tables; nobody knows whether other files are gone";
        let first = remains.and_then(|remains| remains.faults.first());
        let what =
            first.map_or_else(|| what.to_owned(), |fault| format!("{} (byte {}); {what}", fault.what, fault.offset));
        let file = manifest.unwrap_or_else(|| self.dir.to_path_buf());
        let (kind, bytes) = (FileKind::Manifest, 0..u64::MAX);
        self.report.losses.push(Loss {
            effect: Effect::Reappear,
            kind,
            file,
            bytes,
            table: None,
            keys: None,
            rows: None,
            what,
        });
        let of_kind = |wanted| files.iter().filter(move |(kind, ..)| *kind == wanted).map(|(_, id, _)| *id);
        let db_id = remains.and_then(|remains| remains.db_id).or_else(|| {
            let mut logs = of_kind(FileKind::Wal);
            let log = logs.find_map(|id| LogReader::open(self.env.as_ref(), FileKind::Wal, self.dir, id).ok());
            log.map(|reader| reader.header.db_id)
        });
        let mut segments: BTreeMap<TableId, Vec<SegmentRecord>> = BTreeMap::new();
        for id in of_kind(FileKind::Segment) {
            for record in self.segment(id, None)?.records {
                segments.entry(record.table).or_default().push(record);
            }
        }
        for id in of_kind(FileKind::Values) {
            // Without their records no reference stays: values go into the runs.
            self.look_at_damaged(id, None)?;
        }
        let mut runs: BTreeMap<TableId, Vec<RunMeta>> = BTreeMap::new();
        for id in of_kind(FileKind::Run) {
            let Some(table) = self.table_of_run(id, remains) else {
                self.lose(Effect::Lost, FileKind::Run, id, "nothing in the run can be read");
                continue;
            };
            if let Some(meta) = self.salvage_run(id, table, None)? {
                runs.entry(table).or_default().push(meta);
            }
        }
        let newest = self.log_as_runs(db_id, &mut runs)?;
        let mut version = Version { last_seqno: newest, ..Version::default() };
        let mut tables: Vec<TableId> = runs.keys().chain(segments.keys()).copied().collect();
        tables.sort_unstable();
        tables.dedup();
        for table in tables {
            let records = segments.remove(&table).unwrap_or_default();
            self.rebuild_table(&mut version, table, &runs.remove(&table).unwrap_or_default(), records, remains)?;
        }
        version.last_seqno = version.last_seqno.max(self.newest);
        let new_id = draw_db_id(self.env.as_ref());
        self.empty_log(new_id, &mut version)?;
        Ok((new_id, version))
    }

    fn table_of_run(&self, id: FileId, remains: Option<&Remains>) -> Option<TableId> {
        let path = FileKind::Run.path(self.dir, id);
        let run = RunFile::open(self.env.as_ref(), &path, Some(id)).ok()?;
        let known = run.footer.map(|footer| footer.table);
        let known = known.or_else(|| remains?.runs.get(&id).map(|meta| meta.table));
        let mut found = known;
        let walked = run.walk(&mut Vec::new(), &mut |piece| {
            if let (None, Piece::Block(_, block)) = (found, piece) {
                let mut cursor = BlockCursor::new(block);
                found = cursor.next().ok().filter(|more| *more).and_then(|_| table_of(cursor.key()));
            }
            Ok(())
        });
        walked.ok().and(found).or(known)
    }

    /// The commits of the log as runs, each sorted in memory. Returns the newest commit.
    fn log_as_runs(&mut self, db_id: Option<DbId>, runs: &mut BTreeMap<TableId, Vec<RunMeta>>) -> Result<SeqNo> {
        let (env, into) = (Arc::clone(self.env), self.into.to_path_buf());
        let counter = Arc::clone(&self.next_file);
        let mut flush = |tables: &mut BTreeMap<TableId, Entries>| -> Result<()> {
            for (table, entries) in std::mem::take(tables) {
                let id = FileId(counter.fetch_add(1, Ordering::AcqRel));
                let mut writer = RunWriter::new(Arc::clone(&env), &into, id, table, RunOptions::default())?;
                for ((key, Reverse(seqno)), (kind, value)) in &entries {
                    writer.add(key, *seqno, *kind, value)?;
                }
                runs.entry(table).or_default().push(writer.finish()?);
            }
            Ok(())
        };
        let mut tables: BTreeMap<TableId, Entries> = BTreeMap::new();
        let mut bytes = 0;
        let newest = self.commits(db_id, None, None, &mut |seqno, payload| {
            for LogEntry { table, kind, key, value } in log::entries(payload).unwrap_or_default() {
                bytes += key.len() + value.len() + 64;
                tables.entry(table).or_default().insert((key, Reverse(seqno)), (kind, value));
            }
            if bytes > LOG_BYTES_MAX {
                bytes = 0;
                flush(&mut tables)?;
            }
            Ok(())
        })?;
        flush(&mut tables)?;
        Ok(newest)
    }

    fn rebuild_table(
        &mut self,
        version: &mut Version,
        table: TableId,
        runs: &[RunMeta],
        records: Vec<SegmentRecord>,
        remains: Option<&Remains>,
    ) -> Result<()> {
        let mut open = Vec::new();
        if let Some(cold) = self.cold {
            for record in &records {
                open.push(cold.open(self.env, self.into, record)?);
            }
        }
        let mut row_ids = RowIds::default();
        for segment in &open {
            row_ids.note(&segment.key_range().1);
        }
        let merged = self.merge_newest(table, runs, &open, &mut row_ids)?;
        drop(open);
        for run in runs {
            let path = FileKind::Run.path(self.into, run.run);
            self.env.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        let flushed = runs.iter().map(|run| run.seqno_max).max().unwrap_or_default();
        let known = remains.and_then(|remains| remains.version.table(table)).map_or(0, |table| table.next_row_id);
        let mut edits = vec![Edit::RowIds { table, next: row_ids.next().max(known) }];
        edits.extend(merged.map(Edit::AddRun));
        let unmarked: Vec<FileId> = records.iter().map(|record| record.segment).collect();
        edits.extend(records.into_iter().map(Edit::AddSegment));
        apply(version, &edits, self.dir)?;
        self.remark(version, table, &unmarked)?;
        let seqno = flushed.max(self.newest);
        version.last_seqno = version.last_seqno.max(seqno);
        apply(version, &[Edit::FlushedThrough { table, seqno }], self.dir)
    }

    /// One run of the newest version of each key, without those that a segment holds.
    fn merge_newest(
        &mut self,
        table: TableId,
        runs: &[RunMeta],
        segments: &[Box<dyn OpenSegment>],
        row_ids: &mut RowIds,
    ) -> Result<Option<RunMeta>> {
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for run in runs {
            sources.push(Box::new(Run::open(self.env, self.into, run, BlockCache::disabled())?.cursor(false)));
        }
        let options = RunOptions::default();
        let mut writer = RunWriter::new(Arc::clone(self.env), self.into, self.next_file(), table, options)?;
        let mut versions = LooseMerge::new(sources)?;
        let mut last: Option<Vec<u8>> = None;
        while let Some((key, seqno, _, version)) = versions.current() {
            if last.as_deref() != Some(key) {
                row_ids.note(key);
                let mut is_in_segment = false;
                for segment in segments {
                    // A segment with the same version, or a newer one, is the key's home.
                    is_in_segment |= segment.versions(key)?.iter().any(|row| row.seqno >= seqno);
                }
                if !is_in_segment {
                    writer.add(key, seqno, version.kind(), version.value())?;
                }
                last = Some(key.to_vec());
            }
            versions.advance()?;
        }
        if writer.version_count() == 0 {
            writer.abandon()?;
            return Ok(None);
        }
        self.report.written_count += 1;
        writer.finish().map(Some)
    }

    fn empty_log(&mut self, db_id: DbId, version: &mut Version) -> Result<()> {
        let first = self.next_file();
        let options = WalOptions { spare_count_max: 0, ..WalOptions::default() };
        let env = Arc::clone(self.env);
        let (wal, _) = Wal::open(env, self.into, db_id, None, options, Arc::new(move || first), &mut |_, _| Ok(()))?;
        version.wal_start = Some(wal.start());
        Ok(())
    }
}

/// Row ids of a table without a primary key must not be given out again. Whether a table has them only its catalog entry
/// says; for any other the guess does no harm.
#[derive(Debug, Default)]
struct RowIds {
    largest: Option<u64>,
}

impl RowIds {
    fn note(&mut self, key: &[u8]) {
        let Some(Ok(bytes)) = key.get(PREFIX_BYTES..).map(<[u8; 8]>::try_from) else { return };
        // A 64-bit integer in a key has its sign bit flipped.
        let id = (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed();
        let id = u64::try_from(id).unwrap_or(0);
        self.largest = Some(self.largest.unwrap_or(0).max(id));
    }

    fn next(&self) -> u64 {
        self.largest.map_or(0, |largest| (largest + 1).min(i64::MAX.cast_unsigned()))
    }
}
