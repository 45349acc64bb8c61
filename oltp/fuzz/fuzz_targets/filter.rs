//! Any bytes are a filter or refused, and a filter answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::filter(input));
