//! `Run`: an open run. Footer, filter, index root and properties are read once and stay in memory.
//!
//! A point read asks the filter, then the index, then one block (two if versions of the key spill over). Index
//! partitions and blocks come from the slots of the index or from the file, verified on the way in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, Find};
use super::cursor::{IndexCursor, RunCursor};
use super::filter::{Filter, key_hash};
use super::footer::{FOOTER_BYTES, Footer};
use super::frame;
use super::index::Handle;
use super::node::{Leaf, Root};
use super::properties::Properties;
use super::varint::Damage;
use super::{FORMAT_VERSION, FUSE_VERSION, FilterKind, REFERENCE_VERSION, verify};
use crate::cache::slot::Held;
use crate::cache::{BlockCache, Charge};
use crate::env::{Access, Env, File};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::{Cursor, VersionKind};
use crate::manifest::RunMeta;
use crate::manifest::levels::Leveled;
use crate::seqno::SeqNo;
use crate::values::{ValueFiles, ValueRef};

/// An immutable sorted run of versions of one table. Shared by all readers; the file stays open until the last one
/// lets go, also after its name was removed.
#[derive(Debug)]
pub struct Run {
    meta: RunMeta,
    path: PathBuf,
    file: Arc<dyn File>,
    footer: Footer,
    properties: Properties,
    /// An index of one level is the only partition of a root made for it, and always in its slot.
    index: Arc<Root>,
    filter: Option<Filter>,
    cache: Arc<BlockCache>,
    /// The value files it refers to.
    values: ValueFiles,
    _charge: Option<Charge>,
}

impl Run {
    /// Opens the run that `meta` describes, in the database directory `dir`.
    ///
    /// Reads footer, properties, filter and index root, and checks that they agree with `meta`; data blocks are
    /// checked as they are read, all of them by [`Run::verify`]. Large values cannot be read: see [`Run::open_with`].
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub fn open(env: &Arc<dyn Env>, dir: &Path, meta: &RunMeta, cache: Arc<BlockCache>) -> Result<Arc<Run>> {
        Run::open_file(env, dir, meta, cache, ValueFiles::new()).map(Arc::new)
    }

    /// [`Run::open`] for reading large values too: takes those of `files` that the run refers to.
    ///
    /// # Errors
    /// As [`Run::open`]; [`Error::Corrupt`] if one is not among `files`.
    pub fn open_with(
        env: &Arc<dyn Env>,
        dir: &Path,
        meta: &RunMeta,
        cache: Arc<BlockCache>,
        files: &ValueFiles,
    ) -> Result<Arc<Run>> {
        let mut values = ValueFiles::new();
        for share in &meta.values {
            let Some(file) = files.get(&share.file) else {
                let path = FileKind::Run.path(dir, meta.run);
                let what = format!("value file {}, which the run refers to, is not known", share.file);
                return Err(Error::corrupt(FileKind::Run, &path, 0, what));
            };
            values.insert(share.file, Arc::clone(file));
        }
        Run::open_file(env, dir, meta, cache, values).map(Arc::new)
    }

    fn open_file(
        env: &Arc<dyn Env>,
        dir: &Path,
        meta: &RunMeta,
        cache: Arc<BlockCache>,
        values: ValueFiles,
    ) -> Result<Run> {
        let path = FileKind::Run.path(dir, meta.run);
        let file = env.open_immutable(&path, Access::Random).map_err(|e| Error::io("open", &path, e))?;
        let bytes = file.len().map_err(|e| Error::io("read the length of", &path, e))?;
        if bytes != meta.file_bytes || bytes < FOOTER_BYTES as u64 {
            return Err(Error::corrupt(FileKind::Run, &path, bytes, "file length disagrees with the manifest"));
        }
        let footer_at = bytes - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut footer).map_err(|e| Error::io("read", &path, e))?;
        let footer = Footer::decode(&footer).map_err(|d| damaged(&path, footer_at, d))?;
        if footer.version > FORMAT_VERSION {
            return Err(Error::NewerFormat { file: path, found: footer.version, supported: FORMAT_VERSION });
        }
        let at_footer = |what: &'static str| Error::corrupt(FileKind::Run, &path, footer_at, what);
        if footer.version == 0 {
            return Err(at_footer("format version 0 never existed"));
        }
        if footer.id != meta.run || footer.table != meta.table {
            return Err(at_footer("file belongs to another run or table"));
        }
        if !(1..=2).contains(&footer.index_levels) {
            return Err(at_footer("index levels out of range"));
        }
        let load = |handle: Handle| read_raw(&*file, &path, meta, handle);
        let properties_at = footer.properties.offset;
        let properties = Properties::decode(&load(footer.properties)?).map_err(|d| damaged(&path, properties_at, d))?;
        check_meta(&properties, meta).map_err(|d| damaged(&path, properties_at, d))?;
        if footer.version < REFERENCE_VERSION && !properties.values.is_empty() {
            return Err(at_footer("a run of this version cannot refer to value files"));
        }
        let filter = match footer.filter.bytes {
            0 => None,
            _ => Some(Filter::new(load(footer.filter)?).map_err(|d| damaged(&path, footer.filter.offset, d))?),
        };
        if footer.version < FUSE_VERSION && filter.as_ref().is_some_and(|filter| filter.kind() == FilterKind::Fuse) {
            return Err(at_footer("a run of version 1 cannot have a binary fuse filter"));
        }
        let index = decode_index(load(footer.index)?, &footer);
        let (index, index_bytes) = index.map_err(|d| damaged(&path, footer.index.offset, d))?;
        let index = Arc::new(index);
        let pinned = index_bytes + filter.as_ref().map_or(0, Filter::byte_count);
        let charge = cache.charge_metadata(pinned as u64);
        let meta = meta.clone();
        Ok(Run { meta, path, file, footer, properties, index, filter, cache, values, _charge: charge })
    }

    /// The value files that the run refers to.
    #[must_use]
    pub fn value_files(&self) -> &ValueFiles {
        &self.values
    }

    /// The value of `key` by commit `seqno`, for which the block at `offset` holds the reference `encoded`.
    pub(super) fn read_value(&self, key: &[u8], seqno: SeqNo, encoded: &[u8], offset: u64) -> Result<Bytes> {
        let at = ValueRef::decode(encoded).map_err(|d| self.damaged(offset, d))?;
        let Some(file) = self.values.get(&at.file) else {
            let what = "a reference to a value file that the run does not name";
            return Err(Error::corrupt(FileKind::Run, &self.path, offset, what));
        };
        file.read(at, key, seqno)
    }

    /// Follows every reference and checks what it leads to; returns how many those were.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first thing that does not hold; [`Error::Io`].
    pub fn verify_values(self: &Arc<Run>) -> Result<u64> {
        let mut count = 0;
        if self.meta.values.is_empty() {
            return Ok(count);
        }
        let mut cursor = self.cursor(false);
        cursor.next()?;
        while cursor.valid() {
            if cursor.kind() == VersionKind::Reference {
                cursor.load()?;
                count += 1;
            }
            cursor.next()?;
        }
        Ok(count)
    }

    /// The run as the manifest knows it.
    #[must_use]
    pub fn meta(&self) -> &RunMeta {
        &self.meta
    }

    /// The run's file number.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.meta.run
    }

    /// Number of data blocks.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.properties.block_count
    }

    /// Bytes of its data blocks before compression.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.properties.raw_bytes
    }

    /// The newest version of `key` by a commit at or before `at`.
    ///
    /// The row bytes are a copy, empty for a delete. Touches no file if key range, SeqNo range or filter exclude the key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`].
    pub fn get(&self, key: &[u8], at: SeqNo) -> Result<Option<(SeqNo, VersionKind, Vec<u8>)>> {
        match self.get_with(key, at, |seqno, kind, value| (seqno, kind, value.to_vec()))? {
            Some((seqno, VersionKind::Reference, value)) => {
                let row = self.read_value(key, seqno, &value, 0)?;
                Ok(Some((seqno, VersionKind::Put, row.into())))
            }
            found => Ok(found),
        }
    }

    /// As [`Run::get`], without the copy: `read` sees the bytes where they lie, of a large value the reference to it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`].
    #[inline]
    pub fn get_with<R>(
        &self,
        key: &[u8],
        at: SeqNo,
        read: impl FnOnce(SeqNo, VersionKind, &[u8]) -> R,
    ) -> Result<Option<R>> {
        if key < &self.meta.key_min[..] || key > &self.meta.key_max[..] || at < self.meta.seqno_min {
            return Ok(None);
        }
        let hash = key_hash(key);
        if self.filter.as_ref().is_some_and(|filter| !filter.may_contain(hash)) {
            return Ok(None);
        }
        let Some((mut leaf_at, mut leaf)) = self.leaf_for(key)? else { return Ok(None) };
        let mut entry = leaf.search(key);
        loop {
            if entry == leaf.count() {
                leaf_at += 1;
                if leaf_at >= self.leaf_count() {
                    return Ok(None);
                }
                (leaf, entry) = (self.leaf(leaf_at, true)?, 0);
            }
            let block = self.block(&leaf, entry)?;
            match block.find(key, hash, at).map_err(|d| self.damaged(block.offset(), d))? {
                Find::Found { seqno, kind, value } => return Ok(Some(read(seqno, kind, value))),
                Find::Absent => return Ok(None),
                // A separator above the key says that the next block begins above it too.
                Find::Beyond if !leaf.is_separator(entry, key) => return Ok(None),
                Find::Beyond => entry += 1,
            }
        }
    }

    /// A cursor before the first version. Blocks it reads stay in the cache only with `fill_cache`: a long scan
    /// would drive out what point reads need. Without it the file is read ahead in larger pieces.
    #[must_use]
    pub fn cursor(self: &Arc<Run>, fill_cache: bool) -> RunCursor {
        RunCursor::new(Arc::clone(self), fill_cache)
    }

    /// Reads the whole file and checks everything that is known about it: the file's checksum, each block's, key
    /// order, counts and ranges, that the filter knows every key, and that the index leads to every block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first thing that does not hold; [`Error::Io`].
    pub fn verify(&self) -> Result<()> {
        verify::verify(self)
    }

    /// At most `parts - 1` keys that cut the run into about equal parts, rising strictly: part `i` is the keys in
    /// [`keys[i - 1]`, `keys[i]`). Taken from the index, so no part is smaller than a block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`].
    pub fn split_keys(&self, parts: usize) -> Result<Vec<Vec<u8>>> {
        let mut separators: Vec<Vec<u8>> = Vec::new();
        let mut index = IndexCursor::new();
        while index.next(self, true)? {
            separators.push(index.separator());
        }
        let count = separators.len();
        // The last block's separator is the last key, so cutting there would leave an empty part.
        let cuts = (1..parts.min(count)).map(|part| part * count / parts.min(count) - 1);
        let mut keys: Vec<Vec<u8>> = cuts.map(|at| std::mem::take(&mut separators[at])).collect();
        keys.dedup();
        keys.retain(|key| *key < self.meta.key_max);
        Ok(keys)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &dyn File {
        &*self.file
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(super) fn properties(&self) -> &Properties {
        &self.properties
    }

    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// An error about the stored block at `offset`.
    pub(super) fn damaged(&self, offset: u64, damage: Damage) -> Error {
        damaged(&self.path, offset, damage)
    }

    /// Number of index partitions.
    pub(super) fn leaf_count(&self) -> usize {
        self.index.count()
    }

    /// The partition that leads to `key`, and which one it is; `None` if all keys lie before it.
    #[inline]
    pub(super) fn leaf_for(&self, key: &[u8]) -> Result<Option<(usize, Held<Leaf>)>> {
        let at = self.index.search(key);
        if at < self.leaf_count() { Ok(Some((at, self.leaf(at, true)?))) } else { Ok(None) }
    }

    /// Index partition `at`; kept in memory, if it has to be read, only with `fill_cache`.
    #[inline]
    pub(super) fn leaf(&self, at: usize, fill_cache: bool) -> Result<Held<Leaf>> {
        match self.index.child(at) {
            Some(leaf) => Ok(leaf),
            None => Ok(self.load_leaf(at, fill_cache)?.into()),
        }
    }

    #[cold]
    fn load_leaf(&self, at: usize, fill_cache: bool) -> Result<Arc<Leaf>> {
        let root = &self.index;
        let handle = root.handle(at);
        self.cache.read_leaf((self.meta.run, handle.offset), || {
            // Another thread may have been quicker between the look into the slot and the call.
            if let Some(leaf) = root.child(at) {
                return Ok(leaf.into_arc());
            }
            let raw = read_raw(self.file(), &self.path, &self.meta, handle)?;
            let leaf = Leaf::decode(raw, handle.offset).map_err(|d| self.damaged(handle.offset, d))?;
            // The root names each partition by its last separator, so that a search cannot run off its end.
            if !leaf.is_separator(leaf.count() - 1, &root.separator(at)) {
                let what = "index partition does not end with its separator";
                return Err(Error::corrupt(FileKind::Run, &self.path, handle.offset, what));
            }
            Ok(if fill_cache { self.cache.keep_leaf(self.meta.run, root, at, leaf) } else { Arc::new(leaf) })
        })
    }

    /// The data block that entry `at` of `leaf` leads to, from its slot or the file; kept if there is room.
    #[inline]
    pub(super) fn block(&self, leaf: &Arc<Leaf>, at: usize) -> Result<Held<Block>> {
        match self.cached(leaf, at) {
            Some(block) => Ok(block),
            None => Ok(self.load_block(leaf, at)?.into()),
        }
    }

    /// The data block that entry `at` of `leaf` leads to, if it is in memory.
    #[inline]
    pub(super) fn cached(&self, leaf: &Leaf, at: usize) -> Option<Held<Block>> {
        let block = leaf.child(at);
        self.cache.count(block.is_some());
        block
    }

    #[cold]
    fn load_block(&self, leaf: &Arc<Leaf>, at: usize) -> Result<Arc<Block>> {
        let handle = leaf.handle(at);
        self.cache.read_block((self.meta.run, handle.offset), || {
            // Another thread may have been quicker between the look into the slot and the call.
            if let Some(block) = leaf.child(at) {
                return Ok(block.into_arc());
            }
            let raw = read_raw(self.file(), &self.path, &self.meta, handle)?;
            let block = Block::new(raw, handle.offset).map_err(|d| self.damaged(handle.offset, d))?;
            Ok(self.cache.keep_block(self.meta.run, leaf, at, block))
        })
    }

    /// A block from its stored bytes, which were read ahead.
    pub(super) fn open_block(&self, stored: &[u8], offset: u64) -> Result<Arc<Block>> {
        let raw = frame::open(stored, self.meta.run, offset).map_err(|d| self.damaged(offset, d))?;
        let block = Block::new(Bytes::from(raw), offset).map_err(|d| self.damaged(offset, d))?;
        Ok(Arc::new(block))
    }
}

impl Leveled for Arc<Run> {
    fn meta(&self) -> &RunMeta {
        &self.meta
    }
}

/// The index from the bytes of its root, and how many bytes it holds in memory.
fn decode_index(raw: Bytes, footer: &Footer) -> Result<(Root, usize), Damage> {
    if footer.index_levels == 2 {
        let root = Root::decode(raw, footer.index.offset)?;
        let bytes = root.byte_count();
        return Ok((root, bytes));
    }
    let leaf = Leaf::decode(raw, footer.index.offset)?;
    let leaf_bytes = leaf.byte_count();
    let root = Root::over(leaf, footer.index);
    let bytes = leaf_bytes + root.byte_count();
    Ok((root, bytes))
}

/// Damage in the stored block at `offset`, as an error. The place within a compressed block says little, so the
/// block's own offset is named.
fn damaged(path: &Path, offset: u64, damage: Damage) -> Error {
    Error::corrupt(FileKind::Run, path, offset, damage.what)
}

/// Whether `handle` lies before the footer of a file of `file_bytes`.
pub(super) fn in_bounds(handle: Handle, file_bytes: u64) -> bool {
    let end = handle.offset.checked_add(u64::from(handle.bytes));
    end.is_some_and(|end| end <= file_bytes - FOOTER_BYTES as u64)
}

/// Reads, verifies and decompresses the block at `handle`. Allocates nothing before the handle proved to lie within
/// the file.
fn read_raw(file: &dyn File, path: &Path, meta: &RunMeta, handle: Handle) -> Result<Bytes> {
    if !in_bounds(handle, meta.file_bytes) {
        return Err(Error::corrupt(FileKind::Run, path, handle.offset, "block handle points beyond the blocks"));
    }
    let mut stored = vec![0; handle.bytes as usize];
    file.read_at(handle.offset, &mut stored).map_err(|e| Error::io("read", path, e))?;
    let raw = frame::open(&stored, meta.run, handle.offset).map_err(|d| damaged(path, handle.offset, d))?;
    Ok(Bytes::from(raw))
}

/// What the file says of itself must be what the manifest says of it.
fn check_meta(properties: &Properties, meta: &RunMeta) -> Result<(), Damage> {
    let agree = properties.version_count == meta.version_count
        && properties.tombstone_count == meta.tombstone_count
        && (properties.key_count == properties.version_count) == meta.unique_keys
        && properties.seqno_min == meta.seqno_min
        && properties.seqno_max == meta.seqno_max
        && properties.key_min == meta.key_min
        && properties.key_max == meta.key_max
        && properties.values == meta.values;
    if agree { Ok(()) } else { Err(Damage { at: 0, what: "properties disagree with the manifest" }) }
}

#[cfg(test)]
mod tests;
