//! Subqueries become joins, however they read the query around them, after Neumann & Kemper, "Unnesting Arbitrary Queries"
//! (BTW 2015) and Neumann, "Improving Unnesting of Complex Queries" (BTW 2025).
//!
//! ```text
//!   SELECT a, (SELECT count(*) FROM u WHERE u.x < t.b) FROM t
//!
//!   t ⟕ γ key; count (u ⋈ u.x < key domain)          domain = the different b of t, called key
//! ```
//!
//! * [`references`]: which columns of the outside a plan reads;
//! * [`plain`]: what DataFusion decorrelates well itself, and may keep;
//! * [`domain`]: the different values of those columns;
//! * [`dependent`]: a subquery's plan for all values of the domain at once;
//! * [`rowwise`]: FROM functions of the row before them, which need no domain;
//! * [`values`]: from there to the value of `(SELECT …)`, `EXISTS`, `IN`, `ANY` and `ALL` in every row.
//!
//! Always true:
//! * every row of the outer query meets exactly one row of what is joined to it, so none is lost and none doubled;
//! * the domain may hold more than the values needed, never fewer.
//!
//! Comes before type coercion, so that what it makes is coerced like everything else. An expression in a branch of CASE
//! that is not taken is computed all the same, so an error in such a subquery is one.

mod dependent;
mod domain;
mod plain;
mod references;
mod rowwise;
mod values;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, Sort,
    Union, Values, Window,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use references::{free, has_reference, has_subquery, lateral_of, subquery_of};
use values::Site;

/// Replaces subqueries by joins.
#[derive(Debug)]
pub(super) struct Unnesting;

impl AnalyzerRule for Unnesting {
    fn name(&self) -> &'static str {
        "unnesting"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !concerns(&plan)? {
            return Ok(plan);
        }
        let mut unnester = Unnester { name_count: 0, has_changed: false };
        Ok(plan.transform_up_with_subqueries(|node| unnester.node(node))?.data)
    }
}

/// Whether there is a subquery anywhere in `plan`.
fn concerns(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            found |= has_subquery(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// One statement's work.
struct Unnester {
    name_count: usize,
    has_changed: bool,
}

impl Unnester {
    /// A name for a relation that nobody else has in this statement.
    fn name(&mut self) -> String {
        self.name_count += 1;
        format!("__unnested_{}", self.name_count)
    }

    /// One node, whose inputs and subqueries are done.
    fn node(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let node = if self.has_changed { node.recompute_schema()? } else { node };
        if let LogicalPlan::Subquery(mut subquery) = node {
            subquery.outer_ref_columns = subquery.subquery.all_out_ref_exprs();
            return Ok(Transformed::yes(LogicalPlan::Subquery(subquery)));
        }
        if let LogicalPlan::Join(join) = node {
            return self.join(join);
        }
        check_aggregates(&node)?;
        let node = match node {
            LogicalPlan::Aggregate(aggregate) => LogicalPlan::Aggregate(with_groups_once(aggregate)?),
            node => node,
        };
        if !node.expressions().iter().any(has_subquery) {
            return Ok(Transformed::yes(node));
        }
        match node {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Sort(sort) => {
                let columns = sort.input.schema().columns();
                let sorted = self.expressions(LogicalPlan::Sort(with_read_columns(sort)?))?;
                Ok(Transformed::yes(columns_of(sorted.data, columns)?))
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct),
            LogicalPlan::Values(values) => {
                self.has_changed = true;
                rows_as_union(values).map(Transformed::yes)
            }
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => self.expressions(node),
            node => Ok(Transformed::yes(node)),
        }
    }

    /// Above joins that find the values of the subqueries, the same filter without them.
    fn filter(&mut self, filter: Filter) -> Result<Transformed<LogicalPlan>> {
        let schema = Arc::clone(filter.input.schema());
        let (mut open, mut first, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for part in split_conjunction_owned(filter.predicate.clone()) {
            if !has_subquery(&part) {
                first.push(part);
            } else if plain::is_plain_condition(&part, &schema)? {
                kept.push(self.with_named_column(part)?);
            } else {
                open.push(part);
            }
        }
        if open.is_empty() {
            let condition = conjunction(first.into_iter().chain(kept)).unwrap_or_default();
            return Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(condition, filter.input)?)));
        }
        let base = filtered(Arc::unwrap_or_clone(filter.input), first)?;
        let mut site = Site::new(base, true);
        let mut conditions = Vec::with_capacity(open.len());
        for part in open {
            conditions.push(self.without_subqueries(part, &mut site)?);
        }
        conditions.extend(kept);
        self.has_changed |= site.has_joins();
        let plan = filtered(site.into_plan(), conditions)?;
        Ok(Transformed::yes(columns_of(plan, schema.columns())?))
    }

    /// Of `a IN (SELECT …)` that stays: its column by a name that no other has. A cast of it is called as before the cast, and
    /// DataFusion puts the columns beside it that the condition of the join reads.
    fn with_named_column(&mut self, mut part: Expr) -> Result<Expr> {
        if let Expr::InSubquery(within) = &mut part
            && !free(&within.subquery.subquery)?.is_empty()
        {
            let named = plain::with_column_called(&within.subquery.subquery, self.name())?;
            within.subquery.subquery = Arc::new(named);
        }
        Ok(part)
    }

    /// As [`Unnester::filter`], for every other node with one input, which keeps the names of its columns.
    fn expressions(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let is_projection = matches!(node, LogicalPlan::Projection(_));
        let mut site = Site::new(node.inputs()[0].clone(), is_projection);
        let columns = node.schema().columns();
        let of_node = node.expressions();
        // What expressions make stands last: behind the input's columns, or the several columns of a grouping set.
        let first = columns.len().saturating_sub(of_node.len());
        let mut exprs = Vec::new();
        for (at, expr) in of_node.into_iter().enumerate() {
            let expr = match expr {
                Expr::GroupingSet(_) if has_subquery(&expr) => {
                    return Err(Error::unsupported("a subquery in GROUPING SETS, ROLLUP or CUBE").into());
                }
                Expr::GroupingSet(_) => expr,
                expr => self.without_subqueries(expr, &mut site)?,
            };
            let is_named = !matches!(node, LogicalPlan::Sort(_)) && !matches!(expr, Expr::GroupingSet(_));
            exprs.push(if is_named { named_as(expr, &columns[first + at]) } else { expr });
        }
        if !site.has_joins() {
            return Ok(Transformed::yes(node));
        }
        self.has_changed = true;
        let input = Arc::new(site.into_plan());
        let plan = match node {
            LogicalPlan::Projection(_) => return projected(exprs, input).map(Transformed::yes),
            LogicalPlan::Aggregate(aggregate) => {
                let aggregates = exprs.split_off(aggregate.group_expr.len());
                return Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, exprs, aggregates)?)));
            }
            LogicalPlan::Window(_) => LogicalPlan::Window(Window::try_new(exprs, input)?),
            LogicalPlan::Sort(mut sort) => {
                for (key, expr) in sort.expr.iter_mut().zip(exprs) {
                    key.expr = expr;
                }
                LogicalPlan::Sort(Sort { input, ..sort })
            }
            node => node,
        };
        Ok(Transformed::yes(columns_of(plan, columns)?))
    }

    fn distinct_on(&mut self, distinct: DistinctOn) -> Result<Transformed<LogicalPlan>> {
        let mut site = Site::new(distinct.input.as_ref().clone(), false);
        let mut without = |exprs: Vec<Expr>, site: &mut Site| -> Result<Vec<Expr>> {
            exprs.into_iter().map(|expr| self.without_subqueries(expr, site)).collect()
        };
        let on = without(distinct.on_expr, &mut site)?;
        let columns = distinct.schema.columns();
        let named = without(distinct.select_expr, &mut site)?.into_iter().zip(&columns);
        let select = named.map(|(expr, column)| named_as(expr, column)).collect();
        let mut order = distinct.sort_expr.unwrap_or_default();
        for key in &mut order {
            key.expr = self.without_subqueries(key.expr.clone(), &mut site)?;
        }
        self.has_changed |= site.has_joins();
        let order = (!order.is_empty()).then_some(order);
        let distinct = DistinctOn::try_new(on, select, order, Arc::new(site.into_plan()))?;
        Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct))))
    }

    /// DataFusion drops subqueries from the condition of a join. Above an inner join the condition means the same; beside an
    /// outer one the value is joined to the side that it reads.
    fn join(&mut self, join: Join) -> Result<Transformed<LogicalPlan>> {
        if lateral_of(&join.left).or(lateral_of(&join.right)).is_some() {
            return self.lateral(join).map(Transformed::yes);
        }
        let on = join.on.iter().flat_map(|(left, right)| [left, right]);
        if !join.filter.iter().chain(on).any(has_subquery) {
            return Ok(Transformed::yes(LogicalPlan::Join(join)));
        }
        let (mut join, conditions) = without_condition(join);
        if join.join_type == JoinType::Inner {
            let filter =
                Filter::try_new(conjunction(conditions).unwrap_or_default(), Arc::new(LogicalPlan::Join(join)))?;
            return self.filter(filter);
        }
        let columns = join.schema.columns();
        let mut left = Site::new(Arc::unwrap_or_clone(join.left), false);
        let mut right = Site::new(Arc::unwrap_or_clone(join.right), false);
        let (mut kept, mut pairs) = (Vec::new(), Vec::new());
        for part in conditions {
            let part = part.transform_up(|part| {
                let Some(subquery) = subquery_of(&part) else { return Ok(Transformed::no(part)) };
                let mut read = free(&subquery.subquery)?;
                read.extend(part.column_refs().into_iter().cloned());
                let all_in = |site: &Site| read.iter().all(|column| site.base().schema().has_column(column));
                let none_in = |site: &Site| !read.iter().any(|column| site.base().schema().has_column(column));
                if all_in(&right) || none_in(&left) {
                    self.value(part, &mut right).map(Transformed::yes)
                } else if all_in(&left) || none_in(&right) {
                    self.value(part, &mut left).map(Transformed::yes)
                } else {
                    let (value, matches) = self.of_pairs(part, &read, &mut left, &mut right, join.join_type)?;
                    pairs.extend(matches);
                    Ok(Transformed::yes(value))
                }
            })?;
            kept.push(part.data);
        }
        kept.extend(pairs);
        self.has_changed = true;
        join = Join::try_new(
            Arc::new(left.into_plan()),
            Arc::new(right.into_plan()),
            Vec::new(),
            conjunction(kept),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        Ok(Transformed::yes(columns_of(LogicalPlan::Join(join), columns)?))
    }

    /// A subquery in FROM that reads what stands before it.
    fn lateral(&mut self, join: Join) -> Result<LogicalPlan> {
        let is_built = matches!(join.join_type, JoinType::Inner | JoinType::Left) && lateral_of(&join.left).is_none();
        if !is_built {
            return Err(Error::unsupported("LATERAL in this kind of join").into());
        }
        let columns = join.schema.columns();
        let (join, mut conditions) = without_condition(join);
        let body = without_marker(Arc::unwrap_or_clone(join.right))?;
        if join.join_type == JoinType::Inner
            && let Some(plan) = rowwise::over(&body, &join.left)?
        {
            self.has_changed = true;
            return columns_of(filtered(plan, conditions)?, columns);
        }
        let domain = self.domain(&body, &join.left)?;
        let pushed = self.push(&body, &domain)?;
        conditions.extend(domain.meets(&pushed.keys));
        self.has_changed = true;
        let joined = Join::try_new(
            join.left,
            Arc::new(pushed.plan),
            Vec::new(),
            conjunction(conditions),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            false,
        )?;
        columns_of(LogicalPlan::Join(joined), columns)
    }

    /// `expr` with columns in place of the subqueries that are ours; `site` has these columns.
    fn without_subqueries(&mut self, expr: Expr, site: &mut Site) -> Result<Expr> {
        // Beside others, which become conditions of joins, none may be left over.
        let are_all_scalar =
            !expr.exists(|part| Ok(subquery_of(part).is_some() && !matches!(part, Expr::ScalarSubquery(_))))?;
        let replaced = expr.transform_up(|part| {
            let is_ours = match subquery_of(&part) {
                None => false,
                Some(subquery) if are_all_scalar => {
                    let is_correlated = !free(&subquery.subquery)?.is_empty();
                    is_correlated && !(site.joins_scalars && plain::is_plain_scalar(subquery, site.base().schema())?)
                }
                Some(_) => true,
            };
            if is_ours { self.value(part, site).map(Transformed::yes) } else { Ok(Transformed::no(part)) }
        })?;
        Ok(replaced.data)
    }
}

/// `GROUP BY a, a` as `GROUP BY a`: DataFusion keeps the second expression, but no column for it.
fn with_groups_once(aggregate: Aggregate) -> Result<Aggregate> {
    let mut groups: Vec<Expr> = Vec::with_capacity(aggregate.group_expr.len());
    for group in aggregate.group_expr {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Aggregate::try_new_with_schema(aggregate.input, groups, aggregate.aggr_expr, aggregate.schema)
}

/// VALUES whose cells have subqueries: each row as a query of its own, because DataFusion computes cells before it runs any.
fn rows_as_union(values: Values) -> Result<LogicalPlan> {
    let columns = values.schema.columns();
    let row = |cells: Vec<Expr>| {
        let one = LogicalPlanBuilder::empty(true).build()?;
        projected(cells.into_iter().zip(&columns).map(|(cell, column)| named_as(cell, column)).collect(), Arc::new(one))
    };
    let mut rows: Vec<Arc<LogicalPlan>> =
        values.values.into_iter().map(|cells| row(cells).map(Arc::new)).collect::<Result<_>>()?;
    match (rows.len(), rows.pop()) {
        (1, Some(only)) => Ok(Arc::unwrap_or_clone(only)),
        (_, last) => {
            rows.extend(last);
            Ok(LogicalPlan::Union(Union::try_new_with_loose_types(rows)?))
        }
    }
}

/// `plan` with the condition of a join taken out: as equal keys and as a filter.
fn without_condition(mut join: Join) -> (Join, Vec<Expr>) {
    let mut conditions: Vec<Expr> = join.on.drain(..).map(|(left, right)| left.eq(right)).collect();
    conditions.extend(join.filter.take().map(split_conjunction_owned).unwrap_or_default());
    (join, conditions)
}

/// `sort` over a projection that also has the columns below it which subqueries in the sort keys read.
fn with_read_columns(mut sort: Sort) -> Result<Sort> {
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else { return Ok(sort) };
    let (above, below) = (&projection.schema, projection.input.schema());
    let mut exprs = projection.expr.clone();
    for key in &sort.expr {
        key.expr.apply(|part| {
            let Some(subquery) = subquery_of(part) else { return Ok(TreeNodeRecursion::Continue) };
            for column in free(&subquery.subquery)? {
                let column_expr = Expr::Column(column.clone());
                if !above.has_column(&column) && below.has_column(&column) && !exprs.contains(&column_expr) {
                    exprs.push(column_expr);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    if exprs.len() > projection.expr.len() {
        sort.input = Arc::new(projected(exprs, Arc::clone(&projection.input))?);
    }
    Ok(sort)
}

/// A lateral subquery as the plan that it is, under its name.
fn without_marker(plan: LogicalPlan) -> Result<LogicalPlan> {
    let stripped = plan.transform_down(|node| match node {
        LogicalPlan::Subquery(subquery) => {
            Ok(Transformed::new(Arc::unwrap_or_clone(subquery.subquery), true, TreeNodeRecursion::Jump))
        }
        node => Ok(Transformed::no(node)),
    })?;
    Ok(stripped.data)
}

/// `sum(t.a)` within a subquery, where `t` is outside, is an aggregate of the query outside. DataFusion takes it for one of
/// the subquery.
fn check_aggregates(node: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Aggregate(aggregate) = node else { return Ok(()) };
    for expr in &aggregate.aggr_expr {
        let is_foreign = expr.exists(|part| {
            let Expr::AggregateFunction(call) = part else { return Ok(false) };
            let args = &call.params.args;
            Ok(args.iter().any(has_reference) && args.iter().all(|arg| arg.column_refs().is_empty()))
        })?;
        if is_foreign {
            let error = Error::unsupported("an aggregate of columns of the outer query within a subquery");
            return Err(error.with_hint("aggregate in a derived table, and read its column in the subquery").into());
        }
    }
    Ok(())
}

fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    match conjunction(conditions) {
        Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?)),
        None => Ok(plan),
    }
}

fn projected(exprs: Vec<Expr>, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
}

/// Only `columns` of `plan`.
fn columns_of(plan: LogicalPlan, columns: Vec<Column>) -> Result<LogicalPlan> {
    if plan.schema().columns() == columns {
        return Ok(plan);
    }
    projected(columns.into_iter().map(Expr::Column).collect(), Arc::new(plan))
}

/// `expr` under the name that `column` has.
fn named_as(expr: Expr, column: &Column) -> Expr {
    let (relation, name) = expr.qualified_name();
    if relation == column.relation && name == column.name {
        return expr;
    }
    expr.alias_qualified(column.relation.clone(), column.name.clone())
}
