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
    /// Segments by number.
    pub segments: BTreeMap<FileId, Arc<SegmentRecord>>,
    /// Every version by a commit at or below this is in the runs or segments; later ones are in the log.
    pub flushed_through: SeqNo,
    /// First row id not yet given out.
    pub next_row_id: u64,
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
            Edit::AddRun(run) => self.table_mut(run.table).runs.push(Arc::new(run.clone())),
            Edit::RemoveRun { table, run } => self.table_mut(*table).runs.remove(&[*run]),
            Edit::MergeRuns { table, removed, added } => {
                check_tables(*table, added.iter())?;
                self.table_mut(*table).runs.merge(removed, added.clone().map(Arc::new))
            }
            Edit::PlaceRuns { table, removed, added } => {
                check_tables(*table, added.iter().map(|(_, run)| run))?;
                let added = added.iter().map(|(place, run)| (*place, Arc::new(run.clone()))).collect();
                self.table_mut(*table).runs.replace(removed, added)
            }
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
