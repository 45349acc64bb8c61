//! Statements that add an index or a constraint beside writers: what they declare, and what takes it back.

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;
use strata_oltp::commit::Durability;

use super::constraint::{self, Added};
use super::{Context, index, refuse_system_schema};
use crate::catalog::table::Validity;
use crate::catalog::{Catalog, Rules};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::statement::name_parts;

/// Attempts to commit a change of the catalog beside others that change it.
const RETRIES_MAX: usize = 100;

/// A statement that adds something to a table and looks at its rows while others write.
#[derive(Clone, Copy)]
pub(crate) enum Online<'a> {
    Index(&'a ast::CreateIndex),
    Constraint(&'a ast::AlterTable, &'a ast::TableConstraint),
    /// An index of a table that is built anew.
    Reindex(TableId, u32),
}

impl<'a> Online<'a> {
    /// `statement` as one that need not be alone, if it is one.
    pub(crate) fn of(statement: &'a ast::Statement) -> Option<Online<'a>> {
        match statement {
            ast::Statement::CreateIndex(create) => Some(Online::Index(create)),
            ast::Statement::AlterTable(alter) => {
                constraint::only_addition(alter).map(|constraint| Online::Constraint(alter, constraint))
            }
            _ => None,
        }
    }

    /// The command tag.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Online::Index(_) => "CREATE INDEX",
            Online::Constraint(..) => "ALTER TABLE",
            Online::Reindex(..) => "REINDEX",
        }
    }

    /// Adds it to the catalog: the table and what was added, or `None` if there is nothing to do.
    ///
    /// # Errors
    /// Definitions that cannot be.
    pub(crate) fn declare(self, context: &mut Context<'_>) -> Result<Option<(TableId, Added)>> {
        match self {
            Online::Index(create) => {
                Ok(index::declare(context, create, true)?.map(|(table, id)| (table, Added::Unique(id))))
            }
            Online::Constraint(alter, constraint) => {
                let name = context.catalog.locate(&name_parts(&alter.name)?)?;
                refuse_system_schema(&name.schema)?;
                if alter.if_exists && context.catalog.find(&name).is_none() {
                    return Ok(None);
                }
                let table = context.target(&name_parts(&alter.name)?)?;
                let added = constraint::declare(context, &table, constraint, Validity::Pending)?;
                Ok(Some((table.id(), added)))
            }
            Online::Reindex(table, old) => Ok(Some((table, index::declare_anew(context, table, old)?))),
        }
    }
}

/// Removes what could not be added after all.
///
/// # Errors
/// I/O.
pub(crate) fn abandon_pending(engine: &Engine, table: TableId, added: &Added) -> Result<()> {
    match added {
        Added::Unique(id) | Added::Rebuilt { id, .. } => index::abandon(engine, table, *id),
        Added::Condition(name) => change_rules(engine, table, |rules| {
            rules.checks.retain(|check| check.name != *name || check.validity != Validity::Pending);
            rules.foreign_keys.retain(|key| key.name != *name || key.validity != Validity::Pending);
        }),
    }
}

/// Removes the constraints of a table whose statement ended with its process.
///
/// # Errors
/// I/O.
pub(crate) fn remove_pending(engine: &Engine, table: TableId) -> Result<()> {
    change_rules(engine, table, |rules| {
        rules.checks.retain(|check| check.validity != Validity::Pending);
        rules.foreign_keys.retain(|key| key.validity != Validity::Pending);
    })
}

/// Changes the rules of a table, if it is still there, in a transaction of its own.
fn change_rules(engine: &Engine, table: TableId, change: impl Fn(&mut Rules)) -> Result<()> {
    let mut attempt = 0;
    loop {
        let mut txn = engine.db().begin()?;
        let mut catalog = Catalog::clone(&*engine.catalog_at(txn.snapshot())?);
        let Some(table) = catalog.find_id(table).cloned() else { return Ok(()) };
        let mut rules = table.rules.clone();
        change(&mut rules);
        if rules == table.rules {
            return Ok(());
        }
        catalog.put_table(&mut txn, table.with_rules(rules)?)?;
        match txn.commit(Durability::Durable) {
            Err(strata_oltp::Error::Conflict { .. }) if attempt < RETRIES_MAX => attempt += 1,
            other => return other.map(|_| ()).map_err(Error::from),
        }
    }
}
