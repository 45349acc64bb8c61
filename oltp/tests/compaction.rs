//! Pins down which runs merge, and what that costs over time, in goldenscripts under `scripts/compaction/`.
//!
//! The picker is a pure function of sizes, so a simulation of thousands of flushes is arithmetic. Refresh with
//! `UPDATE_GOLDENFILES=1`, then read the difference as code.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails; clippy knows only test functions themselves")]

use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{Command, Context, Runner};
use strata_oltp::compaction::gc::Tombstones;
use strata_oltp::compaction::{MergePlan, MergePolicy, merge_all, pick_merge};

const MIB: u64 = 1 << 20;

#[test]
fn pick_merge_script() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/compaction/pick_merge");
    goldenscript::run(&mut Table::default(), path).unwrap();
}

/// A table that only grows: runs in MiB, oldest first.
#[derive(Default)]
struct Table {
    runs: Vec<u64>,
    flushed: u64,
    written: u64,
    runs_max: usize,
}

impl Table {
    fn flush(&mut self) {
        self.runs.push(1);
        self.flushed += 1;
        self.written += 1;
        self.runs_max = self.runs_max.max(self.runs.len());
        while let Some(plan) = pick_merge(&bytes(&self.runs), MergePolicy::default()) {
            let merged = self.runs[plan.runs.clone()].iter().sum();
            self.written += merged;
            self.runs.splice(plan.runs, [merged]);
        }
    }
}

fn bytes(runs: &[u64]) -> Vec<u64> {
    runs.iter().map(|mib| mib * MIB).collect()
}

fn describe(plan: Option<MergePlan>) -> String {
    let Some(plan) = plan else { return "nothing\n".to_owned() };
    let tombstones = match plan.tombstones {
        Tombstones::Keep => "keep",
        Tombstones::Drop => "drop",
    };
    format!("runs {}..{}, {tombstones} tombstones\n", plan.runs.start, plan.runs.end)
}

impl Runner for Table {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "pick" => {
                let mut runs: Vec<u64> = Vec::new();
                while let Some(arg) = args.next_pos() {
                    runs.push(arg.parse()?);
                }
                Ok(describe(pick_merge(&bytes(&runs), MergePolicy::default())))
            }
            "all" => {
                let count = args.next_pos().ok_or("how many runs?")?.parse()?;
                Ok(describe(merge_all(count, args.next_pos().is_some())))
            }
            "flush" => {
                let count: u64 = args.next_pos().ok_or("how many flushes?")?.parse()?;
                for _ in 0..count {
                    self.flush();
                }
                let mut output = String::new();
                let amplification = self.written as f64 / self.flushed as f64;
                writeln!(output, "{:?} after {} flushes", self.runs, self.flushed)?;
                writeln!(output, "written {amplification:.2} times, at most {} runs", self.runs_max)?;
                Ok(output)
            }
            name => Err(format!("unknown command {name}").into()),
        }
    }
}
