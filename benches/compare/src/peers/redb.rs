//! redb: a copy-on-write B+ tree in Rust, one writer at a time.

use std::path::Path;

use anyhow::{Result, ensure};
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::{Peer, Setup};
use crate::data::{Random, key, value};

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");

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

    fn loaded(&mut self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>> {
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
        let database = self.loaded.as_ref().ok_or_else(|| anyhow::anyhow!("just loaded"))?;
        Ok(database.begin_read()?.open_table(ROWS)?)
    }
}

impl Peer for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn installed(&self) -> bool {
        true
    }

    fn commits(&mut self, clients: usize, durable: bool) -> Result<f64> {
        let durability = if durable { Durability::Immediate } else { Durability::None };
        let database = Redb::open(&self.setup.fresh("commits")?)?;
        let rows = self.setup.rows;
        self.setup.rate(clients, |random| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(durability)?;
            transaction.open_table(ROWS)?.insert(&key(random.next() % rows)[..], &value(random)[..])?;
            transaction.commit()?;
            Ok(())
        })
    }

    fn point_reads(&mut self) -> Result<f64> {
        let (table, rows) = (self.loaded()?, self.setup.rows);
        self.setup.rate(1, |random| {
            ensure!(table.get(&key(random.next() % rows)[..])?.is_some(), "a row is missing");
            Ok(())
        })
    }

    fn scans(&mut self) -> Result<f64> {
        let (table, rows) = (self.loaded()?, self.setup.rows);
        self.setup.rate(1, |random| {
            for row in table.range(&key(random.next() % rows)[..]..)?.take(11) {
                std::hint::black_box(row?);
            }
            Ok(())
        })
    }
}
