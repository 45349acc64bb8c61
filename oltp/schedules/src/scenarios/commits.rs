//! Committers beside readers: what may be seen when, in which order, and who is told of a failure.

use shuttle::rand::Rng;
use shuttle::{rand, thread};

use super::store::{Store, Write, options};
use crate::db::Durability::{self, Buffered, Durable};
use crate::error::Error;
use crate::seqno::SeqNo;

/// A key of its own for every commit.
fn put(store: &Store, commit: u32, durability: Durability) -> SeqNo {
    store.commit(commit, &[(commit, true)], durability).unwrap()
}

/// Looks `count` times.
fn reader(store: &Store, count: usize) -> impl FnOnce() + Send + 'static {
    let store = store.clone();
    move || {
        let mut last = SeqNo::ZERO;
        for _ in 0..count {
            last = store.look(last);
        }
    }
}

/// Runs `committers`, each a list of commits, beside a reader.
fn race(store: &Store, committers: &[&[(u32, Durability)]]) {
    let mut threads = vec![thread::spawn(reader(store, 3))];
    for commits in committers {
        let (store, commits) = (store.clone(), commits.to_vec());
        threads.push(thread::spawn(move || {
            let mut last = SeqNo::ZERO;
            for (commit, durability) in commits {
                let seqno = put(&store, commit, durability);
                assert!(seqno > last, "I2: SeqNos rise");
                last = seqno;
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Durable commits: nobody reads one that is not on the disk, none is lost, snapshots are prefixes.
pub(super) fn durable() {
    let store = Store::new(options());
    race(&store, &[&[(1, Durable), (2, Durable)], &[(3, Durable)], &[(4, Durable)]]);
    store.check();
    store.check_reboot(options());
}

/// Durable and buffered commits: the buffered ones do not let anybody see past a durable one.
pub(super) fn mixed() {
    let store = Store::new(options());
    race(&store, &[&[(1, Durable)], &[(2, Buffered), (3, Buffered)], &[(4, Buffered), (5, Durable)], &[(6, Buffered)]]);
    store.check();
    store.check_reboot(options());
}

/// A sync fails: those who wait for it are told and nobody hangs; what was acknowledged is there.
pub(super) fn failed_sync() {
    let store = Store::new(options());
    store.disk.fail_sync_after(rand::thread_rng().gen_range(0..3));
    let mut threads = vec![thread::spawn(reader(&store, 2))];
    for commits in [[(1, Durable), (2, Buffered)], [(3, Buffered), (4, Durable)], [(5, Buffered), (6, Buffered)]] {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            for (commit, durability) in commits {
                match store.commit(commit, &[(commit, true)], durability) {
                    Ok(_) | Err(Error::Io { .. } | Error::Poisoned { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.look(SeqNo::ZERO);
    store.check_survivors(options());
}

/// Several take the same key: the first to commit wins, the others are told, and nothing of theirs is seen.
pub(super) fn conflicting() {
    const KEYS: [u32; 2] = [1, 2];
    let store = Store::new(options());
    let mut threads = vec![thread::spawn(reader(&store, 3))];
    for commit in 1..=3 {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            let writes: Vec<Write> = KEYS.map(|key| (key, true)).to_vec();
            let durability = if commit == 2 { Buffered } else { Durable };
            match store.commit(commit, &writes, durability) {
                Ok(_) => true,
                Err(Error::Conflict { .. }) => false,
                Err(other) => panic!("{other}"),
            };
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.check();
    store.check_reboot(options());
}

/// The database is closed under its committers: each commit is refused, or is there afterwards.
pub(super) fn closing() {
    let store = Store::new(options());
    let mut threads = Vec::new();
    for commit in 1..=3 {
        let store = store.clone();
        let durability = if commit == 2 { Buffered } else { Durable };
        threads.push(thread::spawn(move || match store.commit(commit, &[(commit, true)], durability) {
            Ok(_) | Err(Error::Closed) => {}
            Err(other) => panic!("{other}"),
        }));
    }
    let closer = store.clone();
    threads.push(thread::spawn(move || closer.db.close().unwrap()));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.check();
    store.check_reboot(options());
}
