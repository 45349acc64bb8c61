//! The tools for closed and damaged databases, with segments: `verify` is silent on what is sound and names what is
//! damaged, `inspect` dumps anything, and `repair` makes a database that verifies, whose rows were all once written, and
//! where each row that is not as it was is covered by a reported loss.

#![allow(clippy::unwrap_used, reason = "a test panics")]

#[path = "../../oltp/tests/harness/mod.rs"]
mod harness;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use harness::salvage::{Model, files, is_deleted, remove_all};
use harness::{HYBRID, contents, key};
use strata_olap::inspect::Files;
use strata_olap::{Store, StoreOptions};
use strata_oltp::env::Env;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::inspect::{Dump, Fault, inspect, verify};
use strata_oltp::manifest::{Edit, Manifest};
use strata_oltp::repair::{Effect, Loss, RepairOptions, RepairReport, repair};
use strata_oltp::{Db, FileKind, MemoryBudget, Options};

const DIR: &str = "/db";
const NEW: &str = "/new";

fn shared(env: &SimEnv) -> Arc<dyn Env> {
    Arc::new(env.clone())
}

fn open(env: &SimEnv, dir: &str) -> Db {
    let (env, dir) = (shared(env), Path::new(dir));
    let budget = MemoryBudget::new(256 << 20);
    let options = StoreOptions { row_group_rows_max: 60, segment_rows_max: 180, ..StoreOptions::default() };
    let store = Store::new(Arc::clone(&env), dir, Arc::clone(&budget), options);
    let options = Options { idle_flush_ms: u64::MAX, ..Options::default() };
    let db = Db::open_with(env, dir, options, budget, store, None).unwrap();
    harness::register(&db);
    db
}

/// Segments of several row groups, marks sealed and still in the log, runs above them, rows that only the log has.
fn build(seed: u64) -> (SimEnv, Model) {
    let (env, mut model) = (SimEnv::new(seed), Model::default());
    let db = open(&env, DIR);
    model.write(&db, 0, 400, 1);
    db.convert(HYBRID).unwrap();
    model.write(&db, 30, 60, 2);
    db.flush(None).unwrap();
    model.write(&db, 300, 20, 3);
    db.convert(HYBRID).unwrap();
    model.write(&db, 80, 30, 4);
    db.flush(None).unwrap();
    model.write(&db, 200, 12, 5);
    db.close().unwrap();
    (env, model)
}

fn faults(env: &SimEnv, dir: &str) -> Vec<Fault> {
    verify(&shared(env), Path::new(dir), Some(&Files)).unwrap().faults
}

fn repair_and_check(env: &SimEnv, model: &Model, options: RepairOptions, what: &str) -> RepairReport {
    let report = repair(&shared(env), Path::new(DIR), Path::new(NEW), Some(&Files), options).unwrap();
    assert_eq!(faults(env, NEW), [], "{what}: {:#?}", report.losses);
    let db = open(env, NEW);
    model.check(&db, &report, what);
    db.compact(HYBRID).unwrap();
    db.close().unwrap();
    remove_all(env, NEW);
    report
}

#[test]
fn a_sound_database_has_no_fault_and_is_copied_whole() {
    let (env, model) = build(1);
    let kinds: BTreeSet<FileKind> = files(&env).into_iter().map(|file| file.0).collect();
    assert_eq!(kinds.len(), 7, "every kind of file takes part");
    assert_eq!(faults(&env, DIR), []);
    assert_eq!(repair_and_check(&env, &model, RepairOptions::default(), "sound").losses, []);
}

/// Every so many bytes of every file of a segment: verify names the file or one of its segment, inspect does not panic.
#[test]
fn damaged_segment_files_are_named_and_dumped() {
    let (env, _) = build(2);
    for (kind, path, bytes) in files(&env) {
        if !matches!(kind, FileKind::Segment | FileKind::Keys | FileKind::Marks) {
            continue;
        }
        for offset in (0..bytes).step_by(if bytes > 2_000 { 397 } else { 41 }) {
            env.corrupt(&path, offset, 0x08).unwrap();
            let found = faults(&env, DIR);
            assert!(found.iter().any(|fault| fault.file == path), "{} at {offset}: {found:?}", path.display());
            let mut lines = 0;
            let mut line = |_: &str| lines += 1;
            let mut dump = Dump::new(&mut line, true);
            inspect(&shared(&env), &path, Some(&Files), &mut dump).unwrap();
            assert!(!dump.faults().is_empty(), "{} at {offset}", path.display());
            env.corrupt(&path, offset, 0x08).unwrap();
        }
    }
    assert_eq!(faults(&env, DIR), []);
}

#[test]
fn random_damage_loses_nothing_that_is_not_reported() {
    let (env, model) = build(3);
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % (below.max(1) as u64)).unwrap()
    };
    let all = files(&env);
    let newest_log = all.iter().rfind(|(kind, ..)| *kind == FileKind::Wal).unwrap().1.clone();
    for nth in 0..60 {
        let (_, path, bytes) = &all[draw(all.len())];
        let original = env.read_file(path).unwrap();
        let mut damaged = original.clone();
        let what = match draw(6) {
            0 if *path != newest_log => "missing",
            1 => {
                damaged.truncate(draw(damaged.len()));
                "cut"
            }
            _ => {
                for _ in 0..=draw(3) {
                    let at = draw(usize::try_from(*bytes).unwrap());
                    let end = (at + 1 + draw(300)).min(damaged.len());
                    damaged[at..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
                }
                "flipped"
            }
        };
        if what == "missing" {
            env.remove(path).unwrap();
        } else {
            env.write_file(path, &damaged).unwrap();
        }
        let what = format!("{nth}: {} {what}", path.display());
        repair_and_check(&env, &model, RepairOptions { salvage_log: nth % 2 == 0 }, &what);
        env.write_file(path, &original).unwrap();
    }
}

/// The key index is made of the rows, so losing it loses nothing.
#[test]
fn a_lost_key_index_costs_no_row() {
    let (env, model) = build(4);
    for (_, path, bytes) in files(&env).into_iter().filter(|file| file.0 == FileKind::Keys) {
        let original = env.read_file(&path).unwrap();
        for offset in [30, bytes / 2, bytes - 20] {
            env.corrupt(&path, offset, 1).unwrap();
            let report = repair_and_check(&env, &model, RepairOptions::default(), "key index");
            assert!(report.is_lossless() && !report.losses.is_empty(), "{:#?}", report.losses);
            env.write_file(&path, &original).unwrap();
        }
    }
}

/// One row group of several is damaged: the others stay, and the report has its keys and rows.
#[test]
fn a_damaged_row_group_costs_its_rows_only() {
    let (env, model) = build(5);
    let (_, path, _) = files(&env).into_iter().find(|file| file.0 == FileKind::Segment).unwrap();
    let original = env.read_file(&path).unwrap();
    env.write_file(&path, &original[..original.len()]).unwrap();
    env.corrupt(&path, 10, 1).unwrap();
    let report = repair_and_check(&env, &model, RepairOptions::default(), "row group");
    let lost: Vec<&Loss> = report.losses.iter().filter(|loss| loss.effect == Effect::Lost).collect();
    assert!(
        !lost.is_empty() && lost.iter().all(|loss| loss.file == path && loss.keys.is_some() && loss.rows.is_some())
    );
}

/// What was deleted from a segment only its marks know; without them it is back, and the report says so.
#[test]
fn lost_marks_are_said_to_bring_rows_back() {
    let (env, model) = build(6);
    for (_, path, _) in files(&env).into_iter().filter(|file| file.0 == FileKind::Marks) {
        let original = env.read_file(&path).unwrap();
        env.remove(&path).unwrap();
        let report = repair_and_check(&env, &model, RepairOptions::default(), "marks");
        assert!(report.losses.iter().any(|loss| loss.effect == Effect::Reappear && loss.file == path));
        assert!(report.losses.iter().all(|loss| loss.effect != Effect::Lost));
        // What a newer version or a tombstone in a run supersedes, the run still knows.
        repair(&shared(&env), Path::new(DIR), Path::new(NEW), Some(&Files), RepairOptions::default()).unwrap();
        let db = open(&env, NEW);
        let rows = contents(&db.snapshot(), HYBRID);
        for id in 80..110 {
            let (row, expected) = (rows.get(&key(HYBRID, id)), model.rows[&HYBRID].get(&key(HYBRID, id)));
            assert_eq!(row, expected, "row {id}, {}", if is_deleted(id, 4) { "deleted" } else { "written" });
        }
        db.close().unwrap();
        remove_all(&env, NEW);
        env.write_file(&path, &original).unwrap();
    }
}

/// Two segments whose Parquet files were exchanged, and the key indexes, which would tell, are damaged: neither rows of the
/// other segment are taken, nor are row groups that the shorter file does not have passed over.
#[test]
fn exchanged_segments_that_nothing_vouches_for_are_lost_and_said() {
    let (env, model) = build(8);
    let segments: Vec<_> = files(&env).into_iter().filter(|file| file.0 == FileKind::Segment).collect();
    for (_, one, _) in &segments {
        for (_, two, _) in segments.iter().filter(|(_, two, _)| two > one) {
            let bytes = [one, two].map(|path| env.read_file(path).unwrap());
            let keys = [one, two].map(|path| (path.with_extension("keys"), 20));
            env.write_file(one, &bytes[1]).unwrap();
            env.write_file(two, &bytes[0]).unwrap();
            for (path, at) in &keys {
                let end = env.read_file(path).unwrap().len() as u64;
                (0..5).for_each(|nth| env.corrupt(path, end - at - nth * 7, 1).unwrap());
            }
            let report = repair_and_check(&env, &model, RepairOptions::default(), "exchanged");
            assert!(!report.is_lossless());
            for (path, at) in &keys {
                let end = env.read_file(path).unwrap().len() as u64;
                (0..5).for_each(|nth| env.corrupt(path, end - at - nth * 7, 1).unwrap());
            }
            env.write_file(one, &bytes[0]).unwrap();
            env.write_file(two, &bytes[1]).unwrap();
        }
    }
}

/// A manifest that forgets the marks of a segment, or brings back a run that was converted, is found out (I6, I5).
#[test]
fn rows_with_two_homes_are_found() {
    let (env, _) = build(7);
    let (manifest, version) = Manifest::open(Arc::new(env.clone()), Path::new(DIR)).unwrap();
    let marked = version.segments().into_iter().find(|record| record.marks.is_some()).unwrap();
    let table = marked.table;
    let forgetful = strata_oltp::cold::SegmentRecord { marks: None, ..marked.clone() };
    let edits = [Edit::RemoveSegment { table, segment: marked.segment }, Edit::AddSegment(forgetful)];
    manifest.append(&edits).unwrap();
    drop(manifest);
    let found = faults(&env, DIR);
    assert!(found.iter().any(|fault| fault.what.contains("is live, although")), "{found:?}");
}
