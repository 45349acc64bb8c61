//! CREATE, ALTER and DROP SEQUENCE, and the options that identity columns share with them.
//!
//! A sequence that goes on in another way, by another step or from another number, gets a new counter: a rollback leaves
//! the old one where it was. Numbers that others draw between ALTER and its COMMIT are of the old kind and may come again.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use super::{Context, new_name, plain_name, refuse_system_schema};
use crate::catalog::sequence::{Sequence, SequenceOwner, SequenceShape};
use crate::catalog::{Table, TableName};
use crate::error::{Error, Result, SqlState};
use crate::statement::name_parts;
use crate::statement::own::{SequenceChange, SequenceOption};
use crate::types::{column_type, sql_name};

pub(super) fn create(
    context: &mut Context<'_>,
    name: &ast::ObjectName,
    if_not_exists: bool,
    options: &[SequenceOption],
) -> Result<()> {
    let name = new_name(context.catalog, "sequence", name)?;
    if if_not_exists && context.catalog.find_sequence(&name).is_some() {
        return Ok(());
    }
    context.catalog.check_free("sequence", &name)?;
    let owner = owner(context, &name, options)?.flatten();
    let catalog = Arc::make_mut(context.catalog);
    let shape = shape(catalog.new_storage(), None, options)?.fresh(context.engine.db())?;
    catalog.put_sequence(context.txn, Sequence { name, shape: SequenceShape { owner, ..shape } })
}

/// Changes a sequence with a name of its own, or that of an identity column.
///
/// # Errors
/// 42P01; 22023 for limits that cannot be; 0A000 for new names and owners of what belongs to an identity column.
pub(super) fn alter(
    context: &mut Context<'_>,
    name: &ast::ObjectName,
    if_exists: bool,
    change: &SequenceChange,
) -> Result<()> {
    let (name, shape) = context.catalog.numbering(&name_parts(name)?)?;
    refuse_system_schema(&name.schema)?;
    let Some(shape) = shape else { return if if_exists { Ok(()) } else { Err(undefined(&name)) } };
    let is_named = context.catalog.find_sequence(&name).is_some();
    match change {
        SequenceChange::Rename(new) => {
            if !is_named {
                let error = Error::unsupported(format!("renaming {name}, which numbers an identity column"));
                return Err(error.with_hint("it is named after its table and column"));
            }
            rename(context, &name, &plain_name(new)?)
        }
        SequenceChange::Options(options) => {
            let owned = owner(context, &name, options)?;
            if owned.is_some() && !is_named {
                let error = Error::unsupported(format!("OWNED BY of {name}, which numbers an identity column"));
                return Err(error.with_hint("it belongs to that column"));
            }
            let changed = changed(context, &shape, options)?;
            let changed = SequenceShape { owner: owned.unwrap_or(shape.owner), ..changed };
            Arc::make_mut(context.catalog).replace_numbering(context.txn, shape.counter, &changed)?;
            if changed.counter != shape.counter {
                context.effects.dropped.push(TableId(shape.counter));
            }
            Ok(())
        }
    }
}

fn rename(context: &mut Context<'_>, name: &TableName, new: &str) -> Result<()> {
    refuse_users(context, name)?;
    let renamed = TableName { schema: name.schema.clone(), table: new.to_owned() };
    crate::catalog::check_name("sequence", new)?;
    context.catalog.check_free("sequence", &renamed)?;
    let catalog = Arc::make_mut(context.catalog);
    let Some(sequence) = catalog.find_sequence(name).cloned() else { return Err(undefined(name)) };
    catalog.remove_sequence(context.txn, name)?;
    catalog.put_sequence(context.txn, Sequence { name: renamed, shape: sequence.shape.clone() })
}

/// What OWNED BY says; `None` if it is not there.
#[expect(clippy::option_option, reason = "not said is something else than NONE")]
fn owner(
    context: &Context<'_>,
    sequence: &TableName,
    options: &[SequenceOption],
) -> Result<Option<Option<SequenceOwner>>> {
    let said = options.iter().rev().find_map(|option| match option {
        SequenceOption::OwnedBy(column) => Some(column),
        _ => None,
    });
    let Some(Some(column)) = said else { return Ok(said.map(|_| None)) };
    let mut parts = name_parts(column)?;
    let (Some(column), false) = (parts.pop(), parts.is_empty()) else {
        let error = Error::new(SqlState::Syntax, "OWNED BY names a table and its column, or NONE");
        return Err(error.with_hint("for example OWNED BY t.id"));
    };
    let table = context.catalog.table(&context.catalog.locate(&parts)?)?;
    if table.schema_name != sequence.schema {
        let message = format!("sequence {sequence} must be in the schema of table {}", table.qualified_name());
        return Err(Error::new(SqlState::NotInPrerequisiteState, message));
    }
    let column = table.column_id(table.column_position(&column)?);
    Ok(Some(Some(SequenceOwner { table: table.id().0, column })))
}

/// The shape that `options` make of `old`.
fn changed(context: &mut Context<'_>, old: &SequenceShape, options: &[SequenceOption]) -> Result<SequenceShape> {
    let db = context.engine.db();
    let declared = DeclaredShape::of(old, options)?;
    let (last, is_past_end) = old.last(db)?;
    let mut shape = declared.shape(old.counter);
    let restart = options.iter().rev().find_map(|option| match option {
        SequenceOption::Restart(value) => Some(value.unwrap_or(declared.start)),
        _ => None,
    });
    let moves = shape.increment != old.increment || old.is_cycle || shape.is_cycle || is_past_end;
    if restart.is_none() && !moves {
        check_within(last.unwrap_or(old.start), &shape)?;
        let first = (declared.start != old.start).then_some(declared.start);
        return Ok(SequenceShape { start: old.start, base: old.base, first, ..shape });
    }
    let (start, is_called) = match restart {
        Some(value) => (value, false),
        None => last.map_or((old.start, false), |last| (last, true)),
    };
    check_within(start, &shape)?;
    shape.counter = Arc::make_mut(context.catalog).new_storage().0;
    shape = shape.fresh(db)?;
    if is_called {
        // The new counter's first number is that drawn last; it is nobody's yet, so this is undone with it.
        db.allocate_row_ids(TableId(shape.counter), 1)?;
    }
    let first = (declared.start != start).then_some(declared.start);
    Ok(SequenceShape { start, first, ..shape })
}

fn check_within(value: i64, shape: &SequenceShape) -> Result<()> {
    if (shape.min..=shape.max).contains(&value) {
        return Ok(());
    }
    let message =
        format!("the sequence stands at {value}, beyond MINVALUE ({}) or MAXVALUE ({})", shape.min, shape.max);
    Err(Error::new(SqlState::InvalidParameter, message).with_hint("RESTART it within them"))
}

/// After the table `old` became `new`, its rows gone: sequences that its columns own follow, and begin anew if asked to.
pub(super) fn follow(context: &mut Context<'_>, old: TableId, new: u32, restart: bool) -> Result<()> {
    let owned = |sequence: &&Arc<Sequence>| sequence.shape.owner.is_some_and(|owner| owner.table == old.0);
    let owned: Vec<Arc<Sequence>> = context.catalog.sequences().filter(owned).cloned().collect();
    for sequence in owned {
        let catalog = Arc::make_mut(context.catalog);
        let mut shape = sequence.shape.clone();
        if restart {
            shape = shape.restarted(catalog.new_storage(), context.engine.db())?;
            context.effects.dropped.push(TableId(sequence.shape.counter));
        }
        shape.owner = shape.owner.map(|owner| SequenceOwner { table: new, ..owner });
        catalog.put_sequence(context.txn, Sequence { name: sequence.name.clone(), shape })?;
    }
    Ok(())
}

/// Drops the sequences that a table owns, or one column of it: after the table or the column itself.
///
/// # Errors
/// 2BP01 if defaults of other tables draw from them.
pub(super) fn drop_owned(context: &mut Context<'_>, table: TableId, column: Option<u32>) -> Result<()> {
    let is_owned = |sequence: &&Arc<Sequence>| {
        let owner = sequence.shape.owner;
        owner.is_some_and(|owner| owner.table == table.0 && column.is_none_or(|column| owner.column == column))
    };
    let owned: Vec<TableName> = context.catalog.sequences().filter(is_owned).map(|found| found.name.clone()).collect();
    owned.iter().try_for_each(|name| drop(context, name, true))
}

/// 2BP01 if the default of a column draws from the sequence.
fn refuse_users(context: &Context<'_>, name: &TableName) -> Result<()> {
    let uses = |text: &String| text.contains("nextval") && text.contains(&name.table);
    let is_user = |table: &&Arc<Table>| table.rules.defaults.values().any(uses);
    match context.catalog.tables().find(is_user) {
        Some(table) => {
            let message = format!("sequence {name} is used by a default of table {}", table.qualified_name());
            Err(Error::new(SqlState::DependentObjects, message).with_hint("drop the default first"))
        }
        None => Ok(()),
    }
}

pub(super) fn drop(context: &mut Context<'_>, name: &TableName, if_exists: bool) -> Result<()> {
    let Some(sequence) = context.catalog.find_sequence(name).cloned() else {
        return if if_exists { Ok(()) } else { Err(undefined(name)) };
    };
    refuse_users(context, name)?;
    Arc::make_mut(context.catalog).remove_sequence(context.txn, name)?;
    context.effects.dropped.push(TableId(sequence.shape.counter));
    Ok(())
}

/// 42P01 for a sequence.
pub(crate) fn undefined(name: &TableName) -> Error {
    Error::new(SqlState::UndefinedTable, format!("sequence {name} does not exist"))
}

/// The sequence that `options` describe, of the integer type `data_type` unless they say (BIGINT if nobody does).
///
/// # Errors
/// 22023 for limits that cannot be.
pub(super) fn shape(
    counter: TableId,
    data_type: Option<&DataType>,
    options: &[SequenceOption],
) -> Result<SequenceShape> {
    let bits = data_type.map(bits_of).transpose()?.flatten();
    let fresh = DeclaredShape { bits, increment: 1, min: None, max: None, start: 1, is_cycle: false, cache: None };
    Ok(fresh.with(options, true)?.shape(counter.0))
}

/// The options of an identity column.
///
/// # Errors
/// 22023 for what is no integer.
pub(super) fn options_of(options: &[ast::SequenceOptions]) -> Result<Vec<SequenceOption>> {
    use SequenceOption as Opt;
    let option = |option: &ast::SequenceOptions| {
        Ok(match option {
            ast::SequenceOptions::IncrementBy(expr, _) => Opt::Increment(integer(expr)?),
            ast::SequenceOptions::MinValue(expr) => Opt::Min(expr.as_ref().map(integer).transpose()?),
            ast::SequenceOptions::MaxValue(expr) => Opt::Max(expr.as_ref().map(integer).transpose()?),
            ast::SequenceOptions::StartWith(expr, _) => Opt::Start(integer(expr)?),
            ast::SequenceOptions::Cache(expr) => Opt::Cache(integer(expr)?),
            // The parser says NO CYCLE with true.
            ast::SequenceOptions::Cycle(is_no) => Opt::Cycle(!is_no),
        })
    };
    options.iter().map(option).collect()
}

/// Bits of an integer type, if they are not 64.
fn bits_of(data_type: &DataType) -> Result<Option<u8>> {
    match data_type {
        DataType::Int16 => Ok(Some(16)),
        DataType::Int32 => Ok(Some(32)),
        DataType::Int64 => Ok(None),
        other => {
            let message = format!("a sequence is of type smallint, integer or bigint, not {}", sql_name(other));
            Err(Error::new(SqlState::InvalidParameter, message))
        }
    }
}

/// Smallest and largest number of a type.
fn limits(bits: Option<u8>) -> (i64, i64) {
    match bits {
        Some(16) => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Some(32) => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

/// A sequence as its options say, with nothing about where it stands.
#[derive(Clone, Debug)]
struct DeclaredShape {
    bits: Option<u8>,
    increment: i64,
    /// `None` for what the type and the direction give.
    min: Option<i64>,
    max: Option<i64>,
    start: i64,
    is_cycle: bool,
    cache: Option<i64>,
}

impl DeclaredShape {
    /// What `options` make of a sequence that is there.
    fn of(old: &SequenceShape, options: &[SequenceOption]) -> Result<DeclaredShape> {
        let (min, max) = default_limits(old.bits, old.increment);
        // A limit that is the old type's becomes the new type's.
        let changes_type = options.iter().any(|option| matches!(option, SequenceOption::As(_)));
        let kept = |value: i64, default: i64| (!(changes_type && value == default)).then_some(value);
        let declared = DeclaredShape {
            bits: old.bits,
            increment: old.increment,
            min: kept(old.min, min),
            max: kept(old.max, max),
            start: old.declared_start(),
            is_cycle: old.is_cycle,
            cache: old.cache,
        };
        declared.with(options, false)
    }

    fn with(mut self, options: &[SequenceOption], is_new: bool) -> Result<DeclaredShape> {
        let refused = |what: String| Err(Error::new(SqlState::InvalidParameter, what));
        let mut start = None;
        for option in options {
            match option {
                SequenceOption::As(data_type) => self.bits = bits_of(&column_type(data_type)?.data_type)?,
                SequenceOption::Increment(by) => self.increment = *by,
                SequenceOption::Min(min) => self.min = *min,
                SequenceOption::Max(max) => self.max = *max,
                SequenceOption::Start(number) => start = Some(*number),
                SequenceOption::Cycle(is_cycle) => self.is_cycle = *is_cycle,
                SequenceOption::Cache(count) if *count < 1 => {
                    return refused(format!("CACHE ({count}) must be greater than zero"));
                }
                SequenceOption::Cache(count) => self.cache = (*count != 1).then_some(*count),
                SequenceOption::Restart(_) if is_new => {
                    return Err(Error::new(
                        SqlState::Syntax,
                        "a sequence that is made begins at START, not at RESTART",
                    ));
                }
                SequenceOption::Restart(_) | SequenceOption::OwnedBy(_) => {}
            }
        }
        if self.increment == 0 {
            return refused("INCREMENT must not be zero".to_owned());
        }
        let (smallest, largest) = limits(self.bits);
        let (min, max) = self.limits();
        if min < smallest || max > largest || min >= max {
            return refused(format!("MINVALUE ({min}) must be less than MAXVALUE ({max}), both within the type"));
        }
        let first = if self.increment > 0 { min } else { max };
        self.start = start.unwrap_or(if is_new { first } else { self.start });
        if !(min..=max).contains(&self.start) {
            return refused(format!("START ({}) must lie within MINVALUE ({min}) and MAXVALUE ({max})", self.start));
        }
        Ok(self)
    }

    fn limits(&self) -> (i64, i64) {
        let (min, max) = default_limits(self.bits, self.increment);
        (self.min.unwrap_or(min), self.max.unwrap_or(max))
    }

    fn shape(&self, counter: u32) -> SequenceShape {
        let ((min, max), DeclaredShape { bits, increment, start, is_cycle, cache, .. }) = (self.limits(), self.clone());
        let (base, first, owner) = (0, None, None);
        SequenceShape { counter, start, increment, min, max, is_cycle, base, first, bits, cache, owner }
    }
}

/// Smallest and largest number unless MINVALUE and MAXVALUE say otherwise.
fn default_limits(bits: Option<u8>, increment: i64) -> (i64, i64) {
    let (smallest, largest) = limits(bits);
    if increment > 0 { (1, largest) } else { (smallest, -1) }
}

fn integer(expr: &ast::Expr) -> Result<i64> {
    let text = expr.to_string();
    text.replace(' ', "").parse().map_err(|_| {
        Error::new(SqlState::InvalidParameter, format!("{text} is not an integer that a sequence can have"))
    })
}
