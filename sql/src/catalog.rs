//! `Catalog`: the schemas and tables of the database, as one snapshot sees them.
//!
//! Stored in system tables of the same engine ([`store`]), so that creating a table is part of a transaction like any
//! write, and a statement reads catalog and rows at one read point (P3). In memory it is an immutable value, shared by
//! every statement that sees the same version; a transaction that changes it works on its own copy.
//!
//! Always true:
//! * a table's number is never given out twice, not even after a drop;
//! * every committed change raises the version, and two changes never share one: they conflict on the version's row.

pub(crate) mod provider;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_olap::scan::StrataTable;
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::schema::{Column, HIDDEN_PREFIX, StorageKind};
use strata_oltp::{TableId, TableSchema};

use crate::error::{Error, Result, SqlState, near};

/// The one catalog of a database; first part of a three-part name.
pub(crate) const CATALOG_NAME: &str = "strata";
/// Schema of names without one. It always exists.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// Schema of the system tables, and of the procedures of CALL.
pub(crate) const SYSTEM_SCHEMA: &str = "strata";
/// Schema that DataFusion fills from ours.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// Tables of users are numbered from here; system tables lie below.
const FIRST_USER_TABLE: u32 = 1024;

/// How a table's rows are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    pub kind: StorageKind,
    /// Shape of the levels, of a table whose rows stay rows.
    pub compaction: CompactionOptions,
}

/// One table: its shape, where its rows live, and how DataFusion sees it.
#[derive(Debug)]
pub(crate) struct Table {
    pub schema_name: String,
    pub name: String,
    pub shape: Arc<TableSchema>,
    pub storage: Storage,
    /// Limits of VARCHAR(n) columns in characters, by column position.
    pub chars_max: BTreeMap<usize, u32>,
    /// What queries scan: the columns users see.
    pub provider: Arc<StrataTable>,
}

impl Table {
    pub(crate) fn new(
        schema_name: String,
        name: String,
        shape: TableSchema,
        storage: Storage,
        chars_max: BTreeMap<usize, u32>,
    ) -> Result<Table> {
        let shape = Arc::new(shape);
        let provider = Arc::new(StrataTable::new(Arc::clone(&shape))?);
        Ok(Table { schema_name, name, shape, storage, chars_max, provider })
    }

    pub(crate) fn id(&self) -> TableId {
        self.shape.table
    }

    /// The columns users see.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.shape.columns[..self.shape.visible_column_count()]
    }

    /// Position of the column `name`.
    ///
    /// # Errors
    /// 42703 with the nearest name.
    pub(crate) fn column_position(&self, name: &str) -> Result<usize> {
        let names = || self.columns().iter().map(|column| column.field.name().as_str());
        let found = names().position(|known| known == name);
        found.ok_or_else(|| Error::undefined_column(name, &format!("table {}", self.name), names()))
    }

    /// Whether rows are told apart by a hidden number instead of a primary key.
    pub(crate) fn has_hidden_key(&self) -> bool {
        self.shape.visible_column_count() < self.shape.columns.len()
    }
}

/// A resolved name of a table: schema and table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub schema: String,
    pub table: String,
}

impl TableName {
    /// Resolves a name of one to three parts.
    ///
    /// # Errors
    /// 42601 for another number of parts, 0A000 for another catalog.
    pub(crate) fn from_parts(parts: &[String]) -> Result<TableName> {
        let (schema, table) = match parts {
            [table] => (DEFAULT_SCHEMA, table),
            [schema, table] => (schema.as_str(), table),
            [catalog, schema, table] if catalog == CATALOG_NAME => (schema.as_str(), table),
            [catalog, _, _] => {
                let message = format!("catalog {catalog} does not exist");
                return Err(Error::unsupported("a reference to another database")
                    .with_detail(message)
                    .with_hint(format!("the catalog of every table is {CATALOG_NAME}")));
            }
            _ => {
                let message = format!("{} is not a table name: it has {} parts", parts.join("."), parts.len());
                return Err(
                    Error::new(SqlState::Syntax, message).with_hint("write table, schema.table or strata.schema.table")
                );
            }
        };
        Ok(TableName { schema: schema.to_owned(), table: table.clone() })
    }

    /// Parses `t`, `s.t` or `strata.s.t` as given by a program, without quoting rules.
    pub(crate) fn parse(name: &str) -> Result<TableName> {
        TableName::from_parts(&name.split('.').map(str::to_owned).collect::<Vec<_>>())
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.schema == DEFAULT_SCHEMA {
            f.write_str(&self.table)
        } else {
            write!(f, "{}.{}", self.schema, self.table)
        }
    }
}

/// Schemas and tables at one version.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    version: u64,
    next_table: u32,
    schemas: BTreeMap<String, BTreeMap<String, Arc<Table>>>,
}

impl Catalog {
    /// The catalog of an empty database.
    pub(crate) fn empty() -> Catalog {
        let schemas = BTreeMap::from([(DEFAULT_SCHEMA.to_owned(), BTreeMap::new())]);
        Catalog { version: 0, next_table: FIRST_USER_TABLE, schemas }
    }

    /// Names of the schemas, in order.
    pub(crate) fn schema_names(&self) -> impl Iterator<Item = &str> {
        self.schemas.keys().map(String::as_str)
    }

    /// Tables of one schema, in order of their names; `None` if there is no such schema.
    pub(crate) fn tables_of(&self, schema: &str) -> Option<impl Iterator<Item = &Arc<Table>>> {
        self.schemas.get(schema).map(|tables| tables.values())
    }

    /// Every table.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.schemas.values().flat_map(BTreeMap::values)
    }

    /// The table `name`, if it exists.
    pub(crate) fn find(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.schemas.get(&name.schema)?.get(&name.table)
    }

    /// The table with this number, if it exists.
    pub(crate) fn find_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables().find(|table| table.id() == id)
    }

    /// The table `name`.
    ///
    /// # Errors
    /// 42P01 or 3F000, with the nearest name.
    pub(crate) fn table(&self, name: &TableName) -> Result<&Arc<Table>> {
        let Some(tables) = self.schemas.get(&name.schema) else { return Err(self.undefined_schema(&name.schema)) };
        let known = tables.keys().map(String::as_str);
        tables.get(&name.table).ok_or_else(|| Error::undefined_table(&name.to_string(), known))
    }

    /// 3F000 with the nearest name.
    pub(crate) fn undefined_schema(&self, schema: &str) -> Error {
        let hint = near::nearest(schema, self.schema_names()).map(|near| format!("did you mean {near}?"));
        Error::new(SqlState::UndefinedSchema, format!("schema {schema} does not exist")).with_hint_opt(hint)
    }
}

/// Refuses names that belong to Strata.
///
/// # Errors
/// 42602.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.starts_with(HIDDEN_PREFIX) {
        let message = format!("{what} name {name} is reserved");
        return Err(Error::new(SqlState::InvalidName, message)
            .with_hint(format!("names beginning with {HIDDEN_PREFIX} belong to Strata; choose another")));
    }
    if name.is_empty() || name.contains('\0') {
        return Err(Error::new(SqlState::InvalidName, format!("{name:?} cannot be a {what} name")));
    }
    Ok(())
}
