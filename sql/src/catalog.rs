//! `Catalog`: the schemas and tables of the database, as one snapshot sees them.
//!
//! Stored in system tables of the same engine ([`store`]), so that creating a table is part of a transaction like any
//! write, and a statement reads catalog and rows at one read point (P3). In memory it is an immutable value, shared by
//! every statement that sees the same version; a transaction that changes it works on its own copy.
//!
//! Always true:
//! * a table's number is never given out twice, not even after a drop;
//! * every committed change raises the version, and two changes never share one: they conflict on the version's row.

pub(crate) mod index;
pub(crate) mod path;
pub(crate) mod provider;
pub(crate) mod sequence;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use strata_oltp::TableId;
use strata_oltp::schema::HIDDEN_PREFIX;

use crate::error::{Error, Result, SqlState, near};
use index::Index;
use sequence::Sequence;
use view::View;

pub(crate) use table::{Rules, Storage, Table};

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
        if self.schema == DEFAULT_SCHEMA || self.schema == path::PATH_SCHEMA {
            f.write_str(&self.table)
        } else {
            write!(f, "{}.{}", self.schema, self.table)
        }
    }
}

/// Schemas and what is in them, at one version.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    version: u64,
    next_table: u32,
    schemas: BTreeMap<String, Relations>,
    /// Schemas that names without one are looked up in.
    path: Arc<[String]>,
    /// The same with the path of stored text, if that is another one.
    home: Option<Arc<Catalog>>,
}

/// What one schema holds. No two of them, indexes included, have one name.
#[derive(Clone, Debug, Default)]
struct Relations {
    tables: BTreeMap<String, Arc<Table>>,
    views: BTreeMap<String, Arc<View>>,
    sequences: BTreeMap<String, Arc<Sequence>>,
}

impl Relations {
    /// What the thing called `name` is, if there is one.
    fn kind_of(&self, name: &str) -> Option<&'static str> {
        let is_index = || self.tables.values().flat_map(|table| &table.rules.indexes).any(|index| index.name == name);
        match () {
            () if self.tables.contains_key(name) => Some("table"),
            () if self.views.contains_key(name) => Some("view"),
            () if self.sequences.contains_key(name) => Some("sequence"),
            () if is_index() => Some("index"),
            () => None,
        }
    }
}

impl Catalog {
    /// The catalog of an empty database.
    pub(crate) fn empty() -> Catalog {
        let schemas = BTreeMap::from([(DEFAULT_SCHEMA.to_owned(), Relations::default())]);
        let path = Arc::from([DEFAULT_SCHEMA.to_owned()]);
        Catalog { version: 0, next_table: FIRST_USER_TABLE, schemas, path, home: None }
    }

    /// Names of the schemas, in order.
    pub(crate) fn schema_names(&self) -> impl Iterator<Item = &str> {
        self.schemas.keys().map(String::as_str)
    }

    /// Tables of one schema, in order of their names; `None` if there is no such schema.
    pub(crate) fn tables_of(&self, schema: &str) -> Option<impl Iterator<Item = &Arc<Table>>> {
        self.schemas.get(schema).map(|relations| relations.tables.values())
    }

    /// Names of tables and views of one schema, in order of kind and name; `None` if there is no such schema.
    pub(crate) fn relation_names(&self, schema: &str) -> Option<impl Iterator<Item = &str>> {
        let relations = self.schemas.get(schema)?;
        Some(relations.tables.keys().chain(relations.views.keys()).map(String::as_str))
    }

    /// Every table.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.schemas.values().flat_map(|relations| relations.tables.values())
    }

    /// Every view.
    pub(crate) fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.schemas.values().flat_map(|relations| relations.views.values())
    }

    /// Every sequence with a name of its own.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = &Arc<Sequence>> {
        self.schemas.values().flat_map(|relations| relations.sequences.values())
    }

    /// Whether nothing is in the schema.
    pub(crate) fn contents_of(&self, schema: &str) -> Vec<String> {
        let Some(relations) = self.schemas.get(schema) else { return Vec::new() };
        let tables = relations.tables.keys().map(|name| format!("table {name}"));
        let views = relations.views.keys().map(|name| format!("view {name}"));
        let sequences = relations.sequences.keys().map(|name| format!("sequence {name}"));
        tables.chain(views).chain(sequences).collect()
    }

    /// The table `name`, if it exists.
    pub(crate) fn find(&self, name: &TableName) -> Option<&Arc<Table>> {
        self.schemas.get(&name.schema)?.tables.get(&name.table)
    }

    /// The view `name`, if it exists.
    pub(crate) fn find_view(&self, name: &TableName) -> Option<&Arc<View>> {
        self.schemas.get(&name.schema)?.views.get(&name.table)
    }

    /// The sequence `name`, if it exists.
    pub(crate) fn find_sequence(&self, name: &TableName) -> Option<&Arc<Sequence>> {
        self.schemas.get(&name.schema)?.sequences.get(&name.table)
    }

    /// The sequence that a name means: its own, or `t_a_seq` of a column that numbers its rows.
    ///
    /// # Errors
    /// As [`TableName::from_parts`].
    pub(crate) fn numbering(&self, parts: &[String]) -> Result<(TableName, Option<sequence::SequenceShape>)> {
        let name = self.locate(parts)?;
        if let Some(sequence) = self.find_sequence(&name) {
            return Ok((name, Some(sequence.shape.clone())));
        }
        let schemas: Vec<&str> = if parts.len() == 1 { self.path_schemas().collect() } else { vec![&name.schema] };
        for schema in schemas {
            for table in self.tables_of(schema).into_iter().flatten() {
                let found = table.rules.identities.iter().find(|(id, _)| table.sequence_name(**id) == name.table);
                if let Some((_, identity)) = found {
                    let name = TableName { schema: schema.to_owned(), table: name.table };
                    return Ok((name, Some(identity.sequence.clone())));
                }
            }
        }
        Ok((name, None))
    }

    /// The sequence that counts with `counter`, whatever it is called.
    pub(crate) fn numbering_by(&self, counter: u32) -> Option<sequence::SequenceShape> {
        let named = self.sequences().map(|sequence| &sequence.shape);
        let of_columns =
            self.tables().flat_map(|table| table.rules.identities.values()).map(|identity| &identity.sequence);
        named.chain(of_columns).find(|shape| shape.counter == counter).cloned()
    }

    /// The index `name` and its table, if it exists.
    pub(crate) fn find_index(&self, name: &TableName) -> Option<(&Arc<Table>, &Index)> {
        let tables = self.schemas.get(&name.schema)?.tables.values();
        tables
            .flat_map(|table| table.rules.indexes.iter().map(move |index| (table, index)))
            .find(|(_, index)| index.name == name.table)
    }

    /// The table with this number, if it exists.
    pub(crate) fn find_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables().find(|table| table.id() == id)
    }

    /// The table that owns the storage `id`: its rows, or one of its indexes.
    pub(crate) fn owner_of(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables().find(|table| table.storages().contains(&id))
    }

    /// Numbers of everything that has storage or a counter.
    pub(crate) fn storages(&self) -> impl Iterator<Item = TableId> {
        let counters = self.sequences().map(|sequence| TableId(sequence.shape.counter));
        self.tables().flat_map(|table| table.storages()).chain(counters)
    }

    /// Foreign keys that refer to the table, with the tables that have them.
    pub(crate) fn referring_to(&self, parent: TableId) -> impl Iterator<Item = (&Arc<Table>, &table::ForeignKey)> {
        let keys = self.tables().flat_map(|table| table.rules.foreign_keys.iter().map(move |key| (table, key)));
        keys.filter(move |(_, key)| key.parent == parent.0)
    }

    /// The table `name`.
    ///
    /// # Errors
    /// 42P01 or 3F000, with the nearest name; 42809 for a view.
    pub(crate) fn table(&self, name: &TableName) -> Result<&Arc<Table>> {
        if name.schema == path::PATH_SCHEMA {
            return Err(Error::undefined_table(&name.table, []));
        }
        let Some(relations) = self.schemas.get(&name.schema) else { return Err(self.undefined_schema(&name.schema)) };
        let known = relations.tables.keys().chain(relations.views.keys()).map(String::as_str);
        match relations.kind_of(&name.table) {
            Some(kind) if kind != "table" => {
                Err(Error::new(SqlState::WrongObjectType, format!("{name} is not a table but a {kind}")))
            }
            _ => relations.tables.get(&name.table).ok_or_else(|| Error::undefined_table(&name.to_string(), known)),
        }
    }

    /// Refuses a name that something in its schema has already, of whatever kind.
    ///
    /// # Errors
    /// 42P07, or 3F000 if there is no such schema.
    pub(crate) fn check_free(&self, what: &str, name: &TableName) -> Result<()> {
        let Some(relations) = self.schemas.get(&name.schema) else { return Err(self.undefined_schema(&name.schema)) };
        match relations.kind_of(&name.table) {
            Some(kind) => {
                let hint = if kind == what {
                    format!(", or use CREATE {} IF NOT EXISTS", kind.to_uppercase())
                } else {
                    String::new()
                };
                Err(Error::new(SqlState::DuplicateTable, format!("{kind} {name} already exists"))
                    .with_hint(format!("drop it first{hint}")))
            }
            None => Ok(()),
        }
    }

    /// `base`, or `base1`, `base2`, … if that is taken in `schema`: how constraints and indexes without a name get one.
    pub(crate) fn free_name(&self, schema: &str, base: &str, taken: &[String]) -> String {
        let is_free = |name: &String| {
            let relations = self.schemas.get(schema);
            !taken.contains(name) && relations.is_none_or(|relations| relations.kind_of(name).is_none())
        };
        let numbered = (1..).map(|number: u32| format!("{base}{number}"));
        std::iter::once(base.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
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
