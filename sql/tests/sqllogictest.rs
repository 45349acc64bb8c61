//! Answers of SQL statements, from `slt/**/*.slt`, each file against a fresh database: once as it stands, and once per
//! placement of the rows.
//!
//! A placement moves rows after every statement that wrote some, so the same file proves that answers do not depend on
//! where rows lie: in memtables, in runs, in segments, or half of them converted. Errors are matched against SQLSTATE,
//! message, detail and hint together. Values in files under `types` and `clients` are shown as PostgreSQL shows them,
//! elsewhere as Arrow does.

#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use strata_sql::{Background, Engine, EngineOptions, Rows, Session, StatementResult, write_text};

/// Where rows lie when the next statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    /// Wherever the engine leaves them: memtables.
    Plain,
    /// Flushed after every write.
    Runs,
    /// Converted after every write.
    Segments,
    /// Converted after every second write, flushed in between.
    Half,
    /// Converted and rewritten without their deletions after every write. Here every statement goes through the planner;
    /// elsewhere those on single rows do not.
    Compact,
}

/// A statement's whole report, for matching.
#[derive(Debug)]
struct Report(String);

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.replace('\n', " "))
    }
}

impl std::error::Error for Report {}

struct Connection {
    engine: Engine,
    session: Session,
    placement: Placement,
    writes: Arc<Mutex<u64>>,
    as_text: bool,
}

impl Connection {
    /// Moves the committed rows of every table.
    async fn place(&self) {
        let write = {
            let mut writes = self.writes.lock().unwrap();
            *writes += 1;
            *writes
        };
        match self.placement {
            Placement::Plain => {}
            Placement::Runs => self.engine.flush().unwrap(),
            Placement::Half if write % 2 == 1 => self.engine.flush().unwrap(),
            Placement::Half | Placement::Segments => self.for_each_table("convert").await,
            Placement::Compact => self.for_each_table("compact").await,
        }
    }

    async fn for_each_table(&self, procedure: &str) {
        let mut session = self.engine.session();
        let listing = session.query("SELECT schema_name || '.' || table_name FROM strata.tables").await.unwrap();
        for row in rows(listing, false).await.unwrap() {
            session.execute(&format!("CALL strata.{procedure}('{}')", row[0])).await.unwrap();
        }
    }
}

async fn rows(rows: Rows, as_text: bool) -> Result<Vec<Vec<String>>, strata_sql::Error> {
    let format = FormatOptions::default().with_null("NULL");
    let mut texts = Vec::new();
    for batch in rows.collect().await? {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &format).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns()).map(|(column, array)| {
                let mut text = String::new();
                // Arrays of no type have no NULLs of their own.
                let is_null = array.is_null(row) || *array.data_type() == arrow::datatypes::DataType::Null;
                if as_text && !is_null {
                    write_text(array, row, &mut text).unwrap();
                } else {
                    text = if is_null { "NULL".to_owned() } else { column.value(row).to_string() };
                }
                if text.is_empty() && !is_null { "(empty)".to_owned() } else { text }
            });
            texts.push(cells.collect());
        }
    }
    Ok(texts)
}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = Report;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Report> {
        let report = |error: strata_sql::Error| Report(error.report());
        let mut output = DBOutput::StatementComplete(0);
        for result in self.session.execute(sql).await.map_err(report)? {
            output = match result {
                StatementResult::Rows(result) => {
                    let types = vec![DefaultColumnType::Any; result.schema().fields().len()];
                    DBOutput::Rows { types, rows: rows(result, self.as_text).await.map_err(report)? }
                }
                StatementResult::Affected { tag, count } => {
                    if count.is_some() || tag == "COMMIT" {
                        self.place().await;
                    }
                    DBOutput::StatementComplete(count.unwrap_or(0))
                }
            };
        }
        Ok(output)
    }

    async fn shutdown(&mut self) {}
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    #[allow(clippy::disallowed_methods)]
    let entries = std::fs::read_dir(dir).unwrap();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
}

/// Runs every file; collects the failures so that one does not hide the next.
fn run(placement: Placement) {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt"), &mut found);
    found.sort();
    assert!(found.len() > 10, "the scripts were found");
    let only = std::env::var("SLT_ONLY").ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failures = Vec::new();
    for file in found.iter().filter(|file| only.as_ref().is_none_or(|only| file.to_string_lossy().contains(only))) {
        let options =
            EngineOptions { background: Background::Manual, target_partitions: 2, ..EngineOptions::default() };
        let engine = Engine::open_in_memory(options).unwrap();
        let writes = Arc::new(Mutex::new(0));
        let as_text = file.components().any(|part| part.as_os_str() == "types" || part.as_os_str() == "clients");
        let mut runner = Runner::new(|| {
            let (engine, writes) = (engine.clone(), Arc::clone(&writes));
            async move {
                let mut session = engine.session();
                if placement == Placement::Compact {
                    session.execute("SET enable_point_statements = off").await.unwrap();
                }
                Ok(Connection { session, engine, placement, writes, as_text })
            }
        });
        for record in sqllogictest::parse_file(file).unwrap() {
            if let Err(error) = runtime.block_on(runner.run_async(record)) {
                failures.push(format!("{error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{placement:?}: {} records failed\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn plain() {
    run(Placement::Plain);
}

#[test]
fn runs() {
    run(Placement::Runs);
}

#[test]
fn segments() {
    run(Placement::Segments);
}

#[test]
fn half() {
    run(Placement::Half);
}

#[test]
fn compacted() {
    run(Placement::Compact);
}
