//! Memory pressure: committed rows leave memory when uncommitted ones or many tables need the room (P9).

use std::sync::Arc;

use crate::db::Inner;
use crate::error::Result;
use crate::memtable::Memtable;
use crate::schema::TableId;
use crate::view::ReadView;

/// Memtables smaller than this share of the budget are left alone: flushing them would cost a file each and free nothing
/// worth it.
const WORTHWHILE_SHARE: u64 = 256;

impl Inner {
    /// Flushes a sealed memtable, or else the largest active one, for a request of `bytes` that did not fit. `false` if no
    /// memtable is large enough to help, or the request could not fit in the whole budget.
    ///
    /// Their memory is free once no view names them.
    ///
    /// # Errors
    /// I/O, or a log that failed.
    pub(crate) fn flush_largest(&self, bytes: u64) -> Result<bool> {
        let limit_bytes = self.budget.limit();
        if bytes > limit_bytes {
            return Ok(false);
        }
        if self.flush_sealed()? {
            return Ok(true);
        }
        let view = self.views.load();
        let Some((table, memtable)) = largest(&view) else { return Ok(false) };
        if memtable.bytes() < limit_bytes / WORTHWHILE_SHARE {
            return Ok(false);
        }
        drop(view);
        self.seal_memtable(table);
        self.flush_sealed()
    }

    /// The table with the largest memtable, if all memtables together are more than `memtables_bytes_max`.
    pub(crate) fn memtables_over_cap(&self, view: &ReadView) -> Option<TableId> {
        let bytes: u64 = view.tables.values().flat_map(|rows| rows.memtables()).map(|memtable| memtable.bytes()).sum();
        if bytes <= self.options.memtables_bytes_max { None } else { largest(view).map(|(table, _)| table) }
    }
}

fn largest(view: &ReadView) -> Option<(TableId, Arc<Memtable>)> {
    let filled = view.tables.iter().filter(|(_, rows)| !rows.active.is_empty());
    let (table, rows) = filled.max_by_key(|(_, rows)| rows.active.bytes())?;
    Some((*table, Arc::clone(&rows.active)))
}
