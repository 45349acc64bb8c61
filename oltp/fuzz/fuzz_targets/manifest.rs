//! Any bytes are manifest edits or refused; edits that fit make a version that its snapshot makes again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::manifest(input));
