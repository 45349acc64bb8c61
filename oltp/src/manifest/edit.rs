//! `Edit`: one change to the set of live files, and its bytes. Layout: FORMAT.md.

use crate::cold::{SealedMarks, SegmentRecord};
use crate::file::FileId;
use crate::manifest::levels::Place;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::txn::TimeMark;
use crate::values::{ValueFileMeta, ValueShare};
use crate::wal::{Lsn, WalStart};

/// A sorted run as the manifest knows it; what a reader needs before it opens the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// The run's file.
    pub run: FileId,
    /// The only table whose versions are in it.
    pub table: TableId,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Versions in it, tombstones included.
    pub version_count: u64,
    /// Tombstones in it.
    pub tombstone_count: u64,
    /// Smallest full key.
    pub key_min: Vec<u8>,
    /// Largest full key, itself in the run.
    pub key_max: Vec<u8>,
    /// SeqNo of the oldest version.
    pub seqno_min: SeqNo,
    /// SeqNo of the newest version.
    pub seqno_max: SeqNo,
    /// Whether no key occurs twice, so that a reader may stop at the first version of a key.
    pub unique_keys: bool,
    /// XXH3-64 of the whole file.
    pub checksum: u64,
    /// When the run was written, in milliseconds since the Unix epoch; for display and idle ages only.
    pub created_ms: u64,
    /// What it refers to of value files, in the order of their numbers.
    pub values: Vec<ValueShare>,
}

/// One change to a [`super::Version`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A new run, newer than all runs of its table.
    AddRun(RunMeta),
    /// A run whose versions now live elsewhere, or nowhere.
    RemoveRun {
        /// Its table.
        table: TableId,
        /// The run.
        run: FileId,
    },
    /// Runs of level 0 replaced by their merge, which takes their place in the order of runs.
    MergeRuns {
        /// Their table.
        table: TableId,
        /// Neighbours in the order of runs, oldest first; at least one.
        removed: Vec<FileId>,
        /// What is left of them; `None` if nothing is.
        added: Option<RunMeta>,
    },
    /// Runs put into levels, in place of what was merged into them. A run that is both removed and added moves.
    PlaceRuns {
        /// Their table.
        table: TableId,
        /// Runs that go.
        removed: Vec<FileId>,
        /// Runs that come.
        added: Vec<(Place, RunMeta)>,
    },
    /// A new value file. Runs that refer to it come behind.
    AddValueFile(ValueFileMeta),
    /// Value files that no run refers to any more.
    DropValueFiles {
        /// Their table.
        table: TableId,
        /// The files.
        files: Vec<FileId>,
    },
    /// A new segment.
    AddSegment(SegmentRecord),
    /// A segment whose rows now live elsewhere, or nowhere.
    RemoveSegment {
        /// Its table.
        table: TableId,
        /// The segment.
        segment: FileId,
    },
    /// New sealed marks of a segment, in place of its former ones.
    SetMarks(SealedMarks),
    /// Every version of the table by a commit at or below `seqno` is in its runs and segments.
    FlushedThrough {
        /// The table.
        table: TableId,
        /// The commit.
        seqno: SeqNo,
    },
    /// Row ids below `next` may have been given out.
    RowIds {
        /// The table.
        table: TableId,
        /// First row id still free.
        next: u64,
    },
    /// The table and everything it owns is gone.
    DropTable {
        /// The table.
        table: TableId,
    },
    /// A commit with this SeqNo happened; lower values than the highest so far change nothing.
    LastSeqNo(SeqNo),
    /// Write-ahead log files before this are not needed any more.
    WalReleased(WalStart),
    /// What is known of the past.
    History {
        /// Every state from this commit on is readable; `None` if old states are not kept.
        kept_from: Option<SeqNo>,
        /// More times of commits. Earlier marks at or after the first of these are void.
        marks: Vec<TimeMark>,
    },
    /// File numbers below this may have been given out. [`super::Manifest::append`] adds it by itself.
    NextFile(FileId),
}

/// Bytes of a frame of edits.
pub(crate) fn encode_edits(edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::new();
    put_u32(&mut out, edits.len());
    for edit in edits {
        encode_edit(&mut out, edit);
    }
    out
}

/// The edits in a frame's payload; `None` if they are malformed.
pub(crate) fn decode_edits(payload: &[u8]) -> Option<Vec<Edit>> {
    let mut input = Input(payload);
    let count = input.u32()?;
    // No capacity from the count: it is input, and each edit takes at least one byte anyway.
    let mut edits = Vec::new();
    for _ in 0..count {
        edits.push(decode_edit(&mut input)?);
    }
    input.0.is_empty().then_some(edits)
}

fn encode_edit(out: &mut Vec<u8>, edit: &Edit) {
    out.push(tag(edit));
    match edit {
        Edit::AddRun(run) => put_run(out, run),
        Edit::RemoveRun { table, run } => {
            put_table(out, *table);
            put_u64(out, run.0);
        }
        Edit::MergeRuns { table, removed, added } => {
            put_table(out, *table);
            put_files(out, removed);
            out.push(u8::from(added.is_some()));
            added.iter().for_each(|run| put_run(out, run));
        }
        Edit::PlaceRuns { table, removed, added } => {
            put_table(out, *table);
            put_files(out, removed);
            put_u32(out, added.len());
            for (place, run) in added {
                out.push(place.level);
                out.extend_from_slice(&place.sorted_run.to_le_bytes());
                put_run(out, run);
            }
        }
        Edit::AddSegment(record) => {
            put_u64(out, record.segment.0);
            put_table(out, record.table);
            put_bytes(out, &record.meta);
            put_u64(out, record.marks.map_or(0, |marks| marks.0));
            put_u64(out, record.marks_through.0);
        }
        Edit::RemoveSegment { table, segment } => {
            put_table(out, *table);
            put_u64(out, segment.0);
        }
        Edit::SetMarks(sealed) => {
            put_u64(out, sealed.segment.0);
            put_u64(out, sealed.marks.map_or(0, |marks| marks.0));
            put_u64(out, sealed.marks_through.0);
        }
        Edit::FlushedThrough { table, seqno } => {
            put_table(out, *table);
            put_u64(out, seqno.0);
        }
        Edit::RowIds { table, next } => {
            put_table(out, *table);
            put_u64(out, *next);
        }
        Edit::DropTable { table } => put_table(out, *table),
        Edit::LastSeqNo(seqno) => put_u64(out, seqno.0),
        Edit::WalReleased(start) => {
            put_u64(out, start.file.0);
            put_u64(out, start.lsn.0);
        }
        Edit::NextFile(file) => put_u64(out, file.0),
        Edit::AddValueFile(meta) => put_value_file(out, meta),
        Edit::DropValueFiles { table, files } => {
            put_table(out, *table);
            put_files(out, files);
        }
        Edit::History { kept_from, marks } => {
            out.push(u8::from(kept_from.is_some()));
            put_u64(out, kept_from.unwrap_or_default().0);
            put_u32(out, marks.len());
            marks.iter().for_each(|mark| put_mark(out, mark));
        }
    }
}

fn put_mark(out: &mut Vec<u8>, mark: &TimeMark) {
    put_u64(out, mark.at_ms);
    put_u64(out, mark.seqno.0);
    out.push(u8::from(mark.is_gap));
}

fn tag(edit: &Edit) -> u8 {
    match edit {
        Edit::AddRun(_) => 1,
        Edit::RemoveRun { .. } => 2,
        Edit::MergeRuns { .. } => 3,
        Edit::AddSegment(_) => 4,
        Edit::RemoveSegment { .. } => 5,
        Edit::SetMarks(_) => 6,
        Edit::FlushedThrough { .. } => 7,
        Edit::RowIds { .. } => 8,
        Edit::DropTable { .. } => 9,
        Edit::LastSeqNo(_) => 10,
        Edit::WalReleased(_) => 11,
        Edit::NextFile(_) => 12,
        Edit::PlaceRuns { .. } => 13,
        Edit::History { .. } => 14,
        Edit::AddValueFile(_) => 15,
        Edit::DropValueFiles { .. } => 16,
    }
}

fn decode_edit(input: &mut Input<'_>) -> Option<Edit> {
    Some(match input.u8()? {
        1 => Edit::AddRun(input.run()?),
        2 => Edit::RemoveRun { table: input.table()?, run: input.file()? },
        3 => {
            let table = input.table()?;
            let removed = input.files()?;
            let added = if input.flag()? { Some(input.run()?) } else { None };
            Edit::MergeRuns { table, removed, added }
        }
        4 => Edit::AddSegment(SegmentRecord {
            segment: input.file()?,
            table: input.table()?,
            meta: input.bytes()?,
            marks: input.optional_file()?,
            marks_through: SeqNo(input.u64()?),
        }),
        5 => Edit::RemoveSegment { table: input.table()?, segment: input.file()? },
        6 => Edit::SetMarks(SealedMarks {
            segment: input.file()?,
            marks: input.optional_file()?,
            marks_through: SeqNo(input.u64()?),
        }),
        7 => Edit::FlushedThrough { table: input.table()?, seqno: SeqNo(input.u64()?) },
        8 => Edit::RowIds { table: input.table()?, next: input.u64()? },
        9 => Edit::DropTable { table: input.table()? },
        10 => Edit::LastSeqNo(SeqNo(input.u64()?)),
        11 => Edit::WalReleased(WalStart { file: input.file()?, lsn: Lsn(input.u64()?) }),
        12 => Edit::NextFile(input.file()?),
        13 => {
            let (table, removed) = (input.table()?, input.files()?);
            let added = (0..input.u32()?).map(|_| input.placed_run()).collect::<Option<_>>()?;
            Edit::PlaceRuns { table, removed, added }
        }
        14 => {
            let (is_kept, seqno) = (input.flag()?, SeqNo(input.u64()?));
            let marks = (0..input.u32()?).map(|_| input.time_mark()).collect::<Option<_>>()?;
            if !is_kept && seqno > SeqNo::ZERO {
                return None;
            }
            Edit::History { kept_from: is_kept.then_some(seqno), marks }
        }
        15 => Edit::AddValueFile(ValueFileMeta {
            file: input.file()?,
            table: input.table()?,
            file_bytes: input.u64()?,
            value_count: input.u64()?,
            record_bytes: input.u64()?,
            raw_bytes: input.u64()?,
            checksum: input.u64()?,
            created_ms: input.u64()?,
        }),
        16 => Edit::DropValueFiles { table: input.table()?, files: input.files()? },
        _ => return None,
    })
}

/// Bits of the byte that was a flag: whether no key occurs twice, and whether the run refers to value files.
const UNIQUE_KEYS: u8 = 1;
const HAS_VALUES: u8 = 2;

fn put_run(out: &mut Vec<u8>, run: &RunMeta) {
    put_u64(out, run.run.0);
    put_table(out, run.table);
    put_u64(out, run.file_bytes);
    put_u64(out, run.version_count);
    put_u64(out, run.tombstone_count);
    put_bytes(out, &run.key_min);
    put_bytes(out, &run.key_max);
    put_u64(out, run.seqno_min.0);
    put_u64(out, run.seqno_max.0);
    let has_values = if run.values.is_empty() { 0 } else { HAS_VALUES };
    let unique_keys = if run.unique_keys { UNIQUE_KEYS } else { 0 };
    out.push(unique_keys | has_values);
    put_u64(out, run.checksum);
    put_u64(out, run.created_ms);
    if !run.values.is_empty() {
        put_u32(out, run.values.len());
    }
    for share in &run.values {
        let numbers = [share.file.0, share.value_count, share.record_bytes];
        numbers.into_iter().for_each(|number| put_u64(out, number));
    }
}

fn put_value_file(out: &mut Vec<u8>, meta: &ValueFileMeta) {
    put_u64(out, meta.file.0);
    put_table(out, meta.table);
    let facts = [meta.file_bytes, meta.value_count, meta.record_bytes, meta.raw_bytes, meta.checksum, meta.created_ms];
    facts.into_iter().for_each(|number| put_u64(out, number));
}

fn put_files(out: &mut Vec<u8>, files: &[FileId]) {
    put_u32(out, files.len());
    files.iter().for_each(|file| put_u64(out, file.0));
}

fn put_table(out: &mut Vec<u8>, table: TableId) {
    out.extend_from_slice(&table.0.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a frame holds at most 1 GiB, so no count in it exceeds 32 bits");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// What is left to decode; every method takes from its front, or says `None` if there is too little or it is wrong.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let count = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn time_mark(&mut self) -> Option<TimeMark> {
        Some(TimeMark { at_ms: self.u64()?, seqno: SeqNo(self.u64()?), is_gap: self.flag()? })
    }

    fn table(&mut self) -> Option<TableId> {
        self.u32().map(TableId)
    }

    fn file(&mut self) -> Option<FileId> {
        self.u64().map(FileId)
    }

    fn files(&mut self) -> Option<Vec<FileId>> {
        (0..self.u32()?).map(|_| self.file()).collect()
    }

    fn placed_run(&mut self) -> Option<(Place, RunMeta)> {
        let place = Place { level: self.u8()?, sorted_run: self.u32()? };
        Some((place, self.run()?))
    }

    fn optional_file(&mut self) -> Option<Option<FileId>> {
        self.u64().map(|file| Some(FileId(file)).filter(|file| file.0 != 0))
    }

    fn run(&mut self) -> Option<RunMeta> {
        let flags;
        let mut run = RunMeta {
            run: self.file()?,
            table: self.table()?,
            file_bytes: self.u64()?,
            version_count: self.u64()?,
            tombstone_count: self.u64()?,
            key_min: self.bytes()?,
            key_max: self.bytes()?,
            seqno_min: SeqNo(self.u64()?),
            seqno_max: SeqNo(self.u64()?),
            unique_keys: {
                flags = self.u8().filter(|flags| flags & !(UNIQUE_KEYS | HAS_VALUES) == 0)?;
                flags & UNIQUE_KEYS != 0
            },
            checksum: self.u64()?,
            created_ms: self.u64()?,
            values: Vec::new(),
        };
        if flags & HAS_VALUES != 0 {
            run.values = (0..self.u32()?).map(|_| self.share()).collect::<Option<_>>()?;
            let is_rising = run.values.windows(2).all(|pair| pair[0].file < pair[1].file);
            return (is_rising && !run.values.is_empty()).then_some(run);
        }
        Some(run)
    }

    fn share(&mut self) -> Option<ValueShare> {
        Some(ValueShare { file: self.file()?, value_count: self.u64()?, record_bytes: self.u64()? })
    }
}
