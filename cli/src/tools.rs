//! Commands on closed or damaged databases, which they never open: inspect, verify, repair, wal tail.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Map, Value as Json, json};
use strata_olap::inspect::Files;
use strata_oltp::env::Env;
use strata_oltp::env::capped::CappedEnv;
use strata_oltp::env::os::OsEnv;
use strata_oltp::inspect::dump::hex;
use strata_oltp::inspect::log::LogEntry;
use strata_oltp::inspect::tail::{TailCommit, newest_rows};
use strata_oltp::inspect::{Dump, TailEvent, WalTail};
use strata_oltp::iter::VersionKind;
use strata_oltp::repair::{Effect, Loss, RepairOptions};
use strata_oltp::row::{Interval, RowCodec, Value};
use strata_oltp::{Options, TableId};
use strata_sql::TableDefinition;

use crate::files;
use crate::progress::{Timer, grouped};

/// How long a following tail waits before it looks again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);

fn env() -> Arc<dyn Env> {
    // What a tool opens of a large database would otherwise be more than a process may.
    CappedEnv::around(Arc::new(OsEnv::new()), Options::default().open_files_max)
}

/// Writes a file or folder as text; `false` if a fault was found.
///
/// # Errors
/// If it is nothing of a database's, or cannot be read.
pub fn inspect(path: &Path, all: bool) -> Result<bool> {
    let mut out = stdout().lock();
    let mut is_open = true;
    let mut line = |line: &str| is_open &= writeln!(out, "{line}").is_ok();
    let mut dump = Dump::new(&mut line, all);
    strata_oltp::inspect::inspect(&env(), path, Some(&Files), &mut dump)?;
    Ok(dump.faults().is_empty())
}

/// Checks everything about a closed database, and lists all faults; `false` if there is one.
///
/// # Errors
/// If there is no database, or a process has it open.
pub fn verify(dir: &Path) -> Result<bool> {
    ensure!(dir.is_dir(), "there is no directory {}", dir.display());
    let timer = Timer::start();
    let found = strata_oltp::inspect::verify(&env(), dir, Some(&Files))?;
    let mut out = stdout().lock();
    for fault in &found.faults {
        writeln!(out, "{fault}")?;
    }
    for path in &found.unused {
        writeln!(out, "not in use: {}", path.display())?;
    }
    let verdict = match found.faults.len() {
        0 => "no damage found".to_owned(),
        count => format!("{count} faults found"),
    };
    writeln!(
        out,
        "{}: {verdict} in {} runs, {} segments and {} logged commits ({} row versions, {:.1} s)",
        dir.display(),
        found.run_count,
        found.segment_count,
        found.commit_count,
        grouped(found.version_count),
        timer.seconds()
    )?;
    Ok(found.faults.is_empty())
}

/// Brings what can be read of a database into a new folder, and reports every loss; `false` if there is one.
///
/// # Errors
/// If the new folder is not empty or cannot be written, or a process has the database open.
pub fn repair(dir: &Path, into: &Path, salvage_log: bool, json_to: Option<&Path>) -> Result<bool> {
    ensure!(dir.is_dir(), "there is no directory {}", dir.display());
    let options = RepairOptions { salvage_log };
    let report = strata_oltp::repair::repair(&env(), dir, into, Some(&Files), options)?;
    let mut out = stdout().lock();
    for loss in &report.losses {
        writeln!(out, "{loss}")?;
    }
    let verdict = if report.is_lossless() { "nothing was lost" } else { "see above for what was lost" };
    writeln!(
        out,
        "{} repaired into {}: {} files copied, {} written anew, {verdict}",
        dir.display(),
        into.display(),
        report.copied_count,
        report.written_count
    )?;
    if let Some(path) = json_to {
        let losses: Vec<Json> = report.losses.iter().map(loss_as_json).collect();
        let whole = json!({
            "lossless": report.is_lossless(),
            "files_copied": report.copied_count,
            "files_written": report.written_count,
            "losses": losses,
        });
        files::write_text(path, &format!("{whole:#}\n"))?;
    }
    Ok(report.is_lossless())
}

fn loss_as_json(loss: &Loss) -> Json {
    let effect = match loss.effect {
        Effect::Lost => "lost",
        Effect::Reappear => "may_reappear",
        Effect::Rebuilt => "rebuilt",
    };
    json!({
        "effect": effect,
        "kind": loss.kind.to_string(),
        "file": loss.file.display().to_string(),
        "bytes": (loss.bytes.end != u64::MAX).then_some([loss.bytes.start, loss.bytes.end]),
        "table": loss.table.map(|table| table.0),
        "keys": loss.keys.as_ref().map(|(first, last)| [hex(first), hex(last)]),
        "row_versions": loss.rows,
        "what": loss.what,
    })
}

/// Prints the commits of the log, with `follow` for ever.
///
/// # Errors
/// If there is no log, or it is damaged.
pub fn wal_tail(dir: &Path, follow: bool, as_json: bool) -> Result<()> {
    let env = env();
    let mut tail = WalTail::open(Arc::clone(&env), dir)?;
    let mut catalog = Catalog::default();
    // A catalog that cannot be read costs names and values, not the tail.
    for row in newest_rows(&env, dir, strata_sql::CATALOG_TABLE).unwrap_or_default().values() {
        catalog.learn(row);
    }
    let mut out = stdout().lock();
    loop {
        let line = match tail.next_event()? {
            TailEvent::Commit(commit) => catalog.commit(&commit, as_json),
            TailEvent::Behind { from, to } if as_json => json!({"behind": {"from": from.0, "to": to.0}}).to_string(),
            TailEvent::Behind { from, to } => {
                format!("-- positions {from} to {to} were released before they were read")
            }
            TailEvent::End { .. } if follow => {
                out.flush()?;
                std::thread::sleep(FOLLOW_PAUSE);
                continue;
            }
            TailEvent::End { .. } => return Ok(()),
        };
        // Whoever read this has gone.
        if writeln!(out, "{line}").is_err() {
            return Ok(());
        }
    }
}

/// Tables by number, as far as they are known.
#[derive(Default)]
struct Catalog {
    tables: HashMap<TableId, (TableDefinition, RowCodec)>,
}

impl Catalog {
    fn learn(&mut self, row: &[u8]) {
        if let Some(definition) = strata_sql::table_definition(row) {
            let codec = RowCodec::new(&definition.shape);
            self.tables.insert(definition.shape.table, (definition, codec));
        }
    }

    fn commit(&mut self, commit: &TailCommit, as_json: bool) -> String {
        for entry in commit.entries.iter().filter(|entry| entry.table == strata_sql::CATALOG_TABLE) {
            self.learn(&entry.value);
        }
        let (seqno, proven) = (commit.seqno.0, commit.end <= commit.proven);
        if as_json {
            let entries: Vec<Json> = commit.entries.iter().map(|entry| self.entry(entry)).collect();
            return json!({
                "seqno": seqno, "lsn": commit.lsn.0, "end": commit.end.0, "synced_below": commit.proven.0,
                "proven_synced": proven, "file": commit.file.0, "entries": entries,
            })
            .to_string();
        }
        let mut text = format!("commit {seqno} at position {}", commit.lsn);
        for entry in &commit.entries {
            let _ = write!(text, "\n  {}", self.entry(entry));
        }
        text
    }

    fn entry(&self, entry: &LogEntry) -> Json {
        let known = self.tables.get(&entry.table);
        let mut fields = Map::new();
        fields.insert("table".to_owned(), json!(entry.table.0));
        if let Some((definition, _)) = known {
            fields.insert("name".to_owned(), json!(definition.name));
        }
        let kind = if entry.kind == VersionKind::Put { "put" } else { "delete" };
        fields.insert("kind".to_owned(), json!(kind));
        fields.insert("key".to_owned(), json!(hex(&entry.key)));
        if entry.kind == VersionKind::Put {
            match known.and_then(|(definition, codec)| values(definition, codec, &entry.value)) {
                Some(values) => fields.insert("values".to_owned(), Json::Object(values)),
                None => fields.insert("row".to_owned(), json!(hex(&entry.value))),
            };
        }
        Json::Object(fields)
    }
}

/// The row by column name; `None` if it is of a newer version of the table.
fn values(definition: &TableDefinition, codec: &RowCodec, row: &[u8]) -> Option<Map<String, Json>> {
    let mut upgraded = Vec::new();
    let values = codec.read(row, &mut upgraded).ok()?.values().ok()?;
    let columns = definition.shape.columns.iter().map(|column| column.field.name().clone());
    Some(columns.zip(values.iter().map(as_json)).collect())
}

fn as_json(value: &Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::Int16(value) => json!(value),
        Value::Int32(value) | Value::Date32(value) => json!(value),
        Value::Int64(value) | Value::Time64(value) | Value::Timestamp(value) => json!(value),
        Value::Float32(value) => json!(value),
        Value::Float64(value) => json!(value),
        // Unscaled, and as text, because JSON readers round large numbers.
        Value::Decimal128(value) => json!(value.to_string()),
        Value::Text(value) => json!(value),
        // A list is shown as it is stored, because its kind of elements is not known here.
        Value::Binary(value) | Value::List(value) => json!(hex(value)),
        Value::Uuid(value) => json!(hex(value)),
        Value::Interval(Interval { months, days, micros }) => {
            json!({ "months": months, "days": days, "microseconds": micros })
        }
    }
}
