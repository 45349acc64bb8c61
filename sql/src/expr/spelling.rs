//! Spellings of PostgreSQL that DataFusion's planner does not read, said in those it reads.
//!
//! Done on the syntax tree, before names are resolved, so nothing here may depend on types.

mod arrays;
pub(crate) mod set_returning;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::sql::sqlparser::ast;

use super::operators::decimal_type;
use crate::error::{Error, Result};
use crate::types::interval;

/// Replaces such spellings everywhere in `statement`.
///
/// # Errors
/// 0A000 for format strings of `to_char` and its like that have no counterpart.
pub(crate) fn respell(statement: &mut ast::Statement) -> Result<()> {
    if let ControlFlow::Break(error) = ast::VisitMut::visit(statement, &mut Sets) {
        return Err(error);
    }
    let visited = ast::visit_expressions_mut(statement, |expr| match respelled(expr) {
        Ok(None) => ControlFlow::Continue(()),
        Ok(Some(replacement)) => {
            *expr = replacement;
            ControlFlow::Continue(())
        }
        Err(error) => ControlFlow::Break(error),
    });
    match visited {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => {
            let _ = ast::VisitMut::visit(statement, &mut Names);
            Ok(())
        }
    }
}

/// Functions that return sets, in every SELECT, the innermost first.
struct Sets;

impl ast::VisitorMut for Sets {
    type Break = Error;

    fn post_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Error> {
        match set_returning::respell(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Gives a name to each item of a SELECT list that the planner would name like an earlier one: `SELECT a, a::text`.
struct Names;

impl ast::VisitorMut for Names {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        let order = query.order_by.as_ref().map(|order| order.to_string().to_lowercase()).unwrap_or_default();
        name_items(&mut query.body, &order);
        tell_calls_apart(query);
        ControlFlow::Continue(())
    }
}

/// Ends the name proper of a column: what follows tells it apart from others of this name, and is not for people.
const MARK: char = '\u{1}';

/// The name of a column as people know it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or_default()
}

/// A name as the planner reads it.
fn folded(name: &ast::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// A name in `order`, an ORDER BY, that two columns have could mean either, so these stay as they are and are refused.
fn name_items(body: &mut ast::SetExpr, order: &str) {
    match body {
        ast::SetExpr::Select(select) => {
            let mut taken: Vec<Named> = Vec::new();
            for item in &mut select.projection {
                let (named, expr) = match item {
                    ast::SelectItem::UnnamedExpr(expr) => (Named::of(expr), expr.clone()),
                    ast::SelectItem::ExprWithAlias { expr, alias } => (Named::given(&folded(alias)), expr.clone()),
                    _ => continue,
                };
                let is_meant = named.is_given && order.split([' ', ',', '(', ')', '"']).any(|word| word == named.long);
                if is_meant || !taken.iter().any(|other| other.clashes(&named)) {
                    taken.push(named);
                    continue;
                }
                let name = format!("{}{MARK}{}", named.short, taken.len());
                let alias = ast::Ident::with_quote('"', name.clone());
                *item = ast::SelectItem::ExprWithAlias { expr, alias };
                taken.push(Named::given(&name));
            }
        }
        ast::SetExpr::SetOperation { left, right, .. } => {
            name_items(left, order);
            name_items(right, order);
        }
        _ => {}
    }
}

/// `max(a)` and `max(a::text)` get names that differ: the planner's leave casts out, and an aggregate has each name once.
/// `max(coalesce(a::text))` is the same value. `max(ALL a)` is `max(a)`.
fn tell_calls_apart(query: &mut ast::Query) {
    let mut variants: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let _ = ast::visit_expressions_mut(query, |expr| {
        if let ast::Expr::Function(call) = expr {
            if let ast::FunctionArguments::List(list) = &mut call.args
                && list.duplicate_treatment == Some(ast::DuplicateTreatment::All)
            {
                list.duplicate_treatment = None;
            }
            let (name, text) = variant(expr);
            let seen = variants.entry(name).or_default();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        ControlFlow::<()>::Continue(())
    });
    variants.retain(|_, texts| texts.len() > 1);
    // What has nothing that could be told apart keeps the name.
    variants.values_mut().for_each(|texts| texts.sort_by_key(|text| !text.starts_with(ROW_COUNT)));
    if variants.is_empty() {
        return;
    }
    let _ = ast::visit_expressions_mut(query, |expr| {
        let ast::Expr::Function(_) = expr else { return ControlFlow::Continue(()) };
        let (name, text) = variant(expr);
        let depth = variants.get(&name).and_then(|texts| texts.iter().position(|seen| *seen == text));
        if let (ast::Expr::Function(call), Some(depth)) = (expr, depth)
            && let ast::FunctionArguments::List(list) = &mut call.args
            && let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg))) = list.args.first_mut()
        {
            for _ in 0..depth {
                *arg = function("coalesce", vec![arg.clone()]);
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

/// What the planner takes for the name of a call, and the call; `count(*)` and `count(1)` are one to it.
fn variant(call: &ast::Expr) -> (String, String) {
    let (mut name, mut text) = (without_casts(call), call.to_string());
    for counted in [&mut name, &mut text] {
        let start = counted.get(..ROW_COUNT.len()).unwrap_or_default();
        if [ROW_COUNT, "count(1)"].iter().any(|of_rows| start.eq_ignore_ascii_case(of_rows)) {
            counted.replace_range(..ROW_COUNT.len(), ROW_COUNT);
        }
    }
    (name, text)
}

const ROW_COUNT: &str = "count(*)";

/// What the planner takes for the name of `expr`, or nearly.
fn without_casts(expr: &ast::Expr) -> String {
    let mut bare = expr.clone();
    let _ = ast::visit_expressions_mut(&mut bare, |expr| {
        while let ast::Expr::Cast { expr: inner, .. }
        | ast::Expr::Nested(inner)
        | ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr: inner } = expr
        {
            *expr = std::mem::replace(inner, ast::Expr::Value(ast::Value::Null.into()));
        }
        // The planner does not look into subqueries for names, nor before IN.
        if matches!(expr, ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. }) {
            *expr = ast::Expr::Identifier(ast::Ident::new("<subquery>"));
        }
        ControlFlow::<()>::Continue(())
    });
    bare.to_string().to_lowercase()
}

/// What an item of a SELECT list is called.
struct Named {
    /// As the planner would: without casts.
    long: String,
    /// As people would.
    short: String,
    is_column: bool,
    /// By the statement, with AS.
    is_given: bool,
}

impl Named {
    fn given(name: &str) -> Named {
        Named { long: name.to_owned(), short: name.to_owned(), is_column: false, is_given: true }
    }

    fn of(expr: &ast::Expr) -> Named {
        let mut bare = expr;
        let mut is_column = true;
        loop {
            bare = match bare {
                ast::Expr::Cast { expr: inner, .. } => {
                    is_column = false;
                    inner
                }
                ast::Expr::Nested(inner) | ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr: inner } => inner,
                _ => break,
            };
        }
        let short = match bare {
            ast::Expr::Identifier(ident) => ident.value.clone(),
            ast::Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()).unwrap_or_default(),
            ast::Expr::Function(call) => call.name.to_string().to_lowercase(),
            _ => "column".to_owned(),
        };
        is_column &= matches!(bare, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_));
        Named { long: without_casts(expr), short, is_column, is_given: false }
    }

    /// Columns of two tables may share their last name; what is computed from them may not.
    fn clashes(&self, other: &Named) -> bool {
        let (a, b) = (&self.long, &other.long);
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let is_plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '"'));
        a == b || !(self.is_column && other.is_column) && is_plain(a) && is_plain(b) && last(a) == last(b)
    }
}

fn respelled(expr: &ast::Expr) -> Result<Option<ast::Expr>> {
    use ast::UnaryOperator as Unary;
    Ok(match expr {
        // CAST(x AS int ARRAY) as CAST(x AS int[]).
        ast::Expr::Cast { array: true, kind, expr, data_type, format } => Some(ast::Expr::Cast {
            array: false,
            kind: kind.clone(),
            expr: expr.clone(),
            data_type: ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(data_type.clone()), None)),
            format: format.clone(),
        }),
        ast::Expr::AnyOp { left, compare_op, right, .. } => arrays::quantified(left, compare_op, right, false)?,
        ast::Expr::AllOp { left, compare_op, right } => arrays::quantified(left, compare_op, right, true)?,
        ast::Expr::CompoundFieldAccess { root, access_chain } => arrays::whole_slices(root, access_chain),
        ast::Expr::UnaryOp { op: Unary::BitwiseNot, expr } => {
            let (left, right) = (Box::new(nested(expr)), Box::new(number("-1")));
            Some(ast::Expr::BinaryOp { left, op: ast::BinaryOperator::PGBitwiseXor, right })
        }
        ast::Expr::UnaryOp { op: Unary::PGSquareRoot, expr } => Some(function("sqrt", vec![(**expr).clone()])),
        ast::Expr::UnaryOp { op: Unary::PGCubeRoot, expr } => Some(function("cbrt", vec![(**expr).clone()])),
        ast::Expr::UnaryOp { op: Unary::PGAbs, expr } => Some(function("abs", vec![(**expr).clone()])),
        ast::Expr::Interval(interval) => constant_interval(interval),
        // The planner would negate the first unit only. What is within was respelled before.
        ast::Expr::UnaryOp { op: Unary::Minus, expr } => match expr.as_ref() {
            ast::Expr::Interval(interval) => {
                let text = string(&interval.value).and_then(|text| interval::parse(&text));
                text.map(|value| IntervalMonthDayNano::new(-value.months, -value.days, -value.nanoseconds)).map(spelled)
            }
            _ => None,
        },
        ast::Expr::Value(value) => match &value.value {
            // Too many digits for a decimal.
            ast::Value::Number(digits, _) if digits.contains(['e', 'E']) && decimal_type(digits).is_none() => {
                Some(cast(text(digits), ast::DataType::DoublePrecision))
            }
            _ => None,
        },
        ast::Expr::Substring { expr, substring_from: Some(from), substring_for: None, .. } => match string(from) {
            Some(_) => {
                let found = function("regexp_match", vec![(**expr).clone(), (**from).clone()]);
                Some(function("array_element", vec![found, number("1")]))
            }
            None => None,
        },
        ast::Expr::Function(call) => match arrays::of_rows(call)? {
            Some(array) => Some(array),
            None => respelled_call(call)?,
        },
        _ => None,
    })
}

fn respelled_call(call: &ast::Function) -> Result<Option<ast::Expr>> {
    let [ast::ObjectNamePart::Identifier(name)] = call.name.0.as_slice() else { return Ok(None) };
    let ast::FunctionArguments::List(list) = &call.args else { return Ok(None) };
    let args: Vec<ast::Expr> = list
        .args
        .iter()
        .filter_map(|arg| match arg {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect();
    let renamed = |name: &str| {
        let mut call = call.clone();
        call.name = ast::ObjectName::from(vec![ast::Ident::new(name)]);
        Some(ast::Expr::Function(call))
    };
    Ok(match (name.value.to_ascii_lowercase().as_str(), args.as_slice()) {
        ("mod", [left, right]) => {
            let (left, right) = (Box::new(nested(left)), Box::new(nested(right)));
            let remainder = ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Modulo, right };
            Some(ast::Expr::Nested(Box::new(remainder)))
        }
        ("ceiling", _) => renamed("ceil"),
        ("sign", _) => renamed("signum"),
        ("every", _) => renamed("bool_and"),
        ("gen_random_uuid", []) => Some(cast(function("uuid", Vec::new()), ast::DataType::Uuid)),
        (name @ ("to_char" | "to_date" | "to_timestamp"), [_, format]) => {
            let Some(format) = string(format) else {
                return Err(Error::unsupported(format!("{name} with a format that is no constant")));
            };
            let mut args = args.clone();
            args[1] = text(&strftime(name, &format)?);
            let call = function(name, args);
            // The visitor does not come back to what it replaced, so the format is translated once.
            Some(match name {
                "to_timestamp" => cast(call, ast::DataType::Timestamp(None, ast::TimezoneInfo::Tz)),
                _ => call,
            })
        }
        _ => None,
    })
}

/// PostgreSQL's format of dates as one of `strftime`, which is what DataFusion's functions take.
fn strftime(function: &str, format: &str) -> Result<String> {
    /// Longer patterns first where one begins with another.
    const PATTERNS: [(&str, &str); 27] = [
        ("YYYY", "%Y"),
        ("IYYY", "%G"),
        ("YY", "%y"),
        ("MM", "%m"),
        ("FMMonth", "%B"),
        ("Month", "%B"),
        ("Mon", "%b"),
        ("MI", "%M"),
        ("MS", "%3f"),
        ("DDD", "%j"),
        ("DD", "%d"),
        ("FMDay", "%A"),
        ("Day", "%A"),
        ("Dy", "%a"),
        ("IW", "%V"),
        ("ID", "%u"),
        ("HH24", "%H"),
        ("HH12", "%I"),
        ("HH", "%I"),
        ("SS", "%S"),
        ("US", "%6f"),
        ("AM", "%p"),
        ("PM", "%p"),
        ("am", "%P"),
        ("pm", "%P"),
        ("T", "T"),
        ("Z", "Z"),
    ];
    let (mut out, mut rest) = (String::new(), format);
    while let Some(first) = rest.chars().next() {
        let known = PATTERNS.iter().find(|(pattern, _)| rest.starts_with(pattern));
        if let Some((pattern, equivalent)) = known {
            // PostgreSQL pads names of months and days to nine characters.
            if function == "to_char" && matches!(*pattern, "Month" | "Day") {
                return Err(Error::unsupported(format!("the format {pattern} of {function}"))
                    .with_hint(format!("FM{pattern} is the name without blanks behind it")));
            }
            out.push_str(equivalent);
            rest = &rest[pattern.len()..];
        } else if let Some((quoted, after)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            out.push_str(quoted);
            rest = after;
        } else if first.is_ascii_alphanumeric() || first == '%' {
            return Err(Error::unsupported(format!("the format {format:?} of {function}")));
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(out)
}

/// An interval written as a constant, in the units that every reader of intervals knows.
fn constant_interval(interval: &ast::Interval) -> Option<ast::Expr> {
    let written = match interval.value.as_ref() {
        ast::Expr::Value(value) => value.value.clone().into_string().or(match &value.value {
            ast::Value::Number(digits, _) => Some(digits.clone()),
            _ => None,
        })?,
        _ => return None,
    };
    let is_number = written.trim().parse::<f64>().is_ok();
    let text = match (&interval.leading_field, &interval.last_field) {
        (Some(unit), None) if is_number => format!("{written} {unit}"),
        (Some(_), _) if is_number => return None,
        _ => written,
    };
    interval::parse(&text).map(spelled)
}

fn spelled(value: IntervalMonthDayNano) -> ast::Expr {
    let (months, days, micros) = (value.months, value.days, value.nanoseconds / 1_000);
    ast::Expr::Interval(ast::Interval {
        value: Box::new(text(&format!("{months} months {days} days {micros} microseconds"))),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}

fn nested(expr: &ast::Expr) -> ast::Expr {
    ast::Expr::Nested(Box::new(expr.clone()))
}

fn number(digits: &str) -> ast::Expr {
    ast::Expr::Value(ast::Value::Number(digits.to_owned(), false).into())
}

fn text(text: &str) -> ast::Expr {
    ast::Expr::Value(ast::Value::SingleQuotedString(text.to_owned()).into())
}

/// The constant text that `expr` is.
fn string(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => Some(text.clone()),
            _ => None,
        },
        ast::Expr::Nested(inner) => string(inner),
        _ => None,
    }
}

fn cast(expr: ast::Expr, data_type: ast::DataType) -> ast::Expr {
    ast::Expr::Cast { kind: ast::CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn function(name: &str, args: Vec<ast::Expr>) -> ast::Expr {
    let args = args.into_iter().map(|arg| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg))).collect();
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_translated_or_refused() {
        assert_eq!(strftime("to_char", "YYYY-MM-DD HH24:MI:SS.US").unwrap(), "%Y-%m-%d %H:%M:%S.%6f");
        assert_eq!(strftime("to_date", "DD Mon YYYY").unwrap(), "%d %b %Y");
        assert_eq!(strftime("to_char", "YYYY\"-W\"IW").unwrap(), "%Y-W%V");
        for format in ["Month", "RN", "999", "100%"] {
            assert!(strftime("to_char", format).is_err(), "{format}");
        }
    }
}
