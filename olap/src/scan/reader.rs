//! Bytes and footers of segments for the Parquet machinery, from the segments the read view holds open.
//!
//! No object store is asked: file I/O goes through `oltp::env` like everywhere else, and the footer was parsed and
//! checked when the segment was opened.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion_common::{Result, internal_err};
use datafusion_datasource::PartitionedFile;
use datafusion_datasource_parquet::ParquetFileReaderFactory;
use datafusion_physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::items::RowGroupItem;
use crate::segment::SegmentReader;

/// Makes readers for items of kind [`RowGroupItem`].
#[derive(Debug)]
pub(crate) struct SegmentReaderFactory;

impl ParquetFileReaderFactory for SegmentReaderFactory {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let Some(item) = file.extension::<RowGroupItem>() else {
            return internal_err!("{} is no item of a table scan", file.path());
        };
        let bytes_scanned = MetricBuilder::new(metrics).counter("bytes_scanned", partition_index);
        Ok(Box::new(MeteredReader { reader: item.segment.reader(), bytes_scanned }))
    }
}

/// A segment's reader that counts the bytes it hands out.
struct MeteredReader {
    reader: SegmentReader,
    bytes_scanned: Count,
}

impl MeteredReader {
    fn count(&self, range: &Range<u64>) {
        self.bytes_scanned.add(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
    }
}

impl AsyncFileReader for MeteredReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.count(&range);
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        ranges.iter().for_each(|range| self.count(range));
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        self.reader.get_metadata(options)
    }
}
