//! What the machine does meanwhile: bytes written, files on disk, stalls that are nobody's fault.

#![expect(
    unsafe_code,
    reason = "affinity, advice to the page cache and signals have no safe call in the standard library"
)]

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Whether this process runs under `chrt -f` or `chrt -r`.
pub fn is_real_time() -> bool {
    // SAFETY: asks about the calling process.
    matches!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_FIFO | libc::SCHED_RR)
}

/// Bytes that a process has caused to be written to disk, from `/proc/PID/io`: pages made dirty, less those that were
/// dropped before they were written.
pub fn written_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a counter of /proc/PID/io")?;
        anyhow::Ok(line.trim().parse::<u64>()?)
    };
    Ok(field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?))
}

/// [`written_bytes`] of a process and all below it; those that ended are counted with their parent.
pub fn written_bytes_of_tree(root: u32) -> Result<u64> {
    Ok(tree(root).into_iter().filter_map(|pid| written_bytes(pid).ok()).sum())
}

/// Ends a process and all below it at once.
pub fn kill_tree(root: u32) {
    for pid in tree(root) {
        // SAFETY: sends a signal to a process that the caller started.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    }
}

/// A process and all below it, parents first.
fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name, in brackets, may contain anything.
        let Some(parent) = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok()) else {
            continue;
        };
        children.entry(parent).or_default().push(pid);
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        found.extend(children.get(&found[at]).into_iter().flatten());
        at += 1;
    }
    found
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

/// A file of a database.
pub struct FileSize {
    /// Relative to the database's folder.
    pub name: String,
    /// Bytes written to it.
    pub bytes: u64,
    /// Bytes that its blocks take on disk, which may be more, or less.
    pub disk_bytes: u64,
}

/// Files below `dir`.
pub fn files(dir: &Path) -> Result<Vec<FileSize>> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            // What vanishes between the two calls is not on disk.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir)?.to_string_lossy().into_owned();
                found.push(FileSize { name, bytes: metadata.len(), disk_bytes: metadata.blocks() * 512 });
            }
        }
    }
    Ok(found)
}

/// Waits until the disk has nothing left to write for others, for a few seconds at most: the machine may not be ours.
pub fn wait_for_disk() -> Result<()> {
    Command::new("sync").status()?;
    let requests = || -> Result<u64> {
        let text = std::fs::read_to_string("/proc/diskstats")?;
        // Reads and writes completed, of all devices.
        let counts = text.lines().flat_map(|line| [3, 7].map(|at| line.split_whitespace().nth(at)));
        Ok(counts.filter_map(|count| count?.parse::<u64>().ok()).sum())
    };
    for _ in 0..20 {
        let before = requests()?;
        std::thread::sleep(Duration::from_millis(100));
        if requests()? - before < 5 {
            break;
        }
    }
    Ok(())
}

/// User and group of a process that must not be root; `None` if this one is not.
pub fn plain_user() -> Option<(u32, u32)> {
    // SAFETY: asks about the calling process.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let id = |flag: &str| {
        let output = Command::new("id").args([flag, "postgres"]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    Some(id("-u").zip(id("-g")).unwrap_or((65534, 65534)))
}

/// Makes `path` the property of [`plain_user`].
pub fn give_to_plain_user(path: &Path) -> Result<()> {
    if let Some((uid, gid)) = plain_user() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Keeps the files below a folder out of the page cache until dropped.
pub struct Evictor {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Evictor {
    pub fn start(dir: &Path) -> Result<Evictor> {
        let paths: Vec<PathBuf> = files(dir)?.into_iter().map(|file| dir.join(file.name)).collect();
        let opened: Vec<std::fs::File> = paths.iter().filter_map(|path| std::fs::File::open(path).ok()).collect();
        if opened.is_empty() {
            bail!("nothing to evict in {}", dir.display());
        }
        let evict = move || {
            for file in &opened {
                // SAFETY: advice about an open file; pages in use or not written yet stay.
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            }
        };
        evict();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                evict();
            }
        });
        Ok(Evictor { stop, thread: Some(thread) })
    }
}

impl Drop for Evictor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Stalls shorter than this are the scheduler at work.
const STALL_MIN: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(1);
const STALLS_MAX: usize = 1 << 16;

/// One thread per processor that does nothing but look at the clock once in a millisecond: no file, no allocation. What
/// it misses, everybody misses.
pub struct Control {
    started: Instant,
    stop: AtomicBool,
    /// Begin and end of each stall, in nanoseconds since `started`.
    stalls: Vec<(AtomicU64, AtomicU64)>,
    count: AtomicU64,
}

impl Control {
    pub fn new(started: Instant) -> Control {
        let stalls = (0..STALLS_MAX).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect();
        Control { started, stop: AtomicBool::new(false), stalls, count: AtomicU64::new(0) }
    }

    /// Watches until [`Control::stop`]; to be run on a thread per processor.
    pub fn watch(&self, processor: usize) {
        // SAFETY: a set of processors for the calling thread; a refusal leaves it where it was.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(processor, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
        let mut before = self.started.elapsed();
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(PAUSE);
            let now = self.started.elapsed();
            if now - before > PAUSE + STALL_MIN {
                let at = self.count.fetch_add(1, Ordering::Relaxed) as usize;
                if let Some((from, to)) = self.stalls.get(at) {
                    from.store((before + PAUSE).as_nanos() as u64, Ordering::Relaxed);
                    to.store(now.as_nanos() as u64, Ordering::Relaxed);
                }
            }
            before = now;
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Number of stalls, and nanoseconds of the longest.
    pub fn summary(&self) -> (u64, u64) {
        let longest = self.seen().map(|(from, to)| to - from).max().unwrap_or_default();
        (self.count.load(Ordering::Relaxed), longest)
    }

    fn seen(&self) -> impl Iterator<Item = (u64, u64)> {
        let count = (self.count.load(Ordering::Relaxed) as usize).min(STALLS_MAX);
        self.stalls[..count].iter().map(|(from, to)| (from.load(Ordering::Relaxed), to.load(Ordering::Relaxed)))
    }

    /// Nanoseconds between `from` and `to` in which some processor's thread stood still.
    pub fn stalled_within(&self, from: u64, to: u64) -> u64 {
        let mut parts: Vec<(u64, u64)> =
            self.seen().map(|(begin, end)| (begin.max(from), end.min(to))).filter(|(begin, end)| begin < end).collect();
        parts.sort_unstable();
        let (mut total, mut covered) = (0, 0);
        for (begin, end) in parts {
            total += end.max(covered) - begin.max(covered);
            covered = covered.max(end);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_that_overlap_count_once() {
        let control = Control::new(Instant::now());
        for (at, (from, to)) in [(10, 30), (20, 40), (100, 120)].into_iter().enumerate() {
            control.stalls[at].0.store(from, Ordering::Relaxed);
            control.stalls[at].1.store(to, Ordering::Relaxed);
        }
        control.count.store(3, Ordering::Relaxed);
        assert_eq!(control.stalled_within(0, 200), 50);
        assert_eq!(control.stalled_within(25, 110), 25);
        assert_eq!(control.stalled_within(41, 99), 0);
        assert_eq!(control.summary(), (3, 20));
    }
}
