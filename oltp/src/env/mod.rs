//! The three seams to the world outside: files, clock, randomness (I10).
//!
//! [`os`] is the real one. [`sim`] keeps un-synced bytes and directory entries apart from synced ones, fails on
//! demand and crashes on demand, all from one seed. [`mem`] is a plain in-memory directory for databases that need
//! not outlive the process. [`capped`] goes around any of them and bounds how many files are open.
//!
//! Always true: no other module of any crate opens a file, reads a clock or draws a random number.

pub mod capped;
mod direct;
pub mod mem;
pub mod os;
pub mod sim;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::capped::CappedEnv;

/// How [`Env::open`] treats the file's existence and what may be done with the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reading only.
    Read,
    /// Must exist; reading and writing in place.
    ReadWrite,
    /// Must not exist; reading and writing.
    CreateNew,
}

/// How a file is going to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Large pieces, or one after the other: the system may read on behind what it is asked for.
    InOrder,
    /// Small pieces at random places: the system reads no more than it is asked for. Who reads a part of such a file in
    /// order says so with [`File::will_read`].
    Random,
}

/// Files, clock and randomness, as the database sees them. Every call may block.
///
/// A new, renamed or removed name survives power loss only after [`Env::sync_dir`] of its folder; bytes survive only
/// after [`File::sync`].
pub trait Env: Send + Sync + Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists` (by mode) or whatever the operating system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// As [`Env::open`] for reading, for a file of the database that never changes (I4) and keeps its name for as long as it
    /// is read.
    ///
    /// # Errors
    /// As [`Env::open`].
    fn open_immutable(&self, path: &Path, _access: Access) -> io::Result<Arc<dyn File>> {
        self.open(path, OpenMode::Read)
    }
    /// The environment around another that bounds how many files are open, if this is one.
    fn capped(&self) -> Option<&CappedEnv> {
        None
    }
    /// How many files the process may have open at a time, if there is a limit.
    fn open_files_limit(&self) -> Option<u64> {
        None
    }
    /// As [`Env::open`], for a file that grows by small pieces, each synced at once. What nobody has written yet may turn to
    /// zeros up to 4 KiB behind the end of a piece.
    ///
    /// # Errors
    /// As [`Env::open`].
    fn open_log(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.open(path, mode)
    }
    /// Creates a folder and its parents; existing ones are left as they are. New ones are durable on return, because
    /// files synced with care are lost with their folder.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Names (not paths) of the files directly in `dir`, sorted; folders are left out.
    ///
    /// # Errors
    /// `NotFound` if the folder does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// Whatever the operating system says; the names' durability is then unknown.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing what stood at `to`.
    ///
    /// # Errors
    /// `NotFound` if `from` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file a second name; both share its bytes.
    ///
    /// # Errors
    /// `AlreadyExists` if `to` exists.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Open handles go on working.
    ///
    /// # Errors
    /// `NotFound` if it does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on `path` (created if missing) until the value drops or the process ends.
    ///
    /// # Errors
    /// `WouldBlock` if another holder exists.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
    /// Time since an arbitrary fixed point; never runs backwards.
    fn monotonic(&self) -> Duration;
    /// Blocks the calling thread for `duration`. Where time is simulated it passes at once.
    fn sleep(&self, duration: Duration) {
        if duration > Duration::ZERO {
            std::thread::sleep(duration);
        }
    }
    /// Wall-clock time since the Unix epoch, for display only: nothing may depend on its order.
    fn wall_clock(&self) -> Duration;
    /// A random number; in a simulation, the next one of its seed.
    fn random_u64(&self) -> u64;
}

/// An open file. Calls from several threads at once are allowed; each is independent of any cursor.
pub trait File: Send + Sync + Debug {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends within the range.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Says that these bytes will be read soon, so that they may be on their way meanwhile. Any range will do, also one
    /// beyond the end; what comes of it is the system's business.
    fn will_read(&self, _offset: u64, _bytes: u64) {}
    /// Writes all of `bytes` at `offset`, growing the file if needed.
    ///
    /// # Errors
    /// Whatever the operating system says; any part may then have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes bytes and length durable (`fdatasync`).
    ///
    /// # Errors
    /// After an error the durability of all earlier writes is unknown and must not be retried.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or zero-extends the file.
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// Holds a lock file until dropped.
pub trait FileLock: Send + Sync + Debug {}
