//! Numbers of objects, as PostgreSQL's clients join by them.
//!
//! | object | number |
//! |---|---|
//! | table, index, sequence | 16,384 and the number of its storage, which the catalog never gives out twice |
//! | primary key's index | 2^30 and the table's |
//! | schema, view, constraint, default | from its name: 2^29 values for each kind, so two of one kind are not expected to meet |

use std::hash::Hasher;

use crate::catalog::sequence::SequenceShape;
use crate::catalog::{Catalog, DEFAULT_SCHEMA, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, TableName};

use super::PG_SCHEMA;

/// The one owner of everything.
pub(super) const OWNER: i64 = 10;
/// Its name.
pub(super) const OWNER_NAME: &str = "strata";
/// The one database.
pub(super) const DATABASE: i64 = 16_383;

const FIRST_STORAGE: i64 = 16_384;
const FIRST_KEY: i64 = 1 << 30;
const FIRST_NAMED: i64 = 1 << 29;

/// Tables of PostgreSQL that clients name by `::regclass`.
const KNOWN_CLASSES: [(&str, i64); 32] = [
    ("pg_tablespace", 1213),
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_authid", 1260),
    ("pg_database", 1262),
    ("pg_foreign_server", 1417),
    ("pg_sequence", 2224),
    ("pg_foreign_data_wrapper", 2328),
    ("pg_am", 2601),
    ("pg_attrdef", 2604),
    ("pg_cast", 2605),
    ("pg_constraint", 2606),
    ("pg_depend", 2608),
    ("pg_description", 2609),
    ("pg_index", 2610),
    ("pg_inherits", 2611),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_opclass", 2616),
    ("pg_operator", 2617),
    ("pg_rewrite", 2618),
    ("pg_trigger", 2620),
    ("pg_extension", 3079),
    ("pg_policy", 3256),
    ("pg_collation", 3456),
    ("pg_event_trigger", 3466),
    ("pg_enum", 3501),
    ("pg_range", 3541),
    ("pg_statistic_ext", 3381),
    ("pg_publication", 6104),
];

/// FNV-1a: small, and the same on every machine and in every version.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

fn named(parts: &[&str]) -> i64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write(&[0]);
    }
    FIRST_NAMED + i64::try_from(hasher.finish() >> 35).unwrap_or(0)
}

pub(super) fn schema(name: &str) -> i64 {
    match name {
        PG_SCHEMA => 11,
        DEFAULT_SCHEMA => 2200,
        INFORMATION_SCHEMA => 13_000,
        SYSTEM_SCHEMA => 13_001,
        _ => named(&["schema", name]),
    }
}

pub(super) fn storage(number: u32) -> i64 {
    FIRST_STORAGE + i64::from(number)
}

pub(super) fn table(table: &Table) -> i64 {
    storage(table.id().0)
}

pub(super) fn key_index(table: &Table) -> i64 {
    FIRST_KEY + i64::from(table.id().0)
}

pub(super) fn sequence(shape: &SequenceShape) -> i64 {
    storage(shape.counter)
}

pub(super) fn view(name: &TableName) -> i64 {
    named(&["view", &name.schema, &name.table])
}

pub(super) fn constraint(table: &Table, name: &str) -> i64 {
    named(&["constraint", &table.id().0.to_string(), name])
}

pub(super) fn default(table: &Table, column: u32) -> i64 {
    named(&["default", &table.id().0.to_string(), &column.to_string()])
}

/// The relation that a name means, by the search path.
pub(super) fn relation(catalog: &Catalog, parts: &[String]) -> Option<i64> {
    if let [name] | [_, name] = parts
        && (parts.len() == 1 || parts[0] == PG_SCHEMA)
        && let Some((_, oid)) = KNOWN_CLASSES.iter().find(|(known, _)| known == name)
    {
        return Some(*oid);
    }
    let name = catalog.locate(parts).ok()?;
    if let Some(found) = catalog.find(&name) {
        return Some(table(found));
    }
    if catalog.find_view(&name).is_some() {
        return Some(view(&name));
    }
    if let Ok((_, Some(shape))) = catalog.numbering(parts) {
        return Some(sequence(&shape));
    }
    if let Some((_, index)) = catalog.find_index(&name) {
        return Some(storage(index.id));
    }
    let key = |table: &&std::sync::Arc<Table>| !table.has_hidden_key() && table.key_name() == name.table;
    catalog.tables_of(&name.schema)?.find(key).map(|table| key_index(table))
}

/// What has the number `oid`: its schema and name.
pub(super) fn name_of(catalog: &Catalog, oid: i64) -> Option<TableName> {
    if let Some((name, _)) = KNOWN_CLASSES.iter().find(|(_, known)| *known == oid) {
        return Some(TableName { schema: PG_SCHEMA.to_owned(), table: (*name).to_owned() });
    }
    for found in catalog.tables() {
        let within = |name: String| Some(TableName { schema: found.schema_name.clone(), table: name });
        if table(found) == oid {
            return Some(found.qualified_name());
        }
        if key_index(found) == oid && !found.has_hidden_key() {
            return within(found.key_name());
        }
        if let Some((id, _)) = found.rules.identities.iter().find(|(_, known)| sequence(&known.sequence) == oid) {
            return within(found.sequence_name(*id));
        }
        if let Some(index) = found.rules.indexes.iter().find(|index| storage(index.id) == oid) {
            return within(index.name.clone());
        }
    }
    let sequence = catalog.sequences().find(|found| sequence(&found.shape) == oid).map(|found| found.name.clone());
    sequence.or_else(|| catalog.views().find(|found| view(&found.name) == oid).map(|found| found.name.clone()))
}
