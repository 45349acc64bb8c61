//! A small table with its model: what `scan_oracle.rs` and `placement.rs` compare.
//!
//! The model keeps every version of every row, so that it can say row by row what a snapshot sees. SQL runs twice:
//! over the real scan, and by the same engine over a plain in-memory table of the model's rows, where there are no
//! segments, no pruning, no statistics and no deletions.

#![allow(clippy::unwrap_used, dead_code, reason = "test support; a test panics where it fails and uses its part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use strata_olap::convert::batch::BatchEncoder;
use strata_olap::scan::{BoundView, StrataTable};
use strata_olap::tier::{Store, StoreOptions};
use strata_oltp::db::{Db, Durability};
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::options::Options;
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::txn::Overlay;
use strata_oltp::view::Snapshot;
use strata_oltp::{ColdTier, ColumnId, SeqNo, TableId, TableSchema};

pub const TABLE: TableId = TableId(7);

/// One row: a key, a group, three nullable values and a column that is NULL in every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: i64,
    pub grp: i32,
    pub price: Option<f64>,
    pub amount: Option<i128>,
    pub name: Option<String>,
}

impl Row {
    /// A row whose values follow from its key and a salt; about one in five values is NULL.
    pub fn of(id: i64, salt: u64) -> Row {
        let mix =
            (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt.wrapping_mul(0xd1b5_4a32_d192_ed03));
        let mix = (mix ^ (mix >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let part = |shift: u32, of: u64| (mix >> shift) % of;
        Row {
            id,
            grp: part(3, 12) as i32,
            price: (part(9, 5) != 0).then(|| match part(13, 40) {
                0 => f64::NAN,
                1 => -0.0,
                n => n as f64 / 4.0,
            }),
            amount: (part(21, 6) != 0).then(|| i128::from(part(23, 100_000)) - 50_000),
            name: (part(31, 5) != 0).then(|| format!("name-{}-{}", part(33, 20), "x".repeat(part(40, 90) as usize))),
        }
    }
}

/// The table's shape.
pub fn schema() -> Arc<TableSchema> {
    let column = |id: u32, name: &str, data_type: DataType, nullable: bool| Column {
        id: ColumnId(id),
        field: Field::new(name, data_type, nullable),
    };
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "grp", DataType::Int32, false),
        column(3, "price", DataType::Float64, true),
        column(4, "amount", DataType::Decimal128(15, 2), true),
        column(5, "name", DataType::Utf8View, true),
        column(6, "nothing", DataType::Int32, true),
    ];
    Arc::new(TableSchema::new(TABLE, 1, columns, vec![0]).unwrap())
}

/// `rows` as a batch of the table's columns.
pub fn batch(rows: &[Row]) -> RecordBatch {
    let amounts = rows.iter().map(|r| r.amount).collect::<Decimal128Array>().with_precision_and_scale(15, 2).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.id).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.grp).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|r| r.price).collect::<Float64Array>()),
        Arc::new(amounts),
        Arc::new(rows.iter().map(|r| r.name.as_deref()).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|_| None).collect::<Int32Array>()),
    ];
    RecordBatch::try_new(Arc::clone(schema().arrow()), columns).unwrap()
}

/// A database with one table, and the model of it.
pub struct Bench {
    pub db: Db,
    pub store: Arc<Store>,
    pub schema: Arc<TableSchema>,
    versions: BTreeMap<i64, Vec<(SeqNo, Option<Row>)>>,
}

impl Bench {
    /// An empty database in memory. Row groups of 64 rows, so that a few hundred rows make many of them.
    pub fn new() -> Bench {
        let env: Arc<dyn Env> = Arc::new(MemEnv::new());
        let budget = MemoryBudget::new(1 << 30);
        let dir = Path::new("db");
        let options = StoreOptions { row_group_rows_max: 64, segment_rows_max: 256, ..StoreOptions::default() };
        let store = Store::new(Arc::clone(&env), dir, Arc::clone(&budget), options);
        let cold: Arc<dyn ColdTier> = Arc::clone(&store) as Arc<dyn ColdTier>;
        let db = Db::open_with(env, dir, Options::default(), budget, cold, None).unwrap();
        let schema = schema();
        db.register_table(Arc::clone(&schema), StorageKind::Hybrid);
        Bench { db, store, schema, versions: BTreeMap::new() }
    }

    /// Commits puts (`Some`) and deletes (`None`) as one transaction.
    pub fn commit(&mut self, changes: &BTreeMap<i64, Option<Row>>) -> SeqNo {
        let mut txn = self.db.begin().unwrap();
        self.write(&mut txn, changes);
        let seqno = txn.commit(Durability::Durable).unwrap();
        for (id, row) in changes {
            self.versions.entry(*id).or_default().push((seqno, row.clone()));
        }
        seqno
    }

    /// The changes as a transaction's own uncommitted writes.
    pub fn overlay(&self, changes: &BTreeMap<i64, Option<Row>>) -> (Snapshot, Arc<Overlay>) {
        let mut txn = self.db.begin().unwrap();
        self.write(&mut txn, changes);
        (txn.snapshot().clone(), txn.overlay(TABLE).unwrap())
    }

    fn write(&self, txn: &mut strata_oltp::txn::Transaction, changes: &BTreeMap<i64, Option<Row>>) {
        let encoder = BatchEncoder::new(&self.schema);
        for (id, row) in changes {
            let stand_in = row.clone().unwrap_or_else(|| Row::of(*id, 0));
            let encoded = encoder.encode(&batch(&[stand_in])).unwrap();
            match row {
                Some(_) => txn.put(TABLE, encoded.key(0).to_vec(), encoded.row(0).to_vec()).unwrap(),
                None => txn.delete(TABLE, encoded.key(0).to_vec()).unwrap(),
            }
        }
    }

    /// Keys of rows visible now.
    pub fn live(&self) -> Vec<i64> {
        self.rows_at(SeqNo::MAX).iter().map(|row| row.id).collect()
    }

    /// What the model says is visible at `at`, by key.
    pub fn rows_at(&self, at: SeqNo) -> Vec<Row> {
        let newest = |versions: &Vec<(SeqNo, Option<Row>)>| {
            versions.iter().rev().find(|(seqno, _)| *seqno <= at).and_then(|(_, row)| row.clone())
        };
        self.versions.values().filter_map(newest).collect()
    }

    /// A context whose table `t` (and `u`, the same again) is the real one, bound to `view`.
    pub fn real(&self, view: Arc<BoundView>, partitions: usize) -> SessionContext {
        let config = config(partitions).with_extension(view);
        let context = SessionContext::new_with_config(config);
        for name in ["t", "u"] {
            let table = StrataTable::new(Arc::clone(&self.schema)).unwrap();
            context.register_table(name, Arc::new(table)).unwrap();
        }
        context
    }
}

/// A view of `snapshot` that cuts fresh rows into many ranges.
pub fn view(snapshot: Snapshot) -> BoundView {
    BoundView::new(snapshot).with_range_versions(40)
}

/// A context whose tables hold `rows` plainly.
pub fn oracle(rows: &[Row]) -> SessionContext {
    let context = SessionContext::new_with_config(config(1));
    for name in ["t", "u"] {
        let table = MemTable::try_new(Arc::clone(schema().arrow()), vec![vec![batch(rows)]]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    context
}

fn config(partitions: usize) -> SessionConfig {
    SessionConfig::new().with_target_partitions(partitions).with_batch_size(32)
}

/// Rows of a query's answer as text, in the order they came.
pub async fn answer(context: &SessionContext, sql: &str) -> Vec<String> {
    let frame = context.sql(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches = frame.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in &batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(values.join("|"));
        }
    }
    lines
}

/// How the answer to a query may differ from the oracle's.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// The same rows in any order.
    Set,
    /// The same rows in the same order.
    List,
    /// As many rows, all of them among the rows of the query without its LIMIT.
    Some,
}

/// Runs `sql` on both and panics, naming the query, unless the answers agree.
pub async fn compare(real: &SessionContext, oracle: &SessionContext, sql: &str, kind: Answer) {
    let mut found = answer(real, sql).await;
    let mut expected = answer(oracle, sql).await;
    match kind {
        Answer::List => {}
        Answer::Set => {
            found.sort();
            expected.sort();
        }
        Answer::Some => {
            assert_eq!(found.len(), expected.len(), "{sql}: number of rows");
            let unlimited = &sql[..sql.rfind(" LIMIT ").unwrap()];
            let mut all = answer(oracle, unlimited).await;
            for row in &found {
                let at = all.iter().position(|other| other == row);
                all.swap_remove(at.unwrap_or_else(|| panic!("{sql}: unexpected row {row}")));
            }
            return;
        }
    }
    assert_eq!(found, expected, "{sql}");
}

/// Queries that lean on every part of the scan; `a < b` are keys, `n` is any number.
pub fn queries(a: i64, b: i64, n: u64) -> Vec<(String, Answer)> {
    use Answer::{List, Set, Some};
    let group = n % 12;
    let half = n % 7;
    let price = (n % 40) as f64 / 4.0;
    let q = |sql: String, kind: Answer| (sql, kind);
    vec![
        q("SELECT * FROM t".into(), Set),
        q("SELECT name, id FROM t".into(), Set),
        q("SELECT COUNT(*) FROM t".into(), Set),
        q("SELECT COUNT(*), COUNT(price), COUNT(nothing), COUNT(name) FROM t".into(), Set),
        q("SELECT MIN(id), MAX(id), MIN(amount), MAX(amount), MIN(grp), MAX(grp) FROM t".into(), Set),
        q("SELECT MIN(name), MAX(name), MIN(nothing), MAX(nothing) FROM t".into(), Set),
        // One by one, because statistics answer a query only if they answer all of it.
        q("SELECT MIN(name) FROM t".into(), Set),
        q("SELECT MAX(name) FROM t".into(), Set),
        q("SELECT MAX(amount) FROM t".into(), Set),
        q("SELECT MIN(price) FROM t".into(), Set),
        q("SELECT MAX(nothing), COUNT(nothing) FROM t".into(), Set),
        q("SELECT COUNT(DISTINCT grp) FROM t".into(), Set),
        q("SELECT SUM(id), SUM(amount), AVG(amount), SUM(nothing) FROM t".into(), Set),
        q("SELECT COUNT(DISTINCT grp), COUNT(DISTINCT id), COUNT(DISTINCT name) FROM t".into(), Set),
        q("SELECT grp, COUNT(*), SUM(amount), MAX(id) FROM t GROUP BY grp".into(), Set),
        q("SELECT id, MAX(name) FROM t GROUP BY id".into(), Set),
        q(format!("SELECT * FROM t WHERE id >= {a} AND id < {b}"), Set),
        q(format!("SELECT COUNT(*), SUM(amount) FROM t WHERE id BETWEEN {a} AND {b}"), Set),
        q(format!("SELECT * FROM t WHERE id = {a}"), Set),
        q(format!("SELECT * FROM t WHERE id IN ({a}, {b}, {})", a + 1), Set),
        q(format!("SELECT id, price FROM t WHERE grp = {group}"), Set),
        q(format!("SELECT id FROM t WHERE grp = {group} AND id > {a}"), Set),
        q(format!("SELECT id FROM t WHERE price > {price}"), Set),
        q(format!("SELECT id FROM t WHERE price <= {price} OR amount > 0"), Set),
        q("SELECT id FROM t WHERE price = 0".into(), Set),
        q("SELECT id, nothing FROM t WHERE nothing IS NULL".into(), Set),
        q("SELECT id FROM t WHERE nothing IS NOT NULL OR nothing = 3".into(), Set),
        q("SELECT id FROM t WHERE price IS NULL AND name IS NOT NULL".into(), Set),
        q(format!("SELECT id FROM t WHERE name LIKE 'name-{half}%'"), Set),
        q(format!("SELECT id FROM t WHERE name >= 'name-{half}'"), Set),
        q(format!("SELECT COUNT(*) FROM t WHERE id < {a}"), Set),
        q("SELECT 1 FROM t".into(), Set),
        q("SELECT grp + 1, id * 2 FROM t".into(), Set),
        q(format!("SELECT * FROM t LIMIT {}", n % 300), Some),
        q(format!("SELECT id, grp FROM t WHERE id > {a} LIMIT {}", n % 50), Some),
        q(format!("SELECT id FROM t WHERE id >= {a} AND id < {b} LIMIT {}", 1 + n % 20), Some),
        q(format!("SELECT id FROM t WHERE nothing IS NULL LIMIT {}", 1 + n % 90), Some),
        q(format!("SELECT * FROM t ORDER BY id LIMIT {}", 1 + n % 70), List),
        q(format!("SELECT id, name FROM t ORDER BY id DESC LIMIT {}", 1 + n % 9), List),
        q(format!("SELECT amount, id FROM t ORDER BY amount DESC NULLS LAST, id LIMIT {}", 1 + n % 9), List),
        q(format!("SELECT name, id FROM t ORDER BY name NULLS FIRST, id DESC LIMIT {}", 1 + n % 9), List),
        q(format!("SELECT id FROM t WHERE grp = {group} ORDER BY id LIMIT 5"), List),
        q(format!("SELECT id FROM t ORDER BY id LIMIT 4 OFFSET {}", n % 100), List),
        q(format!("SELECT t.id, u.grp FROM t JOIN u ON t.grp = u.id WHERE u.amount > {}", (n % 50) * 10), Set),
        q(format!("SELECT COUNT(*) FROM t JOIN u ON t.id = u.id WHERE u.grp = {group} AND u.id < {b}"), Set),
        q(format!("SELECT t.id FROM t WHERE t.id IN (SELECT u.id + 3 FROM u WHERE u.grp = {group})"), Set),
        q(format!("SELECT t.id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.id = t.id + 1 AND u.id > {a})"), Set),
        q(format!("SELECT t.id FROM t LEFT JOIN u ON t.id = u.id - {half} WHERE u.id IS NULL"), Set),
        q(format!("SELECT COUNT(*) FROM t WHERE amount > (SELECT AVG(amount) FROM u WHERE id > {a})"), Set),
    ]
}
