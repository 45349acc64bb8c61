//! redb: a copy-on-write B+ tree in Rust, one writer at a time.
//!
//! A commit that is not durable stays in memory until the next durable one, and so do the pages it replaced: so one in
//! every tenth of a second is durable, which is also what Strata's buffered commits get.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::{Peer, Session, Store, Tuning};
use crate::data::Key;
use crate::works::{Place, Work};

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

pub struct Redb;

struct Open {
    database: Database,
    synced: Mutex<Instant>,
}

impl Peer for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn does(&self, work: Work) -> bool {
        // Neither a memtable nor a log.
        !matches!(work, Work::PointReads(Place::Memtable))
    }

    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
        let database = Database::builder().set_cache_size(tuning.cache_bytes as usize).create(dir.join("rows.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.commit()?;
        Ok(Box::new(Open { database, synced: Mutex::new(Instant::now()) }))
    }
}

impl Store for Open {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access { open: self, durable, table: None }))
    }

    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, value) in rows {
                table.insert(&key[..], &value[..])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn settle(&self, _: bool) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.commit()?;
        Ok(())
    }
}

struct Access<'a> {
    open: &'a Open,
    durable: bool,
    /// Opened once: reads follow one another without a write of this session in between.
    table: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl Access<'_> {
    fn table(&mut self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>> {
        if self.table.is_none() {
            self.table = Some(self.open.database.begin_read()?.open_table(ROWS)?);
        }
        self.table.as_ref().ok_or_else(|| anyhow::anyhow!("just opened"))
    }
}

impl Session for Access<'_> {
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        self.table = None;
        let mut transaction = self.open.database.begin_write()?;
        let durability = {
            let mut synced = self.open.synced.lock().unwrap_or_else(PoisonError::into_inner);
            if self.durable || synced.elapsed() > SYNC_INTERVAL {
                *synced = Instant::now();
                Durability::Immediate
            } else {
                Durability::None
            }
        };
        transaction.set_durability(durability)?;
        transaction.open_table(ROWS)?.insert(&key[..], value)?;
        transaction.commit()?;
        Ok(())
    }

    fn get(&mut self, key: &Key) -> Result<bool> {
        Ok(self.table()?.get(&key[..])?.is_some_and(|value| !value.value().is_empty()))
    }

    fn scan(&mut self, key: &Key, count: usize) -> Result<usize> {
        let mut found = 0;
        for row in self.table()?.range(&key[..]..)?.take(count) {
            std::hint::black_box(row?);
            found += 1;
        }
        Ok(found)
    }
}
