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
//! | `indkey[0]`, `generate_subscripts(indkey, 1)` | counted from 1, as arrays are here |
//! | `(information_schema._pg_expandarray(conkey)).n` | a function that returns sets |
//! | `SELECT indkey`, `SELECT typinput`, in the outermost list | text, as PostgreSQL shows vectors and functions |
//! | a SELECT from a table that is empty in every database | no rows, its expressions forgotten |
//! | the default of a column, by a subquery over `pg_attrdef` | a function |
//!
//! The last two because the planner cannot run what stands in them: subscripts of vectors, correlated subqueries. For the
//! same reason the base types of domains, of which there are none, are not looked for by recursion.
//!
//! A statement may be respelled twice; the second time changes nothing.

mod casts;
mod nothing;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, SelectItem,
    SetExpr, TableFactor,
};

use super::{PG_SCHEMA, functions, has_table, information};
use casts::{REG_OID, registered, respell_cast};
use nothing::{empty_branches, is_from_nothing, nothings};

use crate::catalog::INFORMATION_SCHEMA;
use crate::expr::spelling::set_returning::VECTOR_SUBSCRIPTS;
use crate::statement::{identifier, name_parts};

/// Respells a statement; whether it needs the functions of the catalog.
pub(crate) fn respell(statement: &mut ast::Statement) -> bool {
    let is_of_catalog = |name: &ObjectName| match name_parts(name).as_deref() {
        Ok([table]) => has_table(table),
        Ok([schema, ..]) => schema == PG_SCHEMA || schema == INFORMATION_SCHEMA,
        _ => false,
    };
    let visited = ast::visit_relations(statement, |name| match is_of_catalog(name) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    let mut respeller = Respeller { needs_functions: false, reads_catalog: visited.is_break() };
    let _ = ast::VisitMut::visit(statement, &mut respeller);
    if let (ast::Statement::Query(query), true) = (statement, respeller.reads_catalog) {
        respeller.needs_functions |= show_columns(&mut query.body);
    }
    respeller.needs_functions
}

struct Respeller {
    needs_functions: bool,
    /// Whether a table of the catalog is in some FROM: elsewhere columns may be called as they like.
    reads_catalog: bool,
}

/// Columns that are vectors: shown as `1 2`, and counted from 0.
const VECTORS: [&str; 6] = ["indkey", "indclass", "indcollation", "indoption", "i_indoption", "proargtypes"];

/// Columns with numbers of functions, which are shown by name.
const FUNCTIONS: [&str; 9] = [
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
    "typmodin",
    "typmodout",
    "typanalyze",
    "typsubscript",
    "amhandler",
];

/// Columns of the outermost list as PostgreSQL shows them; whether that takes functions of the catalog.
fn show_columns(body: &mut SetExpr) -> bool {
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::SetOperation { left, right, .. } => {
            let (left, right) = (show_columns(left), show_columns(right));
            return left || right;
        }
        _ => return false,
    };
    let mut needs_functions = false;
    for item in &mut select.projection {
        let (expr, alias) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias.clone())),
            _ => continue,
        };
        if !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            continue;
        }
        let Some(name) = name_of(expr) else { continue };
        let blank = Expr::Value(ast::Value::SingleQuotedString(" ".to_owned()).into());
        let shown = match name.as_str() {
            name if VECTORS.contains(&name) => call("array_to_string", vec![expr.clone(), blank]),
            name if FUNCTIONS.contains(&name) => {
                needs_functions = true;
                call("regproc", vec![expr.clone()])
            }
            _ => continue,
        };
        let alias = alias.unwrap_or_else(|| ast::Ident::with_quote('"', name));
        *item = SelectItem::ExprWithAlias { expr: shown, alias };
    }
    needs_functions
}

fn is_vector(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        && name_of(expr).is_some_and(|name| VECTORS.contains(&name.as_str()))
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
        respell_function(factor, self.reads_catalog);
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
        if self.reads_catalog {
            respell_of_catalog(expr);
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

/// A function in FROM without its schema, or as the table that it is here.
fn respell_function(factor: &mut TableFactor, reads_catalog: bool) {
    match factor {
        TableFactor::Table { name, args, alias, .. } => {
            let Some(given) = args else { return };
            without_schema(name);
            let Ok(parts) = name_parts(name) else { return };
            let [plain] = parts.as_slice() else { return };
            let table = format!("{plain}()");
            if given.args.is_empty() && has_table(&table) {
                let called = ast::Ident::with_quote('"', plain.clone());
                *name = ObjectName::from([PG_SCHEMA, &table].map(|part| ast::Ident::with_quote('"', part)).to_vec());
                alias.get_or_insert(ast::TableAlias { explicit: true, name: called, columns: Vec::new(), at: None });
                *args = None;
                return;
            }
            if let (Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))), "generate_subscripts") =
                (given.args.first(), plain.as_str())
                && reads_catalog
                && is_vector(first)
            {
                *name = ObjectName::from(vec![ast::Ident::new(VECTOR_SUBSCRIPTS)]);
            }
        }
        TableFactor::Function { name, .. } => without_schema(name),
        _ => {}
    }
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

/// What stands in statements that read the catalog: vectors, functions by their numbers, base types of domains.
fn respell_of_catalog(expr: &mut Expr) {
    match expr {
        Expr::Function(function)
            if matches!(function.args, FunctionArguments::None)
                && name_parts(&function.name).is_ok_and(|parts| parts == ["user"]) =>
        {
            *expr = call("current_user", Vec::new());
        }
        Expr::BinaryOp { left, right, .. } => {
            respell_operand(left, right);
            respell_operand(right, left);
        }
        Expr::Function(function) => {
            without_schema(&mut function.name);
            if let (Ok([name]), FunctionArguments::List(list)) = (name_parts(&function.name).as_deref(), &function.args)
                && name == "generate_subscripts"
                && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(array))) = list.args.first()
                && is_vector(array)
            {
                function.name = ObjectName::from(vec![ast::Ident::new(VECTOR_SUBSCRIPTS)]);
            }
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            if let Some(plain) = field_of(root, access_chain) {
                *expr = plain;
            }
        }
        Expr::Case { conditions, .. } => conditions.iter_mut().for_each(without_domains),
        // A reserved word there, and no column of the catalog.
        Expr::Identifier(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("user") => {
            *expr = call("current_user", Vec::new());
        }
        _ => {}
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
            if let Some(plain) = respell_cast(inner, data_type) {
                *expr = plain;
            }
        }
        _ => {}
    }
}

/// One side of a comparison: `x::regclass` as a number, and the name of a function beside a column with its number.
fn respell_operand(side: &mut Expr, other: &Expr) {
    if let Some((kind, named)) = registered(side) {
        *side = call(REG_OID, vec![text(&kind), named]);
        return;
    }
    let is_text = matches!(side, Expr::Value(value) if matches!(value.value, ast::Value::SingleQuotedString(_)));
    let is_function = matches!(other, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        && name_of(other).is_some_and(|name| FUNCTIONS.contains(&name.as_str()));
    if is_text && is_function {
        *side = call("regproc", vec![side.clone()]);
    }
}

fn text(text: &str) -> Expr {
    Expr::Value(ast::Value::SingleQuotedString(text.to_owned()).into())
}

/// `(x).n`, and subscripts of vectors, as what arrays and rows know.
fn field_of(root: &Expr, chain: &[ast::AccessExpr]) -> Option<Expr> {
    match chain {
        [ast::AccessExpr::Dot(Expr::Identifier(field))] => {
            let Expr::Nested(inner) = root else { return None };
            let field = identifier(field);
            let array = match inner.as_ref() {
                Expr::Function(function) if name_parts(&function.name).ok()?.last()? == "_pg_expandarray" => {
                    let FunctionArguments::List(list) = &function.args else { return None };
                    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(array))] = list.args.as_slice() else {
                        return None;
                    };
                    Some(array.clone())
                }
                _ => None,
            };
            let one = || Expr::Value(ast::Value::Number("1".to_owned(), false).into());
            match (array, field.as_str()) {
                (Some(array), "x") => Some(call("unnest", vec![array])),
                // Of a vector too they are counted from 1.
                (Some(array), "n") => Some(call("generate_subscripts", vec![Expr::Nested(Box::new(array)), one()])),
                (Some(_), _) => None,
                (None, _) => Some(call("get_field", vec![inner.as_ref().clone(), text(&field)])),
            }
        }
        [path @ .., ast::AccessExpr::Subscript(ast::Subscript::Index { index })] => {
            let is_of_vector = match path {
                [] => is_vector(root),
                [.., ast::AccessExpr::Dot(field)] => is_vector(field),
                _ => false,
            };
            if !is_of_vector {
                return None;
            }
            // Counted on already.
            if let Expr::BinaryOp { left, .. } = index
                && matches!(left.as_ref(), Expr::Nested(inner) if matches!(inner.as_ref(), Expr::Nested(_)))
            {
                return None;
            }
            let left = Expr::Nested(Box::new(Expr::Nested(Box::new(index.clone()))));
            let right = Expr::Value(ast::Value::Number("1".to_owned(), false).into());
            let index = Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Plus, right: Box::new(right) };
            let mut access_chain = path.to_vec();
            access_chain.push(ast::AccessExpr::Subscript(ast::Subscript::Index { index }));
            Some(Expr::CompoundFieldAccess { root: Box::new(root.clone()), access_chain })
        }
        _ => None,
    }
}

/// `WHEN t.typtype = 'd' THEN (WITH RECURSIVE …)` is never met.
fn without_domains(when: &mut ast::CaseWhen) {
    let is_recursive = |expr: &Expr| match expr {
        Expr::Subquery(query) => query.with.as_ref().is_some_and(|with| with.recursive),
        Expr::Nested(inner) => {
            matches!(inner.as_ref(), Expr::Subquery(query) if query.with.as_ref().is_some_and(|with| with.recursive))
        }
        _ => false,
    };
    if let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = &when.condition
        && name_of(left).as_deref() == Some("typtype")
        && matches!(right.as_ref(), Expr::Value(value) if value.value == ast::Value::SingleQuotedString("d".to_owned()))
        && is_recursive(&when.result)
    {
        let null = Box::new(Expr::Value(ast::Value::Null.into()));
        let data_type = ast::DataType::BigInt(None);
        when.result = Expr::Cast { kind: ast::CastKind::Cast, expr: null, data_type, array: false, format: None };
    }
}

fn without_schema(name: &mut ObjectName) {
    if let Ok(parts) = name_parts(name)
        && let [schema, _] = parts.as_slice()
        && (schema == PG_SCHEMA || schema == INFORMATION_SCHEMA)
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
