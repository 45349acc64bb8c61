//! What the tests of the whole store share: a small schema, keys and rows of it, and reading everything back. The
//! column store's tests run the same machines with their own tier.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, reason = "test support; not every test uses all of it")]

pub mod backup;
pub mod crash;
pub mod faults;
pub mod gate;
pub mod model;
pub mod power_loss;
pub mod random;
pub mod row_tier;
pub mod salvage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType, Field};
use strata_oltp::compaction::{CompactionOptions, CompactionPolicy};
use strata_oltp::env::Env;
use strata_oltp::key::{KeyCodec, table_range};
use strata_oltp::row::{RowCodec, Value};
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::wal::WalOptions;
use strata_oltp::{ColdTier, ColumnId, Db, Options, Result, Snapshot, TableId, TableSchema};

/// Makes the cold tier of a database in a directory.
pub type MakeTier = fn(&Arc<dyn Env>, &Path) -> Arc<dyn ColdTier>;

/// Full key to encoded row.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A table of the tests, with its codecs made once: the machines encode millions of keys.
struct TestTable {
    schema: Arc<TableSchema>,
    keys: KeyCodec,
    rows: RowCodec,
}

/// `table (id INT PRIMARY KEY, amount BIGINT, note TEXT)` for tables 10 to 12.
fn table(table: TableId) -> &'static TestTable {
    static TABLES: OnceLock<[TestTable; 3]> = OnceLock::new();
    &TABLES.get_or_init(|| [10, 11, 12].map(|id| TestTable::new(TableId(id))))[table.0 as usize - 10]
}

impl TestTable {
    fn new(table: TableId) -> TestTable {
        let column =
            |id, name, data_type, nullable| Column { id: ColumnId(id), field: Field::new(name, data_type, nullable) };
        let columns = vec![
            column(1, "id", DataType::Int32, false),
            column(2, "amount", DataType::Int64, true),
            column(3, "note", DataType::Utf8View, true),
        ];
        let schema = Arc::new(TableSchema::new(table, 1, columns, vec![0]).unwrap());
        TestTable { keys: KeyCodec::new(&schema), rows: RowCodec::new(&schema), schema }
    }
}

/// The schema of one of the tables.
pub fn schema(id: TableId) -> Arc<TableSchema> {
    Arc::clone(&table(id).schema)
}

/// The full key of row `id`.
pub fn key(table_id: TableId, id: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    table(table_id).keys.encode(&[Value::Int32(id)], &mut bytes).unwrap();
    bytes
}

/// The encoded row `id` with values derived from `amount`; every third note is NULL.
pub fn row(table_id: TableId, id: i32, amount: i64) -> Vec<u8> {
    let note = format!("note {amount}");
    row_with(table_id, id, amount, (amount % 3 != 0).then_some(&note))
}

/// The encoded row of these values.
pub fn row_with(table_id: TableId, id: i32, amount: i64, note: Option<&str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let values = [Value::Int32(id), Value::Int64(amount), note.map_or(Value::Null, Value::Text)];
    table(table_id).rows.encode(&values, &mut bytes).unwrap();
    bytes
}

/// A table whose rows are converted.
pub const HYBRID: TableId = TableId(10);
/// A table whose rows stay rows.
pub const ROW: TableId = TableId(11);
/// A hybrid table that some tests drop.
pub const SHORT_LIVED: TableId = TableId(12);
/// Rows of [`ROW`] of at least so many bytes go to value files: most of those with a note.
pub const LARGE: u64 = 25;
/// Where the database of a test lies in its environment.
pub const DIR: &str = "/db";

/// Opens the database with its two tables and without background threads.
pub fn open(env: &Arc<dyn Env>, options: Options, tier: Arc<dyn ColdTier>) -> Result<Db> {
    let db = Db::open(Arc::clone(env), Path::new(DIR), options, tier)?;
    register(&db);
    Ok(db)
}

/// Tells the database of the tables that stay.
pub fn register(db: &Db) {
    db.register_table(schema(HYBRID), StorageKind::Hybrid);
    shape(db, with_large_values());
}

/// The usual shape of levels, with a bound between small rows and large ones that some of the tests' rows are on either
/// side of.
pub fn with_large_values() -> CompactionOptions {
    CompactionOptions { large_value_bytes: LARGE, ..CompactionOptions::default() }
}

/// A shape of levels for a few rows of a hundred bytes: with files of a row each, several levels fill.
pub fn tiny_levels(policy: CompactionPolicy) -> CompactionOptions {
    CompactionOptions {
        policy,
        size_ratio: 2,
        level0_runs_min: 2,
        first_level_bytes_max: 500,
        file_bytes_max: 1,
        job_bytes_max: 4_000,
        value_file_bytes_max: 200,
        ..with_large_values()
    }
}

/// Gives the table of rows another shape.
pub fn shape(db: &Db, options: CompactionOptions) {
    db.register_table_with(schema(ROW), StorageKind::Row, options);
}

/// Log files of one to three commits each, so that a short workload fills, releases and recycles several.
pub fn small_log() -> WalOptions {
    WalOptions { segment_bytes: 4096 + 400, fill_bytes: 0, spare_count_max: 1, buffer_bytes_max: 1 << 20 }
}

/// Every row of `table` at the snapshot: rows of the row part and of the cold tier, each read exactly once (I7), and
/// each point read must agree with the scan.
pub fn contents(snapshot: &Snapshot, table: TableId) -> Rows {
    try_contents(snapshot, table).unwrap()
}

/// [`contents`] for disks that fail.
pub fn try_contents(snapshot: &Snapshot, table: TableId) -> Result<Rows> {
    let range = table_range(table);
    let range = range.start.as_slice()..range.end.as_slice();
    let view = snapshot.view();
    let mut found = Rows::new();
    if let Some(rows) = view.rows(table) {
        let mut scan = rows.scan(range.clone(), snapshot.seqno(), None)?;
        while scan.next()? {
            let row = scan.value()?.to_vec();
            assert!(found.insert(scan.key().to_vec(), row).is_none(), "I7: a row twice");
        }
    }
    for (key, location) in view.cold().scan_keys(table, range, snapshot.seqno())? {
        let row = view.cold().read_row(&schema(table), location)?;
        assert!(found.insert(key.clone(), row).is_none(), "I6: two homes for {key:?}");
    }
    for (key, row) in &found {
        assert_eq!(snapshot.get(&schema(table), key)?.as_ref(), Some(row), "point read of {key:?}");
    }
    Ok(found)
}
