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
pub(crate) mod functions;
mod information;
mod oids;
mod relations;
mod respell;
mod server;
mod sheet;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use crate::catalog::{Catalog, TableName};
use crate::error::Result;

pub(crate) use respell::respell;

/// The schema's name.
pub(crate) const PG_SCHEMA: &str = "pg_catalog";

/// Tables with something in them.
const FILLED: [&str; 20] = [
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_constraint",
    "pg_database",
    "pg_description",
    "pg_index",
    "pg_indexes",
    "pg_namespace",
    "pg_roles",
    "pg_sequence",
    "pg_sequences",
    "pg_settings",
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
}

/// The table that shows the columns of everything.
pub(crate) const ALL_COLUMNS: &str = "information_schema.columns";

/// The table `name`, if there is one.
///
/// # Errors
/// None that depends on the data.
pub(crate) fn table(name: &str, catalog: &Catalog, views: &ViewColumns) -> Result<Option<Arc<dyn TableProvider>>> {
    let sheet = match name {
        "pg_am" => server::access_methods(),
        "pg_attrdef" => relations::defaults(catalog),
        "pg_attribute" => relations::attributes(catalog, views),
        "pg_authid" | "pg_roles" | "pg_user" => server::roles(name),
        "pg_class" => relations::classes(catalog, views),
        "pg_constraint" => constraints::constraints(catalog),
        "pg_database" => server::databases(),
        "pg_description" => relations::descriptions(catalog),
        "pg_index" => relations::indexes(catalog),
        "pg_indexes" => relations::index_texts(catalog),
        "pg_namespace" => relations::namespaces(catalog),
        "pg_sequence" => relations::sequences(catalog),
        "pg_sequences" => relations::sequence_texts(catalog),
        "pg_settings" => server::settings(),
        "pg_tables" => relations::table_texts(catalog),
        "pg_tablespace" => server::tablespaces(),
        "pg_type" => types::types(),
        "pg_views" => relations::view_texts(catalog),
        other => match empty::sheet(other).or_else(|| information::sheet(information_table(other)?, catalog, views)) {
            Some(sheet) => sheet,
            None => return Ok(None),
        },
    };
    let batch = sheet.finish()?;
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}
