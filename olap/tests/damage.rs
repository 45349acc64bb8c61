//! Proves that no damaged byte of a segment goes unnoticed (P6): every byte of every file is changed in turn, and
//! opening or verifying the segment must name the file; nothing may panic.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod harness;

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::{DIR, Files, MapCursor, Versions, mem_env, small_row, small_table, store};
use strata_olap::StoreOptions;
use strata_oltp::cold::{ColdJob, SegmentRecord};
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::{ColdTier, Error, FileKind, SeqNo};

/// A segment of 30 keys with two versions each, so that it has marks.
fn segment(env: &Arc<dyn Env>) -> SegmentRecord {
    let mut versions = Versions::new();
    for id in 0..30 {
        for seqno in [3, 8] {
            let (key, row) = small_row(id, seqno);
            versions.insert((key, Reverse(SeqNo(seqno))), Some(row));
        }
    }
    let files = Files::default();
    let store = store(env, StoreOptions::default());
    let view = store.restore(&[]).unwrap();
    let job = ColdJob {
        schema: small_table(),
        versions: MapCursor::boxed(&versions),
        newer: MapCursor::boxed(&Versions::new()),
        segments: Vec::new(),
        watermark: SeqNo(2),
        marks_through: SeqNo(8),
        next_file: &|| files.next(),
    };
    store.run(view.as_ref(), job).unwrap().segments.remove(0)
}

fn open_and_verify(env: &Arc<dyn Env>, record: &SegmentRecord) -> Result<u64, Error> {
    let store = store(env, StoreOptions::default());
    let view = store.restore(std::slice::from_ref(record))?;
    store.verify(view.as_ref())
}

fn paths(record: &SegmentRecord) -> [PathBuf; 3] {
    let dir = Path::new(DIR);
    [
        FileKind::Segment.path(dir, record.segment),
        FileKind::Keys.path(dir, record.segment),
        FileKind::Marks.path(dir, record.marks.unwrap()),
    ]
}

#[test]
fn every_byte_counts() {
    let env = mem_env();
    let record = segment(&env);
    assert_eq!(open_and_verify(&env, &record).unwrap(), 1);
    for path in paths(&record) {
        let file = env.open(&path, OpenMode::ReadWrite).unwrap();
        for offset in 0..file.len().unwrap() {
            let mut byte = [0];
            file.read_at(offset, &mut byte).unwrap();
            for damage in [1, 0x80] {
                file.write_at(offset, &[byte[0] ^ damage]).unwrap();
                match open_and_verify(&env, &record) {
                    Err(Error::Corrupt { file, .. } | Error::NewerFormat { file, .. }) => assert_eq!(file, path),
                    other => panic!("byte {offset} of {} changed: {other:?}", path.display()),
                }
            }
            file.write_at(offset, &byte).unwrap();
        }
    }
    assert_eq!(open_and_verify(&env, &record).unwrap(), 1, "all damage was undone");
}

#[test]
fn a_cut_file_is_noticed() {
    let env = mem_env();
    let record = segment(&env);
    for path in paths(&record) {
        let file = env.open(&path, OpenMode::ReadWrite).unwrap();
        let length = file.len().unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        for cut in [0, 1, length / 2, length - 1, length + 1] {
            file.set_len(cut).unwrap();
            assert!(matches!(open_and_verify(&env, &record), Err(Error::Corrupt { .. })), "cut at {cut}");
            file.set_len(length).unwrap();
            file.write_at(0, &bytes).unwrap();
        }
    }
}

/// A description that is damaged in memory or by a bug of the manifest is refused, never trusted.
#[test]
fn a_damaged_description_does_not_panic() {
    let env = mem_env();
    let record = segment(&env);
    for offset in 0..record.meta.len() {
        for damage in [1, 0x80, 0xFF] {
            let mut damaged = record.clone();
            damaged.meta[offset] ^= damage;
            drop(open_and_verify(&env, &damaged));
        }
        let mut cut = record.clone();
        cut.meta.truncate(offset);
        assert!(open_and_verify(&env, &cut).is_err(), "cut at {offset}");
    }
}

#[test]
fn a_segment_under_another_number_is_noticed() {
    let env = mem_env();
    let record = segment(&env);
    let dir = Path::new(DIR);
    let moved = strata_oltp::FileId(77);
    for kind in [FileKind::Segment, FileKind::Keys] {
        env.hard_link(&kind.path(dir, record.segment), &kind.path(dir, moved)).unwrap();
    }
    let record = SegmentRecord { segment: moved, ..record };
    assert!(matches!(open_and_verify(&env, &record), Err(Error::Corrupt { .. })));
}
