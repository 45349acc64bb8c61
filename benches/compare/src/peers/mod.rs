//! The engines, behind one interface, so that the same loop drives them all.
//!
//! A [`Peer`] opens a [`Store`] in a folder; each thread has a [`Session`] of its own. What an engine lacks, such as a
//! memtable, it says itself, and the table shows a gap rather than a figure for something else.

mod db_bench;
mod disk;
mod fjall;
mod postgresql;
mod processor;
mod redb;
mod rocksdb;
mod sqlite;
pub mod strata;

use std::path::Path;

use anyhow::Result;

use crate::data::{Key, key};
use crate::machine;
use crate::works::Work;

/// What a store is opened with. Everything else is the engine's default, unless its file says why not.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Cache for blocks or pages.
    pub cache_bytes: u64,
    /// Size at which a memtable is sealed, for those that have one.
    pub memtable_bytes: u64,
    /// Whether the log may be cut by flushes and checkpoints. Not while recovery is prepared.
    pub checkpoints: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { cache_bytes: 512 << 20, memtable_bytes: 64 << 20, checkpoints: true }
    }
}

impl Tuning {
    /// For a log that nothing shortens.
    pub fn long_log() -> Tuning {
        Tuning { memtable_bytes: 2 << 30, checkpoints: false, ..Tuning::default() }
    }
}

/// An engine.
pub trait Peer {
    fn name(&self) -> &'static str;

    /// Why it cannot run on this machine, if it cannot.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Whether it has what `work` is about.
    fn does(&self, work: Work) -> bool;

    /// Opens the database in `dir`, creating it if the folder is empty.
    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>>;

    /// Operations per second, from an engine that comes with a benchmark of its own.
    fn own_rate(&self, _: Work, _: &Path, _rows: u64, _seconds: u64) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Whether a file of the database, named relative to its folder, is a log. Logs are left out of the size on disk,
    /// because what they have at a moment is chance.
    fn is_log(&self, _name: &str) -> bool {
        false
    }
}

/// An open database. Dropping it closes it in order.
pub trait Store: Sync {
    /// A thread's access. `durable` says whether its commits are acknowledged when synced or before.
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>>;

    /// Commits many rows at once, ascending by key.
    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()>;

    /// Brings rows `0..rows` into the cache.
    fn warm(&self, rows: u64) -> Result<()> {
        let mut session = self.session(false)?;
        for id in 0..rows {
            session.get(&key(id))?;
        }
        Ok(())
    }

    /// Waits for or does what is left to do in the background; with `whole`, also merges all into one.
    fn settle(&self, whole: bool) -> Result<()>;

    /// Bytes that its processes have caused to be written to disk so far.
    fn written_bytes(&self) -> Result<u64> {
        machine::written_bytes(std::process::id())
    }

    /// Ends other processes of it as abruptly as this one is about to end.
    fn kill(&self) {}

    /// Bytes of log that a recovery would read, if they are not the log files whole.
    fn log_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// One thread's access to a store.
pub trait Session {
    /// Commits one row, replacing what stood there.
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()>;

    /// Whether the row is there; reads its value.
    fn get(&mut self, key: &Key) -> Result<bool>;

    /// Reads up to `count` rows from `key` on; how many there were.
    fn scan(&mut self, key: &Key, count: usize) -> Result<usize>;
}

pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(strata::Strata),
        Box::new(rocksdb::RocksDb),
        Box::new(db_bench::DbBench),
        Box::new(fjall::Fjall),
        Box::new(redb::Redb),
        Box::new(sqlite::Sqlite),
        Box::new(postgresql::PostgreSql),
        Box::new(disk::Disk),
        Box::new(processor::Processor),
    ]
}
