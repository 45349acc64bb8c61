//! Any bytes are the header of a log file or refused, checksum or not.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::file_header(input));
