//! SQLite, in WAL mode.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, params};

use super::{Session, Store, note};

const SELECT: &str = "SELECT n, note FROM t WHERE id = ?1";
const UPDATE: &str = "UPDATE t SET n = n + ?2 WHERE id = ?1";
const INSERT: &str = "INSERT INTO t VALUES (?1, ?2, ?3)";
/// Kibibytes of page cache: all of the table.
const CACHE_KIB: i64 = 512 << 10;

struct Database {
    path: PathBuf,
    writer: Mutex<Connection>,
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(connection)
}

pub fn open(dir: &Path, rows: u64) -> Result<Box<dyn Store>> {
    let path = dir.join("statements.sqlite");
    let is_new = !path.exists();
    let mut connection = connect(&path)?;
    if is_new {
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, note TEXT)", [])?;
        let transaction = connection.transaction()?;
        for id in 0..rows as i64 {
            transaction.prepare_cached(INSERT)?.execute(params![id, id, note(id)])?;
        }
        transaction.commit()?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    Ok(Box::new(Database { path, writer: Mutex::new(connection) }))
}

impl Store for Database {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        let level = if durable { "FULL" } else { "NORMAL" };
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).pragma_update(None, "synchronous", level)?;
        Ok(Box::new(Client { reader: connect(&self.path)?, writer: &self.writer }))
    }
}

struct Client<'a> {
    reader: Connection,
    writer: &'a Mutex<Connection>,
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
    std::hint::black_box((row.get::<_, i64>(0)?, row.get_ref(1)?.as_str()?));
    Ok(())
}

impl Session for Client<'_> {
    fn select_prepared(&mut self, id: i64) -> Result<()> {
        Ok(self.reader.prepare_cached(SELECT)?.query_row(params![id], read)?)
    }

    fn select(&mut self, id: i64) -> Result<()> {
        Ok(self.reader.prepare(&format!("SELECT n, note FROM t WHERE id = {id}"))?.query_row([], read)?)
    }

    fn update(&mut self, id: i64) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(writer.prepare_cached(UPDATE)?.execute(params![id, 1])? == 1);
        Ok(())
    }

    fn insert(&mut self, id: i64) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.prepare_cached(INSERT)?.execute(params![id, id, note(id)])?;
        Ok(())
    }
}
