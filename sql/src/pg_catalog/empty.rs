//! Tables of things that Strata does not have: there, so that clients may ask, and empty.

use super::sheet::{Columns, Kind, Sheet};

const OID: (&str, Kind) = ("oid", Kind::Oid);

/// The tables, with the columns that clients ask for.
pub(super) const TABLES: &[(&str, Columns)] = &[
    (
        "pg_auth_members",
        &[OID, ("roleid", Kind::Oid), ("member", Kind::Oid), ("grantor", Kind::Oid), ("admin_option", Kind::Bool)],
    ),
    (
        "pg_cast",
        &[
            OID,
            ("castsource", Kind::Oid),
            ("casttarget", Kind::Oid),
            ("castfunc", Kind::Oid),
            ("castcontext", Kind::Text),
        ],
    ),
    (
        "pg_collation",
        &[
            OID,
            ("collname", Kind::Text),
            ("collnamespace", Kind::Oid),
            ("collprovider", Kind::Text),
            ("collcollate", Kind::Text),
        ],
    ),
    (
        "pg_depend",
        &[
            ("classid", Kind::Oid),
            ("objid", Kind::Oid),
            ("objsubid", Kind::Int4),
            ("refclassid", Kind::Oid),
            ("refobjid", Kind::Oid),
            ("refobjsubid", Kind::Int4),
            ("deptype", Kind::Text),
        ],
    ),
    ("pg_enum", &[OID, ("enumtypid", Kind::Oid), ("enumsortorder", Kind::Real), ("enumlabel", Kind::Text)]),
    ("pg_event_trigger", &[OID, ("evtname", Kind::Text)]),
    (
        "pg_extension",
        &[
            OID,
            ("extname", Kind::Text),
            ("extowner", Kind::Oid),
            ("extnamespace", Kind::Oid),
            ("extversion", Kind::Text),
        ],
    ),
    ("pg_foreign_data_wrapper", &[OID, ("fdwname", Kind::Text)]),
    ("pg_foreign_server", &[OID, ("srvname", Kind::Text), ("srvfdw", Kind::Oid)]),
    ("pg_foreign_table", &[("ftrelid", Kind::Oid), ("ftserver", Kind::Oid)]),
    (
        "pg_inherits",
        &[
            ("inhrelid", Kind::Oid),
            ("inhparent", Kind::Oid),
            ("inhseqno", Kind::Int4),
            ("inhdetachpending", Kind::Bool),
        ],
    ),
    ("pg_language", &[OID, ("lanname", Kind::Text)]),
    (
        "pg_matviews",
        &[
            ("schemaname", Kind::Text),
            ("matviewname", Kind::Text),
            ("matviewowner", Kind::Text),
            ("definition", Kind::Text),
        ],
    ),
    ("pg_opclass", &[OID, ("opcname", Kind::Text), ("opcmethod", Kind::Oid)]),
    (
        "pg_operator",
        &[OID, ("oprname", Kind::Text), ("oprleft", Kind::Oid), ("oprright", Kind::Oid), ("oprresult", Kind::Oid)],
    ),
    ("pg_partitioned_table", &[("partrelid", Kind::Oid), ("partstrat", Kind::Text)]),
    (
        "pg_policy",
        &[OID, ("polname", Kind::Text), ("polrelid", Kind::Oid), ("polcmd", Kind::Text), ("polpermissive", Kind::Bool)],
    ),
    (
        "pg_proc",
        &[
            OID,
            ("proname", Kind::Text),
            ("pronamespace", Kind::Oid),
            ("proowner", Kind::Oid),
            ("prokind", Kind::Text),
            ("prorettype", Kind::Oid),
            ("proretset", Kind::Bool),
            ("pronargs", Kind::Int2),
            ("proargtypes", Kind::Text),
        ],
    ),
    ("pg_publication", &[OID, ("pubname", Kind::Text), ("puballtables", Kind::Bool)]),
    ("pg_publication_namespace", &[OID, ("pnpubid", Kind::Oid), ("pnnspid", Kind::Oid)]),
    ("pg_publication_rel", &[OID, ("prpubid", Kind::Oid), ("prrelid", Kind::Oid)]),
    (
        "pg_range",
        &[
            ("rngtypid", Kind::Oid),
            ("rngsubtype", Kind::Oid),
            ("rngmultitypid", Kind::Oid),
            ("rngcollation", Kind::Oid),
        ],
    ),
    ("pg_rewrite", &[OID, ("rulename", Kind::Text), ("ev_class", Kind::Oid), ("ev_type", Kind::Text)]),
    ("pg_shdescription", &[("objoid", Kind::Oid), ("classoid", Kind::Oid), ("description", Kind::Text)]),
    ("pg_statistic_ext", &[OID, ("stxrelid", Kind::Oid), ("stxname", Kind::Text), ("stxnamespace", Kind::Oid)]),
    ("pg_subscription", &[OID, ("subname", Kind::Text)]),
    (
        "pg_trigger",
        &[
            OID,
            ("tgrelid", Kind::Oid),
            ("tgname", Kind::Text),
            ("tgenabled", Kind::Text),
            ("tgisinternal", Kind::Bool),
            ("tgparentid", Kind::Oid),
        ],
    ),
];

/// The table `name`, without rows.
pub(super) fn sheet(name: &str) -> Option<Sheet> {
    TABLES.iter().find(|(known, _)| *known == name).map(|(_, columns)| Sheet::new(columns))
}

/// Whether the table `name` has no rows, in any database.
pub(super) fn is_empty(name: &str) -> bool {
    TABLES.iter().any(|(known, _)| *known == name)
}
