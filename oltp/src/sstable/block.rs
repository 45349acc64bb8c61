//! A block of entries: prefix-compressed keys with restart points, and a one-byte-per-bucket hash index.
//!
//! Data blocks and index blocks share this form; an index entry is (separator key, SeqNo 0, encoded handle). The
//! bytes here are what [`super::frame`] compresses and checksums. Reading is bounds-checked throughout and touches
//! only the entries it passes: a block is usable as it came from the file.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::node::Child;
use super::varint::{Damage, Reader, put_varint};
use crate::cache::Charge;
use crate::cache::slot::Uses;
use crate::iter::VersionKind;
use crate::seqno::SeqNo;

/// Bytes of the fixed fields at a block's end.
const TAIL_BYTES: usize = 16;
/// Bucket that no key of the block falls into.
const BUCKET_FREE: u8 = 255;
/// Bucket that keys of several restart intervals fall into.
const BUCKET_COLLISION: u8 = 254;
/// More restarts than this have no number in a bucket, so the block goes without a hash index.
const HASHED_RESTARTS_MAX: usize = 254;

/// Order of versions everywhere: key ascending, SeqNo descending.
#[inline]
pub fn compare(a: (&[u8], SeqNo), b: (&[u8], SeqNo)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}

/// How many leading bytes `a` and `b` share.
#[inline]
pub fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let (a, b) = (&a[..a.len().min(b.len())], &b[..b.len().min(a.len())]);
    let mut shared = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if x != y {
            break;
        }
        shared += 8;
    }
    shared + a[shared..].iter().zip(&b[shared..]).take_while(|(x, y)| x == y).count()
}

/// Collects entries into one block.
#[derive(Debug)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    /// (upper half of the key's hash, number of its restart interval), once per key and interval.
    hashed: Vec<(u32, usize)>,
    entry_count: u32,
    restart_interval: u16,
    first_seqno: SeqNo,
}

impl BlockBuilder {
    /// An empty block with a whole key every `restart_interval` entries.
    pub fn new(restart_interval: u16) -> BlockBuilder {
        BlockBuilder {
            bytes: Vec::new(),
            restarts: Vec::new(),
            hashed: Vec::new(),
            entry_count: 0,
            restart_interval: restart_interval.max(1),
            first_seqno: SeqNo::ZERO,
        }
    }

    /// Whether no entry was added yet.
    pub fn is_empty(&self) -> bool {
        self.entry_count == 0
    }

    /// Bytes the finished block would have, but for its hash index.
    pub fn byte_count(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len() + TAIL_BYTES
    }

    /// Appends an entry whose key shares `shared` bytes with the previous one. `hash` of the key feeds the hash
    /// index; all entries have one or none has.
    pub fn add(&mut self, key: &[u8], shared: usize, seqno: SeqNo, kind: VersionKind, value: &[u8], hash: Option<u64>) {
        let mut shared = shared;
        if self.entry_count.is_multiple_of(u32::from(self.restart_interval)) {
            shared = 0;
            self.restarts.push(self.bytes.len() as u32);
        }
        if self.entry_count == 0 {
            self.first_seqno = seqno;
        }
        if let Some(hash) = hash {
            let entry = ((hash >> 32) as u32, self.restarts.len() - 1);
            if self.hashed.last() != Some(&entry) {
                self.hashed.push(entry);
            }
        }
        let suffix = &key[shared..];
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, suffix.len() as u64);
        put_varint(&mut self.bytes, zigzag(seqno.0.wrapping_sub(self.first_seqno.0)));
        put_varint(&mut self.bytes, (value.len() as u64) << 1 | u64::from(kind == VersionKind::Put));
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(value);
        self.entry_count += 1;
    }

    /// Completes the block into `out` (replacing what it held) and starts a new, empty one.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
        for &restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let bucket_count = self.append_buckets();
        self.bytes.extend_from_slice(&self.first_seqno.0.to_le_bytes());
        self.bytes.extend_from_slice(&self.entry_count.to_le_bytes());
        self.bytes.extend_from_slice(&self.restart_interval.to_le_bytes());
        self.bytes.extend_from_slice(&bucket_count.to_le_bytes());
        std::mem::swap(out, &mut self.bytes);
        self.bytes.clear();
        self.restarts.clear();
        self.hashed.clear();
        self.entry_count = 0;
    }

    /// Three quarters full, as more buckets buy few collisions less. One restart interval needs no index.
    fn append_buckets(&mut self) -> u16 {
        let wanted = self.hashed.len() * 4 / 3 + 1;
        let Ok(bucket_count) = u16::try_from(wanted) else { return 0 };
        if self.hashed.is_empty() || self.restarts.len() < 2 || self.restarts.len() > HASHED_RESTARTS_MAX {
            return 0;
        }
        let buckets_at = self.bytes.len();
        self.bytes.resize(buckets_at + wanted, BUCKET_FREE);
        for &(hash, restart) in &self.hashed {
            let bucket = &mut self.bytes[buckets_at + hash as usize % wanted];
            *bucket = match *bucket {
                BUCKET_FREE => restart as u8,
                other if usize::from(other) == restart => other,
                _ => BUCKET_COLLISION,
            };
        }
        bucket_count
    }
}

fn zigzag(delta: u64) -> u64 {
    (delta << 1) ^ ((delta as i64 >> 63) as u64)
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// A decoded view of one block's bytes.
#[derive(Debug)]
pub struct Block {
    bytes: Bytes,
    /// Offset of the stored block in its file, for error messages.
    offset: u64,
    entries_end: usize,
    restart_count: usize,
    buckets: Range<usize>,
    entry_count: u32,
    restart_interval: u32,
    first_seqno: SeqNo,
    uses: Uses,
    /// What the cache took from the memory budget for it.
    charge: Option<Charge>,
}

/// One entry's parts, as found in the bytes.
struct Entry<'a> {
    shared: usize,
    suffix: &'a [u8],
    seqno: SeqNo,
    kind: VersionKind,
    value: Range<usize>,
}

impl Block {
    /// Checks the outline of `bytes`: that tail, buckets and restarts fit. Entries are checked as they are read.
    pub fn new(bytes: Bytes, offset: u64) -> Result<Block, Damage> {
        let Some(tail_at) = bytes.len().checked_sub(TAIL_BYTES) else {
            return Err(Damage { at: 0, what: "block is shorter than its tail" });
        };
        let mut tail = Reader::new(&bytes, tail_at);
        let first_seqno = SeqNo(tail.u64()?);
        let entry_count = tail.u32()?;
        let counts = tail.u32()?;
        let (restart_interval, bucket_count) = (counts & 0xffff, (counts >> 16) as usize);
        if entry_count == 0 || restart_interval == 0 {
            return Err(Damage { at: tail_at, what: "block without entries" });
        }
        let restart_count = entry_count.div_ceil(restart_interval) as usize;
        let buckets_at = tail_at.checked_sub(bucket_count);
        let entries_end = buckets_at.and_then(|at| at.checked_sub(4 * restart_count));
        let (Some(buckets_at), Some(entries_end)) = (buckets_at, entries_end) else {
            return Err(Damage { at: tail_at, what: "restarts and buckets exceed the block" });
        };
        Ok(Block {
            offset,
            entries_end,
            restart_count,
            buckets: buckets_at..tail_at,
            entry_count,
            restart_interval,
            first_seqno,
            bytes,
            uses: Uses::default(),
            charge: None,
        })
    }

    /// Holds `charge` for as long as the block lives.
    pub fn attach(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Where the stored block begins in its file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes held in memory.
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// Number of entries, as the block says.
    pub fn entry_count(&self) -> u32 {
        self.entry_count
    }

    fn restart(&self, index: usize) -> Result<usize, Damage> {
        let at = self.entries_end + 4 * index;
        let restart = Reader::new(&self.bytes, at).u32()? as usize;
        if restart < self.entries_end { Ok(restart) } else { Err(Damage { at, what: "restart beyond the entries" }) }
    }

    #[inline]
    fn entry(&self, at: usize) -> Result<Entry<'_>, Damage> {
        let mut reader = Reader::new(&self.bytes[..self.entries_end], at);
        let shared = reader.varint()?;
        let suffix_bytes = reader.varint()?;
        let seqno = SeqNo(self.first_seqno.0.wrapping_add(unzigzag(reader.varint()?)));
        let tagged = reader.varint()?;
        let suffix = reader.bytes(suffix_bytes)?;
        let value_at = reader.at();
        reader.bytes(tagged >> 1)?;
        // What would be a delete with a value says where the value lies.
        let kind = match tagged {
            0 => VersionKind::Delete,
            _ if tagged & 1 == 1 => VersionKind::Put,
            _ => VersionKind::Reference,
        };
        Ok(Entry { shared: shared as usize, suffix, seqno, kind, value: value_at..reader.at() })
    }

    /// The restart interval in which an entry at or after (`key`, `seqno`) is to be looked for: the last one that
    /// begins before it.
    fn search_restart(&self, key: &[u8], seqno: SeqNo) -> Result<usize, Damage> {
        let (mut low, mut high) = (0, self.restart_count);
        // Restarts below `low` begin before the target, those from `high` on do not.
        while low < high {
            let middle = low.midpoint(high);
            let at = self.restart(middle)?;
            let entry = self.entry(at)?;
            if entry.shared != 0 {
                return Err(Damage { at, what: "restart with a shortened key" });
            }
            match compare((entry.suffix, entry.seqno), (key, seqno)) {
                Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// Checks what leads a search to the `index`th entry, which begins at `at` and whose key has `hash`: its restart
    /// if it begins an interval, and its bucket.
    pub fn check_paths(&self, index: u32, at: usize, hash: u64) -> Result<(), Damage> {
        let interval = (index / self.restart_interval) as usize;
        if index.is_multiple_of(self.restart_interval) && self.restart(interval)? != at {
            return Err(Damage { at, what: "restart does not lead to its entry" });
        }
        match self.bucket(hash) {
            None | Some(BUCKET_COLLISION) => Ok(()),
            Some(bucket) if usize::from(bucket) == interval => Ok(()),
            Some(_) => Err(Damage { at, what: "bucket does not lead to its key" }),
        }
    }

    /// Looks for the newest version of `key` at or before `seqno`; `hash` is the key's.
    #[inline]
    pub fn find(&self, key: &[u8], hash: u64, seqno: SeqNo) -> Result<Find<'_>, Damage> {
        match self.bucket(hash) {
            // All versions of the key within this block lie in this one interval, or the bucket would be a collision.
            Some(restart) if usize::from(restart) < self.restart_count.min(HASHED_RESTARTS_MAX) => {
                let restart = usize::from(restart);
                let last = restart + 1 == self.restart_count;
                let end = if last { self.entries_end } else { self.restart(restart + 1)? };
                self.find_between(self.restart(restart)?, end, key, seqno)
            }
            Some(BUCKET_FREE) => Ok(Find::Beyond),
            None | Some(BUCKET_COLLISION) => {
                let restart = self.search_restart(key, seqno)?;
                self.find_between(self.restart(restart)?, self.entries_end, key, seqno)
            }
            Some(_) => Err(Damage { at: self.buckets.start, what: "bucket names a restart that does not exist" }),
        }
    }

    /// Walks from the restart at `at` to `end`. No key is put together: of the one before it is known how much of it
    /// is the beginning of `key`, and that it lies before it.
    #[inline]
    fn find_between(&self, mut at: usize, end: usize, key: &[u8], seqno: SeqNo) -> Result<Find<'_>, Damage> {
        let (mut matched, mut previous_bytes) = (0, 0);
        while at < end {
            let entry = self.entry(at)?;
            if entry.shared > previous_bytes {
                return Err(Damage { at, what: "key shares more than its predecessor has" });
            }
            previous_bytes = entry.shared + entry.suffix.len();
            // Sharing more than matched, it differs from `key` where its predecessor does, and lies before it too.
            if entry.shared <= matched {
                let rest = &key[entry.shared..];
                let common = shared_prefix(entry.suffix, rest);
                // `None` lies before any byte, as it should.
                match entry.suffix.get(common).cmp(&rest.get(common)) {
                    Ordering::Equal if entry.seqno <= seqno => {
                        let value = &self.bytes[entry.value];
                        return Ok(Find::Found { seqno: entry.seqno, kind: entry.kind, value });
                    }
                    Ordering::Less | Ordering::Equal => matched = entry.shared + common,
                    Ordering::Greater => return Ok(Find::Absent),
                }
            }
            at = entry.value.end;
        }
        Ok(Find::Beyond)
    }

    #[inline]
    fn bucket(&self, hash: u64) -> Option<u8> {
        let buckets = &self.bytes[self.buckets.clone()];
        if buckets.is_empty() { None } else { Some(buckets[(hash >> 32) as usize % buckets.len()]) }
    }
}

impl Child for Block {
    fn uses(&self) -> &Uses {
        &self.uses
    }

    fn offset(&self) -> u64 {
        self.offset
    }
}

/// Result of a point search within one block.
#[derive(Debug, PartialEq, Eq)]
pub enum Find<'a> {
    /// The version asked for.
    Found {
        /// Its commit.
        seqno: SeqNo,
        /// What happened to the key.
        kind: VersionKind,
        /// The row, empty for a delete.
        value: &'a [u8],
    },
    /// The run has no such version.
    Absent,
    /// Not in this block; versions of the key may follow in the next.
    Beyond,
}

/// A position in one block.
#[derive(Debug)]
pub struct BlockCursor {
    block: Arc<Block>,
    next_at: usize,
    key: Vec<u8>,
    seqno: SeqNo,
    kind: VersionKind,
    value: Range<usize>,
}

impl BlockCursor {
    /// Before the first entry.
    pub fn new(block: Arc<Block>) -> BlockCursor {
        let kind = VersionKind::Delete;
        BlockCursor { block, next_at: 0, key: Vec::new(), seqno: SeqNo::ZERO, kind, value: 0..0 }
    }

    /// Before the first entry of `block`, keeping the key's buffer.
    pub fn reset(&mut self, block: Arc<Block>) {
        self.block = block;
        self.rewind(0);
    }

    fn rewind(&mut self, at: usize) {
        self.next_at = at;
        self.key.clear();
        self.value = 0..0;
    }

    /// The block under the cursor.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Where the next entry begins within the block.
    pub fn next_at(&self) -> usize {
        self.next_at
    }

    /// Key of the current entry.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// SeqNo of the current entry.
    #[inline]
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// Kind of the current entry.
    #[inline]
    pub fn kind(&self) -> VersionKind {
        self.kind
    }

    /// Value of the current entry.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &self.block.bytes[self.value.clone()]
    }

    /// Moves to the next entry; `false` at the end of the block.
    #[inline]
    pub fn next(&mut self) -> Result<bool, Damage> {
        if self.next_at >= self.block.entries_end {
            return Ok(false);
        }
        let entry = self.block.entry(self.next_at)?;
        if entry.shared > self.key.len() {
            return Err(Damage { at: self.next_at, what: "key shares more than its predecessor has" });
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        self.seqno = entry.seqno;
        self.kind = entry.kind;
        self.next_at = entry.value.end;
        self.value = entry.value;
        Ok(true)
    }

    /// Moves to the first entry at or after (`key`, `seqno`); `false` if the block has none.
    pub fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<bool, Damage> {
        let restart = self.block.search_restart(key, seqno)?;
        self.rewind(self.block.restart(restart)?);
        while self.next()? {
            if compare((&self.key, self.seqno), (key, seqno)) != Ordering::Less {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
