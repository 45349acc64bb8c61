//! Verification of indexes: every row has its entry, every entry its row, at one snapshot.
//!
//! Files that are whole are `Db::verify`'s affair. This is about what they say: an index is kept by those who write rows,
//! so that a mistake of theirs, of this version or an earlier one, would make queries through the index miss rows or find
//! some twice, and nothing would notice. REINDEX mends it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use strata_olap::convert::batch::BatchBuilder;
use strata_olap::scan::BoundView;
use strata_oltp::key::table_range;
use strata_oltp::{SeqNo, Snapshot};

use crate::catalog::index::TableIndex;
use crate::catalog::{Catalog, Table, TableName};
use crate::ddl;
use crate::dml::writer::KeyEncoder;
use crate::dml::{Frames, shown_columns};
use crate::engine::Engine;
use crate::error::Result;
use crate::query::{Reader, Rows};

/// Entries that are looked at together.
const ENTRIES_PER_BATCH: usize = 4096;
/// After so many faults of one index the rest is not listed.
const FAULTS_MAX: usize = 1000;

/// What is wrong with an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A row has no entry.
    Missing,
    /// An entry stands for a row that is gone, or has other values.
    Stale,
    /// An entry stands for a row that has another one with the same values.
    Duplicate,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Missing => "missing",
            Kind::Stale => "stale",
            Kind::Duplicate => "duplicate",
        })
    }
}

/// One entry that is wrong or missing.
struct IndexFault {
    table: TableName,
    index: String,
    kind: Kind,
    /// Names and values of the indexed columns and of the primary key.
    key: String,
}

/// Compares the indexes of one table, or of all, with their tables: one row per fault.
///
/// # Errors
/// Whatever reading runs into.
pub(crate) async fn verify(
    engine: &Engine,
    base: &SessionState,
    catalog: &Arc<Catalog>,
    snapshot: &Snapshot,
    only: Option<&TableName>,
) -> Result<Rows> {
    let mut faults = Vec::new();
    let tables: Vec<Arc<Table>> = match only {
        Some(name) => vec![Arc::clone(catalog.table(name)?)],
        None => catalog.tables().cloned().collect(),
    };
    for table in tables {
        let ready: Vec<&TableIndex> = table.indexes.iter().filter(|index| !index.index.is_building).collect();
        if ready.is_empty() {
            continue;
        }
        rows_without_entries(engine, base, catalog, snapshot, &table, &ready, &mut faults).await?;
        for index in ready {
            entries_without_rows(snapshot, &table, index, &mut faults)?;
        }
    }
    listing(&faults)
}

fn listing(faults: &[IndexFault]) -> Result<Rows> {
    let names = ["schema_name", "table_name", "index_name", "fault", "key"];
    let schema = Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Utf8View, false)).to_vec()));
    let column = |text: &dyn Fn(&IndexFault) -> String| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(faults.iter().map(text)))
    };
    let columns = vec![
        column(&|fault| fault.table.schema.clone()),
        column(&|fault| fault.table.table.clone()),
        column(&|fault| fault.index.clone()),
        column(&|fault| fault.kind.to_string()),
        column(&|fault| fault.key.clone()),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Rows::of(schema, vec![batch]))
}

fn report(faults: &mut Vec<IndexFault>, table: &Table, index: &TableIndex, kind: Kind, key: String) {
    let known = faults.iter().rev().take_while(|fault| fault.index == index.index.name).count();
    if known < FAULTS_MAX {
        faults.push(IndexFault { table: table.qualified_name(), index: index.index.name.clone(), kind, key });
    }
}

/// Looks the entry of every row up.
async fn rows_without_entries(
    engine: &Engine,
    base: &SessionState,
    catalog: &Arc<Catalog>,
    snapshot: &Snapshot,
    table: &Table,
    indexes: &[&TableIndex],
    faults: &mut Vec<IndexFault>,
) -> Result<()> {
    let reader = Reader::new(base, engine, catalog, BoundView::new(snapshot.clone()), Frames::new())?;
    let mut rows = reader.query(ddl::all_rows(table)?).await?;
    while let Some(batch) = rows.next().await? {
        let batch = RecordBatch::try_new(Arc::clone(table.shape.arrow()), batch.columns().to_vec())?;
        let encoded = table.encoder.encode(&batch)?;
        for index in indexes {
            let entries = index.entries(&batch, &encoded)?;
            for row in 0..entries.len() {
                let found = match snapshot.view().rows(index.id()) {
                    Some(rows) => rows.get(entries.key(row), snapshot.seqno())?.and_then(|(_, value)| value),
                    None => None,
                };
                if found.as_deref() != Some(entries.row(row)) {
                    report(faults, table, index, Kind::Missing, shown_row(table, index, &batch, row));
                }
            }
        }
    }
    Ok(())
}

/// Looks the row of every entry up.
fn entries_without_rows(
    snapshot: &Snapshot,
    table: &Table,
    index: &TableIndex,
    faults: &mut Vec<IndexFault>,
) -> Result<()> {
    let Some(rows) = snapshot.view().rows(index.id()) else { return Ok(()) };
    let range = table_range(index.id());
    let mut cursor = rows.scan(&range.start..&range.end, snapshot.seqno(), None)?;
    let mut builder = BatchBuilder::new(&index.shape, None, false);
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let is_there = cursor.next()?;
        if is_there {
            keys.push(cursor.key().to_vec());
            builder.push(cursor.value()?, SeqNo(0))?;
        }
        if !keys.is_empty() && (!is_there || keys.len() == ENTRIES_PER_BATCH) {
            check_entries(snapshot, table, index, &builder.finish()?, &keys, faults)?;
            keys.clear();
        }
        if !is_there {
            return Ok(());
        }
    }
}

fn check_entries(
    snapshot: &Snapshot,
    table: &Table,
    index: &TableIndex,
    entries: &RecordBatch,
    keys: &[Vec<u8>],
    faults: &mut Vec<IndexFault>,
) -> Result<()> {
    let columns = index.key_columns(entries, &table.shape);
    let rows = KeyEncoder::new(&table.shape)?.encode(&columns, entries.num_rows())?;
    for (at, (key, row)) in keys.iter().zip(&rows).enumerate() {
        let kind = match snapshot.get(&table.shape, row)? {
            None => Kind::Stale,
            Some(found) => {
                let mut builder = BatchBuilder::new(&table.shape, None, false);
                builder.push(&found, SeqNo(0))?;
                let batch = builder.finish()?;
                let right = index.entries(&batch, &table.encoder.encode(&batch)?)?;
                if right.key(0) == key.as_slice() {
                    continue;
                }
                if has_values(index, &batch, entries, at)? { Kind::Duplicate } else { Kind::Stale }
            }
        };
        report(faults, table, index, kind, shown_entry(table, index, entries, at));
    }
    Ok(())
}

/// Whether the entry has the values of the row in its indexed columns.
fn has_values(index: &TableIndex, row: &RecordBatch, entries: &RecordBatch, at: usize) -> Result<bool> {
    for (place, position) in index.columns.iter().enumerate() {
        let differs = cmp::distinct(row.column(*position), &entries.column(place).slice(at, 1))?;
        if differs.value(0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names and values of the columns at `positions` of the table, hidden ones left out.
fn shown(table: &Table, batch: &RecordBatch, row: usize, columns: &[(usize, usize)]) -> String {
    let visible = columns.iter().filter(|(position, _)| *position < table.columns().len());
    let (_, values) = shown_columns(batch, row, visible.clone().map(|(_, column)| *column));
    let names: Vec<&str> = visible.map(|(position, _)| table.columns()[*position].field.name().as_str()).collect();
    format!("({})=({values})", names.join(", "))
}

/// Positions in the table of what identifies an entry: indexed columns, then the rest of the primary key.
fn identifying(table: &Table, index: &TableIndex) -> Vec<usize> {
    let rest = table.shape.primary_key.iter().copied().filter(|position| !index.columns.contains(position));
    index.columns.iter().copied().chain(rest).collect()
}

fn shown_row(table: &Table, index: &TableIndex, batch: &RecordBatch, row: usize) -> String {
    let columns: Vec<(usize, usize)> = identifying(table, index).into_iter().map(|at| (at, at)).collect();
    shown(table, batch, row, &columns)
}

fn shown_entry(table: &Table, index: &TableIndex, entries: &RecordBatch, row: usize) -> String {
    let access = index.access(&table.shape);
    let place = |position: usize| access.columns.iter().position(|column| *column == Some(position));
    let columns: Vec<(usize, usize)> =
        identifying(table, index).into_iter().filter_map(|at| Some((at, place(at)?))).collect();
    shown(table, entries, row, &columns)
}
