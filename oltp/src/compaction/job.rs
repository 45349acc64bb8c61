//! One merge: several runs in, one run out. Installing it is the caller's, in one manifest edit.

use super::gc::{GcCursor, GcOptions};
use crate::error::Result;
use crate::iter::{Cursor, MergeCursor};
use crate::manifest::RunMeta;
use crate::sstable::RunWriter;

/// Merges `inputs`, newest first, into `writer` without the versions that `options` lets go, and finishes it:
/// synced, read back and verified. `None` if no version remained; the file is then removed.
///
/// Reads and writes each byte once and holds a block per input; the filter's key hashes take 8 bytes per key.
///
/// # Errors
/// Corrupt or unreadable inputs, or a failed write; the unfinished file is then removed.
pub fn merge_runs(inputs: Vec<Box<dyn Cursor>>, mut writer: RunWriter, options: GcOptions) -> Result<Option<RunMeta>> {
    let mut versions = GcCursor::new(MergeCursor::new(inputs), options);
    let copied = copy(&mut versions, &mut writer);
    if copied.is_ok() && writer.version_count() > 0 {
        return writer.finish().map(Some);
    }
    let removed = writer.abandon();
    copied?;
    removed?;
    Ok(None)
}

fn copy(versions: &mut dyn Cursor, writer: &mut RunWriter) -> Result<()> {
    versions.next()?;
    while versions.valid() {
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

    #[test]
    fn runs_merge_into_one_without_what_nobody_sees() {
        let env: Arc<dyn Env> = Arc::new(SimEnv::new(1));
        env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
        let newer = [Version::put("a", 7, "a7"), Version::delete("b", 5), Version::put("c", 9, "c9")];
        let older = [Version::put("a", 3, "a3"), Version::put("b", 2, "b2"), Version::put("c", 4, "c4")];
        let inputs = vec![run_of(&env, 3, &newer), run_of(&env, 2, &older)];
        let options = GcOptions { snapshots: Stripes::new([], SeqNo(7)), tombstones: Tombstones::Drop };
        let meta = merge_runs(inputs, writer(&env, 4), options).unwrap().unwrap();
        assert_eq!((meta.version_count, meta.tombstone_count), (3, 0));
        let run = Run::open(&env, Path::new(DIR), &meta, BlockCache::disabled()).unwrap();
        let mut cursor = run.cursor(false);
        for expected in [&newer[0], &newer[2], &older[2]] {
            cursor.next().unwrap();
            assert_eq!(&Version::at(&cursor), expected);
        }
        cursor.next().unwrap();
        assert!(!cursor.valid());
    }

    #[test]
    fn nothing_left_and_failures_leave_no_file() {
        let sim = SimEnv::new(1);
        let env: Arc<dyn Env> = Arc::new(sim.clone());
        env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
        let options = GcOptions { snapshots: Stripes::new([], SeqNo(9)), tombstones: Tombstones::Drop };
        let inputs: Vec<Box<dyn Cursor>> = vec![Box::new(VecCursor::new(vec![Version::delete("a", 1)]))];
        assert_eq!(merge_runs(inputs, writer(&env, 2), options.clone()).unwrap(), None);
        let input = run_of(&env, 3, &[Version::put("a", 1, "damaged")]);
        sim.corrupt(&FileKind::Run.path(Path::new(DIR), FileId(3)), 1, 1).unwrap();
        assert!(merge_runs(vec![input], writer(&env, 4), options).is_err());
        assert_eq!(env.list(&Path::new(DIR).join("runs")).unwrap(), ["0000000003.run"]);
    }
}
