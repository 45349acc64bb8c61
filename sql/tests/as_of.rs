//! AS OF in SQL: tables, views and columns as they were, by commit and by time, wherever their rows lie by now.
//!
//! Rows are moved between writes, so that what is asked for has been flushed, converted and rewritten since.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_sql::{Background, Engine, EngineOptions, Session, write_text};

fn open(env: &Arc<SimEnv>, retention: Duration) -> Engine {
    let mut options =
        EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
    options.storage.retention_ms = u64::try_from(retention.as_millis()).unwrap();
    Engine::open_with_env(Arc::clone(env) as Arc<dyn Env>, Path::new("db"), options).unwrap()
}

async fn text(session: &mut Session, sql: &str) -> String {
    let batches = match session.query(sql).await {
        Ok(rows) => rows.collect().await,
        Err(error) => Err(error),
    };
    let batches = match batches {
        Ok(batches) => batches,
        Err(error) => return error.report(),
    };
    let mut out = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let mut line = Vec::new();
            for column in batch.columns() {
                let mut text = String::new();
                if column.is_null(row) {
                    text.push_str("NULL");
                } else {
                    write_text(column.as_ref(), row, &mut text).unwrap();
                }
                line.push(text);
            }
            out.push(line.join(" "));
        }
    }
    out.join(", ")
}

async fn newest(session: &mut Session) -> i64 {
    let batches = session.query("SELECT read_point FROM strata.transactions").await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

const KEPT: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn every_state_is_read_by_its_commit_wherever_rows_lie() {
    for placement in ["", "CALL strata.flush()", "CALL strata.convert('t')", "CALL strata.compact('t')"] {
        let env = Arc::new(SimEnv::new(3));
        let engine = open(&env, KEPT);
        let mut session = engine.session();
        session
            .execute("CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE VIEW total AS SELECT sum(v) AS s FROM t")
            .await
            .unwrap();
        let mut states = Vec::new();
        for step in 0..6 {
            let sql = match step {
                0 => "INSERT INTO t VALUES (1, 10), (2, 20)",
                1 => "UPDATE t SET v = v + 1",
                2 => "DELETE FROM t WHERE id = 1",
                3 => "CREATE INDEX by_v ON t (v)",
                4 => "INSERT INTO t VALUES (3, 30), (1, 100)",
                _ => "UPDATE t SET id = 7 WHERE id = 2",
            };
            session.execute(sql).await.unwrap();
            session.execute(placement).await.unwrap();
            let all = "SELECT id, v FROM t ORDER BY id";
            states.push((
                newest(&mut session).await,
                text(&mut session, all).await,
                text(&mut session, "SELECT s FROM total").await,
            ));
        }
        for (commit, rows, sum) in &states {
            let asked = format!("SELECT id, v FROM t VERSION AS OF {commit} ORDER BY id");
            assert_eq!(text(&mut session, &asked).await, *rows, "{placement} {asked}");
            let asked = format!("SELECT s FROM total VERSION AS OF {commit} AS x WHERE x.s > 0");
            assert_eq!(text(&mut session, &asked).await, *sum, "{placement} {asked}");
            let asked = format!("SELECT t.v FROM t VERSION AS OF {commit} WHERE t.id = 2");
            let by_key = if rows.contains("2 20") {
                "20"
            } else if rows.contains("2 21") {
                "21"
            } else {
                ""
            };
            assert_eq!(text(&mut session, &asked).await, by_key, "{placement} {asked}");
        }
        // Different times in one statement, and now beside them.
        let (first, second) = (states[0].0, states[1].0);
        let asked = format!(
            "SELECT a.v, b.v, c.v FROM t VERSION AS OF {first} AS a JOIN t VERSION AS OF {second} AS b USING (id) JOIN t AS c USING (id)"
        );
        assert_eq!(text(&mut session, &asked).await, "10 11 100", "{placement}");
        // What it reads may be written again.
        session
            .execute(&format!("INSERT INTO t SELECT id + 100, v FROM t VERSION AS OF {first} WHERE id = 2"))
            .await
            .unwrap();
        assert_eq!(text(&mut session, "SELECT v FROM t WHERE id = 102").await, "20");
    }
}

#[tokio::test]
async fn times_are_those_of_the_clock() {
    let env = Arc::new(SimEnv::new(3));
    let engine = open(&env, KEPT);
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let mut times = Vec::new();
    for id in 0..3 {
        env.advance(Duration::from_secs(10));
        session.execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
        env.advance(Duration::from_secs(10));
        times.push(env.wall_clock().as_secs());
    }
    for (count, seconds) in times.iter().enumerate() {
        let asked = format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF to_timestamp({seconds})");
        assert_eq!(text(&mut session, &asked).await, (count + 1).to_string(), "{asked}");
    }
    let time = text(&mut session, &format!("SELECT to_timestamp({})", times[1])).await;
    let asked =
        format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '{}' AS old", time.trim_end_matches("+00"));
    assert_eq!(text(&mut session, &asked).await, "2", "{asked}");
    let asked = format!("SELECT count(*) FROM t FOR SYSTEM_TIME AS OF '{time}'");
    assert_eq!(text(&mut session, &asked).await, "2", "{asked}");
    for asked in ["TIMESTAMP '2000-01-01'", "TIMESTAMP '1901-01-01'"] {
        let report = text(&mut session, &format!("SELECT * FROM t FOR SYSTEM_TIME AS OF {asked}")).await;
        assert!(report.starts_with("ERROR 22023: the state asked for is no longer kept"), "{report}");
    }
    for (asked, state) in
        [("TIMESTAMP '9000-01-01'", "22023"), ("NULL", "22023"), ("42", "42804"), ("'yesterday-ish'", "22007")]
    {
        let report = text(&mut session, &format!("SELECT * FROM t FOR SYSTEM_TIME AS OF {asked}")).await;
        assert!(report.starts_with(&format!("ERROR {state}")), "{asked}: {report}");
    }
}

#[tokio::test]
async fn names_and_columns_are_those_of_the_time() {
    let env = Arc::new(SimEnv::new(3));
    let engine = open(&env, KEPT);
    let mut session = engine.session();
    session
        .execute("CREATE SCHEMA s; CREATE TABLE s.t (id INT PRIMARY KEY, v INT); INSERT INTO s.t VALUES (1, 10)")
        .await
        .unwrap();
    let first = newest(&mut session).await;
    session
        .execute("ALTER TABLE s.t RENAME COLUMN v TO w; ALTER TABLE s.t ADD COLUMN x TEXT DEFAULT 'new'")
        .await
        .unwrap();
    session
        .execute("ALTER TABLE s.t RENAME TO u; INSERT INTO s.u VALUES (2, 20, 'two'); CALL strata.compact('s.u')")
        .await
        .unwrap();
    assert_eq!(text(&mut session, &format!("SELECT * FROM s.t VERSION AS OF {first}")).await, "1 10");
    assert_eq!(text(&mut session, &format!("SELECT t.v FROM s.t VERSION AS OF {first}")).await, "10");
    let report = text(&mut session, &format!("SELECT * FROM s.u VERSION AS OF {first}")).await;
    assert!(report.starts_with("ERROR 42P01") && report.contains(&format!("as of commit {first}")), "{report}");
    // A column that is gone is refused where its values are gone: never NULL for what was there.
    session.execute("ALTER TABLE s.u DROP COLUMN w; CALL strata.compact('s.u')").await.unwrap();
    let report = text(&mut session, &format!("SELECT v FROM s.t VERSION AS OF {first}")).await;
    assert!(report == "10" || report.starts_with("ERROR 40001"), "{report}");
    // Dropping anything ends the past: an older state would show it empty.
    session.execute("CREATE TABLE gone (id INT PRIMARY KEY); INSERT INTO gone VALUES (1)").await.unwrap();
    let before = newest(&mut session).await;
    session.execute("TRUNCATE gone").await.unwrap();
    let report = text(&mut session, &format!("SELECT * FROM gone VERSION AS OF {before}")).await;
    assert!(
        report.starts_with("ERROR 22023: the state asked for is no longer kept") && report.contains("VERSION AS OF"),
        "{report}"
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let env = Arc::new(SimEnv::new(3));
    let engine = open(&env, KEPT);
    let (mut session, mut other) = (engine.session(), engine.session());
    session.execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let first = newest(&mut session).await;
    let starts = [
        ("SELECT * FROM t VERSION AS OF 99999".to_owned(), "ERROR 22023: commit 99999 is later than commit"),
        ("SELECT * FROM t VERSION AS OF 0".to_owned(), "ERROR"),
        (format!("SELECT * FROM t VERSION AS OF {first} FOR UPDATE"), "ERROR 0A000"),
        (format!("SELECT * FROM strata.tables VERSION AS OF {first}"), "ERROR 0A000"),
        (format!("SELECT * FROM nothing VERSION AS OF {first}"), "ERROR 42P01"),
        ("SELECT * FROM t TIMESTAMP AS OF".to_owned(), "ERROR 42601"),
        (format!("SELECT * FROM t AT(TIMESTAMP => {first}) VERSION AS OF 1"), "ERROR 42601"),
    ];
    for (sql, start) in starts {
        let report = text(&mut session, &sql).await;
        assert!(report.starts_with(start), "{sql}: {report}");
    }
    for sql in [format!("UPDATE t VERSION AS OF {first} SET id = 2"), format!("DELETE FROM t VERSION AS OF {first}")] {
        let report = session.execute(&sql).await.unwrap_err().report();
        assert!(report.starts_with("ERROR 0A000") || report.starts_with("ERROR 42601"), "{sql}: {report}");
    }
    // A transaction does not look into its own future, and its own writes are no past.
    session.execute("BEGIN").await.unwrap();
    session.execute("INSERT INTO t VALUES (2)").await.unwrap();
    other.execute("INSERT INTO t VALUES (3)").await.unwrap();
    let later = newest(&mut other).await;
    assert_eq!(text(&mut session, &format!("SELECT id FROM t VERSION AS OF {first}")).await, "1");
    let report = text(&mut session, &format!("SELECT id FROM t VERSION AS OF {later}")).await;
    assert!(report.contains("is later than commit"), "{report}");
    session.execute("ROLLBACK").await.unwrap();
    // Names that the grammar of the past knows are still names.
    let sql = "SELECT at.id, before.id FROM t at, t before, t AS changes WHERE at.id = before.id AND changes.id = at.id AND at.id = 3";
    assert_eq!(text(&mut session, sql).await, "3 3");
    // Without retention there is no past.
    drop((session, other));
    drop(engine);
    let env = Arc::new(SimEnv::new(4));
    let engine = open(&env, Duration::ZERO);
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let report = text(&mut session, "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2001-01-01'").await;
    assert!(report.contains("no longer kept"), "{report}");
}
