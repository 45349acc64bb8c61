//! The directory `strata tpch` works in: opening it, what was loaded into it, and SQL on it.
//!
//! A table `tpch_load` of one row tells a complete load from an unfinished one, so that a second run reuses the data and
//! a killed one starts over. Tables of the same names that we did not make are never touched.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use strata_sql::{Background, Engine, EngineOptions, ScanCounters, StatementResult};
use tokio::runtime::Runtime;

use super::generate::Table;
use super::{Placement, queries};

/// An open database and the runtime its queries run on.
pub struct Database {
    engine: Engine,
    runtime: Runtime,
    dir: PathBuf,
}

/// How far a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Rows are being written; after a crash the load starts over.
    Loading,
    /// All rows are in.
    Loaded,
    /// The changes are being applied; after a crash the load starts over.
    Changing,
    /// All rows are in and the changes are applied.
    Changed,
}

/// What the row of `tpch_load` says.
#[derive(Clone, Debug)]
pub struct Load {
    /// Scale as given on the command line.
    pub scale: f64,
    /// Where rows were left.
    pub placement: Placement,
    /// How far it is.
    pub state: State,
    /// Rows in the eight tables right after the load.
    pub row_count: u64,
    /// First row to last durable acknowledgement.
    pub load_seconds: f64,
}

/// Rows of a query, and where they were read.
pub struct QueryRows {
    /// Names and types.
    pub schema: SchemaRef,
    /// All rows.
    pub batches: Vec<RecordBatch>,
    /// Rows read per part of the store.
    pub read: ScanCounters,
}

impl Database {
    /// Opens or creates the database in `dir`. Only for the placement `segments` do rows convert in the background.
    ///
    /// # Errors
    /// If the directory is locked, of a newer format, damaged, or cannot be created.
    pub fn open(dir: &Path, placement: Placement, memory_bytes: u64) -> Result<Database> {
        let runtime = Runtime::new().context("cannot start the query threads")?;
        let options = EngineOptions {
            memory_budget_bytes: memory_bytes,
            // Threads would start converting before `pause_conversion` could stop them.
            background: if placement == Placement::Segments { Background::Threads } else { Background::Manual },
            ..EngineOptions::default()
        };
        let engine = Engine::open(dir, options)?;
        if placement != Placement::Segments {
            engine.db().pause_conversion(true);
            engine.db().start_background();
        }
        Ok(Database { engine, runtime, dir: dir.to_path_buf() })
    }

    /// The engine, for the parts that load and convert.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Closes the database cleanly.
    ///
    /// # Errors
    /// If background work failed.
    pub fn close(self) -> Result<()> {
        Ok(self.engine.close()?)
    }

    /// Runs a script; each statement is its own transaction.
    ///
    /// # Errors
    /// The first statement's that fails.
    pub fn execute(&self, sql: &str) -> Result<Vec<StatementResult>> {
        Ok(self.runtime.block_on(self.engine.session().execute(sql))?)
    }

    /// Runs one query to its end.
    ///
    /// # Errors
    /// The query's.
    pub fn query(&self, sql: &str) -> Result<QueryRows> {
        let mut session = self.engine.session();
        self.runtime.block_on(async {
            let rows = session.query(sql).await?;
            let schema = rows.schema().clone();
            let batches = rows.collect().await?;
            Ok(QueryRows { schema, batches, read: session.scan_counters() })
        })
    }

    /// What was loaded here, if anything was.
    ///
    /// # Errors
    /// If tables of the same names exist that `strata tpch` did not make.
    pub fn load_state(&self) -> Result<Option<Load>> {
        if self.engine.table_id("tpch_load").is_err() {
            for table in Table::ALL {
                ensure!(
                    self.engine.table_id(table.name()).is_err(),
                    "{} has a table '{}' that strata tpch did not make; give another --dir",
                    self.dir.display(),
                    table.name()
                );
            }
            return Ok(None);
        }
        let rows = self.query("select scale, placement, state, row_count, load_ms from tpch_load")?;
        let Some(batch) = rows.batches.iter().find(|batch| batch.num_rows() > 0) else {
            // Killed between creating the marker table and its row; nothing else was made yet.
            return Ok(None);
        };
        let text = |column: usize| -> Result<String> {
            let array = arrow::compute::cast(batch.column(column), &arrow::datatypes::DataType::Utf8View)?;
            Ok(array.as_string_view().value(0).to_string())
        };
        let number = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(0);
        Ok(Some(Load {
            scale: text(0)?.parse().context("scale in table tpch_load")?,
            placement: Placement::parse(&text(1)?)?,
            state: State::parse(&text(2)?)?,
            row_count: u64::try_from(number(3))?,
            load_seconds: number(4) as f64 / 1000.0,
        }))
    }

    /// Stores `load` as the one row of `tpch_load`.
    ///
    /// # Errors
    /// If the statement fails.
    pub fn store_load_state(&self, load: &Load) -> Result<()> {
        if self.engine.table_id("tpch_load").is_err() {
            self.execute(
                "create table tpch_load (id integer not null, scale text not null, placement text not null, \
                 state text not null, row_count bigint not null, load_ms bigint not null, primary key (id))",
            )?;
        }
        let Load { scale, placement, state, row_count, load_seconds } = load;
        let (placement, state, load_ms) = (placement.name(), state.name(), (load_seconds * 1000.0) as i64);
        self.execute(&format!(
            "begin; delete from tpch_load where id = 1; \
             insert into tpch_load values (1, '{scale}', '{placement}', '{state}', {row_count}, {load_ms}); commit"
        ))?;
        Ok(())
    }

    /// Creates the eight tables, empty; those of an unfinished load are dropped first.
    ///
    /// # Errors
    /// If a statement fails.
    pub fn create_tables(&self) -> Result<()> {
        for table in Table::ALL {
            if self.engine.table_id(table.name()).is_ok() {
                self.execute(&format!("drop table {}", table.name()))?;
            }
        }
        self.execute(queries::SCHEMA)?;
        Ok(())
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Loading => "loading",
            State::Loaded => "loaded",
            State::Changing => "changing",
            State::Changed => "changed",
        }
    }

    fn parse(text: &str) -> Result<State> {
        let states = [State::Loading, State::Loaded, State::Changing, State::Changed];
        match states.into_iter().find(|state| state.name() == text) {
            Some(state) => Ok(state),
            None => bail!("table tpch_load holds the unknown state '{text}'"),
        }
    }
}
