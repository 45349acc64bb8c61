//! What the main job prints and writes: a table on standard output, and JSON for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measure::{Measured, Verdict};
use super::placement::{ConversionTimes, Placement};
use crate::progress::grouped;

/// Everything one run of `strata tpch` found out.
pub struct Report {
    /// Scale factor.
    pub scale: f64,
    /// Where rows were.
    pub placement: Placement,
    /// Whether `data/tpch/changes.sql` was applied.
    pub changed: bool,
    /// Whether rows of an earlier run were used.
    pub reused: bool,
    /// Rows loaded.
    pub row_count: u64,
    /// First row to last durable acknowledgement.
    pub load_seconds: f64,
    /// Only if this run loaded and waited.
    pub conversion: Option<ConversionTimes>,
    /// After a checkpoint, spare WAL files left out.
    pub bytes_on_disk: u64,
    /// Peak of the process, if the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// One per query.
    pub queries: Vec<Measured>,
}

impl Report {
    /// Sum of the medians.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.queries.iter().map(Measured::median_ms).sum()
    }

    /// Geometric mean of the medians.
    #[must_use]
    pub fn geomean_ms(&self) -> f64 {
        let logs: f64 = self.queries.iter().map(|query| query.median_ms().max(1e-6).ln()).sum();
        (logs / self.queries.len().max(1) as f64).exp()
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let line = format!(
            "{:>5}  {:>10}  {:>10}  {:>7}  {:>13}  {:>13}  {:>13}  answer",
            "query", "median ms", "best ms", "rows", "from memtable", "from runs", "from segments"
        );
        let _ = writeln!(out, "{line}");
        for query in &self.queries {
            let verdict = match &query.verdict {
                Verdict::Right => "verified".to_string(),
                Verdict::Wrong(difference) => format!("WRONG: {difference}"),
                Verdict::Unchecked => "not checked".to_string(),
            };
            let _ = writeln!(
                out,
                "{:>5}  {:>10.1}  {:>10.1}  {:>7}  {:>13}  {:>13}  {:>13}  {verdict}",
                query.query.number(),
                query.median_ms(),
                query.min_ms(),
                grouped(query.row_count as u64),
                grouped(query.memtable_rows),
                grouped(query.run_rows),
                grouped(query.segment_rows),
            );
        }
        let right = self.queries.iter().filter(|query| query.verdict == Verdict::Right).count();
        let (total, geomean, count) = (self.total_ms(), self.geomean_ms(), self.queries.len());
        let _ = write!(
            out,
            "total {total:.1} ms, geometric mean {geomean:.1} ms; {right} of {count} answers verified, placement {}",
            self.placement.name()
        );
        out
    }

    /// The JSON of `--json`.
    #[must_use]
    pub fn json(&self) -> Value {
        let queries: Vec<_> = self.queries.iter().map(query_json).collect();
        json!({
            "scale": self.scale,
            "placement": self.placement.name(),
            "changed": self.changed,
            "reused": self.reused,
            "rows": self.row_count,
            "load_seconds": rounded(self.load_seconds),
            "load_rows_per_second": (self.row_count as f64 / self.load_seconds.max(1e-9)).round(),
            "seconds_to_99_percent_in_segments": self.conversion.map(|times| rounded(times.most_seconds)),
            "seconds_to_all_in_segments": self.conversion.map(|times| rounded(times.all_seconds)),
            "bytes_on_disk": self.bytes_on_disk,
            "peak_memory_bytes": self.peak_memory_bytes,
            "queries": queries,
            "total_ms": rounded(self.total_ms()),
            "geomean_ms": rounded(self.geomean_ms()),
        })
    }
}

fn query_json(query: &Measured) -> Value {
    let milliseconds: Vec<_> = query.milliseconds.iter().map(|ms| rounded(*ms)).collect();
    let difference = match &query.verdict {
        Verdict::Wrong(difference) => Some(difference),
        Verdict::Right | Verdict::Unchecked => None,
    };
    json!({
        "id": query.query.number(),
        "ms": milliseconds,
        "rows": query.row_count,
        "verified": query.verdict == Verdict::Right,
        "difference": difference,
        "memtable_rows": query.memtable_rows,
        "run_rows": query.run_rows,
        "segment_rows": query.segment_rows,
    })
}

/// Three digits behind the point: finer than any of these times repeats.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
