//! `Memtable`: the newest versions of one table, in memory, sorted.
//!
//! Life: active (takes commits) → sealed (no new commit is routed to it) → flushed to a run and dropped.
//!
//! Always true:
//! * entries are only added, so a reader needs no lock: versions above its snapshot are skipped (I7);
//! * an entry borrows the bytes of its commit's log record, which one `Arc` keeps alive, so a row is copied once;
//! * a sealed memtable may still receive the commits that were routed to it before it was sealed; `wait_applied`
//!   returns when the last of them has arrived.
//!
//! `crossbeam-skiplist` underneath; an arena skip list is to replace it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_skiplist::SkipSet;

use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::memory::Reservation;
use crate::seqno::SeqNo;

/// Rough cost of an entry besides its key and value: the node, its tower, and the slice descriptor.
const ENTRY_OVERHEAD_BYTES: u64 = 96;

/// One version, as a slice of its commit's record.
#[derive(Clone, Debug)]
pub struct Version {
    batch: Arc<[u8]>,
    key_at: u32,
    key_bytes: u32,
    value_at: u32,
    value_bytes: u32,
    seqno: SeqNo,
    kind: VersionKind,
}

impl Version {
    /// A version whose key and value lie at the given ranges of `batch`.
    #[must_use]
    pub fn new(batch: &Arc<[u8]>, entry: &EntrySpan, seqno: SeqNo) -> Version {
        Version {
            batch: Arc::clone(batch),
            key_at: entry.key_at,
            key_bytes: entry.key_bytes,
            value_at: entry.value_at,
            value_bytes: entry.value_bytes,
            seqno,
            kind: entry.kind,
        }
    }

    /// The full key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.batch[self.key_at as usize..][..self.key_bytes as usize]
    }

    /// The row bytes; empty for a delete.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.batch[self.value_at as usize..][..self.value_bytes as usize]
    }
}

/// Where an entry's key and value lie in a commit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntrySpan {
    /// Put or delete.
    pub kind: VersionKind,
    /// First byte of the key.
    pub key_at: u32,
    /// Length of the key.
    pub key_bytes: u32,
    /// First byte of the value.
    pub value_at: u32,
    /// Length of the value.
    pub value_bytes: u32,
}

/// What orders versions: key ascending, SeqNo descending. A trait object, so that look-ups need no allocation.
trait VersionOrder {
    fn order(&self) -> (&[u8], SeqNo);
}

impl VersionOrder for Version {
    fn order(&self) -> (&[u8], SeqNo) {
        (self.key(), self.seqno)
    }
}

impl VersionOrder for (&[u8], SeqNo) {
    fn order(&self) -> (&[u8], SeqNo) {
        (self.0, self.1)
    }
}

impl<'a> Borrow<dyn VersionOrder + 'a> for Version {
    fn borrow(&self) -> &(dyn VersionOrder + 'a) {
        self
    }
}

impl Ord for dyn VersionOrder + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let (key, seqno) = self.order();
        let (other_key, other_seqno) = other.order();
        key.cmp(other_key).then(other_seqno.cmp(&seqno))
    }
}

impl PartialOrd for dyn VersionOrder + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn VersionOrder + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn VersionOrder + '_ {}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self as &dyn VersionOrder).cmp(other as &dyn VersionOrder)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

/// Versions of one table, sorted by (key, newest first). Shared by writers and readers.
pub struct Memtable {
    versions: SkipSet<Version>,
    entry_count: AtomicU64,
    bytes: AtomicU64,
    seqno_min: AtomicU64,
    seqno_max: AtomicU64,
    in_flight: Mutex<u64>,
    applied: Condvar,
    reservation: Mutex<Option<Reservation>>,
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memtable").field("entries", &self.entry_count()).field("bytes", &self.bytes()).finish()
    }
}

impl Default for Memtable {
    fn default() -> Self {
        Memtable::new()
    }
}

impl Memtable {
    /// An empty memtable.
    #[must_use]
    pub fn new() -> Memtable {
        Memtable {
            versions: SkipSet::new(),
            entry_count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            seqno_min: AtomicU64::new(u64::MAX),
            seqno_max: AtomicU64::new(0),
            in_flight: Mutex::new(0),
            applied: Condvar::new(),
            reservation: Mutex::new(None),
        }
    }

    /// Announces a commit that will be applied; called in the commit mutex, so that sealing cannot miss it.
    pub fn announce(&self, seqno: SeqNo) {
        self.seqno_min.fetch_min(seqno.0, AcqRel);
        self.seqno_max.fetch_max(seqno.0, AcqRel);
        *self.in_flight.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// Adds the announced commit's versions. Several threads may do this at once.
    pub fn apply(&self, versions: impl Iterator<Item = Version>) {
        let (mut entry_count, mut bytes) = (0, 0);
        for version in versions {
            entry_count += 1;
            bytes += u64::from(version.key_bytes) + u64::from(version.value_bytes) + ENTRY_OVERHEAD_BYTES;
            self.versions.insert(version);
        }
        self.entry_count.fetch_add(entry_count, Relaxed);
        self.bytes.fetch_add(bytes, Release);
        *self.in_flight.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.applied.notify_all();
    }

    /// Keeps the reserved memory for as long as the memtable lives.
    pub fn hold(&self, reservation: Reservation) {
        let mut held = self.reservation.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_ref() {
            Some(held) => held.grow(reservation.bytes()),
            None => *held = Some(reservation),
        }
    }

    /// Blocks until every announced commit has been applied.
    pub fn wait_applied(&self) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        while *in_flight > 0 {
            in_flight = self.applied.wait(in_flight).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Number of versions applied so far.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.entry_count.load(Relaxed)
    }

    /// Approximate memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Acquire)
    }

    /// Whether no commit was ever announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seqno_max.load(Acquire) == 0
    }

    /// Smallest and largest commit announced; meaningless while empty.
    #[must_use]
    pub fn seqno_range(&self) -> (SeqNo, SeqNo) {
        (SeqNo(self.seqno_min.load(Acquire)), SeqNo(self.seqno_max.load(Acquire)))
    }

    /// The newest version of `key` at or below `at`.
    #[must_use]
    pub fn get(&self, key: &[u8], at: SeqNo) -> Option<(SeqNo, VersionKind, Version)> {
        let from: &dyn VersionOrder = &(key, at);
        let entry = self.versions.lower_bound(Bound::Included(from))?;
        let version = entry.value();
        (version.key() == key).then(|| (version.seqno, version.kind, version.clone()))
    }

    /// A cursor over all versions, including those added while it moves.
    #[must_use]
    pub fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor { memtable: Arc::clone(self), page: Vec::new(), at: 0, started: false }
    }

    /// Up to `parts - 1` keys that cut the memtable into parts of about equal size, ascending. Walks all entries.
    #[must_use]
    pub fn split_keys(&self, parts: usize) -> Vec<Vec<u8>> {
        let stride = usize::try_from(self.entry_count()).unwrap_or(usize::MAX) / parts.max(1);
        if parts < 2 || stride == 0 {
            return Vec::new();
        }
        let cuts = self.versions.iter().step_by(stride).skip(1).take(parts - 1);
        let mut keys: Vec<Vec<u8>> = cuts.map(|entry| entry.value().key().to_vec()).collect();
        keys.dedup();
        keys
    }

    /// Up to `count` versions from `from` on.
    fn page(&self, from: Bound<&dyn VersionOrder>, count: usize) -> Vec<Version> {
        let mut page = Vec::with_capacity(count);
        let mut entry = self.versions.lower_bound(from);
        while let Some(current) = entry {
            page.push(current.value().clone());
            if page.len() == count {
                break;
            }
            entry = current.next();
        }
        page
    }
}

/// Versions copied per descent of the skip list: a scan pays one search per page instead of one per step.
const PAGE_VERSIONS: usize = 256;

/// Walks a memtable page by page.
pub struct MemtableCursor {
    memtable: Arc<Memtable>,
    page: Vec<Version>,
    at: usize,
    started: bool,
}

impl MemtableCursor {
    fn refill_after_last(&mut self) {
        self.page = match self.page.last() {
            Some(last) => self.memtable.page(Bound::Excluded(last as &dyn VersionOrder), PAGE_VERSIONS),
            None => Vec::new(),
        };
        self.at = 0;
    }
}

impl Cursor for MemtableCursor {
    fn valid(&self) -> bool {
        self.started && self.at < self.page.len()
    }

    fn key(&self) -> &[u8] {
        self.page[self.at].key()
    }

    fn seqno(&self) -> SeqNo {
        self.page[self.at].seqno
    }

    fn kind(&self) -> VersionKind {
        self.page[self.at].kind
    }

    fn value(&self) -> &[u8] {
        self.page[self.at].value()
    }

    fn next(&mut self) -> Result<()> {
        if !self.started {
            return self.seek(&[], SeqNo::MAX);
        }
        self.at += 1;
        // A short page ended the table when it was read; versions added behind it since are newer than any snapshot
        // that this cursor may serve, but a full page must be followed.
        if self.at >= self.page.len() && self.page.len() >= PAGE_VERSIONS {
            self.refill_after_last();
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        self.started = true;
        let from: &dyn VersionOrder = &(key, seqno);
        // The first page is small, because most seeks read a row or two.
        self.page = self.memtable.page(Bound::Included(from), PAGE_VERSIONS);
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
