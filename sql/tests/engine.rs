//! The engine as a library: reopening, loading, embedding, limits, and what sessions do at the same time.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_sql::{Background, Engine, EngineOptions, Session, StatementResult, parse_script};

fn options() -> EngineOptions {
    EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() }
}

fn in_memory() -> Engine {
    Engine::open_in_memory(options()).unwrap()
}

fn reopen(env: &Arc<dyn Env>) -> Engine {
    Engine::open_with_env(Arc::clone(env), Path::new("db"), options()).unwrap()
}

async fn number(session: &mut Session, sql: &str) -> i64 {
    let batches = session.query(sql).await.unwrap().collect().await.unwrap();
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

fn ids(range: std::ops::Range<i64>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let engine = reopen(&env);
    let mut session = engine.session();
    session
        .execute(
            "CREATE SCHEMA app; CREATE TABLE app.t (id INT PRIMARY KEY, name VARCHAR(3)); CREATE TABLE free (v INT);
             CREATE TABLE gone (id INT PRIMARY KEY);
             INSERT INTO app.t VALUES (1, 'one'), (2, 'two'); INSERT INTO free VALUES (7), (7); INSERT INTO gone VALUES (1);
             CALL strata.convert('app.t'); UPDATE app.t SET name = 'dos' WHERE id = 2; CALL strata.flush(); DROP TABLE gone",
        )
        .await
        .unwrap();
    let gone_free = engine.table_id("free").unwrap();
    drop(session);
    engine.close().unwrap();

    let engine = reopen(&env);
    let mut session = engine.session();
    assert_eq!(number(&mut session, "SELECT count(*) FROM app.t WHERE name IN ('one', 'dos')").await, 2);
    assert_eq!(number(&mut session, "SELECT count(*) FROM free").await, 2);
    assert_eq!(engine.table_id("free").unwrap(), gone_free);
    let error = session.execute("SELECT * FROM gone").await.unwrap_err();
    assert_eq!(error.sqlstate(), "42P01");
    // Limits of text, hidden row ids and table numbers go on where they were.
    let error = session.execute("INSERT INTO app.t VALUES (3, 'drei')").await.unwrap_err();
    assert_eq!(error.sqlstate(), "22001");
    session.execute("INSERT INTO free VALUES (8); CREATE TABLE later (id INT PRIMARY KEY)").await.unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM free").await, 3);
    assert!(engine.table_id("later").unwrap() > gone_free);
}

#[tokio::test]
async fn storage_of_a_dropped_table_is_gone_at_the_next_open() {
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let engine = reopen(&env);
    let mut session = engine.session();
    session
        .execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1); CALL strata.flush()")
        .await
        .unwrap();
    let id = engine.table_id("t").unwrap();
    // A reader keeps what it saw.
    let mut reader = engine.session();
    reader.execute("BEGIN").await.unwrap();
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t").await, 1);
    session.execute("DROP TABLE t; CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    assert_eq!(number(&mut reader, "SELECT count(*) FROM t").await, 1);
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 0);
    assert_ne!(engine.table_id("t").unwrap(), id);
    drop((session, reader));
    engine.close().unwrap();
    let engine = reopen(&env);
    assert!(!engine.db().tables().contains(&id));
    assert_eq!(number(&mut engine.session(), "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn bulk_rows_arrive_in_transactions_and_keep_keys_unique() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await.unwrap();
    let mut writer = engine.bulk_writer("t", 1000).unwrap();
    for start in (0..9_999).step_by(700) {
        writer.write(&ids(start..(start + 700).min(9_999))).unwrap();
    }
    assert_eq!(writer.committed_rows(), 9000);
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 9000, "the last transaction is open");
    assert_eq!(writer.finish().unwrap(), 9_999);
    assert_eq!(number(&mut session, "SELECT count(*) FROM t WHERE note IS NULL").await, 9_999);

    for placement in ["SELECT 1", "CALL strata.flush()", "CALL strata.convert('t')"] {
        session.execute(placement).await.unwrap();
        for range in [0..10, 9_990..10_010, 500..2000, -5..1] {
            let mut writer = engine.bulk_writer("t", 1000).unwrap();
            let error = writer.write(&ids(range.clone())).and_then(|_| writer.finish()).unwrap_err();
            assert_eq!(error.sqlstate(), "23505", "{range:?} after {placement}");
        }
        assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 9_999);
    }
    // Falling keys, and keys between others, are looked up one by one.
    session.execute("DELETE FROM t WHERE id BETWEEN 100 AND 199").await.unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((100..200).rev()));
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|at| at.to_string())));
    let batch = RecordBatch::try_from_iter([("note", notes), ("id", ids)]).unwrap();
    assert_eq!(session.append("public.t", &batch).await.unwrap(), 100);
    assert_eq!(number(&mut session, "SELECT count(note) FROM t").await, 100);
    let error = session.append("t", &batch.project(&[0]).unwrap()).await.unwrap_err();
    assert_eq!(error.sqlstate(), "23502");
    let renamed = RecordBatch::try_from_iter([("idd", Arc::clone(batch.column(1)))]).unwrap();
    let error = session.append("t", &renamed).await.unwrap_err();
    assert_eq!((error.sqlstate(), error.hint()), ("42703", Some("did you mean id?")));
}

#[tokio::test]
async fn append_is_part_of_the_open_transaction() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY); BEGIN").await.unwrap();
    session.append("t", &ids(0..10)).await.unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 10);
    assert_eq!(number(&mut engine.session(), "SELECT count(*) FROM t").await, 0);
    session.execute("ROLLBACK").await.unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn a_session_context_reads_one_snapshot_per_plan_and_writes_nothing() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2)").await.unwrap();
    let context = engine.session_context();
    let frame = context.sql("SELECT sum(a.v) FROM t a JOIN strata.public.t b ON a.id = b.id").await.unwrap();
    session.execute("UPDATE t SET v = v * 10").await.unwrap();
    // The plan is bound when it is made physical, so it sees the update; no writer can change it afterwards.
    let plan = frame.create_physical_plan().await.unwrap();
    session.execute("DELETE FROM t").await.unwrap();
    let batches = datafusion::physical_plan::collect(plan, context.task_ctx()).await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 30);

    for sql in ["INSERT INTO t VALUES (3, 3)", "UPDATE t SET v = 0", "DELETE FROM t", "CREATE TABLE u (id INT)"] {
        let error = match context.sql(sql).await {
            Ok(frame) => frame.collect().await.map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        let error = strata_sql::Error::from(error);
        assert_eq!(error.sqlstate(), "0A000", "{sql}: {error:?}");
        assert!(error.hint().unwrap().contains("Session"), "{sql}: {error:?}");
    }
    // DataFusion hides the reason of this one, but drops nothing.
    context.sql("DROP TABLE t").await.unwrap_err();
    assert!(engine.table_id("t").is_ok());
    // A plan whose table is gone is refused.
    let stale = context.table("t").await.unwrap();
    session.execute("DROP TABLE t").await.unwrap();
    let error = strata_sql::Error::from(stale.collect().await.unwrap_err());
    assert_eq!(error.sqlstate(), "42P01", "{error:?}");
}

#[tokio::test]
async fn an_unbound_scan_is_an_error() {
    let engine = in_memory();
    engine.session().execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let provider = engine.session_context().table_provider("t").await.unwrap();
    let stranger = datafusion::prelude::SessionContext::new();
    stranger.register_table("t", provider).unwrap();
    let error = stranger.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap_err();
    assert!(error.to_string().contains("bound to no snapshot"), "{error}");
}

#[tokio::test]
async fn counters_say_where_rows_were_read() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    session.append("t", &ids(0..1000)).await.unwrap();
    session.execute("CALL strata.convert('t')").await.unwrap();
    session.append("t", &ids(1000..1100)).await.unwrap();
    session.execute("CALL strata.flush()").await.unwrap();
    session.append("t", &ids(1100..1110)).await.unwrap();
    assert_eq!(number(&mut session, "SELECT sum(id)::bigint FROM t").await, 1109 * 1110 / 2);
    let counters = session.scan_counters();
    assert_eq!((counters.memtable_rows, counters.run_rows, counters.segment_rows), (10, 100, 1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statements_that_lose_a_race_outside_a_transaction_run_again() {
    let engine = in_memory();
    engine
        .session()
        .execute("CREATE TABLE t (id INT PRIMARY KEY, v BIGINT); INSERT INTO t VALUES (1, 0)")
        .await
        .unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let mut session = engine.session();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let statement = &parse_script("UPDATE t SET v = v + 1 WHERE id = 1").unwrap()[0];
                    // Twenty losses in a row are possible, if unlikely; the statement then says so.
                    while let Err(error) = session.run(statement).await {
                        assert_eq!(error.sqlstate(), "40001", "{error:?}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(&mut engine.session(), "SELECT v FROM t").await, 100);
}

/// Two transactions each read what the other one writes, then commit: `first`, `second` and the outcome of the second commit.
async fn second_commit(begin: &str, first: [&str; 2], second: [&str; 2]) -> Result<(), String> {
    let engine = in_memory();
    let (mut one, mut two) = (engine.session(), engine.session());
    one.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 10), (2, 20)").await.unwrap();
    one.execute("CREATE TABLE other (id INT PRIMARY KEY)").await.unwrap();
    one.execute(begin).await.unwrap();
    two.execute(begin).await.unwrap();
    for (session, statements) in [(&mut one, first), (&mut two, second)] {
        for statement in statements {
            session.execute(statement).await.unwrap();
        }
    }
    one.execute("COMMIT").await.unwrap();
    two.execute("COMMIT").await.map(drop).map_err(|error| error.sqlstate().to_owned())
}

/// What snapshot isolation lets pass and SERIALIZABLE must not: write skew, a phantom in a range that was empty, a
/// decision on what tables there are. What touches nothing that was read passes at both.
#[tokio::test]
async fn serializable_transactions_refuse_what_no_order_explains() {
    let (snapshot, serializable) = ("BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE");
    let skew = (
        ["SELECT sum(v) FROM t", "UPDATE t SET v = 0 WHERE id = 1"],
        ["SELECT sum(v) FROM t", "UPDATE t SET v = 0 WHERE id = 2"],
    );
    let phantom = (
        ["SELECT 1 WHERE EXISTS (SELECT * FROM t WHERE v > 90)", "INSERT INTO t VALUES (3, 95)"],
        ["WITH high AS (SELECT * FROM t WHERE v > 90) SELECT count(*) FROM high", "INSERT INTO t VALUES (4, 96)"],
    );
    let tables = (
        ["SELECT count(*) FROM information_schema.tables", "CREATE TABLE one (id INT PRIMARY KEY)"],
        ["SELECT count(*) FROM information_schema.tables", "INSERT INTO other VALUES (1)"],
    );
    for (first, second) in [skew, phantom, tables] {
        assert_eq!(second_commit(snapshot, first, second).await, Ok(()));
        assert_eq!(second_commit(serializable, first, second).await, Err("40001".to_owned()), "{first:?}");
    }
    let apart = (
        ["SELECT count(*) FROM t", "INSERT INTO t VALUES (3, 1)"],
        ["SELECT count(*) FROM other", "INSERT INTO other VALUES (1)"],
    );
    assert_eq!(second_commit(serializable, apart.0, apart.1).await, Ok(()));
    let reader = (skew.0, ["SELECT sum(v) FROM t", "SELECT count(*) FROM t"]);
    assert_eq!(second_commit(serializable, reader.0, reader.1).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_equal_inserts_wins() {
    let engine = in_memory();
    engine.session().execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let mut session = engine.session();
            tokio::spawn(async move { session.execute("INSERT INTO t VALUES (1)").await.map(|_| ()) })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => winners += 1,
            Err(error) => assert_eq!(error.sqlstate(), "23505", "{error:?}"),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn over_the_memory_budget_a_query_spills_or_fails_and_the_engine_lives_on() {
    let storage = strata_oltp::Options {
        memtable_bytes_max: 8 << 20,
        block_cache_bytes_max: 2 << 20,
        ..strata_oltp::Options::default()
    };
    let options = EngineOptions { memory_budget_bytes: 64 << 20, storage, ..options() };
    let engine = Engine::open_in_memory(options).unwrap();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY, pad TEXT)").await.unwrap();
    session.execute("INSERT INTO t SELECT value, repeat('x', 50) FROM generate_series(1, 50000)").await.unwrap();
    session.execute("CALL strata.convert('t')").await.unwrap();
    // The build side of this join cannot spill.
    let error = session
        .execute("SELECT count(*) FROM (SELECT a.id, a.pad || b.id AS p FROM t a, generate_series(1, 40) b(id)) x JOIN (SELECT c.id, c.pad || d.id AS p FROM t c, generate_series(1, 40) d(id)) y ON x.p = y.p AND x.id = y.id")
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), "53200", "{error:?}");
    // Too large a transaction is refused as well.
    let error = session
        .execute("INSERT INTO t SELECT value, repeat('x', 400) FROM generate_series(100000, 400000)")
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), "53200", "{error:?}");
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 50_000);
    session.execute("INSERT INTO t VALUES (0, 'goes on')").await.unwrap();
    // Tasks of failed queries give their memory back when the runtime drops them, which is soon, but not at once.
    let mut held = 1;
    for _ in 0..1000 {
        held = number(&mut session, "SELECT bytes FROM strata.memory WHERE consumer = 'queries'").await;
        if held == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(held, 0, "bytes of finished queries");
}

#[tokio::test]
async fn a_script_stops_at_its_first_error_and_keeps_what_ran() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    let error = session
        .execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), "23505");
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 1);
    let error = session.execute("INSERT INTO t VALUES (3); SELEC").await.unwrap_err();
    assert_eq!(error.sqlstate(), "42601");
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn rows_of_an_unread_query_stay_those_of_its_snapshot() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id BIGINT PRIMARY KEY); BEGIN").await.unwrap();
    session.append("t", &ids(0..100)).await.unwrap();
    let unread = session.query("SELECT count(*) FROM t").await.unwrap();
    session.execute("DELETE FROM t; COMMIT; CALL strata.compact('t')").await.unwrap();
    let batches = unread.collect().await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 100);
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, 0);
}

#[tokio::test]
async fn explain_shows_the_plan_of_reads_and_writes() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1)").await.unwrap();
    for sql in ["SELECT * FROM t WHERE v > 0", "UPDATE t SET v = 2 WHERE v > 0", "DELETE FROM t WHERE v > 0"] {
        let plan = session.explain(sql).await.unwrap();
        assert!(plan.contains("DataSourceExec"), "{sql}: {plan}");
    }
    assert_eq!(number(&mut session, "SELECT count(*) FROM t WHERE v = 1").await, 1, "explaining changes nothing");
}

#[tokio::test]
async fn a_closed_engine_refuses_writes_with_its_own_code() {
    let engine = in_memory();
    let mut session = engine.session();
    session.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
    engine.clone().close().unwrap();
    let error = session.execute("INSERT INTO t VALUES (1)").await.unwrap_err();
    assert_eq!(error.sqlstate(), "57P03", "{error:?}");
}

#[tokio::test]
async fn results_say_what_was_done() {
    let engine = in_memory();
    let mut session = engine.session();
    let results = session
        .execute("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1), (2); SELECT id FROM t; DELETE FROM t")
        .await
        .unwrap();
    let tags: Vec<String> = results
        .into_iter()
        .map(|result| match result {
            StatementResult::Rows(rows) => format!("rows of {} columns", rows.schema().fields().len()),
            StatementResult::Affected { tag, count } => format!("{tag} {count:?}"),
        })
        .collect();
    assert_eq!(tags, ["CREATE TABLE None", "INSERT Some(2)", "rows of 1 columns", "DELETE Some(2)"]);
    let schema = session.query("SELECT 1 AS one, 'x' AS two").await.unwrap().schema();
    assert_eq!(schema.field(1).name(), "two");
    assert!(schema.field(0).data_type().is_integer());
}
