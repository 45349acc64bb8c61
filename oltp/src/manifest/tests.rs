//! Proves the bytes of edits, and that what was appended is there after any crash, on a simulated machine.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::edit::{decode_edits, encode_edits};
use super::*;
use crate::cold::{SealedMarks, SegmentRecord};
use crate::env::sim::{Op, PowerLoss, Repeat, SimEnv};
use crate::schema::TableId;
use crate::txn::history::TimeMark;
use crate::values::{ValueFileMeta, ValueShare};
use crate::wal::WalStart;
use crate::wal::tests::hex_example;

const DIR: &str = "/db";

fn run(table: u32, run: u64) -> RunMeta {
    RunMeta {
        run: FileId(run),
        table: TableId(table),
        file_bytes: 4096,
        version_count: 10,
        tombstone_count: 1,
        key_min: vec![1],
        key_max: vec![2, 3],
        seqno_min: SeqNo(run),
        seqno_max: SeqNo(run + 1),
        unique_keys: run.is_multiple_of(2),
        checksum: run * 7,
        created_ms: 9,
        values: Vec::new(),
    }
}

fn value_file(table: u32, file: u64, value_count: u64) -> ValueFileMeta {
    let (file, table, record_bytes) = (FileId(file), TableId(table), value_count * 1_000);
    let file_bytes = record_bytes + 100;
    ValueFileMeta { file, table, file_bytes, value_count, record_bytes, raw_bytes: 1, checksum: 2, created_ms: 3 }
}

fn share(file: u64, value_count: u64) -> ValueShare {
    ValueShare { file: FileId(file), value_count, record_bytes: value_count * 1_000 }
}

fn segment(table: u32, segment: u64) -> SegmentRecord {
    SegmentRecord {
        segment: FileId(segment),
        table: TableId(table),
        meta: vec![8; 3],
        marks: None,
        marks_through: SeqNo(0),
    }
}

fn open(env: &SimEnv) -> Result<(Manifest, Arc<Version>)> {
    Manifest::open(Arc::new(env.clone()), Path::new(DIR))
}

fn runs_of(version: &Version, table: u32) -> Vec<u64> {
    version.table(TableId(table)).map_or(Vec::new(), |table| table.runs.iter().map(|run| run.run.0).collect())
}

fn manifest_path(file: FileId) -> PathBuf {
    FileKind::Manifest.path(Path::new(DIR), file)
}

#[test]
fn format_example_is_what_is_written() {
    let edits = [
        Edit::FlushedThrough { table: TableId(3), seqno: SeqNo(9) },
        Edit::WalReleased(WalStart { file: FileId(7), lsn: Lsn(4096) }),
        Edit::PlaceRuns {
            table: TableId(3),
            removed: vec![FileId(9)],
            added: vec![(Place { level: 6, sorted_run: 2 }, RunMeta { key_max: vec![2], ..run(3, 9) })],
        },
        Edit::AddValueFile(ValueFileMeta { raw_bytes: 9_000, ..value_file(3, 5, 4) }),
        Edit::AddRun(RunMeta { key_max: vec![2], values: vec![share(5, 3)], ..run(3, 10) }),
        Edit::DropValueFiles { table: TableId(3), files: vec![FileId(4)] },
    ];
    let bytes = encode_edits(&edits);
    assert_eq!(bytes, hex_example(include_str!("FORMAT.md")), "{bytes:02x?}");
    assert_eq!(decode_edits(&bytes).expect("decodes"), edits);
}

#[test]
fn appended_edits_are_there_after_reopening() {
    let env = SimEnv::new(1);
    let (manifest, version) = open(&env).expect("open");
    assert_eq!(version.tables.len(), 0);
    let db_id = manifest.db_id();
    let first = manifest.next_file();
    manifest.append(&[Edit::AddRun(run(1, 50)), Edit::AddRun(run(1, 51)), Edit::AddRun(run(1, 52))]).expect("append");
    let merge = Edit::MergeRuns { table: TableId(1), removed: vec![FileId(50), FileId(51)], added: Some(run(1, 53)) };
    let version =
        manifest.append(&[merge, Edit::AddRun(run(1, 54)), Edit::AddSegment(segment(2, 60))]).expect("append");
    assert_eq!(runs_of(&version, 1), [53, 52, 54]);
    let sealed = SealedMarks { segment: FileId(60), marks: Some(FileId(61)), marks_through: SeqNo(70) };
    let version = manifest.append(&[Edit::SetMarks(sealed), Edit::LastSeqNo(SeqNo(70))]).expect("append");
    let files = [(FileKind::Segment, 60), (FileKind::Keys, 60), (FileKind::Marks, 61)];
    assert!(files.into_iter().all(|(kind, file)| version.files().contains(&(kind, FileId(file)))));
    assert_eq!(version.files().len(), 6);

    let env = env.reboot(PowerLoss::DropUnsynced);
    let (manifest, reopened) = open(&env).expect("reopen");
    assert_eq!((&reopened.tables, reopened.last_seqno), (&version.tables, SeqNo(70)));
    assert_eq!(manifest.db_id(), db_id);
    assert!(manifest.next_file() > first);
    assert_eq!(list_manifests(&env, Path::new(DIR)).expect("list").len(), 1);
}

#[test]
fn edits_that_do_not_fit_are_refused_and_change_nothing() {
    let env = SimEnv::new(1);
    let (manifest, _) = open(&env).expect("open");
    let runs = [Edit::AddRun(run(1, 50)), Edit::AddRun(run(1, 51)), Edit::AddRun(run(1, 52))];
    let before = manifest.append(&runs).expect("append");
    let table = TableId(1);
    let merge = |removed: &[u64]| Edit::MergeRuns {
        table,
        removed: removed.iter().copied().map(FileId).collect(),
        added: Some(run(1, 53)),
    };
    manifest.append(&[Edit::FlushedThrough { table: TableId(2), seqno: SeqNo(5) }]).expect("append");
    let misfits = [
        Edit::AddRun(run(1, 51)),
        Edit::RemoveRun { table, run: FileId(9) },
        Edit::RemoveSegment { table, segment: FileId(9) },
        Edit::SetMarks(SealedMarks { segment: FileId(9), marks: None, marks_through: SeqNo(1) }),
        Edit::FlushedThrough { table: TableId(2), seqno: SeqNo(4) },
        merge(&[50, 52]),
        merge(&[51, 50]),
        merge(&[]),
        Edit::AddRun(RunMeta { key_min: vec![9], ..run(1, 55) }),
        Edit::PlaceRuns { table, removed: vec![FileId(9)], added: Vec::new() },
        Edit::PlaceRuns { table, removed: Vec::new(), added: vec![(Place { level: 1, sorted_run: 1 }, run(2, 55))] },
        Edit::NextFile(FileId(0)),
    ];
    let ops = env.ops();
    for misfit in misfits {
        let result = manifest.append(&[Edit::AddRun(run(1, 60)), misfit.clone()]);
        assert!(matches!(result, Err(Error::Invalid(_))), "{misfit:?}");
        assert_eq!(manifest.version().table(table), before.table(table));
    }
    assert_eq!(env.ops(), ops);
}

#[test]
fn file_numbers_are_never_given_out_twice() {
    let env = SimEnv::new(1);
    let (manifest, _) = open(&env).expect("open");
    let used = manifest.next_file();
    manifest.append(&[]).expect("append");
    let orphan = [(); 5].map(|()| manifest.next_file())[4];
    assert!(orphan > used);
    Env::create_dir_all(&env, &Path::new(DIR).join("runs")).expect("folder");
    env.write_file(&FileKind::Run.path(Path::new(DIR), orphan), b"never recorded").expect("write");
    let (manifest, _) = open(&env.reboot(PowerLoss::DropUnsynced)).expect("open");
    assert!(manifest.next_file() > orphan);
}

#[test]
fn data_without_a_manifest_is_not_taken_for_a_new_database() {
    let env = SimEnv::new(1);
    Env::create_dir_all(&env, &Path::new(DIR).join("runs")).expect("folder");
    open(&env).expect("an empty folder is a new database");
    let env = SimEnv::new(1);
    Env::create_dir_all(&env, &Path::new(DIR).join("runs")).expect("folder");
    env.write_file(&FileKind::Run.path(Path::new(DIR), FileId(4)), b"data").expect("write");
    assert!(matches!(open(&env), Err(Error::Corrupt { .. })));
}

/// A manifest of three frames: snapshot, edits, edits; returns its length without the watermark at its end.
fn sample(env: &SimEnv) -> (FileId, u64) {
    let (manifest, _) = open(env).expect("open");
    manifest.append(&[Edit::AddRun(run(1, 50)), Edit::AddSegment(segment(2, 60))]).expect("append");
    manifest.append(&[Edit::FlushedThrough { table: TableId(1), seqno: SeqNo(51) }]).expect("append");
    let file = lock(&manifest.writer).log.file_id;
    (file, manifest.file_bytes() - record::frame_bytes(0) as u64)
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let env = SimEnv::new(1);
    let (file, proven_bytes) = sample(&env);
    let expected = load_file(&env, Path::new(DIR), file).expect("load").version;
    let bytes = env.read_file(&manifest_path(file)).expect("read").len() as u64;
    for offset in 0..bytes {
        for xor in [1, 0x80] {
            env.corrupt(&manifest_path(file), offset, xor).expect("corrupt");
            match load_file(&env, Path::new(DIR), file) {
                Ok(loaded) => {
                    assert!(offset >= proven_bytes, "byte {offset} goes unnoticed");
                    assert_eq!(loaded.version, expected, "byte {offset}");
                }
                Err(Error::Corrupt { kind: FileKind::Manifest, .. }) => {}
                Err(error) => panic!("byte {offset}: {error}"),
            }
            env.corrupt(&manifest_path(file), offset, xor).expect("restore");
        }
    }
}

#[test]
fn a_cut_leaves_a_prefix_of_the_edits_but_never_less_than_the_snapshot() {
    let env = SimEnv::new(1);
    let (file, _) = sample(&env);
    let bytes = env.read_file(&manifest_path(file)).expect("read");
    let mut counts = Vec::new();
    for cut in 0..=bytes.len() {
        env.write_file(&manifest_path(file), &bytes[..cut]).expect("write");
        match load_file(&env, Path::new(DIR), file) {
            Ok(loaded) => {
                let flushed = loaded.version.table(TableId(1)).map_or(0, |table| table.flushed_through.0);
                counts.push(runs_of(&loaded.version, 1).len() + usize::from(flushed == 51));
            }
            Err(Error::Corrupt { .. }) => assert!(counts.is_empty(), "cut at {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert!(counts.is_sorted());
    counts.dedup();
    assert_eq!(counts, [0, 1, 2]);
}

/// Opens twice and counts table 1 up; `roll_bytes` makes every few edits roll. Returns the last count acknowledged.
fn workload(env: &SimEnv, acknowledged: &mut u64) -> Result<()> {
    for _ in 0..2 {
        let (mut manifest, _) = open(env)?;
        manifest.roll_bytes = 600;
        for _ in 0..12 {
            let seqno = SeqNo(*acknowledged + 1);
            manifest.append(&[
                Edit::FlushedThrough { table: TableId(1), seqno },
                Edit::RowIds { table: TableId(1), next: seqno.0 },
            ])?;
            *acknowledged = seqno.0;
        }
    }
    Ok(())
}

fn counted(version: &Version) -> (u64, u64) {
    version.table(TableId(1)).map_or((0, 0), |table| (table.flushed_through.0, table.next_row_id))
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let clean = SimEnv::new(5);
    workload(&clean, &mut 0).expect("no fault");
    let rolls = clean.op_log().iter().filter(|op| matches!(op, Op::Rename { .. })).count();
    assert!(rolls >= 4, "{rolls}");
    for op in 0..clean.ops() {
        let env = SimEnv::new(5);
        env.crash_at(op);
        let mut acknowledged = 0;
        // A death behind the last sync goes unnoticed by the last append, rightly.
        let _ = workload(&env, &mut acknowledged);
        assert!(env.crashed());
        let losses = [PowerLoss::DropUnsynced, PowerLoss::KeepAll];
        let mut machines: Vec<SimEnv> = losses.map(|loss| env.reboot(loss)).to_vec();
        machines.extend((0..8).map(|seed| env.reboot(PowerLoss::Random(seed))));
        machines.push(env.kill());
        for (outcome, env) in machines.into_iter().enumerate() {
            let what = format!("crash at {op} {:?}, outcome {outcome}", clean.op_log()[op as usize]);
            let (manifest, version) = open(&env).unwrap_or_else(|error| panic!("{what}: {error}"));
            let (flushed, next) = counted(&version);
            assert_eq!(flushed, next, "{what}: half an append");
            assert!((acknowledged..=acknowledged + 1).contains(&flushed), "{what}: {acknowledged} became {flushed}");
            // Recovery acts on what it read, so it must survive a second power loss.
            drop(manifest);
            let env = env.reboot(PowerLoss::DropUnsynced);
            let (manifest, again) = open(&env).unwrap_or_else(|error| panic!("{what}, once more: {error}"));
            assert_eq!(counted(&again), (flushed, next), "{what}, once more");
            manifest.append(&[Edit::LastSeqNo(SeqNo(1))]).expect("append");
            assert_eq!(list_names(&env, Path::new(DIR)).expect("list").len(), 1, "{what}: files left behind");
        }
    }
}

#[test]
fn a_torn_watermark_proves_nothing_about_itself() {
    let mut aligned = 0;
    for meta_bytes in (0..512).step_by(8) {
        let env = SimEnv::new(6);
        let (manifest, _) = open(&env).expect("open");
        let record = SegmentRecord { meta: vec![1; meta_bytes], ..segment(1, 60) };
        manifest.append(&[Edit::AddSegment(record)]).expect("append");
        if !manifest.file_bytes().is_multiple_of(512) {
            continue;
        }
        // The next edit starts a sector, so a power loss can keep it and lose the unsynced watermark before it.
        aligned += 1;
        env.crash_at(env.ops() + 1);
        manifest.append(&[Edit::RowIds { table: TableId(1), next: 5 }]).expect_err("the machine died");
        // One outcome in twelve keeps the length and the last sector but not the one before it.
        for seed in 0..64 {
            let (_, version) = open(&env.reboot(PowerLoss::Random(seed))).expect("open");
            assert_eq!(version.segments().len(), 1);
        }
    }
    assert_eq!(aligned, 1);
}

#[test]
fn an_open_that_fails_loses_nothing() {
    let clean = SimEnv::new(5);
    workload(&clean, &mut 0).expect("no fault");
    for op in 0..clean.ops() {
        let env = SimEnv::new(5);
        env.fail_op(op, ErrorKind::Other, Repeat::Once);
        let mut acknowledged = 0;
        // What fails in an append that is not about to roll anyway is made good by a new file.
        let _ = workload(&env, &mut acknowledged);
        let (_, version) = open(&env.reboot(PowerLoss::DropUnsynced)).expect("open");
        assert_eq!(counted(&version).0, acknowledged, "op {op}");
    }
}

/// Appends runs one by one, each under a number of its own, so that whatever else counts is noticed. At an error `failed`
/// gets to see the machine and the runs named so far, and the next run is tried.
fn append_runs(env: &SimEnv, failed: &mut dyn FnMut(&[u64], u64)) -> Vec<u64> {
    let (mut manifest, _) = open(env).expect("open");
    manifest.roll_bytes = 300;
    let mut named = Vec::new();
    for number in 100..112 {
        match manifest.append(&[Edit::AddRun(run(1, number))]) {
            Ok(version) => {
                named.push(number);
                assert_eq!(runs_of(&version, 1), named);
            }
            Err(Error::Io { .. }) => failed(&named, number),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(runs_of(&manifest.version(), 1), named);
    }
    // The last one may be in doubt.
    env.clear_faults();
    manifest.append(&[]).expect("append");
    named
}

/// The runs on the disk after each kind of end.
fn runs_after_a_crash(env: &SimEnv) -> Vec<Vec<u64>> {
    let losses = [PowerLoss::DropUnsynced, PowerLoss::KeepAll].into_iter().chain((0..6).map(PowerLoss::Random));
    let read = |loss| runs_of(&open(&env.reboot_after(env.ops(), loss)).expect("open").1, 1);
    losses.map(read).collect()
}

#[test]
fn a_failed_write_or_sync_is_answered_by_a_new_file() {
    let clean = SimEnv::new(5);
    let (manifest, _) = open(&clean).expect("open");
    drop(manifest);
    let first = clean.ops();
    let clean = SimEnv::new(5);
    let all = append_runs(&clean, &mut |_, _| panic!("no fault"));
    let (mut lasting, mut doubtful) = (0, 0);
    for op in first..clean.ops() {
        for (kind, repeat) in [ErrorKind::Other, ErrorKind::StorageFull]
            .into_iter()
            .flat_map(|kind| [(kind, Repeat::Once), (kind, Repeat::Forever)])
        {
            let what = format!("{kind:?} {repeat:?} at {op} {:?}", clean.op_log()[op as usize]);
            let env = SimEnv::new(5);
            env.keep_images();
            env.fail_op(op, kind, repeat);
            let named = append_runs(&env, &mut |named, number| {
                lasting += 1;
                // The edit that failed may count, and nothing else.
                let with: Vec<u64> = named.iter().copied().chain([number]).collect();
                for found in runs_after_a_crash(&env) {
                    assert!(found == named || found == with, "{what}: {found:?}");
                    doubtful += u32::from(found == with);
                }
                env.clear_faults();
            });
            // One fault is made good at once, but while a new file is due anyway or was just named.
            assert!(named.len() + 1 >= all.len(), "{what}: {named:?}");
            for found in runs_after_a_crash(&env) {
                assert_eq!(found, named, "{what}");
            }
            drop(open(&env).expect("open"));
            assert_eq!(list_names(&env, Path::new(DIR)).expect("list").len(), 1, "{what}: files left behind");
        }
    }
    assert!(lasting > 40 && doubtful > 40, "{lasting} errors, {doubtful} edits that count although they failed");
}

/// The case that a new file is for: what a failed sync covered is lost although later syncs succeed.
#[test]
fn nothing_is_appended_behind_a_failed_sync() {
    let env = SimEnv::new(5);
    let (manifest, _) = open(&env).expect("open");
    manifest.append(&[Edit::AddRun(run(1, 100))]).expect("append");
    let before = manifest_path(lock(&manifest.writer).log.file_id);
    env.fail_op(env.ops() + 1, ErrorKind::Other, Repeat::Once);
    manifest.append(&[Edit::AddRun(run(1, 101))]).expect("a new file takes the edit");
    assert_ne!(manifest_path(lock(&manifest.writer).log.file_id), before);
    manifest.append(&[Edit::AddRun(run(1, 102))]).expect("append");
    let (_, version) = open(&env.reboot(PowerLoss::DropUnsynced)).expect("open");
    assert_eq!(runs_of(&version, 1), [100, 101, 102]);
}

/// Found by a fuzzer: a mark of the highest SeqNo stayed, and a snapshot of the version forgot it.
#[test]
fn without_history_there_are_no_times() {
    let mark = TimeMark { at_ms: 5, seqno: SeqNo::MAX, is_gap: false };
    let mut version = Version::default();
    version.apply(&Edit::History { kept_from: None, marks: vec![mark] }).expect("fits");
    assert_eq!(version.times.len(), 0);
    let marks = |at_ms, seqno| vec![TimeMark { at_ms, seqno: SeqNo(seqno), is_gap: false }];
    let kept_from = Some(SeqNo(1));
    version.apply(&Edit::History { kept_from, marks: marks(5, 9) }).expect("fits");
    version.apply(&Edit::History { kept_from, marks: marks(6, 8) }).expect("fits");
    assert_eq!(*version.times, marks(6, 8), "or a snapshot of the version would be refused");
    let mut bytes = encode_edits(&[Edit::History { kept_from: None, marks: Vec::new() }]);
    assert!(decode_edits(&bytes).is_some());
    // The SeqNo behind the flag, which stands for nothing.
    bytes[6] = 1;
    assert_eq!(decode_edits(&bytes), None, "or the same edit had more than one form");
}

#[test]
fn a_copy_is_a_manifest_of_that_version() {
    let env = SimEnv::new(1);
    let (manifest, _) = open(&env).expect("open");
    let version = manifest.append(&[Edit::AddRun(run(1, 50))]).expect("append");
    manifest.append(&[Edit::AddRun(run(1, 51))]).expect("append");
    Env::create_dir_all(&env, Path::new("/copy")).expect("folder");
    create(&env, Path::new("/copy"), &[7; 16], &version).expect("copy");
    let loaded = load(&env, Path::new("/copy")).expect("load").expect("is there");
    let next_file = FileId(version.next_file.0 + 1);
    assert_eq!((loaded.db_id, loaded.version), ([7; 16], Version { next_file, ..(*version).clone() }));
}

/// Shares of files 20 to 23, as a run has them: in order, each of something.
fn any_shares() -> impl Strategy<Value = Vec<ValueShare>> {
    proptest::collection::btree_map(20u64..24, 1u64..4, 0..3)
        .prop_map(|shares| shares.into_iter().map(|(file, count)| share(file, count)).collect())
}

fn any_run() -> impl Strategy<Value = RunMeta> {
    let key = || proptest::collection::vec(any::<u8>(), 0..20);
    (any::<[u64; 8]>(), any::<u32>(), key(), key(), any::<bool>(), any_shares()).prop_map(
        |(n, table, key_min, key_max, unique_keys, values)| RunMeta {
            run: FileId(n[0]),
            table: TableId(table),
            file_bytes: n[1],
            version_count: n[2],
            tombstone_count: n[3],
            key_min,
            key_max,
            seqno_min: SeqNo(n[4]),
            seqno_max: SeqNo(n[5]),
            unique_keys,
            checksum: n[6],
            created_ms: n[7],
            values,
        },
    )
}

fn any_placed() -> impl Strategy<Value = (Place, RunMeta)> {
    let place = (any::<u8>(), any::<u32>()).prop_map(|(level, sorted_run)| Place { level, sorted_run });
    (place, any_run())
}

/// Edits that fit each other often: few files of one table, with narrow key ranges, in all levels.
fn likely_edit() -> impl Strategy<Value = Edit> {
    let table = TableId(1);
    let placed = (0u8..8, 0u32..3, 1u64..12, 0u8..8, any_shares()).prop_map(|(level, sorted_run, id, key, values)| {
        (Place { level, sorted_run }, RunMeta { key_min: vec![key], key_max: vec![key + 1], values, ..run(1, id) })
    });
    let file = || (20u64..24).prop_map(FileId);
    let removed = || proptest::collection::vec((1u64..12).prop_map(FileId), 0..2);
    prop_oneof![
        (1u64..12, any_shares()).prop_map(|(id, values)| Edit::AddRun(RunMeta { values, ..run(1, id) })),
        (file(), 1u64..9).prop_map(|(file, count)| Edit::AddValueFile(value_file(1, file.0, count))),
        (file(), 1u64..9).prop_map(|(file, count)| Edit::AddValueFile(value_file(1, file.0, count))),
        file().prop_map(move |file| Edit::DropValueFiles { table, files: vec![file] }),
        (removed(), proptest::option::of(1u64..12)).prop_map(move |(removed, id)| Edit::MergeRuns {
            table,
            removed,
            added: id.map(|id| run(1, id))
        }),
        (removed(), proptest::collection::vec(placed, 0..3)).prop_map(move |(removed, added)| Edit::PlaceRuns {
            table,
            removed,
            added
        }),
    ]
}

/// Times that rise, as commits do, the highest ones among them.
fn any_times() -> impl Strategy<Value = Vec<TimeMark>> {
    let number = || prop_oneof![any::<u64>(), Just(u64::MAX)];
    proptest::collection::vec((number(), number(), any::<bool>()), 0..5).prop_map(|marks| {
        let (mut times, mut seqnos): (Vec<u64>, Vec<u64>) =
            marks.iter().map(|(at_ms, seqno, _)| (*at_ms, *seqno)).unzip();
        times.sort_unstable();
        times.dedup();
        seqnos.sort_unstable();
        let marks = times.into_iter().zip(seqnos).zip(marks);
        marks.map(|((at_ms, seqno), (.., is_gap))| TimeMark { at_ms, seqno: SeqNo(seqno), is_gap }).collect()
    })
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let table = || any::<u32>().prop_map(TableId);
    let file = || any::<u64>().prop_map(FileId);
    let marks = || proptest::option::of((1..u64::MAX).prop_map(FileId));
    let meta = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        any_run().prop_map(Edit::AddRun),
        (table(), file()).prop_map(|(table, run)| Edit::RemoveRun { table, run }),
        (table(), proptest::collection::vec(file(), 0..5), proptest::option::of(any_run()))
            .prop_map(|(table, removed, added)| Edit::MergeRuns { table, removed, added }),
        (table(), proptest::collection::vec(file(), 0..5), proptest::collection::vec(any_placed(), 0..3))
            .prop_map(|(table, removed, added)| Edit::PlaceRuns { table, removed, added }),
        (file(), table(), meta, marks(), any::<u64>()).prop_map(|(segment, table, meta, marks, through)| {
            Edit::AddSegment(SegmentRecord { segment, table, meta, marks, marks_through: SeqNo(through) })
        }),
        (table(), file()).prop_map(|(table, segment)| Edit::RemoveSegment { table, segment }),
        (file(), marks(), any::<u64>()).prop_map(|(segment, marks, through)| {
            Edit::SetMarks(SealedMarks { segment, marks, marks_through: SeqNo(through) })
        }),
        (table(), any::<u64>()).prop_map(|(table, seqno)| Edit::FlushedThrough { table, seqno: SeqNo(seqno) }),
        (table(), any::<u64>()).prop_map(|(table, next)| Edit::RowIds { table, next }),
        table().prop_map(|table| Edit::DropTable { table }),
        any::<u64>().prop_map(|seqno| Edit::LastSeqNo(SeqNo(seqno))),
        (file(), any::<u64>()).prop_map(|(file, lsn)| Edit::WalReleased(WalStart { file, lsn: Lsn(lsn) })),
        file().prop_map(Edit::NextFile),
        (proptest::option::of(any::<u64>().prop_map(SeqNo)), any_times())
            .prop_map(|(kept_from, marks)| Edit::History { kept_from, marks }),
        (any::<[u64; 7]>(), table()).prop_map(|(n, table)| Edit::AddValueFile(ValueFileMeta {
            file: FileId(n[0]),
            table,
            file_bytes: n[1],
            value_count: n[2],
            record_bytes: n[3],
            raw_bytes: n[4],
            checksum: n[5],
            created_ms: n[6],
        })),
        (table(), proptest::collection::vec(file(), 0..5))
            .prop_map(|(table, files)| Edit::DropValueFiles { table, files }),
    ]
}

proptest! {
    #[test]
    fn edits_come_back_as_they_were(edits in proptest::collection::vec(any_edit(), 0..12)) {
        let bytes = encode_edits(&edits);
        prop_assert_eq!(decode_edits(&bytes), Some(edits));
    }

    #[test]
    fn cut_edits_are_refused_and_changed_ones_never_panic(
        edits in proptest::collection::vec(any_edit(), 1..6),
        place in any::<proptest::sample::Index>(),
        xor in 1..=u8::MAX,
    ) {
        let mut bytes = encode_edits(&edits);
        let at = place.index(bytes.len());
        prop_assert_eq!(decode_edits(&bytes[..at]), None);
        bytes[at] ^= xor;
        prop_assert_ne!(decode_edits(&bytes), Some(edits));
    }

    /// What a version says of value files is what its runs refer to, whatever led there; and nothing that a run refers to
    /// is dropped.
    #[test]
    fn live_values_are_those_of_the_runs(edits in proptest::collection::vec(likely_edit(), 0..60)) {
        let mut version = Version::default();
        for edit in &edits {
            let mut next = version.clone();
            if next.apply(edit).is_ok() {
                version = next;
            }
            let Some(table) = version.table(TableId(1)) else { continue };
            let mut live: std::collections::BTreeMap<FileId, (u64, u64)> = table.values.keys().map(|id| (*id, (0, 0))).collect();
            for share in table.runs.iter().flat_map(|run| &run.values) {
                let sum = live.get_mut(&share.file).expect("the file of a reference is there");
                *sum = (sum.0 + share.value_count, sum.1 + share.record_bytes);
            }
            let said = table.values.iter().map(|(id, file)| (*id, (file.value_count, file.record_bytes)));
            prop_assert!(said.eq(live.clone()));
            prop_assert!(table.values.values().all(|file| file.record_bytes <= file.meta.record_bytes));
            let unused: Vec<FileId> = live.into_iter().filter(|(_, sum)| sum.0 == 0).map(|(id, _)| id).collect();
            let expected: Vec<Edit> = match unused.is_empty() {
                true => Vec::new(),
                false => vec![Edit::DropValueFiles { table: TableId(1), files: unused }],
            };
            prop_assert_eq!(version.drops_after(&[]), expected);
        }
    }

    #[test]
    fn a_snapshot_builds_the_same_version(
        edits in proptest::collection::vec(prop_oneof![any_edit(), likely_edit()], 0..40),
    ) {
        let mut version = Version::default();
        for edit in &edits {
            let mut next = version.clone();
            if next.apply(edit).is_ok() {
                version = next;
            }
        }
        let mut rebuilt = Version::default();
        for edit in version.snapshot() {
            prop_assert_eq!(rebuilt.apply(&edit), Ok(()));
        }
        prop_assert_eq!(rebuilt, version);
    }
}
