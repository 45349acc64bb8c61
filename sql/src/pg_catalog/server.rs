//! What is the same in every database: itself, its one role, access methods, collations, casts; and settings.

use super::oids::{DATABASE, OWNER, OWNER_NAME};
use super::sheet::{Cell, Columns, Kind, Sheet, row};
use crate::catalog::CATALOG_NAME;
use crate::settings::{self, Settings};

const NONE: Option<String> = None;

pub(super) fn access_methods() -> Sheet {
    const COLUMNS: Columns =
        &[("oid", Kind::Oid), ("amname", Kind::Text), ("amhandler", Kind::Oid), ("amtype", Kind::Text)];
    let mut sheet = Sheet::new(COLUMNS);
    sheet.push(row![2, "heap", 3, "t"]);
    sheet.push(row![403, "btree", 330, "i"]);
    sheet
}

pub(super) fn databases() -> Sheet {
    const COLUMNS: Columns = &[
        ("oid", Kind::Oid),
        ("datname", Kind::Text),
        ("datdba", Kind::Oid),
        ("encoding", Kind::Int4),
        ("datlocprovider", Kind::Text),
        ("datistemplate", Kind::Bool),
        ("datallowconn", Kind::Bool),
        ("datconnlimit", Kind::Int4),
        ("datfrozenxid", Kind::Oid),
        ("datminmxid", Kind::Oid),
        ("dattablespace", Kind::Oid),
        ("datcollate", Kind::Text),
        ("datctype", Kind::Text),
        ("daticulocale", Kind::Text),
        ("datcollversion", Kind::Text),
        ("datacl", Kind::Texts),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    sheet.push(row![
        DATABASE,
        CATALOG_NAME,
        OWNER,
        6,
        "c",
        false,
        true,
        -1,
        0,
        0,
        1663,
        "C.UTF-8",
        "C.UTF-8",
        NONE,
        NONE,
        NONE
    ]);
    sheet
}

pub(super) fn tablespaces() -> Sheet {
    const COLUMNS: Columns = &[
        ("oid", Kind::Oid),
        ("spcname", Kind::Text),
        ("spcowner", Kind::Oid),
        ("spcacl", Kind::Texts),
        ("spcoptions", Kind::Texts),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    sheet.push(row![1663, "pg_default", OWNER, NONE, NONE]);
    sheet
}

pub(super) fn roles(name: &str) -> Sheet {
    const ROLES: Columns = &[
        ("oid", Kind::Oid),
        ("rolname", Kind::Text),
        ("rolsuper", Kind::Bool),
        ("rolinherit", Kind::Bool),
        ("rolcreaterole", Kind::Bool),
        ("rolcreatedb", Kind::Bool),
        ("rolcanlogin", Kind::Bool),
        ("rolreplication", Kind::Bool),
        ("rolbypassrls", Kind::Bool),
        ("rolconnlimit", Kind::Int4),
        ("rolpassword", Kind::Text),
        ("rolvaliduntil", Kind::Text),
        ("rolconfig", Kind::Texts),
    ];
    const USERS: Columns = &[
        ("usename", Kind::Text),
        ("usesysid", Kind::Oid),
        ("usecreatedb", Kind::Bool),
        ("usesuper", Kind::Bool),
        ("userepl", Kind::Bool),
        ("usebypassrls", Kind::Bool),
        ("passwd", Kind::Text),
        ("valuntil", Kind::Text),
        ("useconfig", Kind::Texts),
    ];
    if matches!(name, "pg_user" | "pg_shadow") {
        let mut sheet = Sheet::new(USERS);
        sheet.push(row![OWNER_NAME, OWNER, true, true, false, true, "********", NONE, NONE]);
        return sheet;
    }
    let mut sheet = Sheet::new(ROLES);
    let password = (name == "pg_roles").then_some("********");
    sheet.push(row![OWNER, OWNER_NAME, true, true, true, true, true, false, true, -1, password, NONE, NONE]);
    sheet
}

/// `pg_settings`: settings as they are for the session that reads them.
pub(super) fn settings(current: &Settings) -> Sheet {
    let mut sheet = Sheet::new(SETTINGS);
    let began = settings::all(&Settings::new(current.durability));
    for ([name, value, about], [_, initial, _]) in settings::all(current).into_iter().zip(began) {
        let source = if value == initial { "default" } else { "session" };
        let mut row = row![name, value, NONE, "Strata", about, NONE, "user", "string", source, NONE, NONE];
        row.extend(row![initial.clone(), initial, NONE, Cell::Null, false]);
        sheet.push(row);
    }
    sheet
}

const SETTINGS: Columns = &[
    ("name", Kind::Text),
    ("setting", Kind::Text),
    ("unit", Kind::Text),
    ("category", Kind::Text),
    ("short_desc", Kind::Text),
    ("extra_desc", Kind::Text),
    ("context", Kind::Text),
    ("vartype", Kind::Text),
    ("source", Kind::Text),
    ("min_val", Kind::Text),
    ("max_val", Kind::Text),
    ("boot_val", Kind::Text),
    ("reset_val", Kind::Text),
    ("sourcefile", Kind::Text),
    ("sourceline", Kind::Int4),
    ("pending_restart", Kind::Bool),
];

/// Operator classes of b-trees: number, name, family, type.
const CLASSES: [(i64, &str, i64, i64); 17] = [
    (1978, "int4_ops", 1976, 23),
    (1979, "int2_ops", 1976, 21),
    (1981, "oid_ops", 1989, 26),
    (3122, "date_ops", 434, 1082),
    (3123, "float8_ops", 1970, 701),
    (3124, "int8_ops", 1976, 20),
    (3125, "numeric_ops", 1988, 1700),
    (3126, "text_ops", 1994, 25),
    (3127, "timestamptz_ops", 434, 1184),
    (3128, "timestamp_ops", 434, 1114),
    (10000, "array_ops", 397, 2277),
    (10003, "bool_ops", 424, 16),
    (10006, "bytea_ops", 428, 17),
    (10012, "float4_ops", 1970, 700),
    (10022, "interval_ops", 1982, 1186),
    (10038, "time_ops", 1996, 1083),
    (10065, "uuid_ops", 2968, 2950),
];

/// The operator class that an index over a column of the type `oid` has; 0 if none is known.
pub(super) fn operator_class(oid: i64) -> i64 {
    // VARCHAR is sorted as TEXT is, every array by its elements.
    let oid = match super::types::find(oid) {
        _ if oid == 1043 => 25,
        Some(ty) if ty.name.starts_with('_') => 2277,
        _ => oid,
    };
    CLASSES.iter().find(|class| class.3 == oid).map_or(0, |class| class.0)
}

pub(super) fn operator_classes() -> Sheet {
    const COLUMNS: Columns = &[
        ("oid", Kind::Oid),
        ("opcmethod", Kind::Oid),
        ("opcname", Kind::Text),
        ("opcnamespace", Kind::Oid),
        ("opcowner", Kind::Oid),
        ("opcfamily", Kind::Oid),
        ("opcintype", Kind::Oid),
        ("opcdefault", Kind::Bool),
        ("opckeytype", Kind::Oid),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (oid, name, family, ty) in CLASSES {
        sheet.push(row![oid, 403, name, 11, OWNER, family, ty, true, 0]);
    }
    sheet
}

pub(super) fn collations() -> Sheet {
    const COLUMNS: Columns = &[
        ("oid", Kind::Oid),
        ("collname", Kind::Text),
        ("collnamespace", Kind::Oid),
        ("collowner", Kind::Oid),
        ("collprovider", Kind::Text),
        ("collisdeterministic", Kind::Bool),
        ("collencoding", Kind::Int4),
        ("collcollate", Kind::Text),
        ("collctype", Kind::Text),
        ("colliculocale", Kind::Text),
        ("collversion", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for (oid, name, provider, locale) in [(100, "default", "d", None), (950, "C", "c", Some("C"))] {
        sheet.push(row![oid, name, 11, OWNER, provider, true, -1, locale, locale, NONE, NONE]);
    }
    sheet
}

pub(super) fn languages() -> Sheet {
    const COLUMNS: Columns = &[
        ("oid", Kind::Oid),
        ("lanname", Kind::Text),
        ("lanowner", Kind::Oid),
        ("lanispl", Kind::Bool),
        ("lanpltrusted", Kind::Bool),
        ("lanplcallfoid", Kind::Oid),
        ("laninline", Kind::Oid),
        ("lanvalidator", Kind::Oid),
        ("lanacl", Kind::Texts),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    sheet.push(row![12, "internal", OWNER, false, false, 0, 0, 0, NONE]);
    sheet
}

/// `pg_cast`, from `cast.tsv`: number, source, target, function, context and method of each cast of PostgreSQL's between
/// types that there are here.
pub(super) fn casts() -> Sheet {
    const COLUMNS: Columns = &[
        ("oid", Kind::Oid),
        ("castsource", Kind::Oid),
        ("casttarget", Kind::Oid),
        ("castfunc", Kind::Oid),
        ("castcontext", Kind::Text),
        ("castmethod", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for line in include_str!("cast.tsv").lines() {
        let cell = |cell: &str| cell.parse::<i64>().map_or_else(|_| Cell::from(cell), Cell::from);
        sheet.push(line.split('\t').map(cell).collect());
    }
    sheet
}

/// `pg_get_keywords()`, from `keywords.tsv`: PostgreSQL's words by category.
pub(super) fn keywords() -> Sheet {
    const COLUMNS: Columns = &[("word", Kind::Text), ("catcode", Kind::Text), ("catdesc", Kind::Text)];
    let mut sheet = Sheet::new(COLUMNS);
    for (category, words) in include_str!("keywords.tsv").lines().filter_map(|line| line.split_once('\t')) {
        let about = match category {
            "U" => "unreserved",
            "C" => "unreserved (cannot be function or type name)",
            "T" => "reserved (can be function or type name)",
            _ => "reserved",
        };
        words.split(' ').for_each(|word| sheet.push(row![word, category, about]));
    }
    sheet
}
