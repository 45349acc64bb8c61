//! Proves: each type reads what PostgreSQL reads, and refuses the rest with the right kind of failure.

use arrow::array::StringViewArray;

use super::super::output::texts;
use super::*;

/// The text read as `target` and shown again, or the SQLSTATE.
fn read(text: &str, target: &DataType) -> String {
    match read_texts(&StringViewArray::from(vec![text]), target, None) {
        Ok(values) => texts(values.as_ref()).unwrap().as_string_view().value(0).to_owned(),
        Err(error) => error.sqlstate().to_owned(),
    }
}

fn check(target: &DataType, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(read(text, target), *expected, "{text:?} as {target}");
    }
}

#[test]
fn numbers() {
    check(&DataType::Int16, &[(" 42 ", "42"), ("+5", "5"), ("-32768", "-32768"), ("32768", "22003"), ("", "22P02")]);
    check(&DataType::Int32, &[("1.5", "22P02"), ("1e3", "22P02"), ("0x1F", "22P02"), ("- 1", "22P02")]);
    check(&DataType::Int64, &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775808", "22003")]);
    check(&DataType::Int64, &[("99999999999999999999999999999999999999999999", "22003")]);
    check(
        &DataType::Float64,
        &[
            ("1e3", "1000"),
            ("-inf", "-Infinity"),
            ("nan", "NaN"),
            (".5", "0.5"),
            ("1e400", "22003"),
            ("1e-400", "22003"),
            ("0e5", "0"),
            ("1,5", "22P02"),
        ],
    );
    check(
        &DataType::Decimal128(5, 2),
        &[
            ("12.345", "12.35"),
            ("-12.345", "-12.35"),
            ("1e2", "100.00"),
            ("12345e-4", "1.23"),
            ("12355e-4", "1.24"),
            ("999.994", "999.99"),
            ("999.995", "22003"),
            ("0.005", "0.01"),
            ("0.004", "0.00"),
            ("4e-9", "0.00"),
            ("0e99", "0.00"),
            (".5", "0.50"),
            ("5.", "5.00"),
            (".", "22P02"),
            ("1.2.3", "22P02"),
            ("NaN", "0A000"),
            ("1000", "22003"),
        ],
    );
}

#[test]
fn truth_values_and_bytes() {
    check(&DataType::Boolean, &[("t", "true"), ("Yes", "true"), (" on ", "true"), ("1", "true"), ("tr", "true")]);
    check(&DataType::Boolean, &[("f", "false"), ("NO", "false"), ("off", "false"), ("o", "22P02"), ("maybe", "22P02")]);
    check(
        &DataType::BinaryView,
        &[("\\xDEad", "\\xdead"), ("a\\\\b", "\\x615c62"), ("\\001", "\\x01"), ("\\xabc", "22P02")],
    );
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    check(
        &DataType::FixedSizeBinary(16),
        &[
            (uuid, uuid),
            ("{550E8400E29B41D4A716446655440000}", uuid),
            ("550e-8400e29b41d4a716446655440000", uuid),
            ("550e8400", "22P02"),
        ],
    );
}

#[test]
fn dates_and_times() {
    check(
        &DataType::Date32,
        &[
            ("2024-02-29", "2024-02-29"),
            ("2024-1-5", "2024-01-05"),
            ("20240105", "2024-01-05"),
            ("Jan 5 2024", "2024-01-05"),
            ("5 January 2024", "2024-01-05"),
            ("January 5, 2024", "2024-01-05"),
            ("1/8/1999", "1999-01-08"),
            ("0044-03-15 BC", "0044-03-15 BC"),
            ("10000-01-01", "10000-01-01"),
            ("2024-01-05 10:00:00", "2024-01-05"),
            ("2024-02-30", "22008"),
            ("2024-13-01", "22008"),
            ("infinity", "0A000"),
            ("tomorrow-ish", "22007"),
            ("", "22007"),
        ],
    );
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    check(
        &stamp,
        &[
            ("2024-01-05 10:00", "2024-01-05 10:00:00"),
            ("2024-01-05T10:00:00.5Z", "2024-01-05 10:00:00.5"),
            ("2024-01-05 10:00:00+05", "2024-01-05 10:00:00"),
            ("2024-01-05", "2024-01-05 00:00:00"),
            ("1969-12-31 23:59:59.9999996", "1970-01-01 00:00:00"),
            ("2024-06-30 23:59:60", "22008"),
            ("2024-01-05 25:00", "22008"),
            ("2024-01-05 3:00 pm", "2024-01-05 15:00:00"),
            ("2024-01-05 x", "22007"),
        ],
    );
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    check(
        &zoned,
        &[
            ("2024-01-05T10:00:00Z", "2024-01-05 10:00:00+00"),
            ("2024-01-05 10:00:00+05:30", "2024-01-05 04:30:00+00"),
            ("2024-01-05 10:00:00-0800", "2024-01-05 18:00:00+00"),
            ("2024-01-05 10:00:00 Europe/Berlin", "2024-01-05 09:00:00+00"),
            ("2024-01-05 10:00:00 UTC", "2024-01-05 10:00:00+00"),
            ("2024-01-05 10:00:00", "2024-01-05 10:00:00+00"),
            ("2024-01-05 10:00:00 Nowhere/Land", "22007"),
        ],
    );
    check(
        &DataType::Time64(TimeUnit::Microsecond),
        &[
            ("10:00", "10:00:00"),
            ("23:59:59.123456", "23:59:59.123456"),
            ("12:00 am", "00:00:00"),
            ("25:00:00", "22008"),
            ("10", "22007"),
        ],
    );
}

#[test]
fn arrays() {
    let ints = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
    check(
        &ints,
        &[
            ("{1,2,NULL}", "{1,2,NULL}"),
            ("{}", "{}"),
            (" { 1 , 2 } ", "{1,2}"),
            ("{a}", "22P02"),
            ("1,2", "22P02"),
            ("{{1}}", "0A000"),
            ("{1,}", "22P02"),
        ],
    );
    let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)));
    check(&texts, &[(r#"{a,"b c","",null,"NULL","x\"y"}"#, r#"{a,"b c","",NULL,"NULL","x\"y"}"#), (r#"{"a"#, "22P02")]);
}
