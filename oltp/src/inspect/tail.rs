//! `WalTail`: the commits in the log in order, of a closed database or beside a running one.
//!
//! Takes no lock and changes nothing. What a running process has written but not synced is seen too, so each commit comes
//! with what is proven about it: a power loss may take back what is not.
//!
//! A running process recycles log files that it needs no more. A tail that is slower finds its place gone: it says
//! how far it was, continues with the oldest file there is, and says so ([`TailEvent::Behind`]). What was skipped
//! is in runs and segments by then, not lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::log::{self, LogEntry};
use super::manifest;
use super::run::{Piece, RunFile};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::VersionKind;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::block::BlockCursor;
use crate::sync::Arc;
use crate::wal::header::HEADER_BYTES;
use crate::wal::reader::{LogReader, list_files};
use crate::wal::record::FRAME_HEADER_BYTES;
use crate::wal::{Lsn, RecordKind};

/// One commit of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCommit {
    /// Its place in the commit order.
    pub seqno: SeqNo,
    /// Where it begins in the log.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// Everything below this is known to have been synced, by what was read so far: this commit too if `end` is not
    /// above it. A commit without this may have been acknowledged as durable all the same.
    pub proven: Lsn,
    /// The log file.
    pub file: FileId,
    /// What it wrote, in key order.
    pub entries: Vec<LogEntry>,
}

/// What a tail reads next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailEvent {
    /// A commit.
    Commit(TailCommit),
    /// The log between these positions was released before it could be read.
    Behind {
        /// Where the tail was.
        from: Lsn,
        /// Where it continues.
        to: Lsn,
    },
    /// Nothing valid follows now. A running process may write more: call again after a moment.
    End {
        /// Where the log ends.
        lsn: Lsn,
        /// Whether it was closed in order.
        is_closed: bool,
    },
}

/// A reader of the log from its oldest file to its end, and on as it grows.
pub struct WalTail {
    env: Arc<dyn Env>,
    dir: PathBuf,
    reader: Option<LogReader>,
    /// Where in the file the next frame is expected.
    offset: u64,
    proven: Lsn,
    is_closed: bool,
}

/// What stands at the place where the next frame is expected.
enum Next {
    Commit(TailCommit),
    Other,
    Nothing,
}

impl WalTail {
    /// A tail of the log below `dir`, from the oldest file that is still there.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `dir` has no log folder.
    pub fn open(env: Arc<dyn Env>, dir: &Path) -> Result<WalTail> {
        if env.list(&dir.join("wal")).is_err() {
            return Err(Error::Invalid(format!("{} holds no database", dir.display())));
        }
        let dir = dir.to_path_buf();
        Ok(WalTail { env, dir, reader: None, offset: 0, proven: Lsn(0), is_closed: false })
    }

    /// The next commit, or the end for now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged or missing record in a part that had been synced; [`Error::Io`].
    pub fn next_event(&mut self) -> Result<TailEvent> {
        loop {
            match self.frame()? {
                Next::Commit(commit) => return Ok(TailEvent::Commit(commit)),
                Next::Other => continue,
                Next::Nothing => {}
            }
            // The folder is listed before the file is read anew: what a writer put into this file it put there before
            // it began the next one, so that a successor in the list proves that this file is complete.
            let files = list_files(self.env.as_ref(), &self.dir)?;
            if let Some(reader) = &mut self.reader {
                reader.refresh()?;
            }
            match self.frame()? {
                Next::Commit(commit) => return Ok(TailEvent::Commit(commit)),
                Next::Other => continue,
                Next::Nothing => {}
            }
            let current = self.reader.as_ref().map(|reader| reader.header.file);
            let Some(&next) = files.iter().find(|file| current.is_none_or(|current| **file > current)) else {
                match self.judge_end()? {
                    Some(end) => return Ok(end),
                    None => continue,
                }
            };
            if let Some(event) = self.go_on(next)? {
                return Ok(event);
            }
        }
    }

    fn lsn(&self) -> Lsn {
        self.reader.as_ref().map_or(Lsn(0), |reader| reader.lsn_of(self.offset))
    }

    /// Reads the frame at the current place and moves behind it.
    fn frame(&mut self) -> Result<Next> {
        let Some(reader) = &mut self.reader else { return Ok(Next::Nothing) };
        let (file, path) = (reader.header.file, reader.path.clone());
        let Some(frame) = reader.frame_at(self.offset)? else { return Ok(Next::Nothing) };
        let corrupt = |at: u64, what: &'static str| Err(Error::corrupt(FileKind::Wal, &path, at, what));
        let proven = self.proven.max(frame.durable);
        let commit = match RecordKind::from_u8(frame.kind) {
            Some(RecordKind::Commit) => match log::entries(frame.payload) {
                Ok(entries) => {
                    let (seqno, lsn, end) = (frame.seqno, frame.lsn, frame.end);
                    Next::Commit(TailCommit { seqno, lsn, end, proven, file, entries })
                }
                Err((at, what)) => return corrupt(self.offset + (FRAME_HEADER_BYTES + at) as u64, what),
            },
            Some(RecordKind::CleanClose | RecordKind::Watermark | RecordKind::Clock | RecordKind::RowIds) => {
                Next::Other
            }
            _ => return corrupt(self.offset, "record of a kind that does not belong here"),
        };
        self.proven = proven;
        self.is_closed = frame.kind == RecordKind::CleanClose as u8;
        self.offset += frame.end.0 - frame.lsn.0;
        Ok(commit)
    }

    /// The end of the newest file; `None` if there is more after all.
    fn judge_end(&mut self) -> Result<Option<TailEvent>> {
        let end = TailEvent::End { lsn: self.lsn(), is_closed: self.is_closed };
        let Some(reader) = &mut self.reader else { return Ok(Some(end)) };
        if self.is_closed {
            return Ok(Some(end));
        }
        let Err(error) = reader.judge_tail(self.offset) else { return Ok(Some(end)) };
        // A later record proves that this one had been synced before; it may have been written since it was looked for.
        reader.refresh()?;
        if reader.frame_at(self.offset)?.is_some() { Ok(None) } else { Err(error) }
    }

    /// Goes on in `next`, the file behind the current one, or in the oldest there is if the current one is gone.
    fn go_on(&mut self, next: FileId) -> Result<Option<TailEvent>> {
        let opened = match LogReader::open(self.env.as_ref(), FileKind::Wal, &self.dir, next) {
            Ok(opened) => opened,
            // Released since the folder was listed.
            Err(_) if !list_files(self.env.as_ref(), &self.dir)?.contains(&next) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (from, to) = (self.lsn(), opened.header.first_lsn);
        let current = self.reader.as_ref().map(|reader| (reader.header.file, reader.path.clone()));
        if let Some((file, path)) = &current
            && from != to
        {
            let files = list_files(self.env.as_ref(), &self.dir)?;
            if files.contains(file) {
                let what = "bad record before the end that its successor states";
                return Err(Error::corrupt(FileKind::Wal, path, self.offset, what));
            }
            if !files.contains(&next) {
                return Ok(None);
            }
        }
        self.reader = Some(opened);
        self.offset = HEADER_BYTES as u64;
        self.proven = self.proven.max(to);
        Ok((current.is_some() && from != to).then_some(TailEvent::Behind { from, to }))
    }
}

/// The newest row of each key in the runs of `table`, without opening the database: for small tables, such as a catalog,
/// that a reader of the log needs to know. Unreadable runs and blocks are left out, and so is what only the log has.
///
/// # Errors
/// [`Error::Io`].
pub fn newest_rows(env: &Arc<dyn Env>, dir: &Path, table: TableId) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut newest: BTreeMap<Vec<u8>, (SeqNo, Option<Vec<u8>>)> = BTreeMap::new();
    let Some((id, path)) = manifest::newest(env.as_ref(), dir)? else { return Ok(BTreeMap::new()) };
    let version = manifest::read(env.as_ref(), &path, Some(id), None)?.version;
    for meta in version.table(table).iter().flat_map(|table| table.runs.iter()) {
        let Ok(run) = RunFile::open(env.as_ref(), &FileKind::Run.path(dir, meta.run), Some(meta.run)) else { continue };
        let walked = run.walk(&mut Vec::new(), &mut |piece| {
            let Piece::Block(_, block) = piece else { return Ok(()) };
            let mut cursor = BlockCursor::new(block);
            while let Ok(true) = cursor.next() {
                let row = (cursor.kind() == VersionKind::Put).then(|| cursor.value().to_vec());
                let known = newest.entry(cursor.key().to_vec()).or_default();
                if cursor.seqno() > known.0 {
                    *known = (cursor.seqno(), row);
                }
            }
            Ok(())
        });
        drop(walked);
    }
    Ok(newest.into_iter().filter_map(|(key, (_, row))| Some((key, row?))).collect())
}
