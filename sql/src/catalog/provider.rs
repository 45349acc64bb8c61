//! The catalog as DataFusion sees it: `strata` with its schemas, the system tables, and nothing else.
//!
//! Two forms share these types: fixed, for one statement of a session, where names and rows are those of one snapshot;
//! and live, for an embedded `SessionContext`, where every look-up sees the newest commit and the query planner binds
//! the snapshot later.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::sql::parser::Statement as DfStatement;
use strata_oltp::view::Snapshot;
use strata_oltp::{SeqNo, TableId};

use super::path::PATH_SCHEMA;
use super::view::View;
use super::{CATALOG_NAME, Catalog, SYSTEM_SCHEMA, Table, TableName};
use crate::as_of::{self, PastTable};
use crate::embed::EmbeddedTable;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::expr::spelling::respell;
use crate::pg_catalog::{self, ALL_COLUMNS, PG_SCHEMA, Scope, ViewColumns};
use crate::statement::parse_own;
use crate::system;

/// Schema of the frames that UPDATE and DELETE read from: tables by their number, hidden columns shown. Its name is
/// reserved, so no statement of a user can mean it.
pub(crate) const HIDDEN_SCHEMA: &str = "_strata_hidden";

/// Where names are looked up.
#[derive(Clone)]
pub(crate) enum Names {
    /// At one snapshot.
    Fixed {
        engine: Engine,
        catalog: Arc<Catalog>,
        snapshot: Snapshot,
        /// Rows that only this statement knows, in [`HIDDEN_SCHEMA`].
        frames: Arc<BTreeMap<String, Arc<dyn TableProvider>>>,
    },
    /// At the newest commit, each time.
    Live { engine: Engine },
    /// At a snapshot that is not the statement's: tables come bound to it.
    Past { engine: Engine, catalog: Arc<Catalog>, snapshot: Snapshot },
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Names::Fixed { snapshot, .. } => write!(f, "names at commit {}", snapshot.seqno()),
            Names::Live { .. } => f.write_str("newest names"),
            Names::Past { snapshot, .. } => write!(f, "names as of commit {}", snapshot.seqno()),
        }
    }
}

impl Names {
    fn engine(&self) -> &Engine {
        match self {
            Names::Fixed { engine, .. } | Names::Live { engine } | Names::Past { engine, .. } => engine,
        }
    }

    fn load(&self) -> Result<(Arc<Catalog>, Snapshot)> {
        match self {
            Names::Fixed { catalog, snapshot, .. } | Names::Past { catalog, snapshot, .. } => {
                Ok((Arc::clone(catalog), snapshot.clone()))
            }
            Names::Live { engine } => {
                let snapshot = engine.db().snapshot();
                Ok((engine.catalog_at(&snapshot)?, snapshot))
            }
        }
    }

    /// For callers that cannot fail: an unreadable catalog has no names; the look-up of a table then says why.
    fn load_or_empty(&self) -> Arc<Catalog> {
        self.load().map_or_else(|_| Arc::new(Catalog::empty()), |(catalog, _)| catalog)
    }

    /// The view's query, planned over the same names, with the columns that the view had when it was made.
    async fn plan_view(&self, view: &View) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let mut state = self.engine().base_state().clone();
        // What it names without a schema is in `public`, whoever reads it.
        state.register_catalog_list(Arc::new(Catalogs(self.at_home())));
        let mut query = parse_own(&view.query)?;
        if pg_catalog::respell(&mut query) {
            let (catalog, snapshot) = self.load()?;
            pg_catalog::functions::register(&mut state, &catalog, &snapshot)?;
        }
        as_of::bind(self.engine(), self.engine().base_state(), &self.load()?.1, &mut query).await?;
        respell(&mut query)?;
        let plan = state.statement_to_plan(DfStatement::Statement(Box::new(query))).await?;
        let columns = view.options.columns.iter().enumerate().map(|(at, name)| {
            let (qualifier, field) = plan.schema().qualified_field(at);
            Expr::Column(Column::new(qualifier.cloned(), field.name().clone())).alias(name.clone())
        });
        let columns: Vec<Expr> = columns.collect();
        let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.query.clone()))))
    }

    /// The same names without the reader's search path.
    fn at_home(&self) -> Names {
        let mut names = self.clone();
        if let Names::Fixed { catalog, .. } | Names::Past { catalog, .. } = &mut names {
            *catalog = catalog.at_home();
        }
        names
    }

    fn provide(&self, table: &Table) -> Arc<dyn TableProvider> {
        match self {
            Names::Fixed { .. } => Arc::clone(&table.provider) as Arc<dyn TableProvider>,
            Names::Live { .. } => Arc::new(EmbeddedTable::new(Arc::clone(&table.provider))),
            Names::Past { snapshot, .. } => Arc::new(PastTable::new(Arc::clone(&table.provider), snapshot.clone())),
        }
    }
}

/// The list with one catalog.
#[derive(Debug)]
pub(crate) struct Catalogs(pub Names);

impl CatalogProviderList for Catalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG_NAME.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG_NAME).then(|| Arc::new(Schemas(self.0.clone())) as Arc<dyn CatalogProvider>)
    }
}

/// The catalog `strata`.
#[derive(Debug)]
pub(crate) struct Schemas(pub Names);

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        let catalog = self.0.load_or_empty();
        catalog.schema_names().chain([SYSTEM_SCHEMA]).map(str::to_owned).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let names = self.0.clone();
        match name {
            SYSTEM_SCHEMA => Some(Arc::new(SystemTables(names))),
            PG_SCHEMA => Some(Arc::new(PgTables(names))),
            HIDDEN_SCHEMA => Some(Arc::new(HiddenTables(names))),
            PATH_SCHEMA => Some(Arc::new(PathTables(names))),
            _ => {
                let known = self.0.load_or_empty().tables_of(name).is_some();
                known.then(|| Arc::new(Tables { names, schema: name.to_owned() }) as Arc<dyn SchemaProvider>)
            }
        }
    }
}

/// The tables of one schema.
#[derive(Debug)]
struct Tables {
    names: Names,
    schema: String,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let catalog = self.names.load_or_empty();
        let names = catalog.relation_names(&self.schema);
        names.map(|names| names.map(str::to_owned).collect()).unwrap_or_default()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let (catalog, _) = self.names.load()?;
        let name = TableName { schema: self.schema.clone(), table: name.to_owned() };
        match (catalog.find(&name), catalog.find_view(&name)) {
            (Some(table), _) => Ok(Some(self.names.provide(table))),
            (None, Some(view)) => Ok(Some(self.names.plan_view(view).await?)),
            (None, None) => Ok(None),
        }
    }

    fn register_table(
        &self,
        name: String,
        _: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Err(Error::unsupported(format!("creating table {name} through a SessionContext"))
            .with_hint("use strata_sql::Session, or register foreign tables in a catalog of their own")
            .into())
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Err(Error::unsupported(format!("dropping table {name} through a SessionContext"))
            .with_hint("use strata_sql::Session")
            .into())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}

/// Tables by their names alone, along the search path.
#[derive(Debug)]
struct PathTables(Names);

#[async_trait]
impl SchemaProvider for PathTables {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let (catalog, _) = self.0.load()?;
        let TableName { schema, table } = catalog.locate(&[name.to_owned()])?;
        match Schemas(self.0.clone()).schema(&schema) {
            Some(found) if schema != PATH_SCHEMA => found.table(&table).await,
            _ => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        let catalog = self.0.load_or_empty();
        let found = catalog.locate(&[name.to_owned()]);
        found.is_ok_and(|name| {
            name.schema == SYSTEM_SCHEMA || catalog.find(&name).is_some() || catalog.find_view(&name).is_some()
        })
    }
}

/// The schema `strata`.
#[derive(Debug)]
struct SystemTables(Names);

#[async_trait]
impl SchemaProvider for SystemTables {
    fn table_names(&self) -> Vec<String> {
        system::TABLE_NAMES.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let (catalog, snapshot) = self.0.load()?;
        Ok(system::table(name, self.0.engine(), &catalog, &snapshot)?)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        system::TABLE_NAMES.contains(&name)
    }
}

/// The table or view `name` as it was right after a commit.
async fn past_table(
    engine: &Engine,
    now: &Catalog,
    point: SeqNo,
    name: TableName,
) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let snapshot = as_of::snapshot_at(engine, point)?;
    let catalog = engine.catalog_at(&snapshot)?.on_path_of(now);
    let name = if name.schema == PATH_SCHEMA { catalog.locate(&[name.table])? } else { name };
    if catalog.find_view(&name).is_none()
        && let Err(error) = catalog.table(&name)
    {
        return Err(error.with_detail(format!("it is looked for as of commit {point}")).into());
    }
    let names = Names::Past { engine: engine.clone(), catalog, snapshot };
    Tables { names, schema: name.schema }.table(&name.table).await
}

/// The schema `pg_catalog`.
#[derive(Debug)]
struct PgTables(Names);

#[async_trait]
impl SchemaProvider for PgTables {
    fn table_names(&self) -> Vec<String> {
        pg_catalog::table_names().map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let (catalog, snapshot) = self.0.load()?;
        let mut columns = ViewColumns::new();
        // Views may read this very table; then they are planned over one that does not show views' columns.
        if pg_catalog::needs_view_columns(name) && !matches!(self.0, Names::Past { .. }) {
            let (engine, catalog) = (self.0.engine().clone(), Arc::clone(&catalog));
            let names = Names::Past { engine, catalog: Arc::clone(&catalog), snapshot: snapshot.clone() };
            for view in catalog.views() {
                // A view that no longer plans is there all the same; its columns are not known.
                if let Ok(provider) = names.plan_view(view).await {
                    columns.insert(view.name.clone(), provider.schema());
                }
            }
        }
        if name == ALL_COLUMNS {
            for table in system::TABLE_NAMES {
                let provider = system::table(table, self.0.engine(), &catalog, &snapshot)?;
                let name = TableName { schema: SYSTEM_SCHEMA.to_owned(), table: table.to_owned() };
                columns.extend(provider.map(|provider| (name, provider.schema())));
            }
        }
        let scope = Scope { engine: self.0.engine(), catalog: &catalog, snapshot: &snapshot, views: &columns };
        Ok(pg_catalog::table(name, &scope)?)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        pg_catalog::has_table(name)
    }
}

/// Tables by number, hidden columns shown.
#[derive(Debug)]
struct HiddenTables(Names);

#[async_trait]
impl SchemaProvider for HiddenTables {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Names::Fixed { frames, .. } = &self.0
            && let Some(frame) = frames.get(name)
        {
            return Ok(Some(Arc::clone(frame)));
        }
        if let Some((point, name)) = as_of::parse_name(name) {
            return past_table(self.0.engine(), &self.0.load()?.0, point, name).await;
        }
        let (catalog, _) = self.0.load()?;
        let table = name.parse().ok().and_then(|id| catalog.find_id(TableId(id)));
        let Some(table) = table else { return Ok(None) };
        Ok(Some(Arc::new(table.hidden_provider()?)))
    }

    fn table_exist(&self, _: &str) -> bool {
        false
    }
}
