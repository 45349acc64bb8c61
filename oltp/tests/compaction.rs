//! Pins down what is compacted next, in goldenscripts under `scripts/compaction/`, and proves that whatever is picked keeps
//! the order of age: a store in memory follows the plans with real versions, and reads like a versioned map throughout.
//!
//! The picker is a pure function, so thousands of flushes are arithmetic. Refresh with `UPDATE_GOLDENFILES=1`, then read
//! the difference as code.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use goldenscript::{Command, Context, Runner};
use proptest::prelude::*;
use strata_oltp::compaction::gc::Tombstones;
use strata_oltp::compaction::picker::{debt_bytes, level_bytes};
use strata_oltp::compaction::{
    CompactionOptions, CompactionPlan, CompactionPolicy, CompactionWork, GcCursor, GcOptions, Moment, Stripes,
    compact_all, pick_compaction,
};
use strata_oltp::iter::{Cursor, MergeCursor, VecCursor, Version, VersionKind};
use strata_oltp::manifest::{Levels, Place, RunMeta};
use strata_oltp::{FileId, SeqNo, TableId};

const MIB: u64 = 1 << 20;

/// Levels with the versions in their files, a MiB each.
#[derive(Default)]
struct Store {
    options: CompactionOptions,
    levels: Levels<Arc<RunMeta>>,
    files: BTreeMap<FileId, Vec<Version>>,
    last_file: u64,
    last_seqno: u64,
    now_ms: u64,
    /// Every version ever written, by key and SeqNo.
    model: BTreeMap<Vec<u8>, BTreeMap<SeqNo, VersionKind>>,
    written: u64,
    moved: u64,
    runs_max: usize,
}

impl Store {
    fn meta(&mut self, versions: Vec<Version>) -> Arc<RunMeta> {
        self.last_file += 1;
        let run = FileId(self.last_file);
        let seqnos = || versions.iter().map(|version| version.seqno);
        let tombstones = versions.iter().filter(|version| version.kind == VersionKind::Delete).count();
        let meta = RunMeta {
            run,
            table: TableId(1),
            file_bytes: versions.len() as u64 * MIB,
            version_count: versions.len() as u64,
            tombstone_count: tombstones as u64,
            key_min: versions[0].key.clone(),
            key_max: versions[versions.len() - 1].key.clone(),
            seqno_min: seqnos().min().unwrap(),
            seqno_max: seqnos().max().unwrap(),
            unique_keys: versions.windows(2).all(|pair| pair[0].key != pair[1].key),
            checksum: 0,
            created_ms: self.now_ms,
            values: Vec::new(),
        };
        self.written += versions.len() as u64;
        self.files.insert(run, versions);
        Arc::new(meta)
    }

    fn pick(&self, moment: Moment) -> Option<CompactionPlan> {
        pick_compaction(&self.levels, &self.options, moment, &BTreeSet::new())
    }

    /// One flush: the last write to a key wins, as in a memtable without snapshots.
    fn flush(&mut self, writes: impl IntoIterator<Item = (Vec<u8>, VersionKind)>) {
        let mut versions = Vec::new();
        for (key, kind) in writes {
            self.last_seqno += 1;
            let seqno = SeqNo(self.last_seqno);
            self.model.entry(key.clone()).or_default().insert(seqno, kind);
            versions.push(Version { key, seqno, kind, value: Vec::new() });
        }
        versions.sort_by(Version::order);
        if !versions.is_empty() {
            let meta = self.meta(versions);
            self.levels.push(meta).unwrap();
        }
        self.runs_max = self.runs_max.max(self.levels.sorted_runs().len());
    }

    /// Carries out a plan for readers at `stripes`.
    fn apply(&mut self, plan: &CompactionPlan, stripes: Stripes) {
        let sorted = self.levels.sorted_runs();
        let inputs: Vec<Vec<Arc<RunMeta>>> =
            plan.inputs.iter().map(|(at, files)| sorted[*at].files[files.clone()].to_vec()).collect();
        let removed: Vec<FileId> = inputs.iter().flatten().map(|meta| meta.run).collect();
        if plan.work == CompactionWork::Move {
            let moved = inputs[0][0].clone();
            self.moved += moved.version_count;
            return self.levels.replace(&removed, vec![(plan.output, moved)]).unwrap();
        }
        let cursors = inputs.iter().rev().map(|files| {
            let versions = files.iter().flat_map(|meta| self.files[&meta.run].clone()).collect();
            Box::new(VecCursor::new(versions)) as Box<dyn Cursor>
        });
        let options = GcOptions { snapshots: stripes, tombstones: plan.tombstones };
        let mut merged = GcCursor::new(MergeCursor::new(cursors.collect()), options);
        merged.next().unwrap();
        let mut rest: &[Version] = &Version::rest_of(&mut merged).unwrap();
        let mut added = Vec::new();
        while !rest.is_empty() {
            let mut end = usize::try_from(self.options.file_bytes_max / MIB).unwrap().clamp(1, rest.len());
            while end < rest.len() && rest[end].key == rest[end - 1].key {
                end += 1;
            }
            let (file, others) = rest.split_at(end);
            added.push((plan.output, self.meta(file.to_vec())));
            rest = others;
        }
        self.levels.replace(&removed, added).unwrap();
    }

    /// So many flushes of 16 MiB over so many keys, all of which is compacted as it comes; what that cost.
    fn load(&mut self, count: u64, keys: u64, deletes: bool) -> Result<String, std::fmt::Error> {
        let mut output = String::new();
        for _ in 0..count {
            let mut state = self.last_seqno;
            let mut writes = BTreeMap::new();
            for nth in 0..16 {
                let key = if keys == u64::MAX { self.last_seqno + nth } else { random(&mut state, keys) };
                let kind = if deletes && nth == 7 { VersionKind::Delete } else { VersionKind::Put };
                writes.insert(format!("{key:06}").into_bytes(), kind);
            }
            self.flush(writes);
            self.settle(&self.latest());
        }
        self.check(&[SeqNo(self.last_seqno)]);
        let flushed = self.last_seqno;
        writeln!(output, "write amplification {:.2}", self.written as f64 / flushed as f64)?;
        writeln!(output, "moved {:.2} times", self.moved as f64 / flushed as f64)?;
        writeln!(output, "space amplification {:.2}", self.stored() as f64 / self.live() as f64)?;
        let sorted = self.levels.sorted_runs();
        writeln!(output, "{} sorted runs, at most {}", sorted.len(), self.runs_max)?;
        Ok(output)
    }

    fn moment(&self, watermark: SeqNo) -> Moment {
        Moment { watermark, now_ms: self.now_ms }
    }

    /// Compacts until nothing is due; returns how many steps that took.
    fn settle(&mut self, stripes: &Stripes) -> usize {
        for step in 0.. {
            assert!(step < 10_000, "compaction does not end: {:?}", self.levels);
            let Some(plan) = self.pick(self.moment(stripes.oldest())) else {
                return step;
            };
            self.apply(&plan, stripes.clone());
        }
        unreachable!()
    }

    fn latest(&self) -> Stripes {
        Stripes::new([], SeqNo(self.last_seqno))
    }

    /// What a reader at `at` finds under `key`, asking sorted runs as a look-up does.
    fn get(&self, key: &[u8], at: SeqNo) -> Option<SeqNo> {
        let newest_first = self.levels.sorted_runs().iter().rev();
        let found = newest_first.filter_map(|sorted| {
            let versions = &self.files[&sorted.find(key)?.run];
            versions.iter().find(|version| version.key == key && version.seqno <= at)
        });
        found.take(1).find(|version| version.kind == VersionKind::Put).map(|version| version.seqno)
    }

    /// Every snapshot in `stripes` reads what it read before.
    fn check(&self, snapshots: &[SeqNo]) {
        for (key, versions) in &self.model {
            for &at in snapshots {
                let newest = versions.range(..=at).next_back();
                let expected = newest.filter(|(_, kind)| **kind == VersionKind::Put).map(|(seqno, _)| *seqno);
                assert_eq!(self.get(key, at), expected, "key {key:?} at {at}");
            }
        }
    }

    fn stored(&self) -> u64 {
        self.levels.iter().map(|meta| meta.version_count).sum()
    }

    fn live(&self) -> usize {
        self.model.values().filter(|versions| versions.values().next_back() == Some(&VersionKind::Put)).count()
    }
}

/// A linear congruential step: Knuth, TAOCP vol. 2, 3.3.4.
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

fn number(text: Option<&str>) -> Result<Option<u64>, std::num::ParseIntError> {
    text.map(str::parse).transpose()
}

fn name(meta: &RunMeta) -> String {
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    format!("{}-{}", text(&meta.key_min), text(&meta.key_max))
}

fn describe(store: &Store, plan: Option<CompactionPlan>) -> String {
    let Some(plan) = plan else { return "nothing\n".to_owned() };
    let part = |(at, files): &(usize, std::ops::Range<usize>)| {
        let sorted = &store.levels.sorted_runs()[*at];
        let files: Vec<String> = sorted.files[files.clone()].iter().map(|meta| name(meta)).collect();
        format!("{}.{} [{}]", sorted.place.level, sorted.place.sorted_run, files.join(" "))
    };
    let inputs: Vec<String> = plan.inputs.iter().rev().map(part).collect();
    let work = match (plan.work, plan.tombstones) {
        (CompactionWork::Move, _) => "move",
        (CompactionWork::Merge, Tombstones::Keep) => "merge",
        (CompactionWork::Merge, Tombstones::Drop) => "merge, dropping tombstones,",
    };
    format!("{work} {} into {}.{}\n", inputs.join(" + "), plan.output.level, plan.output.sorted_run)
}

impl Runner for Store {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut output = String::new();
        match command.name.as_str() {
            // Starts over: options … first=MIB file=MIB job=MIB, and those of SQL as one string.
            "new" => {
                let text = args.next_pos().unwrap_or_default();
                let mib = |bytes: Option<u64>, default: u64| bytes.map_or(default, |mib| mib * MIB);
                let options: CompactionOptions = text.parse()?;
                *self = Store {
                    options: CompactionOptions {
                        first_level_bytes_max: mib(number(args.take_key("first"))?, 64 * MIB),
                        file_bytes_max: mib(number(args.take_key("file"))?, 8 * MIB),
                        job_bytes_max: mib(number(args.take_key("job"))?, 1024 * MIB),
                        ..options
                    },
                    ..Store::default()
                };
            }
            // A file without versions behind it: level.sorted_run first-last MIB tombstones=N age=HOURS.
            "file" => {
                let (place, keys) = (args.next_pos().ok_or("place")?, args.next_pos().ok_or("keys")?);
                let mib: u64 = args.next_pos().ok_or("MiB")?.parse()?;
                let (level, sorted_run) = place.split_once('.').ok_or("level.sorted_run")?;
                let place = Place { level: level.parse()?, sorted_run: sorted_run.parse()? };
                let (first, last) = keys.split_once('-').ok_or("first-last")?;
                let mut meta = RunMeta::clone(&self.meta(vec![Version::put(first, 5, ""), Version::put(last, 5, "")]));
                meta.file_bytes = mib * MIB;
                meta.version_count = 100;
                meta.tombstone_count = number(args.take_key("tombstones"))?.unwrap_or(0);
                self.now_ms = 100 * 3_600_000;
                meta.created_ms = self.now_ms - number(args.take_key("age"))?.unwrap_or(0) * 3_600_000;
                match place.level {
                    0 => self.levels.push(Arc::new(meta))?,
                    _ => self.levels.replace(&[], vec![(place, Arc::new(meta))])?,
                }
            }
            "pick" => {
                let moment = self.moment(SeqNo(number(args.take_key("watermark"))?.unwrap_or(9)));
                output = describe(self, self.pick(moment));
            }
            "all" => output = describe(self, compact_all(&self.levels)),
            "levels" => {
                for (level, stats) in level_bytes(&self.levels, &self.options).iter().enumerate() {
                    if stats.bytes + stats.target_bytes > 0 {
                        let (runs, have, may) = (stats.sorted_runs, stats.bytes / MIB, stats.target_bytes / MIB);
                        writeln!(output, "level {level}: {runs} sorted runs, {have} of {may} MiB")?;
                    }
                }
                writeln!(output, "debt: {} MiB", debt_bytes(&self.levels, &self.options) / MIB)?;
            }
            // So many flushes of 16 MiB over so many keys, one in ten of them a delete if asked; or in ascending order.
            "load" => {
                let count: u64 = args.next_pos().ok_or("how many flushes?")?.parse()?;
                let keys: u64 = number(args.take_key("keys"))?.unwrap_or(u64::MAX);
                let deletes = args.take_key("deletes").is_some();
                output = self.load(count, keys, deletes)?;
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        args.reject_next()?;
        Ok(output)
    }
}

#[test]
fn picker_script() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/compaction/picker");
    goldenscript::run(&mut Store::default(), path).unwrap();
}

#[test]
fn amplification_script() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/compaction/amplification");
    goldenscript::run(&mut Store::default(), path).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Flush(Vec<(u8, bool)>),
    /// Flushes keys in a row, which move down without being rewritten.
    Row(u8),
    Compact(usize),
    Hold,
    Release,
    Sleep(u64),
    All,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec((any::<u8>(), any::<bool>()), 1..12).prop_map(Step::Flush),
        2 => any::<u8>().prop_map(Step::Row),
        6 => (0usize..4).prop_map(Step::Compact),
        1 => Just(Step::Hold),
        1 => Just(Step::Release),
        1 => (1u64..48).prop_map(Step::Sleep),
        1 => Just(Step::All),
    ]
}

fn any_options() -> impl Strategy<Value = CompactionOptions> {
    const POLICIES: [CompactionPolicy; 3] =
        [CompactionPolicy::Leveled, CompactionPolicy::Tiered, CompactionPolicy::LazyLeveled];
    (prop::sample::select(&POLICIES[..]), 2u32..5, 1u32..4, 1u64..12, 1u64..5, 0u64..40, 1u32..60).prop_map(
        |(policy, size_ratio, level0_runs_min, first, file, job, tombstone_percent_min)| CompactionOptions {
            policy,
            size_ratio,
            level0_runs_min,
            first_level_bytes_max: first * MIB,
            file_bytes_max: file * MIB,
            job_bytes_max: job * MIB,
            tombstone_percent_min,
            ..CompactionOptions::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_500), ..ProptestConfig::default() })]

    /// I3 is refused by the levels themselves; age order and tombstones show in what readers find. It also ends.
    #[test]
    fn plans_keep_what_every_snapshot_reads(options in any_options(), steps in prop::collection::vec(any_step(), 1..60)) {
        let mut store = Store { options, ..Store::default() };
        let mut held: Vec<SeqNo> = Vec::new();
        for step in steps {
            let stripes = Stripes::new(held.iter().copied(), SeqNo(store.last_seqno));
            match step {
                Step::Flush(writes) => {
                    let writes: BTreeMap<u8, bool> = writes.into_iter().collect();
                    let kind = |put| if put { VersionKind::Put } else { VersionKind::Delete };
                    store.flush(writes.into_iter().map(|(key, put)| (vec![key], kind(put))));
                }
                Step::Row(from) => store.flush((from..=from.saturating_add(5)).map(|key| (vec![key], VersionKind::Put))),
                Step::Compact(count) => {
                    for _ in 0..count {
                        let Some(plan) = store.pick(store.moment(stripes.oldest()))
                        else { break };
                        store.apply(&plan, stripes.clone());
                    }
                }
                Step::Hold => held.push(SeqNo(store.last_seqno)),
                Step::Release => drop(held.pop()),
                Step::Sleep(hours) => store.now_ms += hours * 3_600_000,
                Step::All => if let Some(plan) = compact_all(&store.levels) {
                    store.apply(&plan, stripes);
                    assert!(store.levels.sorted_runs().len() <= 1);
                },
            }
            let mut readers = held.clone();
            readers.push(SeqNo(store.last_seqno));
            store.check(&readers);
        }
        // At rest every level is within what it may have, and old tombstones are gone.
        store.now_ms += 1_000 * 3_600_000;
        let stripes = store.latest();
        for _ in 0..8 {
            store.settle(&stripes);
            store.now_ms += 1_000 * 3_600_000;
        }
        store.check(&[SeqNo(store.last_seqno)]);
        let tombstones: u64 = store.levels.iter().map(|meta| meta.tombstone_count).sum();
        prop_assert_eq!(tombstones, 0);
        let stats = level_bytes(&store.levels, &store.options);
        prop_assert!(stats[0].sorted_runs < store.options.level0_runs_min as usize);
        for (level, stats) in stats.iter().enumerate().skip(1) {
            prop_assert!(stats.sorted_runs <= store.options.runs_max(level == 6), "level {} has {:?}", level, stats);
            prop_assert!(level == 6 || stats.bytes <= stats.target_bytes, "level {} has {:?}", level, stats);
        }
    }
}
