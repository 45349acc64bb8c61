//! `pg_constraint`, and constraints as SQL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use super::oids;
use super::relations::{AnyIndex, indexes_of, places};
use super::sheet::{Cell, Columns, Kind, Sheet, row};
use crate::catalog::table::{Action, ForeignKey};
use crate::catalog::{Catalog, Table, TableName};
use crate::statement::{identifier, parse_expression};

const NONE: Option<String> = None;

const COLUMNS: Columns = &[
    ("oid", Kind::Oid),
    ("conname", Kind::Text),
    ("connamespace", Kind::Oid),
    ("contype", Kind::Text),
    ("condeferrable", Kind::Bool),
    ("condeferred", Kind::Bool),
    ("convalidated", Kind::Bool),
    ("conrelid", Kind::Oid),
    ("contypid", Kind::Oid),
    ("conindid", Kind::Oid),
    ("conparentid", Kind::Oid),
    ("confrelid", Kind::Oid),
    ("confupdtype", Kind::Text),
    ("confdeltype", Kind::Text),
    ("confmatchtype", Kind::Text),
    ("conislocal", Kind::Bool),
    ("coninhcount", Kind::Int4),
    ("connoinherit", Kind::Bool),
    ("conkey", Kind::Int2s),
    ("confkey", Kind::Int2s),
    ("conpfeqop", Kind::Text),
    ("conppeqop", Kind::Text),
    ("conffeqop", Kind::Text),
    ("conexclop", Kind::Text),
    ("conbin", Kind::Text),
];

/// One constraint.
pub(super) struct Constraint {
    pub name: String,
    /// `p`, `u`, `c` or `f`.
    pub kind: &'static str,
    /// Numbers of columns.
    pub columns: Vec<u32>,
    /// The index behind it, or behind the key that is referred to.
    index: i64,
    pub foreign: Option<ForeignKey>,
    condition: Option<String>,
    is_valid: bool,
}

/// The constraints of a table but NOT NULL.
pub(super) fn of(catalog: &Catalog, table: &Table) -> Vec<Constraint> {
    let mut all = Vec::new();
    for index in indexes_of(table).filter(|index| index.is_constraint) {
        let kind = if index.is_primary { "p" } else { "u" };
        all.push(Constraint {
            name: index.name,
            kind,
            columns: index.columns,
            index: index.oid,
            foreign: None,
            condition: None,
            is_valid: true,
        });
    }
    for check in &table.rules.checks {
        let condition = Some(check.condition.clone());
        all.push(Constraint {
            name: check.name.clone(),
            kind: "c",
            columns: Vec::new(),
            index: 0,
            foreign: None,
            condition,
            is_valid: check.validity.is_valid(),
        });
    }
    for key in &table.rules.foreign_keys {
        let parent = catalog.find_id(TableId(key.parent));
        let index = parent.and_then(|parent| index_on(parent, &key.parent_columns));
        let index = index.map_or(0, |index| index.oid);
        let (name, columns) = (key.name.clone(), key.columns.clone());
        let (foreign, is_valid) = (Some(key.clone()), key.validity.is_valid());
        all.push(Constraint { name, kind: "f", columns, index, foreign, condition: None, is_valid });
    }
    all
}

/// The key or unique index on just these columns, in whatever order.
fn index_on(table: &Table, columns: &[u32]) -> Option<AnyIndex> {
    let sorted = |columns: &[u32]| {
        let mut sorted = columns.to_vec();
        sorted.sort_unstable();
        sorted
    };
    let wanted = sorted(columns);
    indexes_of(table).find(|index| index.is_unique && sorted(&index.columns) == wanted)
}

/// The columns of the key that a foreign key refers to, in its own order.
pub(super) fn referred_to(parent: &Table, columns: &[u32]) -> Option<Vec<u32>> {
    index_on(parent, columns).map(|index| index.columns)
}

/// The name of the constraint that a foreign key refers to.
pub(super) fn referred_name(parent: &Table, columns: &[u32]) -> Option<String> {
    index_on(parent, columns).filter(|index| index.is_constraint).map(|index| index.name)
}

/// Numbers of the columns that a check looks at.
pub(super) fn checked_columns(table: &Table, check: &Constraint) -> Vec<u32> {
    check.condition.as_deref().map(|text| columns_in(table, text)).unwrap_or_default()
}

/// Numbers of the columns in an expression.
fn columns_in(table: &Table, text: &str) -> Vec<u32> {
    let Ok(expr) = parse_expression(text) else { return Vec::new() };
    let mut found = Vec::new();
    let _ = ast::visit_expressions(&expr, |part: &ast::Expr| {
        if let ast::Expr::Identifier(ident) = part
            && let Ok(position) = table.column_position(&identifier(ident))
            && !found.contains(&table.column_id(position))
        {
            found.push(table.column_id(position));
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

fn letter(action: Action) -> &'static str {
    match action {
        Action::Refuse => "a",
        Action::Restrict => "r",
        Action::Cascade => "c",
        Action::SetNull => "n",
        Action::SetDefault => "d",
    }
}

pub(super) fn constraints(catalog: &Catalog) -> Sheet {
    let mut sheet = Sheet::new(COLUMNS);
    for table in catalog.tables() {
        for constraint in of(catalog, table) {
            sheet.push(constraint_row(catalog, table, constraint));
        }
    }
    sheet
}

fn constraint_row(catalog: &Catalog, table: &Table, constraint: Constraint) -> Vec<Cell> {
    let Constraint { name, kind, columns, index, foreign, condition, is_valid } = constraint;
    let oid = oids::constraint(table, &name);
    let (key, is_deferrable) = (places(table, &columns), foreign.as_ref().is_some_and(|key| key.is_deferrable));
    let is_deferred = foreign.as_ref().is_some_and(|key| key.is_deferred);
    let parent = foreign.as_ref().and_then(|key| catalog.find_id(TableId(key.parent)));
    let parent_key = foreign.as_ref().zip(parent).map(|(key, parent)| places(parent, &key.parent_columns));
    let parent = parent.map_or(0, |parent| oids::table(parent));
    let (on_update, on_delete) =
        foreign.as_ref().map_or((" ", " "), |key| (letter(key.on_update), letter(key.on_delete)));
    let own = match (&condition, columns.is_empty()) {
        (Some(text), _) => Some(places(table, &columns_in(table, text))).filter(|places| !places.is_empty()),
        (None, is_empty) => (!is_empty).then_some(key),
    };
    row![
        oid,
        name,
        oids::schema(&table.schema_name),
        kind,
        is_deferrable,
        is_deferred,
        is_valid,
        oids::table(table),
        0,
        index,
        0,
        parent,
        on_update,
        on_delete,
        if kind == "f" { "s" } else { " " },
        true,
        0,
        kind != "c",
        own,
        parent_key,
        NONE,
        NONE,
        NONE,
        NONE,
        condition
    ]
}

/// `pg_get_constraintdef`.
pub(super) fn definition(catalog: &Catalog, oid: i64) -> Option<String> {
    catalog.tables().find_map(|table| {
        let constraint = of(catalog, table).into_iter().find(|found| oids::constraint(table, &found.name) == oid)?;
        let text = text(catalog, table, &constraint);
        Some(if constraint.is_valid { text } else { text + " NOT VALID" })
    })
}

fn text(catalog: &Catalog, table: &Table, constraint: &Constraint) -> String {
    let columns = columns(table, &constraint.columns);
    if let Some(condition) = &constraint.condition {
        return format!("CHECK ({condition})");
    }
    let Some(key) = &constraint.foreign else {
        return format!("{} ({columns})", if constraint.kind == "p" { "PRIMARY KEY" } else { "UNIQUE" });
    };
    let parent = catalog.find_id(TableId(key.parent));
    let (name, referred) = match parent {
        Some(parent) => (quoted_name(catalog, &parent.qualified_name()), self::columns(parent, &key.parent_columns)),
        None => ("?".to_owned(), String::new()),
    };
    let mut text = format!("FOREIGN KEY ({columns}) REFERENCES {name}({referred})");
    for (event, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
        let action = match action {
            Action::Refuse => continue,
            Action::Restrict => "RESTRICT",
            Action::Cascade => "CASCADE",
            Action::SetNull => "SET NULL",
            Action::SetDefault => "SET DEFAULT",
        };
        text.push_str(&format!(" ON {event} {action}"));
    }
    match (key.is_deferrable, key.is_deferred) {
        (true, true) => text + " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => text + " DEFERRABLE",
        _ => text,
    }
}

/// Names of columns, quoted where they must be.
pub(super) fn columns(table: &Table, ids: &[u32]) -> String {
    let name = |id: &u32| match table.position_of(*id) {
        Ok(position) => quoted(table.shape.columns[position].field.name()),
        Err(_) => "?".to_owned(),
    };
    ids.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// A name as SQL would have to write it.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A relation's name, with its schema where it has to be said.
pub(super) fn quoted_name(catalog: &Catalog, name: &TableName) -> String {
    if catalog.is_visible(name) {
        quoted(&name.table)
    } else {
        format!("{}.{}", quoted(&name.schema), quoted(&name.table))
    }
}
