//! Strata's sessions: text in, record batches or row writes out.
//!
//! Life of a statement:
//!
//! 1. [`parse_script`] cuts the script at its semicolons, parses each piece and classifies it.
//! 2. [`Session::run`] finds or opens the transaction, and with it the snapshot and the catalog it sees.
//! 3. A query is bound to both, planned by DataFusion and started (`query`); its leaves are `strata_olap::scan`.
//! 4. INSERT, UPDATE and DELETE read first, as queries, then check and encode rows into the transaction (`dml`).
//! 5. COPY reads a file into the same writes, or writes a query's rows to one (`copy`).
//! 6. CREATE and DROP change rows of the catalog's own tables in the same transaction (`ddl`, `catalog`).
//! 7. COMMIT hands the transaction to the row store, which acknowledges it when it is durable.
//!
//! ```text
//!   Session ──► statement ──► query ──► DataFusion ──► olap::scan ──► oltp::ReadView
//!      │            └───────► dml, ddl ──► oltp::Transaction ──► commit
//!      └── Engine: Db + Store + catalog + memory pool
//! ```
//!
//! Errors carry SQLSTATE, message, detail and hint ([`Error`]). Nothing of the wire is known here.

mod activity;
mod engine;
mod session;

pub mod statement;

mod catalog;
mod expr;
mod types;

mod optimizer;
mod query;

mod call;
mod ddl;
mod dml;
mod settings;

mod point;
mod prepared;
mod sequences;

mod as_of;
mod bulk;
mod copy;
mod embed;
mod pg_catalog;
mod pool;
mod system;
mod verification;

pub mod error;

pub use bulk::BulkWriter;
pub use catalog::store::{CATALOG_TABLE, TableDefinition, table_definition};
pub use copy::FileAccess;
pub use engine::{Background, Engine, EngineOptions};
pub use error::{Error, Result, SqlState};
pub use prepared::Prepared;
pub use query::Rows;
pub use session::{ScanCounters, Session, StatementResult};
pub use statement::{Statement, parse_script};
pub use strata_oltp::commit::Durability;
pub use types::write_text;
