//! Copying the log commit by commit: out of one log, checked, into another with an identity of its own.
//!
//! A copy is never byte for byte, because what stands behind the durable end of a live file, and the identity folded
//! into its checksums, must not come along. Every frame is verified when it is read and sealed anew when it is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::seqno::SeqNo;
use crate::wal::header::{FileHeader, HEADER_BYTES};
use crate::wal::reader::LogReader;
use crate::wal::record::{self, Frame, Identity, RecordKind};
use crate::wal::{DbId, Lsn, WalStart};

/// Frames are written in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;
/// Where the log of a database continues in a new file.
pub(crate) const LOG_FILE_BYTES: u64 = 64 << 20;

/// Calls `visit` with the frames of `reader`'s file from `from` to `end`, all of which had been synced.
///
/// # Errors
/// [`Error::Corrupt`] if they are not there, whole and in place; what `visit` returns.
pub(crate) fn visit_frames(
    reader: &mut LogReader,
    from: Lsn,
    end: Lsn,
    visit: &mut dyn FnMut(&Frame<'_>) -> Result<()>,
) -> Result<()> {
    let mut at = from;
    while at < end {
        let path = reader.path.clone();
        let Some(before) = at.0.checked_sub(reader.header.first_lsn.0) else {
            return Err(Error::corrupt(FileKind::Wal, &path, 0, "the file begins behind the part that it must hold"));
        };
        let offset = HEADER_BYTES as u64 + before;
        let Some(frame) = reader.frame_at(offset)?.filter(|frame| frame.end <= end) else {
            return Err(Error::corrupt(FileKind::Wal, &path, offset, "bad record in a part that had been synced"));
        };
        at = frame.end;
        visit(&frame)?;
    }
    Ok(())
}

/// [`visit_frames`] for the commits among them: SeqNo and payload.
pub(crate) fn visit_commits(
    reader: &mut LogReader,
    from: Lsn,
    end: Lsn,
    visit: &mut dyn FnMut(SeqNo, &[u8]) -> Result<()>,
) -> Result<()> {
    visit_frames(reader, from, end, &mut |frame| {
        if frame.kind == RecordKind::Commit as u8 { visit(frame.seqno, frame.payload) } else { Ok(()) }
    })
}

/// A log being written from commits of another. Nothing of it counts before [`LogCopy::finish`].
pub(crate) struct LogCopy<'a> {
    env: &'a dyn Env,
    dir: &'a Path,
    db_id: DbId,
    next_file: &'a mut dyn FnMut() -> FileId,
    file_bytes_max: u64,
    start: WalStart,
    file: CopyFile,
    end: Lsn,
    newest: SeqNo,
}

struct CopyFile {
    id: FileId,
    path: PathBuf,
    file: Arc<dyn File>,
    identity: Identity,
    /// Written so far, in bytes of the file.
    written: u64,
    buffer: Vec<u8>,
}

impl<'a> LogCopy<'a> {
    /// Starts a log at position `first_lsn` in the database directory `dir`; it continues in a new file above
    /// `file_bytes_max`.
    pub(crate) fn create(
        env: &'a dyn Env,
        dir: &'a Path,
        db_id: DbId,
        first_lsn: Lsn,
        file_bytes_max: u64,
        next_file: &'a mut dyn FnMut() -> FileId,
    ) -> Result<LogCopy<'a>> {
        let file = CopyFile::create(env, dir, &db_id, next_file(), first_lsn, None)?;
        let start = WalStart { file: file.id, lsn: first_lsn };
        Ok(LogCopy { env, dir, db_id, next_file, file_bytes_max, start, file, end: first_lsn, newest: SeqNo::ZERO })
    }

    /// Adds a commit, behind all others.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not newer than the one before it; I/O.
    pub(crate) fn append(&mut self, seqno: SeqNo, payload: &[u8]) -> Result<()> {
        if seqno <= self.newest {
            return Err(Error::corrupt(
                FileKind::Wal,
                &self.file.path,
                self.file.bytes(),
                "commit numbers do not rise",
            ));
        }
        let frame_bytes = record::frame_bytes(payload.len()) as u64;
        if self.file.bytes() > HEADER_BYTES as u64 && self.file.bytes() + frame_bytes > self.file_bytes_max {
            self.file.sync()?;
            let (next, previous) = ((self.next_file)(), self.file.id);
            self.file = CopyFile::create(self.env, self.dir, &self.db_id, next, self.end, Some(previous))?;
        }
        self.push(RecordKind::Commit, seqno, payload)?;
        self.newest = seqno;
        Ok(())
    }

    /// Closes the log in order, so that no damage to its end can pass for a write cut short, and syncs it.
    pub(crate) fn finish(mut self) -> Result<CopiedLog> {
        self.push(RecordKind::CleanClose, self.newest, &[])?;
        self.file.sync()?;
        Ok(CopiedLog { start: self.start, bytes: self.end.0 - self.start.lsn.0 })
    }

    fn push(&mut self, kind: RecordKind, seqno: SeqNo, payload: &[u8]) -> Result<()> {
        let at = self.file.buffer.len();
        record::begin_frame(&mut self.file.buffer, kind, self.end, seqno, &[payload]);
        // Everything before it is synced by the time that anyone may look.
        record::seal_frame(self.file.identity, &mut self.file.buffer[at..], self.end);
        self.end = Lsn(self.end.0 + (self.file.buffer.len() - at) as u64);
        if self.file.buffer.len() >= PIECE_BYTES { self.file.write() } else { Ok(()) }
    }
}

/// A finished copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopiedLog {
    /// Where it begins.
    pub(crate) start: WalStart,
    /// Bytes of its frames.
    pub(crate) bytes: u64,
}

impl CopyFile {
    fn create(
        env: &dyn Env,
        dir: &Path,
        db_id: &DbId,
        id: FileId,
        first_lsn: Lsn,
        previous: Option<FileId>,
    ) -> Result<CopyFile> {
        let path = FileKind::Wal.path(dir, id);
        let file = env.open(&path, OpenMode::CreateNew).map_err(|error| Error::io("create", &path, error))?;
        let buffer = FileHeader { db_id: *db_id, file: id, first_lsn, previous }.encode(FileKind::Wal);
        let identity = Identity::new(FileKind::Wal, db_id, id);
        Ok(CopyFile { id, path, file, identity, written: 0, buffer })
    }

    fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_at(self.written, &self.buffer).map_err(|error| Error::io("write", &self.path, error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.write()?;
        self.file.sync().map_err(|error| Error::io("sync", &self.path, error))
    }
}
