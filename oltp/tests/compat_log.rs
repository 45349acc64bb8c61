//! Opens the logs in `data/compat/`: proves that files of every format version written so far are still read, and that
//! the bytes of the current version have not changed unnoticed.
//!
//! The files were written by this test with `UPDATE_GOLDENFILES=1`. Once a version was released its files are only
//! ever added to: a changed byte is a new version and a new folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use strata_oltp::cold::{SealedMarks, SegmentRecord};
use strata_oltp::env::os::OsEnv;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::env::{Env, OpenMode};
use strata_oltp::manifest::{Edit, Manifest, Place, RunMeta, load};
use strata_oltp::txn::TimeMark;
use strata_oltp::values::{ValueFileMeta, ValueShare};
use strata_oltp::wal::{DbId, Lsn, RecordKind, Tail, Wal, WalOptions, WalStart, replay};
use strata_oltp::{FileId, FileKind, SeqNo, TableId};

const WAL_V1: &[u8] = include_bytes!("../../data/compat/v1/wal.bin");
const MANIFEST_V1: &[u8] = include_bytes!("../../data/compat/v1/manifest.bin");
const MANIFEST_V2: &[u8] = include_bytes!("../../data/compat/v2/manifest.bin");
const MANIFEST_V3: &[u8] = include_bytes!("../../data/compat/v3/manifest.bin");
const MANIFEST_V4: &[u8] = include_bytes!("../../data/compat/v4/manifest.bin");
const DB_ID: DbId = *b"strata compat v1";
const DIR: &str = "/db";

fn commits() -> Vec<(SeqNo, Vec<u8>)> {
    (1..=4u8).map(|seqno| (SeqNo(u64::from(seqno)), vec![seqno; 10 * usize::from(seqno)])).collect()
}

/// A log of four commits and a watermark as the current program writes it.
fn written_wal() -> Vec<u8> {
    let env = SimEnv::new(1);
    let next = AtomicU64::new(2);
    let next_file = Arc::new(move || FileId(next.fetch_add(1, Ordering::Relaxed)));
    let options = WalOptions { segment_bytes: 8192, fill_bytes: 0, ..WalOptions::default() };
    let (wal, _) =
        Wal::open(Arc::new(env.clone()), Path::new(DIR), DB_ID, None, options, next_file, &mut |_, _| Ok(()))
            .expect("works");
    for (seqno, payload) in commits() {
        let lsn = wal.append(RecordKind::Commit, seqno, &[&payload]).expect("works");
        wal.sync_to(lsn).expect("works");
    }
    wal.write_watermark().expect("works");
    env.read_file(&FileKind::Wal.path(Path::new(DIR), FileId(2))).expect("works")
}

fn edits() -> Vec<Edit> {
    let table = TableId(3);
    let run = |run: u64| RunMeta {
        run: FileId(run),
        table,
        file_bytes: 8192,
        version_count: 100,
        tombstone_count: 7,
        key_min: b"apple".to_vec(),
        key_max: b"pear".to_vec(),
        seqno_min: SeqNo(run),
        seqno_max: SeqNo(run + 9),
        unique_keys: true,
        checksum: 0x1234_5678_9abc_def0,
        created_ms: 1_700_000_000_000,
        values: Vec::new(),
    };
    let record = |segment: u64| SegmentRecord {
        segment: FileId(segment),
        table: TableId(4),
        meta: b"opaque".to_vec(),
        marks: None,
        marks_through: SeqNo(20),
    };
    vec![
        Edit::AddRun(run(10)),
        Edit::AddRun(run(20)),
        Edit::AddRun(run(30)),
        Edit::AddRun(run(40)),
        Edit::RemoveRun { table, run: FileId(40) },
        Edit::MergeRuns { table, removed: vec![FileId(10), FileId(20)], added: Some(run(50)) },
        Edit::AddSegment(record(60)),
        Edit::AddSegment(record(61)),
        Edit::RemoveSegment { table: TableId(4), segment: FileId(61) },
        Edit::SetMarks(SealedMarks { segment: FileId(60), marks: Some(FileId(62)), marks_through: SeqNo(33) }),
        Edit::FlushedThrough { table, seqno: SeqNo(59) },
        Edit::RowIds { table, next: 4096 },
        Edit::RowIds { table: TableId(5), next: 1 },
        Edit::DropTable { table: TableId(5) },
        Edit::LastSeqNo(SeqNo(59)),
        Edit::WalReleased(WalStart { file: FileId(2), lsn: Lsn(1 << 20) }),
    ]
}

/// [`edits`] and what version 2 brought: runs 30 and 50 merged into run 63 in the last level, run 20 of level 0 moved
/// above it.
fn edits_v2() -> Vec<Edit> {
    let table = TableId(3);
    let run = |edit: &Edit| match edit {
        Edit::AddRun(run) => run.clone(),
        edit => panic!("{edit:?} adds no run"),
    };
    let sample = run(&edits()[0]);
    let merged = RunMeta { run: FileId(63), seqno_max: SeqNo(59), ..sample.clone() };
    let moved = RunMeta { run: FileId(64), seqno_min: SeqNo(60), seqno_max: SeqNo(60), ..sample };
    let mut edits = edits();
    edits.extend([
        Edit::AddRun(moved.clone()),
        Edit::PlaceRuns {
            table,
            removed: vec![FileId(50), FileId(30)],
            added: vec![(Place { level: 6, sorted_run: 1 }, merged)],
        },
        Edit::PlaceRuns { table, removed: vec![FileId(64)], added: vec![(Place { level: 5, sorted_run: 3 }, moved)] },
    ]);
    edits
}

/// [`edits_v2`] and what version 3 brought: the times of commits.
fn edits_v3() -> Vec<Edit> {
    let mark = |at_ms, seqno, is_gap| TimeMark { at_ms, seqno: SeqNo(seqno), is_gap };
    let mut edits = edits_v2();
    edits.extend([
        Edit::History { kept_from: Some(SeqNo(40)), marks: vec![mark(1_700_000_000_000, 40, true)] },
        Edit::History {
            kept_from: Some(SeqNo(45)),
            marks: vec![mark(1_700_000_002_000, 44, false), mark(1_700_000_005_000, 59, false)],
        },
    ]);
    edits
}

/// [`edits_v3`] and what version 4 brought: value files. Run 65 refers to two of three, and its merge to one.
fn edits_v4() -> Vec<Edit> {
    let table = TableId(3);
    let file = |file: u64| ValueFileMeta {
        file: FileId(file),
        table,
        file_bytes: 100_100,
        value_count: 20,
        record_bytes: 100_000,
        raw_bytes: 200_000,
        checksum: 0xfedc_ba98_7654_3210,
        created_ms: 1_700_000_000_000,
    };
    let share =
        |file: u64, value_count| ValueShare { file: FileId(file), value_count, record_bytes: value_count * 5_000 };
    let sample = match &edits()[0] {
        Edit::AddRun(run) => run.clone(),
        edit => panic!("{edit:?} adds no run"),
    };
    let run = |run: u64, values| RunMeta {
        run: FileId(run),
        seqno_min: SeqNo(59),
        seqno_max: SeqNo(59),
        values,
        ..sample.clone()
    };
    let placed = (Place { level: 4, sorted_run: 1 }, run(69, vec![share(67, 7)]));
    let mut edits = edits_v3();
    edits.extend([66, 67, 68].map(|number| Edit::AddValueFile(file(number))));
    edits.extend([
        Edit::AddRun(run(65, vec![share(66, 20), share(67, 9)])),
        Edit::DropValueFiles { table, files: vec![FileId(68)] },
        Edit::PlaceRuns { table, removed: vec![FileId(65)], added: vec![placed] },
        Edit::DropValueFiles { table, files: vec![FileId(66)] },
    ]);
    edits
}

/// A manifest of number 1 with a snapshot, all kinds of edits and watermarks, as the current program writes it.
fn written_manifest() -> Vec<u8> {
    let env = SimEnv::new(1);
    let (manifest, _) = Manifest::open(Arc::new(env.clone()), Path::new(DIR)).expect("works");
    (2..70).for_each(|number| assert_eq!(manifest.next_file(), FileId(number)));
    for edit in edits_v4() {
        manifest.append(&[edit]).expect("works");
    }
    env.read_file(&FileKind::Manifest.path(Path::new(DIR), FileId(1))).expect("works")
}

fn golden(name: &str, stored: &[u8], written: &[u8]) {
    let is_update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    if is_update && stored != written {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/compat").join(name);
        let env = OsEnv::new();
        let file = env.open(&path, OpenMode::ReadWrite).expect("works");
        file.set_len(0).expect("works");
        file.write_at(0, written).expect("works");
    }
    assert!(is_update || stored == written, "{name}: the bytes of this format version changed");
}

#[test]
fn the_current_version_is_written_byte_for_byte() {
    golden("v1/wal.bin", WAL_V1, &written_wal());
}

#[test]
fn the_current_manifest_version_is_written_byte_for_byte() {
    golden("v4/manifest.bin", MANIFEST_V4, &written_manifest());
}

#[test]
fn a_version_1_log_is_replayed() {
    let env = SimEnv::new(1);
    env.create_dir_all(&Path::new(DIR).join("wal")).expect("works");
    env.write_file(&FileKind::Wal.path(Path::new(DIR), FileId(2)), WAL_V1).expect("works");
    let mut found = Vec::new();
    let report = replay(&env, Path::new(DIR), &DB_ID, None, &mut |_, frame| {
        match RecordKind::from_u8(frame.kind) {
            Some(RecordKind::Commit) => found.push((frame.seqno, frame.payload.to_vec())),
            kind => assert_eq!(kind, Some(RecordKind::Watermark)),
        }
        Ok(())
    })
    .expect("works");
    assert_eq!(found, commits());
    assert_eq!((report.tail, report.frame_count), (Tail::Open, 5));
}

#[test]
fn a_version_4_manifest_is_loaded() {
    let env = SimEnv::new(1);
    env.create_dir_all(Path::new(DIR)).expect("works");
    env.write_file(&FileKind::Manifest.path(Path::new(DIR), FileId(1)), MANIFEST_V4).expect("works");
    let version = load(&env, Path::new(DIR)).expect("works").expect("works").version;
    let live: Vec<_> = version.table(TableId(3)).expect("works").values.values().cloned().collect();
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].meta.file, live[0].meta.raw_bytes), (FileId(67), 200_000));
    assert_eq!((live[0].value_count, live[0].record_bytes, live[0].garbage_bytes()), (7, 35_000, 65_000));
}

#[test]
fn a_version_3_manifest_is_loaded() {
    let env = SimEnv::new(1);
    env.create_dir_all(Path::new(DIR)).expect("works");
    env.write_file(&FileKind::Manifest.path(Path::new(DIR), FileId(1)), MANIFEST_V3).expect("works");
    let version = load(&env, Path::new(DIR)).expect("works").expect("works").version;
    assert_eq!(version.kept_from, Some(SeqNo(45)));
    let times: Vec<_> = version.times.iter().map(|mark| (mark.at_ms, mark.seqno.0, mark.is_gap)).collect();
    assert_eq!(
        times,
        [(1_700_000_002_000, 44, false), (1_700_000_005_000, 59, false)],
        "the oldest mark was of no more use"
    );
}

#[test]
fn a_version_2_manifest_is_loaded() {
    let env = SimEnv::new(1);
    env.create_dir_all(Path::new(DIR)).expect("works");
    env.write_file(&FileKind::Manifest.path(Path::new(DIR), FileId(1)), MANIFEST_V2).expect("works");
    let version = load(&env, Path::new(DIR)).expect("works").expect("works").version;
    let placed = version.table(TableId(3)).expect("works").runs.placed();
    let placed: Vec<_> = placed.map(|(place, run)| (place.level, place.sorted_run, run.run.0)).collect();
    assert_eq!(placed, [(6, 1, 63), (5, 3, 64)]);
}

#[test]
fn a_version_1_manifest_is_loaded() {
    let env = SimEnv::new(1);
    env.create_dir_all(Path::new(DIR)).expect("works");
    env.write_file(&FileKind::Manifest.path(Path::new(DIR), FileId(1)), MANIFEST_V1).expect("works");
    let loaded = load(&env, Path::new(DIR)).expect("works").expect("works");
    let version = &loaded.version;
    assert_eq!((loaded.tail, version.last_seqno, version.next_file), (Tail::Open, SeqNo(59), FileId(70)));
    assert_eq!(version.wal_start, Some(WalStart { file: FileId(2), lsn: Lsn(1 << 20) }));
    assert_eq!(version.tables.len(), 2);
    let rows = version.table(TableId(3)).expect("works");
    assert_eq!(rows.runs.iter().map(|run| run.run.0).collect::<Vec<_>>(), [50, 30]);
    assert_eq!((rows.flushed_through, rows.next_row_id), (SeqNo(59), 4096));
    assert_eq!((rows.runs[0].key_min.as_slice(), rows.runs[0].checksum), (b"apple".as_slice(), 0x1234_5678_9abc_def0));
    let segments = version.segments();
    assert_eq!(segments.len(), 1);
    assert_eq!((segments[0].marks, segments[0].marks_through), (Some(FileId(62)), SeqNo(33)));
}
