//! `Transaction`: snapshot isolation with buffered writes.
//!
//! Reads go to the transaction's own writes first, then to its snapshot; both stay fixed while it lives. Writes stay in
//! the transaction until `commit`, which either installs all of them at one SeqNo or none (P2). An open transaction
//! has changed nothing outside itself, so rollback is dropping it.
//!
//! Conflicts: first committer wins. `commit` fails with [`Error::Conflict`] if a key that it writes, or that
//! [`Transaction::require_unchanged`] named, was committed by another transaction after this one began. Source: "A
//! Critique of ANSI SQL Isolation Levels" (Berenson et al., 1995), snapshot isolation.

pub(crate) mod conflict;
pub(crate) mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::commit::Durability;
use crate::db::Inner;
use crate::error::{Error, Result};
use crate::memory::Reservation;
use crate::schema::{TableId, TableSchema};
use crate::seqno::SeqNo;
use crate::view::Snapshot;

pub use crate::iter::Overlay;

/// Bookkeeping of one buffered write besides its bytes: a map slot and two allocations.
const WRITE_OVERHEAD_BYTES: u64 = 80;
/// The transaction grows its memory reservation in steps of this size.
const RESERVATION_STEP_BYTES: u64 = 1 << 20;

/// A unit of work: all of its writes become visible at once, or none.
///
/// Not shared between threads while open, but may move between them. Dropping it rolls back.
pub struct Transaction {
    pub(crate) db: Arc<Inner>,
    snapshot: Snapshot,
    writes: BTreeMap<TableId, Arc<Overlay>>,
    unchanged: Vec<(TableId, Vec<u8>)>,
    /// What each write replaced, kept only while a savepoint may ask for it.
    undo: Vec<Undo>,
    savepoint_count: usize,
    bytes: u64,
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
}

impl Transaction {
    pub(crate) fn new(db: Arc<Inner>, snapshot: Snapshot) -> Result<Transaction> {
        let reservation = db.budget.reserve("transactions", 0)?;
        Ok(Transaction {
            db,
            snapshot,
            writes: BTreeMap::new(),
            unchanged: Vec::new(),
            undo: Vec::new(),
            savepoint_count: 0,
            bytes: 0,
            reservation,
        })
    }

    /// What the transaction reads, besides its own writes.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The encoded row under the full `key`: its own write if there is one, else as of the snapshot.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn get(&self, schema: &TableSchema, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.own(schema.table, key) {
            Some(own) => Ok(own.map(<[u8]>::to_vec)),
            None => self.snapshot.get(schema, key),
        }
    }

    /// Whether a row stands under the full `key`; cheaper than [`Transaction::get`].
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn contains(&self, table: TableId, key: &[u8]) -> Result<bool> {
        match self.own(table, key) {
            Some(own) => Ok(own.is_some()),
            None => self.snapshot.view().contains(table, key, self.snapshot.seqno()),
        }
    }

    fn own(&self, table: TableId, key: &[u8]) -> Option<Option<&[u8]>> {
        self.writes.get(&table)?.get(key).map(Option::as_deref)
    }

    /// Writes `row` under the full `key`, replacing what stood there.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] if the transaction outgrows the memory budget or the largest commit; the write is then
    /// not part of it. I/O, where flushing others' rows to make room for it failed.
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
        if self.bytes + bytes > self.reservation.bytes() {
            self.reserve(bytes)?;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Takes at least `bytes` from the budget. Where they do not fit, committed rows make room for uncommitted ones:
    /// memtables are flushed, largest first, and the snapshot lets go of them.
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        loop {
            let step = self.reservation.try_grow(bytes.max(RESERVATION_STEP_BYTES));
            match step.or_else(|_| self.reservation.try_grow(bytes)) {
                Err(Error::LimitExceeded { .. }) if self.db.flush_largest(bytes)? => {
                    self.db.views.renew(&mut self.snapshot);
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes the commit fail if another transaction changes the row under `key` first, although this one only read
    /// it. Used for the catalog entry of every table written.
    pub fn require_unchanged(&mut self, table: TableId, key: Vec<u8>) {
        if !self.unchanged.iter().any(|(_, known)| *known == key) {
            self.unchanged.push((table, key));
        }
    }

    /// The transaction's own writes to `table` so far, for its own queries. Later writes do not change the value.
    #[must_use]
    pub fn overlay(&self, table: TableId) -> Option<Arc<Overlay>> {
        self.writes.get(&table).filter(|overlay| !overlay.is_empty()).cloned()
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
        Savepoint { undo_count: self.undo.len(), unchanged_count: self.unchanged.len() }
    }

    /// Undoes every write since `savepoint`, which stays usable.
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
    /// [`Error::Conflict`]: nothing was written, retry. [`Error::Poisoned`] or [`Error::Io`]: the log failed; whether
    /// the commit survives is decided by the next open. Any other error: nothing was written.
    pub fn commit(self, durability: Durability) -> Result<SeqNo> {
        if self.is_read_only() {
            return Ok(self.snapshot.seqno());
        }
        let Transaction { db, snapshot, writes, unchanged, reservation, .. } = self;
        db.commit(&snapshot, writes, &unchanged, reservation, durability)
    }
}
