//! A simulated machine: one seed, a disk that forgets what was not synced, faults and crashes on demand.
//!
//! ```text
//!   database ──► SimEnv ──► disk: content and names, each with what is durable kept apart
//!                  │
//!                  ├─ crash_at(n)   the machine dies within operation n; every later call fails
//!                  ├─ fail_op(n)    operation n returns an error and the machine lives on
//!                  ├─ fail_call(n)  so does call n, reads counted too
//!                  └─ reboot(loss)  a new SimEnv holding what the power loss left over
//! ```
//!
//! Every call that changes the disk is a numbered operation, so a test can run a workload once, read `ops()`, and
//! run it again for each number with a crash there. Or it asks for `keep_images` first, and then has the machine as it
//! was after each operation of that one run ([`SimEnv::reboot_after`]). Reads leave nothing behind, so they are no
//! operations; they are counted as calls, because they can fail.
//!
//! Always true:
//! * bytes survive [`PowerLoss::DropUnsynced`] only after `File::sync`, names only after `Env::sync_dir`;
//! * after a failed sync the bytes it covered stay lost to later syncs until they are written again, because Linux
//!   marks pages clean when their write-back fails;
//! * the same seed and the same calls give the same disk, byte for byte.
//!
//! Deliberately absent: latency, and damage to synced bytes ([`SimEnv::corrupt`] is for tests that want it).

mod calls;
mod disk;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use disk::Disk;

/// A simulated machine. Clones are the same machine.
#[derive(Clone)]
pub struct SimEnv {
    machine: Arc<Mutex<Machine>>,
    /// Signalled when a file sync arrives at a held disk, and when the disk is let go.
    held_changed: Arc<Condvar>,
}

/// What a power loss leaves of the writes and names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLoss {
    /// Nothing: exactly the synced state.
    DropUnsynced,
    /// Everything, as if all of it had reached the disk just in time.
    KeepAll,
    /// Torn and reordered: per sector of 512 bytes any version written since the last sync, per file any length
    /// between, per name any of the changes. The number picks one outcome, the same one for the same machine.
    Random(u64),
}

/// For how long an injected fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Only the operation named.
    Once,
    /// That operation and all after it.
    Forever,
}

/// One operation that changes the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments of the call")]
pub enum Op {
    /// A new file, or a new lock file.
    Create(PathBuf),
    /// A new folder.
    CreateDir(PathBuf),
    /// `File::write_at`.
    Write { path: PathBuf, offset: u64, bytes: u64 },
    /// `File::set_len`.
    SetLen { path: PathBuf, bytes: u64 },
    /// `File::sync`.
    Sync(PathBuf),
    /// `Env::rename`.
    Rename { from: PathBuf, to: PathBuf },
    /// `Env::hard_link`.
    HardLink { from: PathBuf, to: PathBuf },
    /// `Env::remove`.
    Remove(PathBuf),
    /// `Env::sync_dir`.
    SyncDir(PathBuf),
}

struct Machine {
    disk: Disk,
    seed: u64,
    random: SplitMix,
    clock: Duration,
    log: Vec<Op>,
    /// Calls begun, reads among them.
    calls: u64,
    /// The disk before operation `first_image`, and after it and each later one.
    images: Option<Images>,
    crash_at: Option<u64>,
    crashed: bool,
    faults: Vec<Fault>,
    call_fault: Option<Fault>,
    capacity_bytes: Option<u64>,
    locked: HashSet<PathBuf>,
    /// Whether file syncs wait, and how many are waiting.
    holding: bool,
    held: usize,
}

struct Images {
    first: u64,
    disks: Vec<Disk>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    /// Number of the operation or call.
    at: u64,
    kind: io::ErrorKind,
    repeat: Repeat,
}

impl SimEnv {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimEnv {
        SimEnv::with_disk(seed, Disk::default(), Duration::ZERO, None)
    }

    fn with_disk(seed: u64, disk: Disk, clock: Duration, capacity_bytes: Option<u64>) -> SimEnv {
        let machine = Machine {
            disk,
            seed,
            random: SplitMix(seed),
            clock,
            log: Vec::new(),
            calls: 0,
            images: None,
            crash_at: None,
            crashed: false,
            faults: Vec::new(),
            call_fault: None,
            capacity_bytes,
            locked: HashSet::new(),
            holding: false,
            held: 0,
        };
        SimEnv { machine: Arc::new(Mutex::new(machine)), held_changed: Arc::default() }
    }

    // A test thread that panics while holding the lock has failed already; the others may still look.
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations begun so far, which is also the number of the next one.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.machine().log.len() as u64
    }

    /// All operations begun so far, in order; the position is the number.
    #[must_use]
    pub fn op_log(&self) -> Vec<Op> {
        self.machine().log.clone()
    }

    /// The machine dies within operation `op` (0 is the first): it returns an error though its bytes or names may be
    /// on their way to the disk, and every later call, reads included, fails. A dying sync made nothing durable.
    pub fn crash_at(&self, op: u64) {
        self.machine().crash_at = Some(op);
    }

    /// Whether the machine is dead.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.machine().crashed
    }

    /// Cuts the power (if that has not happened yet) and starts a machine with what `loss` leaves over. Every handle and
    /// lock of this machine is dead; the new one counts operations from 0, has no faults, and everything on its disk
    /// is durable. May be called again with another `loss` for another outcome of the same crash.
    #[must_use]
    pub fn reboot(&self, loss: PowerLoss) -> SimEnv {
        let mut machine = self.machine();
        machine.crashed = true;
        self.held_changed.notify_all();
        let seed = machine.seed;
        let disk = machine.disk.after_power_loss(loss, seed);
        let seed = SplitMix(seed ^ machine.log.len() as u64).next();
        SimEnv::with_disk(seed, disk, machine.clock, machine.capacity_bytes)
    }

    /// From now on the disk is kept as it is after each operation, for [`SimEnv::reboot_after`]. Copies share the bytes of
    /// files that did not change.
    pub fn keep_images(&self) {
        let mut machine = self.machine();
        machine.images = Some(Images { first: machine.log.len() as u64, disks: vec![machine.disk.clone()] });
    }

    /// The machine that [`SimEnv::reboot`] would start had the power gone when the first `ops` operations were complete
    /// and no other had begun. This machine goes on as if nothing had happened.
    ///
    /// # Panics
    /// If [`SimEnv::keep_images`] was not asked for by then, or fewer operations have begun.
    #[must_use]
    pub fn reboot_after(&self, ops: u64, loss: PowerLoss) -> SimEnv {
        let machine = self.machine();
        let images = machine.images.as_ref().filter(|images| images.first <= ops);
        let image = images.and_then(|images| images.disks.get((ops - images.first) as usize));
        #[expect(clippy::expect_used, reason = "documented: the caller asked for images first")]
        let disk = image.expect("an image of this operation").after_power_loss(loss, machine.seed);
        let seed = SplitMix(machine.seed ^ ops).next();
        SimEnv::with_disk(seed, disk, machine.clock, machine.capacity_bytes)
    }

    /// Whether everything on the disk was durable after the first `ops` operations, so that all power losses are alike.
    /// `false` also if that is not known.
    #[must_use]
    pub fn settled_after(&self, ops: u64) -> bool {
        let machine = self.machine();
        let Some(images) = &machine.images else { return false };
        ops.checked_sub(images.first).and_then(|at| images.disks.get(at as usize)).is_some_and(Disk::is_settled)
    }

    /// Kills the process (kill -9) while the machine stays up: everything written is there, what was not synced may still
    /// be lost later, handles and locks are gone.
    #[must_use]
    pub fn kill(&self) -> SimEnv {
        let mut machine = self.machine();
        machine.crashed = true;
        self.held_changed.notify_all();
        let seed = SplitMix(machine.seed ^ machine.log.len() as u64).next();
        SimEnv::with_disk(seed, machine.disk.after_kill(), machine.clock, machine.capacity_bytes)
    }

    /// Operation `op` fails with `kind`, `Once` or from then on `Forever`. A failing write leaves the first half of
    /// its bytes; a failing sync makes nothing durable, then or later; anything else leaves no trace. Removing a file never
    /// fails with `StorageFull`.
    pub fn fail_op(&self, op: u64, kind: io::ErrorKind, repeat: Repeat) {
        self.machine().faults.push(Fault { at: op, kind, repeat });
    }

    /// Calls begun so far, reads included, which is also the number of the next one. Only [`Env::create_dir_all`] of a
    /// folder that exists, clocks and randomness are no calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// Call `call` fails with `kind`, `Once` or from then on `Forever`. A failing write leaves none, half or all of its
    /// bytes, as its number has it; a failing read fills half of the buffer; the rest is as with [`SimEnv::fail_op`].
    pub fn fail_call(&self, call: u64, kind: io::ErrorKind, repeat: Repeat) {
        self.machine().call_fault = Some(Fault { at: call, kind, repeat });
    }

    /// Forgets all injected faults.
    pub fn clear_faults(&self) {
        let mut machine = self.machine();
        machine.faults.clear();
        machine.call_fault = None;
    }

    /// Limits the sum of all file lengths; writes beyond fail with `StorageFull` and change nothing.
    pub fn set_capacity_bytes(&self, bytes: Option<u64>) {
        self.machine().capacity_bytes = bytes;
    }

    /// From now on every [`File::sync`] waits, as on a disk that is busy, until it is let go with `false`. Everything
    /// else goes on, so that a test can look at what happens between a write and its sync.
    pub fn hold_syncs(&self, hold: bool) {
        self.machine().holding = hold;
        self.held_changed.notify_all();
    }

    /// Blocks until `count` file syncs are waiting; `false` if they do not come within ten seconds.
    #[must_use]
    pub fn await_held_syncs(&self, count: usize) -> bool {
        let arriving = |machine: &mut Machine| machine.held < count;
        let waited = self.held_changed.wait_timeout_while(self.machine(), Duration::from_secs(10), arriving);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn wait_while_held(&self) {
        let mut machine = self.machine();
        if !machine.holding {
            return;
        }
        machine.held += 1;
        self.held_changed.notify_all();
        while machine.holding && !machine.crashed {
            machine = self.held_changed.wait(machine).unwrap_or_else(PoisonError::into_inner);
        }
        machine.held -= 1;
    }

    /// Moves the clock on; it never moves by itself.
    pub fn advance(&self, by: Duration) {
        self.machine().clock += by;
    }

    /// Every file with its length, sorted by path.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.machine().disk.files()
    }

    /// Content of a file, synced or not. Works on a dead machine too.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let machine = self.machine();
        Ok(machine.disk.content(machine.disk.lookup(path)?).to_vec())
    }

    /// Replaces or creates a file, durably and without counting an operation. The names of its folder become durable.
    ///
    /// # Errors
    /// `NotFound` if its folder does not exist.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.machine().disk.put(path, bytes)
    }

    /// Flips the bits `xor` of the byte at `offset`, durably and without counting an operation.
    ///
    /// # Errors
    /// `NotFound`, or `UnexpectedEof` beyond the end of the file.
    pub fn corrupt(&self, path: &Path, offset: u64, xor: u8) -> io::Result<()> {
        let mut machine = self.machine();
        let inode = machine.disk.lookup(path)?;
        machine.disk.corrupt(inode, offset, xor)
    }

    fn mutate<T>(&self, op: Op, apply: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        self.mutate_or(op, apply, |_, _| {})
    }

    /// Runs one numbered operation: `apply` if all goes well, `on_fault` if a fault was injected here. The latter is
    /// told how many halves of its work are done.
    fn mutate_or<T>(
        &self,
        op: Op,
        apply: impl FnOnce(&mut Disk) -> io::Result<T>,
        on_fault: impl FnOnce(&mut Disk, u64),
    ) -> io::Result<T> {
        let mut machine = self.machine();
        machine.check_alive()?;
        let (number, call) = (machine.log.len() as u64, machine.calls);
        machine.calls += 1;
        let is_sync = matches!(op, Op::Sync(_) | Op::SyncDir(_));
        let is_remove = matches!(op, Op::Remove(_));
        machine.log.push(op);
        if machine.crash_at.is_some_and(|at| number >= at) {
            machine.crashed = true;
            self.held_changed.notify_all();
            if !is_sync {
                // In flight when the power went: the policy of `reboot` decides what of it arrived.
                drop(apply(&mut machine.disk));
            }
            return Err(dead());
        }
        // A disk that is full lets files go.
        let is_spared = |kind| is_remove && kind == io::ErrorKind::StorageFull;
        let outcome = if let Some(kind) = machine.fault(number).filter(|kind| !is_spared(*kind)) {
            on_fault(&mut machine.disk, 1);
            Err(io::Error::new(kind, format!("injected fault at operation {number}")))
        } else if let Some(kind) = machine.call_fault(call).filter(|kind| !is_spared(*kind)) {
            on_fault(&mut machine.disk, call % 3);
            Err(io::Error::new(kind, format!("injected fault at call {call}")))
        } else {
            apply(&mut machine.disk)
        };
        machine.keep_image();
        outcome
    }

    /// The machine for a call that changes nothing, or why the call fails.
    fn reading(&self) -> io::Result<MutexGuard<'_, Machine>> {
        let mut machine = self.machine();
        machine.check_alive()?;
        let call = machine.calls;
        machine.calls += 1;
        match machine.call_fault(call) {
            Some(kind) => Err(io::Error::new(kind, format!("injected fault at call {call}"))),
            None => Ok(machine),
        }
    }
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: handles print their machine, and a disk may be large.
        f.debug_struct("SimEnv").finish_non_exhaustive()
    }
}

impl Machine {
    fn check_alive(&self) -> io::Result<()> {
        if self.crashed { Err(dead()) } else { Ok(()) }
    }

    fn fault(&self, number: u64) -> Option<io::ErrorKind> {
        self.faults.iter().find(|fault| fault.hits(number)).map(|fault| fault.kind)
    }

    fn call_fault(&self, call: u64) -> Option<io::ErrorKind> {
        self.call_fault.filter(|fault| fault.hits(call)).map(|fault| fault.kind)
    }

    fn keep_image(&mut self) {
        if let Some(images) = &mut self.images {
            images.disks.push(self.disk.clone());
        }
    }
}

impl Fault {
    fn hits(&self, number: u64) -> bool {
        match self.repeat {
            Repeat::Once => self.at == number,
            Repeat::Forever => self.at <= number,
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the simulated machine is dead")
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): one addition and a mix per number.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias of the modulus does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests;
