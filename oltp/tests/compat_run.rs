//! Opens the runs in `data/compat/`: proves that runs of every format version written so far are still read, that the
//! bytes of the current version have not changed unnoticed, and that FORMAT.md's example is what is written.
//!
//! A simulated machine, whose clock is fixed, makes every byte of a run repeatable. A missing fixture is written with
//! `UPDATE_GOLDENFILES=1`; one that exists is never touched.

use std::path::Path;
use std::sync::Arc;

use strata_oltp::cache::BlockCache;
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::iter::{Cursor, VersionKind};
use strata_oltp::manifest::RunMeta;
use strata_oltp::sstable::{Compression, Run, RunOptions, RunWriter};
use strata_oltp::{FileId, FileKind, SeqNo, TableId};

const RUN: FileId = FileId(7);
const TABLE: TableId = TableId(5);
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v1/run.bin");
const DIR: &str = "/db";

/// (key, SeqNo, kind, value) in the order of a run.
type Entry = (Vec<u8>, SeqNo, VersionKind, Vec<u8>);

/// Two versions of one key, a deleted key, and enough further keys for several blocks and two levels of index.
fn entries() -> Vec<Entry> {
    let mut entries = vec![
        (b"apple".to_vec(), SeqNo(9), VersionKind::Put, b"red".to_vec()),
        (b"apple".to_vec(), SeqNo(3), VersionKind::Put, b"green".to_vec()),
        (b"banana".to_vec(), SeqNo(4), VersionKind::Delete, Vec::new()),
    ];
    entries.extend((0..60_u8).map(|number| {
        let key = format!("key {number:04}").into_bytes();
        (key, SeqNo(10 + u64::from(number % 7)), VersionKind::Put, vec![number; 20])
    }));
    entries
}

/// Writes run 7 on a machine of its own; returns its bytes and what the manifest would record.
fn write(entries: &[Entry], options: RunOptions) -> (Vec<u8>, RunMeta) {
    let machine = SimEnv::new(1);
    machine.create_dir_all(&Path::new(DIR).join("runs")).expect("works");
    let mut writer = RunWriter::new(Arc::new(machine.clone()), Path::new(DIR), RUN, TABLE, options).expect("works");
    for (key, seqno, kind, value) in entries {
        writer.add(key, *seqno, *kind, value).expect("works");
    }
    let meta = writer.finish().expect("works");
    (machine.read_file(&FileKind::Run.path(Path::new(DIR), RUN)).expect("works"), meta)
}

fn write_v1() -> (Vec<u8>, RunMeta) {
    write(&entries(), RunOptions { block_bytes: 256, index_partition_bytes: 64, ..RunOptions::default() })
}

fn fixture() -> Vec<u8> {
    let env = OsEnv::new();
    let path = Path::new(FIXTURE);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some()
        && let Ok(file) = env.open(path, OpenMode::CreateNew)
    {
        file.write_at(0, &write_v1().0).expect("works");
    }
    let file = env.open(path, OpenMode::Read).expect("the fixture exists");
    let mut bytes = vec![0; usize::try_from(file.len().expect("works")).expect("small")];
    file.read_at(0, &mut bytes).expect("works");
    bytes
}

#[test]
fn run_v1_is_written_as_it_was_and_read() {
    let fixture = fixture();
    let (written, meta) = write_v1();
    assert!(written == fixture, "runs are written differently now: a new version, not an edit");

    let machine = SimEnv::new(2);
    machine.create_dir_all(&Path::new(DIR).join("runs")).expect("works");
    machine.write_file(&FileKind::Run.path(Path::new(DIR), RUN), &fixture).expect("works");
    let env: Arc<dyn Env> = Arc::new(machine);
    let run = Run::open(&env, Path::new(DIR), &meta, BlockCache::disabled()).expect("opens");
    run.verify().expect("is whole");
    let mut cursor = run.cursor(false);
    for (key, seqno, kind, value) in entries() {
        cursor.next().expect("reads");
        assert_eq!((cursor.key(), cursor.seqno(), cursor.kind(), cursor.value()), (&key[..], seqno, kind, &value[..]));
    }
    cursor.next().expect("reads");
    assert!(!cursor.valid());
    let (seqno, _, value) = run.get(b"apple", SeqNo(8)).expect("reads").expect("was there");
    assert_eq!((seqno, &value[..]), (SeqNo(3), &b"green"[..]));
}

#[test]
fn example_is_what_is_written() {
    let options = RunOptions { compression: Compression::None, filter_bits_per_key: 0, ..RunOptions::default() };
    let (written, _) = write(&entries()[..3], options);
    let text = include_str!("../src/sstable/FORMAT.md");
    let example = text.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("has an example");
    let words = example.lines().filter_map(|line| line.split(';').next()).flat_map(str::split_whitespace);
    let expected: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).expect("hex")).collect();
    assert_eq!(written, expected, "{written:02x?}");
}
