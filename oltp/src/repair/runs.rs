//! Runs: copied if sound, else written anew from the blocks that verify.

use super::values::{LostRows, Row, Values};
use super::{Effect, Repair};
use crate::cache::BlockCache;
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::inspect::Fault;
use crate::inspect::run::{Piece, RunFile};
use crate::iter::VersionKind;
use crate::manifest::RunMeta;
use crate::schema::TableId;
use crate::seqno::SeqNo;
use crate::sstable::block::{Block, BlockCursor, compare};
use crate::sstable::index::Handle;
use crate::sstable::{Run, RunOptions, RunWriter};
use crate::sync::Arc;

/// A damaged part of a run: its bytes, and the keys around it.
struct Gap {
    bytes: std::ops::Range<u64>,
    after: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
}

/// A run being written anew.
struct Salvage<'a> {
    values: &'a Values,
    /// Rows that lay in value files and cannot be read.
    lost: LostRows,
    table: TableId,
    writer: RunWriter,
    /// The version written last.
    last: Option<(Vec<u8>, SeqNo)>,
    gaps: Vec<Gap>,
}

impl Salvage<'_> {
    fn take(&mut self, piece: Piece) -> Result<()> {
        match piece {
            Piece::Gap { offset, end, separator } => {
                let after = self.last.as_ref().map(|(key, _)| key.clone());
                self.gaps.push(Gap { bytes: offset..end, after, before: separator });
                Ok(())
            }
            Piece::Block(handle, block) => self.block(handle, block),
        }
    }

    /// Takes the versions of a sound block, as far as they belong where it stands.
    fn block(&mut self, handle: Handle, block: Arc<Block>) -> Result<()> {
        let mut cursor = BlockCursor::new(block);
        let mut is_first = true;
        while let Ok(true) = cursor.next() {
            let version = (cursor.key(), cursor.seqno());
            let fits = crate::key::table_of(version.0) == Some(self.table)
                && self.last.as_ref().is_none_or(|(key, seqno)| compare((key, *seqno), version).is_lt());
            if !fits {
                // A sound block of another file, or one in a wrong place.
                let end = handle.offset + u64::from(handle.bytes);
                self.gaps.push(Gap { bytes: handle.offset..end, after: None, before: None });
                break;
            }
            if std::mem::take(&mut is_first) {
                for gap in self.gaps.iter_mut().rev().take_while(|gap| gap.before.is_none()) {
                    gap.before = Some(version.0.to_vec());
                }
            }
            if !add_version(&mut self.writer, &cursor, self.values, &mut self.lost)? {
                let bytes = handle.offset..handle.offset + u64::from(handle.bytes);
                let key = Some(version.0.to_vec());
                self.gaps.push(Gap { bytes, after: key.clone(), before: key });
            }
            self.last = Some((version.0.to_vec(), version.1));
        }
        Ok(())
    }
}

impl Repair<'_> {
    /// Brings a run that the manifest knows into the new folder.
    pub(super) fn run(&mut self, meta: &RunMeta) -> Result<Option<RunMeta>> {
        let whole = Run::open(self.env, self.dir, meta, BlockCache::disabled()).and_then(|run| run.verify());
        let has_values = meta.values.iter().all(|share| self.values.is_sound(share.file));
        match whole {
            Ok(()) if has_values => {
                self.copy(FileKind::Run, meta.run)?;
                Ok(Some(meta.clone()))
            }
            Err(error @ Error::NewerFormat { .. }) => Err(error),
            Ok(()) | Err(_) => self.salvage_run(meta.run, meta.table, Some(meta)),
        }
    }

    /// Writes a new run from the readable blocks of run `id`; `None` if there are none. `meta` is what the manifest knew.
    pub(super) fn salvage_run(
        &mut self,
        id: crate::file::FileId,
        table: TableId,
        meta: Option<&RunMeta>,
    ) -> Result<Option<RunMeta>> {
        let path = FileKind::Run.path(self.dir, id);
        let range = meta.map(|meta| (meta.key_min.clone(), meta.key_max.clone()));
        let run = match RunFile::open(self.env.as_ref(), &path, Some(id)) {
            Ok(run) => run,
            Err(error) => {
                let loss =
                    self.lose(Effect::Lost, FileKind::Run, id, format!("the run cannot be read: {}", reason(&error)));
                (loss.table, loss.keys, loss.rows) = (Some(table), range, meta.map(|meta| meta.version_count));
                return Ok(None);
            }
        };
        let options = RunOptions::default();
        let writer = RunWriter::new(Arc::clone(self.env), self.into, self.next_file(), table, options)?;
        let (values, lost) = (&self.values, LostRows::default());
        let mut salvage = Salvage { values, lost, table, writer, last: None, gaps: Vec::new() };
        let mut faults = run.faults.clone();
        run.walk(&mut faults, &mut |piece| salvage.take(piece))?;
        let Salvage { writer, gaps, lost, .. } = salvage;
        let salvaged = writer.version_count();
        self.report_run(&run, table, meta, &faults, gaps, salvaged + lost.count());
        self.lose_rows(table, lost);
        if salvaged == 0 {
            writer.abandon()?;
            return Ok(None);
        }
        self.report.written_count += 1;
        writer.finish().map(Some)
    }

    fn report_run(
        &mut self,
        run: &RunFile,
        table: TableId,
        meta: Option<&RunMeta>,
        faults: &[Fault],
        mut gaps: Vec<Gap>,
        salvaged: u64,
    ) {
        let facts = run.properties.as_ref();
        let expected = meta.map(|meta| meta.version_count).or(facts.map(|facts| facts.version_count));
        let range = meta.map(|meta| (meta.key_min.clone(), meta.key_max.clone()));
        let range = range.or(facts.map(|facts| (facts.key_min.clone(), facts.key_max.clone())));
        let missing = expected.map(|expected| expected.saturating_sub(salvaged));
        if gaps.is_empty() && missing.is_some_and(|missing| missing > 0) {
            gaps.push(Gap { bytes: 0..u64::MAX, after: None, before: None });
        }
        if gaps.is_empty() {
            self.lose_faults(faults, Effect::Rebuilt, Some(table));
            if faults.is_empty() && meta.is_some() {
                let loss = self.lose(
                    Effect::Rebuilt,
                    FileKind::Run,
                    run.id,
                    "it did not fit its record, filter or value files",
                );
                loss.table = Some(table);
            }
        }
        let is_single = gaps.len() == 1;
        for gap in gaps {
            let keys = range.as_ref().map(|(first, last)| {
                (gap.after.clone().unwrap_or_else(|| first.clone()), gap.before.clone().unwrap_or_else(|| last.clone()))
            });
            let what = "a part that holds no readable block; the rest of the run was written anew";
            let loss = self.lose(Effect::Lost, FileKind::Run, run.id, what);
            (loss.bytes, loss.table, loss.keys) = (gap.bytes, Some(table), keys);
            loss.rows = missing.filter(|_| is_single);
        }
    }
}

/// Writes the version that `cursor` stands on, with what is left of its row; `false` if it is a reference that is malformed.
fn add_version(writer: &mut RunWriter, cursor: &BlockCursor, values: &Values, lost: &mut LostRows) -> Result<bool> {
    let (key, seqno, kind, value) = (cursor.key(), cursor.seqno(), cursor.kind(), cursor.value());
    if kind != VersionKind::Reference {
        return writer.add(key, seqno, kind, value).map(|()| true);
    }
    match values.row(value, key, seqno) {
        Some(Row::Kept) => writer.add(key, seqno, kind, value)?,
        Some(Row::Read(row)) => writer.add(key, seqno, VersionKind::Put, &row)?,
        Some(Row::Lost(at)) => lost.note(at, key),
        None => return Ok(false),
    }
    Ok(true)
}

fn reason(error: &Error) -> String {
    match error {
        Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
