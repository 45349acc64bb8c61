//! Proves: byte order is value order, keys come back as the values they compare as, each key has one encoding, prefixes
//! select exactly their keys, and damaged bytes are an error or another key, never a panic.

use std::cmp::Ordering;

use arrow_schema::{DataType, Field};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::row::RowCodec;
use crate::row::arbitrary::{any_key_type, any_rows, any_value, borrowed, example_bytes, is_same};
use crate::schema::{Column, ColumnId};

fn schema(fields: Vec<Field>, primary_key: Vec<usize>) -> TableSchema {
    let columns = fields.into_iter().zip(1..).map(|(field, id)| Column { id: ColumnId(id), field }).collect();
    TableSchema::new(TableId(5), 1, columns, primary_key).unwrap()
}

fn example_schema() -> TableSchema {
    let fields = vec![
        Field::new("note", DataType::Utf8View, true),
        Field::new("score", DataType::Float64, false),
        Field::new("name", DataType::Utf8View, false),
        Field::new("at", DataType::Int32, false),
    ];
    schema(fields, vec![2, 3, 1])
}

fn encode(codec: &KeyCodec, key: &[Value<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(key, &mut bytes).unwrap();
    bytes
}

/// Order of two values of one column as SQL has it, written without looking at bytes: the oracle of these tests.
fn value_order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    let float = |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap(),
        (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
    };
    match (*a, *b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(&b),
        (Value::Int16(a), Value::Int16(b)) => a.cmp(&b),
        (Value::Int32(a), Value::Int32(b)) | (Value::Date32(a), Value::Date32(b)) => a.cmp(&b),
        (Value::Int64(a), Value::Int64(b)) | (Value::Time64(a), Value::Time64(b)) => a.cmp(&b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(&b),
        (Value::Float32(a), Value::Float32(b)) => float(f64::from(a), f64::from(b)),
        (Value::Float64(a), Value::Float64(b)) => float(a, b),
        (Value::Decimal128(a), Value::Decimal128(b)) => a.cmp(&b),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Binary(a), Value::Binary(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(&b),
        (a, b) => panic!("{a:?} and {b:?} are of different kinds"),
    }
}

fn key_order(a: &[Value<'_>], b: &[Value<'_>]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| value_order(a, b)).find(|o| o.is_ne()).unwrap_or(a.len().cmp(&b.len()))
}

/// Columns of random types, possibly nullable, indexed in order, with `key_count` keys whose columns often agree.
fn any_keys(key_count: usize) -> impl Strategy<Value = (KeyCodec, Vec<Vec<OwnedValue>>)> {
    vec((any_key_type(), any::<bool>()), 1..4).prop_flat_map(move |types| {
        let cells: Vec<_> = types
            .iter()
            .map(|(data_type, is_nullable)| {
                let value = any_value(ValueKind::of(data_type).unwrap());
                if *is_nullable { prop_oneof![4 => value, 1 => Just(OwnedValue::Null)].boxed() } else { value }
            })
            .collect();
        let mut fields = vec![Field::new("id", DataType::Int64, false)];
        fields.extend(types.iter().enumerate().map(|(at, (t, n))| Field::new(format!("c{at}"), t.clone(), *n)));
        let positions: Vec<usize> = (1..fields.len()).collect();
        let codec = KeyCodec::of_index(&schema(fields, vec![0]), IndexId(3), &positions);
        // Each key takes a column from the first one now and then, so that later columns get to decide.
        let keys = vec((cells, vec(any::<bool>(), types.len())), key_count).prop_map(|drawn| {
            let first = drawn[0].0.clone();
            let pick = |(row, is_own): (Vec<OwnedValue>, Vec<bool>)| {
                row.into_iter().zip(is_own).zip(&first).map(|((v, own), f)| if own { v } else { f.clone() }).collect()
            };
            drawn.into_iter().map(pick).collect()
        });
        (Just(codec), keys)
    })
}

#[test]
fn the_worked_example_is_what_the_encoder_writes() {
    let codec = KeyCodec::new(&example_schema());
    let expected = example_bytes(include_str!("FORMAT.md"));
    let key = [Value::Text("a\0b"), Value::Int32(-2), Value::Float64(-0.0)];
    assert_eq!(encode(&codec, &key), expected);

    let row = [Value::Null, key[2], key[0], key[1]];
    let mut from_values = Vec::new();
    codec.encode_row(&row, &mut from_values).unwrap();
    assert_eq!(from_values, expected);

    let rows = RowCodec::new(&example_schema());
    let (mut bytes, mut from_bytes) = (Vec::new(), Vec::new());
    rows.encode(&row, &mut bytes).unwrap();
    codec.encode_from(RowRef::new(&rows, &bytes).unwrap(), &mut from_bytes).unwrap();
    assert_eq!(from_bytes, expected);
}

#[test]
fn bad_requests_are_refused_by_column_name() {
    let codec = KeyCodec::new(&example_schema());
    let long = "x".repeat(KEY_BYTES_MAX);
    let cases: [(&[Value<'_>], &str); 4] = [
        (&[Value::Text("a"), Value::Null], "null value in key column \"at\""),
        (&[Value::Text("a"), Value::Int64(1)], "key column \"at\" holds Int32, not Int64"),
        (&[Value::Text("a"), Value::Int32(1), Value::Float64(0.0), Value::Int32(1)], "a key of 3 columns was given 4"),
        (&[Value::Text(&long)], "exceeds the limit of 32768"),
    ];
    let mut out = b"before".to_vec();
    for (key, text) in cases {
        let error = codec.encode(key, &mut out).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(out, b"before", "a refused key leaves nothing behind");
    }
    assert!(codec.encode_row(&[Value::Null], &mut out).is_err());
}

#[test]
fn each_rule_of_the_format_is_checked() {
    let fields = vec![
        Field::new("b", DataType::Boolean, true),
        Field::new("f", DataType::Float32, false),
        Field::new("t", DataType::Utf8View, false),
    ];
    let codec = KeyCodec::of_index(&schema(fields, vec![1]), PRIMARY_INDEX, &[0, 1, 2]);
    let key = encode(&codec, &[Value::Boolean(true), Value::Float32(0.0), Value::Text("\0é")]);
    assert_eq!(key.len(), 18);
    let cases: [(usize, &[u8], &str); 9] = [
        (3, &[6], "the key is of another table or index"),
        (5, &[1], "the key is of another table or index"),
        (6, &[3], "a NULL marker has an unknown value"),
        (7, &[2], "a boolean is neither 0 nor 1"),
        (8, &[0x7F, 0xFF, 0xFF, 0xFF], "a number is not in its one legal form"),
        (8, &[0xFF, 0xC0, 0x00, 0x01], "a number is not in its one legal form"),
        (13, &[0x01], "a zero byte is neither escaped nor a terminator"),
        (14, &[0xFF], "text is not UTF-8"),
        (17, &[0xFF], "the key is cut short"),
    ];
    for (at, bytes, text) in cases {
        let mut damaged = key.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        let error = codec.decode(&damaged).unwrap_err();
        assert!(error.to_string().contains(text), "{error}, expected {text}");
    }
    let longer = [&key[..], &[0]].concat();
    assert!(codec.decode(&longer).unwrap_err().to_string().contains("bytes after the last column at byte 18"));
}

#[test]
fn table_ranges_hold_the_primary_keys_of_one_table() {
    let range = table_range(TableId(0x00FF_FFFF));
    assert_eq!(range.start, [0x00, 0xFF, 0xFF, 0xFF, 0, 0]);
    assert_eq!(range.end, [0x00, 0xFF, 0xFF, 0xFF, 0, 1]);
    assert_eq!(prefix_end(&index_prefix(TableId(7), IndexId(u16::MAX))), [0, 0, 0, 8]);
    assert_eq!(table_of(&range.start), Some(TableId(0x00FF_FFFF)));
    assert_eq!(table_of(&[0, 0, 0]), None);
}

proptest! {
    #[test]
    fn byte_order_is_value_order((codec, keys) in any_keys(3)) {
        for a in &keys {
            for b in &keys {
                let (a, b) = (borrowed(a), borrowed(b));
                prop_assert_eq!(encode(&codec, &a).cmp(&encode(&codec, &b)), key_order(&a, &b), "{:?} and {:?}", a, b);
            }
        }
    }

    #[test]
    fn keys_come_back_as_what_they_compare_as((codec, keys) in any_keys(1)) {
        let key = borrowed(&keys[0]);
        let bytes = encode(&codec, &key);
        let decoded = codec.decode(&bytes).unwrap();
        let decoded = borrowed(&decoded);
        prop_assert!(key_order(&decoded, &key).is_eq(), "{:?} became {:?}", key, decoded);
        prop_assert_eq!(encode(&codec, &decoded), bytes);
        for (found, given) in decoded.iter().zip(&key) {
            let is_float = matches!(given, Value::Float32(_) | Value::Float64(_));
            prop_assert!(is_float || is_same(found, given));
        }
    }

    #[test]
    fn a_prefix_selects_exactly_the_keys_that_start_with_it((codec, keys) in any_keys(2), columns in any::<Index>()) {
        let (a, b) = (borrowed(&keys[0]), borrowed(&keys[1]));
        let start = &a[..columns.index(a.len() + 1)];
        let range = prefix_range(&encode(&codec, start));
        prop_assert!(range.contains(&encode(&codec, &a)));
        prop_assert_eq!(range.contains(&encode(&codec, &b)), key_order(start, &b[..start.len()]).is_eq());
    }

    #[test]
    fn a_text_prefix_selects_exactly_the_texts_that_start_with_it(a in "[\0ab\u{FF}]{0,4}", b in "[\0ab\u{FF}]{0,4}") {
        let (mut prefix, mut key) = (vec![0], vec![0]);
        push::push_bytes_prefix(&mut prefix, a.as_bytes());
        push::push_bytes(&mut key, b.as_bytes());
        prop_assert_eq!(prefix_range(&prefix).contains(&key), b.as_bytes().starts_with(a.as_bytes()));
    }

    #[test]
    fn a_row_has_the_key_of_its_key_columns((schema, rows) in any_rows(1)) {
        let (codec, rows_codec) = (KeyCodec::new(&schema), RowCodec::new(&schema));
        let row = borrowed(&rows[0]);
        let key: Vec<_> = schema.primary_key.iter().map(|&c| row[c]).collect();
        let (mut row_bytes, mut from_values, mut from_bytes) = (Vec::new(), Vec::new(), Vec::new());
        rows_codec.encode(&row, &mut row_bytes).unwrap();
        codec.encode_row(&row, &mut from_values).unwrap();
        codec.encode_from(RowRef::new(&rows_codec, &row_bytes).unwrap(), &mut from_bytes).unwrap();
        prop_assert_eq!(&from_values, &encode(&codec, &key));
        prop_assert_eq!(&from_values, &from_bytes);
        prop_assert!(table_range(schema.table).contains(&from_values));
    }

    #[test]
    fn damage_is_an_error_or_another_key(
        (codec, keys) in any_keys(1), at in any::<Index>(), flip in 1..=255_u8, cut in any::<Index>(),
    ) {
        let bytes = encode(&codec, &borrowed(&keys[0]));
        prop_assert!(codec.decode(&bytes[..cut.index(bytes.len())]).is_err());
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= flip;
        if let Ok(decoded) = codec.decode(&flipped) {
            prop_assert_eq!(encode(&codec, &borrowed(&decoded)), flipped, "what is accepted is what would be written");
        }
    }

    #[test]
    fn foreign_bytes_never_panic((codec, _) in any_keys(1), bytes in vec(any::<u8>(), 0..60)) {
        let _ = codec.decode(&bytes);
        let _ = codec.decode(&[&codec.prefix()[..], &bytes].concat());
    }
}
