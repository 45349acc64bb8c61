//! Copies of a database: checkpoints, backups in a repository, and the archive of its log.
//!
//! [`checkpoint`] makes a second database beside the first. [`repository`] keeps incremental backups, which share
//! files, and [`restore`] turns one back into a database. [`archive`] keeps the log, with which [`point_in_time`] restores
//! any commit since a backup.
//!
//! Always true:
//! * a copy holds every commit up to its SeqNo and none after it, whatever goes on while it is made;
//! * what is written last (a manifest, a record) makes it count; without that it is no copy and harms nothing;
//! * a copy that is opened is another database, with an identity of its own.
#![doc = include_str!("FORMAT.md")]

pub mod checkpoint;

pub mod repository;
pub mod restore;

pub mod archive;
pub mod point_in_time;

pub(crate) mod capture;
pub(crate) mod copy;
pub(crate) mod log;
pub(crate) mod record;

#[cfg(test)]
mod tests;

pub use archive::{ArchiveOptions, ArchivePruned, ArchiveStats};
pub use checkpoint::CheckpointReport;
pub use copy::Digest;
pub use point_in_time::Target;
pub use repository::{BackupInfo, BackupReport, Listing, Repository, RepositoryReport};
pub use restore::RestoreReport;
