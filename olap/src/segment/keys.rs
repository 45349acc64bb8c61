//! Key index: full key → positions, beside each segment, so that a point read never scans a column.
//!
//! [`KeyWriter`] takes the keys of a segment in row order and writes the `.keys` file; [`KeyIndex`] keeps the fences, the
//! filter and the checksums of the Parquet file in memory and reads one key block per look-up.
//!
//! Always true:
//! * all versions of a key are in one block, newest first, so a look-up reads one block at most;
//! * position `p` is the `p`-th entry of the file, counted over all blocks;
//! * every byte is under a checksum keyed with the file number and the place it belongs to.
//!
//! Layout: FORMAT.md.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_oltp::env::{Access, Env, File, OpenMode};
use strata_oltp::{Error, FileId, FileKind, Result, SeqNo};

use super::file::{SumWriter, checksum};
use super::filter::{Filter, hash_key};
use super::wire::{Fields, common_prefix, put_bytes, put_varint};

/// First bytes of a key index.
pub(crate) const MAGIC: [u8; 8] = *b"STRAKEYS";
/// Format version written and the newest one read.
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 24;
pub(crate) const SECTION_COUNT: usize = 4;
pub(crate) const FOOTER_BYTES: usize = SECTION_COUNT * 24 + 32;

/// Entries after which a block ends at the next new key. 128 short entries decode in about a microsecond, and fences
/// for a million rows take 0.2 MB.
const BLOCK_ENTRIES: usize = 128;

/// Sections of the file, in file order.
#[derive(Clone, Copy, Debug)]
enum Section {
    Fences,
    Filter,
    Sums,
    Sketches,
}

/// Writes the key index of one segment.
#[derive(Debug)]
pub struct KeyWriter {
    id: FileId,
    path: PathBuf,
    out: SumWriter,
    hashes: Vec<u64>,
    last_key: Vec<u8>,
    block: BlockBuilder,
    fences: Vec<u8>,
    last_fence: Vec<u8>,
    block_count: u32,
    row_count: u32,
}

/// What is known of a finished key index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Length of the file.
    pub file_bytes: u64,
    /// Checksum of its footer, which holds those of its sections.
    pub footer_sum: u64,
}

impl KeyWriter {
    /// Creates the key index of segment `id`.
    ///
    /// # Errors
    /// I/O.
    pub fn create(env: &dyn Env, dir: &Path, id: FileId) -> Result<KeyWriter> {
        let path = FileKind::Keys.path(dir, id);
        let mut out = SumWriter::create(env, dir, FileKind::Keys, id)?;
        out.write_all(&header(id)).map_err(|e| Error::io("write", &path, e))?;
        Ok(KeyWriter {
            id,
            path,
            out,
            hashes: Vec::new(),
            last_key: Vec::new(),
            block: BlockBuilder::default(),
            fences: Vec::new(),
            last_fence: Vec::new(),
            block_count: 0,
            row_count: 0,
        })
    }

    /// Adds the next row's key. Keys ascend; versions of one key come newest first.
    ///
    /// # Errors
    /// I/O.
    pub fn add(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let is_new_key = self.row_count == 0 || key != self.last_key;
        debug_assert!(self.row_count == 0 || key >= self.last_key.as_slice(), "keys ascend");
        if is_new_key {
            if self.block.len() >= BLOCK_ENTRIES {
                self.end_block()?;
            }
            self.hashes.push(hash_key(key));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.block.add(key, seqno);
        self.row_count += 1;
        Ok(())
    }

    /// Memory held, mostly the hashes for the filter.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.hashes.capacity() * 8 + self.fences.capacity()
    }

    /// Writes the sections, with the checksums and sketches of the Parquet file, and syncs.
    ///
    /// # Errors
    /// I/O.
    ///
    /// # Panics
    /// If no key was added.
    pub fn finish(mut self, parquet_bytes: u64, sums: &[u64], sketches: &[u8]) -> Result<KeyFile> {
        assert!(self.row_count > 0, "a segment has rows");
        self.end_block()?;
        let mut filter = Vec::new();
        Filter::build(&self.hashes).encode(&mut filter);
        let mut stored_sums = Vec::with_capacity(sums.len() * 8);
        for sum in sums {
            stored_sums.extend_from_slice(&sum.to_le_bytes());
        }
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        let fences = std::mem::take(&mut self.fences);
        for bytes in [fences.as_slice(), &filter, &stored_sums, sketches] {
            let offset = self.out.bytes();
            footer.extend_from_slice(&offset.to_le_bytes());
            footer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            footer.extend_from_slice(&checksum(self.id, offset, bytes).to_le_bytes());
            self.write(bytes)?;
        }
        footer.extend_from_slice(&self.row_count.to_le_bytes());
        footer.extend_from_slice(&self.block_count.to_le_bytes());
        footer.extend_from_slice(&parquet_bytes.to_le_bytes());
        let footer_sum = checksum(self.id, self.out.bytes(), &footer);
        footer.extend_from_slice(&footer_sum.to_le_bytes());
        footer.extend_from_slice(&MAGIC);
        assert_eq!(footer.len(), FOOTER_BYTES);
        self.write(&footer)?;
        let (file_bytes, _) = self.out.finish().map_err(|e| Error::io("write", &self.path, e))?;
        Ok(KeyFile { file_bytes, footer_sum })
    }

    fn end_block(&mut self) -> Result<()> {
        let offset = self.out.bytes();
        let count = self.block.len();
        let first_key = self.block.first_key().to_vec();
        let mut bytes = self.block.finish();
        let sum = checksum(self.id, offset, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        put_varint(&mut self.fences, bytes.len() as u64);
        put_varint(&mut self.fences, count as u64);
        let shared = common_prefix(&self.last_fence, &first_key);
        put_varint(&mut self.fences, shared as u64);
        put_bytes(&mut self.fences, &first_key[shared..]);
        self.last_fence = first_key;
        self.block_count += 1;
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }
}

fn header(id: FileId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..].copy_from_slice(&id.0.to_le_bytes());
    header
}

/// Entries of the block being written.
#[derive(Debug, Default)]
struct BlockBuilder {
    keys: Vec<u8>,
    ends: Vec<usize>,
    seqnos: Vec<SeqNo>,
}

impl BlockBuilder {
    fn len(&self) -> usize {
        self.seqnos.len()
    }

    fn add(&mut self, key: &[u8], seqno: SeqNo) {
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.seqnos.push(seqno);
    }

    fn key(&self, entry: usize) -> &[u8] {
        let start = if entry == 0 { 0 } else { self.ends[entry - 1] };
        &self.keys[start..self.ends[entry]]
    }

    fn first_key(&self) -> &[u8] {
        self.key(0)
    }

    /// The block's bytes without checksum; the builder is empty afterwards.
    fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.keys.len() / 2 + 64);
        let prefix = common_prefix(self.key(0), self.key(self.len() - 1));
        let least = self.seqnos.iter().copied().min().unwrap_or_default();
        let is_uniform = self.seqnos.iter().all(|&seqno| seqno == least);
        put_varint(&mut out, self.len() as u64);
        put_varint(&mut out, least.0);
        out.push(u8::from(!is_uniform));
        put_bytes(&mut out, &self.key(0)[..prefix]);
        let mut previous: &[u8] = &[];
        for entry in 0..self.len() {
            let key = &self.key(entry)[prefix..];
            let shared = common_prefix(previous, key);
            let fresh = &key[shared..];
            // Both lengths in one byte where they fit, which is nearly always: a dense integer key costs 2 bytes a row.
            if shared < 15 && fresh.len() < 15 {
                out.push(((shared << 4) | fresh.len()).to_le_bytes()[0]);
            } else {
                out.push(ESCAPE);
                put_varint(&mut out, shared as u64);
                put_varint(&mut out, fresh.len() as u64);
            }
            out.extend_from_slice(fresh);
            if !is_uniform {
                put_varint(&mut out, self.seqnos[entry].0 - least.0);
            }
            previous = key;
        }
        self.keys.clear();
        self.ends.clear();
        self.seqnos.clear();
        out
    }
}

/// Length byte of an entry whose lengths follow as varints.
const ESCAPE: u8 = 0xFF;

/// Decoded entries of one block.
#[derive(Debug, Default)]
pub struct KeyBlock {
    /// Position of the first entry.
    pub first_position: u32,
    keys: Vec<u8>,
    ends: Vec<u32>,
    seqnos: Vec<SeqNo>,
}

impl KeyBlock {
    /// Entries in the block.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seqnos.len()
    }

    /// Whether there are none; never, for a stored block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seqnos.is_empty()
    }

    /// Full key of an entry.
    #[must_use]
    pub fn key(&self, entry: usize) -> &[u8] {
        let start = if entry == 0 { 0 } else { self.ends[entry - 1] as usize };
        &self.keys[start..self.ends[entry] as usize]
    }

    /// Commit of an entry.
    #[must_use]
    pub fn seqno(&self, entry: usize) -> SeqNo {
        self.seqnos[entry]
    }

    /// Memory held.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.keys.capacity() + self.ends.capacity() * 4 + self.seqnos.capacity() * 8 + size_of::<KeyBlock>()
    }

    /// First entry at or after `key`.
    #[must_use]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn decode(mut fields: Fields<'_>, first_position: u32) -> Result<KeyBlock> {
        let count = fields.count(1)?;
        let least = fields.varint()?;
        let is_uniform = match fields.u8()? {
            0 => true,
            1 => false,
            _ => return Err(fields.corrupt("unknown key block flag")),
        };
        let prefix = fields.bytes()?;
        let mut block = KeyBlock {
            first_position,
            keys: Vec::with_capacity(count * (prefix.len() + 8)),
            ends: Vec::with_capacity(count),
            seqnos: Vec::with_capacity(count),
        };
        let mut previous = 0..0;
        for _ in 0..count {
            let lengths = fields.u8()?;
            let (shared, fresh) = if lengths == ESCAPE {
                (fields.count(usize::MAX)?, fields.count(1)?)
            } else {
                (usize::from(lengths >> 4), usize::from(lengths & 15))
            };
            if shared > previous.len() {
                return Err(fields.corrupt("a key shares more than its predecessor has"));
            }
            let fresh = fields.take(fresh)?;
            block.keys.extend_from_slice(prefix);
            let start = block.keys.len();
            block.keys.extend_from_within(previous.start..previous.start + shared);
            block.keys.extend_from_slice(fresh);
            previous = start..block.keys.len();
            let end = u32::try_from(block.keys.len()).map_err(|_| fields.corrupt("a key block exceeds 4 GiB"))?;
            block.ends.push(end);
            let delta = if is_uniform { 0 } else { fields.varint()? };
            block.seqnos.push(SeqNo(least.saturating_add(delta)));
        }
        fields.finish()?;
        Ok(block)
    }
}

/// The open key index of a segment.
#[derive(Debug)]
pub struct KeyIndex {
    id: FileId,
    path: PathBuf,
    file: Arc<dyn File>,
    row_count: u32,
    fence_keys: Vec<u8>,
    fence_ends: Vec<u32>,
    /// Offset of each block and of the end of the last.
    offsets: Vec<u64>,
    /// First position of each block and the row count.
    positions: Vec<u32>,
    filter: Filter,
}

/// Parts of a key index that belong to the Parquet file.
#[derive(Debug)]
pub struct ParquetParts {
    /// Length of the Parquet file.
    pub parquet_bytes: u64,
    /// Checksums of its blocks.
    pub sums: Vec<u64>,
    /// Encoded distinct-count sketches.
    pub sketches: Vec<u8>,
}

impl KeyIndex {
    /// Opens the key index of segment `id` and checks it against what the manifest knows of it.
    ///
    /// # Errors
    /// I/O, [`Error::Corrupt`], [`Error::NewerFormat`].
    pub fn open(env: &dyn Env, dir: &Path, id: FileId, expected: KeyFile) -> Result<(KeyIndex, ParquetParts)> {
        let path = FileKind::Keys.path(dir, id);
        let file = env.open_immutable(&path, Access::Random).map_err(|e| Error::io("open", &path, e))?;
        let file_bytes = file.len().map_err(|e| Error::io("read the length of", &path, e))?;
        let corrupt = |offset, what: &'static str| Error::corrupt(FileKind::Keys, &path, offset, what);
        if file_bytes != expected.file_bytes || file_bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt(file_bytes.min(expected.file_bytes), "the file has another length than recorded"));
        }
        let read = |range: Range<u64>| read_range(&*file, &path, range);
        check_header(&read(0..HEADER_BYTES as u64)?, &path, id)?;
        let footer_at = file_bytes - FOOTER_BYTES as u64;
        let footer = read(footer_at..file_bytes)?;
        let mut fields = Fields::new(FileKind::Keys, &path, footer_at, &footer);
        let covered = FOOTER_BYTES - 16;
        let footer_sum = checksum(id, footer_at, &footer[..covered]);
        if footer[covered..covered + 8] != footer_sum.to_le_bytes()
            || footer[covered + 8..] != MAGIC
            || footer_sum != expected.footer_sum
        {
            return Err(corrupt(footer_at, "checksum of the footer does not match"));
        }
        let mut sections = Vec::with_capacity(SECTION_COUNT);
        let mut blocks_end = None;
        let mut next_offset = None;
        for _ in 0..SECTION_COUNT {
            let (offset, bytes, sum) = (fields.u64()?, fields.u64()?, fields.u64()?);
            if next_offset.is_some_and(|next| next != offset) || offset.saturating_add(bytes) > footer_at {
                return Err(fields.corrupt("sections are not where they belong"));
            }
            blocks_end.get_or_insert(offset);
            next_offset = Some(offset + bytes);
            let section = read(offset..offset + bytes)?;
            if checksum(id, offset, &section) != sum {
                return Err(corrupt(offset, "checksum of a section does not match"));
            }
            sections.push((offset, section));
        }
        if next_offset != Some(footer_at) {
            return Err(fields.corrupt("sections do not end at the footer"));
        }
        let (row_count, block_count, parquet_bytes) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let section = |which: Section| {
            let (offset, bytes) = &sections[which as usize];
            Fields::new(FileKind::Keys, &path, *offset, bytes)
        };
        let filter = Filter::decode(section(Section::Filter))?;
        let mut stored_sums = section(Section::Sums);
        let sums = (0..stored_sums.remaining() / 8).map(|_| stored_sums.u64()).collect::<Result<Vec<_>>>()?;
        let mut index = KeyIndex {
            id,
            file: Arc::clone(&file),
            row_count,
            fence_keys: Vec::new(),
            fence_ends: Vec::new(),
            offsets: vec![HEADER_BYTES as u64],
            positions: vec![0],
            filter,
            path: path.clone(),
        };
        index.decode_fences(section(Section::Fences), block_count, blocks_end.unwrap_or_default())?;
        let sketches = std::mem::take(&mut sections[Section::Sketches as usize].1);
        Ok((index, ParquetParts { parquet_bytes, sums, sketches }))
    }

    /// Rows indexed.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.row_count
    }

    /// Key blocks in the file.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.fence_ends.len()
    }

    /// Memory held by fences and filter.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.fence_keys.capacity()
            + self.fence_ends.capacity() * 4
            + self.offsets.capacity() * 8
            + self.positions.capacity() * 4
            + self.filter.memory_bytes()
    }

    /// Whether the filter lets a key with this hash pass.
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// The only block that can hold `key`; `None` if the key is below the first.
    #[must_use]
    pub fn block_of(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.block_count());
        while low < high {
            let middle = low.midpoint(high);
            if self.fence(middle) <= key { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    /// Block that holds `position`.
    #[must_use]
    pub fn block_at(&self, position: u32) -> usize {
        self.positions.partition_point(|&first| first <= position).saturating_sub(1)
    }

    /// Reads and checks a block.
    ///
    /// # Errors
    /// I/O or [`Error::Corrupt`].
    pub fn read_block(&self, block: usize) -> Result<KeyBlock> {
        let (start, end) = (self.offsets[block], self.offsets[block + 1]);
        let bytes = read_range(&*self.file, &self.path, start..end)?;
        let (body, sum) = bytes.split_at(bytes.len() - 8);
        if sum != checksum(self.id, start, body).to_le_bytes() {
            return Err(Error::corrupt(FileKind::Keys, &self.path, start, "checksum of a key block does not match"));
        }
        let decoded = KeyBlock::decode(Fields::new(FileKind::Keys, &self.path, start, body), self.positions[block])?;
        if decoded.len() as u32 != self.positions[block + 1] - self.positions[block] {
            return Err(Error::corrupt(FileKind::Keys, &self.path, start, "a key block has another number of entries"));
        }
        Ok(decoded)
    }

    fn fence(&self, block: usize) -> &[u8] {
        let start = if block == 0 { 0 } else { self.fence_ends[block - 1] as usize };
        &self.fence_keys[start..self.fence_ends[block] as usize]
    }

    fn decode_fences(&mut self, mut fields: Fields<'_>, block_count: u32, blocks_end: u64) -> Result<()> {
        let (mut offset, mut position) = (HEADER_BYTES as u64, 0_u32);
        let mut previous = 0..0;
        for _ in 0..block_count {
            let block_bytes = fields.varint()?;
            let entries = fields.varint32()?;
            let shared = fields.count(usize::MAX)?;
            let fresh = fields.bytes()?;
            if shared > previous.len() || block_bytes < 8 {
                return Err(fields.corrupt("a fence does not fit its predecessor"));
            }
            let start = self.fence_keys.len();
            self.fence_keys.extend_from_within(previous.start..previous.start + shared);
            self.fence_keys.extend_from_slice(fresh);
            previous = start..self.fence_keys.len();
            let end = u32::try_from(self.fence_keys.len()).map_err(|_| fields.corrupt("fences exceed 4 GiB"))?;
            self.fence_ends.push(end);
            offset = offset.checked_add(block_bytes).ok_or_else(|| fields.corrupt("a block leaves the file"))?;
            position = position.checked_add(entries).ok_or_else(|| fields.corrupt("too many entries"))?;
            self.offsets.push(offset);
            self.positions.push(position);
        }
        if offset != blocks_end || position != self.row_count || block_count == 0 {
            return Err(fields.corrupt("fences do not add up to the file"));
        }
        fields.finish()
    }
}

/// The checksums of the Parquet file in the key index of segment `id`, if footer and that section are sound, whatever
/// else is not: for tools.
pub(crate) fn stored_sums(env: &dyn Env, dir: &Path, id: FileId) -> Option<Vec<u64>> {
    let path = FileKind::Keys.path(dir, id);
    let file = env.open(&path, OpenMode::Read).ok()?;
    let footer_at = file.len().ok()?.checked_sub(FOOTER_BYTES as u64)?;
    let footer = read_range(&*file, &path, footer_at..footer_at + FOOTER_BYTES as u64).ok()?;
    let covered = FOOTER_BYTES - 16;
    if footer[covered..covered + 8] != checksum(id, footer_at, &footer[..covered]).to_le_bytes() {
        return None;
    }
    let mut fields = Fields::new(FileKind::Keys, &path, footer_at, &footer[24 * Section::Sums as usize..]);
    let (offset, bytes, sum) = (fields.u64().ok()?, fields.u64().ok()?, fields.u64().ok()?);
    let end = offset.checked_add(bytes).filter(|end| *end <= footer_at)?;
    let section = read_range(&*file, &path, offset..end).ok()?;
    if checksum(id, offset, &section) != sum {
        return None;
    }
    Some(section.chunks_exact(8).filter_map(|sum| sum.try_into().ok()).map(u64::from_le_bytes).collect())
}

fn check_header(found: &[u8], path: &Path, id: FileId) -> Result<()> {
    let ours = header(id);
    if found == ours {
        return Ok(());
    }
    let version = Fields::new(FileKind::Keys, path, 8, &found[8..]).u32()?;
    if found[..8] == ours[..8] && found[12..] == ours[12..] && version > VERSION {
        return Err(Error::NewerFormat { file: path.to_path_buf(), found: version, supported: VERSION });
    }
    Err(Error::corrupt(FileKind::Keys, path, 0, "the header is not this segment's"))
}

fn read_range(file: &dyn File, path: &Path, range: Range<u64>) -> Result<Vec<u8>> {
    let length = usize::try_from(range.end - range.start).expect("a piece of a file that fits in memory");
    let mut bytes = vec![0; length];
    file.read_at(range.start, &mut bytes).map_err(|e| Error::io("read", path, e))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
