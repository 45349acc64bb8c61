//! CREATE, DROP and their kind: checked changes of the transaction's catalog.
//!
//! Nothing happens outside the transaction but that a new table's shape is told to the store, which is harmless if the
//! transaction never commits. Storage that is not needed any more goes after the commit, see [`Effects`].

mod alter;
mod columns;
mod comment;
mod constraint;
mod definition;
mod drop;
mod index;
mod online;
mod qualify;
mod schema;
mod sequence;
mod storage;
mod table;
mod truncate;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use strata_oltp::TableId;

use crate::catalog::index::TableIndex;
use crate::catalog::table::Action;
use crate::catalog::{Catalog, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, TableName, check_name};
use crate::dml::Context;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::pg_catalog::PG_SCHEMA;
use crate::statement::name_parts;
use crate::statement::own::{Own, SequenceOption};

pub(crate) use constraint::{Added, validate};
pub(crate) use index::{abandon, all_rows, build_online, reindexed};
pub(crate) use online::{Online, abandon_pending, remove_pending};
pub(crate) use sequence::undefined as undefined_sequence;

/// What is left to do once the transaction has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Storage that goes.
    pub dropped: Vec<TableId>,
    /// Tables whose shape background work takes up with the commit.
    pub reshaped: BTreeSet<TableId>,
}

/// What a DDL statement has done.
pub(crate) struct Done {
    pub tag: &'static str,
    /// Rows that CREATE TABLE … AS has written.
    pub count: Option<u64>,
}

impl Done {
    fn tag(tag: &'static str) -> Done {
        Done { tag, count: None }
    }
}

/// Runs a DDL statement; the context's catalog becomes what the transaction sees from now on.
///
/// # Errors
/// Names that exist or do not exist, definitions that cannot be, rows that a new rule does not allow.
pub(crate) async fn run(context: &mut Context<'_>, statement: &ast::Statement) -> Result<Done> {
    match statement {
        ast::Statement::CreateTable(create) => table::create(context, create).await,
        ast::Statement::AlterTable(alter) => {
            alter::run(context, alter).await?;
            Ok(Done::tag("ALTER TABLE"))
        }
        ast::Statement::AlterIndex { name, operation: ast::AlterIndexOperation::RenameIndex { index_name } } => {
            let name = context.catalog.locate(&name_parts(name)?)?;
            index::rename(context, &name, &plain_name(index_name)?)?;
            Ok(Done::tag("ALTER INDEX"))
        }
        ast::Statement::CreateIndex(create) => {
            index::create(context, create).await?;
            Ok(Done::tag("CREATE INDEX"))
        }
        ast::Statement::CreateView(create) => {
            view::create(context, create).await?;
            Ok(Done::tag("CREATE VIEW"))
        }
        ast::Statement::CreateSequence {
            temporary: false, if_not_exists, name, data_type, sequence_options, ..
        } => {
            let mut options = sequence::options_of(sequence_options)?;
            options.extend(data_type.clone().map(SequenceOption::As));
            sequence::create(context, name, *if_not_exists, &options)?;
            Ok(Done::tag("CREATE SEQUENCE"))
        }
        ast::Statement::CreateSchema { schema_name, if_not_exists, .. } => {
            schema::create(context, schema_name, *if_not_exists)?;
            Ok(Done::tag("CREATE SCHEMA"))
        }
        ast::Statement::Drop { object_type, if_exists, names, cascade, .. } => {
            drop::run(context, *object_type, *if_exists, names, *cascade)
        }
        ast::Statement::Truncate(truncate) => {
            truncate::run(context, truncate).await?;
            Ok(Done::tag("TRUNCATE TABLE"))
        }
        ast::Statement::Comment { object_type, object_name, comment, .. } => {
            comment::run(context, *object_type, object_name, comment.as_deref())?;
            Ok(Done::tag("COMMENT"))
        }
        // Statistics are those of the segments and the row part, exact at every snapshot: there is nothing to gather.
        ast::Statement::Analyze(analyze) => {
            if let Some(name) = &analyze.table_name {
                context.catalog.table(&context.catalog.locate(&name_parts(name)?)?)?;
            }
            Ok(Done::tag("ANALYZE"))
        }
        other => Err(Error::unsupported(format!("{other}"))),
    }
}

/// Runs a DDL statement that the parser has no rule for.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_own(context: &mut Context<'_>, statement: &Own) -> Result<Done> {
    match statement {
        Own::AlterConstraint { table, if_exists, name, characteristics } => {
            let known_as = context.catalog.locate(&name_parts(table)?)?;
            refuse_system_schema(&known_as.schema)?;
            match context.catalog.table(&known_as).cloned() {
                Err(error) if *if_exists && error.state() != SqlState::WrongObjectType => {}
                table => constraint::alter(context, &*table?, name, characteristics)?,
            }
            Ok(Done::tag("ALTER TABLE"))
        }
        Own::Reindex(what, name) => {
            index::reindex_within(context, *what, name).await?;
            Ok(Done::tag("REINDEX"))
        }
        Own::CreateSequence { name, if_not_exists, options } => {
            sequence::create(context, name, *if_not_exists, options)?;
            Ok(Done::tag("CREATE SEQUENCE"))
        }
        Own::AlterSequence { name, if_exists, change } => {
            sequence::alter(context, name, *if_exists, change)?;
            Ok(Done::tag("ALTER SEQUENCE"))
        }
        Own::Vacuum(_) => {
            Err(Error::new(SqlState::ActiveTransaction, "VACUUM cannot run inside a transaction")
                .with_hint("COMMIT first"))
        }
    }
}

/// Tells the row store about a table that is new to it, and its indexes.
pub(crate) fn register(engine: &Engine, table: &Table) {
    let db = engine.db();
    db.register_table_with(Arc::clone(&table.shape), table.storage.kind, table.storage.compaction.clone());
    table.indexes.iter().for_each(|index| register_index(engine, index));
}

/// Tells the row store about the indexes that `altered` has and `before` has not. Nothing else: the shape of a table with
/// rows is settled by the commit that changes it, and until then its rows must be kept as they are.
fn register_new_indexes(engine: &Engine, before: &Table, altered: &Table) {
    let is_new = |index: &&TableIndex| !before.indexes.iter().any(|known| known.id() == index.id());
    altered.indexes.iter().filter(is_new).for_each(|index| register_index(engine, index));
}

fn register_index(engine: &Engine, index: &TableIndex) {
    engine.db().register_table(Arc::clone(&index.shape), strata_oltp::schema::StorageKind::Row);
}

/// The name of something that is about to be created.
///
/// # Errors
/// Reserved names, and schemas that do not exist or belong to Strata.
fn new_name(catalog: &Catalog, what: &str, name: &ast::ObjectName) -> Result<TableName> {
    let name = catalog.locate_new(&name_parts(name)?)?;
    check_name(what, &name.table)?;
    refuse_system_schema(&name.schema)?;
    if catalog.tables_of(&name.schema).is_none() {
        return Err(catalog.undefined_schema(&name.schema));
    }
    Ok(name)
}

/// The name that something gets in its schema.
fn plain_name(name: &ast::ObjectName) -> Result<String> {
    match name_parts(name)?.as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Error::new(SqlState::Syntax, format!("{name} is not a plain name"))
            .with_hint("RENAME TO keeps a thing in its schema")),
    }
}

fn refuse_system_schema(schema: &str) -> Result<()> {
    if schema == SYSTEM_SCHEMA || schema == INFORMATION_SCHEMA || schema == PG_SCHEMA {
        return Err(Error::new(SqlState::InvalidName, format!("schema {schema} belongs to Strata"))
            .with_hint("use another schema"));
    }
    Ok(())
}

fn action(action: Option<ast::ReferentialAction>) -> Action {
    match action {
        None | Some(ast::ReferentialAction::NoAction) => Action::Refuse,
        Some(ast::ReferentialAction::Restrict) => Action::Restrict,
        Some(ast::ReferentialAction::Cascade) => Action::Cascade,
        Some(ast::ReferentialAction::SetNull) => Action::SetNull,
        Some(ast::ReferentialAction::SetDefault) => Action::SetDefault,
    }
}
