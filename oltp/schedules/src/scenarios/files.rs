//! `Views` by themselves: no file goes while a view names it, and layout and read point belong together.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use shuttle::thread;

use crate::cold::{ColdView, Location};
use crate::error::Result;
use crate::file::{FileId, FileKind};
use crate::schema::{TableId, TableSchema};
use crate::seqno::SeqNo;
use crate::view::{ReadView, Views};

/// A view that names one file, and knows the newest commit when it was made.
struct Layout {
    file: FileId,
    made_at: SeqNo,
}

impl ColdView for Layout {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn locate(&self, _: TableId, _: &[u8], _: SeqNo) -> Result<Option<(Location, SeqNo)>> {
        Ok(None)
    }

    fn read_row(&self, _: &TableSchema, _: Location) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn scan_keys(&self, _: TableId, _: Range<&[u8]>, _: SeqNo) -> Result<Vec<(Vec<u8>, Location)>> {
        Ok(Vec::new())
    }

    fn segments(&self, _: TableId) -> Vec<FileId> {
        Vec::new()
    }

    fn key_range(&self, _: FileId) -> Option<(Vec<u8>, Vec<u8>)> {
        None
    }
}

fn layout(view: &ReadView) -> &Layout {
    view.cold().as_any().downcast_ref().unwrap()
}

fn views() -> Arc<Views> {
    let first = Layout { file: FileId(0), made_at: SeqNo::ZERO };
    Arc::new(Views::new(BTreeMap::new(), Arc::new(first), SeqNo::ZERO))
}

fn install(views: &Views, file: u64, made_at: SeqNo) {
    let next = Layout { file: FileId(file), made_at };
    views.install(BTreeMap::new(), Arc::new(next), vec![(FileKind::Run, FileId(file - 1))]);
}

/// Readers hold views for a while; files are collected meanwhile. Each goes once, and in the end all go that no longer
/// count.
pub(super) fn old_files() {
    const INSTALLS: u64 = 4;
    let views = views();
    let removed: Arc<Mutex<BTreeSet<FileId>>> = Arc::default();
    let collect = {
        let (views, removed) = (Arc::clone(&views), Arc::clone(&removed));
        move || {
            for (_, file) in views.collect() {
                assert!(removed.lock().unwrap().insert(file), "handed back twice");
            }
        }
    };
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (views, removed) = (Arc::clone(&views), Arc::clone(&removed));
        threads.push(thread::spawn(move || {
            for _ in 0..3 {
                let held = views.load();
                for _ in 0..2 {
                    let gone = removed.lock().unwrap().contains(&layout(&held).file);
                    assert!(!gone, "I4: a file went while a view names it");
                    thread::yield_now();
                }
            }
        }));
    }
    {
        let (views, collect) = (Arc::clone(&views), collect.clone());
        threads.push(thread::spawn(move || {
            for file in 1..=INSTALLS {
                install(&views, file, SeqNo::ZERO);
                collect();
            }
        }));
    }
    let collector = collect.clone();
    threads.push(thread::spawn(move || (0..3).for_each(|_| collector())));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    collect();
    assert_eq!(removed.lock().unwrap().len() as u64, INSTALLS, "what no view names goes");
}

/// Publications and installs take turns, as inside the commit mutex; readers without a lock never see a layout with a read
/// point from after it was replaced, nor from before it was made.
pub(super) fn read_view() {
    let views = views();
    let replaced: Arc<Mutex<BTreeMap<FileId, SeqNo>>> = Arc::default();
    let commits = Arc::new(shuttle::sync::Mutex::new(SeqNo::ZERO));
    let mut threads = Vec::new();
    {
        let (views, commits) = (Arc::clone(&views), Arc::clone(&commits));
        threads.push(thread::spawn(move || {
            for _ in 0..4 {
                let mut last = commits.lock().unwrap();
                *last = last.next();
                views.publish(*last);
            }
        }));
    }
    {
        let (views, replaced) = (Arc::clone(&views), Arc::clone(&replaced));
        threads.push(thread::spawn(move || {
            for file in 1..=3 {
                let last = commits.lock().unwrap();
                replaced.lock().unwrap().insert(FileId(file - 1), *last);
                install(&views, file, *last);
            }
        }));
    }
    for _ in 0..2 {
        let (views, replaced) = (Arc::clone(&views), Arc::clone(&replaced));
        threads.push(thread::spawn(move || {
            let mut last = SeqNo::ZERO;
            for _ in 0..4 {
                let view = views.load();
                let at = view.read_point();
                assert!(at >= last, "I2: the read point went back");
                assert!(at >= layout(&view).made_at, "a layout newer than its read point");
                let frozen = replaced.lock().unwrap().get(&layout(&view).file).copied();
                assert!(frozen.is_none_or(|frozen| at <= frozen), "a replaced layout with a newer read point");
                last = at;
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
