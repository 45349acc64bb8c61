//! Proves the bytes of value files: what is written is read, whoever asks with the wrong key is refused, and so is every
//! cut and flipped byte. What a whole database does with them is tested from outside, in `tests/values.rs`.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::cache::BlockCache;
use crate::env::Env;
use crate::env::sim::SimEnv;
use crate::error::{Error, Result};
use crate::file::FileKind;
use crate::iter::{Cursor, VersionKind};
use crate::seqno::SeqNo;
use crate::sstable::{Compression, Run, RunOptions, RunWriter};
use crate::wal::tests::hex_example;

const DIR: &str = "/db";
const TABLE: TableId = TableId(5);

fn machine() -> (SimEnv, Arc<dyn Env>) {
    let sim = SimEnv::new(1);
    let env: Arc<dyn Env> = Arc::new(sim.clone());
    env.create_dir_all(&Path::new(DIR).join("runs")).unwrap();
    (sim, env)
}

fn path(file: u64) -> std::path::PathBuf {
    FileKind::Values.path(Path::new(DIR), FileId(file))
}

fn key(number: u32) -> Vec<u8> {
    [&TABLE.0.to_be_bytes()[..], &[0, 0], &number.to_be_bytes()].concat()
}

/// Writes values of keys 0, 1, … by commits 1, 2, …
fn write(
    env: &Arc<dyn Env>,
    file: u64,
    compression: Compression,
    values: &[Vec<u8>],
) -> (ValueFileMeta, Vec<ValueRef>) {
    let mut writer = ValueWriter::new(Arc::clone(env), Path::new(DIR), FileId(file), TABLE, compression).unwrap();
    let add = |(at, value): (u32, &Vec<u8>)| writer.add(&key(at), SeqNo(u64::from(at) + 1), value).unwrap();
    let places = (0..).zip(values).map(add).collect();
    (writer.finish().unwrap(), places)
}

fn open(env: &Arc<dyn Env>, meta: &ValueFileMeta) -> Result<Arc<ValueFile>> {
    ValueFile::open(env, Path::new(DIR), meta)
}

#[test]
fn the_worked_example_of_the_format_holds() {
    let (sim, env) = machine();
    let mut writer = ValueWriter::new(Arc::clone(&env), Path::new(DIR), FileId(8), TABLE, Compression::None).unwrap();
    writer.add(&TABLE.0.to_be_bytes(), SeqNo(9), b"red").unwrap();
    writer.finish().unwrap();
    let written = sim.read_file(&path(8)).unwrap();
    assert_eq!(written, hex_example(include_str!("FORMAT.md")), "{written:02x?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn values_come_back(
        values in prop::collection::vec((0usize..6_000, any::<u8>(), any::<bool>()), 1..20),
        compression in prop::sample::select(&[Compression::None, Compression::Lz4, Compression::Zstd][..]),
    ) {
        let (_, env) = machine();
        let noise = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7];
        let value = |&(bytes, fill, is_noise): &(usize, u8, bool)| -> Vec<u8> {
            (0..bytes).map(|at| if is_noise { noise(at + bytes) } else { fill }).collect()
        };
        let values: Vec<Vec<u8>> = values.iter().map(value).collect();
        let (meta, places) = write(&env, 3, compression, &values);
        let file = open(&env, &meta).unwrap();
        file.verify().unwrap();
        prop_assert_eq!(meta.raw_bytes, values.iter().map(|value| value.len() as u64).sum::<u64>());
        for (number, (at, value)) in (0..).zip(places.iter().zip(&values)) {
            let seqno = SeqNo(u64::from(number) + 1);
            prop_assert_eq!(&file.read(*at, &key(number), seqno).unwrap(), value);
            // Whose the value is said to be is checked.
            prop_assert!(file.read(*at, &key(number + 1), seqno).is_err());
            prop_assert!(file.read(*at, &key(number), seqno.next()).is_err());
            let mut encoded = Vec::new();
            at.encode(&mut encoded);
            prop_assert_eq!(ValueRef::decode(&encoded), Ok(*at));
        }
    }

    #[test]
    fn any_reference_is_refused_or_right(offset in any::<u64>(), near in 0u64..9_000, bytes in 0u32..9_000, far in any::<bool>()) {
        let (_, env) = machine();
        let values = [vec![1; 3_000], vec![2; 3_000]];
        let (meta, places) = write(&env, 3, Compression::None, &values);
        let file = open(&env, &meta).unwrap();
        let at = ValueRef { file: FileId(3), offset: if far { offset } else { near }, bytes };
        let read = file.read(at, &key(0), SeqNo(1));
        prop_assert!(read.is_err() || at == places[0]);
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let (sim, env) = machine();
    let values = [b"one value".repeat(20), Vec::new(), vec![7; 90], b"another".to_vec()];
    let (meta, places) = write(&env, 3, Compression::Lz4, &values);
    let whole = sim.read_file(&path(3)).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        sim.write_file(&path(3), &bytes).unwrap();
        let verified = open(&env, &meta).and_then(|file| file.verify());
        assert!(matches!(verified, Err(Error::Corrupt { .. } | Error::NewerFormat { .. })), "byte {at}: {verified:?}");
        // A read that succeeds is of another record than the damaged one.
        let Ok(file) = open(&env, &meta) else { continue };
        for (number, (place, value)) in (0..).zip(places.iter().zip(&values)) {
            let read = file.read(*place, &key(number), SeqNo(u64::from(number) + 1));
            let is_hit = (place.offset..place.offset + u64::from(place.bytes)).contains(&(at as u64));
            assert_eq!(read.is_err(), is_hit, "byte {at}, value {number}");
            assert!(read.is_err() || read.unwrap() == value);
        }
    }
    for cut in 0..whole.len() {
        sim.write_file(&path(3), &whole[..cut]).unwrap();
        assert!(open(&env, &meta).is_err(), "cut to {cut}");
    }
}

#[test]
fn files_in_each_others_place_are_refused() {
    let (sim, env) = machine();
    let (first, places) = write(&env, 3, Compression::None, &[vec![1; 100]]);
    let (second, _) = write(&env, 4, Compression::None, &[vec![2; 100]]);
    let (one, two) = (sim.read_file(&path(3)).unwrap(), sim.read_file(&path(4)).unwrap());
    assert_eq!(one.len(), two.len());
    let file = open(&env, &first).unwrap();
    sim.write_file(&path(3), &two).unwrap();
    assert!(open(&env, &first).is_err());
    assert!(file.read(places[0], &key(0), SeqNo(1)).is_err(), "the checksum knows the file's number");
    sim.remove(&path(4)).unwrap();
    assert!(matches!(open(&env, &second), Err(Error::Io { action: "open", .. })));
}

#[test]
fn a_newer_file_is_refused_as_newer() {
    let (sim, env) = machine();
    let (meta, _) = write(&env, 3, Compression::None, &[vec![1; 100]]);
    let mut bytes = sim.read_file(&path(3)).unwrap();
    let at = bytes.len() - footer::FOOTER_BYTES;
    let mut footer = footer::Footer::decode(bytes[at..].try_into().unwrap()).unwrap();
    footer.version = 2;
    bytes[at..].copy_from_slice(&footer.encode());
    sim.write_file(&path(3), &bytes).unwrap();
    assert!(matches!(open(&env, &meta), Err(Error::NewerFormat { found: 2, supported: 1, .. })));
}

/// A run with a reference reads it through the file; without the file, or with a reference to one it does not name, it
/// says so.
#[test]
fn a_run_follows_its_references() {
    let (sim, env) = machine();
    let (meta, places) = write(&env, 3, Compression::None, &[vec![1; 100], vec![2; 100]]);
    let mut writer = RunWriter::new(Arc::clone(&env), Path::new(DIR), FileId(4), TABLE, RunOptions::default()).unwrap();
    for (number, at) in (0..).zip(&places) {
        let mut encoded = Vec::new();
        at.encode(&mut encoded);
        writer.add(&key(number), SeqNo(u64::from(number) + 1), VersionKind::Reference, &encoded).unwrap();
    }
    writer.add(&key(2), SeqNo(9), VersionKind::Put, b"small").unwrap();
    assert!(writer.add(&key(3), SeqNo(9), VersionKind::Reference, b"\xff").is_err(), "a malformed reference");
    let run = writer.finish().unwrap();
    assert_eq!(run.values, [ValueShare { file: FileId(3), value_count: 2, record_bytes: meta.record_bytes }]);
    let files: ValueFiles = [(FileId(3), open(&env, &meta).unwrap())].into();
    let cache = BlockCache::disabled;
    let opened = Run::open_with(&env, Path::new(DIR), &run, cache(), &files).unwrap();
    assert_eq!(opened.get(&key(1), SeqNo::MAX).unwrap(), Some((SeqNo(2), VersionKind::Put, vec![2; 100])));
    assert_eq!(opened.verify_values().unwrap(), 2);
    let mut cursor = opened.cursor(false);
    cursor.next().unwrap();
    assert_eq!((cursor.kind(), &cursor.load().unwrap()[..]), (VersionKind::Reference, &[1; 100][..]));
    assert!(Run::open_with(&env, Path::new(DIR), &run, cache(), &ValueFiles::new()).is_err());
    let alone = Run::open(&env, Path::new(DIR), &run, cache()).unwrap();
    alone.verify().unwrap();
    assert!(matches!(alone.get(&key(1), SeqNo::MAX), Err(Error::Corrupt { .. })));
    // It holds the file open: removed, it is still read.
    sim.remove(&path(3)).unwrap();
    assert_eq!(opened.get(&key(0), SeqNo::MAX).unwrap().unwrap().2, [1; 100]);
}
