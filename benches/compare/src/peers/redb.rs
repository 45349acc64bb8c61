//! redb: a copy-on-write B+ tree in Rust, one writer at a time.

use std::path::Path;

use anyhow::{Result, ensure};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::{Peer, Setup, Work};
use crate::data::{Random, key, value};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

pub struct Redb {
    setup: Setup,
    loaded: Option<Database>,
}

impl Redb {
    pub fn new(setup: Setup) -> Redb {
        Redb { setup, loaded: None }
    }

    fn open(dir: &Path) -> Result<Database> {
        let database = Database::builder().set_cache_size(512 << 20).create(dir.join("rows.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.commit()?;
        Ok(database)
    }

    fn commits(&self, threads: usize, durability: Durability) -> Result<f64> {
        let database = Redb::open(&self.setup.fresh("commits")?)?;
        let rows = self.setup.rows;
        self.setup.rate(threads, |random| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(durability)?;
            transaction.open_table(ROWS)?.insert(&key(random.next() % rows)[..], &value(random)[..])?;
            transaction.commit()?;
            Ok(())
        })
    }

    fn load(&mut self) -> Result<()> {
        if self.loaded.is_none() {
            let database = Redb::open(&self.setup.fresh("loaded")?)?;
            let mut random = Random(7);
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(ROWS)?;
                for id in 0..self.setup.rows {
                    table.insert(&key(id)[..], &value(&mut random)[..])?;
                }
            }
            transaction.commit()?;
            self.loaded = Some(database);
        }
        Ok(())
    }
}

impl Peer for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn installed(&self) -> bool {
        true
    }

    fn run(&mut self, work: Work) -> Result<Option<f64>> {
        let rows = self.setup.rows;
        match work {
            Work::DurableCommits(clients) => return Ok(Some(self.commits(clients, Durability::Immediate)?)),
            Work::Inserts => return Ok(Some(self.commits(1, Durability::None)?)),
            Work::PointReads | Work::Scans => self.load()?,
        }
        let Some(database) = &self.loaded else { return Ok(None) };
        let table = database.begin_read()?.open_table(ROWS)?;
        Ok(Some(self.setup.rate(1, |random| {
            let key = key(random.next() % rows);
            if work == Work::PointReads {
                ensure!(table.get(&key[..])?.is_some(), "a row is missing");
            } else {
                for row in table.range(&key[..]..)?.take(11) {
                    std::hint::black_box(row?);
                }
            }
            Ok(())
        })?))
    }
}
