//! A directory in memory, for databases that need not outlive the process.
//!
//! Clock and randomness are the real ones; files obey the same rules as on a disk (a parent folder must exist, a
//! removed file stays readable through its open handles), but nothing is ever lost and syncing is free. Crashes and
//! faults are the business of [`sim`](super::sim), not of this.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::os::OsEnv;
use super::{Env, File, FileLock, OpenMode};

/// An environment whose files live in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct MemEnv {
    clock: Arc<OsEnv>,
    folders: Arc<Mutex<Folders>>,
}

#[derive(Debug, Default)]
struct Folders {
    files: BTreeMap<PathBuf, Arc<MemFile>>,
    dirs: BTreeSet<PathBuf>,
    locked: HashSet<PathBuf>,
}

impl MemEnv {
    /// An empty environment.
    #[must_use]
    pub fn new() -> MemEnv {
        MemEnv { clock: Arc::new(OsEnv::new()), folders: Arc::default() }
    }

    // Every critical section leaves the maps consistent, so a panic of another thread does not matter.
    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemEnv {
    fn default() -> MemEnv {
        MemEnv::new()
    }
}

impl Folders {
    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !is_root(parent) && !self.dirs.contains(parent) => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<&Arc<MemFile>> {
        self.files.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Env for MemEnv {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut folders = self.folders();
        if mode != OpenMode::CreateNew {
            let file: Arc<dyn File> = folders.file(path)?.clone();
            return Ok(file);
        }
        folders.check_parent(path)?;
        if folders.files.contains_key(path) || folders.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MemFile::default());
        folders.files.insert(path.to_path_buf(), file.clone());
        Ok(file)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut folders = self.folders();
        for dir in dir.ancestors().filter(|dir| !is_root(dir)) {
            if folders.files.contains_key(dir) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            folders.dirs.insert(dir.to_path_buf());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let folders = self.folders();
        if !is_root(dir) && !folders.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(names_in(dir, folders.files.keys()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.list(dir).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut folders = self.folders();
        folders.check_parent(to)?;
        let file = folders.file(from)?.clone();
        folders.files.remove(from);
        folders.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut folders = self.folders();
        folders.check_parent(to)?;
        let file = folders.file(from)?.clone();
        if folders.files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folders.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.folders().files.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut folders = self.folders();
        folders.check_parent(path)?;
        folders.files.entry(path.to_path_buf()).or_default();
        if !folders.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemLock { env: self.clone(), path: path.to_path_buf() }))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn wall_clock(&self) -> Duration {
        self.clock.wall_clock()
    }

    fn random_u64(&self) -> u64 {
        self.clock.random_u64()
    }
}

/// The bytes of a file; names and handles share them.
#[derive(Debug, Default)]
struct MemFile {
    bytes: RwLock<Vec<u8>>,
}

impl File for MemFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_range(&self.bytes.read().unwrap_or_else(PoisonError::into_inner), offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_range(&mut self.bytes.write().unwrap_or_else(PoisonError::into_inner), offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner).resize(length, 0);
        Ok(())
    }
}

#[derive(Debug)]
struct MemLock {
    env: MemEnv,
    path: PathBuf,
}

impl FileLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.env.folders().locked.remove(&self.path);
    }
}

/// Folders that exist without being created: `/`, and the empty parent of a bare name.
pub(super) fn is_root(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.parent().is_none()
}

/// Names of the files directly in `dir`, in the order of `paths`.
pub(super) fn names_in<'a>(dir: &Path, paths: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    let inside = paths.filter(|path| path.parent() == Some(dir));
    let mut names: Vec<String> =
        inside.filter_map(|path| path.file_name()?.to_str().map(ToString::to_string)).collect();
    names.sort_unstable();
    names
}

/// Fills `buffer` from `offset` of `content`, as [`File::read_at`] demands.
pub(super) fn read_range(content: &[u8], offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(buffer.len())?));
    let source = range.and_then(|range| content.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.copy_from_slice(source);
    Ok(())
}

/// Writes `bytes` at `offset` of `content`, zero-filling a gap, as [`File::write_at`] demands.
pub(super) fn write_range(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(bytes.len())?));
    let range = range.ok_or(io::ErrorKind::FileTooLarge)?;
    if content.len() < range.end {
        content.resize(range.end, 0);
    }
    content[range].copy_from_slice(bytes);
    Ok(())
}
