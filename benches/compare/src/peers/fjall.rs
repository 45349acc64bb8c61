//! fjall: an LSM tree in Rust.

use std::path::Path;

use anyhow::{Result, ensure};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Peer, Setup};
use crate::data::{Random, key, value};

pub struct Fjall {
    setup: Setup,
    loaded: Option<(Database, Keyspace)>,
}

impl Fjall {
    pub fn new(setup: Setup) -> Fjall {
        Fjall { setup, loaded: None }
    }

    fn open(dir: &Path) -> Result<(Database, Keyspace)> {
        let database = Database::builder(dir).cache_size(512 << 20).open()?;
        let keyspace = database.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok((database, keyspace))
    }

    fn loaded(&mut self) -> Result<Keyspace> {
        if self.loaded.is_none() {
            let (database, keyspace) = Fjall::open(&self.setup.fresh("loaded")?)?;
            let mut random = Random(7);
            for id in 0..self.setup.rows {
                keyspace.insert(key(id), value(&mut random))?;
            }
            keyspace.rotate_memtable_and_wait()?;
            self.loaded = Some((database, keyspace));
        }
        self.loaded.as_ref().map(|(_, keyspace)| keyspace.clone()).ok_or_else(|| anyhow::anyhow!("just loaded"))
    }
}

impl Peer for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn installed(&self) -> bool {
        true
    }

    fn commits(&mut self, clients: usize, durable: bool) -> Result<f64> {
        let (database, keyspace) = Fjall::open(&self.setup.fresh("commits")?)?;
        let rows = self.setup.rows;
        self.setup.rate(clients, |random| {
            if durable {
                let mut batch = database.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&keyspace, key(random.next() % rows), value(random));
                batch.commit()?;
            } else {
                keyspace.insert(key(random.next() % rows), value(random))?;
            }
            Ok(())
        })
    }

    fn point_reads(&mut self) -> Result<f64> {
        let (keyspace, rows) = (self.loaded()?, self.setup.rows);
        self.setup.rate(1, |random| {
            ensure!(keyspace.get(key(random.next() % rows))?.is_some(), "a row is missing");
            Ok(())
        })
    }

    fn scans(&mut self) -> Result<f64> {
        let (keyspace, rows) = (self.loaded()?, self.setup.rows);
        self.setup.rate(1, |random| {
            for row in keyspace.range(key(random.next() % rows)..).take(11) {
                std::hint::black_box(row.into_inner()?);
            }
            Ok(())
        })
    }
}
