//! Any bytes are an index block or refused, and so are the handles in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::index(input));
