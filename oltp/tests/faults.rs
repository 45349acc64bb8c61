//! Failing calls and full disks; see `harness/faults.rs`. All calls of 50 workloads, by hand:
//! `cargo run --release -p strata-reliability -- syscall-faults`, and `-- disk-full`.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod harness;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use harness::faults::{FAILURES, Failure, call_count, case, disk_full};
use harness::random::{Numbers, check_files, open_at};
use harness::row_tier::RowTier;
use harness::{DIR, HYBRID, ROW, Rows, SHORT_LIVED, contents, key, row, schema, small_log};
use strata_oltp::db::Durability;
use strata_oltp::env::sim::{Op, PowerLoss, Repeat, SimEnv};
use strata_oltp::schema::StorageKind;
use strata_oltp::{Db, Error, FileKind, Options, Result, TableId};

const ACTIONS: u64 = 30;

/// Some calls of some workloads, each failing in one of the ways.
#[test]
fn a_failing_call_loses_nothing() {
    let mut numbers = Numbers::new(1);
    let mut errors = 0;
    for seed in 0..10 {
        let calls = call_count(RowTier::make, seed, ACTIONS);
        for _ in 0..40 {
            let (kind, repeat) = numbers.pick(&FAILURES);
            errors += case(RowTier::make, seed, ACTIONS, Failure { call: numbers.below(calls), kind, repeat }).errors;
        }
    }
    assert!(errors > 400, "{errors} errors: the faults do not reach the workload");
}

#[test]
fn a_full_disk_needs_no_repair() {
    let mut errors = 0;
    for seed in 0..40 {
        errors += disk_full(RowTier::make, seed, 4).errors;
    }
    assert!(errors > 100, "{errors} errors: the disk was never full");
}

/// A new database whose first open fails at any of its calls, opened again: what it then acknowledges survives power
/// loss. The second open must not rely on names that the first one did not get to sync.
#[test]
fn an_open_that_failed_leaves_nothing_to_rely_on() {
    let options = Options { wal: small_log(), ..Options::default() };
    let open = |env: &SimEnv| open_at(env, Path::new(DIR), &options, RowTier::make, &Arc::default());
    let env = SimEnv::new(1);
    drop(open(&env).unwrap());
    for call in 0..env.calls() {
        let env = SimEnv::new(1);
        env.fail_call(call, ErrorKind::Other, Repeat::Once);
        drop(open(&env));
        let db = open(&env).unwrap_or_else(|error| panic!("after call {call} failed: {error}"));
        let mut transaction = db.begin().unwrap();
        transaction.put(ROW, key(ROW, 1), row(ROW, 1, 1)).unwrap();
        transaction.commit(Durability::Durable).unwrap();
        let env = env.reboot(PowerLoss::DropUnsynced);
        let db = open(&env).unwrap_or_else(|error| panic!("after call {call} failed, and power loss: {error}"));
        assert_eq!(contents(&db.snapshot(), ROW).len(), 1, "after call {call} failed");
    }
}

/// A script of all that writes to the manifest, its steps repeated when they fail.
struct Script {
    env: SimEnv,
    db: Db,
    rows: Rows,
    amount: i64,
    fault_at: u64,
}

type Step = fn(&Db) -> Result<()>;

/// Background work between commits to both tables, each of which supersedes rows wherever they lie by then.
const STEPS: [Step; 14] = [
    |db| db.flush(None),
    |db| db.allocate_row_ids(HYBRID, 2).map(drop),
    |db| db.flush(Some(ROW)),
    |db| db.merge_runs(ROW),
    |db| db.convert(HYBRID),
    |db| db.flush(Some(HYBRID)),
    |db| db.drop_table(SHORT_LIVED),
    |db| db.convert(HYBRID),
    |db| db.flush(None),
    |db| db.compact(HYBRID),
    |db| db.merge_runs(ROW),
    |db| db.flush(None),
    |db| db.compact(HYBRID),
    |db| db.step().map(drop),
];

impl Script {
    fn new() -> Script {
        let env = SimEnv::new(9);
        let db = open_at(&env, Path::new(DIR), &Script::options(), RowTier::make, &Arc::default()).unwrap();
        db.register_table(schema(SHORT_LIVED), StorageKind::Hybrid);
        Script { env, db, rows: Rows::new(), amount: 0, fault_at: u64::MAX }
    }

    /// A log of one file that never grows, so that a full disk stops everything but commits.
    fn options() -> Options {
        Options { retention_ms: 0, idle_flush_ms: u64::MAX, ..Options::default() }
    }

    fn commit(&mut self) {
        let mut transaction = self.db.begin().unwrap();
        for table in [HYBRID, ROW] {
            for id in 0..8 {
                if (self.amount + i64::from(id)) % 3 == 0 {
                    continue;
                }
                let (key, row) = (key(table, id), row(table, id, self.amount));
                transaction.put(table, key.clone(), row.clone()).unwrap();
                self.rows.insert(key, row);
            }
            self.amount += 1;
        }
        transaction.commit(Durability::Durable).unwrap();
    }

    /// Plays it to the end. `failed` is called after a commit that follows a step which failed, which is then repeated.
    fn play(&mut self, failed: &mut dyn FnMut(&Script, &Error)) {
        for step in STEPS {
            self.commit();
            if let Err(error) = step(&self.db) {
                assert!(matches!(error, Error::Io { .. }), "{error:?}");
                self.env.clear_faults();
                self.commit();
                failed(self, &error);
                step(&self.db).unwrap_or_else(|error| panic!("with room again: {error:?}"));
            }
            if self.env.ops() > self.fault_at {
                self.env.clear_faults();
            }
            self.check(&self.db);
        }
        self.commit();
    }

    fn check(&self, db: &Db) {
        let of = |table: TableId| -> Rows {
            self.rows
                .iter()
                .filter(|(key, _)| key.starts_with(&table.0.to_be_bytes()))
                .map(|(k, r)| (k.clone(), r.clone()))
                .collect()
        };
        for table in [HYBRID, ROW] {
            assert_eq!(contents(&db.snapshot(), table), of(table));
        }
    }

    /// No file stays behind but one whose removal failed.
    fn check_nothing_left(&self) {
        let (live, ops) = (self.db.live_files(), self.env.op_log());
        for (path, _) in self.env.files() {
            let file = FileKind::parse(&path.file_name().unwrap().to_string_lossy());
            if let Some((FileKind::Run | FileKind::Segment | FileKind::Keys | FileKind::Marks, _)) = file {
                let is_known = live.contains(&file.unwrap()) || ops.contains(&Op::Remove(path.clone()));
                assert!(is_known, "left behind: {}", path.display());
            }
        }
    }

    /// Whatever is left of the disk after a power loss now holds every commit.
    fn check_disk(&self) {
        for loss in [PowerLoss::DropUnsynced, PowerLoss::KeepAll, PowerLoss::Random(1)] {
            let env = self.env.reboot_after(self.env.ops(), loss);
            let db = open_at(&env, Path::new(DIR), &Script::options(), RowTier::make, &Arc::default())
                .unwrap_or_else(|error| panic!("{loss:?}: {error}"));
            self.check(&db);
            db.verify().unwrap();
            check_files(&env, &db);
        }
    }
}

/// A disk that is full, or fails, at any operation on anything but the log, then not any more: the step that met it goes
/// through when repeated, nothing is opened again, no file is left behind, and a power loss at any time takes nothing.
#[test]
fn a_disk_that_was_full_for_a_moment_is_no_reason_to_reopen() {
    let mut clean = Script::new();
    let first = clean.env.ops() as usize;
    clean.play(&mut |_, error| panic!("a sound disk: {error}"));
    let ops = clean.env.op_log();
    let (mut manifest_ops, mut failures) = (0, 0);
    for (at, op) in ops.iter().enumerate().skip(first).filter(|(_, op)| !format!("{op:?}").contains("/wal")) {
        let of_manifest = format!("{op:?}").contains("manifest-");
        manifest_ops += u32::from(of_manifest);
        for (kind, repeat) in [(ErrorKind::StorageFull, Repeat::Forever), (ErrorKind::Other, Repeat::Once)] {
            let mut script = Script::new();
            script.env.keep_images();
            script.fault_at = at as u64;
            script.env.fail_op(script.fault_at, kind, repeat);
            script.play(&mut |script, error| {
                failures += 1;
                // One failure is made good at once.
                assert!(!of_manifest || repeat == Repeat::Forever, "{op:?}: {error}");
                script.check_disk();
            });
            script.check_disk();
            script.check_nothing_left();
        }
    }
    assert!(manifest_ops > 60 && failures > 150, "{manifest_ops} operations on the manifest, {failures} steps failed");
}
