//! `Work`: one statement that writes, run in an open transaction.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use strata_olap::scan::ScanCounters;

use super::StatementResult;
use super::open::Open;
use crate::catalog::Table;
use crate::copy::{self, Input};
use crate::ddl;
use crate::dml::{Context, Written, change, foreign_keys, insert, merge};
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::point::{NO_PARAMETERS, Parameters, Point};
use crate::prepared::Prepared;
use crate::statement::Kind;
use crate::statement::copy::CopyStatement;
use crate::types::{Origin, assign};

/// Something that writes.
pub(super) enum Work<'a> {
    Statement(&'a Kind),
    /// A statement on single rows, if it is one with these parameters.
    Prepared(&'a Prepared, Parameters<'a>),
    Append(&'a [String], &'a RecordBatch),
    Copy(&'a CopyStatement, &'a Input),
}

impl Open {
    /// What a statement writes with.
    pub(super) fn context<'a>(
        &'a mut self,
        engine: &'a Engine,
        base: &'a SessionState,
        counters: &'a mut Arc<ScanCounters>,
    ) -> Context<'a> {
        Context {
            engine,
            base,
            catalog: &mut self.catalog,
            txn: &mut self.txn,
            counters,
            effects: &mut self.effects,
            suspects: &mut self.suspects,
            deferred: &mut self.deferred,
        }
    }

    /// Runs `work`, foreign keys included as far as they are not deferred.
    pub(super) async fn apply(
        &mut self,
        engine: &Engine,
        base: &SessionState,
        counters: &mut Arc<ScanCounters>,
        work: &Work<'_>,
    ) -> Result<StatementResult> {
        *counters = Arc::new(ScanCounters::default());
        self.suspects.clear();
        let uses_points = self.local.as_ref().unwrap_or(&self.before).point_statements;
        let mut context = self.context(engine, base, counters);
        let bound;
        let work = match work {
            Work::Statement(kind @ (Kind::Update(_) | Kind::Delete(_))) if uses_points => {
                // Short-lived, so an INSERT of constants gains nothing.
                if let Some(point) = Point::of(kind, context.catalog, &[])
                    && let Some(written) = point.write(&mut context, NO_PARAMETERS).await?
                {
                    return written_by(&mut context, kind, written).await;
                }
                work
            }
            Work::Prepared(prepared, parameters) => {
                if uses_points
                    && let Some(point) = prepared.point(context.catalog)
                    && let Some(written) = point.write(&mut context, *parameters).await?
                {
                    return written_by(&mut context, &prepared.statement().kind, written).await;
                }
                bound = prepared.bind_parameters(*parameters)?;
                &Work::Statement(&bound.kind)
            }
            _ => work,
        };
        let (tag, written) = match work {
            Work::Statement(Kind::Ddl(statement)) => {
                let done = ddl::run(&mut context, statement).await?;
                foreign_keys::settle(&mut context, false).await?;
                return Ok(StatementResult::Affected { tag: done.tag, count: done.count });
            }
            Work::Statement(Kind::Own(own)) => {
                let done = ddl::run_own(&mut context, own).await?;
                return Ok(StatementResult::Affected { tag: done.tag, count: done.count });
            }
            Work::Statement(Kind::Insert(insert)) => ("INSERT", insert::run(&mut context, insert).await?),
            Work::Statement(Kind::InsertJson(insert)) => ("INSERT", insert::run_json(&mut context, insert).await?),
            Work::Statement(Kind::Update(update)) => ("UPDATE", change::update(&mut context, update).await?),
            Work::Statement(Kind::Delete(delete)) => ("DELETE", change::delete(&mut context, delete).await?),
            Work::Statement(Kind::Merge(merge)) => ("MERGE", merge::run(&mut context, merge).await?),
            Work::Statement(other) => return Err(Error::internal(format!("{other:?} does not write"))),
            Work::Prepared(..) => return Err(Error::internal("a prepared statement that was not bound")),
            Work::Append(parts, batch) => {
                let table = context.target(parts)?;
                let columns = by_name(&table, batch)?;
                let count = insert::write_columns(&mut context, &table, columns, batch.num_rows()).await?;
                ("INSERT", Written { count, returned: None })
            }
            Work::Copy(copy, input) => {
                let count = Box::pin(copy::load(&mut context, copy, input)).await?;
                ("COPY", Written { count, returned: None })
            }
        };
        finished(&mut context, tag, written).await
    }

    /// Looks at foreign keys that were left for the commit.
    ///
    /// # Errors
    /// 23503.
    pub(super) async fn settle(
        &mut self,
        engine: &Engine,
        base: &SessionState,
        counters: &mut Arc<ScanCounters>,
    ) -> Result<()> {
        self.suspects = std::mem::take(&mut self.deferred);
        foreign_keys::settle(&mut self.context(engine, base, counters), true).await
    }
}

/// What a point statement gave, once its foreign keys are seen to.
async fn written_by(context: &mut Context<'_>, kind: &Kind, written: Written) -> Result<StatementResult> {
    let tag = match kind {
        Kind::Insert(_) => "INSERT",
        Kind::Update(_) => "UPDATE",
        _ => "DELETE",
    };
    finished(context, tag, written).await
}

async fn finished(context: &mut Context<'_>, tag: &'static str, written: Written) -> Result<StatementResult> {
    foreign_keys::settle(context, false).await?;
    Ok(match written.returned {
        Some(rows) => StatementResult::Rows(rows),
        None => StatementResult::Affected { tag, count: Some(written.count) },
    })
}

/// The columns of `batch` in the table's order, matched by name; `None` for those it does not have.
pub(crate) fn by_name(table: &Table, batch: &RecordBatch) -> Result<Vec<Option<ArrayRef>>> {
    let schema = batch.schema();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; table.columns().len()];
    for (at, field) in schema.fields().iter().enumerate() {
        let position = table.column_position(field.name())?;
        let target = &table.columns()[position].field;
        // Text from files is as untyped as text in a statement.
        let array = assign(batch.column(at), target.data_type(), Origin::Literal, target.name())?;
        if columns[position].replace(array).is_some() {
            let message = format!("column {} appears twice in the batch", field.name());
            return Err(Error::new(SqlState::DuplicateColumn, message));
        }
    }
    Ok(columns)
}
