//! Strata's sessions: text in, record batches or row writes out.
