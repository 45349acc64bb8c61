//! `ValueWriter`: large values in, finished file out.
//!
//! One pass, a megabyte of buffer beside the value in hand. As a run, the file is synced, read back and verified before it
//! is handed out, because it replaces what it was made from.

use std::path::{Path, PathBuf};

use super::footer::{FOOTER_BYTES, Footer};
use super::reader::{ValueFile, put_record_head};
use super::{FORMAT_VERSION, ValueFileMeta, ValueRef};
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::Compression;
use crate::sstable::frame::Framer;
use crate::sstable::varint::put_varint;
use crate::sstable::writer::{BUFFER_BYTES, ENTRY_BYTES_MAX, Output};
use crate::sync::Arc;
use crate::work::pace::IoLimit;

/// Writes one value file. Dropping it unfinished leaves an orphan that recovery removes; [`ValueWriter::abandon`] removes
/// it at once.
pub struct ValueWriter {
    env: Arc<dyn Env>,
    dir: PathBuf,
    path: PathBuf,
    out: Output,
    framer: Framer,
    /// Key, commit and value of the record in hand.
    raw: Vec<u8>,
    /// Stored lengths of the records, as varints.
    lengths: Vec<u8>,
    meta: ValueFileMeta,
    limit: Option<Arc<IoLimit>>,
}

impl ValueWriter {
    /// Creates the value file `id` for `table` in the database directory `dir`, whose `runs` folder must exist.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created, which includes that it exists: numbers are never reused (I4).
    pub fn new(
        env: Arc<dyn Env>,
        dir: &Path,
        id: FileId,
        table: TableId,
        compression: Compression,
    ) -> Result<ValueWriter> {
        let path = FileKind::Values.path(dir, id);
        let file = env.open(&path, OpenMode::CreateNew).map_err(|e| Error::io("create", &path, e))?;
        let created_ms = u64::try_from(env.wall_clock().as_millis()).unwrap_or(u64::MAX);
        Ok(ValueWriter {
            env,
            dir: dir.to_path_buf(),
            path,
            out: Output::new(file),
            framer: Framer::new(compression),
            raw: Vec::new(),
            lengths: Vec::new(),
            meta: ValueFileMeta {
                file: id,
                table,
                file_bytes: 0,
                value_count: 0,
                record_bytes: 0,
                raw_bytes: 0,
                checksum: 0,
                created_ms,
            },
            limit: None,
        })
    }

    /// The writer, held back to a limit of bytes per second that it shares with others.
    #[must_use]
    pub fn limited(mut self, limit: Option<Arc<IoLimit>>) -> ValueWriter {
        self.limit = limit;
        self
    }

    /// Appends the value that `key` has from commit `seqno` on; returns where it lies.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Invalid`] if key and value together exceed [`ENTRY_BYTES_MAX`].
    pub fn add(&mut self, key: &[u8], seqno: SeqNo, value: &[u8]) -> Result<ValueRef> {
        if key.len().saturating_add(value.len()) > ENTRY_BYTES_MAX {
            return Err(Error::Invalid(format!("a row may have at most {ENTRY_BYTES_MAX} bytes")));
        }
        self.raw.clear();
        put_record_head(&mut self.raw, key, seqno);
        self.raw.extend_from_slice(value);
        let (file, offset) = (self.meta.file, self.out.offset());
        let bytes = self.framer.append(&mut self.out.buffer, &self.raw, file, offset);
        let bytes = u32::try_from(bytes).map_err(|_| Error::Invalid("a value exceeds 4 GiB".to_owned()))?;
        put_varint(&mut self.lengths, u64::from(bytes));
        self.meta.value_count += 1;
        self.meta.record_bytes += u64::from(bytes);
        self.meta.raw_bytes += value.len() as u64;
        if self.out.buffer.len() >= BUFFER_BYTES {
            self.limit.iter().for_each(|limit| limit.take(&*self.env, self.out.buffer.len() as u64));
            self.out.write(&self.path)?;
        }
        Ok(ValueRef { file, offset, bytes })
    }

    /// Bytes of the records so far, for callers that cut outputs at a size.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.meta.record_bytes
    }

    /// Completes the file, makes it and its name durable, reads it back and verifies it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Corrupt`] if the file does not read back as it was written. It is then removed.
    ///
    /// # Panics
    /// If nothing was added: nothing could refer to the file.
    pub fn finish(mut self) -> Result<ValueFileMeta> {
        assert!(self.meta.value_count > 0, "a value file holds at least one value");
        let finished = self.complete().and_then(|()| ValueFile::open(&self.env, &self.dir, &self.meta)?.verify());
        match finished {
            Ok(()) => Ok(self.meta),
            Err(error) => {
                // The first error is the one to report; a file that stays behind is an orphan for recovery.
                let _ = self.abandon();
                Err(error)
            }
        }
    }

    fn complete(&mut self) -> Result<()> {
        let (file, offset) = (self.meta.file, self.out.offset());
        let lengths_bytes = Framer::append_raw(&mut self.out.buffer, &self.lengths, file, offset);
        let lengths_bytes = u32::try_from(lengths_bytes)
            .map_err(|_| Error::Invalid("the list of a value file's records exceeds 4 GiB".to_owned()))?;
        let footer = Footer {
            id: file,
            table: self.meta.table,
            version: FORMAT_VERSION,
            value_count: self.meta.value_count,
            record_bytes: self.meta.record_bytes,
            lengths_bytes,
            raw_bytes: self.meta.raw_bytes,
            created_ms: self.meta.created_ms,
        };
        let footer: [u8; FOOTER_BYTES] = footer.encode();
        self.out.buffer.extend_from_slice(&footer);
        self.out.write(&self.path)?;
        self.out.file.sync().map_err(|e| Error::io("sync", &self.path, e))?;
        let folder = self.path.parent().unwrap_or(&self.dir);
        self.env.sync_dir(folder).map_err(|e| Error::io("sync", folder, e))?;
        self.meta.file_bytes = self.out.written;
        self.meta.checksum = self.out.checksum.digest();
        Ok(())
    }

    /// Removes the unfinished file.
    ///
    /// # Errors
    /// [`Error::Io`]; the file is then an orphan that recovery removes.
    pub fn abandon(self) -> Result<()> {
        self.env.remove(&self.path).map_err(|e| Error::io("remove", &self.path, e))
    }
}
