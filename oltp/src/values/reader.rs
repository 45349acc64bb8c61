//! `ValueFile`: an open value file. Its footer is read once; records are read one by one, as references are followed.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3Default;

use super::footer::{FOOTER_BYTES, Footer};
use super::{FORMAT_VERSION, ValueFileMeta, ValueRef};
use crate::env::{Access, Env, File};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::sstable::frame;
use crate::sstable::varint::{Damage, Reader, put_varint};
use crate::sync::Arc;

/// Writes what stands before the value in a record.
pub(super) fn put_record_head(out: &mut Vec<u8>, key: &[u8], seqno: SeqNo) {
    put_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    put_varint(out, seqno.0);
}

/// One record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Full key of the row.
    pub key: Bytes,
    /// Commit that wrote it.
    pub seqno: SeqNo,
    /// The row.
    pub value: Bytes,
}

impl Record {
    /// From the record's bytes before compression.
    pub fn decode(raw: &Bytes) -> Result<Record, Damage> {
        let mut reader = Reader::new(raw, 0);
        let key_bytes = reader.varint()?;
        let key_at = reader.at();
        reader.bytes(key_bytes)?;
        let key = key_at..reader.at();
        let seqno = SeqNo(reader.varint()?);
        let value_at = reader.at();
        Ok(Record { key: raw.slice(key), seqno, value: raw.slice(value_at..) })
    }
}

/// Reads and checks the record at `at` of a file whose records end at `end`. Allocates nothing before the reference proved
/// to lie within them.
///
/// # Errors
/// [`Error::Corrupt`] or [`Error::Io`].
pub(crate) fn read_record(file: &dyn File, path: &Path, end: u64, at: ValueRef) -> Result<Record> {
    if at.offset.checked_add(u64::from(at.bytes)).is_none_or(|record_end| record_end > end) {
        let what = "a reference leads beyond the records";
        return Err(Error::corrupt(FileKind::Values, path, at.offset, what));
    }
    let mut stored = vec![0; at.bytes as usize];
    file.read_at(at.offset, &mut stored).map_err(|e| Error::io("read", path, e))?;
    let raw = frame::open(&stored, at.file, at.offset);
    drop(stored);
    let record = raw.and_then(|raw| Record::decode(&Bytes::from(raw)));
    record.map_err(|d| Error::corrupt(FileKind::Values, path, at.offset, d.what))
}

/// An immutable file of large values of one table. Shared by the runs that refer to it; the file stays open until the last
/// of them lets go, also after its name was removed.
#[derive(Debug)]
pub struct ValueFile {
    meta: ValueFileMeta,
    path: PathBuf,
    file: Arc<dyn File>,
    footer: Footer,
}

impl ValueFile {
    /// Opens the value file that `meta` describes, in the database directory `dir`, and checks that its footer agrees;
    /// records are checked as they are read, all of them by [`ValueFile::verify`].
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub fn open(env: &Arc<dyn Env>, dir: &Path, meta: &ValueFileMeta) -> Result<Arc<ValueFile>> {
        let path = FileKind::Values.path(dir, meta.file);
        let file = env.open_immutable(&path, Access::Random).map_err(|e| Error::io("open", &path, e))?;
        let bytes = file.len().map_err(|e| Error::io("read the length of", &path, e))?;
        let corrupt = |offset: u64, what: &'static str| Error::corrupt(FileKind::Values, &path, offset, what);
        if bytes != meta.file_bytes || bytes < FOOTER_BYTES as u64 {
            return Err(corrupt(bytes, "file length disagrees with the manifest"));
        }
        let footer_at = bytes - FOOTER_BYTES as u64;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(footer_at, &mut footer).map_err(|e| Error::io("read", &path, e))?;
        let footer = Footer::decode(&footer).map_err(|d| corrupt(footer_at, d.what))?;
        if footer.version != FORMAT_VERSION {
            return Err(Error::NewerFormat { file: path, found: footer.version, supported: FORMAT_VERSION });
        }
        if footer.id != meta.file || footer.table != meta.table {
            return Err(corrupt(footer_at, "file belongs to another number or table"));
        }
        let agrees = footer.value_count == meta.value_count
            && footer.record_bytes == meta.record_bytes
            && footer.raw_bytes == meta.raw_bytes
            && footer.record_bytes.checked_add(u64::from(footer.lengths_bytes)) == Some(footer_at);
        if !agrees {
            return Err(corrupt(footer_at, "footer disagrees with the manifest"));
        }
        Ok(Arc::new(ValueFile { meta: meta.clone(), path, file, footer }))
    }

    /// The file as the manifest knows it.
    #[must_use]
    pub fn meta(&self) -> &ValueFileMeta {
        &self.meta
    }

    /// The file's number.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.meta.file
    }

    /// The value at `at`, which must be that of `key` by commit `seqno`. One read of its stored length.
    ///
    /// # Errors
    /// [`Error::Corrupt`] also if there is a sound record of another version; [`Error::Io`].
    pub fn read(&self, at: ValueRef, key: &[u8], seqno: SeqNo) -> Result<Bytes> {
        assert_eq!(at.file, self.meta.file, "the reference is into this file");
        let record = read_record(&*self.file, &self.path, self.meta.record_bytes, at)?;
        if record.key != key || record.seqno != seqno {
            let what = "a reference leads to the value of another version";
            return Err(Error::corrupt(FileKind::Values, &self.path, at.offset, what));
        }
        Ok(record.value)
    }

    /// Reads the whole file and checks everything that is known about it: the file's checksum, each record's, that the
    /// list of records is theirs, counts and bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first thing that does not hold; [`Error::Io`].
    pub fn verify(&self) -> Result<()> {
        let corrupt = |offset: u64, what: &'static str| Error::corrupt(FileKind::Values, &self.path, offset, what);
        let read = |offset: u64, bytes: u64| -> Result<Vec<u8>> {
            let mut buffer = vec![0; usize::try_from(bytes).map_err(|_| corrupt(offset, "record too large"))?];
            self.file.read_at(offset, &mut buffer).map_err(|e| Error::io("read", &self.path, e))?;
            Ok(buffer)
        };
        let lengths_at = self.footer.record_bytes;
        let list = read(lengths_at, self.meta.file_bytes - lengths_at)?;
        let lengths = frame::open(&list[..self.footer.lengths_bytes as usize], self.meta.file, lengths_at);
        let lengths = lengths.map_err(|d| corrupt(lengths_at, d.what))?;
        let mut lengths = Reader::new(&lengths, 0);
        let mut checksum = Xxh3Default::new();
        let (mut offset, mut raw_bytes) = (0, 0);
        for _ in 0..self.meta.value_count {
            let bytes = lengths.varint().map_err(|d| corrupt(lengths_at, d.what))?;
            if bytes > lengths_at - offset {
                return Err(corrupt(lengths_at, "the list of records leads beyond them"));
            }
            let stored = read(offset, bytes)?;
            checksum.update(&stored);
            let record = frame::open(&stored, self.meta.file, offset).and_then(|raw| Record::decode(&raw.into()));
            let record = record.map_err(|d| corrupt(offset, d.what))?;
            if crate::key::table_of(&record.key) != Some(self.meta.table) {
                return Err(corrupt(offset, "a value of another table"));
            }
            raw_bytes += record.value.len() as u64;
            offset += bytes;
        }
        lengths.finish().map_err(|d| corrupt(lengths_at, d.what))?;
        if offset != lengths_at || raw_bytes != self.meta.raw_bytes {
            return Err(corrupt(lengths_at, "records disagree with the footer"));
        }
        checksum.update(&list);
        if checksum.digest() != self.meta.checksum {
            return Err(corrupt(0, "file checksum disagrees with the manifest"));
        }
        Ok(())
    }
}
