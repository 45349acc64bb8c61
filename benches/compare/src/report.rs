//! Medians, side by side.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::peers::Work;

pub struct Report {
    missing: Vec<&'static str>,
    rates: BTreeMap<Work, BTreeMap<&'static str, Vec<f64>>>,
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Report {
    pub fn new(missing: Vec<&'static str>) -> Report {
        for name in &missing {
            println!("left out, not installed: {name}");
        }
        Report { missing, rates: BTreeMap::new() }
    }

    pub fn add(&mut self, work: Work, engine: &'static str, rate: f64) {
        self.rates.entry(work).or_default().entry(engine).or_default().push(rate);
    }

    pub fn print_line(&self, work: Work) {
        let Some(engines) = self.rates.get(&work) else { return };
        let ours = engines.get("strata").map(|rates| median(rates));
        let cells: Vec<String> = engines
            .iter()
            .map(|(name, rates)| {
                let (low, high) =
                    rates.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), &r| (low.min(r), high.max(r)));
                let ratio = ours.map_or(f64::NAN, |ours| ours / median(rates));
                format!("{name} {:.0}/s ({low:.0} to {high:.0}, ours {ratio:.2}x)", median(rates))
            })
            .collect();
        println!("{:<28} {}", work.name(), cells.join("; "));
    }

    pub fn finish(&self, path: Option<&Path>) -> Result<()> {
        let works: Vec<Value> = self.rates.iter().map(|(work, engines)| self.entry(*work, engines)).collect();
        if let Some(path) = path {
            std::fs::write(path, format!("{:#}\n", json!(works)))?;
        }
        if !self.missing.is_empty() {
            println!("left out, not installed: {}", self.missing.join(", "));
        }
        Ok(())
    }

    fn entry(&self, work: Work, engines: &BTreeMap<&'static str, Vec<f64>>) -> Value {
        let ours = engines.get("strata").map(|rates| median(rates));
        let peers: BTreeMap<_, _> =
            engines.iter().filter(|(name, _)| **name != "strata").map(|(name, rates)| (*name, median(rates))).collect();
        let best = peers.values().copied().fold(f64::NAN, f64::max);
        json!({
            "work": work.name(),
            "unit": "operations per second",
            "strata": ours,
            "peers": peers,
            "ratio_to_best": ours.map(|ours| ours / best),
        })
    }
}
