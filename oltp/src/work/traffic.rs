//! What flushes and compactions wrote, by table and level: the figures behind write and space amplification.

use std::collections::HashMap;

use crate::compaction::options::CompactionOptions;
use crate::compaction::picker::level_bytes;
use crate::db::Db;
use crate::manifest::levels::{LEVEL_COUNT, Levels};
use crate::schema::TableId;
use crate::sync::{Mutex, PoisonError};

/// One level of a table: what is in it, and what went into and out of it since the database was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Level, 0 first.
    pub level: u8,
    /// Sorted runs in it.
    pub sorted_runs: usize,
    /// Files in it.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that it may have; 0 for level 0 and for levels not in use.
    pub target_bytes: u64,
    /// Versions in it.
    pub versions: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Bytes that merges read from it.
    pub read_bytes: u64,
    /// Bytes that flushes (level 0) and merges wrote into it. The sum over all levels by what level 0 got is the write
    /// amplification of the table.
    pub written_bytes: u64,
    /// Bytes that came into it without being written again.
    pub moved_bytes: u64,
}

/// Bytes on their way through a level.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) moved_bytes: u64,
}

/// [`Traffic`] by table and level.
#[derive(Default)]
pub(crate) struct TrafficByLevel(Mutex<HashMap<TableId, [Traffic; LEVEL_COUNT as usize]>>);

impl TrafficByLevel {
    /// Lets `change` count at a level.
    pub(crate) fn count(&self, table: TableId, level: u8, change: impl FnOnce(&mut Traffic)) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(traffic) = tables.entry(table).or_default().get_mut(usize::from(level)) {
            change(traffic);
        }
    }

    fn of(&self, table: TableId) -> [Traffic; LEVEL_COUNT as usize] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&table).copied().unwrap_or_default()
    }
}

impl Db {
    /// Every level of `table`, 0 first: its files now, and its traffic since open. Memory only.
    #[must_use]
    pub fn level_stats(&self, table: TableId) -> Vec<LevelStats> {
        let options =
            self.inner.registered(table).map_or_else(CompactionOptions::default, |known| known.compaction.clone());
        let view = self.inner.views.load();
        let levels = view.rows(table).map_or_else(Levels::default, |rows| rows.runs.clone());
        let traffic = self.inner.work.traffic.of(table);
        let mut stats: Vec<LevelStats> = (0u8..)
            .zip(level_bytes(&levels, &options))
            .zip(traffic)
            .map(|((level, shape), traffic)| LevelStats {
                level,
                sorted_runs: shape.sorted_runs,
                bytes: shape.bytes,
                target_bytes: shape.target_bytes,
                read_bytes: traffic.read_bytes,
                written_bytes: traffic.written_bytes,
                moved_bytes: traffic.moved_bytes,
                ..LevelStats::default()
            })
            .collect();
        for (place, run) in levels.placed() {
            let level = &mut stats[usize::from(place.level)];
            level.files += 1;
            level.versions += run.meta().version_count;
            level.tombstones += run.meta().tombstone_count;
        }
        stats
    }
}
