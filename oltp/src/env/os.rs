//! The operating system's files, clock and randomness.
//!
//! Bytes are made durable with `fdatasync` (`F_FULLFSYNC` on macOS), names with `fsync` of their folder. Direct I/O for the
//! log alone ([`super::direct`]), and no memory maps: the page cache is shared with everything else on the machine, and a
//! failed read of a map is a signal rather than an error.
//!
//! The only file in the workspace's libraries, beside that one, where the calls that `clippy.toml` refuses are allowed (I10).
#![expect(clippy::disallowed_methods, reason = "this is the seam that all other code goes through")]

use std::fs::{self, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use rustix::fs::Advice;

use super::direct::DirectFile;
use super::{Access, Env, File, FileLock, OpenMode};

/// The real environment. Cheap to create; all instances see the same files.
#[derive(Debug)]
pub struct OsEnv {
    started: Instant,
}

impl OsEnv {
    /// The environment of this process.
    #[must_use]
    pub fn new() -> OsEnv {
        OsEnv { started: Instant::now() }
    }
}

impl Default for OsEnv {
    fn default() -> OsEnv {
        OsEnv::new()
    }
}

fn open(path: &Path, mode: OpenMode) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Read => {}
        OpenMode::ReadWrite => {
            options.write(true);
        }
        OpenMode::CreateNew => {
            options.write(true).create_new(true);
        }
    }
    options.open(path)
}

/// Tells the page cache what will become of a part of `file`; 0 bytes reach to its end. Where that is refused, nothing is
/// lost but speed.
#[cfg(target_os = "linux")]
fn advise(file: &fs::File, offset: u64, bytes: u64, advice: Advice) {
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(bytes), advice);
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &fs::File, _: u64, _: u64, _: Advice) {}

#[cfg(not(target_os = "linux"))]
enum Advice {
    Random,
    WillNeed,
}

impl Env for OsEnv {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OsFile { file: open(path, mode)? }))
    }

    fn open_immutable(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = open(path, OpenMode::Read)?;
        if access == Access::Random {
            // Without it a block next to some that are in memory makes the kernel read on behind it, up to megabytes.
            advise(&file, 0, 0, Advice::Random);
        }
        Ok(Arc::new(OsFile { file }))
    }

    fn open_files_limit(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }

    fn open_log(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(DirectFile::new(open(path, mode)?, path)?))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Parents first, each synced into its own parent, so that power loss cannot take away a folder whose files
        // were all synced with care.
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        fs::create_dir_all(dir)?;
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            // A name that is not UTF-8 cannot be one of ours.
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(OsLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall_clock(&self) -> Duration {
        // A clock set before 1970 is only ever displayed, so it shows as 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn random_u64(&self) -> u64 {
        // `RandomState` is seeded by the operating system once per thread and differs from call to call. Good enough
        // for identities and jitter; nothing here is a secret.
        RandomState::new().build_hasher().finish()
    }
}

/// One open file descriptor; positional calls only, so threads need not agree on a cursor.
#[derive(Debug)]
struct OsFile {
    file: fs::File,
}

impl File for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        advise(&self.file, offset, bytes, Advice::WillNeed);
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

/// An advisory lock (`flock`): closing the descriptor, or the end of the process however it ends, releases it.
#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl FileLock for OsLock {}
