//! Any bytes are a commit record or refused, and every entry of it lies within the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::commit_record(input));
