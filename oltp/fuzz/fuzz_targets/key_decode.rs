//! Any bytes are a key or an error, and a key that is accepted is exactly what the encoder writes for its values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strata_oltp::key::{IndexId, KeyCodec};
use strata_oltp::row::OwnedValue;
use strata_oltp_fuzz::schema_and_rest;

fuzz_target!(|input: &[u8]| {
    let Some((schema, bytes)) = schema_and_rest(input) else { return };
    let every_column: Vec<usize> = (0..schema.columns.len()).collect();
    let codec = KeyCodec::of_index(&schema, IndexId(1), &every_column);
    let _ = codec.decode(bytes);
    // The fuzzer need not find the six bytes that every key starts with.
    let key = [&codec.prefix()[..], bytes].concat();
    let Ok(values) = codec.decode(&key) else { return };
    let values: Vec<_> = values.iter().map(OwnedValue::as_value).collect();
    let mut encoded = Vec::new();
    match codec.encode(&values, &mut encoded) {
        Ok(()) => assert_eq!(encoded, key),
        Err(_) => assert!(key.len() > strata_oltp::key::KEY_BYTES_MAX),
    }
});
