//! `RunWriter`: sorted versions in, finished file out.
//!
//! One pass, one megabyte of buffer. The file is synced, its name too, then it is read back from the start and
//! verified, because a run replaces what it was made from: about one machine in a thousand corrupts data on its way,
//! and this is the last moment at which the source still exists.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::block::{BlockBuilder, shared_prefix};
use super::filter;
use super::footer::Footer;
use super::frame::Framer;
use super::index::{Handle, IndexBuilder, separator};
use super::properties::{Properties, fold_digest};
use super::{FUSE_VERSION, FilterKind, REFERENCE_VERSION, Run, RunOptions};
use crate::cache::BlockCache;
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::VersionKind;
use crate::manifest::RunMeta;
use crate::memory::Reservation;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::values::{ValueRef, count_reference};
use crate::work::pace::IoLimit;

/// Bytes collected before they are written.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// Key hashes taken from the budget at a time.
const HASHES_CHARGED: usize = 8192;
/// Largest key plus value. Offsets within a block are 32 bits wide.
pub const ENTRY_BYTES_MAX: usize = 1 << 30;

/// Writes one run. Dropping it unfinished leaves an orphan that recovery removes; [`RunWriter::abandon`] removes it
/// at once.
pub struct RunWriter {
    env: Arc<dyn Env>,
    dir: PathBuf,
    path: PathBuf,
    id: FileId,
    table: TableId,
    options: RunOptions,
    out: Output,
    block: BlockBuilder,
    raw: Vec<u8>,
    framer: Framer,
    index: IndexBuilder,
    /// A data block whose separator waits for the next block's first key.
    unindexed: Option<Handle>,
    separator: Vec<u8>,
    /// Hashes of the distinct keys, eight bytes each until the filter is built.
    hashes: Vec<u64>,
    last: Option<(Vec<u8>, SeqNo)>,
    properties: Properties,
    memory: Option<Reservation>,
    limit: Option<Arc<IoLimit>>,
}

/// The file's bytes on their way out.
pub(crate) struct Output {
    pub(crate) file: Arc<dyn File>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) written: u64,
    pub(crate) checksum: Xxh3Default,
}

impl Output {
    pub(crate) fn new(file: Arc<dyn File>) -> Output {
        Output { file, buffer: Vec::new(), written: 0, checksum: Xxh3Default::new() }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(crate) fn write(&mut self, path: &Path) -> Result<()> {
        self.checksum.update(&self.buffer);
        self.file.write_at(self.written, &self.buffer).map_err(|e| Error::io("write", path, e))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl RunWriter {
    /// Creates the run file `id` for `table` in the database directory `dir`, whose `runs` folder must exist.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created, which includes that it exists: numbers are never reused (I4).
    pub fn new(env: Arc<dyn Env>, dir: &Path, id: FileId, table: TableId, options: RunOptions) -> Result<RunWriter> {
        let path = FileKind::Run.path(dir, id);
        let file = env.open(&path, OpenMode::CreateNew).map_err(|e| Error::io("create", &path, e))?;
        let created_ms = u64::try_from(env.wall_clock().as_millis()).unwrap_or(u64::MAX);
        Ok(RunWriter {
            block: BlockBuilder::new(options.restart_interval),
            framer: Framer::new(options.compression),
            index: IndexBuilder::new(options.index_partition_bytes),
            out: Output::new(file),
            env,
            dir: dir.to_path_buf(),
            path,
            id,
            table,
            options,
            raw: Vec::new(),
            unindexed: None,
            separator: Vec::new(),
            hashes: Vec::new(),
            last: None,
            properties: Properties::of_nothing(created_ms),
            memory: None,
            limit: None,
        })
    }

    /// The writer, with what it holds of the keys taken from a budget, whether or not it fits: a merge that is under way
    /// frees memory only by getting to its end.
    #[must_use]
    pub fn charged(mut self, memory: Reservation) -> RunWriter {
        self.memory = Some(memory);
        self
    }

    /// The writer, held back to a limit of bytes per second that it shares with others.
    #[must_use]
    pub fn limited(mut self, limit: Option<Arc<IoLimit>>) -> RunWriter {
        self.limit = limit;
        self
    }

    /// Appends a version. Entries come in (key ascending, SeqNo descending) order; a delete has no value, the value of a
    /// reference is an encoded [`ValueRef`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Invalid`] if key and value together exceed [`ENTRY_BYTES_MAX`], or for a reference that
    /// does not decode.
    ///
    /// # Panics
    /// If the entry does not lie strictly behind the previous one (I5), or a delete carries a value.
    pub fn add(&mut self, key: &[u8], seqno: SeqNo, kind: VersionKind, value: &[u8]) -> Result<()> {
        assert!(kind != VersionKind::Delete || value.is_empty(), "a delete carries no value");
        if kind == VersionKind::Reference {
            let at = ValueRef::decode(value).map_err(|d| Error::Invalid(format!("malformed reference: {}", d.what)))?;
            count_reference(&mut self.properties.values, at);
        }
        if key.len().saturating_add(value.len()) > ENTRY_BYTES_MAX {
            return Err(Error::Invalid(format!("a row may have at most {ENTRY_BYTES_MAX} bytes")));
        }
        let (shared, new_key) = self.place(key, seqno);
        // Closing before the entry rather than after keeps blocks at or below the target but for a single big entry.
        if !self.block.is_empty()
            && self.block.byte_count() + key.len() - shared + value.len() > self.options.block_bytes
        {
            self.close_block()?;
        }
        if let Some(handle) = self.unindexed.take() {
            let last = self.last.as_ref().map_or(&[][..], |(last, _)| last);
            separator(last, key, &mut self.separator);
            self.index.add(&self.separator, handle);
        }
        let hash = if new_key {
            let hash = filter::key_hash(key);
            if let (0, Some(memory)) = (self.hashes.len() % HASHES_CHARGED, &self.memory) {
                memory.grow((HASHES_CHARGED * size_of::<u64>()) as u64);
            }
            self.hashes.push(hash);
            hash
        } else {
            self.hashes.last().copied().unwrap_or_default()
        };
        self.block.add(key, shared, seqno, kind, value, Some(hash));
        self.count(key, seqno, kind, new_key);
        Ok(())
    }

    /// How many bytes the key shares with the previous one and whether it differs from it.
    fn place(&self, key: &[u8], seqno: SeqNo) -> (usize, bool) {
        let Some((last, last_seqno)) = &self.last else { return (0, true) };
        let shared = shared_prefix(last, key);
        let repeated = shared == key.len() && shared == last.len();
        let rises = match (last.get(shared), key.get(shared)) {
            (Some(a), Some(b)) => a < b,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => seqno < *last_seqno,
        };
        assert!(rises, "versions must rise in (key, SeqNo descending) order"); // I5
        (shared, !repeated)
    }

    fn count(&mut self, key: &[u8], seqno: SeqNo, kind: VersionKind, new_key: bool) {
        let facts = &mut self.properties;
        facts.version_count += 1;
        facts.tombstone_count += u64::from(kind == VersionKind::Delete);
        facts.key_count += u64::from(new_key);
        facts.seqno_min = facts.seqno_min.min(seqno);
        facts.seqno_max = facts.seqno_max.max(seqno);
        match &mut self.last {
            Some((last, last_seqno)) => {
                last.clear();
                last.extend_from_slice(key);
                *last_seqno = seqno;
            }
            None => {
                facts.key_min = key.to_vec();
                self.last = Some((key.to_vec(), seqno));
            }
        }
    }

    /// Bytes written or waiting to be, for callers that cut outputs at a size.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.out.offset() + self.block.byte_count() as u64
    }

    /// Key of the version added last.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        self.last.as_ref().map(|(key, _)| &key[..])
    }

    /// Versions added so far.
    #[must_use]
    pub fn version_count(&self) -> u64 {
        self.properties.version_count
    }

    fn close_block(&mut self) -> Result<()> {
        self.block.finish_into(&mut self.raw);
        self.properties.block_count += 1;
        self.properties.raw_bytes += self.raw.len() as u64;
        self.properties.raw_digest = fold_digest(self.properties.raw_digest, &self.raw);
        let raw = std::mem::take(&mut self.raw);
        let handle = self.append(&raw, true);
        self.raw = raw;
        self.unindexed = Some(handle?);
        Ok(())
    }

    /// Appends a stored block, compressed if that is worth it and wanted.
    fn append(&mut self, raw: &[u8], compress: bool) -> Result<Handle> {
        let offset = self.out.offset();
        let bytes = if compress {
            self.framer.append(&mut self.out.buffer, raw, self.id, offset)
        } else {
            Framer::append_raw(&mut self.out.buffer, raw, self.id, offset)
        };
        if self.out.buffer.len() >= BUFFER_BYTES {
            self.limit.iter().for_each(|limit| limit.take(&*self.env, self.out.buffer.len() as u64));
            self.out.write(&self.path)?;
        }
        let bytes = u32::try_from(bytes).map_err(|_| Error::Invalid("a block of a run exceeds 4 GiB".to_owned()))?;
        Ok(Handle { offset, bytes })
    }

    /// Completes the file, makes it and its name durable, reads it back and verifies it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Corrupt`] if the file does not read back as it was written. It is then removed.
    ///
    /// # Panics
    /// If nothing was added: an empty run has no key range; callers use [`RunWriter::abandon`].
    pub fn finish(mut self) -> Result<RunMeta> {
        assert!(self.properties.version_count > 0, "a run holds at least one version");
        let finished = self.complete().and_then(|meta| {
            let cache = BlockCache::disabled();
            Run::open(&self.env, &self.dir, &meta, cache)?.verify()?;
            Ok(meta)
        });
        if finished.is_err() {
            // The first error is the one to report; a file that stays behind is an orphan for recovery.
            let _ = self.abandon();
        }
        finished
    }

    fn complete(&mut self) -> Result<RunMeta> {
        self.close_block()?;
        if let (Some(handle), Some((last, _))) = (self.unindexed.take(), &self.last) {
            self.index.add(last, handle);
            self.properties.key_max.clone_from(last);
        }
        let footer = self.append_metadata()?;
        self.out.buffer.extend_from_slice(&footer.encode());
        self.out.write(&self.path)?;
        self.out.file.sync().map_err(|e| Error::io("sync", &self.path, e))?;
        let folder = self.path.parent().unwrap_or(&self.dir);
        self.env.sync_dir(folder).map_err(|e| Error::io("sync", folder, e))?;
        let facts = &self.properties;
        Ok(RunMeta {
            run: self.id,
            table: self.table,
            file_bytes: self.out.written,
            version_count: facts.version_count,
            tombstone_count: facts.tombstone_count,
            key_min: facts.key_min.clone(),
            key_max: facts.key_max.clone(),
            seqno_min: facts.seqno_min,
            seqno_max: facts.seqno_max,
            unique_keys: facts.key_count == facts.version_count,
            checksum: self.out.checksum.digest(),
            created_ms: facts.created_ms,
            values: facts.values.clone(),
        })
    }

    /// Filter, index and properties, in file order.
    fn append_metadata(&mut self) -> Result<Footer> {
        let mut version = 1;
        let filter = if self.options.filter_bits_per_key == 0 {
            Handle { offset: 0, bytes: 0 }
        } else {
            let (hashes, bits_per_key) = (std::mem::take(&mut self.hashes), self.options.filter_bits_per_key);
            let (bytes, kind) = filter::build(hashes, self.options.filter, bits_per_key, self.memory.as_ref());
            if kind == FilterKind::Fuse {
                version = version.max(FUSE_VERSION);
            }
            self.append(&bytes, false)?
        };
        let index = std::mem::replace(&mut self.index, IndexBuilder::new(0));
        let partitions = index.finish();
        let mut handles = Vec::with_capacity(partitions.len());
        for (_, bytes) in &partitions {
            handles.push(self.append(bytes, true)?);
        }
        let (index, index_levels) = match handles[..] {
            [only] => (only, 1),
            _ => (self.append(&IndexBuilder::root(&partitions, &handles), true)?, 2),
        };
        let properties = self.append(&self.properties.encode(), false)?;
        let (id, table) = (self.id, self.table);
        if !self.properties.values.is_empty() {
            version = version.max(REFERENCE_VERSION);
        }
        Ok(Footer { id, table, index_levels, index, filter, properties, version })
    }

    /// Removes the unfinished file.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is then an orphan that recovery removes.
    pub fn abandon(self) -> Result<()> {
        self.env.remove(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }
}
