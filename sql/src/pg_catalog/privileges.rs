//! The smaller tables of `information_schema`: what the one role may do, which is everything, and what there is none of.

use super::constraints::{self, Constraint};
use super::oids::OWNER_NAME;
use super::sheet::{Cell, Columns, Kind, Sheet, row};
use super::{PG_SCHEMA, ViewColumns, procedures, types};
use crate::catalog::{CATALOG_NAME, Catalog, TableName};
use strata_oltp::TableId;

const NONE: Cell = Cell::Null;

/// Tables and views with the names of their columns, and whether they may be written.
fn relations(catalog: &Catalog, views: &ViewColumns) -> Vec<(TableName, Vec<String>, bool)> {
    let names = |table: &std::sync::Arc<crate::catalog::Table>| {
        let columns = table.columns().iter().map(|column| column.field.name().clone()).collect();
        (table.qualified_name(), columns, true)
    };
    let tables = catalog.tables().map(names);
    let of_view = |view: &std::sync::Arc<crate::catalog::view::View>| {
        let schema = views.get(&view.name);
        let columns = schema.map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect());
        (view.name.clone(), columns.unwrap_or_default(), false)
    };
    tables.chain(catalog.views().map(of_view)).collect()
}

/// `table_privileges` and `role_table_grants`.
pub(super) fn of_tables(catalog: &Catalog, views: &ViewColumns) -> Sheet {
    const COLUMNS: Columns = &[
        ("grantor", Kind::Text),
        ("grantee", Kind::Text),
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("privilege_type", Kind::Text),
        ("is_grantable", Kind::Text),
        ("with_hierarchy", Kind::Text),
    ];
    const ALL: [&str; 7] = ["INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
    let mut sheet = Sheet::new(COLUMNS);
    for (name, ..) in relations(catalog, views) {
        for privilege in ALL {
            let hierarchy = if privilege == "SELECT" { "YES" } else { "NO" };
            let (schema, table) = (name.schema.as_str(), name.table.as_str());
            sheet.push(row![OWNER_NAME, OWNER_NAME, CATALOG_NAME, schema, table, privilege, "YES", hierarchy]);
        }
    }
    sheet
}

/// `column_privileges` and `role_column_grants`.
pub(super) fn of_columns(catalog: &Catalog, views: &ViewColumns) -> Sheet {
    const COLUMNS: Columns = &[
        ("grantor", Kind::Text),
        ("grantee", Kind::Text),
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("column_name", Kind::Text),
        ("privilege_type", Kind::Text),
        ("is_grantable", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (name, columns, _) in relations(catalog, views) {
        for column in &columns {
            for privilege in ["INSERT", "SELECT", "UPDATE", "REFERENCES"] {
                let (schema, table) = (name.schema.as_str(), name.table.as_str());
                let mut row = row![OWNER_NAME, OWNER_NAME, CATALOG_NAME, schema, table];
                row.extend(row![column.as_str(), privilege, "YES"]);
                sheet.push(row);
            }
        }
    }
    sheet
}

/// `enabled_roles`.
pub(super) fn roles() -> Sheet {
    let mut sheet = Sheet::new(&[("role_name", Kind::Text)]);
    sheet.push(row![OWNER_NAME]);
    sheet
}

/// `information_schema_catalog_name`.
pub(super) fn catalog_name() -> Sheet {
    let mut sheet = Sheet::new(&[("catalog_name", Kind::Text)]);
    sheet.push(row![CATALOG_NAME]);
    sheet
}

/// `constraint_table_usage`: tables that constraints depend on, of foreign keys those referred to.
pub(super) fn constraint_tables(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("table_catalog", Kind::Text),
        ("table_schema", Kind::Text),
        ("table_name", Kind::Text),
        ("constraint_catalog", Kind::Text),
        ("constraint_schema", Kind::Text),
        ("constraint_name", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        for Constraint { name, kind, foreign, .. } in constraints::of(catalog, table) {
            // Checks are not shown, in PostgreSQL either.
            let owner = match &foreign {
                Some(key) => catalog.find_id(TableId(key.parent)),
                None => (kind != "c").then_some(table),
            };
            let Some(owner) = owner else { continue };
            let (schema, used) = (owner.schema_name.as_str(), owner.name.as_str());
            let mut row = row![CATALOG_NAME, schema, used, CATALOG_NAME];
            row.extend(row![table.schema_name.as_str(), name]);
            sheet.push(row);
        }
    }
    sheet
}

/// `element_types`: of the columns that are arrays.
pub(super) fn elements(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("object_catalog", Kind::Text),
        ("object_schema", Kind::Text),
        ("object_name", Kind::Text),
        ("object_type", Kind::Text),
        ("collection_type_identifier", Kind::Text),
        ("data_type", Kind::Text),
        ("udt_catalog", Kind::Text),
        ("udt_schema", Kind::Text),
        ("udt_name", Kind::Text),
        ("dtd_identifier", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        for (at, column) in table.columns().iter().enumerate() {
            let arrow::datatypes::DataType::List(item) = column.field.data_type() else { continue };
            let (oid, _) = types::of(item, None);
            let place = (at + 1).to_string();
            let mut row = row![CATALOG_NAME, table.schema_name.as_str(), table.name.as_str(), "TABLE", place.as_str()];
            row.extend(row![types::name(oid, None), CATALOG_NAME, PG_SCHEMA, types::short_name(oid)]);
            row.push(Cell::from(format!("a{place}")));
            sheet.push(row);
        }
    }
    sheet
}

/// `triggers`: there are none.
pub(super) fn triggers() -> Sheet {
    Sheet::new(&[
        ("trigger_catalog", Kind::Text),
        ("trigger_schema", Kind::Text),
        ("trigger_name", Kind::Text),
        ("event_manipulation", Kind::Text),
        ("event_object_catalog", Kind::Text),
        ("event_object_schema", Kind::Text),
        ("event_object_table", Kind::Text),
        ("action_order", Kind::Int4),
        ("action_condition", Kind::Text),
        ("action_statement", Kind::Text),
        ("action_orientation", Kind::Text),
        ("action_timing", Kind::Text),
    ])
}

/// `domains`: there are none.
pub(super) fn domains() -> Sheet {
    Sheet::new(&[
        ("domain_catalog", Kind::Text),
        ("domain_schema", Kind::Text),
        ("domain_name", Kind::Text),
        ("data_type", Kind::Text),
        ("character_maximum_length", Kind::Int4),
        ("numeric_precision", Kind::Int4),
        ("numeric_scale", Kind::Int4),
        ("domain_default", Kind::Text),
        ("udt_catalog", Kind::Text),
        ("udt_schema", Kind::Text),
        ("udt_name", Kind::Text),
    ])
}

/// `routines`: the functions of `pg_proc`.
pub(super) fn routines() -> Sheet {
    const COLUMNS: Columns = &[
        ("specific_catalog", Kind::Text),
        ("specific_schema", Kind::Text),
        ("specific_name", Kind::Text),
        ("routine_catalog", Kind::Text),
        ("routine_schema", Kind::Text),
        ("routine_name", Kind::Text),
        ("routine_type", Kind::Text),
        ("data_type", Kind::Text),
        ("type_udt_name", Kind::Text),
        ("routine_body", Kind::Text),
        ("routine_definition", Kind::Text),
        ("external_language", Kind::Text),
        ("is_deterministic", Kind::Text),
        ("security_type", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for procedure in procedures::all() {
        // Aggregates and window functions are of no type of routine.
        let kind = (procedure.kind == "f").then_some("FUNCTION");
        let mut row = row![CATALOG_NAME, PG_SCHEMA, format!("{}_{}", procedure.name, procedure.oid), CATALOG_NAME];
        row.extend(row![PG_SCHEMA, procedure.name, kind, types::name(procedure.result, None)]);
        row.extend(row![types::short_name(procedure.result), "EXTERNAL", NONE, "INTERNAL"]);
        row.extend(row![if procedure.volatility == "i" { "YES" } else { "NO" }, "INVOKER"]);
        sheet.push(row);
    }
    sheet
}
