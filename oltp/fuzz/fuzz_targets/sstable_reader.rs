//! A damaged run is refused, by `verify` or by the read that meets the damage; it never yields a wrong version.
//!
//! Checksums stop a fuzzer that starts from nothing, so each run of this starts from a file the writer made. The input
//! is a list of edits of three bytes: offset (u16, little-endian) and a mask to flip there; its length says in which of two
//! runs, that with a Bloom filter or that with a binary fuse filter.
#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use strata_oltp::cache::BlockCache;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::iter::{Cursor, VersionKind};
use strata_oltp::manifest::RunMeta;
use strata_oltp::sstable::{FilterKind, Run, RunOptions, RunWriter};
use strata_oltp::{FileId, FileKind, SeqNo, TableId};

const DIR: &str = "db";
const ID: FileId = FileId(1);
const KEY_COUNT: u64 = 200;

fn key(number: u64) -> Vec<u8> {
    format!("\0\0\0\u{7}\0\0key {:08}", number * 977 % 1000 + number * 1000).into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    vec![number as u8; (number * 37 % 90) as usize]
}

/// A run of small blocks and index partitions for each kind of filter, so that a few kilobytes have every part of the format.
fn written() -> &'static [(RunMeta, Vec<u8>); 2] {
    static WRITTEN: OnceLock<[(RunMeta, Vec<u8>); 2]> = OnceLock::new();
    WRITTEN.get_or_init(|| [FilterKind::Bloom, FilterKind::Fuse].map(|filter| {
        let env: Arc<dyn Env> = Arc::new(MemEnv::new());
        let dir = Path::new(DIR);
        env.create_dir_all(&dir.join("runs")).expect("memory has room");
        let options = RunOptions { block_bytes: 512, index_partition_bytes: 256, filter, ..RunOptions::default() };
        let mut writer = RunWriter::new(Arc::clone(&env), dir, ID, TableId(7), options).expect("memory has room");
        for number in 0..KEY_COUNT {
            writer.add(&key(number), SeqNo(number + 1), VersionKind::Put, &value(number)).expect("memory has room");
        }
        let meta = writer.finish().expect("the run is sound");
        let file = env.open(&FileKind::Run.path(dir, ID), OpenMode::Read).expect("the file exists");
        let mut bytes = vec![0; meta.file_bytes as usize];
        file.read_at(0, &mut bytes).expect("the file is this long");
        (meta, bytes)
    }))
}

fn read_all(env: &Arc<dyn Env>, meta: &RunMeta) -> Result<(), strata_oltp::Error> {
    let run = Run::open(env, Path::new(DIR), meta, BlockCache::disabled())?;
    for number in (0..KEY_COUNT).step_by(7) {
        // Any of these may fail on its own; none may be wrong.
        if let Ok(found) = run.get(&key(number), SeqNo::MAX) {
            let (seqno, kind, bytes) = found.expect("the key is in the run");
            assert_eq!((seqno, kind, &bytes[..]), (SeqNo(number + 1), VersionKind::Put, &value(number)[..]));
        }
    }
    let is_verified = run.verify().is_ok();
    let mut cursor = run.cursor(false);
    for number in 0..KEY_COUNT {
        cursor.next()?;
        assert!(cursor.valid());
        assert_eq!((cursor.key(), cursor.value()), (&key(number)[..], &value(number)[..]));
    }
    cursor.next()?;
    assert!(!cursor.valid());
    assert!(!is_verified, "damage went unnoticed");
    Ok(())
}

fuzz_target!(|input: &[u8]| {
    let (meta, bytes) = &written()[input.len() / 3 % 2];
    let mut damaged = bytes.clone();
    for edit in input.chunks_exact(3) {
        let offset = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % damaged.len();
        damaged[offset] ^= edit[2];
    }
    if damaged == *bytes {
        return;
    }
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let dir = Path::new(DIR);
    env.create_dir_all(&dir.join("runs")).expect("memory has room");
    let file = env.open(&FileKind::Run.path(dir, ID), OpenMode::CreateNew).expect("memory has room");
    file.write_at(0, &damaged).expect("memory has room");
    let _ = read_all(&env, meta);
});
