//! A subquery's plan for every value of its domain at once: the dependent join, pushed down until nothing depends.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, NullEquality, Result};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, FetchType, Filter, Join, JoinType, Limit, LogicalPlan, Projection,
    SkipType, Sort, SortExpr, SubqueryAlias, Union, Unnest, Window, lit,
};

use super::domain::Domain;
use super::references::has_subquery;
use super::values::{joined, or_of_none};
use super::{Unnester, columns_of, filtered, named_as, projected};
use crate::error::Error;

/// A plan with the columns of the subquery, in order, and behind them the keys of the domain.
#[derive(Clone)]
pub(super) struct Pushed {
    pub plan: LogicalPlan,
    pub keys: Vec<Column>,
}

impl Pushed {
    /// `expr` with the keys in place of what it reads of the outer query.
    pub(super) fn bound(&self, expr: Expr, domain: &Domain) -> Result<Expr> {
        let bound = expr.transform_up(|part| match &part {
            Expr::OuterReferenceColumn(_, column) => match domain.position(column) {
                Some(at) => Ok(Transformed::yes(Expr::Column(self.keys[at].clone()))),
                None => Ok(Transformed::no(part)),
            },
            _ => Ok(Transformed::no(part)),
        })?;
        Ok(bound.data)
    }

    fn bound_all(&self, exprs: &[Expr], domain: &Domain) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| self.bound(expr.clone(), domain)).collect()
    }

    fn key_exprs(&self) -> Vec<Expr> {
        self.keys.iter().cloned().map(Expr::Column).collect()
    }

    /// The same with its columns in the order that every `Pushed` has.
    fn ordered(self, own: &[Column]) -> Result<Pushed> {
        let columns = own.iter().chain(&self.keys).cloned().collect();
        Ok(Pushed { plan: columns_of(self.plan, columns)?, keys: self.keys })
    }
}

impl Unnester {
    /// `plan` for every value of `domain`.
    ///
    /// # Errors
    /// 0A000 for the few nodes for which it is not built.
    pub(super) fn push(&mut self, plan: &LogicalPlan, domain: &Domain) -> Result<Pushed> {
        if domain.is_empty() {
            return Ok(Pushed { plan: plan.clone(), keys: Vec::new() });
        }
        if !domain.is_read_by(plan)? {
            let (values, keys) = domain.plan(self)?;
            return Ok(Pushed { plan: joined(plan.clone(), values, Vec::new(), JoinType::Inner)?, keys });
        }
        match plan {
            LogicalPlan::Projection(projection) => self.push_projection(projection, domain),
            LogicalPlan::Filter(filter) => self.push_filter(filter, domain),
            LogicalPlan::Aggregate(aggregate) => self.push_aggregate(aggregate, domain),
            LogicalPlan::Join(join) => self.push_join(join, domain),
            LogicalPlan::SubqueryAlias(alias) => self.push_alias(alias, domain),
            LogicalPlan::Sort(sort) => self.push_sort(sort, domain),
            LogicalPlan::Limit(limit) => self.push_limit(limit, domain),
            LogicalPlan::Union(union) => self.push_union(union, domain),
            LogicalPlan::Window(window) => self.push_window(window, domain),
            LogicalPlan::Unnest(unnest) => self.push_unnest(unnest, domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let pushed = self.push(input, domain)?;
                let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(pushed.plan)));
                Ok(Pushed { plan, keys: pushed.keys })
            }
            plan => {
                let what = plan.display().to_string();
                let what = what.split([':', ' ']).next().unwrap_or_default().to_owned();
                Err(Error::unsupported(format!("a subquery that reads the outer query in {what}")).into())
            }
        }
    }

    fn push_projection(&mut self, projection: &Projection, domain: &Domain) -> Result<Pushed> {
        let input = self.push(&projection.input, domain)?;
        let bound = input.bound_all(&projection.expr, domain)?;
        let own = projection.schema.columns();
        let mut exprs: Vec<Expr> = bound.into_iter().zip(&own).map(|(expr, column)| named_as(expr, column)).collect();
        exprs.extend(input.key_exprs());
        Ok(Pushed { plan: projected(exprs, Arc::new(input.plan))?, keys: input.keys })
    }

    /// Over what reads nothing of the outside, the filter is the condition of the join with the domain.
    fn push_filter(&mut self, filter: &Filter, domain: &Domain) -> Result<Pushed> {
        let parts = split_conjunction_owned(filter.predicate.clone());
        if domain.is_read_by(&filter.input)? {
            let input = self.push(&filter.input, domain)?;
            let parts = input.bound_all(&parts, domain)?;
            return Ok(Pushed { plan: filtered(input.plan, parts)?, keys: input.keys });
        }
        let (values, keys) = domain.plan(self)?;
        let own = filter.input.schema().columns();
        let mut pushed = Pushed { plan: filter.input.as_ref().clone(), keys };
        let parts = pushed.bound_all(&parts, domain)?;
        // DataFusion looks for subqueries in filters only.
        let (above, within): (Vec<_>, Vec<_>) = parts.into_iter().partition(has_subquery);
        pushed.plan = filtered(joined(pushed.plan, values, within, JoinType::Inner)?, above)?;
        pushed.ordered(&own)
    }

    fn push_aggregate(&mut self, aggregate: &Aggregate, domain: &Domain) -> Result<Pushed> {
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return Err(Error::unsupported("a correlated subquery with GROUPING SETS, ROLLUP or CUBE").into());
        }
        let input = self.push(&aggregate.input, domain)?;
        let own = aggregate.schema.columns();
        let groups = aggregate.group_expr.len();
        let named = |(expr, column): (Expr, &Column)| named_as(expr, column);
        let mut keys: Vec<Expr> =
            input.bound_all(&aggregate.group_expr, domain)?.into_iter().zip(&own).map(named).collect();
        keys.extend(input.key_exprs());
        let calls = input.bound_all(&aggregate.aggr_expr, domain)?.into_iter().zip(&own[groups..]).map(named).collect();
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input.plan), keys, calls)?);
        if groups > 0 {
            return Pushed { plan: grouped, keys: input.keys }.ordered(&own);
        }
        // Without groups there is a row also of nothing.
        let (values, all) = domain.plan(self)?;
        let complete = joined(values, grouped, domain.agree(&all, &input.keys), JoinType::Left)?;
        let mut exprs = Vec::with_capacity(own.len() + all.len());
        for (column, call) in own.iter().zip(&aggregate.aggr_expr) {
            exprs.push(named_as(or_of_none(Expr::Column(column.clone()), call, aggregate)?, column));
        }
        exprs.extend(all.iter().cloned().map(Expr::Column));
        Ok(Pushed { plan: projected(exprs, Arc::new(complete))?, keys: all })
    }

    fn push_alias(&mut self, alias: &SubqueryAlias, domain: &Domain) -> Result<Pushed> {
        let inner = alias.input.schema().columns();
        let input = self.push(&alias.input, domain)?;
        let renamed = |(from, to): (Column, Column)| Expr::Column(from).alias_qualified(to.relation, to.name);
        let mut exprs: Vec<Expr> = inner.into_iter().zip(alias.schema.columns()).map(renamed).collect();
        exprs.extend(input.key_exprs());
        Ok(Pushed { plan: projected(exprs, Arc::new(input.plan))?, keys: input.keys })
    }

    fn push_sort(&mut self, sort: &Sort, domain: &Domain) -> Result<Pushed> {
        if sort.fetch.is_some() {
            return Err(Error::unsupported("a correlated subquery over a sort that stops early").into());
        }
        let input = self.push(&sort.input, domain)?;
        let expr = bound_order(&input, &sort.expr, domain)?;
        let plan = LogicalPlan::Sort(Sort { expr, input: Arc::new(input.plan), fetch: None });
        Ok(Pushed { plan, keys: input.keys })
    }

    /// The first rows of each value, by their numbers.
    fn push_limit(&mut self, limit: &Limit, domain: &Domain) -> Result<Pushed> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(Error::unsupported("a correlated subquery with a computed LIMIT or OFFSET").into());
        };
        let mut above = Vec::new();
        let mut input = limit.input.as_ref();
        while let LogicalPlan::Projection(projection) = input {
            above.push(projection);
            input = &projection.input;
        }
        let (order, input) = match input {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (sort.expr.as_slice(), sort.input.as_ref()),
            input => (&[] as &[SortExpr], input),
        };
        let own = input.schema().columns();
        let pushed = self.push(input, domain)?;
        let number = Column::new(Some(self.name()), "__number");
        let order = bound_order(&pushed, order, domain)?;
        let numbered = row_number().partition_by(pushed.key_exprs()).order_by(order).build()?;
        let numbered = numbered.alias_qualified(number.relation.clone(), number.name.clone());
        let plan = LogicalPlan::Window(Window::try_new(vec![numbered], Arc::new(pushed.plan))?);
        let position = |rows: usize| lit(u64::try_from(rows).unwrap_or(u64::MAX));
        let mut conditions = vec![Expr::Column(number.clone()).gt(position(skip))];
        if let Some(fetch) = fetch {
            conditions.push(Expr::Column(number).lt_eq(position(skip.saturating_add(fetch))));
        }
        let mut pushed = Pushed { plan: filtered(plan, conditions)?, keys: pushed.keys }.ordered(&own)?;
        for projection in above.into_iter().rev() {
            let bound = pushed.bound_all(&projection.expr, domain)?.into_iter().zip(projection.schema.columns());
            let mut exprs: Vec<Expr> = bound.map(|(expr, column)| named_as(expr, &column)).collect();
            exprs.extend(pushed.key_exprs());
            pushed.plan = projected(exprs, Arc::new(pushed.plan))?;
        }
        Ok(pushed)
    }

    fn push_union(&mut self, union: &Union, domain: &Domain) -> Result<Pushed> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        let mut keys = Vec::new();
        let relation = self.name();
        for input in &union.inputs {
            let pushed = self.push(input, domain)?;
            keys = (0..pushed.keys.len()).map(|at| Column::new_unqualified(format!("{relation}_key_{at}"))).collect();
            let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            exprs.extend(pushed.key_exprs().into_iter().zip(&keys).map(|(key, column)| named_as(key, column)));
            inputs.push(Arc::new(projected(exprs, Arc::new(pushed.plan))?));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let own = union.schema.columns();
        let named = |(from, to): (Column, &Column)| named_as(Expr::Column(from), to);
        let exprs = plan.schema().columns().into_iter().zip(own.iter().chain(&keys)).map(named).collect();
        Ok(Pushed { plan: projected(exprs, Arc::new(plan))?, keys })
    }

    fn push_window(&mut self, window: &Window, domain: &Domain) -> Result<Pushed> {
        let input = self.push(&window.input, domain)?;
        let own = window.schema.columns();
        let first = window.input.schema().fields().len();
        let mut exprs = Vec::with_capacity(window.window_expr.len());
        for (expr, column) in window.window_expr.iter().zip(&own[first..]) {
            let bound = input.bound(expr.clone(), domain)?.transform_up(|part| match part {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(input.key_exprs());
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                part => Ok(Transformed::no(part)),
            })?;
            exprs.push(named_as(bound.data, column));
        }
        let plan = LogicalPlan::Window(Window::try_new(exprs, Arc::new(input.plan))?);
        Pushed { plan, keys: input.keys }.ordered(&own)
    }

    /// What is unnested is a column below; the keys stand beside it in each of its rows.
    fn push_unnest(&mut self, unnest: &Unnest, domain: &Domain) -> Result<Pushed> {
        let input = self.push(&unnest.input, domain)?;
        let own = unnest.schema.columns();
        let plan = Unnest::try_new(Arc::new(input.plan), unnest.exec_columns.clone(), unnest.options.clone())?;
        Pushed { plan: LogicalPlan::Unnest(plan), keys: input.keys }.ordered(&own)
    }

    /// Each side that reads the outside, or whose rows may come without partners, for every value; two such sides meet
    /// where their values are the same.
    fn push_join(&mut self, join: &Join, domain: &Domain) -> Result<Pushed> {
        use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right};
        let (reads_left, reads_right) = (domain.is_read_by(&join.left)?, domain.is_read_by(&join.right)?);
        let (left, right) = match join.join_type {
            Inner => (reads_left || !reads_right, reads_right),
            Left | LeftSemi | LeftAnti | LeftMark => (true, reads_right),
            Right => (reads_left, true),
            Full => (true, true),
            other => return Err(Error::unsupported(format!("a correlated subquery with a {other} join")).into()),
        };
        let mut side = |plan: &LogicalPlan, is_pushed: bool| match is_pushed {
            true => self.push(plan, domain),
            false => Ok(Pushed { plan: plan.clone(), keys: Vec::new() }),
        };
        let (left, right) = (side(&join.left, left)?, side(&join.right, right)?);
        let keys = if left.keys.is_empty() { right.keys.clone() } else { left.keys.clone() };
        let both = Pushed { plan: left.plan.clone(), keys: keys.clone() };
        let mut on = Vec::with_capacity(join.on.len());
        for (l, r) in &join.on {
            on.push((both.bound(l.clone(), domain)?, both.bound(r.clone(), domain)?));
        }
        let mut conditions = join.filter.clone().map(split_conjunction_owned).unwrap_or_default();
        conditions = both.bound_all(&conditions, domain)?;
        if !left.keys.is_empty() && !right.keys.is_empty() {
            match join.null_equality {
                NullEquality::NullEqualsNull => {
                    on.extend(left.key_exprs().into_iter().zip(right.key_exprs()));
                }
                NullEquality::NullEqualsNothing => conditions.extend(domain.agree(&left.keys, &right.keys)),
            }
        }
        // What a key has become may read one side only.
        let (on, moved): (Vec<_>, Vec<_>) =
            on.into_iter().partition(|(l, r)| !l.column_refs().is_empty() && !r.column_refs().is_empty());
        conditions.extend(moved.into_iter().map(|(l, r)| l.eq(r)));
        let (left_keys, right_keys) = (left.keys, right.keys);
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            on,
            conjunction(conditions),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let own = join.schema.columns();
        if join.join_type != Full {
            let keys = if join.join_type == Right { right_keys } else { keys };
            return Pushed { plan, keys }.ordered(&own);
        }
        let mut exprs: Vec<Expr> = own.into_iter().map(Expr::Column).collect();
        for (left, right) in left_keys.iter().zip(right_keys) {
            let either = coalesce(vec![Expr::Column(left.clone()), Expr::Column(right)]);
            exprs.push(either.alias_qualified(left.relation.clone(), left.name.clone()));
        }
        Ok(Pushed { plan: projected(exprs, Arc::new(plan))?, keys: left_keys })
    }
}

fn bound_order(input: &Pushed, order: &[SortExpr], domain: &Domain) -> Result<Vec<SortExpr>> {
    order.iter().map(|key| Ok(SortExpr { expr: input.bound(key.expr.clone(), domain)?, ..key.clone() })).collect()
}
