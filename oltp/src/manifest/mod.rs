//! The manifest: which files make up the database, as a log of version edits.

mod edit;

pub use edit::RunMeta;
