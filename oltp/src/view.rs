//! `ReadView`: everything a reader needs, loaded with one atomic step: memtables, runs, the cold tier's view, and the
//! read point.
//!
//! The view owns its read-point cell. Commits advance the cell of the current view; an installation (sealed memtable,
//! new run, converted segment) makes a new view with a new cell and freezes the old one, both inside the commit mutex.
//! So a reader can never pair an old layout with a newer read point: loading any two parts separately would be a bug.
//!
//! Files that a view names live until the last such view is gone (I4); see [`Views`].

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, Range};

use crate::cold::ColdView;
use crate::error::Result;
use crate::file::{FileId, FileKind};
use crate::iter::{Cursor, OverlayCursor, SourceKind, VersionKind, VisibleCursor};
use crate::manifest::{Levels, SortedRun};
use crate::memtable::Memtable;
use crate::publish::{self, Layout, Rising};
use crate::schema::{TableId, TableSchema};
use crate::seqno::SeqNo;
use crate::sstable::{ConcatCursor, Run};
use crate::sync::ArcSwap;
use crate::sync::{Arc, Mutex, PoisonError, Weak};
use crate::txn::Overlay;
use crate::txn::snapshot::Pin;

/// The row part of one table: newer components hold only newer versions of any one key.
#[derive(Clone, Debug)]
pub struct TableRows {
    pub(crate) active: Arc<Memtable>,
    /// Oldest first.
    pub(crate) sealed: Vec<Arc<Memtable>>,
    pub(crate) runs: Levels<Arc<Run>>,
    derived: Derived,
}

/// A place for what a reader made out of one layout of a table's rows, and wants to find again. Its type is the
/// reader's business. A copy of the rows is the start of another layout, so it starts empty.
#[derive(Default)]
pub struct Derived(Mutex<Option<Arc<dyn Any + Send + Sync>>>);

impl Derived {
    /// What was put here last, if it has this type.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        held.and_then(|held| held.downcast().ok())
    }

    /// Puts `value` here, in place of what was here.
    pub fn set<T: Any + Send + Sync>(&self, value: Arc<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }
}

impl Clone for Derived {
    fn clone(&self) -> Derived {
        Derived::default()
    }
}

impl std::fmt::Debug for Derived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derived")
    }
}

impl TableRows {
    pub(crate) fn new(runs: Levels<Arc<Run>>) -> TableRows {
        TableRows { active: Arc::new(Memtable::new()), sealed: Vec::new(), runs, derived: Derived::default() }
    }

    /// Moves the active memtable to the sealed ones and starts an empty one.
    pub(crate) fn seal_active(&mut self) {
        let sealed = std::mem::replace(&mut self.active, Arc::new(Memtable::new()));
        self.sealed.push(sealed);
    }

    /// Puts `memtable`, which is newer than all there is, behind the sealed ones.
    pub(crate) fn push_sealed(&mut self, memtable: Memtable) {
        if !self.active.is_empty() {
            self.seal_active();
        }
        self.sealed.push(Arc::new(memtable));
    }

    /// Memtables, oldest first, the active one last.
    pub fn memtables(&self) -> impl DoubleEndedIterator<Item = &Arc<Memtable>> {
        self.sealed.iter().chain(std::iter::once(&self.active))
    }

    /// Runs, oldest first.
    #[must_use]
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// Sorted runs, oldest first: each a list of run files that share no key. Readers ask one file of each.
    #[must_use]
    pub fn sorted_runs(&self) -> &[SortedRun<Arc<Run>>] {
        self.runs.sorted_runs()
    }

    /// A place for what a reader derives from this layout.
    #[must_use]
    pub fn derived(&self) -> &Derived {
        &self.derived
    }

    /// The newest commit that has written to the active memtable or is about to, published or not; zero if there is none.
    #[must_use]
    pub fn newest_announced(&self) -> SeqNo {
        if self.active.is_empty() { SeqNo::ZERO } else { self.active.seqno_range().1 }
    }

    /// Number of versions in the row part: an upper bound of its visible rows.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        let in_memory: u64 = self.memtables().map(|m| m.entry_count()).sum();
        in_memory + self.runs.iter().map(|r| r.meta().version_count).sum::<u64>()
    }

    /// The newest version of `key` at or below `at`: its commit, and the row or `None` for a delete.
    ///
    /// # Errors
    /// Corrupt or unreadable runs.
    pub fn get(&self, key: &[u8], at: SeqNo) -> Result<Option<(SeqNo, Option<Vec<u8>>)>> {
        for memtable in self.memtables().rev() {
            if let Some((seqno, kind, value)) = memtable.get(key, at) {
                return Ok(Some((seqno, (kind == VersionKind::Put).then(|| value.to_vec()))));
            }
        }
        for sorted in self.runs.sorted_runs().iter().rev() {
            if let Some(run) = sorted.find(key)
                && let Some((seqno, kind, value)) = run.get(key, at)?
            {
                return Ok(Some((seqno, (kind == VersionKind::Put).then_some(value))));
            }
        }
        Ok(None)
    }

    /// The newest version of `key` at or below `at`, without its row: cheaper than [`TableRows::get`] if that is large.
    ///
    /// # Errors
    /// Corrupt or unreadable runs.
    pub fn find(&self, key: &[u8], at: SeqNo) -> Result<Option<(SeqNo, VersionKind)>> {
        for memtable in self.memtables().rev() {
            if let Some((seqno, kind, _)) = memtable.get(key, at) {
                return Ok(Some((seqno, kind)));
            }
        }
        for sorted in self.runs.sorted_runs().iter().rev() {
            if let Some(run) = sorted.find(key)
                && let Some(found) = run.get_with(key, at, |seqno, kind, _| (seqno, kind))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Cursors over every component that may hold keys in `keys`, newest component first, each with its kind.
    pub(crate) fn cursors(&self, keys: &Range<&[u8]>) -> Vec<(SourceKind, Box<dyn Cursor>)> {
        let mut cursors: Vec<(SourceKind, Box<dyn Cursor>)> = Vec::new();
        for memtable in self.memtables().rev().filter(|m| !m.is_empty()) {
            cursors.push((SourceKind::Memtable, Box::new(memtable.cursor())));
        }
        for sorted in self.runs.sorted_runs().iter().rev() {
            let files = sorted.within(keys);
            match files.len() {
                0 => {}
                1 => cursors.push((SourceKind::Run, Box::new(sorted.files[files.start].cursor(false)))),
                _ => {
                    let cursor = ConcatCursor::new(Arc::clone(&sorted.files), files, false);
                    cursors.push((SourceKind::Run, Box::new(cursor)));
                }
            }
        }
        cursors
    }

    /// Rows visible at `at` with full keys in `keys`, in key order; a transaction's own writes (`overlay`) are newer
    /// than every commit. The cost is one merge over the components whose key range overlaps.
    ///
    /// # Errors
    /// Corrupt or unreadable runs.
    pub fn scan(&self, keys: Range<&[u8]>, at: SeqNo, overlay: Option<&Arc<Overlay>>) -> Result<VisibleCursor> {
        let mut cursors = self.cursors(&keys);
        if let Some(overlay) = overlay {
            cursors.insert(0, (SourceKind::Overlay, Box::new(OverlayCursor::new(Arc::clone(overlay)))));
        }
        Ok(VisibleCursor::new(cursors, keys, at))
    }

    /// Up to `parts - 1` keys that cut the row part into ranges of about equal size, ascending; taken from block
    /// indexes and memtables, so that parallel scans can share the work.
    ///
    /// # Errors
    /// Corrupt or unreadable runs.
    pub fn split_keys(&self, parts: usize) -> Result<Vec<Vec<u8>>> {
        let mut samples: Vec<(Vec<u8>, u64)> = Vec::new();
        for run in self.runs.iter() {
            let keys = run.split_keys(parts)?;
            let weight = run.meta().version_count / (keys.len() as u64 + 1);
            samples.extend(keys.into_iter().map(|key| (key, weight)));
        }
        for memtable in self.memtables() {
            let keys = memtable.split_keys(parts);
            let weight = memtable.entry_count() / (keys.len() as u64 + 1);
            samples.extend(keys.into_iter().map(|key| (key, weight)));
        }
        samples.sort();
        let total: u64 = samples.iter().map(|(_, weight)| weight).sum();
        let (mut cuts, mut seen) = (Vec::new(), 0);
        for (key, weight) in samples {
            seen += weight;
            let due = (cuts.len() as u64 + 1) * total / parts as u64;
            if cuts.len() + 1 < parts && seen >= due && cuts.last() != Some(&key) {
                cuts.push(key);
            }
        }
        Ok(cuts)
    }
}

/// One consistent layout of the database, with the read point that belongs to it.
pub struct ReadView {
    pub(crate) tables: BTreeMap<TableId, Arc<TableRows>>,
    pub(crate) cold: Arc<dyn ColdView>,
    read_point: Rising,
    epoch: u64,
}

impl Layout for ReadView {
    type Cell = crate::sync::atomic::AtomicU64;

    fn read_point(&self) -> &Rising {
        &self.read_point
    }
}

impl ReadView {
    /// The cold tier's part.
    #[must_use]
    pub fn cold(&self) -> &Arc<dyn ColdView> {
        &self.cold
    }

    /// The row part of `table`, if it has one.
    #[must_use]
    pub fn rows(&self, table: TableId) -> Option<&Arc<TableRows>> {
        self.tables.get(&table)
    }

    /// Everything at or below this is readable in this view.
    #[must_use]
    pub fn read_point(&self) -> SeqNo {
        SeqNo(self.read_point.get())
    }

    /// Bytes in sealed memtables of all tables.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.tables.values().flat_map(|rows| &rows.sealed).map(|memtable| memtable.bytes()).sum()
    }

    /// The row visible at `at` under `key`, from whichever home it has, in the shape of `schema`.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn get(&self, schema: &TableSchema, key: &[u8], at: SeqNo) -> Result<Option<Vec<u8>>> {
        if let Some(rows) = self.rows(schema.table)
            && let Some((_, row)) = rows.get(key, at)?
        {
            return row.map(|row| schema.newest(row)).transpose();
        }
        match self.cold.locate(schema.table, key, at)? {
            Some((location, _)) => schema.newest(self.cold.read_row(schema, location)?).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a row is visible at `at` under `key`; cheaper than reading it.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn contains(&self, table: TableId, key: &[u8], at: SeqNo) -> Result<bool> {
        if let Some(rows) = self.rows(table)
            && let Some((_, kind)) = rows.find(key, at)?
        {
            return Ok(kind != VersionKind::Delete);
        }
        Ok(self.cold.locate(table, key, at)?.is_some())
    }
}

/// A read view with a fixed read point. Cheap to clone; pins the view's files and memtables while it lives.
#[derive(Clone)]
pub struct Snapshot {
    view: Arc<ReadView>,
    seqno: SeqNo,
    _pin: Arc<Pin>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("seqno", &self.seqno).finish()
    }
}

impl Snapshot {
    pub(crate) fn new(view: Arc<ReadView>, seqno: SeqNo, pin: Arc<Pin>) -> Snapshot {
        Snapshot { view, seqno, _pin: pin }
    }

    /// The newest commit that this snapshot sees.
    #[must_use]
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// The layout that this snapshot reads.
    #[must_use]
    pub fn view(&self) -> &ReadView {
        &self.view
    }

    /// The encoded row under the full `key`, as of this snapshot.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn get(&self, schema: &TableSchema, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.view.get(schema, key, self.seqno)
    }
}

/// The current view, and the files that wait for older views to go.
pub(crate) struct Views {
    current: ArcSwap<ReadView>,
    aging: Mutex<Aging>,
}

#[derive(Default)]
struct Aging {
    /// Views by age, the current one included.
    live: VecDeque<(u64, Weak<ReadView>)>,
    /// Files dropped from the layout, under the last epoch that named them.
    garbage: BTreeMap<u64, Vec<(FileKind, FileId)>>,
}

impl Views {
    pub(crate) fn new(tables: BTreeMap<TableId, Arc<TableRows>>, cold: Arc<dyn ColdView>, read_point: SeqNo) -> Views {
        let view = Arc::new(ReadView { tables, cold, read_point: Rising::new(read_point.0), epoch: 1 });
        let live = VecDeque::from([(1, Arc::downgrade(&view))]);
        Views { current: ArcSwap::new(view), aging: Mutex::new(Aging { live, garbage: BTreeMap::new() }) }
    }

    pub(crate) fn load(&self) -> Arc<ReadView> {
        self.current.load_full()
    }

    /// The current view for the length of a call: without touching its reference count.
    pub(crate) fn borrow(&self) -> impl Deref<Target = Arc<ReadView>> {
        self.current.load()
    }

    /// Moves `snapshot` to the current layout, at the SeqNo that it has, so that memtables and files which only it still
    /// named can go. The same rows are visible before and after, because its SeqNo stays registered. A snapshot of a table
    /// that was dropped since stays where it is: only its own layout still has that table.
    pub(crate) fn renew(&self, snapshot: &mut Snapshot) {
        let view = self.load();
        let has_all = snapshot.view.tables.keys().all(|table| view.tables.contains_key(table));
        if has_all {
            snapshot.view = view;
        }
    }

    /// Advances the current view's read point. Only inside the commit mutex.
    pub(crate) fn publish(&self, seqno: SeqNo) {
        publish::advance(&self.current, seqno);
    }

    /// Replaces the layout and freezes the old view's read point. Only inside the commit mutex. `dropped` files are
    /// handed back by [`Views::collect`] when no view names them any more.
    pub(crate) fn install(
        &self,
        tables: BTreeMap<TableId, Arc<TableRows>>,
        cold: Arc<dyn ColdView>,
        dropped: Vec<(FileKind, FileId)>,
    ) {
        let mut aging = self.aging.lock().unwrap_or_else(PoisonError::into_inner);
        let old = publish::replace(&self.current, |old, read_point| {
            let epoch = old.epoch + 1;
            let view = Arc::new(ReadView { tables, cold, read_point: Rising::new(read_point.0), epoch });
            aging.live.push_back((epoch, Arc::downgrade(&view)));
            if !dropped.is_empty() {
                aging.garbage.entry(old.epoch).or_default().extend(dropped);
            }
            view
        });
        // What goes with the old view needs no lock.
        drop(aging);
        drop(old);
    }

    /// Files that no view names any more; each is returned once, for removal.
    pub(crate) fn collect(&self) -> Vec<(FileKind, FileId)> {
        let mut aging = self.aging.lock().unwrap_or_else(PoisonError::into_inner);
        while aging.live.front().is_some_and(|(_, view)| view.strong_count() == 0) {
            aging.live.pop_front();
        }
        let oldest = aging.live.front().map_or(u64::MAX, |(epoch, _)| *epoch);
        let kept = aging.garbage.split_off(&oldest);
        std::mem::replace(&mut aging.garbage, kept).into_values().flatten().collect()
    }
}
