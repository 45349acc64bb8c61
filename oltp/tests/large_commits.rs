//! Commits too large for a memtable become one by themselves: in the order of the others, before and after a crash.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, Rows, contents, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::{Db, Options, Snapshot, TableId};

fn open(env: &SimEnv) -> Db {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    let options = Options { memtable_bytes_max: 4_000, ..Options::default() };
    harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap()
}

/// Writes or deletes `ids` of both tables in one commit, and in the model.
fn commit(db: &Db, model: &mut Model, ids: &(impl Iterator<Item = i32> + Clone), amount: i64) {
    let mut transaction = db.begin().unwrap();
    for (table, rows) in model {
        for id in ids.clone() {
            let key = key(*table, id);
            if (i64::from(id) + amount) % 5 == 0 {
                rows.remove(&key);
                transaction.delete(*table, key).unwrap();
            } else {
                rows.insert(key.clone(), row(*table, id, amount));
                transaction.put(*table, key, row(*table, id, amount)).unwrap();
            }
        }
    }
    transaction.commit(Durability::Durable).unwrap();
}

fn check(snapshot: &Snapshot, model: &Model) {
    for (table, rows) in model {
        assert!(contents(snapshot, *table) == *rows, "table {} at {:?}", table.0, snapshot.seqno());
    }
}

type Model = [(TableId, Rows); 2];

/// Small commits before and behind, so that a large one lies between memtables; two large ones in a row. With a snapshot
/// after each.
fn history(db: &Db) -> Vec<(Snapshot, Model)> {
    let mut model = [(HYBRID, BTreeMap::new()), (ROW, BTreeMap::new())];
    let rounds = [3, 400, 5, 2, 600, 300, 4].into_iter().enumerate();
    let after = rounds.map(|(round, count)| {
        commit(db, &mut model, &(0..count).step_by(1 + round % 2), round as i64);
        (db.snapshot(), model.clone())
    });
    let snapshots = after.collect();
    assert!(db.stats().sealed_bytes > 50_000, "no commit became a memtable by itself");
    snapshots
}

#[test]
fn large_commits_keep_the_order_of_all() {
    let env = SimEnv::new(1);
    let db = open(&env);
    let snapshots = history(&db);
    snapshots.iter().for_each(|(snapshot, model)| check(snapshot, model));
    db.flush(None).unwrap();
    snapshots.iter().for_each(|(snapshot, model)| check(snapshot, model));
    db.convert(HYBRID).unwrap();
    db.merge_runs(ROW).unwrap();
    snapshots.iter().for_each(|(snapshot, model)| check(snapshot, model));
    let mut model = snapshots.last().unwrap().1.clone();
    commit(&db, &mut model, &(100..500), 9);
    check(&db.snapshot(), &model);
    check(&open(&env.reboot(PowerLoss::DropUnsynced)).snapshot(), &model);
}

/// From the log alone: recovery makes memtables of them again, and flushes those.
#[test]
fn large_commits_are_recovered() {
    let env = SimEnv::new(1);
    let db = open(&env);
    let (_, model) = history(&db).pop().unwrap();
    for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll, PowerLoss::Random(3)] {
        let again = open(&env.reboot(loss));
        check(&again.snapshot(), &model);
        assert_eq!(again.stats().sealed_bytes, 0);
    }
}
