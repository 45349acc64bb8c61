//! DataFusion, Arrow and parser errors → `Error`.
//!
//! DataFusion has few variants, so some kinds can only be told by their text; each such test is here, and the SQL tests
//! of bad input notice when a new version words them differently.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};

use super::{Error, SqlState, from_store};

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Error {
        from_datafusion(&error)
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Error {
        from_arrow(&error)
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

fn from_datafusion(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::External(inner) => from_any(inner.as_ref()),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(inner),
        DataFusionError::Shared(inner) => from_datafusion(inner),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => from_datafusion(first),
            None => Error::internal("an empty collection of errors"),
        },
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::SQL(inner, _) => Error::new(SqlState::Syntax, parser_message(&inner.to_string())),
        DataFusionError::NotImplemented(text) => Error::new(SqlState::FeatureNotSupported, first_line(text)),
        DataFusionError::Plan(text) => from_plan_text(text),
        DataFusionError::Configuration(text) => Error::new(SqlState::InvalidParameter, first_line(text)),
        DataFusionError::Execution(text) => from_execution_text(text),
        DataFusionError::ResourcesExhausted(text) => Error::new(SqlState::OutOfMemory, first_line(text))
            .with_hint("raise the memory budget, or let fewer queries run at once"),
        DataFusionError::IoError(inner) => from_io(inner),
        DataFusionError::ParquetError(inner) => match inner.source() {
            Some(source) => from_any(source),
            None => Error::new(SqlState::DataCorrupted, inner.to_string()),
        },
        DataFusionError::ExecutionJoin(inner) => Error::internal(format!("a query task ended early: {inner}")),
        DataFusionError::Internal(text) => Error::internal(first_line(text)),
        other => Error::internal(first_line(&other.to_string())),
    }
}

/// Looks through wrappers for an error that we know.
fn from_any(error: &(dyn StdError + 'static)) -> Error {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return ours.clone();
        }
        if let Some(store) = error.downcast_ref::<strata_oltp::Error>() {
            return from_store(store);
        }
        if let Some(inner) = error.downcast_ref::<DataFusionError>() {
            return from_datafusion(inner);
        }
        if let Some(inner) = error.downcast_ref::<ArrowError>() {
            return from_arrow(inner);
        }
        if let Some(inner) = error.downcast_ref::<std::io::Error>() {
            return from_io(inner);
        }
        next = error.source();
    }
    Error::internal(error.to_string())
}

fn from_io(error: &std::io::Error) -> Error {
    if let Some(inner) = error.get_ref() {
        return from_any(inner);
    }
    let state = match error.kind() {
        std::io::ErrorKind::StorageFull => SqlState::DiskFull,
        _ => SqlState::IoError,
    };
    Error::new(state, error.to_string())
}

fn from_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => from_any(inner.as_ref()),
        ArrowError::DivideByZero => division_by_zero(),
        ArrowError::ArithmeticOverflow(text) => Error::new(SqlState::NumericOutOfRange, first_line(text)),
        ArrowError::CastError(text) | ArrowError::ParseError(text) | ArrowError::InvalidArgumentError(text) => {
            from_value_text(text)
        }
        ArrowError::ComputeError(text) => from_execution_text(text),
        ArrowError::MemoryError(text) => Error::new(SqlState::OutOfMemory, first_line(text)),
        ArrowError::NotYetImplemented(text) => Error::new(SqlState::FeatureNotSupported, first_line(text)),
        ArrowError::IoError(_, inner) => from_io(inner),
        ArrowError::ParquetError(text) => Error::new(SqlState::DataCorrupted, first_line(text)),
        other => Error::new(SqlState::DataException, first_line(&other.to_string())),
    }
}

fn division_by_zero() -> Error {
    Error::new(SqlState::DivisionByZero, "division by zero")
        .with_hint("guard the divisor, for example with NULLIF(divisor, 0)")
}

/// A subquery as a value that gave more than one.
pub(crate) fn several_rows() -> Error {
    let message = "more than one row returned by a subquery used as an expression";
    Error::new(SqlState::CardinalityViolation, message)
        .with_hint("aggregate it, or add LIMIT 1 if any of its rows will do")
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let place = field.relation.as_ref().map(ToString::to_string).unwrap_or_default();
            let known = valid_fields.iter().map(|column| column.name.as_str());
            Error::undefined_column(&field.name, &place, known)
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(SqlState::AmbiguousColumn, format!("column {} could mean several columns", field.name))
                .with_hint("write the table's name before it")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(SqlState::DuplicateColumn, format!("column {name} appears twice"))
                .with_hint("give one of them another name with AS")
        }
    }
}

/// Our own refusal of argument types, which DataFusion wraps in words of its own.
fn refused_arguments(text: &str) -> Option<Error> {
    let (_, ours) = text.split_once("user-defined coercion failed with: External error: ")?;
    let message = ours.split(". ").next().unwrap_or(ours).split(" No function matches").next().unwrap_or(ours);
    Some(Error::new(SqlState::UndefinedFunction, message).with_hint("convert the argument with CAST"))
}

fn from_plan_text(text: &str) -> Error {
    if let Some(error) = refused_arguments(text) {
        return error;
    }
    let text = first_line(text);
    let lower = text.to_lowercase();
    let state = if lower.contains("must appear in the group by clause") {
        SqlState::GroupingError
    } else if ["invalid function", "failed to coerce arguments", "unary operator '"].iter().any(|t| lower.contains(t)) {
        // "No function matches the given name and argument types" comes with the latter.
        SqlState::UndefinedFunction
    } else if is_type_mismatch(&lower) {
        SqlState::DatatypeMismatch
    } else if lower.contains("not found") && lower.contains("table") {
        SqlState::UndefinedTable
    } else if is_unsupported(&lower) {
        SqlState::FeatureNotSupported
    } else if lower.contains("divide by zero") {
        return division_by_zero();
    } else {
        SqlState::InvalidStatement
    };
    Error::new(state, text)
}

fn is_unsupported(lower: &str) -> bool {
    // The last two are of subqueries, in places and with conditions that DataFusion cannot plan.
    ["unsupported", "not supported", "not implemented", "subquery can only be used in", "only supports single"]
        .iter()
        .any(|phrase| lower.contains(phrase))
}

fn is_type_mismatch(lower: &str) -> bool {
    [
        "coerc",
        "common argument type",
        "common type",
        "inconsistent data type",
        "types don't match",
        "no valid cast",
        "incompatible type",
        "predicate must be of boolean type",
        "non-boolean",
        "cannot create filter",
        "unsupported cast",
    ]
    .iter()
    .any(|phrase| lower.contains(phrase))
}

fn from_execution_text(text: &str) -> Error {
    if let Some(error) = refused_arguments(text) {
        return error;
    }
    let lower = text.to_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        division_by_zero()
    } else if lower.contains("overflow") {
        Error::new(SqlState::NumericOutOfRange, first_line(text))
    } else if is_type_mismatch(&lower) {
        Error::new(SqlState::DatatypeMismatch, first_line(text))
    } else if lower.contains("scalar subquery returned more than one row") {
        several_rows()
    } else if lower.contains("square root of a negative") {
        Error::new(SqlState::InvalidPower, "cannot take square root of a negative number")
    } else if lower.contains("negative count not allowed") || lower.contains("negative substring length") {
        Error::new(SqlState::InvalidSubstring, "negative substring length not allowed")
    } else {
        from_value_text(text)
    }
}

/// A value that does not read as, or does not fit, its type.
fn from_value_text(text: &str) -> Error {
    let lower = text.to_lowercase();
    let state = if lower.contains("divide by zero") {
        return division_by_zero();
    } else if lower.contains("invalid input syntax for type interval") {
        SqlState::InvalidDatetime
    } else if lower.contains("too large") || lower.contains("too small") || lower.contains("overflow") {
        SqlState::NumericOutOfRange
    } else if lower.contains("can't cast value") {
        // Arrow's words for a number outside the target's range.
        SqlState::NumericOutOfRange
    } else if lower.contains("parsing") || lower.contains("cannot cast string") || lower.contains("parse") {
        SqlState::InvalidText
    } else if lower.contains("not supported") {
        SqlState::DatatypeMismatch
    } else {
        SqlState::DataException
    };
    Error::new(state, first_line(text))
}

/// DataFusion appends backtraces and advice after the first line.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// `sqlparser` prefixes its messages with its own name.
pub(crate) fn parser_message(text: &str) -> String {
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text);
    format!("syntax error: {text}")
}
