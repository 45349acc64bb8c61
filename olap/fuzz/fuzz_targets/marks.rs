//! Any bytes are a deletion vector or refused, and one that is accepted is encoded to the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_olap_fuzz::marks(input));
