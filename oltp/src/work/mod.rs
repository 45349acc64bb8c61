//! Background work as plain calls: threads drive the steps live, tests drive them one by one.
//!
//! * [`Db::flush_step`]: a sealed memtable becomes a run (`flush`); marks are sealed; the log is released.
//! * [`Db::log_step`]: commits that nobody waited for become durable.
//! * [`Db::convert_step`]: the cold tier turns runs into segments or rewrites segments (`convert`); runs of `row`
//!   tables are compacted (`merge`).
//!
//! Always true:
//! * one flush at a time, so memtables of a table reach the manifest oldest first;
//! * one conversion or merge at a time, so the inputs of a job stay live until it installs;
//! * nothing enters the manifest before the log is durable through its newest SeqNo.

mod convert;
mod flush;
mod leftovers;
mod merge;
pub mod pace;
mod pressure;
pub mod reclaim;
mod traffic;

use std::collections::HashMap;
use std::time::Duration;

use crate::compaction::picker::{debt_bytes, level_bytes};
use crate::db::{Db, Inner};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::schema::{StorageKind, TableId};
use crate::seqno::SeqNo;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, Condvar, Mutex, PoisonError};

use leftovers::Leftovers;
use pace::{BOUND, IoLimit, Pacer};
pub use traffic::LevelStats;
use traffic::TrafficByLevel;

/// Locks and signals of the background work.
pub(crate) struct Work {
    /// Held for a whole flush.
    pub(crate) flushing: Mutex<()>,
    /// Held for a whole conversion or merge.
    pub(crate) restructuring: Mutex<()>,
    /// Held from a job's manifest edit until its swap, and while the log is released: in between, manifest and view
    /// disagree.
    pub(crate) installing: Mutex<()>,
    /// When the times of commits were last saved; held while they are.
    pub(crate) times_saved: Mutex<Duration>,
    /// Files that may be named by the manifest after a crash and are not now.
    pub(crate) leftovers: Leftovers,
    /// What went through the levels of each table.
    pub(crate) traffic: TrafficByLevel,
    pub(crate) pacer: Pacer,
    /// What flushes and merges may write per second.
    pub(crate) io_limit: Option<Arc<IoLimit>>,
    conversion_paused: AtomicBool,
    /// When each table was last seen to change.
    activity: Mutex<HashMap<TableId, (SeqNo, Duration)>>,
    signal: Arc<Signal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Wakes the background threads; outlives the database, so that a thread can notice that it is gone.
#[derive(Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    stopped: bool,
    tick: u64,
}

/// How often an idle background thread looks for work that no commit announced, such as idle tables.
const POLL: Duration = Duration::from_millis(100);
/// After this many waits of 5 ms a commit tries to flush by itself.
const PACE_WAITS_MAX: u32 = 200;
/// Pause after a failed step, so that a full disk does not turn into a busy loop.
const RETRY: Duration = Duration::from_secs(1);

impl Work {
    pub(crate) fn new(background_bytes_per_second_max: u64) -> Work {
        Work {
            flushing: Mutex::new(()),
            restructuring: Mutex::new(()),
            installing: Mutex::new(()),
            times_saved: Mutex::new(Duration::ZERO),
            leftovers: Leftovers::default(),
            traffic: TrafficByLevel::default(),
            pacer: Pacer::new(),
            io_limit: IoLimit::of(background_bytes_per_second_max),
            conversion_paused: AtomicBool::new(false),
            activity: Mutex::new(HashMap::new()),
            signal: Arc::new(Signal::default()),
            threads: Mutex::new(Vec::new()),
        }
    }

    /// Tells the threads that there may be work.
    pub(crate) fn wake(&self) {
        self.signal.state.lock().unwrap_or_else(PoisonError::into_inner).tick += 1;
        self.signal.changed.notify_all();
    }

    fn is_running(&self) -> bool {
        !self.threads.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Stops the threads and waits for the steps they are in.
    pub(crate) fn stop(&self) {
        self.signal.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.signal.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A background thread that panicked has printed why; its step was not installed.
            let _ = thread.join();
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.signal.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.signal.changed.notify_all();
    }
}

impl Db {
    /// Starts the background threads: one that flushes, one that converts and merges, one that syncs the log. Without them the caller drives
    /// [`Db::step`]. They end with [`Db::close`] or with the last handle.
    pub fn start_background(&self) {
        let mut threads = self.inner.work.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_empty() {
            // A thread of its own for the log, because a flush takes longer than buffered commits may wait.
            let interval = Duration::from_millis(self.inner.options.buffered_sync_interval_ms.max(1));
            threads.push(self.spawn("strata-flush", POLL, Db::flush_step));
            threads.push(self.spawn("strata-convert", POLL, Db::convert_step));
            threads.push(self.spawn("strata-log", interval, Db::log_step));
            if self.inner.archive.is_some() {
                threads.push(self.spawn("strata-archive", POLL, Db::archive_step));
            }
        }
    }

    /// A thread that takes steps and rests for `poll` when there is nothing to do.
    fn spawn(&self, name: &str, poll: Duration, step: fn(&Db) -> Result<bool>) -> JoinHandle<()> {
        let signal = Arc::clone(&self.inner.work.signal);
        let weak = Arc::downgrade(&self.inner);
        let body = move || {
            loop {
                let seen = signal.state.lock().unwrap_or_else(PoisonError::into_inner).tick;
                let Some(inner) = weak.upgrade() else { return };
                let pause = match step(&Db { inner: Arc::clone(&inner) }) {
                    Ok(true) => None,
                    Ok(false) => Some(poll),
                    Err(error) => {
                        tracing::warn!(%error, "background step failed; it will be tried again");
                        inner.metrics.background_failures.add(1);
                        inner.notify(&Event::Failed { error: error.to_string() });
                        Some(RETRY)
                    }
                };
                drop(inner);
                let state = signal.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.stopped {
                    return;
                }
                if let Some(pause) = pause
                    && (pause == RETRY || state.tick == seen)
                {
                    drop(signal.changed.wait_timeout(state, pause));
                }
            }
        };
        #[expect(clippy::expect_used, reason = "a process that cannot start a thread at open cannot run")]
        thread::Builder::new().name(name.to_owned()).spawn(body).expect("the system refused a thread")
    }

    /// Does one piece of background work, the most urgent first; `false` if there was none.
    ///
    /// # Errors
    /// Whatever the work met; it is not installed then and can be tried again.
    pub fn step(&self) -> Result<bool> {
        Ok(self.flush_step()? || self.log_step()? || self.convert_step()? || self.archive_step()?)
    }

    /// Makes every commit acknowledged so far durable, and lets a later reader prove that it was: without a record behind
    /// the last group its damage cannot be told from a write cut short. Always `false`: there is never more of it to do.
    ///
    /// # Errors
    /// A log that failed.
    pub fn log_step(&self) -> Result<bool> {
        let wal = &self.inner.wal;
        let end = wal.end_lsn();
        wal.sync_to(end)?;
        // Commits that came meanwhile carry the proof themselves.
        if wal.end_lsn() == end {
            wal.write_watermark()?;
        }
        Ok(false)
    }

    /// Holds back conversions (not flushes) while `paused`. Calls of [`Db::convert`] and [`Db::compact`] still work.
    pub fn pause_conversion(&self, paused: bool) {
        self.inner.work.conversion_paused.store(paused, Ordering::Release);
        self.inner.work.wake();
    }
}

/// The manifest took a change that the view does not: both hold the same levels and change by the same calls.
fn disagreement(what: &'static str) -> Error {
    debug_assert!(false, "manifest and view disagree: {what}");
    Error::Invalid(format!("manifest and view disagree: {what}; reopen the database"))
}

impl Inner {
    /// The stated debt bound (P7): a commit waits while more than `sealed_bytes_max` is sealed and not flushed. Without
    /// background threads the committing thread flushes itself.
    ///
    /// Below that it is delayed for its `bytes` by what background work is behind; without background threads nothing is
    /// gained by that.
    pub(crate) fn pace(&self, bytes: usize) -> Result<()> {
        let sealed_bytes = self.views.borrow().sealed_bytes();
        let is_over = sealed_bytes > self.options.sealed_bytes_max;
        let sealed_debt = sealed_bytes.saturating_mul(BOUND) / self.options.sealed_bytes_max.max(1);
        if !is_over && !self.work.pacer.costs(sealed_debt) {
            return Ok(());
        }
        let start = self.env.monotonic();
        if !is_over {
            let delay = self.work.pacer.charge(start, bytes as u64, sealed_debt);
            if delay.is_zero() || !self.work.is_running() {
                return Ok(());
            }
            self.env.sleep(delay);
        }
        let outcome = if is_over { self.wait_for_flushes() } else { Ok(()) };
        let elapsed = self.env.monotonic().saturating_sub(start);
        self.metrics.stalls.record(elapsed);
        tracing::debug!(?elapsed, "a commit waited for background work");
        outcome
    }

    /// Whether commits may be made to wait for background work now.
    pub(crate) fn commits_wait(&self) -> bool {
        let sealed_bytes = self.views.borrow().sealed_bytes();
        let sealed_debt = sealed_bytes.saturating_mul(BOUND) / self.options.sealed_bytes_max.max(1);
        sealed_bytes > self.options.sealed_bytes_max || self.work.pacer.costs(sealed_debt)
    }

    /// Tells the pacer how far behind the levels are: the worst of their level 0 and the sum of their bytes.
    pub(crate) fn note_compaction_debt(&self) {
        let view = self.views.load();
        let (mut runs, mut bytes) = (0, 0u64);
        for known in self.registered_tables().iter().filter(|known| known.kind == StorageKind::Row) {
            let Some(rows) = view.rows(known.schema.table) else { continue };
            let stats = level_bytes(&rows.runs, &known.compaction);
            runs = stats[0].sorted_runs.max(runs);
            bytes = bytes.saturating_add(debt_bytes(&rows.runs, &known.compaction));
        }
        let share = |have: u64, bound: u64| have.saturating_mul(BOUND) / bound.max(1);
        let by_runs = share(runs as u64, self.options.level0_runs_max);
        self.work.pacer.set_compaction_debt(by_runs.max(share(bytes, self.options.compaction_debt_bytes_max)));
    }

    fn wait_for_flushes(&self) -> Result<()> {
        let mut waits = 0;
        while self.views.load().sealed_bytes() > self.options.sealed_bytes_max {
            self.wal.check()?;
            waits += 1;
            // A background thread that cannot flush, say for a full disk, must not make commits wait for ever: in the
            // end the committing thread tries itself, and its caller gets the reason.
            if self.work.is_running() && waits < PACE_WAITS_MAX {
                self.work.wake();
                // Short waits, so that the delay follows the flush and no commit waits longer than it must.
                let state = self.work.signal.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.stopped {
                    return Err(Error::Closed);
                }
                drop(self.work.signal.changed.wait_timeout(state, Duration::from_millis(5)));
            } else {
                self.flush_sealed()?;
            }
        }
        Ok(())
    }

    /// Milliseconds since `table` last changed, as far as the background work has noticed.
    fn idle_ms(&self, table: TableId) -> u64 {
        let newest = self.lock_sequencer().newest.get(&table).copied().unwrap_or_default();
        let now = self.env.monotonic();
        let mut activity = self.work.activity.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = activity.entry(table).or_insert((newest, now));
        if seen.0 != newest {
            *seen = (newest, now);
        }
        u64::try_from(now.saturating_sub(seen.1).as_millis()).unwrap_or(u64::MAX)
    }

    /// Removes files that no view names any more. A file that cannot be removed is an orphan for the next open.
    pub(crate) fn remove_garbage(&self) {
        for (kind, id) in self.views.collect() {
            if kind == crate::file::FileKind::Run {
                self.block_cache.evict_file(id);
            }
            self.remove_file(kind, id);
        }
    }

    fn remove_file(&self, kind: crate::file::FileKind, id: crate::file::FileId) {
        let path = kind.path(&self.dir, id);
        if let Err(error) = self.env.remove(&path) {
            tracing::warn!(%error, file = %path.display(), "cannot remove a dropped file; the next open will");
        }
    }
}
