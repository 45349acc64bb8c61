//! `Repository`: a folder of incremental backups that share files.
//!
//! ```text
//! REPO/LOCK                        held while a backup is made, deleted, verified or restored
//! REPO/backups/0000000003.backup   record of backup 3: what it is made of
//! REPO/wal/0000000003.wal          its log: commits not yet flushed when it was taken
//! REPO/files/<database>-<number>-<checksum>.run   runs, segments and what belongs to them
//! ```
//!
//! Always true:
//! * a record gets its name after everything it names was synced, so a record found is a backup that can be restored;
//! * files are never changed, and removed only after no record names them, durably;
//! * while a record cannot be read nothing is removed, because it may name anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backup::capture::Capture;
use crate::backup::copy::{Digest, copy_file, digest_file, length_of, read_whole};
use crate::backup::log::LogCopy;
use crate::backup::record::{BackupRecord, StoredFile};
use crate::cold::SegmentRecord;
use crate::db::{Db, Inner};
use crate::env::{Env, FileLock, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::manifest::Version;
use crate::seqno::SeqNo;
use crate::wal::DbId;
use crate::wal::header::format_version;

/// A folder of backups. Cheap to create; nothing is held open between calls.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) dir: PathBuf,
}

/// One backup, as [`Repository::list`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its number in the repository; later backups have higher ones.
    pub number: u64,
    /// The database it is of.
    pub db_id: DbId,
    /// The newest commit in it: every commit up to this one is, and none after it.
    pub seqno: SeqNo,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub taken_ms: u64,
    /// Files it is made of, its log included.
    pub file_count: u64,
    /// Their bytes, those it shares with other backups included.
    pub bytes: u64,
}

/// A backup just made, and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The backup.
    pub backup: BackupInfo,
    /// Files copied into the repository.
    pub copied_count: u64,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Files that an earlier backup had brought.
    pub shared_count: u64,
    /// Bytes of log copied.
    pub log_bytes: u64,
}

/// What is in a repository.
#[derive(Debug, Default)]
pub struct Listing {
    /// Backups whose record can be read, oldest first.
    pub backups: Vec<BackupInfo>,
    /// What is wrong with the other records. They can be deleted by number.
    pub damaged: Vec<Error>,
}

/// What [`Repository::verify`] read.
#[derive(Debug, Default)]
pub struct RepositoryReport {
    /// Backups whose record can be read.
    pub backup_count: u64,
    /// Files read whole, each once.
    pub file_count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Every damage found, naming the file.
    pub damaged: Vec<Error>,
}

impl Db {
    /// [`Repository::create`] in the folder `repository`, through this database's environment.
    ///
    /// # Errors
    /// As [`Repository::create`].
    pub fn backup(&self, repository: &Path) -> Result<BackupReport> {
        Repository::new(Arc::clone(self.env()), repository).create(self)
    }
}

impl Repository {
    /// The repository in the folder `dir`, which is created by the first backup.
    #[must_use]
    pub fn new(env: Arc<dyn Env>, dir: &Path) -> Repository {
        Repository { env, dir: dir.to_path_buf() }
    }

    /// Makes a backup of `db` while everything goes on: copies the files that no earlier backup brought, the log since
    /// the last flush, and last of all the record. Synced when this returns.
    ///
    /// Cost: one flush; reads and writes the new files once. Commits and flushes do not wait; the log is kept meanwhile.
    /// An interrupted backup leaves files that the next one removes.
    ///
    /// # Errors
    /// [`Error::Locked`] while the repository is in use; [`Error::Corrupt`] if a run of the database is damaged; I/O. The
    /// earlier backups are as they were.
    pub fn create(&self, db: &Db) -> Result<BackupReport> {
        let inner = &db.inner;
        for folder in ["backups", "files", "wal"].map(|folder| self.dir.join(folder)) {
            self.env.create_dir_all(&folder).map_err(|error| Error::io("create folder", &folder, error))?;
        }
        let _lock = self.lock()?;
        let (records, damaged) = self.records()?;
        self.sweep(&records, &damaged)?;
        let number = self.next_number()?;
        // With everything flushed there is little log to copy.
        db.flush(None)?;
        let capture = inner.capture()?;
        let mut report = Progress::default();
        let stored = Stored::of(&records, &inner.manifest.db_id());
        let files = capture
            .version
            .files()
            .into_iter()
            .map(|(kind, id)| self.store(inner, &capture, &stored, (kind, id), &mut report));
        let files = files.collect::<Result<Vec<_>>>()?;
        let log = self.store_log(inner, &capture, number)?;
        for folder in ["files", "wal"].map(|folder| self.dir.join(folder)) {
            self.env.sync_dir(&folder).map_err(|error| Error::io("sync folder", &folder, error))?;
        }
        let record = BackupRecord {
            number,
            db_id: inner.manifest.db_id(),
            seqno: capture.seqno,
            through: capture.through,
            taken_ms: capture.taken_ms,
            log_start: capture.log_start(),
            log,
            manifest_version: format_version(FileKind::Manifest),
            version: capture.version_of_copy(),
            files,
        };
        self.write_record(&record)?;
        Ok(report.into_report(info(&record), log.bytes))
    }

    /// All backups. Reads the records only.
    ///
    /// # Errors
    /// I/O. Damaged records are part of the answer.
    pub fn list(&self) -> Result<Listing> {
        let (records, damaged) = self.records()?;
        Ok(Listing { backups: records.iter().map(info).collect(), damaged })
    }

    /// Reads every file of every backup whole and compares lengths and checksums.
    ///
    /// # Errors
    /// [`Error::Locked`] while the repository is in use; I/O. Damage is part of the answer.
    pub fn verify(&self) -> Result<RepositoryReport> {
        let _lock = self.lock()?;
        let (records, damaged) = self.records()?;
        let mut report =
            RepositoryReport { backup_count: records.len() as u64, damaged, ..RepositoryReport::default() };
        let mut seen = BTreeSet::new();
        for record in &records {
            for (kind, path, digest) in self.parts(record) {
                if seen.insert(path.clone()) {
                    report.file_count += 1;
                    report.bytes += digest.bytes;
                    let found = digest_file(self.env.as_ref(), &path);
                    report.damaged.extend(found.and_then(|found| check_digest(kind, &path, digest, found)).err());
                }
            }
        }
        Ok(report)
    }

    /// Removes backup `number`, then the files that no other backup names. Also for a backup whose record is damaged.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is none; [`Error::Locked`]; I/O. The other backups are as they were.
    pub fn delete(&self, number: u64) -> Result<()> {
        let _lock = self.lock()?;
        self.remove_records(&[FileId(number)])?;
        let (records, damaged) = self.records()?;
        self.sweep(&records, &damaged)
    }

    /// Removes all but the newest `keep` backups of each database, then the files that no backup names; returns the
    /// numbers of those removed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for `keep` 0; [`Error::Corrupt`] if a record cannot be read (nothing is removed then: delete that
    /// backup first); [`Error::Locked`]; I/O.
    pub fn prune(&self, keep: usize) -> Result<Vec<u64>> {
        if keep == 0 {
            return Err(Error::Invalid("pruning keeps at least one backup; delete backups one by one".to_owned()));
        }
        let _lock = self.lock()?;
        let (mut records, damaged) = self.records()?;
        if let Some(error) = damaged.into_iter().next() {
            return Err(error);
        }
        let mut kept: BTreeMap<DbId, usize> = BTreeMap::new();
        let mut removed = Vec::new();
        for record in records.iter().rev() {
            let count = kept.entry(record.db_id).or_default();
            *count += 1;
            if *count > keep {
                removed.push(record.number);
            }
        }
        removed.reverse();
        self.remove_records(&removed)?;
        records.retain(|record| !removed.contains(&record.number));
        self.sweep(&records, &[])?;
        Ok(removed.into_iter().map(|number| number.0).collect())
    }

    pub(crate) fn lock(&self) -> Result<Box<dyn FileLock>> {
        let path = self.dir.join("LOCK");
        self.env.lock(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked { dir: self.dir.clone() },
            std::io::ErrorKind::NotFound => Error::Invalid(format!("there are no backups in {}", self.dir.display())),
            _ => Error::io("lock", &path, error),
        })
    }

    /// All records that can be read, oldest first, and what is wrong with the others.
    pub(crate) fn records(&self) -> Result<(Vec<BackupRecord>, Vec<Error>)> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for (kind, number) in self.names("backups")?.iter().filter_map(|name| FileKind::parse(name)) {
            if kind != FileKind::Backup {
                continue;
            }
            let path = kind.path(&self.dir, number);
            match read_whole(self.env.as_ref(), &path).and_then(|bytes| BackupRecord::decode(&bytes, number, &path)) {
                Ok(record) => records.push(record),
                Err(error) => damaged.push(error),
            }
        }
        records.sort_by_key(|record| record.number);
        Ok((records, damaged))
    }

    /// Every file of a backup but its record: kind, path and what it must be.
    pub(crate) fn parts(&self, record: &BackupRecord) -> Vec<(FileKind, PathBuf, Digest)> {
        let files = record.files.iter().map(|file| (file.kind, file.path(&self.dir, &record.db_id), file.digest));
        let log = (FileKind::Wal, FileKind::Wal.path(&self.dir, record.number), record.log);
        files.chain([log]).collect()
    }

    /// Brings one file of the version into the repository, unless an earlier backup did.
    fn store(
        &self,
        inner: &Inner,
        capture: &Capture,
        stored: &Stored<'_>,
        (kind, id): (FileKind, FileId),
        report: &mut Progress,
    ) -> Result<StoredFile> {
        let (env, db_id) = (self.env.as_ref(), inner.manifest.db_id());
        let from = kind.path(&inner.dir, id);
        if let Some(file) = stored.find(&capture.version, kind, id)
            && length_of(env, &file.path(&self.dir, &db_id))? == Some(file.digest.bytes)
            // Marks are small, and the manifest has no checksum of theirs.
            && (kind != FileKind::Marks || digest_file(env, &from)? == file.digest)
        {
            report.shared_count += 1;
            return Ok(file);
        }
        let temporary = self.dir.join("files").join(format!("{id}.tmp"));
        let digest = copy_file(env, &from, &temporary)?;
        if let Some(expected) = recorded_digest(&capture.version, kind, id) {
            // A damaged file must not look like a good one from here on.
            check_digest(kind, &from, expected, digest)?;
        }
        let file = StoredFile { kind, id, digest };
        let path = file.path(&self.dir, &db_id);
        env.rename(&temporary, &path).map_err(|error| Error::io("rename", &path, error))?;
        report.copied_count += 1;
        report.copied_bytes += digest.bytes;
        Ok(file)
    }

    fn store_log(&self, inner: &Inner, capture: &Capture, number: FileId) -> Result<Digest> {
        let env = self.env.as_ref();
        let mut only = || number;
        let (db_id, start) = (inner.manifest.db_id(), capture.log_start());
        let mut copy = LogCopy::create(env, &self.dir, db_id, start, u64::MAX, &mut only)?;
        capture.copy_log(inner.env.as_ref(), &inner.dir, &mut copy)?;
        copy.finish()?;
        digest_file(env, &FileKind::Wal.path(&self.dir, number))
    }

    fn write_record(&self, record: &BackupRecord) -> Result<()> {
        let path = FileKind::Backup.path(&self.dir, record.number);
        let (temporary, folder) = (path.with_extension("tmp"), self.dir.join("backups"));
        let failed = |action| move |error| Error::io(action, &FileKind::Backup.path(&self.dir, record.number), error);
        let file = self.env.open(&temporary, OpenMode::CreateNew).map_err(failed("create"))?;
        file.write_at(0, &record.encode()).map_err(failed("write"))?;
        file.sync().map_err(failed("sync"))?;
        self.env.rename(&temporary, &path).map_err(failed("rename"))?;
        self.env.sync_dir(&folder).map_err(|error| Error::io("sync folder", &folder, error))
    }

    fn remove_records(&self, numbers: &[FileId]) -> Result<()> {
        for number in numbers {
            let path = FileKind::Backup.path(&self.dir, *number);
            self.env.remove(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::Invalid(format!("there is no backup {}", number.0)),
                _ => Error::io("remove", &path, error),
            })?;
        }
        // Before any file goes: a record that came back after a power loss would name files that are gone.
        let folder = self.dir.join("backups");
        self.env.sync_dir(&folder).map_err(|error| Error::io("sync folder", &folder, error))
    }

    /// Removes what no backup names: leftovers of interrupted backups, files of deleted ones. While some record is
    /// damaged, only what never had its name.
    fn sweep(&self, records: &[BackupRecord], damaged: &[Error]) -> Result<()> {
        let named: BTreeSet<PathBuf> =
            records.iter().flat_map(|record| self.parts(record)).map(|(_, path, _)| path).collect();
        for folder in ["files", "wal", "backups"] {
            for name in self.names(folder)? {
                let path = self.dir.join(folder).join(&name);
                let is_data = folder != "backups" && (FileKind::parse(&name).is_some() || is_stored_name(&name));
                let is_unnamed = is_data && damaged.is_empty() && !named.contains(&path);
                if is_unnamed || name.ends_with(".tmp") {
                    self.env.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
                }
            }
        }
        Ok(())
    }

    fn next_number(&self) -> Result<FileId> {
        let names = [self.names("backups")?, self.names("wal")?].concat();
        let numbers = names.iter().filter_map(|name| FileKind::parse(name)).map(|(_, number)| number.0);
        Ok(FileId(numbers.max().unwrap_or(0) + 1))
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let folder = self.dir.join(folder);
        match self.env.list(&folder) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("list", &folder, error)),
        }
    }
}

/// What earlier backups of a database brought.
struct Stored<'a>(Vec<&'a BackupRecord>);

impl<'a> Stored<'a> {
    fn of(records: &'a [BackupRecord], db_id: &DbId) -> Stored<'a> {
        Stored(records.iter().rev().filter(|record| record.db_id == *db_id).collect())
    }

    /// The stored copy of a file. File numbers are never used again (I4), but a directory that was put back to an earlier
    /// state by other means does use them again: so what the manifest says of the file must agree as well.
    fn find(&self, version: &Version, kind: FileKind, id: FileId) -> Option<StoredFile> {
        self.0.iter().find_map(|record| {
            let file = record.files.iter().find(|file| (file.kind, file.id) == (kind, id))?;
            let is_same = match kind {
                FileKind::Run | FileKind::Values => recorded_digest(version, kind, id) == Some(file.digest),
                _ => owner(version, kind, id) == owner(&record.version, kind, id),
            };
            is_same.then_some(*file)
        })
    }
}

/// What the manifest says about the segment that a file belongs to; its marks only if the file holds them.
fn owner(version: &Version, kind: FileKind, id: FileId) -> Option<SegmentRecord> {
    let segments = version.segments().into_iter();
    if kind == FileKind::Marks {
        return segments.into_iter().find(|segment| segment.marks == Some(id));
    }
    let found = segments.into_iter().find(|segment| segment.segment == id)?;
    Some(SegmentRecord { marks: None, marks_through: SeqNo::ZERO, ..found })
}

/// Length and checksum of a run or value file, as the manifest has them.
fn recorded_digest(version: &Version, kind: FileKind, id: FileId) -> Option<Digest> {
    let mut tables = version.tables.values();
    match kind {
        FileKind::Run => {
            let meta = tables.flat_map(|table| table.runs.iter()).find(|meta| meta.run == id)?;
            Some(Digest { bytes: meta.file_bytes, checksum: meta.checksum })
        }
        FileKind::Values => {
            let meta = &tables.find_map(|table| table.values.get(&id))?.meta;
            Some(Digest { bytes: meta.file_bytes, checksum: meta.checksum })
        }
        _ => None,
    }
}

/// Whether a file is what it must be.
pub(crate) fn check_digest(kind: FileKind, path: &Path, expected: Digest, found: Digest) -> Result<()> {
    if found.bytes != expected.bytes {
        let what = format!("{} bytes long instead of {}", found.bytes, expected.bytes);
        return Err(Error::corrupt(kind, path, found.bytes.min(expected.bytes), what));
    }
    if found.checksum != expected.checksum {
        return Err(Error::corrupt(kind, path, 0, "checksum of the file differs"));
    }
    Ok(())
}

fn is_stored_name(name: &str) -> bool {
    let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let parts: Vec<&str> = stem.split('-').collect();
    matches!(parts[..], [database, _, checksum] if is_hex(database, 32) && is_hex(checksum, 16))
}

fn info(record: &BackupRecord) -> BackupInfo {
    BackupInfo {
        number: record.number.0,
        db_id: record.db_id,
        seqno: record.seqno,
        taken_ms: record.taken_ms,
        file_count: record.files.len() as u64 + 1,
        bytes: record.bytes(),
    }
}

#[derive(Default)]
struct Progress {
    copied_count: u64,
    copied_bytes: u64,
    shared_count: u64,
}

impl Progress {
    fn into_report(self, backup: BackupInfo, log_bytes: u64) -> BackupReport {
        let Progress { copied_count, copied_bytes, shared_count } = self;
        BackupReport { backup, copied_count, copied_bytes, shared_count, log_bytes }
    }
}
