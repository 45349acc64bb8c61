//! Proves that rows come out of a segment as they went in, bit for bit, for every type: through decoded columns, single
//! row reads, the key index and zone maps, with row groups and pages of a few rows so that all boundaries occur.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod harness;

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::types::{Int32Type, Int64Type, IntervalMonthDayNanoType};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use harness::{
    Files, MapCursor, Versions, encode, mem_env, nested_table, small_options, small_row, small_table, store, wide_table,
};
use proptest::prelude::*;
use strata_olap::convert::batch::{BatchBuilder, BatchEncoder};
use strata_olap::segment::{EncodingOptions, SegmentCompression};
use strata_olap::{ColdState, Segment, StoreOptions};
use strata_oltp::cold::ColdJob;
use strata_oltp::row::{Interval, OwnedValue, ValueKind, list};
use strata_oltp::{ColdTier, ColdView, Location, SeqNo, TableSchema};

/// Any value of a type, the awkward ones often.
fn value(data_type: &DataType) -> BoxedStrategy<OwnedValue> {
    let text = prop_oneof![Just(String::new()), "[a-c]{1,3}", ".{0,40}", "x{60,90}"];
    match data_type {
        DataType::Boolean => any::<bool>().prop_map(OwnedValue::Boolean).boxed(),
        DataType::Int16 => any::<i16>().prop_map(OwnedValue::Int16).boxed(),
        DataType::Int32 => prop_oneof![-2..3, any::<i32>()].prop_map(OwnedValue::Int32).boxed(),
        DataType::Int64 => prop_oneof![-2..3_i64, any::<i64>()].prop_map(OwnedValue::Int64).boxed(),
        DataType::Float32 => prop_oneof![Just(0.0), Just(-0.0), Just(f32::NAN), prop::num::f32::ANY]
            .prop_map(OwnedValue::Float32)
            .boxed(),
        DataType::Float64 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), prop::num::f64::ANY]
            .prop_map(OwnedValue::Float64)
            .boxed(),
        DataType::Decimal128(precision, _) => {
            let bound = 10_i128.pow(u32::from(*precision)) - 1;
            (-bound..=bound).prop_map(OwnedValue::Decimal128).boxed()
        }
        DataType::Utf8View => text.prop_map(OwnedValue::Text).boxed(),
        DataType::BinaryView => prop::collection::vec(any::<u8>(), 0..40).prop_map(OwnedValue::Binary).boxed(),
        DataType::FixedSizeBinary(_) => any::<[u8; 16]>().prop_map(OwnedValue::Uuid).boxed(),
        DataType::Date32 => any::<i32>().prop_map(OwnedValue::Date32).boxed(),
        DataType::Time64(_) => (0..86_400_000_000_i64).prop_map(OwnedValue::Time64).boxed(),
        DataType::Timestamp(_, _) => any::<i64>().prop_map(OwnedValue::Timestamp).boxed(),
        DataType::List(item) => {
            let kind = ValueKind::of(item.data_type()).unwrap();
            let element = prop_oneof![1 => Just(OwnedValue::Null), 3 => value(item.data_type())];
            prop::collection::vec(element, 0..6)
                .prop_map(move |elements| {
                    let elements: Vec<_> = elements.iter().map(OwnedValue::as_value).collect();
                    let mut bytes = Vec::new();
                    list::encode(kind, &elements, &mut bytes).unwrap();
                    OwnedValue::List(bytes)
                })
                .boxed()
        }
        DataType::Interval(_) => {
            // As many microseconds as nanoseconds of 64 bits hold.
            let micros = prop_oneof![-2..3_i64, i64::MIN / 1000..=i64::MAX / 1000];
            let parts = (any::<i32>(), any::<i32>(), micros);
            parts.prop_map(|(months, days, micros)| OwnedValue::Interval(Interval { months, days, micros })).boxed()
        }
        other => unreachable!("{other}"),
    }
}

/// Rows of one of the two tables that have every type.
fn rows() -> impl Strategy<Value = (Arc<TableSchema>, Vec<Vec<OwnedValue>>)> {
    any::<bool>().prop_flat_map(|is_wide| {
        let schema = if is_wide { wide_table() } else { nested_table() };
        (Just(Arc::clone(&schema)), rows_of(&schema))
    })
}

fn rows_of(schema: &TableSchema) -> impl Strategy<Value = Vec<Vec<OwnedValue>>> + use<> {
    let row: Vec<BoxedStrategy<OwnedValue>> = schema
        .columns
        .iter()
        .map(|column| {
            let value = value(column.field.data_type());
            if column.field.is_nullable() {
                prop_oneof![1 => Just(OwnedValue::Null), 2 => value].boxed()
            } else {
                value
            }
        })
        .collect();
    prop::collection::vec(row, 1..40)
}

/// Converts `versions`, all visible, and returns the view.
fn convert(schema: &Arc<TableSchema>, versions: &Versions, options: StoreOptions) -> Arc<dyn ColdView> {
    let env = mem_env();
    let store = store(&env, options);
    let view = store.restore(&[]).unwrap();
    let files = Files::default();
    let job = ColdJob {
        schema: Arc::clone(schema),
        versions: MapCursor::boxed(versions),
        newer: MapCursor::boxed(&Versions::new()),
        segments: Vec::new(),
        watermark: SeqNo::ZERO,
        marks_through: SeqNo(1000),
        next_file: &|| files.next(),
    };
    let output = store.run(view.as_ref(), job).unwrap();
    // What the manifest will say must open to the same thing.
    let restored = store.restore(&output.segments).unwrap();
    let installed = store.install(view.as_ref(), output, &[]);
    assert_eq!(restored.segments(schema.table), installed.segments(schema.table));
    restored
}

fn check_segment(segment: &Segment, view: &dyn ColdView, schema: &Arc<TableSchema>, versions: &mut Versions) {
    let columns: Vec<usize> = (0..=schema.columns.len()).collect();
    for group in 0..segment.row_group_count() {
        let range = segment.row_group_rows(group);
        let arrays = segment.decode_columns(group, &columns).unwrap();
        for (index, array) in arrays.iter().enumerate() {
            assert_eq!(array.data_type(), segment.arrow_schema().field(index).data_type());
            check_bounds(segment, group, index, array);
        }
        let backwards: Vec<usize> = columns.iter().rev().copied().collect();
        let mut reversed = segment.cached_columns(group, &backwards).unwrap();
        reversed.reverse();
        assert_eq!(&arrays, &reversed, "order of columns is that of the request");
        let loose: Vec<Option<ArrayRef>> = arrays.into_iter().map(|array| Some(in_memory(array))).collect();
        let encoded = BatchEncoder::new(schema).encode_columns(&loose, range.len()).unwrap();
        for row in 0..range.len() {
            let ((key, seqno), expected) = versions.pop_first().unwrap();
            assert_eq!((encoded.key(row), Some(encoded.row(row))), (key.as_slice(), expected.as_deref()));
            let location = Location { segment: segment.id(), position: range.start + row as u32 };
            assert_eq!(segment.key_at(location.position).unwrap(), key);
            assert_eq!(view.locate(schema.table, &key, SeqNo::MAX).unwrap(), Some((location, seqno.0)));
            assert_eq!(Some(view.read_row(schema, location).unwrap()), expected);
        }
    }
}

/// Intervals are three numbers each in a file. A second way to put them together, so that the first is not its own judge.
fn in_memory(array: ArrayRef) -> ArrayRef {
    let Some(group) = array.as_struct_opt() else { return array };
    let (months, days) = (group.column(0).as_primitive::<Int32Type>(), group.column(1).as_primitive::<Int32Type>());
    let micros = group.column(2).as_primitive::<Int64Type>();
    let one = |row: usize| {
        let value = || IntervalMonthDayNano::new(months.value(row), days.value(row), micros.value(row) * 1000);
        group.is_valid(row).then(value)
    };
    Arc::new((0..group.len()).map(one).collect::<PrimitiveArray<IntervalMonthDayNanoType>>())
}

/// Zone maps bound what is there, and count its NULLs.
fn check_bounds(segment: &Segment, group: usize, column: usize, array: &ArrayRef) {
    let statistics = segment.statistics().column(column);
    if array.data_type().is_nested() {
        assert!(
            statistics.null_counts.is_null(group) && statistics.mins.is_null(group),
            "nothing is known of lists and intervals"
        );
        return;
    }
    assert_eq!(statistics.null_counts.value(group), array.null_count() as u64);
    if matches!(array.data_type(), DataType::FixedSizeBinary(_) | DataType::Boolean) || array.is_empty() {
        return;
    }
    if statistics.mins.is_valid(group) && statistics.maxes.is_valid(group) {
        let least = arrow::array::Scalar::new(statistics.mins.slice(group, 1));
        let greatest = arrow::array::Scalar::new(statistics.maxes.slice(group, 1));
        assert_eq!(lt(array, &least).unwrap().true_count(), 0, "values below the bound");
        assert_eq!(gt(array, &greatest).unwrap().true_count(), 0, "values above the bound");
    }
    if *array.data_type() == DataType::Float64 {
        let has_nan = array.as_primitive::<arrow::datatypes::Float64Type>().iter().flatten().any(f64::is_nan);
        assert!(!has_nan || statistics.mins.is_null(group), "a column with NaN has no bounds");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_come_back_as_they_were((schema, rows) in rows(), which in 0..3_usize) {
        let compression = [SegmentCompression::Lz4, SegmentCompression::Zstd(1), SegmentCompression::Uncompressed][which];
        let small = small_options();
        let options = StoreOptions { encoding: EncodingOptions { compression, ..small.encoding }, ..small };
        let mut versions = Versions::new();
        for (at, values) in rows.iter().enumerate() {
            let (key, row) = encode(&schema, values);
            versions.insert((key, Reverse(SeqNo(at as u64 % 3 + 1))), Some(row));
        }
        // One version a key: superseded ones are the business of the contract test.
        versions.retain({ let mut seen = std::collections::BTreeSet::new(); move |(key, _), _| seen.insert(key.clone()) });
        let view = convert(&schema, &versions, options);
        for segment in ColdState::of(view.as_ref()).table(schema.table).segments() {
            check_segment(segment, view.as_ref(), &schema, &mut versions);
        }
        prop_assert!(versions.is_empty(), "every row is in a segment");
    }

    #[test]
    fn batches_come_back_as_they_were((schema, rows) in rows()) {
        let mut builder = BatchBuilder::new(&schema, None, true);
        let encoded: Vec<_> = rows.iter().map(|values| encode(&schema, values)).collect();
        encoded.iter().for_each(|(_, row)| builder.push(row, SeqNo(9)).unwrap());
        let batch = builder.finish().unwrap();
        prop_assert!(builder.is_empty());
        let back = BatchEncoder::new(&schema).encode(&batch).unwrap();
        prop_assert_eq!(back.len(), rows.len());
        for (row, (key, bytes)) in encoded.iter().enumerate() {
            prop_assert_eq!((back.key(row), back.row(row)), (key.as_slice(), bytes.as_slice()));
        }
        let mut some = BatchBuilder::new(&schema, Some(&[5, 0]), false);
        encoded.iter().for_each(|(_, row)| some.push(row, SeqNo(9)).unwrap());
        prop_assert_eq!(some.finish().unwrap(), batch.project(&[5, 0]).unwrap());
    }
}

/// Many rows, so that key blocks, pages and row groups of real size have boundaries, with several versions of some.
#[test]
fn a_hundred_thousand_rows() {
    let schema = small_table();
    let mut versions = Versions::new();
    for id in 0..100_000 {
        versions.insert(
            {
                let (key, _) = small_row(id * 3, 1);
                (key, Reverse(SeqNo(5)))
            },
            Some(small_row(id * 3, 5).1),
        );
    }
    let options = StoreOptions { row_group_rows_max: 30_000, ..StoreOptions::default() };
    let view = convert(&schema, &versions, options);
    let state = ColdState::of(view.as_ref());
    let table = state.table(schema.table);
    assert_eq!((table.segments().len(), table.row_count()), (1, 100_000));
    for id in (0..300_000).step_by(997) {
        let (key, _) = small_row(id, 1);
        let found = view.locate(schema.table, &key, SeqNo::MAX).unwrap();
        assert_eq!(found.is_some(), id % 3 == 0);
        if let Some((location, seqno)) = found {
            assert_eq!((location.position, seqno), (id as u32 / 3, SeqNo(5)));
            assert_eq!(view.read_row(&schema, location).unwrap(), small_row(id, 5).1);
        }
        assert_eq!(view.locate(schema.table, &key, SeqNo(4)).unwrap(), None);
    }
    // The same rows again from whole chunks that a scan left in the cache.
    let segment = &table.segments()[0];
    segment.cache().clear();
    (0..segment.row_group_count()).for_each(|group| drop(segment.cached_columns(group, &[0, 1, 2, 3]).unwrap()));
    for position in (0..100_000).step_by(3001) {
        let row = segment.read_row(&schema, position).unwrap();
        assert_eq!(row, small_row(i64::from(position) * 3, 5).1);
    }
    let estimate = table.distinct_estimate(schema.columns[0].id).unwrap();
    assert!(estimate.abs_diff(100_000) < 10_000, "{estimate} distinct ids");
    let key_bytes = segment.disk_bytes() - segment.file_bytes();
    assert!(key_bytes < 100_000 * 5, "{key_bytes} bytes of key index for 100000 dense keys");
}

/// Versions of a key stay together across key blocks, row groups and segments, and each snapshot finds its own.
#[test]
fn many_versions_of_each_key() {
    let schema = small_table();
    let mut versions = Versions::new();
    for id in 0..1000 {
        for seqno in 1..=id as u64 % 7 + 1 {
            let (key, row) = small_row(id, seqno);
            versions.insert((key, Reverse(SeqNo(seqno * 10))), Some(row));
        }
    }
    let options = StoreOptions { row_group_rows_max: 333, segment_rows_max: 1500, ..StoreOptions::default() };
    let view = convert(&schema, &versions, options);
    assert!(view.segments(schema.table).len() > 1);
    for id in 0..1000 {
        let (key, _) = small_row(id, 1);
        for at in (5..80).step_by(5) {
            let seqno = (at / 10).min(id as u64 % 7 + 1);
            let found = view.locate(schema.table, &key, SeqNo(at)).unwrap();
            assert_eq!(found.map(|(_, seqno)| seqno), (seqno > 0).then_some(SeqNo(seqno * 10)), "{id} at {at}");
        }
    }
}
