//! Medians, side by side.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::works::{Better, Figure, Unit};

/// Who is measured.
const OURS: &str = "strata";
/// Shown and not counted as peers: no engines, only what none can exceed.
const BOUNDS: [&str; 2] = ["disk", "processor"];

/// The figures of one line: which work, which aspect of it.
struct Line {
    work: String,
    unit: Unit,
    values: BTreeMap<&'static str, Vec<f64>>,
}

/// Collects the figures of all rounds.
pub struct Report {
    /// Engines that did not run, and why.
    left_out: Vec<(&'static str, String)>,
    lines: Vec<Line>,
    printed: usize,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

impl Report {
    pub fn new(left_out: Vec<(&'static str, String)>) -> Report {
        let report = Report { left_out, lines: Vec::new(), printed: 0 };
        report.print_left_out();
        report
    }

    /// Names the engines that did not run.
    pub fn print_left_out(&self) {
        for (name, reason) in &self.left_out {
            println!("left out: {name}, {reason}");
        }
    }

    pub fn add(&mut self, work: &str, engine: &'static str, figure: &Figure) {
        let name = if figure.what.is_empty() { work.to_owned() } else { format!("{work}: {}", figure.what) };
        let at = self.lines.iter().position(|line| line.work == name).unwrap_or_else(|| {
            self.lines.push(Line { work: name, unit: figure.unit, values: BTreeMap::new() });
            self.lines.len() - 1
        });
        self.lines[at].values.entry(engine).or_default().push(figure.value);
    }

    /// Prints what was added since the last call.
    pub fn print_new(&mut self) {
        for line in &self.lines[self.printed..] {
            line.print();
        }
        self.printed = self.lines.len();
    }

    /// Writes the list of all lines so far.
    pub fn write(&self, path: &Path) -> Result<()> {
        let names: Vec<&str> = self.left_out.iter().map(|(name, _)| *name).collect();
        let entries: Vec<Value> = self.lines.iter().map(|line| line.entry(&names)).collect();
        std::fs::write(path, format!("{:#}\n", json!(entries)))?;
        Ok(())
    }
}

impl Line {
    /// How many times better ours is than `peer`.
    fn ratio(&self, peer: f64) -> Option<f64> {
        let ours = median(self.values.get(OURS)?);
        let ratio = match self.unit.better {
            Better::More => ours / peer,
            Better::Less => peer / ours,
            Better::Neither => return None,
        };
        ratio.is_finite().then_some(ratio)
    }

    fn peers(&self) -> BTreeMap<&'static str, f64> {
        let engines = self.values.iter().filter(|(name, _)| **name != OURS && !BOUNDS.contains(*name));
        engines.map(|(name, values)| (*name, median(values))).collect()
    }

    fn best_ratio(&self) -> Option<f64> {
        // The best peer is the one against which ours looks worst.
        self.peers().into_values().filter_map(|peer| self.ratio(peer)).min_by(f64::total_cmp)
    }

    fn print(&self) {
        println!("{} ({})", self.work, self.unit.name);
        for (name, values) in &self.values {
            let (low, high) = spread(values);
            let digits = if median(values) < 100.0 { 2 } else { 0 };
            let ratio = if *name == OURS { None } else { self.ratio(median(values)) };
            let ratio = ratio.map_or(String::new(), |ratio| format!("  ours {ratio:.2}x"));
            let median = median(values);
            println!("    {name:<12} {median:>14.digits$}  {low:.digits$} to {high:.digits$}{ratio}");
        }
    }

    fn entry(&self, left_out: &[&str]) -> Value {
        let spreads: BTreeMap<_, _> = self.values.iter().map(|(name, values)| (*name, spread(values))).collect();
        let mut entry = json!({
            "work": self.work,
            "unit": self.unit.name,
            "strata": self.values.get(OURS).map(|values| median(values)),
            "peers": self.peers(),
            "ratio_to_best": self.best_ratio(),
            "spread": spreads,
            "rounds": self.values.values().map(Vec::len).max(),
            "left_out": left_out,
        });
        for name in BOUNDS {
            if let Some(bound) = self.values.get(name) {
                entry[name] = json!(median(bound));
            }
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::works::{MICROSECONDS, PER_SECOND};

    fn line(unit: Unit, values: &[(&'static str, &[f64])]) -> Line {
        let values = values.iter().map(|(name, values)| (*name, values.to_vec())).collect();
        Line { work: "work".to_owned(), unit, values }
    }

    #[test]
    fn the_best_peer_counts_and_a_bound_does_not() {
        let rates =
            line(PER_SECOND, &[(OURS, &[30.0, 10.0, 20.0]), ("a", &[5.0]), ("b", &[10.0]), (BOUNDS[0], &[1000.0])]);
        assert_eq!(rates.best_ratio(), Some(2.0));
        let entry = rates.entry(&["c"]);
        assert_eq!(entry["strata"], json!(20.0));
        assert_eq!(entry["peers"], json!({"a": 5.0, "b": 10.0}));
        assert_eq!(entry["disk"], json!(1000.0));
        assert_eq!(entry["spread"]["strata"], json!([10.0, 30.0]));
        assert_eq!(entry["left_out"], json!(["c"]));
    }

    #[test]
    fn less_is_better_for_latencies() {
        let latencies = line(MICROSECONDS, &[(OURS, &[10.0]), ("a", &[5.0]), ("b", &[20.0])]);
        assert_eq!(latencies.best_ratio(), Some(0.5));
    }

    #[test]
    fn alone_there_is_no_ratio() {
        assert_eq!(line(PER_SECOND, &[(OURS, &[1.0, 3.0])]).best_ratio(), None);
        assert_eq!(median(&[1.0, 3.0]), 2.0);
    }
}
