//! Backups taken at random points of a random load must restore to exactly the state at their commit number: two threads
//! commit, a third flushes, converts, merges and drops files, a fourth takes backups into one repository, and every
//! backup that was not pruned is restored and compared with a model, opened once more, and written to.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use strata_oltp::backup::Repository;
use strata_oltp::db::Durability;
use strata_oltp::env::sim::SimEnv;
use strata_oltp::env::{Env, File, FileLock, OpenMode};
use strata_oltp::wal::WalOptions;
use strata_oltp::{Db, Error, MemoryBudget, Options, SeqNo};

use super::{DIR, HYBRID, MakeTier, ROW, Rows, contents, key, register, row, small_log};

/// Where the repository of a test lies.
pub const REPOSITORY: &str = "/repository";
const WRITERS: i32 = 2;
const KEYS: i32 = 24;
/// How many commits the writers make for each backup, at most.
const COMMITS_MAX: usize = 600;

/// Keys and their new rows; `None` deletes.
type Written = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What each commit changed.
#[derive(Default)]
pub struct Changes(Mutex<BTreeMap<SeqNo, Written>>);

impl Changes {
    pub fn add(&self, seqno: SeqNo, changes: Written) {
        assert!(self.0.lock().unwrap().insert(seqno, changes).is_none(), "I2: SeqNos rise");
    }

    /// The state that the commits up to `seqno` add up to.
    pub fn state_at(&self, seqno: SeqNo) -> Rows {
        let mut state = Rows::new();
        for changes in self.0.lock().unwrap().range(..=seqno).map(|(_, changes)| changes) {
            for (key, value) in changes {
                match value {
                    Some(value) => state.insert(key.clone(), value.clone()),
                    None => state.remove(key),
                };
            }
        }
        state
    }

    pub fn newest(&self) -> SeqNo {
        self.0.lock().unwrap().last_key_value().map_or(SeqNo::ZERO, |(seqno, _)| *seqno)
    }
}

/// Small memtables and log files, so that files come and go all the time; and a small log buffer, so that buffered commits
/// are written before they are durable.
pub fn options() -> Options {
    let wal = WalOptions { buffer_bytes_max: 100, ..small_log() };
    Options { memtable_bytes_max: 4_000, wal, ..Options::default() }
}

pub fn open_at(env: &Arc<dyn Env>, dir: &Path, options: Options, make_tier: MakeTier) -> strata_oltp::Result<Db> {
    let budget = MemoryBudget::new(options.memory_bytes_max);
    let db = Db::open_with(Arc::clone(env), dir, options, budget, make_tier(env, dir), None)?;
    register(&db);
    Ok(db)
}

pub fn everything(db: &Db) -> Rows {
    let snapshot = db.snapshot();
    let mut rows = contents(&snapshot, HYBRID);
    rows.extend(contents(&snapshot, ROW));
    rows
}

/// Numbers below a bound, from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: i32) -> i32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i32::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// One random commit of writer `nth`, whose keys are its own, so that no two writers conflict.
pub fn commit(db: &Db, nth: i32, dice: &mut Dice, changes: &Changes) -> strata_oltp::Result<()> {
    let mut transaction = db.begin()?;
    let mut written = Written::new();
    for _ in 0..=dice.below(4) {
        let table = if dice.below(3) == 0 { ROW } else { HYBRID };
        let id = dice.below(KEYS / WRITERS) * WRITERS + nth;
        let value = (dice.below(4) > 0).then(|| row(table, id, i64::from(dice.below(1_000_000))));
        match &value {
            Some(value) => transaction.put(table, key(table, id), value.clone())?,
            None => transaction.delete(table, key(table, id))?,
        }
        written.insert(key(table, id), value);
    }
    let durability = if dice.below(5) == 0 { Durability::Buffered } else { Durability::Durable };
    let outcome = transaction.commit(durability);
    // A commit that failed may have happened all the same; nobody commits after it.
    changes.add(outcome.as_ref().copied().unwrap_or_else(|_| changes.newest().next()), written);
    outcome.map(drop)
}

/// One piece of random work in the background.
pub fn work(db: &Db, dice: &mut Dice) -> strata_oltp::Result<()> {
    match dice.below(12) {
        0 => db.flush(None),
        1 => db.convert(HYBRID),
        2 => db.compact(HYBRID),
        3 => db.merge_runs(ROW),
        _ => db.step().map(drop),
    }
}

/// Takes `count` backups while others write, then restores what pruning has left. `seed` decides what the threads do; how
/// they interleave is up to the machine.
///
/// # Panics
/// If a restored database differs from the model by anything.
pub fn under_load(make_tier: MakeTier, seed: u64, count: usize) {
    let sim = SimEnv::new(seed);
    let env: Arc<dyn Env> = Arc::new(sim.clone());
    // Also log files that are long in use, and hold what is flushed beside what is not.
    let wal = WalOptions { segment_bytes: if seed.is_multiple_of(2) { 60_000 } else { 4096 + 400 }, ..options().wal };
    let db = open_at(&env, Path::new(DIR), Options { wal, ..options() }, make_tier).unwrap();
    let (changes, done) = (Changes::default(), AtomicBool::new(false));
    let (commits, backups) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let repository = Repository::new(Arc::clone(&env), Path::new(REPOSITORY));
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        // Also when this thread fails, or the others would go on for ever.
        let _stop = Stop(&done);
        for nth in 0..WRITERS {
            let (db, changes, done, commits, backups) = (db.clone(), &changes, &done, &commits, &backups);
            scope.spawn(move || {
                let mut dice = Dice::new(seed * 10 + u64::try_from(nth).unwrap());
                while !done.load(Ordering::Relaxed) {
                    // A bound on the work, not on what a backup may meet.
                    while commits.load(Ordering::Relaxed) > COMMITS_MAX * (backups.load(Ordering::Relaxed) + 1) {
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::yield_now();
                    }
                    commit(&db, nth, &mut dice, changes).unwrap();
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let mut dice = Dice::new(seed * 10 + 7);
            while !done.load(Ordering::Relaxed) {
                work(&db, &mut dice).unwrap();
            }
        });
        let mut dice = Dice::new(seed * 10 + 9);
        for nth in 0..count {
            let until = commits.load(Ordering::Relaxed) + usize::try_from(dice.below(30)).unwrap();
            while commits.load(Ordering::Relaxed) < until.min(COMMITS_MAX * (nth + 1)) {
                std::thread::yield_now();
            }
            taken.push(repository.create(&db).unwrap().backup);
            backups.fetch_add(1, Ordering::Relaxed);
            if nth % 5 == 4 {
                let pruned = repository.prune(4).unwrap();
                taken.retain(|backup| !pruned.contains(&backup.number));
            }
        }
    });
    assert_eq!(repository.list().unwrap().backups, taken);
    let report = repository.verify().unwrap();
    assert!(report.damaged.is_empty() && report.backup_count == taken.len() as u64, "{:?}", report.damaged);
    for backup in taken {
        let dest = PathBuf::from(format!("/restored-{}", backup.number));
        let report = repository.restore(backup.number, &dest).unwrap();
        assert_eq!(report.seqno, backup.seqno);
        check_restored(&env, &dest, make_tier, backup.seqno, &changes, seed);
    }
    assert_eq!(everything(&db), changes.state_at(changes.newest()), "seed {seed}: the source is unharmed");
}

/// Ends the other threads when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The database in `dest` is the model at `seqno`, now and after another commit and open.
pub fn check_restored(
    env: &Arc<dyn Env>,
    dest: &Path,
    make_tier: MakeTier,
    seqno: SeqNo,
    changes: &Changes,
    seed: u64,
) {
    let context = format!("seed {seed}, {} at {seqno}", dest.display());
    let db = open_at(env, dest, options(), make_tier).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_eq!(db.stats().read_point, seqno, "{context}: not one commit more or less");
    let mut expected = changes.state_at(seqno);
    assert_eq!(everything(&db), expected, "{context}");
    let mut transaction = db.begin().unwrap();
    transaction.put(HYBRID, key(HYBRID, 999), row(HYBRID, 999, 1)).unwrap();
    assert_eq!(transaction.commit(Durability::Durable).unwrap(), seqno.next(), "{context}");
    db.convert(HYBRID).unwrap();
    db.close().unwrap();
    expected.insert(key(HYBRID, 999), row(HYBRID, 999, 1));
    let db = open_at(env, dest, options(), make_tier).unwrap();
    assert_eq!(everything(&db), expected, "{context}: after another commit and open");
}

/// A database with runs, segments, marks and log, and the states that its commits add up to.
pub fn populated(env: &SimEnv, make_tier: MakeTier, seed: u64, changes: &Changes) -> Result<Db, Error> {
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let db = open_at(&shared, Path::new(DIR), options(), make_tier)?;
    let mut dice = Dice::new(seed);
    for round in 0..30 {
        commit(&db, round % WRITERS, &mut dice, changes)?;
        match round {
            10 => db.convert(HYBRID)?,
            14 | 20 => db.flush(None)?,
            25 => db.convert(HYBRID)?,
            _ => drop(db.flush_step()?),
        }
    }
    Ok(db)
}

/// A simulated machine on which some things cannot be done.
#[derive(Debug)]
pub struct Picky {
    pub sim: SimEnv,
    /// Whether no two folders are on one file system.
    links_cross: bool,
    /// Files below this folder cannot be opened or created.
    pub refused: Mutex<Option<PathBuf>>,
    /// Bytes of a file that cannot be read.
    bad: Mutex<Option<(PathBuf, Range<u64>)>>,
}

/// A file of which some bytes cannot be read.
#[derive(Debug)]
struct BadFile {
    file: Arc<dyn File>,
    bad: Range<u64>,
}

impl File for BadFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset < self.bad.end && offset + buffer.len() as u64 > self.bad.start {
            return Err(io::Error::other("the device refuses this sector"));
        }
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

impl Picky {
    pub fn new(sim: SimEnv) -> Picky {
        Picky { sim, links_cross: false, refused: Mutex::default(), bad: Mutex::default() }
    }

    pub fn without_links(sim: SimEnv) -> Picky {
        Picky { links_cross: true, ..Picky::new(sim) }
    }

    pub fn refuse(&self, folder: Option<&str>) {
        *self.refused.lock().unwrap() = folder.map(PathBuf::from);
    }

    /// From now on these bytes of a file cannot be read.
    pub fn refuse_bytes(&self, path: &Path, bytes: Range<u64>) {
        *self.bad.lock().unwrap() = Some((path.to_path_buf(), bytes));
    }
}

impl Env for Picky {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if self.refused.lock().unwrap().as_ref().is_some_and(|folder| path.starts_with(folder)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.sim.open(path, mode)?;
        match &*self.bad.lock().unwrap() {
            Some((bad_path, bad)) if bad_path == path => Ok(Arc::new(BadFile { file, bad: bad.clone() })),
            _ => Ok(file),
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.links_cross { Err(io::ErrorKind::CrossesDevices.into()) } else { self.sim.hard_link(from, to) }
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.sim.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.sim.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sim.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.sim.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.sim.lock(path)
    }

    fn monotonic(&self) -> Duration {
        self.sim.monotonic()
    }

    fn wall_clock(&self) -> Duration {
        self.sim.wall_clock()
    }

    fn random_u64(&self) -> u64 {
        self.sim.random_u64()
    }
}
