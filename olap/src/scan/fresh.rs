//! Fresh morsels: a key range of the row part, merged at the snapshot into batches of the projected columns.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion_common::Result;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use strata_oltp::iter::{Cursor, OverlayCursor, SourceKind, VisibleCursor};

use super::items::FreshRange;
use super::morsel::{RowCounts, external};
use super::output::ScanOutput;
use crate::convert::batch::BatchBuilder;

/// A key range of fresh rows, both before and after it is turned into a stream: planning it needs no I/O.
pub(super) struct FreshMorsel {
    pub(super) output: Arc<ScanOutput>,
    pub(super) range: FreshRange,
    pub(super) counts: RowCounts,
}

impl Debug for FreshMorsel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshMorsel").finish_non_exhaustive()
    }
}

impl MorselPlanner for FreshMorsel {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        Ok(Some(MorselPlan::new().with_morsels(vec![self])))
    }
}

impl Morsel for FreshMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let builder = BatchBuilder::new(self.output.view.table(), Some(&self.output.columns), false);
        stream::iter(FreshBatches { morsel: *self, builder, cursor: None, state: State::Unopened }).boxed()
    }
}

#[derive(PartialEq)]
enum State {
    Unopened,
    Reading,
    Finished,
}

/// Batches of one fresh morsel; the merge is opened by the first of them.
struct FreshBatches {
    morsel: FreshMorsel,
    builder: BatchBuilder,
    cursor: Option<VisibleCursor>,
    state: State,
}

impl FreshBatches {
    fn open(&self) -> Result<VisibleCursor> {
        let FreshMorsel { output, range, .. } = &self.morsel;
        let view = &output.view;
        let keys = range.low.as_slice()..range.high.as_slice();
        match (view.snapshot().view().rows(view.table().table), view.overlay()) {
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

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        if self.state == State::Unopened {
            self.cursor = Some(self.open()?);
            self.state = State::Reading;
        }
        let Some(cursor) = self.cursor.as_mut() else { return Ok(None) };
        let output = &self.morsel.output;
        let (mut memtable_rows, mut run_rows) = (0, 0);
        while memtable_rows + run_rows < output.batch_rows && cursor.next().map_err(external)? {
            if !output.columns.is_empty() {
                self.builder.push(cursor.value(), cursor.seqno()).map_err(external)?;
            }
            match cursor.source() {
                SourceKind::Run => run_rows += 1,
                SourceKind::Overlay | SourceKind::Memtable => memtable_rows += 1,
            }
        }
        let row_count = memtable_rows + run_rows;
        if row_count == 0 {
            return Ok(None);
        }
        self.morsel.counts.add_fresh(memtable_rows, run_rows);
        let decoded = self.builder.finish().map_err(external)?;
        output.batch(decoded.columns().to_vec(), row_count).map(Some)
    }
}

impl Iterator for FreshBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.state == State::Finished {
            return None;
        }
        let batch = self.read().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.state = State::Finished;
            self.cursor = None;
        }
        batch
    }
}
