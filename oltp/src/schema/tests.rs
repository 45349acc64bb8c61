//! Proves: schemas come back as they went in, bytes are the documented ones, damage is an error or another schema, and
//! shapes that no table may have are refused.

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::row::arbitrary::{any_schema, example_bytes};

fn column(id: u32, name: &str, data_type: DataType, is_nullable: bool) -> Column {
    Column { id: ColumnId(id), field: Field::new(name, data_type, is_nullable) }
}

/// Random schemas, some of whose columns carry metadata.
fn any_schema_with_metadata() -> impl Strategy<Value = TableSchema> {
    (any_schema(), vec(hash_map("[a-z]{1,4}", ".{0,6}", 0..3), 20)).prop_map(|(schema, metadata)| {
        let columns = schema.columns.iter().zip(metadata);
        let columns = columns.map(|(c, m)| Column { id: c.id, field: c.field.clone().with_metadata(m) });
        TableSchema::new(schema.table, schema.version, columns.collect(), schema.primary_key.clone()).unwrap()
    })
}

#[test]
fn the_worked_example_is_what_the_encoder_writes() {
    let columns = vec![column(1, "id", DataType::Int64, false), column(2, "price", DataType::Decimal128(15, 2), true)];
    let schema = TableSchema::new(TableId(5), 1, columns, vec![0]).unwrap();
    assert_eq!(schema.to_bytes(), example_bytes(include_str!("FORMAT.md")));
}

#[test]
fn shapes_that_no_table_may_have_are_refused() {
    let id = || column(1, "id", DataType::Int64, false);
    let cases = [
        (5, vec![id()], vec![], "needs a key column"),
        (5, vec![id()], vec![1], "key column 1 does not exist"),
        (5, vec![id()], vec![0, 0], "key column id is repeated"),
        (5, vec![id(), column(2, "n", DataType::Utf8, true)], vec![0], "column n has type Utf8"),
        (
            5,
            vec![id(), column(2, "d", DataType::Decimal128(5, 6), true)],
            vec![0],
            "column d has type Decimal128(5, 6)",
        ),
        (5, vec![id(), column(1, "n", DataType::Int16, true)], vec![0], "column number 1 is used twice"),
        (5, vec![id(), column(2, "id", DataType::Int16, true)], vec![0], "column \"id\" is declared twice"),
        (5, vec![id(); COLUMNS_MAX + 1], vec![0], "4097 columns exceed the limit of 4096"),
        (u32::MAX, vec![id()], vec![0], "no table numbers left"),
    ];
    for (table, columns, primary_key, text) in cases {
        let error = TableSchema::new(TableId(table), 1, columns, primary_key).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        assert!(error.to_string().contains(text), "{error}, expected {text}");
    }
}

#[test]
fn a_newer_format_says_so() {
    let error = TableSchema::from_bytes(&[3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed table schema: format version 3 is newer than this program; upgrade it at byte 0"
    );
}

proptest! {
    #[test]
    fn schemas_come_back_as_they_went_in(schema in any_schema_with_metadata()) {
        prop_assert_eq!(TableSchema::from_bytes(&schema.to_bytes()).unwrap(), schema);
    }

    #[test]
    fn damage_is_an_error_or_another_schema(
        schema in any_schema_with_metadata(), at in any::<Index>(), flip in 1..=255_u8, cut in any::<Index>(),
    ) {
        let bytes = schema.to_bytes();
        prop_assert!(TableSchema::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(TableSchema::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= flip;
        match TableSchema::from_bytes(&flipped) {
            Ok(other) => prop_assert_eq!(other.to_bytes(), flipped, "what is accepted is what would be written"),
            Err(error) => {
                let is_malformed = matches!(error, Error::Malformed { .. });
                prop_assert!(is_malformed, "{error}");
            }
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = TableSchema::from_bytes(&bytes);
        let _ = TableSchema::from_bytes(&[&[1][..], &bytes].concat());
    }
}
