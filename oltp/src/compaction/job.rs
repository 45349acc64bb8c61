//! One merge: several sorted runs in, the files of one out. Installing them is the caller's, in one manifest edit.

use super::gc::{GcCursor, GcOptions};
use crate::error::Result;
use crate::file::FileId;
use crate::iter::{Cursor, MergeCursor};
use crate::manifest::RunMeta;
use crate::sstable::RunWriter;

/// Where a merge writes.
pub struct Outputs<'a> {
    /// Starts a file.
    pub create: &'a dyn Fn() -> Result<RunWriter>,
    /// Removes a finished file, as well as it can: what stays behind is an orphan for the next open.
    pub remove: &'a dyn Fn(FileId),
    /// A file that has this many bytes ends with its key.
    pub file_bytes_max: u64,
}

/// Merges `inputs`, newest first, into files that follow each other, without the versions that `options` lets go. Each
/// file is synced, read back and verified; all versions of a key are in one file, so that their key ranges do not overlap
/// (I3). None if no version remained.
///
/// Reads and writes each byte once and holds a block and some read-ahead per input; a filter's key hashes take 8 bytes per
/// key of one file.
///
/// # Errors
/// Corrupt or unreadable inputs, or a failed write; what was written is then removed.
pub fn merge_runs(inputs: Vec<Box<dyn Cursor>>, outputs: &Outputs<'_>, options: GcOptions) -> Result<Vec<RunMeta>> {
    let mut versions = GcCursor::new(MergeCursor::new(inputs), options);
    let mut finished = Vec::new();
    let written = write_files(&mut versions, outputs, &mut finished);
    if written.is_err() {
        finished.iter().for_each(|meta| (outputs.remove)(meta.run));
    }
    written.map(|()| finished)
}

fn write_files(versions: &mut dyn Cursor, outputs: &Outputs<'_>, finished: &mut Vec<RunMeta>) -> Result<()> {
    versions.next()?;
    while versions.valid() {
        let mut writer = (outputs.create)()?;
        let filled = fill_file(versions, &mut writer, outputs.file_bytes_max);
        if filled.is_err() {
            // The first error is the one to report.
            let _ = writer.abandon();
            return filled;
        }
        finished.push(writer.finish()?);
    }
    Ok(())
}

fn fill_file(versions: &mut dyn Cursor, writer: &mut RunWriter, file_bytes_max: u64) -> Result<()> {
    while versions.valid() {
        // I3: a key's versions are never cut in two.
        if writer.byte_count() >= file_bytes_max && writer.last_key().is_some_and(|last| last != versions.key()) {
            break;
        }
        writer.add(versions.key(), versions.seqno(), versions.kind(), versions.value())?;
        versions.next()?;
    }
    Ok(())
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
        let remove = |run| env.remove(&FileKind::Run.path(Path::new(DIR), run)).unwrap();
        merge_runs(inputs, &Outputs { create: &create, remove: &remove, file_bytes_max }, options)
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
