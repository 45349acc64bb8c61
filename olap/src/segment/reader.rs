//! Reading a segment's columns: verified bytes for the scan, whole decoded columns, single rows for point reads.
//!
//! The footer and page index were decoded when the segment was opened and are shared by every reader. Marks are not
//! applied here: what comes out are physical rows by position.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};
use strata_oltp::row::RowCodec;
use strata_oltp::{Result, TableSchema};

use super::Segment;
use super::file::SegmentFile;
use super::stored::StoredColumn;
use crate::cache::ChunkKey;
use crate::convert::batch::BatchEncoder;
use crate::error;

/// Rows of a cached piece: the default page size, so that a point read decodes one page a column.
const PIECE_ROWS: u32 = 8192;

/// Verified bytes for Parquet's synchronous readers: ranges read ahead, and the file for everything else.
pub(crate) struct Chunks {
    file: Arc<SegmentFile>,
    ahead: Vec<(u64, Bytes)>,
}

impl Chunks {
    pub(crate) fn new(file: &Arc<SegmentFile>) -> Chunks {
        Chunks { file: Arc::clone(file), ahead: Vec::new() }
    }

    /// Reads `range` now, in one piece.
    fn prefetch(&mut self, range: Range<u64>) -> Result<()> {
        self.ahead.push((range.start, self.file.read(range)?));
        Ok(())
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.file.file_bytes()
    }
}

impl ChunkReader for Chunks {
    type T = FileRead;

    fn get_read(&self, start: u64) -> Result<FileRead, ParquetError> {
        Ok(FileRead { file: Arc::clone(&self.file), next: start, buffer: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start + length as u64;
        for (at, bytes) in &self.ahead {
            if *at <= start && end <= at + bytes.len() as u64 {
                let from = usize::try_from(start - at).expect("within a buffer");
                return Ok(bytes.slice(from..from + length));
            }
        }
        self.file.read(start..end).map_err(error::to_parquet)
    }
}

/// Sequential verified reading from an offset.
pub(crate) struct FileRead {
    file: Arc<SegmentFile>,
    next: u64,
    buffer: Bytes,
}

impl Read for FileRead {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        const STEP_BYTES: u64 = 64 * 1024;
        if self.buffer.is_empty() {
            let end = (self.next + STEP_BYTES).min(self.file.file_bytes());
            self.buffer = self.file.read(self.next.min(end)..end).map_err(std::io::Error::other)?;
            self.next = end;
        }
        let taken = out.len().min(self.buffer.len());
        self.buffer.copy_to_slice(&mut out[..taken]);
        Ok(taken)
    }
}

/// Gives Parquet's asynchronous reader a segment: its decoded footer and verified bytes. Reads block the calling thread
/// for the time of a `pread`, which the page cache keeps short.
#[derive(Clone, Debug)]
pub struct SegmentReader {
    segment: Arc<Segment>,
}

impl SegmentReader {
    pub(super) fn new(segment: Arc<Segment>) -> SegmentReader {
        SegmentReader { segment }
    }

    /// The segment.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}

impl AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let bytes = self.segment.file().read(range).map_err(error::to_parquet);
        Box::pin(std::future::ready(bytes))
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        Box::pin(std::future::ready(Ok(Arc::clone(self.segment.parquet()))))
    }
}

impl Segment {
    /// Whole columns of one row group, decoded: one array of the group's length for each of `columns` (file columns), in
    /// the order asked for. Physical rows, marked ones included. Runs on the calling thread.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn decode_columns(&self, row_group: usize, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut chunks = Chunks::new(self.file());
        let group = self.parquet().row_group(row_group);
        for &column in columns {
            for leaf in self.leaves(column) {
                let (start, length) = group.column(leaf).byte_range();
                chunks.prefetch(start..start + length)?;
            }
        }
        let rows = self.row_group_rows(row_group);
        self.decode(chunks, row_group, columns, None, (rows.end - rows.start) as usize)
    }

    /// All physical rows in order, all columns, in batches of at most `rows_max`.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn batches(&self, rows_max: usize) -> Result<ParquetRecordBatchReader> {
        let chunks = Chunks::new(self.file());
        ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.arrow_metadata().clone())
            .with_batch_size(rows_max)
            .build()
            .map_err(|e| error::reading(self.path(), e))
    }

    /// [`Segment::decode_columns`] through the cache: decodes and keeps only what it lacks.
    ///
    /// # Errors
    /// Corrupt or unreadable files.
    pub fn cached_columns(&self, row_group: usize, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut found: Vec<Option<ArrayRef>> =
            columns.iter().map(|&column| self.cache().get(self.chunk_key(row_group, column))).collect();
        let mut missing: Vec<usize> =
            columns.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(&column, _)| column).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let decoded = self.decode_columns(row_group, &missing)?;
            for (&column, array) in missing.iter().zip(decoded) {
                self.cache().insert(self.chunk_key(row_group, column), Arc::clone(&array));
                for (_, slot) in columns.iter().zip(&mut found).filter(|&(&c, _)| c == column) {
                    *slot = Some(Arc::clone(&array));
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether the cache should be read, and filled, for these columns of a row group: it holds all of them, or each was
    /// read before. Remembers the reading.
    #[must_use]
    pub fn note_use(&self, row_group: usize, columns: &[usize]) -> bool {
        let keys = columns.iter().map(|&column| self.chunk_key(row_group, column));
        // Every use is noted, also behind the first chunk that is new.
        let mut all_known = true;
        for key in keys {
            all_known &= self.cache().note_use(key);
        }
        all_known
    }

    /// The encoded row at `position`, in the shape of `schema`.
    ///
    /// # Errors
    /// Corrupt or unreadable files; [`strata_oltp::Error::Reshaped`] if the segment is newer than `schema` and lacks some of it.
    pub fn read_row(&self, schema: &TableSchema, position: u32) -> Result<Vec<u8>> {
        let row_group = self.row_group_of(position);
        let columns = self.stored_columns(schema)?;
        let wanted: Vec<usize> = columns.iter().filter_map(StoredColumn::file_column).collect();
        let (pieces, offset) = self.pieces(row_group, &wanted, position)?;
        let codec = RowCodec::new(schema);
        if columns.iter().all(|column| matches!(column, StoredColumn::Same(_))) {
            let arrays: Vec<Option<ArrayRef>> = pieces.into_iter().map(Some).collect();
            return BatchEncoder::encode_row(schema, &codec, &arrays, offset);
        }
        let mut pieces = pieces.into_iter();
        let value = |column: &StoredColumn| {
            let stored = column.file_column().and_then(|_| pieces.next());
            column.values(stored.map(|piece| piece.slice(offset, 1)), 1).map(Some)
        };
        let arrays = columns.iter().map(value).collect::<Result<Vec<_>>>()?;
        BatchEncoder::encode_row(schema, &codec, &arrays, 0)
    }

    /// Slices of `columns` that hold `position`, and its index in them.
    fn pieces(&self, row_group: usize, columns: &[usize], position: u32) -> Result<(Vec<ArrayRef>, usize)> {
        let rows = self.row_group_rows(row_group);
        let piece = (position - rows.start) / PIECE_ROWS;
        let start = (piece * PIECE_ROWS) as usize;
        let length = ((rows.end - rows.start) as usize - start).min(PIECE_ROWS as usize);
        let mut found = Vec::with_capacity(columns.len());
        for &column in columns {
            let key = self.chunk_key(row_group, column);
            // The whole chunk first: a warm scan left it.
            let whole = self.cache().get(key).map(|chunk| chunk.slice(start, length));
            found.push(whole.or_else(|| self.cache().piece(key, piece)));
        }
        let missing: Vec<usize> =
            columns.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(&column, _)| column).collect();
        if !missing.is_empty() {
            let skip = RowSelection::from(vec![RowSelector::skip(start), RowSelector::select(length)]);
            let decoded = self.decode(Chunks::new(self.file()), row_group, &missing, Some(skip), length)?;
            let slots = found.iter_mut().filter(|slot| slot.is_none());
            for ((slot, &column), array) in slots.zip(&missing).zip(decoded) {
                self.cache().insert_piece(self.chunk_key(row_group, column), piece, Arc::clone(&array));
                *slot = Some(array);
            }
        }
        let arrays = found.into_iter().flatten().collect();
        Ok((arrays, (position - rows.start) as usize - start))
    }

    /// Decodes `columns` of a row group, of which `selection` keeps `rows` rows.
    fn decode(
        &self,
        chunks: Chunks,
        row_group: usize,
        columns: &[usize],
        selection: Option<RowSelection>,
        rows: usize,
    ) -> Result<Vec<ArrayRef>> {
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |e| error::reading(self.path(), e);
        let descriptor = self.parquet().file_metadata().schema_descr();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.arrow_metadata().clone())
            .with_row_groups(vec![row_group])
            .with_projection(ProjectionMask::roots(descriptor, columns.iter().copied()))
            .with_batch_size(rows);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let mut reader = builder.build().map_err(failed)?;
        let batch = reader.next().transpose().map_err(|e| error::reading_arrow(self.path(), e))?;
        let batch = batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(self.arrow_schema())));
        let mut order = columns.to_vec();
        order.sort_unstable();
        order.dedup();
        if batch.num_rows() != rows || batch.num_columns() != order.len() {
            return Err(self.corrupt("a row group has fewer rows than recorded"));
        }
        // The projection gives file order; hand out what was asked for.
        let place = |column: &usize| order.binary_search(column).expect("every column was asked for");
        Ok(columns.iter().map(|column| Arc::clone(batch.column(place(column)))).collect())
    }

    fn chunk_key(&self, row_group: usize, column: usize) -> ChunkKey {
        let narrow = |index: usize| u32::try_from(index).expect("a segment has fewer than 2^32 of them");
        ChunkKey { segment: self.id(), row_group: narrow(row_group), column: narrow(column) }
    }
}
