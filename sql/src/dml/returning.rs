//! RETURNING: a SELECT over the rows that a statement wrote.

use arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast;

use super::{Context, Frames};
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, Table};
use crate::error::{Error, Result};
use crate::query::Rows;
use crate::statement::parse_own;

/// Name of the rows among the frames of the query.
const FRAME: &str = "returned";

/// What RETURNING asks for.
pub(crate) struct Returning<'a> {
    items: &'a [ast::SelectItem],
    /// What the statement calls its table.
    name: String,
}

impl<'a> Returning<'a> {
    pub(crate) fn new(items: Option<&'a [ast::SelectItem]>, name: &str) -> Option<Returning<'a>> {
        items.map(|items| Returning { items, name: name.to_owned() })
    }
}

/// What `returning` makes of `written`, rows with all stored columns.
///
/// # Errors
/// Unknown columns and functions, and whatever the expressions run into.
pub(crate) async fn rows(
    context: &mut Context<'_>,
    table: &Table,
    returning: Option<Returning<'_>>,
    written: Vec<RecordBatch>,
) -> Result<Option<Rows>> {
    let Some(Returning { items, name }) = returning else { return Ok(None) };
    let visible: Vec<usize> = (0..table.columns().len()).collect();
    let mut batches = written.iter().map(|batch| Ok(batch.project(&visible)?)).collect::<Result<Vec<_>>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(table.provider_schema()));
    }
    let alias = name.replace('"', "\"\"");
    let frame = parse_own(&format!("SELECT 1 FROM {CATALOG_NAME}.{HIDDEN_SCHEMA}.{FRAME} AS \"{alias}\""))?;
    let ast::Statement::Query(mut query) = frame else { return Err(Error::internal("a frame that is no query")) };
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items.to_vec();
    }
    let frames = Frames::from([(FRAME.to_owned(), batches)]);
    let drained = context.drain_at(ast::Statement::Query(query), None, frames).await?;
    Ok(Some(Rows::of(drained.schema, drained.batches)))
}
