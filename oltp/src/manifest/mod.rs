//! The manifest: which files make up the database, as a log of version edits.
//!
//! [`edit`] is one change and its bytes; [`levels`] the order of a table's runs; [`version`] the set of live files that the edits add up to; [`Manifest`] the
//! log itself, in the frames of the write-ahead log.
//!
//! Always true:
//! * the edits of one `append` take effect together or not at all, and are synced when it returns;
//! * a file is named here only after it was synced, and removed only after the edit that drops it was synced (I4);
//! * a file named `manifest-*` starts with a complete snapshot, so the highest number is the one that counts;
//! * each open starts a new manifest file, so everything a recovery acts on has been synced by it;
//! * behind a failed write or sync nothing is appended to that file: what follows goes to a new one (RocksDB does the same);
//! * nothing enters before the write-ahead log is durable through its newest SeqNo: the caller's duty.
#![doc = include_str!("FORMAT.md")]

pub mod edit;
pub mod levels;
pub mod version;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use edit::{Edit, RunMeta};
pub use levels::{Levels, Place, SortedRun};
pub use version::{LiveValues, TableVersion, Version};

use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::sync::ArcSwap;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::wal::header::{FileHeader, HEADER_BYTES};
use crate::wal::reader::LogReader;
use crate::wal::record::{self, Identity, PAYLOAD_BYTES_MAX, RecordKind};
use crate::wal::writer::{describe, lock};
use crate::wal::{DbId, FileAllocator, Lsn, Tail};

/// A manifest with more bytes of frames than this, and than twice its snapshot, is replaced by a new one.
const ROLL_BYTES: u64 = 4 << 20;

/// The manifest of an open database. All calls take `&self` and may come from any thread.
pub struct Manifest {
    env: Arc<dyn Env>,
    dir: PathBuf,
    db_id: DbId,
    next_file: Arc<AtomicU64>,
    version: ArcSwap<Version>,
    writer: Mutex<Writer>,
    roll_bytes: u64,
}

struct Writer {
    log: ManifestFile,
    /// Whether a write or sync of `log`, or of a file to follow it, failed. What a crash would leave of it is unknown, and
    /// Linux reports a lost page only once, so only a new file, synced with its name, can be relied on.
    in_doubt: bool,
}

/// A manifest as [`load`] found it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The database's identity.
    pub db_id: DbId,
    /// The manifest file.
    pub file: FileId,
    /// What its edits add up to.
    pub version: Version,
    /// How it ended.
    pub tail: Tail,
}

/// Reads the manifest of the database in `dir` without changing anything; `None` if there is no database.
///
/// # Errors
/// [`Error::Corrupt`], also if data files exist without a manifest; [`Error::NewerFormat`]; [`Error::Io`].
pub fn load(env: &dyn Env, dir: &Path) -> Result<Option<Loaded>> {
    if let Some(&file) = list_manifests(env, dir)?.last() {
        return load_file(env, dir, file).map(Some);
    }
    // Creating a database over one whose manifest is gone would delete its files as orphans.
    if let Some((kind, file)) = list_files(env, dir)?.into_iter().next() {
        let path = kind.path(dir, file);
        return Err(Error::corrupt(
            FileKind::Manifest,
            dir,
            0,
            format!("no manifest, although {} exists", path.display()),
        ));
    }
    Ok(None)
}

impl Manifest {
    /// Opens the manifest of the database in `dir`, or creates the database if there is none.
    ///
    /// Starts a new manifest file that holds the whole version, synced; older ones are removed. The caller holds the
    /// directory's lock.
    ///
    /// # Errors
    /// As [`load`].
    pub fn open(env: Arc<dyn Env>, dir: &Path) -> Result<(Manifest, Arc<Version>)> {
        env.create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        let loaded = load(env.as_ref(), dir)?;
        remove_unfinished(env.as_ref(), dir)?;
        let (db_id, previous, mut version) = match loaded {
            Some(loaded) => (loaded.db_id, Some(loaded.file), loaded.version),
            None => (draw_db_id(env.as_ref()), None, Version::default()),
        };
        // Files whose numbers no edit recorded may still lie about; theirs must not be given out again (I4).
        let newest = list_files(env.as_ref(), dir)?.into_iter().map(|(_, file)| file.0).max().unwrap_or(0);
        let first_free = version.next_file.0.max(newest + 1).max(previous.map_or(0, |file| file.0) + 1);
        let next_file = Arc::new(AtomicU64::new(first_free + 1));
        version.next_file = FileId(first_free + 1);
        let log = ManifestFile::create(env.as_ref(), dir, &db_id, FileId(first_free), previous, &version)?;
        remove_before(env.as_ref(), dir, log.file_id)?;
        let version = Arc::new(version);
        let manifest = Manifest {
            env,
            dir: dir.to_path_buf(),
            db_id,
            next_file,
            version: ArcSwap::new(Arc::clone(&version)),
            writer: Mutex::new(Writer { log, in_doubt: false }),
            roll_bytes: ROLL_BYTES,
        };
        Ok((manifest, version))
    }

    /// Applies `edits` together, in order, and returns the version after them. Synced when this returns.
    ///
    /// Blocks other callers meanwhile; readers of [`Manifest::version`] are not blocked.
    ///
    /// # Errors
    /// [`Error::Invalid`] if an edit does not fit the version (nothing is written). [`Error::Io`] if neither the file nor a
    /// new one could be written and synced: the version is as before, but until a later call succeeds a crash may leave these
    /// edits in effect, so what they name must stay. The next success voids them.
    pub fn append(&self, edits: &[Edit]) -> Result<Arc<Version>> {
        let mut writer = lock(&self.writer);
        let mut version = (*self.version.load_full()).clone();
        let next_file = Edit::NextFile(FileId(self.next_file.load(Ordering::Acquire)));
        let edits: Vec<Edit> = edits.iter().cloned().chain([next_file]).collect();
        for edit in &edits {
            version.apply(edit).map_err(|what| Error::Invalid(format!("manifest edit refused: {what}")))?;
        }
        let payload = edit::encode_edits(&edits);
        let is_full = writer.log.end.0 + payload.len() as u64 > self.roll_bytes.max(2 * writer.log.snapshot_bytes);
        if !is_full && !writer.in_doubt {
            let outcome = writer.log.append(version.last_seqno, &payload);
            writer.doubt_if_failed(outcome);
        }
        if is_full || writer.in_doubt {
            self.roll(&mut writer, &mut version)?;
        }
        // Proves the edit durable to a later load, which could otherwise take damage to it for an unfinished write.
        let outcome = writer.log.write_watermark(version.last_seqno);
        writer.doubt_if_failed(outcome);
        let version = Arc::new(version);
        self.version.store(Arc::clone(&version));
        Ok(version)
    }

    /// Continues in a new file that starts with `version`, then removes the older ones.
    fn roll(&self, writer: &mut Writer, version: &mut Version) -> Result<()> {
        let (id, old) = (self.next_file(), writer.log.file_id);
        version.next_file = FileId(id.0 + 1);
        // Until its name is synced, either file may be the one that a crash leaves.
        writer.in_doubt = true;
        writer.log = ManifestFile::create(self.env.as_ref(), &self.dir, &self.db_id, id, Some(old), version)?;
        writer.in_doubt = false;
        // Harmless if it fails: the highest number counts, and the next open tries again.
        if let Err(error) = remove_before(self.env.as_ref(), &self.dir, id) {
            tracing::warn!(error = describe(&error), "cannot remove the previous manifest");
        }
        Ok(())
    }

    /// The current version.
    #[must_use]
    pub fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    /// The database's identity, part of every log checksum.
    #[must_use]
    pub fn db_id(&self) -> DbId {
        self.db_id
    }

    /// A file number never given out before, for a file of any kind. Memory only.
    #[must_use]
    pub fn next_file(&self) -> FileId {
        FileId(self.next_file.fetch_add(1, Ordering::AcqRel))
    }

    /// [`Manifest::next_file`] as a value to hand around.
    #[must_use]
    pub fn file_allocator(&self) -> FileAllocator {
        let next_file = Arc::clone(&self.next_file);
        Arc::new(move || FileId(next_file.fetch_add(1, Ordering::AcqRel)))
    }

    /// Size of the manifest file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        lock(&self.writer).log.end_bytes()
    }
}

/// Writes a manifest of `version` into the database directory `dest`, which has none, synced: the last step of a copy,
/// because a directory without a manifest is no database.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn create(env: &dyn Env, dest: &Path, db_id: &DbId, version: &Version) -> Result<()> {
    let mut version = version.clone();
    let id = version.next_file;
    version.next_file = FileId(id.0 + 1);
    ManifestFile::create(env, dest, db_id, id, None, &version).map(|_| ())
}

/// Writes the first manifest of a database folder that has none: manifest `id` of `version`, synced.
pub(crate) fn write_new(env: &dyn Env, dir: &Path, db_id: &DbId, id: FileId, version: &Version) -> Result<()> {
    ManifestFile::create(env, dir, db_id, id, None, version).map(|_| ())
}

impl Writer {
    fn doubt_if_failed(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            tracing::warn!(error = describe(&error), "a write to the manifest failed; it continues in a new file");
            self.in_doubt = true;
        }
    }
}

/// A manifest file being appended to.
struct ManifestFile {
    file: Arc<dyn File>,
    path: PathBuf,
    file_id: FileId,
    identity: Identity,
    end: Lsn,
    durable: Lsn,
    snapshot_bytes: u64,
}

impl ManifestFile {
    /// Creates file `id` with a snapshot of `version`. It gets its name only when all of it is synced.
    fn create(
        env: &dyn Env,
        dir: &Path,
        db_id: &DbId,
        id: FileId,
        previous: Option<FileId>,
        version: &Version,
    ) -> Result<ManifestFile> {
        let path = FileKind::Manifest.path(dir, id);
        let temporary = dir.join(format!("manifest-{id}.tmp"));
        let failed = |action| move |error| Error::io(action, &FileKind::Manifest.path(dir, id), error);
        let identity = Identity::new(FileKind::Manifest, db_id, id);
        let header = FileHeader { db_id: *db_id, file: id, first_lsn: Lsn(0), previous };
        let mut bytes = header.encode(FileKind::Manifest);
        let payload = edit::encode_edits(&version.snapshot());
        let frames = sealed_frame(identity, RecordKind::ManifestSnapshot, Lsn(0), Lsn(0), version.last_seqno, &payload);
        bytes.extend_from_slice(&frames);
        let write = || {
            let file = env.open(&temporary, OpenMode::CreateNew).map_err(failed("create"))?;
            file.write_at(0, &bytes).map_err(failed("write"))?;
            file.sync().map_err(failed("sync"))?;
            env.rename(&temporary, &path).map_err(failed("rename"))?;
            Ok(file)
        };
        let file: Arc<dyn File> = write().inspect_err(|_| drop(env.remove(&temporary)))?;
        env.sync_dir(dir).map_err(failed("sync the folder of"))?;
        let end = Lsn(frames.len() as u64);
        Ok(ManifestFile { file, path, file_id: id, identity, end, durable: end, snapshot_bytes: end.0 })
    }

    fn end_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.end.0
    }

    fn append(&mut self, seqno: SeqNo, payload: &[u8]) -> Result<()> {
        self.write(RecordKind::ManifestEdits, seqno, payload)?;
        self.file.sync().map_err(|error| Error::io("sync", &self.path, error))?;
        self.durable = self.end;
        Ok(())
    }

    fn write_watermark(&mut self, seqno: SeqNo) -> Result<()> {
        self.write(RecordKind::Watermark, seqno, &[])
    }

    fn write(&mut self, kind: RecordKind, seqno: SeqNo, payload: &[u8]) -> Result<()> {
        let frame = sealed_frame(self.identity, kind, self.end, self.durable, seqno, payload);
        self.file.write_at(self.end_bytes(), &frame).map_err(|error| Error::io("write", &self.path, error))?;
        self.end = Lsn(self.end.0 + frame.len() as u64);
        Ok(())
    }
}

fn sealed_frame(identity: Identity, kind: RecordKind, lsn: Lsn, durable: Lsn, seqno: SeqNo, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let mut frame = Vec::new();
    record::begin_frame(&mut frame, kind, lsn, seqno, &[payload]);
    record::seal_frame(identity, &mut frame, durable);
    frame
}

fn load_file(env: &dyn Env, dir: &Path, file: FileId) -> Result<Loaded> {
    let mut reader = LogReader::open(env, FileKind::Manifest, dir, file)?;
    let path = reader.path.clone();
    let corrupt = |offset: u64, what: &'static str| Error::corrupt(FileKind::Manifest, &path, offset, what);
    let mut version = Version::default();
    let mut offset = HEADER_BYTES as u64;
    while let Some(frame) = reader.frame_at(offset)? {
        let is_first = offset == HEADER_BYTES as u64;
        match RecordKind::from_u8(frame.kind) {
            Some(RecordKind::ManifestSnapshot) if is_first => {}
            Some(RecordKind::ManifestEdits) if !is_first => {}
            Some(RecordKind::Watermark) if !is_first => {}
            _ => return Err(corrupt(offset, "record of a kind that does not belong here")),
        }
        if frame.kind != RecordKind::Watermark as u8 {
            let Some(edits) = edit::decode_edits(frame.payload) else {
                return Err(corrupt(offset, "malformed version edit"));
            };
            for edit in &edits {
                version.apply(edit).map_err(|what| corrupt(offset, what))?;
            }
        }
        offset += frame.end.0 - frame.lsn.0;
    }
    if offset == HEADER_BYTES as u64 {
        // The file got its name only after its snapshot was synced, so this is damage.
        return Err(corrupt(offset, "bad snapshot"));
    }
    let tail = reader.judge_tail(offset)?;
    Ok(Loaded { db_id: reader.header.db_id, file, version, tail })
}

pub(crate) fn draw_db_id(env: &dyn Env) -> DbId {
    let mut db_id = DbId::default();
    db_id[..8].copy_from_slice(&env.random_u64().to_le_bytes());
    db_id[8..].copy_from_slice(&env.random_u64().to_le_bytes());
    db_id
}

/// Numbers of the manifests in `dir`, ascending.
fn list_manifests(env: &dyn Env, dir: &Path) -> Result<Vec<FileId>> {
    let mut files: Vec<FileId> = list_names(env, dir)?
        .iter()
        .filter_map(|name| FileKind::parse(name))
        .filter(|(kind, _)| *kind == FileKind::Manifest)
        .map(|(_, file)| file)
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Every file of the database in `dir` but its manifests, by its name alone.
///
/// # Errors
/// [`Error::Io`].
pub fn list_files(env: &dyn Env, dir: &Path) -> Result<Vec<(FileKind, FileId)>> {
    let mut files = Vec::new();
    for folder in ["wal", "runs", "segments"].map(|folder| dir.join(folder)) {
        let names = list_names(env, &folder)?;
        files.extend(names.iter().filter_map(|name| FileKind::parse_in(dir, &folder, name)));
    }
    Ok(files)
}

fn list_names(env: &dyn Env, folder: &Path) -> Result<Vec<String>> {
    match env.list(folder) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", folder, error)),
    }
}

/// Removes the manifests with a lower number than `file`.
fn remove_before(env: &dyn Env, dir: &Path, file: FileId) -> Result<()> {
    for old in list_manifests(env, dir)?.into_iter().filter(|&old| old < file) {
        let path = FileKind::Manifest.path(dir, old);
        env.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
    }
    Ok(())
}

/// Removes manifests that a crash kept from getting their name.
fn remove_unfinished(env: &dyn Env, dir: &Path) -> Result<()> {
    for name in list_names(env, dir)? {
        if name.starts_with("manifest-") && name.ends_with(".tmp") {
            let path = dir.join(name);
            env.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}
