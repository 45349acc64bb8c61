//! The main job at scale 0.01, as a user runs it: three placements, changes, reuse, an unfinished load, wrong answers.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::path::Path;

use harness::{folder, strata};
use strata_sql::{Engine, EngineOptions};

/// The JSON of a run that must succeed with 22 verified answers.
fn tpch(arguments: &[&str], folder: &Path) -> serde_json::Value {
    let all = [&["tpch", "--scale", "0.01", "--runs", "1", "--json", "out.json"], arguments].concat();
    let output = strata(&all, folder);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let json = strata_cli::files::read_text(&folder.join("out.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for query in json["queries"].as_array().unwrap() {
        assert_eq!(query["verified"], true, "{query}\n{err}");
    }
    assert_eq!(json["queries"].as_array().unwrap().len(), 22);
    json
}

/// Rows read from (row store, segments) by all queries together.
fn rows_read(json: &serde_json::Value) -> (u64, u64) {
    let sum = |name: &str| json["queries"].as_array().unwrap().iter().map(|q| q[name].as_u64().unwrap()).sum::<u64>();
    (sum("memtable_rows") + sum("run_rows"), sum("segment_rows"))
}

#[test]
fn segments_answer_and_are_reused() {
    let folder = folder("tpch-segments");
    let json = tpch(&[], &folder);
    let (fresh, segments) = rows_read(&json);
    assert!(fresh == 0 && segments > 100_000, "{fresh} {segments}");
    assert_eq!(json["rows"], 86_805);
    assert_eq!(json["reused"], false);
    assert!(json["bytes_on_disk"].as_u64().unwrap() < 20_000_000, "{}", json["bytes_on_disk"]);
    // The default directory, so that a second run in the same place finds it.
    let again = tpch(&["--dir", "strata-tpch-sf0.01"], &folder);
    assert_eq!(again["reused"], true);
    let other_scale = strata(&["tpch", "--scale", "0.02", "--dir", "strata-tpch-sf0.01", "--no-compare"], &folder);
    assert!(!other_scale.status.success());
    assert!(String::from_utf8_lossy(&other_scale.stderr).contains("holds scale 0.01"));
    let fresh = strata(&["tpch", "--scale", "0.01", "--dir", "strata-tpch-sf0.01", "--placement", "fresh"], &folder);
    assert!(!fresh.status.success());
    assert!(String::from_utf8_lossy(&fresh.stderr).contains("cannot become 'fresh'"));
}

#[test]
fn fresh_rows_answer() {
    let folder = folder("tpch-fresh");
    let json = tpch(&["--placement", "fresh"], &folder);
    let (fresh, segments) = rows_read(&json);
    assert!(fresh > 100_000 && segments == 0, "{fresh} {segments}");
    // A directory of fresh rows may become one of segments.
    let json = tpch(&["--dir", "strata-tpch-sf0.01-fresh"], &folder);
    assert_eq!(rows_read(&json).0, 0);
}

#[test]
fn mixed_rows_answer() {
    let folder = folder("tpch-mixed");
    let json = tpch(&["--placement", "mixed"], &folder);
    let (fresh, segments) = rows_read(&json);
    assert!(fresh > 50_000 && segments > 50_000, "{fresh} {segments}");
}

#[test]
fn changed_rows_answer_in_each_placement() {
    let folder = folder("tpch-changed");
    for placement in ["segments", "fresh", "mixed"] {
        tpch(&["--changes", "--placement", placement], &folder);
    }
}

/// A load that was killed is done again; a wrong row is noticed and makes the exit code 1.
#[test]
fn unfinished_loads_start_over_and_wrong_answers_fail() {
    let folder = folder("tpch-unfinished");
    let dir = folder.join("db");
    let run = |sql: &str| {
        let engine = Engine::open(&dir, EngineOptions::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(engine.session().execute(sql)).unwrap();
        engine.close().unwrap();
    };
    tpch(&["--dir", "db"], &folder);
    run("update nation set n_name = 'GERMANX' where n_name = 'GERMANY'");
    let wrong = strata(&["tpch", "--scale", "0.01", "--dir", "db", "--runs", "1", "--queries", "6,11"], &folder);
    let out = String::from_utf8_lossy(&wrong.stdout);
    assert_eq!(wrong.status.code(), Some(1), "{out}");
    assert!(out.contains("WRONG") && out.contains("1 of 2 answers verified"), "{out}");
    run("update tpch_load set state = 'loading'; delete from lineitem where l_orderkey < 1000");
    assert_eq!(tpch(&["--dir", "db"], &folder)["reused"], false);
}

#[test]
fn tables_of_the_user_are_left_alone() {
    let folder = folder("tpch-foreign");
    let made = strata(&["sql", "--dir", "db", "-c", "create table orders (id bigint primary key)"], &folder);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let refused = strata(&["tpch", "--scale", "0.01", "--dir", "db"], &folder);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("strata tpch did not make"));
}

/// A scale without stored answers: three placements agree, and their answers are kept for the next run.
#[test]
fn other_scales_compare_placements() {
    let folder = folder("tpch-other");
    let arguments = ["tpch", "--scale", "0.02", "--runs", "1"];
    for _ in 0..2 {
        let output = strata(&arguments, &folder);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && out.contains("22 of 22 answers verified"), "{out}");
    }
    assert!(folder.join("strata-tpch-sf0.02.answers").is_dir());
    assert!(!folder.join("strata-tpch-sf0.02.compare-fresh").exists());
}
