//! `Placement`: where rows lie when the next statement runs, as in the SQL tests of `sql/tests`.
//!
//! A harness calls [`Placement::move_rows`] between statements; the engines it opens have no background threads.

use clap::ValueEnum;
use strata_sql::{Background, Engine, EngineOptions, Result};

/// Where rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// Wherever the engine leaves them: memtables.
    Fresh,
    /// Flushed.
    Runs,
    /// Converted.
    Segments,
    /// Flushed and converted by turns.
    Half,
    /// Converted, and segments rewritten without their deletions.
    Compacted,
}

impl Placement {
    pub const ALL: [Placement; 5] =
        [Placement::Fresh, Placement::Runs, Placement::Segments, Placement::Half, Placement::Compacted];

    pub fn name(self) -> &'static str {
        match self {
            Placement::Fresh => "fresh",
            Placement::Runs => "runs",
            Placement::Segments => "segments",
            Placement::Half => "half",
            Placement::Compacted => "compacted",
        }
    }

    /// Moves the committed rows of every table; `turn` counts the moves.
    ///
    /// # Errors
    /// I/O.
    pub async fn move_rows(self, engine: &Engine, turn: u64) -> Result<()> {
        match self {
            Placement::Fresh => Ok(()),
            Placement::Runs => engine.flush(),
            Placement::Half if turn % 2 == 1 => engine.flush(),
            Placement::Half | Placement::Segments => for_each_table(engine, Engine::convert).await,
            Placement::Compacted => for_each_table(engine, Engine::compact).await,
        }
    }
}

/// Calls `work` with the name of every table.
///
/// # Errors
/// Those of `work`.
pub async fn for_each_table(engine: &Engine, work: impl Fn(&Engine, &str) -> Result<()>) -> Result<()> {
    let listing = engine.session().query("SELECT schema_name || '.' || table_name FROM strata.tables").await?;
    for batch in listing.collect().await? {
        let names = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)
            .map_err(|error| strata_sql::Error::internal(error.to_string()))?;
        for name in arrow::array::AsArray::as_string::<i32>(&names).iter().flatten() {
            work(engine, name)?;
        }
    }
    Ok(())
}

/// An engine whose rows move only when it is told to.
pub fn options(target_partitions: usize) -> EngineOptions {
    EngineOptions {
        background: Background::Manual,
        target_partitions,
        memory_budget_bytes: 1 << 30,
        ..EngineOptions::default()
    }
}
