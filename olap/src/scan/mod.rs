//! The scan: one leaf of a query plan that reads fresh rows and segments together, at one snapshot.
//!
//! ```text
//! StrataTable ──plan──► items ──► SegmentSource ──run──► morsels ──► RecordBatches
//!                        ├ key range of fresh rows        merged at the snapshot, own writes on top
//!                        └ row group of a segment         minus its invisible positions, by the Parquet reader
//!                                                          or from the column cache
//! ```
//!
//! The only place of this crate that names DataFusion.

mod access;
mod provider;
mod view;

mod items;
mod layout;
mod lookup;
mod prune;
mod source;
mod statistics;

mod cached;
mod fresh;
mod morsel;
mod output;
mod reader;

pub use access::IndexAccess;
pub use provider::StrataTable;
pub use view::{BoundView, ScanCounters};
