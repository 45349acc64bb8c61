//! `PointSelect`: columns of one row.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;
use strata_olap::convert::batch::BatchBuilder;
use strata_oltp::SeqNo;

use super::operand::Parameters;
use super::place::{Named, Place};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::statement::identifier;

/// `SELECT columns FROM t WHERE key = …`.
pub(crate) struct PointSelect {
    pub(super) place: Place,
    schema: SchemaRef,
    wanted: Vec<usize>,
    /// Made when first needed; whoever runs the statement at the same time makes another one.
    builder: Mutex<Option<BatchBuilder>>,
}

impl PointSelect {
    /// `query` as a point statement, if it is one.
    pub(super) fn of(query: &ast::Query, catalog: &Catalog, types: &[ast::DataType]) -> Option<PointSelect> {
        let select = only_select(query)?;
        let [from] = select.from.as_slice() else { return None };
        let named = Named::of(from, catalog)?;
        let (wanted, names) = columns(&select.projection, &named)?;
        let place = Place::new(&named, select.selection.as_ref(), types)?;
        let known = place.table.provider_schema();
        let field = |(position, name): (&usize, String)| -> Field { known.field(*position).clone().with_name(name) };
        let fields: Vec<Field> = wanted.iter().zip(names).map(field).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, known.metadata().clone()));
        Some(PointSelect { place, schema, wanted, builder: Mutex::new(None) })
    }

    /// Names and types of the columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of `row`, if it is the one that is meant. Only for parameters that gave a key.
    ///
    /// # Errors
    /// A damaged row.
    pub(crate) fn read(&self, row: Option<&[u8]>, parameters: Parameters<'_>) -> Result<Option<RecordBatch>> {
        let Some(row) = row else { return Ok(None) };
        if !self.place.accepts(row, parameters)? {
            return Ok(None);
        }
        let kept = self.builder.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut builder = kept.unwrap_or_else(|| BatchBuilder::for_few(&self.place.table.encoder, &self.wanted));
        builder.push(row, SeqNo(0))?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), builder.finish_columns()?)?;
        *self.builder.lock().unwrap_or_else(PoisonError::into_inner) = Some(builder);
        Ok(Some(batch))
    }
}

/// The SELECT that is all there is to `query`. Every clause is named here, so that a new one cannot be overlooked.
fn only_select(query: &ast::Query) -> Option<&ast::Select> {
    let ast::Query {
        with: None,
        body,
        order_by: None,
        limit_clause,
        fetch: None,
        locks,
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators,
    } = query
    else {
        return None;
    };
    let ast::SetExpr::Select(select) = body.as_ref() else { return None };
    let ast::Select {
        select_token: _,
        optimizer_hints,
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: _,
        projection: _,
        exclude: None,
        into: None,
        from: _,
        lateral_views,
        prewhere: None,
        selection: _,
        connect_by,
        group_by: ast::GroupByExpr::Expressions(group_by, group_modifiers),
        cluster_by,
        distribute_by,
        sort_by,
        having: None,
        named_window,
        qualify: None,
        window_before_qualify: _,
        value_table_mode: None,
        flavor: ast::SelectFlavor::Standard,
    } = select.as_ref()
    else {
        return None;
    };
    let has_nothing_else = locks.is_empty()
        && pipe_operators.is_empty()
        && optimizer_hints.is_empty()
        && lateral_views.is_empty()
        && connect_by.is_empty()
        && group_by.is_empty()
        && group_modifiers.is_empty()
        && cluster_by.is_empty()
        && distribute_by.is_empty()
        && sort_by.is_empty()
        && named_window.is_empty()
        && limit_clause.as_ref().is_none_or(keeps_one);
    has_nothing_else.then_some(select)
}

/// Whether a single row passes the clause: `LIMIT 1` and up.
fn keeps_one(clause: &ast::LimitClause) -> bool {
    let ast::LimitClause::LimitOffset { limit: Some(ast::Expr::Value(limit)), offset: None, limit_by } = clause else {
        return false;
    };
    let ast::Value::Number(digits, _) = &limit.value else { return false };
    limit_by.is_empty() && digits.parse::<u32>().is_ok_and(|limit| limit > 0)
}

/// Positions and output names of the items, if all are columns and no two have one name.
fn columns(items: &[ast::SelectItem], named: &Named) -> Option<(Vec<usize>, Vec<String>)> {
    let (mut positions, mut names) = (Vec::new(), Vec::new());
    let name_of = |position: usize| named.table.columns()[position].field.name().clone();
    for item in items {
        match item {
            ast::SelectItem::UnnamedExpr(expr @ (ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_))) => {
                let position = named.column(expr)?;
                positions.push(position);
                names.push(name_of(position));
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                positions.push(named.column(expr)?);
                names.push(identifier(alias));
            }
            ast::SelectItem::Wildcard(options) if is_plain(options) => {
                let all = 0..named.table.columns().len();
                positions.extend(all.clone());
                names.extend(all.map(name_of));
            }
            _ => return None,
        }
    }
    let is_unique = names.iter().enumerate().all(|(at, name)| !names[..at].contains(name));
    is_unique.then_some((positions, names))
}

fn is_plain(options: &ast::WildcardAdditionalOptions) -> bool {
    matches!(
        options,
        ast::WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike: None,
            opt_exclude: None,
            opt_except: None,
            opt_replace: None,
            opt_rename: None,
            opt_alias: None,
        }
    )
}
