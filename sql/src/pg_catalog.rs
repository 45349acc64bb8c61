//! The schema `pg_catalog`: the catalog as PostgreSQL's clients ask for it.
//!
//! Tables are made from the catalog for each statement that names one, with the columns of PostgreSQL 15. What Strata does
//! not have (triggers, policies, inheritance, …) is there and empty. Clients write their queries in a dialect of their own,
//! `pg_catalog.format_type(…)`, `::regclass`, `OPERATOR(pg_catalog.~)`: [`respell`] turns that into what the planner
//! knows, and [`functions`] answers it.
//!
//! Numbers of objects ([`oids`]) are the catalog's own where it has some, so they stay as things are renamed.
//!
//! A library that shows such tables (datafusion-pg-catalog) is made from DataFusion's providers, which know columns but no
//! keys, indexes, constraints or defaults; so it is not used.

mod constraints;
mod empty;
mod expressions;
pub(crate) mod functions;
mod information;
mod live;
mod oids;
mod privileges;
mod procedures;
mod relations;
mod respell;
mod sequences;
mod server;
mod sheet;
mod statistics;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use strata_oltp::Snapshot;

use crate::catalog::{Catalog, TableName};
use crate::engine::Engine;
use crate::error::Result;

pub(crate) use respell::respell;

/// The schema's name.
pub(crate) const PG_SCHEMA: &str = "pg_catalog";

/// Tables with something in them; functions of PostgreSQL's that are tables here end with `()`.
const FILLED: [&str; 36] = [
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_authid",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_database",
    "pg_depend",
    "pg_description",
    "pg_get_keywords()",
    "pg_index",
    "pg_indexes",
    "pg_language",
    "pg_namespace",
    "pg_opclass",
    "pg_proc",
    "pg_roles",
    "pg_sequence",
    "pg_sequences",
    "pg_settings",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_all_indexes",
    "pg_stat_all_tables",
    "pg_stat_database",
    "pg_stat_user_indexes",
    "pg_stat_user_tables",
    "pg_statio_all_tables",
    "pg_statio_user_tables",
    "pg_tables",
    "pg_tablespace",
    "pg_type",
    "pg_user",
    "pg_views",
];

/// Columns of the views, which only planning them tells.
pub(crate) type ViewColumns = BTreeMap<TableName, SchemaRef>;

/// Names of the tables.
pub(crate) fn table_names() -> impl Iterator<Item = &'static str> {
    FILLED.into_iter().chain(empty::TABLES.iter().map(|(name, _)| *name))
}

/// Whether the schema has a table `name`, those of `information_schema` included under the names [`respell`] gives them.
pub(crate) fn has_table(name: &str) -> bool {
    table_names().any(|known| known == name) || information_table(name).is_some()
}

/// Name of the table of `information_schema` that is meant by a name of ours.
fn information_table(name: &str) -> Option<&str> {
    name.strip_prefix("information_schema.").filter(|table| information::TABLES.contains(table))
}

/// Whether the table `name` shows columns of views.
pub(crate) fn needs_view_columns(name: &str) -> bool {
    matches!(name, "pg_attribute" | "pg_class" | ALL_COLUMNS)
        || matches!(information_table(name), Some("column_privileges" | "role_column_grants"))
}

/// The table that shows the columns of everything.
pub(crate) const ALL_COLUMNS: &str = "information_schema.columns";

/// What the tables are made of: the catalog at a snapshot, and the engine as it is now.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub engine: &'a Engine,
    pub catalog: &'a Catalog,
    pub snapshot: &'a Snapshot,
    pub views: &'a ViewColumns,
}

/// The table `name`, if there is one.
///
/// # Errors
/// None that depends on the data.
pub(crate) fn table(name: &str, scope: &Scope<'_>) -> Result<Option<Arc<dyn TableProvider>>> {
    if name == "pg_settings" {
        return Ok(Some(Arc::new(live::SettingsTable::new()?)));
    }
    let catalog = scope.catalog;
    let sheet = match name {
        "pg_am" => server::access_methods(),
        "pg_attrdef" => relations::defaults(catalog),
        "pg_attribute" => relations::attributes(catalog, scope.views),
        "pg_authid" | "pg_roles" | "pg_user" | "pg_shadow" => server::roles(name),
        "pg_cast" => server::casts(),
        "pg_class" => relations::classes(scope),
        "pg_collation" => server::collations(),
        "pg_constraint" => constraints::constraints(catalog),
        "pg_database" => server::databases(),
        "pg_depend" => sequences::dependencies(catalog),
        "pg_description" => relations::descriptions(catalog),
        "pg_get_keywords()" => server::keywords(),
        "pg_index" => relations::indexes(catalog),
        "pg_indexes" => relations::index_texts(catalog),
        "pg_language" => server::languages(),
        "pg_namespace" => relations::namespaces(catalog),
        "pg_opclass" => server::operator_classes(),
        "pg_proc" => procedures::procedures(),
        "pg_sequence" => sequences::sequences(catalog),
        "pg_sequences" => sequences::sequence_texts(catalog),
        "pg_stat_activity" => statistics::activity(scope),
        "pg_stat_all_indexes" | "pg_stat_user_indexes" => statistics::indexes(scope),
        "pg_stat_all_tables" | "pg_stat_user_tables" => statistics::tables(scope),
        "pg_stat_database" => statistics::databases(scope),
        "pg_statio_all_tables" | "pg_statio_user_tables" => statistics::reads(scope),
        "pg_tables" => relations::table_texts(catalog),
        "pg_tablespace" => server::tablespaces(),
        "pg_type" => types::types(),
        "pg_views" => relations::view_texts(catalog),
        other => {
            let information = || information::sheet(information_table(other)?, catalog, scope.views);
            match empty::sheet(other).or_else(information) {
                Some(sheet) => sheet,
                None => return Ok(None),
            }
        }
    };
    let batch = sheet.finish()?;
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}
