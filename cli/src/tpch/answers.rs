//! Answers: what a query should return, what it did return, and whether the two agree.
//!
//! An [`Answer`] is a table of [`Value`]s with a comparison per column ([`Kind`]). It comes from a CSV text
//! (`data/tpch/answers/README.md` has the format) or from the batches of a query, and goes out as the same CSV.
//!
//! Integers, decimals (by value), dates and text are compared exactly. Floats agree within 1e-9 relative; where the
//! engine's type for such a column is a decimal, its exact value must lie within one unit of its last digit. Rows are
//! compared as a multiset, and their order by the keys of ORDER BY: together these fix the order wherever it is total.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use anyhow::{Context, Result, bail, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int64Type};

use super::queries::QueryId;

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers, exactly.
    Int,
    /// Decimals, exactly, by value.
    Decimal,
    /// Averages and quotients.
    Float,
    /// Calendar dates, exactly.
    Date,
    /// Text, exactly.
    Text,
}

/// One field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A whole number.
    Int(i64),
    /// `unscaled / 10^scale`, with no needless zero at the end.
    Decimal(i128, i8),
    /// A double, with the size of one unit of the last digit if it came from a decimal (else 0).
    Float(f64, f64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Text.
    Text(String),
}

/// Rows with named, typed columns.
#[derive(Clone, Debug)]
pub struct Answer {
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<Value>>,
}

impl Answer {
    /// Number of rows.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Parses the CSV form.
    ///
    /// # Errors
    /// Names the line that does not follow the format.
    pub fn parse(csv: &str) -> Result<Answer> {
        let mut lines = csv.lines();
        let columns = lines.next().context("an answer without a header")?.split(',').map(parse_column);
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::new();
        for (index, line) in lines.enumerate() {
            let row = parse_row(line, &columns).with_context(|| format!("line {} of an answer", index + 2))?;
            rows.push(row);
        }
        Ok(Answer { columns, rows })
    }

    /// The rows of `batches`, with each column as `kinds` says, or by its own type where `kinds` is `None`.
    ///
    /// # Errors
    /// If a column cannot be read as its kind, for example text where a number is expected.
    pub fn from_batches(
        schema: &arrow::datatypes::Schema,
        batches: &[RecordBatch],
        like: Option<&Answer>,
    ) -> Result<Answer> {
        let count = schema.fields().len();
        if let Some(like) = like {
            ensure!(like.columns.len() == count, "{count} columns, {} expected", like.columns.len());
        }
        let mut columns = Vec::with_capacity(count);
        for (index, field) in schema.fields().iter().enumerate() {
            let kind = match like {
                Some(like) => like.columns[index].1,
                None => kind_of(field.data_type())?,
            };
            columns.push((field.name().clone(), kind));
        }
        let mut rows = Vec::new();
        for batch in batches {
            let mut fields = Vec::with_capacity(count);
            for (array, (name, kind)) in batch.columns().iter().zip(&columns) {
                fields.push(read_column(array, *kind).with_context(|| format!("column {name}"))?);
            }
            rows.extend((0..batch.num_rows()).map(|row| fields.iter().map(|field| field[row].clone()).collect()));
        }
        Ok(Answer { columns, rows })
    }

    /// The CSV form.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let header: Vec<_> = self.columns.iter().map(|(name, kind)| format!("{name}:{kind}")).collect();
        let mut csv = header.join(",") + "\n";
        for row in &self.rows {
            let fields: Vec<_> = row.iter().map(ToString::to_string).collect();
            csv.push_str(&fields.join(","));
            csv.push('\n');
        }
        csv
    }

    /// Whether `actual` is this answer to `query`.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn check(&self, actual: &Answer, query: QueryId) -> Result<()> {
        check_order(&actual.rows, query.order_by())?;
        ensure!(actual.rows.len() == self.rows.len(), "{} rows, {} expected", actual.rows.len(), self.rows.len());
        let (expected, actual) = (sorted(&self.rows), sorted(&actual.rows));
        for (expected, actual) in expected.into_iter().zip(actual) {
            let same = expected.iter().zip(actual).all(|(expected, actual)| agree(expected, actual));
            ensure!(same, "row ({}), expected ({})", row_text(actual), row_text(expected));
        }
        Ok(())
    }
}

/// Rows ordered by their exact columns, so that floats which differ in the last bit cannot change the pairing.
fn sorted(rows: &[Vec<Value>]) -> Vec<&Vec<Value>> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|left, right| {
        let exact = left.iter().zip(*right).filter(|(value, _)| !matches!(value, Value::Float(..)));
        let float = left.iter().zip(*right).filter(|(value, _)| matches!(value, Value::Float(..)));
        exact
            .chain(float)
            .map(|(left, right)| compare(left, right))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    });
    rows
}

fn check_order(rows: &[Vec<Value>], order_by: &[(usize, bool)]) -> Result<()> {
    for pair in rows.windows(2) {
        let mut order = Ordering::Equal;
        for &(column, descending) in order_by {
            let by_column = compare(&pair[0][column], &pair[1][column]);
            order = order.then(if descending { by_column.reverse() } else { by_column });
        }
        let (first, second) = (&pair[0], &pair[1]);
        ensure!(order.is_le(), "row ({}) stands before ({}), against ORDER BY", row_text(first), row_text(second));
    }
    Ok(())
}

/// The order of SQL within one type; NULL last.
fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Decimal(left, left_scale), Value::Decimal(right, right_scale)) => {
            let scale = (*left_scale).max(*right_scale);
            rescale(*left, *left_scale, scale).cmp(&rescale(*right, *right_scale, scale))
        }
        (Value::Float(left, _), Value::Float(right, _)) => left.total_cmp(right),
        (Value::Date(left), Value::Date(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) => left.cmp(right),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        // Both sides are read by one list of kinds, so this is only reached on NULLs of the other kinds.
        _ => Ordering::Equal,
    }
}

fn agree(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Float(expected, expected_unit), Value::Float(actual, actual_unit)) => {
            let tolerance = (expected.abs() * 1e-9).max(*expected_unit).max(*actual_unit);
            (expected - actual).abs() <= tolerance
        }
        _ => expected == actual,
    }
}

/// `value` with `to` digits behind the point. TPC-H values have under 20 digits, so this cannot overflow; a value that
/// would is pinned at the end of the range, where it compares unequal to every real one.
fn rescale(value: i128, from: i8, to: i8) -> i128 {
    10_i128.checked_pow(u32::from((to - from).unsigned_abs())).map_or(i128::MAX, |factor| value.saturating_mul(factor))
}

fn normal_decimal(mut unscaled: i128, mut scale: i8) -> Value {
    while scale > 0 && unscaled % 10 == 0 {
        unscaled /= 10;
        scale -= 1;
    }
    Value::Decimal(unscaled, scale)
}

fn kind_of(data_type: &DataType) -> Result<Kind> {
    Ok(match data_type {
        data_type if data_type.is_integer() => Kind::Int,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Kind::Decimal
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        other => bail!("no comparison for type {other}"),
    })
}

fn read_column(array: &dyn Array, kind: Kind) -> Result<Vec<Value>> {
    let own = kind_of(array.data_type())?;
    let fits =
        own == kind || matches!((own, kind), (Kind::Decimal | Kind::Int, Kind::Float) | (Kind::Int, Kind::Decimal));
    ensure!(fits, "type {} where {kind} is expected", array.data_type());
    // A whole number or a decimal in a float column keeps what it knows about its own precision.
    let unit = match (array.data_type(), kind) {
        (DataType::Decimal128(_, scale), Kind::Float) => 10_f64.powi(-i32::from(*scale)),
        _ => 0.0,
    };
    let scale = match array.data_type() {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale,
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => *scale,
        _ => 0,
    };
    let target = match kind {
        Kind::Int => DataType::Int64,
        Kind::Decimal => DataType::Decimal128(38, scale),
        Kind::Float => DataType::Float64,
        Kind::Date => DataType::Date32,
        Kind::Text => DataType::Utf8View,
    };
    let array = cast(array, &target)?;
    let value = |row: usize| match kind {
        Kind::Int => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        Kind::Decimal => normal_decimal(array.as_primitive::<Decimal128Type>().value(row), scale),
        Kind::Float => Value::Float(array.as_primitive::<Float64Type>().value(row), unit),
        Kind::Date => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        Kind::Text => Value::Text(array.as_string_view().value(row).to_string()),
    };
    Ok((0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { value(row) }).collect())
}

fn parse_column(column: &str) -> Result<(String, Kind)> {
    let (name, kind) = column.rsplit_once(':').with_context(|| format!("column '{column}' has no kind"))?;
    let kind = match kind {
        "int" => Kind::Int,
        "decimal" => Kind::Decimal,
        "float" => Kind::Float,
        "date" => Kind::Date,
        "text" => Kind::Text,
        other => bail!("unknown kind '{other}'"),
    };
    Ok((name.to_string(), kind))
}

fn parse_row(line: &str, columns: &[(String, Kind)]) -> Result<Vec<Value>> {
    let mut rest = line;
    let mut row = Vec::with_capacity(columns.len());
    for (index, (_, kind)) in columns.iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(',').context("too few fields")?;
        }
        let (value, after) = parse_field(rest, *kind)?;
        row.push(value);
        rest = after;
    }
    ensure!(rest.is_empty(), "too many fields");
    Ok(row)
}

/// One field and what follows it.
fn parse_field(text: &str, kind: Kind) -> Result<(Value, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut rest = quoted;
        loop {
            let (before, after) = rest.split_once('"').context("quote without an end")?;
            value.push_str(before);
            let Some(again) = after.strip_prefix('"') else {
                return Ok((Value::Text(value), after));
            };
            value.push('"');
            rest = again;
        }
    }
    let (field, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    if field.is_empty() {
        return Ok((Value::Null, rest));
    }
    let value = match kind {
        Kind::Int => Value::Int(field.parse()?),
        Kind::Float => Value::Float(field.parse()?, 0.0),
        Kind::Date => Value::Date(parse_date(field)?),
        Kind::Decimal => {
            let (whole, digits) = field.split_once('.').unwrap_or((field, ""));
            normal_decimal(format!("{whole}{digits}").parse()?, i8::try_from(digits.len())?)
        }
        Kind::Text => bail!("text must be quoted: {field}"),
    };
    Ok((value, rest))
}

fn parse_date(text: &str) -> Result<i32> {
    let array = arrow::array::StringArray::from(vec![text]);
    let array = cast(&array, &DataType::Date32).with_context(|| format!("'{text}' is not a date"))?;
    ensure!(array.is_valid(0), "'{text}' is not a date");
    Ok(array.as_primitive::<Date32Type>().value(0))
}

fn row_text(row: &[Value]) -> String {
    row.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Int => "int",
            Kind::Decimal => "decimal",
            Kind::Float => "float",
            Kind::Date => "date",
            Kind::Text => "text",
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => Ok(()),
            Value::Int(value) => write!(f, "{value}"),
            Value::Decimal(unscaled, scale) => {
                let digits = usize::try_from(*scale).unwrap_or(0);
                let text = format!("{:0>width$}", unscaled.unsigned_abs(), width = digits + 1);
                let (whole, fraction) = text.split_at(text.len() - digits);
                let (sign, point) = (if *unscaled < 0 { "-" } else { "" }, if digits > 0 { "." } else { "" });
                write!(f, "{sign}{whole}{point}{fraction}")
            }
            Value::Float(value, _) => write!(f, "{value}"),
            Value::Date(days) => match Date32Type::to_naive_date_opt(*days) {
                Some(date) => write!(f, "{date}"),
                None => write!(f, "day {days}"),
            },
            Value::Text(text) => {
                f.write_char('"')?;
                f.write_str(&text.replace('"', "\"\""))?;
                f.write_char('"')
            }
        }
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
