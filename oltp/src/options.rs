//! Every tunable of the row store: unit in the name, default, and the reason for the default.

use crate::backup::ArchiveOptions;
use crate::wal::WalOptions;

/// Settings of one open database. Start from `Options::default()` and change fields.
#[derive(Clone, Debug)]
pub struct Options {
    /// Cap on memtables, caches and queries together. 4 GiB leaves room for decode buffers on a small server.
    pub memory_bytes_max: u64,
    /// A memtable is sealed at this size. 64 MiB makes runs of about half a million rows, so that a few of them fill
    /// a segment, and one flush takes well under a second.
    pub memtable_bytes_max: u64,
    /// Writers help flushing while more than this waits in sealed memtables: the stated debt bound of commits.
    pub sealed_bytes_max: u64,
    /// All memtables together, so that many tables with a little in each do not hold the whole budget. Above it the largest
    /// is flushed although it is not full.
    pub memtables_bytes_max: u64,
    /// Runs in level 0 of a table of rows at which commits are delayed most. They begin to be delayed at a quarter of it, one
    /// more than make level 0 due by default.
    pub level0_runs_max: u64,
    /// Bytes of levels over their targets, of all tables, at which commits are delayed most: a minute of merging.
    pub compaction_debt_bytes_max: u64,
    /// Most bytes per second that flushes and merges write; 0 for no limit. A limit below what commits bring delays them.
    pub background_bytes_per_second_max: u64,
    /// Share of `memory_bytes_max` that the block cache may hold.
    pub block_cache_bytes_max: u64,
    /// Most runs and segments that are kept open; others are opened when they are read. Lowered to half of what the process
    /// may have open, because connections and queries need files too. 10,000 runs of row tables are 320 GiB.
    pub open_files_max: u64,
    /// The log is kept below about this size and the file in use by flushing the tables that pin its oldest part.
    pub wal_bytes_max: u64,
    /// A hybrid table without a commit for this long has its memtable flushed, so that its tail can be converted.
    pub idle_flush_ms: u64,
    /// A buffered commit is durable at most this long after it was acknowledged, plus the syncs that lie between. A tenth of
    /// a second costs ten syncs a second at most, none when nothing was committed.
    pub buffered_sync_interval_ms: u64,
    /// Largest commit, encoded. Larger ones are refused before anything suffers.
    pub commit_bytes_max: u64,
    /// Memory for the keys of recent commits, which transactions are checked against. A transaction that is open for so
    /// long that its part had to be dropped cannot commit writes any more. 64 MiB remember a million keys.
    pub recent_commits_bytes_max: u64,
    /// Every state of the database stays readable for this long, with [`crate::Db::snapshot_as_of`] and
    /// [`crate::Db::snapshot_at`]; 0 keeps none. Costs the space of every version superseded in that time, and up to as much
    /// memory as the marks of segments rewritten in it.
    pub retention_ms: u64,
    /// Transactions older than this can no longer read, write or commit, but get [`crate::Error::HistoryGone`]; 0 sets no
    /// limit. So that a forgotten one does not hold back the dropping of old versions for ever.
    pub snapshot_age_ms_max: u64,
    /// Sizes of the log's files and buffers.
    pub wal: WalOptions,
    /// Where the log is archived, for point-in-time restore. Off unless asked for.
    pub archive: Option<ArchiveOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            memory_bytes_max: 4 << 30,
            memtable_bytes_max: 64 << 20,
            sealed_bytes_max: 256 << 20,
            memtables_bytes_max: 1 << 30,
            level0_runs_max: 20,
            compaction_debt_bytes_max: 4 << 30,
            background_bytes_per_second_max: 0,
            block_cache_bytes_max: 256 << 20,
            open_files_max: 10_000,
            wal_bytes_max: 1 << 30,
            idle_flush_ms: 500,
            buffered_sync_interval_ms: 100,
            commit_bytes_max: 512 << 20,
            recent_commits_bytes_max: 64 << 20,
            retention_ms: 0,
            snapshot_age_ms_max: 0,
            wal: WalOptions::default(),
            archive: None,
        }
    }
}

impl Options {
    /// These settings, with every size lowered to what a memory budget of `limit_bytes` can bear. The defaults are what this
    /// leaves of them in 4 GiB. An open database uses its settings in this form.
    ///
    /// A quarter for memtables and a quarter for cached blocks leave half for queries, conversions and transactions. A
    /// commit exists up to four times at once (writes, record, log buffer, memtable), so an eighth is the most that one
    /// can have.
    #[must_use]
    pub fn within(mut self, limit_bytes: u64) -> Options {
        let lower = |size: &mut u64, divisor: u64| *size = (*size).min(limit_bytes / divisor).max(1);
        lower(&mut self.memtable_bytes_max, 16);
        lower(&mut self.sealed_bytes_max, 8);
        lower(&mut self.commit_bytes_max, 8);
        lower(&mut self.memtables_bytes_max, 4);
        // Recovery puts the log back into memtables.
        lower(&mut self.wal_bytes_max, 4);
        lower(&mut self.block_cache_bytes_max, 4);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_made_for_their_own_budget() {
        let whole = Options::default();
        assert_eq!(format!("{:?}", whole.clone().within(whole.memory_bytes_max)), format!("{whole:?}"));
        let small = whole.within(64 << 20);
        assert_eq!((small.memtable_bytes_max, small.commit_bytes_max), (4 << 20, 8 << 20));
    }
}
