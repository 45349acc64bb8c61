//! Proves: rows come back as they went in, the layout is the documented one, requests that break the schema are refused
//! by column name, and damaged bytes are an error or another row, never a panic and never the same row.

use arrow_schema::{DataType, Field};
use proptest::prelude::*;
use proptest::sample::Index;

use super::arbitrary::{any_rows, borrowed, example_bytes, is_same};
use super::*;
use crate::schema::{Column, ColumnId, TableId};

fn schema(fields: Vec<Field>) -> TableSchema {
    let columns = fields.into_iter().zip(1..).map(|(field, id)| Column { id: ColumnId(id), field }).collect();
    TableSchema::new(TableId(1), 1, columns, vec![0]).unwrap()
}

fn example_schema() -> TableSchema {
    schema(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8View, true),
        Field::new("active", DataType::Boolean, false),
        Field::new("score", DataType::Float64, true),
    ])
}

const EXAMPLE: [Value<'static>; 4] = [Value::Int64(7), Value::Text("Neo"), Value::Boolean(true), Value::Null];

fn encode(codec: &RowCodec, values: &[Value<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(values, &mut bytes).unwrap();
    bytes
}

fn what(error: &Error) -> String {
    error.to_string()
}

#[test]
fn the_worked_example_is_what_the_encoder_writes() {
    let codec = RowCodec::new(&example_schema());
    assert_eq!(encode(&codec, &EXAMPLE), example_bytes(include_str!("FORMAT.md")));
}

#[test]
fn typed_accessors_read_their_columns() {
    let codec = RowCodec::new(&example_schema());
    let bytes = encode(&codec, &EXAMPLE);
    let row = RowRef::new(&codec, &bytes).unwrap();
    assert_eq!((row.i64(0), row.text(1).unwrap(), row.boolean(2)), (7, "Neo", true));
    assert_eq!(row.fixed(0), 7_i64.to_le_bytes());
    assert_eq!(row.variable(1), b"Neo");
    assert!(row.is_null(3) && !row.is_null(1) && !row.is_null(0));
    assert_eq!(row.f64(3), 0.0, "a NULL reads as zero");
    assert_eq!(schema_version(&bytes), Some(1));
    assert_eq!(schema_version(&bytes[..1]), None);
}

#[test]
fn values_that_break_the_schema_are_refused_by_column_name() {
    let codec = RowCodec::new(&example_schema());
    let mut out = b"before".to_vec();
    let cases: [(&[Value<'_>], &str); 4] = [
        (&[Value::Null, Value::Null, Value::Boolean(true), Value::Null], "null value in column \"id\""),
        (&[Value::Int64(1), Value::Text("x"), Value::Null, Value::Null], "null value in column \"active\""),
        (&[Value::Int64(1), Value::Binary(b"x"), Value::Boolean(true), Value::Null], "column \"name\" holds Text"),
        (&[Value::Int64(1)], "a row of 4 columns was given 1 values"),
    ];
    for (values, text) in cases {
        let error = codec.encode(values, &mut out).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        assert!(what(&error).contains(text), "{error}");
        assert_eq!(out, b"before", "a refused row leaves nothing behind");
    }
}

#[test]
fn each_rule_of_the_format_is_checked() {
    let codec = RowCodec::new(&example_schema());
    let row = encode(&codec, &EXAMPLE);
    let cases: [(usize, u8, u64, &str); 7] = [
        (0, 2, 0, "the schema version is not the one asked for"),
        (2, 0x06, 2, "a spare bit of the null bitmap is set"),
        (2, 0x03, 20, "a NULL has a value"),
        (11, 2, 11, "a boolean is neither 0 nor 1"),
        (12, 1, 12, "a NULL has a value"),
        (20, 4, 24, "the last value does not end with the row"),
        (23, 1, 24, "the last value does not end with the row"),
    ];
    for (at, byte, offset, text) in cases {
        let mut bytes = row.clone();
        bytes[at] = byte;
        let error = RowRef::new(&codec, &bytes).unwrap_err();
        assert_eq!(what(&error), format!("malformed row: {text} at byte {offset}"), "byte {at} set to {byte}");
    }
    let two_texts =
        schema(vec![Field::new("a", DataType::Utf8View, false), Field::new("b", DataType::BinaryView, false)]);
    let codec = RowCodec::new(&two_texts);
    let mut bytes = encode(&codec, &[Value::Text("é"), Value::Binary(b"\xFF")]);
    RowRef::new(&codec, &bytes).unwrap().check_text().unwrap();
    bytes[2] = 9;
    assert!(what(&codec.check(&bytes).unwrap_err()).contains("a value ends before it starts at byte 6"));
    bytes[2] = 1;
    let row = RowRef::new(&codec, &bytes).unwrap();
    assert!(what(&row.check_text().unwrap_err()).contains("text is not UTF-8 at byte 10"));
    assert!(row.get(0).is_err() && row.get(1).is_ok());
}

#[test]
fn text_is_checked_at_the_boundary_of_each_value() {
    let texts = schema(vec![Field::new("a", DataType::Utf8View, false), Field::new("b", DataType::Utf8View, false)]);
    let codec = RowCodec::new(&texts);
    let mut bytes = encode(&codec, &[Value::Text("aé"), Value::Text("b")]);
    RowRef::new(&codec, &bytes).unwrap().check_text().unwrap();
    bytes[2] = 2;
    // As a whole the variable bytes are still UTF-8, but the first value ends within a character.
    assert!(RowRef::new(&codec, &bytes).unwrap().check_text().is_err());
}

proptest! {
    #[test]
    fn rows_come_back_as_they_went_in((schema, rows) in any_rows(2)) {
        let codec = RowCodec::new(&schema);
        let mut out = Vec::new();
        for row in &rows {
            let start = out.len();
            codec.encode(&borrowed(row), &mut out).unwrap();
            let read = RowRef::new(&codec, &out[start..]).unwrap();
            read.check_text().unwrap();
            for (column, (found, expected)) in read.values().unwrap().iter().zip(borrowed(row)).enumerate() {
                prop_assert!(is_same(found, &expected), "column {}: {:?} became {:?}", column, expected, found);
                prop_assert_eq!(read.is_null(column), expected.is_null());
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_another_row(
        (schema, rows) in any_rows(1), at in any::<Index>(), flip in 1..=255_u8, cut in any::<Index>(), more in 0..3_usize,
    ) {
        let codec = RowCodec::new(&schema);
        let row = borrowed(&rows[0]);
        let bytes = encode(&codec, &row);

        let cut_bytes = &bytes[..cut.index(bytes.len())];
        prop_assert!(RowRef::new(&codec, cut_bytes).is_err());
        let longer = [&bytes[..], &vec![0; more + 1]].concat();
        prop_assert!(RowRef::new(&codec, &longer).is_err());

        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= flip;
        if let Ok(read) = RowRef::new(&codec, &flipped) {
            let text_is_good = read.check_text().is_ok();
            match read.values() {
                Err(_) => prop_assert!(!text_is_good),
                Ok(values) => {
                    prop_assert!(text_is_good);
                    prop_assert!(!values.iter().zip(&row).all(|(a, b)| is_same(a, b)), "a flip went unnoticed");
                    // What is accepted is exactly what the encoder would write.
                    prop_assert_eq!(encode(&codec, &values), flipped);
                }
            }
        }
    }

    #[test]
    fn foreign_bytes_never_panic((schema, _) in any_rows(0), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let codec = RowCodec::new(&schema);
        let mut bytes = bytes;
        // The right version lets more of the damage through to the later checks.
        if let Some(version) = bytes.first_chunk_mut() {
            *version = schema.version.to_le_bytes();
        }
        if let Ok(read) = RowRef::new(&codec, &bytes) {
            let _ = read.values();
        }
    }
}
