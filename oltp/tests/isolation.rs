//! What concurrent transactions may do to each other, at each isolation level.
//!
//! `scripts/isolation/` has the anomalies of Hermitage, one transaction's step at a time: snapshot isolation must stop all
//! but G2-item and G2, serializable all of them. Then random transactions, interleaved by a seed and by real threads, are
//! judged by a checker that knows the order of commits only: it builds Adya's graph of dependencies and looks for circles.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use goldenscript::{Command, Context, Runner};
use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, contents, key, row, schema};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::key::table_range;
use strata_oltp::row::{RowCodec, RowRef};
use strata_oltp::{Db, Error, Isolation, Options, SeqNo, Transaction, TransactionOptions};

fn open(options: Options) -> Db {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap()
}

fn begin(db: &Db, isolation: Isolation) -> Transaction {
    db.begin_with(TransactionOptions { isolation, ..TransactionOptions::default() }).unwrap()
}

fn amount(bytes: &[u8]) -> i64 {
    RowRef::new(&RowCodec::new(&schema(HYBRID)), bytes).unwrap().i64(1)
}

fn id(key: &[u8]) -> i32 {
    (0..100).find(|id| harness::key(HYBRID, *id) == key).unwrap()
}

fn get(transaction: &Transaction, id: i32) -> Option<i64> {
    transaction.get(&schema(HYBRID), &key(HYBRID, id)).unwrap().map(|row| amount(&row))
}

fn scan(transaction: &Transaction, from: i32, to: i32) -> Vec<(i32, i64)> {
    let (start, end) = (key(HYBRID, from), key(HYBRID, to));
    let rows = transaction.scan(&schema(HYBRID), &start..&end).unwrap();
    rows.iter().map(|(key, row)| (id(key), amount(row))).collect()
}

fn put(transaction: &mut Transaction, id: i32, value: i64) {
    transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, value)).unwrap();
}

fn delete(transaction: &mut Transaction, id: i32) {
    transaction.delete(HYBRID, key(HYBRID, id)).unwrap();
}

/// Runs scripts of numbered transactions.
struct Script {
    db: Db,
    open: BTreeMap<i64, Transaction>,
    savepoints: BTreeMap<i64, strata_oltp::Savepoint>,
}

impl Script {
    fn new() -> Script {
        let script = Script { db: open(Options::default()), open: BTreeMap::new(), savepoints: BTreeMap::new() };
        let mut first = script.db.begin().unwrap();
        put(&mut first, 1, 10);
        put(&mut first, 2, 20);
        first.commit(Durability::Durable).unwrap();
        script
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn std::error::Error>> {
        let (mut rest, mut args) = (command.consume_args(), Vec::new());
        while let Some(arg) = rest.next_pos() {
            args.push(arg.parse::<String>()?);
        }
        let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<i64>().ok()).unwrap_or(0);
        let small = |at: usize| i32::try_from(number(at)).unwrap();
        let mut output = String::new();
        match command.name.as_str() {
            "reset" => *self = Script::new(),
            "begin" => {
                let isolation = match args[1].as_str() {
                    "serializable" => Isolation::Serializable,
                    _ => Isolation::Snapshot,
                };
                let read_only = args.get(2).is_some();
                let options = TransactionOptions { isolation, read_only, ..TransactionOptions::default() };
                self.open.insert(number(0), self.db.begin_with(options).unwrap());
            }
            "get" => writeln!(output, "{}: row {} is {:?}", args[0], args[1], get(&self.open[&number(0)], small(1)))?,
            "scan" => {
                let found = scan(&self.open[&number(0)], small(1), small(2));
                writeln!(output, "{}: {found:?}", args[0])?;
            }
            "put" => put(self.open.get_mut(&number(0)).unwrap(), small(1), number(2)),
            "delete" => delete(self.open.get_mut(&number(0)).unwrap(), small(1)),
            "savepoint" => {
                let savepoint = self.open.get_mut(&number(0)).unwrap().savepoint();
                self.savepoints.insert(number(0), savepoint);
            }
            "rollback_to" => self.open.get_mut(&number(0)).unwrap().rollback_to(&self.savepoints[&number(0)]),
            "rollback" => drop(self.open.remove(&number(0))),
            "commit" => {
                let transaction = self.open.remove(&number(0)).unwrap();
                match transaction.commit(Durability::Durable) {
                    Ok(_) => writeln!(output, "{}: committed", args[0])?,
                    Err(Error::Conflict { .. }) => writeln!(output, "{}: conflict", args[0])?,
                    Err(error) => return Err(error.into()),
                }
            }
            "show" => {
                let rows = contents(&self.db.snapshot(), HYBRID);
                let rows: Vec<(i32, i64)> = rows.iter().map(|(key, row)| (id(key), amount(row))).collect();
                writeln!(output, "{rows:?}")?;
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        Ok(output)
    }
}

#[test]
fn hermitage_at_snapshot_isolation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/isolation/snapshot");
    goldenscript::run(&mut Script::new(), path).unwrap();
}

#[test]
fn hermitage_at_serializable() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/isolation/serializable");
    goldenscript::run(&mut Script::new(), path).unwrap();
}

const KEYS: i32 = 8;

/// A committed transaction, as an observer outside sees it.
#[derive(Debug)]
struct Observed {
    snapshot: SeqNo,
    /// `None` if it wrote nothing.
    commit: Option<SeqNo>,
    /// Single keys, and each key of every range, with what stood there.
    reads: Vec<(i32, Option<i64>)>,
    writes: BTreeMap<i32, Option<i64>>,
}

/// Reads are right for their snapshots, and whether the transactions can be put into one order.
///
/// Edges of the graph: writer of a version → writer of the next, writer → its readers, reader → writer of the next version.
/// Source: "Generalized Isolation Level Definitions" (Adya, Liskov and O'Neil, 2000).
fn is_serializable(history: &[Observed]) -> bool {
    let mut versions: BTreeMap<i32, Vec<(SeqNo, usize)>> = BTreeMap::new();
    for (at, observed) in history.iter().enumerate() {
        for written in observed.writes.keys() {
            versions.entry(*written).or_default().push((observed.commit.unwrap(), at));
        }
    }
    versions.values_mut().for_each(|versions| versions.sort_unstable());
    let mut edges: Vec<Vec<usize>> = vec![Vec::new(); history.len()];
    for versions in versions.values() {
        versions.windows(2).for_each(|pair| edges[pair[0].1].push(pair[1].1));
    }
    for (at, observed) in history.iter().enumerate() {
        for (id, found) in &observed.reads {
            let versions = versions.get(id).map_or(&[][..], Vec::as_slice);
            let next = versions.partition_point(|(seqno, _)| *seqno <= observed.snapshot);
            let read = next.checked_sub(1).map(|at| versions[at].1);
            let expected = read.and_then(|writer| history[writer].writes[id]);
            assert_eq!(*found, expected, "row {id} at {}", observed.snapshot);
            edges[at].extend(versions.get(next).map(|(_, writer)| *writer).filter(|writer| *writer != at));
            if let Some(writer) = read {
                edges[writer].push(at);
            }
        }
    }
    has_no_circle(&edges)
}

/// Whether everything can be taken away, node by node, each time one without edges into it (Kahn, 1962).
fn has_no_circle(edges: &[Vec<usize>]) -> bool {
    let mut incoming = vec![0; edges.len()];
    edges.iter().flatten().for_each(|to| incoming[*to] += 1);
    let mut free: Vec<usize> = (0..edges.len()).filter(|at| incoming[*at] == 0).collect();
    let mut taken = 0;
    while let Some(at) = free.pop() {
        taken += 1;
        for to in &edges[at] {
            incoming[*to] -= 1;
            if incoming[*to] == 0 {
                free.push(*to);
            }
        }
    }
    taken == edges.len()
}

/// A linear congruential step: Knuth, TAOCP vol. 2, 3.3.4.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn id(&mut self) -> i32 {
        i32::try_from(self.below(KEYS as u64)).unwrap()
    }
}

struct Client {
    transaction: Transaction,
    observed: Observed,
}

impl Client {
    fn begin(db: &Db, options: TransactionOptions) -> Client {
        let transaction = db.begin_with(options).unwrap();
        let (snapshot, reads, writes) = (transaction.snapshot().seqno(), Vec::new(), BTreeMap::new());
        Client { transaction, observed: Observed { snapshot, commit: None, reads, writes } }
    }

    fn step(&mut self, random: &mut Random) {
        let id = random.id();
        let observed = &mut self.observed;
        let is_own = |id: &i32| observed.writes.contains_key(id);
        match random.below(6) {
            0 | 1 => {
                let found = get(&self.transaction, id);
                if !is_own(&id) {
                    observed.reads.push((id, found));
                }
            }
            2 => {
                let end = (id + 3).min(KEYS);
                let found: BTreeMap<i32, i64> = scan(&self.transaction, id, end).into_iter().collect();
                let others = (id..end).filter(|id| !is_own(id)).map(|id| (id, found.get(&id).copied()));
                let others: Vec<_> = others.collect();
                observed.reads.extend(others);
            }
            _ if self.transaction.options().read_only => {}
            3 => {
                delete(&mut self.transaction, id);
                observed.writes.insert(id, None);
            }
            _ => {
                let value = i64::try_from(random.below(1 << 30)).unwrap();
                put(&mut self.transaction, id, value);
                observed.writes.insert(id, Some(value));
            }
        }
    }

    fn commit(self, durability: Durability) -> Option<Observed> {
        let mut observed = self.observed;
        match self.transaction.commit(durability) {
            Ok(seqno) => {
                observed.commit = (!observed.writes.is_empty()).then_some(seqno);
                Some(observed)
            }
            Err(Error::Conflict { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn any_options(random: &mut Random, isolation: Isolation) -> TransactionOptions {
    TransactionOptions { isolation, read_only: random.below(5) == 0, ..TransactionOptions::default() }
}

/// Transactions of four clients, their steps in an order made of `seed`.
fn interleaved(seed: u64, isolation: Isolation) -> Vec<Observed> {
    let mut random = Random(seed);
    let db = open(Options { memtable_bytes_max: 2_000, ..Options::default() });
    let (mut clients, mut history): ([Option<Client>; 4], _) = ([const { None }; 4], Vec::new());
    for _ in 0..300 {
        let at = usize::try_from(random.below(4)).unwrap();
        match clients[at].take() {
            None => clients[at] = Some(Client::begin(&db, any_options(&mut random, isolation))),
            Some(client) if random.below(5) == 0 => history.extend(client.commit(Durability::Buffered)),
            Some(mut client) => {
                client.step(&mut random);
                clients[at] = Some(client);
            }
        }
        if random.below(40) == 0 {
            db.convert(HYBRID).unwrap();
        }
    }
    assert!(history.len() > 10, "some must get through");
    history
}

#[test]
fn random_serializable_transactions_have_an_order() {
    for seed in 0..300 {
        assert!(is_serializable(&interleaved(seed, Isolation::Serializable)), "seed {seed}");
    }
}

/// The checker is worth something only if it finds what snapshot isolation lets through.
#[test]
fn random_transactions_at_snapshot_isolation_show_write_skew() {
    let skewed = (0..30).filter(|seed| !is_serializable(&interleaved(*seed, Isolation::Snapshot))).count();
    assert!(skewed > 20, "{skewed} of 30 histories with a circle");
}

/// The same with threads, so that commits meet in the pipeline.
#[test]
fn concurrent_serializable_transactions_have_an_order() {
    let db = open(Options { memtable_bytes_max: 4_000, idle_flush_ms: 5, ..Options::default() });
    db.start_background();
    let history = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, history) = (&db, &history);
            scope.spawn(move || {
                let mut random = Random(thread);
                for nth in 0..400 {
                    let mut client = Client::begin(db, any_options(&mut random, Isolation::Serializable));
                    for _ in 0..1 + random.below(5) {
                        client.step(&mut random);
                        std::thread::yield_now();
                    }
                    let durability = if nth % 8 == 0 { Durability::Durable } else { Durability::Buffered };
                    history.lock().unwrap().extend(client.commit(durability));
                }
            });
        }
    });
    let history = history.into_inner().unwrap();
    assert!(history.len() > 400 && is_serializable(&history), "{} committed", history.len());
}

/// A reader past the transaction's own calls says what it reads; a whole table is a range like any other.
#[test]
fn what_is_noted_from_above_is_checked() {
    let db = open(Options::default());
    let commit = |transaction: Transaction| transaction.commit(Durability::Buffered);
    let table = table_range(HYBRID);
    let notes: [&dyn Fn(&Transaction); 2] =
        [&|t| t.note_range(HYBRID, &table.start..&table.end), &|t| t.note_key(HYBRID, &key(HYBRID, 7))];
    for note in notes {
        let mut reader = begin(&db, Isolation::Serializable);
        note(&reader);
        put(&mut reader, 1, 1);
        let mut writer = begin(&db, Isolation::Snapshot);
        put(&mut writer, 7, 1);
        commit(writer).unwrap();
        assert!(matches!(commit(reader), Err(Error::Conflict { table: HYBRID, .. })));
    }
}

/// A transaction whose part of the recent commits had to be dropped is refused, and so not wrong.
#[test]
fn forgotten_commits_refuse_old_transactions() {
    let db = open(Options { recent_commits_bytes_max: 2_000, ..Options::default() });
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let mut old = begin(&db, isolation);
        assert_eq!(scan(&old, 50, 60), []);
        for id in 0..40 {
            let mut writer = begin(&db, Isolation::Snapshot);
            put(&mut writer, id, 1);
            writer.commit(Durability::Buffered).unwrap();
        }
        put(&mut old, 99, 1);
        assert!(matches!(old.commit(Durability::Buffered), Err(Error::Conflict { .. })), "{isolation:?}");
        let mut next = begin(&db, isolation);
        put(&mut next, 99, 1);
        next.commit(Durability::Buffered).unwrap();
    }
    let used = db.budget().usage_by_consumer().into_iter().find(|(name, _)| *name == "recent commits").unwrap().1;
    assert!(used <= 2_000, "{used} bytes");
}

/// Write sets and read sets above the size that is looked up key by key.
#[test]
fn large_transactions_are_checked_like_small_ones() {
    let db = open(Options::default());
    for (isolation, meets) in
        [(Isolation::Snapshot, true), (Isolation::Serializable, true), (Isolation::Snapshot, false)]
    {
        let mut large = begin(&db, isolation);
        for id in 0..2_000 {
            put(&mut large, id, 1);
        }
        let mut other_large = begin(&db, isolation);
        for id in 1_999..4_000 {
            put(&mut other_large, id, 1);
        }
        let mut small = begin(&db, isolation);
        put(&mut small, if meets { 1_500 } else { 5_000 }, 1);
        small.commit(Durability::Buffered).unwrap();
        let outcome = large.commit(Durability::Buffered);
        assert_eq!(matches!(outcome, Err(Error::Conflict { .. })), meets);
        let outcome = other_large.commit(Durability::Buffered);
        assert_eq!(matches!(outcome, Err(Error::Conflict { .. })), !meets, "they meet at one key");
    }
}

#[test]
fn a_read_only_transaction_refuses_writes_and_needs_no_check() {
    let db = open(Options::default());
    let options =
        TransactionOptions { isolation: Isolation::Serializable, read_only: true, ..TransactionOptions::default() };
    let mut reader = db.begin_with(options).unwrap();
    assert!(matches!(reader.put(HYBRID, key(HYBRID, 1), row(HYBRID, 1, 1)), Err(Error::Invalid(_))));
    assert!(matches!(reader.delete(HYBRID, key(HYBRID, 1)), Err(Error::Invalid(_))));
    assert_eq!(scan(&reader, 0, 99), []);
    let mut writer = begin(&db, Isolation::Serializable);
    put(&mut writer, 1, 1);
    writer.commit(Durability::Buffered).unwrap();
    assert_eq!(get(&reader, 1), None);
    reader.commit(Durability::Durable).unwrap();
}
