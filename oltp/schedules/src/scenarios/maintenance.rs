//! Background work beside commits and readers: flush, sealing, release of the log, conversion, rewrite.

use shuttle::thread;

use super::store::{HYBRID, Store, Write, options};
use crate::Options;
use crate::db::Durability::{Buffered, Durable};
use crate::seqno::SeqNo;
use crate::wal::WalOptions;

/// One thread for each list of commits; they share no key, so none is refused.
fn committers(store: &Store, lists: &[&[(u32, &[Write])]]) -> Vec<thread::JoinHandle<()>> {
    let lists = lists.iter().map(|list| list.iter().map(|(commit, writes)| (*commit, writes.to_vec())).collect());
    let spawn = |list: Vec<(u32, Vec<Write>)>| {
        let store = store.clone();
        thread::spawn(move || {
            for (commit, writes) in list {
                let durability = if commit % 2 == 0 { Durable } else { Buffered };
                store.commit(commit, &writes, durability).unwrap();
            }
        })
    };
    lists.map(spawn).collect()
}

fn reader(store: &Store) -> thread::JoinHandle<()> {
    let store = store.clone();
    thread::spawn(move || {
        let last = store.look(SeqNo::ZERO);
        store.look(last);
    })
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A flush while commits are on their way into the memtable that it takes: none is left behind.
pub(super) fn flush() {
    let store = Store::new(options());
    let mut threads = committers(&store, &[&[(1, &[(1, true), (2, true)])], &[(2, &[(3, true)]), (3, &[(3, true)])]]);
    threads.push(reader(&store));
    let flusher = store.clone();
    threads.push(thread::spawn(move || flusher.db.flush(Some(HYBRID)).unwrap()));
    join(threads);
    store.check();
    store.db.flush(None).unwrap();
    store.check();
    store.check_reboot(options());
}

/// Every commit finds a full memtable and moves it aside, while a flush thread takes one after the other.
pub(super) fn sealing() {
    let options = Options { memtable_bytes_max: 1, ..options() };
    let store = Store::new(options.clone());
    let mut threads = committers(
        &store,
        &[&[(1, &[(1, true)]), (2, &[(1, true)])], &[(3, &[(3, true)]), (5, &[(4, true)])], &[(4, &[(5, true)])]],
    );
    let flusher = store.clone();
    threads.push(thread::spawn(move || while flusher.db.flush_step().unwrap() {}));
    join(threads);
    store.check();
    store.check_reboot(options);
}

/// Two threads flush and release the log while commits need its files, of which each group of commits has one of its own: in
/// a log of one file nothing is ever released.
pub(super) fn log_release() {
    let wal = WalOptions { segment_bytes: 4096 + 1, ..options().wal };
    let options = Options { wal, ..options() };
    let store = Store::new(options.clone());
    store.commit(100, &[(1, true), (2, true)], Buffered).unwrap();
    store.db.convert(HYBRID).unwrap();
    let mut threads = committers(&store, &[&[(2, &[(1, true)]), (4, &[(5, true)])], &[(1, &[(2, false)])]]);
    for _ in 0..2 {
        let flusher = store.clone();
        threads.push(thread::spawn(move || flusher.db.flush(None).unwrap()));
    }
    join(threads);
    store.check();
    store.check_reboot(options);
}

/// A conversion while its rows are updated and deleted: a row that moves is superseded where it is (I6).
pub(super) fn conversion() {
    let store = Store::new(options());
    store.commit(101, &[(1, true), (2, true), (3, true)], Buffered).unwrap();
    store.db.flush(Some(HYBRID)).unwrap();
    let mut threads = committers(&store, &[&[(2, &[(1, true)]), (4, &[(1, false)])], &[(1, &[(2, true), (4, true)])]]);
    threads.push(reader(&store));
    let converter = store.clone();
    threads.push(thread::spawn(move || converter.db.convert(HYBRID).unwrap()));
    join(threads);
    store.check();
    store.check_reboot(options());
}

/// A segment is rewritten while the rows in it are updated and deleted.
pub(super) fn rewrite() {
    let store = Store::new(options());
    store.commit(101, &[(1, true), (2, true), (3, true)], Buffered).unwrap();
    store.db.convert(HYBRID).unwrap();
    store.commit(103, &[(3, false)], Buffered).unwrap();
    let mut threads = committers(&store, &[&[(2, &[(1, true)])], &[(1, &[(2, true)]), (3, &[(2, false)])]]);
    threads.push(reader(&store));
    let compacter = store.clone();
    threads.push(thread::spawn(move || compacter.db.compact(HYBRID).unwrap()));
    join(threads);
    store.check();
    store.check_reboot(options());
}

/// The background threads as they run in a server, with commits that must wait for them, closed at the end. Time does not
/// pass under the scheduler, so a thread stands in for it and wakes whoever waits for a moment to pass.
pub(super) fn background() {
    let options = Options { memtable_bytes_max: 1, sealed_bytes_max: 1, ..options() };
    let store = Store::new(options.clone());
    store.db.start_background();
    let clock = {
        let inner = std::sync::Arc::downgrade(&store.db.inner);
        thread::spawn(move || {
            while let Some(inner) = inner.upgrade() {
                if inner.lock_sequencer().closed {
                    return;
                }
                inner.work.wake();
                drop(inner);
                thread::yield_now();
            }
        })
    };
    join(committers(&store, &[&[(1, &[(1, true)]), (2, &[(2, true)])], &[(3, &[(3, true)]), (4, &[(3, false)])]]));
    store.check();
    store.db.clone().close().unwrap();
    clock.join().unwrap();
    store.check_reboot(options);
}
