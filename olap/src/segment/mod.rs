//! `Segment`: about a million rows of one table, sorted by primary key, as plain Parquet with a key index beside it.
//!
//! `writer` makes one, `keys` finds a row in it, `reader` decodes its columns, `statistics` says what to skip. Which rows a
//! snapshot sees is decided here, from the hidden `_strata_seq` column and the marks, before a Parquet reader starts.
//!
//! Always true:
//! * files are immutable and never share a number, so an open segment is shared by every view that has it;
//! * a row is visible at S when its SeqNo is at most S and it has no mark at or below S;
//! * every byte read was verified against a checksum.
#![doc = include_str!("FORMAT.md")]

pub mod file;
pub mod filter;
pub mod keys;
pub mod meta;
pub mod reader;
pub mod sketch;
pub(crate) mod spans;
pub mod statistics;
pub(crate) mod stored;
pub mod wire;
pub mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::types::UInt64Type;
use arrow::array::{AsArray, BooleanBufferBuilder};
use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use roaring::RoaringBitmap;
use strata_oltp::env::Env;
use strata_oltp::memory::{MemoryBudget, Reservation};
use strata_oltp::{ColumnId, Error, FileId, FileKind, Result, SeqNo, TableId};

use crate::cache::ColumnCache;
use crate::delete_vector::Marks;
use crate::error;

pub use reader::SegmentReader;
pub use statistics::{ColumnStatistics, SegmentStatistics};
pub use writer::{EncodingOptions, SegmentCompression, SegmentWriter, WrittenSegment, file_schema};

use file::SegmentFile;
use filter::hash_key;
use keys::{KeyBlock, KeyIndex};
use meta::SegmentMeta;
use reader::Chunks;
use sketch::Sketch;
use wire::Fields;

/// An open segment with its marks.
#[derive(Debug)]
pub struct Segment {
    id: FileId,
    meta: SegmentMeta,
    file: Arc<SegmentFile>,
    keys: KeyIndex,
    arrow: ArrowReaderMetadata,
    statistics: SegmentStatistics,
    sketches: Vec<Sketch>,
    /// First position of each row group, and the row count.
    starts: Vec<u32>,
    newest: SeqNo,
    marks: Marks,
    cache: Arc<ColumnCache>,
    _memory: Reservation,
}

/// What a segment is opened with.
#[derive(Clone, Debug)]
pub struct SegmentContext {
    /// Files.
    pub env: Arc<dyn Env>,
    /// Database directory.
    pub dir: Arc<Path>,
    /// Pays for fences, filters and checksums.
    pub budget: Arc<MemoryBudget>,
    /// Keeps what was decoded.
    pub cache: Arc<ColumnCache>,
}

/// Which rows of a row group a snapshot sees.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAccess {
    /// None.
    Skip,
    /// All, marks or not.
    All,
    /// Some; the selection covers exactly the group's rows.
    Selection(RowSelection),
}

impl Segment {
    /// Opens segment `id`, described by `meta`, with `marks`.
    ///
    /// # Errors
    /// Corrupt, missing or unreadable files, or an exhausted budget.
    pub fn open(context: &SegmentContext, id: FileId, meta: SegmentMeta, marks: Marks) -> Result<Segment> {
        let (env, dir) = (&*context.env, &*context.dir);
        let (keys, parts) = KeyIndex::open(env, dir, id, meta.keys)?;
        let path = FileKind::Segment.path(dir, id);
        if keys.row_count() != meta.row_count || parts.parquet_bytes != meta.parquet_bytes {
            return Err(Error::corrupt(FileKind::Keys, &path, 0, "the key index belongs to another segment"));
        }
        let file = Arc::new(SegmentFile::open(env, dir, id, meta.parquet_bytes, parts.sums)?);
        let failed = |e| error::reading(&path, e);
        let parquet = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&Chunks::new(&file))
            .map_err(failed)?;
        check_footer(&parquet, &meta, &path)?;
        let schema = arrow_schema(&parquet, &meta).map_err(failed)?;
        let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
        let arrow = ArrowReaderMetadata::try_new(Arc::new(parquet), options).map_err(failed)?;
        let statistics = SegmentStatistics::collect(arrow.metadata(), &schema, &meta).map_err(failed)?;
        let sketches = decode_sketches(&parts.sketches, &FileKind::Keys.path(dir, id), meta.columns.len())?;
        let memory_bytes = keys.memory_bytes() + file.memory_bytes() + arrow.metadata().memory_size();
        let mut starts = vec![0];
        for group in &meta.row_groups {
            starts.push(starts.last().copied().unwrap_or_default() + group.rows);
        }
        Ok(Segment {
            id,
            newest: meta.row_groups.iter().map(|group| group.seqnos.1).max().unwrap_or_default(),
            meta,
            file,
            keys,
            arrow,
            statistics,
            sketches,
            starts,
            marks,
            cache: Arc::clone(&context.cache),
            _memory: context.budget.reserve("segments", memory_bytes as u64)?,
        })
    }

    /// The segment's number.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Its table.
    #[must_use]
    pub fn table(&self) -> TableId {
        self.meta.table
    }

    /// Path of its Parquet file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes of its Parquet file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.meta.parquet_bytes
    }

    /// Bytes of its Parquet file and key index.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.meta.parquet_bytes + self.meta.keys.file_bytes
    }

    /// What the manifest keeps of it.
    #[must_use]
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Physical rows.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.meta.row_count
    }

    /// Row groups.
    #[must_use]
    pub fn row_group_count(&self) -> usize {
        self.meta.row_groups.len()
    }

    /// Positions of a row group's rows.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn row_group_rows(&self, row_group: usize) -> Range<u32> {
        self.starts[row_group]..self.starts[row_group + 1]
    }

    /// Row group that holds `position`.
    #[must_use]
    pub fn row_group_of(&self, position: u32) -> usize {
        self.starts.partition_point(|&start| start <= position) - 1
    }

    /// Smallest and largest full key.
    #[must_use]
    pub fn key_range(&self) -> (&[u8], &[u8]) {
        (self.row_group_keys(0).0, self.row_group_keys(self.row_group_count() - 1).1)
    }

    /// First and last full key of a row group.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn row_group_keys(&self, row_group: usize) -> (&[u8], &[u8]) {
        let keys = &self.meta.row_groups[row_group].keys;
        (&keys.0, &keys.1)
    }

    /// Oldest and newest commit among a row group's rows.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn seqno_range(&self, row_group: usize) -> (SeqNo, SeqNo) {
        self.meta.row_groups[row_group].seqnos
    }

    /// Ids of the file's columns in file order, the hidden SeqNo column left out.
    pub fn column_ids(&self) -> impl ExactSizeIterator<Item = ColumnId> + '_ {
        self.meta.columns.iter().map(|column| column.id)
    }

    /// Place of the table's column `id` in the file; `None` if the segment is older than the column.
    #[must_use]
    pub fn column_index(&self, id: ColumnId) -> Option<usize> {
        self.meta.columns.iter().position(|column| column.id == id)
    }

    /// Place of the hidden SeqNo column: the last.
    #[must_use]
    pub fn seqno_column(&self) -> usize {
        self.meta.columns.len()
    }

    /// Schema of decoded columns: names as when written, types as in memory but for intervals, which are groups of numbers,
    /// the SeqNo (`UInt64`) last.
    #[must_use]
    pub fn arrow_schema(&self) -> &SchemaRef {
        self.arrow.schema()
    }

    /// The decoded footer, page index included.
    #[must_use]
    pub fn parquet(&self) -> &Arc<ParquetMetaData> {
        self.arrow.metadata()
    }

    /// Footer and schema as Parquet's readers take them.
    #[must_use]
    pub fn arrow_metadata(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }

    /// Zone maps.
    #[must_use]
    pub fn statistics(&self) -> &SegmentStatistics {
        &self.statistics
    }

    /// Distinct-count sketch of the table's column `id`.
    #[must_use]
    pub fn sketch(&self, id: ColumnId) -> Option<&Sketch> {
        self.column_index(id).map(|index| &self.sketches[index])
    }

    /// Which positions later commits superseded.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The cache its decoded columns go through.
    #[must_use]
    pub fn cache(&self) -> &Arc<ColumnCache> {
        &self.cache
    }

    /// A reader for Parquet's asynchronous code.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> SegmentReader {
        SegmentReader::new(Arc::clone(self))
    }

    /// Whether a snapshot at `at` sees every physical row.
    #[must_use]
    pub fn is_all_visible(&self, at: SeqNo) -> bool {
        self.visible_rows(at) == Some(u64::from(self.row_count()))
    }

    /// How many rows a snapshot at `at` sees, if that is known without reading: unless it is older than a row.
    #[must_use]
    pub fn visible_rows(&self, at: SeqNo) -> Option<u64> {
        (self.newest <= at).then(|| u64::from(self.row_count()) - self.marks.marks_at(at).len())
    }

    /// Rows of a row group that a snapshot at `at` sees, without the positions (of the segment) in `extra_hidden`.
    ///
    /// Reads the SeqNo column only if the snapshot lies between the group's oldest and newest row.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn row_group_selection(
        &self,
        row_group: usize,
        at: SeqNo,
        extra_hidden: Option<&RoaringBitmap>,
    ) -> Result<GroupAccess> {
        let rows = self.row_group_rows(row_group);
        let (oldest, newest) = self.seqno_range(row_group);
        if oldest > at {
            return Ok(GroupAccess::Skip);
        }
        let marks = self.marks.marks_at(at);
        let hidden = [Some(&*marks), extra_hidden].into_iter().flatten();
        let mut hidden = hidden.filter(|bitmap| bitmap.range_cardinality(rows.clone()) > 0).peekable();
        if hidden.peek().is_none() && newest <= at {
            return Ok(GroupAccess::All);
        }
        let count = (rows.end - rows.start) as usize;
        let mut visible = BooleanBufferBuilder::new(count);
        if newest <= at {
            visible.append_n(count, true);
        } else {
            let seqnos = self.cached_columns(row_group, &[self.seqno_column()])?;
            seqnos[0].as_primitive::<UInt64Type>().values().iter().for_each(|&seqno| visible.append(seqno <= at.0));
        }
        for bitmap in hidden {
            bitmap.range(rows.clone()).for_each(|position| visible.set_bit((position - rows.start) as usize, false));
        }
        let visible = visible.finish();
        Ok(match visible.count_set_bits() {
            0 => GroupAccess::Skip,
            all if all == count => GroupAccess::All,
            _ => {
                let runs = visible.set_slices().map(|(start, end)| start..end);
                GroupAccess::Selection(RowSelection::from_consecutive_ranges(runs, count))
            }
        })
    }

    /// Where the version of `key` visible at `at` is, with its SeqNo. At most one key block is read.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn locate(&self, key: &[u8], at: SeqNo) -> Result<Option<(u32, SeqNo)>> {
        let newest = self.versions(key)?.into_iter().find(|&(_, seqno)| seqno <= at);
        Ok(newest.filter(|&(position, _)| self.marks.mark_of(position).is_none_or(|mark| mark > at)))
    }

    /// Every version of `key` here, newest first: position and SeqNo, marked or not.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn versions(&self, key: &[u8]) -> Result<Vec<(u32, SeqNo)>> {
        let (first, last) = self.key_range();
        if key < first || key > last || !self.keys.may_contain(hash_key(key)) {
            return Ok(Vec::new());
        }
        let Some(block) = self.keys.block_of(key) else { return Ok(Vec::new()) };
        let block = self.key_block(block)?;
        let entries = (block.lower_bound(key)..block.len()).take_while(|&entry| block.key(entry) == key);
        Ok(entries.map(|entry| (block.first_position + entry as u32, block.seqno(entry))).collect())
    }

    /// Visits the rows whose key is in `keys`, in order: key, position and SeqNo, marked or not.
    ///
    /// # Errors
    /// Corrupt or unreadable files, or the visitor's own.
    pub fn visit_keys(&self, keys: Range<&[u8]>, mut visit: impl FnMut(&[u8], u32, SeqNo) -> Result<()>) -> Result<()> {
        let first = self.keys.block_of(keys.start).unwrap_or(0);
        for block in first..self.keys.block_count() {
            let block = self.key_block(block)?;
            let start = block.lower_bound(keys.start);
            for entry in start..block.len() {
                if block.key(entry) >= keys.end {
                    return Ok(());
                }
                visit(block.key(entry), block.first_position + entry as u32, block.seqno(entry))?;
            }
        }
        Ok(())
    }

    /// Full key at `position`.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn key_at(&self, position: u32) -> Result<Vec<u8>> {
        let block = self.key_block(self.keys.block_at(position))?;
        Ok(block.key((position - block.first_position) as usize).to_vec())
    }

    /// Reads and checks every byte of both files.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn verify(&self) -> Result<()> {
        const STEP_BYTES: u64 = 4 * 1024 * 1024;
        let mut at = 0;
        while at < self.file.file_bytes() {
            let end = (at + STEP_BYTES).min(self.file.file_bytes());
            self.file.read(at..end)?;
            at = end;
        }
        for block in 0..self.keys.block_count() {
            self.keys.read_block(block)?;
        }
        Ok(())
    }

    /// Parquet's columns of the column at `index` of the file.
    pub(crate) fn leaves(&self, index: usize) -> Range<usize> {
        spans::leaves(self.parquet().file_metadata().schema_descr(), index)
    }

    pub(crate) fn key_index(&self) -> &KeyIndex {
        &self.keys
    }

    pub(crate) fn file(&self) -> &Arc<SegmentFile> {
        &self.file
    }

    pub(crate) fn corrupt(&self, what: &'static str) -> Error {
        Error::corrupt(FileKind::Segment, self.path(), 0, what)
    }

    fn key_block(&self, block: usize) -> Result<Arc<KeyBlock>> {
        self.cache.key_block(self.id, block, || self.keys.read_block(block))
    }
}

/// The footer must describe the row groups and columns that the manifest knows.
fn check_footer(parquet: &ParquetMetaData, meta: &SegmentMeta, path: &Path) -> Result<()> {
    let groups = parquet.row_groups();
    let same_rows = groups.len() == meta.row_groups.len()
        && groups.iter().zip(&meta.row_groups).all(|(stored, known)| stored.num_rows() == i64::from(known.rows));
    let fields = parquet.file_metadata().schema_descr().root_schema().get_fields();
    if !same_rows || fields.len() != meta.columns.len() + 1 {
        return Err(Error::corrupt(FileKind::Segment, path, 0, "the footer does not describe the recorded segment"));
    }
    Ok(())
}

/// Types as decoded: the file's own say less (views, time zones).
fn arrow_schema(parquet: &ParquetMetaData, meta: &SegmentMeta) -> Result<SchemaRef, parquet::errors::ParquetError> {
    let inferred = parquet_to_arrow_schema(parquet.file_metadata().schema_descr(), None)?;
    let typed = inferred.fields().iter().enumerate().map(|(index, field)| {
        let recorded = meta.columns.get(index).map(|column| spans::file_type(&column.data_type));
        let data_type = recorded.unwrap_or_else(|| field.data_type().clone());
        Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone())
    });
    Ok(Arc::new(Schema::new(typed.collect::<Vec<_>>())))
}

fn decode_sketches(bytes: &[u8], path: &Path, column_count: usize) -> Result<Vec<Sketch>> {
    let mut fields = Fields::new(FileKind::Keys, path, 0, bytes);
    if fields.count(1)? != column_count {
        return Err(fields.corrupt("another number of sketches than columns"));
    }
    let sketches = (0..column_count).map(|_| Sketch::decode(&mut fields)).collect::<Result<Vec<_>>>()?;
    fields.finish()?;
    Ok(sketches)
}
