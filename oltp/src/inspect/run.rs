//! A run as far as it can be read, without its record in the manifest.
//!
//! The index says where the blocks are. Where it is damaged, they are looked for: a block has no length in front, but
//! its trailer holds one behind, and its checksum depends on where the block begins, so a wrong guess does not pass.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::dump::title;
use super::log::say_version;
use super::patient::Patient;
use super::{Dump, Fault};
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::sstable::block::{Block, BlockCursor};
use crate::sstable::footer::{FOOTER_BYTES, Footer};
use crate::sstable::frame::{self, TRAILER_BYTES};
use crate::sstable::index::Handle;
use crate::sstable::properties::Properties;
use crate::sstable::varint::Damage;
use crate::sync::Arc;

/// Bytes searched for the next block behind a damaged one whose end is unknown.
const SEARCH_BYTES: u64 = 64 << 10;

/// A run file whose parts are read one by one.
#[derive(Debug)]
pub(crate) struct RunFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// From the name, or from the footer of a renamed file.
    pub id: FileId,
    pub footer: Option<Footer>,
    pub properties: Option<Properties>,
    /// What does not hold about footer and properties.
    pub faults: Vec<Fault>,
    file: Patient,
}

/// A data block, or the place where one is damaged.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A block that verifies, decoded.
    Block(Handle, Arc<Block>),
    /// Bytes that hold no readable block: from offset to end. The keys in it lie behind all keys so far, and up to the
    /// separator if the index knows it.
    Gap { offset: u64, end: u64, separator: Option<Vec<u8>> },
}

impl RunFile {
    /// Opens the file; damage becomes faults.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(env: &dyn Env, path: &Path, id: Option<FileId>) -> Result<RunFile> {
        let file = env.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
        let bytes = file.len().map_err(|e| Error::io("measure", path, e))?;
        let mut run = RunFile {
            path: path.to_path_buf(),
            bytes,
            id: id.unwrap_or(FileId(0)),
            footer: None,
            properties: None,
            faults: Vec::new(),
            file: Patient(file),
        };
        let Some(footer_at) = bytes.checked_sub(FOOTER_BYTES as u64) else {
            run.fault(bytes, "file is shorter than its footer");
            return Ok(run);
        };
        let mut footer = [0; FOOTER_BYTES];
        run.file.read_at(footer_at, &mut footer).map_err(|e| Error::io("read", path, e))?;
        match Footer::decode(&footer) {
            Ok(footer) => {
                run.id = id.unwrap_or(footer.id);
                if footer.id != run.id {
                    run.fault(footer_at, format!("the footer is of run {}", footer.id));
                }
                run.footer = Some(footer);
                match run.read(footer.properties)?.and_then(|raw| Properties::decode(&raw)) {
                    Ok(properties) => run.properties = Some(properties),
                    Err(damage) => run.fault(footer.properties.offset, format!("properties: {}", damage.what)),
                }
            }
            Err(damage) => run.fault(footer_at, damage.what),
        }
        Ok(run)
    }

    fn fault(&mut self, offset: u64, what: impl Into<String>) {
        let fault = Fault::new(FileKind::Run, &self.path, offset, what);
        self.faults.push(fault);
    }

    /// The verified, decompressed bytes of the stored block at `handle`.
    ///
    /// # Errors
    /// [`Error::Io`] outside, damage inside.
    fn read(&self, handle: Handle) -> Result<Result<Vec<u8>, Damage>> {
        let end = handle.offset.checked_add(u64::from(handle.bytes));
        if end.is_none_or(|end| end > self.bytes) {
            return Ok(Err(Damage { at: 0, what: "block handle points beyond the file" }));
        }
        let mut stored = vec![0; handle.bytes as usize];
        self.file.read_at(handle.offset, &mut stored).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(frame::open(&stored, self.id, handle.offset))
    }

    fn block(&self, handle: Handle) -> Result<Result<Arc<Block>, Damage>> {
        let raw = self.read(handle)?;
        Ok(raw.and_then(|raw| Block::new(Bytes::from(raw), handle.offset)).map(Arc::new))
    }

    /// Whether the stored part at `handle` verifies; its fault if not.
    fn check(&self, handle: Handle, part: &str) -> Result<Option<Fault>> {
        let damage = self.read(handle)?.err();
        Ok(damage.map(|d| Fault::new(FileKind::Run, &self.path, handle.offset, format!("{part}: {}", d.what))))
    }

    /// Where the data blocks end: the next part begins there.
    fn data_end(&self) -> u64 {
        let parts = self.footer.iter().flat_map(|f| [f.index, f.filter, f.properties]);
        let first = parts.filter(|part| part.bytes > 0 && part.offset < self.bytes).map(|part| part.offset).min();
        first.unwrap_or(self.bytes)
    }

    /// Calls `visit` with every data block in file order and with the gaps between them. Index faults are pushed.
    ///
    /// # Errors
    /// [`Error::Io`]; whatever `visit` returns.
    pub fn walk(&self, faults: &mut Vec<Fault>, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        let mut at = 0;
        if let Some(footer) = self.footer {
            if footer.filter.bytes > 0 {
                faults.extend(self.check(footer.filter, "filter")?);
            }
            self.walk_index(footer.index, footer.index_levels == 2, &mut at, faults, visit)?;
        }
        // With a sound index this finds nothing. A partition of the index lies behind the data, so it is no block of it.
        self.search(at, self.data_end(), visit)
    }

    fn walk_index(
        &self,
        root: Handle,
        has_partitions: bool,
        at: &mut u64,
        faults: &mut Vec<Fault>,
        visit: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        let fault = |offset, what| Fault::new(FileKind::Run, &self.path, offset, format!("index: {what}"));
        let mut cursor = match self.block(root)? {
            Ok(block) => BlockCursor::new(block),
            Err(damage) => {
                faults.push(fault(root.offset, damage.what));
                return Ok(());
            }
        };
        loop {
            let handle = match cursor.next() {
                Ok(false) => return Ok(()),
                Ok(true) => Handle::decode(cursor.value()),
                Err(damage) => Err(damage),
            };
            let handle = match handle {
                Ok(handle) => handle,
                Err(damage) => {
                    faults.push(fault(root.offset, damage.what));
                    return Ok(());
                }
            };
            if has_partitions {
                self.walk_index(handle, false, at, faults, visit)?;
            } else if handle.offset < *at || handle.offset >= self.data_end() {
                faults.push(fault(root.offset, "data blocks do not follow each other"));
            } else {
                // Behind an index partition that cannot be read, its blocks are looked for.
                self.search(*at, handle.offset, visit)?;
                *at = handle.offset + u64::from(handle.bytes);
                self.visit_block(handle, Some(cursor.key()), visit)?;
            }
        }
    }

    fn visit_block(
        &self,
        handle: Handle,
        separator: Option<&[u8]>,
        visit: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        match self.block(handle)? {
            Ok(block) if is_readable(&block) => visit(Piece::Block(handle, block)),
            _ => {
                let end = (handle.offset + u64::from(handle.bytes)).min(self.bytes);
                visit(Piece::Gap { offset: handle.offset, end, separator: separator.map(<[u8]>::to_vec) })
            }
        }
    }

    /// Looks for blocks from `at` to `end`, where no index says where they are.
    fn search(&self, mut at: u64, end: u64, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        let mut window = Window::default();
        while at < end {
            window.fill(self, at, end)?;
            match window.part(self.id, at) {
                Some((handle, Some(block))) => {
                    at += u64::from(handle.bytes);
                    visit(Piece::Block(handle, block))?;
                    continue;
                }
                // The first part that is sound and no data block lies behind the last data block.
                Some((_, None)) => return Ok(()),
                None => {}
            }
            let starts = at + 1..end.min(at + SEARCH_BYTES);
            let gap_end = starts.into_iter().find(|start| window.part(self.id, *start).is_some()).unwrap_or(end);
            visit(Piece::Gap { offset: at, end: gap_end, separator: None })?;
            at = gap_end;
        }
        Ok(())
    }
}

/// Bytes of a run in which blocks are looked for, and every place where a block could end.
#[derive(Debug, Default)]
struct Window {
    base: u64,
    bytes: Vec<u8>,
    /// Where a trailer may stand, with its compression and the length before it.
    trailers: Vec<(usize, u8, usize)>,
}

impl Window {
    /// Makes the window hold what a search from `at` needs.
    fn fill(&mut self, run: &RunFile, at: u64, end: u64) -> Result<()> {
        if at >= self.base && end.min(at + 2 * SEARCH_BYTES) <= self.base + self.bytes.len() as u64 {
            return Ok(());
        }
        self.base = at;
        self.bytes = vec![0; usize::try_from((end - at).min(8 * SEARCH_BYTES)).unwrap_or(0)];
        run.file.read_at(at, &mut self.bytes).map_err(|e| Error::io("read", &run.path, e))?;
        let ends = self.bytes.windows(TRAILER_BYTES).enumerate();
        let plausible = ends.filter_map(|(at, trailer)| {
            let raw_bytes = u32::from_le_bytes([trailer[1], trailer[2], trailer[3], trailer[4]]) as usize;
            (trailer[0] <= 2 && raw_bytes > 0 && raw_bytes <= frame::COMPRESSED_RAW_BYTES_MAX)
                .then_some((at, trailer[0], raw_bytes))
        });
        self.trailers = plausible.collect();
        Ok(())
    }

    /// The stored part that begins at `start`, with its entries if it is a data block.
    fn part(&self, id: FileId, start: u64) -> Option<(Handle, Option<Arc<Block>>)> {
        let from = usize::try_from(start.checked_sub(self.base)?).ok()?;
        let behind = self.trailers.partition_point(|(at, ..)| *at <= from);
        for (at, tag, raw_bytes) in &self.trailers[behind..] {
            let payload_bytes = at - from;
            if payload_bytes as u64 > SEARCH_BYTES {
                return None;
            }
            // LZ4 compresses at most 255 times; a block that compression did not shrink is stored as it is.
            let is_plausible = match tag {
                0 => *raw_bytes == payload_bytes,
                _ => *raw_bytes > payload_bytes && *raw_bytes / 256 <= payload_bytes,
            };
            if !is_plausible {
                continue;
            }
            if let Ok(raw) = frame::open(&self.bytes[from..at + TRAILER_BYTES], id, start) {
                let bytes = u32::try_from(payload_bytes + TRAILER_BYTES).unwrap_or(u32::MAX);
                let block = Block::new(Bytes::from(raw), start).ok().map(Arc::new).filter(is_data);
                return Some((Handle { offset: start, bytes }, block));
            }
        }
        None
    }
}

/// Whether a block found without an index holds versions: entries of an index carry no commit.
fn is_data(block: &Arc<Block>) -> bool {
    let mut cursor = BlockCursor::new(Arc::clone(block));
    is_readable(block) && cursor.next() == Ok(true) && cursor.seqno() > SeqNo::ZERO
}

/// Whether all entries decode: a checksum that holds does not prove what wrote it.
fn is_readable(block: &Arc<Block>) -> bool {
    let mut cursor = BlockCursor::new(Arc::clone(block));
    let mut count = 0;
    loop {
        match cursor.next() {
            Ok(true) => count += 1,
            Ok(false) => return count == block.entry_count(),
            Err(_) => return false,
        }
    }
}

/// `strata inspect` of a run.
///
/// # Errors
/// [`Error::Io`].
pub fn inspect(env: &dyn Env, path: &Path, id: Option<FileId>, dump: &mut Dump<'_>) -> Result<()> {
    let run = RunFile::open(env, path, id)?;
    let table = run.footer.map_or_else(String::new, |footer| format!(", table {}", footer.table.0));
    dump.say(0, format!("{}{table}, {} bytes", title(FileKind::Run, Some(run.id)), run.bytes));
    for fault in &run.faults {
        dump.fault(1, fault.clone());
    }
    if let Some(footer) = run.footer {
        let part = |handle: Handle| format!("{} bytes at {}", handle.bytes, handle.offset);
        let (index, filter, properties) = (part(footer.index), part(footer.filter), part(footer.properties));
        dump.say(1, format!("format {}, index {index} ({} levels)", footer.version, footer.index_levels));
        dump.say(1, format!("filter {filter}, properties {properties}"));
    }
    if let Some(facts) = &run.properties {
        dump.say(
            1,
            format!(
                "{} versions ({} tombstones) of {} keys in {} blocks, {} bytes before compression",
                facts.version_count, facts.tombstone_count, facts.key_count, facts.block_count, facts.raw_bytes
            ),
        );
        let (first, last) = (dump.key(&facts.key_min), dump.key(&facts.key_max));
        dump.say(1, format!("commits {} to {}, keys {first} to {last}", facts.seqno_min, facts.seqno_max));
        dump.say(1, format!("written at {} ms since 1970", facts.created_ms));
    }
    let (mut faults, mut count, mut versions) = (Vec::new(), 0, 0);
    run.walk(&mut faults, &mut |piece| {
        match piece {
            Piece::Block(handle, block) => {
                let entries = block.entry_count();
                let text = format!("block at {}: {} bytes, {entries} versions", handle.offset, handle.bytes);
                dump.item(1, count, |_| text);
                say_entries(&block, count, &mut versions, dump);
                count += 1;
            }
            Piece::Gap { offset, end, .. } => {
                let what = format!("{} bytes that hold no readable block", end - offset);
                dump.fault(1, Fault::new(FileKind::Run, path, offset, what));
            }
        }
        Ok(())
    })?;
    dump.end_list(1, count);
    for fault in faults {
        dump.fault(1, fault);
    }
    Ok(())
}

fn say_entries(block: &Arc<Block>, block_at: u64, versions: &mut u64, dump: &mut Dump<'_>) {
    let mut cursor = BlockCursor::new(Arc::clone(block));
    let mut hidden = 0u64;
    while let Ok(true) = cursor.next() {
        // The limit is on all entries, or a hundred blocks of a hundred rows would be shown.
        if dump.shows(block_at) && dump.shows(*versions) {
            let text = say_version(dump, cursor.key(), Some(cursor.seqno()), cursor.kind(), cursor.value());
            dump.say(2, text);
        } else {
            hidden += 1;
        }
        *versions += 1;
    }
    if hidden > 0 && dump.shows(block_at) {
        dump.say(2, format!("… {hidden} more"));
    }
}
