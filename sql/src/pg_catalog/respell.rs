//! The dialect in which PostgreSQL's clients ask for the catalog → what the planner knows.
//!
//! | written | planned as |
//! |---|---|
//! | `FROM pg_class` | `FROM pg_catalog.pg_class` |
//! | `FROM information_schema.tables` | a table of ours with its columns as in PostgreSQL |
//! | `pg_catalog.format_type(…)` | `format_type(…)` |
//! | `x::regclass`, `::regtype`, … | a function: a number for a name, a name for a number |
//! | `::oid`, `::name`, `::pg_catalog.text`, … | BIGINT, TEXT, the type itself |
//! | `OPERATOR(pg_catalog.~)`, `COLLATE pg_catalog.default` | `~`, nothing |
//! | a SELECT from a table that is empty in every database | no rows, its expressions forgotten |
//! | the default of a column, by a subquery over `pg_attrdef` | a function |
//!
//! The last two because the planner cannot run what stands in them: subscripts of vectors, correlated subqueries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, SelectItem,
    SetExpr, TableFactor,
};

use super::{PG_SCHEMA, empty, functions, has_table, information};
use crate::catalog::INFORMATION_SCHEMA;
use crate::statement::{identifier, name_parts, parse_type};

/// Types whose values are numbers of objects, shown by name.
const REGISTERED: [&str; 5] = ["regclass", "regnamespace", "regproc", "regrole", "regtype"];

/// Respells a statement; whether it needs the functions of the catalog.
pub(crate) fn respell(statement: &mut ast::Statement) -> bool {
    let mut respeller = Respeller { needs_functions: false };
    let _ = ast::VisitMut::visit(statement, &mut respeller);
    respeller.needs_functions
}

struct Respeller {
    needs_functions: bool,
}

impl ast::VisitorMut for Respeller {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut()
            && is_from_nothing(select)
        {
            select.from.clear();
            select.projection = nothings(&select.projection);
            select.selection = Some(Expr::Value(ast::Value::Boolean(false).into()));
            query.order_by = None;
        } else {
            empty_branches(query.body.as_mut());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return ControlFlow::Continue(()) };
        let quoted = |part: &str| ast::Ident::with_quote('"', part);
        match name_parts(name).as_deref() {
            Ok([table]) if has_table(table) => {
                *name = ObjectName::from(vec![quoted(PG_SCHEMA), quoted(table)]);
            }
            Ok([schema, table]) if schema == INFORMATION_SCHEMA && information::TABLES.contains(&table.as_str()) => {
                let hidden = format!("{schema}.{table}");
                let called = ast::TableAlias { explicit: true, name: quoted(table), columns: Vec::new(), at: None };
                *name = ObjectName::from(vec![quoted(PG_SCHEMA), quoted(&hidden)]);
                alias.get_or_insert(called);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(plain) = default_of_column(expr) {
            *expr = plain;
        }
        respell_expr(expr);
        if let Expr::Function(function) = expr
            && let Ok([name]) = name_parts(&function.name).as_deref()
        {
            self.needs_functions |= functions::is_known(name);
        }
        ControlFlow::Continue(())
    }
}

/// Whether the SELECT has no rows because a table of its FROM never has any.
fn is_from_nothing(select: &ast::Select) -> bool {
    let is_empty = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: None, .. } => match name_parts(name).as_deref() {
            Ok([table]) => empty::is_empty(table),
            Ok([schema, table]) => schema == PG_SCHEMA && empty::is_empty(table),
            _ => false,
        },
        _ => false,
    };
    // Without rows an aggregate still gives one.
    let may_aggregate = select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            matches!(expr, Expr::Function(function) if !is_of_catalog(function))
        }
        _ => true,
    });
    let keeps_left = |join: &ast::Join| {
        use ast::JoinOperator as Op;
        matches!(join.join_operator, Op::Join(_) | Op::Inner(_) | Op::Left(_) | Op::LeftOuter(_))
    };
    !may_aggregate
        && select.having.is_none()
        && select.from.iter().any(|from| is_empty(&from.relation) && from.joins.iter().all(keeps_left))
}

fn is_of_catalog(function: &Function) -> bool {
    name_parts(&function.name).is_ok_and(|parts| parts.last().is_some_and(|name| functions::is_known(name)))
}

/// Branches of a set operation that have no rows.
fn empty_branches(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            empty_branches(left);
            empty_branches(right);
        }
        SetExpr::Select(select) if is_from_nothing(select) => {
            select.from.clear();
            select.projection = nothings(&select.projection);
            select.selection = Some(Expr::Value(ast::Value::Boolean(false).into()));
        }
        _ => {}
    }
}

/// NULLs in place of expressions, under the names that PostgreSQL gives them; one name is given once only.
fn nothings(projection: &[SelectItem]) -> Vec<SelectItem> {
    let mut names: Vec<String> = Vec::new();
    for (at, item) in projection.iter().enumerate() {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(identifier(alias)),
            SelectItem::UnnamedExpr(expr) => name_of(expr),
            _ => None,
        };
        names.push(name.filter(|name| !names.contains(name)).unwrap_or_else(|| format!("column{}", at + 1)));
    }
    let item = |name: String| {
        let null = Box::new(Expr::Value(ast::Value::Null.into()));
        let data_type = ast::DataType::Text;
        let expr = Expr::Cast { kind: ast::CastKind::Cast, expr: null, data_type, array: false, format: None };
        SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', name) }
    };
    names.into_iter().map(item).collect()
}

fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(identifier(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(identifier),
        Expr::Function(function) => name_parts(&function.name).ok()?.pop(),
        Expr::Cast { expr, .. } => name_of(expr),
        _ => None,
    }
}

fn respell_expr(expr: &mut Expr) {
    match expr {
        Expr::Function(function) => without_schema(&mut function.name),
        Expr::BinaryOp { op, .. } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                && parts.len() == 2
                && parts[0].eq_ignore_ascii_case(PG_SCHEMA)
                && let Some(plain) = operator(&parts[1])
            {
                *op = plain;
            }
        }
        Expr::Collate { expr: inner, collation } => {
            let name = name_parts(collation).ok().and_then(|mut parts| parts.pop());
            if matches!(name.as_deref(), Some("default" | "C" | "c")) {
                let inner = std::mem::replace(inner.as_mut(), Expr::Value(ast::Value::Null.into()));
                *expr = inner;
                respell_expr(expr);
            }
        }
        Expr::Cast { expr: inner, data_type, .. } => {
            // `'t'::regclass::text` is a name again.
            if let (Some(name), true) = (registered_text(inner), *data_type == ast::DataType::Text) {
                let inner = std::mem::replace(inner.as_mut(), Expr::Value(ast::Value::Null.into()));
                *expr = call(&name, vec![inner]);
                return;
            }
            if *data_type == ast::DataType::Regclass {
                let inner = std::mem::replace(inner.as_mut(), Expr::Value(ast::Value::Null.into()));
                *expr = call("regclass", vec![inner]);
                return;
            }
            let ast::DataType::Custom(name, modifiers) = data_type else { return };
            let Ok(parts) = name_parts(name) else { return };
            let name = match parts.as_slice() {
                [name] => name.as_str(),
                [schema, name] if schema == PG_SCHEMA => name.as_str(),
                _ => return,
            };
            match name {
                known if REGISTERED.contains(&known) => {
                    let inner = std::mem::replace(inner.as_mut(), Expr::Value(ast::Value::Null.into()));
                    *expr = call(known, vec![inner]);
                }
                "oid" | "xid" | "cid" => *data_type = ast::DataType::BigInt(None),
                "name" | "char" => *data_type = ast::DataType::Text,
                builtin if parts.len() == 2 && modifiers.is_empty() => {
                    if let Ok(plain) = parse_type(builtin) {
                        *data_type = plain;
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
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

fn without_schema(name: &mut ObjectName) {
    if let Ok(parts) = name_parts(name)
        && let [schema, _] = parts.as_slice()
        && schema == PG_SCHEMA
    {
        name.0.remove(0);
    }
}

fn operator(text: &str) -> Option<BinaryOperator> {
    Some(match text {
        "~" => BinaryOperator::PGRegexMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// A call of one of our functions.
fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let unnamed = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let list = ast::FunctionArgumentList {
        duplicate_treatment: None,
        args: arguments.into_iter().map(unnamed).collect(),
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `(SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = x AND d.adnum = y …)` as a function of x
/// and y, if that is what `expr` is.
fn default_of_column(expr: &Expr) -> Option<Expr> {
    let Expr::Subquery(query) = expr else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, .. } = &from.relation else { return None };
    if !from.joins.is_empty() || name_parts(name).ok()?.last()? != "pg_attrdef" {
        return None;
    }
    let [
        SelectItem::UnnamedExpr(Expr::Function(shown)) | SelectItem::ExprWithAlias { expr: Expr::Function(shown), .. },
    ] = select.projection.as_slice()
    else {
        return None;
    };
    if name_parts(&shown.name).ok()?.last()? != "pg_get_expr" {
        return None;
    }
    let (mut relation, mut number, mut conditions) = (None, None, Vec::new());
    conjuncts(select.selection.as_ref()?, &mut conditions);
    for condition in conditions {
        match condition {
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if name_of(left).as_deref() == Some("adrelid") => {
                relation = Some(right.as_ref().clone());
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if name_of(left).as_deref() == Some("adnum") => {
                number = Some(right.as_ref().clone());
            }
            // A column without a default has none to show.
            other if name_of(other).as_deref() == Some("atthasdef") => {}
            _ => return None,
        }
    }
    Some(call("pg_column_default_", vec![relation?, number?]))
}

fn conjuncts<'e>(expr: &'e Expr, found: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, found);
            conjuncts(right, found);
        }
        Expr::Nested(inner) => conjuncts(inner, found),
        other => found.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::parse_own;

    fn respelled(text: &str) -> String {
        let mut statement = parse_own(text).unwrap();
        respell(&mut statement);
        statement.to_string()
    }

    #[test]
    fn what_clients_write_becomes_what_is_planned() {
        for (written, planned) in [
            (
                "SELECT pg_catalog.format_type(1, 2) FROM pg_class",
                "SELECT format_type(1, 2) FROM \"pg_catalog\".\"pg_class\"",
            ),
            ("SELECT 't'::pg_catalog.regclass::oid", "SELECT regclass('t')::BIGINT"),
            ("SELECT 't'::regclass::text", "SELECT regclass(regclass('t'))"),
            ("SELECT a OPERATOR(pg_catalog.~) 'x' COLLATE pg_catalog.default", "SELECT a ~ 'x'"),
            (
                "SELECT tgname, 1 AS one FROM pg_catalog.pg_trigger t ORDER BY x",
                "SELECT CAST(NULL AS TEXT) AS \"tgname\", CAST(NULL AS TEXT) AS \"one\" WHERE false",
            ),
            ("SELECT count(*) FROM pg_trigger", "SELECT count(*) FROM \"pg_catalog\".\"pg_trigger\""),
            (
                "SELECT c.x FROM pg_class c LEFT JOIN pg_trigger t ON true",
                "SELECT c.x FROM \"pg_catalog\".\"pg_class\" c LEFT JOIN \"pg_catalog\".\"pg_trigger\" t ON true",
            ),
        ] {
            assert_eq!(respelled(written), planned);
        }
    }
}
