//! Kill -9 in a loop: load and update concurrently, kill at a random moment, reopen, compare with a model.
//!
//! The child process runs writers that only do what a pure function of (writer, transaction number) says, and appends
//! to a side file after each acknowledged commit. So the whole expected content of the database follows from one number
//! per writer: how many of its transactions are in. After every kill the parent reopens the directory and checks:
//!
//! * every acknowledged commit is there, and at most one more per writer (the one being acknowledged);
//! * each writer's transactions form a prefix, each whole: updates of two accounts, an insert of several rows, a delete
//!   of older ones, and nothing of what was rolled back to a savepoint;
//! * point reads say what the scan says; the scan after everything was moved into segments says the same again.
//!
//! Kills also hit recovery, because some children live only a few milliseconds. Everything random comes from `--seed`
//! and the cycle; seeds and counts accumulate in `benches/results/crash_loop.json`. Run it again on the same directory
//! to go on.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use clap::Parser;
use serde_json::{Value, json};
use strata_benches::{provenance, rounded};
use strata_cli::files;
use strata_cli::progress::{Timer, note};
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;
use strata_sql::{Background, Engine, EngineOptions, Session};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Writers that transfer and log.
const WRITERS: u64 = 3;
/// The writer that loads in bulk; its transactions are batches of the table `loaded`.
const LOADER: u64 = WRITERS;
const ACCOUNTS: u64 = 2_000;
const BALANCE_AT_START: i64 = 1_000;
/// A writer's log keeps this many transactions; the one before is deleted in the same transaction.
const TRANSACTIONS_KEPT: u64 = 200;
const LOADED_ROWS_PER_TRANSACTION: u64 = 1_000;
/// The loader rests after this many transactions of one child, or the database would outgrow the purpose.
const LOADED_TRANSACTIONS_PER_CHILD_MAX: u64 = 5;

#[derive(Parser)]
struct Args {
    /// Where database and side file lie
    #[arg(long, default_value = "target/crash-loop")]
    dir: PathBuf,
    /// Kills to survive
    #[arg(long, default_value_t = 300)]
    cycles: u64,
    /// Start of all randomness; drawn if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Where seeds and counts accumulate
    #[arg(long, default_value = "benches/results/crash_loop.json")]
    out: PathBuf,
    /// Be the process that is killed
    #[arg(long, hide = true)]
    child: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.child { child(&args) } else { parent(&args) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn database_dir(args: &Args) -> PathBuf {
    args.dir.join("database")
}

fn acknowledged_path(args: &Args) -> PathBuf {
    args.dir.join("acknowledged")
}

fn open(dir: &Path, background: Background) -> Result<Engine> {
    let mut options = EngineOptions { background, memory_budget_bytes: 512 << 20, ..EngineOptions::default() };
    // Small, so that flushes, conversions and log recycling happen within the short life of a child.
    options.storage.memtable_bytes_max = 256 << 10;
    options.storage.wal_bytes_max = 4 << 20;
    options.storage.idle_flush_ms = 20;
    Ok(Engine::open(dir, options)?)
}

// ---------------------------------------------------------------------------------------------------- randomness

/// A stream of numbers from a seed: `SplitMix64` (Steele, Lea, Flood, 2014).
struct Numbers(u64);

impl Numbers {
    fn of(parts: &[u64]) -> Numbers {
        let mut numbers = Numbers(0x5eed);
        for part in parts {
            numbers.0 ^= part.wrapping_mul(0xff51_afd7_ed55_8ccd);
            numbers.next();
        }
        numbers
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

// --------------------------------------------------------------------------------------------------------- model

/// What transaction `number` of `writer` does. Nothing else decides it.
struct Planned {
    from: u64,
    to: u64,
    amount: i64,
    /// Texts of the rows it inserts into the log; `None` is NULL.
    items: Vec<Option<String>>,
    /// Whether it also writes rows that it rolls back to a savepoint.
    takes_back: bool,
}

impl Planned {
    fn new(writer: u64, number: u64) -> Planned {
        let mut numbers = Numbers::of(&[writer, number]);
        let from = numbers.below(ACCOUNTS);
        let to = (from + 1 + numbers.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = numbers.below(100) as i64;
        let items = (0..1 + numbers.below(4))
            .map(|_| {
                let length = numbers.below(60) as usize;
                (numbers.below(8) > 0).then(|| format!("{number}–{}", "ab".repeat(length)))
            })
            .collect();
        Planned { from, to, amount, items, takes_back: numbers.below(7) == 0 }
    }
}

/// The database as it must be when writer `w` has committed `counts[w]` transactions.
struct Model {
    counts: Vec<u64>,
    balances: Vec<i64>,
    /// Bulk transactions.
    loaded: u64,
    /// Whether this process compared it with the database before. If not, earlier kills may have left any number of
    /// commits that nobody was told of.
    is_compared: bool,
}

impl Model {
    fn new() -> Model {
        Model {
            counts: vec![0; WRITERS as usize],
            balances: vec![BALANCE_AT_START; ACCOUNTS as usize],
            loaded: 0,
            is_compared: false,
        }
    }

    /// Adds the transactions up to `counts`.
    fn advance(&mut self, counts: &[u64]) {
        for (writer, (done, target)) in self.counts.iter_mut().zip(counts).enumerate() {
            for number in *done..*target {
                let planned = Planned::new(writer as u64, number);
                self.balances[planned.from as usize] -= planned.amount;
                self.balances[planned.to as usize] += planned.amount;
            }
            *done = (*done).max(*target);
        }
    }

    /// Rows of the log in key order: (writer, transaction, item, text).
    fn log(&self) -> Vec<(i64, i64, i64, Option<String>)> {
        let mut rows = Vec::new();
        for (writer, &count) in self.counts.iter().enumerate() {
            for number in count.saturating_sub(TRANSACTIONS_KEPT)..count {
                let items = Planned::new(writer as u64, number).items;
                rows.extend(
                    items.into_iter().enumerate().map(|(item, text)| (writer as i64, number as i64, item as i64, text)),
                );
            }
        }
        rows
    }
}

// --------------------------------------------------------------------------------------------------------- child

/// Opens the database and writes until it is killed.
fn child(args: &Args) -> Result<()> {
    let engine = open(&database_dir(args), Background::Threads)?;
    let runtime = Runtime::new()?;
    let counts = runtime.block_on(committed(&mut engine.session()))?;
    let loaded = runtime.block_on(loaded_transactions(&mut engine.session()))?;
    let seed = args.seed.unwrap_or(0);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (engine, runtime, first) = (&engine, &runtime, counts[writer as usize]);
            scope.spawn(move || or_exit(write(args, engine, runtime, writer, first)));
        }
        scope.spawn(|| or_exit(load(args, &engine, loaded)));
        scope.spawn(|| or_exit(disturb(&engine, &runtime, seed)));
    });
    Ok(())
}

/// An unexpected error ends the child at once, which the parent takes for a violation.
fn or_exit(result: Result<()>) {
    if let Err(error) = result {
        note(&format!("child: {error:#}"));
        std::process::exit(3);
    }
}

/// Transactions of one writer, each acknowledged in the side file after its commit returned.
fn write(args: &Args, engine: &Engine, runtime: &Runtime, writer: u64, first: u64) -> Result<()> {
    let mut acknowledge = side_file(&acknowledged_path(args))?;
    let mut session = engine.session();
    for number in first.. {
        let script = transaction(writer, number);
        loop {
            let Err(error) = runtime.block_on(session.execute(&script)) else { break };
            // Another writer changed the same account first; all else is a finding.
            ensure!(error.sqlstate() == "40001", "writer {writer}: {}", error.report());
            if session.in_transaction() {
                runtime.block_on(session.execute("rollback"))?;
            }
        }
        acknowledge.write_all(format!("{writer} {number}\n").as_bytes())?;
    }
    Ok(())
}

fn transaction(writer: u64, number: u64) -> String {
    let Planned { from, to, amount, items, takes_back } = Planned::new(writer, number);
    let mut script = format!(
        "begin; update ledger set balance = balance - {amount} where account = {from}; \
         update ledger set balance = balance + {amount} where account = {to}; "
    );
    if takes_back {
        script.push_str("savepoint here; delete from ledger where account < 10; ");
        script.push_str(&format!(
            "insert into log values ({writer}, {number}, 99, 'never'); rollback to savepoint here; "
        ));
    }
    let rows: Vec<_> = items
        .iter()
        .enumerate()
        .map(|(item, text)| {
            let text = text.as_ref().map_or("null".to_string(), |text| format!("'{text}'"));
            format!("({writer}, {number}, {item}, {text})")
        })
        .collect();
    script.push_str(&format!("insert into log values {}; ", rows.join(", ")));
    if let Some(old) = number.checked_sub(TRANSACTIONS_KEPT) {
        script.push_str(&format!("delete from log where writer = {writer} and number = {old}; "));
    }
    script.push_str("commit");
    script
}

fn load(args: &Args, engine: &Engine, first: u64) -> Result<()> {
    let mut acknowledge = side_file(&acknowledged_path(args))?;
    let mut writer = engine.bulk_writer("loaded", LOADED_ROWS_PER_TRANSACTION as usize)?;
    for number in first..first + LOADED_TRANSACTIONS_PER_CHILD_MAX {
        writer.write(&loaded_batch(number)?)?;
        acknowledge.write_all(format!("{LOADER} {number}\n").as_bytes())?;
    }
    writer.finish()?;
    Ok(())
}

/// The rows of one bulk transaction: ids follow one another across transactions.
fn loaded_batch(number: u64) -> Result<RecordBatch> {
    let first = (number * LOADED_ROWS_PER_TRANSACTION) as i64;
    let ids = first..first + LOADED_ROWS_PER_TRANSACTION as i64;
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("square", DataType::Int64, false),
        Field::new("text", DataType::Utf8View, false),
    ]);
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| id * id))),
        Arc::new(StringViewArray::from_iter_values(ids.map(|id| format!("text of row {id}")))),
    ];
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// Asks for flushes, conversions and compactions at odd moments, beside those of the background.
fn disturb(engine: &Engine, runtime: &Runtime, seed: u64) -> Result<()> {
    let mut numbers = Numbers::of(&[seed, 0xd157]);
    let mut session = engine.session();
    loop {
        thread::sleep(Duration::from_millis(numbers.below(120)));
        let table = ["ledger", "log", "loaded"][numbers.below(3) as usize];
        let call = match numbers.below(4) {
            0 => "call strata.flush()".to_string(),
            1 | 2 => format!("call strata.convert('{table}')"),
            _ => format!("call strata.compact('{table}')"),
        };
        runtime.block_on(session.execute(&call)).map_err(|error| anyhow::anyhow!("{call}: {}", error.report()))?;
    }
}

/// Lines of the side file are short, so each reaches the file in one write; the page cache outlives the process.
#[expect(clippy::disallowed_methods, reason = "the side file must not go through what is being tested")]
fn side_file(path: &Path) -> Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

// -------------------------------------------------------------------------------------------------------- parent

/// Counts of the whole run, as they go into the results.
#[derive(Default)]
struct Tally {
    cycles: u64,
    commits: u64,
    killed_while_opening: u64,
    unacknowledged_found: u64,
    reopen_ms_max: f64,
}

fn parent(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| OsEnv::new().random_u64() >> 1);
    files::create_folder(&args.dir)?;
    let runtime = Runtime::new()?;
    let mut model = Model::new();
    create(args, &runtime)?;
    let mut tally = Tally::default();
    // Whatever an earlier run left behind must already be right.
    check(args, &runtime, &mut model, &mut tally, &mut Numbers::of(&[seed]))?;
    tally = Tally::default();
    let started = model.counts.iter().sum::<u64>();
    note(&format!("seed {seed}, {} cycles in {}", args.cycles, args.dir.display()));
    for cycle in 0..args.cycles {
        let mut numbers = Numbers::of(&[seed, cycle]);
        let result = kill_one(args, &mut numbers, &mut tally)
            .and_then(|()| check(args, &runtime, &mut model, &mut tally, &mut numbers));
        tally.cycles = cycle + 1;
        tally.commits = model.counts.iter().sum::<u64>() - started;
        if let Err(error) = result {
            record(args, seed, &tally, Some(&format!("{error:#}")))?;
            bail!("seed {seed}, cycle {cycle}: {error:#}; the database is left in {}", args.dir.display());
        }
        if tally.cycles.is_multiple_of(10) || tally.cycles == args.cycles {
            note(&format!("{} cycles, {} commits, no violation", tally.cycles, tally.commits));
        }
    }
    record(args, seed, &tally, None)
}

/// The tables, unless they are there.
fn create(args: &Args, runtime: &Runtime) -> Result<()> {
    let engine = open(&database_dir(args), Background::Manual)?;
    if engine.table_id("loaded").is_err() {
        let accounts: Vec<_> = (0..ACCOUNTS).map(|account| format!("({account}, {BALANCE_AT_START})")).collect();
        let script = format!(
            "create table if not exists ledger (account bigint not null, balance bigint not null, primary key (account)); \
             create table if not exists log (writer bigint not null, number bigint not null, item bigint not null, \
             text text, primary key (writer, number, item)); \
             delete from ledger; insert into ledger values {}; \
             create table loaded (id bigint not null, square bigint not null, text text not null, primary key (id))",
            accounts.join(", ")
        );
        runtime.block_on(engine.session().execute(&script)).map_err(|error| anyhow::anyhow!(error.report()))?;
    }
    Ok(engine.close()?)
}

/// Runs a child and kills it: most after they have worked for a while, some while they still recover.
fn kill_one(args: &Args, numbers: &mut Numbers, tally: &mut Tally) -> Result<()> {
    let lifetime = if numbers.below(5) == 0 { numbers.below(40) } else { 100 + numbers.below(1_400) };
    let before = side_file_bytes(args);
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--child")
        .arg("--dir")
        .arg(&args.dir)
        .arg("--seed")
        .arg(numbers.next().to_string())
        .spawn()
        .context("cannot start the child")?;
    thread::sleep(Duration::from_millis(lifetime));
    let ended = child.try_wait()?;
    child.kill().context("cannot kill the child")?;
    child.wait()?;
    ensure!(ended.is_none(), "the child ended by itself: {ended:?}");
    tally.killed_while_opening += u64::from(side_file_bytes(args) == before);
    Ok(())
}

fn side_file_bytes(args: &Args) -> u64 {
    acknowledged_path(args).metadata().map_or(0, |metadata| metadata.len())
}

/// Reopens the database and compares it with the model.
fn check(args: &Args, runtime: &Runtime, model: &mut Model, tally: &mut Tally, numbers: &mut Numbers) -> Result<()> {
    let acknowledged = acknowledged(args)?;
    let timer = Timer::start();
    let engine = open(&database_dir(args), Background::Manual).context("the database does not open")?;
    tally.reopen_ms_max = tally.reopen_ms_max.max(timer.seconds() * 1000.0);
    runtime.block_on(async {
        let mut session = engine.session();
        let counts = committed(&mut session).await?;
        let loaded = loaded_transactions(&mut session).await?;
        let found = counts.iter().copied().chain([loaded]);
        let before = model.counts.iter().copied().chain([model.loaded]);
        for (writer, (found, before)) in found.zip(before).enumerate() {
            let promised = acknowledged.get(&(writer as u64)).copied().unwrap_or(0);
            ensure!(found >= promised, "writer {writer}: {promised} commits were acknowledged, {found} are there");
            ensure!(found >= before, "writer {writer} went back from {before} to {found}");
            let new_unacknowledged = found - promised.max(before);
            ensure!(
                new_unacknowledged <= 1 || !model.is_compared,
                "writer {writer}: {found} commits are there, only {promised} acknowledged, {before} there before"
            );
            tally.unacknowledged_found += new_unacknowledged;
        }
        model.advance(&counts);
        (model.loaded, model.is_compared) = (loaded, true);

        compare(&mut session, model, numbers).await.context("after recovery")?;
        if numbers.below(2) == 0 {
            for table in ["ledger", "log", "loaded"] {
                execute(&mut session, &format!("call strata.compact('{table}')")).await?;
            }
            compare(&mut session, model, numbers).await.context("after moving everything into segments")?;
            ensure!(loaded_transactions(&mut session).await? == loaded, "the loaded rows changed in segments");
        }
        Ok(())
    })?;
    // Half of the time the next child finds a directory that nobody closed.
    if numbers.below(2) == 0 { Ok(engine.close()?) } else { Ok(()) }
}

/// Ledger and log as scans show them, and some accounts as point reads show them, against the model.
async fn compare(session: &mut Session, model: &Model, numbers: &mut Numbers) -> Result<()> {
    let ledger = integers(session, "select account, balance from ledger order by account").await?;
    let expected: Vec<_> = model.balances.iter().enumerate().map(|(account, b)| vec![account as i64, *b]).collect();
    ensure!(ledger.len() == expected.len(), "{} accounts, {} expected", ledger.len(), expected.len());
    for (found, expected) in ledger.iter().zip(&expected) {
        ensure!(found == expected, "account {}: balance {}, {} expected", expected[0], found[1], expected[1]);
    }
    let sum = integers(session, "select sum(balance)::bigint, count(*) from ledger").await?;
    ensure!(sum == [[BALANCE_AT_START * ACCOUNTS as i64, ACCOUNTS as i64]], "the sum of the ledger is {sum:?}");
    for _ in 0..20 {
        let account = numbers.below(ACCOUNTS);
        let found = integers(session, &format!("select balance from ledger where account = {account}")).await?;
        let expected = model.balances[account as usize];
        ensure!(found == [[expected]], "point read of account {account}: {found:?}, {expected} expected");
    }
    let log = log_rows(session).await?;
    let expected = model.log();
    if log != expected {
        let differs = log.iter().zip(&expected).position(|(found, expected)| found != expected);
        let at = differs.unwrap_or(log.len().min(expected.len()));
        bail!(
            "log row {at}: {:?}, {:?} expected; {} rows, {} expected",
            log.get(at),
            expected.get(at),
            log.len(),
            expected.len()
        );
    }
    Ok(())
}

/// How many transactions of each writer are in, by the newest one in the log.
async fn committed(session: &mut Session) -> Result<Vec<u64>> {
    let mut counts = vec![0; WRITERS as usize];
    for row in integers(session, "select writer, max(number) + 1 from log group by writer").await? {
        counts[usize::try_from(row[0])?] = u64::try_from(row[1])?;
    }
    Ok(counts)
}

/// How many bulk transactions are in; each must be whole and right.
async fn loaded_transactions(session: &mut Session) -> Result<u64> {
    let sql = "select count(*), coalesce(max(id) + 1, 0), coalesce(sum(square - id * id), 0)::bigint, \
               count(*) filter (where text <> concat('text of row ', id)) from loaded";
    let rows = integers(session, sql).await?;
    let [count, next, ..] = rows[0][..] else { bail!("no counts") };
    ensure!(count == next, "loaded: {count} rows, the largest id is {}", next - 1);
    ensure!(rows[0][2..] == [0, 0], "loaded: rows with wrong values: {:?}", &rows[0]);
    let count = u64::try_from(count)?;
    ensure!(count.is_multiple_of(LOADED_ROWS_PER_TRANSACTION), "loaded: {count} rows are not whole transactions");
    Ok(count / LOADED_ROWS_PER_TRANSACTION)
}

async fn execute(session: &mut Session, sql: &str) -> Result<()> {
    session.execute(sql).await.map(|_| ()).map_err(|error| anyhow::anyhow!("{sql}: {}", error.report()))
}

async fn batches(session: &mut Session, sql: &str) -> Result<Vec<RecordBatch>> {
    let result = match session.query(sql).await {
        Ok(rows) => rows.collect().await,
        Err(error) => Err(error),
    };
    result.map_err(|error| anyhow::anyhow!("{sql}: {}", error.report()))
}

/// Rows of a query whose columns are all BIGINT.
async fn integers(session: &mut Session, sql: &str) -> Result<Vec<Vec<i64>>> {
    let mut rows = Vec::new();
    for batch in batches(session, sql).await? {
        let columns: Vec<_> = batch.columns().iter().map(AsArray::as_primitive::<Int64Type>).collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row)).collect()));
    }
    Ok(rows)
}

async fn log_rows(session: &mut Session) -> Result<Vec<(i64, i64, i64, Option<String>)>> {
    let mut rows = Vec::new();
    for batch in batches(session, "select writer, number, item, text from log order by 1, 2, 3").await? {
        let number = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
        let text = arrow::compute::cast(batch.column(3), &DataType::Utf8View)?;
        let text = text.as_string_view();
        rows.extend((0..batch.num_rows()).map(|row| {
            let text = text.is_valid(row).then(|| text.value(row).to_string());
            (number(0, row), number(1, row), number(2, row), text)
        }));
    }
    Ok(rows)
}

/// Acknowledged transactions per writer. The last line may be cut short by the kill; then nobody was told.
fn acknowledged(args: &Args) -> Result<BTreeMap<u64, u64>> {
    let path = acknowledged_path(args);
    let mut counts = BTreeMap::new();
    if !path.exists() {
        return Ok(counts);
    }
    let text = files::read_text(&path)?;
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let (writer, number) = line.trim().split_once(' ').with_context(|| format!("side file: '{line}'"))?;
        counts.insert(writer.parse()?, number.parse::<u64>()? + 1);
    }
    Ok(counts)
}

fn record(args: &Args, seed: u64, tally: &Tally, violation: Option<&str>) -> Result<()> {
    let mut runs: Vec<Value> = match args.out.exists() {
        true => serde_json::from_str(&files::read_text(&args.out)?).context("the results file")?,
        false => Vec::new(),
    };
    runs.push(json!({
        "run": provenance(),
        "seed": seed,
        "cycles": tally.cycles,
        "commits": tally.commits,
        "killed_before_first_commit": tally.killed_while_opening,
        "commits_found_but_not_acknowledged": tally.unacknowledged_found,
        "slowest_reopen_ms": rounded(tally.reopen_ms_max),
        "violation": violation,
    }));
    if let Some(folder) = args.out.parent() {
        files::create_folder(folder)?;
    }
    files::write_text(&args.out, &format!("{:#}\n", Value::from(runs)))
}
