//! A log with damaged bytes replays a prefix of what was appended, or is refused; it never yields anything else.
//!
//! Checksums stop a fuzzer that starts from nothing, so each run starts from a log the writer made. The input is a
//! list of edits of four bytes: file, offset (u16, little-endian) and a mask to flip there; a mask of 0 cuts the file.
#![no_main]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use strata_oltp::env::mem::MemEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::wal::{RecordKind, Wal, WalOptions, replay};
use strata_oltp::{FileId, FileKind, SeqNo};

const DIR: &str = "db";
const DB_ID: [u8; 16] = *b"the fuzzed log's";
const OPTIONS: WalOptions =
    WalOptions { segment_bytes: 4096, fill_bytes: 4096, spare_count_max: 0, buffer_bytes_max: 1 << 20 };

fn payload(seqno: u64) -> Vec<u8> {
    vec![seqno as u8; (seqno * 37 % 300) as usize]
}

/// The files of a log of commits 1 to 20, every third one synced.
fn written() -> &'static [(FileId, Vec<u8>)] {
    static WRITTEN: OnceLock<Vec<(FileId, Vec<u8>)>> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let env = MemEnv::new();
        let dir = Path::new(DIR);
        env.create_dir_all(dir).expect("memory has room");
        let next = AtomicU64::new(1);
        let next_file = Arc::new(move || FileId(next.fetch_add(1, Ordering::Relaxed)));
        let (wal, _) = Wal::open(Arc::new(env.clone()), dir, DB_ID, None, OPTIONS, next_file, &mut |_, _| Ok(()))
            .expect("a new log opens");
        for seqno in 1..=20 {
            let end = wal.append(RecordKind::Commit, SeqNo(seqno), &[&payload(seqno)]).expect("memory has room");
            if seqno % 3 == 0 {
                wal.sync_to(end).expect("memory has room");
            }
        }
        wal.write_out().expect("memory has room");
        let names = env.list(&dir.join("wal")).expect("the folder exists");
        let ids = names.iter().filter_map(|name| FileKind::parse(name)).map(|(_, id)| id);
        ids.map(|id| (id, read(&env, id))).collect()
    })
}

fn read(env: &MemEnv, id: FileId) -> Vec<u8> {
    let file = env.open(&FileKind::Wal.path(Path::new(DIR), id), OpenMode::Read).expect("the file exists");
    let mut bytes = vec![0; file.len().expect("the file is open") as usize];
    file.read_at(0, &mut bytes).expect("the file is this long");
    bytes
}

fuzz_target!(|input: &[u8]| {
    let mut files = written().to_vec();
    for edit in input.chunks_exact(4) {
        let file = usize::from(edit[0]) % files.len();
        let bytes = &mut files[file].1;
        let offset = usize::from(u16::from_le_bytes([edit[1], edit[2]])) % bytes.len().max(1);
        match edit[3] {
            0 => bytes.truncate(offset),
            mask => bytes.get_mut(offset).into_iter().for_each(|byte| *byte ^= mask),
        }
    }
    let env = MemEnv::new();
    let dir = Path::new(DIR);
    env.create_dir_all(&dir.join("wal")).expect("memory has room");
    for (id, bytes) in &files {
        let file = env.open(&FileKind::Wal.path(dir, *id), OpenMode::CreateNew).expect("memory has room");
        file.write_at(0, bytes).expect("memory has room");
    }
    let mut last = 0;
    let _ = replay(&env, dir, &DB_ID, None, &mut |_, frame| {
        if frame.kind == RecordKind::Commit as u8 {
            last += 1;
            assert_eq!((frame.seqno, frame.payload), (SeqNo(last), &payload(last)[..]), "nothing skipped or changed");
        }
        Ok(())
    });
});
