//! `Db`: one open database directory.
//!
//! Holds the parts together and offers them as calls; the work itself is in `commit`, `recovery`, `work` and `txn`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use std::collections::HashMap;

use crate::backup::archive::{Archive, row_ids_note};
use crate::cache::BlockCache;
use crate::cold::ColdTier;
use crate::commit::Sequencer;
use crate::compaction::CompactionOptions;
use crate::env::capped::CappedEnv;
use crate::env::{Env, FileLock};
use crate::error::{Error, Result};
use crate::event::{Event, Listener};
use crate::manifest::{Edit, Manifest};
use crate::memory::MemoryBudget;
use crate::metrics::{Metric, MetricValue, Metrics};
use crate::options::Options;
use crate::recovery;
use crate::schema::{StorageKind, TableId, TableSchema};
use crate::seqno::SeqNo;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use crate::txn::conflict::Room;
use crate::txn::lock::LockTable;
use crate::txn::snapshot::Snapshots;
use crate::txn::{Transaction, TransactionOptions};
use crate::view::{ReadView, Snapshot, Views};
use crate::wal::{RecordKind, Wal};
use crate::work::Work;

pub use crate::commit::Durability;

/// An open database. Cheap to clone; the directory stays locked until the last clone and transaction are gone.
#[derive(Clone)]
pub struct Db {
    pub(crate) inner: Arc<Inner>,
}

/// What a table needs beyond its bytes: only known after the catalog has been read.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) kind: StorageKind,
    /// Shape of its levels if it is a table of rows.
    pub(crate) compaction: CompactionOptions,
    /// The commit that gave the table this shape; 0 if it was told outside of one.
    pub(crate) since: SeqNo,
}

/// The shared state behind every handle.
pub(crate) struct Inner {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) block_cache: Arc<BlockCache>,
    pub(crate) cold: Arc<dyn ColdTier>,
    pub(crate) wal: Wal,
    pub(crate) manifest: Manifest,
    pub(crate) views: Views,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) sequencer: Mutex<Sequencer>,
    pub(crate) recent_room: Arc<Room>,
    pub(crate) locks: Arc<LockTable>,
    pub(crate) published: Condvar,
    pub(crate) tables: RwLock<HashMap<TableId, Registered>>,
    pub(crate) row_ids: Mutex<HashMap<TableId, RowIdBlock>>,
    pub(crate) work: Work,
    pub(crate) metrics: Metrics,
    pub(crate) archive: Option<Archive>,
    pub(crate) listener: Option<Arc<dyn Listener>>,
    pub(crate) _lock: Box<dyn FileLock>,
}

/// Row ids handed out from memory, and how far the manifest has reserved them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowIdBlock {
    pub(crate) next: u64,
    pub(crate) reserved: u64,
}

/// Row ids are reserved in the manifest a block at a time: one sync per million rows.
const ROW_ID_BLOCK: u64 = 1 << 20;

/// Figures about an open database, for system tables and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbStats {
    /// Newest published commit.
    pub read_point: SeqNo,
    /// Oldest commit that a snapshot may still read at.
    pub watermark: SeqNo,
    /// Snapshots and transactions alive.
    pub snapshot_count: usize,
    /// Age of the oldest of them; 0 if there is none.
    pub oldest_snapshot_age_ms: u64,
    /// Bytes of log that recovery would read.
    pub wal_bytes: u64,
    /// Bytes in sealed memtables that wait for their flush.
    pub sealed_bytes: u64,
}

impl Db {
    /// Opens the database in `dir`, creating it if the folder is empty or missing, and recovers it.
    ///
    /// Everything acknowledged before is there when this returns; commits that were in flight are whole or absent.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NewerFormat`], [`Error::Corrupt`], or I/O. Nothing is changed by a failed open.
    pub fn open(env: Arc<dyn Env>, dir: &Path, options: Options, cold: Arc<dyn ColdTier>) -> Result<Db> {
        let budget = MemoryBudget::new(options.memory_bytes_max);
        Db::open_with(env, dir, options, budget, cold, None)
    }

    /// [`Db::open`] with a shared memory budget and a listener for background events.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_with(
        env: Arc<dyn Env>,
        dir: &Path,
        options: Options,
        budget: Arc<MemoryBudget>,
        cold: Arc<dyn ColdTier>,
        listener: Option<Arc<dyn Listener>>,
    ) -> Result<Db> {
        let options = options.within(budget.limit());
        let env = CappedEnv::around(env, options.open_files_max);
        let inner = Arc::new(recovery::open(env, dir, options, budget, cold, listener)?);
        recovery::settle(&inner)?;
        Ok(Db { inner })
    }

    /// Tells the store the shape and storage kind of a table, which its background work needs. In memory only: call it
    /// for every table after open, and for a new one before its first row. A change of shape goes with the transaction that
    /// makes it, see [`Transaction::reshape`].
    pub fn register_table(&self, schema: Arc<TableSchema>, kind: StorageKind) {
        self.register_table_with(schema, kind, CompactionOptions::default());
    }

    /// [`Db::register_table`] with a shape of its own for the levels of a table of kind [`StorageKind::Row`]. A change of
    /// shape takes effect as the table is compacted.
    pub fn register_table_with(&self, schema: Arc<TableSchema>, kind: StorageKind, compaction: CompactionOptions) {
        self.inner.register(Registered { schema, kind, compaction, since: SeqNo::ZERO });
    }

    /// Tables that own storage, whether registered or not.
    #[must_use]
    pub fn tables(&self) -> Vec<TableId> {
        let view = self.inner.views.load();
        let mut tables: Vec<TableId> = view.tables.keys().copied().collect();
        tables.extend(self.inner.manifest.version().tables.keys());
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// Starts a transaction at the current read point, at snapshot isolation.
    ///
    /// # Errors
    /// [`Error::Closed`], or an exhausted budget.
    pub fn begin(&self) -> Result<Transaction> {
        self.begin_with(TransactionOptions::default())
    }

    /// Starts a transaction at the current read point. The first of several serializable ones waits for the commits in
    /// flight.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub fn begin_with(&self, options: TransactionOptions) -> Result<Transaction> {
        if self.inner.lock_sequencer().closed {
            return Err(Error::Closed);
        }
        Transaction::new(Arc::clone(&self.inner), options)
    }

    /// A snapshot at the current read point: everything acknowledged so far is in it (P4).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.snapshots.take(&self.inner.views, self.inner.env.monotonic())
    }

    /// The newest committed row under the full `key`. One read needs no snapshot: the view that it loads holds all that it
    /// may touch, so this is cheaper than [`Db::snapshot`] and a read from it.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn get(&self, schema: &TableSchema, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let view = self.inner.views.borrow();
        view.get(schema, key, view.read_point())
    }

    /// What `read` makes of the newest layout and its read point: any number of short reads that agree with each other, and
    /// see everything acknowledged so far (P4), without the cost of a [`Snapshot`]. The layout's files cannot go before `read`
    /// has ended, so what takes longer than a few reads is a snapshot's business.
    pub fn read<T>(&self, read: impl FnOnce(&ReadView, SeqNo) -> T) -> T {
        let view = self.inner.views.borrow();
        read(&view, view.read_point())
    }

    /// Whether a commit may have to wait for background work that has fallen behind: for callers that must not block, and
    /// that send such a commit to another thread.
    #[must_use]
    pub fn commits_wait(&self) -> bool {
        self.inner.commits_wait()
    }

    /// Reserves `count` row ids for a table without a primary key, and returns the first. Ids rise over the table's
    /// life and are never handed out twice; a crash may skip some.
    ///
    /// # Errors
    /// I/O on the manifest.
    pub fn allocate_row_ids(&self, table: TableId, count: u64) -> Result<u64> {
        let mut blocks = self.inner.row_ids.lock().unwrap_or_else(PoisonError::into_inner);
        let block = blocks.entry(table).or_insert_with(|| {
            let next = self.inner.manifest.version().table(table).map_or(0, |table| table.next_row_id);
            RowIdBlock { next, reserved: next }
        });
        if block.next + count > block.reserved {
            let reserved = block.next + count + ROW_ID_BLOCK;
            self.inner.manifest.append(&[Edit::RowIds { table, next: reserved }])?;
            // A restore from archived log has no later manifest to learn it from.
            self.inner.wal.note(RecordKind::RowIds, &row_ids_note(table, reserved))?;
            block.reserved = reserved;
        }
        let first = block.next;
        block.next += count;
        Ok(first)
    }

    /// The memory budget shared by everything in this database.
    #[must_use]
    pub fn budget(&self) -> &Arc<MemoryBudget> {
        &self.inner.budget
    }

    /// The cache of run blocks.
    #[must_use]
    pub fn block_cache(&self) -> &Arc<BlockCache> {
        &self.inner.block_cache
    }

    /// The environment that all files go through.
    #[must_use]
    pub fn env(&self) -> &Arc<dyn Env> {
        &self.inner.env
    }

    /// The database directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Figures for system tables and tests.
    #[must_use]
    pub fn stats(&self) -> DbStats {
        let view = self.inner.views.load();
        DbStats {
            read_point: view.read_point(),
            watermark: self.inner.snapshots.watermark(&self.inner.views),
            snapshot_count: self.inner.snapshots.count(),
            oldest_snapshot_age_ms: self.inner.snapshots.oldest_since().map_or(0, |since| self.inner.age_ms(since)),
            wal_bytes: self.inner.wal.live_bytes(),
            sealed_bytes: view.sealed_bytes(),
        }
    }

    /// What this database has done since it was opened, and how it stands, in a fixed order. Costs a few microseconds.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let stats = self.stats();
        let tables = self.tables();
        let values = tables.iter().map(|table| self.value_stats(*table));
        let values = values.fold((0, 0), |sum, table| (sum.0 + table.file_bytes, sum.1 + table.garbage_bytes));
        let gauge = |name, help, value| Metric { name, help, value: MetricValue::Gauge(value) };
        let mut list = self.inner.metrics.list(self.inner.wal.metrics());
        list.extend([
            gauge("strata_snapshots", "Snapshots and transactions alive.", stats.snapshot_count as u64),
            gauge(
                "strata_oldest_snapshot_age_ms",
                "Age of the oldest of them in milliseconds, 0 if there is none.",
                stats.oldest_snapshot_age_ms,
            ),
            gauge("strata_value_file_bytes", "Bytes of value files.", values.0),
            gauge("strata_value_garbage_bytes", "Bytes of large values that no run refers to.", values.1),
            gauge("strata_log_live_bytes", "Bytes of log that recovery would read.", stats.wal_bytes),
            gauge("strata_sealed_bytes", "Bytes in sealed memtables that wait for their flush.", stats.sealed_bytes),
            gauge("strata_memory_used_bytes", "Bytes taken from the memory budget.", self.inner.budget.used()),
            gauge("strata_memory_limit_bytes", "Size of the memory budget.", self.inner.budget.limit()),
        ]);
        if let Some(files) = self.inner.env.capped() {
            list.extend([
                gauge("strata_open_files", "Runs and segments that have a file open.", files.open_count() as u64),
                gauge("strata_held_files", "Runs and segments in use, open or not.", files.held_count() as u64),
                Metric {
                    name: "strata_files_opened_total",
                    help: "How often one was opened, for the first time or again.",
                    value: MetricValue::Counter(files.opened_count()),
                },
            ]);
        }
        list
    }

    /// Stops background work, syncs the log and marks it cleanly closed. Open transactions can no longer commit.
    ///
    /// # Errors
    /// A log that failed earlier or fails now; everything acknowledged as durable is safe all the same.
    pub fn close(self) -> Result<()> {
        self.inner.close()
    }
}

impl Inner {
    pub(crate) fn lock_sequencer(&self) -> MutexGuard<'_, Sequencer> {
        self.sequencer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since `began`, by the monotonic clock.
    pub(crate) fn age_ms(&self, began: Duration) -> u64 {
        u64::try_from(self.env.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn registered(&self, table: TableId) -> Option<Registered> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(&table).cloned()
    }

    pub(crate) fn register(&self, table: Registered) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.insert(table.schema.table, table);
    }

    /// Whether a table got another shape by a commit after `seqno`.
    pub(crate) fn is_reshaped_since(&self, seqno: SeqNo) -> bool {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.values().any(|table| table.since > seqno)
    }

    pub(crate) fn notify(&self, event: &Event) {
        if let Some(listener) = &self.listener {
            listener.notify(event);
        }
    }

    fn close(&self) -> Result<()> {
        self.work.stop();
        let already = std::mem::replace(&mut self.lock_sequencer().closed, true);
        if already {
            return Ok(());
        }
        let saved = self.save_times(true);
        self.wal.close()?;
        if let Err(error) = self.archive_all() {
            tracing::warn!(%error, "the end of the log is not archived; it will be after the next open");
        }
        saved
    }
}
