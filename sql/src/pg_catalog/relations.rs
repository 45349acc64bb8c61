//! Schemas, tables, views, sequences, indexes and their columns.
//!
//! A table without a primary key has a hidden one, which is not shown. An index that is still being built is not valid.

use std::sync::Arc;

use arrow::datatypes::Field;

use super::constraints::{self, quoted, quoted_name};
use super::oids::{self, OWNER, OWNER_NAME};
use super::sheet::{Cell, Columns, Kind, Sheet, row};
use super::{PG_SCHEMA, Scope, ViewColumns, expressions, sequences, server, statistics, types};
use crate::catalog::index::Index;
use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, TableName};

const NONE: Option<String> = None;

pub(super) fn namespaces(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns =
        &[("oid", Kind::Oid), ("nspname", Kind::Text), ("nspowner", Kind::Oid), ("nspacl", Kind::Texts)];
    let mut sheet = Sheet::new(COLUMNS);
    for name in catalog.schema_names().chain([INFORMATION_SCHEMA, PG_SCHEMA, SYSTEM_SCHEMA]) {
        sheet.push(row![oids::schema(name), name, OWNER, NONE]);
    }
    sheet
}

const CLASS: Columns = &[
    ("oid", Kind::Oid),
    ("relname", Kind::Text),
    ("relnamespace", Kind::Oid),
    ("reltype", Kind::Oid),
    ("reloftype", Kind::Oid),
    ("relowner", Kind::Oid),
    ("relam", Kind::Oid),
    ("relfilenode", Kind::Oid),
    ("reltablespace", Kind::Oid),
    ("relpages", Kind::Int4),
    ("reltuples", Kind::Real),
    ("relallvisible", Kind::Int4),
    ("reltoastrelid", Kind::Oid),
    ("relhasindex", Kind::Bool),
    ("relisshared", Kind::Bool),
    ("relpersistence", Kind::Text),
    ("relkind", Kind::Text),
    ("relnatts", Kind::Int2),
    ("relchecks", Kind::Int2),
    ("relhasrules", Kind::Bool),
    ("relhastriggers", Kind::Bool),
    ("relhassubclass", Kind::Bool),
    ("relrowsecurity", Kind::Bool),
    ("relforcerowsecurity", Kind::Bool),
    ("relispopulated", Kind::Bool),
    ("relreplident", Kind::Text),
    ("relispartition", Kind::Bool),
    ("relrewrite", Kind::Oid),
    ("relfrozenxid", Kind::Oid),
    ("relminmxid", Kind::Oid),
    ("relacl", Kind::Texts),
    ("reloptions", Kind::Texts),
    ("relpartbound", Kind::Text),
];

/// What one row of `pg_class` says that another does not.
struct Class<'a> {
    oid: i64,
    name: String,
    schema: &'a str,
    access: i64,
    kind: &'static str,
    columns: usize,
    checks: usize,
    has_index: bool,
    /// Foreign keys are triggers in PostgreSQL.
    has_triggers: bool,
    /// Pages of 8 KiB, and rows; not known of what has none.
    size: Option<(i64, i64)>,
}

impl Class<'_> {
    fn row(self) -> Vec<Cell> {
        let (file, columns, checks) = (self.oid, self.columns as i64, self.checks as i64);
        let (pages, rows) = self.size.unwrap_or((0, if self.kind == "S" { 1 } else { 0 }));
        let identity = if matches!(self.kind, "r") { "d" } else { "n" };
        row![
            self.oid,
            self.name,
            oids::schema(self.schema),
            0,
            0,
            OWNER,
            self.access,
            file,
            0,
            pages,
            rows,
            0,
            0,
            self.has_index,
            false,
            "p",
            self.kind,
            columns,
            checks,
            self.kind == "v",
            self.has_triggers,
            false,
            false,
            false,
            true,
            identity,
            false,
            0,
            0,
            0,
            NONE,
            NONE,
            NONE
        ]
    }
}

pub(super) fn classes(scope: &Scope<'_>) -> Sheet {
    let (catalog, views) = (scope.catalog, scope.views);
    let mut sheet = Sheet::new(CLASS);
    let plain = |oid, name: &str, kind, columns| (oid, name.to_owned(), kind, columns);
    for table in catalog.tables() {
        let rules = &table.rules;
        let is_parent = catalog.referring_to(table.id()).next().is_some();
        let size = statistics::of(scope.snapshot, table);
        sheet.push(
            Class {
                oid: oids::table(table),
                name: table.name.clone(),
                schema: &table.schema_name,
                access: 2,
                kind: "r",
                columns: table.columns().len(),
                checks: rules.checks.len(),
                has_index: !table.has_hidden_key() || !rules.indexes.is_empty(),
                has_triggers: is_parent || !rules.foreign_keys.is_empty(),
                size: Some((size.pages(), size.live_rows)),
            }
            .row(),
        );
        for (oid, name, _, columns) in
            indexes_of(table).map(|index| plain(index.oid, &index.name, "i", index.columns.len()))
        {
            let schema = &table.schema_name;
            let class = Class {
                oid,
                name,
                schema,
                access: 403,
                kind: "i",
                columns,
                checks: 0,
                has_index: false,
                has_triggers: false,
                size: Some((1, size.live_rows)),
            };
            sheet.push(class.row());
        }
    }
    let views = catalog.views().map(|view| {
        let columns = views.get(&view.name).map_or(0, |schema| schema.fields().len());
        (&view.name, plain(oids::view(&view.name), &view.name.table, "v", columns))
    });
    let views = views.map(|(name, class)| (name.clone(), class));
    let sequences = sequences::all(catalog);
    let sequences = sequences.iter().map(|found| (found.name.clone(), plain(found.oid(), &found.name.table, "S", 3)));
    for (full, (oid, name, kind, columns)) in views.chain(sequences) {
        let schema = &full.schema;
        let (access, checks, has_index, has_triggers) = (0, 0, false, false);
        let class = Class { oid, name, schema, access, kind, columns, checks, has_index, has_triggers, size: None };
        sheet.push(class.row());
    }
    sheet
}

/// An index, that of the primary key included.
pub(super) struct AnyIndex {
    pub oid: i64,
    pub name: String,
    /// Numbers of the table's columns.
    pub columns: Vec<u32>,
    pub is_primary: bool,
    pub is_unique: bool,
    pub is_constraint: bool,
    pub is_ready: bool,
    pub nulls_are_equal: bool,
}

/// The indexes of a table, the primary key's first.
pub(super) fn indexes_of(table: &Table) -> impl Iterator<Item = AnyIndex> {
    let key = (!table.has_hidden_key()).then(|| AnyIndex {
        oid: oids::key_index(table),
        name: table.key_name(),
        columns: table.key_ids(),
        is_primary: true,
        is_unique: true,
        is_constraint: true,
        is_ready: true,
        nulls_are_equal: false,
    });
    let other = |index: &Index| AnyIndex {
        oid: oids::storage(index.id),
        name: index.name.clone(),
        columns: index.columns.clone(),
        is_primary: false,
        is_unique: index.is_unique,
        is_constraint: index.is_constraint,
        is_ready: !index.is_building,
        nulls_are_equal: index.nulls_are_equal,
    };
    key.into_iter().chain(table.rules.indexes.iter().map(other))
}

/// Places of columns as PostgreSQL counts them: from 1, among those that are there.
pub(super) fn places(table: &Table, columns: &[u32]) -> Vec<i64> {
    columns.iter().map(|id| table.position_of(*id).map_or(0, |at| at as i64 + 1)).collect()
}

pub(super) fn indexes(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("indexrelid", Kind::Oid),
        ("indrelid", Kind::Oid),
        ("indnatts", Kind::Int2),
        ("indnkeyatts", Kind::Int2),
        ("indisunique", Kind::Bool),
        ("indnullsnotdistinct", Kind::Bool),
        ("indisprimary", Kind::Bool),
        ("indisexclusion", Kind::Bool),
        ("indimmediate", Kind::Bool),
        ("indisclustered", Kind::Bool),
        ("indisvalid", Kind::Bool),
        ("indcheckxmin", Kind::Bool),
        ("indisready", Kind::Bool),
        ("indislive", Kind::Bool),
        ("indisreplident", Kind::Bool),
        ("indkey", Kind::Int2s),
        ("indcollation", Kind::Oids),
        ("indclass", Kind::Oids),
        ("indoption", Kind::Int2s),
        ("indexprs", Kind::Text),
        ("indpred", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        for index in indexes_of(table) {
            let count = index.columns.len() as i64;
            let options = vec![0_i64; index.columns.len()];
            let (collations, classes) = classes_of(table, &index.columns);
            sheet.push(row![
                index.oid,
                oids::table(table),
                count,
                count,
                index.is_unique,
                index.nulls_are_equal,
                index.is_primary,
                false,
                true,
                false,
                index.is_ready,
                false,
                true,
                true,
                false,
                places(table, &index.columns),
                collations,
                classes,
                options,
                NONE,
                NONE
            ]);
        }
    }
    sheet
}

/// Collations of an index's columns, and the operator classes that they are sorted by.
fn classes_of(table: &Table, columns: &[u32]) -> (Vec<i64>, Vec<i64>) {
    let column = |id: &u32| {
        let position = table.position_of(*id).ok()?;
        Some(types::of(&table.columns()[position].field, None).0)
    };
    let types: Vec<i64> = columns.iter().map(|id| column(id).unwrap_or(0)).collect();
    let collation = |oid: &i64| types::find(*oid).map_or(0, |ty| ty.collation);
    (types.iter().map(collation).collect(), types.iter().map(|oid| server::operator_class(*oid)).collect())
}

const ATTRIBUTE: Columns = &[
    ("attrelid", Kind::Oid),
    ("attname", Kind::Text),
    ("atttypid", Kind::Oid),
    ("attstattarget", Kind::Int4),
    ("attlen", Kind::Int2),
    ("attnum", Kind::Int2),
    ("attndims", Kind::Int4),
    ("attcacheoff", Kind::Int4),
    ("atttypmod", Kind::Int4),
    ("attbyval", Kind::Bool),
    ("attalign", Kind::Text),
    ("attstorage", Kind::Text),
    ("attcompression", Kind::Text),
    ("attnotnull", Kind::Bool),
    ("atthasdef", Kind::Bool),
    ("atthasmissing", Kind::Bool),
    ("attidentity", Kind::Text),
    ("attgenerated", Kind::Text),
    ("attisdropped", Kind::Bool),
    ("attislocal", Kind::Bool),
    ("attinhcount", Kind::Int4),
    ("attcollation", Kind::Oid),
    ("attacl", Kind::Texts),
    ("attoptions", Kind::Texts),
    ("attfdwoptions", Kind::Texts),
    ("attmissingval", Kind::Text),
];

fn attribute(
    relation: i64,
    number: usize,
    field: &Field,
    limit: Option<u32>,
    has_default: bool,
    identity: &str,
) -> Vec<Cell> {
    let (ty, modifier) = types::of(field, limit);
    let length = types::length(ty);
    let dimensions = i64::from(field.data_type().is_nested());
    let (is_by_value, alignment, storage) = types::layout(ty);
    row![
        relation,
        field.name().as_str(),
        ty,
        -1,
        length,
        number as i64,
        dimensions,
        -1,
        modifier,
        is_by_value,
        alignment,
        storage,
        "",
        !field.is_nullable(),
        has_default,
        false,
        identity,
        "",
        false,
        true,
        0,
        types::find(ty).map_or(0, |ty| ty.collation),
        NONE,
        NONE,
        NONE,
        NONE
    ]
}

pub(super) fn attributes(catalog: &Catalog, views: &ViewColumns) -> Sheet {
    let mut sheet = Sheet::new(ATTRIBUTE);
    for table in catalog.tables() {
        let column = |id: &u32| table.position_of(*id).ok().map(|at| table.columns()[at].field.clone());
        for (position, column) in table.columns().iter().enumerate() {
            let id = table.column_id(position);
            let identity =
                table.rules.identities.get(&id).map_or("", |identity| if identity.is_always { "a" } else { "d" });
            let has_default = table.rules.defaults.contains_key(&id);
            let limit = table.chars_max.get(&position).copied();
            sheet.push(attribute(oids::table(table), position + 1, &column.field, limit, has_default, identity));
        }
        for index in indexes_of(table) {
            for (number, field) in index.columns.iter().filter_map(column).enumerate() {
                sheet.push(attribute(index.oid, number + 1, &field.with_nullable(true), None, false, ""));
            }
        }
    }
    for (name, schema) in views {
        for (number, field) in schema.fields().iter().enumerate() {
            let field = field.as_ref().clone().with_nullable(true);
            sheet.push(attribute(oids::view(name), number + 1, &field, None, false, ""));
        }
    }
    sheet
}

pub(super) fn defaults(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns =
        &[("oid", Kind::Oid), ("adrelid", Kind::Oid), ("adnum", Kind::Int2), ("adbin", Kind::Text)];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        for (id, text) in &table.rules.defaults {
            let number = places(table, &[*id])[0];
            let text = shown_default(table, *id, text);
            sheet.push(row![oids::default(table, *id), oids::table(table), number, text]);
        }
    }
    sheet
}

/// The default of a column, if it has one, as PostgreSQL prints it.
pub(super) fn default_of(table: &Table, id: u32) -> Option<String> {
    table.rules.defaults.get(&id).map(|text| shown_default(table, id, text))
}

/// `text`, the default of a column, as PostgreSQL prints it.
fn shown_default(table: &Table, id: u32, text: &str) -> String {
    let Ok(position) = table.position_of(id) else { return text.to_owned() };
    let limit = table.chars_max.get(&position).copied();
    expressions::shown(text, types::of(&table.columns()[position].field, limit).0)
}

/// Comments, by relation and column; 0 is the relation itself.
pub(super) fn comment(catalog: &Catalog, relation: i64, column: i64) -> Option<String> {
    if let Some(table) = catalog.tables().find(|table| oids::table(table) == relation) {
        if column == 0 {
            return table.rules.comment.clone();
        }
        let id =
            usize::try_from(column - 1).ok().filter(|at| *at < table.columns().len()).map(|at| table.column_id(at))?;
        return table.rules.column_comments.get(&id).cloned();
    }
    let view = catalog.views().find(|view| oids::view(&view.name) == relation && column == 0)?;
    view.options.comment.clone()
}

pub(super) fn descriptions(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns =
        &[("objoid", Kind::Oid), ("classoid", Kind::Oid), ("objsubid", Kind::Int4), ("description", Kind::Text)];
    let mut sheet = Sheet::new(COLUMNS);
    let tables = catalog.tables().map(|table| (oids::table(table), table.columns().len()));
    let views = catalog.views().map(|view| (oids::view(&view.name), 0));
    for (relation, columns) in tables.chain(views) {
        for column in 0..=columns as i64 {
            if let Some(text) = comment(catalog, relation, column) {
                sheet.push(row![relation, 1259, column, text]);
            }
        }
    }
    sheet
}

pub(super) fn table_texts(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("schemaname", Kind::Text),
        ("tablename", Kind::Text),
        ("tableowner", Kind::Text),
        ("tablespace", Kind::Text),
        ("hasindexes", Kind::Bool),
        ("hasrules", Kind::Bool),
        ("hastriggers", Kind::Bool),
        ("rowsecurity", Kind::Bool),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        let has_index = indexes_of(table).next().is_some();
        let is_parent = catalog.referring_to(table.id()).next().is_some();
        let has_triggers = is_parent || !table.rules.foreign_keys.is_empty();
        sheet.push(row![
            table.schema_name.as_str(),
            table.name.as_str(),
            OWNER_NAME,
            NONE,
            has_index,
            false,
            has_triggers,
            false
        ]);
    }
    sheet
}

pub(super) fn view_texts(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns =
        &[("schemaname", Kind::Text), ("viewname", Kind::Text), ("viewowner", Kind::Text), ("definition", Kind::Text)];
    let mut sheet = Sheet::new(COLUMNS);
    for view in catalog.views() {
        let TableName { schema, table } = &view.name;
        sheet.push(row![schema.as_str(), table.as_str(), OWNER_NAME, format!("{};", view.query)]);
    }
    sheet
}

pub(super) fn index_texts(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("schemaname", Kind::Text),
        ("tablename", Kind::Text),
        ("indexname", Kind::Text),
        ("tablespace", Kind::Text),
        ("indexdef", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        for index in indexes_of(table) {
            let text = index_text(table, &index);
            sheet.push(row![table.schema_name.as_str(), table.name.as_str(), index.name, NONE, text]);
        }
    }
    sheet
}

/// The index as CREATE INDEX would say it.
fn index_text(table: &Table, index: &AnyIndex) -> String {
    let unique = if index.is_unique { "UNIQUE " } else { "" };
    let name = format!("{}.{}", quoted(&table.schema_name), quoted(&table.name));
    let columns = constraints::columns(table, &index.columns);
    let nulls = if index.nulls_are_equal { " NULLS NOT DISTINCT" } else { "" };
    format!("CREATE {unique}INDEX {} ON {name} USING btree ({columns}){nulls}", quoted(&index.name))
}

/// `pg_get_indexdef`: the whole index, or the column at a place of it.
pub(super) fn index_definition(catalog: &Catalog, oid: i64, column: i64) -> Option<String> {
    let found =
        |table: &Arc<Table>| indexes_of(table).find(|index| index.oid == oid).map(|index| (Arc::clone(table), index));
    let (table, index) = catalog.tables().find_map(found)?;
    if column == 0 {
        return Some(index_text(&table, &index));
    }
    let id = usize::try_from(column - 1).ok().and_then(|at| index.columns.get(at).copied());
    Some(id.map(|id| constraints::columns(&table, &[id])).unwrap_or_default())
}

/// `pg_get_viewdef`.
pub(super) fn view_definition(catalog: &Catalog, oid: i64) -> Option<String> {
    catalog.views().find(|view| oids::view(&view.name) == oid).map(|view| format!(" {};", view.query))
}

/// The name as `regclass` shows it: with its schema where that is not on the search path.
pub(super) fn shown_name(catalog: &Catalog, name: &TableName) -> String {
    if name.schema == PG_SCHEMA { quoted(&name.table) } else { quoted_name(catalog, name) }
}
