//! Proves the group sync between threads, with a disk whose syncs wait until the test lets them through.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Condvar;
use std::thread::spawn;
use std::time::Duration;

use super::*;
use crate::env::{File, FileLock, OpenMode};

/// Syncs wait while it is shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_shut: bool,
    waiting: usize,
    syncs: usize,
}

impl Gate {
    fn set_shut(&self, is_shut: bool) {
        self.state.lock().expect("gate").is_shut = is_shut;
        self.changed.notify_all();
    }

    fn wait_for_a_sync(&self) {
        let state = self.state.lock().expect("gate");
        drop(self.changed.wait_while(state, |state| state.waiting == 0).expect("gate"));
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("gate");
        (state.waiting, state.syncs) = (state.waiting + 1, state.syncs + 1);
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.is_shut).expect("gate");
        state.waiting -= 1;
    }

    fn syncs(&self) -> usize {
        self.state.lock().expect("gate").syncs
    }
}

#[derive(Debug)]
struct GateEnv {
    disk: SimEnv,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct GateFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GateFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

impl Env for GateEnv {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(GateFile { file: self.disk.open(path, mode)?, gate: Arc::clone(&self.gate) }))
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.hard_link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.disk.lock(path)
    }
    fn monotonic(&self) -> Duration {
        self.disk.monotonic()
    }
    fn wall_clock(&self) -> Duration {
        self.disk.wall_clock()
    }
    fn random_u64(&self) -> u64 {
        self.disk.random_u64()
    }
}

fn gated(files_max: u64) -> (SimEnv, Arc<Gate>, Arc<Wal>) {
    let (disk, gate) = (SimEnv::new(1), Arc::new(Gate::default()));
    let env = Arc::new(GateEnv { disk: disk.clone(), gate: Arc::clone(&gate) });
    let next = AtomicU64::new(1);
    let next_file: FileAllocator = Arc::new(move || {
        let file = next.fetch_add(1, Ordering::Relaxed);
        assert!(file <= files_max, "planted panic");
        FileId(file)
    });
    let (wal, _) =
        Wal::open(env, Path::new(DIR), DB_ID, None, small_files(), next_file, &mut |_, _| Ok(())).expect("open");
    (disk, gate, Arc::new(wal))
}

fn wait_for_waiters(wal: &Wal, count: usize) {
    while wal.waiter_count() < count {
        std::thread::yield_now();
    }
}

#[test]
fn those_who_wait_share_the_next_sync() {
    let (disk, gate, wal) = gated(u64::MAX);
    let before = gate.syncs();
    gate.set_shut(true);
    let sync_in_thread = |lsn| {
        let wal = Arc::clone(&wal);
        spawn(move || wal.sync_to(lsn))
    };
    let first = append(&wal, 1).expect("append");
    let mut threads = vec![sync_in_thread(first)];
    gate.wait_for_a_sync();
    // Appending goes on while a sync is under way.
    for seqno in 2..=5 {
        let lsn = append(&wal, seqno).expect("append");
        threads.push(sync_in_thread(lsn));
    }
    wait_for_waiters(&wal, 4);
    assert_eq!(wal.durable_lsn(), Lsn(0));
    gate.set_shut(false);
    for thread in threads {
        thread.join().expect("thread").expect("sync");
    }
    assert_eq!(wal.durable_lsn(), wal.end_lsn());
    assert_eq!(gate.syncs(), before + 2);
    assert_eq!(replayed(&disk.reboot(PowerLoss::DropUnsynced), None).expect("replay").0, [1, 2, 3, 4, 5]);
}

#[test]
fn those_who_wait_learn_of_a_failed_sync() {
    let (disk, gate, wal) = gated(u64::MAX);
    append_synced(&wal, 1).expect("append");
    let durable = wal.durable_lsn();
    gate.set_shut(true);
    // One write, perhaps a fill, then the sync: whichever of them it hits.
    disk.fail_op(disk.ops() + 1, ErrorKind::Other, Repeat::Forever);
    let first = append(&wal, 2).expect("append");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let wal = Arc::clone(&wal);
            spawn(move || wal.sync_to(first))
        })
        .collect();
    wait_for_waiters(&wal, 3);
    gate.set_shut(false);
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("thread")).collect();
    assert_eq!(results.iter().filter(|result| matches!(result, Err(Error::Io { .. }))).count(), 1);
    assert_eq!(results.iter().filter(|result| matches!(result, Err(Error::Poisoned { .. }))).count(), 3);
    assert_eq!(wal.durable_lsn(), durable);
}

#[test]
fn a_panic_while_writing_poisons_instead_of_blocking_everyone() {
    let (_, _, wal) = gated(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        (1..=30).for_each(|seqno| append_synced(&wal, seqno).expect("append"));
    }));
    assert!(panicked.is_err());
    assert!(matches!(wal.sync_to(wal.end_lsn()), Err(Error::Poisoned { .. })));
    assert!(matches!(append(&wal, 99), Err(Error::Poisoned { .. })));
}
