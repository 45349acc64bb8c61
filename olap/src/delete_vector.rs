//! Deletion vectors: which positions of a segment later commits superseded, and when.
//!
//! [`Marks`] is the hot part, in memory, append-only between seals; a commit adds to it inside the commit mutex. A seal
//! writes a `.marks` file: a roaring bitmap of what every snapshot agrees on, and (position, SeqNo) pairs above.
//!
//! Always true:
//! * a position carries one mark, the earliest SeqNo that superseded it;
//! * marks only grow, and a reader at S sees exactly those at or below S (I7), whatever is added meanwhile;
//! * `settled` holds marks at or below `settled_through`, which no reader's snapshot is below.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use roaring::RoaringBitmap;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::{Error, FileId, FileKind, Result, SeqNo};

use crate::segment::file::checksum;
use crate::segment::wire::{Fields, put_bytes, put_varint};

/// First bytes of a sealed deletion vector.
pub(crate) const MAGIC: [u8; 8] = *b"STRAMARK";
/// Format version written and the newest one read.
pub(crate) const VERSION: u32 = 1;

/// Resolved bitmaps kept per segment: the newest snapshot's, and a few for older ones still being read.
const RESOLVED_MAX: usize = 4;

/// Marks of one segment.
#[derive(Debug, Default)]
pub struct Marks {
    hot: RwLock<Hot>,
    resolved: Mutex<Vec<Resolved>>,
    sealed: Mutex<Sealed>,
}

#[derive(Debug, Default)]
struct Hot {
    /// Changes whenever a prefix of the log is no longer what it was.
    epoch: u64,
    settled: Arc<RoaringBitmap>,
    settled_through: SeqNo,
    /// In commit order, so the marks of a snapshot are a prefix.
    log: Vec<(SeqNo, u32)>,
    by_position: HashMap<u32, SeqNo>,
}

#[derive(Clone, Debug)]
struct Resolved {
    epoch: u64,
    log_count: usize,
    bitmap: Arc<RoaringBitmap>,
}

/// What the newest `.marks` file of a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The file; `None` if the segment had no mark.
    pub file: Option<FileId>,
    /// Every mark by a commit at or below this is in the file.
    pub through: SeqNo,
    /// Marks in the file.
    pub count: u64,
}

impl Marks {
    /// Marks of a new segment: `pairs` in any order, sealed in `sealed`.
    #[must_use]
    pub fn new(mut pairs: Vec<(SeqNo, u32)>, sealed: Sealed) -> Marks {
        pairs.sort_unstable();
        let by_position = pairs.iter().map(|&(seqno, position)| (position, seqno)).collect();
        let hot = Hot { log: pairs, by_position, ..Hot::default() };
        Marks { hot: RwLock::new(hot), resolved: Mutex::default(), sealed: Mutex::new(sealed) }
    }

    /// Marks `position` as superseded at `seqno`, unless an earlier commit did so already. Memory only.
    pub fn mark(&self, position: u32, seqno: SeqNo) {
        let mut hot = self.hot_mut();
        if hot.settled.contains(position) {
            return;
        }
        match hot.by_position.get(&position) {
            Some(&earlier) if earlier <= seqno => return,
            Some(&later) => {
                // Only while marks are replayed or translated, before the segment has readers at `later`.
                hot.log.retain(|&entry| entry != (later, position));
                hot.epoch += 1;
            }
            None => {}
        }
        hot.by_position.insert(position, seqno);
        let at = hot.log.partition_point(|&(earlier, _)| earlier <= seqno);
        if at < hot.log.len() {
            hot.epoch += 1;
        }
        hot.log.insert(at, (seqno, position));
    }

    /// The commit that superseded `position`; for a settled mark, some commit no snapshot is below.
    #[must_use]
    pub fn mark_of(&self, position: u32) -> Option<SeqNo> {
        let hot = self.hot();
        if hot.settled.contains(position) {
            return Some(hot.settled_through);
        }
        hot.by_position.get(&position).copied()
    }

    /// Whether the commit that superseded `position` is not known any more: it is one that every snapshot sees.
    #[must_use]
    pub fn is_settled(&self, position: u32) -> bool {
        self.hot().settled.contains(position)
    }

    /// Positions superseded at or below `at`. Shared between callers at the same state; cost of a miss is the number
    /// of marks since the nearest older answer, plus a copy of the bitmap.
    #[must_use]
    pub fn marks_at(&self, at: SeqNo) -> Arc<RoaringBitmap> {
        let (epoch, log_count, base, fresh) = {
            let hot = self.hot();
            let log_count = hot.log.partition_point(|&(seqno, _)| seqno <= at);
            let nearest = self.nearest(hot.epoch, log_count);
            let (from, base) = match nearest {
                Some(found) if found.log_count == log_count => return found.bitmap,
                Some(found) => (found.log_count, found.bitmap),
                None if log_count == 0 => return Arc::clone(&hot.settled),
                None => (0, Arc::clone(&hot.settled)),
            };
            // Copied out so that the bitmap is built without the lock that commits need.
            (hot.epoch, log_count, base, hot.log[from..log_count].to_vec())
        };
        let mut bitmap = RoaringBitmap::clone(&base);
        bitmap.extend(fresh.into_iter().map(|(_, position)| position));
        let bitmap = Arc::new(bitmap);
        let mut resolved = lock(&self.resolved);
        resolved.retain(|r| r.epoch == epoch && r.log_count != log_count);
        if resolved.len() == RESOLVED_MAX {
            resolved.remove(0);
        }
        resolved.push(Resolved { epoch, log_count, bitmap: Arc::clone(&bitmap) });
        bitmap
    }

    /// Positions superseded at or below `at`.
    #[must_use]
    pub fn count_at(&self, at: SeqNo) -> u64 {
        let hot = self.hot();
        hot.settled.len() + hot.log.partition_point(|&(seqno, _)| seqno <= at) as u64
    }

    /// Marks of all snapshots.
    #[must_use]
    pub fn count(&self) -> u64 {
        let hot = self.hot();
        hot.settled.len() + hot.log.len() as u64
    }

    /// Whether no position is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Memory held, roughly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let hot = self.hot();
        // A log entry, a map entry and its share of the map's free slots.
        hot.log.capacity() * 16 + hot.by_position.capacity() * 18 + hot.settled.serialized_size()
    }

    /// Every mark, by position. Settled ones come with the SeqNo they are settled through.
    #[must_use]
    pub fn all(&self) -> Vec<(u32, SeqNo)> {
        let hot = self.hot();
        let settled = hot.settled.iter().map(|position| (position, hot.settled_through));
        let mut all: Vec<_> = settled.chain(hot.log.iter().map(|&(seqno, position)| (position, seqno))).collect();
        all.sort_unstable();
        all
    }

    /// Declares that no snapshot is below `watermark`: marks at or below lose their SeqNo and most of their memory.
    pub fn settle(&self, watermark: SeqNo) {
        let mut hot = self.hot_mut();
        let count = hot.log.partition_point(|&(seqno, _)| seqno <= watermark);
        if count == 0 || watermark < hot.settled_through {
            return;
        }
        let mut settled = RoaringBitmap::clone(&hot.settled);
        for (_, position) in hot.log.drain(..count).collect::<Vec<_>>() {
            settled.insert(position);
            hot.by_position.remove(&position);
        }
        hot.settled = Arc::new(settled);
        hot.settled_through = watermark;
        hot.epoch += 1;
    }

    /// What the newest `.marks` file holds.
    #[must_use]
    pub fn sealed(&self) -> Sealed {
        *lock(&self.sealed)
    }

    /// Remembers what a finished seal wrote.
    pub fn set_sealed(&self, sealed: Sealed) {
        *lock(&self.sealed) = sealed;
    }

    /// Marks at or below `through`, for sealing: settled bitmap, its bound, and the pairs above.
    fn prefix(&self, through: SeqNo) -> Contents {
        let hot = self.hot();
        let count = hot.log.partition_point(|&(seqno, _)| seqno <= through);
        Contents {
            settled: Arc::clone(&hot.settled),
            settled_through: hot.settled_through,
            pairs: hot.log[..count].iter().map(|&(seqno, position)| (position, seqno)).collect(),
        }
    }

    fn nearest(&self, epoch: u64, log_count: usize) -> Option<Resolved> {
        let resolved = lock(&self.resolved);
        let usable = resolved.iter().filter(|r| r.epoch == epoch && r.log_count <= log_count);
        usable.max_by_key(|r| r.log_count).cloned()
    }

    fn hot(&self) -> RwLockReadGuard<'_, Hot> {
        self.hot.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn hot_mut(&self) -> RwLockWriteGuard<'_, Hot> {
        self.hot.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a `.marks` file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contents {
    settled: Arc<RoaringBitmap>,
    settled_through: SeqNo,
    pairs: Vec<(u32, SeqNo)>,
}

impl Contents {
    /// Bytes of the file `id` for `segment`.
    pub(crate) fn encode(&self, id: FileId, segment: FileId) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.settled.serialized_size() + self.pairs.len() * 6);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&segment.0.to_le_bytes());
        out.extend_from_slice(&self.settled_through.0.to_le_bytes());
        let mut bitmap = Vec::with_capacity(self.settled.serialized_size());
        self.settled.serialize_into(&mut bitmap).expect("writing to memory does not fail");
        put_bytes(&mut out, &bitmap);
        let mut pairs = self.pairs.clone();
        pairs.sort_unstable();
        put_varint(&mut out, pairs.len() as u64);
        let mut next = 0;
        for (position, seqno) in pairs {
            put_varint(&mut out, u64::from(position - next));
            put_varint(&mut out, seqno.0);
            next = position + 1;
        }
        let sum = checksum(id, 0, &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the file `id`, which must be of `segment` with `row_count` rows.
    pub(crate) fn decode(bytes: &[u8], path: &Path, id: FileId, segment: FileId, row_count: u32) -> Result<Contents> {
        let corrupt = |offset: usize, what| Error::corrupt(FileKind::Marks, path, offset as u64, what);
        if bytes.len() < 8 {
            return Err(corrupt(bytes.len(), "the file is too short"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - 8);
        if sum != checksum(id, 0, body).to_le_bytes() {
            return Err(corrupt(0, "checksum does not match"));
        }
        let mut fields = Fields::new(FileKind::Marks, path, 0, body);
        if fields.take(8)? != MAGIC {
            return Err(corrupt(0, "not a deletion vector"));
        }
        let version = fields.u32()?;
        if version > VERSION {
            return Err(Error::NewerFormat { file: path.to_path_buf(), found: version, supported: VERSION });
        }
        if fields.u32()? != 0 || fields.u64()? != id.0 || fields.u64()? != segment.0 {
            return Err(corrupt(12, "the file belongs to another segment"));
        }
        let settled_through = SeqNo(fields.u64()?);
        let stored = fields.bytes()?;
        let settled = RoaringBitmap::deserialize_from(stored).map_err(|_| fields.corrupt("bad bitmap"))?;
        let count = fields.count(1)?;
        let mut pairs = Vec::with_capacity(count);
        let mut next = 0_u64;
        for _ in 0..count {
            let position = next.saturating_add(fields.varint()?);
            let narrow = u32::try_from(position).ok().filter(|&p| p < row_count && !settled.contains(p));
            let narrow = narrow.ok_or_else(|| fields.corrupt("a mark outside the segment or twice"))?;
            pairs.push((narrow, SeqNo(fields.varint()?)));
            next = position + 1;
        }
        if settled.max().is_some_and(|last| last >= row_count) {
            return Err(fields.corrupt("a mark outside the segment"));
        }
        fields.finish()?;
        Ok(Contents { settled: Arc::new(settled), settled_through, pairs })
    }

    /// The contents of a new segment's file.
    pub(crate) fn of_pairs(pairs: &[(u32, SeqNo)]) -> Contents {
        Contents { settled: Arc::default(), settled_through: SeqNo::ZERO, pairs: pairs.to_vec() }
    }

    pub(crate) fn into_marks(self, sealed: Sealed) -> Marks {
        let marks = Marks::new(self.pairs.into_iter().map(|(position, seqno)| (seqno, position)).collect(), sealed);
        {
            let mut hot = marks.hot_mut();
            hot.settled = self.settled;
            hot.settled_through = self.settled_through;
        }
        marks
    }
}

/// The file's own number and the segment that a `.marks` file with these bytes says it is of; unverified.
pub(crate) fn owner(bytes: &[u8]) -> Option<(FileId, FileId)> {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    (bytes.starts_with(&MAGIC)).then_some((FileId(number(16)?), FileId(number(24)?)))
}

/// Writes and syncs a `.marks` file; the caller syncs the folder.
///
/// # Errors
/// I/O.
pub(crate) fn write_file(env: &dyn Env, dir: &Path, id: FileId, segment: FileId, contents: &Contents) -> Result<()> {
    let path = FileKind::Marks.path(dir, id);
    let file = env.open(&path, OpenMode::CreateNew).map_err(|e| Error::io("create", &path, e))?;
    file.write_at(0, &contents.encode(id, segment)).map_err(|e| Error::io("write", &path, e))?;
    file.sync().map_err(|e| Error::io("sync", &path, e))
}

/// Loads the sealed marks of `segment`.
///
/// # Errors
/// I/O, [`Error::Corrupt`], [`Error::NewerFormat`].
pub(crate) fn load(
    env: &dyn Env,
    dir: &Path,
    id: FileId,
    segment: FileId,
    row_count: u32,
    through: SeqNo,
) -> Result<Marks> {
    let path = FileKind::Marks.path(dir, id);
    let file = env.open(&path, OpenMode::Read).map_err(|e| Error::io("open", &path, e))?;
    let file_bytes = file.len().map_err(|e| Error::io("read the length of", &path, e))?;
    let mut bytes = vec![0; usize::try_from(file_bytes).unwrap_or(usize::MAX)];
    file.read_at(0, &mut bytes).map_err(|e| Error::io("read", &path, e))?;
    let contents = Contents::decode(&bytes, &path, id, segment, row_count)?;
    let count = contents.settled.len() + contents.pairs.len() as u64;
    Ok(contents.into_marks(Sealed { file: Some(id), through, count }))
}

/// Writes the marks of `segment` through `through` if they changed since the last seal. The caller syncs the folder, and
/// then says so with [`Marks::set_sealed`].
///
/// # Errors
/// I/O.
pub(crate) fn seal(
    env: &dyn Env,
    dir: &Path,
    segment: FileId,
    marks: &Marks,
    through: SeqNo,
    next_file: &dyn Fn() -> FileId,
) -> Result<Sealed> {
    let before = marks.sealed();
    if through <= before.through {
        return Ok(before);
    }
    let contents = marks.prefix(through);
    let count = contents.settled.len() + contents.pairs.len() as u64;
    let file = if count == before.count {
        before.file
    } else {
        let id = next_file();
        write_file(env, dir, id, segment, &contents)?;
        Some(id)
    };
    Ok(Sealed { file, through, count })
}

#[cfg(test)]
#[path = "delete_vector/tests.rs"]
mod tests;
