//! Metrics tell what was done: compared with what the test did.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;
use std::sync::Arc;

use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, key, row};
use strata_oltp::db::Durability;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::metrics::{HistogramSummary, MetricValue};
use strata_oltp::{Db, FileKind, Options};

fn number(db: &Db, name: &str) -> u64 {
    match db.metrics().iter().find(|metric| metric.name == name).unwrap().value {
        MetricValue::Counter(value) | MetricValue::Gauge(value) => value,
        MetricValue::Histogram(HistogramSummary { count, .. }) => count,
    }
}

#[test]
fn figures_are_those_of_the_work() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let db = harness::open(&env, Options::default(), RowTier::make(&env, Path::new(DIR))).unwrap();
    let (mut late, mut files) = (db.begin().unwrap(), 0);
    for round in 0..3 {
        for id in 0..10 {
            let mut transaction = db.begin().unwrap();
            transaction.put(ROW, key(ROW, id), row(ROW, id, round)).unwrap();
            transaction.put(HYBRID, key(HYBRID, id), row(HYBRID, id, round)).unwrap();
            transaction.commit(Durability::Durable).unwrap();
        }
        db.flush(None).unwrap();
        files += 2;
        assert_eq!(number(&db, "strata_flush_seconds"), files);
    }
    assert_eq!((number(&db, "strata_commits_total"), number(&db, "strata_log_sync_seconds") >= 30), (30, true));
    assert!(number(&db, "strata_log_bytes_total") > number(&db, "strata_commit_bytes_total"));
    assert_eq!((number(&db, "strata_snapshots"), number(&db, "strata_conflicts_total")), (1, 0));
    late.put(ROW, key(ROW, 1), row(ROW, 1, 9)).unwrap();
    late.commit(Durability::Durable).unwrap_err();
    assert_eq!((number(&db, "strata_snapshots"), number(&db, "strata_conflicts_total")), (0, 1));

    let file_bytes = || -> u64 {
        let runs = db.live_files().into_iter().filter(|(kind, _)| *kind == FileKind::Run);
        let files = runs.map(|(kind, id)| env.open(&kind.path(Path::new(DIR), id), OpenMode::Read).unwrap());
        files.map(|file| file.len().unwrap()).sum()
    };
    assert_eq!(number(&db, "strata_flush_bytes_total"), file_bytes());
    assert_eq!(number(&db, "strata_merge_seconds"), 0);
    db.merge_runs(ROW).unwrap();
    db.convert(HYBRID).unwrap();
    assert_eq!((number(&db, "strata_merge_seconds"), number(&db, "strata_convert_seconds")), (1, 1));
    assert_eq!(number(&db, "strata_merge_write_bytes_total"), file_bytes());
}
