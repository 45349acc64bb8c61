//! Functions that return sets: rows in a SELECT list, and tables in FROM, which may read what stands before them.
//!
//! | written | planned as |
//! |---|---|
//! | `SELECT generate_series(1, 3)` | `SELECT unnest(_strata_series(1, 3)) AS generate_series` |
//! | `FROM t, unnest(t.a) AS u(x)` | `FROM t, LATERAL (SELECT unnest(t.a) AS x) AS u` |
//! | `… WITH ORDINALITY` | `unnest(_strata_subscripts(1, t.a))` beside it |
//! | `FROM generate_series(1, 3) AS g` | the planner's own table, which makes its rows as they are read |
//! | `FROM lower('A') AS l`, of any other function | `FROM (SELECT lower('A') AS l) AS l` |
//!
//! `unnest` of several arrays at once ends with the longest, the others giving NULL: so it is in PostgreSQL, and so do
//! functions beside each other in a SELECT list.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast;

use super::{MARK, folded, function, number};
use crate::error::{Error, Result};
use crate::expr::arrays::{EXPANDED, SERIES, SUBSCRIPTS};

/// `generate_subscripts` of a vector, which is counted from 0.
pub(crate) const VECTOR_SUBSCRIPTS: &str = "_strata_vector_subscripts";

/// Respells the SELECT list and the FROM of one SELECT.
///
/// # Errors
/// 0A000 for forms that are not built.
pub(super) fn respell(select: &mut ast::Select) -> Result<()> {
    for item in &mut select.projection {
        respell_item(item)?;
    }
    let mut is_first = true;
    for from in &mut select.from {
        respell_from(from, is_first)?;
        is_first = false;
    }
    Ok(())
}

/// The arrays whose elements are the rows of a call, and what its columns are called; `None` for other functions.
fn arrays_of(name: &str, args: &[ast::Expr]) -> Result<Option<(Vec<ast::Expr>, Vec<&'static str>)>> {
    let one = |array: ast::Expr, column| Ok(Some((vec![array], vec![column])));
    match (name, args) {
        ("unnest", [_, ..]) => Ok(Some((args.to_vec(), vec!["unnest"; args.len()]))),
        ("generate_series", [_, _] | [_, _, _]) => one(function(SERIES, args.to_vec()), "generate_series"),
        ("generate_subscripts", [array, ast::Expr::Value(dimension)]) if dimension.to_string() == "1" => {
            one(function(SUBSCRIPTS, vec![number("1"), array.clone()]), "generate_subscripts")
        }
        ("generate_subscripts", _) => Err(Error::unsupported("generate_subscripts of a dimension other than 1")
            .with_hint("arrays have one dimension here")),
        (VECTOR_SUBSCRIPTS, [array, ..]) => {
            one(function(SUBSCRIPTS, vec![number("0"), array.clone()]), "generate_subscripts")
        }
        ("string_to_table", [_, _] | [_, _, _]) => one(function("string_to_array", args.to_vec()), "string_to_table"),
        ("_pg_expandarray", [array]) => one(function(EXPANDED, vec![array.clone()]), "_pg_expandarray"),
        _ => Ok(None),
    }
}

/// The same in FROM, where a function that returns rows of several columns has them side by side.
fn columns_of(name: &str, args: &[ast::Expr]) -> Result<Option<(Vec<ast::Expr>, Vec<&'static str>)>> {
    if let ("_pg_expandarray", [array]) = (name, args) {
        let places = function(SUBSCRIPTS, vec![number("1"), array.clone()]);
        return Ok(Some((vec![array.clone(), places], vec!["x", "n"])));
    }
    arrays_of(name, args)
}

fn plain_name(name: &ast::ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ast::ObjectNamePart::Identifier(ident)] => Some(folded(ident)),
        _ => None,
    }
}

fn plain_args(args: &[ast::FunctionArg]) -> Option<Vec<ast::Expr>> {
    let expr = |arg: &ast::FunctionArg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    args.iter().map(expr).collect()
}

/// Name and arguments of a plain call.
fn call_of(call: &ast::Function) -> Option<(String, Vec<ast::Expr>)> {
    let ast::FunctionArguments::List(list) = &call.args else { return None };
    let is_plain = call.over.is_none() && call.filter.is_none() && list.clauses.is_empty();
    let name = plain_name(&call.name).filter(|_| is_plain)?;
    Some((name, plain_args(&list.args)?))
}

fn respell_item(item: &mut ast::SelectItem) -> Result<()> {
    let name = match item {
        ast::SelectItem::UnnamedExpr(ast::Expr::Function(call)) => match call_of(call) {
            // As the planner names `unnest` itself, with which several may be in one list.
            Some((name, _)) if name == "unnest" => None,
            Some((name, args)) => arrays_of(&name, &args)?.map(|(_, columns)| columns[0]),
            None => None,
        },
        _ => None,
    };
    match item {
        ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => {
            let mut unnester = Unnester { depth: 0 };
            if let ControlFlow::Break(error) = ast::VisitMut::visit(expr, &mut unnester) {
                return Err(error);
            }
        }
        _ => {}
    }
    if let (Some(name), ast::SelectItem::UnnamedExpr(expr)) = (name, &item) {
        *item = ast::SelectItem::ExprWithAlias { expr: expr.clone(), alias: ast::Ident::with_quote('"', name) };
    }
    Ok(())
}

/// Replaces calls by `unnest`, except within subqueries, which are SELECTs of their own.
struct Unnester {
    depth: usize,
}

impl ast::VisitorMut for Unnester {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        let ast::Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Some((name, args)) = call_of(call).filter(|(name, _)| self.depth == 0 && name != "unnest") else {
            return ControlFlow::Continue(());
        };
        match arrays_of(&name, &args) {
            Ok(Some((mut arrays, _))) => {
                *expr = function("unnest", vec![arrays.remove(0)]);
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn respell_from(from: &mut ast::TableWithJoins, is_first: bool) -> Result<()> {
    respell_factor(&mut from.relation, is_first)?;
    for join in &mut from.joins {
        respell_factor(&mut join.relation, false)?;
    }
    Ok(())
}

/// A function in FROM, with what is said of it.
struct Source {
    name: String,
    args: Vec<ast::Expr>,
    has_ordinality: bool,
    alias: Option<ast::TableAlias>,
}

fn source_of(factor: &ast::TableFactor) -> Option<Source> {
    Some(match factor {
        ast::TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => Source {
            name: plain_name(name)?,
            args: plain_args(&args.args)?,
            has_ordinality: *with_ordinality,
            alias: alias.clone(),
        },
        ast::TableFactor::Function { name, args, alias, with_ordinality, .. } => Source {
            name: plain_name(name)?,
            args: plain_args(args)?,
            has_ordinality: *with_ordinality,
            alias: alias.clone(),
        },
        ast::TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => Source {
            name: "unnest".to_owned(),
            args: array_exprs.clone(),
            has_ordinality: *with_ordinality,
            alias: alias.clone(),
        },
        _ => return None,
    })
}

fn respell_factor(factor: &mut ast::TableFactor, is_first: bool) -> Result<()> {
    if let ast::TableFactor::NestedJoin { table_with_joins, .. } = factor {
        return respell_from(table_with_joins, is_first);
    }
    let Some(source) = source_of(factor) else { return Ok(()) };
    if source.name == "generate_series" && !source.has_ordinality && source.args.iter().all(is_number) {
        name_column(factor);
        return Ok(());
    }
    let (mut cells, arrays, mut names) = match columns_of(&source.name, &source.args)? {
        Some((arrays, names)) => {
            let cells = arrays.iter().map(|array| function("unnest", vec![array.clone()])).collect::<Vec<_>>();
            let names = names.into_iter().map(str::to_owned).collect();
            (cells, arrays, names)
        }
        // Its one row.
        None if !PLANNED.contains(&source.name.as_str()) && !source.has_ordinality => {
            (vec![function(&source.name, source.args)], Vec::new(), vec![source.name.clone()])
        }
        None => return Ok(()),
    };
    if source.has_ordinality {
        let args = [vec![number("1")], arrays].concat();
        cells.push(function("unnest", vec![function(SUBSCRIPTS, args)]));
        names.push("ordinality".to_owned());
    }
    let alias = source.alias.unwrap_or_else(|| table_alias(&names[0]));
    // A function of one column lends it its own name.
    let is_single = names.len() - usize::from(source.has_ordinality) == 1;
    let shown = |at: usize| match alias.columns.get(at) {
        Some(column) => folded(&column.name),
        None if at == 0 && is_single => folded(&alias.name),
        None if names[..at].contains(&names[at]) => format!("{}{MARK}{at}", names[at]),
        None => names[at].clone(),
    };
    let named = cells
        .into_iter()
        .enumerate()
        .map(|(at, expr)| ast::SelectItem::ExprWithAlias { expr, alias: ast::Ident::with_quote('"', shown(at)) });
    let projection = named.collect();
    let subquery = Box::new(select_of(projection)?);
    let alias = Some(ast::TableAlias { columns: Vec::new(), ..alias });
    *factor = ast::TableFactor::Derived { lateral: !is_first, subquery, alias, sample: None };
    Ok(())
}

/// Functions that the planner has as tables.
const PLANNED: [&str; 2] = ["generate_series", "range"];

/// `generate_series(1, 3) AS g` has the column `g`.
fn name_column(factor: &mut ast::TableFactor) {
    if let ast::TableFactor::Table { alias: Some(alias), .. } | ast::TableFactor::Function { alias: Some(alias), .. } =
        factor
        && alias.columns.is_empty()
    {
        alias.columns = vec![ast::TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
    }
}

fn is_number(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Value(value) => matches!(value.value, ast::Value::Number(..)),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => is_number(expr),
        _ => false,
    }
}

fn table_alias(name: &str) -> ast::TableAlias {
    ast::TableAlias { explicit: true, name: ast::Ident::with_quote('"', name), columns: Vec::new(), at: None }
}

/// `SELECT` of these items, from nothing.
fn select_of(projection: Vec<ast::SelectItem>) -> Result<ast::Query> {
    let ast::Statement::Query(mut query) = crate::statement::parse_own("SELECT NULL")? else {
        return Err(Error::internal("a SELECT that is no query"));
    };
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = projection;
    }
    Ok(*query)
}

/// Whether a call of a function that returns a set is in `expr`, subqueries apart.
pub(super) fn is_in(expr: &ast::Expr) -> bool {
    struct Finder(usize);
    impl ast::Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            let ast::Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
            let is_set = call_of(call).is_some_and(|(name, args)| !matches!(arrays_of(&name, &args), Ok(None)));
            if is_set && self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    ast::Visit::visit(expr, &mut Finder(0)).is_break()
}
