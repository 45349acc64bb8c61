//! Metrics: what an open database has done and how long it took, for operators and benchmarks.
//!
//! Counting is one relaxed addition and takes no lock, so it stays on always. Figures count from the opening of the
//! database. Names follow Prometheus: a unit where there is one, `_total` for what only rises.
//!
//! Histograms have buckets of a sixteenth of a power of two and more, so a quantile read from one is at most 6 % above the
//! true value. Source: `HdrHistogram` (Gil Tene), reduced to what can be counted without a lock.
//!
//! Deliberately absent: an exporter. Whoever serves metrics writes them in the format of its protocol.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Each power of two is cut into this many buckets of equal width.
const SUB_BUCKETS: usize = 16;
const SUB_BUCKET_BITS: u32 = SUB_BUCKETS.ilog2();
/// Durations in microseconds below 2^36: nineteen hours, and everything longer in the last bucket.
const POWERS: usize = 33;

/// How long something took, as a distribution.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    sum_micros: AtomicU64,
    max_micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let buckets = (0..POWERS * SUB_BUCKETS).map(|_| AtomicU64::new(0)).collect();
        let zero = || AtomicU64::new(0);
        Histogram { buckets, count: zero(), sum_micros: zero(), max_micros: zero() }
    }
}

impl Histogram {
    /// Counts one that took `duration`.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
        self.max_micros.fetch_max(micros, Relaxed);
    }

    /// What was recorded so far. Recordings that happen meanwhile may be in some of the figures and not in others.
    #[must_use]
    pub fn summary(&self) -> HistogramSummary {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let max = Duration::from_micros(self.max_micros.load(Relaxed));
        let quantile = |share: f64| quantile(&counts, share).min(max);
        HistogramSummary {
            count: self.count.load(Relaxed),
            sum: Duration::from_micros(self.sum_micros.load(Relaxed)),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max,
        }
    }
}

/// Figures of a [`Histogram`]; all zero if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSummary {
    /// How many were recorded.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
    /// Half of them took at most this.
    pub p50: Duration,
    /// 99 in 100 took at most this.
    pub p99: Duration,
    /// 999 in 1000 took at most this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// Position of the bucket that counts `micros`.
fn bucket(micros: u64) -> usize {
    if micros < SUB_BUCKETS as u64 {
        return micros as usize;
    }
    let power = micros.ilog2() - SUB_BUCKET_BITS;
    let within = (micros >> power) as usize - SUB_BUCKETS;
    ((power as usize + 1) * SUB_BUCKETS + within).min(POWERS * SUB_BUCKETS - 1)
}

/// Largest number that the bucket at `at` counts.
fn bucket_max(at: usize) -> u64 {
    if at < SUB_BUCKETS {
        return at as u64;
    }
    let power = at / SUB_BUCKETS - 1;
    let within = (at % SUB_BUCKETS + SUB_BUCKETS) as u64;
    ((within + 1) << power) - 1
}

fn quantile(counts: &[u64], share: f64) -> Duration {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let at = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    Duration::from_micros(at.map_or(0, bucket_max))
}

/// Everything that the row store counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Commits acknowledged.
    pub commits: Counter,
    /// Commits refused because another transaction came first.
    pub conflicts: Counter,
    /// Bytes of encoded commits, as they went to the log: what users wrote.
    pub commit_bytes: Counter,
    /// How long commits were held back because background work was behind.
    pub stalls: Histogram,
    /// Flushes of memtables.
    pub flush: Histogram,
    /// Bytes of runs written by flushes.
    pub flush_bytes: Counter,
    /// Merges of runs.
    pub merge: Histogram,
    /// Bytes of runs read by merges.
    pub merge_read_bytes: Counter,
    /// Bytes of runs written by merges.
    pub merge_write_bytes: Counter,
    /// Bytes of value files written, by flushes and merges.
    pub value_write_bytes: Counter,
    /// Bytes of values read from sparse value files to be written anew: part of what is in `value_write_bytes`.
    pub value_move_bytes: Counter,
    /// Conversions of runs into segments, and rewrites of segments.
    pub convert: Histogram,
    /// Background steps that failed and will be tried again.
    pub background_failures: Counter,
}

/// What the log counts.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Syncs.
    pub sync: Histogram,
    /// Bytes written, frames included.
    pub bytes: Counter,
}

/// One figure by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Name after Prometheus' rules.
    pub name: &'static str,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// The figure.
    pub value: MetricValue,
}

/// A figure, by what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricValue {
    /// Only rises while the database is open.
    Counter(u64),
    /// Rises and falls.
    Gauge(u64),
    /// A distribution of durations.
    Histogram(HistogramSummary),
}

impl Metrics {
    /// All figures, in a fixed order.
    #[must_use]
    pub fn list(&self, log: &LogMetrics) -> Vec<Metric> {
        let counter = |name, help, counter: &Counter| Metric { name, help, value: MetricValue::Counter(counter.get()) };
        let times =
            |name, help, times: &Histogram| Metric { name, help, value: MetricValue::Histogram(times.summary()) };
        vec![
            counter("strata_commits_total", "Commits acknowledged.", &self.commits),
            counter("strata_conflicts_total", "Commits refused because another came first.", &self.conflicts),
            counter("strata_commit_bytes_total", "Bytes of encoded commits: what users wrote.", &self.commit_bytes),
            times("strata_stall_seconds", "How long commits were held back by background work.", &self.stalls),
            times("strata_log_sync_seconds", "Syncs of the log.", &log.sync),
            counter("strata_log_bytes_total", "Bytes written to the log.", &log.bytes),
            times("strata_flush_seconds", "Flushes of memtables.", &self.flush),
            counter("strata_flush_bytes_total", "Bytes of runs written by flushes.", &self.flush_bytes),
            times("strata_merge_seconds", "Merges of runs.", &self.merge),
            counter("strata_merge_read_bytes_total", "Bytes of runs read by merges.", &self.merge_read_bytes),
            counter("strata_merge_write_bytes_total", "Bytes of runs written by merges.", &self.merge_write_bytes),
            counter(
                "strata_value_write_bytes_total",
                "Bytes of value files written by flushes and merges.",
                &self.value_write_bytes,
            ),
            counter(
                "strata_value_move_bytes_total",
                "Bytes of large values moved out of value files with much garbage.",
                &self.value_move_bytes,
            ),
            times("strata_convert_seconds", "Conversions into segments and their rewrites.", &self.convert),
            counter(
                "strata_background_failures_total",
                "Background steps that failed and are tried again.",
                &self.background_failures,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A bucket's bound is the least one that holds the value, and less than a sixteenth above it.
        #[test]
        fn buckets_are_narrow_and_in_order(micros in 0u64..1 << 36) {
            let at = bucket(micros);
            prop_assert!(micros <= bucket_max(at));
            prop_assert!(at == 0 || micros > bucket_max(at - 1));
            prop_assert!(bucket_max(at) - micros <= micros / SUB_BUCKETS as u64);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_list(mut micros in prop::collection::vec(0u64..5_000_000, 1..200)) {
            let histogram = Histogram::default();
            micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
            micros.sort_unstable();
            let summary = histogram.summary();
            let rank = |share: f64| ((micros.len() as f64 * share).ceil() as usize).max(1) - 1;
            for (quantile, share) in [(summary.p50, 0.5), (summary.p99, 0.99), (summary.p999, 0.999)] {
                let exact = micros[rank(share)];
                let read = quantile.as_micros() as u64;
                prop_assert!(read >= exact && read <= exact + exact / SUB_BUCKETS as u64, "{read} for {exact}");
            }
            prop_assert_eq!(summary.count, micros.len() as u64);
            prop_assert_eq!(summary.sum, Duration::from_micros(micros.iter().sum()));
            prop_assert_eq!(summary.max, Duration::from_micros(micros[micros.len() - 1]));
        }
    }

    #[test]
    fn the_longest_times_share_the_last_bucket() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.summary().max, Duration::from_micros(u64::MAX));
        assert_eq!(Histogram::default().summary(), HistogramSummary::default());
    }

    #[test]
    fn names_are_unique_and_follow_the_rules() {
        let list = Metrics::default().list(&LogMetrics::default());
        let mut names: Vec<_> = list.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), list.len());
        for metric in &list {
            let ends = match metric.value {
                MetricValue::Counter(_) => metric.name.ends_with("_total"),
                MetricValue::Histogram(_) => metric.name.ends_with("_seconds"),
                MetricValue::Gauge(_) => !metric.name.ends_with("_total"),
            };
            assert!(ends && metric.name.starts_with("strata_") && metric.help.ends_with('.'), "{metric:?}");
        }
    }
}
