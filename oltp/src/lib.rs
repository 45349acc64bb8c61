//! Strata's row store: durable, versioned rows in a write-ahead log and a log-structured merge tree.
//!
//! What it promises: an acknowledged commit survives kill -9 and power loss (P1); after a crash the state is a
//! prefix of the commit order (P2); a reader sees one snapshot and never waits for a writer (P3, P7); corrupt bytes
//! become an error that names file and offset (P6).
//!
//! ```text
//!   Transaction ──► commit ──► wal            (durable)
//!        │             └─────► memtable ──► sstable (runs) ──► ColdTier (columns, not known here)
//!        └── ReadView ◄─────── manifest: which files are live
//! ```
//!
//! Blocking calls, no async runtime. No SQL text, no Arrow arrays; only `arrow-schema` types, so that one type
//! vocabulary runs from `INSERT` to the wire. Everything outside the process enters through [`env`].

pub mod env;
pub mod error;
pub mod file;
pub mod memory;
pub mod seqno;
mod sync;

pub mod key;
pub mod row;
pub mod schema;

pub mod cache;
pub mod iter;
pub mod memtable;
pub mod sstable;
pub mod values;

pub mod manifest;
pub mod wal;

pub mod backup;
pub mod cold;
pub mod commit;
pub mod compaction;
pub mod db;
pub mod event;
pub mod inspect;
pub mod maintenance;
pub mod metrics;
pub mod options;
mod publish;
pub mod recovery;
pub mod repair;
pub mod txn;
pub mod view;
pub mod work;

pub use cold::{ColdTier, ColdView, Location};
pub use db::Db;
pub use error::{Error, Result};
pub use file::{FileId, FileKind};
pub use memory::MemoryBudget;
pub use options::Options;
pub use schema::{ColumnId, TableId, TableSchema};
pub use seqno::SeqNo;
pub use txn::{Isolation, LockMode, Overlay, Savepoint, Transaction, TransactionOptions};
pub use view::{ReadView, Snapshot, TableRows};

#[cfg(shuttle)]
extern crate self as strata_oltp;

/// What is tried under a scheduler: docs/decisions/0010.
#[cfg(shuttle)]
#[path = "../schedules/src/scenarios/mod.rs"]
pub mod scenarios;

/// Decoders for the fuzzers.
#[cfg(any(fuzzing, test))]
#[path = "../fuzz/src/decoders.rs"]
pub mod decoders;
