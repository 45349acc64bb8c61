//! Overwriting: how long each write took, what it cost on disk, and whose fault the long ones were.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::data::{KEY_BYTES, Random, VALUE_BYTES, fill, key};
use crate::machine::{self, Control};
use crate::peers::{Peer, Store, Tuning};
use crate::works::{BYTES_PER_BYTE, COUNT, Figure, MICROSECONDS, PER_SECOND, STALL, Size, fill_store};

const THREADS: usize = 4;
const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;
/// No write may take longer, unless the machine stood still.
const LIMIT_NS: u64 = 50_000_000;
/// Long writes remembered per thread.
const LONG_MAX: usize = 1 << 16;

/// Counts of durations, exact to three percent: each power of two in 32 steps, which are the upper half of
/// [`STEPS`]. Never allocates after it was made.
struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();

impl Histogram {
    fn new() -> Histogram {
        Histogram { counts: vec![0; (65 - STEP_BITS as usize) * STEPS as usize], total: 0, max: 0 }
    }

    fn add(&mut self, ns: u64) {
        let shift = (64 - (ns | (STEPS - 1)).leading_zeros()) - STEP_BITS;
        let at = u64::from(shift) * STEPS + (ns >> shift) % STEPS;
        self.counts[at as usize] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// A duration that this share of all did not exceed.
    fn percentile(&self, share: f64) -> u64 {
        let wanted = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                let (shift, step) = ((at as u64 / STEPS) as u32, at as u64 % STEPS);
                // The last step of all ends where the numbers do, one short of zero.
                return ((step + 1) << shift).wrapping_sub(1).min(self.max);
            }
        }
        self.max
    }
}

/// What one thread saw.
struct Seen {
    latencies: Histogram,
    /// Begin and end of each write over the limit.
    long: Vec<(u64, u64)>,
}

pub fn run(peer: &dyn Peer, dir: &Path, size: &Size) -> Result<Vec<Figure>> {
    let store = peer.open(dir, Tuning::default())?;
    fill_store(store.as_ref(), size.rows, VALUE_BYTES)?;
    store.settle(false)?;
    machine::wait_for_disk()?;
    let written_before = store.written_bytes()?;
    let started = Instant::now();
    let control = Control::new(started);
    let seen = overwrite(store.as_ref(), size, started, &control)?;
    let seconds = started.elapsed().as_secs_f64();
    let mut latencies = Histogram::new();
    seen.iter().for_each(|seen| latencies.merge(&seen.latencies));
    let long = || seen.iter().flat_map(|seen| &seen.long);
    // Ours to answer for: those that the machine's stalls do not bring under the limit.
    let own = long().filter(|(from, to)| to - from - control.stalled_within(*from, *to) > LIMIT_NS).count();
    store.settle(false)?;
    let written = (store.written_bytes()? - written_before) as f64;
    drop(store);
    let files = machine::files(dir)?;
    let live: u64 = files.iter().filter(|file| !peer.is_log(&file.name)).map(|file| file.disk_bytes).sum();
    let (stalls, longest_stall) = control.summary();
    let us = |share| latencies.percentile(share) as f64 / 1e3;
    Ok(vec![
        Figure::new("", PER_SECOND, latencies.total as f64 / seconds),
        Figure::new("p50", MICROSECONDS, us(0.5)),
        Figure::new("p99", MICROSECONDS, us(0.99)),
        Figure::new("p99.9", MICROSECONDS, us(0.999)),
        Figure::new("longest", MICROSECONDS, latencies.max as f64 / 1e3),
        Figure::new("writes over 50 ms", COUNT, long().count() as f64),
        Figure::new("writes over 50 ms without a stall of the machine", COUNT, own as f64),
        Figure::new("stalls of the control thread", COUNT, stalls as f64),
        Figure::new("longest stall of the control thread", STALL, longest_stall as f64 / 1e6),
        Figure::new("write amplification", BYTES_PER_BYTE, written / (latencies.total * ROW_BYTES) as f64),
        Figure::new("space amplification", BYTES_PER_BYTE, live as f64 / (size.rows * ROW_BYTES) as f64),
    ])
}

fn overwrite(store: &dyn Store, size: &Size, started: Instant, control: &Control) -> Result<Vec<Seen>> {
    let (stop, ready) = (AtomicBool::new(false), Barrier::new(THREADS + 1));
    std::thread::scope(|scope| {
        for processor in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(move || control.watch(processor));
        }
        let workers: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || -> Result<Seen> {
                    let session = store.session(false);
                    let mut seen = Seen { latencies: Histogram::new(), long: Vec::with_capacity(LONG_MAX) };
                    ready.wait();
                    let (mut session, mut random, mut value) = (session?, Random(thread * 7919 + 1), [0; VALUE_BYTES]);
                    while !stop.load(Ordering::Relaxed) {
                        fill(&mut random, &mut value);
                        let key = key(random.next() % size.rows);
                        let from = started.elapsed().as_nanos() as u64;
                        session.put(&key, &value)?;
                        let to = started.elapsed().as_nanos() as u64;
                        seen.latencies.add(to - from);
                        if to - from > LIMIT_NS && seen.long.len() < LONG_MAX {
                            seen.long.push((from, to));
                        }
                    }
                    Ok(seen)
                })
            })
            .collect();
        ready.wait();
        std::thread::sleep(Duration::from_secs(size.overwrite_seconds));
        stop.store(true, Ordering::Relaxed);
        let seen = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
        let seen = seen.collect();
        control.stop();
        seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_a_step() {
        let mut histogram = Histogram::new();
        (1..=100_000).for_each(|ns| histogram.add(ns));
        for (share, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0), (0.00001, 1.0)] {
            let found = histogram.percentile(share) as f64;
            assert!(found >= exact && found <= exact * 1.04, "{share}: {found} instead of {exact}");
        }
        histogram.add(u64::MAX);
        assert_eq!(histogram.percentile(1.0), u64::MAX);
    }
}
