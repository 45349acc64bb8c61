//! SQLite in WAL mode: `synchronous=FULL` where commits are durable, else `NORMAL`, which syncs at checkpoints only.
//!
//! Writers share one connection, because they would otherwise wait for each other by sleeping.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Peer, Session, Store, Tuning};
use crate::data::Key;
use crate::works::{Place, Work};

const PUT: &str =
    "INSERT INTO rows (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const GET: &str = "SELECT value FROM rows WHERE key = ?1";
const SCAN: &str = "SELECT key, value FROM rows WHERE key >= ?1 ORDER BY key LIMIT ?2";

pub struct Sqlite;

struct Open {
    path: PathBuf,
    tuning: Tuning,
    writer: Mutex<Connection>,
}

fn connect(path: &Path, tuning: Tuning) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", -((tuning.cache_bytes >> 10) as i64))?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    if !tuning.checkpoints {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    }
    Ok(connection)
}

impl Peer for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn does(&self, work: Work) -> bool {
        !matches!(work, Work::PointReads(Place::Memtable))
    }

    fn open(&self, dir: &Path, tuning: Tuning) -> Result<Box<dyn Store>> {
        let path = dir.join("rows.sqlite");
        let writer = connect(&path, tuning)?;
        writer.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID", [])?;
        Ok(Box::new(Open { path, tuning, writer: Mutex::new(writer) }))
    }

    fn is_log(&self, name: &str) -> bool {
        name.ends_with("-wal") || name.ends_with("-shm")
    }
}

impl Store for Open {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        let level = if durable { "FULL" } else { "NORMAL" };
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).pragma_update(None, "synchronous", level)?;
        Ok(Box::new(Access { writer: &self.writer, reader: connect(&self.path, self.tuning)? }))
    }

    fn load(&self, rows: &mut dyn Iterator<Item = (Key, Vec<u8>)>) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction()?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            for (key, value) in rows {
                put.execute(params![&key[..], &value[..]])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn settle(&self, _: bool) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

struct Access<'a> {
    writer: &'a Mutex<Connection>,
    reader: Connection,
}

impl Session for Access<'_> {
    fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.prepare_cached(PUT)?.execute(params![&key[..], value])?;
        Ok(())
    }

    fn get(&mut self, key: &Key) -> Result<bool> {
        let mut statement = self.reader.prepare_cached(GET)?;
        let bytes = statement.query_row(params![&key[..]], |row| Ok(row.get_ref(0)?.as_blob()?.len())).optional()?;
        Ok(bytes.is_some())
    }

    fn scan(&mut self, key: &Key, count: usize) -> Result<usize> {
        let mut statement = self.reader.prepare_cached(SCAN)?;
        let mut rows = statement.query(params![&key[..], count as i64])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            std::hint::black_box((row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?));
            found += 1;
        }
        Ok(found)
    }
}
