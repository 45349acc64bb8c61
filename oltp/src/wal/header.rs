//! The first block of every log file: what the file is and what it follows. Layout: FORMAT.md.

use std::path::Path;

use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::wal::record::{read_u32, read_u64};
use crate::wal::{DbId, Lsn};

/// Size of the header block; frames start behind it.
pub const HEADER_BYTES: usize = 4096;
/// No log is longer, so that arithmetic on positions read from a file cannot overflow.
pub(crate) const LSN_MAX: Lsn = Lsn(u64::MAX >> 8);
/// Version of log files that may hold notes: frames of kinds 4 and 5, which only an archive has use for.
const ANNOTATED: u32 = 2;

/// Newest format version of log files of `kind` that this program reads.
fn supported_version(kind: FileKind) -> u32 {
    if kind == FileKind::Wal { ANNOTATED } else { format_version(kind) }
}

/// Format version of log files of `kind` that this program writes, those with notes aside.
pub(crate) fn format_version(kind: FileKind) -> u32 {
    match kind {
        // 2: runs have places in levels. 3: times of commits. 4: value files.
        FileKind::Manifest => 4,
        _ => 1,
    }
}

const VERSION_AT: usize = 8;
const DB_ID_AT: usize = 16;
const FILE_AT: usize = 32;
const FIRST_LSN_AT: usize = 40;
const PREVIOUS_AT: usize = 48;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Header of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Database the file belongs to.
    pub db_id: DbId,
    /// Its own number.
    pub file: FileId,
    /// Position of its first frame, which is also where its predecessor ends.
    pub first_lsn: Lsn,
    /// The file before it, if any ever was.
    pub previous: Option<FileId>,
}

impl FileHeader {
    /// The block to write at the start of a log file of `kind`.
    pub(crate) fn encode(&self, kind: FileKind) -> Vec<u8> {
        self.encode_as(kind, format_version(kind))
    }

    /// The block to write at the start of a file of the write-ahead log that may hold notes.
    pub(crate) fn encode_annotated(&self) -> Vec<u8> {
        self.encode_as(FileKind::Wal, ANNOTATED)
    }

    /// Whether the file that starts with the valid header `block` may hold notes.
    pub(crate) fn is_annotated(block: &[u8]) -> bool {
        read_u32(block, VERSION_AT) >= ANNOTATED
    }

    fn encode_as(&self, kind: FileKind, version: u32) -> Vec<u8> {
        let mut block = vec![0; HEADER_BYTES];
        block[..VERSION_AT].copy_from_slice(magic(kind));
        block[VERSION_AT..VERSION_AT + 4].copy_from_slice(&version.to_le_bytes());
        block[DB_ID_AT..FILE_AT].copy_from_slice(&self.db_id);
        block[FILE_AT..FILE_AT + 8].copy_from_slice(&self.file.0.to_le_bytes());
        block[FIRST_LSN_AT..FIRST_LSN_AT + 8].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        let previous = self.previous.map_or(0, |file| file.0);
        block[PREVIOUS_AT..PREVIOUS_AT + 8].copy_from_slice(&previous.to_le_bytes());
        let checksum = crc32fast::hash(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Reads the header of the file at `path`, which must be file number `file` of `kind`.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::NewerFormat`].
    pub(crate) fn decode(block: &[u8], kind: FileKind, file: FileId, path: &Path) -> Result<FileHeader> {
        let corrupt = |offset: usize, what: &'static str| Error::corrupt(kind, path, offset as u64, what);
        if block.len() < HEADER_BYTES {
            return Err(corrupt(block.len(), "file is shorter than its header"));
        }
        if &block[..VERSION_AT] != magic(kind) {
            return Err(corrupt(0, "not a log file of this kind"));
        }
        // Magic, version and checksum keep their places in every version, so that damage is never taken for news.
        if crc32fast::hash(&block[..CHECKSUM_AT]) != read_u32(block, CHECKSUM_AT) {
            return Err(corrupt(CHECKSUM_AT, "header checksum differs"));
        }
        let found = read_u32(block, VERSION_AT);
        let supported = supported_version(kind);
        if found > supported {
            return Err(Error::NewerFormat { file: path.to_path_buf(), found, supported });
        }
        if found == 0 {
            return Err(corrupt(VERSION_AT, "format version 0 never existed"));
        }
        if read_u64(block, FILE_AT) != file.0 {
            return Err(corrupt(FILE_AT, "header names another file"));
        }
        if read_u64(block, FIRST_LSN_AT) > LSN_MAX.0 {
            return Err(corrupt(FIRST_LSN_AT, "position that no log reaches"));
        }
        let mut db_id = DbId::default();
        db_id.copy_from_slice(&block[DB_ID_AT..FILE_AT]);
        let previous = Some(FileId(read_u64(block, PREVIOUS_AT))).filter(|file| file.0 != 0);
        Ok(FileHeader { db_id, file, first_lsn: Lsn(read_u64(block, FIRST_LSN_AT)), previous })
    }
}

fn magic(kind: FileKind) -> &'static [u8; 8] {
    match kind {
        FileKind::Manifest => b"STRATAMF",
        _ => b"STRATAWL",
    }
}
