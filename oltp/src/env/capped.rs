//! `CappedEnv`: an environment in which only so many immutable files are open at a time.
//!
//! A database has as many runs, value files and segments as its rows need, a process may have some thousand files open. So
//! what [`Env::open_immutable`] hands out here is a promise of a file: the operating system's handle behind it is closed
//! when another file is read and the cap is reached, the one that was not read for the longest time first, and opened
//! again by the next read. A block found in a cache asks for no file at all.
//!
//! Always true:
//! * at most the cap of handles are open and not in use, but for those of removed files: a name that goes takes the way
//!   back to the bytes with it, so whoever still reads the file keeps its handle until done. A name is not removed if its
//!   file is in use and cannot be kept open;
//! * no read fails because of the cap: who reads holds the handle for as long as that takes, whatever is closed meanwhile;
//! * where the system refuses another file because there are too many, handles that nobody uses are closed first, whatever
//!   the file was wanted for.
//!
//! Files that change are none of its business: the log and the manifest are few.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Access, Env, File, FileLock, OpenMode};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An environment that keeps a limited number of immutable files open. Clones share them.
#[derive(Clone, Debug)]
pub struct CappedEnv {
    files: Arc<OpenFiles>,
}

/// The files and what is known of them.
struct OpenFiles {
    env: Arc<dyn Env>,
    open_files_max: usize,
    /// Rises with each read; says who was read when.
    clock: AtomicU64,
    /// Handles opened so far, again or for the first time.
    opened: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// All files that somebody holds, by path: two may have opened the same.
    held: HashMap<PathBuf, Vec<Arc<Entry>>>,
    /// Those of them that have a handle and may lose it, in no order. Searched whole for the one to close: a microsecond
    /// per thousand, beside opening a file.
    open: Vec<Arc<Entry>>,
    /// How many have a handle that must stay, because the name is gone.
    kept: usize,
}

/// One file that somebody holds.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    access: Access,
    used: AtomicU64,
    /// Taken by readers alone, or after the lock of the state.
    handle: Mutex<Option<Arc<dyn File>>>,
}

impl Entry {
    fn handle(&self) -> MutexGuard<'_, Option<Arc<dyn File>>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the handle that was not used for the longest time; `false` if there is none.
    fn close_oldest(&mut self) -> bool {
        let oldest = (0..self.open.len()).min_by_key(|&at| self.open[at].used.load(Ordering::Relaxed));
        let Some(oldest) = oldest else { return false };
        let entry = self.open.swap_remove(oldest);
        drop(entry.handle().take());
        true
    }
}

impl CappedEnv {
    /// `env` with at most `open_files_max` immutable files open at a time, and at most half of those that the process may
    /// have open at all, because there is more in it than this database; at least one.
    #[must_use]
    pub fn new(env: Arc<dyn Env>, open_files_max: u64) -> CappedEnv {
        let allowed = env.open_files_limit().map_or(u64::MAX, |limit| limit / 2);
        let open_files_max = usize::try_from(open_files_max.min(allowed)).unwrap_or(usize::MAX).max(1);
        let (clock, opened) = (AtomicU64::new(0), AtomicU64::new(0));
        CappedEnv { files: Arc::new(OpenFiles { env, open_files_max, clock, opened, state: Mutex::default() }) }
    }

    /// `env` itself if it has a cap already, else [`CappedEnv::new`]: whoever shares a cap between parts of a program goes
    /// around their environment once.
    #[must_use]
    pub fn around(env: Arc<dyn Env>, open_files_max: u64) -> Arc<dyn Env> {
        if env.capped().is_some() { env } else { Arc::new(CappedEnv::new(env, open_files_max)) }
    }

    /// Immutable files that have a handle, those included that the cap does not count because their names are gone.
    #[must_use]
    pub fn open_count(&self) -> usize {
        let state = self.files.state();
        state.open.len() + state.kept
    }

    /// Immutable files that somebody holds, with a handle or without.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.files.state().held.values().map(Vec::len).sum()
    }

    /// How often an immutable file was opened, for the first time or again.
    #[must_use]
    pub fn opened_count(&self) -> u64 {
        self.files.opened.load(Ordering::Relaxed)
    }

    /// The most handles that are kept open.
    #[must_use]
    pub fn open_files_max(&self) -> usize {
        self.files.open_files_max
    }
}

impl OpenFiles {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the lists consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `entry` a handle, closing others as the cap demands. Under the state's lock, so that removing the name comes
    /// before or after, and because two must not open the same.
    fn open(&self, state: &mut State, entry: &Arc<Entry>) -> io::Result<Arc<dyn File>> {
        if let Some(file) = &*entry.handle() {
            return Ok(Arc::clone(file));
        }
        while state.open.len() >= self.open_files_max && state.close_oldest() {}
        let file = retry(|| self.env.open_immutable(&entry.path, entry.access), || state.close_oldest())?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        *entry.handle() = Some(Arc::clone(&file));
        state.open.push(Arc::clone(entry));
        Ok(file)
    }

    /// Calls `open`, and again after closing some handles for as long as the system has too many files open.
    fn patiently<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        retry(open, || self.state().close_oldest())
    }
}

/// Calls `open` until it succeeds, fails for another reason than too many open files, or `close_one` has nothing left to
/// close.
fn retry<T>(open: impl Fn() -> io::Result<T>, mut close_one: impl FnMut() -> bool) -> io::Result<T> {
    loop {
        match open() {
            Err(error) if are_too_many(&error) => {
                if !close_one() {
                    let advice = "raise the limit of open files (ulimit -n), or lower open_files_max";
                    return Err(io::Error::other(format!("{error}; {advice}")));
                }
            }
            done => return done,
        }
    }
}

/// Whether the process or the system has no descriptor left.
fn are_too_many(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno == Some(rustix::io::Errno::MFILE.raw_os_error()) || errno == Some(rustix::io::Errno::NFILE.raw_os_error())
}

/// What readers hold of a file.
struct CappedFile {
    files: Arc<OpenFiles>,
    entry: Arc<Entry>,
}

impl CappedFile {
    /// The handle, opened again if it was closed. Whoever has it may use it also after it was closed for others.
    fn file(&self) -> io::Result<Arc<dyn File>> {
        let now = self.files.clock.fetch_add(1, Ordering::Relaxed);
        self.entry.used.store(now, Ordering::Relaxed);
        let open = self.entry.handle().clone();
        match open {
            Some(file) => Ok(file),
            None => self.files.open(&mut self.files.state(), &self.entry),
        }
    }
}

impl File for CappedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file()?.read_at(offset, buffer)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        if let Ok(file) = self.file() {
            file.will_read(offset, bytes);
        }
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl Debug for CappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CappedFile").field(&self.entry.path).finish()
    }
}

impl Drop for CappedFile {
    fn drop(&mut self) {
        let mut state = self.files.state();
        if let Some(same) = state.held.get_mut(&self.entry.path) {
            same.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            if same.is_empty() {
                state.held.remove(&self.entry.path);
            }
        }
        let before = state.open.len();
        state.open.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
        if state.open.len() == before && self.entry.handle().is_some() {
            state.kept -= 1;
        }
        // Closed only after the lock is free.
        let handle = self.entry.handle().take();
        drop(state);
        drop(handle);
    }
}

impl Debug for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFiles").field("open_files_max", &self.open_files_max).finish_non_exhaustive()
    }
}

impl Env for CappedEnv {
    fn capped(&self) -> Option<&CappedEnv> {
        Some(self)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.files.patiently(|| self.files.env.open(path, mode))
    }

    fn open_immutable(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let used = AtomicU64::new(self.files.clock.fetch_add(1, Ordering::Relaxed));
        let entry = Arc::new(Entry { path: path.to_path_buf(), access, used, handle: Mutex::new(None) });
        let mut state = self.files.state();
        self.files.open(&mut state, &entry)?;
        state.held.entry(path.to_path_buf()).or_default().push(Arc::clone(&entry));
        Ok(Arc::new(CappedFile { files: Arc::clone(&self.files), entry }))
    }

    fn open_log(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.files.patiently(|| self.files.env.open_log(path, mode))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.files.patiently(|| self.files.env.create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.files.patiently(|| self.files.env.list(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.files.patiently(|| self.files.env.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.env.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.env.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.files.state();
        for entry in state.held.get(path).cloned().unwrap_or_default() {
            self.files.open(&mut state, &entry)?;
            let before = state.open.len();
            state.open.retain(|other| !Arc::ptr_eq(other, &entry));
            state.kept += before - state.open.len();
        }
        // Under the lock: otherwise somebody could open the name once more before it goes, and lose the handle after.
        self.files.env.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.files.patiently(|| self.files.env.lock(path))
    }

    fn open_files_limit(&self) -> Option<u64> {
        self.files.env.open_files_limit()
    }

    fn monotonic(&self) -> Duration {
        self.files.env.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.files.env.sleep(duration);
    }

    fn wall_clock(&self) -> Duration {
        self.files.env.wall_clock()
    }

    fn random_u64(&self) -> u64 {
        self.files.env.random_u64()
    }
}

#[cfg(test)]
mod tests;
