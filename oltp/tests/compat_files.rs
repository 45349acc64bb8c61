//! Proves the promise to old files, for whole files: manifest, log and runs of every released version are read.
//!
//! `data/compat/v1/store` was written by [`write`] on a simulated machine, whose seed and clock decide every byte. While
//! version 1 is the newest, the test writes the same again and compares, so that no change of an encoder goes
//! unnoticed. A file that is missing is written with `UPDATE_GOLDENFILES=1`; one that exists is never touched.
#![expect(clippy::disallowed_methods, reason = "reads and writes fixtures, not a database")]
#![expect(clippy::unwrap_used, reason = "a test panics where it fails; clippy exempts only the test functions")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use strata_oltp::cache::BlockCache;
use strata_oltp::cold::{SealedMarks, SegmentRecord};
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::iter::{Cursor, VersionKind};
use strata_oltp::manifest::{self, Edit, Manifest, RunMeta};
use strata_oltp::sstable::{Compression, Run, RunOptions, RunWriter};
use strata_oltp::wal::{RecordKind, Tail, Wal, WalOptions, replay};
use strata_oltp::{FileId, FileKind, SeqNo, TableId};

const TABLE: TableId = TableId(5);
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/compat/v1/store");

/// (key, SeqNo, kind, value) of the run, in its order.
type Entry = (Vec<u8>, SeqNo, VersionKind, Vec<u8>);

fn dir() -> &'static Path {
    Path::new("/store")
}

/// Two versions of one key, a deleted key, and enough further keys for several blocks and two levels of index.
fn entries() -> Vec<Entry> {
    let mut entries = vec![
        (b"apple".to_vec(), SeqNo(9), VersionKind::Put, b"red".to_vec()),
        (b"apple".to_vec(), SeqNo(3), VersionKind::Put, b"green".to_vec()),
        (b"banana".to_vec(), SeqNo(4), VersionKind::Delete, Vec::new()),
    ];
    entries.extend((0..60_u64).map(|number| {
        let key = format!("key {number:04}").into_bytes();
        (key, SeqNo(10 + number % 7), VersionKind::Put, vec![u8::try_from(number).unwrap(); 20])
    }));
    entries
}

fn write_run(env: &Arc<dyn Env>, id: FileId, entries: &[Entry], options: RunOptions) -> RunMeta {
    env.create_dir_all(&dir().join("runs")).unwrap();
    let mut writer = RunWriter::new(Arc::clone(env), dir(), id, TABLE, options).unwrap();
    for (key, seqno, kind, value) in entries {
        writer.add(key, *seqno, *kind, value).unwrap();
    }
    writer.finish().unwrap()
}

/// Every kind of edit that leaves something behind.
fn edits(run: RunMeta, wal: &Wal) -> Vec<Edit> {
    let segment = SegmentRecord {
        segment: FileId(40),
        table: TABLE,
        meta: b"opaque".to_vec(),
        marks: None,
        marks_through: SeqNo(1),
    };
    vec![
        Edit::WalReleased(wal.start()),
        Edit::AddRun(run),
        Edit::AddSegment(segment),
        Edit::SetMarks(SealedMarks { segment: FileId(40), marks: Some(FileId(41)), marks_through: SeqNo(12) }),
        Edit::FlushedThrough { table: TABLE, seqno: SeqNo(16) },
        Edit::RowIds { table: TABLE, next: 1 << 20 },
        Edit::LastSeqNo(SeqNo(17)),
    ]
}

/// Writes the store and returns the machine it lies on.
fn write() -> SimEnv {
    let machine = SimEnv::new(1);
    let env: Arc<dyn Env> = Arc::new(machine.clone());
    let (manifest, _) = Manifest::open(Arc::clone(&env), dir()).unwrap();
    let next_file = manifest.file_allocator();
    let options = WalOptions { segment_bytes: 8192, fill_bytes: 8192, spare_count_max: 0, ..WalOptions::default() };
    let opened =
        Wal::open(Arc::clone(&env), dir(), manifest.db_id(), None, options, next_file.clone(), &mut |_, _| Ok(()));
    let (wal, _) = opened.unwrap();
    let options = RunOptions { block_bytes: 256, index_partition_bytes: 64, ..RunOptions::default() };
    let run = write_run(&env, next_file(), &entries(), options);
    manifest.append(&edits(run, &wal)).unwrap();
    wal.append(RecordKind::Commit, SeqNo(17), &[b"a commit"]).unwrap();
    let end = wal.append(RecordKind::Commit, SeqNo(18), &[b"another ", b"one"]).unwrap();
    wal.sync_to(end).unwrap();
    wal.close().unwrap();
    machine
}

fn fixture_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(FIXTURE)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// A machine that holds the fixture.
fn machine_with_fixture() -> SimEnv {
    let machine = SimEnv::new(2);
    for file in fixture_files() {
        let path = dir().join(file.strip_prefix(FIXTURE).unwrap());
        machine.create_dir_all(path.parent().unwrap()).unwrap();
        machine.write_file(&path, &fs::read(&file).unwrap()).unwrap();
    }
    machine
}

#[test]
fn store_v1_is_written_as_it_was() {
    let machine = write();
    let written = machine.files();
    for (path, _) in &written {
        let fixture = Path::new(FIXTURE).join(path.strip_prefix(dir()).unwrap());
        let bytes = machine.read_file(path).unwrap();
        if !fixture.exists() && std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            fs::create_dir_all(fixture.parent().unwrap()).unwrap();
            fs::write(&fixture, &bytes).unwrap();
        }
        let same = fs::read(&fixture).unwrap_or_else(|error| panic!("{}: {error}", fixture.display())) == bytes;
        assert!(same, "{} is written differently now", path.display());
    }
    assert_eq!(written.len(), fixture_files().len());
}

#[test]
fn store_v1_is_read() {
    let machine = machine_with_fixture();
    let env: Arc<dyn Env> = Arc::new(machine);
    let loaded = manifest::load(env.as_ref(), dir()).unwrap().unwrap();
    let version = &loaded.version;
    assert_eq!(version.last_seqno, SeqNo(17));
    let table = version.table(TABLE).unwrap();
    assert_eq!((table.flushed_through, table.next_row_id), (SeqNo(16), 1 << 20));
    let segment = &table.segments[&FileId(40)];
    assert_eq!(
        (segment.marks, segment.marks_through, &segment.meta[..]),
        (Some(FileId(41)), SeqNo(12), &b"opaque"[..])
    );

    let mut frames = Vec::new();
    let report = replay(env.as_ref(), dir(), &loaded.db_id, version.wal_start, &mut |_, frame| {
        frames.push((frame.kind, frame.seqno, frame.payload.to_vec()));
        Ok(())
    });
    assert_eq!(report.unwrap().tail, Tail::Closed);
    assert_eq!(frames[0], (RecordKind::Commit as u8, SeqNo(17), b"a commit".to_vec()));
    assert_eq!(frames[1], (RecordKind::Commit as u8, SeqNo(18), b"another one".to_vec()));

    let run = Run::open(&env, dir(), &table.runs[0], BlockCache::disabled()).unwrap();
    run.verify().unwrap();
    let mut cursor = run.cursor(false);
    for (key, seqno, kind, value) in entries() {
        cursor.next().unwrap();
        assert_eq!((cursor.key(), cursor.seqno(), cursor.kind(), cursor.value()), (&key[..], seqno, kind, &value[..]));
    }
    cursor.next().unwrap();
    assert!(!cursor.valid());
    let (seqno, _, value) = run.get(b"apple", SeqNo(8)).unwrap().unwrap();
    assert_eq!((seqno, &value[..]), (SeqNo(3), &b"green"[..]));
}

/// The run format's worked example.
#[test]
fn run_example_is_what_is_written() {
    let machine = SimEnv::new(1);
    let env: Arc<dyn Env> = Arc::new(machine.clone());
    let options = RunOptions { compression: Compression::None, filter_bits_per_key: 0, ..RunOptions::default() };
    write_run(&env, FileId(7), &entries()[..3], options);
    let written = machine.read_file(&FileKind::Run.path(dir(), FileId(7))).unwrap();
    let text = include_str!("../src/sstable/FORMAT.md");
    let example = text.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let words = example.lines().filter_map(|line| line.split(';').next()).flat_map(str::split_whitespace);
    let expected: Vec<u8> = words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect();
    assert_eq!(written, expected, "{}", dump(&written));
}

fn dump(bytes: &[u8]) -> String {
    bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>() + "\n").collect()
}
