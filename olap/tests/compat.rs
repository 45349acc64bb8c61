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
use harness::{MapCursor, Versions, encode, wide_table};
use strata_olap::convert::batch::BatchEncoder;
use strata_olap::{ColdState, Store, StoreOptions};
use strata_oltp::cold::{ColdJob, SegmentRecord};
use strata_oltp::env::os::OsEnv;
use strata_oltp::memory::MemoryBudget;
use strata_oltp::row::OwnedValue;
use strata_oltp::{ColdTier, FileId, SeqNo, TableId};

const META_V1: &str = include_str!("../../data/compat/v1/segments/0000000003.meta.hex");

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

fn record_v1() -> SegmentRecord {
    let text: String = META_V1.lines().filter(|line| !line.starts_with('#')).collect();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    SegmentRecord {
        segment: FileId(3),
        table: TableId(7),
        meta: digits.chunks(2).map(byte).collect(),
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

/// How the fixture was made; prints the description for the `.meta.hex` file beside it.
#[test]
#[ignore = "writes the fixture of a new format version"]
fn write_the_fixture() {
    let store = store();
    let view = store.restore(&[]).unwrap();
    let next = std::sync::atomic::AtomicU64::new(3);
    let job = ColdJob {
        schema: wide_table(),
        versions: MapCursor::boxed(&versions_v1()),
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
