//! Campaigns with a real process on a real file system: kill -9, and power cuts.
//!
//! A cut is the ioctl with which ext4's own tests end a file system: from then on nothing reaches the device, the journal
//! is not flushed, and after mounting again the file system has what it had synced. The file system lies in a file and is
//! mounted in a mount namespace of this process alone, so that mount and loop device are gone with the process, however
//! it ends.
#![expect(clippy::disallowed_methods, reason = "scratch folders and mounts are no files of a database")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::ioctl::{Setter, ioctl};

use crate::harness::random::Numbers;
use crate::ledger::Counts;
use crate::runner::{Campaign, no_obstacle};
use crate::writer::{Told, WRITERS_MAX, check};

pub const EXT4_POWER: &str = "ext4-power";
/// Set in the process that has a mount namespace of its own.
const PRIVATE: &str = "STRATA_RELIABILITY_PRIVATE_MOUNTS";
/// Ends of one case: the same database, or file system, over and over.
const CYCLES: u64 = 10;
const FILE_SYSTEM_BYTES: u64 = 96 << 20;

pub fn campaigns() -> Vec<Campaign> {
    let (goal, parallel) = (("cycles", 2_000), false);
    vec![
        Campaign {
            name: "kill9",
            about: "a process with background threads is killed at random, and opened again",
            goal,
            parallel,
            obstacle: no_obstacle,
            case: kill9,
        },
        Campaign {
            name: EXT4_POWER,
            about: "the file system under a process loses power; needs root and loop devices",
            goal: ("cycles", 1_000),
            parallel,
            obstacle: no_loop_mounts,
            case: ext4_power,
        },
    ]
}

fn kill9(number: u64, scratch: &Path) -> Result<Counts> {
    let dir = scratch.join(format!("kill9-{number}"));
    make_empty(&dir)?;
    let mut numbers = Numbers::new(number);
    let (mut known, mut commits, mut opening) = (vec![0; WRITERS_MAX as usize], 0, 0);
    for cycle in 0..CYCLES {
        let seed = numbers.next();
        let mut writer = Writer::start(&dir, seed, Stdio::inherit())?;
        thread::sleep(lifetime(&mut numbers));
        let told = writer.kill(true)?;
        commits += told.commits();
        opening += u64::from(!told.opened);
        check(&dir, &mut known, &told, seed).with_context(|| format!("cycle {cycle}"))?;
    }
    fs::remove_dir_all(&dir)?;
    Ok(Counts::from([("cycles", CYCLES), ("commits", commits), ("killed_while_opening", opening)]))
}

/// Most processes work for a while, some end while they still recover.
fn lifetime(numbers: &mut Numbers) -> Duration {
    Duration::from_millis(if numbers.one_in(5) { numbers.below(10) } else { 20 + numbers.below(150) })
}

fn make_empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// The process that writes, and what it tells.
struct Writer {
    child: Child,
    listener: Option<thread::JoinHandle<Told>>,
    /// Set before power is cut. A machine without power tells nobody anything: while the file system goes down, a sync in
    /// progress may still return success.
    late: Arc<AtomicBool>,
}

impl Writer {
    fn start(dir: &Path, seed: u64, errors: Stdio) -> Result<Writer> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("writer")
            .arg("--writer")
            .arg(dir)
            .args(["--seed", &seed.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot start the writer")?;
        let output = child.stdout.take().context("the writer has no output")?;
        let late = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&late);
        let listener = thread::spawn(move || {
            let (mut told, mut line, mut output) = (Told::default(), String::new(), BufReader::new(output));
            while matches!(output.read_line(&mut line), Ok(1..)) {
                if let Some(whole) = line.strip_suffix('\n') {
                    told.line(whole, !seen.load(Ordering::SeqCst));
                }
                line.clear();
            }
            told
        });
        Ok(Writer { child, listener: Some(listener), late })
    }

    /// Kills it and returns what it told; it must be alive by then if so asked.
    fn kill(&mut self, alive: bool) -> Result<Told> {
        let ended = self.child.try_wait()?;
        self.child.kill()?;
        self.child.wait()?;
        let told = self.listener.take().map(thread::JoinHandle::join);
        ensure!(!alive || ended.is_none(), "the writer ended by itself: {ended:?}");
        told.and_then(Result::ok).context("nobody listened to the writer")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended before, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// ---------------------------------------------------------------------------------------------------- power cuts

fn no_loop_mounts() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, to mount a file system and cut its power".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices, and there is no /dev/loop-control".to_owned());
    }
    let missing = ["unshare", "mkfs.ext4", "mount", "umount"].into_iter().find(|tool| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).stdout(Stdio::null()).status();
        !found.is_ok_and(|status| status.success())
    });
    missing.map(|tool| format!("needs the program {tool}"))
}

pub fn has_private_mounts() -> bool {
    std::env::var_os(PRIVATE).is_some()
}

/// Runs this program again with a mount namespace of its own.
pub fn again_with_private_mounts() -> Result<bool> {
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(PRIVATE, "1")
        .status()
        .context("cannot start unshare")?;
    Ok(status.success())
}

fn ext4_power(number: u64, scratch: &Path) -> Result<Counts> {
    let folder = scratch.join(format!("ext4-{number}"));
    make_empty(&folder)?;
    let image = folder.join("image");
    File::create(&image)?.set_len(FILE_SYSTEM_BYTES)?;
    call(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
    let mut numbers = Numbers::new(number);
    let (mut known, mut commits, mut opening) = (vec![0; WRITERS_MAX as usize], 0, 0);
    for cycle in 0..CYCLES {
        let seed = numbers.next();
        let mount = Mount::new(&image, &folder.join("mount"))?;
        let dir = mount.at.join("database");
        let mut writer = Writer::start(&dir, seed, Stdio::null())?;
        thread::sleep(lifetime(&mut numbers));
        ensure!(writer.child.try_wait()?.is_none(), "the writer ended before the power was cut, in cycle {cycle}");
        writer.late.store(true, Ordering::SeqCst);
        mount.cut_power()?;
        let told = writer.kill(false)?;
        mount.end()?;
        commits += told.commits();
        opening += u64::from(!told.opened);
        let mount = Mount::new(&image, &folder.join("mount"))?;
        check(&dir, &mut known, &told, seed).with_context(|| format!("cycle {cycle}"))?;
        mount.end()?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(Counts::from([("cycles", CYCLES), ("commits", commits), ("cut_while_opening", opening)]))
}

/// A mounted file system; unmounted when dropped.
struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    fn new(image: &Path, at: &Path) -> Result<Mount> {
        fs::create_dir_all(at)?;
        call(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(at))?;
        Ok(Mount { at: at.to_path_buf(), mounted: true })
    }

    /// From now on nothing reaches the device.
    fn cut_power(&self) -> Result<()> {
        /// `EXT4_IOC_SHUTDOWN`, which is `_IOR('X', 125, __u32)`.
        const SHUTDOWN: u32 = 0x8004_587d;
        /// `EXT4_GOING_FLAGS_NOLOGFLUSH`: the journal in memory is lost too.
        const NO_LOG_FLUSH: u32 = 2;
        let folder = File::open(&self.at)?;
        // SAFETY: the kernel's header `ext4.h` declares this request with a pointer to a `__u32` that it reads, and
        // `Setter` passes one; it does not keep it.
        let request = unsafe { Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
        // SAFETY: as above; the call changes nothing in this process.
        unsafe { ioctl(&folder, request) }.context("cannot shut the file system down")
    }

    fn end(mut self) -> Result<()> {
        self.mounted = false;
        call(Command::new("umount").arg(&self.at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily, because the case failed and something may still be open.
            drop(Command::new("umount").arg("-l").arg(&self.at).status());
        }
    }
}

fn call(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
