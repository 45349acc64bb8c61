//! The process that is killed, and what it must leave behind.
//!
//! Its threads only do what a pure function of (writer, transaction number) says, and tell their standard output of each
//! acknowledged commit, with its SeqNo. So the whole content of the database follows from one number per writer, which a
//! row of each transaction holds, and the order of all commits is known as far as anyone was told.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;
use strata_oltp::schema::StorageKind;
use strata_oltp::wal::WalOptions;
use strata_oltp::{Db, Options, SeqNo, TableId, Transaction};

use crate::harness::random::Numbers;
use crate::harness::row_tier::RowTier;
use crate::harness::{HYBRID, ROW, Rows, contents, key, row, row_with, schema};

/// Most writers that any process runs.
pub const WRITERS_MAX: u64 = 6;
/// Rows that a writer has in each table.
const SLOTS: u64 = 40;
/// Ids of one writer.
const IDS: u64 = 100;
/// The id, within a writer's, of the row that counts its transactions.
const COUNTER: u64 = 99;

fn id(writer: u64, slot: u64) -> i32 {
    (writer * IDS + slot) as i32
}

/// Options of a process: small, so that flushes, conversions and log recycling happen within its short life.
fn options(numbers: &mut Numbers) -> Options {
    Options {
        memory_bytes_max: 64 << 20,
        memtable_bytes_max: numbers.pick(&[2_000, 20_000, 200_000]),
        sealed_bytes_max: numbers.pick(&[0, 10_000, 1 << 20]),
        block_cache_bytes_max: 1 << 20,
        wal_bytes_max: numbers.pick(&[20_000, 200_000, 1 << 30]),
        idle_flush_ms: numbers.pick(&[1, 20, 500]),
        open_files_max: numbers.pick(&[2, 10_000]),
        wal: WalOptions {
            segment_bytes: numbers.pick(&[8_192, 65_536, 1 << 20]),
            fill_bytes: numbers.pick(&[0, 8_192, 1 << 20]),
            spare_count_max: numbers.pick(&[0, 1, 2]),
            buffer_bytes_max: numbers.pick(&[0, 10_000, 1 << 20]),
        },
        ..Options::default()
    }
}

fn open(dir: &Path, options: Options) -> strata_oltp::Result<Db> {
    let env: Arc<dyn Env> = Arc::new(OsEnv::new());
    let tier = RowTier::make(&env, dir);
    let db = Db::open(env, dir, options, tier)?;
    db.register_table(schema(HYBRID), StorageKind::Hybrid);
    db.register_table(schema(ROW), StorageKind::Row);
    Ok(db)
}

/// What transaction `number` of `writer` does to its rows, one after the other.
fn changes(writer: u64, number: u64) -> Vec<(TableId, Vec<u8>, Option<Vec<u8>>)> {
    let (slot, gone) = (number % SLOTS, (number * 7 + 3) % SLOTS);
    let at = |slot| id(writer, slot);
    let amount = number as i64;
    let mut changes = Vec::new();
    for table in [HYBRID, ROW] {
        if number.is_multiple_of(3) {
            changes.push((table, key(table, at(gone)), None));
        }
        let note = number.is_multiple_of(11).then(|| "long ".repeat((number % 97) as usize * 10));
        let bytes =
            note.map_or_else(|| row(table, at(slot), amount), |note| row_with(table, at(slot), amount, Some(&note)));
        changes.push((table, key(table, at(slot)), Some(bytes)));
    }
    changes.push((ROW, key(ROW, at(COUNTER)), Some(row(ROW, at(COUNTER), amount + 1))));
    changes
}

/// All rows after `counts[w]` transactions of each writer `w`.
fn expected(counts: &[u64]) -> Rows {
    let mut rows = Rows::new();
    for (writer, &count) in (0..).zip(counts) {
        // Each slot is written again within so many transactions.
        for number in count.saturating_sub(SLOTS)..count {
            for (_, key, row) in changes(writer, number) {
                match row {
                    Some(row) => rows.insert(key, row),
                    None => rows.remove(&key),
                };
            }
        }
    }
    rows
}

/// Opens the database and writes until the process ends.
///
/// # Errors
/// Any error of the database: none is expected before the process or its disk is ended.
pub fn run(dir: &Path, seed: u64) -> Result<()> {
    let mut numbers = Numbers::new(seed);
    let db = open(dir, options(&mut numbers))?;
    db.start_background();
    let counts = counts(&db)?;
    let threads = numbers.pick(&[1, 2, 3, WRITERS_MAX]);
    let buffered_in = numbers.pick(&[1_000_000, 2, 5]);
    println!("open");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|writer| {
                let (db, first) = (&db, counts[writer as usize]);
                scope.spawn(move || write(db, writer, first, buffered_in))
            })
            .collect();
        for writer in writers {
            if let Ok(Err(error)) = writer.join() {
                eprintln!("writer: {error:#}");
                std::process::exit(3);
            }
        }
    });
    bail!("writers do not end by themselves")
}

fn write(db: &Db, writer: u64, first: u64, buffered_in: u64) -> Result<()> {
    for number in first.. {
        let mut transaction: Transaction = db.begin()?;
        for (table, key, row) in changes(writer, number) {
            match row {
                Some(row) => transaction.put(table, key, row)?,
                None => transaction.delete(table, key)?,
            }
        }
        let buffered = number % buffered_in == 1;
        let seqno = transaction.commit(if buffered { Durability::Buffered } else { Durability::Durable })?;
        // One short write, whole or not at all.
        let line = format!("{writer} {number} {seqno} {}\n", if buffered { "buffered" } else { "durable" });
        std::io::stdout().lock().write_all(line.as_bytes())?;
    }
    Ok(())
}

/// What a process told before it ended.
#[derive(Debug, Default)]
pub struct Told {
    /// Whether it had opened the database.
    pub opened: bool,
    /// Writer, transaction, SeqNo, and whether it must be there: it was durable, and told in time.
    acknowledged: Vec<(u64, u64, SeqNo, bool)>,
}

impl Told {
    /// One line of its output; what is cut short was told to nobody. Nothing is promised by what was not told `in_time`.
    pub fn line(&mut self, line: &str, in_time: bool) {
        if line == "open" {
            self.opened = true;
        }
        let words: Vec<&str> = line.split(' ').collect();
        if let [writer, number, seqno, level @ ("durable" | "buffered")] = words[..]
            && let (Ok(writer), Ok(number), Ok(seqno)) = (writer.parse(), number.parse(), seqno.parse())
        {
            self.acknowledged.push((writer, number, SeqNo(seqno), level == "durable" && in_time));
        }
    }

    pub fn commits(&self) -> u64 {
        self.acknowledged.len() as u64
    }
}

fn counts(db: &Db) -> Result<Vec<u64>> {
    let snapshot = db.snapshot();
    (0..WRITERS_MAX)
        .map(|writer| {
            let counter = id(writer, COUNTER);
            let Some(found) = snapshot.get(&schema(ROW), &key(ROW, counter))? else { return Ok(0) };
            // Counters are compared as rows: the number is the one whose row this is.
            (1..u64::MAX).find(|count| row(ROW, counter, *count as i64) == found).context("a counter without a number")
        })
        .collect()
}

/// Opens the database after its process ended and holds it against what was `known` before and what was `told` since
/// (P1, P2, I6, I7). Leaves what it found in `known`.
///
/// # Errors
/// The violation.
pub fn check(dir: &Path, known: &mut Vec<u64>, told: &Told, seed: u64) -> Result<()> {
    let db = open(dir, options(&mut Numbers::new(!seed))).context("the database does not open")?;
    db.verify().context("verify")?;
    let counts = counts(&db)?;
    let mut promised: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for &(writer, number, _, promised_now) in &told.acknowledged {
        last.insert(writer, number + 1);
        if promised_now {
            promised.insert(writer, number + 1);
        }
    }
    for (writer, &count) in (0..).zip(&counts) {
        let before = known[writer as usize];
        let promised = promised.get(&writer).copied().unwrap_or(0).max(before);
        ensure!(count >= promised, "writer {writer}: {promised} commits were acknowledged, {count} are there");
        let last = last.get(&writer).copied().unwrap_or(before);
        ensure!(count <= last + 1, "writer {writer}: {count} commits are there, but only {last} were told of");
    }
    // A hole: a commit that is there although an earlier one is not.
    let is_there = |writer: u64, number: u64| number < counts[writer as usize];
    let newest = told.acknowledged.iter().filter(|(w, n, ..)| is_there(*w, *n)).map(|(.., seqno, _)| *seqno).max();
    for (writer, number, seqno, _) in &told.acknowledged {
        let lost = !is_there(*writer, *number);
        ensure!(!lost || Some(*seqno) > newest, "commit {seqno} is lost, {newest:?} is there: not a prefix");
    }
    let snapshot = db.snapshot();
    let mut found = contents(&snapshot, HYBRID);
    found.extend(contents(&snapshot, ROW));
    let expected = expected(&counts);
    let differs = found.keys().chain(expected.keys()).find(|key| found.get(*key) != expected.get(*key));
    ensure!(differs.is_none(), "after {counts:?} transactions row {differs:?} is not what was written");
    *known = counts;
    drop(snapshot);
    // Half of the time the next process finds a directory that nobody closed.
    if seed.is_multiple_of(2) { Ok(db.close()?) } else { Ok(()) }
}
