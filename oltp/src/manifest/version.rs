//! `Version`: the set of live files that the edits so far add up to. Immutable once published.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cold::{SealedMarks, SegmentRecord};
use crate::file::{FileId, FileKind};
use crate::manifest::edit::{Edit, RunMeta};
use crate::manifest::levels::Levels;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::txn::TimeMark;
use crate::values::ValueFileMeta;
use crate::wal::WalStart;

/// All live files and the marks of progress that recovery needs. Cheap to clone: tables are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Tables that own storage.
    pub tables: BTreeMap<TableId, Arc<TableVersion>>,
    /// Newest commit the manifest has heard of; the next SeqNo is above it and above all in the log.
    pub last_seqno: SeqNo,
    /// Where the needed part of the write-ahead log begins; `None` until the first log file was recorded.
    pub wal_start: Option<WalStart>,
    /// Every file number at or above it is unused.
    pub next_file: FileId,
    /// Every state from this commit on is readable; `None` if old states are not kept.
    pub kept_from: Option<SeqNo>,
    /// When commits happened; times rise strictly.
    pub times: Arc<Vec<TimeMark>>,
}

/// Live files of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableVersion {
    /// Runs in their levels; as a slice oldest first. Where two hold versions of one key, the later run holds the newer
    /// ones.
    pub runs: Levels<Arc<RunMeta>>,
    /// Value files by number, with what the runs refer to of each.
    pub values: BTreeMap<FileId, LiveValues>,
    /// Segments by number.
    pub segments: BTreeMap<FileId, Arc<SegmentRecord>>,
    /// Every version by a commit at or below this is in the runs or segments; later ones are in the log.
    pub flushed_through: SeqNo,
    /// First row id not yet given out.
    pub next_row_id: u64,
}

/// A value file, and what the runs of its table refer to of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveValues {
    /// The file.
    pub meta: Arc<ValueFileMeta>,
    /// References to it.
    pub value_count: u64,
    /// Stored bytes of the records that they name.
    pub record_bytes: u64,
}

impl LiveValues {
    /// Stored bytes of records that nothing refers to.
    #[must_use]
    pub fn garbage_bytes(&self) -> u64 {
        self.meta.record_bytes - self.record_bytes
    }

    /// Whether at least `percent` of it is garbage, and any is.
    #[must_use]
    pub fn is_sparse(&self, percent: u32) -> bool {
        let garbage = u128::from(self.garbage_bytes());
        garbage > 0 && garbage * 100 >= u128::from(self.meta.record_bytes) * u128::from(percent)
    }
}

impl Default for Version {
    /// The version of a new database. File numbers begin at 1, because 0 stands for none.
    fn default() -> Self {
        Version {
            tables: BTreeMap::new(),
            last_seqno: SeqNo::ZERO,
            wal_start: None,
            next_file: FileId(1),
            kept_from: None,
            times: Arc::default(),
        }
    }
}

impl Version {
    /// The table's live files, if it owns any storage.
    #[must_use]
    pub fn table(&self, table: TableId) -> Option<&Arc<TableVersion>> {
        self.tables.get(&table)
    }

    /// All segments of all tables.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentRecord> {
        self.tables.values().flat_map(|table| table.segments.values()).map(|record| (**record).clone()).collect()
    }

    /// Every live file but the logs: what a directory may hold besides is an orphan.
    #[must_use]
    pub fn files(&self) -> Vec<(FileKind, FileId)> {
        let mut files = Vec::new();
        for table in self.tables.values() {
            files.extend(table.runs.iter().map(|run| (FileKind::Run, run.run)));
            files.extend(table.values.keys().map(|file| (FileKind::Values, *file)));
            for record in table.segments.values() {
                files.push((FileKind::Segment, record.segment));
                files.push((FileKind::Keys, record.segment));
                files.extend(record.marks.map(|marks| (FileKind::Marks, marks)));
            }
        }
        files
    }

    /// Changes this version by one edit. On an error the version is half changed and must be thrown away.
    ///
    /// # Errors
    /// What is wrong with the edit, for a version like this.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), &'static str> {
        match edit {
            Edit::AddRun(run) => {
                let table = self.table_mut(run.table);
                table.refer(&[], [run])?;
                table.runs.push(Arc::new(run.clone()))
            }
            Edit::RemoveRun { table, run } => {
                let table = self.table_mut(*table);
                table.refer(&[*run], [])?;
                table.runs.remove(&[*run])
            }
            Edit::MergeRuns { table, removed, added } => {
                check_tables(*table, added.iter())?;
                let table = self.table_mut(*table);
                table.refer(removed, added)?;
                table.runs.merge(removed, added.clone().map(Arc::new))
            }
            Edit::PlaceRuns { table, removed, added } => {
                check_tables(*table, added.iter().map(|(_, run)| run))?;
                let table = self.table_mut(*table);
                table.refer(removed, added.iter().map(|(_, run)| run))?;
                let added = added.iter().map(|(place, run)| (*place, Arc::new(run.clone()))).collect();
                table.runs.replace(removed, added)
            }
            Edit::AddValueFile(meta) => {
                let added = LiveValues { meta: Arc::new(meta.clone()), value_count: 0, record_bytes: 0 };
                match self.table_mut(meta.table).values.insert(meta.file, added) {
                    Some(_) => Err("value file is there already"),
                    None => Ok(()),
                }
            }
            Edit::DropValueFiles { table, files } => self.table_mut(*table).drop_values(files),
            Edit::AddSegment(record) => {
                match self.table_mut(record.table).segments.insert(record.segment, Arc::new(record.clone())) {
                    Some(_) => Err("segment is there already"),
                    None => Ok(()),
                }
            }
            Edit::RemoveSegment { table, segment } => match self.table_mut(*table).segments.remove(segment) {
                Some(_) => Ok(()),
                None => Err("removed segment is not there"),
            },
            Edit::SetMarks(sealed) => self.set_marks(sealed),
            Edit::FlushedThrough { table, seqno } => {
                rise(&mut self.table_mut(*table).flushed_through, *seqno, "flushed position goes back")
            }
            Edit::RowIds { table, next } => rise(&mut self.table_mut(*table).next_row_id, *next, "row ids go back"),
            Edit::DropTable { table } => {
                self.tables.remove(table);
                Ok(())
            }
            Edit::LastSeqNo(seqno) => {
                self.last_seqno = self.last_seqno.max(*seqno);
                Ok(())
            }
            Edit::WalReleased(start) => match self.wal_start {
                Some(old) if old.file > start.file || old.lsn > start.lsn => Err("start of the log goes back"),
                _ => {
                    self.wal_start = Some(*start);
                    Ok(())
                }
            },
            Edit::NextFile(file) => rise(&mut self.next_file, *file, "file numbers go back"),
            Edit::History { kept_from, marks } => self.set_history(*kept_from, marks),
        }
    }

    /// What `edits` leave without a reference, as the edits that drop it. Nothing if they do not fit.
    pub(crate) fn drops_after(&self, edits: &[Edit]) -> Vec<Edit> {
        let mut next = self.clone();
        if edits.iter().any(|edit| next.apply(edit).is_err()) {
            // Whoever appends them says why.
            return Vec::new();
        }
        let tables = next.tables.iter().map(|(&table, state)| {
            let unused = state.values.values().filter(|file| file.value_count == 0);
            Edit::DropValueFiles { table, files: unused.map(|file| file.meta.file).collect() }
        });
        tables.filter(|edit| !matches!(edit, Edit::DropValueFiles { files, .. } if files.is_empty())).collect()
    }

    /// Edits that build this version from nothing.
    pub(crate) fn snapshot(&self) -> Vec<Edit> {
        let mut edits = vec![Edit::NextFile(self.next_file), Edit::LastSeqNo(self.last_seqno)];
        edits.extend(self.wal_start.map(Edit::WalReleased));
        if self.kept_from.is_some() {
            edits.push(Edit::History { kept_from: self.kept_from, marks: self.times.to_vec() });
        }
        for (&table, state) in &self.tables {
            edits.push(Edit::FlushedThrough { table, seqno: state.flushed_through });
            edits.push(Edit::RowIds { table, next: state.next_row_id });
            edits.extend(state.values.values().map(|file| Edit::AddValueFile((*file.meta).clone())));
            let (level_0, placed): (Vec<_>, Vec<_>) = state.runs.placed().partition(|(place, _)| place.level == 0);
            if !placed.is_empty() {
                let added = placed.into_iter().map(|(place, run)| (place, (**run).clone())).collect();
                edits.push(Edit::PlaceRuns { table, removed: Vec::new(), added });
            }
            edits.extend(level_0.into_iter().map(|(_, run)| Edit::AddRun((**run).clone())));
            edits.extend(state.segments.values().map(|record| Edit::AddSegment((**record).clone())));
        }
        edits
    }

    fn table_mut(&mut self, table: TableId) -> &mut TableVersion {
        Arc::make_mut(self.tables.entry(table).or_default())
    }

    fn set_history(&mut self, kept_from: Option<SeqNo>, marks: &[TimeMark]) -> Result<(), &'static str> {
        if marks.windows(2).any(|pair| pair[0].at_ms >= pair[1].at_ms || pair[0].seqno > pair[1].seqno) {
            return Err("times of commits go back");
        }
        // Two writers may come in either order; what is gone stays gone.
        let kept_from = kept_from.map(|seqno| seqno.max(self.kept_from.unwrap_or_default()));
        self.kept_from = kept_from;
        let times = Arc::make_mut(&mut self.times);
        let is_before = |mark: &TimeMark, first: &TimeMark| mark.at_ms < first.at_ms && mark.seqno <= first.seqno;
        times.retain(|mark| marks.first().is_none_or(|first| is_before(mark, first)));
        times.extend_from_slice(marks);
        // One mark below tells what is too old from what is unknown.
        let below = |oldest| times.partition_point(|mark| mark.seqno < oldest).saturating_sub(1);
        let old = kept_from.map_or(times.len(), below);
        times.drain(..old);
        Ok(())
    }

    fn set_marks(&mut self, sealed: &SealedMarks) -> Result<(), &'static str> {
        let owner = self.tables.values_mut().find(|table| table.segments.contains_key(&sealed.segment));
        let record = owner.and_then(|table| Arc::make_mut(table).segments.get_mut(&sealed.segment));
        let record = Arc::make_mut(record.ok_or("marked segment is not there")?);
        record.marks = sealed.marks;
        rise(&mut record.marks_through, sealed.marks_through, "sealed marks go back")
    }
}

impl TableVersion {
    /// Takes the references of runs away and adds those of others, in time for the runs themselves.
    fn refer<'a>(
        &mut self,
        removed: &[FileId],
        added: impl IntoIterator<Item = &'a RunMeta>,
    ) -> Result<(), &'static str> {
        if !self.values.is_empty() {
            let going = self.runs.iter().filter(|run| !run.values.is_empty() && removed.contains(&run.run));
            for share in going.flat_map(|run| &run.values) {
                // What a run that is there refers to was counted when it came.
                let Some(file) = self.values.get_mut(&share.file) else { continue };
                file.value_count -= share.value_count;
                file.record_bytes -= share.record_bytes;
            }
        }
        for share in added.into_iter().flat_map(|run| &run.values) {
            let file = self.values.get_mut(&share.file).ok_or("run refers to a value file that is not there")?;
            if share.value_count == 0 {
                return Err("run refers to nothing of a value file");
            }
            let value_count = file.value_count.checked_add(share.value_count);
            let record_bytes = file.record_bytes.checked_add(share.record_bytes);
            let fits = value_count.is_some_and(|count| count <= file.meta.value_count)
                && record_bytes.is_some_and(|bytes| bytes <= file.meta.record_bytes);
            let (Some(value_count), Some(record_bytes), true) = (value_count, record_bytes, fits) else {
                return Err("runs refer to more of a value file than there is");
            };
            (file.value_count, file.record_bytes) = (value_count, record_bytes);
        }
        Ok(())
    }

    fn drop_values(&mut self, files: &[FileId]) -> Result<(), &'static str> {
        for file in files {
            match self.values.remove(file) {
                Some(dropped) if dropped.value_count > 0 => return Err("dropped value file is referred to"),
                Some(_) => {}
                None => return Err("dropped value file is not there"),
            }
        }
        Ok(())
    }
}

fn check_tables<'a>(table: TableId, mut runs: impl Iterator<Item = &'a RunMeta>) -> Result<(), &'static str> {
    if runs.all(|run| run.table == table) { Ok(()) } else { Err("merged run belongs to another table") }
}

fn rise<T: Ord + Copy>(value: &mut T, next: T, what: &'static str) -> Result<(), &'static str> {
    if next < *value {
        return Err(what);
    }
    *value = next;
    Ok(())
}
