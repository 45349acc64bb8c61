//! Random workloads over random options, and what they may leave behind: the driver that the power-loss, fault and
//! disk-full tests share.
//!
//! A workload is one seed. It commits transactions over a few keys of three tables, durable and buffered, and has them
//! flushed, converted, merged, compacted, copied, dropped and opened again in between and in the middle. The driver writes
//! down what it tried and what it was told ([`History`]), so that at any operation of the simulated machine the set of
//! states that a reopened database may have is known: those between the newest commit acknowledged as durable and the
//! newest commit begun.
//!
//! Everything the driver is told is checked at once: live reads and held snapshots show the model's rows, and an error
//! changes nothing that was acknowledged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use strata_oltp::compaction::{CompactionOptions, CompactionPolicy};
use strata_oltp::db::Durability;
use strata_oltp::env::capped::CappedEnv;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::schema::StorageKind;
use strata_oltp::wal::WalOptions;
use strata_oltp::{Db, Error, FileKind, Options, Result, Snapshot, TableId};

use super::gate::{Gate, GatedTier, Moment};
use super::{DIR, HYBRID, MakeTier, ROW, Rows, SHORT_LIVED, key, row_with, schema, try_contents};

const TABLES: [TableId; 3] = [HYBRID, ROW, SHORT_LIVED];

/// A stream of numbers from a seed: `SplitMix64` (Steele, Lea, Flood, 2014).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5eed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Options at which a short workload seals, flushes, paces, rolls and recycles.
pub fn random_options(numbers: &mut Numbers) -> Options {
    Options {
        memory_bytes_max: 64 << 20,
        memtable_bytes_max: numbers.pick(&[400, 1_000, 2_500, 8_000, 1 << 20]),
        sealed_bytes_max: numbers.pick(&[0, 2_000, 20_000]),
        block_cache_bytes_max: numbers.pick(&[1 << 12, 1 << 16]),
        open_files_max: numbers.pick(&[1, 3, 10_000]),
        wal_bytes_max: numbers.pick(&[6_000, 30_000, 1 << 30]),
        idle_flush_ms: numbers.pick(&[0, 10, u64::MAX]),
        retention_ms: numbers.pick(&[0, 0, 3_600_000]),
        memtables_bytes_max: numbers.pick(&[4_000, 64 << 20]),
        buffered_sync_interval_ms: numbers.pick(&[0, 5, 1_000]),
        wal: WalOptions {
            segment_bytes: 4_096 + numbers.pick(&[200, 500, 2_000, 8_000]),
            fill_bytes: numbers.pick(&[0, 5_000, 1 << 14]),
            spare_count_max: numbers.pick(&[0, 1, 2]),
            buffer_bytes_max: numbers.pick(&[0, 300, 1 << 20]),
        },
        ..Options::default()
    }
}

/// Opens the database in `dir` of a simulated machine.
pub fn open_at(env: &SimEnv, dir: &Path, options: &Options, make_tier: MakeTier, gate: &Arc<Gate>) -> Result<Db> {
    let shared = CappedEnv::around(Arc::new(env.clone()), options.open_files_max);
    let tier = GatedTier::make(make_tier(&shared, dir), gate);
    let db = Db::open(shared, dir, options.clone(), tier)?;
    super::register(&db);
    super::shape(&db, levels(options));
    Ok(db)
}

/// A shape of levels that follows from the other options: from rows that all go to value files to none.
fn levels(options: &Options) -> CompactionOptions {
    let mut numbers = Numbers::new(options.memtable_bytes_max ^ options.wal.segment_bytes);
    let shape = match numbers.one_in(2) {
        true => CompactionOptions::default(),
        false => CompactionOptions { file_bytes_max: 300, ..super::tiny_levels(CompactionPolicy::Leveled) },
    };
    CompactionOptions {
        large_value_bytes: numbers.pick(&[0, 1, super::LARGE, 1_000]),
        value_garbage_percent_min: numbers.pick(&[1, 50, 90]),
        value_file_bytes_max: numbers.pick(&[1, 500, 1 << 20]),
        ..shape
    }
}

/// All rows of all tables, by scan and by point read, present and absent.
pub fn everything(snapshot: &Snapshot, keys: i32) -> Result<Rows> {
    let mut rows = Rows::new();
    for table in TABLES {
        let found = try_contents(snapshot, table)?;
        for key in (0..keys).map(|id| key(table, id)).filter(|key| !found.contains_key(key)) {
            assert_eq!(snapshot.get(&schema(table), &key)?, None, "a point read finds what the scan does not: {key:?}");
        }
        rows.extend(found);
    }
    Ok(rows)
}

fn without(table: TableId, rows: &Rows) -> Rows {
    rows.iter()
        .filter(|(key, _)| !key.starts_with(&table.0.to_be_bytes()))
        .map(|(k, r)| (k.clone(), r.clone()))
        .collect()
}

/// What one process tried and was told.
#[derive(Clone, Default)]
pub struct History {
    /// State after each commit that was begun, the one found at the open first.
    states: Vec<Rows>,
    /// Operations of the machine when the commit that leads to each state began.
    begun: Vec<u64>,
    /// After so many operations, the state so far was known to be durable.
    durable: Vec<(u64, usize)>,
    /// States of commits that failed, each on top of the newest sound one: in the log or not. Empty again once a commit
    /// succeeds, because a failure of the log ends all commits.
    maybe: Vec<Rows>,
    /// Operations when the short-lived table began to be dropped; from then on nothing is said about it.
    dropped: Option<u64>,
}

impl History {
    fn starting_with(rows: Rows, ops: u64, dropped: Option<u64>) -> History {
        History { states: vec![rows], begun: vec![ops], durable: vec![(ops, 0)], maybe: Vec::new(), dropped }
    }

    fn newest(&self) -> &Rows {
        self.states.last().unwrap()
    }

    fn all_durable(&mut self, ops: u64) {
        self.durable.push((ops, self.states.len() - 1));
    }

    /// Checks rows found on a disk that holds what the first `ops` operations left (P1, P2).
    pub fn check(&self, found: &Rows, ops: u64) {
        let first = self.durable.iter().rev().find(|(at, _)| *at <= ops).map_or(0, |(_, state)| *state);
        let last = self.begun.iter().rposition(|at| *at <= ops).unwrap_or(0);
        let is = |state: &Rows| match self.dropped.is_some_and(|at| at <= ops) {
            true => without(SHORT_LIVED, state) == without(SHORT_LIVED, found),
            false => state == found,
        };
        if self.states[first..=last].iter().rev().any(is) || self.maybe.iter().any(is) {
            return;
        }
        let which = self.states.iter().position(is);
        let newest = &self.states[last];
        let keys = found.keys().chain(newest.keys()).filter(|key| found.get(*key) != newest.get(*key));
        panic!(
            "after {ops} operations: state {which:?} of {} was found, must be one of {first}..={last}; to the latter it \
             differs in {:?}",
            self.states.len(),
            keys.collect::<std::collections::BTreeSet<_>>()
        );
    }
}

/// A copy that the workload made.
pub struct Copied {
    pub dir: PathBuf,
    /// Operations at the call.
    pub begun: u64,
    /// Operations at its success.
    pub done: Option<u64>,
}

/// Runs a workload, one random action at a time.
pub struct Driver {
    pub env: SimEnv,
    pub make_tier: MakeTier,
    pub options: Options,
    pub keys: i32,
    pub db: Option<Db>,
    pub copies: Vec<Copied>,
    copy_count: u64,
    /// The histories of the processes so far, each with the operations at which it began to count.
    epochs: Vec<(u64, History)>,
    gate: Arc<Gate>,
    numbers: Numbers,
    held: Vec<(Snapshot, Rows)>,
    /// Makes every row differ from every other.
    amount: i64,
}

impl Driver {
    /// A closed database on an empty machine.
    pub fn new(seed: u64, make_tier: MakeTier) -> Driver {
        let mut numbers = Numbers::new(seed);
        let options = random_options(&mut numbers);
        Driver {
            env: SimEnv::new(seed),
            make_tier,
            options,
            keys: numbers.pick(&[3, 8, 20]),
            db: None,
            copies: Vec::new(),
            copy_count: 0,
            epochs: vec![(0, History::starting_with(Rows::new(), 0, None))],
            gate: Arc::default(),
            numbers,
            held: Vec::new(),
            amount: 0,
        }
    }

    fn history(&mut self) -> &mut History {
        &mut self.epochs.last_mut().unwrap().1
    }

    /// Checks rows found on a disk that holds what the first `ops` operations left.
    pub fn check_found(&self, found: &Rows, ops: u64) {
        self.epochs.iter().rfind(|(from, _)| *from <= ops).unwrap().1.check(found, ops);
    }

    /// Checks rows found in a copy: those of a moment of the call.
    pub fn check_copy(&self, found: &Rows, copied: &Copied, ops: u64) {
        let (_, history) = self.epochs.iter().rfind(|(from, _)| *from <= copied.begun).unwrap();
        let mut history = history.clone();
        // Whatever was acknowledged later need not be in it.
        history.durable.retain(|(at, _)| *at <= copied.begun);
        history.check(found, copied.done.unwrap_or(ops));
    }

    /// Opens the database and holds what is found against the history.
    pub fn open(&mut self) -> Result<()> {
        let db = open_at(&self.env, Path::new(DIR), &self.options, self.make_tier, &self.gate)?;
        let dropped = self.history().dropped;
        if dropped.is_some() {
            // As the catalog has it: what no table claims is dropped again.
            db.drop_table(SHORT_LIVED)?;
        } else {
            db.register_table(schema(SHORT_LIVED), StorageKind::Hybrid);
        }
        let found = everything(&db.snapshot(), self.keys)?;
        let ops = self.env.ops();
        self.history().check(&found, ops);
        self.epochs.push((ops, History::starting_with(found, ops, dropped)));
        self.db = Some(db);
        Ok(())
    }

    /// Ends the process: in order, or with whatever was in its memory lost.
    pub fn close(&mut self, in_order: bool) -> Result<()> {
        self.held.clear();
        let Some(db) = self.db.take() else { return Ok(()) };
        if in_order {
            db.close()?;
            let ops = self.env.ops();
            self.history().all_durable(ops);
        }
        Ok(())
    }

    /// Continues on another machine, whose disk is durable as it stands.
    pub fn move_to(&mut self, env: SimEnv) {
        self.held.clear();
        self.db = None;
        self.copies.clear();
        let mut history = std::mem::take(self.history());
        // Numbers of operations begin anew.
        let first = history.durable.last().map_or(0, |(_, state)| *state);
        history.states.drain(..first);
        history.begun = vec![0; history.states.len()];
        history.durable = vec![(0, 0)];
        history.dropped = history.dropped.map(|_| 0);
        self.epochs = vec![(0, history)];
        self.env = env;
    }

    /// One action, or the opening of a closed database.
    pub fn act(&mut self) -> Result<()> {
        self.env.advance(Duration::from_millis(self.numbers.below(8)));
        let Some(db) = self.db.clone() else { return self.open() };
        let table = self.numbers.pick(&TABLES[..2]);
        match self.numbers.below(100) {
            0..56 => self.commit(),
            56..62 => db.flush(Some(table)),
            62..66 => self.flush_all(&db),
            66..78 => db.step().map(drop),
            78..81 => db.convert(table),
            81..83 => db.compact(table),
            83..86 => db.merge_runs(ROW),
            86..90 => self.busy(db),
            90..93 => self.hold(&db),
            93..94 => self.copy(&db),
            94..95 => self.drop_table(&db),
            95..96 => db.allocate_row_ids(table, 2).map(drop),
            96..98 => {
                let in_order = self.numbers.one_in(2);
                drop(db);
                self.close(in_order)
            }
            _ => db.verify().map(drop),
        }
    }

    /// Reads everything, at the newest commit and at every held snapshot.
    ///
    /// # Errors
    /// The reads'; what they returned before was right.
    pub fn check_live(&mut self) -> Result<()> {
        let Some(db) = &self.db else { return Ok(()) };
        let found = everything(&db.snapshot(), self.keys)?;
        let history = &self.epochs.last().unwrap().1;
        if history.dropped.is_none() {
            assert_eq!(&found, history.newest(), "the newest state (P4)");
        } else {
            assert_eq!(without(SHORT_LIVED, &found), without(SHORT_LIVED, history.newest()), "the newest state (P4)");
        }
        for (snapshot, rows) in &self.held {
            assert_eq!(&everything(snapshot, self.keys)?, rows, "the state at {} (P3)", snapshot.seqno());
        }
        Ok(())
    }

    fn flush_all(&mut self, db: &Db) -> Result<()> {
        db.flush(None)?;
        // Its rows are in runs.
        let ops = self.env.ops();
        self.history().all_durable(ops);
        Ok(())
    }

    /// A random transaction.
    pub fn commit(&mut self) -> Result<()> {
        let Some(db) = self.db.clone() else { return Ok(()) };
        let durable = self.numbers.below(10) < 7;
        let mut state = self.history().newest().clone();
        let mut transaction = db.begin()?;
        for _ in 0..1 + self.numbers.below(5) {
            let alive = if self.history().dropped.is_some() { 2 } else { 3 };
            let (table, id) = (self.numbers.pick(&TABLES[..alive]), self.numbers.below(self.keys as u64) as i32);
            let key = key(table, id);
            if self.numbers.one_in(4) {
                transaction.delete(table, key.clone())?;
                state.remove(&key);
            } else {
                self.amount += 1;
                let length = if self.numbers.one_in(25) { 3_000 } else { self.numbers.below(40) };
                let note = (length % 5 > 0).then(|| "n".repeat(length as usize));
                let row = row_with(table, id, self.amount, note.as_deref());
                transaction.put(table, key.clone(), row.clone())?;
                state.insert(key, row);
            }
        }
        let ops = self.env.ops();
        let history = self.history();
        history.states.push(state);
        history.begun.push(ops);
        let outcome = transaction.commit(if durable { Durability::Durable } else { Durability::Buffered });
        let ops = self.env.ops();
        let history = self.history();
        match outcome {
            Ok(_) => {
                history.maybe.clear();
                if durable {
                    history.all_durable(ops);
                }
                Ok(())
            }
            Err(error) => {
                assert!(!matches!(error, Error::Conflict { .. }), "a conflict without a rival");
                history.begun.pop();
                history.maybe.extend(history.states.pop());
                Err(error)
            }
        }
    }

    /// Commits and a flush in the middle of a conversion.
    fn busy(&mut self, db: Db) -> Result<()> {
        let moment = self.numbers.pick(&[Moment::BeforeRun, Moment::AfterRun, Moment::AfterTranslate]);
        let compact = self.numbers.one_in(2);
        let gate = Arc::clone(&self.gate);
        let flushed = db.clone();
        let job = move || if compact { db.compact(HYBRID) } else { db.convert(HYBRID) };
        let meanwhile = || -> Result<()> {
            for _ in 0..1 + self.numbers.below(4) {
                self.commit()?;
                if self.numbers.one_in(4) {
                    flushed.flush(None)?;
                }
            }
            self.check_live()
        };
        let (job, meanwhile) = gate.interrupt(moment, job, meanwhile);
        meanwhile.unwrap_or(Ok(()))?;
        job
    }

    fn hold(&mut self, db: &Db) -> Result<()> {
        if self.held.len() < 3 && self.history().dropped.is_none() {
            let snapshot = db.snapshot();
            let rows = self.history().newest().clone();
            self.held.push((snapshot, rows));
        } else if !self.held.is_empty() {
            let nth = self.numbers.below(self.held.len() as u64) as usize;
            self.held.remove(nth);
        }
        Ok(())
    }

    fn copy(&mut self, db: &Db) -> Result<()> {
        self.copy_count += 1;
        let dir = PathBuf::from(format!("/copy{}", self.copy_count));
        self.copies.push(Copied { dir: dir.clone(), begun: self.env.ops(), done: None });
        db.checkpoint(&dir)?;
        self.copies.last_mut().unwrap().done = Some(self.env.ops());
        Ok(())
    }

    fn drop_table(&mut self, db: &Db) -> Result<()> {
        let ops = self.env.ops();
        self.history().dropped.get_or_insert(ops);
        db.drop_table(SHORT_LIVED)
    }
}

/// No file that the manifest does not name (I4).
pub fn check_files(env: &SimEnv, db: &Db) {
    let live = db.live_files();
    for (path, _) in env.files() {
        let folder = path.parent().unwrap();
        if folder.parent() == Some(Path::new(DIR)) && (folder.ends_with("runs") || folder.ends_with("segments")) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let file = FileKind::parse(&name).unwrap_or_else(|| panic!("foreign file {name}"));
            assert!(live.contains(&file), "I4: orphan {name}");
        }
    }
}
