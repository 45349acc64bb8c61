//! One merge: several sorted runs in, the files of one out. Installing them is the caller's, in one manifest edit.
//!
//! Rows that are large go to value files on the way, and those of value files that are mostly garbage to new ones; every
//! other reference passes as it is, and the row behind it is neither read nor written.

use std::collections::BTreeSet;

use super::gc::{GcCursor, GcOptions};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::{Cursor, MergeCursor, VersionKind};
use crate::manifest::RunMeta;
use crate::sstable::RunWriter;
use crate::values::{ValueFileMeta, ValueRef, ValueWriter};

/// Where a merge writes.
pub struct Outputs<'a> {
    /// Starts a file.
    pub create: &'a dyn Fn() -> Result<RunWriter>,
    /// Removes a finished file, as well as it can: what stays behind is an orphan for the next open.
    pub remove: &'a dyn Fn(FileKind, FileId),
    /// A file that has this many bytes ends with its key.
    pub file_bytes_max: u64,
    /// What becomes of large values.
    pub values: ValueOutputs<'a>,
}

/// What a merge does with large values.
pub struct ValueOutputs<'a> {
    /// Rows of at least so many bytes that it writes go to a value file; without it none do.
    pub large_bytes_min: Option<u64>,
    /// Value files whose values it writes anew.
    pub emptied: BTreeSet<FileId>,
    /// Starts a value file.
    pub create: &'a dyn Fn() -> Result<ValueWriter>,
    /// A value file that has this many bytes of records ends.
    pub file_bytes_max: u64,
}

/// What a merge wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Runs, in key order.
    pub runs: Vec<RunMeta>,
    /// Value files that they refer to, besides those that its inputs did.
    pub values: Vec<ValueFileMeta>,
    /// Bytes of values that were in value files and were read to be written anew.
    pub moved_bytes: u64,
}

/// Merges `inputs`, newest first, into files that follow each other, without the versions that `options` lets go. Each
/// file is synced, read back and verified; all versions of a key are in one file, so that their key ranges do not overlap
/// (I3). No run if no version remained.
///
/// Reads and writes each byte of runs once and holds a block and some read-ahead per input; a filter's key hashes take 8
/// bytes per key of one file. Of values, one at a time is in memory.
///
/// # Errors
/// Corrupt or unreadable inputs, or a failed write; what was written is then removed.
pub fn merge_runs(inputs: Vec<Box<dyn Cursor>>, outputs: &Outputs<'_>, options: GcOptions) -> Result<Merged> {
    let mut versions = GcCursor::new(MergeCursor::new(inputs), options);
    let mut sink = ValueSink { outputs: &outputs.values, writer: None, encoded: Vec::new() };
    let mut merged = Merged::default();
    let written = write_files(&mut versions, outputs, &mut sink, &mut merged);
    let written = written.and_then(|()| sink.finish(&mut merged));
    if written.is_err() {
        // The first error is the one to report.
        let _ = sink.writer.take().map(ValueWriter::abandon);
        merged.runs.iter().for_each(|meta| (outputs.remove)(FileKind::Run, meta.run));
        merged.values.iter().for_each(|meta| (outputs.remove)(FileKind::Values, meta.file));
    }
    written.map(|()| merged)
}

fn write_files(
    versions: &mut dyn Cursor,
    outputs: &Outputs<'_>,
    sink: &mut ValueSink<'_>,
    merged: &mut Merged,
) -> Result<()> {
    versions.next()?;
    while versions.valid() {
        let mut writer = (outputs.create)()?;
        let filled = fill_file(versions, &mut writer, outputs.file_bytes_max, sink, merged);
        if filled.is_err() {
            let _ = writer.abandon();
            return filled;
        }
        merged.runs.push(writer.finish()?);
    }
    Ok(())
}

fn fill_file(
    versions: &mut dyn Cursor,
    writer: &mut RunWriter,
    file_bytes_max: u64,
    sink: &mut ValueSink<'_>,
    merged: &mut Merged,
) -> Result<()> {
    while versions.valid() {
        // I3: a key's versions are never cut in two.
        if writer.byte_count() >= file_bytes_max && writer.last_key().is_some_and(|last| last != versions.key()) {
            break;
        }
        sink.pass(versions, writer, merged)?;
        versions.next()?;
    }
    Ok(())
}

/// Decides for each version where its row goes, and writes those that go to value files.
struct ValueSink<'a> {
    outputs: &'a ValueOutputs<'a>,
    writer: Option<ValueWriter>,
    encoded: Vec<u8>,
}

impl ValueSink<'_> {
    /// Writes the version that `versions` stands on.
    fn pass(&mut self, versions: &dyn Cursor, writer: &mut RunWriter, merged: &mut Merged) -> Result<()> {
        let (key, seqno, kind, value) = (versions.key(), versions.seqno(), versions.kind(), versions.value());
        match kind {
            VersionKind::Put if self.is_large(value) => self.separate(versions, value, writer, merged),
            VersionKind::Reference if self.is_emptied(value)? => {
                let row = versions.load()?;
                merged.moved_bytes += row.len() as u64;
                // The table's option may have changed since the row went to its value file.
                match self.is_large(&row) {
                    true => self.separate(versions, &row, writer, merged),
                    false => writer.add(key, seqno, VersionKind::Put, &row),
                }
            }
            VersionKind::Put | VersionKind::Delete | VersionKind::Reference => writer.add(key, seqno, kind, value),
        }
    }

    fn is_large(&self, row: &[u8]) -> bool {
        self.outputs.large_bytes_min.is_some_and(|bytes| row.len() as u64 >= bytes)
    }

    fn is_emptied(&self, reference: &[u8]) -> Result<bool> {
        if self.outputs.emptied.is_empty() {
            return Ok(false);
        }
        let at = ValueRef::decode(reference);
        let at = at.map_err(|d| Error::malformed("reference to a value", d.at, d.what))?;
        Ok(self.outputs.emptied.contains(&at.file))
    }

    fn separate(
        &mut self,
        versions: &dyn Cursor,
        row: &[u8],
        writer: &mut RunWriter,
        merged: &mut Merged,
    ) -> Result<()> {
        if self.writer.as_ref().is_some_and(|writer| writer.byte_count() >= self.outputs.file_bytes_max) {
            self.finish(merged)?;
        }
        let values = match &mut self.writer {
            Some(values) => values,
            vacant => vacant.insert((self.outputs.create)()?),
        };
        let at = values.add(versions.key(), versions.seqno(), row)?;
        self.encoded.clear();
        at.encode(&mut self.encoded);
        writer.add(versions.key(), versions.seqno(), VersionKind::Reference, &self.encoded)
    }

    /// Completes the value file in hand.
    fn finish(&mut self, merged: &mut Merged) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            merged.values.push(writer.finish()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::cache::BlockCache;
    use crate::compaction::gc::{Stripes, Tombstones};
    use crate::env::Env;
    use crate::env::sim::SimEnv;
    use crate::file::{FileId, FileKind};
    use crate::iter::{VecCursor, Version};
    use crate::schema::TableId;
    use crate::seqno::SeqNo;
    use crate::sstable::{Run, RunOptions};

    const DIR: &str = "/db";

    fn writer(env: &Arc<dyn Env>, id: u64) -> RunWriter {
        RunWriter::new(Arc::clone(env), Path::new(DIR), FileId(id), TableId(1), RunOptions::default()).unwrap()
    }

    fn run_of(env: &Arc<dyn Env>, id: u64, versions: &[Version]) -> Box<dyn Cursor> {
        let mut writer = writer(env, id);
        for version in versions {
            writer.add(&version.key, version.seqno, version.kind, &version.value).unwrap();
        }
        let run = Run::open(env, Path::new(DIR), &writer.finish().unwrap(), BlockCache::disabled()).unwrap();
        Box::new(run.cursor(false))
    }

    /// Merges into files numbered from `first`.
    fn merge(
        env: &Arc<dyn Env>,
        first: u64,
        inputs: Vec<Box<dyn Cursor>>,
        file_bytes_max: u64,
        options: GcOptions,
    ) -> Result<Vec<RunMeta>> {
        let next = std::cell::Cell::new(first);
        let create = || Ok(writer(env, next.replace(next.get() + 1)));
        let remove = |kind: FileKind, id| env.remove(&kind.path(Path::new(DIR), id)).unwrap();
        let create_values = || panic!("no row is large");
        let values =
            ValueOutputs { large_bytes_min: None, emptied: BTreeSet::new(), create: &create_values, file_bytes_max };
        let outputs = Outputs { create: &create, remove: &remove, file_bytes_max, values };
        merge_runs(inputs, &outputs, options).map(|merged| merged.runs)
    }

    fn contents(env: &Arc<dyn Env>, meta: &RunMeta) -> Vec<Version> {
        let run = Run::open(env, Path::new(DIR), meta, BlockCache::disabled()).unwrap();
        let mut cursor = run.cursor(false);
        cursor.next().unwrap();
        Version::rest_of(&mut cursor).unwrap()
    }

    #[test]
    fn runs_merge_into_one_without_what_nobody_sees() {
        let env: Arc<dyn Env> = Arc::new(SimEnv::new(1));
        env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
        let newer = [Version::put("a", 7, "a7"), Version::delete("b", 5), Version::put("c", 9, "c9")];
        let older = [Version::put("a", 3, "a3"), Version::put("b", 2, "b2"), Version::put("c", 4, "c4")];
        let inputs = vec![run_of(&env, 3, &newer), run_of(&env, 2, &older)];
        let options = GcOptions { snapshots: Stripes::new([], SeqNo(7)), tombstones: Tombstones::Drop };
        let metas = merge(&env, 4, inputs, u64::MAX, options).unwrap();
        assert_eq!(metas.len(), 1);
        assert_eq!((metas[0].version_count, metas[0].tombstone_count), (3, 0));
        assert_eq!(contents(&env, &metas[0]), [newer[0].clone(), newer[2].clone(), older[2].clone()]);
    }

    #[test]
    fn files_are_cut_between_keys() {
        let env: Arc<dyn Env> = Arc::new(SimEnv::new(1));
        env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
        let versions = |key: &'static str| (1..=9).rev().map(move |seqno| Version::put(key, seqno, "bytes of a row"));
        let all: Vec<Version> = ["a", "b", "c", "d"].into_iter().flat_map(versions).collect();
        let inputs: Vec<Box<dyn Cursor>> = vec![Box::new(VecCursor::new(all.clone()))];
        let options = GcOptions { snapshots: Stripes::new([], SeqNo(0)), tombstones: Tombstones::Keep };
        let metas = merge(&env, 1, inputs, 100, options).unwrap();
        let keys: Vec<(&[u8], &[u8])> = metas.iter().map(|m| (&m.key_min[..], &m.key_max[..])).collect();
        assert_eq!(keys, [(&b"a"[..], &b"a"[..]), (b"b", b"b"), (b"c", b"c"), (b"d", b"d")]);
        let written: Vec<Version> = metas.iter().flat_map(|meta| contents(&env, meta)).collect();
        assert_eq!(written, all);
    }

    #[test]
    fn nothing_left_and_failures_leave_no_file() {
        let sim = SimEnv::new(1);
        let env: Arc<dyn Env> = Arc::new(sim.clone());
        env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
        let options = GcOptions { snapshots: Stripes::new([], SeqNo(9)), tombstones: Tombstones::Drop };
        let inputs: Vec<Box<dyn Cursor>> = vec![Box::new(VecCursor::new(vec![Version::delete("a", 1)]))];
        assert_eq!(merge(&env, 2, inputs, 1, options.clone()).unwrap(), []);
        // Damage in the second of three blocks, so that a file of the first is finished when the merge gets there.
        let long = "x".repeat(9000);
        let versions = [Version::put("a", 1, &long), Version::put("b", 1, &long), Version::put("c", 1, &long)];
        let input = run_of(&env, 3, &versions);
        sim.corrupt(&FileKind::Run.path(Path::new(DIR), FileId(3)), 100, 1).unwrap();
        assert!(merge(&env, 5, vec![input], 1, options).is_err());
        assert_eq!(env.list(&Path::new(DIR).join("runs")).unwrap(), ["0000000003.run"]);
    }
}
