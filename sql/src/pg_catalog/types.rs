//! Types by PostgreSQL's numbers.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use super::oids::OWNER;
use super::sheet::{Columns, Kind, Sheet, row};
use crate::types::is_json_field;

/// One type: number, name, SQL's name, length, category, number of its array type.
struct Type {
    oid: i64,
    name: &'static str,
    sql: &'static str,
    length: i64,
    category: &'static str,
    array: i64,
}

const fn ty(oid: i64, name: &'static str, sql: &'static str, length: i64, category: &'static str, array: i64) -> Type {
    Type { oid, name, sql, length, category, array }
}

const TYPES: [Type; 28] = [
    ty(16, "bool", "boolean", 1, "B", 1000),
    ty(17, "bytea", "bytea", -1, "U", 1001),
    ty(18, "char", "\"char\"", 1, "Z", 1002),
    ty(19, "name", "name", 64, "S", 1003),
    ty(20, "int8", "bigint", 8, "N", 1016),
    ty(21, "int2", "smallint", 2, "N", 1005),
    ty(22, "int2vector", "int2vector", -1, "A", 1006),
    ty(23, "int4", "integer", 4, "N", 1007),
    ty(24, "regproc", "regproc", 4, "N", 1008),
    ty(25, "text", "text", -1, "S", 1009),
    ty(26, "oid", "oid", 4, "N", 1028),
    ty(114, "json", "json", -1, "U", 199),
    ty(700, "float4", "real", 4, "N", 1021),
    ty(701, "float8", "double precision", 8, "N", 1022),
    ty(705, "unknown", "unknown", -2, "X", 0),
    ty(1042, "bpchar", "character", -1, "S", 1014),
    ty(1043, "varchar", "character varying", -1, "S", 1015),
    ty(1082, "date", "date", 4, "D", 1182),
    ty(1083, "time", "time without time zone", 8, "D", 1183),
    ty(1114, "timestamp", "timestamp without time zone", 8, "D", 1115),
    ty(1184, "timestamptz", "timestamp with time zone", 8, "D", 1185),
    ty(1186, "interval", "interval", 16, "T", 1187),
    ty(1700, "numeric", "numeric", -1, "N", 1231),
    ty(2205, "regclass", "regclass", 4, "N", 2210),
    ty(2206, "regtype", "regtype", 4, "N", 2211),
    ty(2278, "void", "void", 4, "P", 0),
    ty(2950, "uuid", "uuid", 16, "U", 2951),
    ty(3802, "jsonb", "jsonb", -1, "U", 3807),
];

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
    ("typsubscript", Kind::Text),
    ("typelem", Kind::Oid),
    ("typarray", Kind::Oid),
    ("typinput", Kind::Text),
    ("typoutput", Kind::Text),
    ("typreceive", Kind::Text),
    ("typsend", Kind::Text),
    ("typmodin", Kind::Text),
    ("typmodout", Kind::Text),
    ("typanalyze", Kind::Text),
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

/// `pg_type`: the types that columns and results can have, and their arrays.
pub(super) fn types() -> Sheet {
    let mut sheet = Sheet::new(COLUMNS);
    for ty in &TYPES {
        let arrays = (ty.array > 0).then_some((ty.array, format!("_{}", ty.name), ty.oid));
        let one = Some((ty.oid, ty.name.to_owned(), 0));
        for (oid, name, element) in one.into_iter().chain(arrays) {
            let is_array = element != 0;
            let (length, category) = if is_array { (-1, "A") } else { (ty.length, ty.category) };
            let (input, output) = if is_array {
                ("array_in".to_owned(), "array_out".to_owned())
            } else {
                (format!("{name}in"), format!("{name}out"))
            };
            let is_text = matches!(ty.oid, 19 | 25 | 1042 | 1043);
            let (receive, send) = if is_array {
                ("array_recv".to_owned(), "array_send".to_owned())
            } else {
                (format!("{name}recv"), format!("{name}send"))
            };
            let is_pseudo = ty.category == "P" || ty.category == "X";
            sheet.push(row![
                oid,
                name,
                11,
                OWNER,
                length,
                (1..=8).contains(&length),
                if is_pseudo { "p" } else { "b" },
                category,
                false,
                true,
                ",",
                0,
                "-",
                element,
                if is_array { 0 } else { ty.array },
                input,
                output,
                receive,
                send,
                "-",
                "-",
                "-",
                if length == 8 { "d" } else { "i" },
                if length == -1 { "x" } else { "p" },
                false,
                0,
                -1,
                0,
                if is_text { 100 } else { 0 },
                None::<String>,
                None::<String>,
                None::<String>
            ]);
        }
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
            (TYPES.iter().find(|ty| ty.oid == element).map_or(1009, |ty| ty.array), modifier)
        }
        _ => plain(705),
    }
}

/// Length in bytes of a type, or −1.
pub(super) fn length(oid: i64) -> i64 {
    TYPES.iter().find(|ty| ty.oid == oid).map_or(-1, |ty| ty.length)
}

/// The type's own name, as in `pg_type`.
pub(super) fn short_name(oid: i64) -> String {
    let own = TYPES.iter().find(|ty| ty.oid == oid).map(|ty| ty.name.to_owned());
    let array = || TYPES.iter().find(|ty| ty.array == oid).map(|ty| format!("_{}", ty.name));
    own.or_else(array).unwrap_or_else(|| "unknown".to_owned())
}

/// `format_type`: the SQL name of a type with its modifier.
pub(super) fn name(oid: i64, modifier: Option<i64>) -> String {
    if let Some(element) = TYPES.iter().find(|ty| ty.array == oid && oid != 0) {
        return format!("{}[]", name(element.oid, modifier));
    }
    let Some(ty) = TYPES.iter().find(|ty| ty.oid == oid) else { return if oid == 0 { "-" } else { "???" }.to_owned() };
    match modifier.filter(|modifier| *modifier >= 4).map(|modifier| modifier - 4) {
        Some(modifier) if oid == 1700 => format!("numeric({},{})", (modifier >> 16) & 0xffff, modifier & 0x7ff),
        Some(modifier) if matches!(oid, 1042 | 1043) => format!("{}({modifier})", ty.sql),
        _ => ty.sql.to_owned(),
    }
}

/// The number of the type called `name`, by either of its names.
pub(super) fn oid(name: &str) -> Option<i64> {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let scalar = |name: &str| TYPES.iter().find(|ty| ty.name == name || ty.sql == name);
    let common = match name {
        "int" => "int4",
        "decimal" => "numeric",
        "timestamp" | "time" => name,
        other => other,
    };
    match common.strip_suffix("[]") {
        Some(element) => scalar(element).map(|ty| ty.array),
        None => scalar(common).map(|ty| ty.oid).or_else(|| {
            let element = common.strip_prefix('_')?;
            scalar(element).map(|ty| ty.array)
        }),
    }
}
