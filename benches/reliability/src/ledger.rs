//! The record of all campaigns: a JSON file, replaced as a whole so that a stop at any moment leaves a good one.
//!
//! ```json
//! {"power-loss": {"next": 12, "total": {"cases": 12, "states": 2951},
//!                 "runs": [{"cases": [0, 11], "commit": "…", "counts": {…}, "violations": []}]}}
//! ```
//!
//! A run that goes on where the last one stopped, on the same commit, is counted with it.
#![expect(clippy::disallowed_methods, reason = "the record is no file of a database")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::{Env, FileLock};

/// What cases looked at, by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// The record in memory.
pub struct Ledger {
    path: PathBuf,
    content: Map<String, Value>,
    commit: String,
    changed_files: usize,
}

impl Ledger {
    pub fn open(path: &Path) -> Result<Ledger> {
        let (commit, changed_files) = revision();
        Ok(Ledger { path: path.to_path_buf(), content: load(path)?, commit, changed_files })
    }

    /// The first case that is not on record.
    pub fn next(&self, campaign: &str) -> u64 {
        self.content.get(campaign).and_then(|entry| entry["next"].as_u64()).unwrap_or(0)
    }

    /// The sum of a count over all runs.
    pub fn total(&self, campaign: &str, count: &str) -> u64 {
        self.content.get(campaign).and_then(|entry| entry["total"][count].as_u64()).unwrap_or(0)
    }

    /// Adds the cases `first..=last` and saves. Another campaign may do so at the same time.
    pub fn add(&mut self, campaign: &str, first: u64, last: u64, counts: &Counts, violations: &[Value]) -> Result<()> {
        let _alone = wait_for_lock()?;
        self.content = load(&self.path)?;
        let fresh = json!({"next": 0, "total": {}, "runs": []});
        let entry = self.content.entry(campaign).or_insert(fresh);
        // A case that is run again is no news.
        let next = entry["next"].as_u64().unwrap_or(0);
        if first == next {
            entry["next"] = json!(last + 1);
            add_counts(&mut entry["total"], counts);
        }
        let runs = entry["runs"].as_array_mut().context("runs is a list")?;
        let goes_on = |run: &Value| run["cases"][1] == json!(first.wrapping_sub(1)) && run["commit"] == self.commit;
        if !runs.last().is_some_and(goes_on) {
            runs.push(json!({"cases": [first, last], "counts": {}, "violations": []}));
        }
        let run = runs.last_mut().context("a run was just added")?;
        run["cases"][1] = json!(last);
        run["commit"] = json!(self.commit);
        run["changed_files"] = json!(self.changed_files);
        run["date"] = json!(date(OsEnv::new().wall_clock().as_secs()));
        run["profile"] = json!(if cfg!(debug_assertions) { "dev" } else { "release" });
        add_counts(&mut run["counts"], counts);
        run["violations"].as_array_mut().context("violations is a list")?.extend(violations.iter().cloned());
        self.save()
    }

    fn save(&self) -> Result<()> {
        let temporary = self.path.with_extension("json.tmp");
        let text = format!("{:#}\n", Value::from(self.content.clone()));
        fs::write(&temporary, text).with_context(|| format!("cannot write {}", temporary.display()))?;
        fs::rename(&temporary, &self.path).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn load(path: &Path) -> Result<Map<String, Value>> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// One lock for all records of the machine: it is held for a millisecond.
fn wait_for_lock() -> Result<Box<dyn FileLock>> {
    let path = std::env::temp_dir().join("strata-reliability.lock");
    loop {
        match OsEnv::new().lock(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            other => return other.with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

fn add_counts(into: &mut Value, counts: &Counts) {
    for (name, count) in counts {
        into[*name] = json!(into[*name].as_u64().unwrap_or(0) + count);
    }
}

/// The commit, and how many files differ from it; the record itself does not count.
fn revision() -> (String, usize) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success());
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]);
    (git(&["rev-parse", "HEAD"]), changed.lines().filter(|line| !line.contains("benches/results/")).count())
}

/// The day of a time since 1970, as `2026-11-21`. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_names() {
        assert_eq!([0, 951_782_400, 1_795_230_909].map(date), ["1970-01-01", "2000-02-29", "2026-11-21"]);
    }
}
