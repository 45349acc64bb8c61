//! What is known of each file in each placement: a JSON file, replaced as a whole after every file.
//!
//! ```json
//! {"segments": {"files": {"select1.test": {"commit": "…", "records": 1031, "passed": 1031, …}}, "total": {…}}}
//! ```
#![expect(clippy::disallowed_methods, reason = "the record is no file of a database")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::play::Played;

/// The record in memory.
pub struct FileRecord {
    path: PathBuf,
    content: Map<String, Value>,
    commit: String,
}

/// Counts of a file that add up over files.
const COUNTS: [&str; 7] = ["records", "other_engines", "not_sampled", "excluded", "run", "passed", "failed"];

impl FileRecord {
    pub fn open(path: &Path) -> Result<FileRecord> {
        let content = match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok();
        let commit = output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Ok(FileRecord { path: path.to_path_buf(), content, commit })
    }

    /// Whether the file was run in this column of the record, and what failed then.
    pub fn failed(&self, column: &str, file: &str) -> Option<u64> {
        self.content.get(column)?.get("files")?.get(file)?["failed"].as_u64()
    }

    /// Notes what playing a file gave, in place of what was known, and saves.
    pub fn note(&mut self, column: &str, file: &str, played: &Played) -> Result<()> {
        let excluded: u64 = played.excluded.values().sum();
        let failed = played.failures.values().map(|failure| failure.count).sum::<u64>();
        let reasons: BTreeMap<&String, u64> = played.failures.iter().map(|(reason, f)| (reason, f.count)).collect();
        let mut entry = json!({
            "commit": self.commit, "records": played.records, "other_engines": played.other_engines,
            "not_sampled": played.not_sampled, "excluded": excluded, "run": played.passed + failed,
            "passed": played.passed, "failed": failed,
        });
        if excluded > 0 {
            entry["excluded_by"] = json!(played.excluded);
        }
        if failed > 0 {
            entry["failed_by"] = json!(reasons);
        }
        let column = self.content.entry(column).or_insert(json!({"files": {}, "total": {}}));
        column["files"][file] = entry;
        column["total"] = total(&column["files"]);
        self.save()
    }

    /// The sums over the files of a column.
    pub fn total(&self, column: &str) -> Value {
        self.content.get(column).map_or(json!({}), |column| column["total"].clone())
    }

    fn save(&self) -> Result<()> {
        let temporary = self.path.with_extension("json.tmp");
        let text = format!("{:#}\n", Value::from(self.content.clone()));
        fs::write(&temporary, text).with_context(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, &self.path).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn total(files: &Value) -> Value {
    let files = files.as_object().map(|files| files.values().collect::<Vec<_>>()).unwrap_or_default();
    let mut total = json!({"files": files.len()});
    for count in COUNTS {
        total[count] = json!(files.iter().filter_map(|file| file[count].as_u64()).sum::<u64>());
    }
    for group in ["excluded_by", "failed_by"] {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (name, count) in files.iter().filter_map(|file| file[group].as_object()).flatten() {
            *sums.entry(name.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        total[group] = json!(sums);
    }
    total
}
