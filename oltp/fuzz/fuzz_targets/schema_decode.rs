//! Any bytes are a table schema or an error, and a schema that is accepted is encoded to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strata_oltp::TableSchema;

fuzz_target!(|input: &[u8]| {
    if let Ok(schema) = TableSchema::from_bytes(input) {
        assert_eq!(schema.to_bytes(), input);
    }
});
