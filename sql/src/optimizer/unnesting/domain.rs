//! `Domain`: the different values, in the outer query, of the columns that a subquery reads.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema, Result};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Distinct, Expr, LogicalPlan, Operator};

use super::references::free;
use super::{Unnester, projected};
use crate::error::Error;

/// The columns, and a plan of their different values.
pub(super) struct Domain {
    /// Of the outer query, by the names they have there.
    columns: Vec<Column>,
    /// Whether each may be NULL.
    nullable: Vec<bool>,
    /// Rows of the outer query, or more.
    source: LogicalPlan,
}

impl Domain {
    /// The values of `columns` in the rows of `base`.
    ///
    /// # Errors
    /// 0A000 if these rows may be others each time they are computed.
    pub(super) fn of(columns: Vec<Column>, base: &LogicalPlan) -> Result<Domain> {
        let nullable = columns.iter().map(|column| base.schema().nullable(column)).collect::<Result<_>>()?;
        let source = widened(base, &columns)?;
        if !columns.is_empty() && !is_repeatable(&source)? {
            let error = Error::unsupported("a correlated subquery that reads rows which may differ each time");
            return Err(error.with_hint("write these rows into a table first, or use exact numbers (DECIMAL)").into());
        }
        Ok(Domain { columns, nullable, source })
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The different values, under the names of the outer query.
    pub(super) fn own_plan(&self) -> Result<LogicalPlan> {
        let exprs = self.columns.iter().cloned().map(Expr::Column).collect();
        let values = projected(exprs, Arc::new(self.source.clone()))?;
        Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(values))))
    }

    /// Which of the keys stands for `column`.
    pub(super) fn position(&self, column: &Column) -> Option<usize> {
        self.columns.iter().position(|own| own == column)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether `plan` reads any of the columns.
    pub(super) fn is_read_by(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(free(plan)?.iter().any(|column| self.position(column).is_some()))
    }

    /// That the outer columns have the values `keys`.
    pub(super) fn meets(&self, keys: &[Column]) -> Vec<Expr> {
        let pairs = self.columns.iter().zip(keys);
        pairs.zip(&self.nullable).map(|((own, key), nullable)| same(own, key, *nullable)).collect()
    }

    /// That two copies of the keys have the same values.
    pub(super) fn agree(&self, left: &[Column], right: &[Column]) -> Vec<Expr> {
        left.iter().zip(right).zip(&self.nullable).map(|((l, r), nullable)| same(l, r, *nullable)).collect()
    }

    /// The different values, under names of their own.
    pub(super) fn plan(&self, unnester: &mut Unnester) -> Result<(LogicalPlan, Vec<Column>)> {
        let relation = unnester.name();
        let keys: Vec<Column> =
            (0..self.columns.len()).map(|at| Column::new(Some(relation.clone()), format!("__key_{at}"))).collect();
        let named = |(column, key): (&Column, &Column)| {
            Expr::Column(column.clone()).alias_qualified(key.relation.clone(), key.name.clone())
        };
        let exprs = self.columns.iter().zip(&keys).map(named).collect();
        let values = projected(exprs, Arc::new(self.source.clone()))?;
        Ok((LogicalPlan::Distinct(Distinct::All(Arc::new(values))), keys))
    }
}

fn same(left: &Column, right: &Column, nullable: bool) -> Expr {
    let op = if nullable { Operator::IsNotDistinctFrom } else { Operator::Eq };
    let side = |column: &Column| Box::new(Expr::Column(column.clone()));
    Expr::BinaryExpr(BinaryExpr::new(side(left), op, side(right)))
}

impl Unnester {
    /// The domain of `subquery` in the rows of `base`.
    ///
    /// # Errors
    /// 0A000 if these rows may be others each time they are computed.
    pub(super) fn domain(&mut self, subquery: &LogicalPlan, base: &LogicalPlan) -> Result<Domain> {
        let schema = base.schema();
        let columns: Vec<Column> = free(subquery)?.into_iter().filter(|column| schema.has_column(column)).collect();
        Domain::of(columns, base)
    }
}

/// A plan with at least the values of `columns` that `plan` has, without what makes them depend on the order of rows.
fn widened(plan: &LogicalPlan, columns: &[Column]) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) => widened(&sort.input, columns),
        LogicalPlan::Limit(limit) => widened(&limit.input, columns),
        LogicalPlan::Window(window) if columns.iter().all(|column| window.input.schema().has_column(column)) => {
            widened(&window.input, columns)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let groups = aggregate.group_expr.len();
            let is_group = |column: &Column| aggregate.schema.index_of_column(column).is_ok_and(|at| at < groups);
            let is_plain = aggregate.group_expr.iter().all(|expr| !matches!(expr, Expr::GroupingSet(_)));
            if groups == 0 || !is_plain || aggregate.aggr_expr.is_empty() || !columns.iter().all(is_group) {
                return Ok(plan.clone());
            }
            let grouped = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), Vec::new())?;
            Ok(LogicalPlan::Aggregate(grouped))
        }
        // Computed from what it reads, row by row, so the same once its input is.
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::is_volatile) => {
            let read: Vec<Column> = projection
                .expr
                .iter()
                .flat_map(Expr::column_refs)
                .cloned()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            projected(projection.expr.clone(), Arc::new(widened(&projection.input, &read)?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let positions =
                columns.iter().map(|column| alias.schema.index_of_column(column)).collect::<Result<Vec<_>>>()?;
            let inner = alias.input.schema().columns();
            let read: Vec<Column> = positions.into_iter().map(|at| inner[at].clone()).collect();
            let input = widened(&alias.input, &read)?;
            let named = |(own, from): (&Column, Column)| {
                Expr::Column(from).alias_qualified(own.relation.clone(), own.name.clone())
            };
            projected(columns.iter().zip(read).map(named).collect(), Arc::new(input))
        }
        plan => Ok(plan.clone()),
    }
}

/// Whether the rows of `plan`, as a set, are the same each time: no functions such as `random`, no LIMIT, no ranks among
/// equals, and no sums of floating point numbers, which depend on the order of adding.
fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    let mut is_repeatable = true;
    plan.apply_with_subqueries(|node| {
        is_repeatable &= !matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Extension(_))
            && !matches!(node, LogicalPlan::Distinct(Distinct::On(_)));
        if let LogicalPlan::Aggregate(aggregate) = node {
            let computed = &aggregate.schema.fields()[aggregate.schema.fields().len() - aggregate.aggr_expr.len()..];
            let is_inexact = |data_type: &DataType| data_type.is_floating() || data_type.is_nested();
            let is_bound = |expr: &Expr| {
                expr.exists(|part| {
                    Ok(matches!(part, Expr::AggregateFunction(call) if matches!(call.func.name(), "min" | "max")))
                })
            };
            for (field, expr) in computed.iter().zip(&aggregate.aggr_expr) {
                is_repeatable &= !is_inexact(field.data_type()) || is_bound(expr)?;
            }
        }
        node.apply_expressions(|expr| {
            is_repeatable &= !expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if is_repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(is_repeatable)
}
