//! CREATE, DROP, ALTER and REINDEX of indexes.
//!
//! Within a transaction the index is filled in it; it commits only if nobody else wrote to the table meanwhile. Outside of
//! one it is built online, while others write:
//!
//! 1. declare: from this commit on every writer keeps the index, or conflicts with the commit and tries again;
//! 2. fill: entries of all rows at one later snapshot S, some thousand per transaction. Where the index has any version of
//!    an entry's key already, deleted ones included, a writer was there after the declaration, and the row itself says
//!    whether the entry is still due. The snapshot is held, so no such version is merged away;
//! 3. enable: queries may use it. REINDEX takes the old one away in the same commit.
//!
//! An entry that a writer removes between the look and the commit of a batch is a conflict, and the batch is tried again. If
//! step 2 fails, or the process ends, the index is dropped: by the statement, or when the database is opened.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use strata_olap::convert::batch::BatchBuilder;
use strata_olap::scan::BoundView;
use strata_oltp::commit::Durability;
use strata_oltp::txn::Transaction;
use strata_oltp::{SeqNo, TableId};

use super::constraint::Added;
use super::{Context, drop as drops, refuse_system_schema, register_new_indexes};
use crate::catalog::index::{Index, TableIndex};
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::{CATALOG_NAME, Catalog, Rules, Table, TableName, check_name};
use crate::dml::Frames;
use crate::dml::writer::TableWriter;
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::query::{Reader, Rows};
use crate::statement::own::Reindexed;
use crate::statement::{identifier, name_parts, parse_own};

/// Attempts to commit a single entry, or a change of the catalog, beside others that write it.
const RETRIES_MAX: usize = 100;

/// CREATE INDEX within a transaction.
pub(super) async fn create(context: &mut Context<'_>, create: &ast::CreateIndex) -> Result<()> {
    let Some((table, id)) = declare(context, create, false)? else { return Ok(()) };
    fill_within(context, table, id).await
}

/// Fills the empty index `id` of `table` within the transaction, and enables it.
///
/// # Errors
/// 23505 for two rows that a unique index does not allow.
pub(super) async fn fill_within(context: &mut Context<'_>, table: TableId, id: u32) -> Result<()> {
    let table = table_of(context.catalog, table)?;
    let index = index_of(&table, id)?;
    context.txn.require_untouched(table.id());
    let (writer, encoder) = (TableWriter::new(&table), &table.encoder);
    let drained = context.drain(all_rows(&table)?).await?;
    for batch in &drained.batches {
        let batch = writer.batch(batch.columns().to_vec(), batch.num_rows())?;
        let entries = index.entries(&batch, &encoder.encode(&batch)?)?;
        writer.add_entries(context.txn, index, &entries, &batch, |_| true)?;
    }
    if index.index.is_building {
        let mut rules = table.rules.clone();
        enable(&mut rules, id);
        Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)?;
    }
    Ok(())
}

/// Adds an index to the catalog, without entries: the numbers of its table and its own, or `None` if it exists and may.
///
/// # Errors
/// Names, columns and options that cannot be.
pub(crate) fn declare(
    context: &mut Context<'_>,
    create: &ast::CreateIndex,
    is_building: bool,
) -> Result<Option<(TableId, u32)>> {
    refuse_unsupported(create)?;
    let name = context.catalog.locate(&name_parts(&create.table_name)?)?;
    refuse_system_schema(&name.schema)?;
    let table = context.target(&name_parts(&create.table_name)?)?;
    let mut columns = Vec::new();
    for column in &create.columns {
        let id = indexed_column(&table, column)?;
        if columns.contains(&id) {
            let message = format!("column {} appears twice in the index", column.column.expr);
            return Err(Error::new(SqlState::DuplicateColumn, message));
        }
        columns.push(id);
    }
    let schema = name.schema.clone();
    let index_name = match &create.name {
        Some(given) => {
            let parts = name_parts(given)?;
            let given = parts.last().cloned().unwrap_or_default();
            check_name("index", &given)?;
            TableName { schema, table: given }
        }
        None => {
            let base = format!("{}_{}_idx", table.name, table.column_names(&columns).replace(", ", "_"));
            TableName { table: context.catalog.free_name(&schema, &base, &[]), schema }
        }
    };
    if create.if_not_exists && context.catalog.find_index(&index_name).is_some() {
        return Ok(None);
    }
    context.catalog.check_free("index", &index_name)?;
    let catalog = Arc::make_mut(context.catalog);
    let index = Index {
        name: index_name.table,
        id: catalog.new_storage().0,
        columns,
        is_unique: create.unique,
        nulls_are_equal: create.nulls_distinct == Some(false),
        is_constraint: false,
        is_building,
    };
    let (found, id, mut rules) = (table.id(), index.id, table.rules.clone());
    rules.indexes.push(index);
    let altered = table.with_rules(rules)?;
    register_new_indexes(context.engine, &table, &altered);
    catalog.put_table(context.txn, altered)?;
    Ok(Some((found, id)))
}

fn refuse_unsupported(create: &ast::CreateIndex) -> Result<()> {
    let is_tree = match &create.using {
        None | Some(ast::IndexType::BTree) => true,
        Some(other) => return Err(Error::unsupported(format!("an index USING {other}"))),
    };
    let refused = [
        (!is_tree, "an index that is no tree"),
        (create.predicate.is_some(), "a partial index (WHERE)"),
        (!create.include.is_empty(), "an index that INCLUDEs columns"),
        (!create.with.is_empty() || !create.index_options.is_empty(), "index options"),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(Error::unsupported(what)),
        None => Ok(()),
    }
}

fn indexed_column(table: &Table, column: &ast::IndexColumn) -> Result<u32> {
    let ast::Expr::Identifier(ident) = &column.column.expr else {
        return Err(Error::unsupported(format!("an index on the expression {}", column.column.expr))
            .with_hint("index plain columns"));
    };
    let options = &column.column.options;
    // An index is read in both directions, so that DESC alone makes no difference; where NULLs lie does.
    let is_usual = options.asc != Some(false) && options.nulls_first != Some(true);
    if !is_usual && options.nulls_first.is_some_and(|first| first == (options.asc != Some(false))) {
        return Err(Error::unsupported(format!("an index with NULLs at the other end ({})", column.column)));
    }
    let position = table.column_position(&identifier(ident))?;
    TableIndex::check_type(&table.shape.columns[position].field)?;
    Ok(table.column_id(position))
}

/// ALTER INDEX … RENAME TO. The constraint that it backs is renamed with it.
///
/// # Errors
/// 42704, 42P07.
pub(super) fn rename(context: &mut Context<'_>, name: &TableName, to: &str) -> Result<()> {
    check_name("index", to)?;
    context.catalog.check_free("index", &TableName { schema: name.schema.clone(), table: to.to_owned() })?;
    let catalog = &*context.catalog;
    let found = catalog.find_index(name).map(|(table, _)| table).or_else(|| key_owner(catalog, name)).cloned();
    let table = found.ok_or_else(|| undefined(context.catalog, name))?;
    let mut rules = table.rules.clone();
    match rules.indexes.iter_mut().find(|index| index.name == name.table) {
        Some(index) => to.clone_into(&mut index.name),
        None => rules.primary_key = Some(to.to_owned()),
    }
    Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)
}

/// The table whose primary key has this name.
fn key_owner<'a>(catalog: &'a Catalog, name: &TableName) -> Option<&'a Arc<Table>> {
    let is_key = |table: &&Arc<Table>| !table.has_hidden_key() && table.key_name() == name.table;
    catalog.tables_of(&name.schema)?.find(is_key)
}

/// 42704 with the nearest name.
fn undefined(catalog: &Catalog, name: &TableName) -> Error {
    let known: Vec<&str> =
        catalog.tables().flat_map(|table| &table.rules.indexes).map(|index| index.name.as_str()).collect();
    let hint = crate::error::near::nearest(&name.table, known).map(|near| format!("did you mean {near}?"));
    Error::new(SqlState::UndefinedObject, format!("index {name} does not exist")).with_hint_opt(hint)
}

pub(super) fn drop(context: &mut Context<'_>, name: &TableName, if_exists: bool) -> Result<()> {
    let Some((table, index)) =
        context.catalog.find_index(name).map(|(table, index)| (Arc::clone(table), index.clone()))
    else {
        if if_exists {
            return Ok(());
        }
        return Err(undefined(context.catalog, name));
    };
    if index.is_constraint {
        let message = format!("index {name} backs a unique constraint of table {}", table.qualified_name());
        return Err(Error::new(SqlState::DependentObjects, message).with_hint(format!(
            "use ALTER TABLE {} DROP CONSTRAINT {}",
            table.qualified_name(),
            index.name
        )));
    }
    let is_same =
        |known: &[u32]| known.len() == index.columns.len() && known.iter().all(|id| index.columns.contains(id));
    let others = table.rules.indexes.iter().filter(|other| other.is_unique && other.id != index.id);
    let stands_alone = !is_same(&table.key_ids()) && !others.into_iter().any(|other| is_same(&other.columns));
    let referring = context.catalog.referring_to(table.id()).find(|(_, key)| is_same(&key.parent_columns));
    if let (true, true, Some((child, key))) = (index.is_unique, stands_alone, referring) {
        let message = format!("index {name} is needed by foreign key {} of table {}", key.name, child.name);
        return Err(Error::new(SqlState::DependentObjects, message).with_hint("drop the foreign key first"));
    }
    drops::forget_index(context, &table, index.id)
}

/// Fills the declared index `id` of `table` and enables it, in place of `replaced` if that is given.
///
/// # Errors
/// 23505 for two rows that a unique index does not allow; whatever reading runs into. The index is then still declared.
pub(crate) async fn build_online(
    engine: &Engine,
    base: &SessionState,
    table: TableId,
    id: u32,
    replaced: Option<u32>,
) -> Result<()> {
    let snapshot = engine.db().snapshot();
    let catalog = engine.catalog_at(&snapshot)?;
    let table = table_of(&catalog, table)?;
    let view = BoundView::new(snapshot.clone());
    let reader = Reader::new(base, engine, &catalog, view, Frames::new())?;
    let mut rows: Rows = reader.query(all_rows(&table)?).await?;
    while let Some(batch) = rows.next().await? {
        let (engine, table) = (engine.clone(), Arc::clone(&table));
        crate::session::blocking(move || fill(&engine, &table, id, &batch)).await?;
    }
    let (engine, table) = (engine.clone(), table.id());
    let change = replaced.map_or(Change::Enable, Change::Replace);
    crate::session::blocking(move || change_index(&engine, table, id, change)).await
}

/// Removes a declared index that could not be built.
///
/// # Errors
/// I/O.
pub(crate) fn abandon(engine: &Engine, table: TableId, id: u32) -> Result<()> {
    change_index(engine, table, id, Change::Remove)?;
    Ok(engine.db().drop_table(TableId(id))?)
}

/// Writes the entries of `batch`, rows of `table` as of one snapshot that is held: in one transaction, or in as many as it takes beside
/// writers of the same entries. What loses is halved, so that some part always wins.
fn fill(engine: &Engine, table: &Table, id: u32, batch: &RecordBatch) -> Result<()> {
    let index = index_of(table, id)?;
    let writer = TableWriter::new(table);
    let batch = writer.batch(batch.columns().to_vec(), batch.num_rows())?;
    let rows = table.encoder.encode(&batch)?;
    let entries = index.entries(&batch, &rows)?;
    let mut parts = vec![(0..entries.len(), 0)];
    while let Some((part, attempt)) = parts.pop() {
        let mut txn = engine.db().begin()?;
        let newer = engine.catalog_at(txn.snapshot())?;
        index_of(&*table_of(&newer, table.id())?, id)?;
        for row in part.clone() {
            if is_due(&txn, table, index, (rows.key(row), entries.key(row), entries.row(row)))? {
                if index.index.is_unique && txn.contains(index.id(), entries.key(row))? {
                    return Err(writer.duplicate_entry(index, &batch, row));
                }
                txn.put(index.id(), entries.key(row).to_vec(), entries.row(row).to_vec())?;
            }
        }
        match txn.commit(Durability::Buffered) {
            Err(strata_oltp::Error::Conflict { .. }) if part.len() > 1 => {
                let half = part.start + part.len() / 2;
                parts.extend([(half..part.end, 0), (part.start..half, 0)]);
            }
            Err(strata_oltp::Error::Conflict { .. }) if attempt < RETRIES_MAX => parts.push((part, attempt + 1)),
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

/// Whether the entry of a row of the held snapshot is missing and belongs there now.
fn is_due(
    txn: &Transaction,
    table: &Table,
    index: &TableIndex,
    (row_key, entry_key, entry_row): (&[u8], &[u8], &[u8]),
) -> Result<bool> {
    if let Some(own) = txn.overlay(index.id())
        && own.contains_key(entry_key)
    {
        // Two rows of this batch: the unique check says so.
        return Ok(true);
    }
    let now = txn.snapshot();
    let version = match now.view().rows(index.id()) {
        Some(rows) => rows.get(entry_key, now.seqno())?,
        None => None,
    };
    // Nobody wrote the entry since the declaration, so the row is as it was: whoever changes it writes its entry.
    let Some((_, value)) = version else { return Ok(true) };
    if value.as_deref() == Some(entry_row) {
        return Ok(false);
    }
    let Some(current) = now.get(&table.shape, row_key)? else { return Ok(false) };
    let mut builder = BatchBuilder::new(&table.shape, None, false);
    builder.push(&current, SeqNo(0))?;
    let batch = builder.finish()?;
    let entries = index.entries(&batch, &table.encoder.encode(&batch)?)?;
    Ok(entries.key(0) == entry_key)
}

/// What becomes of an index that was declared.
#[derive(Clone, Copy)]
enum Change {
    Enable,
    Remove,
    /// Enable it in place of another one.
    Replace(u32),
}

/// Enables or removes an index, in a transaction of its own. One that is gone with its table needs no removing.
fn change_index(engine: &Engine, table: TableId, id: u32, change: Change) -> Result<()> {
    let mut attempt = 0;
    loop {
        let mut txn = engine.db().begin()?;
        let mut catalog = Catalog::clone(&*engine.catalog_at(txn.snapshot())?);
        let found = table_of(&catalog, table).and_then(|table| index_of(&table, id).map(|_| Arc::clone(&table)));
        let table = match (found, change) {
            (Err(_), Change::Remove) => return Ok(()),
            (other, _) => other?,
        };
        let mut rules = table.rules.clone();
        match change {
            Change::Enable => enable(&mut rules, id),
            Change::Remove => rules.indexes.retain(|index| index.id != id),
            Change::Replace(old) => replace(&mut rules, id, old)?,
        }
        catalog.put_table(&mut txn, table.with_rules(rules)?)?;
        match txn.commit(Durability::Durable) {
            Err(strata_oltp::Error::Conflict { .. }) if attempt < RETRIES_MAX => attempt += 1,
            other => {
                other?;
                if let Change::Replace(old) = change {
                    engine.db().drop_table(TableId(old))?;
                }
                return Ok(());
            }
        }
    }
}

fn enable(rules: &mut Rules, id: u32) {
    rules.indexes.iter_mut().filter(|index| index.id == id).for_each(|index| index.is_building = false);
}

/// Puts the index `id`, enabled, in the place of `old`, under what name that has by now.
fn replace(rules: &mut Rules, id: u32, old: u32) -> Result<()> {
    enable(rules, id);
    let new = rules.indexes.iter().position(|index| index.id == id).ok_or_else(gone)?;
    let new = rules.indexes.remove(new);
    let place = rules.indexes.iter_mut().find(|index| index.id == old).ok_or_else(gone)?;
    *place = Index { name: place.name.clone(), ..new };
    Ok(())
}

/// The indexes that REINDEX names, with their tables. That of a primary key is the table itself.
///
/// # Errors
/// 42P01, 42704.
pub(crate) fn reindexed(catalog: &Catalog, what: Reindexed, name: &ast::ObjectName) -> Result<Vec<(TableId, u32)>> {
    let name = catalog.locate(&name_parts(name)?)?;
    refuse_system_schema(&name.schema)?;
    match what {
        Reindexed::Table => {
            let table = catalog.table(&name)?;
            let ready = table.rules.indexes.iter().filter(|index| !index.is_building);
            Ok(ready.map(|index| (table.id(), index.id)).collect())
        }
        Reindexed::Index => match catalog.find_index(&name) {
            Some((table, index)) => Ok(vec![(table.id(), index.id)]),
            None if key_owner(catalog, &name).is_some() => Ok(Vec::new()),
            None => Err(undefined(catalog, &name)),
        },
    }
}

/// REINDEX within a transaction.
///
/// # Errors
/// 23505 for rows that a unique index does not allow.
pub(super) async fn reindex_within(context: &mut Context<'_>, what: Reindexed, name: &ast::ObjectName) -> Result<()> {
    for (table, old) in reindexed(context.catalog, what, name)? {
        let Added::Rebuilt { id, .. } = declare_anew(context, table, old)? else { continue };
        fill_within(context, table, id).await?;
        let table = table_of(context.catalog, table)?;
        let mut rules = table.rules.clone();
        replace(&mut rules, id, old)?;
        Arc::make_mut(context.catalog).put_table(context.txn, table.with_rules(rules)?)?;
        context.effects.dropped.push(TableId(old));
    }
    Ok(())
}

/// Declares an empty index like `old` beside it, under the same name.
///
/// # Errors
/// 42704 if it is gone.
pub(super) fn declare_anew(context: &mut Context<'_>, table: TableId, old: u32) -> Result<Added> {
    let table = table_of(context.catalog, table)?;
    context.pin(&table)?;
    let index = index_of(&table, old)?.index.clone();
    let catalog = Arc::make_mut(context.catalog);
    let id = catalog.new_storage().0;
    let mut rules = table.rules.clone();
    rules.indexes.push(Index { id, is_building: true, ..index });
    let altered = table.with_rules(rules)?;
    register_new_indexes(context.engine, &table, &altered);
    catalog.put_table(context.txn, altered)?;
    Ok(Added::Rebuilt { id, old })
}

fn table_of(catalog: &Catalog, id: TableId) -> Result<Arc<Table>> {
    catalog.find_id(id).cloned().ok_or_else(gone)
}

/// 42704 for an index whose table, or which itself, was dropped meanwhile.
fn gone() -> Error {
    Error::new(SqlState::UndefinedObject, "the index was dropped while it was built")
}

fn index_of(table: &Table, id: u32) -> Result<&TableIndex> {
    let found = table.indexes.iter().find(|index| index.index.id == id);
    found.ok_or_else(gone)
}

/// All stored columns of all rows.
pub(crate) fn all_rows(table: &Table) -> Result<ast::Statement> {
    parse_own(&format!("SELECT * FROM {CATALOG_NAME}.{HIDDEN_SCHEMA}.\"{}\"", table.id().0))
}
