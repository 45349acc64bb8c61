//! `PointInsert`: rows of constants and parameters.

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use datafusion::sql::sqlparser::ast;

use super::operand::{Operand, Parameters, has_parameters};
use super::place::Named;
use crate::catalog::Catalog;
use crate::dml::insert;
use crate::dml::{Context, Written};
use crate::error::Result;
use crate::statement::identifier;

/// More rows are converted column by column, which is cheaper for them.
const ROWS_MAX: usize = 16;

/// `INSERT INTO t … VALUES (…), …`, whatever stands after the rows.
pub(crate) struct PointInsert {
    named: Named,
    insert: ast::Insert,
    name: String,
    /// Positions of the columns that get values.
    columns: Vec<usize>,
    rows: Vec<Vec<Operand>>,
}

impl PointInsert {
    pub(super) fn of(insert: &ast::Insert, catalog: &Catalog, types: &[ast::DataType]) -> Option<PointInsert> {
        let ast::TableObject::TableName(name) = &insert.table else { return None };
        let alias = insert.table_alias.as_ref().map(|alias| identifier(&alias.alias));
        let named = Named::find(name, alias, catalog)?;
        let (columns, rows) = insert::placed_values(insert, &named.table)?;
        if rows.len() > ROWS_MAX || has_parameters(&insert.on) || has_parameters(&insert.returning) {
            return None;
        }
        let operands = |row: &[ast::Expr]| {
            let pairs = row.iter().zip(&columns);
            let operand = |(expr, position): (&ast::Expr, &usize)| {
                Operand::of_inserted(expr, &named.table.columns()[*position].field, types)
            };
            pairs.map(operand).collect::<Option<Vec<_>>>()
        };
        let rows = rows.into_iter().map(operands).collect::<Option<Vec<_>>>()?;
        let name = named.visible_name();
        Some(PointInsert { insert: insert.clone(), name, columns, rows, named })
    }

    /// Runs it; `None`, and nothing is written, if a value is not for its column without a closer look.
    ///
    /// # Errors
    /// As an INSERT.
    pub(crate) async fn run(&self, context: &mut Context<'_>, parameters: Parameters<'_>) -> Result<Option<Written>> {
        let table = &self.named.table;
        let mut arrays: Vec<Option<ArrayRef>> = vec![None; table.columns().len()];
        for (at, position) in self.columns.iter().enumerate() {
            let field = &table.columns()[*position].field;
            let value = |row: &Vec<Operand>| row[at].given(parameters)?.stored(field).ok();
            let Some(values) = self.rows.iter().map(value).collect::<Option<Vec<_>>>() else { return Ok(None) };
            arrays[*position] = Some(match values.as_slice() {
                [value] => value.clone(),
                _ => concat(&values.iter().map(|value| value as &dyn Array).collect::<Vec<_>>())?,
            });
        }
        context.pin(table)?;
        insert::write_row_columns(context, table, &self.name, &self.insert, arrays, self.rows.len()).await.map(Some)
    }
}
