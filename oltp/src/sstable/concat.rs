//! `ConcatCursor`: the files of one sorted run, one after the other, as one cursor.
//!
//! Their key ranges do not overlap (I3), so at any moment one file is read: a scan over a sorted run of a hundred files
//! costs the merge above it one source, and a seek reads one of them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Run, RunCursor};
use crate::error::Result;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;

/// A position in a sorted run. Files are opened for reading as the cursor gets to them.
#[derive(Debug)]
pub struct ConcatCursor {
    files: Arc<[Arc<Run>]>,
    /// Which of the files belong to this cursor.
    range: Range<usize>,
    /// File after the current one.
    next: usize,
    current: Option<RunCursor>,
    fill_cache: bool,
}

impl ConcatCursor {
    /// The versions of those `files`, in key order, whose positions are in `range`. `fill_cache` is that of
    /// [`Run::cursor`].
    ///
    /// # Panics
    /// If `range` reaches beyond the files.
    #[must_use]
    pub fn new(files: Arc<[Arc<Run>]>, range: Range<usize>, fill_cache: bool) -> ConcatCursor {
        assert!(range.end <= files.len(), "the range is within the files");
        ConcatCursor { next: range.start, files, range, current: None, fill_cache }
    }

    /// Goes on to the first version of the next file, and to the one behind it if there is none.
    fn next_file(&mut self) -> Result<()> {
        self.current = None;
        while self.next < self.range.end {
            let mut cursor = self.files[self.next].cursor(self.fill_cache);
            self.next += 1;
            cursor.next()?;
            if cursor.valid() {
                self.current = Some(cursor);
                return Ok(());
            }
        }
        Ok(())
    }

    fn current(&self) -> &RunCursor {
        // The contract of `Cursor`: read only while valid.
        self.current.as_ref().expect("a valid cursor stands in a file")
    }
}

impl Cursor for ConcatCursor {
    fn valid(&self) -> bool {
        self.current.as_ref().is_some_and(Cursor::valid)
    }

    fn key(&self) -> &[u8] {
        self.current().key()
    }

    fn seqno(&self) -> SeqNo {
        self.current().seqno()
    }

    fn kind(&self) -> VersionKind {
        self.current().kind()
    }

    fn value(&self) -> &[u8] {
        self.current().value()
    }

    fn load(&self) -> Result<Bytes> {
        self.current().load()
    }

    fn next(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.next()?;
            if current.valid() {
                return Ok(());
            }
        }
        self.next_file()
    }

    fn seek(&mut self, key: &[u8], seqno: SeqNo) -> Result<()> {
        let files = &self.files[self.range.clone()];
        let at = self.range.start + files.partition_point(|run| run.meta().key_max.as_slice() < key);
        self.current = None;
        self.next = at;
        if at >= self.range.end {
            return Ok(());
        }
        let mut cursor = self.files[at].cursor(self.fill_cache);
        self.next = at + 1;
        cursor.seek(key, seqno)?;
        if cursor.valid() {
            self.current = Some(cursor);
            return Ok(());
        }
        // The key is the file's last, and all of its versions there are newer than asked for.
        self.next_file()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::cache::BlockCache;
    use crate::env::Env;
    use crate::env::sim::SimEnv;
    use crate::file::FileId;
    use crate::iter::Version;
    use crate::schema::TableId;
    use crate::sstable::{RunOptions, RunWriter};

    fn write(env: &Arc<dyn Env>, id: usize, versions: &[Version]) -> Arc<Run> {
        let (dir, options) = (Path::new("/db"), RunOptions { block_bytes: 40, ..RunOptions::default() });
        let mut writer = RunWriter::new(Arc::clone(env), dir, FileId(id as u64), TableId(1), options).unwrap();
        for version in versions {
            writer.add(&version.key, version.seqno, version.kind, &version.value).unwrap();
        }
        Run::open(env, dir, &writer.finish().unwrap(), BlockCache::disabled()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Files cut between keys read like the whole, from the start and from any position.
        #[test]
        fn files_in_a_row_are_one_sequence(
            versions in prop::collection::btree_set(("[a-d]{1,2}", 1u64..6), 1..40),
            cuts in prop::collection::vec(any::<bool>(), 40),
            target in ("[a-e]{0,2}", 0u64..7),
            skipped in 0usize..2,
        ) {
            let mut versions: Vec<Version> = versions.iter().map(|(key, seqno)| Version::put(key, *seqno, key)).collect();
            versions.sort_by(Version::order);
            let mut cuts = cuts.into_iter();
            let files: Vec<&[Version]> =
                versions.chunk_by(|a, b| a.key == b.key || !cuts.next().unwrap_or(false)).collect();
            let env: Arc<dyn Env> = Arc::new(SimEnv::new(1));
            env.create_dir_all(Path::new("/db/runs")).unwrap();
            let runs: Arc<[Arc<Run>]> = files.iter().enumerate().map(|(id, file)| write(&env, id + 1, file)).collect();
            let skipped = skipped.min(runs.len());
            let expected: Vec<Version> = files[skipped..].concat();
            let mut cursor = ConcatCursor::new(Arc::clone(&runs), skipped..runs.len(), false);
            cursor.next().unwrap();
            prop_assert_eq!(&Version::rest_of(&mut cursor).unwrap(), &expected);
            cursor.next().unwrap();
            prop_assert!(!cursor.valid());
            let (key, seqno) = (target.0.as_bytes(), SeqNo(target.1));
            cursor.seek(key, seqno).unwrap();
            let rest: Vec<Version> = expected.into_iter().filter(|version| !version.is_before(key, seqno)).collect();
            prop_assert_eq!(Version::rest_of(&mut cursor).unwrap(), rest);
        }
    }
}
