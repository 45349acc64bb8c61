//! What the memory budget is charged for committed rows.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::{Db, Options};

fn open(env: &Arc<dyn Env>) -> Db {
    let options = Options { memory_bytes_max: 8 << 20, block_cache_bytes_max: 1 << 20, ..Options::default() };
    harness::open(env, options, RowTier::make(env, Path::new(DIR))).unwrap()
}

fn charged(db: &Db) -> u64 {
    let usage = db.budget().usage_by_consumer();
    usage.iter().filter(|(name, _)| *name == "memtables").map(|(_, bytes)| *bytes).sum()
}

/// A budget of a few megabytes takes ten thousand small commits: each is charged for its rows, not for the step in which
/// its transaction reserved memory; so are those that the next process reads back from the log; and a flush gives the
/// memory back.
#[test]
fn small_commits_are_charged_for_their_rows() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let db = open(&env);
    for id in 0..10_000 {
        let mut transaction = db.begin().unwrap();
        transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, 1)).unwrap();
        transaction.commit(Durability::Buffered).unwrap();
    }
    let full = charged(&db);
    assert!((100_000..4_000_000).contains(&full), "{full} bytes for 10,000 rows");
    db.close().unwrap();
    let db = open(&env);
    // Towers have other heights.
    assert!(charged(&db).abs_diff(full) < full / 10, "{} bytes recovered, {full} before", charged(&db));
    db.flush(None).unwrap();
    assert_eq!(charged(&db), 0, "a flushed memtable gives its memory back");
}
