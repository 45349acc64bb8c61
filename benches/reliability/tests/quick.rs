//! The long campaigns in short: each command runs, finds nothing, and leaves a record that the next one goes on from.
//! The campaigns in the simulated machine have their quick versions in the row store's own tests.

#![allow(clippy::unwrap_used, reason = "a test panics")]
#![expect(clippy::disallowed_methods, reason = "reads the record, which is no file of a database")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reliability-{name}"));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a campaign and returns what it printed and its record.
fn run(folder: &Path, arguments: &[&str]) -> (String, Value) {
    let out = folder.join("record.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_reliability"));
    command.args(arguments).arg("--out").arg(&out).arg("--scratch").arg(folder.join("scratch"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let record = fs::read_to_string(out).map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    (text, record)
}

#[test]
fn killed_processes_lose_nothing() {
    let (_, record) = run(&scratch("kill9"), &["kill9", "--count", "1"]);
    assert_eq!(record["kill9"]["total"]["cycles"], 10);
    assert!(record["kill9"]["total"]["commits"].as_u64().unwrap() > 0);
}

#[test]
fn power_cuts_of_a_file_system_lose_nothing() {
    let (text, record) = run(&scratch("ext4"), &["ext4-power", "--count", "1"]);
    if text.starts_with("skipped: ") {
        assert!(text.contains("needs"), "it says what is missing: {text}");
    } else {
        assert_eq!(record["ext4-power"]["total"]["cycles"], 10);
    }
}

#[test]
fn a_campaign_goes_on_where_it_stopped() {
    let folder = scratch("resume");
    let (_, record) = run(&folder, &["disk-full", "--count", "2"]);
    assert_eq!(record["disk-full"]["next"], 2);
    let (_, record) = run(&folder, &["disk-full", "--count", "1"]);
    assert_eq!((&record["disk-full"]["next"], &record["disk-full"]["total"]["cases"]), (&3.into(), &3.into()));
    assert_eq!(record["disk-full"]["runs"].as_array().unwrap().len(), 1, "one run of one commit");
    let (_, record) = run(&folder, &["disk-full", "--count", "1", "--seed", "0"]);
    assert_eq!(record["disk-full"]["total"]["cases"], 3, "a case that is run again is no news");
}
