//! Files of segments for the tools on closed and damaged databases: text dumps, and the check of one segment.
//!
//! [`Files`] is what `strata_oltp::inspect` and `strata_oltp::repair` are given; [`crate::repair`] is the other half.
//!
//! Always true: nothing is changed, and damaged bytes become faults with file and offset.

use std::path::Path;
use std::sync::Arc;

use arrow::array::types::UInt64Type;
use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use parquet::file::metadata::ParquetMetaData;
use strata_oltp::cold::SegmentRecord;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::inspect::dump::title;
use strata_oltp::inspect::{ColdFiles, Dump, Fault, OpenSegment, RepairedSegment, SegmentRepair, StoredRow};
use strata_oltp::memory::MemoryBudget;
use strata_oltp::repair::Loss;
use strata_oltp::schema::Column;
use strata_oltp::{ColumnId, Error, FileId, FileKind, Result, SeqNo, TableId, TableSchema};

use crate::cache::ColumnCache;
use crate::convert::batch::BatchEncoder;
use crate::delete_vector::{self, Contents, Marks, Sealed};
use crate::segment::file::{SUM_BLOCK_BYTES, checksum};
use crate::segment::keys::{FOOTER_BYTES, KeyFile, KeyIndex};
use crate::segment::meta::SegmentMeta;
use crate::segment::spans::{INTERVAL, is_interval_group};
use crate::segment::stored::StoredColumn;
use crate::segment::{Segment, SegmentContext};
use crate::{error, repair};

/// Memory that looking at one segment may take: its index and one row group, with room.
const BUDGET_BYTES: u64 = 4 << 30;

/// The column store's files, for tools. No state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

/// A context for files in `dir`, with a budget of its own.
pub(crate) fn context(env: &Arc<dyn Env>, dir: &Path) -> SegmentContext {
    let budget = MemoryBudget::new(BUDGET_BYTES);
    let cache = ColumnCache::new(&budget, 64 << 20);
    SegmentContext { env: Arc::clone(env), dir: Arc::from(dir), budget, cache }
}

/// Opens the segment of `record`, with its marks or, if `with_marks` is not set, without.
pub(crate) fn open(env: &Arc<dyn Env>, dir: &Path, record: &SegmentRecord, with_marks: bool) -> Result<Arc<Segment>> {
    let meta = SegmentMeta::decode(&record.meta, &FileKind::Segment.path(dir, record.segment))?;
    let marks = match record.marks.filter(|_| with_marks) {
        Some(id) => delete_vector::load(env.as_ref(), dir, id, record.segment, meta.row_count, record.marks_through)?,
        None => Marks::new(Vec::new(), Sealed::default()),
    };
    Ok(Arc::new(Segment::open(&context(env, dir), record.segment, meta, marks)?))
}

/// The shape of the rows in a segment, from its file alone: names and ids, nullability, the primary key it is sorted by.
/// `types` are known exactly, or those are taken that the file's columns are made of.
pub(crate) fn schema_of(
    parquet: &ParquetMetaData,
    table: TableId,
    version: u16,
    types: Option<&[DataType]>,
) -> Result<TableSchema> {
    let descriptor = parquet.file_metadata().schema_descr();
    let inferred =
        parquet::arrow::parquet_to_arrow_schema(descriptor, None).map_err(|error| Error::Invalid(error.to_string()))?;
    let count = inferred.fields().len().saturating_sub(1);
    let mut columns = Vec::with_capacity(count);
    for (index, field) in inferred.fields().iter().take(count).enumerate() {
        let data_type = types.and_then(|types| types.get(index)).cloned();
        let data_type = data_type.unwrap_or_else(|| in_memory(field.data_type()));
        let stored = descriptor.root_schema().get_fields().get(index).map(|field| field.get_basic_info().clone());
        // A foreign file may have no ids; then its columns are numbered as they come.
        let id = stored.filter(parquet::schema::types::BasicTypeInfo::has_id).map(|info| info.id());
        let id = ColumnId(id.and_then(|id| u32::try_from(id).ok()).unwrap_or(index as u32));
        columns.push(Column { id, field: Field::new(field.name(), data_type, field.is_nullable()) });
    }
    let sorting = parquet.row_groups().first().and_then(|group| group.sorting_columns());
    // Keys are sorted by their leaves, of which a column may have several.
    let root = |leaf: usize| if leaf < descriptor.num_columns() { descriptor.get_column_root_idx(leaf) } else { leaf };
    let leaf = |index: i32| usize::try_from(index).unwrap_or(usize::MAX);
    let keys = sorting.into_iter().flatten().map(|column| root(leaf(column.column_idx)));
    TableSchema::new(table, version, columns, keys.collect())
}

/// The type in memory of what a file calls `data_type`.
fn in_memory(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        group if is_interval_group(group) => INTERVAL,
        DataType::List(item) => DataType::new_list(in_memory(item.data_type()), true),
        other => other.clone(),
    }
}

/// [`schema_of`] an open segment.
pub(crate) fn schema_of_segment(segment: &Segment) -> Result<Arc<TableSchema>> {
    let meta = segment.meta();
    let types: Vec<DataType> = meta.columns.iter().map(|column| column.data_type.clone()).collect();
    schema_of(segment.parquet(), meta.table, meta.schema_version, Some(&types)).map(Arc::new)
}

impl ColdFiles for Files {
    fn inspect(
        &self,
        env: &Arc<dyn Env>,
        kind: FileKind,
        path: &Path,
        id: Option<FileId>,
        dump: &mut Dump<'_>,
    ) -> Result<()> {
        let file = env.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
        let bytes = file.len().map_err(|e| Error::io("measure", path, e))?;
        dump.say(0, format!("{}, {bytes} bytes", title(kind, id)));
        let dumped = match kind {
            FileKind::Keys => dump_keys(env.as_ref(), path, id, bytes, dump),
            FileKind::Marks => dump_marks(env.as_ref(), path, id, bytes, dump),
            _ => dump_segment(env, path, id, dump),
        };
        match dumped {
            Err(error @ Error::Io { .. }) => Err(error),
            Err(error) => {
                dump.fault(1, Fault::of(&error, kind, path));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn describe(&self, meta: &[u8]) -> String {
        match SegmentMeta::decode(meta, Path::new("")) {
            Ok(meta) => {
                let groups = meta.row_groups.len();
                let columns = meta.columns.len();
                format!(
                    "{} rows in {groups} row groups, {columns} columns, schema version {}, {} + {} bytes",
                    meta.row_count, meta.schema_version, meta.parquet_bytes, meta.keys.file_bytes
                )
            }
            Err(error) => format!("bad description: {error}"),
        }
    }

    fn verify(
        &self,
        env: &Arc<dyn Env>,
        dir: &Path,
        record: &SegmentRecord,
        faults: &mut Vec<Fault>,
    ) -> Option<Box<dyn OpenSegment>> {
        let path = FileKind::Segment.path(dir, record.segment);
        let opened = open(env, dir, record, true).or_else(|error| {
            faults.push(Fault::of(&error, FileKind::Segment, &path));
            // Once more without the marks, which may be all that is damaged.
            record.marks.map_or(Err(error), |_| open(env, dir, record, false))
        });
        let segment = opened.ok()?;
        if segment.table() != record.table {
            faults.push(Fault::new(FileKind::Segment, &path, 0, "recorded under another table"));
        }
        check_bytes(&segment, &path, faults);
        if faults.iter().any(|fault| fault.file == path) {
            return Some(Box::new(Opened(segment)));
        }
        if let Err(error) = check_rows(&segment, faults) {
            faults.push(Fault::of(&error, FileKind::Segment, &path));
        }
        Some(Box::new(Opened(segment)))
    }

    fn repair(&self, job: &SegmentRepair<'_>, losses: &mut Vec<Loss>) -> Result<RepairedSegment> {
        repair::repair(job, losses)
    }

    fn open(&self, env: &Arc<dyn Env>, dir: &Path, record: &SegmentRecord) -> Result<Box<dyn OpenSegment>> {
        Ok(Box::new(Opened(open(env, dir, record, true)?)))
    }

    fn write_marks(
        &self,
        env: &dyn Env,
        dir: &Path,
        id: FileId,
        segment: FileId,
        marks: &[(u32, SeqNo)],
    ) -> Result<()> {
        delete_vector::write_file(env, dir, id, segment, &Contents::of_pairs(marks))
    }
}

/// Every block of both files against its checksum, all that are bad.
fn check_bytes(segment: &Segment, path: &Path, faults: &mut Vec<Fault>) {
    let file = segment.file();
    let mut at = 0;
    while at < file.file_bytes() {
        let end = (at + SUM_BLOCK_BYTES).min(file.file_bytes());
        if let Err(error) = file.read(at..end) {
            faults.push(Fault::of(&error, FileKind::Segment, path));
        }
        at = end;
    }
    for block in 0..segment.key_index().block_count() {
        if let Err(error) = segment.key_index().read_block(block) {
            faults.push(Fault::of(&error, FileKind::Keys, path));
        }
    }
}

/// Rows against key index, recorded ranges and marks: each position's key and commit is what the index says, keys rise,
/// the filter knows them, and marks are of later commits.
fn check_rows(segment: &Arc<Segment>, faults: &mut Vec<Fault>) -> Result<()> {
    let schema = schema_of_segment(segment)?;
    let path = segment.path().to_path_buf();
    let keys_path = path.with_extension("keys");
    let mut push = |kind, path: &Path, what: String| faults.push(Fault::new(kind, path, 0, what));
    let encoder = BatchEncoder::new(&schema);
    let columns = segment.stored_columns(&schema)?;
    let all: Vec<usize> = (0..=segment.seqno_column()).collect();
    let mut last: Option<(Vec<u8>, SeqNo)> = None;
    for group in 0..segment.row_group_count() {
        let mut arrays = segment.decode_columns(group, &all)?;
        let seqnos = arrays.pop().ok_or_else(|| segment.corrupt("no column of commits"))?;
        let seqnos =
            seqnos.as_primitive_opt::<UInt64Type>().ok_or_else(|| segment.corrupt("commits are no numbers"))?;
        let rows = segment.row_group_rows(group);
        let row_count = (rows.end - rows.start) as usize;
        let values = |(column, array): (&StoredColumn, ArrayRef)| column.values(Some(array), row_count).map(Some);
        let arrays = columns.iter().zip(arrays).map(values).collect::<Result<Vec<_>>>()?;
        let encoded = encoder.encode_columns(&arrays, row_count)?;
        let (oldest, newest) = segment.seqno_range(group);
        let mut index_faults = 0;
        for (at, position) in rows.clone().enumerate() {
            let (key, seqno) = (encoded.key(at), SeqNo(seqnos.value(at)));
            let rises = last.as_ref().is_none_or(|(last, newer)| &last[..] < key || (last == key && *newer > seqno));
            if !rises {
                push(FileKind::Segment, &path, format!("row {position} is out of order"));
            }
            if seqno < oldest || seqno > newest {
                push(FileKind::Segment, &path, format!("row {position} is of commit {seqno}, outside its row group's"));
            }
            let is_indexed = segment.versions(key)?.contains(&(position, seqno)) && segment.key_at(position)? == key;
            if !is_indexed && index_faults < 100 {
                index_faults += 1;
                push(FileKind::Keys, &keys_path, format!("the index does not lead to row {position}"));
            }
            if let Some(mark) = segment.marks().mark_of(position).filter(|mark| *mark <= seqno) {
                push(FileKind::Marks, &path, format!("row {position} of commit {seqno} is marked by commit {mark}"));
            }
            last = Some((key.to_vec(), seqno));
        }
        let (first, end) = segment.row_group_keys(group);
        let count = encoded.len();
        if count == 0 || encoded.key(0) != first || encoded.key(count - 1) != end {
            push(FileKind::Segment, &path, format!("keys of row group {group} are not those recorded"));
        }
    }
    if segment.key_index().row_count() != segment.row_count() {
        push(FileKind::Keys, &keys_path, "the index has another number of rows".to_owned());
    }
    Ok(())
}

/// A segment whose keys can be read.
struct Opened(Arc<Segment>);

impl OpenSegment for Opened {
    fn id(&self) -> FileId {
        self.0.id()
    }

    fn key_range(&self) -> (Vec<u8>, Vec<u8>) {
        let (first, last) = self.0.key_range();
        (first.to_vec(), last.to_vec())
    }

    fn versions(&self, key: &[u8]) -> Result<Vec<StoredRow>> {
        let versions = self.0.versions(key)?.into_iter();
        Ok(versions.map(|(position, seqno)| self.row(position, seqno)).collect())
    }

    fn row_at(&self, position: u32) -> Result<Option<(Vec<u8>, StoredRow)>> {
        if position >= self.0.row_count() {
            return Ok(None);
        }
        let key = self.0.key_at(position)?;
        let version = self.0.versions(&key)?.into_iter().find(|(at, _)| *at == position);
        let (_, seqno) = version.ok_or_else(|| self.0.corrupt("the index does not lead to a row"))?;
        Ok(Some((key, self.row(position, seqno))))
    }
}

impl Opened {
    fn row(&self, position: u32, seqno: SeqNo) -> StoredRow {
        let marks = self.0.marks();
        let mark = if marks.is_settled(position) { Some(seqno.next()) } else { marks.mark_of(position) };
        StoredRow { position, seqno, mark }
    }
}

/// What the footer of a key index says of itself, for a file without a record.
pub(crate) fn key_file(env: &dyn Env, path: &Path, id: FileId) -> Result<KeyFile> {
    let file = env.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
    let file_bytes = file.len().map_err(|e| Error::io("measure", path, e))?;
    let footer_at = file_bytes
        .checked_sub(FOOTER_BYTES as u64)
        .ok_or_else(|| Error::corrupt(FileKind::Keys, path, file_bytes, "the file is too short"))?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_at(footer_at, &mut footer).map_err(|e| Error::io("read", path, e))?;
    Ok(KeyFile { file_bytes, footer_sum: checksum(id, footer_at, &footer[..FOOTER_BYTES - 16]) })
}

/// The folder of the database that `path` is in.
fn database_of(path: &Path) -> &Path {
    path.parent().and_then(Path::parent).unwrap_or(Path::new(""))
}

fn number(id: Option<FileId>, path: &Path) -> Result<FileId> {
    id.ok_or_else(|| Error::Invalid(format!("{} was renamed; its checksums need its number", path.display())))
}

fn dump_keys(env: &dyn Env, path: &Path, id: Option<FileId>, bytes: u64, dump: &mut Dump<'_>) -> Result<()> {
    let id = number(id, path)?;
    let (index, parts) = KeyIndex::open(env, database_of(path), id, key_file(env, path, id)?)?;
    dump.say(1, format!("{} rows in {} blocks of {bytes} bytes", index.row_count(), index.block_count()));
    dump.say(1, format!("vouches for {} bytes of Parquet with {} sums", parts.parquet_bytes, parts.sums.len()));
    let mut shown = 0;
    for at in 0..index.block_count() {
        match index.read_block(at) {
            Ok(block) => {
                for entry in 0..block.len() {
                    dump.item(2, shown, |dump| {
                        let position = block.first_position as usize + entry;
                        format!("{position}: {} @{}", dump.key(block.key(entry)), block.seqno(entry))
                    });
                    shown += 1;
                }
            }
            Err(error) => dump.fault(2, Fault::of(&error, FileKind::Keys, path)),
        }
    }
    dump.end_list(2, shown);
    Ok(())
}

fn dump_marks(env: &dyn Env, path: &Path, id: Option<FileId>, bytes: u64, dump: &mut Dump<'_>) -> Result<()> {
    let file = env.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_at(0, &mut content).map_err(|e| Error::io("read", path, e))?;
    let (of, segment) = delete_vector::owner(&content)
        .ok_or_else(|| Error::corrupt(FileKind::Marks, path, bytes.min(32), "not a deletion vector"))?;
    let marks = Contents::decode(&content, path, id.unwrap_or(of), segment, u32::MAX)?.into_marks(Sealed::default());
    let all = marks.all();
    dump.say(1, format!("of segment {segment}, {} positions", all.len()));
    for (at, (position, seqno)) in (0..).zip(&all) {
        dump.item(2, at, |_| format!("{position} superseded by {seqno}"));
    }
    dump.end_list(2, all.len() as u64);
    Ok(())
}

/// A Parquet file: our metadata and its groups; with its key index beside it, every block against its checksum.
fn dump_segment(env: &Arc<dyn Env>, path: &Path, id: Option<FileId>, dump: &mut Dump<'_>) -> Result<()> {
    let id = number(id, path)?;
    let file = repair::Bytes::open(env, database_of(path), id)?;
    for fault in file.faults() {
        dump.fault(1, fault.clone());
    }
    let parquet = file.metadata().map_err(|e| error::reading(path, e))?;
    let about = parquet.file_metadata();
    dump.say(1, format!("{} rows, written by {}", about.num_rows(), about.created_by().unwrap_or("nobody")));
    for pair in about.key_value_metadata().into_iter().flatten() {
        dump.say(1, format!("{} = {}", pair.key, pair.value.as_deref().unwrap_or_default()));
    }
    for column in about.schema_descr().columns() {
        let info = column.self_type().get_basic_info();
        let id = if info.has_id() { info.id().to_string() } else { "without id".to_owned() };
        dump.say(2, format!("column {id} {} {}", column.name(), column.physical_type()));
    }
    for (at, group) in (0..).zip(parquet.row_groups()) {
        dump.item(2, at, |_| format!("row group {at}: {} rows, {} bytes", group.num_rows(), group.compressed_size()));
    }
    dump.end_list(2, parquet.row_groups().len() as u64);
    Ok(())
}
