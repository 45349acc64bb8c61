//! Strata, through its sessions, as a program that embeds it would.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use datafusion_common::ScalarValue;
use strata_sql::{Durability, Engine, EngineOptions, Prepared, StatementResult};
use tokio::runtime::Runtime;

use super::{Session, Store, note};

/// Rows per transaction of the load.
const LOAD_ROWS: u64 = 10_000;

struct Database {
    engine: Engine,
    runtime: Runtime,
}

pub fn open(dir: &Path, rows: u64) -> Result<Box<dyn Store>> {
    let engine = Engine::open(dir, EngineOptions::default()).context("opening")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut session = engine.session();
    runtime.block_on(async {
        let exists = session.query("SELECT 1 FROM strata.tables WHERE table_name = 't'").await;
        let exists = match exists {
            Ok(rows) => rows.collect().await?.iter().any(|batch| batch.num_rows() > 0),
            Err(error) => return Err(error.into()),
        };
        if exists {
            return Ok(());
        }
        session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT, note TEXT)").await?;
        let insert = session.prepare("INSERT INTO t VALUES ($1, $2, $3)")?;
        for first in (0..rows).step_by(LOAD_ROWS as usize) {
            session.execute("BEGIN").await?;
            for id in first..rows.min(first + LOAD_ROWS) {
                session.run_prepared(&insert, &new_row(id as i64)).await?;
            }
            session.execute("COMMIT").await?;
        }
        anyhow::Ok(())
    })?;
    Ok(Box::new(Database { engine, runtime }))
}

fn new_row(id: i64) -> [ScalarValue; 3] {
    [ScalarValue::from(id), ScalarValue::from(id), ScalarValue::from(note(id))]
}

impl Store for Database {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>> {
        let mut session = self.engine.session();
        session.set_durability(if durable { Durability::Durable } else { Durability::Buffered });
        let select = session.prepare("SELECT n, note FROM t WHERE id = $1")?;
        let update = session.prepare("UPDATE t SET n = n + $2 WHERE id = $1")?;
        let insert = session.prepare("INSERT INTO t VALUES ($1, $2, $3)")?;
        Ok(Box::new(Client { runtime: &self.runtime, session, select, update, insert }))
    }
}

struct Client<'a> {
    runtime: &'a Runtime,
    session: strata_sql::Session,
    select: Prepared,
    update: Prepared,
    insert: Prepared,
}

async fn read(result: StatementResult) -> Result<()> {
    let batches = result.into_rows().context("no rows")?.collect().await?;
    ensure!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>() == 1, "the row is missing");
    std::hint::black_box(batches);
    Ok(())
}

impl Session for Client<'_> {
    fn select_prepared(&mut self, id: i64) -> Result<()> {
        let Client { runtime, session, select, .. } = self;
        runtime.block_on(async { read(session.run_prepared(select, &[ScalarValue::from(id)]).await?).await })
    }

    fn select(&mut self, id: i64) -> Result<()> {
        let Client { runtime, session, .. } = self;
        let sql = format!("SELECT n, note FROM t WHERE id = {id}");
        runtime.block_on(async {
            let rows = session.query(&sql).await?.collect().await?;
            ensure!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>() == 1, "the row is missing");
            std::hint::black_box(rows);
            Ok(())
        })
    }

    fn update(&mut self, id: i64) -> Result<()> {
        let Client { runtime, session, update, .. } = self;
        let values = [ScalarValue::from(id), ScalarValue::from(1_i64)];
        let result = runtime.block_on(session.run_prepared(update, &values))?;
        ensure!(result.count() == Some(1), "the row is missing");
        Ok(())
    }

    fn insert(&mut self, id: i64) -> Result<()> {
        let Client { runtime, session, insert, .. } = self;
        runtime.block_on(session.run_prepared(insert, &new_row(id)))?;
        Ok(())
    }
}
