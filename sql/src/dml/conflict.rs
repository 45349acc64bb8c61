//! ON CONFLICT: rows that are inserted unless their key is there already, and what happens then.
//!
//! ```text
//! DO NOTHING   the row is left out
//! DO UPDATE    SELECT <new values> FROM existing AS t, excluded WHERE …   over the pairs that met
//! ```
//!
//! Always true: no row is changed twice by one statement (21000 says so), because what the second change would start
//! from is not the row that the user sees.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::sql::sqlparser::ast;
use strata_olap::convert::batch::{BatchBuilder, EncodedRows};
use strata_oltp::SeqNo;

use super::change::{Assigned, write_changes};
use super::writer::{Change, KeyEncoder, Old, TableWriter};
use super::{Context, Frames};
use crate::catalog::index::TableIndex;
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, Table};
use crate::error::{Error, Result, SqlState};
use crate::statement::{identifier, name_parts, parse_own};

/// Number of a pair, in both frames.
const PAIR: &str = "_strata_pair";

/// What is done about rows whose key exists.
pub(super) enum Resolution {
    Nothing,
    Update { assigned: Assigned, selection: Option<Box<ast::Expr>> },
}

/// ON CONFLICT of one statement.
pub(super) struct OnConflict {
    /// Whether the primary key is looked at.
    by_key: bool,
    /// Numbers of the unique indexes that are looked at.
    by_index: Vec<u32>,
    resolution: Resolution,
}

/// What became of proposed rows.
pub(super) struct Resolved {
    /// Rows to be inserted.
    pub fresh: RecordBatch,
    /// Rows that exist and are to be updated, with the rows that met them.
    pub existing: RecordBatch,
    pub excluded: RecordBatch,
}

impl OnConflict {
    pub(super) fn new(on: &ast::OnConflict, table: &Table) -> Result<OnConflict> {
        let (by_key, by_index) = arbiters(on.conflict_target.as_ref(), table)?;
        let resolution = match &on.action {
            ast::OnConflictAction::DoNothing => Resolution::Nothing,
            ast::OnConflictAction::DoUpdate(_) if on.conflict_target.is_none() => {
                return Err(Error::new(SqlState::Syntax, "ON CONFLICT DO UPDATE needs to know which conflict")
                    .with_hint("name the columns: ON CONFLICT (…) DO UPDATE"));
            }
            ast::OnConflictAction::DoUpdate(update) => Resolution::Update {
                assigned: Assigned::of(&update.assignments, table)?,
                selection: update.selection.clone().map(Box::new),
            },
        };
        Ok(OnConflict { by_key, by_index, resolution })
    }

    /// Tells rows of `batch` whose key is new from those that meet a row. `accepted` holds the keys of rows that the
    /// statement has inserted or met before.
    pub(super) fn resolve(
        &self,
        context: &Context<'_>,
        table: &Table,
        batch: &RecordBatch,
        accepted: &mut HashSet<Vec<u8>>,
    ) -> Result<Resolved> {
        let rows = table.encoder.encode(batch)?;
        let indexes: Vec<(&TableIndex, EncodedRows)> = table
            .indexes
            .iter()
            .filter(|index| self.by_index.contains(&index.index.id))
            .map(|index| Ok((index, index.entries(batch, &rows)?)))
            .collect::<Result<_>>()?;
        let (mut fresh, mut met, mut excluded) = (Vec::new(), BatchBuilder::new(&table.shape, None, false), Vec::new());
        for row in 0..rows.len() {
            let at = u32::try_from(row).unwrap_or(u32::MAX);
            let keys = self.by_key.then(|| rows.key(row)).into_iter();
            let keys: Vec<&[u8]> = keys.chain(indexes.iter().map(|(_, entries)| entries.key(row))).collect();
            if keys.iter().any(|key| accepted.contains(*key)) {
                match self.resolution {
                    Resolution::Nothing => continue,
                    Resolution::Update { .. } => return Err(twice(table)),
                }
            }
            match self.met_by(context, table, &rows, &indexes, row)? {
                None => {
                    accepted.extend(keys.iter().map(|key| key.to_vec()));
                    fresh.push(at);
                }
                // Left out, so its other keys are free for later rows.
                Some(_) if matches!(self.resolution, Resolution::Nothing) => {}
                Some(existing) => {
                    accepted.extend(keys.iter().map(|key| key.to_vec()));
                    met.push(&existing, SeqNo(0))?;
                    excluded.push(at);
                }
            }
        }
        let taken = |rows: Vec<u32>| Ok::<_, Error>(take_record_batch(batch, &UInt32Array::from(rows))?);
        Ok(Resolved { fresh: taken(fresh)?, existing: met.finish()?, excluded: taken(excluded)? })
    }

    /// The stored row that the proposed one meets.
    fn met_by(
        &self,
        context: &Context<'_>,
        table: &Table,
        rows: &EncodedRows,
        indexes: &[(&TableIndex, EncodedRows)],
        row: usize,
    ) -> Result<Option<Vec<u8>>> {
        if self.by_key
            && let Some(found) = context.txn.get(&table.shape, rows.key(row))?
        {
            return Ok(Some(found));
        }
        for (index, entries) in indexes {
            let Some(entry) = context.txn.get(&index.shape, entries.key(row))? else { continue };
            let mut builder = BatchBuilder::new(&index.shape, None, false);
            builder.push(&entry, SeqNo(0))?;
            let key = index.key_columns(&builder.finish()?, &table.shape);
            let key = KeyEncoder::new(&table.shape)?.encode(&key, 1)?;
            let found = key.first().map(|key| context.txn.get(&table.shape, key)).transpose()?.flatten();
            return found.map(Some).ok_or_else(|| {
                let message = format!("index {} has an entry for a row that does not exist", index.index.name);
                Error::new(SqlState::DataCorrupted, message).with_hint("REINDEX the table")
            });
        }
        Ok(None)
    }

    /// Does what is to be done about rows that met; returns their number and what they are now.
    pub(super) async fn settle(
        &self,
        context: &mut Context<'_>,
        table: &Arc<Table>,
        name: &str,
        resolved: &Resolved,
    ) -> Result<(u64, Vec<RecordBatch>)> {
        let Resolution::Update { assigned, selection } = &self.resolution else { return Ok((0, Vec::new())) };
        if resolved.existing.num_rows() == 0 {
            return Ok((0, Vec::new()));
        }
        let query = pairs_query(table, name, assigned, selection.as_deref())?;
        let frames = Frames::from([
            ("existing".to_owned(), vec![numbered(table, &resolved.existing)?]),
            ("excluded".to_owned(), vec![numbered(table, &resolved.excluded)?]),
        ]);
        let drained = context.drain_at(query, None, frames).await?;
        let updated = concat_batches(&drained.schema, &drained.batches)?;
        let pairs = updated.column(0).as_primitive::<Int64Type>();
        let pairs = UInt32Array::from_iter_values(pairs.values().iter().map(|pair| u32::try_from(*pair).unwrap_or(0)));
        let old = take_record_batch(&resolved.existing, &pairs)?;
        let mut columns: Vec<ArrayRef> = old.columns().to_vec();
        for (at, position) in assigned.values.keys().enumerate() {
            columns[*position] = Arc::clone(updated.column(at + 1));
        }
        assigned.convert(context, table, &mut columns, old.num_rows())?;
        let new = TableWriter::new(table).batch(columns, old.num_rows())?;
        write_changes(context, table, assigned, vec![Change { old: Old::Rows(old), new }]).await
    }
}

fn twice(table: &Table) -> Error {
    let message = format!("ON CONFLICT DO UPDATE would change a row of table {} twice", table.name);
    Error::new(SqlState::CardinalityViolation, message)
        .with_hint("leave out rows with equal keys from what is inserted")
}

/// Whether the primary key, and which unique indexes, decide what a conflict is.
fn arbiters(target: Option<&ast::ConflictTarget>, table: &Table) -> Result<(bool, Vec<u32>)> {
    let unique = || table.rules.indexes.iter().filter(|index| index.is_unique);
    match target {
        None => Ok((!table.has_hidden_key(), unique().map(|index| index.id).collect())),
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let name = name_parts(name)?.pop().unwrap_or_default();
            if !table.has_hidden_key() && name == table.key_name() {
                return Ok((true, Vec::new()));
            }
            let found = unique().find(|index| index.name == name);
            found.map(|index| (false, vec![index.id])).ok_or_else(|| {
                let message = format!("unique constraint {name} of table {} does not exist", table.name);
                Error::new(SqlState::UndefinedObject, message)
            })
        }
        Some(ast::ConflictTarget::Columns(idents)) => {
            let ids = idents.iter().map(|ident| Ok(table.column_id(table.column_position(&identifier(ident))?)));
            let ids = ids.collect::<Result<Vec<u32>>>()?;
            let is_same = |known: &[u32]| known.len() == ids.len() && known.iter().all(|id| ids.contains(id));
            if !table.has_hidden_key() && is_same(&table.key_ids()) {
                return Ok((true, Vec::new()));
            }
            let found: Vec<u32> = unique().filter(|index| is_same(&index.columns)).map(|index| index.id).collect();
            if found.is_empty() {
                let message = format!("no unique constraint of table {} is on just these columns", table.name);
                return Err(Error::new(SqlState::InvalidColumnReference, message)
                    .with_hint("name the columns of the primary key or of a unique index"));
            }
            Ok((false, found))
        }
    }
}

/// The visible columns of `rows`, and their numbers.
fn numbered(table: &Table, rows: &RecordBatch) -> Result<RecordBatch> {
    let visible = table.columns().len();
    let mut fields: Vec<Field> = table.columns().iter().map(|column| column.field.clone()).collect();
    fields.push(Field::new(PAIR, DataType::Int64, false));
    let mut columns = rows.columns()[..visible].to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..rows.num_rows() as i64)));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// `SELECT pair, <new values> FROM existing AS t JOIN excluded ON … WHERE selection`.
fn pairs_query(
    table: &Table,
    name: &str,
    assigned: &Assigned,
    selection: Option<&ast::Expr>,
) -> Result<ast::Statement> {
    let alias = format!("\"{}\"", name.replace('"', "\"\""));
    let hidden = format!("{CATALOG_NAME}.{HIDDEN_SCHEMA}");
    let frame = format!(
        "SELECT {alias}.{PAIR} AS {PAIR} FROM {hidden}.existing AS {alias} \
         JOIN {hidden}.excluded AS excluded ON {alias}.{PAIR} = excluded.{PAIR}"
    );
    let ast::Statement::Query(mut query) = parse_own(&frame)? else {
        return Err(Error::internal("a frame that is no query"));
    };
    let ast::SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a frame that is no SELECT"));
    };
    select.selection = selection.map(|expr| owned(table, name, expr)).transpose()?;
    for (position, expr) in &assigned.values {
        let alias = ast::Ident::with_quote('"', format!("_strata_v{position}"));
        select.projection.push(ast::SelectItem::ExprWithAlias { expr: owned(table, name, expr)?, alias });
    }
    Ok(ast::Statement::Query(query))
}

/// A column without a table means the existing row, as in PostgreSQL, although `excluded` has one of that name too.
fn owned(table: &Table, name: &str, expr: &ast::Expr) -> Result<ast::Expr> {
    let mut expr = expr.clone();
    let visited = ast::visit_expressions_mut(&mut expr, |part| {
        if let ast::Expr::Identifier(ident) = part
            && table.column_position(&identifier(ident)).is_ok()
        {
            *part = ast::Expr::CompoundIdentifier(vec![ast::Ident::with_quote('"', name), ident.clone()]);
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    if visited.is_break() {
        return Err(Error::internal("a visit that ended early"));
    }
    Ok(expr)
}
