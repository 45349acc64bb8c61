//! The simulated disk: content per inode, names per folder, and for both what is durable.
//!
//! Content is kept as it is now, plus for every sector touched since the last sync the versions it had before, the
//! durable one first. So a sync forgets versions, and a power loss picks one per sector. Names are kept twice, now
//! and durable, with the changes between them in order.
//!
//! Always true: a sector without saved versions is durable as it stands; `durable_names` plus all of `pending` gives
//! `names`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PowerLoss, SplitMix};
use crate::env::mem::{is_root, names_in, write_range};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Versions of one sector kept between two syncs: the durable one and the latest three.
const SECTOR_VERSIONS_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InodeId(u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, InodeId>,
    durable_names: BTreeMap<PathBuf, InodeId>,
    pending: Vec<NameChange>,
    // Durable at once: `Env::create_dir_all` promises it.
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    // Shared between a machine and its reboots until one of them writes.
    content: Arc<Vec<u8>>,
    durable_bytes: u64,
    dirty: BTreeMap<u64, Sector>,
    handle_count: usize,
}

/// Earlier versions of a sector changed since the last sync, durable one first; shorter than a sector at the file's end.
#[derive(Clone, Debug, Default)]
struct Sector {
    versions: Vec<Box<[u8]>>,
    // A sync over it failed: later syncs pass it by.
    lost: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { path: PathBuf, inode: InodeId },
    Unlink { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: InodeId },
}

impl Disk {
    /// Whether nothing would be lost if the power went now.
    pub(super) fn is_settled(&self) -> bool {
        let settled = |inode: &Inode| inode.dirty.is_empty() && inode.durable_bytes == inode.content.len() as u64;
        self.pending.is_empty() && self.names.values().all(|id| settled(&self.inodes[id]))
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn has_dir(&self, dir: &Path) -> bool {
        is_root(dir) || self.dirs.contains(dir)
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        self.names.iter().map(|(path, &inode)| (path.clone(), self.content(inode).len() as u64)).collect()
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.has_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(names_in(dir, self.names.keys()))
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        for dir in dir.ancestors().filter(|dir| !is_root(dir)) {
            if self.names.contains_key(dir) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            self.dirs.insert(dir.to_path_buf());
        }
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        self.check_vacant(path)?;
        let inode = InodeId(self.next_inode);
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change_names(NameChange::Link { path: path.to_path_buf(), inode });
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_parent(to)?;
        let inode = self.lookup(from)?;
        self.change_names(NameChange::Rename { from: from.to_path_buf(), to: to.to_path_buf(), inode });
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        self.check_vacant(to)?;
        self.change_names(NameChange::Link { path: to.to_path_buf(), inode });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.lookup(path)?;
        self.change_names(NameChange::Unlink { path: path.to_path_buf() });
        self.collect();
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.has_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // A change becomes durable with the earlier changes of the same names, or a later sync of another folder
        // would bring back what a rename has moved away.
        let mut paths: HashSet<&Path> = HashSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (index, change) in self.pending.iter().enumerate().rev() {
            if change.paths().any(|path| path.parent() == Some(dir) || paths.contains(path)) {
                chosen[index] = true;
                paths.extend(change.paths());
            }
        }
        let mut chosen = chosen.into_iter();
        let (done, pending) = self.pending.drain(..).partition(|_| chosen.next() == Some(true));
        self.pending = pending;
        done.iter().for_each(|change: &NameChange| change.apply(&mut self.durable_names));
        self.collect();
        Ok(())
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !self.has_dir(parent) => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    }

    fn check_vacant(&self, path: &Path) -> io::Result<()> {
        self.check_parent(path)?;
        if self.names.contains_key(path) || self.dirs.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    pub(super) fn acquire(&mut self, inode: InodeId) {
        self.inode(inode).handle_count += 1;
    }

    pub(super) fn release(&mut self, inode: InodeId) {
        self.inode(inode).handle_count -= 1;
        self.collect();
    }

    #[cfg(test)]
    pub(super) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Frees the inodes that neither a name, present, durable or on its way, nor a handle leads to.
    fn collect(&mut self) {
        let mut reachable: HashSet<InodeId> = self.names.values().chain(self.durable_names.values()).copied().collect();
        reachable.extend(self.pending.iter().filter_map(NameChange::inode));
        self.inodes.retain(|id, inode| inode.handle_count > 0 || reachable.contains(id));
    }

    fn inode(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("inodes live while a name or handle leads to them")
    }

    pub(super) fn content(&self, inode: InodeId) -> &[u8] {
        &self.inodes[&inode].content
    }

    /// Fails with `StorageFull` if `inode` growing to `bytes` lifts the sum of all files above `capacity`.
    pub(super) fn check_room(&self, inode: InodeId, bytes: u64, capacity: Option<u64>) -> io::Result<()> {
        let growth = bytes.saturating_sub(self.content(inode).len() as u64);
        let Some(capacity) = capacity.filter(|_| growth > 0) else { return Ok(()) };
        let named: BTreeSet<InodeId> = self.names.values().copied().collect();
        let used: u64 = named.into_iter().map(|named| self.content(named).len() as u64).sum();
        if used + growth > capacity { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn write(&mut self, inode: InodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode(inode);
        // A gap behind the old end needs no version: nothing and zeros come back as the same bytes.
        inode.touch(offset, offset + bytes.len() as u64);
        write_range(Arc::make_mut(&mut inode.content), offset, bytes)
    }

    pub(super) fn set_len(&mut self, inode: InodeId, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let inode = self.inode(inode);
        let before = inode.content.len() as u64;
        inode.touch(before.min(bytes), before.max(bytes));
        Arc::make_mut(&mut inode.content).resize(length, 0);
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: InodeId) {
        let inode = self.inode(inode);
        inode.dirty.retain(|_, sector| sector.lost);
        inode.durable_bytes = inode.content.len() as u64;
    }

    pub(super) fn fail_sync(&mut self, inode: InodeId) {
        self.inode(inode).dirty.values_mut().for_each(|sector| sector.lost = true);
    }

    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let inode = self.lookup(path).or_else(|_| self.create(path))?;
        *self.inode(inode) = Inode {
            content: Arc::new(bytes.to_vec()),
            durable_bytes: bytes.len() as u64,
            handle_count: self.inodes[&inode].handle_count,
            dirty: BTreeMap::new(),
        };
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    pub(super) fn corrupt(&mut self, inode: InodeId, offset: u64, xor: u8) -> io::Result<()> {
        let content = Arc::make_mut(&mut self.inode(inode).content);
        let byte = usize::try_from(offset).ok().and_then(|offset| content.get_mut(offset));
        *byte.ok_or(io::ErrorKind::UnexpectedEof)? ^= xor;
        Ok(())
    }

    /// The disk as another process finds it: nothing lost, no handle open.
    pub(super) fn after_kill(&self) -> Disk {
        let mut disk = self.clone();
        disk.inodes.values_mut().for_each(|inode| inode.handle_count = 0);
        disk.collect();
        disk
    }

    /// The disk as the machine finds it when it starts again. All of it is durable.
    pub(super) fn after_power_loss(&self, loss: PowerLoss, seed: u64) -> Disk {
        let mut random = match loss {
            PowerLoss::Random(choice) => SplitMix(seed ^ choice.wrapping_mul(0xD134_2543_DE82_EF95)),
            PowerLoss::DropUnsynced | PowerLoss::KeepAll => SplitMix(seed),
        };
        let names = match loss {
            PowerLoss::DropUnsynced => self.durable_names.clone(),
            PowerLoss::KeepAll => self.names.clone(),
            PowerLoss::Random(_) => self.random_names(&mut random),
        };
        let mut inodes = BTreeMap::new();
        for &id in names.values() {
            let inode = &self.inodes[&id];
            let content = match loss {
                PowerLoss::KeepAll => Arc::clone(&inode.content),
                PowerLoss::DropUnsynced => inode.synced(),
                PowerLoss::Random(_) => inode.torn(&mut random),
            };
            let durable_bytes = content.len() as u64;
            // A second name of the same inode must not draw other bytes.
            inodes.entry(id).or_insert(Inode { content, durable_bytes, ..Inode::default() });
        }
        Disk {
            inodes,
            next_inode: self.next_inode,
            durable_names: names.clone(),
            names,
            pending: Vec::new(),
            dirs: self.dirs.clone(),
        }
    }

    /// Half of the time a prefix of the changes, as a journal leaves it, otherwise any subset, as POSIX permits.
    fn random_names(&self, random: &mut SplitMix) -> BTreeMap<PathBuf, InodeId> {
        let mut names = self.durable_names.clone();
        let journal = random.below(2) == 0;
        let cut = random.below(self.pending.len() as u64 + 1);
        for (index, change) in self.pending.iter().enumerate() {
            let survives = if journal { (index as u64) < cut } else { random.below(2) == 0 };
            if survives {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl Inode {
    /// Saves the present version of the sectors of `start..end` before they change.
    fn touch(&mut self, start: u64, end: u64) {
        for number in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let version = sector(&self.content, number).into();
            let sector = self.dirty.entry(number).or_default();
            sector.lost = false;
            if sector.versions.len() == SECTOR_VERSIONS_MAX {
                sector.versions.remove(1);
            }
            sector.versions.push(version);
        }
    }

    fn synced(&self) -> Arc<Vec<u8>> {
        if self.dirty.is_empty() && self.durable_bytes == self.content.len() as u64 {
            return Arc::clone(&self.content);
        }
        Arc::new(self.pick(self.durable_bytes, |_, _| 0))
    }

    fn torn(&self, random: &mut SplitMix) -> Arc<Vec<u8>> {
        if self.dirty.is_empty() {
            return self.synced();
        }
        let written_bytes = self.content.len() as u64;
        let (shorter, longer) = (self.durable_bytes.min(written_bytes), self.durable_bytes.max(written_bytes));
        let length = match random.below(3) {
            0 => self.durable_bytes,
            1 => written_bytes,
            _ => shorter + random.below(longer - shorter + 1),
        };
        let last = self.dirty.keys().next_back().map_or(0, |last| last + 1);
        let cut = random.below(last + 1);
        Arc::new(match random.below(4) {
            0 => self.pick(self.durable_bytes, |_, _| 0),
            1 => self.pick(written_bytes, |_, count| count),
            // In file order up to a point, the usual fate of an append.
            2 => self.pick(length, |number, count| if number < cut { count } else { 0 }),
            _ => self.pick(length, |_, count| random.below(count as u64 + 1) as usize),
        })
    }

    /// Content of `length` bytes in which each dirty sector has the version that `choose(sector, count)` names; `count`
    /// is the present one.
    fn pick(&self, length: u64, mut choose: impl FnMut(u64, usize) -> usize) -> Vec<u8> {
        let length = usize::try_from(length).expect("lengths were in memory before");
        let mut content = Vec::clone(&self.content);
        content.resize(length, 0);
        for (&number, saved) in &self.dirty {
            let chosen = choose(number, saved.versions.len());
            let version = saved.versions.get(chosen).map_or_else(|| sector(&self.content, number), |saved| &saved[..]);
            let start = usize::try_from(number * SECTOR_BYTES).map_or(length, |start| start.min(length));
            let end = (start + SECTOR_BYTES as usize).min(length);
            let target = &mut content[start..end];
            let kept = version.len().min(target.len());
            target[..kept].copy_from_slice(&version[..kept]);
            target[kept..].fill(0);
        }
        content
    }
}

/// The bytes of a sector, fewer or none at the end of the file.
fn sector(content: &[u8], number: u64) -> &[u8] {
    let start = usize::try_from(number * SECTOR_BYTES).map_or(content.len(), |start| start.min(content.len()));
    let end = (start + SECTOR_BYTES as usize).min(content.len());
    &content[start..end]
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, InodeId>) {
        match self {
            NameChange::Link { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink { path } => {
                names.remove(path);
            }
            NameChange::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let (first, second) = match self {
            NameChange::Link { path, .. } | NameChange::Unlink { path } => (path, None),
            NameChange::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second).map(PathBuf::as_path)
    }

    fn inode(&self) -> Option<InodeId> {
        match self {
            NameChange::Link { inode, .. } | NameChange::Rename { inode, .. } => Some(*inode),
            NameChange::Unlink { .. } => None,
        }
    }
}
