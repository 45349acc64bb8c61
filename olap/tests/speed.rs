//! How fast conversion goes on rows like TPC-H lineitem; prints rates, asserts nothing. Run it with
//! `cargo test --release --workspace --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use harness::{Files, MapCursor, Versions, mem_env, store};
use strata_olap::convert::batch::{BatchBuilder, BatchEncoder};
use strata_olap::{ColdState, StoreOptions};
use strata_oltp::cold::ColdJob;
use strata_oltp::env::{Env, os::OsEnv};
use strata_oltp::iter::{Cursor, VersionKind};
use strata_oltp::row::OwnedValue;
use strata_oltp::schema::Column;
use strata_oltp::{ColdTier, ColumnId, Result, SeqNo, TableId, TableSchema};

const ROWS: usize = 1_000_000;

fn lineitem() -> Arc<TableSchema> {
    let money = DataType::Decimal128(15, 2);
    let fields = [
        ("l_orderkey", DataType::Int64),
        ("l_partkey", DataType::Int64),
        ("l_suppkey", DataType::Int64),
        ("l_linenumber", DataType::Int32),
        ("l_quantity", money.clone()),
        ("l_extendedprice", money.clone()),
        ("l_discount", money.clone()),
        ("l_tax", money),
        ("l_returnflag", DataType::Utf8View),
        ("l_linestatus", DataType::Utf8View),
        ("l_shipdate", DataType::Date32),
        ("l_commitdate", DataType::Date32),
        ("l_receiptdate", DataType::Date32),
        ("l_shipinstruct", DataType::Utf8View),
        ("l_shipmode", DataType::Utf8View),
        ("l_comment", DataType::Utf8View),
    ];
    let columns = fields
        .into_iter()
        .enumerate()
        .map(|(at, (name, data_type))| Column { id: ColumnId(at as u32), field: Field::new(name, data_type, false) });
    Arc::new(TableSchema::new(TableId(3), 1, columns.collect(), vec![0, 3]).unwrap())
}

fn rows(schema: &TableSchema) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut state = 88172645463325252_u64;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let words = ["furiously ", "ironic ", "deposits ", "sleep ", "carefully ", "quick ", "pending ", "requests "];
    let row = |at: usize| {
        let comment: String = (0..4).map(|_| words[random(8) as usize]).collect();
        let quantity = random(50) + 1;
        let price = random(90_000) + 90_000;
        let day = random(2500) as i32 + 8000;
        let values = [
            OwnedValue::Int64((at / 4 * 5) as i64),
            OwnedValue::Int64(random(200_000) as i64),
            OwnedValue::Int64(random(10_000) as i64),
            OwnedValue::Int32((at % 4) as i32),
            OwnedValue::Decimal128(i128::from(quantity) * 100),
            OwnedValue::Decimal128(i128::from(quantity * price)),
            OwnedValue::Decimal128(i128::from(random(11))),
            OwnedValue::Decimal128(i128::from(random(9))),
            OwnedValue::Text(["A", "N", "R"][random(3) as usize].to_owned()),
            OwnedValue::Text(["O", "F"][random(2) as usize].to_owned()),
            OwnedValue::Date32(day),
            OwnedValue::Date32(day + random(60) as i32),
            OwnedValue::Date32(day + random(30) as i32),
            OwnedValue::Text(
                ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"][random(4) as usize].to_owned(),
            ),
            OwnedValue::Text(["AIR", "TRUCK", "MAIL", "SHIP", "RAIL"][random(5) as usize].to_owned()),
            OwnedValue::Text(comment),
        ];
        harness::encode(schema, &values)
    };
    (0..ROWS).map(row).collect()
}

struct Slice(Arc<Vec<(Vec<u8>, Vec<u8>)>>, Option<usize>);

impl Cursor for Slice {
    fn valid(&self) -> bool {
        self.1.is_some_and(|at| at < self.0.len())
    }
    fn key(&self) -> &[u8] {
        &self.0[self.1.unwrap()].0
    }
    fn seqno(&self) -> SeqNo {
        SeqNo(5)
    }
    fn kind(&self) -> VersionKind {
        VersionKind::Put
    }
    fn value(&self) -> &[u8] {
        &self.0[self.1.unwrap()].1
    }
    fn next(&mut self) -> Result<()> {
        self.1 = Some(self.1.map_or(0, |at| at + 1));
        Ok(())
    }
    fn seek(&mut self, _: &[u8], _: SeqNo) -> Result<()> {
        unreachable!("conversion reads in order")
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn lineitem_rates() {
    let clock = OsEnv::new();
    let timed = |what: &str, count: usize, from: Duration| {
        let seconds = (clock.monotonic() - from).as_secs_f64();
        println!("{what:<28} {:>8.0} ms {:>10.0}/s", seconds * 1e3, count as f64 / seconds);
    };
    let schema = lineitem();
    let rows = Arc::new(rows(&schema));
    let start = clock.monotonic();
    let mut builder = BatchBuilder::new(&schema, None, true);
    let mut batches = Vec::new();
    for chunk in rows.chunks(8192) {
        chunk.iter().for_each(|(_, row)| builder.push(row, SeqNo(5)).unwrap());
        batches.push(builder.finish().unwrap());
    }
    timed("rows to batches", ROWS, start);
    let start = clock.monotonic();
    let encoder = BatchEncoder::new(&schema);
    batches.iter().for_each(|batch| assert!(!encoder.encode(batch).unwrap().is_empty()));
    timed("batches to rows", ROWS, start);

    let env = mem_env();
    let store = store(&env, StoreOptions::default());
    let view = store.restore(&[]).unwrap();
    let files = Files::default();
    let next_file = || files.next();
    let job = |versions: Box<dyn Cursor>, segments| ColdJob {
        schema: Arc::clone(&schema),
        versions,
        newer: MapCursor::boxed(&Versions::new()),
        segments,
        watermark: SeqNo(9),
        marks_through: SeqNo(9),
        next_file: &next_file,
    };
    let start = clock.monotonic();
    let output = store.run(view.as_ref(), job(Box::new(Slice(Arc::clone(&rows), None)), Vec::new())).unwrap();
    timed("rows to segment", ROWS, start);
    let view = store.install(view.as_ref(), output, &[]);
    let segment = Arc::clone(&ColdState::of(view.as_ref()).table(schema.table).segments()[0]);
    println!(
        "bytes a row: parquet {:.1}, keys {:.1}",
        segment.file_bytes() as f64 / ROWS as f64,
        (segment.disk_bytes() - segment.file_bytes()) as f64 / ROWS as f64
    );
    let start = clock.monotonic();
    let columns: Vec<usize> = (0..16).collect();
    (0..segment.row_group_count()).for_each(|group| drop(segment.decode_columns(group, &columns).unwrap()));
    timed("segment to columns", ROWS, start);
    for column in 0..16 {
        let start = clock.monotonic();
        (0..segment.row_group_count()).for_each(|group| drop(segment.decode_columns(group, &[column]).unwrap()));
        timed(schema.columns[column].field.name(), ROWS, start);
    }
    let start = clock.monotonic();
    store.run(view.as_ref(), job(MapCursor::boxed(&Versions::new()), vec![segment.id()])).unwrap();
    timed("segment rewritten", ROWS, start);
    let start = clock.monotonic();
    let probes = rows.iter().step_by(101);
    let count = probes.clone().count();
    probes.clone().for_each(|(key, _)| assert!(view.locate(schema.table, key, SeqNo::MAX).unwrap().is_some()));
    timed("locate, cold blocks", count, start);
    let start = clock.monotonic();
    probes.clone().for_each(|(key, _)| assert!(view.locate(schema.table, key, SeqNo::MAX).unwrap().is_some()));
    timed("locate, warm blocks", count, start);
    let start = clock.monotonic();
    for (key, row) in probes.clone().take(2000) {
        let (location, _) = view.locate(schema.table, key, SeqNo::MAX).unwrap().unwrap();
        assert_eq!(&view.read_row(&schema, location).unwrap(), row);
    }
    timed("locate and read a row", 2000, start);
}
