//! `strata sql` and the commands on directories: results in each format, and bad input with words that help.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{folder, strata};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that must succeed prints.
fn out(arguments: &[&str], folder: &Path) -> String {
    let output = strata(arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command that must fail says.
fn error(arguments: &[&str], folder: &Path) -> String {
    let output = strata(arguments, folder);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {} {message}", text(&output.stdout));
    assert!(!message.contains("panicked"), "{message}");
    message
}

#[test]
fn results_in_each_format() {
    let folder = folder("sql-formats");
    let query = "select 1 as a, 'x,\"y' as b, cast(null as integer) as c";
    let run = |format: &str| out(&["sql", "-c", query, "--format", format], &folder);
    assert_eq!(run("csv"), "a,b,c\n1,\"x,\"\"y\",\n");
    assert_eq!(run("json"), "[{\"a\":1,\"b\":\"x,\\\"y\",\"c\":null}]\n");
    assert_eq!(run("jsonl"), "{\"a\":1,\"b\":\"x,\\\"y\",\"c\":null}\n");
    assert!(run("table").contains("| 1 | x,\"y | NULL |"), "{}", run("table"));
    let parquet = strata(&["sql", "-c", query, "--format", "parquet"], &folder);
    assert!(parquet.stdout.starts_with(b"PAR1") && parquet.stdout.ends_with(b"PAR1"));
    let arrow = strata(&["sql", "-c", query, "--format", "arrow"], &folder);
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.stdout.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
}

#[test]
fn rows_stay_in_a_directory() {
    let folder = folder("sql-directory");
    let create = "create table t (a bigint primary key, b text); insert into t values (1, 'one'), (2, null)";
    assert_eq!(out(&["sql", "--dir", "db", "-c", create], &folder), "CREATE TABLE\nINSERT 2\n");
    let query = ["sql", "--dir", "db", "--format", "csv", "-c", "select * from t order by a"];
    assert_eq!(out(&query, &folder), "a,b\n1,one\n2,\n");
    assert!(out(&["verify", "db"], &folder).contains("no damage"));
    assert!(out(&["verify", "db", "--indexes"], &folder).contains("every index agrees with its table"));
    out(&["compact", "db"], &folder);
    assert_eq!(out(&query, &folder), "a,b\n1,one\n2,\n");
    out(&["checkpoint", "db", "copy"], &folder);
    assert!(error(&["checkpoint", "db", "copy"], &folder).contains("exists already"));
    let copy = ["sql", "--dir", "copy", "--format", "csv", "-c", "select count(*) as n from t"];
    assert_eq!(out(&copy, &folder), "n\n2\n");
    assert!(out(&["backup", "create", "db", "backups"], &folder).starts_with("backup 1: commit "));
    assert!(out(&["backup", "create", "db", "backups"], &folder).contains("0 files copied"));
    assert_eq!(out(&["backup", "list", "backups"], &folder).lines().count(), 2);
    assert!(out(&["backup", "verify", "backups"], &folder).contains(": 0 damaged"));
    assert_eq!(out(&["backup", "prune", "backups", "--keep", "1"], &folder), "1 backups removed\n");
    assert!(out(&["backup", "restore", "backups", "restored"], &folder).contains("from backup 2"));
    let restored = ["sql", "--dir", "restored", "--format", "csv", "-c", "select * from t order by a"];
    assert_eq!(out(&restored, &folder), "a,b\n1,one\n2,\n");
}

#[test]
fn scripts_come_from_files_and_pipes() {
    let folder = folder("sql-scripts");
    strata_cli::files::write_text(&folder.join("s.sql"), "select 1 as a; -- comment\nselect 2 as b;").unwrap();
    assert_eq!(out(&["sql", "--format", "csv", "-f", "s.sql"], &folder), "a\n1\nb\n2\n");
    let mut child = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["sql", "--format", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"select 3 as c").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "c\n3\n");
}

#[test]
fn bad_input_says_what_where_and_what_to_do() {
    let folder = folder("sql-bad");
    let sql = |statement: &str| error(&["sql", "-c", statement], &folder);
    assert!(sql("select * from missing").contains("42P01"));
    assert!(sql("select nothing from (select 1 as a)").contains("42703"));
    assert!(sql("selekt 1").contains("42601"));
    assert!(sql("select 1 / (select 0)").contains("22012"));
    assert!(sql("create table t (a int primary key); insert into t values (1), (1)").contains("23505"));
    assert!(sql("create table t (a int primary key); insert into t values (null)").contains("23502"));
    assert!(error(&["sql", "--url", "grpc://localhost:1", "-c", "select 1"], &folder).contains("not built yet"));
    assert!(error(&["sql", "-f", "missing.sql"], &folder).contains("missing.sql"));
    assert!(error(&["verify", "missing"], &folder).contains("no directory missing"));
    assert!(error(&["tpch", "--queries", "23"], &folder).contains("1 to 22"));
    assert!(error(&["tpch", "--scale", "-1"], &folder).contains("above 0"));
    assert!(error(&["tpch", "--scale", "0.002"], &folder).contains("supplier twice"));
    assert!(error(&["tpch", "--runs", "0"], &folder).contains("at least once"));
    assert_eq!(strata(&["tpch", "--placement", "nowhere"], &folder).status.code(), Some(2));
    assert_eq!(strata(&["--memory", "1KiB", "sql"], &folder).status.code(), Some(2));
    // The first error ends a script.
    let output = strata(&["sql", "--format", "csv", "-c", "select 1 as a; select x; select 2 as b"], &folder);
    assert_eq!(text(&output.stdout), "a\n1\n");
}

#[test]
fn directories_that_cannot_be_opened() {
    let folder = folder("sql-unopenable");
    strata_cli::files::write_text(&folder.join("file"), "not a directory").unwrap();
    assert!(error(&["sql", "--dir", "file", "-c", "select 1"], &folder).contains("file"));

    let engine = strata_sql::Engine::open(folder.join("db"), strata_sql::EngineOptions::default()).unwrap();
    let locked = error(&["sql", "--dir", "db", "-c", "select 1"], &folder);
    assert!(locked.contains("db") && locked.contains("another process"), "{locked}");
    engine.close().unwrap();
    out(&["sql", "--dir", "db", "-c", "select 1"], &folder);
}
