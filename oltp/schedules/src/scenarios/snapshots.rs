//! Snapshots beside those who ask how far back anybody still reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shuttle::thread;

use super::store::{HYBRID, Store, options};
use crate::db::Durability::Buffered;
use crate::file::FileKind;
use crate::seqno::SeqNo;

/// A watermark, once told, holds for every snapshot alive and for every later one.
pub(super) fn watermark() {
    let store = Store::new(options());
    store.commit(100, &[(1, true)], Buffered).unwrap();
    // The highest watermark told so far, and how many snapshots live at a SeqNo.
    let told: Arc<Mutex<SeqNo>> = Arc::default();
    let live: Arc<Mutex<BTreeMap<SeqNo, usize>>> = Arc::default();
    let mut threads = Vec::new();
    {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            for commit in 1..=3 {
                store.commit(commit, &[(1, true)], Buffered).unwrap();
            }
        }));
    }
    for _ in 0..2 {
        let (store, told, live) = (store.clone(), Arc::clone(&told), Arc::clone(&live));
        threads.push(thread::spawn(move || {
            for _ in 0..2 {
                let snapshot = store.db.snapshot();
                let at = snapshot.seqno();
                assert!(at >= *told.lock().unwrap(), "a snapshot below a watermark told before");
                *live.lock().unwrap().entry(at).or_default() += 1;
                thread::yield_now();
                *live.lock().unwrap().get_mut(&at).unwrap() -= 1;
                drop(snapshot);
            }
        }));
    }
    {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            for _ in 0..4 {
                let watermark = store.db.stats().watermark;
                // Those who noted themselves and have not left: they lived all through the call, or came during it and
                // had their SeqNo before.
                let live = live.lock().unwrap();
                let oldest = live.iter().find(|(_, count)| **count > 0).map(|(at, _)| *at);
                assert!(oldest.is_none_or(|oldest| watermark <= oldest), "a watermark above a live snapshot");
                let mut told = told.lock().unwrap();
                *told = (*told).max(watermark);
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(store.db.stats().snapshot_count, 0);
}

/// A snapshot shows the same rows for as long as it lives, whatever is overwritten, flushed and converted meanwhile.
pub(super) fn old_snapshot() {
    let store = Store::new(options());
    store.commit(100, &[(1, true), (2, true)], Buffered).unwrap();
    let mut threads = Vec::new();
    {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            store.commit(1, &[(1, true)], Buffered).unwrap();
            store.commit(3, &[(1, true), (2, false)], Buffered).unwrap();
        }));
    }
    {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            let snapshot = store.db.snapshot();
            let rows = store.read(&snapshot);
            for _ in 0..2 {
                assert_eq!(store.read(&snapshot), rows, "P3: a snapshot changed");
            }
        }));
    }
    {
        let store = store.clone();
        threads.push(thread::spawn(move || {
            store.db.flush(Some(HYBRID)).unwrap();
            store.db.convert(HYBRID).unwrap();
            let files = store.db.live_files();
            // The tier of these tests keeps no key index.
            for (kind, id) in files.into_iter().filter(|(kind, _)| *kind != FileKind::Keys) {
                assert!(store.disk.exists(&kind.path(&super::disk::dir(), id)), "I4: live file {kind:?} {id} is gone");
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.check();
    store.check_reboot(options());
}
