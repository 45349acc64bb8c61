//! `Engine`: one row store, one column store and DataFusion over both.
//!
//! Opening recovers the database, reads the catalog and removes the storage of tables that no longer exist (a crash
//! between the commit of a DROP and its end leaves some). Closing waits for background work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::execution::SessionState;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use strata_olap::{Store, StoreOptions};
use strata_oltp::commit::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::capped::CappedEnv;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::os::OsEnv;
use strata_oltp::schema::StorageKind;
use strata_oltp::{ColdTier, Db, MemoryBudget, Options, TableId};

use crate::activity::Activities;
use crate::bulk::BulkWriter;
use crate::catalog::path::PATH_SCHEMA;
use crate::catalog::provider::{Catalogs, Names};
use crate::catalog::store::{CatalogCache, ReadPoint, system_tables};
use crate::catalog::{CATALOG_NAME, Catalog, DEFAULT_SCHEMA, TableName};
use crate::copy::FileAccess;
use crate::ddl;
use crate::embed;
use crate::error::Result;
use crate::expr;
use crate::pool::BudgetPool;
use crate::session::Session;
use crate::types::ColumnTypes;

/// Table numbers below this belong to the engine.
const SYSTEM_TABLES_END: TableId = TableId(1024);

/// Who runs flushes and conversions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Threads of the engine, as work turns up.
    #[default]
    Threads,
    /// Nobody, unless `CALL` or [`Db::step`] asks for it: for tests.
    Manual,
}

/// Settings of an open database. Start from `default()` and change fields.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// One cap on memtables, caches and queries together; replaces `storage.memory_bytes_max`.
    pub memory_budget_bytes: u64,
    /// Who runs flushes and conversions.
    pub background: Background,
    /// Threads of one query. Default: the processors there are.
    pub target_partitions: usize,
    /// What an acknowledged commit survives, for sessions that do not say.
    pub durability: Durability,
    /// Files that COPY may read and write. Default: any that the process may.
    pub copy_files: FileAccess,
    /// Everything else of the row store.
    pub storage: Options,
    /// Everything else of the column store.
    pub segments: StoreOptions,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        let storage = Options::default();
        EngineOptions {
            memory_budget_bytes: storage.memory_bytes_max,
            background: Background::Threads,
            target_partitions: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            durability: Durability::Durable,
            copy_files: FileAccess::Anywhere,
            storage,
            segments: StoreOptions::default(),
        }
    }
}

/// An open database. Cheap to clone; the directory is locked until the last clone and session are gone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    store: Arc<Store>,
    /// Where the files of COPY are. Those of a database in memory are on disk all the same.
    files: Arc<dyn Env>,
    catalog: CatalogCache,
    options: EngineOptions,
    activities: Activities,
    /// What every session's state is copied from.
    state: SessionState,
}

/// Where queries put what does not fit into memory.
enum SpillTo {
    Dir(PathBuf),
    System,
}

impl Engine {
    /// Opens the database in `dir`, creating it if the folder is empty or missing, and recovers it.
    ///
    /// # Errors
    /// 55006 if another process has it open, 55000 if a newer Strata wrote it, XX001 if it is damaged, or I/O.
    pub fn open(dir: impl AsRef<Path>, options: EngineOptions) -> Result<Engine> {
        let dir = dir.as_ref();
        let spill = dir.join("spill");
        let env: Arc<dyn Env> = Arc::new(OsEnv::new());
        let engine = Engine::open_at(Arc::clone(&env), env, dir, options, SpillTo::Dir(spill.clone()))?;
        // The lock is held, so what lies here was left by a process that is gone. The folder is a scratch space of
        // DataFusion's, outside of what crash tests look at.
        #[allow(clippy::disallowed_methods)]
        let removed = std::fs::remove_dir_all(&spill);
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot remove old spill files in {}", spill.display());
            }
            _ => {}
        }
        Ok(engine)
    }

    /// Opens an empty database that lives and dies with the process.
    ///
    /// # Errors
    /// None that depends on the outside.
    pub fn open_in_memory(options: EngineOptions) -> Result<Engine> {
        let files: Arc<dyn Env> = Arc::new(OsEnv::new());
        Engine::open_at(Arc::new(MemEnv::new()), files, Path::new("memory"), options, SpillTo::System)
    }

    /// [`Engine::open`] with files, those of COPY included, clock and randomness from `env`.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with_env(env: Arc<dyn Env>, dir: &Path, options: EngineOptions) -> Result<Engine> {
        Engine::open_at(Arc::clone(&env), env, dir, options, SpillTo::System)
    }

    fn open_at(
        env: Arc<dyn Env>,
        files: Arc<dyn Env>,
        dir: &Path,
        mut options: EngineOptions,
        spill: SpillTo,
    ) -> Result<Engine> {
        options.storage.memory_bytes_max = options.memory_budget_bytes;
        let budget = MemoryBudget::new(options.memory_budget_bytes);
        // Around both stores: rows and segments share the cap.
        let env = CappedEnv::around(env, options.storage.open_files_max);
        let store = Store::new(Arc::clone(&env), dir, Arc::clone(&budget), options.segments);
        let cold: Arc<dyn ColdTier> = Arc::clone(&store) as Arc<dyn ColdTier>;
        let db = Db::open_with(env, dir, options.storage.clone(), Arc::clone(&budget), cold, None)?;
        let state = base_state(&options, runtime(&budget, spill)?)?;
        let engine = Engine {
            shared: Arc::new(Shared {
                db,
                store,
                files,
                catalog: CatalogCache::new(),
                options,
                activities: Activities::default(),
                state,
            }),
        };
        engine.adopt_tables()?;
        if engine.shared.options.background == Background::Threads {
            engine.db().start_background();
        }
        Ok(engine)
    }

    /// Tells the row store about every table, and drops what no table owns any more.
    fn adopt_tables(&self) -> Result<()> {
        let db = self.db();
        for schema in system_tables() {
            db.register_table(schema, StorageKind::Row);
        }
        let catalog = self.catalog_at(&db.snapshot())?;
        for table in catalog.tables() {
            ddl::register(self, table);
            // A statement that was building it ended with the process.
            for index in table.rules.indexes.iter().filter(|index| index.is_building) {
                ddl::abandon(self, table.id(), index.id)?;
            }
            ddl::remove_pending(self, table.id())?;
        }
        let owned: BTreeSet<TableId> = self.catalog_at(&db.snapshot())?.storages().collect();
        for id in db.tables() {
            if id >= SYSTEM_TABLES_END && !owned.contains(&id) {
                db.drop_table(id)?;
            }
        }
        Ok(())
    }

    /// What the sessions do.
    pub(crate) fn activities(&self) -> &Activities {
        &self.shared.activities
    }

    /// Microseconds since 1970, by the clock of the environment.
    pub(crate) fn wall_micros(&self) -> i64 {
        i64::try_from(self.shared.files.wall_clock().as_micros()).unwrap_or(i64::MAX)
    }

    /// DataFusion as every session begins with it.
    pub(crate) fn base_state(&self) -> &SessionState {
        &self.shared.state
    }

    /// Stops background work, syncs and closes. Sessions and clones that are still there get 57P03 from now on.
    ///
    /// # Errors
    /// A log that failed; everything acknowledged as durable is safe all the same.
    pub fn close(self) -> Result<()> {
        Ok(self.shared.db.clone().close()?)
    }

    /// A new session: autocommit, the engine's default durability.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(self.clone(), self.shared.state.clone(), self.shared.options.durability)
    }

    /// A DataFusion context whose tables are Strata's, for embedding: SQL or data frames, joined with any other table
    /// that DataFusion can read. Each plan reads one snapshot, bound when it is planned.
    ///
    /// Read only: UPDATE, DELETE, INSERT and DDL are refused with a pointer to [`Session`].
    #[must_use]
    pub fn session_context(&self) -> SessionContext {
        let catalogs: Arc<dyn CatalogProviderList> = embed::catalogs(self);
        // It has no search path.
        let config = self.shared.state.config().clone().with_default_catalog_and_schema(CATALOG_NAME, DEFAULT_SCHEMA);
        let state = SessionStateBuilder::new_from_existing(self.shared.state.clone())
            .with_config(config)
            .with_catalog_list(catalogs)
            .with_query_planner(Arc::new(embed::SnapshotPlanner::new(self.clone())))
            .build();
        SessionContext::new_with_state(state)
    }

    /// The row store: flush, step, verify, statistics.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.shared.db
    }

    /// The column store.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Where the files of COPY are.
    pub(crate) fn files(&self) -> &Arc<dyn Env> {
        &self.shared.files
    }

    /// The options it was opened with.
    #[must_use]
    pub fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    /// A writer for loading many rows into one table, in transactions of at most `rows_per_transaction` rows.
    ///
    /// # Errors
    /// 42P01 if there is no such table.
    pub fn bulk_writer(&self, table: &str, rows_per_transaction: usize) -> Result<BulkWriter> {
        BulkWriter::new(self.clone(), table, rows_per_transaction)
    }

    /// Number of the table `name` (`t`, `schema.t` or `strata.schema.t`).
    ///
    /// # Errors
    /// 42P01 if there is no such table.
    pub fn table_id(&self, name: &str) -> Result<TableId> {
        let catalog = self.catalog_at(&self.db().snapshot())?;
        Ok(catalog.table(&TableName::parse(name)?)?.id())
    }

    /// Writes every memtable to a run.
    ///
    /// # Errors
    /// I/O.
    pub fn flush(&self) -> Result<()> {
        Ok(self.db().flush(None)?)
    }

    /// Flushes a table and turns all of its runs into segments; returns when done.
    ///
    /// # Errors
    /// 42P01, or I/O.
    pub fn convert(&self, table: &str) -> Result<()> {
        Ok(self.db().convert(self.table_id(table)?)?)
    }

    /// [`Engine::convert`], and rewrites segments that have deletions; returns when done.
    ///
    /// # Errors
    /// 42P01, or I/O.
    pub fn compact(&self, table: &str) -> Result<()> {
        Ok(self.db().compact(self.table_id(table)?)?)
    }

    /// Writes a complete copy of the database, as of now, into the new folder `dest`.
    ///
    /// # Errors
    /// 22023 if a database is there already, or I/O.
    pub fn checkpoint(&self, dest: &Path) -> Result<()> {
        self.db().checkpoint(dest)?;
        Ok(())
    }

    /// The catalog that `from` sees: a snapshot, or a view and a read point.
    pub(crate) fn catalog_at<'a>(&self, from: impl Into<ReadPoint<'a>>) -> Result<Arc<Catalog>> {
        self.shared.catalog.at(from)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("dir", &self.db().dir()).finish_non_exhaustive()
    }
}

fn runtime(budget: &Arc<MemoryBudget>, spill: SpillTo) -> Result<Arc<RuntimeEnv>> {
    let mode = match spill {
        SpillTo::Dir(dir) => DiskManagerMode::Directories(vec![dir]),
        SpillTo::System => DiskManagerMode::OsTmpDirectory,
    };
    let builder = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(BudgetPool::new(budget)?))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode));
    Ok(builder.build_arc()?)
}

/// DataFusion with our options and functions; names are bound per statement.
fn base_state(options: &EngineOptions, runtime: Arc<RuntimeEnv>) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_target_partitions(options.target_partitions.max(1))
        .with_default_catalog_and_schema(CATALOG_NAME, PATH_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    let settings = config.options_mut();
    settings.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    // 0.1 is a decimal, as in PostgreSQL; as a double, sums of money would not be exact.
    settings.sql_parser.parse_float_as_decimal = true;
    // After a batch that is all NULL, DataFusion 55.2 forgets the bound of MIN and keeps that of MAX (`scalar_min` takes a
    // typed NULL for the least value), so that row groups with the minimum are pruned.
    settings.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // The check compares nullability too, which rules that simplify expressions make stricter in one place and not in the
    // next, below a UNION for one.
    settings.execution.skip_physical_aggregate_schema_check = true;
    // What is read of a small table is computed where it is read: exchanging a hundred rows between threads takes longer.
    settings.execution.use_row_number_estimates_to_optimize_partitioning = true;
    let builder = expr::plan_with(SessionStateBuilder::new().with_type_planner(Arc::new(ColumnTypes)));
    let mut state = builder.with_config(config).with_runtime_env(runtime).with_default_features().build();
    expr::register(&mut state)?;
    Ok(state)
}

/// Names for [`Engine::session_context`].
pub(crate) fn live_names(engine: &Engine) -> Catalogs {
    Catalogs(Names::Live { engine: engine.clone() })
}
