//! Any bytes are a key index or refused; one that is accepted answers every question within its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| strata_olap_fuzz::keys(input));
