//! Strata's column store: immutable Parquet segments, and one scan that unites them with the row tail.
