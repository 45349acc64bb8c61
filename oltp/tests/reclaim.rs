//! VACUUM and REINDEX: the rows stay, the space comes back, the files are new.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, contents, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::{Db, Options};

/// Many versions of few rows, in runs and in a segment with marks.
fn build(env: &SimEnv) -> Db {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let db = harness::open(&shared, Options::default(), RowTier::make(&shared, Path::new(DIR))).unwrap();
    for amount in 0..6 {
        let mut transaction = db.begin().unwrap();
        for id in 0..200 {
            for table in [ROW, HYBRID] {
                transaction.put(table, key(table, id), row(table, id, amount)).unwrap();
            }
        }
        transaction.commit(Durability::Durable).unwrap();
        db.flush(None).unwrap();
        if amount % 2 == 0 {
            db.convert(HYBRID).unwrap();
        }
    }
    db
}

#[test]
fn vacuum_gives_back_what_nobody_reads() {
    let env = SimEnv::new(1);
    let db = build(&env);
    let expected = [ROW, HYBRID].map(|table| contents(&db.snapshot(), table));
    let reader = db.snapshot();
    let first = db.vacuum().unwrap();
    assert_eq!([ROW, HYBRID].map(|table| contents(&reader, table)), expected, "a reader keeps what it reads");
    drop(reader);
    let second = db.vacuum().unwrap();
    assert!(second.bytes_after < first.bytes_before * 3 / 4, "{first:?} {second:?}");
    assert_eq!([ROW, HYBRID].map(|table| contents(&db.snapshot(), table)), expected);
    assert_eq!(db.vacuum().unwrap().bytes(), 0, "nothing is left to give back");
}

#[test]
fn reindex_makes_every_segment_anew_and_changes_no_row() {
    let env = SimEnv::new(2);
    let db = build(&env);
    let expected = contents(&db.snapshot(), HYBRID);
    let before = db.snapshot().view().cold().segments(HYBRID);
    assert!(!before.is_empty());
    assert_eq!(db.reindex(HYBRID).unwrap(), before.len() as u64);
    let after = db.snapshot().view().cold().segments(HYBRID);
    assert!(after.iter().all(|segment| !before.contains(segment)));
    assert_eq!(contents(&db.snapshot(), HYBRID), expected);
    assert_eq!(db.reindex(ROW).unwrap(), 0);
    assert!(db.reindex(strata_oltp::TableId(99)).is_err());
}
