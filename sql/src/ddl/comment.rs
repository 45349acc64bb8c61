//! COMMENT ON.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use super::{Context, refuse_system_schema};
use crate::error::{Error, Result, SqlState};
use crate::statement::name_parts;

pub(super) fn run(
    context: &mut Context<'_>,
    kind: ast::CommentObject,
    name: &ast::ObjectName,
    comment: Option<&str>,
) -> Result<()> {
    let mut parts = name_parts(name)?;
    let comment = comment.map(str::to_owned);
    match kind {
        ast::CommentObject::Table => {
            let name = context.catalog.locate(&parts)?;
            refuse_system_schema(&name.schema)?;
            let table = Arc::clone(context.catalog.table(&name)?);
            let mut rules = table.rules.clone();
            rules.comment = comment;
            Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
        }
        ast::CommentObject::Column => {
            let column = parts.pop().unwrap_or_default();
            if parts.is_empty() {
                return Err(Error::new(SqlState::Syntax, "COMMENT ON COLUMN needs table.column"));
            }
            let name = context.catalog.locate(&parts)?;
            refuse_system_schema(&name.schema)?;
            let table = Arc::clone(context.catalog.table(&name)?);
            let id = table.column_id(table.column_position(&column)?);
            let mut rules = table.rules.clone();
            match comment {
                Some(comment) => rules.column_comments.insert(id, comment),
                None => rules.column_comments.remove(&id),
            };
            Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
        }
        ast::CommentObject::View => {
            let name = context.catalog.locate(&parts)?;
            let Some(view) = context.catalog.find_view(&name) else {
                return Err(super::view::undefined(context.catalog, &name));
            };
            let mut view = view.as_ref().clone();
            view.options.comment = comment;
            Arc::make_mut(context.catalog).put_view(context.txn, view)
        }
        other => Err(Error::unsupported(format!("COMMENT ON {other}"))),
    }
}
