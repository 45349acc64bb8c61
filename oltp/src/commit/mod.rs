//! The commit pipeline: from a transaction's writes to an acknowledged, visible, durable commit.
//!
//! ```text
//!   outside any lock   encode · reserve memory · locate the segment rows that the writes supersede   (I/O allowed)
//!   in the mutex       validate · take the SeqNo · copy to the log buffer · append marks             (memory only)
//!   outside again      apply to memtables · sync the log · publish in commit order · acknowledge
//! ```
//!
//! Always true:
//! * a SeqNo is taken only together with a place in the log, so the log is in commit order (I2, P2);
//! * the read point passes a durable commit only after its frame was synced, so nobody reads what a crash could lose;
//! * locations are hints and keys are the truth: if the cold tier changed since they were resolved, they are resolved
//!   again before the SeqNo is taken (I6).
//!
//! The pipeline follows Pebble's commit pipeline; the durable horizon follows DuckDB's 2026 group commit.

pub(crate) mod record;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::cold::Location;
use crate::db::{Inner, Registered};
use crate::error::{Error, Result};
use crate::manifest::Levels;
use crate::memory::Reservation;
use crate::memtable::Memtable;
use crate::publish::{Pending, Ring};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::txn::conflict::{CommitKeys, RecentCommits};
use crate::txn::footprint::{Footprint, table_of};
use crate::txn::history::History;
use crate::txn::lock::{HeldLocks, Refused};
use crate::txn::reads::ReadSet;
use crate::txn::{LockMode, Overlay};
use crate::view::{ReadView, Snapshot, TableRows};
use crate::wal::RecordKind;
use record::CommitRecord;

/// What an acknowledged commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Kill -9 and power loss: acknowledged after its log frame was synced.
    #[default]
    Durable,
    /// Neither, until the log is synced: by the next durable commit, or by the background after
    /// [`crate::Options::buffered_sync_interval_ms`]. Acknowledged once visible. What a crash takes is the newest of these
    /// commits, whole ones, and nothing older than that interval (P2).
    Buffered,
}

/// Everything that the commit mutex guards.
pub(crate) struct Sequencer {
    pub(crate) last: SeqNo,
    pub(crate) recent: RecentCommits,
    /// Times of commits, if states of the past are kept.
    pub(crate) history: Option<History>,
    /// Commits with a SeqNo that are not published yet, in order.
    pub(crate) pending: Ring,
    /// Running conversions, which must learn of every commit that supersedes one of their inputs.
    pub(crate) jobs: Vec<Arc<JobLog>>,
    /// Threads that wait for a publication: waking nobody costs a system call as well.
    pub(crate) publish_waiters: usize,
    /// Newest commit to each table since open.
    pub(crate) newest: HashMap<TableId, SeqNo>,
    pub(crate) closed: bool,
}

/// What a running conversion must still learn: keys in its range that were committed while it ran.
#[derive(Debug)]
pub(crate) struct JobLog {
    pub(crate) table: TableId,
    /// Smallest and largest full key of the job's inputs.
    pub(crate) keys: (Vec<u8>, Vec<u8>),
    /// Commits at or below this are visible to the job itself. Pins the log above it.
    pub(crate) through: SeqNo,
    pub(crate) superseded: Mutex<Vec<(Vec<u8>, SeqNo)>>,
}

/// A sequenced commit, with the memtables that it was routed to.
struct Ticket {
    pending: Arc<Pending>,
    memtables: Vec<Option<Arc<Memtable>>>,
    /// Whether a full memtable was moved aside for it, which is work for the flush thread.
    sealed: bool,
}

/// A transaction that is to be committed.
pub(crate) struct Request {
    pub(crate) snapshot: Snapshot,
    pub(crate) writes: BTreeMap<TableId, Arc<Overlay>>,
    pub(crate) unchanged: Vec<(TableId, Vec<u8>)>,
    /// Shapes that tables have from this commit on.
    pub(crate) shapes: Vec<Registered>,
    pub(crate) untouched: Vec<TableId>,
    pub(crate) reads: ReadSet,
    /// Released with the request, when the commit can be seen.
    pub(crate) locks: HeldLocks,
    pub(crate) lock_timeout: Option<Duration>,
    pub(crate) reservation: Reservation,
    pub(crate) durability: Durability,
}

/// What came of an attempt to give a commit its place.
enum Attempt {
    Sequenced(Ticket),
    /// The cold tier changed since the marks were resolved.
    Moved,
    /// Another transaction holds this key.
    Held(Arc<[u8]>),
}

impl Sequencer {
    pub(crate) fn new(
        last: SeqNo,
        newest: HashMap<TableId, SeqNo>,
        recent: RecentCommits,
        history: Option<History>,
    ) -> Sequencer {
        Sequencer {
            last,
            recent,
            history,
            pending: Ring::new(),
            jobs: Vec::new(),
            publish_waiters: 0,
            newest,
            closed: false,
        }
    }
}

impl Inner {
    pub(crate) fn commit(&self, request: Request) -> Result<SeqNo> {
        let is_conflict = |error: &Error| matches!(error, Error::Conflict { .. });
        self.carry_out(request).inspect_err(|error| self.metrics.conflicts.add(u64::from(is_conflict(error))))
    }

    fn carry_out(&self, request: Request) -> Result<SeqNo> {
        let Request { snapshot, writes, unchanged, untouched, mut shapes, reads, .. } = request;
        let Request { mut locks, lock_timeout, reservation, durability, .. } = request;
        let record = CommitRecord::encode(&writes)?;
        self.pace(record.bytes().len())?;
        drop(writes);
        if durability == Durability::Buffered {
            self.wal.make_room(record.bytes().len())?;
        }
        let mut footprint = Footprint::new(snapshot.seqno(), &record, (&unchanged, &untouched), &reads);
        let mut keys = self.snapshots.wants_keys().then(|| CommitKeys::new(record.keys()));
        // As for a transaction's writes, committed rows make room.
        let key_bytes = keys.as_ref().map_or(0, CommitKeys::memory_bytes);
        while let Err(missing) = self.recent_room.prepare(record.entry_count(), key_bytes)
            && self.flush_largest(missing)?
        {}
        let ticket = loop {
            let ahead = footprint.check_ahead(|look| {
                let sequencer = self.lock_sequencer();
                look(&sequencer.recent, &sequencer.newest, sequencer.last);
            });
            // The rival may be a commit that will never be published, because the log failed under it. Who was told to try
            // again would try for ever.
            ahead.or_else(|conflict| self.wal.check().and(Err(conflict)))?;
            let view = self.views.load();
            let marks = self.superseded_locations(&view, &record)?;
            match self.sequence(&mut footprint, &locks, &view, &record, &mut keys, &marks, &mut shapes, durability)? {
                Attempt::Sequenced(ticket) => break ticket,
                Attempt::Moved => {}
                Attempt::Held(key) => self.acquire(&mut locks, &key, LockMode::Exclusive, lock_timeout).map(drop)?,
            }
        };
        // The transaction's memory becomes the memtables': what they use of it, not the steps it was reserved in, or a
        // few hundred small commits would fill the budget.
        for ((_, range), memtable) in record.tables.iter().zip(&ticket.memtables) {
            let Some(memtable) = memtable else { continue };
            memtable.apply(&self.budget, ticket.pending.seqno, record.versions(range.clone()));
        }
        drop(reservation);
        ticket.pending.set_applied();
        if durability == Durability::Durable
            && let Err(error) = self.wal.sync_to(ticket.pending.lsn)
        {
            // The commits behind this one wait for a publication that will not come: let them see the failure. Under the
            // lock, or one that has just looked for a failure and is about to sleep would sleep through this.
            let _sequencer = self.lock_sequencer();
            self.published.notify_all();
            return Err(error);
        }
        self.publish_through(ticket.pending.seqno)?;
        self.metrics.commits.add(1);
        self.metrics.commit_bytes.add(record.bytes().len() as u64);
        if ticket.sealed {
            self.work.wake();
        }
        Ok(ticket.pending.seqno)
    }

    /// Takes a row lock for a transaction.
    pub(crate) fn acquire(
        &self,
        locks: &mut HeldLocks,
        key: &Arc<[u8]>,
        mode: LockMode,
        timeout: Option<Duration>,
    ) -> Result<bool> {
        locks.acquire(key, mode, timeout, self.env.as_ref()).map_err(|refused| {
            let (table, key) = (table_of(key), key.to_vec());
            match refused {
                Refused::Deadlock => Error::Deadlock { table, key },
                Refused::Timeout => Error::LockTimeout { table, key },
            }
        })
    }

    /// Positions of live segment rows under the record's keys.
    fn superseded_locations(&self, view: &ReadView, record: &CommitRecord) -> Result<Vec<Location>> {
        let mut locations = Vec::new();
        let mut keys = record.keys();
        for (table, range) in &record.tables {
            for key in keys.by_ref().take(range.len()) {
                if let Some((location, _)) = view.cold.locate(*table, key, SeqNo::MAX)? {
                    locations.push(location);
                }
            }
        }
        Ok(locations)
    }

    /// The part inside the mutex.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    fn sequence(
        &self,
        footprint: &mut Footprint<'_>,
        locks: &HeldLocks,
        resolved: &ReadView,
        record: &CommitRecord<'static>,
        keys: &mut Option<CommitKeys>,
        marks: &[Location],
        shapes: &mut Vec<Registered>,
        durability: Durability,
    ) -> Result<Attempt> {
        let mut sequencer = self.lock_sequencer();
        if sequencer.closed {
            return Err(Error::Closed);
        }
        footprint
            .check(&sequencer.recent, &sequencer.newest, sequencer.last)
            .or_else(|conflict| self.wal.check().and(Err(conflict)))?;
        if let Some(key) = self.locks.find_held(record, locks) {
            return Ok(Attempt::Held(key));
        }
        let view = self.views.load();
        if !Arc::ptr_eq(&view.cold, &resolved.cold) {
            return Ok(Attempt::Moved);
        }
        let seqno = sequencer.last.next();
        self.note_time()?;
        let lsn = self.wal.append(RecordKind::Commit, seqno, &[record.bytes()])?;
        let before = std::mem::replace(&mut sequencer.last, seqno);
        if let Some(history) = &mut sequencer.history {
            history.note(self.now_ms(), before);
        }
        for location in marks {
            self.cold.mark(view.cold.as_ref(), *location, seqno);
        }
        for job in &sequencer.jobs {
            job.observe(record, seqno);
        }
        // Here and not after the publication: whoever starts a job from here on, under this mutex, may meet rows of the new
        // shape, and waits for this commit before its output can be seen.
        for table in shapes.drain(..) {
            self.register(Registered { since: seqno, ..table });
        }
        let (memtables, sealed) = self.route(&view, record, seqno);
        for (table, _) in &record.tables {
            sequencer.newest.insert(*table, seqno);
        }
        let needed = self.snapshots.needed_commits(&self.views);
        sequencer.recent.forget(needed.fingerprints_above);
        sequencer.recent.forget_keys(needed.keys_above);
        // A serializable transaction may have begun since the keys were gathered.
        let keys = self.snapshots.wants_keys().then(|| keys.take().unwrap_or_else(|| CommitKeys::new(record.keys())));
        sequencer.recent.insert(seqno, footprint.take_writes(), keys);
        let pending = Arc::new(Pending::new(seqno, lsn, durability));
        sequencer.pending.push(Arc::clone(&pending));
        Ok(Attempt::Sequenced(Ticket { pending, memtables, sealed }))
    }

    /// The memtable that each table's entries still go to, after sealing those that are full and creating those that are
    /// new; `None` where they became one by themselves. Whether one was sealed comes with them.
    fn route(
        &self,
        view: &ReadView,
        record: &CommitRecord<'static>,
        seqno: SeqNo,
    ) -> (Vec<Option<Arc<Memtable>>>, bool) {
        let memtable_bytes_max = self.options.memtable_bytes_max;
        let mut sealed = false;
        let mut changed: Option<BTreeMap<TableId, Arc<TableRows>>> = None;
        let mut memtables = Vec::with_capacity(record.tables.len());
        for (table, range) in &record.tables {
            let rows = view.tables.get(table);
            let is_large = record.entries.bytes_of(range) >= memtable_bytes_max;
            if let Some(rows) = rows
                && !is_large
                && rows.active.bytes() < memtable_bytes_max
            {
                rows.active.announce(seqno);
                memtables.push(Some(Arc::clone(&rows.active)));
                continue;
            }
            let mut next = rows.map_or_else(|| TableRows::new(Levels::default()), |rows| TableRows::clone(rows));
            sealed |= rows.is_some() || is_large;
            if is_large {
                let entries = Arc::clone(&record.entries);
                next.push_sealed(Memtable::of_commit(&self.budget, entries, range.clone(), seqno));
                memtables.push(None);
            } else {
                if rows.is_some() {
                    next.seal_active();
                }
                next.active.announce(seqno);
                memtables.push(Some(Arc::clone(&next.active)));
            }
            changed.get_or_insert_with(|| view.tables.clone()).insert(*table, Arc::new(next));
        }
        if let Some(tables) = changed {
            self.views.install(tables, Arc::clone(&view.cold), Vec::new());
        }
        (memtables, sealed)
    }

    /// Advances the read point over every commit that is ready, and waits until it has passed `seqno`.
    pub(crate) fn publish_through(&self, seqno: SeqNo) -> Result<()> {
        let mut sequencer = self.lock_sequencer();
        loop {
            self.publish_ready(&mut sequencer);
            if self.views.load().read_point() >= seqno {
                return Ok(());
            }
            self.wal.check()?;
            sequencer.publish_waiters += 1;
            sequencer = self.published.wait(sequencer).unwrap_or_else(PoisonError::into_inner);
            sequencer.publish_waiters -= 1;
        }
    }

    fn publish_ready(&self, sequencer: &mut Sequencer) {
        let newest = sequencer.pending.take_ready(self.wal.durable_lsn());
        if let Some(seqno) = newest {
            self.views.publish(seqno);
        }
        // Wake the others too when the log failed, or they would wait for a publication that never comes.
        if sequencer.publish_waiters > 0 && (newest.is_some() || self.wal.check().is_err()) {
            self.published.notify_all();
        }
    }

    /// Blocks until every commit that has a SeqNo now has been applied and published.
    pub(crate) fn settle(&self) -> Result<SeqNo> {
        let last = self.lock_sequencer().last;
        if last > SeqNo::ZERO {
            self.publish_through(last)?;
        }
        Ok(last)
    }
}

impl JobLog {
    fn observe(&self, record: &CommitRecord, seqno: SeqNo) {
        let Some((_, range)) = record.tables.iter().find(|(table, _)| *table == self.table) else { return };
        let mut superseded = self.superseded.lock().unwrap_or_else(PoisonError::into_inner);
        for key in record.keys().skip(range.start).take(range.len()) {
            if key >= self.keys.0.as_slice() && key <= self.keys.1.as_slice() {
                superseded.push((key.to_vec(), seqno));
            }
        }
    }
}
