//! Proves the format (worked example, cut and flipped bytes), the group sync and the release of files, by replaying
//! what a simulated machine keeps. Crashes at every operation: `tests/crash.rs`;
//! threads that share a sync: `tests/group.rs`.

mod crash;
mod group;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::header::HEADER_BYTES;
use super::record::{self, FRAME_HEADER_BYTES, Identity};
use super::*;
use crate::env::Env;
use crate::env::sim::{Op, PowerLoss, Repeat, SimEnv};
use crate::file::FileKind;
use crate::{Error, Result, SeqNo};

const DB_ID: DbId = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const DIR: &str = "/db";

/// Files of one block of header and 512 bytes of records, so that a few records rotate.
fn small_files() -> WalOptions {
    WalOptions {
        segment_bytes: HEADER_BYTES as u64 + 512,
        fill_bytes: 0,
        spare_count_max: 1,
        buffer_bytes_max: 1 << 20,
    }
}

/// One file, growing with its records.
fn one_file() -> WalOptions {
    WalOptions { fill_bytes: 0, ..WalOptions::default() }
}

/// A replayed log: its commits, and the log open for more.
struct Opened {
    wal: Wal,
    commits: Vec<(u64, Vec<u8>)>,
    report: ReplayReport,
}

fn open(env: &SimEnv, start: Option<WalStart>, options: WalOptions) -> Result<Opened> {
    let newest = reader::list_files(env, Path::new(DIR))?.last().map_or(0, |file| file.0);
    let next = AtomicU64::new(newest + 1);
    let next_file: FileAllocator = Arc::new(move || FileId(next.fetch_add(1, Ordering::Relaxed)));
    let mut commits = Vec::new();
    let (wal, report) =
        Wal::open(Arc::new(env.clone()), Path::new(DIR), DB_ID, start, options, next_file, &mut |_, frame| {
            if frame.kind == RecordKind::Commit as u8 {
                commits.push((frame.seqno.0, frame.payload.to_vec()));
            }
            Ok(())
        })?;
    Ok(Opened { wal, commits, report })
}

/// Seqnos of the commits that a replay finds, without changing anything.
fn replayed(env: &SimEnv, start: Option<WalStart>) -> Result<(Vec<u64>, Tail)> {
    let mut seqnos = Vec::new();
    let report = replay(env, Path::new(DIR), &DB_ID, start, &mut |_, frame| {
        if frame.kind == RecordKind::Commit as u8 {
            assert_eq!(frame.payload, payload_of(frame.seqno.0));
            seqnos.push(frame.seqno.0);
        }
        Ok(())
    })?;
    Ok((seqnos, report.tail))
}

/// Differs in length and bytes from commit to commit.
fn payload_of(seqno: u64) -> Vec<u8> {
    (0..20 + seqno * 7 % 50).map(|at| (seqno * 31 + at) as u8).collect()
}

fn append(wal: &Wal, seqno: u64) -> Result<Lsn> {
    let payload = payload_of(seqno);
    let (head, rest) = payload.split_at(5);
    wal.append(RecordKind::Commit, SeqNo(seqno), &[head, rest])
}

fn append_synced(wal: &Wal, seqno: u64) -> Result<()> {
    wal.sync_to(append(wal, seqno)?)
}

fn wal_path(file: u64) -> PathBuf {
    FileKind::Wal.path(Path::new(DIR), FileId(file))
}

fn sync_count(env: &SimEnv) -> usize {
    env.op_log().iter().filter(|op| matches!(op, Op::Sync(_))).count()
}

/// A log of commits 1 to `count`, each synced on its own, not closed.
fn sample(count: u64, options: WalOptions) -> SimEnv {
    let env = SimEnv::new(1);
    let log = open(&env, None, options).expect("open");
    (1..=count).for_each(|seqno| append_synced(&log.wal, seqno).expect("append"));
    env
}

/// Bytes of the first hex example in a FORMAT.md.
pub(crate) fn hex_example(text: &str) -> Vec<u8> {
    let block = text.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("no hex example");
    let words = block.lines().flat_map(|line| line.split_whitespace().skip(1));
    words.map(|word| u8::from_str_radix(word, 16).expect("hex")).collect()
}

#[test]
fn format_example_is_what_is_written() {
    let mut frame = Vec::new();
    record::begin_frame(&mut frame, RecordKind::Commit, Lsn(256), SeqNo(5), &[b"h", b"i"]);
    record::seal_frame(Identity::new(FileKind::Wal, &DB_ID, FileId(7)), &mut frame, Lsn(256));
    assert_eq!(frame.len(), FRAME_HEADER_BYTES + 8);
    assert_eq!(frame, hex_example(include_str!("FORMAT.md")), "{frame:02x?}");
}

#[test]
fn records_come_back_in_order_after_a_clean_close() {
    let env = SimEnv::new(1);
    let log = open(&env, None, small_files()).expect("open");
    let start = log.wal.start();
    (1..=30).for_each(|seqno| append_synced(&log.wal, seqno).expect("append"));
    log.wal.close().expect("close");
    assert!(matches!(append(&log.wal, 31), Err(Error::Closed)));
    assert!(log.wal.segments().len() > 2);
    let again = open(&env.reboot(PowerLoss::DropUnsynced), Some(start), small_files()).expect("reopen");
    assert_eq!(again.report.tail, Tail::Closed);
    assert_eq!(again.commits, (1..=30).map(|seqno| (seqno, payload_of(seqno))).collect::<Vec<_>>());
    assert_eq!(again.wal.segments(), log.wal.segments());
}

#[test]
fn a_record_larger_than_a_file_gets_its_own() {
    let env = SimEnv::new(1);
    let log = open(&env, None, small_files()).expect("open");
    let large = vec![7; 5000];
    append(&log.wal, 1).expect("append");
    log.wal.append(RecordKind::Commit, SeqNo(2), &[&large]).expect("append");
    append_synced(&log.wal, 3).expect("append");
    let again = open(&env.reboot(PowerLoss::DropUnsynced), None, small_files()).expect("reopen");
    assert_eq!(again.commits, [(1, payload_of(1)), (2, large), (3, payload_of(3))]);
    assert_eq!(again.report.segments.len(), 3);
    // Its file is removed, not recycled.
    let start = again.wal.releasable(SeqNo(2)).expect("two files can go");
    again.wal.release(start).expect("release");
    assert_eq!(again.wal.spare_bytes().expect("spares"), small_files().segment_bytes);
}

#[test]
fn a_cut_of_the_newest_file_leaves_a_prefix() {
    let env = sample(6, one_file());
    let report = open(&env, None, one_file()).expect("open").report;
    let bytes = env.read_file(&wal_path(1)).expect("read");
    let mut ends = vec![HEADER_BYTES];
    for seqno in 1..=6 {
        ends.push(ends[ends.len() - 1] + record::frame_bytes(payload_of(seqno).len()));
    }
    assert_eq!(ends[6] as u64, HEADER_BYTES as u64 + report.end.0);
    for cut in 0..=ends[6] {
        env.write_file(&wal_path(1), &bytes[..cut]).expect("write");
        let result = replayed(&env, None);
        if cut < HEADER_BYTES {
            assert!(matches!(result, Err(Error::Corrupt { .. })), "cut at {cut}: {result:?}");
            continue;
        }
        let (seqnos, tail) = result.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let whole = ends.iter().filter(|&&end| end <= cut).count() as u64 - 1;
        assert_eq!(seqnos, (1..=whole).collect::<Vec<_>>(), "cut at {cut}");
        let rest = cut - ends[whole as usize];
        let expected = match rest {
            0..FRAME_HEADER_BYTES => Tail::Open,
            _ => Tail::Torn { file: wal_path(1), offset: ends[whole as usize] as u64, dropped_bytes: rest as u64 },
        };
        assert_eq!(tail, expected, "cut at {cut}");
    }
}

#[test]
fn a_hole_or_cut_in_a_proven_part_is_corruption() {
    let env = sample(6, one_file());
    let bytes = env.read_file(&wal_path(1)).expect("read");
    let proven = HEADER_BYTES + (1..=5).map(|seqno| record::frame_bytes(payload_of(seqno).len())).sum::<usize>();
    for hole in (HEADER_BYTES..proven).step_by(8) {
        let mut damaged = bytes.clone();
        damaged[hole..hole + 8].fill(0);
        if damaged == bytes {
            continue;
        }
        env.write_file(&wal_path(1), &damaged).expect("write");
        assert!(matches!(replayed(&env, None), Err(Error::Corrupt { .. })), "hole at {hole}");
    }
    let env = sample(30, small_files());
    let first_end = open(&env, None, small_files()).expect("open").report.segments[0].end_lsn;
    let bytes = env.read_file(&wal_path(1)).expect("read");
    for cut in 0..HEADER_BYTES + first_end.0 as usize {
        env.write_file(&wal_path(1), &bytes[..cut]).expect("write");
        assert!(matches!(replayed(&env, None), Err(Error::Corrupt { .. })), "older file cut at {cut}");
    }
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let env = SimEnv::new(1);
    let log = open(&env, None, small_files()).expect("open");
    (1..=7).for_each(|seqno| append_synced(&log.wal, seqno).expect("append"));
    log.wal.write_watermark().expect("watermark");
    assert_eq!(log.wal.segments().len(), 2);
    let watermark_at = log.wal.end_lsn().0 - record::frame_bytes(0) as u64;
    let mut noticed = 0;
    for info in log.wal.segments() {
        for offset in 0..info.file_bytes {
            let xor = 1 << (offset % 8);
            env.corrupt(&wal_path(info.file.0), offset, xor).expect("corrupt");
            match replayed(&env, None) {
                Ok((seqnos, _)) => {
                    assert_eq!(seqnos, (1..=7).collect::<Vec<_>>(), "{} byte {offset}", info.file);
                    let lsn = info.first_lsn.0 + offset.saturating_sub(HEADER_BYTES as u64);
                    let is_beyond = lsn >= info.end_lsn.0;
                    assert!(is_beyond || lsn >= watermark_at, "{} byte {offset} goes unnoticed", info.file);
                }
                Err(Error::Corrupt { file, .. }) => {
                    assert_eq!(file, wal_path(info.file.0));
                    noticed += 1;
                }
                Err(error) => panic!("{} byte {offset}: {error}", info.file),
            }
            env.corrupt(&wal_path(info.file.0), offset, xor).expect("restore");
        }
    }
    assert_eq!(noticed, 2 * HEADER_BYTES as u64 + watermark_at);
}

#[test]
fn damage_to_the_last_unproven_record_is_a_torn_tail() {
    let env = sample(3, one_file());
    let end = open(&env, None, one_file()).expect("open").report.end;
    env.corrupt(&wal_path(1), HEADER_BYTES as u64 + end.0 - 9, 1).expect("corrupt");
    let log = open(&env, None, one_file()).expect("open");
    assert_eq!(log.commits.len(), 2);
    assert!(matches!(log.report.tail, Tail::Torn { .. }));
    // Writing goes on in a new file, and the torn one now ends where that begins.
    append_synced(&log.wal, 3).expect("append");
    append_synced(&log.wal, 4).expect("append");
    assert_eq!(replayed(&env, None).expect("replay").0, [1, 2, 3, 4]);
    assert_eq!(log.wal.segments().len(), 2);
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let env = sample(1, one_file());
    let mut bytes = env.read_file(&wal_path(1)).expect("read");
    bytes[8] = 3;
    let checksum = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    env.write_file(&wal_path(1), &bytes).expect("write");
    assert!(matches!(replayed(&env, None), Err(Error::NewerFormat { found: 3, supported: 2, .. })));
}

#[test]
fn commit_numbers_that_do_not_rise_are_corruption() {
    let env = sample(2, one_file());
    let mut frame = Vec::new();
    let lsn = open(&env, None, one_file()).expect("open").report.end;
    record::begin_frame(&mut frame, RecordKind::Commit, lsn, SeqNo(2), &[&payload_of(2)]);
    record::seal_frame(Identity::new(FileKind::Wal, &DB_ID, FileId(1)), &mut frame, lsn);
    let mut bytes = env.read_file(&wal_path(1)).expect("read");
    bytes.truncate(HEADER_BYTES + lsn.0 as usize);
    bytes.extend_from_slice(&frame);
    env.write_file(&wal_path(1), &bytes).expect("write");
    assert!(matches!(replayed(&env, None), Err(Error::Corrupt { .. })));
}

#[test]
fn missing_and_foreign_files_are_noticed() {
    let env = sample(30, small_files());
    let segments = open(&env, None, small_files()).expect("open").report.segments;
    assert!(segments.len() >= 4);
    let start = WalStart { file: segments[1].file, lsn: segments[1].first_lsn };
    for lost in [0, 1, 2] {
        let env = env.kill();
        Env::remove(&env, &wal_path(segments[lost].file.0)).expect("remove");
        assert!(matches!(replayed(&env, None), Err(Error::Corrupt { .. })), "lost {lost}");
        // Only what the manifest says was released may be missing.
        assert_eq!(replayed(&env, Some(start)).is_ok(), lost == 0, "lost {lost}");
    }
    let other = replay(&env.kill(), Path::new(DIR), &[9; 16], None, &mut |_, _| Ok(()));
    assert!(matches!(other, Err(Error::Corrupt { .. })));
}

#[test]
fn released_files_are_recycled_and_their_old_records_never_come_back() {
    let env = SimEnv::new(1);
    let log = open(&env, None, small_files()).expect("open");
    let mut created = 0;
    for seqno in 1..=200 {
        append_synced(&log.wal, seqno).expect("append");
        log.wal.prepare_spare().expect("spare");
        if let Some(start) = log.wal.releasable(SeqNo(seqno - 1)) {
            log.wal.release(start).expect("release");
            let (seqnos, _) = replayed(&env, Some(start)).expect("replay");
            assert_eq!(seqnos.last(), Some(&seqno));
            assert!(seqnos.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqnos:?}");
        }
        assert!(env.files().len() <= 4, "{:?}", env.files());
        created = env.op_log().iter().filter(|op| matches!(op, Op::Create(_))).count();
    }
    assert!(created <= 4, "{created} files created although released ones could be reused");
    assert!(log.wal.live_bytes() <= 3 * small_files().segment_bytes);
}

#[test]
fn a_stale_record_at_the_right_place_does_not_verify() {
    let mut frame = Vec::new();
    record::begin_frame(&mut frame, RecordKind::Commit, Lsn(64), SeqNo(5), &[b"stale"]);
    record::seal_frame(Identity::new(FileKind::Wal, &DB_ID, FileId(7)), &mut frame, Lsn(0));
    let verifies = |identity, lsn| record::decode_frame(identity, &frame, lsn).is_some();
    assert!(verifies(Identity::new(FileKind::Wal, &DB_ID, FileId(7)), Lsn(64)));
    assert!(!verifies(Identity::new(FileKind::Wal, &DB_ID, FileId(8)), Lsn(64)));
    assert!(!verifies(Identity::new(FileKind::Manifest, &DB_ID, FileId(7)), Lsn(64)));
    assert!(!verifies(Identity::new(FileKind::Wal, &[1; 16], FileId(7)), Lsn(64)));
    assert!(!verifies(Identity::new(FileKind::Wal, &DB_ID, FileId(7)), Lsn(72)));
}

#[test]
fn one_sync_covers_all_that_was_appended() {
    let env = SimEnv::new(1);
    let log = open(&env, None, one_file()).expect("open");
    let first = append(&log.wal, 1).expect("append");
    let last = (2..=10).map(|seqno| append(&log.wal, seqno).expect("append")).last().expect("ten");
    let before = (env.ops(), sync_count(&env));
    assert_eq!(log.wal.durable_lsn(), Lsn(0));
    log.wal.sync_to(first).expect("sync");
    assert_eq!(log.wal.durable_lsn(), last);
    log.wal.sync_to(last).expect("nothing to do");
    assert_eq!(sync_count(&env), before.1 + 1);
    assert_eq!(env.ops(), before.0 + 3, "one write, one fill, one sync");
}

#[test]
fn threads_share_syncs_and_durability_never_goes_back() {
    let env = SimEnv::new(1);
    let log = Arc::new(open(&env, None, WalOptions { segment_bytes: 64 << 10, ..small_files() }).expect("open"));
    let order = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (log, order) = (Arc::clone(&log), Arc::clone(&order));
            std::thread::spawn(move || {
                let mut durable = Lsn(0);
                for _ in 0..250 {
                    let lsn = {
                        let mut last = order.lock().expect("order");
                        *last += 1;
                        append(&log.wal, *last).expect("append")
                    };
                    log.wal.sync_to(lsn).expect("sync");
                    let now = log.wal.durable_lsn();
                    assert!(now >= lsn && now >= durable);
                    durable = now;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("thread"));
    assert_eq!(log.wal.durable_lsn(), log.wal.end_lsn());
    assert!(sync_count(&env) <= 2000 + 2 * log.wal.segments().len());
    let (seqnos, _) = replayed(&env.reboot(PowerLoss::DropUnsynced), None).expect("replay");
    assert_eq!(seqnos, (1..=2000).collect::<Vec<_>>());
}

#[test]
fn a_failed_write_or_sync_poisons_and_is_never_retried() {
    let workload = |env: &SimEnv| {
        let log = open(env, None, small_files())?;
        let mut outcome = Ok(());
        let mut durable = 0;
        for seqno in 1..=12 {
            outcome = append_synced(&log.wal, seqno);
            match outcome {
                Ok(()) => durable = seqno,
                Err(_) => break,
            }
        }
        Ok::<_, Error>((log, durable, outcome))
    };
    let clean = SimEnv::new(1);
    workload(&clean).expect("open").2.expect("no fault");
    let mut poisoned = 0;
    for op in 0..clean.ops() {
        let env = SimEnv::new(1);
        env.fail_op(op, ErrorKind::Other, Repeat::Once);
        let Ok((log, durable, outcome)) = workload(&env) else { continue };
        assert!(matches!(outcome, Err(Error::Io { .. })), "op {op} {:?}: {outcome:?}", env.op_log()[op as usize]);
        let ops = env.ops();
        assert!(matches!(append(&log.wal, 99), Err(Error::Poisoned { .. })));
        assert!(matches!(log.wal.sync_to(log.wal.end_lsn()), Err(Error::Poisoned { .. })));
        assert!(matches!(log.wal.write_out(), Err(Error::Poisoned { .. })));
        assert!(matches!(log.wal.close(), Err(Error::Poisoned { .. })));
        assert_eq!(env.ops(), ops, "a poisoned log touches no file");
        log.wal.sync_to(log.wal.durable_lsn()).expect("what was durable stays so");
        let (seqnos, _) = replayed(&env.reboot(PowerLoss::DropUnsynced), None).expect("replay");
        assert!(seqnos.len() >= durable as usize, "op {op}: {durable} acknowledged, {seqnos:?} found");
        poisoned += 1;
    }
    assert!(poisoned > 30, "{poisoned}");
}

#[test]
fn room_is_made_by_writing_out() {
    let env = SimEnv::new(1);
    let options = WalOptions { buffer_bytes_max: 1000, ..one_file() };
    let log = open(&env, None, options).expect("open");
    for seqno in 1..=100 {
        log.wal.make_room(100).expect("room");
        append(&log.wal, seqno).expect("append");
        assert!(log.wal.buffered_bytes() <= 1000 + 120);
    }
    assert_eq!(log.wal.durable_lsn(), Lsn(0), "writing out syncs nothing");
    log.wal.write_out().expect("write");
    // What was handed to the operating system survives the end of the process.
    assert_eq!(replayed(&env.kill(), None).expect("replay").0.len(), 100);
}

#[test]
fn a_pin_keeps_the_files_of_its_time() {
    let env = SimEnv::new(1);
    let log = open(&env, None, small_files()).expect("open");
    (1..=20).for_each(|seqno| append_synced(&log.wal, seqno).expect("append"));
    let pin = log.wal.pin();
    (21..=40).for_each(|seqno| append_synced(&log.wal, seqno).expect("append"));
    assert_eq!(log.wal.releasable(SeqNo(39)), None, "all of it was there when the pin was taken, or came later");
    assert!(log.wal.bytes_since(SeqNo(38)) < log.wal.live_bytes(), "what flushing could free leaves the pinned out");
    drop(pin);
    assert!(log.wal.releasable(SeqNo(39)).is_some());
}
