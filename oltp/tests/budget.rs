//! What the memory budget is charged for committed rows.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, key, row, schema};
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::metrics::MetricValue;
use strata_oltp::wal::WalOptions;
use strata_oltp::{Db, Error, FileKind, Options};

fn open(env: &Arc<dyn Env>, memory_bytes_max: u64) -> Db {
    let options = Options { memory_bytes_max, block_cache_bytes_max: 1 << 20, ..Options::default() };
    harness::open(env, options, RowTier::make(env, Path::new(DIR))).unwrap()
}

fn charged(db: &Db) -> u64 {
    let usage = db.budget().usage_by_consumer();
    usage.iter().filter(|(name, _)| *name == "memtables").map(|(_, bytes)| *bytes).sum()
}

/// A budget of some megabytes takes ten thousand small commits: each is charged for its rows, not for the step in which
/// its transaction reserved memory; so are those that the next process reads back from the log; and a flush gives the
/// memory back.
#[test]
fn small_commits_are_charged_for_their_rows() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let db = open(&env, 32 << 20);
    for id in 0..10_000 {
        let mut transaction = db.begin().unwrap();
        transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, 1)).unwrap();
        transaction.commit(Durability::Buffered).unwrap();
    }
    let full = charged(&db);
    assert!((100_000..4_000_000).contains(&full), "{full} bytes for 10,000 rows");
    db.close().unwrap();
    let db = open(&env, 32 << 20);
    // Towers have other heights.
    assert!(charged(&db).abs_diff(full) < full / 10, "{} bytes recovered, {full} before", charged(&db));
    db.flush(None).unwrap();
    assert_eq!(charged(&db), 0, "a flushed memtable gives its memory back");
}

/// Who takes most of the budget for queries leaves the rest to writers: their rows go to runs instead of failing them, also
/// those that a transaction still reads, which go on being what it sees.
#[test]
fn writers_flush_when_memory_is_short() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let db = open(&env, 8 << 20);
    let mut earlier = db.begin().unwrap();
    let _query = db.budget().reserve("queries", 6 << 20).unwrap();
    for round in 0..40 {
        let mut transaction = db.begin().unwrap();
        for table in [HYBRID, ROW] {
            for id in 0..1_000 {
                transaction.put(table, key(table, id), row(table, id, round)).unwrap();
            }
        }
        transaction.commit(Durability::Buffered).unwrap();
    }
    assert!(db.stats().sealed_bytes < 1 << 20);
    let runs = db.live_files().into_iter().filter(|(kind, _)| *kind == FileKind::Run).count();
    assert!(runs > 4, "nothing was flushed");
    let rest = db.budget().limit() - db.budget().used();
    let _rest = db.budget().reserve("queries", rest).unwrap();
    // It began before all of that, can still be written to, and sees none of it then.
    for id in (0..5_000).rev() {
        earlier.put(ROW, key(ROW, 10_000 + id), row(ROW, id, 1)).unwrap();
        assert_eq!(earlier.get(&schema(ROW), &key(ROW, id)).unwrap(), None);
    }
    earlier.commit(Durability::Durable).unwrap();
    assert_eq!(db.get(&schema(ROW), &key(ROW, 7)).unwrap(), Some(row(ROW, 7, 39)));
}

/// The log's bound may be below the size of one of its files, which stays however much is flushed: no reason to flush
/// every few commits, which would leave more small runs than can ever be merged.
#[test]
fn a_small_bound_of_the_log_causes_no_storm_of_flushes() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let wal = WalOptions { segment_bytes: 100 << 10, ..WalOptions::default() };
    let options = Options { wal_bytes_max: 10 << 10, wal, idle_flush_ms: u64::MAX, ..Options::default() };
    let db = harness::open(&env, options, RowTier::make(&env, Path::new(DIR))).unwrap();
    for id in 0..10_000 {
        let mut transaction = db.begin().unwrap();
        transaction.put(ROW, key(ROW, id), row(ROW, id, 1)).unwrap();
        transaction.commit(Durability::Durable).unwrap();
        while db.flush_step().unwrap() {}
    }
    let runs = db.live_files().into_iter().filter(|(kind, _)| *kind == FileKind::Run).count();
    let metrics = db.metrics();
    let log_bytes = metrics.iter().find(|metric| metric.name == "strata_log_bytes_total").unwrap().value;
    let MetricValue::Counter(log_bytes) = log_bytes else { panic!("a counter") };
    let filled = usize::try_from(log_bytes >> 10).unwrap() / 100;
    assert!((filled / 2..=filled + 1).contains(&runs), "{runs} flushes for {filled} files of the log");
    assert!(db.stats().wal_bytes < 250 << 10);
}

/// A transaction that cannot fit is told so before anybody else suffers.
#[test]
fn a_transaction_larger_than_its_share_is_refused() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let db = open(&env, 8 << 20);
    let mut transaction = db.begin().unwrap();
    let refused = (0..100_000).find_map(|id| transaction.put(ROW, key(ROW, id), row(ROW, id, 1)).err());
    assert!(
        matches!(refused, Some(Error::LimitExceeded { budget: "size of one transaction", limit_bytes, .. }) if limit_bytes == 1 << 20)
    );
    let mut small = db.begin().unwrap();
    small.put(ROW, key(ROW, 1), row(ROW, 1, 2)).unwrap();
    small.commit(Durability::Durable).unwrap();
}
