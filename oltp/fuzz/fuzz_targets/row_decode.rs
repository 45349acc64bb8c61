//! Any bytes are a row or an error, and a row that is accepted is exactly what the encoder writes for its values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strata_oltp::row::{RowCodec, RowRef};
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
        }
    }
});
