//! `Wal`: append, group sync, release.
//!
//! Appending copies into a buffer and touches no file. Whoever needs durability and finds nobody at it takes the
//! flush turn: swaps the double buffer, completes and writes the frames, syncs once, and wakes everyone who waited.
//! So one sync covers all that was appended before it began, with no artificial delay and no hand-off to a thread.
//!
//! The first failed write or sync poisons the log: how much of it reached the disk is unknown, and the operating
//! system reports a lost page only once, so neither is ever tried again.

use std::collections::VecDeque;
use std::path::Path;

use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::metrics::LogMetrics;
use crate::publish::Rising;
use crate::seqno::SeqNo;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::wal::header::HEADER_BYTES;
use crate::wal::pin::{ArchiveGate, unpinned};
use crate::wal::reader::{Place, ReplayReport, SegmentInfo, replay};
use crate::wal::record::{self, Frame, PAYLOAD_BYTES_MAX, RecordKind};
use crate::wal::segments::{LogFolder, LogTail};
use crate::wal::{DbId, FileAllocator, Lsn, WalOptions, WalStart};

/// A flushed buffer larger than this is freed instead of kept for the next group.
const BUFFER_KEEP_BYTES_MAX: usize = 4 << 20;
const COPY_BYTES: usize = 1 << 20;

/// The write-ahead log of an open database. All calls take `&self` and may come from any thread.
pub struct Wal {
    pub(crate) folder: Arc<LogFolder>,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Copy of the tail's durable position, for reading without a lock.
    durable: Rising,
    /// Taken only by the holder of the flush turn.
    tail: Mutex<LogTail>,
    /// One release at a time.
    release: Mutex<()>,
    metrics: LogMetrics,
}

/// What was appended and not yet written, and who is writing.
struct Queue {
    buffer: Vec<u8>,
    /// The other half of the double buffer.
    idle: Vec<u8>,
    end: Lsn,
    written: Lsn,
    last_kind: Option<RecordKind>,
    last_seqno: SeqNo,
    is_flushing: bool,
    waiter_count: usize,
    is_closed: bool,
    failure: Option<String>,
}

/// How far a flush must go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Write,
    Sync,
}

impl Wal {
    /// Replays the log below `dir` into `visit` and opens it for appending.
    ///
    /// `start` is the newest [`WalStart`] in the manifest. After a new database's first call the caller records
    /// [`Wal::start`] in the manifest before it acknowledges a commit; from then on a missing file is noticed. What
    /// was replayed has been synced when this returns, so the caller may act on it.
    ///
    /// # Errors
    /// As [`replay`]; [`Error::Io`].
    pub fn open(
        env: Arc<dyn Env>,
        dir: &Path,
        db_id: DbId,
        start: Option<WalStart>,
        options: WalOptions,
        next_file: FileAllocator,
        visit: &mut dyn FnMut(Place, &Frame<'_>) -> Result<()>,
    ) -> Result<(Wal, ReplayReport)> {
        Wal::open_archived(env, dir, db_id, start, options, next_file, None, visit)
    }

    /// [`Wal::open`] for a log that is archived: files are kept as `gate` says, and take notes ([`Wal::note`]).
    ///
    /// # Errors
    /// As [`Wal::open`].
    #[expect(clippy::too_many_arguments, reason = "one more than `open`, which most callers use")]
    pub fn open_archived(
        env: Arc<dyn Env>,
        dir: &Path,
        db_id: DbId,
        start: Option<WalStart>,
        options: WalOptions,
        next_file: FileAllocator,
        gate: Option<ArchiveGate>,
        visit: &mut dyn FnMut(Place, &Frame<'_>) -> Result<()>,
    ) -> Result<(Wal, ReplayReport)> {
        let wal_dir = dir.join("wal");
        env.create_dir_all(&wal_dir).map_err(|error| Error::io("create", &wal_dir, error))?;
        env.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        let report = replay(env.as_ref(), dir, &db_id, start, visit)?;
        make_tail_durable(env.as_ref(), dir, &report)?;
        let folder = Arc::new(LogFolder::new(env, dir, db_id, options, next_file, gate));
        folder.clean(start.map(|start| start.file))?;
        lock(&folder.live).extend(report.segments.iter().copied());
        let newest = report.segments.last().map(|info| info.file);
        let mut tail = LogTail::new(Arc::clone(&folder), newest, report.end);
        if newest.is_none() {
            tail.start_segment(report.end)?;
        }
        let queue = Queue {
            buffer: Vec::new(),
            idle: Vec::new(),
            end: report.end,
            written: report.end,
            last_kind: None,
            last_seqno: report.last_seqno,
            is_flushing: false,
            waiter_count: 0,
            is_closed: false,
            failure: None,
        };
        let wal = Wal {
            folder,
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            durable: Rising::new(report.end.0),
            tail: Mutex::new(tail),
            release: Mutex::new(()),
            metrics: LogMetrics::default(),
        };
        Ok((wal, report))
    }

    /// Appends one record made of `parts` and returns the position behind it, to hand to [`Wal::sync_to`].
    ///
    /// Copies to memory and does nothing else, so it may be called under the commit mutex, whose order becomes the
    /// order of the log. The SeqNos of [`RecordKind::Commit`] records must rise. Callers that do not sync themselves
    /// call [`Wal::make_room`] first, outside the mutex, or the buffer grows without bound.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Closed`]; [`Error::LimitExceeded`] for a record over 1 GiB.
    pub fn append(&self, kind: RecordKind, seqno: SeqNo, parts: &[&[u8]]) -> Result<Lsn> {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(Error::LimitExceeded {
                budget: "size of one log record",
                requested_bytes: payload_bytes as u64,
                used_bytes: 0,
                limit_bytes: PAYLOAD_BYTES_MAX as u64,
            });
        }
        let mut queue = lock(&self.queue);
        queue.check()?;
        if queue.is_closed {
            return Err(Error::Closed);
        }
        assert!(kind != RecordKind::Commit || seqno > queue.last_seqno, "I2: commit numbers rise");
        Ok(queue.push(kind, seqno, parts))
    }

    /// Appends a note: a record that recovery has no use for, of the newest commit so far. Memory only, as
    /// [`Wal::append`]; a log that is not archived takes none.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Closed`].
    pub fn note(&self, kind: RecordKind, payload: &[u8]) -> Result<()> {
        if self.folder.archived.is_none() {
            return Ok(());
        }
        let mut queue = lock(&self.queue);
        queue.check()?;
        if queue.is_closed {
            return Err(Error::Closed);
        }
        let seqno = queue.last_seqno;
        queue.push(kind, seqno, &[payload]);
        Ok(())
    }

    /// Returns once everything below `lsn` is synced: by this call, or by another thread's that covers it.
    ///
    /// # Errors
    /// [`Error::Io`] to the caller whose write or sync failed, [`Error::Poisoned`] to everyone else. Whether the
    /// records in question survive is then unknown.
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.flush(lsn, Depth::Sync)
    }

    /// Hands everything appended so far to the operating system without syncing: it then survives the end of the
    /// process, not the loss of power.
    ///
    /// # Errors
    /// As [`Wal::sync_to`].
    pub fn write_out(&self) -> Result<()> {
        let end = lock(&self.queue).end;
        self.flush(end, Depth::Write)
    }

    /// Writes the buffer out if `bytes` more would put it above [`WalOptions::buffer_bytes_max`].
    ///
    /// To be called before the commit mutex is taken. The buffer may exceed the bound by one record per thread.
    ///
    /// # Errors
    /// As [`Wal::sync_to`].
    pub fn make_room(&self, bytes: usize) -> Result<()> {
        let buffered = lock(&self.queue).buffer.len();
        if buffered == 0 || buffered.saturating_add(bytes) <= self.folder.options.buffer_bytes_max {
            return Ok(());
        }
        self.write_out()
    }

    /// Proves the newest records durable to a later replay: syncs, then writes an empty record that says so.
    ///
    /// Until another record follows, damage to the newest group cannot be told from a write cut short; so this is
    /// called when the log has been idle for a moment. Does nothing if the newest record is such a proof already.
    ///
    /// # Errors
    /// As [`Wal::sync_to`].
    pub fn write_watermark(&self) -> Result<()> {
        let end = {
            let queue = lock(&self.queue);
            if queue.is_closed || queue.last_kind.is_none_or(|kind| kind != RecordKind::Commit) {
                return Ok(());
            }
            queue.end
        };
        self.flush(end, Depth::Sync)?;
        self.append_proof(RecordKind::Watermark)
    }

    /// Syncs everything and marks the log as closed in order; later appends fail. Idempotent.
    ///
    /// # Errors
    /// As [`Wal::sync_to`].
    pub fn close(&self) -> Result<()> {
        let (end, was_used) = {
            let mut queue = lock(&self.queue);
            if std::mem::replace(&mut queue.is_closed, true) {
                return Ok(());
            }
            (queue.end, queue.last_kind.is_some())
        };
        self.flush(end, Depth::Sync)?;
        // An untouched log keeps the end it had; a file only for this frame would be created on every open.
        if was_used { self.append_proof(RecordKind::CleanClose) } else { Ok(()) }
    }

    fn append_proof(&self, kind: RecordKind) -> Result<()> {
        let end = {
            let mut queue = lock(&self.queue);
            queue.check()?;
            let seqno = queue.last_seqno;
            queue.push(kind, seqno, &[])
        };
        self.flush(end, Depth::Sync)
    }

    /// Whether the log still takes records.
    ///
    /// # Errors
    /// [`Error::Poisoned`] since the first failed write or sync.
    pub fn check(&self) -> Result<()> {
        lock(&self.queue).check()
    }

    /// Refuses all further records and wakes everyone who waits, because of a failure outside the log after which
    /// commits must not be acknowledged. The first reason stays.
    pub fn poison(&self, reason: &str) {
        lock(&self.queue).failure.get_or_insert_with(|| reason.to_owned());
        self.changed.notify_all();
    }

    /// Everything below this is synced. Never goes back.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable.get())
    }

    /// Position behind the newest record appended.
    #[must_use]
    pub fn end_lsn(&self) -> Lsn {
        lock(&self.queue).end
    }

    /// What the log has done since it was opened.
    #[must_use]
    pub fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }

    /// Bytes appended but not yet written to a file.
    #[must_use]
    pub fn buffered_bytes(&self) -> u64 {
        lock(&self.queue).buffer.len() as u64
    }

    /// Threads waiting for another thread's write or sync.
    #[must_use]
    pub fn waiter_count(&self) -> usize {
        lock(&self.queue).waiter_count
    }

    /// The oldest file kept and its first position.
    #[must_use]
    pub fn start(&self) -> WalStart {
        let live = lock(&self.folder.live);
        // `open` creates the first file, and the newest one is never released.
        let Some(oldest) = live.front() else { unreachable!("a log always has a file") };
        WalStart { file: oldest.file, lsn: oldest.first_lsn }
    }

    /// The files kept, oldest first; the last one may be growing.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        lock(&self.folder.live).iter().copied().collect()
    }

    /// Bytes of records in the files kept, spares and zero-filled space left out.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        lock(&self.folder.live).iter().map(|info| HEADER_BYTES as u64 + info.end_lsn.0 - info.first_lsn.0).sum()
    }

    /// Bytes of the spare files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn spare_bytes(&self) -> Result<u64> {
        self.folder.spare_bytes()
    }

    /// Where the log would start without the leading files whose records are all of commits at or below `seqno`;
    /// `None` if no file can go. The newest file stays, and so does what a copy in progress has pinned.
    ///
    /// The caller records the result in the manifest and only then calls [`Wal::release`].
    #[must_use]
    pub fn releasable(&self, seqno: SeqNo) -> Option<WalStart> {
        let live = lock(&self.folder.live);
        let keep = oldest_needed(&live, seqno).min(unpinned(&self.folder, &live));
        (keep > 0).then(|| WalStart { file: live[keep].file, lsn: live[keep].first_lsn })
    }

    /// Recycles or removes the files before `start`, which the manifest already records.
    ///
    /// A crash or an error in the middle leaves files that the next open removes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn release(&self, start: WalStart) -> Result<()> {
        let _guard = lock(&self.release);
        loop {
            let file = {
                let live = lock(&self.folder.live);
                match live.front() {
                    Some(oldest) if oldest.file < start.file && live.len() > 1 => oldest.file,
                    _ => return Ok(()),
                }
            };
            // Forgotten first: should the rename fail, the next open removes the file as a leftover.
            let released = lock(&self.folder.live).pop_front();
            if let (Some(gate), Some(info)) = (&self.folder.archived, released) {
                gate.note_release(&info);
            }
            self.folder.recycle(file)?;
        }
    }

    /// Zero-fills a spare file if one will be needed soon; returns whether it did. A background step: a log that
    /// finds no spare works on, more slowly. A failure leaves the log as it was.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn prepare_spare(&self) -> Result<bool> {
        self.folder.prepare_spare()
    }

    /// Waits for or does the work until everything below `target` is flushed to `depth`.
    fn flush(&self, target: Lsn, depth: Depth) -> Result<()> {
        let mut queue = lock(&self.queue);
        assert!(target <= queue.end);
        loop {
            let reached = if depth == Depth::Sync { self.durable_lsn() } else { queue.written };
            if reached >= target {
                return Ok(());
            }
            queue.check()?;
            if !queue.is_flushing {
                break;
            }
            queue.waiter_count += 1;
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiter_count -= 1;
        }
        queue.is_flushing = true;
        let idle = std::mem::take(&mut queue.idle);
        let mut group = std::mem::replace(&mut queue.buffer, idle);
        let (written, end) = (queue.written, queue.end);
        drop(queue);

        let turn = FlushTurn { wal: self };
        let outcome = self.flush_group(&mut group, written, end, depth);
        turn.finish(group, end, outcome)
    }

    fn flush_group(&self, group: &mut [u8], written: Lsn, end: Lsn, depth: Depth) -> Result<()> {
        let mut tail = lock(&self.tail);
        tail.write(group, written)?;
        self.metrics.bytes.add(group.len() as u64);
        if depth == Depth::Sync {
            let start = self.folder.env.monotonic();
            tail.sync(end)?;
            self.metrics.sync.record(self.folder.env.monotonic().saturating_sub(start));
        }
        self.durable.rise(tail.durable.0);
        Ok(())
    }
}

impl Queue {
    fn check(&self) -> Result<()> {
        match &self.failure {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn push(&mut self, kind: RecordKind, seqno: SeqNo, parts: &[&[u8]]) -> Lsn {
        let before = self.buffer.len();
        record::begin_frame(&mut self.buffer, kind, self.end, seqno, parts);
        self.end = Lsn(self.end.0 + (self.buffer.len() - before) as u64);
        self.last_kind = Some(kind);
        self.last_seqno = self.last_seqno.max(seqno);
        self.end
    }
}

/// The right to write. Given up without a result, by a panic, it poisons the log: others would wait for ever.
struct FlushTurn<'a> {
    wal: &'a Wal,
}

impl FlushTurn<'_> {
    fn finish(self, mut group: Vec<u8>, end: Lsn, outcome: Result<()>) -> Result<()> {
        let wal = self.wal;
        std::mem::forget(self);
        group.clear();
        let mut queue = lock(&wal.queue);
        if group.capacity() <= BUFFER_KEEP_BYTES_MAX {
            queue.idle = group;
        }
        queue.is_flushing = false;
        match &outcome {
            Ok(()) => queue.written = end,
            Err(error) => queue.failure = Some(describe(error)),
        }
        let has_waiters = queue.waiter_count > 0;
        drop(queue);
        if has_waiters {
            wal.changed.notify_all();
        }
        outcome
    }
}

impl Drop for FlushTurn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.wal.queue);
        queue.is_flushing = false;
        queue.failure = Some("the thread that wrote the log panicked".to_owned());
        drop(queue);
        self.wal.changed.notify_all();
    }
}

/// Error text with its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// How many leading files hold only records at or below `seqno`; never all of them.
fn oldest_needed(live: &VecDeque<SegmentInfo>, seqno: SeqNo) -> usize {
    live.iter().take(live.len().saturating_sub(1)).take_while(|info| info.newest_seqno <= seqno).count()
}

/// Makes what was replayed survive power loss, before anyone builds on it.
///
/// The process that wrote it may have ended between write and sync, or after a failed sync, which leaves pages marked
/// clean that never reached the disk. So the unproven part is written again, byte for byte, and synced.
fn make_tail_durable(env: &dyn Env, dir: &Path, report: &ReplayReport) -> Result<()> {
    let Some(newest) = report.segments.last() else { return Ok(()) };
    // Its name may not be durable either: its process may have ended between the rename and the sync of the folder, or been
    // told that the latter failed. The manifest is about to name the file.
    let folder = dir.join("wal");
    env.sync_dir(&folder).map_err(|error| Error::io("sync", &folder, error))?;
    let from = report.proven.max(newest.first_lsn);
    let path = FileKind::Wal.path(dir, newest.file);
    if from >= report.end {
        return Ok(());
    }
    let file = env.open(&path, OpenMode::ReadWrite).map_err(|error| Error::io("open", &path, error))?;
    let mut offset = HEADER_BYTES as u64 + (from.0 - newest.first_lsn.0);
    let end = HEADER_BYTES as u64 + (report.end.0 - newest.first_lsn.0);
    while offset < end {
        let mut bytes = vec![0; (end - offset).min(COPY_BYTES as u64) as usize];
        file.read_at(offset, &mut bytes).map_err(|error| Error::io("read", &path, error))?;
        file.write_at(offset, &bytes).map_err(|error| Error::io("write", &path, error))?;
        offset += bytes.len() as u64;
    }
    file.sync().map_err(|error| Error::io("sync", &path, error))
}

/// Locks a mutex whose data stays consistent even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
