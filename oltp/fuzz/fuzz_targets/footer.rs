//! Any bytes are a footer or refused, and a footer is encoded to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::footer(input));
