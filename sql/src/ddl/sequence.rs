//! CREATE and DROP SEQUENCE, and the options that identity columns share with them.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use super::{Context, new_name};
use crate::catalog::TableName;
use crate::catalog::sequence::{Sequence, SequenceShape};
use crate::error::{Error, Result, SqlState};
use crate::types::{column_type, sql_name};

/// What CREATE SEQUENCE says.
pub(super) struct Create<'a> {
    pub name: &'a ast::ObjectName,
    pub if_not_exists: bool,
    pub data_type: Option<&'a ast::DataType>,
    pub options: &'a [ast::SequenceOptions],
}

pub(super) fn create(context: &mut Context<'_>, create: &Create<'_>) -> Result<()> {
    let name = new_name(context.catalog, "sequence", create.name)?;
    if create.if_not_exists && context.catalog.find_sequence(&name).is_some() {
        return Ok(());
    }
    context.catalog.check_free("sequence", &name)?;
    let data_type = create.data_type.map(column_type).transpose()?.map(|column| column.data_type);
    let catalog = Arc::make_mut(context.catalog);
    let shape = shape(catalog.new_storage(), data_type.as_ref(), create.options)?;
    catalog.put_sequence(context.txn, Sequence { name, shape })
}

pub(super) fn drop(context: &mut Context<'_>, name: &TableName, if_exists: bool) -> Result<()> {
    let Some(sequence) = context.catalog.find_sequence(name).cloned() else {
        return if if_exists { Ok(()) } else { Err(undefined(name)) };
    };
    let uses = |text: &String| text.contains("nextval") && text.contains(&name.table);
    let user = context.catalog.tables().find(|table| table.rules.defaults.values().any(uses));
    if let Some(table) = user {
        let message = format!("sequence {name} is used by a default of table {}", table.qualified_name());
        return Err(Error::new(SqlState::DependentObjects, message).with_hint("drop the default first"));
    }
    Arc::make_mut(context.catalog).remove_sequence(context.txn, name)?;
    context.effects.dropped.push(TableId(sequence.shape.counter));
    Ok(())
}

/// 42P01 for a sequence.
pub(crate) fn undefined(name: &TableName) -> Error {
    Error::new(SqlState::UndefinedTable, format!("sequence {name} does not exist"))
}

/// The sequence that `options` describe, of the integer type `data_type` (BIGINT if there is none).
///
/// # Errors
/// 22023 for limits that cannot be.
pub(super) fn shape(
    counter: TableId,
    data_type: Option<&DataType>,
    options: &[ast::SequenceOptions],
) -> Result<SequenceShape> {
    let (smallest, largest) = match data_type {
        Some(DataType::Int16) => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Some(DataType::Int32) => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some(DataType::Int64) | None => (i64::MIN, i64::MAX),
        Some(other) => {
            let message = format!("a sequence is of type smallint, integer or bigint, not {}", sql_name(other));
            return Err(Error::new(SqlState::InvalidParameter, message));
        }
    };
    let (mut increment, mut min, mut max, mut start, mut is_cycle) = (1, None, None, None, false);
    for option in options {
        match option {
            ast::SequenceOptions::IncrementBy(expr, _) => increment = integer(expr)?,
            ast::SequenceOptions::MinValue(expr) => min = expr.as_ref().map(integer).transpose()?,
            ast::SequenceOptions::MaxValue(expr) => max = expr.as_ref().map(integer).transpose()?,
            ast::SequenceOptions::StartWith(expr, _) => start = Some(integer(expr)?),
            ast::SequenceOptions::Cache(_) => {}
            // The parser says NO CYCLE with true.
            ast::SequenceOptions::Cycle(is_no) => is_cycle = !is_no,
        }
    }
    let refused = |what: String| Err(Error::new(SqlState::InvalidParameter, what));
    if increment == 0 {
        return refused("INCREMENT must not be zero".to_owned());
    }
    let (min, max) = if increment > 0 {
        (min.unwrap_or(1), max.unwrap_or(largest))
    } else {
        (min.unwrap_or(smallest), max.unwrap_or(-1))
    };
    let start = start.unwrap_or(if increment > 0 { min } else { max });
    if min < smallest || max > largest || min >= max {
        return refused(format!("MINVALUE ({min}) must be less than MAXVALUE ({max}), both within the type"));
    }
    if !(min..=max).contains(&start) {
        return refused(format!("START ({start}) must lie within MINVALUE ({min}) and MAXVALUE ({max})"));
    }
    Ok(SequenceShape { counter: counter.0, start, increment, min, max, is_cycle, base: 0 })
}

fn integer(expr: &ast::Expr) -> Result<i64> {
    let text = expr.to_string();
    text.replace(' ', "").parse().map_err(|_| {
        Error::new(SqlState::InvalidParameter, format!("{text} is not an integer that a sequence can have"))
    })
}
