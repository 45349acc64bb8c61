//! `Computed`: a table's defaults and CHECK conditions, compiled from their SQL.
//!
//! They are analysed by the same rules as a query's expressions, so `CHECK (a + 1 > 0)` overflows exactly where
//! `SELECT a + 1` does. What gives one value for ever is computed once; what does not (`now()`, `nextval`) anew for each
//! statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::kernels::cast::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue, TableReference};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, LogicalTableSource, UNNAMED_TABLE, Volatility};
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;

use super::{Context, cells};
use crate::catalog::Table;
use crate::error::{Error, Result, SqlState};
use crate::sequences;
use crate::statement::{parse_expression, parse_respelled};
use crate::types::{Origin, assign, sql_name};

/// Defaults and conditions of one table at one version.
pub(crate) struct Computed {
    /// Defaults that never change, by column position: one value of the column's type.
    constants: BTreeMap<usize, ScalarValue>,
    /// Positions of columns whose defaults are computed by each statement.
    varying: Vec<usize>,
    /// The table's checks, in their order.
    checks: Vec<Arc<dyn PhysicalExpr>>,
}

/// What the defaults and checks of `table` come to; compiled on first use.
///
/// # Errors
/// Expressions that name columns or functions that do not exist, or of the wrong type.
pub(crate) fn of<'a>(table: &'a Table, context: &Context<'_>) -> Result<&'a Computed> {
    if let Some(known) = table.computed.get() {
        return Ok(known);
    }
    let compiled = Arc::new(compile(table, context)?);
    Ok(table.computed.get_or_init(|| compiled))
}

/// Whether the expression may give another value for each row.
///
/// # Errors
/// As [`of`].
pub(crate) fn is_volatile(text: &str, context: &Context<'_>) -> Result<bool> {
    let (expr, _) = analysed(text, &Schema::empty(), &state_of(context)?)?;
    Ok(expr.is_volatile())
}

/// DataFusion as an expression of this statement is planned and run with: the clock stands still, sequences count.
fn state_of(context: &Context<'_>) -> Result<SessionState> {
    let mut state = context.base.clone();
    state.mark_start_execution();
    // What is stored means the same on every search path.
    sequences::register(&mut state, context.engine, &context.catalog.at_home())?;
    Ok(state)
}

fn compile(table: &Table, context: &Context<'_>) -> Result<Computed> {
    let mut computed = Computed { constants: BTreeMap::new(), varying: Vec::new(), checks: Vec::new() };
    if table.rules.defaults.is_empty() && table.rules.checks.is_empty() {
        return Ok(computed);
    }
    let (nothing, state) = (Schema::empty(), state_of(context)?);
    let state = &state;
    for (id, text) in &table.rules.defaults {
        let position = table.position_of(*id)?;
        let field = &table.shape.columns[position].field;
        // A default of plain text is as untyped as a constant of the statement.
        if let Some(cell) = cells::cell(&parse_expression(text)?) {
            let array = cells::column(std::iter::once(&cell), field)?;
            computed.constants.insert(position, ScalarValue::try_from_array(&array, 0)?);
            continue;
        }
        let (expr, _) = analysed(text, &nothing, state)?;
        if is_immutable(&expr)? {
            let value = evaluate(text, field, 1, state)?;
            computed.constants.insert(position, ScalarValue::try_from_array(&value, 0)?);
        } else {
            computed.varying.push(position);
        }
    }
    let columns = Schema::new(table.columns().iter().map(|column| column.field.clone()).collect::<Vec<_>>());
    for check in &table.rules.checks {
        let (expr, schema) = analysed(&check.condition, &columns, state)?;
        let condition = state.create_physical_expr(simplified(expr, &schema, state)?, &schema)?;
        let data_type = condition.data_type(&columns)?;
        if !matches!(data_type, DataType::Boolean | DataType::Null) {
            let message =
                format!("the condition of check {} is of type {}, not boolean", check.name, sql_name(&data_type));
            return Err(Error::new(SqlState::DatatypeMismatch, message));
        }
        computed.checks.push(condition);
    }
    Ok(computed)
}

/// The expression `text` over `columns`, as the analyzer of queries leaves it, and what it is an expression over.
fn analysed(text: &str, columns: &Schema, state: &SessionState) -> Result<(Expr, DFSchema)> {
    analysed_over(parse_respelled(text)?, UNNAMED_TABLE, columns, state)
}

/// [`analysed`] of a parsed expression over the columns of `relation`.
fn analysed_over(expr: ast::Expr, relation: &str, columns: &Schema, state: &SessionState) -> Result<(Expr, DFSchema)> {
    let input = if columns.fields().is_empty() {
        LogicalPlanBuilder::empty(true)
    } else {
        let source = Arc::new(LogicalTableSource::new(Arc::new(columns.clone())));
        LogicalPlanBuilder::scan(TableReference::bare(relation), source, None)?
    };
    let schema = input.schema().as_ref().clone();
    let expr = ast::ExprWithAlias { expr, alias: None };
    let expr = state.create_logical_expr_from_sql_expr(expr, &schema)?;
    let plan = input.project([expr])?.build()?;
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    match plan {
        LogicalPlan::Projection(projection) if projection.expr.len() == 1 => {
            Ok((projection.expr[0].clone().unalias_nested().data, schema))
        }
        _ => Err(Error::internal("an expression that became another plan")),
    }
}

/// The expression `expr` over one row of `relation`, ready to be evaluated; `None` if it depends on more than the row.
///
/// # Errors
/// Names that do not exist and types that do not fit.
pub(crate) fn of_row(
    expr: ast::Expr,
    relation: &str,
    columns: &Schema,
    state: &SessionState,
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let (expr, schema) = analysed_over(expr, relation, columns, state)?;
    if !is_immutable(&expr)? {
        return Ok(None);
    }
    Ok(Some(state.create_physical_expr(simplified(expr, &schema, state)?, &schema)?))
}

fn simplified(expr: Expr, schema: &DFSchema, state: &SessionState) -> Result<Expr> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    Ok(ExprSimplifier::new(context).simplify(expr)?)
}

fn is_immutable(expr: &Expr) -> Result<bool> {
    let varies = expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            _ => false,
        })
    })?;
    Ok(!varies)
}

/// `rows` values of the expression `text`, converted to the type of `field`.
fn evaluate(text: &str, field: &Field, rows: usize, state: &SessionState) -> Result<ArrayRef> {
    let (expr, nothing) = analysed(text, &Schema::empty(), state)?;
    let physical = state.create_physical_expr(simplified(expr, &nothing, state)?, &nothing)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let frame = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
    let array = physical.evaluate(&frame)?.into_array(rows)?;
    assign(&array, field.data_type(), Origin::Expression, field.name())
}

impl Computed {
    /// What the column at `position` is in `rows` new rows that leave it out: its number, its default, or NULL.
    ///
    /// # Errors
    /// Whatever the default runs into; 2200H.
    pub(crate) fn missing(
        &self,
        table: &Table,
        position: usize,
        rows: usize,
        context: &Context<'_>,
    ) -> Result<ArrayRef> {
        let field = &table.shape.columns[position].field;
        let id = table.column_id(position);
        if let Some(identity) = table.rules.identities.get(&id) {
            let name = format!("of column {} of table {}", field.name(), table.name);
            let numbers = identity.sequence.next(context.engine.db(), &name, rows)?;
            return Ok(cast(&(Arc::new(Int64Array::from(numbers)) as ArrayRef), field.data_type())?);
        }
        if let Some(constant) = self.constants.get(&position) {
            return Ok(constant.to_array_of_size(rows)?);
        }
        if self.varying.contains(&position) {
            return evaluate(&table.rules.defaults[&id], field, rows, &state_of(context)?);
        }
        Ok(arrow::array::new_null_array(field.data_type(), rows))
    }

    /// Refuses rows that make a condition false; NULL passes.
    ///
    /// # Errors
    /// 23514 naming the check and the first such row.
    pub(crate) fn check(&self, table: &Table, rows: &RecordBatch) -> Result<()> {
        if self.checks.is_empty() {
            return Ok(());
        }
        let visible = rows.project(&(0..table.columns().len()).collect::<Vec<_>>())?;
        for (check, condition) in table.rules.checks.iter().zip(&self.checks) {
            let holds = condition.evaluate(&visible)?.into_array(visible.num_rows())?;
            if *holds.data_type() == DataType::Null {
                continue;
            }
            let holds = holds.as_boolean();
            if let Some(row) = (0..holds.len()).find(|row| holds.is_valid(*row) && !holds.value(*row)) {
                let message = format!("a row for table {} violates check {}", table.name, check.name);
                return Err(Error::new(SqlState::CheckViolation, message).with_detail(format!(
                    "the row is {}; the condition is {}",
                    super::shown(&visible, row),
                    check.condition
                )));
            }
        }
        Ok(())
    }
}
