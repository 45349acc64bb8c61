//! `Expressions`: new values that an UPDATE computes from the row and its parameters, such as `SET n = n + $1`.
//!
//! They are analysed as a query's expressions are, over the table's columns and one column per parameter, and evaluated on
//! one row. What depends on more than the row (functions of time, sequences, subqueries) is left to the planner.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;

use super::operand::{Parameters, parameter};
use crate::catalog::Table;
use crate::dml::computed;
use crate::error::Result;
use crate::statement::respelled;
use crate::types::is_text;

/// Expressions over a row and parameters of certain types.
pub(super) struct Expressions {
    /// Columns of the table, then parameters.
    schema: SchemaRef,
    values: Vec<(usize, Arc<dyn PhysicalExpr>)>,
}

impl Expressions {
    /// `None` if one of them is not for us.
    pub(super) fn compile(
        table: &Table,
        name: &str,
        expressions: &[(usize, ast::Expr)],
        types: &[DataType],
        state: &SessionState,
    ) -> Option<Expressions> {
        let mut fields: Vec<Field> = table.shape.arrow().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend(
            types.iter().enumerate().map(|(at, data_type)| Field::new(format!("${}", at + 1), data_type.clone(), true)),
        );
        let schema = Arc::new(Schema::new(fields));
        let compile = |(position, expr): &(usize, ast::Expr)| {
            let expr = with_columns(expr.clone(), types)?;
            let expr = respelled(expr).ok()?;
            Some((*position, computed::of_row(expr, name, &schema, state).ok()??))
        };
        let values = expressions.iter().map(compile).collect::<Option<Vec<_>>>()?;
        Some(Expressions { schema, values })
    }

    /// The values for the row `old`, with the positions of their columns.
    ///
    /// # Errors
    /// Whatever an expression runs into.
    pub(super) fn evaluate(&self, old: &[ArrayRef], parameters: Parameters<'_>) -> Result<Vec<(usize, ArrayRef)>> {
        let mut columns = old.to_vec();
        if let Parameters::Scalars(scalars) = parameters {
            for scalar in scalars {
                columns.push(scalar.to_array()?);
            }
        }
        let row = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.values.iter().map(|(position, value)| Ok((*position, value.evaluate(&row)?.into_array(1)?))).collect()
    }
}

/// `expr` with columns in place of parameters. Text is no such column, because a constant of text is of no type yet.
fn with_columns(mut expr: ast::Expr, types: &[DataType]) -> Option<ast::Expr> {
    let visited = ast::visit_expressions_mut(&mut expr, |expr| {
        if matches!(expr, ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. }) {
            return ControlFlow::Break(());
        }
        let Some(number) = parameter(expr) else { return ControlFlow::Continue(()) };
        let is_typed = types.get(number).is_some_and(|data_type| {
            !is_text(data_type)
                && !matches!(data_type, DataType::Null | DataType::Decimal128(..) | DataType::Decimal256(..))
        });
        if !is_typed {
            return ControlFlow::Break(());
        }
        *expr = ast::Expr::Identifier(ast::Ident::with_quote('"', format!("${}", number + 1)));
        ControlFlow::Continue(())
    });
    visited.is_continue().then_some(expr)
}
