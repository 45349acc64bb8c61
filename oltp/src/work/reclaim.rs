//! VACUUM and REINDEX: what an operator asks for, by the means that the background has.

use crate::cold::ColdPlan;
use crate::db::Db;
use crate::error::Result;
use crate::file::FileId;
use crate::schema::{StorageKind, TableId};
use crate::sync::Arc;

/// What [`Db::vacuum`] gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Bytes that the database needed before.
    pub bytes_before: u64,
    /// Bytes that it needs now. Can be more, if rows were written meanwhile.
    pub bytes_after: u64,
}

impl Reclaimed {
    /// Bytes given back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_before.saturating_sub(self.bytes_after)
    }
}

impl Db {
    /// Gives back the space of whatever no snapshot can see, now: flushes, merges the runs of row tables, rewrites segments
    /// with deleted rows, frees the log, and removes the files that are left over. Reads and commits go on.
    ///
    /// What open snapshots read stays until they are gone. Files that a failed job of this process left are no part of
    /// any view; the next open removes them, as it does after a crash.
    ///
    /// # Errors
    /// I/O, or an exhausted budget; what was reclaimed before stays so.
    pub fn vacuum(&self) -> Result<Reclaimed> {
        let bytes_before = self.disk_bytes()?;
        for known in self.inner.registered_tables() {
            self.compact(known.schema.table)?;
        }
        self.flush(None)?;
        self.inner.remove_garbage();
        Ok(Reclaimed { bytes_before, bytes_after: self.disk_bytes()? })
    }

    /// Makes the key index of every segment of `table` anew from its rows, one segment after the other; returns how many
    /// that were. A key index vouches for its Parquet file and files never change (I4), so the segment is rewritten
    /// whole. A row table's runs, which hold their own index and filter, are merged instead.
    ///
    /// A segment whose index cannot even be opened keeps the database from opening; [`crate::repair`] is for that.
    ///
    /// # Errors
    /// Rows that cannot be read; I/O, an exhausted budget, or an unregistered table.
    pub fn reindex(&self, table: TableId) -> Result<u64> {
        let known = self.inner.known(table)?;
        if known.kind == StorageKind::Row {
            self.merge_runs(table)?;
            return Ok(0);
        }
        let before: Vec<FileId> = Arc::clone(&self.inner.views.load()).cold.segments(table);
        let mut count = 0;
        for segment in before {
            // Another job may have replaced it meanwhile, with an index as new as can be.
            let is_done = self.inner.restructure(&known, |view, _| {
                let is_live = view.cold.segments(table).contains(&segment);
                is_live.then(|| ColdPlan { runs: Vec::new(), segments: vec![segment] })
            })?;
            count += u64::from(is_done);
        }
        self.inner.remove_garbage();
        Ok(count)
    }
}
