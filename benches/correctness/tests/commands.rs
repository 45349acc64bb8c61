//! The long runs in short: each command runs, finds nothing, and leaves a record that the next one goes on from.

#![allow(clippy::unwrap_used, reason = "a test panics")]
#![expect(
    clippy::disallowed_methods,
    reason = "writes a small corpus and reads records, which are no files of a database"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("correctness-{name}"));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command and returns whether it was content, what it printed and its record.
fn run(folder: &Path, arguments: &[&str]) -> (bool, String, Value) {
    let out = folder.join("record.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_correctness"));
    let output = command.args(arguments).arg("--out").arg(&out).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let record = fs::read_to_string(out).map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    (output.status.success(), text, record)
}

#[test]
fn campaigns_go_on_where_they_stopped() {
    let folder = scratch("campaigns");
    for count in 1..=2 {
        // What it finds is not this test's matter.
        let (_, text, record) = run(&folder, &["differential", "--count", "1"]);
        assert_eq!(record["differential"]["next"], count, "{text}");
    }
    let (content, text, record) = run(&folder, &["histories", "--count", "1"]);
    assert!(content && record["histories"]["total"]["transactions"].as_u64().unwrap() > 100, "{text}");
}

#[test]
fn files_of_a_corpus_are_played_once() {
    let folder = scratch("corpus");
    let dir = folder.join("test/some");
    fs::create_dir_all(&dir).unwrap();
    let good = "statement ok\nCREATE TABLE t (a INTEGER)\n\nstatement ok\nINSERT INTO t VALUES (7)\n\nquery I\nSELECT a FROM t\n----\n7\n";
    fs::write(dir.join("good.test"), good).unwrap();
    fs::write(dir.join("bad.test"), good.replace("----\n7", "----\n8")).unwrap();
    let dir = folder.join("test");
    let report = folder.join("failures.md");
    let corpus = ["corpus", "--dir", dir.to_str().unwrap(), "--failures", report.to_str().unwrap()];
    let (content, text, record) = run(&folder, &corpus);
    assert!(!content && text.contains("2 files to play"), "{text}");
    let total = &record["segments"]["total"];
    assert_eq!((&total["run"], &total["passed"], &total["failed"]), (&6.into(), &5.into(), &1.into()));
    assert!(fs::read_to_string(&report).unwrap().starts_with("## 1 × wrong answer: values in some"));
    let (content, text, _) = run(&folder, &corpus);
    assert!(content && text.contains("0 files to play"), "{text}");
    let (_, text, _) = run(&folder, &[&corpus[..], &["--again", "failed"]].concat());
    assert!(text.contains("1 files to play"), "{text}");
    let (_, text, record) =
        run(&folder, &[&corpus[..], &["--sample", "4", "--seed", "1", "--placement", "half"]].concat());
    assert!(record["half, sample of seed 1"]["total"]["run"].as_u64().unwrap() >= 4, "{text}");
}
