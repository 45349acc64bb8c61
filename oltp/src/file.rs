//! Names of the files of a database directory.
//!
//! ```text
//! DIR/LOCK                        held while a process has the directory open
//! DIR/manifest-0000000001         log of version edits; the highest number is current
//! DIR/wal/0000000001.wal          write-ahead log segments
//! DIR/runs/0000000002.run         sorted runs of row versions
//! DIR/segments/0000000003.parquet columns; .keys its key index and filter, .marks its sealed deletion vector
//! ```
//!
//! A `FileId` is never reused (I4), so a name says everything about the bytes behind it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Number of a file, unique within a database over its whole life and across all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// What a file holds; decides its folder and extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Log of version edits.
    Manifest,
    /// Write-ahead log segment.
    Wal,
    /// Sorted run of row versions (SSTable).
    Run,
    /// Parquet file of converted rows.
    Segment,
    /// Key index and filter of a segment.
    Keys,
    /// Sealed deletion vector of a segment.
    Marks,
    /// What one backup in a repository is made of.
    Backup,
}

impl FileKind {
    /// Path of the file `id` of this kind below the database directory, or repository of backups, `dir`.
    #[must_use]
    pub fn path(self, dir: &Path, id: FileId) -> PathBuf {
        match self {
            FileKind::Manifest => dir.join(format!("manifest-{id}")),
            FileKind::Wal => dir.join("wal").join(format!("{id}.wal")),
            FileKind::Run => dir.join("runs").join(format!("{id}.run")),
            FileKind::Segment => dir.join("segments").join(format!("{id}.parquet")),
            FileKind::Keys => dir.join("segments").join(format!("{id}.keys")),
            FileKind::Marks => dir.join("segments").join(format!("{id}.marks")),
            FileKind::Backup => dir.join("backups").join(format!("{id}.backup")),
        }
    }

    /// The kind and number that a file name stands for, or `None` for a name that is not ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<(FileKind, FileId)> {
        if let Some(number) = name.strip_prefix("manifest-") {
            return Some((FileKind::Manifest, FileId(number.parse().ok()?)));
        }
        let (stem, extension) = name.rsplit_once('.')?;
        let kind = match extension {
            "wal" => FileKind::Wal,
            "run" => FileKind::Run,
            "parquet" => FileKind::Segment,
            "keys" => FileKind::Keys,
            "marks" => FileKind::Marks,
            "backup" => FileKind::Backup,
            _ => return None,
        };
        Some((kind, FileId(stem.parse().ok()?)))
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Manifest => "manifest",
            FileKind::Wal => "write-ahead log",
            FileKind::Run => "run",
            FileKind::Segment => "segment",
            FileKind::Keys => "key index",
            FileKind::Marks => "deletion vector",
            FileKind::Backup => "backup",
        })
    }
}
