//! Any bytes are values of a run or refused, and are encoded to the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::values(input));
