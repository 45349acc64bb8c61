//! Any bytes are the description of a segment or refused, and are encoded to the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_olap_fuzz::segment_meta(input));
