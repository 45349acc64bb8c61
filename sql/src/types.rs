//! SQL types ↔ Arrow types, and how a value of one type is stored in a column of another.
//!
//! | SQL | stored as | |
//! |---|---|---|
//! | BOOLEAN | Boolean | |
//! | SMALLINT, INT, BIGINT | Int16, Int32, Int64 | TINYINT is a SMALLINT |
//! | REAL, DOUBLE PRECISION, FLOAT(p) | Float32, Float64 | |
//! | DECIMAL(p,s), NUMERIC(p,s) | Decimal128 | p ≤ 38; bare DECIMAL is (38,10) |
//! | TEXT, VARCHAR(n), CHAR(n) | `Utf8View` | n is checked; CHAR is not padded |
//! | BYTEA | `BinaryView` | text input `\xdeadbeef` |
//! | DATE, TIME, TIMESTAMP, TIMESTAMPTZ | Date32, Time64, Timestamp | microseconds; TIMESTAMPTZ in UTC |
//! | UUID | `FixedSizeBinary(16)` | |
//! | JSON, JSONB | `Utf8View` | checked and kept as written; extension type `arrow.json` |
//! | INTERVAL | Interval(MonthDayNano) | months, days and microseconds; at most 292 years of microseconds |
//! | `T[]`, T ARRAY | List of any of these but JSON and INTERVAL | one dimension, from 1; sizes are not checked, as in PostgreSQL |
//!
//! JSONB is another name of JSON: members keep their order and their blanks, and two documents are equal as texts only.
//!
//! Refused: unsigned integers, INTERVAL with fields or precision, arrays of arrays, and everything else, with SQLSTATE 0A000.
//!
//! Text is read by [`input`] and written by [`output`], wherever it comes from and goes to: constants, casts, INSERT, the
//! wire. [`assign`] follows PostgreSQL's assignment casts: numbers convert among themselves with rounding and a range check,
//! everything may become text, and a text *literal* may become anything that it reads as; text from elsewhere may not.

mod assign;
pub(crate) mod calendar;
mod input;
pub(crate) mod interval;
pub(crate) mod json;
mod output;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;

use crate::error::{Error, Result, SqlState};

pub(crate) use assign::{Origin, assign, check_length, with_elements};
pub(crate) use input::{read_texts, text_views};
pub(crate) use output::texts;
pub use output::write_text;

/// In the metadata of a cast's target: the limit of VARCHAR(n), to which the text is cut.
pub(crate) const CHARS_MAX: &str = "strata.chars_max";
/// In the metadata of a cast's target: NUMERIC without precision, which keeps all digits.
pub(crate) const UNBOUNDED: &str = "strata.unbounded";
const EXTENSION_NAME: &str = "ARROW:extension:name";
const JSON_EXTENSION: &str = "arrow.json";

/// Whether values of `data_type` are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether the text of `field` is JSON.
pub(crate) fn is_json_field(field: &Field) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == JSON_EXTENSION)
}

/// Whether `sql` is JSON, whose fields are marked by [`json_field`].
pub(crate) fn is_json_type(sql: &ast::DataType) -> bool {
    matches!(sql, ast::DataType::JSON | ast::DataType::JSONB)
}

/// `field` as one of JSON, by Arrow's canonical extension type.
pub(crate) fn json_field(field: Field) -> Field {
    field.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), JSON_EXTENSION.to_owned())]))
}

/// The texts of the array at `row`, if it holds arrays; NULL elements are left out.
pub(crate) fn read_list(array: &ArrayRef, row: usize) -> Result<Option<Vec<String>>> {
    let Some(lists) = array.as_list_opt::<i32>() else { return Ok(None) };
    let items = lists.value(row);
    let mut found = Vec::with_capacity(items.len());
    for at in (0..items.len()).filter(|at| items.is_valid(*at)) {
        let mut text = String::new();
        write_text(items.as_ref(), at, &mut text)?;
        found.push(text);
    }
    Ok(Some(found))
}

/// What a column definition asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnType {
    pub data_type: DataType,
    /// Limit of VARCHAR(n) and CHAR(n), in characters.
    pub chars_max: Option<u32>,
}

/// The storable type that the SQL type `sql` names.
pub(crate) fn column_type(sql: &ast::DataType) -> Result<ColumnType> {
    use ast::DataType as Sql;
    let data_type = match sql {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::TinyInt(_) | Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) | Sql::MediumInt(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) | Sql::Int64 => DataType::Int64,
        Sql::Real | Sql::Float4 | Sql::Float32 => DataType::Float32,
        Sql::Float(ast::ExactNumberInfo::Precision(bits)) if *bits <= 24 => DataType::Float32,
        Sql::Float(_) | Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => DataType::Float64,
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(*info)?,
        Sql::JSON | Sql::JSONB => DataType::Utf8View,
        Sql::Text | Sql::String(None) | Sql::Varchar(None) | Sql::CharacterVarying(None) | Sql::CharVarying(None) => {
            DataType::Utf8View
        }
        Sql::Varchar(length) | Sql::CharacterVarying(length) | Sql::CharVarying(length) => return text(*length, None),
        Sql::Char(length) | Sql::Character(length) => return text(*length, Some(1)),
        Sql::Bytea | Sql::Blob(None) | Sql::Varbinary(None) => DataType::BinaryView,
        Sql::Date => DataType::Date32,
        Sql::Time(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        Sql::Timestamp(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) | Sql::Datetime(_) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        Sql::Timestamp(_, ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        Sql::Uuid => DataType::FixedSizeBinary(16),
        Sql::Interval { fields: None, precision: None | Some(6) } => interval::INTERVAL,
        Sql::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _) | ast::ArrayElemTypeDef::AngleBracket(inner)) => {
            let ColumnType { data_type, chars_max } = element_type(inner)?;
            return Ok(ColumnType { data_type: DataType::new_list(data_type, true), chars_max });
        }
        Sql::Custom(name, _) => {
            return Err(Error::new(SqlState::UndefinedObject, format!("type {name} does not exist")));
        }
        other => return Err(Error::unsupported(format!("type {other}"))),
    };
    Ok(ColumnType { data_type, chars_max: None })
}

/// The type of an array's elements.
fn element_type(sql: &ast::DataType) -> Result<ColumnType> {
    match sql {
        ast::DataType::Array(_) => {
            Err(Error::unsupported("an array of arrays").with_hint("arrays have one dimension here"))
        }
        ast::DataType::Interval { .. } => Err(Error::unsupported("an array of intervals")),
        ast::DataType::JSON | ast::DataType::JSONB => {
            Err(Error::unsupported(format!("an array of {sql}")).with_hint("JSON has arrays of its own"))
        }
        other => column_type(other),
    }
}

/// The storable type that holds every value of an expression of type `data_type`, if there is one.
pub(crate) fn stored_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= 38 && (0..=38).contains(scale) =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let item = stored_type(item.data_type()).filter(strata_oltp::schema::is_key_type)?;
            DataType::new_list(item, true)
        }
        DataType::Interval(_) | DataType::Duration(_) => interval::INTERVAL,
        other if strata_oltp::schema::is_storable(other) => other.clone(),
        _ => return None,
    })
}

fn text(length: Option<ast::CharacterLength>, default: Option<u32>) -> Result<ColumnType> {
    let chars_max = match length {
        Some(ast::CharacterLength::IntegerLength { length, .. }) => match u32::try_from(length) {
            Ok(chars_max) if chars_max > 0 => Some(chars_max),
            _ => {
                let message = format!("a text length of {length} is outside 1 to {}", u32::MAX);
                return Err(Error::new(SqlState::InvalidParameter, message));
            }
        },
        Some(ast::CharacterLength::Max) => None,
        None => default,
    };
    Ok(ColumnType { data_type: DataType::Utf8View, chars_max })
}

fn decimal(info: ast::ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ast::ExactNumberInfo::None => (38, 10),
        ast::ExactNumberInfo::Precision(precision) => (precision, 0),
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let fits = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if fits => Ok(DataType::Decimal128(precision, scale)),
        _ => Err(Error::new(
            SqlState::InvalidParameter,
            format!("DECIMAL({precision},{scale}) cannot be: the precision is 1 to 38, the scale 0 to the precision"),
        )),
    }
}

/// Gives casts and constants the types of columns: microseconds, because DataFusion's nanoseconds end in 2262 and cannot be
/// compared with a TIME column; doubles for FLOAT; UUID, INTERVAL and JSON at all.
#[derive(Debug)]
pub(crate) struct ColumnTypes;

impl TypePlanner for ColumnTypes {
    fn plan_type_field(&self, sql: &ast::DataType) -> datafusion::common::Result<Option<FieldRef>> {
        use ast::DataType as Sql;
        let nullable = |data_type| Field::new("", data_type, true);
        let marked = |key: &str, value: String, data_type| {
            nullable(data_type).with_metadata(HashMap::from([(key.to_owned(), value)]))
        };
        let field = match sql {
            Sql::Decimal(ast::ExactNumberInfo::None)
            | Sql::Numeric(ast::ExactNumberInfo::None)
            | Sql::Dec(ast::ExactNumberInfo::None) => {
                marked(UNBOUNDED, String::new(), decimal(ast::ExactNumberInfo::None)?)
            }
            Sql::Interval { .. } => nullable(interval::INTERVAL),
            Sql::JSON | Sql::JSONB => json_field(nullable(DataType::Utf8View)),
            Sql::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _) | ast::ArrayElemTypeDef::AngleBracket(inner)) => {
                if !matches!(**inner, Sql::Interval { .. }) {
                    element_type(inner)?;
                }
                let Some(item) = self.plan_type_field(inner)? else { return Ok(None) };
                let list = nullable(DataType::new_list(item.data_type().clone(), true));
                // VARCHAR(n) and NUMERIC say more than their type.
                list.with_metadata(item.metadata().clone())
            }
            _ => match column_type(sql) {
                Ok(ColumnType { data_type, chars_max: None }) => nullable(data_type),
                Ok(ColumnType { data_type, chars_max: Some(chars) }) => marked(CHARS_MAX, chars.to_string(), data_type),
                Err(error) if error.state() == SqlState::InvalidParameter => return Err(error.into()),
                // DataFusion's own types, such as unsigned integers, or its own error.
                Err(_) => return Ok(None),
            },
        };
        Ok(Some(Arc::new(field)))
    }
}

/// The SQL name of an Arrow type, for messages.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("numeric({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".to_owned(),
        DataType::FixedSizeBinary(16) => "uuid".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::Null => "unknown".to_owned(),
        DataType::List(item) => format!("{}[]", sql_name(item.data_type())),
        other => other.to_string(),
    }
}
