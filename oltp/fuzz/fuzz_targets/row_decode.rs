//! Any bytes are a row or an error, and a row that is accepted is exactly what the encoder writes for its values.
#![no_main]

use arrow_schema::DataType;
use libfuzzer_sys::fuzz_target;
use strata_oltp::row::{RowCodec, RowRef, Value, ValueKind, list};
use strata_oltp_fuzz::schema_and_rest;

fuzz_target!(|input: &[u8]| {
    let Some((schema, bytes)) = schema_and_rest(input) else { return };
    let codec = RowCodec::new(&schema);
    let Ok(row) = RowRef::new(&codec, bytes) else { return };
    let text_is_good = row.check_text().is_ok();
    match row.values() {
        Err(_) => assert!(!text_is_good),
        Ok(values) => {
            assert!(text_is_good);
            let mut encoded = Vec::new();
            codec.encode(&values, &mut encoded).expect("decoded values fit their schema");
            assert_eq!(encoded, bytes);
            schema.columns.iter().zip(&values).for_each(|(column, value)| decode_list(column.field.data_type(), value));
        }
    }
});

/// A list that is accepted is exactly what the encoder writes for its elements.
fn decode_list(data_type: &DataType, value: &Value<'_>) {
    let (DataType::List(item), Value::List(bytes)) = (data_type, value) else { return };
    let kind = ValueKind::of(item.data_type()).expect("a list of a legal shape");
    let Ok(list) = list::ListRef::new(kind, bytes) else { return };
    let Ok(elements) = (0..list.len()).map(|at| list.get(at)).collect::<Result<Vec<_>, _>>() else { return };
    let mut encoded = Vec::new();
    list::encode(kind, &elements, &mut encoded).expect("decoded elements fit their list");
    assert_eq!(&encoded, bytes);
}
