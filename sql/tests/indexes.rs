//! Indexes under concurrency: built while writers run, unique in a race, never dangling.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use strata_oltp::TableId;
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
        session.execute("REINDEX INDEX t_a").await.unwrap();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        assert_agrees(&engine).await;
        assert_eq!(faults(&mut session).await, [""; 0]);
    }
}

/// What verification says, one line per fault.
async fn faults(session: &mut Session) -> Vec<String> {
    let batches = session.query("CALL strata.verify('t')").await.unwrap().collect().await.unwrap();
    let mut lines = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let text = |column: usize| batch.column(column).as_string_view().value(row);
            lines.push(format!("{}.{} {} {}", text(1), text(2), text(3), text(4)));
        }
    }
    lines.sort_unstable();
    lines
}

/// The entries of the index with the storage `id`.
fn entries(engine: &Engine, id: TableId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let snapshot = engine.db().snapshot();
    let range = strata_oltp::key::table_range(id);
    let rows = snapshot.view().rows(id).unwrap();
    let mut cursor = rows.scan(&range.start..&range.end, snapshot.seqno(), None).unwrap();
    let mut entries = Vec::new();
    while cursor.next().unwrap() {
        entries.push((cursor.key().to_vec(), cursor.value().unwrap().to_vec()));
    }
    entries
}

/// The entries of `before` that are not there any more.
fn gone(engine: &Engine, id: TableId, before: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    let now = entries(engine, id);
    let mut gone = before.iter().filter(|entry| !now.contains(entry)).cloned();
    let only = gone.next().unwrap();
    assert!(gone.next().is_none());
    only
}

fn put(engine: &Engine, id: TableId, (key, row): (Vec<u8>, Option<Vec<u8>>)) {
    let mut txn = engine.db().begin().unwrap();
    match row {
        Some(row) => txn.put(id, key, row).unwrap(),
        None => txn.delete(id, key).unwrap(),
    }
    txn.commit(strata_sql::Durability::Buffered).unwrap();
}

/// Entries that are wrong, each planted by hand in the storage of an index, are found, named and mended.
#[tokio::test]
async fn wrong_entries_are_found_and_mended() {
    for converted in [false, true] {
        let engine = engine();
        let mut session = engine.session();
        let script = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b TEXT); CREATE UNIQUE INDEX t_a ON t (a);
            CREATE INDEX t_b ON t (b);
            INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y'), (3, NULL, NULL), (4, 40, 'x'), (5, 50, 'z'), (6, NULL, 'q')";
        session.execute(script).await.unwrap();
        if converted {
            session.execute("CALL strata.convert('t')").await.unwrap();
        }
        assert_eq!(faults(&mut session).await, [""; 0]);
        let table = engine.table_id("t").unwrap().0;
        let (by_a, by_b) = (TableId(table + 1), TableId(table + 2));
        // Missing: the entry of row 2.
        let before = entries(&engine, by_b);
        session.execute("DELETE FROM t WHERE id = 2").await.unwrap();
        let (key, _) = gone(&engine, by_b, &before);
        session.execute("INSERT INTO t VALUES (2, 20, 'y')").await.unwrap();
        put(&engine, by_b, (key, None));
        // Stale: an entry of a row that is gone, and one of other values.
        let before = entries(&engine, by_a);
        session.execute("DELETE FROM t WHERE id = 4").await.unwrap();
        let (key, row) = gone(&engine, by_a, &before);
        put(&engine, by_a, (key, Some(row)));
        let before = entries(&engine, by_b);
        session.execute("UPDATE t SET b = 'zz' WHERE id = 5").await.unwrap();
        let (key, row) = gone(&engine, by_b, &before);
        put(&engine, by_b, (key, Some(row)));
        // Twice: row 3 under the key of another row with NULL.
        let before = entries(&engine, by_a);
        session.execute("DELETE FROM t WHERE id = 3").await.unwrap();
        let (_, row) = gone(&engine, by_a, &before);
        session.execute("INSERT INTO t VALUES (3, NULL, NULL)").await.unwrap();
        let before = entries(&engine, by_a);
        session.execute("DELETE FROM t WHERE id = 6").await.unwrap();
        let (key, _) = gone(&engine, by_a, &before);
        put(&engine, by_a, (key, Some(row)));
        let found = faults(&mut session).await;
        let wanted = [
            "t.t_a duplicate (a, id)=(NULL, 3)",
            "t.t_a stale (a, id)=(40, 4)",
            "t.t_b missing (b, id)=(y, 2)",
            "t.t_b stale (b, id)=(z, 5)",
        ];
        assert_eq!(found, wanted);
        session.execute("REINDEX INDEX t_a").await.unwrap();
        assert_eq!(faults(&mut session).await, wanted[2..]);
        session.execute("BEGIN; REINDEX TABLE t; ROLLBACK").await.unwrap();
        assert_eq!(faults(&mut session).await, wanted[2..]);
        session.execute("BEGIN; REINDEX TABLE t; INSERT INTO t VALUES (7, 70, 'w'); COMMIT").await.unwrap();
        assert_eq!(faults(&mut session).await, [""; 0]);
        assert_eq!(number(&mut session, "SELECT id::bigint FROM t WHERE b = 'y'").await, 2);
        let duplicate = session.execute("INSERT INTO t VALUES (8, 70, 'w')").await.unwrap_err();
        assert!(duplicate.report().contains("unique index t_a"), "{}", duplicate.report());
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

/// Whoever began before a constraint and commits after it does not know of it.
#[tokio::test]
async fn a_writer_from_before_a_constraint_conflicts() {
    let script = "CREATE TABLE parent (id INT PRIMARY KEY, a INT); INSERT INTO parent VALUES (1, 1), (2, 2), (3, 3);
        CREATE TABLE t (id INT PRIMARY KEY, a INT, p INT REFERENCES parent ON DELETE SET NULL);
        INSERT INTO t VALUES (1, 1, 1), (2, 2, 3)";
    for (write, alter) in [
        ("INSERT INTO t VALUES (3, -3, 1)", "ALTER TABLE t ADD CHECK (a > 0)"),
        ("UPDATE t SET a = -1 WHERE id = 1", "ALTER TABLE t ADD CHECK (a > 0) NOT VALID"),
        ("INSERT INTO t VALUES (3, 1, 1)", "ALTER TABLE t ADD UNIQUE (a)"),
        ("UPDATE t SET a = 9 WHERE id = 1", "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent"),
        ("UPDATE t SET a = 9 WHERE id = 1", "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent NOT VALID"),
        ("DELETE FROM parent WHERE id = 2", "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent"),
        ("UPDATE t SET a = -1 WHERE id = 1", "BEGIN; ALTER TABLE t ADD CHECK (a > 0); COMMIT"),
        ("DELETE FROM parent WHERE id = 2", "BEGIN; ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent; COMMIT"),
        // Rows that a foreign key's action writes.
        ("DELETE FROM parent WHERE id = 3", "ALTER TABLE t ADD CHECK (p > 0 AND p IS NOT NULL)"),
        ("DELETE FROM parent WHERE id = 3", "CREATE INDEX ON t (p)"),
    ] {
        let engine = engine();
        let (mut early, mut other) = (engine.session(), engine.session());
        other.execute(script).await.unwrap();
        early.execute("BEGIN").await.unwrap();
        early.execute(write).await.unwrap();
        other.execute(alter).await.unwrap();
        let late = early.execute("COMMIT").await.map(|_| "committed");
        assert_eq!(late.unwrap_err().sqlstate(), "40001", "{write} beside {alter}");
    }
    // The other way round: a commit between the look at the rows and the commit of the constraint.
    for (write, alter) in [
        ("UPDATE t SET a = -1 WHERE id = 1", "ALTER TABLE t ADD CHECK (a > 0)"),
        ("UPDATE t SET a = 9 WHERE id = 1", "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent"),
        ("DELETE FROM parent WHERE id = 2", "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent"),
        ("INSERT INTO t VALUES (3, 1, 1)", "ALTER TABLE t ADD UNIQUE (a)"),
    ] {
        for alter in [alter.to_owned(), format!("{alter} NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT t_a_check")] {
            if alter.contains("VALID") && !alter.contains("CHECK") {
                continue;
            }
            let engine = engine();
            let (mut adding, mut other) = (engine.session(), engine.session());
            other.execute(script).await.unwrap();
            adding.execute("BEGIN").await.unwrap();
            adding.execute(&alter).await.unwrap();
            other.execute(write).await.unwrap();
            let late = adding.execute("COMMIT").await.map(|_| "committed");
            assert_eq!(late.unwrap_err().sqlstate(), "40001", "{alter} beside {write}");
        }
    }
}

/// A write of the test below. Now and then one that breaks each of the constraints, which mostly goes again.
fn write_beside(writer: i32, at: i32, breaks: bool) -> String {
    let id = 10_000 * (writer + 1) + at;
    match at % 8 {
        1 if breaks => format!("INSERT INTO t VALUES ({id}, -1, {at}, 3)"),
        2 => format!("DELETE FROM t WHERE id = {}", id - 1),
        3 => "DELETE FROM parent WHERE id = 3".to_owned(),
        4 => "INSERT INTO parent VALUES (3) ON CONFLICT DO NOTHING".to_owned(),
        _ => format!("INSERT INTO t VALUES ({id}, 1, {id}, {})", at % 2 + if at % 16 == 5 { 2 } else { 0 }),
    }
}

/// Either a constraint was not added, or no row breaks it, however many writers there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn constraints_are_added_while_writers_run() {
    let cases = [
        ("ADD CONSTRAINT new CHECK (a >= 0)", "SELECT count(*) FROM t WHERE a < 0"),
        ("ADD CONSTRAINT new UNIQUE (u)", "SELECT count(u) - count(DISTINCT u) FROM t"),
        (
            "ADD CONSTRAINT new FOREIGN KEY (p) REFERENCES parent",
            "SELECT count(*) FROM t WHERE p NOT IN (SELECT id FROM parent)",
        ),
    ];
    let (mut added, mut refused) = (0, 0);
    for round in 0..4 {
        for (alter, broken) in cases {
            let engine = engine();
            let mut session = engine.session();
            let script = "CREATE TABLE parent (id INT PRIMARY KEY); INSERT INTO parent VALUES (0), (1), (2), (3);
                CREATE TABLE t (id INT PRIMARY KEY, a INT, u INT, p INT);
                INSERT INTO t SELECT i, 1, i, i % 2 FROM generate_series(1, 2000) AS g(i)";
            session.execute(script).await.unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let writers: Vec<_> = (0..3)
                .map(|writer: i32| {
                    let (mut session, stop) = (engine.session(), Arc::clone(&stop));
                    tokio::spawn(async move {
                        for at in 1..=400 {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let sql = write_beside(writer, at, round % 2 == 0);
                            if let Err(error) = session.execute(&sql).await {
                                let known = ["23503", "23505", "23514", "40001", "40P01"];
                                assert!(known.contains(&error.sqlstate()), "{sql}: {error:?}");
                            }
                        }
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            match session.execute(&format!("ALTER TABLE t {alter}")).await {
                Ok(_) => {
                    added += 1;
                    for _ in 0..5 {
                        assert_eq!(number(&mut session, broken).await, 0, "{alter}");
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(["23503", "23505", "23514"].contains(&error.sqlstate()), "{error:?}");
                    let left = "SELECT count(*) FROM strata.constraints WHERE constraint_name = 'new'";
                    assert_eq!(number(&mut session, left).await, 0, "{alter} is not left behind");
                }
            }
            let was_added =
                number(&mut session, "SELECT count(*) FROM strata.constraints WHERE constraint_name = 'new'").await;
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.await.unwrap();
            }
            if was_added == 1 {
                assert_eq!(number(&mut session, broken).await, 0, "{alter}");
            }
        }
    }
    // Who is first decides whether one is refused; without rows that break them, some are added for certain.
    assert!(added > 0, "{added} were added, {refused} refused");
}
