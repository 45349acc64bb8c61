//! `Client`: one session of the workload, and the SQL of lists.
//!
//! A list is a row, its values a text: `5,7,12`. Appending is an UPDATE, or an INSERT if the UPDATE found no row. Lists lie
//! in several tables, because a serializable transaction reads tables whole and would otherwise meet every other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use strata_oltp::env::sim::SimEnv;
use strata_sql::{Engine, Error, Session};

use super::check::{End, Observed, Op};
use crate::numbers::Numbers;
use crate::placement::for_each_table;

const TABLES: u64 = 4;
/// Lists of a table in one round.
const LISTS: u64 = 3;
/// Keys of rounds lie this far apart.
const ROUND: u64 = 100;

/// What the sessions of a round do.
pub struct Workload {
    pub seed: u64,
    pub round: u64,
    pub level: &'static str,
    pub transactions: usize,
}

/// One session.
pub struct Client<'a> {
    engine: &'a Engine,
    env: &'a SimEnv,
    clock: &'a AtomicU64,
    workload: &'a Workload,
    number: u64,
    numbers: Numbers,
    next_value: u64,
}

/// Why a transaction ended early.
enum Stop {
    /// It lost, or must not be: its effects are gone.
    Aborted,
    /// The machine died.
    Died,
    /// An error that must not be.
    Failed(Error),
}

/// The tables of all rounds.
pub async fn create_tables(engine: &Engine) -> strata_sql::Result<()> {
    for table in 0..TABLES {
        engine.session().execute(&format!("CREATE TABLE lists{table} (id BIGINT PRIMARY KEY, list TEXT)")).await?;
    }
    Ok(())
}

/// The lists of a round as they are now, by a number that says table and key.
pub async fn lists(engine: &Engine, round: u64) -> strata_sql::Result<BTreeMap<u64, Vec<u64>>> {
    let (mut session, mut lists) = (engine.session(), BTreeMap::new());
    for table in 0..TABLES {
        let first = round * ROUND;
        for (id, list) in read_range(&mut session, table, first, first + LISTS - 1).await? {
            lists.insert(key(table, id), list);
        }
    }
    Ok(lists)
}

fn key(table: u64, id: u64) -> u64 {
    table * 1_000_000 + id
}

async fn read_range(session: &mut Session, table: u64, from: u64, to: u64) -> strata_sql::Result<Vec<(u64, Vec<u64>)>> {
    let filter = if from == to { format!("id = {from}") } else { format!("id BETWEEN {from} AND {to}") };
    let sql = format!("SELECT id, list FROM lists{table} WHERE {filter}");
    let mut found = Vec::new();
    for batch in session.query(&sql).await?.collect().await? {
        let texts = cast(batch.column(1), &DataType::Utf8).map_err(|error| Error::internal(error.to_string()))?;
        let ids = batch.column(0).as_primitive::<Int64Type>().values();
        for (id, text) in ids.iter().zip(texts.as_string::<i32>()) {
            let values = text.unwrap_or_default().split(',').map(str::parse::<u64>);
            let values: std::result::Result<Vec<u64>, _> = values.collect();
            found.push((*id as u64, values.map_err(|error| Error::internal(format!("list {id}: {error}")))?));
        }
    }
    Ok(found)
}

impl<'a> Client<'a> {
    pub fn new(
        engine: &'a Engine,
        env: &'a SimEnv,
        clock: &'a AtomicU64,
        workload: &'a Workload,
        number: u64,
    ) -> Client<'a> {
        let numbers = Numbers::new(workload.seed ^ (number + 1).wrapping_mul(0x9e37_79b9));
        Client { engine, env, clock, workload, number, numbers, next_value: 0 }
    }

    /// Runs its transactions, to the end of the round or of the machine.
    ///
    /// # Errors
    /// Any that neither a lost race nor the end of the machine explains.
    pub fn run(mut self) -> Result<Vec<Observed>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut session = self.engine.session();
        let mut seen = Vec::new();
        for _ in 0..self.workload.transactions {
            let mut observed = Observed { begun: self.tick(), ops: Vec::new(), end: End::Aborted };
            let stop = runtime.block_on(self.transaction(&mut session, &mut observed));
            seen.push(observed);
            match stop {
                Ok(()) => {}
                Err(Stop::Aborted) => {
                    if session.in_transaction() {
                        runtime.block_on(session.execute("ROLLBACK")).map_err(|error| anyhow!(error.report()))?;
                    }
                }
                Err(Stop::Died) => break,
                Err(Stop::Failed(error)) => return Err(anyhow!(error.report())),
            }
            if self.numbers.chance(2) && runtime.block_on(self.move_rows()).is_err() {
                if self.env.crashed() {
                    break;
                }
                return Err(anyhow!("moving rows failed"));
            }
        }
        Ok(seen)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    async fn move_rows(&mut self) -> strata_sql::Result<()> {
        match self.numbers.below(3) {
            0 => self.engine.flush(),
            1 => for_each_table(self.engine, Engine::convert).await,
            _ => for_each_table(self.engine, Engine::compact).await,
        }
    }

    async fn transaction(&mut self, session: &mut Session, observed: &mut Observed) -> std::result::Result<(), Stop> {
        let begin = format!("BEGIN ISOLATION LEVEL {}", self.workload.level);
        session.execute(&begin).await.map_err(|error| self.stop(error))?;
        for _ in 0..1 + self.numbers.below(4) {
            let (table, id) = (self.numbers.next() % TABLES, self.numbers.next() % LISTS);
            let id = self.workload.round * ROUND + id;
            match self.numbers.below(5) {
                0 | 1 => self.append(session, table, id, &mut observed.ops).await,
                2 | 3 => self.read(session, table, id, id, &mut observed.ops).await,
                _ => {
                    let first = self.workload.round * ROUND;
                    self.read(session, table, first, first + LISTS - 1, &mut observed.ops).await
                }
            }
            .map_err(|error| self.stop(error))?;
        }
        if self.numbers.chance(5) {
            return Err(Stop::Aborted);
        }
        match session.execute("COMMIT").await {
            Ok(_) => {
                observed.end = End::Committed(self.tick());
                Ok(())
            }
            Err(error) if self.env.crashed() => {
                // A conflict is decided before anything is written; everything else may have reached the disk.
                let lost = error.sqlstate() == "40001";
                observed.end = if lost { End::Aborted } else { End::Unknown };
                Err(Stop::Died)
            }
            Err(error) => Err(self.stop(error)),
        }
    }

    fn stop(&self, error: Error) -> Stop {
        match error.sqlstate() {
            // Two that insert one key are told apart as late as it takes.
            "40001" | "40P01" | "23505" => Stop::Aborted,
            _ if self.env.crashed() => Stop::Died,
            _ => Stop::Failed(error),
        }
    }

    async fn append(
        &mut self,
        session: &mut Session,
        table: u64,
        id: u64,
        ops: &mut Vec<Op>,
    ) -> strata_sql::Result<()> {
        self.next_value += 1;
        let value = (self.number + 1) * 1_000_000 + self.next_value;
        let update = format!("UPDATE lists{table} SET list = list || ',{value}' WHERE id = {id}");
        let updated = session.execute(&update).await?.pop().and_then(|result| result.count());
        if updated == Some(0) {
            session.execute(&format!("INSERT INTO lists{table} VALUES ({id}, '{value}')")).await?;
        }
        ops.push(Op::Append { key: key(table, id), value });
        Ok(())
    }

    async fn read(
        &self,
        session: &mut Session,
        table: u64,
        from: u64,
        to: u64,
        ops: &mut Vec<Op>,
    ) -> strata_sql::Result<()> {
        let found: BTreeMap<u64, Vec<u64>> = read_range(session, table, from, to).await?.into_iter().collect();
        for id in from..=to {
            let list = found.get(&id).cloned().unwrap_or_default();
            ops.push(Op::Read { key: key(table, id), list, by_range: from != to });
        }
        Ok(())
    }
}
