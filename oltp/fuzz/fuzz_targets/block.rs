//! Any bytes are a data block or refused: walking, seeking and probing end, and stay within it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::block(input));
