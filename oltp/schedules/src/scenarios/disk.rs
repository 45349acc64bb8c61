//! `Disk`: a simulated machine whose log is slow, may fail one sync, and tells which commits lie safely on it.
//!
//! The knowledge is its own: it looks for the marker of each commit in the bytes written to the log, and calls a commit
//! durable once a sync that began after the write has returned. Nothing that the log says about itself is believed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::{rand, thread};

use crate::env::sim::{PowerLoss, Repeat, SimEnv};
use crate::env::{Env, File, FileLock, OpenMode};

/// The bytes by which a commit is found in the log.
pub(super) fn marker(commit: u32) -> Vec<u8> {
    [b"<commit ".as_slice(), &commit.to_be_bytes(), b">"].concat()
}

/// The commits whose marker is in `bytes`.
fn commits_in(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let found = bytes.windows(13).filter(|window| window.starts_with(b"<commit ") && window[12] == b'>');
    found.map(|window| u32::from_be_bytes([window[8], window[9], window[10], window[11]]))
}

/// The machine. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    machine: SimEnv,
    log: Arc<Mutex<LogState>>,
}

/// Never locked across a point where another thread may run.
#[derive(Debug, Default)]
struct LogState {
    written: BTreeSet<u32>,
    durable: BTreeSet<u32>,
    /// Log syncs that still succeed.
    syncs_left: Option<u64>,
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk { machine: SimEnv::new(1), log: Arc::default() }
    }

    /// The log sync after `count` more fails.
    pub(super) fn fail_sync_after(&self, count: u64) {
        self.log.lock().unwrap().syncs_left = Some(count);
    }

    /// Whether a power loss now would leave the commit.
    pub(super) fn is_durable(&self, commit: u32) -> bool {
        self.log.lock().unwrap().durable.contains(&commit)
    }

    /// Cuts the power; what was not synced is gone.
    pub(super) fn reboot(&self) -> Disk {
        Disk { machine: self.machine.reboot(PowerLoss::DropUnsynced), log: Arc::default() }
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.machine.read_file(path).is_ok()
    }
}

impl Env for Disk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.machine.open(path, mode)?;
        let is_log = path.parent().is_some_and(|folder| folder.ends_with("wal"));
        let log = is_log.then(|| Arc::clone(&self.log));
        Ok(Arc::new(DiskFile { machine: self.machine.clone(), file, log }))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.machine.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.machine.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.machine.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.machine.lock(path)
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn wall_clock(&self) -> Duration {
        self.machine.wall_clock()
    }

    fn random_u64(&self) -> u64 {
        self.machine.random_u64()
    }
}

#[derive(Debug)]
struct DiskFile {
    machine: SimEnv,
    file: Arc<dyn File>,
    /// For files of the log.
    log: Option<Arc<Mutex<LogState>>>,
}

impl DiskFile {
    fn sync_log(&self, log: &Mutex<LogState>) -> io::Result<()> {
        let (covered, fails) = {
            let mut log = log.lock().unwrap();
            let fails = log.syncs_left == Some(0);
            log.syncs_left = log.syncs_left.map(|left| left.saturating_sub(1));
            (log.written.clone(), fails)
        };
        // A slow disk: others go on meanwhile, for longer or shorter.
        for _ in 0..rand::thread_rng().gen_range(0..3) {
            thread::yield_now();
        }
        if fails {
            self.machine.fail_op(self.machine.ops(), io::ErrorKind::Other, Repeat::Once);
        }
        self.file.sync()?;
        log.lock().unwrap().durable.extend(covered);
        crate::sync::point();
        Ok(())
    }
}

impl File for DiskFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        crate::sync::point();
        self.file.write_at(offset, bytes)?;
        if let Some(log) = &self.log {
            log.lock().unwrap().written.extend(commits_in(bytes));
            crate::sync::point();
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        crate::sync::point();
        match &self.log {
            Some(log) => self.sync_log(log),
            None => self.file.sync(),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

/// Where the database lies.
pub(super) fn dir() -> PathBuf {
    PathBuf::from("/db")
}
