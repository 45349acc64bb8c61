//! A damaged value file is refused, by `verify` or by the read that meets the damage; it never yields a wrong value.
//!
//! Checksums stop a fuzzer that starts from nothing, so each run of this starts from a file the writer made. The input
//! is a list of edits of three bytes: offset (u16, little-endian) and a mask to flip there.
#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::sstable::Compression;
use strata_oltp::values::{ValueFile, ValueFileMeta, ValueRef, ValueWriter};
use strata_oltp::{FileId, FileKind, SeqNo, TableId};

const DIR: &str = "db";
const ID: FileId = FileId(1);
const TABLE: TableId = TableId(7);
const VALUE_COUNT: u64 = 20;

fn key(number: u64) -> Vec<u8> {
    format!("\0\0\0\u{7}\0\0key {number:08}").into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    (0..number * 37 % 300).map(|at| (at * number) as u8).collect()
}

fn written() -> &'static (ValueFileMeta, Vec<ValueRef>, Vec<u8>) {
    static WRITTEN: OnceLock<(ValueFileMeta, Vec<ValueRef>, Vec<u8>)> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let env: Arc<dyn Env> = Arc::new(MemEnv::new());
        let dir = Path::new(DIR);
        env.create_dir_all(&dir.join("runs")).expect("memory has room");
        let writer = ValueWriter::new(Arc::clone(&env), dir, ID, TABLE, Compression::Lz4);
        let mut writer = writer.expect("memory has room");
        let add = |number| writer.add(&key(number), SeqNo(number + 1), &value(number)).expect("memory has room");
        let places = (0..VALUE_COUNT).map(add).collect();
        let meta = writer.finish().expect("the file is sound");
        let file = env.open(&FileKind::Values.path(dir, ID), OpenMode::Read).expect("the file exists");
        let mut bytes = vec![0; meta.file_bytes as usize];
        file.read_at(0, &mut bytes).expect("the file is this long");
        (meta, places, bytes)
    })
}

fuzz_target!(|input: &[u8]| {
    let (meta, places, sound) = written();
    let mut bytes = sound.clone();
    for edit in input.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] ^= edit[2];
    }
    let env: Arc<dyn Env> = Arc::new(MemEnv::new());
    let dir = Path::new(DIR);
    env.create_dir_all(&dir.join("runs")).expect("memory has room");
    let file = env.open(&FileKind::Values.path(dir, ID), OpenMode::CreateNew).expect("memory has room");
    file.write_at(0, &bytes).expect("memory has room");
    let Ok(opened) = ValueFile::open(&env, dir, meta) else {
        assert_ne!(&bytes, sound);
        return;
    };
    assert_eq!(opened.verify().is_ok(), &bytes == sound);
    for (number, at) in (0..).zip(places) {
        // Any of these may fail; none may be wrong.
        if let Ok(found) = opened.read(*at, &key(number), SeqNo(number + 1)) {
            assert_eq!(found, value(number));
        }
    }
});
