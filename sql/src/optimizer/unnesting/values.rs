//! The value of a subquery in every row: what is joined to the row, and what is made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, Join, JoinConstraint, JoinType, LogicalPlan, Operator, lit, not, when,
};

use super::dependent::Pushed;
use super::domain::Domain;
use super::references::has_subquery;
use super::{Unnester, filtered, projected};
use crate::error::Error;
use crate::optimizer::single_value::single_value;

/// Where subqueries stand: rows, and what has been joined to them so far.
pub(super) struct Site {
    base: LogicalPlan,
    joined: Option<LogicalPlan>,
    /// Whether DataFusion joins plain scalar subqueries here.
    pub joins_scalars: bool,
    /// The same subquery is computed once.
    seen: Vec<(Expr, Expr)>,
}

impl Site {
    pub(super) fn new(base: LogicalPlan, joins_scalars: bool) -> Site {
        Site { base, joined: None, joins_scalars, seen: Vec::new() }
    }

    /// The rows as they were.
    pub(super) fn base(&self) -> &LogicalPlan {
        &self.base
    }

    pub(super) fn has_joins(&self) -> bool {
        self.joined.is_some()
    }

    pub(super) fn into_plan(self) -> LogicalPlan {
        self.joined.unwrap_or(self.base)
    }

    /// Joins `found`, which has at most one row for which `conditions` hold, and exactly one if there are none.
    fn attach(&mut self, found: LogicalPlan, conditions: Vec<Expr>) -> Result<()> {
        let join_type = if conditions.is_empty() { JoinType::Inner } else { JoinType::Left };
        let left = self.joined.take().unwrap_or_else(|| self.base.clone());
        let join = joined(left, found, conditions, join_type)?;
        self.joined = Some(join);
        Ok(())
    }
}

/// A join on any condition.
pub(super) fn joined(
    left: LogicalPlan,
    right: LogicalPlan,
    conditions: Vec<Expr>,
    join_type: JoinType,
) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        Vec::new(),
        conjunction(conditions),
        join_type,
        JoinConstraint::On,
        datafusion::common::NullEquality::NullEqualsNothing,
        false,
    )?))
}

impl Unnester {
    /// An expression of the columns of `site`, to which joins are added, in place of the subquery `expr`.
    pub(super) fn value(&mut self, expr: Expr, site: &mut Site) -> Result<Expr> {
        if let Some((_, value)) = site.seen.iter().find(|(seen, _)| *seen == expr) {
            return Ok(value.clone());
        }
        let value = match expr.clone() {
            Expr::ScalarSubquery(subquery) => self.scalar(&subquery.subquery, site)?,
            Expr::Exists(exists) => {
                let found = self.exists(&exists.subquery.subquery, site)?;
                if exists.negated { not(found) } else { found }
            }
            Expr::InSubquery(within) => self.within(&within, site)?,
            Expr::SetComparison(compared) => self.compared(&compared, site)?,
            expr => return Ok(expr),
        };
        site.seen.push((expr, value.clone()));
        Ok(value)
    }

    /// The subquery `expr` in the condition of an outer join, where it reads both sides: its value for every pair of what it
    /// reads is joined to the side that may lack partners. Gives the value, and that the other side is the one of the pair.
    pub(super) fn of_pairs(
        &mut self,
        expr: Expr,
        read: &BTreeSet<Column>,
        left: &mut Site,
        right: &mut Site,
        join_type: JoinType,
    ) -> Result<(Expr, Vec<Expr>)> {
        let (own, other) = match join_type {
            JoinType::Left => (right, left),
            JoinType::Right => (left, right),
            _ => {
                let error = Error::unsupported("a subquery that reads both sides in the condition of a FULL JOIN");
                return Err(error.with_hint("join a derived table (SELECT …) that was filtered before").into());
            }
        };
        let relation = self.name();
        let (mut exprs, mut sides, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
        for site in [&*own, &*other] {
            let is_here = |column: &&Column| site.base.schema().has_column(column);
            let domain = Domain::of(read.iter().filter(is_here).cloned().collect(), &site.base)?;
            let numbers = exprs.len()..exprs.len() + domain.columns().len();
            let keys: Vec<Column> =
                numbers.map(|at| Column::new(Some(relation.clone()), format!("__key_{at}"))).collect();
            let named = |(from, to): (&Column, &Column)| {
                Expr::Column(from.clone()).alias_qualified(to.relation.clone(), to.name.clone())
            };
            exprs.extend(domain.columns().iter().zip(&keys).map(named));
            conditions.push(domain.meets(&keys));
            sides.push(domain.own_plan()?);
        }
        let (Some(theirs), Some(ours)) = (sides.pop(), sides.pop()) else { return Ok((expr, Vec::new())) };
        let mut pairs = Site::new(joined(ours, theirs, Vec::new(), JoinType::Inner)?, false);
        let value = self.value(expr, &mut pairs)?;
        let column = Column::new(Some(relation), "__value");
        exprs.push(value.alias_qualified(column.relation.clone(), column.name.clone()));
        let found = projected(exprs, Arc::new(pairs.into_plan()))?;
        let matches = conditions.pop().unwrap_or_default();
        own.attach(found, conditions.pop().unwrap_or_default())?;
        Ok((Expr::Column(column), matches))
    }

    /// `plan` grouped by its keys with `aggregates`, each row once, under a new name: the keys and the aggregates there.
    fn grouped(&mut self, pushed: Pushed, aggregates: Vec<Expr>) -> Result<(LogicalPlan, Vec<Column>, Vec<Column>)> {
        let relation = self.name();
        let groups = pushed.keys.iter().cloned().map(Expr::Column).collect();
        let count = aggregates.len();
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(pushed.plan), groups, aggregates)?);
        let key_names = (0..pushed.keys.len()).map(|at| format!("__key_{at}"));
        let names: Vec<String> = key_names.chain((0..count).map(|at| format!("__value_{at}"))).collect();
        let columns: Vec<Column> = names.iter().map(|name| Column::new(Some(relation.clone()), name)).collect();
        let named =
            |(from, to): (Column, &Column)| Expr::Column(from).alias_qualified(to.relation.clone(), to.name.clone());
        let exprs = grouped.schema().columns().into_iter().zip(&columns).map(named).collect();
        let mut keys = columns.clone();
        let values = keys.split_off(pushed.keys.len());
        Ok((projected(exprs, Arc::new(grouped))?, keys, values))
    }

    fn scalar(&mut self, subquery: &LogicalPlan, site: &mut Site) -> Result<Expr> {
        let domain = self.domain(subquery, site.base())?;
        let Some((value, aggregate)) = above_aggregate(subquery)? else {
            let pushed = self.push(subquery, &domain)?;
            let value = single_value(Expr::Column(pushed.plan.schema().columns()[0].clone()));
            let (found, keys, values) = self.grouped(pushed, vec![value])?;
            site.attach(found, domain.meets(&keys))?;
            return Ok(Expr::Column(values[0].clone()));
        };
        let own = aggregate.schema.columns();
        let pushed = self.push(&aggregate.input, &domain)?;
        let aggregates = aggregate.aggr_expr.iter().map(|expr| pushed.bound(expr.clone(), &domain));
        let aggregates = aggregates.collect::<Result<Vec<_>>>()?;
        let (found, keys, values) = self.grouped(pushed, aggregates)?;
        site.attach(found, domain.meets(&keys))?;
        let value = value.transform_up(|part| match &part {
            Expr::Column(column) => match own.iter().position(|own| own == column) {
                Some(at) => or_of_none(Expr::Column(values[at].clone()), &aggregate.aggr_expr[at], aggregate)
                    .map(Transformed::yes),
                None => Ok(Transformed::no(part)),
            },
            Expr::OuterReferenceColumn(_, column) if domain.position(column).is_some() => {
                Ok(Transformed::yes(Expr::Column(column.clone())))
            }
            _ => Ok(Transformed::no(part)),
        })?;
        Ok(value.data)
    }

    fn exists(&mut self, subquery: &LogicalPlan, site: &mut Site) -> Result<Expr> {
        let subquery = with_same_existence(subquery);
        let domain = self.domain(subquery, site.base())?;
        let pushed = self.push(subquery, &domain)?;
        let (found, keys, values) = self.grouped(pushed, vec![count(lit(1_i64))])?;
        site.attach(found, domain.meets(&keys))?;
        let row_count = Expr::Column(values[0].clone());
        Ok(if keys.is_empty() { row_count.gt(lit(0_i64)) } else { row_count.is_not_null() })
    }

    /// `x IN (SELECT y …)`: true if some y is x, else NULL if that cannot be known, else false.
    fn within(&mut self, within: &InSubquery, site: &mut Site) -> Result<Expr> {
        let InSubquery { expr: operand, subquery, negated } = within;
        let domain = self.domain(&subquery.subquery, site.base())?;
        let pushed = self.push(&subquery.subquery, &domain)?;
        let y = Expr::Column(pushed.plan.schema().columns()[0].clone());
        let operand = checked_operand(operand)?;
        let schema = site.joined.as_ref().unwrap_or(&site.base).schema();
        let is_known = !operand.nullable(schema)? && !y.nullable(pushed.plan.schema())?;
        let unknown = if is_known { None } else { Some(self.counted(pushed.clone(), &domain, &operand, &[], site)?) };
        let matches = Pushed {
            plan: filtered(pushed.plan, vec![y.clone().is_not_null()])?,
            keys: pushed
                .keys
                .into_iter()
                .chain([Column::clone(y.try_as_col().unwrap_or(&Column::from_name("")))])
                .collect(),
        };
        let (found, mut keys, values) = self.grouped(matches, vec![count(lit(1_i64))])?;
        let member = keys.pop().map(Expr::Column).unwrap_or_default();
        let mut conditions = domain.meets(&keys);
        conditions.push(operand.eq(member));
        site.attach(found, conditions)?;
        let is_member = Expr::Column(values[0].clone()).is_not_null();
        let value = match unknown {
            None => is_member,
            Some(otherwise) => when(is_member, lit(true)).otherwise(otherwise.0)?,
        };
        Ok(if *negated { not(value) } else { value })
    }

    /// Joins how many rows there are, and `more` of them; gives what `x op ANY (SELECT y …)` is if no row makes it true:
    /// NULL if x or some y is, else false.
    fn counted(
        &mut self,
        pushed: Pushed,
        domain: &Domain,
        operand: &Expr,
        more: &[fn(Expr) -> Expr],
        site: &mut Site,
    ) -> Result<(Expr, Vec<Expr>)> {
        let y = Expr::Column(pushed.plan.schema().columns()[0].clone());
        let mut aggregates = vec![count(lit(1_i64)), count(y.clone())];
        aggregates.extend(more.iter().map(|aggregate| aggregate(y.clone())));
        let (found, keys, values) = self.grouped(pushed, aggregates)?;
        site.attach(found, domain.meets(&keys))?;
        let mut values = values.into_iter().map(Expr::Column);
        let (rows, known) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
        let is_empty = if keys.is_empty() { rows.clone().eq(lit(0_i64)) } else { rows.clone().is_null() };
        let is_unknown = operand.clone().is_null().or(known.lt(rows));
        let otherwise =
            when(is_empty, lit(false)).when(is_unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?;
        Ok((otherwise, values.collect()))
    }

    /// `x op ANY (SELECT y …)` by the least and the greatest y; ALL is not ANY of the opposite.
    fn compared(&mut self, compared: &SetComparison, site: &mut Site) -> Result<Expr> {
        let SetComparison { expr, subquery, op, quantifier } = compared;
        let is_all = matches!(quantifier, SetQuantifier::All);
        let any = if is_all { op.negate() } else { Some(*op) };
        let refused = || Error::unsupported(format!("{op} with ANY or ALL of a subquery"));
        let any = any.ok_or_else(refused)?;
        let value = match any {
            Operator::Eq => self.within(&InSubquery::new(expr.clone(), subquery.clone(), false), site)?,
            Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                let domain = self.domain(&subquery.subquery, site.base())?;
                let pushed = self.push(&subquery.subquery, &domain)?;
                let operand = checked_operand(expr)?;
                let (otherwise, bounds) = self.counted(pushed, &domain, &operand, &[min, max], site)?;
                let than = |bound: &Expr| {
                    Expr::BinaryExpr(BinaryExpr::new(Box::new(operand.clone()), any, Box::new(bound.clone())))
                };
                let is_met = match any {
                    Operator::NotEq => than(&bounds[0]).or(than(&bounds[1])),
                    Operator::Gt | Operator::GtEq => than(&bounds[0]),
                    _ => than(&bounds[1]),
                };
                when(is_met, lit(true)).otherwise(otherwise)?
            }
            _ => return Err(refused().into()),
        };
        Ok(if is_all { not(value) } else { value })
    }
}

/// The operand of IN, which is computed more than once.
fn checked_operand(operand: &Expr) -> Result<Expr> {
    if operand.is_volatile() {
        return Err(Error::unsupported("IN with an operand that differs each time it is computed").into());
    }
    Ok(operand.clone())
}

/// A plan with rows exactly if `plan` has some.
fn with_same_existence(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(has_subquery) => {
            with_same_existence(&projection.input)
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => with_same_existence(&sort.input),
        LogicalPlan::Distinct(datafusion::logical_expr::Distinct::All(input)) => with_same_existence(input),
        LogicalPlan::Limit(limit) if leaves_first(limit) => with_same_existence(&limit.input),
        plan => plan,
    }
}

/// Whether a LIMIT lets the first row through.
fn leaves_first(limit: &datafusion::logical_expr::Limit) -> bool {
    use datafusion::logical_expr::{FetchType, SkipType};
    let skips_none = matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
    skips_none && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(fetch)) if fetch.is_none_or(|rows| rows > 0))
}

/// The value of a scalar subquery by the columns of the aggregate without groups at its bottom, if that is what it is.
fn above_aggregate(subquery: &LogicalPlan) -> Result<Option<(Expr, &Aggregate)>> {
    let mut value = Expr::Column(subquery.schema().columns()[0].clone());
    let mut plan = subquery;
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => {
                value = computed_by(value, &projection.schema, &projection.expr)?;
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let inner: Vec<Expr> = alias.input.schema().columns().into_iter().map(Expr::Column).collect();
                value = computed_by(value, &alias.schema, &inner)?;
                &alias.input
            }
            LogicalPlan::Filter(filter) => {
                value = when(filter.predicate.clone(), value).end()?;
                &filter.input
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
            LogicalPlan::Limit(limit) if leaves_first(limit) => &limit.input,
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() && !has_subquery(&value) => {
                return Ok(Some((value, aggregate)));
            }
            _ => return Ok(None),
        };
    }
}

/// `expr` with each column of `schema` as the expression that computes it.
fn computed_by(expr: Expr, schema: &DFSchema, exprs: &[Expr]) -> Result<Expr> {
    let replaced = expr.transform_up(|part| match &part {
        Expr::Column(column) => {
            let at = schema.index_of_column(column)?;
            Ok(Transformed::yes(exprs[at].clone().unalias()))
        }
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(replaced.data)
}

/// What the aggregate `call` is of no rows, where `value` is NULL because there are none.
pub(super) fn or_of_none(value: Expr, call: &Expr, aggregate: &Aggregate) -> Result<Expr> {
    let Expr::AggregateFunction(function) = call.clone().unalias() else { return Ok(value) };
    let none = function.func.default_value(&call.get_type(aggregate.input.schema())?)?;
    if none.is_null() {
        return Ok(value);
    }
    when(value.clone().is_not_null(), value).otherwise(lit(none))
}
