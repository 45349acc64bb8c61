//! Open: manifest → segments → log replay → removal of orphans → ready.
//!
//! The manifest says which files are live and how far each table is flushed; the log has everything after. Replay puts
//! rows above a table's `flushed_through` into its memtable, and marks above a segment's `marks_through` onto the
//! segment. Both are idempotent, so a crash during recovery is recovered from by the next open.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::backup::archive::Archive;
use crate::cache::BlockCache;
use crate::cold::{ColdTier, ColdView};
use crate::commit::Sequencer;
use crate::commit::record::CommitRecord;
use crate::db::Inner;
use crate::env::{Env, FileLock};
use crate::error::{Error, Result};
use crate::event::Listener;
use crate::file::{FileId, FileKind};
use crate::manifest::{Edit, Levels, Manifest, Version};
use crate::memory::{MemoryBudget, Reservation};
use crate::memtable::{Entries, Memtable, Replayed};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::Run;
use crate::sync::{Arc, Condvar, Mutex, RwLock};
use crate::txn::as_of;
use crate::txn::conflict::{RecentCommits, Room};
use crate::txn::snapshot::Snapshots;
use crate::values::{ValueFile, ValueFiles};
use crate::view::{TableRows, Views};
use crate::wal::{Frame, Place, RecordKind, ReplayReport, Wal};
use crate::work::Work;

/// Logged versions are collected and sorted before they enter memtables, so many bytes of them at a time, or a smaller
/// share of a small budget. More would be quicker by little.
const REPLAYED_BYTES_MAX: u64 = 16 << 20;
const REPLAYED_SHARE: u64 = 32;

/// Folders of a database, in the order of their creation.
const FOLDERS: [&str; 3] = ["wal", "runs", "segments"];

pub(crate) fn open(
    env: Arc<dyn Env>,
    dir: &Path,
    options: Options,
    budget: Arc<MemoryBudget>,
    cold: Arc<dyn ColdTier>,
    listener: Option<Arc<dyn Listener>>,
) -> Result<Inner> {
    let lock = prepare_directory(env.as_ref(), dir)?;
    let _span = tracing::info_span!("recovery", dir = %dir.display()).entered();
    let start = env.monotonic();
    let (manifest, version) = Manifest::open(Arc::clone(&env), dir)?;
    let block_cache = BlockCache::new(&budget, options.block_cache_bytes_max)?;
    let mut tables = open_runs(&env, dir, &version, &block_cache)?;
    let cold_view = cold.restore(&version.segments())?;
    let archive = options.archive.clone().map(|options| Archive::new(Arc::clone(&env), options, &manifest.db_id()));
    let mut replay = Replay {
        version: &version,
        cold: cold.as_ref(),
        view: cold_view.as_ref(),
        tables: &mut tables,
        newest: HashMap::new(),
        memtable_bytes_max: options.memtable_bytes_max,
        budget: &budget,
        dir,
        collected: Collected::new(&budget)?,
    };
    let (wal, report) = open_log(&env, &options, &manifest, archive.as_ref(), &mut replay)?;
    let newest = std::mem::take(&mut replay.newest);
    drop(replay);
    let recent_room = Room::new(&budget, options.recent_commits_bytes_max)?;
    let last = report.last_seqno.max(version.last_seqno);
    let now_ms = u64::try_from(env.wall_clock().as_millis()).unwrap_or(u64::MAX);
    let (history, floor, edit) = as_of::restore(options.retention_ms, &version, now_ms, last);
    if let Some(edit) = edit {
        manifest.append(&[edit])?;
    }
    remove_orphans(env.as_ref(), dir, &version)?;
    let elapsed = env.monotonic().saturating_sub(start);
    tracing::info!(last_seqno = last.0, log_bytes = wal.live_bytes(), ?elapsed, "recovered");
    Ok(Inner {
        views: Views::new(tables.into_iter().map(|(id, rows)| (id, Arc::new(rows))).collect(), cold_view, last),
        sequencer: Mutex::new(Sequencer::new(last, newest, RecentCommits::new(Arc::clone(&recent_room)), history)),
        recent_room,
        locks: Arc::default(),
        env,
        dir: dir.to_path_buf(),
        work: Work::new(options.background_bytes_per_second_max),
        options,
        budget,
        block_cache,
        cold,
        wal,
        manifest,
        snapshots: Arc::new(Snapshots::new(floor)),
        published: Condvar::new(),
        tables: RwLock::new(HashMap::new()),
        row_ids: Mutex::new(HashMap::new()),
        metrics: Metrics::default(),
        archive,
        listener,
        _lock: lock,
    })
}

/// Opens the log behind its end, with all that is in it given to `replay`.
fn open_log(
    env: &Arc<dyn Env>,
    options: &Options,
    manifest: &Manifest,
    archive: Option<&Archive>,
    replay: &mut Replay<'_>,
) -> Result<(Wal, ReplayReport)> {
    let start = replay.version.wal_start;
    let (wal, report) = Wal::open_archived(
        Arc::clone(env),
        replay.dir,
        manifest.db_id(),
        start,
        options.wal.clone(),
        manifest.file_allocator(),
        archive.map(|archive| archive.gate().clone()),
        &mut |place, frame| replay.frame(place, frame),
    )?;
    replay.restore();
    if start.is_none() {
        // From now on a missing first log file is noticed.
        manifest.append(&[Edit::WalReleased(wal.start())])?;
    }
    Ok((wal, report))
}

/// After a recovery that filled whole memtables: flushes them, so that repeated crashes do not pile up memory.
pub(crate) fn settle(inner: &Inner) -> Result<()> {
    while inner.flush_sealed()? {}
    Ok(())
}

fn prepare_directory(env: &dyn Env, dir: &Path) -> Result<Box<dyn FileLock>> {
    let create = |folder: &Path| env.create_dir_all(folder).map_err(|e| Error::io("create folder", folder, e));
    create(dir)?;
    let lock_file = dir.join("LOCK");
    let lock = env.lock(&lock_file).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { dir: dir.to_path_buf() },
        _ => Error::io("lock", &lock_file, error),
    })?;
    for folder in FOLDERS {
        create(&dir.join(folder))?;
    }
    env.sync_dir(dir).map_err(|e| Error::io("sync folder", dir, e))?;
    Ok(lock)
}

fn open_runs(
    env: &Arc<dyn Env>,
    dir: &Path,
    version: &Version,
    cache: &Arc<BlockCache>,
) -> Result<BTreeMap<TableId, TableRows>> {
    let mut tables: BTreeMap<TableId, TableRows> = BTreeMap::new();
    for (table, live) in &version.tables {
        let files = live.values.iter().map(|(id, file)| Ok((*id, ValueFile::open(env, dir, &file.meta)?)));
        let files: ValueFiles = files.collect::<Result<_>>()?;
        let runs = live.runs.try_map(|meta| Run::open_with(env, dir, meta, Arc::clone(cache), &files))?;
        tables.insert(*table, TableRows::new(runs));
    }
    Ok(tables)
}

/// Puts logged commits back into memory.
struct Replay<'a> {
    version: &'a Version,
    cold: &'a dyn ColdTier,
    view: &'a dyn ColdView,
    tables: &'a mut BTreeMap<TableId, TableRows>,
    newest: HashMap<TableId, SeqNo>,
    memtable_bytes_max: u64,
    budget: &'a Arc<MemoryBudget>,
    dir: &'a Path,
    collected: Collected,
}

/// What was read back and is not in the memtables yet.
struct Collected {
    tables: HashMap<TableId, Replayed>,
    bytes: u64,
    bytes_max: u64,
    _reservation: Reservation,
}

impl Collected {
    fn new(budget: &Arc<MemoryBudget>) -> Result<Collected> {
        let bytes_max = REPLAYED_BYTES_MAX.min(budget.limit() / REPLAYED_SHARE);
        let reservation = budget.reserve("recovery", 0)?;
        // Whether or not it fits: the caches that could make room are empty, and what was acknowledged must come back.
        reservation.grow(bytes_max);
        Ok(Collected { tables: HashMap::new(), bytes: 0, bytes_max, _reservation: reservation })
    }
}

impl Replay<'_> {
    fn frame(&mut self, place: Place, frame: &Frame<'_>) -> Result<()> {
        if frame.kind != RecordKind::Commit as u8 {
            return Ok(());
        }
        let record = CommitRecord::decode(frame.payload).map_err(|(at, what)| {
            let path = FileKind::Wal.path(self.dir, place.file);
            Error::corrupt(FileKind::Wal, &path, place.payload_at + at as u64, what)
        })?;
        for (table, range) in &record.tables {
            self.newest.insert(*table, frame.seqno);
            for key in record.keys().skip(range.start).take(range.len()) {
                self.cold.replay_mark(self.view, key, frame.seqno)?;
            }
            let flushed_through = self.version.table(*table).map_or(SeqNo::ZERO, |table| table.flushed_through);
            if frame.seqno > flushed_through {
                self.redo(*table, range.clone(), &record, frame.seqno);
            }
        }
        Ok(())
    }

    /// Brings back one commit's versions of `table`. They are collected first, unless they are as large as a memtable.
    fn redo(&mut self, table: TableId, range: Range<usize>, record: &CommitRecord<'_>, seqno: SeqNo) {
        let rows = self.tables.entry(table).or_insert_with(|| TableRows::new(Levels::default()));
        let replayed = self.collected.tables.entry(table).or_default();
        let bytes = record.entries.bytes_of(&range);
        if rows.active.bytes() + replayed.memtable_bytes() + bytes >= self.memtable_bytes_max {
            // Newer components hold newer versions: what was collected goes before what comes.
            rows.active.restore(self.budget, replayed);
        }
        if bytes >= self.memtable_bytes_max {
            let entries = Arc::new(Entries::clone(&record.entries).into_owned());
            rows.push_sealed(Memtable::of_commit(self.budget, entries, range, seqno));
            return;
        }
        if rows.active.bytes() >= self.memtable_bytes_max {
            rows.seal_active();
        }
        let before = replayed.memtable_bytes();
        for (key, kind, value) in record.versions(range) {
            replayed.push(key, seqno, kind, value);
        }
        self.collected.bytes += replayed.memtable_bytes() - before;
        if self.collected.bytes >= self.collected.bytes_max {
            self.restore();
        }
    }

    /// Puts all that was collected into the memtables.
    fn restore(&mut self) {
        for (table, replayed) in &mut self.collected.tables {
            if let Some(rows) = self.tables.get(table) {
                rows.active.restore(self.budget, replayed);
            }
        }
        self.collected.bytes = 0;
    }
}

/// Removes files that a crash left behind: written but never installed, or dropped but not yet removed.
fn remove_orphans(env: &dyn Env, dir: &Path, version: &Version) -> Result<()> {
    let live: HashSet<(FileKind, FileId)> = version.files().into_iter().collect();
    for folder in ["runs", "segments"].map(|folder| dir.join(folder)) {
        let names = env.list(&folder).map_err(|e| Error::io("list", &folder, e))?;
        let ours = names.iter().filter_map(|name| FileKind::parse_in(dir, &folder, name));
        let orphans: Vec<PathBuf> =
            ours.filter(|file| !live.contains(file)).map(|(kind, id)| kind.path(dir, id)).collect();
        for orphan in &orphans {
            env.remove(orphan).map_err(|e| Error::io("remove", orphan, e))?;
        }
        if !orphans.is_empty() {
            env.sync_dir(&folder).map_err(|e| Error::io("sync folder", &folder, e))?;
        }
    }
    Ok(())
}
