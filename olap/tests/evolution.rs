//! Tables that change their columns while their rows stay: segments, runs and memtables of every past shape, read in the
//! newest one.
//!
//! A random history of changes, rows, conversions and reopenings is compared with a model that knows values by column
//! number and nothing of shapes. Snapshots held from before a change go on in the shape of their time; states of the
//! past are right or refused, never made up. Then the rules of taking up a shape: with the commit, or not at all.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use strata_olap::ColdState;
use strata_olap::convert::batch::BatchBuilder;
use strata_olap::scan::{BoundView, StrataTable};
use strata_olap::tier::{Store, StoreOptions};
use strata_oltp::compaction::CompactionOptions;
use strata_oltp::db::{Db, Durability};
use strata_oltp::env::Env;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::sim::{PowerLoss, SimEnv};
use strata_oltp::key::KeyCodec;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::options::Options;
use strata_oltp::row::{OwnedValue, RowCodec, RowRef, Value};
use strata_oltp::schema::{Column, StorageKind};
use strata_oltp::txn::Transaction;
use strata_oltp::view::Snapshot;
use strata_oltp::{ColdTier, ColumnId, Error, SeqNo, TableId, TableSchema};

const TABLE: TableId = TableId(7);
/// A table of rows that stands for the catalog: one row, the newest shape.
const CATALOG: TableId = TableId(2);

/// Rows by key, values by column number.
type Rows = BTreeMap<i64, BTreeMap<ColumnId, OwnedValue>>;

fn column(id: u32, name: &str, data_type: DataType, is_nullable: bool) -> Column {
    Column { id: ColumnId(id), field: Field::new(name, data_type, is_nullable) }
}

fn first_shape() -> TableSchema {
    let columns = vec![
        column(1, "id", DataType::Int64, false),
        column(2, "small", DataType::Int16, true),
        column(3, "text", DataType::Utf8View, true),
        column(4, "price", DataType::Decimal128(9, 2), false),
    ];
    TableSchema::new(TABLE, 1, columns, vec![0]).unwrap()
}

fn catalog_shape() -> Arc<TableSchema> {
    let columns = vec![column(1, "id", DataType::Int16, false), column(2, "shape", DataType::BinaryView, false)];
    Arc::new(TableSchema::new(CATALOG, 1, columns, vec![0]).unwrap())
}

/// A value that follows from a number; about one in four is NULL where it may be.
fn value(column: &Column, salt: i64) -> OwnedValue {
    if column.field.is_nullable() && salt % 4 == 1 {
        return OwnedValue::Null;
    }
    match column.field.data_type() {
        DataType::Boolean => OwnedValue::Boolean(salt % 2 == 0),
        DataType::Int16 => OwnedValue::Int16((salt % 100) as i16),
        DataType::Int32 => OwnedValue::Int32((salt % 1000) as i32 * 70_000),
        DataType::Int64 => OwnedValue::Int64(salt * 5_000_000_000),
        DataType::Float32 => OwnedValue::Float32(if salt % 7 == 0 { f32::NAN } else { salt as f32 / 4.0 }),
        DataType::Float64 => OwnedValue::Float64(if salt % 7 == 2 { -0.0 } else { salt as f64 / 3.0 }),
        DataType::Decimal128(_, _) => OwnedValue::Decimal128(i128::from(salt % 5000) * 1001),
        DataType::Utf8View => OwnedValue::Text(format!("text {}", salt % 50)),
        other => panic!("no values of {other}"),
    }
}

/// What a value is in a wider type, said without the code under test.
fn widened(value: &OwnedValue, from: &DataType, to: &DataType) -> OwnedValue {
    let (digits, scale) = match (value, from) {
        (OwnedValue::Int16(v), _) => (i128::from(*v), 0),
        (OwnedValue::Int32(v), _) => (i128::from(*v), 0),
        (OwnedValue::Int64(v), _) => (i128::from(*v), 0),
        (OwnedValue::Decimal128(v), DataType::Decimal128(_, scale)) => (*v, *scale),
        (OwnedValue::Float32(v), _) => return OwnedValue::Float64(f64::from(*v)),
        (other, _) => return other.clone(),
    };
    match to {
        DataType::Int32 => OwnedValue::Int32(digits as i32),
        DataType::Int64 => OwnedValue::Int64(digits as i64),
        DataType::Decimal128(_, finer) => OwnedValue::Decimal128((scale..*finer).fold(digits, |digits, _| digits * 10)),
        other => panic!("nothing widens to {other}"),
    }
}

struct Bench {
    env: Arc<dyn Env>,
    db: Db,
    shape: Arc<TableSchema>,
    rows: Rows,
    salt: i64,
}

impl Bench {
    fn new() -> Bench {
        Bench::on(Arc::new(MemEnv::new()))
    }

    fn on(env: Arc<dyn Env>) -> Bench {
        let db = open(&env);
        let shape = Arc::new(first_shape());
        let mut bench = Bench { env, db, shape: Arc::clone(&shape), rows: Rows::new(), salt: 0 };
        bench.db.register_table(catalog_shape(), StorageKind::Row);
        bench.db.register_table(Arc::clone(&shape), StorageKind::Hybrid);
        let mut txn = bench.db.begin().unwrap();
        store_shape(&mut txn, &shape);
        txn.commit(Durability::Durable).unwrap();
        bench.put(0..3);
        bench
    }

    /// Closes and opens again; the shape comes back from the catalog.
    fn reopen(&mut self) {
        self.db.clone().close().unwrap();
        // The directory stays locked until the last handle is gone.
        let placeholder = MemEnv::new();
        let other: Arc<dyn Env> = Arc::new(placeholder);
        self.db = open(&other);
        self.db = open(&self.env);
        self.db.register_table(catalog_shape(), StorageKind::Row);
        let shape = stored_shape(&self.db.snapshot());
        assert_eq!(shape, *self.shape, "what was committed is there");
        self.shape = Arc::new(shape);
        self.db.register_table(Arc::clone(&self.shape), StorageKind::Hybrid);
    }

    fn put(&mut self, ids: impl Iterator<Item = i64>) {
        let mut txn = self.db.begin().unwrap();
        for id in ids {
            self.salt += 1;
            let row = put(&mut txn, &self.shape, id, self.salt);
            self.rows.insert(id, row);
        }
        if txn.write_count() > 0 {
            txn.commit(Durability::Durable).unwrap();
        }
    }

    fn delete(&mut self, ids: impl Iterator<Item = i64>) {
        let mut txn = self.db.begin().unwrap();
        for id in ids.filter(|id| self.rows.contains_key(id)).collect::<Vec<_>>() {
            txn.delete(TABLE, key(&self.shape, id)).unwrap();
            self.rows.remove(&id);
        }
        if txn.write_count() > 0 {
            txn.commit(Durability::Durable).unwrap();
        }
    }

    /// Commits another shape, and rows of it in the same transaction if `with_row`.
    fn alter(&mut self, shape: TableSchema, with_row: bool) {
        let shape = Arc::new(shape);
        let mut txn = self.db.begin().unwrap();
        store_shape(&mut txn, &shape);
        if with_row {
            self.salt += 1;
            let row = put(&mut txn, &shape, -1, self.salt);
            self.rows.insert(-1, row);
        }
        txn.reshape(Arc::clone(&shape), StorageKind::Hybrid, CompactionOptions::default());
        txn.commit(Durability::Durable).unwrap();
        self.shape = shape;
    }

    fn state(&self) -> State {
        State { snapshot: self.db.snapshot(), shape: Arc::clone(&self.shape), rows: self.rows.clone() }
    }
}

fn open(env: &Arc<dyn Env>) -> Db {
    let budget = MemoryBudget::new(1 << 30);
    let dir = Path::new("db");
    let options = StoreOptions { row_group_rows_max: 8, segment_rows_max: 32, ..StoreOptions::default() };
    let store = Store::new(Arc::clone(env), dir, Arc::clone(&budget), options);
    let cold: Arc<dyn ColdTier> = store;
    let options = Options { retention_ms: 3_600_000, ..Options::default() };
    Db::open_with(Arc::clone(env), dir, options, budget, cold, None).unwrap()
}

fn key(shape: &TableSchema, id: i64) -> Vec<u8> {
    let mut key = Vec::new();
    KeyCodec::new(shape).encode(&[Value::Int64(id)], &mut key).unwrap();
    key
}

fn encode(shape: &TableSchema, row: &BTreeMap<ColumnId, OwnedValue>) -> Vec<u8> {
    let values: Vec<Value<'_>> = shape.columns.iter().map(|column| row[&column.id].as_value()).collect();
    let mut bytes = Vec::new();
    RowCodec::new(shape).encode(&values, &mut bytes).unwrap();
    bytes
}

fn put(txn: &mut Transaction, shape: &TableSchema, id: i64, salt: i64) -> BTreeMap<ColumnId, OwnedValue> {
    let mut row: BTreeMap<ColumnId, OwnedValue> = BTreeMap::new();
    for (at, column) in shape.columns.iter().enumerate() {
        let value = if at == 0 { OwnedValue::Int64(id) } else { value(column, salt + at as i64) };
        row.insert(column.id, value);
    }
    txn.put(TABLE, key(shape, id), encode(shape, &row)).unwrap();
    row
}

fn store_shape(txn: &mut Transaction, shape: &TableSchema) {
    let (catalog, bytes) = (catalog_shape(), shape.to_bytes());
    let values = [Value::Int16(0), Value::Binary(&bytes)];
    let (mut key, mut row) = (Vec::new(), Vec::new());
    KeyCodec::new(&catalog).encode(&values[..1], &mut key).unwrap();
    RowCodec::new(&catalog).encode(&values, &mut row).unwrap();
    txn.put(CATALOG, key, row).unwrap();
}

fn stored_shape(snapshot: &Snapshot) -> TableSchema {
    let catalog = catalog_shape();
    let mut key = Vec::new();
    KeyCodec::new(&catalog).encode(&[Value::Int16(0)], &mut key).unwrap();
    let row = snapshot.get(&catalog, &key).unwrap().unwrap();
    let codec = RowCodec::new(&catalog);
    TableSchema::from_bytes(RowRef::new(&codec, &row).unwrap().variable(1)).unwrap()
}

/// What one reader sees, and must see.
struct State {
    snapshot: Snapshot,
    shape: Arc<TableSchema>,
    rows: Rows,
}

impl State {
    fn real(&self) -> SessionContext {
        let view = Arc::new(BoundView::new(self.snapshot.clone()).with_range_versions(10));
        let context = SessionContext::new_with_config(config().with_extension(view));
        context.register_table("t", Arc::new(StrataTable::new(Arc::clone(&self.shape)).unwrap())).unwrap();
        context
    }

    fn oracle(&self) -> SessionContext {
        let mut builder = BatchBuilder::new(&self.shape, None, false);
        self.rows.values().for_each(|row| builder.push(&encode(&self.shape, row), SeqNo(1)).unwrap());
        let batch = builder.finish().unwrap();
        let batch = RecordBatch::try_new(Arc::clone(self.shape.arrow()), batch.columns().to_vec()).unwrap();
        let context = SessionContext::new_with_config(config());
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        context
    }

    fn queries(&self) -> Vec<String> {
        let mut queries = vec!["SELECT * FROM t".to_owned(), "SELECT COUNT(*) FROM t".to_owned()];
        for Column { field, .. } in &self.shape.columns {
            let c = field.name();
            queries.push(format!("SELECT id, \"{c}\" AS value FROM t WHERE id > 5"));
            queries.push(format!("SELECT COUNT(*), COUNT(\"{c}\") FROM t"));
            queries.push(format!("SELECT id FROM t WHERE \"{c}\" IS NULL"));
            queries.push(format!("SELECT COUNT(*) FROM t WHERE \"{c}\" IS NOT NULL"));
            let middle = match field.data_type() {
                DataType::Utf8View => "'text 25'",
                DataType::Boolean => "true",
                _ => "120",
            };
            for comparison in ["=", ">", "<="] {
                queries.push(format!("SELECT id FROM t WHERE \"{c}\" {comparison} {middle}"));
            }
            // NaN has its own place in an order, but not in bounds.
            if !field.data_type().is_floating() && *field.data_type() != DataType::Boolean {
                queries.push(format!("SELECT MIN(\"{c}\"), MAX(\"{c}\") FROM t"));
                queries.push(format!("SELECT MAX(\"{c}\") FROM t"));
                queries
                    .push(format!("SELECT id, \"{c}\" AS value FROM t ORDER BY \"{c}\" DESC NULLS LAST, id LIMIT 4"));
            }
        }
        queries
    }

    async fn check(&self, queries: &[String]) {
        let (real, oracle) = (self.real(), self.oracle());
        for sql in queries {
            let found = answer(&real, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert_eq!(found, answer(&oracle, sql).await.unwrap(), "{sql} of {:?}", self.shape.columns);
        }
        self.check_points().unwrap();
    }

    fn check_points(&self) -> strata_oltp::Result<()> {
        for id in -1..45 {
            let found = self.snapshot.get(&self.shape, &key(&self.shape, id))?;
            assert_eq!(found, self.rows.get(&id).map(|row| encode(&self.shape, row)), "row {id}");
        }
        Ok(())
    }

    /// The same state, found again as one of the past: right, or refused because rows were rewritten in a later shape.
    async fn check_past(&self, db: &Db) {
        let snapshot = db.snapshot_at(self.snapshot.seqno()).unwrap();
        let past = State { snapshot, shape: Arc::clone(&self.shape), rows: self.rows.clone() };
        let (real, oracle) = (past.real(), past.oracle());
        for sql in past.queries() {
            match answer(&real, &sql).await {
                Ok(found) => assert_eq!(found, answer(&oracle, &sql).await.unwrap(), "{sql}"),
                Err(error) => assert!(error.contains("was altered after the snapshot"), "{sql}: {error}"),
            }
        }
        match past.check_points() {
            Ok(()) | Err(Error::Reshaped { table: TABLE }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(2).with_batch_size(5);
    // As in our sessions, see the engine's base state.
    config.options_mut().optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

async fn answer(context: &SessionContext, sql: &str) -> Result<Vec<String>, String> {
    let frame = context.sql(sql).await.map_err(|e| e.to_string())?;
    let batches = frame.collect().await.map_err(|e| e.to_string())?;
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
    lines.sort();
    Ok(lines)
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        kind: usize,
        is_nullable: bool,
        has_default: bool,
        with_row: bool,
    },
    Drop(usize),
    /// Drops a column and adds another of the same name and type at once.
    Replace(usize),
    /// Two columns exchange their names.
    Exchange(usize, usize),
    Widen(usize, usize),
    NotNull(usize),
    Nullable(usize),
    /// A change that is rolled back, after rows were read in it.
    Abandon(usize),
    Put(i64, i64),
    Delete(i64, i64),
    Flush,
    Convert,
    Compact,
    Reopen,
    Hold,
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..100_usize;
    prop_oneof![
        4 => (0..7_usize, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(kind, is_nullable, has_default, with_row)| Step::Add { kind, is_nullable, has_default, with_row }),
        2 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::Replace),
        1 => (index(), index()).prop_map(|(a, b)| Step::Exchange(a, b)),
        4 => (index(), 0..5_usize).prop_map(|(at, to)| Step::Widen(at, to)),
        1 => index().prop_map(Step::NotNull),
        1 => index().prop_map(Step::Nullable),
        1 => (0..7_usize).prop_map(Step::Abandon),
        6 => (0..40_i64, 1..30_i64).prop_map(|(first, count)| Step::Put(first, count)),
        2 => (0..40_i64, 1..10_i64).prop_map(|(first, count)| Step::Delete(first, count)),
        2 => Just(Step::Flush),
        5 => Just(Step::Convert),
        2 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        2 => Just(Step::Hold),
    ]
}

fn new_type(kind: usize) -> DataType {
    match kind {
        0 => DataType::Int16,
        1 => DataType::Int32,
        2 => DataType::Int64,
        3 => DataType::Float32,
        4 => DataType::Utf8View,
        5 => DataType::Boolean,
        _ => DataType::Decimal128(9, 1),
    }
}

impl Bench {
    /// A column that is not the key.
    fn pick(&self, at: usize) -> usize {
        1 + at % (self.shape.columns.len() - 1)
    }

    fn with_column(&mut self, shape: &TableSchema, field: Field, has_default: bool) -> (TableSchema, OwnedValue) {
        self.salt += 1;
        let never_null = Column { id: ColumnId(0), field: field.clone().with_nullable(false) };
        let missing = if has_default { value(&never_null, self.salt) } else { OwnedValue::Null };
        (shape.with_column(field, missing.as_value()).unwrap(), missing)
    }

    /// `shape` has one more column than before, which is `missing` in every row.
    fn add(&mut self, (shape, missing): (TableSchema, OwnedValue), with_row: bool) {
        let added = shape.columns[shape.columns.len() - 1].id;
        for row in self.rows.values_mut() {
            assert!(row.insert(added, missing.clone()).is_none());
        }
        self.alter(shape, with_row);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add { kind, is_nullable, has_default, with_row } => {
                // NOT NULL needs a default as soon as there is a row.
                let has_default = *has_default || !is_nullable;
                let field = Field::new(format!("c{}", self.salt), new_type(*kind), *is_nullable);
                let shape = Arc::clone(&self.shape);
                let added = self.with_column(&shape, field, has_default);
                self.add(added, *with_row);
            }
            Step::Drop(_) if self.shape.columns.len() <= 2 => {}
            Step::Drop(at) => self.alter(self.shape.without_column(self.pick(*at)).unwrap(), false),
            Step::Replace(at) => {
                let position = self.pick(*at);
                let field = self.shape.columns[position].field.clone().with_nullable(true);
                let shape = self.shape.without_column(position).unwrap();
                let added = self.with_column(&shape, field, false);
                self.add(added, false);
            }
            Step::Exchange(a, b) => {
                let (a, b) = (self.pick(*a), self.pick(*b));
                let name = |at: usize| self.shape.columns[at].field.name().clone();
                let shape = self.shape.with_name(a, "between").unwrap();
                let shape = if a == b { shape } else { shape.with_name(b, &name(a)).unwrap() };
                self.alter(shape.with_name(a, &name(b)).unwrap(), true);
            }
            Step::Widen(at, to) => self.widen(self.pick(*at), *to),
            Step::NotNull(at) => {
                let position = self.pick(*at);
                let id = self.shape.columns[position].id;
                if self.rows.values().all(|row| row[&id] != OwnedValue::Null) {
                    self.alter(self.shape.with_nullable(position, false).unwrap(), true);
                }
            }
            Step::Nullable(at) => {
                let position = self.pick(*at);
                self.alter(self.shape.with_nullable(position, true).unwrap(), true);
            }
            Step::Abandon(kind) => self.abandon(*kind),
            Step::Put(first, count) => self.put((*first..(first + count).min(45)).step_by(2)),
            Step::Delete(first, count) => self.delete(*first..first + count),
            Step::Flush => self.db.flush(None).unwrap(),
            Step::Convert => self.db.convert(TABLE).unwrap(),
            Step::Compact => self.db.compact(TABLE).unwrap(),
            Step::Reopen => self.reopen(),
            Step::Hold => {}
        }
    }

    fn widen(&mut self, position: usize, to: usize) {
        let Column { id, field } = self.shape.columns[position].clone();
        let target = match (field.data_type(), to) {
            (DataType::Decimal128(precision, scale), more) => {
                let more = more as u8;
                DataType::Decimal128((precision + 2 * more).min(38), scale + more.min(3) as i8)
            }
            (DataType::Int16, 0) => DataType::Int32,
            (DataType::Int16 | DataType::Int32, 1 | 2) => DataType::Int64,
            (DataType::Float32, _) => DataType::Float64,
            (_, 3) => DataType::Decimal128(30, 4),
            _ => DataType::Decimal128(25, 0),
        };
        let Ok(shape) = self.shape.with_type(position, &target) else { return };
        for row in self.rows.values_mut() {
            let wide = widened(&row[&id], field.data_type(), &target);
            row.insert(id, wide);
        }
        self.alter(shape, false);
    }

    /// Another shape, rows of it, and queries in it, all rolled back. The next change may get the same version.
    fn abandon(&mut self, kind: usize) {
        let shape = Arc::clone(&self.shape);
        let field = Field::new("abandoned", new_type(kind), true);
        let (shape, missing) = self.with_column(&shape, field, true);
        let mut txn = self.db.begin().unwrap();
        store_shape(&mut txn, &shape);
        txn.reshape(Arc::new(shape.clone()), StorageKind::Hybrid, CompactionOptions::default());
        let mut rows = self.rows.clone();
        let id = shape.columns[shape.columns.len() - 1].id;
        rows.values_mut().for_each(|row| assert!(row.insert(id, missing.clone()).is_none()));
        let state = State { snapshot: txn.snapshot().clone(), shape: Arc::new(shape), rows };
        let queries = ["SELECT * FROM t".to_owned(), "SELECT COUNT(*) FROM t WHERE abandoned IS NULL".to_owned()];
        block_on(state.check(&queries));
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_every_shape_read_as_the_model_says(history in prop::collection::vec(step(), 5..30)) {
        let mut bench = Bench::new();
        let mut held = Vec::new();
        let light = ["SELECT * FROM t".to_owned(), "SELECT COUNT(*) FROM t".to_owned()];
        for step in &history {
            if matches!(step, Step::Reopen) {
                for state in held.drain(..) {
                    let state: State = state;
                    block_on(state.check(&light));
                }
            }
            bench.step(step);
            block_on(bench.state().check(&light));
            if matches!(step, Step::Hold) {
                held.push(bench.state());
            }
        }
        let last = bench.state();
        block_on(last.check(&last.queries()));
        bench.db.convert(TABLE).unwrap();
        let last = bench.state();
        // Twice, so that the second time finds columns in the cache.
        block_on(last.check(&last.queries()));
        block_on(last.check(&last.queries()));
        for state in &held {
            block_on(state.check(&state.queries()));
            block_on(state.check_past(&bench.db));
        }
        bench.db.verify().unwrap();
    }
}

/// Changes of shape and rows, alone and together, around flushes and conversions.
fn eventful() -> Vec<Step> {
    let add = |kind, with_row| Step::Add { kind, is_nullable: kind % 2 == 0, has_default: kind % 3 == 0, with_row };
    vec![
        Step::Put(3, 9),
        add(1, true),
        Step::Flush,
        add(4, false),
        Step::Convert,
        Step::Widen(0, 1),
        Step::Put(0, 5),
        Step::Drop(1),
        Step::Convert,
        add(6, true),
        Step::Delete(2, 3),
        Step::Nullable(3),
        Step::Compact,
        Step::Replace(0),
        Step::Put(5, 4),
    ]
}

#[test]
fn after_a_crash_shape_and_rows_are_those_of_one_commit() {
    let env = SimEnv::new(7);
    let mut bench = Bench::on(Arc::new(env.clone()));
    env.keep_images();
    let first = env.ops();
    // What each step left, and how many operations had been by then.
    let mut states = vec![(first, Arc::clone(&bench.shape), bench.rows.clone())];
    for step in eventful() {
        bench.step(&step);
        states.push((env.ops(), Arc::clone(&bench.shape), bench.rows.clone()));
    }
    for ops in first..=env.ops() {
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll] {
            let machine: Arc<dyn Env> = Arc::new(env.reboot_after(ops, loss));
            let db = open(&machine);
            db.register_table(catalog_shape(), StorageKind::Row);
            let shape = Arc::new(stored_shape(&db.snapshot()));
            db.register_table(Arc::clone(&shape), StorageKind::Hybrid);
            // Acknowledged commits are there, the one that was under way may be.
            let reached = states.iter().rposition(|(done, ..)| *done <= ops).unwrap();
            let possible = &states[reached..(reached + 2).min(states.len())];
            let found = |converted: bool| {
                let snapshot = db.snapshot();
                let is_it = |(_, known, rows): &&(u64, Arc<TableSchema>, Rows)| {
                    let is_right = |id: i64| {
                        let expected = rows.get(&id).map(|row| encode(known, row));
                        snapshot.get(known, &key(known, id)).unwrap() == expected
                    };
                    *known == shape && (-1..45).all(is_right)
                };
                let state = possible.iter().find(is_it);
                let (_, shape, rows) = state.unwrap_or_else(|| panic!("no state after {ops} operations, {converted}"));
                State { snapshot: snapshot.clone(), shape: Arc::clone(shape), rows: rows.clone() }
            };
            let state = found(false);
            db.convert(TABLE).unwrap();
            assert_eq!(found(true).rows, state.rows);
            if ops % 8 == 0 {
                block_on(found(true).check(&["SELECT * FROM t".to_owned()]));
            }
        }
    }
}

/// Schema versions of the table's segments.
fn segment_versions(db: &Db) -> Vec<u16> {
    let snapshot = db.snapshot();
    let segments = ColdState::of(snapshot.view().cold().as_ref()).table(TABLE).segments().iter();
    segments.map(|segment| segment.meta().schema_version).collect()
}

#[test]
fn a_shape_is_taken_up_by_its_commit_and_never_without() {
    let mut bench = Bench::new();
    let wider = bench.shape.with_column(Field::new("more", DataType::Int32, true), Value::Int32(5)).unwrap();
    let mut rolled_back = bench.db.begin().unwrap();
    store_shape(&mut rolled_back, &wider);
    rolled_back.reshape(Arc::new(wider.clone()), StorageKind::Hybrid, CompactionOptions::default());
    drop(rolled_back);
    bench.db.convert(TABLE).unwrap();
    assert_eq!(segment_versions(&bench.db), [1], "what was rolled back was never there");

    // A transaction that loses does not change the shape either.
    let mut loser = bench.db.begin().unwrap();
    store_shape(&mut loser, &wider);
    loser.reshape(Arc::new(wider.clone()), StorageKind::Hybrid, CompactionOptions::default());
    let other = bench.shape.with_column(Field::new("other", DataType::Utf8View, true), Value::Text("x")).unwrap();
    let other = bench.with_other(other);
    bench.alter(other, true);
    assert!(matches!(loser.commit(Durability::Durable), Err(Error::Conflict { .. })));
    bench.put(10..14);
    bench.db.convert(TABLE).unwrap();
    assert_eq!(segment_versions(&bench.db).iter().max(), Some(&2));
    let state = bench.state();
    block_on(state.check(&state.queries()));
}

impl Bench {
    /// Tells the model of a column that was added with the default `x`.
    fn with_other(&mut self, shape: TableSchema) -> TableSchema {
        let added = shape.columns[shape.columns.len() - 1].id;
        self.rows.values_mut().for_each(|row| assert!(row.insert(added, OwnedValue::Text("x".to_owned())).is_none()));
        shape
    }
}

#[test]
fn bounds_of_a_missing_column_prune_and_answer() {
    let mut bench = Bench::new();
    bench.put(3..40);
    bench.db.convert(TABLE).unwrap();
    let shape = bench.shape.with_column(Field::new("more", DataType::Int32, false), Value::Int32(5)).unwrap();
    let added = shape.columns[4].id;
    bench.rows.values_mut().for_each(|row| drop(row.insert(added, OwnedValue::Int32(5))));
    bench.alter(shape, false);
    let state = bench.state();
    let rows_read = |sql: &str| {
        let view = Arc::new(BoundView::new(state.snapshot.clone()));
        let context = SessionContext::new_with_config(config().with_extension(Arc::clone(&view)));
        context.register_table("t", Arc::new(StrataTable::new(Arc::clone(&state.shape)).unwrap())).unwrap();
        let lines = block_on(answer(&context, sql)).unwrap();
        (lines, view.counters().segment_rows())
    };
    assert_eq!(rows_read("SELECT id FROM t WHERE more = 6"), (Vec::new(), 0), "no row group can hold it");
    assert_eq!(rows_read("SELECT MIN(more), MAX(more), COUNT(more) FROM t"), (vec!["5|5|40".to_owned()], 0));
    assert_eq!(rows_read("SELECT COUNT(*) FROM t WHERE more = 5").0, ["40"]);
    block_on(state.check(&state.queries()));
}
