//! `Fault`: one thing that does not hold, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::file::FileKind;

/// One thing that does not hold about a file. Collected rather than returned, so that one damaged file does not hide the
/// next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Kind of the file.
    pub kind: FileKind,
    /// The file.
    pub file: PathBuf,
    /// Where in it the fault was noticed; 0 if it is about the file as a whole.
    pub offset: u64,
    /// What does not hold.
    pub what: String,
}

impl Fault {
    /// A fault at `offset` of `file`.
    #[must_use]
    pub fn new(kind: FileKind, file: &Path, offset: u64, what: impl Into<String>) -> Fault {
        Fault { kind, file: file.to_path_buf(), offset, what: what.into() }
    }

    /// What `error` says, about `file` unless the error names another.
    #[must_use]
    pub fn of(error: &Error, kind: FileKind, file: &Path) -> Fault {
        match error {
            Error::Corrupt { kind, file, offset, what } => Fault::new(*kind, file, *offset, what.as_ref()),
            Error::Malformed { subject, offset, what } => {
                Fault::new(kind, file, *offset, format!("malformed {subject}: {what}"))
            }
            Error::Io { action, file, source } => Fault::new(kind, file, 0, format!("cannot {action} it: {source}")),
            other => Fault::new(kind, file, 0, other.to_string()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} at byte {}", self.kind, self.file.display(), self.what, self.offset)
    }
}
