//! Proves that the cold tier keeps its contract: whatever the order of commits, flushes, conversions, rewrites, seals
//! and restarts, every snapshot that may still be open reads exactly the naive answer, each key from one place.
//!
//! A proptest state machine drives a row store in miniature. A conversion is split in two steps, so that commits fall
//! between its run and its install; snapshots hold the watermark down, and a restart replays the log.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

mod harness;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use harness::{Files, MapCursor, Versions, mem_env, small_options, small_row, small_table, store};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use strata_olap::convert::batch::BatchEncoder;
use strata_olap::{ColdState, GroupAccess, Segment, Store};
use strata_oltp::cold::{ColdJob, ColdOutput, SegmentRecord};
use strata_oltp::env::Env;
use strata_oltp::key::table_range;
use strata_oltp::{ColdTier, ColdView, FileId, Location, SeqNo, TableSchema};

const KEYS: i64 = 12;

#[derive(Clone, Debug)]
enum Step {
    /// Puts (true) or deletes of keys, in one commit.
    Commit(Vec<(i64, bool)>),
    Flush,
    /// Starts a job over the given number of oldest runs and the segments chosen by the mask.
    Start {
        runs: usize,
        segments: u32,
    },
    Install,
    /// Opens a snapshot at the newest commit.
    Hold,
    /// Closes the oldest snapshot.
    Release,
    Seal,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((0..KEYS, prop::bool::weighted(0.75)), 1..5).prop_map(Step::Commit),
        4 => Just(Step::Flush),
        4 => (0..5_usize, any::<u32>()).prop_map(|(runs, segments)| Step::Start { runs, segments }),
        4 => Just(Step::Install),
        1 => Just(Step::Hold),
        1 => Just(Step::Release),
        1 => Just(Step::Seal),
        1 => Just(Step::Restart),
    ]
}

struct RunningJob {
    output: ColdOutput,
    runs: usize,
    superseded: Vec<(Vec<u8>, SeqNo)>,
}

struct World {
    env: Arc<dyn Env>,
    schema: Arc<TableSchema>,
    store: Arc<Store>,
    view: Arc<dyn ColdView>,
    files: Files,
    records: BTreeMap<FileId, SegmentRecord>,
    memtable: Versions,
    runs: Vec<Versions>,
    /// Every version ever committed: the log and the oracle.
    history: Versions,
    last: SeqNo,
    held: BTreeSet<SeqNo>,
    /// Where the watermark was when a job last used it: snapshots below are gone for good.
    floor: SeqNo,
    job: Option<RunningJob>,
}

impl World {
    fn new() -> World {
        let env = mem_env();
        let store = store(&env, small_options());
        let view = store.restore(&[]).unwrap();
        World {
            env,
            schema: small_table(),
            store,
            view,
            files: Files::default(),
            records: BTreeMap::new(),
            memtable: Versions::new(),
            runs: Vec::new(),
            history: Versions::new(),
            last: SeqNo::ZERO,
            held: BTreeSet::new(),
            floor: SeqNo::ZERO,
            job: None,
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Commit(writes) => self.commit(writes),
            Step::Flush => {
                if !self.memtable.is_empty() {
                    self.runs.push(std::mem::take(&mut self.memtable));
                }
            }
            Step::Start { runs, segments } => self.start(*runs, *segments),
            Step::Install => self.install(),
            Step::Hold => {
                self.held.insert(self.last);
            }
            Step::Release => {
                self.held.pop_first();
            }
            Step::Seal => self.seal(),
            Step::Restart => self.restart(),
        }
    }

    fn commit(&mut self, writes: &[(i64, bool)]) {
        self.last = self.last.next();
        let seqno = self.last;
        let mut writes: BTreeMap<i64, bool> = writes.iter().copied().collect();
        while let Some((id, is_put)) = writes.pop_first() {
            let (key, row) = small_row(id, seqno.0);
            if let Some((location, _)) = self.view.locate(self.schema.table, &key, SeqNo::MAX).unwrap() {
                self.store.mark(self.view.as_ref(), location, seqno);
            }
            let row = is_put.then_some(row);
            self.memtable.insert((key.clone(), Reverse(seqno)), row.clone());
            self.history.insert((key.clone(), Reverse(seqno)), row);
            if let Some(job) = &mut self.job {
                job.superseded.push((key, seqno));
            }
        }
    }

    fn watermark(&self) -> SeqNo {
        self.held.first().copied().unwrap_or(self.last)
    }

    fn start(&mut self, run_count: usize, segment_mask: u32) {
        if self.job.is_some() {
            return;
        }
        let run_count = run_count.min(self.runs.len());
        let ids = self.view.segments(self.schema.table);
        let chosen = ids.iter().enumerate().filter(|(at, _)| segment_mask >> (at % 32) & 1 == 1).map(|(_, id)| *id);
        let segments: Vec<FileId> = chosen.collect();
        if run_count == 0 && segments.is_empty() {
            return;
        }
        let merged = |parts: &[Versions]| parts.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let versions: Versions = merged(&self.runs[..run_count]);
        let mut newer: Versions = merged(&self.runs[run_count..]);
        newer.extend(self.memtable.clone());
        self.floor = self.floor.max(self.watermark());
        let job = ColdJob {
            schema: Arc::clone(&self.schema),
            versions: MapCursor::boxed(&versions),
            newer: MapCursor::boxed(&newer),
            segments,
            watermark: self.watermark(),
            marks_through: self.last,
            next_file: &|| self.files.next(),
        };
        let output = self.store.run(self.view.as_ref(), job).unwrap();
        self.job = Some(RunningJob { output, runs: run_count, superseded: Vec::new() });
    }

    fn install(&mut self) {
        let Some(job) = self.job.take() else { return };
        let marks = self.store.translate(&job.output, &job.superseded).unwrap();
        job.output.replaced.iter().for_each(|id| drop(self.records.remove(id)));
        self.records.extend(job.output.segments.iter().map(|record| (record.segment, record.clone())));
        self.view = self.store.install(self.view.as_ref(), job.output, &marks);
        self.runs.drain(..job.runs);
    }

    fn seal(&mut self) {
        for sealed in self.store.seal(self.view.as_ref(), self.schema.table, self.last, &|| self.files.next()).unwrap()
        {
            let record = self.records.get_mut(&sealed.segment).unwrap();
            record.marks = sealed.marks;
            record.marks_through = sealed.marks_through;
        }
    }

    fn restart(&mut self) {
        self.job = None;
        self.held.clear();
        // What a snapshot saw before the restart is not promised after it; the log replays marks in commit order.
        self.floor = self.floor.max(self.last);
        self.store = store(&self.env, small_options());
        let records: Vec<SegmentRecord> = self.records.values().cloned().collect();
        self.view = self.store.restore(&records).unwrap();
        let mut log: Vec<(SeqNo, &Vec<u8>)> = self.history.keys().map(|(key, seqno)| (seqno.0, key)).collect();
        log.sort_unstable();
        for _ in 0..2 {
            for (seqno, key) in &log {
                self.store.replay_mark(self.view.as_ref(), key, *seqno).unwrap();
            }
        }
    }

    /// The rows a snapshot at `at` must see.
    fn oracle(&self, at: SeqNo) -> BTreeMap<Vec<u8>, Vec<u8>> {
        newest_at(&self.history, at).into_iter().filter_map(|(key, row)| Some((key, row?))).collect()
    }

    fn check(&self) {
        let mut snapshots: Vec<SeqNo> = self.held.iter().copied().filter(|&at| at >= self.floor).collect();
        snapshots.extend([self.watermark(), self.last]);
        for at in snapshots {
            self.check_at(at);
        }
    }

    fn check_at(&self, at: SeqNo) {
        let expected = self.oracle(at);
        let mut rows: Versions = self.runs.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        rows.extend(self.memtable.clone());
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> =
            newest_at(&rows, at).into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
        let state = ColdState::of(self.view.as_ref());
        let mut cold: BTreeMap<Vec<u8>, Location> = BTreeMap::new();
        for segment in state.table(self.schema.table).segments() {
            for (position, key, row) in visible_rows(segment, &self.schema, at) {
                assert_eq!(found.insert(key.clone(), row), None, "a key has two homes at {at}");
                cold.insert(key, Location { segment: segment.id(), position });
            }
        }
        assert_eq!(found, expected, "rows at {at}");
        let range = table_range(self.schema.table);
        let scanned = self.view.scan_keys(self.schema.table, range.start.as_slice()..range.end.as_slice(), at).unwrap();
        assert_eq!(scanned, cold.iter().map(|(key, at)| (key.clone(), *at)).collect::<Vec<_>>());
        for id in -1..=KEYS {
            let (key, _) = small_row(id, 1);
            let located = self.view.locate(self.schema.table, &key, at).unwrap();
            assert_eq!(located.map(|(location, _)| location), cold.get(&key).copied(), "location of {id} at {at}");
            if let Some((location, _)) = located {
                assert_eq!(self.view.read_row(&self.schema, location).unwrap(), expected[&key]);
            }
        }
    }
}

fn newest_at(versions: &Versions, at: SeqNo) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let mut newest = BTreeMap::new();
    for ((key, seqno), row) in versions.iter().filter(|((_, seqno), _)| seqno.0 <= at) {
        let _ = seqno;
        newest.entry(key.clone()).or_insert_with(|| row.clone());
    }
    newest
}

/// Position, key and row of what a scan of `segment` would return, through selections and decoded columns; checks on
/// the way that hiding some positions more hides exactly those.
fn visible_rows(segment: &Segment, schema: &Arc<TableSchema>, at: SeqNo) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
    let columns: Vec<usize> = (0..schema.columns.len()).collect();
    let hidden: RoaringBitmap = (0..segment.row_count()).filter(|position| position % 3 == 1).collect();
    let mut rows = Vec::new();
    for group in 0..segment.row_group_count() {
        let arrays: Vec<_> = segment.cached_columns(group, &columns).unwrap().into_iter().map(Some).collect();
        let range = segment.row_group_rows(group);
        let encoded = BatchEncoder::new(schema).encode_columns(&arrays, range.len()).unwrap();
        let visible = selected(&segment.row_group_selection(group, at, None).unwrap(), range.len());
        let fewer = selected(&segment.row_group_selection(group, at, Some(&hidden)).unwrap(), range.len());
        let kept = visible.iter().copied().filter(|&row| !hidden.contains(range.start + row as u32));
        assert_eq!(fewer, kept.collect::<Vec<_>>());
        for row in visible {
            rows.push((range.start + row as u32, encoded.key(row).to_vec(), encoded.row(row).to_vec()));
        }
    }
    if let Some(count) = segment.visible_rows(at) {
        assert_eq!(count, rows.len() as u64);
    }
    rows
}

fn selected(access: &GroupAccess, rows: usize) -> Vec<usize> {
    match access {
        GroupAccess::Skip => Vec::new(),
        GroupAccess::All => (0..rows).collect(),
        GroupAccess::Selection(selection) => {
            let (mut selected, mut at) = (Vec::new(), 0);
            for run in selection.iter() {
                if !run.skip {
                    selected.extend(at..at + run.row_count);
                }
                at += run.row_count;
            }
            assert_eq!(at, rows, "a selection covers its group");
            assert!(!selected.is_empty() && selected.len() < rows, "Skip and All are said so");
            selected
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_reads_the_naive_answer(steps in prop::collection::vec(step(), 1..48)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
            world.check();
        }
        world.apply(&Step::Install);
        world.apply(&Step::Restart);
        world.check();
        prop_assert_eq!(world.store.verify(world.view.as_ref()).unwrap() as usize, world.records.len());
    }
}
