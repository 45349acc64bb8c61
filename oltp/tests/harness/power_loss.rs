//! Power loss at random operations of random workloads. One run of a workload is recorded, and from the disk as it was
//! after an operation the machine is started again several ways: without anything un-synced, with all of it, with some
//! sectors, lengths and names of it, in any order. What is found then is held against the workload's history:
//!
//! * every commit acknowledged as durable, and a prefix of the others, each whole (P1, P2);
//! * each row once, by scan and by point read alike, and none by a point read alone (I6, I7);
//! * no file that the manifest does not name (I4), and no damage that `verify` finds;
//! * copies that were finished open with the rows of their moment, unfinished ones do not pass for finished;
//! * opening again, after another power loss, or one in the middle of the opening, changes nothing any more;
//! * the next commit is taken, and lasts.
//!
//! A panic is the verdict; it names the seed, and the same seed gives the same panic.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use strata_oltp::FileKind;
use strata_oltp::db::Durability;
use strata_oltp::env::Env;
use strata_oltp::env::sim::{PowerLoss, SimEnv};

use super::random::{Driver, Numbers, check_files, everything, open_at};
use super::{DIR, HYBRID, MakeTier, Rows, key, row};

/// What a case looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Disks that were opened, each differing from the others of its workload.
    pub states: u64,
    /// Crashes, some of which left a disk that was seen before.
    pub reboots: u64,
    /// Commits of the workloads.
    pub commits: u64,
}

/// The case of one seed: a workload of about `actions` actions, and about `crashes` of its operations.
pub fn case(make_tier: MakeTier, seed: u64, actions: u64, crashes: u64) -> Tally {
    let mut driver = Driver::new(seed, make_tier);
    let mut numbers = Numbers::new(!seed);
    driver.env.keep_images();
    for _ in 0..actions {
        driver.act().unwrap_or_else(|error| panic!("a sound disk: {error}"));
        if numbers.one_in(4) {
            driver.check_live().unwrap();
        }
    }
    let mut case = Case { driver, seen: HashMap::new(), tally: Tally::default() };
    let ops = case.driver.env.ops();
    for at in 0..=ops {
        if numbers.below(ops + 1) >= crashes {
            continue;
        }
        let losses: &[PowerLoss] = match case.driver.env.settled_after(at) {
            true => &[PowerLoss::DropUnsynced],
            false => &[
                PowerLoss::DropUnsynced,
                PowerLoss::KeepAll,
                PowerLoss::Random(numbers.next()),
                PowerLoss::Random(numbers.next()),
                PowerLoss::Random(numbers.next()),
            ],
        };
        for loss in losses {
            case.crash(at, *loss, &mut numbers);
        }
    }
    case.tally
}

struct Case {
    driver: Driver,
    /// What was found on each disk, by its digest.
    seen: HashMap<u64, Rows>,
    tally: Tally,
}

impl Case {
    fn crash(&mut self, ops: u64, loss: PowerLoss, numbers: &mut Numbers) {
        self.tally.reboots += 1;
        let env = self.driver.env.reboot_after(ops, loss);
        let context = format!("crash after {ops} operations, {loss:?}");
        let copies = self.whole_copies(&env, ops, &context);
        let digest = digest(&env);
        if let Some(found) = self.seen.get(&digest) {
            // The same disk may be right after one operation and wrong after a later one.
            return self.driver.check_found(found, ops);
        }
        copies.into_iter().for_each(|at| self.check_copy(&env, at, ops, &context));
        let (nested, from) = (numbers.one_in(12), env.ops());
        if nested {
            env.keep_images();
        }
        let found = self.open_and_check(&env, ops, &context);
        self.seen.insert(digest, found.clone());
        if nested {
            self.crash_while_opening(&env, from, ops, &found, numbers, &context);
        }
    }

    /// Opens the database, checks it, and most of the time does a little more to it.
    fn open_and_check(&mut self, env: &SimEnv, ops: u64, context: &str) -> Rows {
        self.tally.states += 1;
        let driver = &self.driver;
        let open = |env: &SimEnv| {
            open_at(env, Path::new(DIR), &driver.options, driver.make_tier, &Arc::default())
                .unwrap_or_else(|error| panic!("{context}: {error}"))
        };
        let db = open(env);
        let found = everything(&db.snapshot(), driver.keys).unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut expected = found.clone();
        // An earlier opening of this disk may have put it there.
        expected.remove(&key(HYBRID, 99));
        driver.check_found(&expected, ops);
        check_files(env, &db);
        db.verify().unwrap_or_else(|error| panic!("{context}: verify: {error}"));
        let mut expected = found.clone();
        if ops.is_multiple_of(4) {
            let mut transaction = db.begin().unwrap();
            transaction.put(HYBRID, key(HYBRID, 99), row(HYBRID, 99, 1)).unwrap();
            transaction.commit(Durability::Durable).unwrap();
            expected.insert(key(HYBRID, 99), row(HYBRID, 99, 1));
        }
        if ops % 4 < 2 {
            let again = env.reboot(PowerLoss::DropUnsynced);
            drop(db);
            let rows = everything(&open(&again).snapshot(), driver.keys).unwrap();
            assert_eq!(rows, expected, "{context}: it changed with the second opening");
        }
        found
    }

    /// The copies that pass for databases. A finished one must.
    fn whole_copies(&self, env: &SimEnv, ops: u64, context: &str) -> Vec<usize> {
        let mut whole = Vec::new();
        for (at, copied) in self.driver.copies.iter().enumerate().filter(|(_, copied)| copied.begun < ops) {
            let names = env.list(&copied.dir).unwrap_or_default();
            if names.iter().any(|name| matches!(FileKind::parse(name), Some((FileKind::Manifest, _)))) {
                whole.push(at);
            } else {
                assert!(copied.done.is_none_or(|done| done > ops), "{context}: a finished copy is gone");
            }
        }
        whole
    }

    fn check_copy(&self, env: &SimEnv, at: usize, ops: u64, context: &str) {
        let (driver, copied) = (&self.driver, &self.driver.copies[at]);
        let db = open_at(env, &copied.dir, &driver.options, driver.make_tier, &Arc::default())
            .unwrap_or_else(|error| panic!("{context}: {}: {error}", copied.dir.display()));
        driver.check_copy(&everything(&db.snapshot(), driver.keys).unwrap(), copied, ops);
        db.verify().unwrap_or_else(|error| panic!("{context}: verify of a copy: {error}"));
    }

    /// Power loss in the middle of the opening that found `found`, which began after `from` operations.
    fn crash_while_opening(
        &mut self,
        env: &SimEnv,
        from: u64,
        ops: u64,
        found: &Rows,
        numbers: &mut Numbers,
        context: &str,
    ) {
        let opened = env.ops();
        for _ in 0..4 {
            let at = from + numbers.below(opened - from + 1);
            let loss = numbers.pick(&[PowerLoss::DropUnsynced, PowerLoss::Random(at)]);
            let context = format!("{context}; then after {at} of {opened} operations, {loss:?}");
            self.tally.reboots += 1;
            self.open_and_check(&env.reboot_after(at, loss), ops, &context);
        }
        let rows = self.open_and_check(&env.reboot(PowerLoss::DropUnsynced), ops, context);
        assert!(found.iter().all(|(key, row)| rows.get(key) == Some(row)), "{context}: the first opening lasts");
    }
}

/// Names and bytes of a whole disk in one number.
fn digest(env: &SimEnv) -> u64 {
    let mut digest = 0u64;
    let mut mix = |word: u64| digest = (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    for (path, bytes) in env.files() {
        path.as_os_str().as_encoded_bytes().iter().for_each(|byte| mix(u64::from(*byte)));
        mix(bytes);
        for chunk in env.read_file(&path).unwrap().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(u64::from_le_bytes(word));
        }
    }
    digest
}
