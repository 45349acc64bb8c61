//! What a repaired database may hold: rows that were once written, and each row that is not as it was covered by a
//! reported loss. The column store's tests ask the same of segments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::repair::{Effect, Loss, RepairReport};
use strata_oltp::{Db, FileKind, TableId};

use super::{HYBRID, ROW, Rows, contents, key, row, row_with};

/// Every row a key ever had, and what it is in the end.
#[derive(Default)]
pub struct Model {
    history: BTreeSet<(Vec<u8>, Vec<u8>)>,
    pub rows: BTreeMap<TableId, Rows>,
}

impl Model {
    /// Writes `count` rows of both tables in one commit; of every seven one is deleted, which ones `amount` decides.
    pub fn write(&mut self, db: &Db, from: i32, count: i32, amount: i64) {
        let mut transaction = db.begin().unwrap();
        for id in from..from + count {
            for table in [HYBRID, ROW] {
                let (key, rows) = (key(table, id), self.rows.entry(table).or_default());
                if is_deleted(id, amount) {
                    transaction.delete(table, key.clone()).unwrap();
                    rows.remove(&key);
                } else {
                    let row = written_row(table, id, amount * 1_000_003);
                    transaction.put(table, key.clone(), row.clone()).unwrap();
                    self.history.insert((key.clone(), row.clone()));
                    rows.insert(key, row);
                }
            }
        }
        transaction.commit(Durability::Durable).unwrap();
    }

    /// Holds a repaired database against what was written and what is said to be lost.
    pub fn check(&self, db: &Db, report: &RepairReport, what: &str) {
        let snapshot = db.snapshot();
        for (table, expected) in &self.rows {
            let rows = contents(&snapshot, *table);
            for (key, row) in &rows {
                assert!(self.history.contains(&(key.clone(), row.clone())), "{what}: a row nobody wrote");
                let is_right = expected.get(key) == Some(row);
                let covered = report.losses.iter().any(|loss| covers(loss, *table, key, false));
                assert!(is_right || covered, "{what}: {key:?} is back or old, unreported: {:#?}", report.losses);
            }
            for key in expected.keys().filter(|key| !rows.contains_key(*key)) {
                let covered = report.losses.iter().any(|loss| covers(loss, *table, key, true));
                assert!(covered, "{what}: {key:?} is missing, unreported: {:#?}", report.losses);
            }
            if report.is_lossless() {
                assert_eq!(&rows, expected, "{what}");
            }
        }
    }
}

/// What [`Model::write`] writes: every fortieth row of [`ROW`] is of [`LONG`] bytes and more.
fn written_row(table: TableId, id: i32, amount: i64) -> Vec<u8> {
    match id % 40 {
        5 if table == ROW => row_with(table, id, amount, Some(&format!("{amount} ").repeat(40))),
        _ => row(table, id, amount),
    }
}

/// Between the few long rows and all others.
pub const LONG: u64 = 100;

/// Whether [`Model::write`] deletes row `id` for this `amount`.
pub fn is_deleted(id: i32, amount: i64) -> bool {
    (i64::from(id) + amount) % 7 == 0
}

fn covers(loss: &Loss, table: TableId, key: &[u8], is_missing: bool) -> bool {
    let effect = loss.effect == Effect::Lost || (loss.effect == Effect::Reappear && !is_missing);
    let keys = loss.keys.as_ref().is_none_or(|(first, last)| &first[..] <= key && key <= &last[..]);
    effect && loss.table.is_none_or(|of| of == table) && keys
}

/// Every file of a database on the machine.
pub fn files(env: &SimEnv) -> Vec<(FileKind, PathBuf, u64)> {
    let named = |path: &PathBuf| FileKind::parse(&path.file_name().unwrap().to_string_lossy());
    env.files().into_iter().filter_map(|(path, bytes)| Some((named(&path)?.0, path, bytes))).collect()
}

/// Removes every file below `dir`.
pub fn remove_all(env: &SimEnv, dir: &str) {
    for (path, _) in env.files().into_iter().filter(|(path, _)| path.starts_with(Path::new(dir))) {
        env.remove(&path).unwrap();
    }
}
