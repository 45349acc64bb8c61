//! Fresh morsels: a key range of the row part, merged at the snapshot into batches of the projected columns.
//!
//! A range that the layout calls settled is decoded whole, a column once, and served from the column cache after that.
//! Any other range is merged and decoded batch by batch.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use datafusion_common::Result;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use strata_oltp::iter::{Cursor, OverlayCursor, SourceKind, VisibleCursor};

use super::items::FreshItem;
use super::layout::RangeRows;
use super::morsel::{RowCounts, external};
use super::output::{ScanOutput, rows_of};
use crate::cache::ColumnCache;
use crate::convert::batch::BatchBuilder;

/// A key range of fresh rows, both before and after it is turned into a stream: planning it needs no I/O.
pub(super) struct FreshMorsel {
    pub(super) output: Arc<ScanOutput>,
    pub(super) item: FreshItem,
    pub(super) counts: RowCounts,
}

impl Debug for FreshMorsel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshMorsel").field("range", &self.item.range).finish_non_exhaustive()
    }
}

impl MorselPlanner for FreshMorsel {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_morsels(vec![self])))
    }
}

impl Morsel for FreshMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        stream::iter(FreshBatches { morsel: *self, state: State::Unopened }).boxed()
    }
}

impl FreshMorsel {
    fn open(&self) -> Result<State> {
        let (view, FreshItem { layout, range }) = (&self.output.view, &self.item);
        if let (Some(rows), Some(cache)) = (view.rows(), view.cache())
            && layout.is_settled(view, rows, *range)?
        {
            let columns = self.settled_columns(cache)?;
            let left = layout.row_count(*range).get().copied().unwrap_or_default();
            return Ok(State::Serving { columns, next: 0, left });
        }
        let builder = BatchBuilder::new(view.table(), Some(&self.output.columns), false);
        Ok(State::Merging { cursor: Box::new(self.merge()?), builder: Box::new(builder) })
    }

    fn merge(&self) -> Result<VisibleCursor> {
        let view = &self.output.view;
        let keys = self.item.layout.keys(self.item.range);
        match (view.rows(), view.overlay()) {
            (Some(rows), overlay) => rows.scan(keys, view.at(), overlay).map_err(external),
            (None, overlay) => {
                // Nothing was ever committed to the table.
                let own = overlay.map(|overlay| -> (SourceKind, Box<dyn Cursor>) {
                    (SourceKind::Overlay, Box::new(OverlayCursor::new(Arc::clone(overlay))))
                });
                Ok(VisibleCursor::new(own.into_iter().collect(), keys, view.at()))
            }
        }
    }

    /// The projected columns of a settled range, decoding what the cache lacks. Afterwards its row count is known.
    fn settled_columns(&self, cache: &ColumnCache) -> Result<Vec<ArrayRef>> {
        let FreshItem { layout, range } = &self.item;
        let columns = &self.output.columns;
        let mut found: Vec<Option<ArrayRef>> =
            columns.iter().map(|&column| cache.get(layout.chunk(*range, column))).collect();
        let missing: Vec<usize> =
            columns.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(&column, _)| column).collect();
        if missing.is_empty() && layout.row_count(*range).get().is_some() {
            return Ok(found.into_iter().flatten().collect());
        }
        let mut builder = BatchBuilder::new(self.output.view.table(), Some(&missing), false);
        let rows = read_rows(&mut self.merge()?, &mut builder, usize::MAX)?;
        // A settled range has the same rows for everyone, so whoever comes second would set the same.
        layout.row_count(*range).get_or_init(|| rows);
        let decoded = builder.finish().map_err(external)?;
        let slots = found.iter_mut().filter(|slot| slot.is_none());
        for ((slot, &column), array) in slots.zip(&missing).zip(decoded.columns()) {
            cache.insert(layout.chunk(*range, column), Arc::clone(array));
            *slot = Some(Arc::clone(array));
        }
        Ok(found.into_iter().flatten().collect())
    }
}

/// Moves up to `rows_max` rows from the merge into `builder`; returns how many, by where they lay.
fn read_rows(cursor: &mut VisibleCursor, builder: &mut BatchBuilder, rows_max: usize) -> Result<RangeRows> {
    let wants_values = !builder.schema().fields().is_empty();
    let (mut memtable_rows, mut run_rows) = (0, 0);
    while memtable_rows + run_rows < rows_max && cursor.next().map_err(external)? {
        if wants_values {
            let seqno = cursor.seqno();
            builder.push(cursor.value().map_err(external)?, seqno).map_err(external)?;
        }
        match cursor.source() {
            SourceKind::Run => run_rows += 1,
            SourceKind::Overlay | SourceKind::Memtable => memtable_rows += 1,
        }
    }
    Ok((memtable_rows, run_rows))
}

enum State {
    Unopened,
    Merging {
        cursor: Box<VisibleCursor>,
        builder: Box<BatchBuilder>,
    },
    /// Slices of whole columns from row `next` on; `left` are the rows still to come.
    Serving {
        columns: Vec<ArrayRef>,
        next: usize,
        left: RangeRows,
    },
    Finished,
}

/// Batches of one fresh morsel; the range is opened by the first of them.
struct FreshBatches {
    morsel: FreshMorsel,
    state: State,
}

impl FreshBatches {
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        if matches!(self.state, State::Unopened) {
            self.state = self.morsel.open()?;
        }
        let FreshMorsel { output, counts, .. } = &self.morsel;
        match &mut self.state {
            State::Unopened | State::Finished => Ok(None),
            State::Merging { cursor, builder } => {
                let (memtable_rows, run_rows) = read_rows(cursor, builder, output.batch_rows)?;
                let row_count = memtable_rows + run_rows;
                if row_count == 0 {
                    return Ok(None);
                }
                counts.add_fresh(memtable_rows, run_rows);
                let decoded = builder.finish().map_err(external)?;
                output.batch(decoded.columns().to_vec(), row_count).map(Some)
            }
            State::Serving { columns, next, left } => {
                let row_count = output.batch_rows.min(left.0 + left.1);
                if row_count == 0 {
                    return Ok(None);
                }
                // Which row lay where is not kept; over the whole range the counts are right.
                let memtable_rows = row_count.min(left.0);
                counts.add_fresh(memtable_rows, row_count - memtable_rows);
                *left = (left.0 - memtable_rows, left.1 - (row_count - memtable_rows));
                let arrays = columns.iter().map(|column| rows_of(column, *next, row_count)).collect::<Result<_>>()?;
                *next += row_count;
                output.batch(arrays, row_count).map(Some)
            }
        }
    }
}

impl Iterator for FreshBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if matches!(self.state, State::Finished) {
            return None;
        }
        let batch = self.read().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.state = State::Finished;
        }
        batch
    }
}
