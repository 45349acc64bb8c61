//! `PointUpdate` and `PointDelete`: one row replaced or deleted by its key.
//!
//! Only the reading is done here; what is written, checked and returned is written by [`crate::dml`], as for any UPDATE or
//! DELETE.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use strata_olap::convert::batch::BatchBuilder;
use strata_oltp::SeqNo;

use super::expression::Expressions;
use super::operand::{Operand, Parameters, has_parameters};
use super::place::{Named, Place};
use crate::catalog::Catalog;
use crate::dml::change::{self, Assigned, Tracked};
use crate::dml::returning::{self, Returning};
use crate::dml::writer::{Change, Old, TableWriter};
use crate::dml::{Context, Written, foreign_keys};
use crate::error::Result;

/// `UPDATE t SET column = value, … WHERE key = …`.
pub(crate) struct PointUpdate {
    place: Place,
    update: ast::Update,
    /// What the statement calls the table.
    name: String,
    assigned: Assigned,
    /// Positions and values of columns that are given one.
    given: Vec<(usize, Operand)>,
    /// Positions and expressions of columns that are computed, and the relation's name in them.
    computed: Vec<(usize, ast::Expr)>,
    /// What they come to with parameters of certain types; nothing if it takes the planner.
    compiled: Mutex<Option<Compiled>>,
}

/// Expressions for parameters of these types; none if it takes the planner.
struct Compiled {
    types: Vec<DataType>,
    expressions: Option<Arc<Expressions>>,
}

/// `DELETE FROM t WHERE key = …`.
pub(crate) struct PointDelete {
    place: Place,
    delete: ast::Delete,
    name: String,
}

/// The row under `key`, if it is the one that `place` means.
fn meet(context: &mut Context<'_>, place: &Place, key: &[u8], parameters: Parameters<'_>) -> Result<Option<Vec<u8>>> {
    let Some(row) = context.txn.get(&place.table.shape, key)? else { return Ok(None) };
    if !place.accepts(&row, parameters)? {
        return Ok(None);
    }
    context.counters.add_keys(1);
    Ok(Some(row))
}

/// All stored columns of `row`.
fn columns(place: &Place, row: &[u8]) -> Result<Vec<ArrayRef>> {
    let all: Vec<usize> = (0..place.table.shape.columns.len()).collect();
    let mut builder = BatchBuilder::for_few(&place.table.encoder, &all);
    builder.push(row, SeqNo(0))?;
    Ok(builder.finish_columns()?)
}

impl PointUpdate {
    pub(super) fn of(update: &ast::Update, catalog: &Catalog, types: &[ast::DataType]) -> Option<PointUpdate> {
        let ast::Update {
            update_token: _,
            optimizer_hints,
            table,
            assignments,
            from: None,
            selection,
            returning,
            output: None,
            or: None,
            order_by,
            limit: None,
        } = update
        else {
            return None;
        };
        if !optimizer_hints.is_empty() || !order_by.is_empty() || has_parameters(returning) {
            return None;
        }
        let named = Named::of(table, catalog)?;
        let place = Place::new(&named, selection.as_ref(), types)?;
        let assigned = Assigned::of(assignments, &named.table).ok()?;
        let (mut given, mut computed) = (Vec::new(), Vec::new());
        for (position, value) in &assigned.values {
            let field = &named.table.shape.columns[*position].field;
            match Operand::of(value, field, types) {
                Some(operand) => given.push((*position, operand)),
                // Parameters with types of their own are converted by the planner.
                None if types.is_empty() => computed.push((*position, value.clone())),
                None => return None,
            }
        }
        let (update, name, compiled) = (update.clone(), named.visible_name(), Mutex::new(None));
        Some(PointUpdate { place, update, name, assigned, given, computed, compiled })
    }

    /// Runs it; `None`, and nothing is written, if it takes the planner.
    ///
    /// # Errors
    /// As an UPDATE.
    pub(crate) async fn run(&self, context: &mut Context<'_>, parameters: Parameters<'_>) -> Result<Option<Written>> {
        let Some(expressions) = self.expressions(context, parameters) else { return Ok(None) };
        let table = Arc::clone(&self.place.table);
        // What cannot be stored is refused in the planner's words, whether or not there is a row.
        let stored = |(position, operand): &(usize, Operand)| {
            let field = &table.shape.columns[*position].field;
            Some((*position, operand.given(parameters)?.stored(field).ok()?))
        };
        let Some(values) = self.given.iter().map(stored).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let Some(key) = self.place.key(parameters) else { return Ok(None) };
        context.pin(&table)?;
        let returning = Returning::new(self.update.returning.as_deref(), &self.name);
        let Some(row) = meet(context, &self.place, &key, parameters)? else {
            let returned = returning::rows(context, &table, returning, Vec::new()).await?;
            return Ok(Some(Written { count: 0, returned }));
        };
        let old = columns(&self.place, &row)?;
        let mut new = old.clone();
        let computed = expressions.map_or(Ok(Vec::new()), |expressions| expressions.evaluate(&old, parameters))?;
        for (position, value) in values.into_iter().chain(computed) {
            new[position] = value;
        }
        self.assigned.convert(context, &table, &mut new, 1)?;
        let writer = TableWriter::new(&table);
        let old = match Tracked::of(context, &table, &self.assigned) {
            Tracked::Nothing => Old::SameKeys,
            Tracked::Keys => Old::Keys(vec![key]),
            Tracked::Rows => Old::Rows(writer.batch(old, 1)?),
        };
        let changes = vec![Change { old, new: writer.batch(new, 1)? }];
        let (count, new) = change::write_changes(context, &table, &self.assigned, changes).await?;
        let returned = returning::rows(context, &table, returning, new).await?;
        Ok(Some(Written { count, returned }))
    }

    /// The expressions for parameters of these types; `None` if it takes the planner.
    #[expect(clippy::option_option, reason = "no expressions are something else than none that can be used")]
    fn expressions(&self, context: &Context<'_>, parameters: Parameters<'_>) -> Option<Option<Arc<Expressions>>> {
        if self.computed.is_empty() {
            return Some(None);
        }
        let Parameters::Scalars(scalars) = parameters else { return None };
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Compiled { types, expressions }) = compiled.as_ref()
            && types.len() == scalars.len()
            && types.iter().zip(scalars).all(|(known, scalar)| *known == scalar.data_type())
        {
            return expressions.clone().map(Some);
        }
        let types: Vec<DataType> = scalars.iter().map(ScalarValue::data_type).collect();
        let made = Expressions::compile(&self.place.table, &self.name, &self.computed, &types, context.base);
        let made = made.map(Arc::new);
        *compiled = Some(Compiled { types, expressions: made.clone() });
        made.map(Some)
    }
}

impl PointDelete {
    pub(super) fn of(delete: &ast::Delete, catalog: &Catalog, types: &[ast::DataType]) -> Option<PointDelete> {
        let ast::Delete {
            delete_token: _,
            optimizer_hints,
            tables,
            from: ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from),
            using: None,
            selection,
            returning,
            output: None,
            order_by,
            limit: None,
        } = delete
        else {
            return None;
        };
        let [from] = from.as_slice() else { return None };
        let has_more = !optimizer_hints.is_empty() || !tables.is_empty() || !order_by.is_empty();
        if has_more || has_parameters(returning) {
            return None;
        }
        let named = Named::of(from, catalog)?;
        let place = Place::new(&named, selection.as_ref(), types)?;
        Some(PointDelete { place, delete: delete.clone(), name: named.visible_name() })
    }

    /// Runs it; `None`, and nothing is written, if it takes the planner.
    ///
    /// # Errors
    /// As a DELETE.
    pub(crate) async fn run(&self, context: &mut Context<'_>, parameters: Parameters<'_>) -> Result<Option<Written>> {
        let table = Arc::clone(&self.place.table);
        let Some(key) = self.place.key(parameters) else { return Ok(None) };
        context.pin(&table)?;
        let rows = match meet(context, &self.place, &key, parameters)? {
            None => Vec::new(),
            Some(row) => {
                let needs_row = self.delete.returning.is_some()
                    || !table.indexes.is_empty()
                    || foreign_keys::is_referred_to(context, &table);
                if !needs_row {
                    TableWriter::new(&table).delete_keys(context.txn, [key])?;
                    return Ok(Some(Written { count: 1, returned: None }));
                }
                let columns = columns(&self.place, &row)?;
                vec![RecordBatch::try_new(Arc::clone(table.shape.arrow()), columns)?]
            }
        };
        let returning = Returning::new(self.delete.returning.as_deref(), &self.name);
        change::delete_rows(context, &table, rows, returning).await.map(Some)
    }
}
