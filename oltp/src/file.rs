//! Names of the files of a database directory.
//!
//! ```text
//! DIR/LOCK                        held while a process has the directory open
//! DIR/manifest-0000000001         log of version edits; the highest number is current
//! DIR/wal/0000000001.wal          write-ahead log segments
//! DIR/runs/0000000002.run         sorted runs of row versions; .values large values that runs refer to
//! DIR/segments/0000000003.parquet columns; .keys its key index and filter, .marks its sealed deletion vector
//! ```
//!
//! A `FileId` is never reused (I4), so a name says everything about the bytes behind it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Number of a file, unique within a database over its whole life and across all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// Largest number that a name is believed to have: behind it there must be room for all that will be given out.
const NUMBER_MAX: u64 = u64::MAX >> 1;

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
    /// Large values that runs refer to.
    Values,
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
            FileKind::Values => dir.join("runs").join(format!("{id}.values")),
            FileKind::Segment => dir.join("segments").join(format!("{id}.parquet")),
            FileKind::Keys => dir.join("segments").join(format!("{id}.keys")),
            FileKind::Marks => dir.join("segments").join(format!("{id}.marks")),
            FileKind::Backup => dir.join("backups").join(format!("{id}.backup")),
        }
    }

    /// The kind and number that a file name stands for, or `None` for a name that is not ours: any other spelling of a
    /// number than [`FileKind::path`] gives it would stand for a file that is not there.
    #[must_use]
    pub fn parse(name: &str) -> Option<(FileKind, FileId)> {
        let (kind, number) = match name.strip_prefix("manifest-") {
            Some(number) => (FileKind::Manifest, number),
            None => {
                let (stem, extension) = name.rsplit_once('.')?;
                let kind = match extension {
                    "wal" => FileKind::Wal,
                    "run" => FileKind::Run,
                    "values" => FileKind::Values,
                    "parquet" => FileKind::Segment,
                    "keys" => FileKind::Keys,
                    "marks" => FileKind::Marks,
                    "backup" => FileKind::Backup,
                    _ => return None,
                };
                (kind, stem)
            }
        };
        let id = FileId(number.parse().ok().filter(|id| *id <= NUMBER_MAX)?);
        (id.to_string() == number).then_some((kind, id))
    }

    /// [`FileKind::parse`] for a name found in `folder` of the database directory `dir`: a file of ours that was put into
    /// another folder than its own is not ours there, or its twin in the right one would be taken for it.
    pub(crate) fn parse_in(dir: &Path, folder: &Path, name: &str) -> Option<(FileKind, FileId)> {
        FileKind::parse(name).filter(|(kind, id)| kind.path(dir, *id).parent() == Some(folder))
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Manifest => "manifest",
            FileKind::Wal => "write-ahead log",
            FileKind::Run => "run",
            FileKind::Values => "value file",
            FileKind::Segment => "segment",
            FileKind::Keys => "key index",
            FileKind::Marks => "deletion vector",
            FileKind::Backup => "backup",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_of_a_name_is_ours() {
        let dir = Path::new("/db");
        let kinds = [FileKind::Manifest, FileKind::Wal, FileKind::Run, FileKind::Values];
        for kind in kinds.into_iter().chain([FileKind::Segment, FileKind::Keys, FileKind::Marks]) {
            for id in [FileId(1), FileId(12_345_678_901), FileId(NUMBER_MAX)] {
                let path = kind.path(dir, id);
                let name = path.file_name().and_then(|name| name.to_str()).expect("it has one");
                assert_eq!(FileKind::parse(name), Some((kind, id)));
                let is_home = |folder: &str| FileKind::parse_in(dir, Path::new(folder), name).is_some();
                let homes = ["/db", "/db/wal", "/db/runs", "/db/segments"].into_iter().filter(|at| is_home(at));
                assert_eq!(homes.collect::<Vec<_>>(), [path.parent().and_then(Path::to_str).expect("it has one")]);
            }
        }
        let foreign =
            ["1.run", "+000000001.run", "00000000001.run", "manifest-1", "18446744073709551615.wal", "0000000001"];
        assert!(foreign.iter().all(|name| FileKind::parse(name).is_none()));
    }
}
