//! States of the past: by SeqNo and by time, across flushes, conversions, merges, reopening and crashes; gone when retention
//! says so, and never wrong. The simulated machine's clock goes only when told to.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, Rows, contents, key, row, schema};
use proptest::prelude::*;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::{Db, Error, Options, Result, SeqNo, Snapshot, TableId};

const RETENTION_MS: u64 = 60_000;

fn open(env: &SimEnv, retention_ms: u64) -> Db {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { retention_ms, idle_flush_ms: u64::MAX, ..Options::default() };
    harness::open(&shared, options, RowTier::make(&shared, Path::new(DIR))).unwrap()
}

fn put(db: &Db, table: TableId, id: i32, amount: i64) -> SeqNo {
    let mut transaction = db.begin().unwrap();
    transaction.put(table, key(table, id), row(table, id, amount)).unwrap();
    transaction.commit(Durability::Durable).unwrap()
}

fn value(snapshot: &Snapshot, table: TableId, id: i32) -> Option<Vec<u8>> {
    snapshot.get(&schema(table), &key(table, id)).unwrap()
}

fn is_gone<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::HistoryGone { .. }))
}

fn seconds(env: &SimEnv, count: u64) {
    env.advance(Duration::from_secs(count));
}

/// Everything that background work could do to both tables.
fn rearrange(db: &Db) {
    db.convert(HYBRID).unwrap();
    db.compact(HYBRID).unwrap();
    db.merge_runs(ROW).unwrap();
}

#[test]
fn a_time_names_a_state_and_survives_rearrangement_and_reopening() {
    let env = SimEnv::new(1);
    let mut db = open(&env, RETENTION_MS);
    seconds(&env, 2);
    let mut states = Vec::new();
    for amount in 0..6 {
        for table in [HYBRID, ROW] {
            put(&db, table, 1, amount);
        }
        seconds(&env, 3);
        // The state from this moment until the next commit.
        states.push((env.wall_clock(), amount));
        if amount % 2 == 0 {
            rearrange(&db);
        }
        if amount == 3 {
            db.close().unwrap();
            db = open(&env, RETENTION_MS);
            seconds(&env, 1);
        }
    }
    rearrange(&db);
    for (time, amount) in states {
        for early in [0, 1] {
            let snapshot = db.snapshot_as_of(time - Duration::from_secs(early)).unwrap();
            for table in [HYBRID, ROW] {
                assert_eq!(value(&snapshot, table, 1), Some(row(table, 1, amount)), "{table:?} at {time:?}");
                assert_eq!(contents(&snapshot, table).len(), 1);
            }
        }
    }
    assert!(matches!(db.snapshot_as_of(env.wall_clock() + Duration::from_secs(1)), Err(Error::Invalid(_))));
    assert!(is_gone(&db.snapshot_as_of(Duration::from_secs(1_600_000_000))));
    assert!(matches!(db.snapshot_at(SeqNo(1_000)), Err(Error::Invalid(_))));
}

#[test]
fn what_is_older_than_retention_goes_and_is_refused() {
    let env = SimEnv::new(2);
    let db = open(&env, RETENTION_MS);
    seconds(&env, 1);
    let first = put(&db, ROW, 1, 1);
    seconds(&env, 5);
    let early = env.wall_clock();
    let second = put(&db, ROW, 1, 2);
    seconds(&env, 30);
    let third = put(&db, ROW, 1, 3);
    let versions = |db: &Db| -> u64 { db.version().table(ROW).unwrap().runs.iter().map(|run| run.version_count).sum() };
    db.merge_runs(ROW).unwrap();
    assert_eq!(versions(&db), 3, "all within a minute");
    assert!(db.snapshot_at(first).is_ok());
    seconds(&env, 31);
    // Open before it goes: it stays readable, and is the only old one that does.
    let held = db.snapshot_at(first).unwrap();
    db.merge_runs(ROW).unwrap();
    assert!(is_gone(&db.snapshot_at(first)), "a minute ago the second was committed");
    assert!(is_gone(&db.snapshot_as_of(early)));
    assert_eq!(value(&held, ROW, 1), Some(row(ROW, 1, 1)));
    assert_eq!(value(&db.snapshot_at(second).unwrap(), ROW, 1), Some(row(ROW, 1, 2)));
    drop(held);
    seconds(&env, 30);
    db.merge_runs(ROW).unwrap();
    assert!(is_gone(&db.snapshot_at(second)));
    assert_eq!(versions(&db), 1);
    // The next open knows as much.
    db.close().unwrap();
    let db = open(&env, RETENTION_MS);
    assert!(is_gone(&db.snapshot_at(second)));
    assert_eq!(value(&db.snapshot_at(third).unwrap(), ROW, 1), Some(row(ROW, 1, 3)));
}

#[test]
fn history_begins_when_retention_is_switched_on() {
    let env = SimEnv::new(3);
    let db = open(&env, 0);
    let old = put(&db, HYBRID, 1, 1);
    put(&db, HYBRID, 1, 2);
    rearrange(&db);
    assert!(is_gone(&db.snapshot_at(old)));
    db.close().unwrap();
    seconds(&env, 5);
    let before = env.wall_clock();
    let db = open(&env, RETENTION_MS);
    seconds(&env, 1);
    assert!(is_gone(&db.snapshot_at(old)) && is_gone(&db.snapshot_as_of(before)));
    put(&db, HYBRID, 1, 3);
    seconds(&env, 1);
    assert_eq!(
        value(&db.snapshot_as_of(env.wall_clock() - Duration::from_secs(1)).unwrap(), HYBRID, 1),
        Some(row(HYBRID, 1, 2))
    );
    let kept = db.snapshot().seqno();
    db.close().unwrap();
    // Without retention in between, nothing is kept, and the next history begins anew.
    let db = open(&env, 0);
    put(&db, HYBRID, 1, 4);
    rearrange(&db);
    db.close().unwrap();
    assert!(is_gone(&open(&env, RETENTION_MS).snapshot_at(kept)));
}

/// A crash takes the times of the last minute at most; a state without a time is refused by time and found by SeqNo.
#[test]
fn after_a_crash_unknown_times_are_refused() {
    let env = SimEnv::new(4);
    let db = open(&env, 3_600_000);
    seconds(&env, 2);
    let first = put(&db, HYBRID, 1, 1);
    seconds(&env, 2);
    let known = env.wall_clock();
    seconds(&env, 70);
    while db.step().unwrap() {}
    let second = put(&db, HYBRID, 1, 2);
    seconds(&env, 2);
    let unknown = env.wall_clock();
    drop(db);
    let crashed = env.reboot(PowerLoss::DropUnsynced);
    let behind = unknown.saturating_sub(crashed.wall_clock()) + Duration::from_secs(3);
    crashed.advance(behind);
    let db = open(&crashed, 3_600_000);
    crashed.advance(Duration::from_secs(2));
    assert_eq!(value(&db.snapshot_as_of(known).unwrap(), HYBRID, 1), Some(row(HYBRID, 1, 1)));
    assert!(is_gone(&db.snapshot_as_of(unknown)), "nobody knows any more that the second was committed by then");
    assert_eq!(value(&db.snapshot_at(first).unwrap(), HYBRID, 1), Some(row(HYBRID, 1, 1)));
    assert_eq!(value(&db.snapshot_at(second).unwrap(), HYBRID, 1), Some(row(HYBRID, 1, 2)));
    assert_eq!(db.snapshot_as_of(crashed.wall_clock()).unwrap().seqno(), second);
}

#[test]
fn a_dropped_table_takes_the_past_with_it() {
    let env = SimEnv::new(5);
    let db = open(&env, RETENTION_MS);
    let first = put(&db, ROW, 1, 1);
    put(&db, ROW, 1, 2);
    db.drop_table(ROW).unwrap();
    assert!(is_gone(&db.snapshot_at(first)), "not empty: refused");
}

#[test]
fn an_old_transaction_is_told_so_and_its_age_is_counted() {
    let env = SimEnv::new(6);
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { snapshot_age_ms_max: 10_000, ..Options::default() };
    let db = harness::open(&shared, options, RowTier::make(&shared, Path::new(DIR))).unwrap();
    put(&db, HYBRID, 1, 1);
    assert_eq!(db.stats().oldest_snapshot_age_ms, 0);
    let (mut old, mut other) = (db.begin().unwrap(), db.begin().unwrap());
    old.put(HYBRID, key(HYBRID, 2), row(HYBRID, 2, 1)).unwrap();
    other.put(HYBRID, key(HYBRID, 3), row(HYBRID, 3, 1)).unwrap();
    seconds(&env, 10);
    assert!(old.get(&schema(HYBRID), &key(HYBRID, 1)).unwrap().is_some());
    other.commit(Durability::Durable).unwrap();
    seconds(&env, 1);
    assert_eq!(db.stats().oldest_snapshot_age_ms, 11_000);
    let range = key(HYBRID, 0)..key(HYBRID, 9);
    assert!(is_gone(&old.check_age()) && is_gone(&old.get(&schema(HYBRID), &key(HYBRID, 1))));
    assert!(is_gone(&old.scan(&schema(HYBRID), &range.start..&range.end)));
    assert!(is_gone(&old.put(HYBRID, key(HYBRID, 1), Vec::new())));
    assert!(is_gone(&old.commit(Durability::Durable)));
    assert_eq!(db.stats().oldest_snapshot_age_ms, 0);
    assert_eq!(contents(&db.snapshot(), HYBRID).len(), 2);
}

/// What a random run did, by time: a commit, or nothing for a while.
#[derive(Clone, Debug)]
enum Event {
    Put(usize, i32, i64),
    Wait(u64),
    Rearrange,
    Reopen,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2usize, 0..4i32, 0..1_000i64).prop_map(|(table, id, amount)| Event::Put(table, id, amount)),
        4 => (100u64..4_000).prop_map(Event::Wait),
        1 => Just(Event::Rearrange),
        1 => Just(Event::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(60), ..ProptestConfig::default() })]

    /// At every whole second since the beginning: the state that there was then, or a refusal if that was longer ago than
    /// retention reaches. A second in which the database was closed and opened again may be refused too.
    #[test]
    fn every_second_has_its_state(events in prop::collection::vec(event(), 1..60), seed in any::<u64>()) {
        let tables = [HYBRID, ROW];
        let env = SimEnv::new(seed);
        let mut db = open(&env, 20_000);
        let began = env.wall_clock();
        let (mut state, mut by_time, mut reopened) = ([Rows::new(), Rows::new()], BTreeMap::new(), vec![began]);
        by_time.insert(Duration::ZERO, state.clone());
        for event in &events {
            match event {
                Event::Put(table, id, amount) => {
                    put(&db, tables[*table], *id, *amount);
                    state[*table].insert(key(tables[*table], *id), row(tables[*table], *id, *amount));
                    by_time.insert(env.wall_clock() + Duration::from_nanos(1), state.clone());
                }
                Event::Wait(millis) => env.advance(Duration::from_millis(*millis)),
                Event::Rearrange => rearrange(&db),
                Event::Reopen => {
                    db.close().unwrap();
                    db = open(&env, 20_000);
                    reopened.push(env.wall_clock());
                }
            }
        }
        let now = env.wall_clock();
        for second in began.as_secs()..=now.as_secs() {
            let time = Duration::from_secs(second);
            // Commits at exactly this moment come after it.
            let expected = by_time.range(..=time).next_back().unwrap().1;
            match db.snapshot_as_of(time) {
                Ok(snapshot) => {
                    for (table, expected) in tables.iter().zip(expected) {
                        prop_assert_eq!(&contents(&snapshot, *table), expected, "{:?} at {:?}", table, time);
                    }
                }
                Err(Error::HistoryGone { .. }) => {
                    let is_old = time + Duration::from_secs(20) <= now;
                    let is_around = reopened.iter().any(|at| at.as_secs().abs_diff(second) <= 1);
                    prop_assert!(is_old || is_around, "{:?} of {:?} is refused", time, now);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What a merge or a conversion let go is known to be gone to the next process too, although nothing but that job was
/// written to the manifest since.
#[test]
fn what_a_job_dropped_stays_gone_after_a_crash() {
    type Job = fn(&Db) -> Result<()>;
    let jobs: [(TableId, Job); 3] =
        [(ROW, |db| db.merge_runs(ROW)), (HYBRID, |db| db.convert(HYBRID)), (ROW, |db| db.flush(Some(ROW)))];
    for (table, job) in jobs {
        let env = SimEnv::new(1);
        let db = open(&env, RETENTION_MS);
        seconds(&env, 2);
        let states: Vec<SeqNo> = (0..3)
            .map(|amount| {
                seconds(&env, 3);
                put(&db, table, 1, amount)
            })
            .collect();
        seconds(&env, 10 * RETENTION_MS / 1_000);
        job(&db).unwrap();
        drop(db);
        let db = open(&env.reboot(PowerLoss::DropUnsynced), RETENTION_MS);
        for (seqno, amount) in states.into_iter().zip(0..) {
            match db.snapshot_at(seqno) {
                Ok(snapshot) => assert_eq!(value(&snapshot, table, 1), Some(row(table, 1, amount)), "at {seqno}"),
                gone => assert!(is_gone(&gone) && amount < 2, "{gone:?}"),
            }
        }
    }
}
