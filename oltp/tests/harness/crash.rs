//! Power loss at every operation: a workload of transactions, flushes, conversions, compactions and merges, some with
//! commits and a flush in the middle of them, runs in the simulated environment and the machine dies at its 1st, 2nd, ... last write, sync, create, rename or remove. After
//! each death the directory is opened again under three assumptions about what the disk had kept (nothing un-synced,
//! everything, a random half of the sectors and names), and must hold:
//!
//! * every acknowledged durable commit (P1, I1);
//! * exactly the state after some prefix of the commits, no commit in part (P2);
//! * each row once, by scan and by point read alike (I6, I7);
//! * no file that the manifest does not name (I4);
//! * and it must take another commit, and open once more.
//!
//! A failing case prints the operation and the assumption; both are arguments of `crash_once`.

use std::path::Path;
use std::sync::Arc;

use strata_oltp::compaction::{CompactionOptions, CompactionPolicy};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::{Db, FileKind, Options, Result};

use super::gate::{Gate, GatedTier, Moment};
use super::{DIR, HYBRID, MakeTier, ROW, Rows, contents, key, row, shape, small_log, tiny_levels};

/// What the workload did until it ended or the machine died.
#[derive(Default)]
pub struct History {
    /// State after each commit that was tried, the empty one first.
    states: Vec<Rows>,
    /// Number of commits that were acknowledged as durable.
    acknowledged: usize,
}

fn open(env: &SimEnv, make_tier: MakeTier, gate: &Arc<Gate>) -> Result<Db> {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let options =
        Options { memtable_bytes_max: 1_500, idle_flush_ms: u64::MAX, wal: small_log(), ..Options::default() };
    let tier = GatedTier::make(make_tier(&shared, Path::new(DIR)), gate);
    let db = super::open(&shared, options, tier)?;
    // Two or three rows to a file: each file costs operations, and each operation two lives.
    let levels = tiny_levels(CompactionPolicy::Leveled);
    shape(&db, CompactionOptions { level0_runs_min: 3, file_bytes_max: 130, ..levels });
    Ok(db)
}

/// Deterministic transactions over twelve keys of two tables, with every kind of background work in between.
pub fn workload(env: &SimEnv, make_tier: MakeTier, history: &mut History) -> Result<()> {
    history.states.push(Rows::new());
    let gate = Arc::default();
    let db = open(env, make_tier, &gate)?;
    for round in 0i32..40 {
        commit(&db, round, history)?;
        match round {
            6 | 20 | 33 => db.flush(None)?,
            9 => db.convert(HYBRID)?,
            11 => busy(&gate, Moment::BeforeRun, || db.compact(HYBRID), || commit_and_flush(&db, 50, history))?,
            13 => db.merge_runs(ROW)?,
            18 => convert_under_buffered_commits(&db, history)?,
            16 | 28 => db.compact(HYBRID)?,
            23 => busy(&gate, Moment::AfterRun, || db.convert(HYBRID), || commit_and_flush(&db, 60, history))?,
            31 => busy(&gate, Moment::AfterTranslate, || db.compact(HYBRID), || commit_and_flush(&db, 70, history))?,
            35 => move_between_levels(&db, history)?,
            36 => drop(db.allocate_row_ids(HYBRID, 3)?),
            _ => drop(db.step()?),
        }
    }
    db.close()
}

fn settle(db: &Db) -> Result<()> {
    while db.step()? {}
    Ok(())
}

/// Rows beyond all others in three flushes, which no file below overlaps: they change level without being written again.
fn move_between_levels(db: &Db, history: &mut History) -> Result<()> {
    settle(db)?;
    for id in [40, 41, 42] {
        let (mut transaction, mut state) = (db.begin()?, history.states.last().unwrap().clone());
        transaction.put(ROW, key(ROW, id), row(ROW, id, 1))?;
        state.insert(key(ROW, id), row(ROW, id, 1));
        history.states.push(state);
        transaction.commit(Durability::Durable)?;
        history.acknowledged = history.states.len() - 1;
        db.flush(Some(ROW))?;
    }
    settle(db)?;
    let levels = db.level_stats(ROW);
    assert!(levels.iter().any(|level| level.moved_bytes > 0), "nothing moved: {levels:?}");
    assert!(levels.iter().any(|level| level.files > 1), "no level has several files: {levels:?}");
    assert!(levels.iter().filter(|level| level.files > 0).count() > 1, "one level: {levels:?}");
    Ok(())
}

fn commit(db: &Db, round: i32, history: &mut History) -> Result<()> {
    let durability = if round % 7 == 2 { Durability::Buffered } else { Durability::Durable };
    commit_as(db, round, durability, history)
}

/// One transaction over three keys.
fn commit_as(db: &Db, round: i32, durability: Durability, history: &mut History) -> Result<()> {
    let mut transaction = db.begin()?;
    let mut state = history.states.last().unwrap().clone();
    for (nth, table) in (0..).zip([HYBRID, ROW, HYBRID]) {
        let id = (round * 5 + nth * 3) % 12;
        let key = key(table, id);
        if (round + nth) % 4 == 3 {
            transaction.delete(table, key.clone())?;
            state.remove(&key);
        } else {
            let row = row(table, id, i64::from(round));
            transaction.put(table, key.clone(), row.clone())?;
            state.insert(key, row);
        }
    }
    history.states.push(state);
    transaction.commit(durability)?;
    if durability == Durability::Durable {
        history.acknowledged = history.states.len() - 1;
    }
    Ok(())
}

/// A conversion sees commits in a memtable that the log has not made durable, and they supersede rows that it moves: its
/// marks name SeqNos that a crash could give to other commits.
fn convert_under_buffered_commits(db: &Db, history: &mut History) -> Result<()> {
    db.flush(None)?;
    commit(db, 80, history)?;
    db.flush(None)?;
    commit_as(db, 76, Durability::Buffered, history)?;
    // Writes rows 1 and 7, as did the round before this one.
    commit_as(db, 77, Durability::Buffered, history)?;
    db.convert_step().map(drop)
}

fn commit_and_flush(db: &Db, round: i32, history: &mut History) -> Result<()> {
    for round in round..round + 4 {
        commit(db, round, history)?;
    }
    db.flush(None)?;
    commit(db, round + 4, history)
}

fn busy(
    gate: &Gate,
    moment: Moment,
    job: impl FnOnce() -> Result<()> + Send,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (job, meanwhile) = gate.interrupt(moment, job, meanwhile);
    meanwhile.unwrap_or(Ok(()))?;
    job
}

fn everything(db: &Db) -> Rows {
    let snapshot = db.snapshot();
    let mut rows = contents(&snapshot, HYBRID);
    rows.extend(contents(&snapshot, ROW));
    rows
}

fn check_files(env: &SimEnv, db: &Db) {
    let live = db.live_files();
    for (path, _) in env.files() {
        let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        if folder == "runs" || folder == "segments" {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let file = FileKind::parse(&name).unwrap_or_else(|| panic!("foreign file {name}"));
            assert!(live.contains(&file), "I4: orphan {name}");
        }
    }
}

/// One death and two reopenings.
pub fn crash_once(make_tier: MakeTier, op: u64, loss: PowerLoss) {
    let env = SimEnv::new(op);
    env.crash_at(op);
    let mut history = History::default();
    let outcome = workload(&env, make_tier, &mut history);
    let context = format!("crash at operation {op}, {loss:?}");
    assert!(outcome.is_err() || !env.crashed(), "{context}: an error was swallowed");

    let env = env.reboot(loss);
    let db = open(&env, make_tier, &Arc::default()).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = everything(&db);
    let prefix = (history.acknowledged..history.states.len()).find(|at| history.states[*at] == found);
    assert!(
        prefix.is_some(),
        "{context}: not a prefix with the {} acknowledged of {} commits",
        history.acknowledged,
        history.states.len() - 1
    );
    check_files(&env, &db);

    let mut transaction = db.begin().unwrap();
    transaction.put(HYBRID, key(HYBRID, 99), row(HYBRID, 99, 1)).unwrap();
    transaction.commit(Durability::Durable).unwrap();
    let mut expected = found;
    expected.insert(key(HYBRID, 99), row(HYBRID, 99, 1));
    assert_eq!(everything(&db), expected, "{context}: the next commit changes nothing but its row");
    let env = env.reboot(PowerLoss::DropUnsynced);
    drop(db);
    let db = open(&env, make_tier, &Arc::default()).unwrap_or_else(|error| panic!("{context}, second open: {error}"));
    assert_eq!(everything(&db), expected, "{context}: lost after the second crash");
}

/// [`crash_once`] at every `stride`-th operation of the workload, under all three assumptions.
pub fn crash_everywhere(make_tier: MakeTier, stride: usize) {
    let env = SimEnv::new(0);
    workload(&env, make_tier, &mut History::default()).unwrap();
    let op_count = env.ops();
    assert!(op_count > 200, "the workload must do real work, not {op_count} operations");
    for op in (0..=op_count).step_by(stride) {
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll, PowerLoss::Random(op)] {
            crash_once(make_tier, op, loss);
        }
    }
}
