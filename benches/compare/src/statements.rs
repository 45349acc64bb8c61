//! Small SQL statements, prepared and not, beside SQLite: what an application does all day.
//!
//! Each engine runs in a process of its own, the engines taking turns, on a table of `--rows` rows
//! `(id BIGINT PRIMARY KEY, n BIGINT, note TEXT)` that is in its cache. SQLite is in WAL mode with `synchronous=FULL` where
//! commits are durable, else `NORMAL`; its writers share a connection, because they would otherwise wait for each other by
//! sleeping.

mod sqlite;
mod strata;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::data::Random;
use crate::machine;
use crate::report::Report;
use crate::works::{Figure, MICROSECONDS, PER_SECOND};
use crate::{empty, parse};

/// Who takes part; ours first.
const ENGINES: [&str; 2] = ["strata", "sqlite"];
/// Operations between two looks at the clock.
const BATCH: u64 = 16;

#[derive(clap::Args)]
pub struct Statements {
    /// Only work whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Rounds per piece of work
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// Seconds that each piece of work runs
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rows of the table
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Where databases are made, on the disk to be measured
    #[arg(long, default_value = "target/compare")]
    dir: PathBuf,
    /// Where the figures go, besides the table
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One piece of work in a process of its own.
#[derive(clap::Args)]
pub struct OneStatement {
    #[arg(long)]
    engine: String,
    #[arg(long)]
    work: String,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    seconds: u64,
    #[arg(long)]
    rows: u64,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// `SELECT n, note FROM t WHERE id = $1`, prepared once.
    PreparedSelect,
    /// The same, its text made and parsed each time.
    Select,
    /// `UPDATE t SET n = n + $2 WHERE id = $1`, prepared, not synced.
    PreparedUpdate,
    /// `INSERT INTO t VALUES ($1, $2, $3)` of new rows, prepared, not synced.
    PreparedInsert,
    /// The update by so many sessions, each commit synced.
    DurableUpdate(usize),
}

impl Work {
    const ALL: [Work; 6] = [
        Work::PreparedSelect,
        Work::Select,
        Work::PreparedUpdate,
        Work::PreparedInsert,
        Work::DurableUpdate(1),
        Work::DurableUpdate(8),
    ];

    fn name(self) -> String {
        match self {
            Work::PreparedSelect => "point select, prepared".to_owned(),
            Work::Select => "point select, unprepared".to_owned(),
            Work::PreparedUpdate => "point update, prepared, not durable".to_owned(),
            Work::PreparedInsert => "insert, prepared, not durable".to_owned(),
            Work::DurableUpdate(1) => "point update, durable, 1 session".to_owned(),
            Work::DurableUpdate(sessions) => format!("point update, durable, {sessions} sessions"),
        }
    }

    fn sessions(self) -> usize {
        match self {
            Work::DurableUpdate(sessions) => sessions,
            _ => 1,
        }
    }
}

/// A database with the table.
trait Store: Sync {
    fn session(&self, durable: bool) -> Result<Box<dyn Session + '_>>;
}

/// One client.
trait Session {
    fn select_prepared(&mut self, id: i64) -> Result<()>;
    fn select(&mut self, id: i64) -> Result<()>;
    fn update(&mut self, id: i64) -> Result<()>;
    fn insert(&mut self, id: i64) -> Result<()>;
}

/// The text of row `id`, 100 bytes.
fn note(id: i64) -> String {
    format!("{id:0100}")
}

pub fn compare(what: &Statements) -> Result<()> {
    let wanted = |name: &str| what.only.is_empty() || what.only.iter().any(|only| name.contains(only.as_str()));
    let works: Vec<Work> = Work::ALL.into_iter().filter(|work| wanted(&work.name())).collect();
    ensure!(!works.is_empty(), "no work is called {:?}; there are {:?}", what.only, Work::ALL.map(Work::name));
    if works.iter().any(|work| matches!(work, Work::DurableUpdate(_))) && !machine::is_real_time() {
        eprintln!("warning: not under `chrt -f 10`, so durable figures measure the scheduler");
    }
    let mut report = Report::new(Vec::new());
    for engine in ENGINES {
        let dir = what.dir.join("statements").join(engine);
        empty(&dir)?;
        open(engine, &dir, what.rows)?;
    }
    for work in works {
        for round in 0..what.rounds {
            let mut turn = ENGINES;
            turn.rotate_left(round as usize % ENGINES.len());
            for engine in turn {
                for figure in in_process(what, engine, work)? {
                    report.add(&work.name(), engine, &figure);
                }
            }
        }
        report.print_new();
        if let Some(path) = &what.json {
            report.write(path)?;
        }
    }
    Ok(())
}

fn open(engine: &str, dir: &Path, rows: u64) -> Result<Box<dyn Store>> {
    match engine {
        "strata" => strata::open(dir, rows),
        "sqlite" => sqlite::open(dir, rows),
        other => anyhow::bail!("no engine is called {other}"),
    }
}

fn in_process(what: &Statements, engine: &str, work: Work) -> Result<Vec<Figure>> {
    machine::wait_for_disk()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["one-statement", "--engine", engine, "--work", &work.name()]);
    command.arg("--dir").arg(what.dir.join("statements").join(engine));
    command.args(["--seconds", &what.seconds.to_string(), "--rows", &what.rows.to_string()]);
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{engine} failed at {}: {}", work.name(), output.status);
    let text = String::from_utf8(output.stdout)?;
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|line| parse(&line)).collect()
}

pub fn run_one(one: &OneStatement) -> Result<()> {
    let work = Work::ALL.into_iter().find(|work| work.name() == one.work).context("no such work")?;
    let store = open(&one.engine, &one.dir, one.rows)?;
    for figure in measure(store.as_ref(), work, one)? {
        println!("{}", json!({"what": figure.what, "unit": figure.unit.name, "value": figure.value}));
    }
    Ok(())
}

fn measure(store: &dyn Store, work: Work, one: &OneStatement) -> Result<Vec<Figure>> {
    let durable = matches!(work, Work::DurableUpdate(_));
    {
        let mut session = store.session(false)?;
        // Into the cache.
        for id in 0..one.rows {
            session.select_prepared(id as i64)?;
        }
    }
    let length = Duration::from_secs(one.seconds);
    let results: Vec<Result<(u64, Duration, Vec<u64>)>> = std::thread::scope(|scope| {
        let client = |number: usize| {
            scope.spawn(move || -> Result<(u64, Duration, Vec<u64>)> {
                let mut session = store.session(durable)?;
                let mut random = Random(number as u64 + 1);
                let (mut count, mut latencies) = (0, Vec::new());
                // New keys, above all rounds before.
                let first = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i64;
                let start = Instant::now();
                while start.elapsed() < length {
                    for _ in 0..BATCH {
                        let id = (random.next() % one.rows) as i64;
                        match work {
                            Work::PreparedSelect => session.select_prepared(id)?,
                            Work::Select => {
                                let before = Instant::now();
                                session.select(id)?;
                                latencies.push(before.elapsed().as_nanos() as u64);
                            }
                            Work::PreparedUpdate | Work::DurableUpdate(_) => session.update(id)?,
                            Work::PreparedInsert => session.insert(first + count as i64)?,
                        }
                        count += 1;
                    }
                }
                Ok((count, start.elapsed(), latencies))
            })
        };
        let threads: Vec<_> = (0..work.sessions()).map(client).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a client panicked"))).collect()
    });
    let (mut rate, mut latencies) = (0.0, Vec::new());
    for result in results {
        let (count, elapsed, mut more) = result?;
        rate += count as f64 / elapsed.as_secs_f64();
        latencies.append(&mut more);
    }
    let mut figures = vec![Figure::new("", PER_SECOND, rate)];
    if !latencies.is_empty() {
        latencies.sort_unstable();
        let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize] as f64 / 1000.0;
        figures.push(Figure::new("p50", MICROSECONDS, at(0.5)));
        figures.push(Figure::new("p99", MICROSECONDS, at(0.99)));
    }
    Ok(figures)
}
