//! SET: `durability` of the session's commits, `timezone`, which is UTC, and DataFusion's own options under their names.

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use strata_oltp::commit::Durability;

use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, name_parts};

/// Applies a SET statement to the session.
///
/// # Errors
/// 42704 for an unknown setting, 22023 for a value it cannot have.
pub(crate) fn apply(statement: &ast::Statement, durability: &mut Durability, state: &mut SessionState) -> Result<()> {
    let ast::Statement::Set(ast::Set::SingleAssignment { variable, values, .. }) = statement else {
        return Err(Error::unsupported(format!("{statement}")));
    };
    let name = name_parts(variable)?.join(".");
    let [value] = values.as_slice() else {
        return Err(Error::new(SqlState::InvalidParameter, format!("setting {name} takes one value")));
    };
    let value = match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => digits.clone(),
            ast::Value::Boolean(value) => value.to_string(),
            other => other.clone().into_string().unwrap_or_default(),
        },
        ast::Expr::Identifier(ident) => identifier(ident),
        other => other.to_string(),
    };
    match name.as_str() {
        "durability" | "strata.durability" => {
            *durability = match value.to_lowercase().as_str() {
                "durable" => Durability::Durable,
                "buffered" => Durability::Buffered,
                _ => {
                    return Err(Error::new(SqlState::InvalidParameter, format!("durability '{value}' does not exist"))
                        .with_hint("durability is 'durable' (survives power loss) or 'buffered'"));
                }
            };
            Ok(())
        }
        // Values are written with any zone and shown in this one.
        "timezone" => match value.to_ascii_lowercase().as_str() {
            "utc" | "gmt" | "default" | "etc/utc" => Ok(()),
            _ => Err(Error::unsupported(format!("time zone {value}"))
                .with_hint("the time zone of sessions is UTC; a TIMESTAMPTZ may be written with any zone")),
        },
        // These decide what names and constants mean, for every statement of ours too.
        "datafusion.catalog.default_catalog"
        | "datafusion.catalog.default_schema"
        | "datafusion.sql_parser.dialect" => {
            Err(Error::new(SqlState::InvalidParameter, format!("setting {name} cannot be changed")))
        }
        _ if name.starts_with("datafusion.") => Ok(state.config_mut().options_mut().set(&name, &value)?),
        _ => Err(Error::new(SqlState::UndefinedObject, format!("setting {name} does not exist"))
            .with_hint("the settings are durability, timezone and those of DataFusion, datafusion.…")),
    }
}
