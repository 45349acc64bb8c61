//! What a user sees when the directory is wrong: in use, newer, damaged, or on a full disk. Each gets its SQLSTATE, the
//! place and what to do; nothing acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use arrow::record_batch::RecordBatch;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_sql::{Background, Engine, EngineOptions, Error, Session};

fn open(env: &SimEnv) -> Result<Engine, Error> {
    let options = EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
    let env: Arc<dyn Env> = Arc::new(env.clone());
    Engine::open_with_env(env, Path::new("db"), options)
}

async fn load(session: &mut Session) {
    session
        .execute(
            "CREATE TABLE t (id INT PRIMARY KEY, v TEXT);
             INSERT INTO t SELECT value, 'row ' || value FROM generate_series(1, 500); CALL strata.convert('t');
             INSERT INTO t SELECT value, 'row ' || value FROM generate_series(501, 600); CALL strata.flush()",
        )
        .await
        .unwrap();
}

async fn count(session: &mut Session) -> Result<usize, Error> {
    let batches = session.query("SELECT id, v FROM t").await?.collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

fn files_of(env: &SimEnv, extension: &str) -> Vec<(PathBuf, u64)> {
    env.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|found| found == extension)).collect()
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let env = SimEnv::new(1);
    let engine = open(&env).unwrap();
    let error = open(&env).unwrap_err();
    assert_eq!(error.sqlstate(), "55006", "{error:?}");
    assert!(error.message().contains("db") && error.hint().is_some(), "{error:?}");
    engine.close().unwrap();
}

#[tokio::test]
async fn damage_names_the_file_and_never_gives_an_answer() {
    for extension in ["parquet", "run"] {
        let env = SimEnv::new(2);
        let engine = open(&env).unwrap();
        load(&mut engine.session()).await;
        engine.close().unwrap();
        let env = env.reboot(PowerLoss::DropUnsynced);
        let (path, bytes) = files_of(&env, extension).remove(0);
        // Bytes of the rows, not of an index that is read at the opening.
        env.corrupt(&path, bytes / 4, 0x55).unwrap();
        let outcome = match open(&env) {
            Ok(engine) => count(&mut engine.session()).await,
            Err(error) => Err(error),
        };
        let error = outcome.unwrap_err();
        assert_eq!(error.sqlstate(), "XX001", "{error:?}");
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(error.message().contains(&name), "{error:?} names {name}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn on_a_full_disk_commits_are_refused_and_what_was_acknowledged_stays() {
    let env = SimEnv::new(3);
    let engine = open(&env).unwrap();
    let mut session = engine.session();
    load(&mut session).await;
    let used: u64 = env.files().iter().map(|(_, bytes)| bytes).sum();
    env.set_capacity_bytes(Some(used + (1 << 20)));
    let mut acknowledged = 600;
    let error = loop {
        let from = acknowledged + 1;
        let sql =
            format!("INSERT INTO t SELECT value, repeat('x', 2000) FROM generate_series({from}, {})", from + 4999);
        match session.execute(&sql).await {
            Ok(_) => acknowledged += 5000,
            Err(error) => break error,
        }
        if let Err(error) = session.execute("CALL strata.flush()").await {
            break error;
        }
    };
    assert_eq!(error.sqlstate(), "53100", "{error:?}");
    assert!(error.hint().unwrap().contains("free space"), "{error:?}");
    assert_eq!(count(&mut session).await.unwrap(), acknowledged, "reads go on");
    drop(session);
    drop(engine);
    let env = env.kill();
    env.set_capacity_bytes(None);
    let engine = open(&env).unwrap();
    let found = count(&mut engine.session()).await.unwrap();
    assert!(found >= acknowledged, "{found} rows of {acknowledged} acknowledged ones");
    engine.session().execute("INSERT INTO t VALUES (0, 'goes on')").await.unwrap();
}

#[tokio::test]
async fn a_crash_within_ddl_leaves_the_whole_change_or_nothing() {
    let probe = SimEnv::new(4);
    let engine = open(&probe).unwrap();
    let start = probe.ops();
    run_ddl(&engine).await.unwrap();
    let end = probe.ops();
    assert!(end > start);
    for op in start..end {
        let env = SimEnv::new(4);
        let engine = open(&env).unwrap();
        env.crash_at(op);
        let acknowledged = run_ddl(&engine).await.is_ok();
        drop(engine);
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll, PowerLoss::Random(op)] {
            let env = env.reboot(loss);
            let engine = open(&env).unwrap();
            let mut session = engine.session();
            let tables = session.query("SELECT table_name FROM strata.tables").await.unwrap().collect().await.unwrap();
            let count: usize = tables.iter().map(RecordBatch::num_rows).sum();
            assert!(count <= 2, "operation {op}");
            assert!(!acknowledged || count == 1, "operation {op}: acknowledged, but {count} tables");
            // No table owns storage without being known, and new tables still work.
            let known = engine.db().tables().into_iter().filter(|table| table.0 >= 1024).count();
            assert!(known <= count, "operation {op}");
            session.execute("CREATE TABLE later (id INT PRIMARY KEY); INSERT INTO later VALUES (1)").await.unwrap();
        }
    }
}

/// Leaves one table.
async fn run_ddl(engine: &Engine) -> Result<(), Error> {
    let mut session = engine.session();
    session.execute("CREATE TABLE a (id INT PRIMARY KEY); INSERT INTO a VALUES (1)").await?;
    session
        .execute("BEGIN; CREATE TABLE b (id INT PRIMARY KEY); INSERT INTO b SELECT id FROM a; DROP TABLE a; COMMIT")
        .await?;
    Ok(())
}
