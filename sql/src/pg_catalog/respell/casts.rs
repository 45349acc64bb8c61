//! Casts to types that queries do not have: `x::regclass` and its like as functions, `x::oid` as the type that it is here.

use datafusion::sql::sqlparser::ast::{self, Expr};

use super::super::PG_SCHEMA;
use super::{call, text};
use crate::statement::{name_parts, parse_type};

/// Types whose values are numbers of objects, shown by name.
const REGISTERED: [&str; 5] = ["regclass", "regnamespace", "regproc", "regrole", "regtype"];

/// The function that gives a number for a name or a number: its first argument says of what kind.
pub(super) const REG_OID: &str = "reg_oid_";

/// A cast as a call of a function, if it is one; otherwise with a type that queries know.
pub(super) fn respell_cast(inner: &Expr, data_type: &mut ast::DataType) -> Option<Expr> {
    // `'t'::regclass::text` is a name again.
    if let (Some(name), true) = (registered_text(inner), *data_type == ast::DataType::Text) {
        return Some(call(&name, vec![inner.clone()]));
    }
    if *data_type == ast::DataType::Regclass {
        return Some(call("regclass", vec![inner.clone()]));
    }
    if let Some(plain) = plain_array(data_type) {
        *data_type = plain;
        return None;
    }
    let ast::DataType::Custom(name, modifiers) = data_type else { return None };
    let parts = name_parts(name).ok()?;
    let name = match parts.as_slice() {
        [name] => name.as_str(),
        [schema, name] if schema == PG_SCHEMA => name.as_str(),
        _ => return None,
    };
    if REGISTERED.contains(&name) {
        return Some(call(name, vec![inner.clone()]));
    }
    if let Some(plain) = plain_type(name) {
        // A name becomes a number by itself only where it is a constant.
        if let (Some((kind, named)), ast::DataType::BigInt(None)) = (registered(inner), &plain) {
            return Some(call(REG_OID, vec![text(&kind), named]));
        }
        *data_type = plain;
    } else if parts.len() == 2 && modifiers.is_empty() {
        *data_type = parse_type(name).ok()?;
    }
    None
}

/// A type of PostgreSQL's that queries see as another.
fn plain_type(name: &str) -> Option<ast::DataType> {
    let array = |element| ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(element), None));
    Some(match name {
        "oid" | "xid" | "cid" => ast::DataType::BigInt(None),
        "name" | "char" => ast::DataType::Text,
        "oidvector" => array(ast::DataType::BigInt(None)),
        "int2vector" => array(ast::DataType::SmallInt(None)),
        _ => return None,
    })
}

/// An array of such a type, or of one that is named with its schema.
fn plain_array(data_type: &ast::DataType) -> Option<ast::DataType> {
    let ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, length)) = data_type else { return None };
    let ast::DataType::Custom(name, _) = element.as_ref() else { return None };
    let name = name_parts(name).ok()?.pop()?;
    let plain = match plain_type(&name) {
        Some(plain) => plain,
        None if REGISTERED.contains(&name.as_str()) => ast::DataType::BigInt(None),
        None => parse_type(&name).ok()?,
    };
    Some(ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(plain), *length)))
}

/// The kind and the inside of `x::regclass` and its like, where x is no constant.
pub(super) fn registered(expr: &Expr) -> Option<(String, Expr)> {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return None };
    let name = match data_type {
        ast::DataType::Regclass => "regclass".to_owned(),
        ast::DataType::Custom(name, _) => name_parts(name).ok()?.pop()?,
        _ => return None,
    };
    let is_constant = matches!(inner.as_ref(), Expr::Value(_));
    (REGISTERED.contains(&name.as_str()) && !is_constant).then(|| (name, inner.as_ref().clone()))
}

/// The type, if `expr` is a text constant as the number of an object.
fn registered_text(expr: &Expr) -> Option<String> {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return None };
    let is_text =
        matches!(inner.as_ref(), Expr::Value(value) if matches!(value.value, ast::Value::SingleQuotedString(_)));
    let name = match data_type {
        ast::DataType::Regclass => "regclass".to_owned(),
        ast::DataType::Custom(name, _) => name_parts(name).ok()?.pop()?,
        _ => return None,
    };
    (is_text && REGISTERED.contains(&name.as_str())).then_some(name)
}
