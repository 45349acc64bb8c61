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
//!
//! Refused: unsigned integers, INTERVAL, JSON, arrays and everything else, with SQLSTATE 0A000.
//!
//! [`assign`] follows PostgreSQL's assignment casts: numbers convert among themselves with rounding and a range check,
//! everything may become text, and a text *literal* may become anything that it reads as; text from elsewhere may not.

mod assign;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;

use crate::error::{Error, Result, SqlState};

pub(crate) use assign::{Origin, assign, check_length};

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
        Sql::Custom(name, _) => {
            return Err(Error::new(SqlState::UndefinedObject, format!("type {name} does not exist")));
        }
        other => return Err(Error::unsupported(format!("type {other}"))),
    };
    Ok(ColumnType { data_type, chars_max: None })
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

/// Gives TIME and TIMESTAMP in casts and constants the resolution of columns. DataFusion's own choice of nanoseconds
/// cannot be compared with a TIME column, and would convert a TIMESTAMP column row by row.
#[derive(Debug)]
pub(crate) struct ColumnTypes;

impl TypePlanner for ColumnTypes {
    fn plan_type_field(&self, sql: &ast::DataType) -> datafusion::common::Result<Option<FieldRef>> {
        match sql {
            ast::DataType::Time(..) | ast::DataType::Timestamp(..) => {
                let ColumnType { data_type, .. } = column_type(sql)?;
                Ok(Some(Arc::new(Field::new("", data_type, true))))
            }
            _ => Ok(None),
        }
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
        other => other.to_string(),
    }
}
