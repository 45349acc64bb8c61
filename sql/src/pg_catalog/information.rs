//! The tables of `information_schema`, with the columns of PostgreSQL 15: those that most is asked of.
//!
//! NOT NULL shows as a check, as there, under a name made of numbers.

use std::sync::Arc;

use arrow::datatypes::Field;
use strata_oltp::TableId;

use super::constraints::{self, Constraint};
use super::oids::{self, OWNER_NAME};
use super::relations::{self, places};
use super::sheet::{Cell, Columns, Kind, Sheet, row};
use super::{PG_SCHEMA, ViewColumns, privileges, sequences as numbering, types};
use crate::catalog::table::Action;
use crate::catalog::{CATALOG_NAME, Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, TableName};
use crate::system;

const NONE: Option<String> = None;

/// The tables, in order of their names; others are DataFusion's.
pub(super) const TABLES: [&str; 21] = [
    "check_constraints",
    "column_privileges",
    "columns",
    "constraint_column_usage",
    "constraint_table_usage",
    "domains",
    "element_types",
    "enabled_roles",
    "information_schema_catalog_name",
    "key_column_usage",
    "referential_constraints",
    "role_column_grants",
    "role_table_grants",
    "routines",
    "schemata",
    "sequences",
    "table_constraints",
    "table_privileges",
    "tables",
    "triggers",
    "views",
];

/// The table `name`, if it is one of ours.
pub(super) fn sheet(name: &str, catalog: &Catalog, views: &ViewColumns) -> Option<Sheet> {
    Some(match name {
        "check_constraints" => checks(catalog),
        "column_privileges" | "role_column_grants" => privileges::of_columns(catalog, views),
        "columns" => columns(catalog, views),
        "constraint_column_usage" => usage(catalog),
        "constraint_table_usage" => privileges::constraint_tables(catalog),
        "domains" => privileges::domains(),
        "element_types" => privileges::elements(catalog),
        "enabled_roles" => privileges::roles(),
        "information_schema_catalog_name" => privileges::catalog_name(),
        "key_column_usage" => keys(catalog),
        "referential_constraints" => references(catalog),
        "role_table_grants" | "table_privileges" => privileges::of_tables(catalog, views),
        "routines" => privileges::routines(),
        "schemata" => schemata(catalog),
        "sequences" => sequences(catalog),
        "table_constraints" => constraints(catalog),
        "tables" => tables(catalog),
        "triggers" => privileges::triggers(),
        "views" => views_of(catalog),
        _ => return None,
    })
}

fn yes(value: bool) -> &'static str {
    if value { "YES" } else { "NO" }
}

fn schemata(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("catalog_name", Kind::Text),
        ("schema_name", Kind::Text),
        ("schema_owner", Kind::Text),
        ("default_character_set_catalog", Kind::Text),
        ("default_character_set_schema", Kind::Text),
        ("default_character_set_name", Kind::Text),
        ("sql_path", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for name in catalog.schema_names().chain([INFORMATION_SCHEMA, PG_SCHEMA, SYSTEM_SCHEMA]) {
        sheet.push(row![CATALOG_NAME, name, OWNER_NAME, NONE, NONE, NONE, NONE]);
    }
    sheet
}

fn tables(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("table_type", Kind::Text),
        ("self_referencing_column_name", Kind::Text),
        ("reference_generation", Kind::Text),
        ("user_defined_type_catalog", Kind::Text),
        ("user_defined_type_schema", Kind::Text),
        ("user_defined_type_name", Kind::Text),
        ("is_insertable_into", Kind::Text),
        ("is_typed", Kind::Text),
        ("commit_action", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    let mut push = |schema: &str, name: &str, is_table: bool| {
        let kind = if is_table { "BASE TABLE" } else { "VIEW" };
        let row = row![CATALOG_NAME, schema, name, kind, NONE, NONE, NONE, NONE, NONE, yes(is_table), "NO", NONE];
        sheet.push(row);
    };
    catalog.tables().for_each(|table| push(&table.schema_name, &table.name, true));
    catalog.views().for_each(|view| push(&view.name.schema, &view.name.table, false));
    system::TABLE_NAMES.iter().for_each(|name| push(SYSTEM_SCHEMA, name, false));
    TABLES.iter().for_each(|name| push(INFORMATION_SCHEMA, name, false));
    super::table_names().for_each(|name| push(PG_SCHEMA, name, false));
    sheet
}

fn views_of(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("view_definition", Kind::Text),
        ("check_option", Kind::Text),
        ("is_updatable", Kind::Text),
        ("is_insertable_into", Kind::Text),
        ("is_trigger_updatable", Kind::Text),
        ("is_trigger_deletable", Kind::Text),
        ("is_trigger_insertable_into", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for view in catalog.views() {
        let TableName { schema, table } = &view.name;
        let text = format!("{};", view.query);
        sheet.push(row![CATALOG_NAME, schema.as_str(), table.as_str(), text, "NONE", "NO", "NO", "NO", "NO", "NO"]);
    }
    sheet
}

const COLUMN: Columns = &[
    ("table_catalog", Kind::Text),
    ("table_schema", Kind::Text),
    ("table_name", Kind::Text),
    ("column_name", Kind::Text),
    ("ordinal_position", Kind::Int4),
    ("column_default", Kind::Text),
    ("is_nullable", Kind::Text),
    ("data_type", Kind::Text),
    ("character_maximum_length", Kind::Int4),
    ("character_octet_length", Kind::Int4),
    ("numeric_precision", Kind::Int4),
    ("numeric_precision_radix", Kind::Int4),
    ("numeric_scale", Kind::Int4),
    ("datetime_precision", Kind::Int4),
    ("interval_type", Kind::Text),
    ("interval_precision", Kind::Int4),
    ("character_set_catalog", Kind::Text),
    ("character_set_schema", Kind::Text),
    ("character_set_name", Kind::Text),
    ("collation_catalog", Kind::Text),
    ("collation_schema", Kind::Text),
    ("collation_name", Kind::Text),
    ("domain_catalog", Kind::Text),
    ("domain_schema", Kind::Text),
    ("domain_name", Kind::Text),
    ("udt_catalog", Kind::Text),
    ("udt_schema", Kind::Text),
    ("udt_name", Kind::Text),
    ("scope_catalog", Kind::Text),
    ("scope_schema", Kind::Text),
    ("scope_name", Kind::Text),
    ("maximum_cardinality", Kind::Int4),
    ("dtd_identifier", Kind::Text),
    ("is_self_referencing", Kind::Text),
    ("is_identity", Kind::Text),
    ("identity_generation", Kind::Text),
    ("identity_start", Kind::Text),
    ("identity_increment", Kind::Text),
    ("identity_maximum", Kind::Text),
    ("identity_minimum", Kind::Text),
    ("identity_cycle", Kind::Text),
    ("is_generated", Kind::Text),
    ("generation_expression", Kind::Text),
    ("is_updatable", Kind::Text),
];

/// One column of a relation.
struct Column<'a> {
    relation: &'a TableName,
    /// From 1.
    place: usize,
    field: &'a Field,
    limit: Option<u32>,
    /// Of a table that may be written.
    table: Option<&'a Table>,
}

impl Column<'_> {
    fn row(&self) -> Vec<Cell> {
        let Column { relation, place, field, limit, table } = self;
        let (ty, modifier) = types::of(field, *limit);
        let [precision, radix, scale] = digits(ty, modifier);
        let moment = match ty {
            1082 => Some(0_i64),
            1083 | 1114 | 1184 | 1186 => Some(6),
            _ => None,
        };
        let chars = limit.map(i64::from);
        let octets = chars.map(|chars| chars * 4).or_else(|| (ty == 25).then_some(1 << 30));
        let id = table.map(|table| table.column_id(place - 1));
        let default = id.zip(*table).and_then(|(id, table)| relations::default_of(table, id));
        let identity = id.zip(*table).and_then(|(id, table)| table.rules.identities.get(&id));
        let shape = identity.map(|identity| &identity.sequence);
        let generation = identity.map(|identity| if identity.is_always { "ALWAYS" } else { "BY DEFAULT" });
        let data_type = if field.data_type().is_nested() { "ARRAY".to_owned() } else { types::name(ty, None) };
        row![
            CATALOG_NAME,
            relation.schema.as_str(),
            relation.table.as_str(),
            field.name().as_str(),
            *place as i64,
            default,
            yes(field.is_nullable() || table.is_none()),
            data_type,
            chars,
            octets,
            precision,
            radix,
            scale,
            moment,
            NONE,
            Cell::Null,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            NONE,
            CATALOG_NAME,
            PG_SCHEMA,
            types::short_name(ty),
            NONE,
            NONE,
            NONE,
            Cell::Null,
            place.to_string(),
            "NO",
            yes(identity.is_some()),
            generation,
            shape.map(|shape| shape.declared_start().to_string()),
            shape.map(|shape| shape.increment.to_string()),
            shape.map(|shape| shape.max.to_string()),
            shape.map(|shape| shape.min.to_string()),
            shape.map_or("NO", |shape| yes(shape.is_cycle)),
            "NEVER",
            NONE,
            yes(table.is_some())
        ]
    }
}

/// Of a number: digits, the base they are of, and those behind the point.
fn digits(ty: i64, modifier: i64) -> [Option<i64>; 3] {
    match ty {
        21 => [Some(16), Some(2), Some(0)],
        23 => [Some(32), Some(2), Some(0)],
        20 => [Some(64), Some(2), Some(0)],
        700 => [Some(24), Some(2), None],
        701 => [Some(53), Some(2), None],
        1700 => [Some((modifier - 4) >> 16), Some(10), Some((modifier - 4) & 0x7ff)],
        _ => [None; 3],
    }
}

fn columns(catalog: &Catalog, views: &ViewColumns) -> Sheet {
    let mut sheet = Sheet::new(COLUMN);
    for table in catalog.tables() {
        let relation = table.qualified_name();
        for (at, column) in table.columns().iter().enumerate() {
            let limit = table.chars_max.get(&at).copied();
            let table = Some(table.as_ref());
            sheet.push(Column { relation: &relation, place: at + 1, field: &column.field, limit, table }.row());
        }
    }
    for (relation, schema) in views {
        for (at, field) in schema.fields().iter().enumerate() {
            sheet.push(Column { relation, place: at + 1, field, limit: None, table: None }.row());
        }
    }
    sheet
}

/// Every constraint with its table.
fn all(catalog: &Catalog) -> impl Iterator<Item = (&Arc<Table>, Constraint)> {
    catalog.tables().flat_map(|table| constraints::of(catalog, table).into_iter().map(move |found| (table, found)))
}

/// Columns that are NOT NULL: name of the check, and of the column.
fn not_nulls(table: &Table) -> impl Iterator<Item = (String, &str)> {
    let (schema, relation) = (oids::schema(&table.schema_name), oids::table(table));
    let columns = table.columns().iter().enumerate().filter(|(_, column)| !column.field.is_nullable());
    columns.map(move |(at, column)| (format!("{schema}_{relation}_{}_not_null", at + 1), column.field.name().as_str()))
}

fn constraints(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("constraint_catalog", Kind::Text),
        ("constraint_schema", Kind::Text),
        ("constraint_name", Kind::Text),
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("constraint_type", Kind::Text),
        ("is_deferrable", Kind::Text),
        ("initially_deferred", Kind::Text),
        ("enforced", Kind::Text),
        ("nulls_distinct", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    let mut push = |table: &Table, name: &str, kind: &str, deferrable: bool, deferred: bool, nulls: Option<&str>| {
        let schema = table.schema_name.as_str();
        let row = row![
            CATALOG_NAME,
            schema,
            name,
            CATALOG_NAME,
            schema,
            table.name.as_str(),
            kind,
            yes(deferrable),
            yes(deferred),
            "YES",
            nulls
        ];
        sheet.push(row);
    };
    for (table, found) in all(catalog) {
        let key = found.foreign.as_ref();
        let kind = match found.kind {
            "p" => "PRIMARY KEY",
            "u" => "UNIQUE",
            "f" => "FOREIGN KEY",
            _ => "CHECK",
        };
        let are_equal = || table.rules.indexes.iter().any(|index| index.name == found.name && index.nulls_are_equal);
        let nulls = (kind == "UNIQUE").then(|| yes(!are_equal()));
        let (deferrable, deferred) = key.map_or((false, false), |key| (key.is_deferrable, key.is_deferred));
        push(table, &found.name, kind, deferrable, deferred, nulls);
    }
    for table in catalog.tables() {
        not_nulls(table).for_each(|(name, _)| push(table, &name, "CHECK", false, false, None));
    }
    sheet
}

fn checks(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("constraint_catalog", Kind::Text),
        ("constraint_schema", Kind::Text),
        ("constraint_name", Kind::Text),
        ("check_clause", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        let schema = table.schema_name.as_str();
        for check in &table.rules.checks {
            sheet.push(row![CATALOG_NAME, schema, check.name.as_str(), format!("({})", check.condition)]);
        }
        for (name, column) in not_nulls(table) {
            sheet.push(row![CATALOG_NAME, schema, name, format!("{} IS NOT NULL", constraints::quoted(column))]);
        }
    }
    sheet
}

fn keys(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("constraint_catalog", Kind::Text),
        ("constraint_schema", Kind::Text),
        ("constraint_name", Kind::Text),
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("column_name", Kind::Text),
        ("ordinal_position", Kind::Int4),
        ("position_in_unique_constraint", Kind::Int4),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (table, found) in all(catalog).filter(|(_, found)| found.kind != "c") {
        let referred = found.foreign.as_ref().and_then(|key| {
            let parent = catalog.find_id(TableId(key.parent))?;
            let unique = constraints::referred_to(parent, &key.parent_columns)?;
            let place = |column: &u32| unique.iter().position(|known| known == column).map_or(0, |at| at as i64 + 1);
            Some(key.parent_columns.iter().map(place).collect::<Vec<i64>>())
        });
        for (at, id) in found.columns.iter().enumerate() {
            let schema = table.schema_name.as_str();
            let column = table.column_names(&[*id]);
            let place = referred.as_ref().map(|places| places[at]);
            sheet.push(row![
                CATALOG_NAME,
                schema,
                found.name.as_str(),
                CATALOG_NAME,
                schema,
                table.name.as_str(),
                column,
                at as i64 + 1,
                place
            ]);
        }
    }
    sheet
}

fn rule(action: Action) -> &'static str {
    match action {
        Action::Refuse => "NO ACTION",
        Action::Restrict => "RESTRICT",
        Action::Cascade => "CASCADE",
        Action::SetNull => "SET NULL",
        Action::SetDefault => "SET DEFAULT",
    }
}

fn references(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("constraint_catalog", Kind::Text),
        ("constraint_schema", Kind::Text),
        ("constraint_name", Kind::Text),
        ("unique_constraint_catalog", Kind::Text),
        ("unique_constraint_schema", Kind::Text),
        ("unique_constraint_name", Kind::Text),
        ("match_option", Kind::Text),
        ("update_rule", Kind::Text),
        ("delete_rule", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (table, found) in all(catalog) {
        let Some(key) = &found.foreign else { continue };
        let parent = catalog.find_id(TableId(key.parent));
        let name = parent.and_then(|parent| constraints::referred_name(parent, &key.parent_columns));
        let schema = parent.filter(|_| name.is_some()).map(|parent| parent.schema_name.clone());
        sheet.push(row![
            CATALOG_NAME,
            table.schema_name.as_str(),
            found.name.as_str(),
            name.is_some().then_some(CATALOG_NAME),
            schema,
            name,
            "NONE",
            rule(key.on_update),
            rule(key.on_delete)
        ]);
    }
    sheet
}

/// Columns that constraints depend on: of keys and checks their own, of foreign keys those referred to.
fn usage(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("column_name", Kind::Text),
        ("constraint_catalog", Kind::Text),
        ("constraint_schema", Kind::Text),
        ("constraint_name", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (table, found) in all(catalog) {
        let (owner, ids) = match &found.foreign {
            Some(key) => match catalog.find_id(TableId(key.parent)) {
                Some(parent) => (parent, key.parent_columns.clone()),
                None => continue,
            },
            None if found.kind == "c" => (table, constraints::checked_columns(table, &found)),
            None => (table, found.columns.clone()),
        };
        debug_assert_eq!(places(owner, &ids).len(), ids.len());
        for id in &ids {
            sheet.push(row![
                CATALOG_NAME,
                owner.schema_name.as_str(),
                owner.name.as_str(),
                owner.column_names(&[*id]),
                CATALOG_NAME,
                table.schema_name.as_str(),
                found.name.as_str()
            ]);
        }
    }
    sheet
}

fn sequences(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("sequence_catalog", Kind::Text),
        ("sequence_schema", Kind::Text),
        ("sequence_name", Kind::Text),
        ("data_type", Kind::Text),
        ("numeric_precision", Kind::Int4),
        ("numeric_precision_radix", Kind::Int4),
        ("numeric_scale", Kind::Int4),
        ("start_value", Kind::Text),
        ("minimum_value", Kind::Text),
        ("maximum_value", Kind::Text),
        ("increment", Kind::Text),
        ("cycle_option", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for sequence in catalog.sequences() {
        let (TableName { schema, table }, shape) = (&sequence.name, &sequence.shape);
        let ty = numbering::type_of(shape);
        sheet.push(row![
            CATALOG_NAME,
            schema.as_str(),
            table.as_str(),
            types::name(ty, None),
            types::length(ty) * 8,
            2,
            0,
            shape.declared_start().to_string(),
            shape.min.to_string(),
            shape.max.to_string(),
            shape.increment.to_string(),
            yes(shape.is_cycle)
        ]);
    }
    sheet
}
