//! Benchmarks of Strata against its peers.
