//! Proves P1 and P2 for the log alone: a workload that rotates, writes out, releases, closes and reopens dies at each of
//! its operations in turn, and whatever the power loss leaves must replay to a prefix that holds every commit that
//! was acknowledged.

use super::*;

/// What the outside world knows when the machine dies.
#[derive(Default)]
struct Known {
    /// Every commit up to here was acknowledged as durable.
    acknowledged: u64,
    /// Every commit up to here was appended.
    appended: u64,
    /// What the manifest says about released files.
    start: Option<WalStart>,
    /// Commits up to here may have been released.
    released: u64,
}

/// Three sectors of records per file: an unsynced group then spans several sectors, of which a power loss keeps any.
fn torn_files() -> WalOptions {
    WalOptions { segment_bytes: HEADER_BYTES as u64 + 3 * 512, ..small_files() }
}

/// Opens the log twice and commits sixty times; one commit in eight waits for durability.
fn workload(env: &SimEnv, known: &mut Known) -> Result<()> {
    for _ in 0..2 {
        let log = open(env, known.start, torn_files())?;
        known.start = Some(log.wal.start());
        for _ in 0..30 {
            known.appended += 1;
            let seqno = known.appended;
            let lsn = append(&log.wal, seqno)?;
            match seqno % 8 {
                0 => {
                    log.wal.sync_to(lsn)?;
                    known.acknowledged = seqno;
                }
                3 | 6 => log.wal.write_out()?,
                _ => {}
            }
            if seqno.is_multiple_of(11) {
                log.wal.write_watermark()?;
                known.acknowledged = seqno;
            }
            if seqno.is_multiple_of(4) {
                log.wal.prepare_spare()?;
                let released = known.acknowledged.saturating_sub(5);
                if let Some(start) = log.wal.releasable(SeqNo(released)) {
                    known.start = Some(start);
                    known.released = released;
                    log.wal.release(start)?;
                }
            }
        }
        log.wal.close()?;
        known.acknowledged = known.appended;
    }
    Ok(())
}

/// Opens what the crash left, checks it, commits once more, and checks that through a second power loss.
fn check(env: &SimEnv, known: &Known, what: &str) {
    let log = open(env, known.start, torn_files()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let seqnos: Vec<u64> = log.commits.iter().map(|(seqno, _)| *seqno).collect();
    let last = seqnos.last().copied().unwrap_or(known.released);
    assert!(seqnos.windows(2).all(|pair| pair[1] == pair[0] + 1), "{what}: a hole in {seqnos:?}");
    assert!(seqnos.first().is_none_or(|&first| first <= known.released + 1), "{what}: {seqnos:?} starts too late");
    assert!(last >= known.acknowledged, "{what}: commit {} lost, {seqnos:?} found", known.acknowledged);
    assert!(last <= known.appended, "{what}: {seqnos:?}");
    assert!(log.commits.iter().all(|(seqno, payload)| *payload == payload_of(*seqno)), "{what}");
    // What was replayed may be acted on: it must survive even if nothing is ever written again.
    let again = open(&env.reboot(PowerLoss::DropUnsynced), known.start, torn_files());
    let again = again.unwrap_or_else(|error| panic!("{what}, once more: {error}"));
    assert_eq!(again.commits, log.commits, "{what}, once more");
}

/// The same, for a process that goes on committing.
fn check_going_on(env: &SimEnv, known: &Known, what: &str) {
    let log = open(env, known.start, torn_files()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let next = log.report.last_seqno.0.max(known.released) + 1;
    append_synced(&log.wal, next).expect("append");
    append_synced(&log.wal, next + 1).expect("append");
    let env = env.reboot(PowerLoss::DropUnsynced);
    let again = open(&env, known.start, torn_files()).unwrap_or_else(|error| panic!("{what}, going on: {error}"));
    assert_eq!(again.commits.len(), log.commits.len() + 2, "{what}, going on");
}

#[test]
fn a_crash_at_every_operation_loses_nothing_acknowledged() {
    let clean = SimEnv::new(3);
    workload(&clean, &mut Known::default()).expect("no fault");
    assert!(clean.ops() > 60, "{}", clean.ops());
    for op in 0..clean.ops() {
        let env = SimEnv::new(3);
        env.crash_at(op);
        let mut known = Known::default();
        workload(&env, &mut known).expect_err("the machine died");
        let losses = [PowerLoss::DropUnsynced, PowerLoss::KeepAll];
        for loss in losses.into_iter().chain((0..10).map(PowerLoss::Random)) {
            let what = format!("crash at {op} {:?}, {loss:?}", env.op_log()[op as usize]);
            check(&env.reboot(loss), &known, &what);
            check_going_on(&env.reboot(loss), &known, &what);
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_even_if_the_power_fails_later() {
    let clean = SimEnv::new(4);
    workload(&clean, &mut Known::default()).expect("no fault");
    for op in 0..clean.ops() {
        let env = SimEnv::new(4);
        env.crash_at(op);
        let mut known = Known::default();
        workload(&env, &mut known).expect_err("the machine died");
        let what = format!("killed at {op} {:?}", env.op_log()[op as usize]);
        check(&env.kill(), &known, &what);
        check_going_on(&env.kill(), &known, &what);
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_by_the_next_open() {
    let env = SimEnv::new(5);
    let log = open(&env, None, torn_files()).expect("open");
    append_synced(&log.wal, 1).expect("append");
    append(&log.wal, 2).expect("append");
    log.wal.write_out().expect("write");
    env.fail_op(env.ops(), ErrorKind::Other, Repeat::Once);
    assert!(log.wal.sync_to(log.wal.end_lsn()).is_err());
    // The page cache still shows commit 2, and a second sync would succeed without writing it.
    let env = env.kill();
    let log = open(&env, None, torn_files()).expect("open");
    assert_eq!(log.commits.len(), 2);
    assert_eq!(replayed(&env.reboot(PowerLoss::DropUnsynced), None).expect("replay").0, [1, 2]);
}
