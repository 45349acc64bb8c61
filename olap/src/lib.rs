//! Strata's column store: immutable Parquet segments, and one scan that unites them with the row tail.
//!
//! What it promises: a live row version has exactly one home, a segment position or the row store (P5); segments are
//! plain Parquet that any tool reads (P8); corrupt bytes become an error that names file and offset (P6); the memory
//! of indexes, caches and conversions is drawn from the database's one budget (P9).
//!
//! ```text
//!   runs ──► convert ──► segment (.parquet + .keys) ──┐
//!   commits ───────────► delete_vector (marks) ───────┤
//!                                                     ▼
//!   oltp::ReadView ──► state (ColdState) ──► scan ◄── row part
//! ```
//!
//! [`tier::Store`] is the `ColdTier` that the row store calls. DataFusion is named only under [`scan`].

pub mod error;

pub mod segment;

pub mod cache;
pub mod delete_vector;

pub mod state;
pub mod tier;

pub mod convert;
pub mod merge;

pub mod inspect;
mod repair;

pub mod scan;

pub use error::{Error, Result};
pub use segment::{GroupAccess, Segment};
pub use state::{ColdState, TableSegments};
pub use tier::{Store, StoreOptions};
