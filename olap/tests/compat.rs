//! Proves the promise to old segments: every segment in `data/compat/` still opens, and its rows, marks and key index say
//! what they said.
//!
//! A fixture is never edited: a new format version adds files under the next `data/compat/v*` and a function here. Bytes
//! written now are not compared with it, because a new release of the Parquet library may pack pages differently; the
//! worked examples of FORMAT.md hold the encoders of our own files.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod harness;

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use harness::{MapCursor, Versions, encode, nested_table, wide_table};
use strata_olap::convert::batch::BatchEncoder;
use strata_olap::{ColdState, Store, StoreOptions};
use strata_oltp::cold::{ColdJob, SegmentRecord};
use strata_oltp::env::os::OsEnv;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::row::{Interval, OwnedValue, Value, ValueKind, list};
use strata_oltp::{ColdTier, FileId, Location, SeqNo, TableId, TableSchema};

const META_V1: &str = include_str!("../../data/compat/v1/segments/0000000003.meta.hex");
const META_OF_LISTS: &str = include_str!("../../data/compat/v1/segments/0000000005.meta.hex");

fn store() -> Arc<Store> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/compat/v1");
    let options = StoreOptions { row_group_rows_max: 25, ..StoreOptions::default() };
    Store::new(Arc::new(OsEnv::new()), &dir, MemoryBudget::new(1 << 26), options)
}

/// Forty keys, every fourth with an older version; two columns of every type, NULLs in the second.
fn versions_v1() -> Versions {
    let mut versions = Versions::new();
    for key in 0..40_i64 {
        for seqno in if key % 4 == 0 { vec![10, 20] } else { vec![10] } {
            let values: Vec<OwnedValue> =
                (0..16).flat_map(|at| [value(at, key, seqno), nullable(at, key, seqno)]).collect();
            let (full_key, row) = encode(&wide_table(), &values);
            versions.insert((full_key, Reverse(SeqNo(seqno as u64))), Some(row));
        }
    }
    versions
}

fn nullable(at: usize, key: i64, seqno: i64) -> OwnedValue {
    if (key as usize + at).is_multiple_of(3) { OwnedValue::Null } else { value(at, key + seqno, seqno) }
}

fn value(at: usize, key: i64, seqno: i64) -> OwnedValue {
    let number = key * 7 - 100;
    match at {
        0 => OwnedValue::Text(format!("text {key}")),
        1 => OwnedValue::Int32(number as i32),
        2 => OwnedValue::Decimal128(i128::from(number) * 1_000_000_007),
        3 => OwnedValue::Uuid([key as u8; 16]),
        4 => OwnedValue::Boolean(key % 2 == 0),
        5 => OwnedValue::Int16((number + seqno) as i16),
        6 => OwnedValue::Int64(number << 33),
        7 => OwnedValue::Float32(if key == 5 { f32::NAN } else { number as f32 / 8.0 }),
        8 => OwnedValue::Float64(if key == 6 { -0.0 } else { number as f64 / 3.0 }),
        9 => OwnedValue::Decimal128(i128::from(number * 100)),
        10 => OwnedValue::Decimal128(i128::from(number)),
        11 => OwnedValue::Binary(vec![0xFF; key as usize % 20]),
        12 => OwnedValue::Date32(number as i32),
        13 => OwnedValue::Time64(key * 1_000_001),
        14 => OwnedValue::Timestamp(number * 1_000_000_007),
        _ => OwnedValue::Timestamp(number),
    }
}

/// Forty keys of a table with lists and intervals, which version 1 got later.
fn versions_of_lists() -> Versions {
    let schema = nested_table();
    let nested = |data_type: &DataType, key: i64| match data_type {
        DataType::List(item) => {
            let kind = ValueKind::of(item.data_type()).unwrap();
            let at = scalar_at(item.data_type());
            let elements: Vec<OwnedValue> = (0..key % 4).map(|n| nullable(at, key + n, 10)).collect();
            let elements: Vec<Value<'_>> = elements.iter().map(OwnedValue::as_value).collect();
            let mut bytes = Vec::new();
            list::encode(kind, &elements, &mut bytes).unwrap();
            OwnedValue::List(bytes)
        }
        DataType::Interval(_) => OwnedValue::Interval(Interval {
            months: key as i32 - 20,
            days: 7 - key as i32,
            micros: key * 1_000_003 - 5_000_000,
        }),
        other => value(scalar_at(other), key, 10),
    };
    let mut versions = Versions::new();
    for key in 0..40_i64 {
        let columns = schema.columns.iter().enumerate().map(|(at, column)| match column.field.is_nullable() {
            true if (key as usize + at).is_multiple_of(3) => OwnedValue::Null,
            _ => nested(column.field.data_type(), key),
        });
        let (full_key, row) = encode(&schema, &columns.collect::<Vec<_>>());
        versions.insert((full_key, Reverse(SeqNo(10))), Some(row));
    }
    versions
}

/// Which of the columns of [`value`] has the type.
fn scalar_at(data_type: &DataType) -> usize {
    match data_type {
        DataType::Int32 => 1,
        DataType::Utf8View => 0,
        DataType::Float64 => 8,
        DataType::Boolean => 4,
        DataType::Decimal128(..) => 9,
        DataType::BinaryView => 11,
        DataType::FixedSizeBinary(_) => 3,
        _ => 14,
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let text: String = hex.lines().filter(|line| !line.starts_with('#')).collect();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn record_v1() -> SegmentRecord {
    SegmentRecord {
        segment: FileId(3),
        table: TableId(7),
        meta: bytes_of(META_V1),
        marks: Some(FileId(4)),
        marks_through: SeqNo(30),
    }
}

#[test]
fn a_segment_of_version_1() {
    let (store, schema) = (store(), wide_table());
    let view = store.restore(&[record_v1()]).unwrap();
    assert_eq!(store.verify(view.as_ref()).unwrap(), 1);
    let segment = Arc::clone(&ColdState::of(view.as_ref()).table(schema.table).segments()[0]);
    let columns: Vec<usize> = (0..schema.columns.len()).collect();
    let mut expected = versions_v1().into_iter();
    for group in 0..segment.row_group_count() {
        let rows = segment.row_group_rows(group);
        let arrays: Vec<Option<ArrayRef>> =
            segment.decode_columns(group, &columns).unwrap().into_iter().map(Some).collect();
        let encoded = BatchEncoder::new(&schema).encode_columns(&arrays, rows.len()).unwrap();
        for row in 0..rows.len() {
            let ((key, seqno), bytes) = expected.next().unwrap();
            assert_eq!((encoded.key(row), Some(encoded.row(row))), (key.as_slice(), bytes.as_deref()));
            let position = rows.start + row as u32;
            assert_eq!(segment.locate(&key, seqno.0).unwrap(), Some((position, seqno.0)));
            let is_old = segment.marks().marks_at(SeqNo(20)).contains(position);
            assert_eq!(
                is_old,
                seqno.0 == SeqNo(10) && segment.locate(&key, SeqNo(20)).unwrap() != Some((position, SeqNo(10)))
            );
        }
    }
    assert_eq!(expected.next(), None);
    assert_eq!((segment.marks().count(), segment.visible_rows(SeqNo(20))), (10, Some(40)));
}

#[test]
fn a_segment_of_version_1_with_lists_and_intervals() {
    let (store, schema) = (store(), nested_table());
    let record = SegmentRecord {
        segment: FileId(5),
        table: TableId(7),
        meta: bytes_of(META_OF_LISTS),
        marks: None,
        marks_through: SeqNo(30),
    };
    let view = store.restore(&[record]).unwrap();
    assert_eq!(store.verify(view.as_ref()).unwrap(), 1);
    for (position, ((key, seqno), row)) in versions_of_lists().into_iter().enumerate() {
        let location = Location { segment: FileId(5), position: position as u32 };
        assert_eq!(view.locate(schema.table, &key, SeqNo::MAX).unwrap(), Some((location, seqno.0)));
        assert_eq!(Some(view.read_row(&schema, location).unwrap()), row);
    }
}

/// How the fixture was made; prints the description for the `.meta.hex` file beside it.
#[test]
#[ignore = "writes the fixture of a new format version"]
fn write_the_fixture() {
    write_segment(wide_table(), &versions_v1(), 3);
}

/// The same for the one with lists and intervals.
#[test]
#[ignore = "writes the fixture of a new format version"]
fn write_the_fixture_of_lists() {
    write_segment(nested_table(), &versions_of_lists(), 5);
}

fn write_segment(schema: Arc<TableSchema>, versions: &Versions, id: u64) {
    let store = store();
    let view = store.restore(&[]).unwrap();
    let next = std::sync::atomic::AtomicU64::new(id);
    let job = ColdJob {
        schema,
        versions: MapCursor::boxed(versions),
        newer: MapCursor::boxed(&Versions::new()),
        segments: Vec::new(),
        watermark: SeqNo::ZERO,
        marks_through: SeqNo(30),
        next_file: &|| FileId(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
    };
    let output = store.run(view.as_ref(), job).unwrap();
    let hex: Vec<String> = output.segments[0].meta.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chunks(32).for_each(|line| println!("meta {}", line.join(" ")));
}
