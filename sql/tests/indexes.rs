//! Indexes under concurrency: built while writers run, unique in a race, never dangling.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use strata_sql::{Background, Engine, EngineOptions, Session};

fn engine() -> Engine {
    Engine::open_in_memory(EngineOptions { background: Background::Manual, ..EngineOptions::default() }).unwrap()
}

async fn number(session: &mut Session, sql: &str) -> i64 {
    let batches = session.query(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

#[tokio::test]
async fn plans_name_the_index_they_use() {
    let engine = engine();
    let mut session = engine.session();
    let script = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b TEXT);
        INSERT INTO t SELECT i, i * 5, 'x' FROM generate_series(1, 20000) AS g(i);
        CREATE UNIQUE INDEX t_a ON t (a)";
    session.execute(script).await.unwrap();
    for (sql, wanted) in [
        ("SELECT b FROM t WHERE a = 500", "LookupExec: by=t_a, keys=1"),
        ("SELECT b FROM t WHERE a > 500 AND a < 520", "LookupExec: by=t_a, keys=3"),
        ("SELECT id, a FROM t WHERE a IN (5, 10)", "LookupExec: only=t_a, entries=2"),
        ("SELECT b FROM t WHERE id IN (5, 6)", "LookupExec: by=primary key, keys=2"),
        ("SELECT b FROM t WHERE a > 500", "DataSourceExec"),
    ] {
        let plan = session.explain(sql).await.unwrap();
        assert!(plan.contains(wanted), "{sql}:\n{plan}");
    }
    session.query("SELECT b FROM t WHERE a = 500").await.unwrap().collect().await.unwrap();
    assert_eq!(session.scan_counters().key_rows, 1);
    assert_eq!(session.scan_counters().memtable_rows, 0);
}

/// Entries and rows must agree: every row has one entry, every entry a row.
async fn assert_agrees(engine: &Engine) {
    let mut session = engine.session();
    let rows = number(&mut session, "SELECT count(*) FROM t").await;
    let through = |range: &str| format!("SELECT count(*) FROM t WHERE {range}");
    let (mut by_index, mut by_scan) = (0, 0);
    for start in (-100..2000).step_by(20) {
        // Few enough to go through the index; the sum hides the column from it.
        let end = start + 20;
        by_index += number(&mut session, &through(&format!("a >= {start} AND a < {end}"))).await;
        by_scan += number(&mut session, &through(&format!("a + 0 >= {start} AND a + 0 < {end}"))).await;
    }
    assert_eq!((by_index, by_scan), (rows, rows));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_index_is_built_while_writers_run() {
    for round in 0..3 {
        let engine = engine();
        let mut session = engine.session();
        session.execute("CREATE TABLE t (id INT PRIMARY KEY, a INT)").await.unwrap();
        session.execute("INSERT INTO t SELECT i, i % 1000 FROM generate_series(1, 20000) AS g(i)").await.unwrap();
        if round > 0 {
            session.execute("CALL strata.convert('t')").await.unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer: i32| {
                let (mut session, stop) = (engine.session(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut at = 0;
                    while !stop.load(Ordering::Relaxed) {
                        at += 1;
                        let id = (at * 37 + writer * 7001) % 20000 + 1;
                        let new = 100_000 * (writer + 1) + at;
                        for sql in [
                            format!("UPDATE t SET a = a + 1000 - 999 WHERE id = {id}"),
                            format!("DELETE FROM t WHERE id = {}", id + 1),
                            format!("INSERT INTO t VALUES ({new}, {})", at % 1000),
                        ] {
                            match session.execute(&sql).await {
                                Ok(_) => {}
                                Err(error) => assert_eq!(error.sqlstate(), "40001", "{error:?}"),
                            }
                        }
                    }
                })
            })
            .collect();
        session.execute("CREATE INDEX t_a ON t (a)").await.unwrap();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        assert_agrees(&engine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_unique_value_is_given_out_once() {
    let engine = engine();
    engine.session().execute("CREATE TABLE t (id INT PRIMARY KEY, a INT UNIQUE)").await.unwrap();
    let won = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (mut session, won) = (engine.session(), Arc::clone(&won));
            tokio::spawn(async move {
                for value in 0..100 {
                    let sql = format!("INSERT INTO t VALUES ({}, {value})", 1000 * task + value);
                    match session.execute(&sql).await {
                        Ok(_) => _ = won.fetch_add(1, Ordering::Relaxed),
                        Err(error) => assert_eq!(error.sqlstate(), "23505", "{error:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(won.load(Ordering::Relaxed), 100);
    let mut session = engine.session();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 100);
    assert_eq!(number(&mut session, "SELECT count(DISTINCT a) FROM t").await, 100);
}

/// Parents come and go, children come and go: at no time does a child refer to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_foreign_key_never_dangles() {
    let engine = engine();
    let script = "CREATE TABLE parent (id INT PRIMARY KEY, a INT);
        CREATE TABLE child (id INT PRIMARY KEY, p INT REFERENCES parent, late INT REFERENCES parent DEFERRABLE INITIALLY DEFERRED)";
    engine.session().execute(script).await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let mut session = engine.session();
            tokio::spawn(async move {
                let mut refused = 0;
                for at in 0..150 {
                    let parent = (at * 7 + task) % 5;
                    let id = task * 1000 + at;
                    let sql = match (at + task) % 5 {
                        0 => format!("INSERT INTO parent VALUES ({parent}, 0) ON CONFLICT DO NOTHING"),
                        1 => format!("DELETE FROM parent WHERE id = {parent}"),
                        2 => format!("DELETE FROM child WHERE p = {parent} OR late = {parent}"),
                        3 => format!("INSERT INTO child VALUES ({id}, {parent}, NULL)"),
                        _ => format!("INSERT INTO child VALUES ({id}, NULL, {parent})"),
                    };
                    if let Err(error) = session.execute(&sql).await {
                        assert!(["23503", "40001", "40P01"].contains(&error.sqlstate()), "{error:?}");
                        refused += 1;
                    }
                    let dangling = "SELECT count(*) FROM child WHERE p IS NOT NULL AND p NOT IN (SELECT id FROM parent)
                        OR late IS NOT NULL AND late NOT IN (SELECT id FROM parent)";
                    assert_eq!(number(&mut session, dangling).await, 0, "after {sql}");
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for task in tasks {
        refused += task.await.unwrap();
    }
    assert!(refused > 0, "the race was one");
}

/// A statement that is cut off must not leave its transaction to statements that then commit by themselves.
#[tokio::test]
async fn a_write_that_takes_too_long_fails_its_transaction() {
    let engine = engine();
    let (mut session, mut other) = (engine.session(), engine.session());
    session.execute("CREATE TABLE t (id INT PRIMARY KEY, a INT); INSERT INTO t VALUES (1, 1)").await.unwrap();
    session.execute("BEGIN; INSERT INTO t VALUES (2, 2); SET LOCAL statement_timeout = '30ms'").await.unwrap();
    let slow =
        "UPDATE t SET a = (SELECT count(*) FROM generate_series(1, 100000) AS x(i), generate_series(1, 100000) AS y(j)
        WHERE i + j < 0)";
    assert_eq!(session.execute(slow).await.unwrap_err().sqlstate(), "57014");
    assert!(session.in_failed_transaction());
    assert_eq!(session.execute("INSERT INTO t VALUES (3, 3)").await.unwrap_err().sqlstate(), "25P02");
    // The same if whoever waited is gone.
    session.execute("ROLLBACK; BEGIN; INSERT INTO t VALUES (2, 2)").await.unwrap();
    let gone = tokio::time::timeout(std::time::Duration::from_millis(30), session.execute(slow)).await;
    assert!(gone.is_err());
    assert_eq!(session.execute("INSERT INTO t VALUES (3, 3)").await.unwrap_err().sqlstate(), "25P02");
    session.execute("ROLLBACK").await.unwrap();
    assert_eq!(number(&mut other, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_bulk_load_checks_foreign_keys() {
    let engine = engine();
    let mut session = engine.session();
    let script = "CREATE TABLE parent (id BIGINT PRIMARY KEY); INSERT INTO parent VALUES (1), (2);
        CREATE TABLE child (id BIGINT PRIMARY KEY, p BIGINT DEFAULT 2 REFERENCES parent)";
    session.execute(script).await.unwrap();
    let column =
        |values: [i64; 2]| -> arrow::array::ArrayRef { Arc::new(arrow::array::Int64Array::from(values.to_vec())) };
    let batch = |columns: Vec<(&str, [i64; 2])>| {
        RecordBatch::try_from_iter(columns.into_iter().map(|(name, values)| (name, column(values)))).unwrap()
    };
    let mut writer = engine.bulk_writer("child", 100).unwrap();
    writer.write(&batch(vec![("id", [1, 2])])).unwrap();
    assert_eq!(writer.finish().unwrap(), 2);
    let mut writer = engine.bulk_writer("child", 100).unwrap();
    writer.write(&batch(vec![("id", [3, 4]), ("p", [1, 9])])).unwrap();
    assert_eq!(writer.finish().unwrap_err().sqlstate(), "23503");
    assert_eq!(number(&mut session, "SELECT count(*) FROM child WHERE p = 2").await, 2);
}
