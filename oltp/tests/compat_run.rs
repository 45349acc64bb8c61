//! Proves the promise to old runs: every run in `data/compat/` is still read, and means the same.
//!
//! A fixture is never edited: a new format version adds a file under the next `data/compat/v*` and a function here.
//! While a version is the newest, its function also writes the same run and compares the bytes, so that no change of
//! the encoder goes unnoticed.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

use std::path::Path;
use std::sync::Arc;

use strata_oltp::cache::BlockCache;
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::iter::{Cursor, Version, VersionKind};
use strata_oltp::manifest::RunMeta;
use strata_oltp::sstable::{Compression, FilterKind, Run, RunOptions, RunWriter};
use strata_oltp::values::{ValueFile, ValueFileMeta, ValueWriter};
use strata_oltp::{FileId, FileKind, SeqNo, TableId};

const RUN_V1: &[u8] = include_bytes!("../../data/compat/v1/run.bin");

/// Of both versions: two hundred rows with up to three versions each, compressible and not, empty and larger than a block; enough for
/// a two-level index.
fn versions() -> Vec<Version> {
    let mut versions = Vec::new();
    for row in 0..200u32 {
        let key = [&[0, 0, 0, 7, 0, 0][..], format!("row {:04}", row * 7).as_bytes()].concat();
        for update in (0..row % 4).rev() {
            let seqno = u64::from(1000 + 50 * update + row);
            versions.push(match (row + update) % 9 {
                0 => Version::delete(&key, seqno),
                1 => Version::put(&key, seqno, ""),
                2 => Version::put(&key, seqno, vec![row as u8; 700]),
                3 => Version::put(&key, seqno, noise(row, 40)),
                _ => Version::put(&key, seqno, format!("value {update} of row {row}, value {update} of row {row}")),
            });
        }
    }
    versions
}

/// Bytes that do not compress.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| draw()).collect()
}

fn directory() -> (Arc<SimEnv>, Arc<dyn Env>, &'static Path) {
    let sim = Arc::new(SimEnv::new(1));
    let dir = Path::new("/db");
    sim.create_dir_all(&dir.join("runs")).unwrap();
    (Arc::clone(&sim), sim, dir)
}

fn write(filter: FilterKind) -> (Vec<u8>, RunMeta) {
    let (sim, env, dir) = directory();
    let options = RunOptions {
        block_bytes: 512,
        restart_interval: 4,
        compression: Compression::Lz4,
        filter,
        filter_bits_per_key: 10,
        index_partition_bytes: 512,
    };
    let mut writer = RunWriter::new(env, dir, FileId(4_000_000_007), TableId(7), options).unwrap();
    for version in versions() {
        writer.add(&version.key, version.seqno, version.kind, &version.value).unwrap();
    }
    let meta = writer.finish().unwrap();
    (sim.read_file(&FileKind::Run.path(dir, meta.run)).unwrap(), meta)
}

/// The fixture of version 2, written if it is missing and goldens are refreshed.
fn stored_v2() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/compat/v2/run.bin");
    let env = OsEnv::new();
    if std::env::var_os("UPDATE_GOLDENFILES").is_some()
        && let Ok(file) = env.open(&path, OpenMode::CreateNew)
    {
        file.write_at(0, &write(FilterKind::Fuse).0).unwrap();
    }
    let file = env.open(&path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// What is stored reads as the versions it was made of.
fn check(stored: &[u8], meta: &RunMeta) {
    let (sim, env, dir) = directory();
    sim.write_file(&FileKind::Run.path(dir, meta.run), stored).unwrap();
    let run = Run::open(&env, dir, meta, BlockCache::disabled()).unwrap();
    run.verify().unwrap();
    let versions = versions();
    let mut cursor = run.cursor(false);
    for version in &versions {
        cursor.next().unwrap();
        assert_eq!(&Version::at(&cursor), version);
        let (seqno, kind, value) = run.get(&version.key, version.seqno).unwrap().unwrap();
        assert_eq!((seqno, kind, &value[..]), (version.seqno, version.kind, &version.value[..]));
    }
    cursor.next().unwrap();
    assert!(!cursor.valid());
    assert!(run.get(&versions[0].key, SeqNo(1)).unwrap().is_none());
}

#[test]
fn runs_of_every_version_are_read() {
    check(RUN_V1, &write(FilterKind::Bloom).1);
    check(&stored_v2(), &write(FilterKind::Fuse).1);
}

/// With a Bloom filter still as version 1, so that older programs read it.
#[test]
fn runs_are_what_is_written() {
    assert!(write(FilterKind::Fuse).0 == stored_v2(), "run bytes changed: a changed byte is a new format version");
    assert!(write(FilterKind::Bloom).0 == RUN_V1, "run bytes changed: a changed byte is a new format version");
}

/// A run of version 3 and its value file: rows of 30 bytes and more are in the file, compressible and not.
fn write_v3() -> (Vec<u8>, RunMeta, Vec<u8>, ValueFileMeta) {
    let (sim, env, dir) = directory();
    let mut values =
        ValueWriter::new(Arc::clone(&env), dir, FileId(4_000_000_008), TableId(7), Compression::Lz4).unwrap();
    let mut run = RunWriter::new(env, dir, FileId(4_000_000_009), TableId(7), RunOptions::default()).unwrap();
    for version in versions() {
        if version.value.len() < 30 {
            run.add(&version.key, version.seqno, version.kind, &version.value).unwrap();
            continue;
        }
        let mut reference = Vec::new();
        values.add(&version.key, version.seqno, &version.value).unwrap().encode(&mut reference);
        run.add(&version.key, version.seqno, VersionKind::Reference, &reference).unwrap();
    }
    let (values, run) = (values.finish().unwrap(), run.finish().unwrap());
    let read = |kind: FileKind, id| sim.read_file(&kind.path(dir, id)).unwrap();
    (read(FileKind::Run, run.run), run, read(FileKind::Values, values.file), values)
}

/// The fixture `name`, written now if it is missing and that was asked for.
fn stored(name: &str, written: &[u8]) -> Vec<u8> {
    let (env, path) = (OsEnv::new(), Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/compat").join(name));
    if std::env::var_os("UPDATE_GOLDENFILES").is_some()
        && let Ok(file) = env.open(&path, OpenMode::CreateNew)
    {
        file.write_at(0, written).unwrap();
    }
    let file = env.open(&path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn run_v3_and_values_v1_are_read_and_written() {
    let (run_bytes, run, value_bytes, values) = write_v3();
    let (sim, env, dir) = directory();
    let (run_v3, values_v1) = (stored("v3/run.bin", &run_bytes), stored("v1/values.bin", &value_bytes));
    assert!(run_bytes == run_v3 && value_bytes == values_v1, "a changed byte is a new format version");
    sim.write_file(&FileKind::Run.path(dir, run.run), &run_v3).unwrap();
    sim.write_file(&FileKind::Values.path(dir, values.file), &values_v1).unwrap();
    let file = ValueFile::open(&env, dir, &values).unwrap();
    file.verify().unwrap();
    let run = Run::open_with(&env, dir, &run, BlockCache::disabled(), &[(values.file, file)].into()).unwrap();
    run.verify().unwrap();
    assert!(run.verify_values().unwrap() > 100);
    for version in versions() {
        let (seqno, kind, value) = run.get(&version.key, version.seqno).unwrap().unwrap();
        assert_eq!((seqno, kind, &value[..]), (version.seqno, version.kind, &version.value[..]));
    }
}

/// The worked example of the run format.
#[test]
fn example_is_what_is_written() {
    let (sim, env, dir) = directory();
    let options = RunOptions { compression: Compression::None, filter_bits_per_key: 0, ..RunOptions::default() };
    let mut writer = RunWriter::new(env, dir, FileId(7), TableId(5), options).unwrap();
    let versions =
        [Version::put(b"apple", 9, "red"), Version::put(b"apple", 3, "green"), Version::delete(b"banana", 4)];
    for version in versions {
        writer.add(&version.key, version.seqno, version.kind, &version.value).unwrap();
    }
    writer.finish().unwrap();
    let text = include_str!("../src/sstable/FORMAT.md");
    let example = text.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let words = example.lines().filter_map(|line| line.split(';').next()).flat_map(str::split_whitespace);
    let expected: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect();
    let written = sim.read_file(&FileKind::Run.path(dir, FileId(7))).unwrap();
    assert_eq!(written, expected, "{written:02x?}");
}
