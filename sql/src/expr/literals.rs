//! The rule before type coercion: constants get the types that PostgreSQL gives them.
//!
//! * a whole number that fits 32 bits is an INTEGER, not a BIGINT;
//! * a text constant in IN and BETWEEN takes the type of what it is compared with;
//! * dates compare with timestamps as timestamps of microseconds, because nanoseconds end in 2262;
//! * casts to a bare NUMERIC keep all digits, casts to VARCHAR(n) cut the text.
//!
//! Deliberately left as BIGINT: numbers that DataFusion reads itself (`count(1)`, LIMIT, rows of VALUES with larger ones),
//! and all numbers of a statement with a recursive query, where types were agreed on before.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{AggregateFunction, Cast, InList};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Values};
use datafusion::optimizer::AnalyzerRule;

use super::operators::{constant_type, decimal_type};
use super::semantics::rewrite_plan;
use super::{arrays, conversion, json, sorting};
use crate::optimizer::retyped;
use crate::types::interval::{INTERVAL, parse};
use crate::types::{CHARS_MAX, UNBOUNDED, is_json_field};

/// Gives constants their types.
#[derive(Debug)]
pub(super) struct Literals;

impl AnalyzerRule for Literals {
    fn name(&self) -> &'static str {
        "postgresql_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let mut is_fixed = false;
        plan.apply_with_subqueries(|plan| {
            // The table that a recursive query reads itself through has the types of its first part.
            is_fixed |= matches!(plan, LogicalPlan::RecursiveQuery(_));
            Ok(if is_fixed { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Limit(_) | LogicalPlan::Statement(_) => Ok(Transformed::no(plan)),
            LogicalPlan::Values(values) if !is_fixed => narrowed_values(values),
            _ => {
                let plan = rewrite_plan(plan, &rewrite)?;
                if is_fixed { Ok(plan) } else { plan.transform_data(narrowed_numbers) }
            }
        })?;
        Ok(retyped(rewritten.data)?.data)
    }
}

fn narrow(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => {
            let value = i32::try_from(*value).ok()?;
            Some(Expr::Literal(ScalarValue::Int32(Some(value)), metadata.clone()))
        }
        _ => None,
    }
}

/// Whole numbers as INTEGER, from the outside in, so that calls which read their constants themselves can be passed over.
fn narrowed_numbers(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let names = datafusion::logical_expr::expr_rewriter::NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let narrowed = expr.transform_down(|expr| {
            if reads_its_constants(&expr) {
                return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
            }
            Ok(match narrow(&expr) {
                Some(narrowed) => Transformed::yes(narrowed),
                None => Transformed::no(expr),
            })
        })?;
        Ok(narrowed.update_data(|expr| name.restore(expr)))
    })?;
    if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
}

fn reads_its_constants(expr: &Expr) -> bool {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, .. }) => {
            !matches!(func.name(), "sum" | "avg" | "min" | "max" | "array_agg")
        }
        Expr::WindowFunction(function) => {
            !matches!(function.fun.name(), "sum" | "avg" | "min" | "max" | "first_value" | "last_value")
        }
        _ => false,
    }
}

/// Columns of VALUES whose numbers all fit, as INTEGER.
fn narrowed_values(values: Values) -> Result<Transformed<LogicalPlan>> {
    let is_narrow = |column: usize| {
        let mut cells = values.values.iter().map(|row| &row[column]);
        let is_null = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.is_null());
        cells.clone().any(|cell| narrow(cell).is_some()) && cells.all(|cell| narrow(cell).is_some() || is_null(cell))
    };
    let columns: Vec<usize> = (0..values.schema.fields().len())
        .filter(|column| *values.schema.field(*column).data_type() == DataType::Int64 && is_narrow(*column))
        .collect();
    if columns.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Values(values)));
    }
    let fields = values.schema.iter().enumerate().map(|(at, (qualifier, field))| {
        let field = if columns.contains(&at) {
            Arc::new(Field::clone(field).with_data_type(DataType::Int32))
        } else {
            Arc::clone(field)
        };
        (qualifier.cloned(), field)
    });
    let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), values.schema.metadata().clone())?);
    let mut rows = values.values;
    for row in &mut rows {
        for column in &columns {
            row[*column] = narrow(&row[*column]).unwrap_or(Expr::Literal(ScalarValue::Int32(None), None));
        }
    }
    Ok(Transformed::yes(LogicalPlan::Values(Values { schema, values: rows })))
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let rewritten = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let types = left.get_type(schema).ok().zip(right.get_type(schema).ok());
            types.and_then(|(l, r)| {
                let (left, right) = aligned(left, &l, right, &r).or_else(|| arrays::aligned(left, &l, right, &r))?;
                Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), *op, Box::new(right))))
            })
        }
        Expr::InList(InList { expr: inner, list, negated }) => inner.get_type(schema).ok().and_then(|data_type| {
            let list: Option<Vec<Expr>> = typed_all(list, &data_type);
            Some(Expr::InList(InList::new(inner.clone(), list?, *negated)))
        }),
        Expr::Between(between) => rewrite_between(between, schema),
        Expr::Cast(cast) => rewrite_cast(cast, schema),
        // Coercion refuses frames over intervals.
        Expr::WindowFunction(function) => sorting::framed(function, schema),
        _ => None,
    };
    Ok(match rewritten {
        Some(rewritten) => Transformed::yes(rewritten),
        None => Transformed::no(expr),
    })
}

/// Text ends as what they are compared with; dates and timestamps together as timestamps.
fn rewrite_between(between: &Between, schema: &DFSchema) -> Option<Expr> {
    let Between { expr, negated, low, high } = between;
    let data_type = expr.get_type(schema).ok()?;
    let ends = [low.as_ref().clone(), high.as_ref().clone()];
    let parts = match typed_all(&ends, &data_type) {
        Some(ends) => [vec![expr.as_ref().clone()], ends].concat(),
        None => {
            let all = [expr.as_ref().clone(), ends[0].clone(), ends[1].clone()];
            let types: Vec<DataType> = all.iter().map(|part| part.get_type(schema)).collect::<Result<_>>().ok()?;
            let is_stamp = |data_type: &DataType| *data_type == STAMP;
            if !types.iter().any(is_stamp) || !types.contains(&DataType::Date32) {
                return None;
            }
            let stamped = |(part, data_type): (&Expr, &DataType)| match data_type {
                DataType::Date32 => Expr::Cast(Cast::new(Box::new(part.clone()), STAMP)),
                _ => part.clone(),
            };
            all.iter().zip(&types).map(stamped).collect()
        }
    };
    let [expr, low, high] = <[Expr; 3]>::try_from(parts).ok()?;
    Some(Expr::Between(Between::new(Box::new(expr), *negated, Box::new(low), Box::new(high))))
}

const STAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A date and a timestamp as two timestamps.
fn aligned(left: &Expr, l: &DataType, right: &Expr, r: &DataType) -> Option<(Expr, Expr)> {
    let stamped =
        |expr: &Expr| Expr::Cast(Cast::new(Box::new(expr.clone()), DataType::Timestamp(TimeUnit::Microsecond, None)));
    match (l, r) {
        (DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, None)) => Some((stamped(left), right.clone())),
        (DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Date32) => Some((left.clone(), stamped(right))),
        _ => None,
    }
}

/// The expressions with text constants cast to what they are beside a value of type `other`; `None` if there are none.
fn typed_all(list: &[Expr], other: &DataType) -> Option<Vec<Expr>> {
    let mut found = false;
    let mut typed = |expr: &Expr| {
        if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = expr
            && let Some(target) = constant_type(text, other)
        {
            found = true;
            return Expr::Cast(Cast::new(Box::new(expr.clone()), target));
        }
        expr.clone()
    };
    let list = list.iter().map(&mut typed).collect();
    found.then_some(list)
}

fn rewrite_cast(cast: &Cast, schema: &DFSchema) -> Option<Expr> {
    let inner = cast.expr.as_ref();
    let (text, target) = match inner {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => (Some(text.as_str()), cast.field.data_type()),
        _ => (None, cast.field.data_type()),
    };
    if *target == INTERVAL {
        // A constant from here on, so that dates plus it can be seen to be dates.
        return Some(Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(parse(text?)?)), None));
    }
    if let Some(chars) = cast.field.metadata().get(CHARS_MAX) {
        let target = match target {
            DataType::List(_) => DataType::new_list(DataType::Utf8View, true),
            _ => DataType::Utf8View,
        };
        let text = Expr::Cast(Cast::new(Box::new(inner.clone()), target.clone()));
        return Some(conversion::cut(text, &target, chars.parse().ok()?));
    }
    if is_json_field(&cast.field) {
        let text = Expr::Cast(Cast::new(Box::new(inner.clone()), DataType::Utf8View));
        return Some(json::checked(text));
    }
    if !cast.field.metadata().contains_key(UNBOUNDED) || target.is_nested() {
        return None;
    }
    let natural = match inner.get_type(schema).ok()? {
        DataType::Int16 => DataType::Decimal128(5, 0),
        DataType::Int32 => DataType::Decimal128(10, 0),
        DataType::Int64 => DataType::Decimal128(19, 0),
        decimal @ DataType::Decimal128(..) => decimal,
        _ => match text.and_then(decimal_type) {
            Some(natural) => natural,
            None => target.clone(),
        },
    };
    Some(Expr::Cast(Cast::new(Box::new(inner.clone()), natural)))
}
