//! `repair`: a damaged database into a new folder, with a report of every loss. Never runs by itself.
//!
//! The original is only read. What is sound is copied; of the rest, what verifies is written anew: runs block by block
//! ([`runs`]), large values one by one ([`values`]), segments row group by row group ([`ColdFiles::repair`]), the log up to the first bad record or, if asked,
//! all good records ([`logs`]). Indexes and filters come from the data. A manifest that is lost is rebuilt from the
//! files ([`rebuild`]).
//!
//! Always true:
//! * every row that was in a sound part of a run, of a segment, or of the log behind what was flushed, is in the result, and
//!   the result opens and verifies;
//! * whatever is not copied or rebuilt whole is in the report, as a [`Loss`] that names file, bytes, and keys if known;
//! * a result whose log is not the original's, file by file, is another database, with an identity of its own: it counts
//!   log positions anew, so that it must never be taken for the original by an archive or a restore;
//! * what cannot be known is decided towards keeping rows: a row whose deletion is lost comes back, a row whose newest
//!   version is lost shows the one before. Losing data without a trace would be worse, and the report says where.

mod logs;
mod rebuild;
mod runs;
mod values;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::backup::copy::copy_file;
use crate::cache::BlockCache;
use crate::cold::SegmentRecord;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::{ColdFiles, Fault, SegmentRepair, manifest, verify};
use crate::manifest::levels::Place;
use crate::manifest::{Edit, RunMeta, Version};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::Run;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::wal::DbId;

/// How to repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Take commits of the log from behind a bad record too. What is between is lost, so the result may not be a state
    /// that ever was: a later commit without an earlier one.
    pub salvage_log: bool,
}

/// What a loss means for the rows concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Rows may be missing, be as they were before their last change, or be back although deleted.
    Lost,
    /// Rows may be back although deleted, or be as they were before their last change. None is missing.
    Reappear,
    /// Nothing: it was made anew from what is sound.
    Rebuilt,
}

/// One part of the database that could not be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What it means.
    pub effect: Effect,
    /// Kind of the damaged file.
    pub kind: FileKind,
    /// The damaged file.
    pub file: PathBuf,
    /// The bytes that are not used; to `u64::MAX` if all.
    pub bytes: Range<u64>,
    /// The table concerned; unknown for the log and the manifest, which concern all.
    pub table: Option<TableId>,
    /// First and last full key that can be concerned; unknown means all of the table.
    pub keys: Option<(Vec<u8>, Vec<u8>)>,
    /// How many rows or row versions, if that is known.
    pub rows: Option<u64>,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::Lost => "LOST",
            Effect::Reappear => "MAY REAPPEAR",
            Effect::Rebuilt => "rebuilt",
        };
        write!(f, "{effect}: {} {}", self.kind, self.file.display())?;
        if self.bytes.end != u64::MAX {
            write!(f, " bytes {} to {}", self.bytes.start, self.bytes.end)?;
        }
        if let Some(table) = self.table {
            write!(f, ", table {}", table.0)?;
        }
        if let Some((first, last)) = &self.keys {
            write!(f, ", keys {} to {}", crate::inspect::dump::hex(first), crate::inspect::dump::hex(last))?;
        }
        if let Some(rows) = self.rows {
            write!(f, ", {rows} row versions")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What [`repair`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Everything that is not as it was, in the order it was met.
    pub losses: Vec<Loss>,
    /// Files copied as they are.
    pub copied_count: u64,
    /// Files written anew.
    pub written_count: u64,
    /// Commits in the new log.
    pub commit_count: u64,
}

impl RepairReport {
    /// Whether nothing was lost and nothing can have come back.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        self.losses.iter().all(|loss| loss.effect == Effect::Rebuilt)
    }
}

/// Brings what can be read of the database in `dir` into the new folder `into`.
///
/// Cost: each file is read twice and written once; where marks must be made anew, each row of those segments is looked up in
/// the table's other files. Memory: a block or row group per file, 64 MiB of log, and then the key indexes and 16 bytes per
/// mark of one table's segments.
///
/// # Errors
/// [`Error::Locked`] while a process has it open; [`Error::Invalid`] if `into` is not empty, lies in `dir`, or segments
/// are there and no `cold` to read them; [`Error::NewerFormat`]; the new folder cannot be written. The unfinished result
/// has no manifest and does not open.
pub fn repair(
    env: &Arc<dyn Env>,
    dir: &Path,
    into: &Path,
    cold: Option<&dyn ColdFiles>,
    options: RepairOptions,
) -> Result<RepairReport> {
    let _lock = verify::lock(env.as_ref(), dir)?;
    let files = manifest::files(env.as_ref(), dir)?;
    if files.is_empty() {
        return Err(Error::Invalid(format!("{} holds no database", dir.display())));
    }
    prepare(env.as_ref(), dir, into)?;
    // Old and new numbers never meet, so that a reader of the report cannot mistake one file for another.
    let first_free = files.iter().map(|(_, id, _)| id.0).max().unwrap_or(0) + 1;
    let newest = manifest::newest(env.as_ref(), dir)?;
    let remains = match &newest {
        Some((id, path)) => match manifest::read(env.as_ref(), path, Some(*id), None) {
            Ok(remains) => Some(remains),
            Err(error @ Error::NewerFormat { .. }) => return Err(error),
            Err(_) => None,
        },
        None => None,
    };
    let floor = remains.as_ref().map_or(0, |remains| remains.version.next_file.0);
    let mut job = Repair {
        env,
        dir,
        into,
        cold,
        options,
        next_file: Arc::new(AtomicU64::new(first_free.max(floor))),
        values: values::Values::default(),
        newest: SeqNo::ZERO,
        report: RepairReport::default(),
    };
    let (db_id, version) = match remains {
        Some(remains) if remains.faults.is_empty() => {
            job.keep_version(remains.db_id.unwrap_or_default(), &remains.version)?
        }
        remains => job.rebuild_version(newest.map(|(_, path)| path), remains.as_ref(), &files)?,
    };
    job.finish(db_id, version)?;
    Ok(job.report)
}

fn prepare(env: &dyn Env, dir: &Path, into: &Path) -> Result<()> {
    if into.starts_with(dir) || dir.starts_with(into) {
        return Err(Error::Invalid(format!("{} and {} lie in each other", dir.display(), into.display())));
    }
    if env.list(into).is_ok_and(|names| !names.is_empty()) || !manifest::files(env, into).map_or(true, |f| f.is_empty())
    {
        return Err(Error::Invalid(format!("{} is not empty; repair needs a new folder", into.display())));
    }
    for folder in [into.to_path_buf(), into.join("wal"), into.join("runs"), into.join("segments")] {
        env.create_dir_all(&folder).map_err(|error| Error::io("create folder", &folder, error))?;
    }
    Ok(())
}

/// A repair under way.
struct Repair<'a> {
    env: &'a Arc<dyn Env>,
    dir: &'a Path,
    into: &'a Path,
    cold: Option<&'a dyn ColdFiles>,
    options: RepairOptions,
    next_file: Arc<AtomicU64>,
    values: values::Values,
    /// Newest commit met in a segment.
    newest: SeqNo,
    report: RepairReport,
}

impl Repair<'_> {
    fn next_file(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::AcqRel))
    }

    fn lose(&mut self, effect: Effect, kind: FileKind, id: FileId, what: impl Into<String>) -> &mut Loss {
        let file = kind.path(self.dir, id);
        let loss =
            Loss { effect, kind, file, bytes: 0..u64::MAX, table: None, keys: None, rows: None, what: what.into() };
        self.report.losses.push(loss);
        self.report.losses.last_mut().expect("one was pushed just now")
    }

    /// A file as it is, synced.
    fn copy(&mut self, kind: FileKind, id: FileId) -> Result<()> {
        copy_file(self.env.as_ref(), &kind.path(self.dir, id), &kind.path(self.into, id))?;
        self.report.copied_count += 1;
        Ok(())
    }

    /// With a sound manifest: each file for itself, in its place.
    fn keep_version(&mut self, db_id: DbId, old: &Version) -> Result<(DbId, Version)> {
        let mut are_marks_sound = true;
        let mut version = Version { last_seqno: old.last_seqno, ..Version::default() };
        for (&table, live) in &old.tables {
            let mut edits = vec![
                Edit::FlushedThrough { table, seqno: live.flushed_through },
                Edit::RowIds { table, next: live.next_row_id },
            ];
            self.look_at_values(&live.values)?;
            let mut runs = Vec::new();
            for (place, meta) in live.runs.placed() {
                runs.extend(self.run(meta)?.map(|meta| (place, meta)));
            }
            let needed = runs.iter().flat_map(|(_, meta)| meta.values.iter().map(|share| share.file)).collect();
            edits.extend(self.keep_values(&live.values, &needed)?);
            edits.extend(runs.into_iter().map(|(place, meta)| match place {
                Place { level: 0, .. } => Edit::AddRun(meta),
                place => Edit::PlaceRuns { table, removed: Vec::new(), added: vec![(place, meta)] },
            }));
            let mut unmarked = Vec::new();
            for record in live.segments.values() {
                let found = self.segment(record.segment, Some(record))?;
                if found.are_marks_lost {
                    unmarked.extend(found.records.iter().map(|record| record.segment));
                }
                edits.extend(found.records.into_iter().map(Edit::AddSegment));
            }
            apply(&mut version, &edits, self.dir)?;
            if !unmarked.is_empty() {
                are_marks_sound = false;
                self.remark(&mut version, table, &unmarked)?;
            }
        }
        let newest = newest_commit(&version);
        version.last_seqno = version.last_seqno.max(newest);
        let db_id = self.log(db_id, old, &mut version)?;
        if are_marks_sound {
            // Marks made anew say that a row went, not when.
            version.times = old.times.clone();
            Arc::make_mut(&mut version.times).retain(|mark| mark.seqno <= version.last_seqno);
            version.kept_from = old.kept_from.map(|oldest| oldest.min(version.last_seqno));
        }
        Ok((db_id, version))
    }

    fn segment(&mut self, segment: FileId, record: Option<&SegmentRecord>) -> Result<crate::inspect::RepairedSegment> {
        let Some(cold) = self.cold else {
            return Err(Error::Invalid("there are segments, which only the column store can repair".to_owned()));
        };
        let next_file = &self.next_file;
        let next_file = move || FileId(next_file.fetch_add(1, Ordering::AcqRel));
        let job =
            SegmentRepair { env: self.env, from: self.dir, into: self.into, segment, record, next_file: &next_file };
        let found = cold.repair(&job, &mut self.report.losses)?;
        for kept in &found.records {
            let count =
                if kept.segment == segment { &mut self.report.copied_count } else { &mut self.report.written_count };
            *count += 2 + u64::from(kept.marks.is_some());
        }
        Ok(found)
    }

    /// Marks anew what newer versions supersede, in segments whose marks were lost. Deletes that left nothing but
    /// their mark stay unknown.
    fn remark(&mut self, version: &mut Version, table: TableId, unmarked: &[FileId]) -> Result<()> {
        let Some((cold, live)) = self.cold.zip(version.table(table).cloned()) else { return Ok(()) };
        let mut open = Vec::new();
        for record in live.segments.values() {
            open.push((SegmentRecord::clone(record), cold.open(self.env, self.into, record)?));
        }
        let rows: Vec<Arc<Run>> = live
            .runs
            .iter()
            .map(|run| Run::open(self.env, self.into, run, BlockCache::disabled()))
            .collect::<Result<_>>()?;
        for (record, segment) in open.iter().filter(|(record, _)| unmarked.contains(&record.segment)) {
            let mut marks: Vec<(u32, SeqNo)> = Vec::new();
            let mut position = 0;
            while let Some((key, row)) = segment.row_at(position)? {
                self.newest = self.newest.max(row.seqno).max(row.mark.unwrap_or_default());
                let mut mark = row.mark;
                let mut note = |seqno: SeqNo| mark = Some(mark.map_or(seqno, |mark| mark.min(seqno)));
                for (other_record, other) in &open {
                    for twin in other.versions(&key)? {
                        let is_copy = twin.seqno == row.seqno && other_record.segment > record.segment;
                        if twin.seqno > row.seqno {
                            note(twin.seqno);
                        } else if is_copy {
                            // The same version twice, of which one must go; no commit says when, so the next one does.
                            note(row.seqno.next());
                        }
                    }
                }
                for run in &rows {
                    let newest = run.get_with(&key, SeqNo::MAX, |seqno, _, _| seqno)?;
                    if let Some(newest) = newest.filter(|newest| *newest > row.seqno) {
                        note(newest);
                    }
                }
                marks.extend(mark.map(|mark| (position, mark)));
                position += 1;
            }
            let Some(table_version) = version.tables.get_mut(&table) else { continue };
            // The log knows more than the marks that are lost: all of it is replayed.
            let mut changed = SegmentRecord { marks: None, marks_through: SeqNo::ZERO, ..record.clone() };
            if !marks.is_empty() {
                let id = self.next_file();
                cold.write_marks(self.env.as_ref(), self.into, id, record.segment, &marks)?;
                self.report.written_count += 1;
                changed.marks = Some(id);
            }
            Arc::make_mut(table_version).segments.insert(record.segment, Arc::new(changed));
        }
        Ok(())
    }

    /// Names last: without a manifest the folder is no database.
    fn finish(&mut self, db_id: DbId, mut version: Version) -> Result<()> {
        for folder in ["wal", "runs", "segments"].map(|folder| self.into.join(folder)) {
            self.env.sync_dir(&folder).map_err(|error| Error::io("sync folder", &folder, error))?;
        }
        let id = self.next_file();
        version.next_file = FileId(id.0 + 1);
        crate::manifest::write_new(self.env.as_ref(), self.into, &db_id, id, &version)
    }

    /// A loss for every fault of a file whose remains are used or made anew.
    fn lose_faults(&mut self, faults: &[Fault], effect: Effect, table: Option<TableId>) {
        for fault in faults {
            let (kind, file, what) = (fault.kind, fault.file.clone(), fault.what.clone());
            let bytes = fault.offset..u64::MAX;
            self.report.losses.push(Loss { effect, kind, file, bytes, table, keys: None, rows: None, what });
        }
    }
}

fn apply(version: &mut Version, edits: &[Edit], dir: &Path) -> Result<()> {
    for edit in edits {
        version.apply(edit).map_err(|what| Error::corrupt(FileKind::Manifest, dir, 0, what))?;
    }
    Ok(())
}

/// Newest commit that any run or segment may hold.
fn newest_commit(version: &Version) -> SeqNo {
    let runs = version.tables.values().flat_map(|table| table.runs.iter().map(|run: &Arc<RunMeta>| run.seqno_max));
    let flushed = version.tables.values().map(|table| table.flushed_through);
    let marked = version.tables.values().flat_map(|table| table.segments.values().map(|record| record.marks_through));
    runs.chain(flushed).chain(marked).max().unwrap_or_default()
}
