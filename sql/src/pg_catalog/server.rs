//! What is the same in every database: itself, its one role, access methods, settings.

use strata_oltp::commit::Durability;

use super::oids::{DATABASE, OWNER, OWNER_NAME};
use super::sheet::{Columns, Kind, Sheet, row};
use crate::catalog::CATALOG_NAME;
use crate::settings::{self, Settings};

const NONE: Option<String> = None;

pub(super) fn access_methods() -> Sheet {
    const COLUMNS: Columns =
        &[("oid", Kind::Oid), ("amname", Kind::Text), ("amhandler", Kind::Text), ("amtype", Kind::Text)];
    let mut sheet = Sheet::new(COLUMNS);
    sheet.push(row![2, "heap", "heap_tableam_handler", "t"]);
    sheet.push(row![403, "btree", "bthandler", "i"]);
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
    if name == "pg_user" {
        let mut sheet = Sheet::new(USERS);
        sheet.push(row![OWNER_NAME, OWNER, true, true, false, true, "********", NONE, NONE]);
        return sheet;
    }
    let mut sheet = Sheet::new(ROLES);
    let password = (name == "pg_roles").then_some("********");
    sheet.push(row![OWNER, OWNER_NAME, true, true, true, true, true, false, true, -1, password, NONE, NONE]);
    sheet
}

/// Settings with the values that they have when a session begins; SHOW has those of now.
pub(super) fn settings() -> Sheet {
    const COLUMNS: Columns = &[
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
        ("pending_restart", Kind::Bool),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for [name, value, about] in settings::all(&Settings::new(Durability::Durable)) {
        sheet.push(row![
            name,
            value.clone(),
            NONE,
            "Strata",
            about,
            NONE,
            "user",
            "string",
            "default",
            NONE,
            NONE,
            value.clone(),
            value,
            false
        ]);
    }
    sheet
}
