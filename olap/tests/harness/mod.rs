//! A row store in miniature for tests of the column side: versions in plain maps, and the naive answer to every read.
#![allow(dead_code, reason = "every test file uses its own part of the harness")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use strata_olap::segment::EncodingOptions;
use strata_olap::{Store, StoreOptions};
use strata_oltp::env::{Env, mem::MemEnv};
use strata_oltp::iter::{Cursor, VersionKind};
use strata_oltp::key::KeyCodec;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::row::{OwnedValue, RowCodec, Value};
use strata_oltp::schema::Column;
use strata_oltp::{ColumnId, FileId, Result, SeqNo, TableId, TableSchema};

/// Versions in cursor order: (key, newest first) → row, or `None` for a delete.
pub type Versions = BTreeMap<(Vec<u8>, std::cmp::Reverse<SeqNo>), Option<Vec<u8>>>;

/// A cursor over a copy of some versions.
pub struct MapCursor {
    entries: Vec<(Vec<u8>, SeqNo, Option<Vec<u8>>)>,
    at: Option<usize>,
}

impl MapCursor {
    pub fn boxed(versions: &Versions) -> Box<dyn Cursor> {
        let entries = versions.iter().map(|((key, seqno), row)| (key.clone(), seqno.0, row.clone())).collect();
        Box::new(MapCursor { entries, at: None })
    }
}

impl Cursor for MapCursor {
    fn valid(&self) -> bool {
        self.at.is_some_and(|at| at < self.entries.len())
    }
    fn key(&self) -> &[u8] {
        &self.entries[self.at.unwrap()].0
    }
    fn seqno(&self) -> SeqNo {
        self.entries[self.at.unwrap()].1
    }
    fn kind(&self) -> VersionKind {
        if self.entries[self.at.unwrap()].2.is_some() { VersionKind::Put } else { VersionKind::Delete }
    }
    fn value(&self) -> &[u8] {
        self.entries[self.at.unwrap()].2.as_deref().unwrap_or_default()
    }
    fn next(&mut self) -> Result<()> {
        self.at = Some(self.at.map_or(0, |at| at + 1));
        Ok(())
    }
    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let before = |(k, s, _): &(Vec<u8>, SeqNo, Option<Vec<u8>>)| k.as_slice() < key || (k == key && *s > seqno);
        self.at = Some(self.entries.partition_point(before));
        Ok(())
    }
}

/// Numbers of files, shared with whoever writes some.
#[derive(Default)]
pub struct Files(AtomicU64);

impl Files {
    pub fn next(&self) -> FileId {
        FileId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

pub const DIR: &str = "/db";

pub fn mem_env() -> Arc<dyn Env> {
    let env = MemEnv::new();
    env.create_dir_all(&Path::new(DIR).join("segments")).unwrap();
    Arc::new(env)
}

/// Small row groups and segments, so that few rows make many of both.
pub fn small_options() -> StoreOptions {
    StoreOptions {
        encoding: EncodingOptions { page_rows_max: 4, ..EncodingOptions::default() },
        row_group_rows_max: 7,
        segment_rows_max: 20,
        ..StoreOptions::default()
    }
}

pub fn store(env: &Arc<dyn Env>, options: StoreOptions) -> Arc<Store> {
    Store::new(Arc::clone(env), Path::new(DIR), MemoryBudget::new(1 << 30), options)
}

/// A table (id BIGINT PRIMARY KEY, name TEXT, price DOUBLE, amount DECIMAL(15, 2) NOT NULL).
pub fn small_table() -> Arc<TableSchema> {
    table(
        vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, true),
            Field::new("price", DataType::Float64, true),
            Field::new("amount", DataType::Decimal128(15, 2), false),
        ],
        vec![0],
    )
}

/// A table with every type twice, NULLs allowed in the second, and a key of four columns.
pub fn wide_table() -> Arc<TableSchema> {
    let types = [
        DataType::Utf8View,
        DataType::Int32,
        DataType::Decimal128(20, 3),
        DataType::FixedSizeBinary(16),
        DataType::Boolean,
        DataType::Int16,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(15, 2),
        DataType::Decimal128(7, 0),
        DataType::BinaryView,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    ];
    table(twice(types.to_vec()), vec![2, 0, 4, 6])
}

/// Lists, and intervals, which are several of Parquet's columns, twice each, with a key between and behind them.
pub fn nested_table() -> Arc<TableSchema> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let mut types = vec![interval.clone(), DataType::Int32];
    let items = [
        DataType::Int32,
        DataType::Utf8View,
        DataType::Float64,
        DataType::Boolean,
        DataType::Decimal128(15, 2),
        DataType::BinaryView,
        DataType::FixedSizeBinary(16),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    ];
    types.extend(items.map(|item| DataType::new_list(item, true)));
    types.extend([interval, DataType::Utf8View]);
    table(twice(types), vec![22, 2])
}

fn twice(types: Vec<DataType>) -> Vec<Field> {
    let fields = types.into_iter().enumerate().flat_map(|(at, data_type)| {
        [Field::new(format!("c{at}"), data_type.clone(), false), Field::new(format!("n{at}"), data_type, true)]
    });
    fields.collect()
}

fn table(fields: Vec<Field>, primary_key: Vec<usize>) -> Arc<TableSchema> {
    let columns = fields.into_iter().enumerate().map(|(at, field)| Column { id: ColumnId(at as u32 + 10), field });
    Arc::new(TableSchema::new(TableId(7), 1, columns.collect(), primary_key).unwrap())
}

/// Full key and encoded row of `values`.
pub fn encode(schema: &TableSchema, values: &[OwnedValue]) -> (Vec<u8>, Vec<u8>) {
    let values: Vec<Value<'_>> = values.iter().map(OwnedValue::as_value).collect();
    let (mut key, mut row) = (Vec::new(), Vec::new());
    KeyCodec::new(schema).encode_row(&values, &mut key).unwrap();
    RowCodec::new(schema).encode(&values, &mut row).unwrap();
    (key, row)
}

/// Key and row of the small table.
pub fn small_row(id: i64, generation: u64) -> (Vec<u8>, Vec<u8>) {
    let name = match generation % 3 {
        0 => OwnedValue::Null,
        1 => OwnedValue::Text(format!("short {generation}")),
        _ => OwnedValue::Text(format!("a name that does not fit a view, of generation {generation}")),
    };
    let price = if generation.is_multiple_of(5) { f64::NAN } else { generation as f64 / 4.0 };
    let values = [
        OwnedValue::Int64(id),
        name,
        OwnedValue::Float64(price),
        OwnedValue::Decimal128(i128::from(id) * 100 + i128::from(generation)),
    ];
    encode(&small_table(), &values)
}
