//! Sequences: those with names of their own, and those that number the rows of columns.

use super::oids::{self, OWNER_NAME};
use super::relations::places;
use super::sheet::{Columns, Kind, Sheet, row};
use super::types;
use crate::catalog::sequence::SequenceShape;
use crate::catalog::{Catalog, TableName};
use strata_oltp::TableId;

/// A sequence with a name of its own, or one that numbers the rows of a column.
pub(super) struct AnySequence {
    pub name: TableName,
    pub shape: SequenceShape,
    /// Table and place of the column that it belongs to, and how: `i` for identities, `a` where OWNED BY said so.
    pub owner: Option<(i64, i64, &'static str)>,
}

impl AnySequence {
    pub(super) fn oid(&self) -> i64 {
        oids::sequence(&self.shape)
    }
}

/// Every sequence.
pub(super) fn all(catalog: &Catalog) -> Vec<AnySequence> {
    let mut found: Vec<AnySequence> = Vec::new();
    for table in catalog.tables() {
        for (id, identity) in &table.rules.identities {
            let name = TableName { schema: table.schema_name.clone(), table: table.sequence_name(*id) };
            let owner = Some((oids::table(table), places(table, &[*id])[0], "i"));
            found.push(AnySequence { name, shape: identity.sequence.clone(), owner });
        }
    }
    for sequence in catalog.sequences() {
        let owner = sequence.shape.owner.and_then(|owner| {
            let table = catalog.find_id(TableId(owner.table))?;
            Some((oids::table(table), places(table, &[owner.column])[0], "a"))
        });
        found.push(AnySequence { name: sequence.name.clone(), shape: sequence.shape.clone(), owner });
    }
    found
}

/// `pg_depend`: sequences that belong to columns.
pub(super) fn dependencies(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("classid", Kind::Oid),
        ("objid", Kind::Oid),
        ("objsubid", Kind::Int4),
        ("refclassid", Kind::Oid),
        ("refobjid", Kind::Oid),
        ("refobjsubid", Kind::Int4),
        ("deptype", Kind::Text),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for sequence in all(catalog) {
        if let Some((table, column, how)) = sequence.owner {
            sheet.push(row![1259, sequence.oid(), 0, 1259, table, column, how]);
        }
    }
    sheet
}

/// The type that a sequence was declared of; before that was kept, the type whose limits it has.
pub(super) fn type_of(shape: &SequenceShape) -> i64 {
    let has_limit = |limit: i64| shape.max == limit || shape.min == -limit - 1;
    match shape.bits {
        Some(16) => 21,
        Some(32) => 23,
        None if has_limit(i64::from(i16::MAX)) => 21,
        None if has_limit(i64::from(i32::MAX)) => 23,
        _ => 20,
    }
}

pub(super) fn sequences(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("seqrelid", Kind::Oid),
        ("seqtypid", Kind::Oid),
        ("seqstart", Kind::Oid),
        ("seqincrement", Kind::Oid),
        ("seqmax", Kind::Oid),
        ("seqmin", Kind::Oid),
        ("seqcache", Kind::Oid),
        ("seqcycle", Kind::Bool),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for sequence in all(catalog) {
        let shape = &sequence.shape;
        sheet.push(row![
            sequence.oid(),
            type_of(shape),
            shape.declared_start(),
            shape.increment,
            shape.max,
            shape.min,
            shape.cache.unwrap_or(1),
            shape.is_cycle
        ]);
    }
    sheet
}

pub(super) fn sequence_texts(catalog: &Catalog) -> Sheet {
    const COLUMNS: Columns = &[
        ("schemaname", Kind::Text),
        ("sequencename", Kind::Text),
        ("sequenceowner", Kind::Text),
        ("data_type", Kind::Text),
        ("start_value", Kind::Oid),
        ("min_value", Kind::Oid),
        ("max_value", Kind::Oid),
        ("increment_by", Kind::Oid),
        ("cycle", Kind::Bool),
        ("cache_size", Kind::Oid),
    ];
    let mut sheet = Sheet::new(COLUMNS);
    for sequence in all(catalog) {
        let (name, shape) = (&sequence.name, &sequence.shape);
        let data_type = types::name(type_of(shape), None);
        sheet.push(row![
            name.schema.as_str(),
            name.table.as_str(),
            OWNER_NAME,
            data_type,
            shape.declared_start(),
            shape.min,
            shape.max,
            shape.increment,
            shape.is_cycle,
            shape.cache.unwrap_or(1)
        ]);
    }
    sheet
}
