//! What a run promises, against a map that remembers every version; and what damage does to it.
//!
//! Everything runs in memory. Small blocks and tiny index partitions make a few hundred entries exercise every level.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::block::{Block, BlockBuilder, BlockCursor, shared_prefix};
use super::filter::{Filter, key_hash};
use super::footer::{FOOTER_BYTES, Footer};
use super::index::Handle;
use super::properties::Properties;
use super::{Compression, FilterKind, Run, RunOptions, RunWriter, frame};
use crate::cache::BlockCache;
use crate::env::sim::SimEnv;
use crate::env::{Env, File, FileLock, OpenMode};
use crate::error::{Error, Result};
use crate::file::{FileId, FileKind};
use crate::iter::{Cursor, Version, VersionKind};
use crate::manifest::RunMeta;
use crate::memory::MemoryBudget;
use crate::schema::TableId;
use crate::seqno::SeqNo;

const TABLE: TableId = TableId(7);

/// A database directory in memory.
struct Dir {
    sim: SimEnv,
    env: Arc<dyn Env>,
    path: PathBuf,
    cache: Arc<BlockCache>,
}

impl Dir {
    fn new() -> Dir {
        let sim = SimEnv::new(1);
        let env: Arc<dyn Env> = Arc::new(sim.clone());
        let path = PathBuf::from("/db");
        env.create_dir_all(&path.join("runs")).unwrap();
        let cache = BlockCache::new(&MemoryBudget::new(1 << 30), 1 << 20).unwrap();
        Dir { sim, env, path, cache }
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
        self.sim.read_file(&self.file(id)).unwrap()
    }

    fn overwrite(&self, id: u64, bytes: &[u8]) {
        self.sim.write_file(&self.file(id), bytes).unwrap();
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
    let filter = prop_oneof![Just(FilterKind::Bloom), Just(FilterKind::Fuse)];
    let index_partition_bytes = prop_oneof![Just(48usize), Just(200), Just(65536)];
    (compression, 40usize..400, 1u16..8, (filter, 0u32..12), index_partition_bytes).prop_map(
        |(compression, block_bytes, restart_interval, (filter, filter_bits_per_key), index_partition_bytes)| {
            RunOptions {
                block_bytes,
                restart_interval,
                compression,
                filter,
                filter_bits_per_key,
                index_partition_bytes,
            }
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
    Ok(found.map(|(seqno, kind, value)| Version { key: key.to_vec(), seqno, kind, value }))
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

/// Every kind of entry, several blocks and versions that spill over from one block to the next.
fn assorted() -> Vec<Version> {
    let mut versions = Vec::new();
    for key in ["a", "apple", "apricot", "b", "banana", "blueberry", "cherry"] {
        for seqno in (1..5).rev() {
            versions.push(match (key.len() as u64 + seqno) % 4 {
                0 => Version::delete(key, seqno * 3),
                _ => Version::put(key, seqno * 3, format!("{key} as of {seqno}")),
            });
        }
    }
    versions
}

/// Everything a reader can ask gives the right answer or an error; returns whether any of it was an error.
fn right_or_refused(dir: &Dir, meta: &RunMeta, versions: &[Version]) -> bool {
    let Ok(run) = dir.open(meta) else { return true };
    let mut refused = false;
    for key in interesting_keys(versions) {
        for at in [1, 3, 7, 12] {
            match get(&run, &key, SeqNo(at)) {
                Ok(found) => assert_eq!(found.as_ref(), newest(versions, &key, SeqNo(at))),
                Err(_) => refused = true,
            }
        }
    }
    for fill_cache in [false, true] {
        let mut cursor = run.cursor(fill_cache);
        match cursor.next().and_then(|()| drain(&mut cursor)) {
            Ok(found) => assert_eq!(found, versions),
            Err(_) => refused = true,
        }
        assert!(!cursor.valid());
        for version in versions {
            match cursor.seek(&version.key, version.seqno) {
                Ok(()) => assert_eq!(&Version::at(&cursor), version),
                Err(_) => refused = true,
            }
        }
    }
    refused | run.split_keys(4).is_err()
}

fn is_corrupt(result: &Result<()>) -> bool {
    matches!(result, Err(Error::Corrupt { kind: FileKind::Run, .. } | Error::NewerFormat { .. }))
}

#[test]
fn every_flipped_byte_is_detected_and_never_answers_wrongly() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let dir = Dir::new();
        let versions = assorted();
        let meta = dir.write(3, &versions, &small(compression));
        assert!(dir.open(&meta).unwrap().footer().index_levels == 2);
        assert!(!right_or_refused(&dir, &meta, &versions));
        let bytes = dir.bytes(3);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                dir.overwrite(3, &damaged);
                let refused = right_or_refused(&dir, &meta, &versions);
                assert!(refused, "no reader noticed byte {at} ^ {flip:02x}, although together they read all");
                assert!(is_corrupt(&dir.open(&meta).and_then(|run| run.verify())), "byte {at} ^ {flip:02x}");
            }
        }
    }
}

#[test]
fn every_truncation_is_detected() {
    let dir = Dir::new();
    let meta = dir.write(3, &assorted(), &small(Compression::Lz4));
    let bytes = dir.bytes(3);
    for cut in 0..bytes.len() {
        dir.overwrite(3, &bytes[..cut]);
        assert!(is_corrupt(&dir.open(&meta).map(drop)));
        // Also if the manifest's record were damaged in the same way.
        let shorter = RunMeta { file_bytes: cut as u64, ..meta.clone() };
        assert!(is_corrupt(&dir.open(&shorter).map(drop)));
    }
    dir.overwrite(3, &[&bytes[..], b"\0"].concat());
    assert!(is_corrupt(&dir.open(&meta).map(drop)));
}

#[test]
fn blocks_in_the_wrong_place_are_detected() {
    let dir = Dir::new();
    // Values of one length and one block per entry make all blocks interchangeable but for their place.
    let versions: Vec<Version> = (0..4u8).map(|i| Version::put([i], 1, [i; 50])).collect();
    let options = RunOptions { block_bytes: 60, compression: Compression::None, ..RunOptions::default() };
    let here = dir.write(3, &versions, &options);
    let there = dir.write(4, &versions, &options);
    let (bytes, other) = (dir.bytes(3), dir.bytes(4));
    let run = dir.open(&here).unwrap();
    assert_eq!(run.block_count(), 4);
    // The filter begins where the data blocks end.
    let block_bytes = (run.footer().filter.offset / 4) as usize;
    for block in 0..4 {
        let place = block * block_bytes..(block + 1) * block_bytes;
        let mut swapped = bytes.clone();
        swapped[place.clone()].copy_from_slice(&other[place.clone()]);
        dir.overwrite(3, &swapped);
        assert!(dir.open(&here).unwrap().get(&[block as u8], SeqNo::MAX).is_err(), "a block of another file");
        let next = (block + 1) % 4 * block_bytes;
        swapped[place].copy_from_slice(&bytes[next..next + block_bytes]);
        dir.overwrite(3, &swapped);
        assert!(dir.open(&here).unwrap().get(&[block as u8], SeqNo::MAX).is_err(), "a block of another place");
    }
    dir.overwrite(4, &bytes);
    assert!(is_corrupt(&dir.open(&there).map(drop)), "a whole file under another's name");
}

/// Reads of run 3 come back with one bit wrong; everything else is as in the simulation.
#[derive(Debug)]
struct BadReads(SimEnv);

#[derive(Debug)]
struct BadFile(Arc<dyn File>);

impl File for BadFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)?;
        if let Some(byte) = 10u64.checked_sub(offset).and_then(|at| buffer.get_mut(usize::try_from(at).ok()?)) {
            *byte ^= 0x10;
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

impl Env for BadReads {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(BadFile(self.0.open(path, mode)?)))
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.hard_link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.0.lock(path)
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn wall_clock(&self) -> Duration {
        self.0.wall_clock()
    }
    fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }
}

#[test]
fn a_run_that_does_not_read_back_is_refused_and_removed() {
    let dir = Dir::new();
    let env: Arc<dyn Env> = Arc::new(BadReads(dir.sim.clone()));
    let mut writer = RunWriter::new(env, &dir.path, FileId(3), TABLE, RunOptions::default()).unwrap();
    writer.add(b"key", SeqNo(1), VersionKind::Put, b"value").unwrap();
    assert!(is_corrupt(&writer.finish().map(drop)));
    assert!(dir.sim.read_file(&dir.file(3)).is_err());
}

#[test]
fn unfinished_runs_can_be_abandoned_and_numbers_are_not_reused() {
    let dir = Dir::new();
    let create = || RunWriter::new(Arc::clone(&dir.env), &dir.path, FileId(9), TABLE, RunOptions::default());
    let writer = create().unwrap();
    assert!(matches!(create(), Err(Error::Io { .. })));
    writer.abandon().unwrap();
    create().unwrap().abandon().unwrap();
}

#[test]
#[should_panic(expected = "must rise")]
fn versions_out_of_order_are_a_bug() {
    let dir = Dir::new();
    dir.write(3, &[Version::put("a", 1, ""), Version::put("a", 1, "")], &RunOptions::default());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let dir = Dir::new();
    let meta = dir.write(3, &assorted(), &RunOptions::default());
    let mut bytes = dir.bytes(3);
    let at = bytes.len() - FOOTER_BYTES;
    let mut footer = Footer::decode(bytes[at..].try_into().unwrap()).unwrap();
    footer.version = 9;
    bytes[at..].copy_from_slice(&footer.encode());
    dir.overwrite(3, &bytes);
    assert!(matches!(dir.open(&meta), Err(Error::NewerFormat { found: 9, supported: 3, .. })));
}

#[test]
fn scans_leave_the_cache_alone_and_point_reads_fill_it() {
    let budget = MemoryBudget::new(1 << 20);
    let dir = Dir { cache: BlockCache::new(&budget, 1 << 20).unwrap(), ..Dir::new() };
    let versions: Vec<Version> = (0..200u8).map(|i| Version::put([i], 1, [i; 50])).collect();
    let run = dir.open(&dir.write(3, &versions, &small(Compression::None))).unwrap();
    let metadata = budget.used();
    assert!(metadata > 0, "filter and index root are charged");
    let mut cursor = run.cursor(false);
    cursor.next().unwrap();
    assert_eq!(drain(&mut cursor).unwrap(), versions);
    assert_eq!(dir.cache.used_bytes(), 0);
    run.get(&[7], SeqNo::MAX).unwrap().unwrap();
    let (hits, used) = (dir.cache.hits(), budget.used());
    assert!(used > metadata);
    run.get(&[7], SeqNo::MAX).unwrap().unwrap();
    assert_eq!(dir.cache.hits(), hits + 1);
    assert_eq!(budget.used(), used);
    // Whoever needs the memory gets it, index partitions included.
    let reserved = budget.reserve("query", (1 << 20) - metadata).unwrap();
    assert_eq!((dir.cache.used_bytes(), budget.used()), (0, 1 << 20));
    run.get(&[7], SeqNo::MAX).unwrap().unwrap();
    assert_eq!((dir.cache.used_bytes(), budget.used()), (0, 1 << 20), "a full budget is no error");
    drop(reserved);
    run.get(&[7], SeqNo::MAX).unwrap().unwrap();
    dir.cache.evict_file(FileId(4));
    assert!(dir.cache.used_bytes() > 0);
    dir.cache.evict_file(FileId(3));
    assert_eq!(budget.used(), metadata);
    drop((run, cursor));
    assert_eq!(budget.used(), 0);
}

proptest! {
    /// Blocks whose checksum is right but whose content is not (a bug, an enemy) never panic or hang a reader.
    #[test]
    fn a_block_of_anything_is_read_or_refused(
        versions in any_versions(20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        interval in 1u16..5,
    ) {
        let mut builder = BlockBuilder::new(interval);
        let mut last: &[u8] = &[];
        for version in &versions {
            let shared = shared_prefix(last, &version.key);
            let hash = Some(key_hash(&version.key));
            builder.add(&version.key, shared, version.seqno, version.kind, &version.value, hash);
            last = &version.key;
        }
        let mut raw = Vec::new();
        builder.finish_into(&mut raw);
        for (at, byte) in &flips {
            let at = at.index(raw.len());
            raw[at] = *byte;
        }
        let Ok(block) = Block::new(raw.into(), 0) else { return Ok(()) };
        let block = Arc::new(block);
        let mut cursor = BlockCursor::new(Arc::clone(&block));
        while let Ok(true) = cursor.next() {
            let _ = (cursor.key().len(), cursor.value().len());
        }
        for version in &versions {
            let _ = cursor.seek(&version.key, version.seqno);
            let _ = block.find(&version.key, key_hash(&version.key), version.seqno);
        }
    }

    #[test]
    fn foreign_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Block::new(bytes.clone().into(), 0).map(|block| BlockCursor::new(Arc::new(block)).next());
        prop_assert!(frame::open(&bytes, FileId(1), 0).is_err());
        let _ = Properties::decode(&bytes);
        let _ = Handle::decode(&bytes);
        let _ = Filter::new(bytes.clone().into()).map(|filter| filter.may_contain(7));
        if let Some(footer) = bytes.first_chunk::<FOOTER_BYTES>() {
            prop_assert!(Footer::decode(footer).is_err());
        }
    }
}

#[test]
fn a_block_cannot_claim_more_memory_than_the_limit() {
    for tag in [1u8, 2] {
        let mut stored = vec![tag];
        stored.extend_from_slice(&u32::MAX.to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(&stored, frame::seed(FileId(1), 0));
        stored.extend_from_slice(&checksum.to_le_bytes());
        let error = frame::open(&stored, FileId(1), 0).unwrap_err();
        assert_eq!(error.what, "compressed block claims more than the largest size");
    }
}
