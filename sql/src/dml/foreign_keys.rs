//! Foreign keys: who may refer to what, and what happens to those who refer.
//!
//! Whoever writes a row that refers to a key locks that key shared; whoever deletes or changes a key that others may refer
//! to locks it exclusively, and only then looks for them, in the newest state there is. So of a row that begins to refer
//! and a key that goes, at any isolation level, one waits for the other and sees it. This is PostgreSQL's way
//! (`FOR KEY SHARE`, and a newer snapshot for the check).
//!
//! Always true: a key that is neither there nor referred to is nobody's fault, so one question settles both sides and may
//! be asked as late as at the commit: is the key there, and if not, does anything refer to it?

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, kernels::cmp};
use arrow::datatypes::{Field, Schema};
use strata_oltp::TableId;
use strata_oltp::key::prefix_range;
use strata_oltp::txn::LockMode;

use super::writer::{Change, KeyEncoder, Old, TableWriter};
use super::{Context, Frames, computed, lock, shown_columns};
use crate::catalog::CATALOG_NAME;
use crate::catalog::Table;
use crate::catalog::provider::HIDDEN_SCHEMA;
use crate::catalog::table::{Action, ForeignKey};
use crate::error::{Error, Result, SqlState};
use crate::statement::parse_own;

/// Name of the keys among the frames of our queries.
const KEYS_FRAME: &str = "keys";

/// Keys that may be missing while something refers to them.
#[derive(Clone)]
pub(crate) struct Suspects {
    child: TableId,
    /// The foreign key as it was.
    key: Arc<ForeignKey>,
    /// The keys, one column per column of the foreign key; none of them NULL.
    keys: RecordBatch,
}

impl Suspects {
    /// The foreign key as it is now, whatever it is called; `None` if it was dropped.
    fn key_of<'a>(&self, child: &'a Table) -> Option<&'a ForeignKey> {
        let is_same = |key: &&ForeignKey| {
            let was = &self.key;
            key.columns == was.columns && key.parent == was.parent && key.parent_columns == was.parent_columns
        };
        let keys = || child.rules.foreign_keys.iter().filter(is_same);
        keys().find(|key| key.name == self.key.name).or_else(|| keys().next())
    }
}

/// Rows that were deleted or changed, whose references are still to be seen to.
enum Done {
    Deleted(Arc<Table>, RecordBatch),
    Updated(Arc<Table>, RecordBatch, RecordBatch),
}

/// Whether deleting or updating rows of `table` needs to know all of their columns.
pub(crate) fn is_referred_to(context: &Context<'_>, table: &Table) -> bool {
    context.catalog.referring_to(table.id()).next().is_some()
}

/// Notes what the new rows `batch` refer to. With `assigned`, only keys that have one of these columns.
///
/// # Errors
/// Our own mistakes.
pub(crate) fn note_children(
    context: &mut Context<'_>,
    table: &Table,
    batch: &RecordBatch,
    is_assigned: &dyn Fn(usize) -> bool,
) -> Result<()> {
    for key in &table.rules.foreign_keys {
        let positions = key.columns.iter().map(|id| table.position_of(*id)).collect::<Result<Vec<_>>>()?;
        if positions.iter().any(|position| is_assigned(*position)) {
            let columns = positions.iter().map(|position| Arc::clone(batch.column(*position))).collect();
            context.suspects.extend(suspects(table, key, columns, batch.num_rows())?);
        }
    }
    Ok(())
}

/// Suspects of the rows of `columns` that have no NULL.
fn suspects(child: &Table, key: &ForeignKey, columns: Vec<ArrayRef>, rows: usize) -> Result<Option<Suspects>> {
    let is_whole: BooleanArray = (0..rows).map(|row| Some(columns.iter().all(|column| column.is_valid(row)))).collect();
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| Field::new(format!("k{at}"), column.data_type().clone(), true))
        .collect();
    let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let keys = filter_record_batch(&keys, &is_whole)?;
    Ok((keys.num_rows() > 0).then(|| Suspects { child: child.id(), key: Arc::new(key.clone()), keys }))
}

/// Sees to everything that refers to the rows that went: rows of `table` with all of their stored columns.
///
/// # Errors
/// Whatever the actions run into.
pub(crate) async fn after_delete(context: &mut Context<'_>, table: &Arc<Table>, rows: RecordBatch) -> Result<()> {
    cascade(context, Done::Deleted(Arc::clone(table), rows)).await
}

/// Sees to everything that refers to keys that changed; `old` and `new` hold all stored columns, row by row.
///
/// # Errors
/// Whatever the actions run into.
pub(crate) async fn after_update(
    context: &mut Context<'_>,
    table: &Arc<Table>,
    old: RecordBatch,
    new: RecordBatch,
) -> Result<()> {
    cascade(context, Done::Updated(Arc::clone(table), old, new)).await
}

async fn cascade(context: &mut Context<'_>, first: Done) -> Result<()> {
    let mut queue = vec![first];
    while let Some(done) = queue.pop() {
        let (table, old, new) = match &done {
            Done::Deleted(table, old) => (table, old, None),
            Done::Updated(table, old, new) => (table, old, Some(new)),
        };
        let referring: Vec<(Arc<Table>, ForeignKey)> =
            context.catalog.referring_to(table.id()).map(|(child, key)| (Arc::clone(child), key.clone())).collect();
        for (child, key) in referring {
            if let Some(gone) = Gone::of(table, &child, &key, old, new)? {
                queue.extend(act(context, table, &child, &key, &gone).await?);
            }
        }
    }
    Ok(())
}

/// Keys of a parent that are not there any more, and what they became.
struct Gone {
    suspects: Suspects,
    /// The new keys, row by row, if they changed.
    became: Option<Vec<ArrayRef>>,
    is_update: bool,
}

impl Gone {
    fn of(
        parent: &Table,
        child: &Table,
        key: &ForeignKey,
        old: &RecordBatch,
        new: Option<&RecordBatch>,
    ) -> Result<Option<Gone>> {
        let positions = key.parent_columns.iter().map(|id| parent.position_of(*id)).collect::<Result<Vec<_>>>()?;
        let columns = |batch: &RecordBatch| -> Vec<ArrayRef> {
            positions.iter().map(|position| Arc::clone(batch.column(*position))).collect()
        };
        let (mut old_keys, mut new_keys) = (columns(old), new.map(columns));
        let mut rows = old.num_rows();
        if let Some(new) = &mut new_keys {
            let changed = changed_rows(&old_keys, new, rows)?;
            let keep = |column: &ArrayRef| Ok(arrow::compute::filter(column, &changed)?);
            old_keys = old_keys.iter().map(keep).collect::<Result<_>>()?;
            *new = new.iter().map(keep).collect::<Result<_>>()?;
            rows = changed.true_count();
        }
        let whole: BooleanArray =
            (0..rows).map(|row| Some(old_keys.iter().all(|column| column.is_valid(row)))).collect();
        let became = match new_keys {
            Some(new) => {
                Some(new.iter().map(|column| Ok(arrow::compute::filter(column, &whole)?)).collect::<Result<Vec<_>>>()?)
            }
            None => None,
        };
        let suspects = suspects(child, key, old_keys, rows)?;
        Ok(suspects.map(|suspects| Gone { suspects, became, is_update: new.is_some() }))
    }
}

fn changed_rows(old: &[ArrayRef], new: &[ArrayRef], rows: usize) -> Result<BooleanArray> {
    let mut changed = vec![false; rows];
    for (old, new) in old.iter().zip(new) {
        let differs = cmp::distinct(old, new)?;
        changed.iter_mut().enumerate().for_each(|(row, changed)| *changed |= differs.value(row));
    }
    Ok(changed.into())
}

/// Does what `key` says about the children of keys that are gone; returns what that in turn has done.
async fn act(
    context: &mut Context<'_>,
    parent: &Arc<Table>,
    child: &Arc<Table>,
    key: &ForeignKey,
    gone: &Gone,
) -> Result<Vec<Done>> {
    let action = if gone.is_update { key.on_update } else { key.on_delete };
    lock_keys(context, parent, key, &gone.suspects.keys, LockMode::Exclusive).await?;
    if matches!(action, Action::Refuse | Action::Restrict) {
        context.suspects.push(gone.suspects.clone());
        return Ok(Vec::new());
    }
    let mut done = Vec::new();
    for (children, becomes) in children(context, child, key, gone).await? {
        // Not the statement's target, but written all the same.
        context.pin(child)?;
        let writer = TableWriter::new(child);
        if action == Action::Cascade && !gone.is_update {
            writer.delete(context.txn, &children)?;
            done.push(Done::Deleted(Arc::clone(child), children));
            continue;
        }
        let mut columns = children.columns().to_vec();
        for (at, id) in key.columns.iter().enumerate() {
            let position = child.position_of(*id)?;
            let field = &child.shape.columns[position].field;
            columns[position] = match action {
                Action::Cascade => Arc::clone(&becomes[at]),
                Action::SetDefault => {
                    let defaults = computed::of(child, context)?;
                    let rows = children.num_rows();
                    defaults.missing(child, position, rows, context)?
                }
                _ => arrow::array::new_null_array(field.data_type(), children.num_rows()),
            };
        }
        let new = writer.batch(columns, children.num_rows())?;
        computed::of(child, context)?.check(child, &new)?;
        writer.update(context.txn, &[Change { old: Old::Rows(children.clone()), new: new.clone() }])?;
        let assigned: HashSet<usize> = key.columns.iter().filter_map(|id| child.position_of(*id).ok()).collect();
        note_children(context, child, &new, &|position| assigned.contains(&position))?;
        done.push(Done::Updated(Arc::clone(child), children, new));
    }
    Ok(done)
}

/// Rows of `child` that refer to keys that are gone, with all stored columns, and the keys that these became.
async fn children(
    context: &mut Context<'_>,
    child: &Table,
    key: &ForeignKey,
    gone: &Gone,
) -> Result<Vec<(RecordBatch, Vec<ArrayRef>)>> {
    let width = child.shape.columns.len();
    let mut columns = gone.suspects.keys.columns().to_vec();
    let mut fields: Vec<Field> =
        gone.suspects.keys.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    for (at, became) in gone.became.iter().flatten().enumerate() {
        fields.push(Field::new(format!("n{at}"), became.data_type().clone(), true));
        columns.push(Arc::clone(became));
    }
    let frame = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut items: Vec<String> = (0..width)
        .map(|at| format!("c.{} AS \"_strata_v{at}\"", quoted(child.shape.columns[at].field.name())))
        .collect();
    items.extend((0..gone.became.iter().flatten().count()).map(|at| format!("k.n{at} AS \"_strata_n{at}\"")));
    let query = format!("SELECT {} {}", items.join(", "), join(child, key)?);
    let batches = read_newest(context, &query, frame).await?;
    let stored = |batch: RecordBatch| -> Result<(RecordBatch, Vec<ArrayRef>)> {
        let rows = TableWriter::new(child).batch(batch.columns()[..width].to_vec(), batch.num_rows())?;
        Ok((rows, batch.columns()[width..].to_vec()))
    };
    batches.into_iter().filter(|batch| batch.num_rows() > 0).map(stored).collect()
}

/// `FROM child, keys WHERE …`.
fn join(child: &Table, key: &ForeignKey) -> Result<String> {
    let mut conditions = Vec::new();
    for (at, id) in key.columns.iter().enumerate() {
        let name = child.shape.columns[child.position_of(*id)?].field.name();
        conditions.push(format!("c.{} = k.k{at}", quoted(name)));
    }
    let hidden = format!("{CATALOG_NAME}.{HIDDEN_SCHEMA}");
    let id = child.id().0;
    Ok(format!("FROM {hidden}.\"{id}\" AS c, {hidden}.{KEYS_FRAME} AS k WHERE {}", conditions.join(" AND ")))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs a query of ours at the newest state, with the transaction's own writes on top.
async fn read_newest(context: &mut Context<'_>, query: &str, keys: RecordBatch) -> Result<Vec<RecordBatch>> {
    let frames: Frames = BTreeMap::from([(KEYS_FRAME.to_owned(), vec![keys])]);
    let snapshot = context.engine.db().snapshot();
    let drained = context.drain_at(parse_own(query)?, Some(snapshot), frames).await?;
    Ok(drained.batches)
}

/// Settles suspects: immediate ones now, the others at the commit.
///
/// # Errors
/// 23503.
pub(crate) async fn settle(context: &mut Context<'_>, at_commit: bool) -> Result<()> {
    for suspects in std::mem::take(&mut *context.suspects) {
        let Some(child) = context.catalog.find_id(suspects.child).cloned() else { continue };
        let Some(key) = suspects.key_of(&child).cloned() else { continue };
        let is_restricted = key.on_delete == Action::Restrict || key.on_update == Action::Restrict;
        if !at_commit && key.is_deferred && !is_restricted {
            context.deferred.push(suspects);
        } else {
            check(context, &child, &key, &suspects).await?;
        }
    }
    Ok(())
}

async fn check(context: &mut Context<'_>, child: &Arc<Table>, key: &ForeignKey, suspects: &Suspects) -> Result<()> {
    let Some(parent) = context.catalog.find_id(TableId(key.parent)).cloned() else {
        return Err(Error::internal(format!("foreign key {} refers to no table", key.name)));
    };
    lock_keys(context, &parent, key, &suspects.keys, LockMode::Shared).await?;
    let (storage, keys) = parent_keys(&parent, key, &suspects.keys)?;
    let mut missing = Vec::with_capacity(keys.len());
    for key in &keys {
        missing.push(!context.txn.contains(storage, key)?);
    }
    let missing = filter_record_batch(&suspects.keys, &BooleanArray::from(missing))?;
    if missing.num_rows() == 0 {
        return Ok(());
    }
    let referred = match first_referred(context, child, key, &missing)? {
        Some(row) => row,
        None => {
            let list = (0..key.columns.len()).map(|at| format!("k.k{at}")).collect::<Vec<_>>().join(", ");
            let query = format!("SELECT {list} {} LIMIT 1", join(child, key)?);
            let found = read_newest(context, &query, missing).await?;
            found.into_iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.slice(0, 1))
        }
    };
    match referred {
        None => Ok(()),
        Some(row) => Err(dangling(child, &parent, key, &row)),
    }
}

/// 23503 for a key, the first of `keys`, that is not there.
fn dangling(child: &Table, parent: &Table, key: &ForeignKey, keys: &RecordBatch) -> Error {
    let (_, values) = shown_columns(keys, 0, 0..keys.num_columns());
    let message = format!(
        "table {} refers to a row of table {} that does not exist, by foreign key {}",
        child.name, parent.name, key.name
    );
    Error::new(SqlState::ForeignKeyViolation, message).with_detail(format!(
        "key ({})=({values}) is not in table {}",
        parent.column_names(&key.parent_columns),
        parent.name
    ))
}

/// Looks at every row of `child` for the foreign key `key`, at the transaction's snapshot.
///
/// # Errors
/// 23503 for one that refers to nothing.
pub(crate) async fn check_rows(context: &mut Context<'_>, child: &Arc<Table>, key: &ForeignKey) -> Result<()> {
    let Some(parent) = context.catalog.find_id(TableId(key.parent)).cloned() else {
        return Err(Error::internal(format!("foreign key {} refers to no table", key.name)));
    };
    let names = |table: &Table, ids: &[u32], alias: &str| -> Result<Vec<String>> {
        let position = |id: &u32| table.position_of(*id);
        let name = |at: usize| format!("{alias}.{}", quoted(table.shape.columns[at].field.name()));
        ids.iter().map(|id| Ok(name(position(id)?))).collect()
    };
    let (children, parents) = (names(child, &key.columns, "c")?, names(&parent, &key.parent_columns, "p")?);
    let equal: Vec<String> =
        children.iter().zip(&parents).map(|(child, parent)| format!("{child} = {parent}")).collect();
    let whole: Vec<String> = children.iter().map(|child| format!("{child} IS NOT NULL")).collect();
    let hidden = format!("{CATALOG_NAME}.{HIDDEN_SCHEMA}");
    let query = format!(
        "SELECT {} FROM {hidden}.\"{}\" AS c LEFT ANTI JOIN {hidden}.\"{}\" AS p ON {} WHERE {} LIMIT 1",
        children.join(", "),
        child.id().0,
        parent.id().0,
        equal.join(" AND "),
        whole.join(" AND ")
    );
    let found = context.drain(parse_own(&query)?).await?;
    match found.batches.iter().find(|batch| batch.num_rows() > 0) {
        Some(row) => Err(dangling(child, &parent, key, row)),
        None => Ok(()),
    }
}

/// The first of `keys` that an entry of an index begins with; the outer `None` if no index can tell.
#[allow(clippy::option_option)]
fn first_referred(
    context: &Context<'_>,
    child: &Table,
    key: &ForeignKey,
    keys: &RecordBatch,
) -> Result<Option<Option<RecordBatch>>> {
    let index = child.indexes.iter().find(|index| {
        !index.index.is_building && index.index.columns.get(..key.columns.len()) == Some(key.columns.as_slice())
    });
    let Some(index) = index else { return Ok(None) };
    let prefixes = index.prefixes(keys.columns(), keys.num_rows())?;
    let newest = context.engine.db().snapshot();
    let own = context.txn.overlay(index.id());
    for (row, prefix) in prefixes.iter().enumerate() {
        let range = prefix_range(prefix);
        let is_there = match newest.view().rows(index.id()) {
            Some(rows) => rows.scan(&range.start..&range.end, newest.seqno(), own.as_ref())?.next()?,
            None => own.as_ref().is_some_and(|own| own.range(range.clone()).any(|(_, row)| row.is_some())),
        };
        if is_there {
            return Ok(Some(Some(keys.slice(row, 1))));
        }
    }
    Ok(Some(None))
}

/// The storage that a row of the parent is found in by the columns referred to, and the full keys there.
fn parent_keys(parent: &Table, key: &ForeignKey, values: &RecordBatch) -> Result<(TableId, Vec<Vec<u8>>)> {
    let in_order = |ids: &[u32]| -> Option<Vec<ArrayRef>> {
        let at = |id: &u32| key.parent_columns.iter().position(|known| known == id);
        let is_same = ids.len() == key.parent_columns.len();
        let columns: Option<Vec<ArrayRef>> =
            ids.iter().map(|id| at(id).map(|at| Arc::clone(values.column(at)))).collect();
        columns.filter(|_| is_same)
    };
    if let Some(columns) = in_order(&parent.key_ids()) {
        return Ok((parent.id(), KeyEncoder::new(&parent.shape)?.encode(&columns, values.num_rows())?));
    }
    let unique = parent.indexes.iter().filter(|index| index.index.is_unique && !index.index.is_building);
    for index in unique {
        if let Some(columns) = in_order(&index.index.columns) {
            return Ok((index.id(), index.unique_keys(&columns, values.num_rows())?));
        }
    }
    Err(Error::internal(format!("foreign key {} refers to columns that are not unique", key.name)))
}

/// Locks the keys of `parent` that `values` name, each once.
async fn lock_keys(
    context: &mut Context<'_>,
    parent: &Table,
    key: &ForeignKey,
    values: &RecordBatch,
    mode: LockMode,
) -> Result<()> {
    let (storage, keys) = parent_keys(parent, key, values)?;
    for key in keys.into_iter().collect::<HashSet<_>>() {
        lock::wait_for(context, storage, &key, mode).await?;
    }
    Ok(())
}

impl std::fmt::Debug for Suspects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suspects")
            .field("name", &self.key.name)
            .field("keys", &self.keys.num_rows())
            .finish_non_exhaustive()
    }
}
