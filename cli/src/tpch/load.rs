//! Writing generated rows: one generator thread, and writers that each commit at most 10,000 rows at a time.
//!
//! Every transaction is durable before it counts. A batch from the generator is one transaction, so writers never wait
//! for one another except in the log, where they share syncs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use arrow::array::RecordBatch;
use strata_sql::{BulkWriter, Engine};

use super::generate::Table;
use crate::progress::Progress;

/// Largest transaction of the load.
pub const TRANSACTION_ROWS_MAX: usize = 10_000;

/// Batches that may wait between generator and writers: enough to bridge a sync, little enough to cost no memory.
const BATCHES_WAITING_MAX: usize = 8;

/// A part of a table, loaded as one stretch of its key range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The table.
    pub table: Table,
    /// From 1 to `parts`.
    pub part: i32,
    /// Number of parts the table is divided into.
    pub parts: i32,
}

/// Every table whole.
#[must_use]
pub fn everything() -> Vec<Portion> {
    Table::ALL.map(|table| Portion { table, part: 1, parts: 1 }).to_vec()
}

/// Writes the portions in order and returns the number of rows, all of them durable.
///
/// # Errors
/// The first writer's that failed; rows written before it stay.
pub fn load(engine: &Engine, portions: &[Portion], scale: f64, progress: &Progress) -> Result<u64> {
    let writers = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 4));
    let (sender, receiver) = sync_channel(BATCHES_WAITING_MAX);
    let (receiver, stop, rows) = (Mutex::new(receiver), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| generate(portions, scale, sender, &stop));
        let writers: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    let result = write(engine, &receiver, &stop, progress, &rows);
                    if result.is_err() {
                        // Tell the generator, and empty the channel: it may be waiting for a free place in it.
                        stop.store(true, Ordering::Relaxed);
                        while receive(&receiver).is_some() {}
                    }
                    result
                })
            })
            .collect();
        for writer in writers {
            match writer.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
    .map(|()| rows.into_inner())
}

type Work = (Table, RecordBatch);

#[expect(clippy::needless_pass_by_value, reason = "dropping the sender is what ends the writers")]
fn generate(portions: &[Portion], scale: f64, sender: SyncSender<Work>, stop: &AtomicBool) {
    for portion in portions {
        for batch in portion.table.batches(scale, portion.part, portion.parts, TRANSACTION_ROWS_MAX) {
            if stop.load(Ordering::Relaxed) || sender.send((portion.table, batch)).is_err() {
                return;
            }
        }
    }
}

/// The next batch, or `None` when the generator is done.
fn receive(receiver: &Mutex<Receiver<Work>>) -> Option<Work> {
    // The lock is held while waiting, which is fine: whoever else comes would wait for the same batch.
    receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn write(
    engine: &Engine,
    receiver: &Mutex<Receiver<Work>>,
    stop: &AtomicBool,
    progress: &Progress,
    rows: &AtomicU64,
) -> Result<()> {
    let mut writer: Option<(Table, BulkWriter)> = None;
    while let Some((table, batch)) = receive(receiver) {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if writer.as_ref().is_none_or(|(current, _)| *current != table) {
            if let Some((_, done)) = writer.take() {
                done.finish()?;
            }
            writer = Some((table, engine.bulk_writer(table.name(), TRANSACTION_ROWS_MAX)?));
        }
        if let Some((_, writer)) = &mut writer {
            writer.write(&batch)?;
        }
        rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        progress.add(batch.num_rows() as u64);
    }
    if let Some((_, done)) = writer {
        done.finish()?;
    }
    Ok(())
}
