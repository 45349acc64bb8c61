//! The record of one backup: its point, its log, and the files it is made of, with their checksums. Layout: FORMAT.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::backup::copy::{Digest, read_whole};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::Fault;
use crate::inspect::dump::{Dump, hex};
use crate::manifest::Version;
use crate::manifest::edit::{decode_edits, encode_edits};
use crate::seqno::SeqNo;
use crate::wal::header::format_version;
use crate::wal::record::{read_u32, read_u64};
use crate::wal::{DbId, Lsn};

/// Newest format version this program reads, and the one it writes.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"STRATABK";
const HEADER_BYTES: usize = 104;
const FILE_BYTES: usize = 25;
const CHECKSUM_BYTES: usize = 8;

/// One file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredFile {
    pub(crate) kind: FileKind,
    pub(crate) id: FileId,
    pub(crate) digest: Digest,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupRecord {
    pub(crate) number: FileId,
    pub(crate) db_id: DbId,
    /// The newest commit in it.
    pub(crate) seqno: SeqNo,
    /// Where the database's own log ended with that commit: an archived log continues there.
    pub(crate) through: Lsn,
    pub(crate) taken_ms: u64,
    /// Position of the first frame of the backup's log, `wal/NUMBER.wal`.
    pub(crate) log_start: Lsn,
    pub(crate) log: Digest,
    /// Version of the manifest format that `version` is written in.
    pub(crate) manifest_version: u32,
    pub(crate) version: Version,
    pub(crate) files: Vec<StoredFile>,
}

impl StoredFile {
    /// Where a repository keeps it: the name holds the whole identity, so two files of one name are the same file.
    pub(crate) fn path(&self, repository: &Path, db_id: &DbId) -> PathBuf {
        let extension = self.kind.path(Path::new(""), self.id).extension().unwrap_or_default().to_owned();
        let name = format!("{}-{}-{:016x}", hex(db_id), self.id, self.digest.checksum);
        repository.join("files").join(name).with_extension(extension)
    }
}

impl BackupRecord {
    /// Bytes of the files and the log, shared ones included.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.bytes + self.files.iter().map(|file| file.digest.bytes).sum::<u64>()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let version = encode_edits(&self.version.snapshot());
        let mut out = Vec::with_capacity(HEADER_BYTES + version.len() + self.files.len() * FILE_BYTES + CHECKSUM_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.0.to_le_bytes());
        out.extend_from_slice(&self.db_id);
        let numbers =
            [self.seqno.0, self.through.0, self.taken_ms, self.log_start.0, self.log.bytes, self.log.checksum];
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(&self.manifest_version.to_le_bytes());
        out.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        out.extend_from_slice(&(version.len() as u64).to_le_bytes());
        assert_eq!(out.len(), HEADER_BYTES);
        out.extend_from_slice(&version);
        for file in &self.files {
            out.push(tag(file.kind));
            let numbers = [file.id.0, file.digest.bytes, file.digest.checksum];
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the record of backup `number` at `path`.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::NewerFormat`].
    pub(crate) fn decode(bytes: &[u8], number: FileId, path: &Path) -> Result<BackupRecord> {
        let corrupt = |at: usize, what: &'static str| Error::corrupt(FileKind::Backup, path, at as u64, what);
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES || &bytes[..8] != MAGIC {
            return Err(corrupt(0, "not a record of a backup"));
        }
        let body = bytes.len() - CHECKSUM_BYTES;
        if xxh3_64(&bytes[..body]) != read_u64(bytes, body) {
            return Err(corrupt(body, "checksum differs"));
        }
        let newer = |found, supported| Err(Error::NewerFormat { file: path.to_path_buf(), found, supported });
        match read_u32(bytes, 8) {
            0 => return Err(corrupt(8, "format version 0 never existed")),
            found if found > FORMAT_VERSION => return newer(found, FORMAT_VERSION),
            _ => {}
        }
        if read_u32(bytes, 88) > format_version(FileKind::Manifest) {
            return newer(read_u32(bytes, 88), format_version(FileKind::Manifest));
        }
        if read_u64(bytes, 16) != number.0 {
            return Err(corrupt(16, "record names another backup"));
        }
        let files_at = usize::try_from(read_u64(bytes, 96)).ok().and_then(|length| length.checked_add(HEADER_BYTES));
        let file_count = read_u32(bytes, 92) as usize;
        let Some(files_at) = files_at.filter(|at| at.checked_add(file_count * FILE_BYTES) == Some(body)) else {
            return Err(corrupt(92, "lengths do not add up"));
        };
        let mut version = Version::default();
        let edits =
            decode_edits(&bytes[HEADER_BYTES..files_at]).ok_or_else(|| corrupt(HEADER_BYTES, "malformed version"))?;
        for edit in &edits {
            version.apply(edit).map_err(|what| corrupt(HEADER_BYTES, what))?;
        }
        let files = (files_at..body)
            .step_by(FILE_BYTES)
            .map(|at| decode_file(bytes, at).ok_or_else(|| corrupt(at, "unknown kind of file")));
        let files = files.collect::<Result<Vec<_>>>()?;
        let named: BTreeSet<(FileKind, FileId)> = version.files().into_iter().collect();
        if named != files.iter().map(|file| (file.kind, file.id)).collect() {
            return Err(corrupt(files_at, "files differ from those of the version"));
        }
        let mut db_id = DbId::default();
        db_id.copy_from_slice(&bytes[24..40]);
        Ok(BackupRecord {
            number,
            db_id,
            seqno: SeqNo(read_u64(bytes, 40)),
            through: Lsn(read_u64(bytes, 48)),
            taken_ms: read_u64(bytes, 56),
            log_start: Lsn(read_u64(bytes, 64)),
            log: Digest { bytes: read_u64(bytes, 72), checksum: read_u64(bytes, 80) },
            manifest_version: read_u32(bytes, 88),
            version,
            files,
        })
    }
}

/// Writes what the record at `path` says into `dump`.
///
/// # Errors
/// I/O. Damage is part of the dump.
pub(crate) fn inspect(env: &dyn Env, path: &Path, id: Option<FileId>, dump: &mut Dump<'_>) -> Result<()> {
    let bytes = read_whole(env, path)?;
    let named = bytes.get(16..24).map_or(0, |number| read_u64(number, 0));
    let record = match BackupRecord::decode(&bytes, id.unwrap_or(FileId(named)), path) {
        Ok(record) => record,
        Err(error) => {
            dump.fault(0, Fault::new(FileKind::Backup, path, 0, error.to_string()));
            return Ok(());
        }
    };
    let BackupRecord { number, seqno, through, taken_ms, log, .. } = &record;
    dump.say(0, format!("backup {}: commit {seqno}, taken at {taken_ms} ms, {} bytes", number.0, record.bytes()));
    dump.say(1, format!("database {}, log position {through}", hex(&record.db_id)));
    dump.say(1, format!("log: {} bytes, checksum {:016x}", log.bytes, log.checksum));
    for file in &record.files {
        let Digest { bytes, checksum } = file.digest;
        dump.say(1, format!("{} {}: {bytes} bytes, checksum {checksum:016x}", file.kind, file.id));
    }
    Ok(())
}

fn decode_file(bytes: &[u8], at: usize) -> Option<StoredFile> {
    let kind = KINDS.into_iter().find(|kind| tag(*kind) == bytes[at])?;
    let digest = Digest { bytes: read_u64(bytes, at + 9), checksum: read_u64(bytes, at + 17) };
    Some(StoredFile { kind, id: FileId(read_u64(bytes, at + 1)), digest })
}

/// Kinds of files that a version names.
const KINDS: [FileKind; 5] = [FileKind::Run, FileKind::Segment, FileKind::Keys, FileKind::Marks, FileKind::Values];

fn tag(kind: FileKind) -> u8 {
    match kind {
        FileKind::Run => 1,
        FileKind::Segment => 2,
        FileKind::Keys => 3,
        FileKind::Marks => 4,
        FileKind::Values => 5,
        // A version names no others; a reader takes 0 for an unknown kind.
        FileKind::Manifest | FileKind::Wal | FileKind::Backup => 0,
    }
}
