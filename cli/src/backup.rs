//! `strata backup`: backups of a database directory in a repository, and what comes back out of it.
//!
//! A thin face on `strata_oltp::backup`; `docs/backup.md` is the manual. For a database that another process has open,
//! that process takes the backup; everything but `create` works beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Subcommand;
use strata_oltp::SeqNo;
use strata_oltp::backup::{BackupInfo, Repository, Target};
use strata_oltp::env::os::OsEnv;
use strata_oltp::inspect::dump::hex;

use crate::directory::open_existing;
use crate::progress::grouped;

/// What to do with a repository.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up a database, copying only what no earlier backup has
    Create {
        /// The database
        dir: PathBuf,
        /// The folder of backups
        repository: PathBuf,
    },
    /// List the backups
    List {
        /// The folder of backups
        repository: PathBuf,
    },
    /// Read every file of every backup and check every checksum
    Verify {
        /// The folder of backups
        repository: PathBuf,
    },
    /// Remove all but the newest backups of each database, and the archived log that none of them needs
    Prune {
        /// The folder of backups
        repository: PathBuf,
        /// How many to keep
        #[arg(long)]
        keep: usize,
        /// The folder that the log is archived in, if this is the only repository that it belongs to
        #[arg(long)]
        archive: Option<PathBuf>,
    },
    /// Remove one backup
    Delete {
        /// The folder of backups
        repository: PathBuf,
        /// Its number
        number: u64,
    },
    /// Make a database out of a backup, or of the newest one before a point and the archived log up to it
    Restore {
        /// The folder of backups
        repository: PathBuf,
        /// A directory that does not exist yet
        dest: PathBuf,
        /// The backup; the newest if left out
        #[arg(long, conflicts_with = "archive")]
        number: Option<u64>,
        /// The folder that the log is archived in: restores the newest state in it, or the one asked for
        #[arg(long)]
        archive: Option<PathBuf>,
        /// Every commit up to this one
        #[arg(long, requires = "archive", conflicts_with = "time_ms")]
        commit: Option<u64>,
        /// Every commit made before this time, in Unix milliseconds
        #[arg(long, requires = "archive")]
        time_ms: Option<u64>,
    },
}

/// Does it; `false` if damage was found.
///
/// # Errors
/// Whatever the repository or the database says.
pub fn run(command: BackupCommand, memory_bytes: u64) -> Result<bool> {
    match command {
        BackupCommand::Create { dir, repository } => create(&dir, &repository, memory_bytes).map(|()| true),
        BackupCommand::List { repository } => list(&open(&repository)),
        BackupCommand::Verify { repository } => verify(&open(&repository)),
        BackupCommand::Prune { repository, keep, archive } => {
            let repository = open(&repository);
            let removed = repository.prune(keep)?;
            say(&format!("{} backups removed", removed.len()));
            if let Some(archive) = archive {
                let pruned = repository.prune_archive(&archive)?;
                let (count, bytes) = (pruned.file_count, grouped(pruned.bytes));
                say(&format!("{count} archived log files removed, {bytes} bytes"));
            }
            Ok(true)
        }
        BackupCommand::Delete { repository, number } => {
            open(&repository).delete(number)?;
            say(&format!("backup {number} removed"));
            Ok(true)
        }
        BackupCommand::Restore { repository, dest, number, archive, commit, time_ms } => {
            let repository = open(&repository);
            let report = match archive {
                Some(archive) => {
                    let time = time_ms.map_or(Target::Newest, Target::Time);
                    let target = commit.map_or(time, |commit| Target::Commit(SeqNo(commit)));
                    repository.restore_to(&archive, None, target, &dest)?
                }
                None => {
                    let newest = || anyhow::Ok(repository.list()?.backups.last().map(|backup| backup.number));
                    let number = number.map_or_else(newest, |number| Ok(Some(number)))?;
                    let number = number.context("there are no backups")?;
                    repository.restore(number, &dest)?
                }
            };
            let (backup, seqno) = (report.backup, report.seqno);
            say(&format!("{}: commit {seqno}, from backup {backup}", dest.display()));
            Ok(true)
        }
    }
}

fn open(repository: &Path) -> Repository {
    Repository::new(Arc::new(OsEnv::new()), repository)
}

fn create(dir: &Path, repository: &Path, memory_bytes: u64) -> Result<()> {
    let engine = open_existing(dir, memory_bytes)?;
    let report = engine.db().backup(repository)?;
    say(&line(&report.backup));
    let (count, bytes) = (report.copied_count, grouped(report.copied_bytes + report.log_bytes));
    say(&format!("{count} files copied, {} shared with earlier backups, {bytes} bytes", report.shared_count));
    Ok(engine.close()?)
}

fn list(repository: &Repository) -> Result<bool> {
    let listing = repository.list()?;
    listing.backups.iter().for_each(|backup| say(&line(backup)));
    listing.damaged.iter().for_each(|error| say(&format!("damaged: {error}")));
    Ok(listing.damaged.is_empty())
}

fn verify(repository: &Repository) -> Result<bool> {
    let report = repository.verify()?;
    report.damaged.iter().for_each(|error| say(&format!("damaged: {error}")));
    let (backups, files, bytes) = (report.backup_count, report.file_count, grouped(report.bytes));
    say(&format!("{backups} backups, {files} files, {bytes} bytes: {} damaged", report.damaged.len()));
    Ok(report.damaged.is_empty())
}

fn line(backup: &BackupInfo) -> String {
    let BackupInfo { number, db_id, seqno, taken_ms, file_count, bytes } = backup;
    let (bytes, database) = (grouped(*bytes), hex(db_id));
    format!(
        "backup {number}: commit {seqno}, taken at {taken_ms} ms, {file_count} files, {bytes} bytes, database {database}"
    )
}

fn say(line: &str) {
    println!("{line}");
}
