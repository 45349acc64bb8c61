//! Types by PostgreSQL's numbers.
//!
//! `types.tsv` has the rows of `pg_type` in PostgreSQL 15 for the types that columns, results and arguments of functions
//! can have here, and for their arrays: number, name, SQL's name, length, by value, kind, category, preferred, element,
//! array, functions of subscripts, input, output, receiving, sending, modifiers in and out and statistics, alignment,
//! storage, collation.

use std::collections::HashMap;
use std::sync::LazyLock;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use super::oids::OWNER;
use super::sheet::{Cell, Columns, Kind, Sheet};
use crate::types::is_json_field;

/// One line of the file.
pub(super) struct Type {
    pub oid: i64,
    pub name: &'static str,
    sql: &'static str,
    pub length: i64,
    is_by_value: bool,
    /// `b` for base types, `p` for those that only functions have.
    kind: &'static str,
    category: &'static str,
    is_preferred: bool,
    element: i64,
    pub array: i64,
    /// Numbers of functions: subscripts, input, output, receiving, sending, modifiers in and out, statistics.
    functions: [i64; 8],
    alignment: &'static str,
    storage: &'static str,
    pub collation: i64,
}

impl Type {
    fn read(line: &'static str) -> Option<Type> {
        let cells: Vec<&'static str> = line.split('\t').collect();
        let number = |at: usize| cells.get(at)?.parse::<i64>().ok();
        let mut functions = [0; 8];
        for (at, function) in functions.iter_mut().enumerate() {
            *function = number(10 + at)?;
        }
        Some(Type {
            oid: number(0)?,
            name: cells[1],
            sql: cells[2],
            length: number(3)?,
            is_by_value: cells[4] == "t",
            kind: cells[5],
            category: cells[6],
            is_preferred: cells[7] == "t",
            element: number(8)?,
            array: number(9)?,
            functions,
            alignment: cells[18],
            storage: cells[19],
            collation: number(20)?,
        })
    }

    /// Whether it is the array type of its element; vectors and names have elements too.
    fn is_array(&self) -> bool {
        self.name.starts_with('_')
    }
}

static TYPES: LazyLock<Vec<Type>> =
    LazyLock::new(|| include_str!("types.tsv").lines().filter_map(Type::read).collect());
static BY_OID: LazyLock<HashMap<i64, &'static Type>> = LazyLock::new(|| TYPES.iter().map(|ty| (ty.oid, ty)).collect());

/// The type of a number.
pub(super) fn find(oid: i64) -> Option<&'static Type> {
    BY_OID.get(&oid).copied()
}

const COLUMNS: Columns = &[
    ("oid", Kind::Oid),
    ("typname", Kind::Text),
    ("typnamespace", Kind::Oid),
    ("typowner", Kind::Oid),
    ("typlen", Kind::Int2),
    ("typbyval", Kind::Bool),
    ("typtype", Kind::Text),
    ("typcategory", Kind::Text),
    ("typispreferred", Kind::Bool),
    ("typisdefined", Kind::Bool),
    ("typdelim", Kind::Text),
    ("typrelid", Kind::Oid),
    ("typsubscript", Kind::Oid),
    ("typelem", Kind::Oid),
    ("typarray", Kind::Oid),
    ("typinput", Kind::Oid),
    ("typoutput", Kind::Oid),
    ("typreceive", Kind::Oid),
    ("typsend", Kind::Oid),
    ("typmodin", Kind::Oid),
    ("typmodout", Kind::Oid),
    ("typanalyze", Kind::Oid),
    ("typalign", Kind::Text),
    ("typstorage", Kind::Text),
    ("typnotnull", Kind::Bool),
    ("typbasetype", Kind::Oid),
    ("typtypmod", Kind::Int4),
    ("typndims", Kind::Int4),
    ("typcollation", Kind::Oid),
    ("typdefaultbin", Kind::Text),
    ("typdefault", Kind::Text),
    ("typacl", Kind::Texts),
];

/// `pg_type`.
pub(super) fn types() -> Sheet {
    let mut sheet = Sheet::new(COLUMNS);
    for ty in TYPES.iter() {
        let mut row: Vec<Cell> = vec![
            ty.oid.into(),
            ty.name.into(),
            11.into(),
            OWNER.into(),
            ty.length.into(),
            ty.is_by_value.into(),
            ty.kind.into(),
            ty.category.into(),
            ty.is_preferred.into(),
            true.into(),
            ",".into(),
            0.into(),
            ty.functions[0].into(),
            ty.element.into(),
            ty.array.into(),
        ];
        row.extend(ty.functions[1..].iter().map(|function| Cell::from(*function)));
        row.extend([ty.alignment.into(), ty.storage.into(), false.into(), 0.into(), (-1).into(), 0.into()]);
        row.extend([ty.collation.into(), Cell::Null, Cell::Null, Cell::Null]);
        sheet.push(row);
    }
    sheet
}

/// Number and modifier of a column's type; `chars_max` is the limit of its text.
pub(super) fn of(field: &Field, chars_max: Option<u32>) -> (i64, i64) {
    let plain = |oid| (oid, -1);
    match field.data_type() {
        DataType::Boolean => plain(16),
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => plain(21),
        DataType::UInt16 | DataType::Int32 => plain(23),
        DataType::UInt32 | DataType::Int64 => plain(20),
        DataType::Float16 | DataType::Float32 => plain(700),
        DataType::Float64 => plain(701),
        DataType::UInt64 => plain(1700),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => (1700, ((i64::from(*p) << 16) | (i64::from(*s) & 0x7ff)) + 4),
        _ if is_json_field(field) => plain(114),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match chars_max {
            Some(limit) => (1043, i64::from(limit) + 4),
            None => plain(25),
        },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => plain(17),
        DataType::FixedSizeBinary(16) => plain(2950),
        DataType::Date32 | DataType::Date64 => plain(1082),
        DataType::Time32(_) | DataType::Time64(_) => plain(1083),
        DataType::Timestamp(
            TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
            zone,
        ) => plain(if zone.is_some() { 1184 } else { 1114 }),
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano)
        | DataType::Duration(_) => plain(1186),
        DataType::List(item) => {
            let (element, modifier) = of(item, chars_max);
            (find(element).map_or(1009, |ty| ty.array), modifier)
        }
        _ => plain(705),
    }
}

/// Length in bytes of a type, or −1.
pub(super) fn length(oid: i64) -> i64 {
    find(oid).map_or(-1, |ty| ty.length)
}

/// Whether values are passed as such, how they are aligned and stored: columns of `pg_attribute` that the type decides.
pub(super) fn layout(oid: i64) -> (bool, &'static str, &'static str) {
    find(oid).map_or((false, "i", "x"), |ty| (ty.is_by_value, ty.alignment, ty.storage))
}

/// The type's own name, as in `pg_type`.
pub(super) fn short_name(oid: i64) -> &'static str {
    find(oid).map_or("unknown", |ty| ty.name)
}

/// `format_type`: the SQL name of a type with its modifier.
pub(super) fn name(oid: i64, modifier: Option<i64>) -> String {
    let Some(ty) = find(oid) else { return if oid == 0 { "-" } else { "???" }.to_owned() };
    if ty.is_array() {
        return format!("{}[]", name(ty.element, modifier));
    }
    match modifier.filter(|modifier| *modifier >= 4).map(|modifier| modifier - 4) {
        Some(modifier) if oid == 1700 => format!("numeric({},{})", (modifier >> 16) & 0xffff, modifier & 0x7ff),
        Some(modifier) if matches!(oid, 1042 | 1043) => format!("{}({modifier})", ty.sql),
        _ => ty.sql.to_owned(),
    }
}

/// The number of the type called `name`, by either of its names.
pub(super) fn oid(name: &str) -> Option<i64> {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name).replace('"', "");
    let known = |name: &str| TYPES.iter().find(|ty| ty.name == name || ty.sql.trim_matches('"') == name);
    let common = |name: &str| match name.split('(').next().unwrap_or_default().trim() {
        "int" => "int4".to_owned(),
        "decimal" => "numeric".to_owned(),
        "float" => "float8".to_owned(),
        "character" => "bpchar".to_owned(),
        other => other.to_owned(),
    };
    match name.strip_suffix("[]") {
        Some(element) => known(&common(element)).map(|ty| ty.array).filter(|array| *array > 0),
        None => known(&common(&name)).map(|ty| ty.oid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_types_know_their_arrays() {
        assert_eq!(TYPES.len(), include_str!("types.tsv").lines().count());
        for array in TYPES.iter().filter(|ty| ty.is_array()) {
            assert_eq!(find(array.element).map(|element| element.array), Some(array.oid), "{}", array.name);
        }
        assert_eq!(
            (oid("int4"), oid("character varying"), oid("Text[]"), oid("hstore")),
            (Some(23), Some(1043), Some(1009), None)
        );
        assert_eq!(name(1043, Some(24)), "character varying(20)");
        assert_eq!(name(1231, Some((12 << 16 | 2) + 4)), "numeric(12,2)[]");
    }
}
