//! The calls of a simulated machine: [`Env`] and [`File`] over its disk.
//!
//! What changes the disk goes through `mutate`, which numbers operations, crashes and fails; what only looks goes
//! through `reading`, which counts the call and fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, InodeId};
use super::{Op, SimEnv};
use crate::env::mem::read_range;
use crate::env::{Env, File, FileLock, OpenMode};

impl SimEnv {
    fn handle(&self, inode: InodeId, path: &Path) -> Arc<dyn File> {
        Arc::new(SimFile { env: self.clone(), inode, path: path.to_path_buf() })
    }
}

impl Env for SimEnv {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inode = if mode == OpenMode::CreateNew {
            self.mutate(Op::Create(path.to_path_buf()), |disk| disk.create(path).inspect(|&inode| disk.acquire(inode)))?
        } else {
            let mut machine = self.reading()?;
            let inode = machine.disk.lookup(path)?;
            machine.disk.acquire(inode);
            inode
        };
        Ok(self.handle(inode, path))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if self.machine().disk.has_dir(dir) {
            return self.machine().check_alive();
        }
        self.mutate(Op::CreateDir(dir.to_path_buf()), |disk| disk.create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.reading()?.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.mutate(Op::SyncDir(dir.to_path_buf()), |disk| disk.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = Op::Rename { from: from.to_path_buf(), to: to.to_path_buf() };
        self.mutate(op, |disk| disk.rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = Op::HardLink { from: from.to_path_buf(), to: to.to_path_buf() };
        self.mutate(op, |disk| disk.hard_link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.mutate(Op::Remove(path.to_path_buf()), |disk| disk.remove(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let missing = self.machine().disk.lookup(path).is_err();
        if missing {
            self.mutate(Op::Create(path.to_path_buf()), |disk| disk.create(path).map(drop))?;
        }
        let mut machine = self.reading()?;
        if !machine.locked.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { env: self.clone(), path: path.to_path_buf() }))
    }

    fn monotonic(&self) -> Duration {
        self.machine().clock
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }

    fn wall_clock(&self) -> Duration {
        // An arbitrary day, so that nobody mistakes 0 for "not set".
        Duration::from_secs(1_700_000_000) + self.machine().clock
    }

    fn random_u64(&self) -> u64 {
        self.machine().random.next()
    }
}

/// An open file of a simulated machine; keeps the bytes alive after their last name is gone.
#[derive(Debug)]
struct SimFile {
    env: SimEnv,
    inode: InodeId,
    path: PathBuf,
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let machine = match self.env.reading() {
            Ok(machine) => machine,
            Err(error) => {
                let (machine, half) = (self.env.machine(), buffer.len() / 2);
                // The caller must not mind what a failed read left in its buffer.
                drop(read_range(machine.disk.content(self.inode), offset, &mut buffer[..half]));
                return Err(error);
            }
        };
        read_range(machine.disk.content(self.inode), offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let capacity = self.env.machine().capacity_bytes;
        let op = Op::Write { path: self.path.clone(), offset, bytes: bytes.len() as u64 };
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let whole = |disk: &mut Disk| {
            disk.check_room(self.inode, end, capacity)?;
            disk.write(self.inode, offset, bytes)
        };
        self.env.mutate_or(op, whole, |disk, halves| {
            let written = bytes.len() * halves as usize / 2;
            drop(disk.write(self.inode, offset, &bytes[..written]));
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.env.wait_while_held();
        let whole = |disk: &mut Disk| {
            disk.sync(self.inode);
            Ok(())
        };
        self.env.mutate_or(Op::Sync(self.path.clone()), whole, |disk, _| disk.fail_sync(self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        let machine = self.env.reading()?;
        Ok(machine.disk.content(self.inode).len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let capacity = self.env.machine().capacity_bytes;
        self.env.mutate(Op::SetLen { path: self.path.clone(), bytes }, |disk| {
            disk.check_room(self.inode, bytes, capacity)?;
            disk.set_len(self.inode, bytes)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.env.machine().disk.release(self.inode);
    }
}

#[derive(Debug)]
struct SimLock {
    env: SimEnv,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.env.machine().locked.remove(&self.path);
    }
}
