//! `Transaction`: snapshot isolation with buffered writes.
//!
//! Reads go to the transaction's own writes first, then to its snapshot; both stay fixed while it lives. Writes stay in
//! the transaction until `commit`, which either installs all of them at one SeqNo or none (P2). An open transaction
//! has changed nothing outside itself, so rollback is dropping it.
//!
//! Conflicts: first committer wins. `commit` fails with [`Error::Conflict`] if a key that it writes, or that
//! [`Transaction::require_unchanged`] named, was committed by another transaction after this one began. Source: "A
//! Critique of ANSI SQL Isolation Levels" (Berenson et al., 1995), snapshot isolation. At [`Isolation::Serializable`] the
//! same holds for everything that it read; why that suffices is argued in docs/decisions/0008-serializable-by-read-set.md.

pub(crate) mod as_of;
pub(crate) mod conflict;
pub(crate) mod footprint;
pub(crate) mod history;
pub(crate) mod lock;
pub(crate) mod reads;
pub(crate) mod snapshot;

mod options;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::commit::{Durability, Request};
use crate::compaction::CompactionOptions;
use crate::db::{Inner, Registered};
use crate::error::{Error, Result};
use crate::memory::Reservation;
use crate::schema::{StorageKind, TableId, TableSchema};
use crate::seqno::SeqNo;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::view::Snapshot;
use conflict::fingerprint;
use lock::HeldLocks;
use reads::ReadSet;
use snapshot::WriterPin;

pub use crate::iter::Overlay;
pub use history::TimeMark;
pub use lock::LockMode;
pub use options::{Isolation, TransactionOptions};

/// Bookkeeping of one buffered write besides its bytes: a map slot and two allocations.
const WRITE_OVERHEAD_BYTES: u64 = 80;
/// Bookkeeping of one row lock besides two references to its key: an entry of the lock table with one holder.
const LOCK_OVERHEAD_BYTES: u64 = 200;
/// The transaction grows its memory reservation in steps of this size.
const RESERVATION_STEP_BYTES: u64 = 1 << 20;

/// A unit of work: all of its writes become visible at once, or none.
///
/// Not shared between threads while open, but may move between them. Dropping it rolls back.
pub struct Transaction {
    pub(crate) db: Arc<Inner>,
    options: TransactionOptions,
    snapshot: Snapshot,
    began: Duration,
    /// `None` for a read-only transaction, which is never checked.
    writer: Option<WriterPin>,
    /// What was read, if commit will ask.
    reads: Option<Mutex<ReadSet>>,
    locks: HeldLocks,
    writes: BTreeMap<TableId, Arc<Overlay>>,
    unchanged: Vec<(TableId, Vec<u8>)>,
    /// Shapes that tables have from the commit on.
    shapes: Vec<Registered>,
    /// Tables that nobody else may have committed to since the snapshot.
    untouched: Vec<TableId>,
    /// What each write replaced, kept only while a savepoint may ask for it.
    undo: Vec<Undo>,
    savepoint_count: usize,
    /// Of the writes: what the commit will take.
    bytes: u64,
    /// Of writes and locks together, and how much is reserved for them; reads reserve for themselves.
    used_bytes: u64,
    held_bytes: u64,
    reservation: Reservation,
}

#[derive(Debug)]
struct Undo {
    table: TableId,
    key: Vec<u8>,
    before: Option<Option<Arc<[u8]>>>,
}

/// A point within a transaction to roll back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    undo_count: usize,
    unchanged_count: usize,
    lock_count: usize,
}

impl Inner {
    /// A snapshot for a transaction, and its claim on recent commits.
    fn begin(&self, options: &TransactionOptions) -> (Snapshot, Option<WriterPin>) {
        let mut taken = self.snapshots.begin(&self.views, options, self.env.monotonic());
        if options.isolation == Isolation::Serializable && !options.read_only {
            // Commits keep their keys from now on, but some that are above this snapshot may not have: those that were on
            // their way to publication. So they are waited for, and the snapshot is taken anew.
            let unknown = self.lock_sequencer().recent.keys_forgotten();
            if taken.0.seqno() < unknown {
                // A log that failed publishes nothing any more; commits are refused then anyway.
                let _ = self.publish_through(unknown);
                // The first claim goes only after the second is there.
                taken = self.snapshots.begin(&self.views, options, self.env.monotonic());
            }
        }
        taken
    }
}

impl Transaction {
    pub(crate) fn new(db: Arc<Inner>, options: TransactionOptions) -> Result<Transaction> {
        let reservation = db.budget.reserve("transactions", 0)?;
        let (snapshot, writer) = db.begin(&options);
        let is_checked = options.isolation == Isolation::Serializable && !options.read_only;
        Ok(Transaction {
            options,
            snapshot,
            began: db.env.monotonic(),
            writer,
            reads: is_checked.then(Mutex::default),
            locks: HeldLocks::new(&db.locks),
            db,
            writes: BTreeMap::new(),
            unchanged: Vec::new(),
            shapes: Vec::new(),
            untouched: Vec::new(),
            undo: Vec::new(),
            savepoint_count: 0,
            bytes: 0,
            used_bytes: 0,
            held_bytes: 0,
            reservation,
        })
    }

    /// What the transaction reads, besides its own writes.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether the transaction is still young enough to go on, which its own calls ask too. For whoever is about to read
    /// its snapshot directly, once per statement: a read that has begun is not cut off, because the snapshot stays pinned
    /// until it drops, so an answer is always right.
    ///
    /// # Errors
    /// [`Error::HistoryGone`] once it is older than [`crate::Options::snapshot_age_ms_max`].
    pub fn check_age(&self) -> Result<()> {
        let age_ms_max = self.db.options.snapshot_age_ms_max;
        if age_ms_max > 0 && self.db.age_ms(self.began) > age_ms_max {
            let oldest = self.db.views.load().read_point();
            return Err(Error::HistoryGone { requested: self.snapshot.seqno().0, oldest: oldest.0 });
        }
        Ok(())
    }

    /// What was asked for at its begin.
    #[must_use]
    pub fn options(&self) -> &TransactionOptions {
        &self.options
    }

    /// Says that the row under the full `key` is about to be read from the snapshot, present or not, by whoever reads
    /// past this type. Must come before the read: what is read and not noted is not checked at commit. Free unless the
    /// transaction is serializable.
    pub fn note_key(&self, table: TableId, key: &[u8]) {
        if let Some(reads) = &self.reads {
            reads.lock().unwrap_or_else(PoisonError::into_inner).note_key(table, key, &self.reservation);
        }
    }

    /// Says that the full keys `keys` are about to be searched, so that a row that another transaction adds to them
    /// counts as a conflict (a phantom), whatever the search finds. A scan without bounds on its key notes
    /// [`crate::key::table_range`]. Otherwise as [`Transaction::note_key`].
    pub fn note_range(&self, table: TableId, keys: Range<&[u8]>) {
        if let Some(reads) = &self.reads {
            let mut reads = reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.note_range(table, keys.start, keys.end, &self.reservation);
        }
    }

    /// The encoded row under the full `key`: its own write if there is one, else as of the snapshot.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn get(&self, schema: &TableSchema, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.own(schema.table, key) {
            // Written in another shape, if the transaction has changed it since.
            Some(own) => own.map(|own| schema.newest(own.to_vec())).transpose(),
            None => {
                self.check_age()?;
                self.note_key(schema.table, key);
                self.snapshot.get(schema, key)
            }
        }
    }

    /// Full keys and encoded rows in `keys`, in key order, its own writes included, all in memory: for short ranges.
    /// Queries over more read the snapshot themselves, after [`Transaction::note_range`].
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn scan(&self, schema: &TableSchema, keys: Range<&[u8]>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.check_age()?;
        self.note_range(schema.table, keys.clone());
        let (view, at) = (self.snapshot.view(), self.snapshot.seqno());
        let own = self.overlay(schema.table);
        let mut rows = Vec::new();
        if let Some(part) = view.rows(schema.table) {
            let mut cursor = part.scan(keys.clone(), at, None)?;
            while cursor.next()? {
                let row = cursor.value()?.to_vec();
                rows.push((cursor.key().to_vec(), row));
            }
        }
        for (key, location) in view.cold().scan_keys(schema.table, keys.clone(), at)? {
            rows.push((key, view.cold().read_row(schema, location)?));
        }
        if let Some(own) = own {
            rows.retain(|(key, _)| !own.contains_key(key));
            let own = own.iter().filter(|(key, _)| keys.contains(&key.as_slice()));
            rows.extend(own.filter_map(|(key, row)| Some((key.clone(), row.as_ref()?.to_vec()))));
        }
        rows.sort_unstable();
        rows.into_iter().map(|(key, row)| Ok((key, schema.newest(row)?))).collect()
    }

    /// Whether a row stands under the full `key`; cheaper than [`Transaction::get`].
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn contains(&self, table: TableId, key: &[u8]) -> Result<bool> {
        match self.own(table, key) {
            Some(own) => Ok(own.is_some()),
            None => {
                self.check_age()?;
                self.note_key(table, key);
                self.snapshot.view().contains(table, key, self.snapshot.seqno())
            }
        }
    }

    fn own(&self, table: TableId, key: &[u8]) -> Option<Option<&[u8]>> {
        self.writes.get(&table)?.get(key).map(Option::as_deref)
    }

    /// Writes `row` under the full `key`, replacing what stood there.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] if the transaction outgrows the memory budget or the largest commit; the write is then
    /// not part of it. I/O, where flushing others' rows to make room for it failed. [`Error::Invalid`] if it is read-only.
    pub fn put(&mut self, table: TableId, key: Vec<u8>, row: Vec<u8>) -> Result<()> {
        self.write(table, key, Some(Arc::from(row)))
    }

    /// Deletes the row under the full `key`, if there is one.
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, table: TableId, key: Vec<u8>) -> Result<()> {
        self.write(table, key, None)
    }

    fn write(&mut self, table: TableId, key: Vec<u8>, row: Option<Arc<[u8]>>) -> Result<()> {
        debug_assert!(key.starts_with(&table.0.to_be_bytes()), "a full key opens with its table");
        self.check_may_write()?;
        let bytes = key.len() as u64 + row.as_ref().map_or(0, |row| row.len() as u64) + WRITE_OVERHEAD_BYTES;
        self.grow(bytes)?;
        // A query of this transaction may still read the map; only then is it copied.
        let overlay = Arc::make_mut(self.writes.entry(table).or_default());
        if self.savepoint_count == 0 {
            overlay.insert(key, row);
        } else {
            let before = overlay.insert(key.clone(), row);
            self.undo.push(Undo { table, key, before });
        }
        Ok(())
    }

    fn check_may_write(&self) -> Result<()> {
        self.check_age()?;
        if self.options.read_only {
            return Err(Error::Invalid("the transaction is read-only; begin one that may write".to_owned()));
        }
        Ok(())
    }

    /// Locks the row under the full `key`, present or not, until the transaction ends or rolls back to an earlier
    /// savepoint: no other transaction commits a change to it meanwhile. What the transaction's snapshot shows of it is then
    /// the newest committed version. Blocks for at most `timeout` while others hold it, in the order of asking; `None`
    /// waits for as long as it takes, [`Duration::ZERO`] not at all.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the row was changed after the snapshot, maybe while this waited; [`Error::Deadlock`],
    /// [`Error::LockTimeout`]; [`Error::LimitExceeded`], [`Error::Invalid`] as [`Transaction::put`]. The row is then not
    /// locked, or as it was before.
    pub fn lock(&mut self, table: TableId, key: &[u8], mode: LockMode, timeout: Option<Duration>) -> Result<()> {
        debug_assert!(key.starts_with(&table.0.to_be_bytes()), "a full key opens with its table");
        self.check_may_write()?;
        let lock_count = self.locks.count();
        self.reserve(2 * key.len() as u64 + LOCK_OVERHEAD_BYTES)?;
        self.db.acquire(&mut self.locks, &Arc::from(key), mode, timeout)?;
        // After the grant, in the commit mutex: a commit that was not held up by the lock is in the index by now.
        let changed = self.db.lock_sequencer().recent.find(&[fingerprint(key)], self.snapshot.seqno());
        if changed != Ok(None) {
            self.locks.release_to(lock_count);
            self.db.wal.check()?;
            return Err(Error::Conflict { table, key: key.to_vec() });
        }
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        let limit_bytes = self.db.options.commit_bytes_max;
        if self.bytes + bytes > limit_bytes {
            let (requested_bytes, used_bytes) = (bytes, self.bytes);
            return Err(Error::LimitExceeded {
                budget: "size of one transaction",
                requested_bytes,
                used_bytes,
                limit_bytes,
            });
        }
        self.reserve(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Accounts for `bytes` of memory. Where they do not fit the budget, committed rows make room for uncommitted ones:
    /// memtables are flushed, largest first, and the snapshot lets go of them.
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        while self.used_bytes + bytes > self.held_bytes {
            let step = bytes.max(RESERVATION_STEP_BYTES);
            let grown = self.reservation.try_grow(step).map(|()| step);
            match grown.or_else(|_| self.reservation.try_grow(bytes).map(|()| bytes)) {
                Ok(grown) => self.held_bytes += grown,
                Err(Error::LimitExceeded { .. }) if self.db.flush_largest(bytes)? => {
                    // A newer layout may hold rows in a shape that lacks what this snapshot's has.
                    if !self.db.is_reshaped_since(self.snapshot.seqno()) {
                        self.db.views.renew(&mut self.snapshot);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.used_bytes += bytes;
        Ok(())
    }

    /// Makes the commit fail if another transaction changes the row under `key` first, although this one only read
    /// it. Used for the catalog entry of every table written.
    pub fn require_unchanged(&mut self, table: TableId, key: Vec<u8>) {
        if !self.unchanged.iter().any(|(_, known)| *known == key) {
            self.unchanged.push((table, key));
        }
    }

    /// Says that the commit gives `schema.table` this shape. Background work takes it up in the same step as the commit gets
    /// its SeqNo: rows of the new shape never meet a job that does not know it, and a shape that is rolled back was never
    /// there. The catalog entry that readers learn it from is a row, and the caller's to write. Call it when all else is
    /// done: rolling back to a savepoint does not take it back. The last one for a table counts.
    pub fn reshape(&mut self, schema: Arc<TableSchema>, kind: StorageKind, compaction: CompactionOptions) {
        self.shapes.retain(|known| known.schema.table != schema.table);
        self.shapes.push(Registered { schema, kind, compaction, since: SeqNo::ZERO });
    }

    /// Makes the commit fail if another transaction commits any change to `table` after this one's snapshot. For a
    /// definition that was checked against all of its rows. Not undone by a savepoint.
    pub fn require_untouched(&mut self, table: TableId) {
        if !self.untouched.contains(&table) {
            self.untouched.push(table);
        }
    }

    /// The transaction's own writes to `table` so far, for its own queries. Later writes do not change the value.
    #[must_use]
    pub fn overlay(&self, table: TableId) -> Option<Arc<Overlay>> {
        self.writes.get(&table).filter(|overlay| !overlay.is_empty()).cloned()
    }

    /// [`Transaction::overlay`] of every table written to, in order of their numbers.
    pub fn overlays(&self) -> impl Iterator<Item = (TableId, Arc<Overlay>)> + '_ {
        let written = self.writes.iter().filter(|(_, overlay)| !overlay.is_empty());
        written.map(|(table, overlay)| (*table, Arc::clone(overlay)))
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writes.values().all(|overlay| overlay.is_empty())
    }

    /// Number of rows written so far, deletes included.
    #[must_use]
    pub fn write_count(&self) -> usize {
        self.writes.values().map(|overlay| overlay.len()).sum()
    }

    /// Marks a point to return to. Every savepoint must be given to `rollback_to` or `release` in stack order, or left
    /// to the end of the transaction.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoint_count += 1;
        let (undo_count, unchanged_count) = (self.undo.len(), self.unchanged.len());
        Savepoint { undo_count, unchanged_count, lock_count: self.locks.count() }
    }

    /// Undoes every write since `savepoint`, which stays usable, and releases the row locks taken since. Reads stay noted:
    /// what they found is known outside.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) {
        while self.undo.len() > savepoint.undo_count {
            let Some(Undo { table, key, before }) = self.undo.pop() else { break };
            let overlay = Arc::make_mut(self.writes.entry(table).or_default());
            match before {
                Some(row) => overlay.insert(key, row),
                None => overlay.remove(&key),
            };
        }
        self.unchanged.truncate(savepoint.unchanged_count);
        self.locks.release_to(savepoint.lock_count);
    }

    /// Gives up one savepoint; its writes stay.
    pub fn release(&mut self, _savepoint: Savepoint) {
        self.savepoint_count = self.savepoint_count.saturating_sub(1);
        if self.savepoint_count == 0 {
            self.undo.clear();
        }
    }

    /// Makes the writes visible to every later snapshot, and returns their SeqNo. With [`Durability::Durable`] they
    /// also survive power loss from the moment this returns. A transaction without writes returns its snapshot's SeqNo.
    ///
    /// # Errors
    /// [`Error::HistoryGone`]: the transaction is too old, nothing was written. [`Error::Conflict`]: nothing was written,
    /// retry. [`Error::Deadlock`] and [`Error::LockTimeout`]: a row written is
    /// locked by another transaction; nothing was written, retry. [`Error::Poisoned`] or [`Error::Io`]: the log failed; whether
    /// the commit survives is decided by the next open. Any other error: nothing was written.
    pub fn commit(self, durability: Durability) -> Result<SeqNo> {
        if self.is_read_only() {
            return Ok(self.snapshot.seqno());
        }
        self.check_age()?;
        // Until the commit is decided, recent commits must stay known.
        let _writer = self.writer;
        self.db.commit(Request {
            snapshot: self.snapshot,
            writes: self.writes,
            unchanged: self.unchanged,
            shapes: self.shapes,
            untouched: self.untouched,
            reads: self
                .reads
                .map_or_else(ReadSet::default, |reads| reads.into_inner().unwrap_or_else(PoisonError::into_inner)),
            locks: self.locks,
            lock_timeout: self.options.lock_timeout,
            reservation: self.reservation,
            durability,
        })
    }
}
