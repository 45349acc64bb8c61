//! A disk that fails: every call of a workload failing once or for good, and a disk that is full for a while.
//!
//! The workload goes on as a client would: it is told of errors, opens again what refuses writes, and keeps its books
//! ([`Driver`]). In between, and after the disk is sound again, must hold:
//!
//! * what reads return is right, or an error;
//! * an error is one of input and output or of a log that failed, never damage;
//! * after reopening, everything acknowledged as durable is there, and nothing that was refused (P1, P2);
//! * so it is after kill -9 and after power loss, and the database takes commits.
//!
//! A panic is the verdict.

use std::io::ErrorKind;

use strata_oltp::env::sim::{PowerLoss, Repeat, SimEnv};
use strata_oltp::{Error, Result};

use super::MakeTier;
use super::random::{Driver, Numbers};

/// How a call fails.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub call: u64,
    pub kind: ErrorKind,
    pub repeat: Repeat,
}

/// EIO, which has no name of its own in the standard library.
const EIO: ErrorKind = ErrorKind::Other;

/// Every way in which a call fails.
pub const FAILURES: [(ErrorKind, Repeat); 6] = [
    (EIO, Repeat::Once),
    (EIO, Repeat::Forever),
    (ErrorKind::StorageFull, Repeat::Once),
    (ErrorKind::StorageFull, Repeat::Forever),
    // A read or write that stops half-way and goes no further.
    (ErrorKind::UnexpectedEof, Repeat::Once),
    (ErrorKind::WriteZero, Repeat::Once),
];

/// What a case looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Calls that failed, or times that the disk was full.
    pub faults: u64,
    /// Errors that the workload was told of.
    pub errors: u64,
}

/// Number of calls of the workload of `seed`, all of which succeed.
pub fn call_count(make_tier: MakeTier, seed: u64, actions: u64) -> u64 {
    let mut driver = Driver::new(seed, make_tier);
    for _ in 0..actions {
        driver.act().unwrap_or_else(|error| panic!("a sound disk: {error}"));
    }
    driver.env.calls()
}

/// The workload of `seed` with one failure in it.
pub fn case(make_tier: MakeTier, seed: u64, actions: u64, failure: Failure) -> Tally {
    let mut driver = Driver::new(seed, make_tier);
    let Failure { call, kind, repeat } = failure;
    driver.env.fail_call(call, kind, repeat);
    let mut errors = 0;
    for _ in 0..actions {
        if let Err(error) = driver.act().and_then(|()| driver.check_live()) {
            expect_refusal(&error);
            errors += 1;
            if matches!(error, Error::Poisoned { .. } | Error::Closed) {
                // Closing may say once more why.
                drop(driver.close(true));
            }
        }
    }
    finish(&mut driver, seed ^ call);
    Tally { faults: 1, errors }
}

/// The workload of `seed` on a disk that fills up now and then, and is given room again.
pub fn disk_full(make_tier: MakeTier, seed: u64, rounds: u64) -> Tally {
    let mut driver = Driver::new(seed, make_tier);
    let mut numbers = Numbers::new(!seed);
    let mut tally = Tally::default();
    for _ in 0..rounds {
        for _ in 0..numbers.below(15) {
            driver.act().unwrap_or_else(|error| panic!("there is room: {error}"));
        }
        let used: u64 = driver.env.files().iter().map(|(_, bytes)| bytes).sum();
        driver.env.set_capacity_bytes(Some(used + numbers.below(12_000)));
        tally.faults += 1;
        for _ in 0..numbers.below(25) {
            if let Err(error) = driver.act().and_then(|()| driver.check_live()) {
                expect_refusal(&error);
                tally.errors += 1;
            }
        }
        if numbers.one_in(4) {
            let env = crash(&driver.env, numbers.next());
            driver.move_to(env);
        }
        driver.env.set_capacity_bytes(None);
        go_on(&mut driver);
    }
    finish(&mut driver, seed);
    tally
}

/// With room again nothing needs repair: work goes on, at most after opening again, and that only if the log failed.
fn go_on(driver: &mut Driver) {
    if let Err(error) = work(driver) {
        let is_log = |reason: &str| reason.contains("/wal/");
        let is_refusal =
            matches!(&error, Error::Closed) || matches!(&error, Error::Poisoned { reason } if is_log(reason));
        assert!(is_refusal, "with room again: {error}");
        drop(driver.close(true));
        driver.open().unwrap_or_else(|error| panic!("opening with room again: {error}"));
        work(driver).unwrap_or_else(|error| panic!("after opening with room again: {error}"));
    }
    driver.check_live().unwrap();
}

fn work(driver: &mut Driver) -> Result<()> {
    let Some(db) = driver.db.clone() else { return Err(Error::Closed) };
    driver.commit()?;
    db.flush(None)?;
    while db.step()? {}
    Ok(())
}

/// Kill -9 or power loss, by `choice`.
fn crash(env: &SimEnv, choice: u64) -> SimEnv {
    match choice % 4 {
        0 | 1 => env.kill(),
        2 => env.reboot(PowerLoss::DropUnsynced),
        _ => env.reboot(PowerLoss::Random(choice)),
    }
}

/// The next process finds everything and takes commits, and so does the one after a power loss.
fn finish(driver: &mut Driver, choice: u64) {
    driver.env.set_capacity_bytes(None);
    let env = crash(&driver.env, choice);
    driver.move_to(env);
    for second in [false, true] {
        if second {
            let env = driver.env.reboot(PowerLoss::DropUnsynced);
            driver.move_to(env);
        }
        driver.open().unwrap_or_else(|error| panic!("with a sound disk: {error}"));
        driver.check_live().unwrap();
        driver.commit().unwrap_or_else(|error| panic!("the next commit: {error}"));
        driver.check_live().unwrap();
        driver.db.as_ref().unwrap().verify().unwrap_or_else(|error| panic!("verify: {error}"));
    }
}

/// The caller was told of input and output, of a log that failed, or of a closed database.
fn expect_refusal(error: &Error) {
    assert!(
        matches!(error, Error::Io { .. } | Error::Poisoned { .. } | Error::Closed | Error::Locked { .. }),
        "a failing call became: {error:?}"
    );
}
