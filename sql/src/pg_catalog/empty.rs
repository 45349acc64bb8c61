//! Tables of things that Strata does not have: there, so that clients may ask, and empty.

use super::sheet::{Columns, Kind, Sheet};

const OID: (&str, Kind) = ("oid", Kind::Oid);

/// The tables, with the columns that clients ask for.
pub(super) const TABLES: &[(&str, Columns)] = &[
    ("pg_aggregate", &[("aggfnoid", Kind::Oid), ("aggkind", Kind::Text), ("aggnumdirectargs", Kind::Int2)]),
    (
        "pg_available_extensions",
        &[
            ("name", Kind::Text),
            ("default_version", Kind::Text),
            ("installed_version", Kind::Text),
            ("comment", Kind::Text),
        ],
    ),
    (
        "pg_cursors",
        &[
            ("name", Kind::Text),
            ("statement", Kind::Text),
            ("is_holdable", Kind::Bool),
            ("is_binary", Kind::Bool),
            ("is_scrollable", Kind::Bool),
            ("creation_time", Kind::Moment),
        ],
    ),
    ("pg_db_role_setting", &[("setdatabase", Kind::Oid), ("setrole", Kind::Oid), ("setconfig", Kind::Texts)]),
    (
        "pg_default_acl",
        &[
            OID,
            ("defaclrole", Kind::Oid),
            ("defaclnamespace", Kind::Oid),
            ("defaclobjtype", Kind::Text),
            ("defaclacl", Kind::Texts),
        ],
    ),
    ("pg_group", &[("groname", Kind::Text), ("grosysid", Kind::Oid), ("grolist", Kind::Oids)]),
    ("pg_largeobject_metadata", &[OID, ("lomowner", Kind::Oid), ("lomacl", Kind::Texts)]),
    (
        "pg_locks",
        &[
            ("locktype", Kind::Text),
            ("database", Kind::Oid),
            ("relation", Kind::Oid),
            ("page", Kind::Int4),
            ("tuple", Kind::Int2),
            ("virtualxid", Kind::Text),
            ("transactionid", Kind::Oid),
            ("classid", Kind::Oid),
            ("objid", Kind::Oid),
            ("objsubid", Kind::Int2),
            ("virtualtransaction", Kind::Text),
            ("pid", Kind::Int4),
            ("mode", Kind::Text),
            ("granted", Kind::Bool),
            ("fastpath", Kind::Bool),
            ("waitstart", Kind::Moment),
        ],
    ),
    (
        "pg_opfamily",
        &[OID, ("opfmethod", Kind::Oid), ("opfname", Kind::Text), ("opfnamespace", Kind::Oid), ("opfowner", Kind::Oid)],
    ),
    (
        "pg_prepared_xacts",
        &[
            ("transaction", Kind::Oid),
            ("gid", Kind::Text),
            ("prepared", Kind::Moment),
            ("owner", Kind::Text),
            ("database", Kind::Text),
        ],
    ),
    (
        "pg_replication_slots",
        &[
            ("slot_name", Kind::Text),
            ("plugin", Kind::Text),
            ("slot_type", Kind::Text),
            ("datoid", Kind::Oid),
            ("database", Kind::Text),
            ("temporary", Kind::Bool),
            ("active", Kind::Bool),
            ("active_pid", Kind::Int4),
            ("xmin", Kind::Oid),
            ("catalog_xmin", Kind::Oid),
            ("restart_lsn", Kind::Text),
            ("confirmed_flush_lsn", Kind::Text),
            ("wal_status", Kind::Text),
        ],
    ),
    (
        "pg_rules",
        &[("schemaname", Kind::Text), ("tablename", Kind::Text), ("rulename", Kind::Text), ("definition", Kind::Text)],
    ),
    (
        "pg_seclabels",
        &[
            ("objoid", Kind::Oid),
            ("classoid", Kind::Oid),
            ("objsubid", Kind::Int4),
            ("objtype", Kind::Text),
            ("objnamespace", Kind::Oid),
            ("objname", Kind::Text),
            ("provider", Kind::Text),
            ("label", Kind::Text),
        ],
    ),
    (
        "pg_shdepend",
        &[
            ("dbid", Kind::Oid),
            ("classid", Kind::Oid),
            ("objid", Kind::Oid),
            ("objsubid", Kind::Int4),
            ("refclassid", Kind::Oid),
            ("refobjid", Kind::Oid),
            ("deptype", Kind::Text),
        ],
    ),
    (
        "pg_stat_replication",
        &[
            ("pid", Kind::Int4),
            ("usesysid", Kind::Oid),
            ("usename", Kind::Text),
            ("application_name", Kind::Text),
            ("client_addr", Kind::Text),
            ("state", Kind::Text),
            ("sent_lsn", Kind::Text),
            ("write_lsn", Kind::Text),
            ("flush_lsn", Kind::Text),
            ("replay_lsn", Kind::Text),
            ("sync_state", Kind::Text),
        ],
    ),
    (
        "pg_stats",
        &[
            ("schemaname", Kind::Text),
            ("tablename", Kind::Text),
            ("attname", Kind::Text),
            ("inherited", Kind::Bool),
            ("null_frac", Kind::Real),
            ("avg_width", Kind::Int4),
            ("n_distinct", Kind::Real),
            ("correlation", Kind::Real),
        ],
    ),
    (
        "pg_ts_config",
        &[OID, ("cfgname", Kind::Text), ("cfgnamespace", Kind::Oid), ("cfgowner", Kind::Oid), ("cfgparser", Kind::Oid)],
    ),
    (
        "pg_user_mappings",
        &[
            ("umid", Kind::Oid),
            ("srvid", Kind::Oid),
            ("srvname", Kind::Text),
            ("umuser", Kind::Oid),
            ("usename", Kind::Text),
            ("umoptions", Kind::Texts),
        ],
    ),
    (
        "pg_auth_members",
        &[OID, ("roleid", Kind::Oid), ("member", Kind::Oid), ("grantor", Kind::Oid), ("admin_option", Kind::Bool)],
    ),
    ("pg_enum", &[OID, ("enumtypid", Kind::Oid), ("enumsortorder", Kind::Real), ("enumlabel", Kind::Text)]),
    (
        "pg_event_trigger",
        &[OID, ("evtname", Kind::Text), ("evtevent", Kind::Text), ("evtowner", Kind::Oid), ("evtenabled", Kind::Text)],
    ),
    (
        "pg_extension",
        &[
            OID,
            ("extname", Kind::Text),
            ("extowner", Kind::Oid),
            ("extnamespace", Kind::Oid),
            ("extrelocatable", Kind::Bool),
            ("extversion", Kind::Text),
            ("extconfig", Kind::Oids),
            ("extcondition", Kind::Texts),
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
    (
        "pg_matviews",
        &[
            ("schemaname", Kind::Text),
            ("matviewname", Kind::Text),
            ("matviewowner", Kind::Text),
            ("definition", Kind::Text),
        ],
    ),
    (
        "pg_operator",
        &[OID, ("oprname", Kind::Text), ("oprleft", Kind::Oid), ("oprright", Kind::Oid), ("oprresult", Kind::Oid)],
    ),
    (
        "pg_partitioned_table",
        &[
            ("partrelid", Kind::Oid),
            ("partstrat", Kind::Text),
            ("partnatts", Kind::Int2),
            ("partattrs", Kind::Int2s),
            ("partexprs", Kind::Text),
        ],
    ),
    (
        "pg_policy",
        &[
            OID,
            ("polname", Kind::Text),
            ("polrelid", Kind::Oid),
            ("polcmd", Kind::Text),
            ("polpermissive", Kind::Bool),
            ("polroles", Kind::Oids),
            ("polqual", Kind::Text),
            ("polwithcheck", Kind::Text),
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
            ("rngsubopc", Kind::Oid),
        ],
    ),
    (
        "pg_rewrite",
        &[
            OID,
            ("rulename", Kind::Text),
            ("ev_class", Kind::Oid),
            ("ev_type", Kind::Text),
            ("ev_enabled", Kind::Text),
            ("is_instead", Kind::Bool),
        ],
    ),
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
            ("tgfoid", Kind::Oid),
            ("tgtype", Kind::Int2),
            ("tgconstraint", Kind::Oid),
            ("tgattr", Kind::Int2s),
            ("tgqual", Kind::Text),
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
