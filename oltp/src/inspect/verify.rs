//! `verify`: everything that can be checked about a closed database, all faults and not just the first.
//!
//! Each file by itself: checksums, order, counts. Then what files say about each other ([`cross`]): manifest and folder,
//! runs and tables, runs and segments, marks and rows, log and manifest. Reads only; memory is a block per file, the key
//! indexes of a table's segments, and what is found.
//!
//! What a crash leaves is no fault: an unfinished end of the log, files that no manifest names yet.

mod cross;
mod logs;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::run::{Piece, RunFile};
use super::values::ValuesFile;
use super::{ColdFiles, Fault, OpenSegment, manifest};
use crate::cache::BlockCache;
use crate::cold::SegmentRecord;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::{Cursor, VersionKind};
use crate::manifest::{LiveValues, RunMeta, Version};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::Run;
use crate::sync::Arc;
use crate::values::{ValueFile, ValueFiles, ValueRef};

/// What [`verify`] read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Everything that does not hold.
    pub faults: Vec<Fault>,
    /// Files that are not in use and harmless: left by a crash, removed by the next open.
    pub unused: Vec<PathBuf>,
    /// Runs read whole.
    pub run_count: u64,
    /// Segments read whole.
    pub segment_count: u64,
    /// Value files read whole.
    pub value_file_count: u64,
    /// Versions in those runs.
    pub version_count: u64,
    /// Commits in the log.
    pub commit_count: u64,
}

/// Checks the database in `dir` without opening it.
///
/// # Errors
/// [`Error::Locked`] while a process has it open: its files come and go; verify a checkpoint of it instead.
/// [`Error::Invalid`] if there is no database; [`Error::NewerFormat`]. Damage, missing and unreadable files are no errors
/// but faults.
pub fn verify(env: &Arc<dyn Env>, dir: &Path, cold: Option<&dyn ColdFiles>) -> Result<Verification> {
    let _lock = lock(env.as_ref(), dir)?;
    let files = manifest::files(env.as_ref(), dir)?;
    if files.is_empty() {
        return Err(Error::Invalid(format!("{} holds no database", dir.display())));
    }
    let mut check = Check { env, dir, cold, found: Verification::default(), version: Version::default() };
    let Some((id, path)) = manifest::newest(env.as_ref(), dir)? else {
        check.fault(FileKind::Manifest, dir, "no manifest, although there are data files");
        check.files_alone(&files);
        return Ok(check.found);
    };
    let remains = match manifest::read(env.as_ref(), &path, Some(id), None) {
        Ok(remains) => remains,
        Err(error) => {
            check.push(&error, FileKind::Manifest, &path);
            check.files_alone(&files);
            return Ok(check.found);
        }
    };
    if !remains.faults.is_empty() {
        check.found.faults.extend(remains.faults);
        check.files_alone(&files);
        return Ok(check.found);
    }
    check.version = remains.version;
    check.names(&files, id);
    let values = check.values();
    let runs = check.runs(&values);
    let segments = check.segments();
    let log = logs::check(&mut check, remains.db_id, &segments);
    cross::check(&mut check, &runs, &segments, &log);
    Ok(check.found)
}

/// Keeps other processes out while files are read. Without a lock file nobody ever had the folder open; where the lock
/// cannot be taken for another reason, such as a read-only medium, nobody can write either.
pub(crate) fn lock(env: &dyn Env, dir: &Path) -> Result<Option<Box<dyn crate::env::FileLock>>> {
    let path = dir.join("LOCK");
    if env.open(&path, crate::env::OpenMode::Read).is_err() {
        return Ok(None);
    }
    match env.lock(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Error::Locked { dir: dir.to_path_buf() }),
        Err(_) => Ok(None),
    }
}

/// Runs of each table that can be read: by sorted run, oldest first.
type Runs = BTreeMap<TableId, Vec<Arc<[Arc<Run>]>>>;
/// Segments whose key index can be read.
type Segments = BTreeMap<TableId, Vec<(SegmentRecord, Box<dyn OpenSegment>)>>;

/// A check under way.
struct Check<'a> {
    env: &'a Arc<dyn Env>,
    dir: &'a Path,
    cold: Option<&'a dyn ColdFiles>,
    found: Verification,
    version: Version,
}

impl Check<'_> {
    fn fault(&mut self, kind: FileKind, path: &Path, what: impl Into<String>) {
        self.found.faults.push(Fault::new(kind, path, 0, what));
    }

    fn push(&mut self, error: &Error, kind: FileKind, path: &Path) {
        self.found.faults.push(Fault::of(error, kind, path));
    }

    fn path(&self, kind: FileKind, id: FileId) -> PathBuf {
        kind.path(self.dir, id)
    }

    /// Without a manifest only what each file says of itself can be checked.
    fn files_alone(&mut self, files: &[(FileKind, FileId, u64)]) {
        for (kind, id, _) in files {
            let path = self.path(*kind, *id);
            let mut faults = Vec::new();
            let looked = match kind {
                FileKind::Manifest => continue,
                FileKind::Run => look_at_run(self.env.as_ref(), &path, *id, &mut faults),
                _ => {
                    let mut line = |_: &str| {};
                    let mut dump = super::Dump::new(&mut line, false);
                    let looked = super::inspect(self.env, &path, self.cold, &mut dump);
                    faults.extend_from_slice(dump.faults());
                    looked
                }
            };
            self.found.faults.append(&mut faults);
            if let Err(error) = looked {
                self.push(&error, *kind, &path);
            }
        }
    }

    /// Manifest and folder: every named file is there, and what else is there is unused.
    fn names(&mut self, files: &[(FileKind, FileId, u64)], manifest: FileId) {
        let named = self.version.files();
        let present: HashSet<(FileKind, FileId)> = files.iter().map(|(kind, id, _)| (*kind, *id)).collect();
        let mut seen = HashSet::new();
        let manifest_path = self.path(FileKind::Manifest, manifest);
        for file in &named {
            let (kind, id) = *file;
            if !present.contains(file) {
                self.fault(kind, &self.path(kind, id), "the file is missing");
            }
            if id >= self.version.next_file {
                self.fault(FileKind::Manifest, &manifest_path, format!("{kind} {id} has a number not given out yet"));
            }
            if !seen.insert(*file) {
                self.fault(FileKind::Manifest, &manifest_path, format!("{kind} {id} is named twice"));
            }
        }
        for (kind, id, _) in files {
            let is_used = match kind {
                FileKind::Manifest => *id == manifest,
                FileKind::Wal => self.version.wal_start.is_none_or(|start| *id >= start.file),
                _ => seen.contains(&(*kind, *id)),
            };
            if !is_used {
                self.found.unused.push(self.path(*kind, *id));
            }
        }
    }

    /// Every value file; returns those without a fault.
    fn values(&mut self) -> ValueFiles {
        let mut sound = ValueFiles::new();
        let all: Vec<LiveValues> =
            self.version.tables.values().flat_map(|table| table.values.values().cloned()).collect();
        for live in all {
            let path = self.path(FileKind::Values, live.meta.file);
            // That it is missing was said.
            if self.env.open(&path, crate::env::OpenMode::Read).is_err() {
                continue;
            }
            let before = self.found.faults.len();
            let opened = ValueFile::open(self.env, self.dir, &live.meta);
            let whole = opened.as_ref().map_or(Ok(()), |file| file.verify());
            if let Some(error) = opened.as_ref().err().or(whole.as_ref().err()) {
                self.all_faults_of_values(&live, error);
            }
            if live.value_count == 0 {
                self.fault(FileKind::Values, &path, "no run refers to it");
            }
            self.found.value_file_count += 1;
            if let (Ok(file), true) = (opened, self.found.faults.len() == before) {
                sound.insert(file.id(), file);
            }
        }
        sound
    }

    /// All damaged places of a value file; if there are none, what does not fit the manifest.
    fn all_faults_of_values(&mut self, live: &LiveValues, error: &Error) {
        let path = self.path(FileKind::Values, live.meta.file);
        let mut faults = Vec::new();
        if let Ok(file) = ValuesFile::open(self.env.as_ref(), &path, Some(live.meta.file)) {
            faults.extend(file.faults.iter().cloned());
            // An I/O error was met before as well.
            let _ = file.walk(&mut faults, &mut |_, _| {});
        }
        match faults.is_empty() {
            true => self.push(error, FileKind::Values, &path),
            false => self.found.faults.append(&mut faults),
        }
    }

    /// What the references of a run lead to; those into damaged files were judged with the file.
    fn references(&mut self, run: &Arc<Run>, values: &ValueFiles) {
        let path = self.path(FileKind::Run, run.id());
        let follow = || -> Result<Vec<Fault>> {
            let mut faults = Vec::new();
            let mut cursor = run.cursor(false);
            cursor.next()?;
            while cursor.valid() {
                if cursor.kind() == VersionKind::Reference {
                    let at = ValueRef::decode(cursor.value())
                        .map_err(|damage| Error::corrupt(FileKind::Run, &path, 0, damage.what))?;
                    let read = values.get(&at.file).map(|file| file.read(at, cursor.key(), cursor.seqno()));
                    if let Some(Err(error)) = read {
                        faults.push(Fault::of(&error, FileKind::Run, &path));
                        faults.push(Fault::new(FileKind::Run, &path, 0, "a reference does not lead to its value"));
                    }
                }
                cursor.next()?;
            }
            Ok(faults)
        };
        if run.meta().values.is_empty() {
            return;
        }
        match follow() {
            Ok(mut faults) => self.found.faults.append(&mut faults),
            Err(error) => self.push(&error, FileKind::Run, &path),
        }
    }

    fn runs(&mut self, values: &ValueFiles) -> Runs {
        let mut runs = Runs::new();
        for (table, live) in self.version.tables.clone() {
            for sorted in live.runs.sorted_runs() {
                let files: Vec<Arc<Run>> = sorted.files.iter().filter_map(|meta| self.run(meta)).collect();
                files.iter().for_each(|run| self.references(run, values));
                runs.entry(table).or_default().push(files.into());
            }
            if live.runs.iter().any(|run| run.table != table) {
                self.fault(FileKind::Manifest, self.dir, format!("table {} is given a run of another table", table.0));
            }
        }
        runs
    }

    /// One run: all damaged places first, and only without any the whole.
    fn run(&mut self, meta: &RunMeta) -> Option<Arc<Run>> {
        let path = self.path(FileKind::Run, meta.run);
        // That it is missing was said.
        self.env.open(&path, crate::env::OpenMode::Read).ok()?;
        let mut faults = Vec::new();
        if let Err(error) = look_at_run(self.env.as_ref(), &path, meta.run, &mut faults) {
            faults.push(Fault::of(&error, FileKind::Run, &path));
        }
        let opened = Run::open(self.env, self.dir, meta, BlockCache::disabled());
        let whole = opened.as_ref().map_or(Ok(()), |run| run.verify());
        let is_sound = faults.is_empty();
        self.found.faults.append(&mut faults);
        // Sound in itself, but not what the manifest knows.
        for error in opened.as_ref().err().into_iter().chain(whole.as_ref().err()).filter(|_| is_sound) {
            self.found.faults.push(Fault::of(error, FileKind::Run, &path));
        }
        let flushed = self.version.table(meta.table).map_or(SeqNo::ZERO, |table| table.flushed_through);
        if meta.seqno_max > flushed {
            self.fault(FileKind::Run, &path, format!("holds commits behind {flushed}, through which it was flushed"));
        }
        self.found.run_count += 1;
        self.found.version_count += meta.version_count;
        opened.ok().filter(|_| is_sound && whole.is_ok())
    }

    fn segments(&mut self) -> Segments {
        let mut segments = Segments::new();
        for record in self.version.segments() {
            self.found.segment_count += 1;
            let Some(cold) = self.cold else { continue };
            let is_there = |kind| self.env.open(&self.path(kind, record.segment), crate::env::OpenMode::Read).is_ok();
            // What is missing was said.
            if is_there(FileKind::Segment)
                && is_there(FileKind::Keys)
                && let Some(open) = cold.verify(self.env, self.dir, &record, &mut self.found.faults)
            {
                segments.entry(record.table).or_default().push((record, open));
            }
        }
        segments
    }
}

/// All damaged places of a run, and keys that are not its table's.
pub(crate) fn look_at_run(env: &dyn Env, path: &Path, id: FileId, faults: &mut Vec<Fault>) -> Result<()> {
    let run = RunFile::open(env, path, Some(id))?;
    faults.extend(run.faults.iter().cloned());
    let mut indexes = Vec::new();
    run.walk(&mut indexes, &mut |piece| {
        match piece {
            Piece::Gap { offset, end, .. } => {
                let what = format!("{} bytes that hold no readable block", end - offset);
                faults.push(Fault::new(FileKind::Run, path, offset, what));
            }
            Piece::Block(handle, block) => {
                let mut cursor = crate::sstable::block::BlockCursor::new(block);
                while let Ok(true) = cursor.next() {
                    let table = crate::key::table_of(cursor.key());
                    if run.footer.is_some_and(|footer| table != Some(footer.table)) {
                        faults.push(Fault::new(FileKind::Run, path, handle.offset, "a key of another table"));
                        break;
                    }
                }
            }
        }
        Ok(())
    })?;
    faults.append(&mut indexes);
    Ok(())
}
