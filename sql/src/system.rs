//! The schema `strata`: tables that show the database itself, made anew for every statement that reads them.
//!
//! Runs, segments and deletion vectors are those of the statement's snapshot; memory is that of the moment.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use strata_olap::ColdState;
use strata_oltp::metrics::MetricValue;
use strata_oltp::schema::StorageKind;
use strata_oltp::{FileKind, Snapshot, TableId};

use crate::catalog::index::Index;
use crate::catalog::table::Validity;
use crate::catalog::{Catalog, Table};
use crate::engine::Engine;
use crate::error::Result;

/// The tables of the schema.
pub(crate) const TABLE_NAMES: [&str; 9] =
    ["constraints", "deletion_vectors", "indexes", "memory", "metrics", "runs", "segments", "tables", "transactions"];

/// The table `name` of the schema `strata`, if there is one.
///
/// # Errors
/// None that depends on the data.
pub(crate) fn table(
    name: &str,
    engine: &Engine,
    catalog: &Catalog,
    snapshot: &Snapshot,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let rows = match name {
        "tables" => tables(catalog, snapshot),
        "indexes" => indexes(catalog, snapshot),
        "constraints" => constraints(catalog),
        "runs" => runs(engine, catalog, snapshot),
        "segments" => segments(catalog, snapshot),
        "deletion_vectors" => deletion_vectors(catalog, snapshot),
        "memory" => memory(engine),
        "metrics" => metrics(engine),
        "transactions" => transactions(engine),
        _ => return Ok(None),
    };
    let batch = rows.finish()?;
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}

/// Columns under construction: text or integers.
#[derive(Default)]
struct Listing {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Listing {
    fn text(mut self, name: &str, values: impl IntoIterator<Item = String>) -> Listing {
        let values: StringViewArray = values.into_iter().map(Some).collect();
        self.fields.push(Field::new(name, DataType::Utf8View, false));
        self.columns.push(Arc::new(values));
        self
    }

    /// Figures beyond 63 bits do not occur; they would show as the largest.
    fn number(mut self, name: &str, values: impl IntoIterator<Item = u64>) -> Listing {
        let values = values.into_iter().map(|value| i64::try_from(value).unwrap_or(i64::MAX));
        self.fields.push(Field::new(name, DataType::Int64, false));
        self.columns.push(Arc::new(Int64Array::from_iter_values(values)));
        self
    }

    fn real(mut self, name: &str, values: impl IntoIterator<Item = f64>) -> Listing {
        self.fields.push(Field::new(name, DataType::Float64, false));
        self.columns.push(Arc::new(Float64Array::from_iter_values(values)));
        self
    }

    fn finish(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.columns)?)
    }
}

/// Full path, so that another tool started anywhere finds the file.
fn full_path(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

fn tables(catalog: &Catalog, snapshot: &Snapshot) -> Listing {
    let all: Vec<&Arc<Table>> = catalog.tables().collect();
    let cold = ColdState::of(snapshot.view().cold().as_ref());
    let kind = |table: &&Arc<Table>| match table.storage.kind {
        StorageKind::Hybrid => "hybrid".to_owned(),
        StorageKind::Row => "row".to_owned(),
    };
    let compaction = |table: &&Arc<Table>| match table.storage.kind {
        StorageKind::Hybrid => String::new(),
        StorageKind::Row => table.storage.compaction.to_string(),
    };
    let versions = |table: &&Arc<Table>| snapshot.view().rows(table.id()).map_or(0, |rows| rows.entry_count());
    Listing::default()
        .text("schema_name", all.iter().map(|table| table.schema_name.clone()))
        .text("table_name", all.iter().map(|table| table.name.clone()))
        .number("table_id", all.iter().map(|table| u64::from(table.id().0)))
        .text("storage", all.iter().map(kind))
        .text("compaction", all.iter().map(compaction))
        .number("row_part_versions", all.iter().map(versions))
        .number("segment_rows", all.iter().map(|table| cold.table(table.id()).row_count()))
}

fn indexes(catalog: &Catalog, snapshot: &Snapshot) -> Listing {
    let all: Vec<(&Arc<Table>, &Index)> =
        catalog.tables().flat_map(|table| table.rules.indexes.iter().map(move |index| (table, index))).collect();
    let yes_no = |value: bool| (if value { "YES" } else { "NO" }).to_owned();
    let versions = |index: &Index| snapshot.view().rows(TableId(index.id)).map_or(0, |rows| rows.entry_count());
    Listing::default()
        .text("schema_name", all.iter().map(|(table, _)| table.schema_name.clone()))
        .text("table_name", all.iter().map(|(table, _)| table.name.clone()))
        .text("index_name", all.iter().map(|(_, index)| index.name.clone()))
        .text("columns", all.iter().map(|(table, index)| table.column_names(&index.columns)))
        .text("is_unique", all.iter().map(|(_, index)| yes_no(index.is_unique)))
        .text("is_ready", all.iter().map(|(_, index)| yes_no(!index.is_building)))
        .number("versions", all.iter().map(|(_, index)| versions(index)))
}

/// Name, kind and text of every constraint but NOT NULL.
fn constraints(catalog: &Catalog) -> Listing {
    let mut all: Vec<(&Arc<Table>, String, &str, String)> = Vec::new();
    for table in catalog.tables() {
        if !table.has_hidden_key() {
            let columns = table.column_names(&table.key_ids());
            all.push((table, table.key_name(), "PRIMARY KEY", format!("PRIMARY KEY ({columns})")));
        }
        for index in table.rules.indexes.iter().filter(|index| index.is_constraint) {
            let columns = table.column_names(&index.columns);
            all.push((table, index.name.clone(), "UNIQUE", format!("UNIQUE ({columns})")));
        }
        let doubt = |validity: Validity| if validity.is_valid() { "" } else { " NOT VALID" };
        for check in &table.rules.checks {
            let text = format!("CHECK ({}){}", check.condition, doubt(check.validity));
            all.push((table, check.name.clone(), "CHECK", text));
        }
        for key in &table.rules.foreign_keys {
            let Some(parent) = catalog.find_id(TableId(key.parent)) else { continue };
            let (columns, referred) = (table.column_names(&key.columns), parent.column_names(&key.parent_columns));
            let text = format!("FOREIGN KEY ({columns}) REFERENCES {} ({referred})", parent.qualified_name());
            let text = text + doubt(key.validity);
            all.push((table, key.name.clone(), "FOREIGN KEY", text));
        }
    }
    Listing::default()
        .text("schema_name", all.iter().map(|(table, ..)| table.schema_name.clone()))
        .text("table_name", all.iter().map(|(table, ..)| table.name.clone()))
        .text("constraint_name", all.iter().map(|(_, name, ..)| name.clone()))
        .text("constraint_type", all.iter().map(|(_, _, kind, _)| (*kind).to_owned()))
        .text("definition", all.iter().map(|(.., text)| text.clone()))
}

fn runs(engine: &Engine, catalog: &Catalog, snapshot: &Snapshot) -> Listing {
    let mut all = Vec::new();
    for table in catalog.tables() {
        let rows = snapshot.view().rows(table.id());
        all.extend(rows.iter().flat_map(|rows| rows.runs()).map(|run| (table, run.meta())));
    }
    let path = |id| full_path(&FileKind::Run.path(engine.db().dir(), id));
    Listing::default()
        .text("schema_name", all.iter().map(|(table, _)| table.schema_name.clone()))
        .text("table_name", all.iter().map(|(table, _)| table.name.clone()))
        .text("path", all.iter().map(|(_, run)| path(run.run)))
        .number("versions", all.iter().map(|(_, run)| run.version_count))
        .number("tombstones", all.iter().map(|(_, run)| run.tombstone_count))
        .number("bytes", all.iter().map(|(_, run)| run.file_bytes))
        .number("min_seqno", all.iter().map(|(_, run)| run.seqno_min.0))
        .number("max_seqno", all.iter().map(|(_, run)| run.seqno_max.0))
}

fn segments(catalog: &Catalog, snapshot: &Snapshot) -> Listing {
    let cold = ColdState::of(snapshot.view().cold().as_ref());
    let mut all = Vec::new();
    for table in catalog.tables() {
        all.extend(cold.table(table.id()).segments().iter().map(|segment| (table, segment)));
    }
    let seqnos = |segment: &strata_olap::Segment| {
        (0..segment.row_group_count()).map(|group| segment.seqno_range(group)).collect::<Vec<_>>()
    };
    Listing::default()
        .text("schema_name", all.iter().map(|(table, _)| table.schema_name.clone()))
        .text("table_name", all.iter().map(|(table, _)| table.name.clone()))
        .text("path", all.iter().map(|(_, segment)| full_path(segment.path())))
        .number("rows", all.iter().map(|(_, segment)| u64::from(segment.row_count())))
        .number("row_groups", all.iter().map(|(_, segment)| segment.row_group_count() as u64))
        .number("marks", all.iter().map(|(_, segment)| segment.marks().marks_at(snapshot.seqno()).len()))
        .number("bytes", all.iter().map(|(_, segment)| segment.file_bytes()))
        .number(
            "min_seqno",
            all.iter().map(|(_, segment)| seqnos(segment).iter().map(|range| range.0.0).min().unwrap_or(0)),
        )
        .number(
            "max_seqno",
            all.iter().map(|(_, segment)| seqnos(segment).iter().map(|range| range.1.0).max().unwrap_or(0)),
        )
}

/// One row per segment with marks.
fn deletion_vectors(catalog: &Catalog, snapshot: &Snapshot) -> Listing {
    let cold = ColdState::of(snapshot.view().cold().as_ref());
    let mut all = Vec::new();
    for table in catalog.tables() {
        for segment in cold.table(table.id()).segments() {
            let marks = segment.marks().marks_at(snapshot.seqno()).len();
            if marks > 0 {
                all.push((table, segment, marks));
            }
        }
    }
    Listing::default()
        .text("schema_name", all.iter().map(|(table, ..)| table.schema_name.clone()))
        .text("table_name", all.iter().map(|(table, ..)| table.name.clone()))
        .text("segment_path", all.iter().map(|(_, segment, _)| full_path(segment.path())))
        .number("rows", all.iter().map(|(_, segment, _)| u64::from(segment.row_count())))
        .number("marks", all.iter().map(|(.., marks)| *marks))
        .number("memory_bytes", all.iter().map(|(_, segment, _)| segment.marks().memory_bytes() as u64))
}

fn memory(engine: &Engine) -> Listing {
    let budget = engine.db().budget();
    let mut all: Vec<(String, u64)> =
        budget.usage_by_consumer().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    all.push(("total".to_owned(), budget.used()));
    all.push(("limit".to_owned(), budget.limit()));
    Listing::default()
        .text("consumer", all.iter().map(|(name, _)| name.clone()))
        .number("bytes", all.iter().map(|(_, bytes)| *bytes))
}

/// A counter or gauge is one row, its `statistic` being `value`; a distribution of seconds is six.
fn metrics(engine: &Engine) -> Listing {
    let mut all = Vec::new();
    for metric in engine.db().metrics() {
        let figures = match metric.value {
            MetricValue::Counter(value) | MetricValue::Gauge(value) => vec![("value", value as f64)],
            MetricValue::Histogram(times) => vec![
                ("count", times.count as f64),
                ("sum", times.sum.as_secs_f64()),
                ("p50", times.p50.as_secs_f64()),
                ("p99", times.p99.as_secs_f64()),
                ("p99.9", times.p999.as_secs_f64()),
                ("max", times.max.as_secs_f64()),
            ],
        };
        all.extend(figures.into_iter().map(|(statistic, value)| (metric, statistic, value)));
    }
    Listing::default()
        .text("name", all.iter().map(|(metric, ..)| metric.name.to_owned()))
        .text("statistic", all.iter().map(|(_, statistic, _)| (*statistic).to_owned()))
        .real("value", all.iter().map(|(.., value)| *value))
        .text("help", all.iter().map(|(metric, ..)| metric.help.to_owned()))
}

fn transactions(engine: &Engine) -> Listing {
    let stats = engine.db().stats();
    Listing::default()
        .number("read_point", [stats.read_point.0])
        .number("watermark", [stats.watermark.0])
        .number("snapshots", [stats.snapshot_count as u64])
        .number("wal_bytes", [stats.wal_bytes])
        .number("sealed_bytes", [stats.sealed_bytes])
}
