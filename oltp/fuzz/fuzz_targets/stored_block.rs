//! Any trailer and any compressed bytes are opened or refused, within the memory they may ask for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::stored_block(input));
