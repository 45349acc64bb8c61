//! `strata`: the one binary.

fn main() {}
