//! The cap holds, whoever is closed reads on, and a removed file outlives its name for whoever holds it: against the
//! machine's own count of open handles, with a limit of its own.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::env::sim::SimEnv;

/// A machine on which a process may have so many files open.
#[derive(Clone, Debug)]
struct Scarce {
    machine: SimEnv,
    open: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
}

/// Counted until it drops.
#[derive(Debug)]
struct Counted(Arc<dyn File>, Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl File for Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

impl Scarce {
    fn new(limit: u64) -> Scarce {
        let (open, limit) = (Arc::default(), Arc::new(AtomicU64::new(limit)));
        Scarce { machine: SimEnv::new(1), open, limit }
    }

    fn capped(&self, open_files_max: u64) -> CappedEnv {
        CappedEnv::new(Arc::new(self.clone()), open_files_max)
    }

    fn open_count(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    /// A file that holds its own name.
    fn create(&self, name: &str) -> PathBuf {
        let path = PathBuf::from("/").join(name);
        let file = self.machine.open(&path, OpenMode::CreateNew).unwrap();
        file.write_at(0, name.as_bytes()).unwrap();
        path
    }
}

impl Env for Scarce {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if self.open_count() >= self.limit.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let file = self.machine.open(path, mode)?;
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Counted(file, Arc::clone(&self.open))))
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.machine.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.machine.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.machine.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine.hard_link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.machine.lock(path)
    }
    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }
    fn wall_clock(&self) -> Duration {
        self.machine.wall_clock()
    }
    fn random_u64(&self) -> u64 {
        self.machine.random_u64()
    }
}

fn content(file: &dyn File) -> io::Result<String> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_at(0, &mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn the_one_not_read_for_the_longest_time_is_closed() {
    let scarce = Scarce::new(100);
    let env = scarce.capped(2);
    let open = |name| env.open_immutable(&scarce.create(name), Access::Random).unwrap();
    let (a, b) = (open("a"), open("b"));
    assert_eq!(content(&*a).unwrap(), "a");
    let c = open("c");
    assert_eq!((scarce.open_count(), env.open_count(), env.held_count(), env.opened_count()), (2, 2, 3, 3));
    assert_eq!((content(&*a).unwrap(), content(&*c).unwrap()), ("a".to_owned(), "c".to_owned()));
    assert_eq!(env.opened_count(), 3, "those two were open");
    assert_eq!(content(&*b).unwrap(), "b");
    assert_eq!((env.opened_count(), scarce.open_count()), (4, 2));
    drop((a, b, c));
    assert_eq!((scarce.open_count(), env.open_count(), env.held_count()), (0, 0, 0));
}

#[test]
fn a_removed_file_is_read_to_its_end() {
    let scarce = Scarce::new(100);
    let env = scarce.capped(1);
    let path = scarce.create("old");
    let (once, twice) = (env.open_immutable(&path, Access::Random).unwrap(), env.open_immutable(&path, Access::Random));
    let other = env.open_immutable(&scarce.create("other"), Access::Random).unwrap();
    assert_eq!(scarce.open_count(), 1, "both handles of the old one are closed");
    env.remove(&path).unwrap();
    for _ in 0..3 {
        assert_eq!(content(&*other).unwrap(), "other");
        assert_eq!(
            (content(&*once).unwrap(), content(&**twice.as_ref().unwrap()).unwrap()),
            ("old".into(), "old".into())
        );
    }
    assert_eq!((env.open_count(), scarce.open_count()), (3, 3), "a handle each for what has no name, above the cap");
    drop((once, twice));
    assert_eq!((env.open_count(), scarce.open_count()), (1, 1));
    assert!(env.open_immutable(&path, Access::Random).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
}

#[test]
fn a_name_stays_if_its_file_could_not_be_read_without() {
    let scarce = Scarce::new(1);
    let env = scarce.capped(10);
    let path = scarce.create("old");
    let old = env.open_immutable(&path, Access::Random).unwrap();
    let log = env.open(&scarce.create("log"), OpenMode::ReadWrite).unwrap();
    let error = env.remove(&path).unwrap_err();
    assert!(error.to_string().contains("ulimit"), "{error}");
    drop(log);
    assert_eq!(content(&*old).unwrap(), "old");
    env.remove(&path).unwrap();
    assert_eq!(content(&*old).unwrap(), "old");
}

#[test]
fn where_the_system_has_no_file_left_idle_ones_are_closed() {
    let scarce = Scarce::new(4);
    let env = scarce.capped(100);
    let idle: Vec<_> =
        (0..4).map(|at| env.open_immutable(&scarce.create(&format!("{at}")), Access::Random).unwrap()).collect();
    assert_eq!(scarce.open_count(), 4);
    let logs: Vec<_> =
        (0..4).map(|at| env.open(&scarce.create(&format!("log {at}")), OpenMode::ReadWrite).unwrap()).collect();
    // Now nothing is idle any more, and the reason says what to do.
    let error = content(&*idle[0]).unwrap_err();
    assert!(error.to_string().contains("open_files_max"), "{error}");
    let error = env.open_log(&scarce.create("log"), OpenMode::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("open_files_max"), "{error}");
    drop(logs);
    for (at, file) in idle.iter().enumerate() {
        assert_eq!(content(&**file).unwrap(), at.to_string());
    }
    // Other errors are passed on as they are.
    let missing = env.open(Path::new("/missing"), OpenMode::Read).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_cap_stays_within_half_of_what_the_process_may_open() {
    let limit = crate::env::os::OsEnv::new().open_files_limit();
    let env = CappedEnv::new(Arc::new(crate::env::os::OsEnv::new()), u64::MAX);
    assert!(limit.is_none_or(|limit| env.open_files_max() as u64 <= (limit / 2).max(1)));
    assert_eq!(Scarce::new(1).capped(0).open_files_max(), 1);
    assert!(env.capped().is_some());
}

#[test]
fn readers_and_removals_at_the_same_time_lose_nothing() {
    let scarce = Scarce::new(1_000);
    let env = scarce.capped(2);
    let names: Vec<String> = (0..8).map(|at| format!("file {at}")).collect();
    let paths: Vec<PathBuf> = names.iter().map(|name| scarce.create(name)).collect();
    let files: Vec<_> = paths.iter().map(|path| env.open_immutable(path, Access::Random).unwrap()).collect();
    let barrier = Barrier::new(5);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (files, names, barrier) = (&files, &names, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..2_000 {
                    let at = (round * (thread + 1) + thread) % files.len();
                    assert_eq!(content(&*files[at]).unwrap(), names[at]);
                }
            });
        }
        barrier.wait();
        paths[..4].iter().for_each(|path| env.remove(path).unwrap());
    });
    assert!(scarce.open_count() <= 2 + 4);
    drop(files);
    assert_eq!((scarce.open_count(), env.held_count()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Create,
    Open(prop::sample::Index),
    Read(prop::sample::Index),
    Drop(prop::sample::Index),
    Remove(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        2 => Just(Step::Create),
        3 => index().prop_map(Step::Open),
        6 => index().prop_map(Step::Read),
        1 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::Remove),
    ]
}

proptest! {
    /// Whatever is opened, read, dropped and removed: each read is right, and no more is open than the cap allows
    /// and the removed files that are held.
    #[test]
    fn the_cap_holds_and_every_read_is_right(max in 1u64..4, steps in prop::collection::vec(any_step(), 1..80)) {
        let scarce = Scarce::new(1_000);
        let env = scarce.capped(max);
        let (mut names, mut removed): (Vec<String>, HashSet<String>) = (Vec::new(), HashSet::new());
        let mut held: Vec<(String, Arc<dyn File>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Create => {
                    let name = format!("file {number}");
                    scarce.create(&name);
                    names.push(name);
                }
                Step::Open(at) if !names.is_empty() => {
                    let name = at.get(&names).clone();
                    let opened = env.open_immutable(&Path::new("/").join(&name), Access::Random);
                    prop_assert_eq!(opened.is_err(), removed.contains(&name));
                    held.extend(opened.ok().map(|file| (name, file)));
                }
                Step::Read(at) if !held.is_empty() => {
                    let (name, file) = at.get(&held);
                    prop_assert_eq!(&content(&**file).unwrap(), name);
                }
                Step::Drop(at) if !held.is_empty() => drop(held.swap_remove(at.index(held.len()))),
                Step::Remove(at) if !names.is_empty() => {
                    let name = at.get(&names);
                    let done = env.remove(&Path::new("/").join(name));
                    prop_assert_eq!(done.is_ok(), removed.insert(name.clone()));
                }
                _ => {}
            }
            let nameless = held.iter().filter(|(name, _)| removed.contains(name)).count();
            prop_assert_eq!(env.open_count() as u64, scarce.open_count());
            prop_assert_eq!(env.held_count(), held.len());
            prop_assert!(env.open_count() as u64 <= max + nameless as u64);
        }
        drop(held);
        prop_assert_eq!((env.open_count(), env.held_count(), scarce.open_count()), (0, 0, 0));
    }
}
