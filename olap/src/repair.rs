//! Salvage of a damaged segment: the row groups that can be read, written anew with a key index of their own.
//!
//! The Parquet file has no checksums of its own; `.keys` has them. While that section is sound, every block is held
//! against it. If it is lost, a row group counts as sound when it decodes, its keys rise and its commits are those
//! recorded; the report says that nothing vouched for it.
//!
//! What the rows look like is in the Parquet file itself (names, column ids, the key it is sorted by), so that neither
//! catalog nor manifest is needed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::types::UInt64Type;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use strata_oltp::cold::{ColdJob, SegmentRecord};
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::inspect::{ColdFiles, Fault, RepairedSegment, SegmentRepair};
use strata_oltp::iter::VecCursor;
use strata_oltp::key::table_of;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::repair::{Effect, Loss};
use strata_oltp::schema::Column;
use strata_oltp::{Error, FileId, FileKind, Result, SeqNo, TableId, TableSchema};

use crate::convert::batch::{BatchEncoder, EncodedRows};
use crate::convert::output::SegmentsOutput;
use crate::delete_vector::{self, Contents, Sealed};
use crate::inspect::{Files, key_file, schema_of};
use crate::segment::file::{SUM_BLOCK_BYTES, SegmentFile, checksum};
use crate::segment::keys::{KeyIndex, stored_sums};
use crate::segment::meta::SegmentMeta;
use crate::segment::reader::Chunks;
use crate::segment::spans;
use crate::tier::{Store, StoreOptions};

/// Memory for writing one segment: two row groups and their pages.
const BUDGET_BYTES: u64 = 4 << 30;

/// A Parquet file with whatever vouches for its bytes.
pub(crate) struct Bytes {
    file: Arc<SegmentFile>,
    /// Whether the sums are those written with the file, and not made from what stands there now.
    is_vouched: bool,
}

impl Bytes {
    /// Opens the Parquet file of segment `id`.
    pub(crate) fn open(env: &Arc<dyn Env>, dir: &Path, id: FileId) -> Result<Bytes> {
        let path = FileKind::Segment.path(dir, id);
        let file = env.open(&path, OpenMode::Read).map_err(|e| Error::io("open", &path, e))?;
        let bytes = file.len().map_err(|e| Error::io("measure", &path, e))?;
        let stored =
            stored_sums(env.as_ref(), dir, id).filter(|sums| sums.len() as u64 == bytes.div_ceil(SUM_BLOCK_BYTES));
        let is_vouched = stored.is_some();
        let sums = match stored {
            Some(sums) => sums,
            None => {
                let mut sums = Vec::new();
                let mut at = 0;
                while at < bytes {
                    let mut block = vec![0; usize::try_from((bytes - at).min(SUM_BLOCK_BYTES)).unwrap_or(0)];
                    file.read_at(at, &mut block).map_err(|e| Error::io("read", &path, e))?;
                    sums.push(checksum(id, sums.len() as u64, &block));
                    at += SUM_BLOCK_BYTES;
                }
                sums
            }
        };
        Ok(Bytes { file: Arc::new(SegmentFile::open(env.as_ref(), dir, id, bytes, sums)?), is_vouched })
    }

    /// Blocks that are not what was written.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let path = self.file.path();
        let mut faults = Vec::new();
        if !self.is_vouched {
            faults.push(Fault::new(
                FileKind::Keys,
                &path.with_extension("keys"),
                0,
                "no checksums for the Parquet file",
            ));
        }
        let mut at = 0;
        while at < self.file.file_bytes() {
            let end = (at + SUM_BLOCK_BYTES).min(self.file.file_bytes());
            faults.extend(self.file.read(at..end).err().map(|error| Fault::of(&error, FileKind::Segment, path)));
            at = end;
        }
        faults
    }

    /// The footer, without page index.
    pub(crate) fn metadata(&self) -> Result<ParquetMetaData, ParquetError> {
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
        reader.parse_and_finish(&Chunks::new(&self.file))
    }
}

/// See [`ColdFiles::repair`].
pub(crate) fn repair(job: &SegmentRepair<'_>, losses: &mut Vec<Loss>) -> Result<RepairedSegment> {
    let meta = job.record.and_then(|record| SegmentMeta::decode(&record.meta, job.from).ok());
    let (marks, are_marks_lost) = marks(job, meta.as_ref(), losses)?;
    if let Some(record) = job.record {
        // Marks are judged for themselves.
        let bare = SegmentRecord { marks: record.marks.filter(|_| !are_marks_lost), ..record.clone() };
        let mut faults = Vec::new();
        if Files.verify(job.env, job.from, &bare, &mut faults).is_some() && faults.is_empty() {
            job.copy(FileKind::Segment, job.segment)?;
            job.copy(FileKind::Keys, job.segment)?;
            bare.marks.map_or(Ok(()), |id| job.copy(FileKind::Marks, id))?;
            return Ok(RepairedSegment { records: vec![bare], are_marks_lost });
        }
    }
    let salvage = Salvage { job, meta, marks };
    Ok(RepairedSegment { records: salvage.run(losses)?, are_marks_lost })
}

fn loss(job: &SegmentRepair<'_>, effect: Effect, kind: FileKind, id: FileId, what: impl Into<String>) -> Loss {
    let table = job.record.map(|record| record.table);
    let file = kind.path(job.from, id);
    Loss { effect, kind, file, bytes: 0..u64::MAX, table, keys: None, rows: None, what: what.into() }
}

/// Sealed marks by position, and whether some may be missing. Where it is forgotten which commit superseded a row, the
/// mark is 0.
fn marks(
    job: &SegmentRepair<'_>,
    meta: Option<&SegmentMeta>,
    losses: &mut Vec<Loss>,
) -> Result<(BTreeMap<u32, SeqNo>, bool)> {
    let rows = meta.map_or(u32::MAX, |meta| meta.row_count);
    let mut found = BTreeMap::new();
    let (files, is_known) = match job.record {
        Some(record) => (record.marks.into_iter().collect(), true),
        None => (marks_files(job)?, false),
    };
    let mut are_lost = !is_known;
    for id in files {
        let path = FileKind::Marks.path(job.from, id);
        let decoded =
            read_all(job.env.as_ref(), &path).and_then(|bytes| Contents::decode(&bytes, &path, id, job.segment, rows));
        match decoded {
            Ok(contents) => {
                let marks = contents.into_marks(Sealed::default());
                for (position, seqno) in marks.all() {
                    let seqno = if marks.is_settled(position) { SeqNo::ZERO } else { seqno };
                    let mark = found.entry(position).or_insert(seqno);
                    *mark = seqno.min(*mark);
                }
            }
            Err(error) => {
                let what = format!("which rows of segment {} were deleted is lost ({error})", job.segment);
                let mut lost = loss(job, Effect::Reappear, FileKind::Marks, id, what);
                lost.keys = meta.and_then(key_range);
                losses.push(lost);
                are_lost = true;
            }
        }
    }
    Ok((found, are_lost))
}

/// Marks files that say they are of this segment, by what they say.
fn marks_files(job: &SegmentRepair<'_>) -> Result<Vec<FileId>> {
    let folder = job.from.join("segments");
    let names = job.env.list(&folder).map_err(|e| Error::io("list", &folder, e))?;
    let all = names.iter().filter_map(|name| FileKind::parse(name)).filter(|(kind, _)| *kind == FileKind::Marks);
    let of_segment = |id: &FileId| {
        let bytes = read_all(job.env.as_ref(), &FileKind::Marks.path(job.from, *id)).unwrap_or_default();
        delete_vector::owner(&bytes).is_some_and(|(_, segment)| segment == job.segment)
    };
    Ok(all.map(|(_, id)| id).filter(of_segment).collect())
}

fn key_range(meta: &SegmentMeta) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((meta.row_groups.first()?.keys.0.clone(), meta.row_groups.last()?.keys.1.clone()))
}

fn read_all(env: &dyn Env, path: &Path) -> Result<Vec<u8>> {
    let file = env.open(path, OpenMode::Read).map_err(|e| Error::io("open", path, e))?;
    let bytes = file.len().map_err(|e| Error::io("measure", path, e))?;
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_at(0, &mut content).map_err(|e| Error::io("read", path, e))?;
    Ok(content)
}

/// A segment being written anew.
struct Salvage<'a> {
    job: &'a SegmentRepair<'a>,
    meta: Option<SegmentMeta>,
    marks: BTreeMap<u32, SeqNo>,
}

/// A row group that was read.
struct Group {
    rows: EncodedRows,
    seqnos: Vec<SeqNo>,
}

impl Salvage<'_> {
    fn run(&self, losses: &mut Vec<Loss>) -> Result<Vec<SegmentRecord>> {
        let opened = self.open();
        let (bytes, parquet, schema) = match opened {
            Ok(opened) => opened,
            Err(error @ Error::NewerFormat { .. }) => return Err(error),
            Err(error) => {
                let what = format!("the segment cannot be read: {error}");
                let mut lost = loss(self.job, Effect::Lost, FileKind::Segment, self.job.segment, what);
                lost.keys = self.meta.as_ref().and_then(key_range);
                lost.rows = self.meta.as_ref().map(|meta| u64::from(meta.row_count));
                losses.push(lost);
                return Ok(Vec::new());
            }
        };
        let budget = MemoryBudget::new(BUDGET_BYTES);
        let store = Store::new(Arc::clone(self.job.env), self.job.into, budget, StoreOptions::default());
        let job = ColdJob {
            schema: Arc::clone(&schema),
            versions: Box::new(VecCursor::new(Vec::new())),
            newer: Box::new(VecCursor::new(Vec::new())),
            segments: Vec::new(),
            watermark: SeqNo::ZERO,
            marks_through: self.job.record.map_or(SeqNo::ZERO, |record| record.marks_through),
            next_file: self.job.next_file,
        };
        let mut output = SegmentsOutput::new(&store, &job)?;
        let (mut base, mut last, mut lost_count) = (0_u32, None, 0);
        for at in 0..parquet.num_row_groups() {
            let rows = u32::try_from(parquet.row_group(at).num_rows()).unwrap_or(0);
            match self.group(&bytes, &parquet, &schema, at, last.as_ref()) {
                Ok(group) => {
                    for row in 0..group.rows.len() {
                        let position = base + row as u32;
                        let seqno = group.seqnos[row];
                        let mark = match self.marks.get(&position).copied() {
                            Some(SeqNo::ZERO) => Some(seqno.next()),
                            known => known.filter(|mark| *mark > seqno),
                        };
                        output.add(group.rows.key(row), group.rows.row(row), seqno, mark)?;
                    }
                    let end = group.rows.len() - 1;
                    last = Some((group.rows.key(end).to_vec(), group.seqnos[end]));
                }
                Err(error) => {
                    lost_count += 1;
                    losses.push(self.lost_group(&parquet, at, rows, schema.table, &error));
                }
            }
            base += rows;
        }
        lost_count += self.missing_groups(parquet.num_row_groups(), schema.table, losses);
        if lost_count == 0 && self.job.record.is_some() {
            let what = if bytes.is_vouched {
                "its key index was made anew"
            } else {
                "its key index was made anew; nothing vouches for the bytes of its rows, which decode and are in order"
            };
            let mut rebuilt = loss(self.job, Effect::Rebuilt, FileKind::Keys, self.job.segment, what);
            rebuilt.table = Some(schema.table);
            losses.push(rebuilt);
        }
        Ok(output.finish()?.0)
    }

    fn open(&self) -> Result<(Bytes, Arc<ParquetMetaData>, Arc<TableSchema>)> {
        let (env, from, id) = (self.job.env, self.job.from, self.job.segment);
        let bytes = Bytes::open(env, from, id)?;
        let path = FileKind::Segment.path(from, id);
        let parquet = bytes.metadata().map_err(|error| crate::error::reading(&path, error))?;
        let table = match self.job.record {
            Some(record) => record.table,
            None => self.table_in_index()?,
        };
        let types: Option<Vec<DataType>> =
            self.meta.as_ref().map(|meta| meta.columns.iter().map(|column| column.data_type.clone()).collect());
        let version = self.meta.as_ref().map_or(1, |meta| meta.schema_version);
        let schema = schema_of(&parquet, table, version, types.as_deref())?;
        Ok((bytes, Arc::new(parquet), Arc::new(schema)))
    }

    /// Whose rows these are is in no column, only in the keys of the index.
    fn table_in_index(&self) -> Result<TableId> {
        let (env, from, id) = (self.job.env.as_ref(), self.job.from, self.job.segment);
        let path = FileKind::Keys.path(from, id);
        let (index, _) = KeyIndex::open(env, from, id, key_file(env, &path, id)?)?;
        let mut blocks = (0..index.block_count()).filter_map(|block| index.read_block(block).ok());
        let table = blocks.find_map(|block| table_of(block.key(0)));
        table.ok_or_else(|| Error::corrupt(FileKind::Keys, &path, 0, "no key is left that names the table"))
    }

    /// Rows of one group, in order behind `last`.
    fn group(
        &self,
        bytes: &Bytes,
        parquet: &Arc<ParquetMetaData>,
        schema: &Arc<TableSchema>,
        at: usize,
        last: Option<&(Vec<u8>, SeqNo)>,
    ) -> Result<Group> {
        let path = bytes.file.path();
        let corrupt = |what: &'static str| Error::corrupt(FileKind::Segment, path, 0, what);
        let batch = read_group(bytes, parquet, schema, at)?;
        let count = schema.columns.len();
        let seqnos = batch.column(count).as_primitive_opt::<UInt64Type>().ok_or_else(|| corrupt("no commits"))?;
        let seqnos: Vec<SeqNo> = seqnos.values().iter().map(|seqno| SeqNo(*seqno)).collect();
        let values = |(column, array): (&Column, &ArrayRef)| match column.field.data_type() {
            &spans::INTERVAL => spans::from_file(array).map(Some),
            _ => Ok(Some(Arc::clone(array))),
        };
        let columns = schema.columns.iter().zip(batch.columns()).map(values).collect::<Result<Vec<_>>>()?;
        let rows = BatchEncoder::new(schema).encode_columns(&columns, batch.num_rows())?;
        let mut before = last.map(|(key, seqno)| (key.as_slice(), *seqno));
        for (row, seqno) in seqnos.iter().enumerate() {
            let version = (rows.key(row), *seqno);
            if before.is_some_and(|(key, seqno)| key > version.0 || (key == version.0 && seqno <= version.1)) {
                return Err(corrupt("rows are not in order"));
            }
            before = Some(version);
        }
        let known = self.meta.as_ref().map(|meta| meta.row_groups.get(at));
        let (Some(oldest), Some(newest)) = (seqnos.iter().min(), seqnos.iter().max()) else {
            return Err(corrupt("a row group without rows"));
        };
        let agrees = known.is_none_or(|known| {
            let Some(known) = known else { return false };
            known.rows as usize == rows.len()
                && known.seqnos == (*oldest, *newest)
                && known.keys.0 == rows.key(0)
                && known.keys.1 == rows.key(rows.len() - 1)
        });
        if agrees { Ok(Group { rows, seqnos }) } else { Err(corrupt("a row group is not what was recorded")) }
    }

    /// A loss for each recorded row group that a file of `count` groups does not have; how many that are.
    fn missing_groups(&self, count: usize, table: TableId, losses: &mut Vec<Loss>) -> usize {
        let recorded = self.meta.iter().flat_map(|meta| &meta.row_groups).enumerate().skip(count);
        let missing = recorded.map(|(at, group)| {
            let what = format!("row group {at} is not in the file");
            let mut lost = loss(self.job, Effect::Lost, FileKind::Segment, self.job.segment, what);
            (lost.table, lost.keys, lost.rows) = (Some(table), Some(group.keys.clone()), Some(u64::from(group.rows)));
            lost
        });
        let before = losses.len();
        losses.extend(missing);
        losses.len() - before
    }

    fn lost_group(&self, parquet: &ParquetMetaData, at: usize, rows: u32, table: TableId, error: &Error) -> Loss {
        let what = format!("row group {at} cannot be read: {error}");
        let mut lost = loss(self.job, Effect::Lost, FileKind::Segment, self.job.segment, what);
        let ranges = parquet.row_group(at).columns().iter().filter_map(byte_range);
        let (start, end) = ranges.fold((u64::MAX, 0), |(low, high), range| (low.min(range.start), high.max(range.end)));
        lost.bytes = start..end;
        lost.table = Some(table);
        lost.keys = self.meta.as_ref().and_then(|meta| meta.row_groups.get(at)).map(|group| group.keys.clone());
        lost.rows = Some(u64::from(rows));
        lost
    }
}

/// Where a column chunk lies; `None` if the footer says something impossible.
fn byte_range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = u64::try_from(column.dictionary_page_offset().unwrap_or(column.data_page_offset())).ok()?;
    let end = start.checked_add(u64::try_from(column.compressed_size()).ok()?)?;
    Some(start..end)
}

/// All columns of one row group as one batch.
fn read_group(bytes: &Bytes, parquet: &Arc<ParquetMetaData>, schema: &TableSchema, at: usize) -> Result<RecordBatch> {
    let path = bytes.file.path();
    let failed = |error| crate::error::reading(path, error);
    // Parquet's readers take the places in the footer for granted.
    let fits = |column| byte_range(column).is_some_and(|range| range.end <= bytes.file.file_bytes());
    if !parquet.row_group(at).columns().iter().all(fits) {
        return Err(Error::corrupt(FileKind::Segment, path, 0, "a column lies beyond the file"));
    }
    let inferred =
        parquet::arrow::parquet_to_arrow_schema(parquet.file_metadata().schema_descr(), None).map_err(failed)?;
    let typed = inferred.fields().iter().enumerate().map(|(index, field)| {
        let recorded = schema.columns.get(index).map(|column| spans::file_type(column.field.data_type()));
        let data_type = recorded.unwrap_or_else(|| field.data_type().clone());
        Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone())
    });
    let typed = Arc::new(Schema::new(typed.collect::<Vec<_>>()));
    let options = ArrowReaderOptions::new().with_schema(Arc::clone(&typed));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(parquet), options).map_err(failed)?;
    let rows = usize::try_from(parquet.row_group(at).num_rows()).unwrap_or(0);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(Chunks::new(&bytes.file), metadata)
        .with_row_groups(vec![at])
        .with_batch_size(rows.max(1))
        .build()
        .map_err(failed)?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| crate::error::reading_arrow(path, error))?;
    let batch =
        arrow::compute::concat_batches(&typed, &batches).map_err(|error| crate::error::reading_arrow(path, error))?;
    if batch.num_rows() != rows || batch.num_columns() != schema.columns.len() + 1 {
        return Err(Error::corrupt(FileKind::Segment, path, 0, "a row group has fewer rows than recorded"));
    }
    Ok(batch)
}
