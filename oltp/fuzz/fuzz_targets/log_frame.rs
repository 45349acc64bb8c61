//! A frame is read as it was written, in its place only, and not with a flipped bit.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_oltp::decoders::log_frame(input));
