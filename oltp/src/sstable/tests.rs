//! What a run promises, against a map that remembers every version; and what damage does to it.
//!
//! Everything runs in memory. Small blocks and tiny index partitions make a few hundred entries exercise every level.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Compression, Run, RunOptions, RunWriter};
use crate::cache::BlockCache;
use crate::env::mem::MemEnv;
use crate::env::{Env, OpenMode};
use crate::error::Result;
use crate::file::{FileId, FileKind};
use crate::iter::{Cursor, Version, VersionKind};
use crate::manifest::RunMeta;
use crate::memory::MemoryBudget;
use crate::schema::TableId;
use crate::seqno::SeqNo;

const TABLE: TableId = TableId(7);

/// A database directory in memory.
struct Dir {
    env: Arc<dyn Env>,
    path: PathBuf,
    cache: Arc<BlockCache>,
}

impl Dir {
    fn new() -> Dir {
        let env: Arc<dyn Env> = Arc::new(MemEnv::new());
        let path = PathBuf::from("/db");
        env.create_dir_all(&path.join("runs")).unwrap();
        let cache = BlockCache::new(&MemoryBudget::new(1 << 30), 1 << 20).unwrap();
        Dir { env, path, cache }
    }

    fn write(&self, id: u64, versions: &[Version], options: &RunOptions) -> RunMeta {
        let mut writer = RunWriter::new(Arc::clone(&self.env), &self.path, FileId(id), TABLE, options.clone()).unwrap();
        for version in versions {
            writer.add(&version.key, version.seqno, version.kind, &version.value).unwrap();
        }
        writer.finish().unwrap()
    }

    fn open(&self, meta: &RunMeta) -> Result<Arc<Run>> {
        Run::open(&self.env, &self.path, meta, Arc::clone(&self.cache))
    }

    fn bytes(&self, id: u64) -> Vec<u8> {
        let file = self.env.open(&self.file(id), OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    fn overwrite(&self, id: u64, bytes: &[u8]) {
        let file = self.env.open(&self.file(id), OpenMode::ReadWrite).unwrap();
        file.write_at(0, bytes).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        self.cache.clear();
    }

    fn file(&self, id: u64) -> PathBuf {
        FileKind::Run.path(&self.path, FileId(id))
    }
}

fn small(compression: Compression) -> RunOptions {
    RunOptions { block_bytes: 96, restart_interval: 3, compression, index_partition_bytes: 64, ..RunOptions::default() }
}

fn any_options() -> impl Strategy<Value = RunOptions> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)];
    (compression, 40usize..400, 1u16..8, 0u32..12, prop_oneof![Just(48usize), Just(200), Just(65536)]).prop_map(
        |(compression, block_bytes, restart_interval, filter_bits_per_key, index_partition_bytes)| RunOptions {
            block_bytes,
            restart_interval,
            compression,
            filter_bits_per_key,
            index_partition_bytes,
        },
    )
}

fn any_versions(max: usize) -> impl Strategy<Value = Vec<Version>> {
    let value = prop_oneof![
        1 => Just(None),
        6 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Some),
        1 => (any::<u8>(), 0usize..700).prop_map(|(byte, count)| Some(vec![byte; count])),
    ];
    let key = prop_oneof![4 => "[ab]{0,7}", 2 => "common_prefix_[a-d]{0,3}", 1 => "[a-z]{0,40}"];
    let seqno = prop_oneof![4 => 1u64..9, 1 => (u64::MAX - 3)..u64::MAX];
    prop::collection::btree_map((key, seqno), value, 1..max).prop_map(|entries| {
        let mut versions: Vec<Version> = entries
            .into_iter()
            .map(|((key, seqno), value)| match value {
                Some(value) => Version::put(key, seqno, value),
                None => Version::delete(key, seqno),
            })
            .collect();
        versions.sort_by(Version::order);
        versions
    })
}

fn drain(cursor: &mut dyn Cursor) -> Result<Vec<Version>> {
    let mut found = Vec::new();
    while cursor.valid() {
        found.push(Version::at(cursor));
        cursor.next()?;
    }
    Ok(found)
}

fn newest<'a>(versions: &'a [Version], key: &[u8], at: SeqNo) -> Option<&'a Version> {
    versions.iter().find(|version| version.key == key && version.seqno <= at)
}

fn get(run: &Run, key: &[u8], at: SeqNo) -> Result<Option<Version>> {
    let found = run.get(key, at)?;
    Ok(found.map(|(seqno, kind, value)| Version { key: key.to_vec(), seqno, kind, value: value.to_vec() }))
}

/// Keys of the run, keys beside them, and keys that only share a prefix.
fn interesting_keys(versions: &[Version]) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = vec![Vec::new(), b"zzzz".to_vec(), b"ab".to_vec()];
    for version in versions {
        keys.push(version.key.clone());
        keys.push([&version.key[..], b"\0"].concat());
        keys.push(version.key[..version.key.len() / 2].to_vec());
    }
    keys.sort();
    keys.dedup();
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Gets at every SeqNo, full scans, seeks and splits agree with the versions that were written.
    #[test]
    fn a_run_answers_like_the_versions_it_was_made_of(versions in any_versions(120), options in any_options()) {
        let dir = Dir::new();
        let meta = dir.write(3, &versions, &options);
        let run = dir.open(&meta).unwrap();
        let keys = interesting_keys(&versions);
        let mut seqnos: Vec<SeqNo> = versions.iter().map(|v| v.seqno).collect();
        seqnos.extend([SeqNo::ZERO, SeqNo(5), SeqNo::MAX]);
        seqnos.sort();
        seqnos.dedup();
        for key in &keys {
            for &at in &seqnos {
                prop_assert_eq!(get(&run, key, at).unwrap(), newest(&versions, key, at).cloned());
            }
        }
        for fill_cache in [true, false] {
            let mut cursor = run.cursor(fill_cache);
            cursor.next().unwrap();
            prop_assert_eq!(&drain(&mut cursor).unwrap(), &versions);
            cursor.next().unwrap();
            prop_assert!(!cursor.valid());
            for key in &keys {
                for &at in &seqnos {
                    cursor.seek(key, at).unwrap();
                    let at_or_after: Vec<Version> =
                        versions.iter().filter(|v| !v.is_before(key, at)).take(3).cloned().collect();
                    for expected in at_or_after {
                        prop_assert!(cursor.valid());
                        prop_assert_eq!(Version::at(&cursor), expected);
                        cursor.next().unwrap();
                    }
                }
            }
            cursor.seek(b"zzzz", SeqNo::MAX).unwrap();
            cursor.next().unwrap();
            prop_assert!(!cursor.valid());
        }
        check_meta(&meta, &versions)?;
    }

    /// Splits rise, lie within the run, and lose no version.
    #[test]
    fn splits_cut_into_nonempty_parts(versions in any_versions(120), parts in 1usize..9) {
        let dir = Dir::new();
        let meta = dir.write(3, &versions, &small(Compression::Lz4));
        let keys = dir.open(&meta).unwrap().split_keys(parts).unwrap();
        prop_assert!(keys.len() < parts);
        prop_assert!(keys.is_sorted_by(|a, b| a < b));
        prop_assert!(keys.iter().all(|key| *key >= meta.key_min && *key <= meta.key_max));
    }
}

fn check_meta(meta: &RunMeta, versions: &[Version]) -> Result<(), TestCaseError> {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for version in versions {
        *counts.entry(&version.key).or_default() += 1;
    }
    prop_assert_eq!(meta.version_count, versions.len() as u64);
    let tombstones = versions.iter().filter(|v| v.kind == VersionKind::Delete).count();
    prop_assert_eq!(meta.tombstone_count, tombstones as u64);
    prop_assert_eq!(meta.unique_keys, counts.values().all(|&count| count == 1));
    prop_assert_eq!(meta.key_min.as_slice(), *counts.first_key_value().unwrap().0);
    prop_assert_eq!(meta.key_max.as_slice(), *counts.last_key_value().unwrap().0);
    prop_assert_eq!(meta.seqno_min, versions.iter().map(|v| v.seqno).min().unwrap());
    prop_assert_eq!(meta.seqno_max, versions.iter().map(|v| v.seqno).max().unwrap());
    Ok(())
}
