//! The same table in every placement gives the same answers: fresh, half converted, converted, marked, rewritten.
//!
//! Each test drives one table through the placements and compares every query with the model (`support`). Counters
//! prove that the rows were read where they were meant to be, and plans that nothing was read where nothing must be.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use strata_olap::scan::{ScanCounters, StrataTable};
use support::{Bench, Row, TABLE, answer, compare, oracle, queries, view};

fn puts(ids: impl Iterator<Item = i64>, salt: u64) -> BTreeMap<i64, Option<Row>> {
    ids.map(|id| (id, Some(Row::of(id, salt)))).collect()
}

fn deletes(ids: impl Iterator<Item = i64>) -> BTreeMap<i64, Option<Row>> {
    ids.map(|id| (id, None)).collect()
}

async fn check(bench: &Bench) {
    let snapshot = bench.db.snapshot();
    let plain = oracle(&bench.rows_at(snapshot.seqno()));
    let real = bench.real(Arc::new(view(snapshot)), 2);
    for (sql, kind) in queries(300, 620, 23).into_iter().chain(queries(0, 5, 4)) {
        compare(&real, &plain, &sql, kind).await;
    }
}

/// Runs `sql` now; its answer and what it read.
async fn read(bench: &Bench, sql: &str) -> (Vec<String>, Arc<ScanCounters>) {
    let bound = view(bench.db.snapshot());
    let counters = Arc::clone(bound.counters());
    (answer(&bench.real(Arc::new(bound), 2), sql).await, counters)
}

/// A table of 1,000 rows, half of them updated and some deleted before anything was converted.
fn fresh() -> Bench {
    let mut bench = Bench::new();
    bench.commit(&puts(0..700, 1));
    bench.db.flush(Some(TABLE)).unwrap();
    bench.commit(&puts(500..1000, 2));
    bench.commit(&deletes((0..1000).step_by(11)));
    bench
}

#[tokio::test]
async fn answers_do_not_depend_on_the_placement() {
    let mut bench = fresh();
    check(&bench).await;
    bench.db.flush(None).unwrap();
    check(&bench).await;
    bench.db.convert(TABLE).unwrap();
    check(&bench).await;
    bench.commit(&puts((0..1200).step_by(5), 3));
    bench.commit(&deletes((0..1200).filter(|id| id % 7 == 0 && (id % 5 == 0 || (id < &1000 && id % 11 != 0)))));
    check(&bench).await;
    bench.db.flush(None).unwrap();
    check(&bench).await;
    bench.db.convert(TABLE).unwrap();
    check(&bench).await;
    bench.db.compact(TABLE).unwrap();
    check(&bench).await;
    bench.commit(&deletes(bench.live().into_iter()));
    check(&bench).await;
    bench.db.compact(TABLE).unwrap();
    check(&bench).await;
}

#[tokio::test]
async fn a_snapshot_keeps_its_answers_through_conversion() {
    let mut bench = fresh();
    let before = bench.db.snapshot();
    let plain = oracle(&bench.rows_at(before.seqno()));
    bench.db.convert(TABLE).unwrap();
    let converted = bench.db.snapshot();
    bench.commit(&puts(0..200, 9));
    bench.commit(&deletes(200..300).into_iter().filter(|(id, _)| id % 11 != 0).collect());
    let updated = bench.db.snapshot();
    let plain_updated = oracle(&bench.rows_at(updated.seqno()));
    bench.db.convert(TABLE).unwrap();
    let updated_converted = bench.db.snapshot();
    bench.db.compact(TABLE).unwrap();
    for (snapshot, plain) in
        [(before, &plain), (converted, &plain), (updated, &plain_updated), (updated_converted, &plain_updated)]
    {
        let real = bench.real(Arc::new(view(snapshot)), 2);
        for (sql, kind) in queries(190, 330, 31) {
            compare(&real, plain, &sql, kind).await;
        }
    }
}

#[tokio::test]
async fn own_writes_are_seen_and_never_kept() {
    for first_own in [true, false] {
        for converted in [0, 1, 2] {
            let mut bench = fresh();
            bench.db.flush(None).unwrap();
            if converted > 0 {
                bench.db.convert(TABLE).unwrap();
            }
            if converted > 1 {
                bench.commit(&puts(100..300, 7));
                bench.db.flush(None).unwrap();
            }
            if !first_own {
                check(&bench).await;
            }
            let mut own = puts((250..1100).step_by(13), 5);
            own.extend(deletes((0..200).filter(|id| id % 11 != 0)));
            let mut rows: BTreeMap<i64, Row> =
                bench.rows_at(bench.db.snapshot().seqno()).into_iter().map(|row| (row.id, row)).collect();
            for (id, change) in &own {
                match change {
                    Some(row) => rows.insert(*id, row.clone()),
                    None => rows.remove(id),
                };
            }
            let plain = oracle(&rows.into_values().collect::<Vec<_>>());
            let (snapshot, overlay) = bench.overlay(&own);
            let real = bench.real(Arc::new(view(snapshot).with_overlay(TABLE, overlay)), 2);
            for (sql, kind) in queries(190, 330, 31) {
                compare(&real, &plain, &sql, kind).await;
            }
            check(&bench).await;
        }
    }
}

#[tokio::test]
async fn counters_say_where_rows_were_read() {
    let mut bench = Bench::new();
    bench.commit(&puts(0..100, 1));
    let sum = "SELECT SUM(id), MAX(name) FROM t";
    let counts = |c: &ScanCounters| (c.memtable_rows(), c.run_rows(), c.segment_rows());
    assert_eq!(counts(&read(&bench, sum).await.1), (100, 0, 0));
    bench.db.flush(None).unwrap();
    bench.commit(&puts(90..110, 2));
    assert_eq!(counts(&read(&bench, sum).await.1), (20, 90, 0));
    bench.db.convert(TABLE).unwrap();
    assert_eq!(counts(&read(&bench, sum).await.1), (0, 0, 110));
    bench.commit(&puts(0..10, 3));
    bench.commit(&deletes(50..60));
    assert_eq!(counts(&read(&bench, sum).await.1), (10, 0, 90));
}

#[tokio::test]
async fn counts_and_bounds_of_a_table_at_rest_are_not_read() {
    let mut bench = Bench::new();
    bench.commit(&puts(0..500, 1));
    bench.db.convert(TABLE).unwrap();
    let (found, counters) = read(&bench, "SELECT COUNT(*), MIN(id), MAX(id), COUNT(price) FROM t").await;
    let not_null = bench.rows_at(bench.db.snapshot().seqno()).iter().filter(|row| row.price.is_some()).count();
    assert_eq!(found, [format!("500|0|499|{not_null}")]);
    assert_eq!(counters.segment_rows(), 0, "every column is known exactly");

    // With rows marked, the number of rows is still known, but no bound and no number of NULLs.
    bench.commit(&deletes((0..20).chain(480..500)));
    bench.db.flush(None).unwrap();
    bench.db.convert(TABLE).unwrap();
    let (found, counters) = read(&bench, "SELECT COUNT(*) FROM t").await;
    assert_eq!((found, counters.segment_rows()), (vec!["460".to_owned()], 0));
    let (found, counters) = read(&bench, "SELECT MIN(id), MAX(id) FROM t").await;
    assert_eq!(found, ["20|479"]);
    assert!(counters.segment_rows() > 0, "bounds of stored rows are not those of visible rows");
}

#[tokio::test]
async fn filters_read_only_the_row_groups_they_need() {
    let mut bench = Bench::new();
    bench.commit(&puts(0..2000, 1));
    bench.db.compact(TABLE).unwrap();
    bench.commit(&deletes((0..2000).step_by(3)));
    bench.db.flush(None).unwrap();
    let group = 64;
    // A static filter on the key.
    let (_, counters) = read(&bench, "SELECT SUM(grp) FROM t WHERE id BETWEEN 700 AND 720").await;
    assert!((1..=2 * group).contains(&counters.segment_rows()), "{counters:?}");
    // A filter that only the other side of a join knows.
    let join = "SELECT SUM(t.grp) FROM t JOIN (SELECT id FROM u WHERE id BETWEEN 901 AND 903) v ON t.id = v.id";
    let (_, counters) = read(&bench, join).await;
    assert!((1..=4 * group).contains(&counters.segment_rows()), "{counters:?}");
    // A limit without order opens one item per partition.
    let (found, counters) = read(&bench, "SELECT id FROM t LIMIT 40").await;
    assert_eq!(found.len(), 40);
    assert!(counters.segment_rows() <= 4 * group, "{counters:?}");
}

#[tokio::test]
async fn filters_read_only_the_ranges_of_fresh_rows_they_need() {
    let mut bench = Bench::new();
    bench.commit(&puts(0..1000, 1));
    bench.db.flush(None).unwrap();
    bench.commit(&puts(1000..2000, 1));
    let fresh = |counters: &ScanCounters| counters.memtable_rows() + counters.run_rows();
    for _ in 0..2 {
        let (_, counters) = read(&bench, "SELECT SUM(grp) FROM t WHERE id BETWEEN 500 AND 510").await;
        assert!((11..=600).contains(&fresh(&counters)), "{counters:?}");
        let join = "SELECT SUM(t.grp) FROM t JOIN (SELECT id FROM u WHERE id BETWEEN 1701 AND 1703) v ON t.id = v.id";
        let (_, counters) = read(&bench, join).await;
        assert!((6..=1000).contains(&fresh(&counters)), "{counters:?}");
    }
}

#[tokio::test]
async fn what_is_decoded_once_is_not_merged_again() {
    let mut bench = Bench::new();
    bench.commit(&puts(0..400, 1));
    bench.db.flush(None).unwrap();
    let sum = "SELECT SUM(id), MAX(name) FROM t";
    let (first, counters) = read(&bench, sum).await;
    assert_eq!((counters.memtable_rows(), counters.run_rows()), (0, 400));
    let before = bench.store.cache().stats();
    assert!(before.entries >= 2, "{before:?}");
    let (second, counters) = read(&bench, sum).await;
    assert_eq!((second, counters.run_rows()), (first, 400));
    let after = bench.store.cache().stats();
    assert_eq!((after.entries, after.misses), (before.entries, before.misses), "every column was found");
    // A write into one range leaves the others as they are, and is seen.
    bench.commit(&deletes(399..400));
    let (third, counters) = read(&bench, sum).await;
    assert_eq!(counters.run_rows(), 399);
    assert!(third[0].starts_with(&format!("{}|", (0..399).sum::<i64>())), "{third:?}");
}

#[tokio::test]
async fn explain_analyze_shows_the_counters() {
    let mut bench = Bench::new();
    bench.commit(&puts(0..300, 1));
    bench.db.convert(TABLE).unwrap();
    bench.commit(&puts(0..30, 2));
    let (plan, _) = read(&bench, "EXPLAIN ANALYZE SELECT SUM(grp) FROM t").await;
    let plan = plan.join("\n");
    assert!(plan.contains("segment_rows=270") && plan.contains("memtable_rows=30"), "{plan}");
}

#[tokio::test]
async fn a_scan_without_a_snapshot_is_refused() {
    let context = SessionContext::new();
    let table = StrataTable::new(support::schema()).unwrap();
    context.register_table("t", Arc::new(table)).unwrap();
    let failed = context.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap_err();
    assert!(failed.to_string().contains("bound to no snapshot"), "{failed}");
}
