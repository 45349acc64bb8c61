//! fjall: an LSM tree in Rust. A commit that is not durable is handed to the operating system.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Peer, Session, Store, Tuning};
use crate::data::Key;
use crate::works::Work;

pub struct Fjall;

struct Open {
    database: Database,
    rows: Keyspace,
}

impl Peer for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn does(&self, _: Work) -> bool {
        true
    }

    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
        let mut builder = Database::builder(dir).cache_size(tuning.cache_bytes);
        if !tuning.checkpoints {
            builder = builder.max_journaling_size(4 << 30);
        }
        let database = builder.open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(tuning.memtable_bytes);
        let rows = database.keyspace("rows", options)?;
        Ok(Box::new(Open { database, rows }))
    }

    fn is_log(&self, name: &str) -> bool {
        name.ends_with(".jnl")
    }
}

impl Store for Open {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(Access { open: self, durable }))
    }

    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        for (key, value) in rows {
            self.rows.insert(key, value)?;
        }
        Ok(())
    }

    fn settle(&self, whole: bool) -> Result<()> {
        self.rows.rotate_memtable_and_wait()?;
        if whole {
            self.rows.major_compact()?;
        }
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(())
    }
}

struct Access<'a> {
    open: &'a Open,
    durable: bool,
}

impl Session for Access<'_> {
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        if self.durable {
            let mut batch = self.open.database.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&self.open.rows, &key[..], value);
            batch.commit()?;
        } else {
            self.open.rows.insert(&key[..], value)?;
        }
        Ok(())
    }

    fn get(&mut self, key: &Key) -> Result<bool> {
        Ok(self.open.rows.get(key)?.is_some())
    }

    fn scan(&mut self, key: &Key, count: usize) -> Result<usize> {
        let mut found = 0;
        for row in self.open.rows.range(&key[..]..).take(count) {
            std::hint::black_box(row.into_inner()?);
            found += 1;
        }
        Ok(found)
    }
}
