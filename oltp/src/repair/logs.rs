//! The log: copied if sound, else its good commits written into a new one.

use super::{Effect, Loss, Repair};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::inspect::log::{self, Piece, walk};
use crate::manifest::{Version, draw_db_id, list_files};
use crate::seqno::SeqNo;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::wal::reader::LogReader;
use crate::wal::{DbId, FileAllocator, Lsn, RecordKind, Tail, Wal, WalOptions, replay};

/// What is said of a log whose end is that of a crash: a damaged end looks the same.
const NOT_CLOSED: &str = "the log was not closed in order: normal after a crash, but its last commits may be missing";

/// What is done with each good commit.
pub(super) type Take<'a> = &'a mut dyn FnMut(SeqNo, &[u8]) -> Result<()>;

impl Repair<'_> {
    /// Brings the log into the new folder and notes in `version` where it begins. Returns the identity it has there.
    pub(super) fn log(&mut self, db_id: DbId, old: &Version, version: &mut Version) -> Result<DbId> {
        let mut commit_count = 0;
        let sound = replay(self.env.as_ref(), self.dir, &db_id, old.wal_start, &mut |_, frame| {
            if frame.kind == RecordKind::Commit as u8 {
                log::entries(frame.payload).map_err(|(_, what)| Error::Invalid(what.to_owned()))?;
                commit_count += 1;
            }
            Ok(())
        });
        if let Ok(found) = sound {
            for segment in &found.segments {
                self.copy(FileKind::Wal, segment.file)?;
            }
            if found.tail != Tail::Closed {
                let newest = found.segments.last().map_or(FileId(0), |segment| segment.file);
                self.lose(Effect::Lost, FileKind::Wal, newest, NOT_CLOSED);
            }
            version.wal_start = old.wal_start;
            version.last_seqno = version.last_seqno.max(found.last_seqno);
            self.report.commit_count += commit_count;
            return Ok(db_id);
        }
        let new_id = draw_db_id(self.env.as_ref());
        let counter = Arc::clone(&self.next_file);
        let next_file: FileAllocator = Arc::new(move || FileId(counter.fetch_add(1, Ordering::AcqRel)));
        let options = WalOptions { spare_count_max: 0, ..WalOptions::default() };
        let (wal, _) =
            Wal::open(Arc::clone(self.env), self.into, new_id, None, options, next_file, &mut |_, _| Ok(()))?;
        let start = old.wal_start.map(|start| start.file);
        let last = self.commits(Some(db_id), start, old.wal_start.map(|start| start.lsn), &mut |seqno, payload| {
            wal.make_room(payload.len())?;
            wal.append(RecordKind::Commit, seqno, &[payload]).map(drop)
        })?;
        wal.close()?;
        self.report.written_count += wal.segments().len() as u64;
        version.wal_start = Some(wal.start());
        version.last_seqno = version.last_seqno.max(last);
        Ok(new_id)
    }

    /// Gives `take` the good commits of a log that is damaged somewhere: up to the first fault, or all, as the options
    /// say. Returns the newest commit the log is known to have had.
    pub(super) fn commits(
        &mut self,
        db_id: Option<DbId>,
        first: Option<FileId>,
        first_lsn: Option<Lsn>,
        take: Take<'_>,
    ) -> Result<SeqNo> {
        let mut files: Vec<FileId> = list_files(self.env.as_ref(), self.dir)?
            .into_iter()
            .filter(|(kind, id)| *kind == FileKind::Wal && first.is_none_or(|first| *id >= first))
            .map(|(_, id)| id)
            .collect();
        files.sort_unstable();
        let mut state =
            Taking { last: SeqNo::ZERO, newest: SeqNo::ZERO, expected: first_lsn, broken: false, dropped: 0 };
        if let Some(first) = first.filter(|first| files.first() != Some(first)) {
            self.lose(Effect::Lost, FileKind::Wal, first, "the first file of the log is missing");
            state.broken = true;
        }
        for (at, id) in files.iter().enumerate() {
            let reader = self.open_log(*id, db_id, &mut state)?;
            if let Some(reader) = reader {
                self.take_file(reader, *id, at + 1 == files.len(), &mut state, take)?;
            }
        }
        if state.dropped > 0 {
            let (dropped, last) = (state.dropped, files.last().copied().unwrap_or(FileId(0)));
            let what = format!(
                "{dropped} readable commits behind the first bad record were left out; --salvage-log takes them, without what was between"
            );
            self.lose(Effect::Lost, FileKind::Wal, last, what);
        }
        Ok(state.newest)
    }

    fn open_log(&mut self, id: FileId, db_id: Option<DbId>, state: &mut Taking) -> Result<Option<LogReader>> {
        let path = FileKind::Wal.path(self.dir, id);
        let env = self.env.as_ref();
        let opened = LogReader::open(env, FileKind::Wal, self.dir, id);
        let is_ours = |reader: &LogReader| db_id.is_none_or(|db_id| db_id == reader.header.db_id);
        let (reader, what) = match opened {
            Ok(reader) if is_ours(&reader) => (Some(reader), None),
            Ok(_) => (None, Some("the file belongs to another database".to_owned())),
            Err(error @ Error::NewerFormat { .. }) => return Err(error),
            Err(error) => {
                let headless = db_id.and_then(|db_id| log::open_headless(env, &path, id, db_id).ok());
                (headless, Some(error.to_string()))
            }
        };
        if let Some(what) = what {
            let effect = if reader.is_some() { Effect::Rebuilt } else { Effect::Lost };
            self.lose(effect, FileKind::Wal, id, what);
            state.broken |= reader.is_none();
        }
        if let Some(reader) = &reader {
            let found = reader.header.first_lsn;
            if state.expected.is_some_and(|expected| expected != found) {
                let what = format!("what came before position {found} of the log is missing");
                self.lose(Effect::Lost, FileKind::Wal, id, what);
                state.broken = true;
            }
        }
        Ok(reader)
    }

    fn take_file(
        &mut self,
        mut reader: LogReader,
        id: FileId,
        is_newest: bool,
        state: &mut Taking,
        take: Take<'_>,
    ) -> Result<()> {
        let path = FileKind::Wal.path(self.dir, id);
        let salvage = self.options.salvage_log;
        let mut losses = Vec::new();
        let mut count = 0;
        let mut lose = |bytes: std::ops::Range<u64>, what: String| {
            let file = path.clone();
            let (kind, effect) = (FileKind::Wal, Effect::Lost);
            losses.push(Loss { effect, kind, file, bytes, table: None, keys: None, rows: None, what });
        };
        let first_lsn = reader.header.first_lsn;
        state.expected = Some(first_lsn);
        let walked = walk(&mut reader, &mut |piece| {
            match piece {
                Piece::Gap { offset, end, is_proven } => {
                    if is_proven || !is_newest {
                        lose(offset..end, format!("bad records behind commit {}", state.last));
                    } else {
                        lose(offset..end, "a torn end, which a recovery would drop too".to_owned());
                    }
                    state.broken = true;
                }
                Piece::End { offset, is_closed: false } if is_newest => {
                    lose(offset..u64::MAX, NOT_CLOSED.to_owned());
                }
                Piece::End { .. } => {}
                Piece::Frame(offset, frame) => {
                    state.newest = state.newest.max(frame.seqno);
                    state.expected = Some(frame.end);
                    if frame.kind != RecordKind::Commit as u8 {
                        return Ok(());
                    }
                    let bytes = offset..offset + (frame.end.0 - frame.lsn.0);
                    if frame.seqno <= state.last || log::entries(frame.payload).is_err() {
                        lose(bytes, format!("commit {} does not decode or is out of order", frame.seqno));
                        state.broken = true;
                    } else if state.broken && !salvage {
                        state.dropped += 1;
                    } else {
                        state.last = frame.seqno;
                        count += 1;
                        take(frame.seqno, frame.payload)?;
                    }
                }
            }
            Ok(())
        });
        self.report.losses.append(&mut losses);
        self.report.commit_count += count;
        match walked {
            Err(Error::Io { file, source, .. }) if file == path => {
                self.lose(Effect::Lost, FileKind::Wal, id, format!("the file cannot be read on: {source}"));
                state.broken = true;
            }
            other => other?,
        }
        Ok(())
    }
}

/// Where taking commits stands.
struct Taking {
    /// Newest commit taken.
    last: SeqNo,
    /// Newest commit seen.
    newest: SeqNo,
    /// Where the next file must begin.
    expected: Option<Lsn>,
    /// Whether something was lost, so that what follows is taken only if asked for.
    broken: bool,
    /// Good commits left out.
    dropped: u64,
}
