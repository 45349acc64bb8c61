//! Defaults as PostgreSQL prints them: constants with their types, which clients read them by.

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
};

use super::types;
use crate::statement::{name_parts, parse_expression};

/// The default `text` of a column of the type `oid`; anything but constants and `nextval` as it was written.
pub(super) fn shown(text: &str, oid: i64) -> String {
    let expr = parse_expression(text);
    expr.ok().and_then(|expr| constant(&expr, oid)).unwrap_or_else(|| text.to_owned())
}

fn constant(expr: &Expr, oid: i64) -> Option<String> {
    match expr {
        Expr::Nested(inner) => constant(inner, oid),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(quoted(text, oid)),
            Value::Boolean(value) => Some(value.to_string()),
            Value::Null => Some(format!("NULL::{}", types::name(oid, None))),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            let Expr::Value(value) = expr.as_ref() else { return None };
            let Value::Number(digits, _) = &value.value else { return None };
            let ty = match digits.parse::<i64>() {
                Ok(number) if i32::try_from(number).is_ok() => 23,
                Ok(_) => 20,
                Err(_) => 1700,
            };
            Some(quoted(&format!("-{digits}"), ty))
        }
        Expr::Cast { expr, data_type: DataType::Text, .. } => match expr.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Some(quoted(text, 25)),
                _ => None,
            },
            _ => None,
        },
        Expr::Function(call) => {
            let name = name_parts(&call.name).ok()?.pop()?;
            if matches!(&call.args, FunctionArguments::None) {
                return Some(name.to_uppercase());
            }
            let FunctionArguments::List(list) = &call.args else { return None };
            match (name.as_str(), list.args.as_slice()) {
                ("nextval", [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))]) => match &value.value {
                    Value::SingleQuotedString(text) => Some(format!("nextval({})", quoted(text, 2205))),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    }
}

fn quoted(text: &str, oid: i64) -> String {
    format!("'{}'::{}", text.replace('\'', "''"), types::name(oid, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_have_their_types() {
        for (written, oid, expected) in [
            ("'x'", 1043, "'x'::character varying"),
            ("'it''s'", 25, "'it''s'::text"),
            ("-1", 20, "'-1'::integer"),
            ("-1.5", 1700, "'-1.5'::numeric"),
            ("7", 23, "7"),
            ("TRUE", 16, "true"),
            ("now()", 1184, "now()"),
            ("current_timestamp", 1184, "CURRENT_TIMESTAMP"),
            ("nextval('app.s')", 20, "nextval('app.s'::regclass)"),
            ("'{}'::text", 25, "'{}'::text"),
            ("a + 1", 23, "a + 1"),
        ] {
            assert_eq!(shown(written, oid), expected);
        }
    }
}
