//! Proves the promise to old files: what any released version wrote is still read, and means the same.
//!
//! One function per kind of bytes and format version. A fixture is never edited: a new version of a format adds a
//! file under the next `data/compat/v*` and a function here, and the old functions stay. `.hex` files hold one record
//! per line; lines that start with `#` are comments.
//!
//! While a format version is the newest, its function also encodes the same values and compares the bytes, so that no
//! change of an encoder goes unnoticed; a mismatch prints the bytes that are written now.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use strata_oltp::key::{IndexId, KeyCodec};
use strata_oltp::row::{Interval, OwnedValue, RowCodec, RowRef, Value, ValueKind, list};
use strata_oltp::schema::{Column, ColumnId, TableId, TableSchema};

/// The records of a `.hex` fixture.
fn records(fixture: &str) -> Vec<Vec<u8>> {
    let lines = fixture.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| line.split_whitespace().flat_map(|digits| digits.as_bytes().chunks(2)).map(byte).collect())
        .collect()
}

fn byte(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A table with two columns of every type, the second nullable, and the first four as its key.
fn schema_v1() -> TableSchema {
    let types = [
        DataType::Utf8View,
        DataType::Int32,
        DataType::Float64,
        DataType::FixedSizeBinary(16),
        DataType::Boolean,
        DataType::Int16,
        DataType::Int64,
        DataType::Float32,
        DataType::Decimal128(15, 2),
        DataType::BinaryView,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    ];
    let fields = types.into_iter().enumerate().flat_map(|(at, data_type)| {
        let metadata = [("strata.note".to_owned(), "kept".to_owned())].into();
        [
            Field::new(format!("c{at}"), data_type.clone(), false),
            Field::new(format!("n{at}"), data_type, true).with_metadata(metadata),
        ]
    });
    let columns = fields.zip(10..).map(|(field, id)| Column { id: ColumnId(id), field }).collect();
    TableSchema::new(TableId(0x0102_0304), 0x0506, columns, vec![0, 2, 4, 6]).unwrap()
}

/// Rows of [`schema_v1`]: the ends of each type's range, what is special about it, and NULLs.
fn rows_v1() -> Vec<Vec<Value<'static>>> {
    use Value::*;
    let columns: [(Value<'_>, Value<'_>, Value<'_>); 14] = [
        (Text(""), Text("a\0b"), Text("grüße, 鳥")),
        (Int32(i32::MIN), Int32(-1), Int32(i32::MAX)),
        (Float64(f64::NEG_INFINITY), Float64(0.0), Float64(f64::from_bits(0x7FF8_0000_0000_0000))),
        (Uuid([0; 16]), Uuid(*b"0123456789abcdef"), Uuid([0xFF; 16])),
        (Boolean(false), Boolean(true), Boolean(true)),
        (Int16(i16::MIN), Int16(-2), Int16(i16::MAX)),
        (Int64(i64::MIN), Int64(1), Int64(i64::MAX)),
        (Float32(f32::MIN), Float32(-0.0), Float32(f32::INFINITY)),
        (Decimal128(i128::MIN), Decimal128(-12_345), Decimal128(999_999_999_999_999)),
        (Binary(b""), Binary(b"\x00\xFF\x00"), Binary(b"bytes")),
        (Date32(-719_162), Date32(0), Date32(20_000)),
        (Time64(0), Time64(1), Time64(86_399_999_999)),
        (Timestamp(-1), Timestamp(0), Timestamp(1_700_000_000_123_456)),
        (Timestamp(i64::MIN), Timestamp(1), Timestamp(i64::MAX)),
    ];
    let low = columns.iter().flat_map(|c| [c.0, Null]).collect();
    let middle = columns.iter().flat_map(|c| [c.1, c.1]).collect();
    // Every other nullable column is NULL, so that the order of bits in the bitmap shows.
    let high = columns.iter().enumerate().flat_map(|(at, c)| [c.2, if at % 2 == 0 { c.2 } else { Null }]).collect();
    vec![low, middle, high]
}

/// Debug text tells -0 from 0, and NaN equals itself in it.
fn text(values: &[OwnedValue]) -> String {
    format!("{values:?}")
}

fn owned(values: &[Value<'_>]) -> Vec<OwnedValue> {
    values.iter().map(|v| v.to_owned_value()).collect()
}

#[test]
fn schema_v1_is_read() {
    let fixture = records(include_str!("../../data/compat/v1/schema.hex"));
    assert_eq!(vec![hex(&schema_v1().to_bytes())], fixture.iter().map(|r| hex(r)).collect::<Vec<_>>());
    assert_eq!(TableSchema::from_bytes(&fixture[0]).unwrap(), schema_v1());
}

/// [`schema_v1`] after each kind of change of shape, with missing values of three kinds.
fn schema_v2() -> TableSchema {
    let first = schema_v1();
    let add = |schema: &TableSchema, name: &str, data_type, is_nullable, missing: Value<'_>| {
        schema.with_column(Field::new(name, data_type, is_nullable), missing).unwrap()
    };
    let schema = add(&first, "text", DataType::Utf8View, false, Value::Text("grüße"));
    let schema = add(&schema, "small", DataType::Int16, false, Value::Int16(-7));
    let schema = add(&schema, "none", DataType::Float64, false, Value::Null);
    let schema = add(&schema, "brief", DataType::Date32, true, Value::Date32(1));
    let position = |schema: &TableSchema, name: &str| {
        schema.columns.iter().position(|column| column.field.name() == name).unwrap()
    };
    let schema = schema.without_column(position(&schema, "brief")).unwrap();
    let schema = schema.without_column(position(&schema, "c11")).unwrap();
    let schema = schema.with_type(position(&schema, "small"), &DataType::Decimal128(10, 2)).unwrap();
    let schema = schema.with_type(position(&schema, "n8"), &DataType::Decimal128(17, 4)).unwrap();
    let schema = schema.with_nullable(position(&schema, "n5"), false).unwrap();
    let schema = schema.with_nullable(position(&schema, "c13"), true).unwrap();
    schema.with_name(position(&schema, "c12"), "renamed").unwrap()
}

#[test]
fn schema_v2_is_read() {
    let fixture = records(include_str!("../../data/compat/v2/schema.hex"));
    assert_eq!(vec![hex(&schema_v2().to_bytes())], fixture.iter().map(|r| hex(r)).collect::<Vec<_>>());
    assert_eq!(TableSchema::from_bytes(&fixture[0]).unwrap(), schema_v2());
}

/// Rows of version 1 of the row format and of the table's first schema version, read after its changes.
#[test]
fn row_v1_is_read_in_a_later_shape() {
    let (before, after) = (RowCodec::new(&schema_v1()), RowCodec::new(&schema_v2()));
    for bytes in records(include_str!("../../data/compat/v1/row.hex")) {
        let old = RowRef::new(&before, &bytes).unwrap().values().unwrap();
        let mut upgraded = Vec::new();
        let new = after.read(&bytes, &mut upgraded).unwrap().values().unwrap();
        for (column, value) in schema_v2().columns.iter().zip(&new) {
            let before = schema_v1().columns.iter().position(|old| old.id == column.id);
            let expected = match (column.field.name().as_str(), before.map(|before| old[before])) {
                ("n8", Some(Value::Decimal128(value))) => Value::Decimal128(value * 100),
                (_, Some(value)) => value,
                ("text", _) => Value::Text("grüße"),
                ("small", _) => Value::Decimal128(-700),
                _ => Value::Null,
            };
            assert_eq!(text(&owned(&[*value])), text(&owned(&[expected])), "{}", column.field.name());
        }
    }
}

#[test]
fn row_v1_is_read() {
    let codec = RowCodec::new(&schema_v1());
    let written: Vec<String> = rows_v1()
        .iter()
        .map(|values| {
            let mut out = Vec::new();
            codec.encode(values, &mut out).unwrap();
            hex(&out)
        })
        .collect();
    let fixture = records(include_str!("../../data/compat/v1/row.hex"));
    assert_eq!(written, fixture.iter().map(|r| hex(r)).collect::<Vec<_>>());
    for (bytes, values) in fixture.iter().zip(rows_v1()) {
        let row = RowRef::new(&codec, bytes).unwrap();
        assert_eq!(text(&owned(&row.values().unwrap())), text(&owned(&values)));
    }
}

/// Lists and intervals, which version 1 of both formats got later: a key, and two columns of each kind.
fn schema_of_lists() -> TableSchema {
    let list = |item| DataType::new_list(item, true);
    let types = [
        list(DataType::Int32),
        list(DataType::Utf8View),
        list(DataType::Boolean),
        list(DataType::Decimal128(15, 2)),
        list(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        DataType::Interval(IntervalUnit::MonthDayNano),
    ];
    let fields = types.into_iter().enumerate().flat_map(|(at, data_type)| {
        [Field::new(format!("c{at}"), data_type.clone(), false), Field::new(format!("n{at}"), data_type, true)]
    });
    let key = Field::new("key", DataType::Int64, false);
    let columns = std::iter::once(key).chain(fields).zip(1..).map(|(field, id)| Column { id: ColumnId(id), field });
    TableSchema::new(TableId(9), 3, columns.collect(), vec![0]).unwrap()
}

fn list(kind: ValueKind, elements: &[Value<'_>]) -> OwnedValue {
    let mut bytes = Vec::new();
    list::encode(kind, elements, &mut bytes).unwrap();
    OwnedValue::List(bytes)
}

/// Rows of [`schema_of_lists`]: lists that are empty, with NULLs and of nine elements, so that the bitmap has two bytes.
fn rows_of_lists() -> Vec<Vec<OwnedValue>> {
    let interval = |months, days, micros| OwnedValue::Interval(Interval { months, days, micros });
    let many: Vec<Value<'_>> =
        (0..9).map(|at| if at % 4 == 3 { Value::Null } else { Value::Int32(at * 1000 - 3) }).collect();
    let columns = [
        (list(ValueKind::Int32, &[]), list(ValueKind::Int32, &many)),
        (
            list(ValueKind::Text, &[Value::Null]),
            list(ValueKind::Text, &[Value::Text("grüße"), Value::Null, Value::Text("")]),
        ),
        (list(ValueKind::Boolean, &[]), list(ValueKind::Boolean, &[Value::Boolean(true), Value::Null])),
        (list(ValueKind::Decimal128, &[]), list(ValueKind::Decimal128, &[Value::Decimal128(-12_345)])),
        (list(ValueKind::Timestamp, &[]), list(ValueKind::Timestamp, &[Value::Timestamp(-1), Value::Null])),
        (interval(0, 0, 0), interval(-14, 31, -1_000_001)),
    ];
    let row = |key, pick: fn(&(OwnedValue, OwnedValue)) -> [OwnedValue; 2]| {
        std::iter::once(OwnedValue::Int64(key)).chain(columns.iter().flat_map(pick)).collect()
    };
    vec![
        row(1, |c| [c.0.clone(), OwnedValue::Null]),
        row(2, |c| [c.1.clone(), c.0.clone()]),
        row(3, |c| [c.1.clone(), c.1.clone()]),
    ]
}

#[test]
fn lists_and_intervals_are_read() {
    let fixture = records(include_str!("../../data/compat/v1/lists.hex"));
    let schema = schema_of_lists();
    let codec = RowCodec::new(&schema);
    let mut written = vec![hex(&schema.to_bytes())];
    for row in rows_of_lists() {
        let mut out = Vec::new();
        codec.encode(&row.iter().map(OwnedValue::as_value).collect::<Vec<_>>(), &mut out).unwrap();
        written.push(hex(&out));
    }
    assert_eq!(written, fixture.iter().map(|r| hex(r)).collect::<Vec<_>>());
    assert_eq!(TableSchema::from_bytes(&fixture[0]).unwrap(), schema);
    for (bytes, values) in fixture[1..].iter().zip(rows_of_lists()) {
        let row = RowRef::new(&codec, bytes).unwrap();
        assert_eq!(owned(&row.values().unwrap()), values);
    }
    let row = RowRef::new(&codec, &fixture[3]).unwrap();
    let texts = list::ListRef::new(ValueKind::Text, row.variable(3)).unwrap();
    assert_eq!([texts.get(0).unwrap(), texts.get(1).unwrap()], [Value::Text("grüße"), Value::Null]);
}

/// Primary keys of the rows, then keys of an index over every column.
#[test]
fn key_v1_is_read() {
    let schema = schema_v1();
    let every_column: Vec<usize> = (0..schema.columns.len()).collect();
    let codecs = [KeyCodec::new(&schema), KeyCodec::of_index(&schema, IndexId(0x0708), &every_column)];
    let fixture = records(include_str!("../../data/compat/v1/key.hex"));
    let mut written = Vec::new();
    for codec in &codecs {
        for row in rows_v1() {
            let mut out = Vec::new();
            codec.encode_row(&row, &mut out).unwrap();
            written.push(hex(&out));
        }
    }
    assert_eq!(written, fixture.iter().map(|r| hex(r)).collect::<Vec<_>>());
    for (at, bytes) in fixture.iter().enumerate() {
        let row = &rows_v1()[at % 3];
        let decoded = codecs[at / 3].decode(bytes).unwrap();
        let expected: Vec<_> = if at < 3 { vec![row[0], row[2], row[4], row[6]] } else { row.clone() };
        // A key keeps no sign of zero.
        assert_eq!(text(&decoded), text(&owned(&expected)).replace("-0.0", "0.0"));
    }
    assert!(fixture[..3].is_sorted(), "the rows ascend by primary key");
}
