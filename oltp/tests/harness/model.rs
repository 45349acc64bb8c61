//! The row store as a whole against a versioned map: random transactions from several sessions, with flush,
//! conversion, merging, compaction and reopening in between, and in the middle of a conversion, must give what the map
//! gives, at every snapshot held.
//!
//! What is compared: point reads and full scans of every open transaction (own writes included), conflicts (first
//! committer wins, exactly), and the newest state after each step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use strata_oltp::compaction::{CompactionOptions, CompactionPolicy};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::capped::CappedEnv;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::schema::StorageKind;
use strata_oltp::{Db, Error, Options, SeqNo, Snapshot, TableId, Transaction};

use super::gate::{Gate, GatedTier, Moment};
use super::{DIR, HYBRID, MakeTier, ROW, Rows, contents, key, row, schema, shape, small_log, tiny_levels};

const TABLES: [(TableId, StorageKind); 2] = [(HYBRID, StorageKind::Hybrid), (ROW, StorageKind::Row)];
const KEYS: i32 = 12;
const SESSIONS: usize = 3;

#[derive(Clone, Debug)]
pub enum Step {
    Begin(usize),
    Put(usize, usize, i32, i64),
    Delete(usize, usize, i32),
    Savepoint(usize),
    RollbackTo(usize),
    Commit(usize, bool),
    Rollback(usize),
    Flush(usize),
    FlushAll,
    Work,
    /// Background work until there is none.
    Settle,
    Convert(usize),
    Compact(usize),
    Merge(usize),
    Hold,
    /// Reads the state after one of the commits so far.
    AsOf(usize),
    Reopen,
    /// The steps happen while the hybrid table is converted, or compacted if the flag says so.
    During(bool, Moment, Vec<Step>),
}

pub fn step() -> impl Strategy<Value = Step> {
    let moment = prop_oneof![Just(Moment::BeforeRun), Just(Moment::AfterRun), Just(Moment::AfterTranslate)];
    let during = (any::<bool>(), moment, prop::collection::vec(foreground_step(), 1..12));
    let table = 0..TABLES.len();
    prop_oneof![
        30 => foreground_step(),
        5 => Just(Step::Work),
        1 => Just(Step::Settle),
        2 => table.clone().prop_map(Step::Convert),
        1 => table.clone().prop_map(Step::Compact),
        1 => table.prop_map(Step::Merge),
        1 => Just(Step::Reopen),
        2 => during.prop_map(|(compact, moment, steps)| Step::During(compact, moment, steps)),
    ]
}

/// What can happen while a conversion runs.
fn foreground_step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    let table = 0..TABLES.len();
    prop_oneof![
        3 => session.clone().prop_map(Step::Begin),
        12 => (session.clone(), table.clone(), 0..KEYS, 0i64..1_000).prop_map(|(s, t, k, v)| Step::Put(s, t, k, v)),
        5 => (session.clone(), table.clone(), 0..KEYS).prop_map(|(s, t, k)| Step::Delete(s, t, k)),
        1 => session.clone().prop_map(Step::Savepoint),
        1 => session.clone().prop_map(Step::RollbackTo),
        6 => (session.clone(), any::<bool>()).prop_map(|(s, durable)| Step::Commit(s, durable)),
        1 => session.prop_map(Step::Rollback),
        3 => table.prop_map(Step::Flush),
        1 => Just(Step::FlushAll),
        1 => Just(Step::Hold),
        2 => any::<usize>().prop_map(Step::AsOf),
    ]
}

type State = [Rows; TABLES.len()];
type Writes = BTreeMap<(usize, Vec<u8>), Option<Vec<u8>>>;

/// What the database should be: every committed state since the last reopen, by SeqNo.
#[derive(Default)]
struct Model {
    states: BTreeMap<SeqNo, State>,
    last_write: BTreeMap<(usize, Vec<u8>), SeqNo>,
}

struct Session {
    transaction: Transaction,
    writes: Writes,
    savepoints: Vec<(strata_oltp::txn::Savepoint, Writes)>,
}

pub struct Machine {
    make_tier: MakeTier,
    options: Options,
    env: Arc<dyn Env>,
    gate: Arc<Gate>,
    compaction: CompactionOptions,
    db: Option<Db>,
    model: Model,
    sessions: [Option<Session>; SESSIONS],
    held: Vec<Snapshot>,
}

impl Machine {
    /// Tiny limits, so that rotation and pacing happen within a few dozen steps.
    pub fn new(make_tier: MakeTier) -> Machine {
        Machine::with_retention(make_tier, 0)
    }

    /// A machine that keeps the states of the past for `retention_ms`, which it must not outlive.
    pub fn with_retention(make_tier: MakeTier, retention_ms: u64) -> Machine {
        let options = Options {
            retention_ms,
            memtable_bytes_max: 2_000,
            sealed_bytes_max: 6_000,
            idle_flush_ms: u64::MAX,
            open_files_max: 2,
            wal: small_log(),
            ..Options::default()
        };
        Machine::with_options(make_tier, options)
    }

    pub fn with_options(make_tier: MakeTier, options: Options) -> Machine {
        // The cold tier shares the cap.
        let env = CappedEnv::around(Arc::new(MemEnv::new()), options.open_files_max);
        let mut model = Model::default();
        model.states.insert(SeqNo::ZERO, State::default());
        let gate = Arc::default();
        let db = Some(open(&env, &options, make_tier, &gate));
        let compaction = tiny_levels(CompactionPolicy::Leveled);
        shape(db.as_ref().unwrap(), compaction.clone());
        Machine {
            make_tier,
            options,
            env,
            gate,
            compaction,
            db,
            model,
            sessions: [const { None }; SESSIONS],
            held: Vec::new(),
        }
    }

    /// The machine with another shape of its table of rows.
    pub fn with_compaction(mut self, compaction: CompactionOptions) -> Machine {
        shape(self.db(), compaction.clone());
        self.compaction = compaction;
        self
    }

    fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    fn session(&mut self, at: usize) -> &mut Session {
        if self.sessions[at].is_none() {
            let transaction = self.db().begin().unwrap();
            self.sessions[at] = Some(Session { transaction, writes: Writes::new(), savepoints: Vec::new() });
        }
        self.sessions[at].as_mut().unwrap()
    }

    pub fn apply(&mut self, step: &Step) {
        match *step {
            Step::Begin(at) => {
                self.session(at);
            }
            Step::Put(at, table, key, value) => self.write(at, table, key, Some(value)),
            Step::Delete(at, table, key) => self.write(at, table, key, None),
            Step::Savepoint(at) => {
                let session = self.session(at);
                let savepoint = session.transaction.savepoint();
                session.savepoints.push((savepoint, session.writes.clone()));
            }
            Step::RollbackTo(at) => {
                let session = self.session(at);
                if let Some((savepoint, writes)) = session.savepoints.last().cloned() {
                    session.transaction.rollback_to(&savepoint);
                    session.writes = writes;
                }
            }
            Step::Commit(at, durable) => self.commit(at, durable),
            Step::Rollback(at) => self.sessions[at] = None,
            Step::Flush(table) => self.db().flush(Some(TABLES[table].0)).unwrap(),
            Step::FlushAll => self.db().flush(None).unwrap(),
            Step::Work => drop(self.db().step().unwrap()),
            Step::Settle => while self.db().step().unwrap() {},
            Step::Convert(table) | Step::Compact(table) if TABLES[table].1 == StorageKind::Row => {
                self.db().merge_runs(TABLES[table].0).unwrap();
            }
            Step::Convert(table) => self.db().convert(TABLES[table].0).unwrap(),
            Step::Compact(table) => self.db().compact(TABLES[table].0).unwrap(),
            Step::Merge(table) => self.db().merge_runs(TABLES[table].0).unwrap(),
            Step::Hold => {
                self.held.truncate(2);
                self.held.push(self.db().snapshot());
            }
            Step::AsOf(nth) => self.read_past(nth),
            Step::Reopen => self.reopen(),
            Step::During(compact, moment, ref steps) => self.during(compact, moment, steps),
        }
    }

    fn write(&mut self, at: usize, table: usize, id: i32, amount: Option<i64>) {
        let table_id = TABLES[table].0;
        let (key, row) = (key(table_id, id), amount.map(|amount| row(table_id, id, amount)));
        let session = self.session(at);
        match &row {
            Some(row) => session.transaction.put(table_id, key.clone(), row.clone()).unwrap(),
            None => session.transaction.delete(table_id, key.clone()).unwrap(),
        }
        session.writes.insert((table, key), row);
    }

    fn commit(&mut self, at: usize, durable: bool) {
        let Some(Session { transaction, writes, .. }) = self.sessions[at].take() else { return };
        let snapshot = transaction.snapshot().seqno();
        let read_only = transaction.is_read_only();
        let conflict = writes.keys().any(|key| self.model.last_write.get(key).is_some_and(|seqno| *seqno > snapshot));
        let result = transaction.commit(if durable { Durability::Durable } else { Durability::Buffered });
        match result {
            Ok(seqno) if read_only => assert_eq!(seqno, snapshot),
            Ok(seqno) => {
                assert!(!conflict, "the first committer wins");
                let (newest, mut state) = self.model.states.last_key_value().map(|(s, m)| (*s, m.clone())).unwrap();
                assert!(seqno > newest, "I2: SeqNos rise");
                for ((table, key), value) in writes {
                    match value {
                        Some(value) => state[table].insert(key.clone(), value),
                        None => state[table].remove(&key),
                    };
                    self.model.last_write.insert((table, key), seqno);
                }
                self.model.states.insert(seqno, state);
                assert!(self.db().snapshot().seqno() >= seqno, "P4: acknowledged is visible");
            }
            Err(Error::Conflict { .. }) => assert!(conflict && !read_only, "a conflict without a rival"),
            Err(error) => panic!("commit failed: {error}"),
        }
    }

    fn read_past(&self, nth: usize) {
        let (seqno, state) = self.model.states.iter().nth(nth % self.model.states.len()).unwrap();
        match self.db().snapshot_at(*seqno) {
            Ok(snapshot) => check_state(&snapshot, state, "past"),
            // Only where nothing is kept, and never the newest.
            Err(Error::HistoryGone { .. }) => {
                let newest = self.model.states.last_key_value().unwrap().0;
                assert!(self.options.retention_ms == 0 && seqno < newest, "commit {seqno} is gone");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn during(&mut self, compact: bool, moment: Moment, steps: &[Step]) {
        let (db, gate, table) = (self.db().clone(), Arc::clone(&self.gate), TABLES[0].0);
        let job = move || if compact { db.compact(table) } else { db.convert(table) };
        let meanwhile = || {
            for step in steps {
                self.apply(step);
                self.check();
            }
        };
        gate.interrupt(moment, job, meanwhile).0.unwrap();
    }

    fn reopen(&mut self) {
        self.sessions = [const { None }; SESSIONS];
        self.held.clear();
        self.db.take().unwrap().close().unwrap();
        self.db = Some(open(&self.env, &self.options, self.make_tier, &self.gate));
        shape(self.db(), self.compaction.clone());
    }

    pub fn check(&self) {
        let newest = self.db().snapshot();
        check_state(&newest, self.model.state_at(newest.seqno()), "newest");
        for (at, (table, _)) in TABLES.iter().enumerate() {
            for key in (0..KEYS).map(|id| key(*table, id)) {
                let row = self.db().get(&schema(*table), &key).unwrap();
                assert_eq!(row.as_ref(), self.model.state_at(newest.seqno())[at].get(&key), "newest row of {key:?}");
            }
        }
        for snapshot in &self.held {
            check_state(snapshot, self.model.state_at(snapshot.seqno()), "held");
        }
        for session in self.sessions.iter().flatten() {
            let mut state = self.model.state_at(session.transaction.snapshot().seqno()).clone();
            for ((table, key), value) in &session.writes {
                match value {
                    Some(value) => state[*table].insert(key.clone(), value.clone()),
                    None => state[*table].remove(key),
                };
            }
            for (at, (table, _)) in TABLES.iter().enumerate() {
                for key in (0..KEYS).map(|id| key(*table, id)) {
                    let found = session.transaction.get(&schema(*table), &key).unwrap();
                    assert_eq!(found.as_ref(), state[at].get(&key), "own read of {key:?}");
                }
            }
        }
    }
}

impl Model {
    fn state_at(&self, seqno: SeqNo) -> &State {
        self.states.range(..=seqno).next_back().unwrap().1
    }
}

/// Shapes of levels so small that a dozen rows fill several.
pub fn any_compaction() -> impl Strategy<Value = CompactionOptions> {
    const POLICIES: [CompactionPolicy; 3] =
        [CompactionPolicy::Leveled, CompactionPolicy::Tiered, CompactionPolicy::LazyLeveled];
    let bytes = || prop_oneof![Just(1u64), 300u64..3_000];
    let values = (prop::sample::select(&[0, 1, super::LARGE, 30][..]), 1u32..100, bytes());
    (prop::sample::select(&POLICIES[..]), 2u32..4, 1u32..4, bytes(), bytes(), bytes(), 1u32..80, values).prop_map(
        |(policy, size_ratio, level0_runs_min, first, file, job, tombstone_percent_min, values)| CompactionOptions {
            policy,
            size_ratio,
            level0_runs_min,
            first_level_bytes_max: first,
            file_bytes_max: file,
            job_bytes_max: job,
            tombstone_percent_min,
            large_value_bytes: values.0,
            value_garbage_percent_min: values.1,
            value_file_bytes_max: values.2,
            ..CompactionOptions::default()
        },
    )
}

fn open(env: &Arc<dyn Env>, options: &Options, make_tier: MakeTier, gate: &Arc<Gate>) -> Db {
    super::open(env, options.clone(), GatedTier::make(make_tier(env, Path::new(DIR)), gate)).unwrap()
}

fn check_state(snapshot: &Snapshot, state: &State, which: &str) {
    for (at, (table, _)) in TABLES.iter().enumerate() {
        assert_eq!(contents(snapshot, *table), state[at], "{which} state of {table:?} at {}", snapshot.seqno());
        for key in (0..KEYS).map(|id| key(*table, id)) {
            let row = snapshot.get(&schema(*table), &key).unwrap();
            assert_eq!(row.as_ref(), state[at].get(&key), "{which} point read of {key:?} at {}", snapshot.seqno());
        }
    }
}
