//! Runs the cases of a campaign: several at a time if asked to, each guarded against panics and against never ending.
//!
//! A case that panics or returns an error is a violation: it goes on record with its number, and the campaign goes on.
//! A case that does not end within [`HANG`] ends the program, because nothing can be said of its threads.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;

use crate::ledger::{Counts, Ledger};

/// No case takes this long on the slowest machine.
const HANG: Duration = Duration::from_secs(900);
/// How often the record is written.
const SAVE: Duration = Duration::from_secs(5);

/// A row of numbered cases.
pub struct Campaign {
    pub name: &'static str,
    pub about: &'static str,
    /// The count that measures it, and how much of it is enough.
    pub goal: (&'static str, u64),
    /// Whether cases may run beside each other.
    pub parallel: bool,
    /// Why it cannot run here.
    pub obstacle: fn() -> Option<String>,
    /// Case `number`; it may leave files below the folder.
    pub case: fn(u64, &Path) -> Result<Counts>,
}

/// What to run.
pub struct Limits {
    pub first: Option<u64>,
    pub count: Option<u64>,
    pub minutes: Option<f64>,
    pub threads: u64,
    pub scratch: PathBuf,
}

type Verdict = std::result::Result<Counts, String>;

/// Runs cases until a limit or the goal is reached. Whether no violation was found.
pub fn run(campaign: &Campaign, limits: &Limits, ledger: &mut Ledger) -> Result<bool> {
    note_panics();
    let clock = OsEnv::new();
    let first = limits.first.unwrap_or_else(|| ledger.next(campaign.name));
    let threads = if campaign.parallel { limits.threads } else { 1 };
    let goal_left = campaign.goal.1.saturating_sub(ledger.total(campaign.name, campaign.goal.0));
    println!("{}: from case {first}; {goal_left} {} to go", campaign.name, campaign.goal.0);
    let mut sum = Counts::new();
    let (mut unsaved, mut saved_at, mut unsaved_from) = (Counts::new(), Duration::ZERO, first);
    let (mut at, mut sound) = (first, true);
    loop {
        let minutes = clock.monotonic().as_secs_f64() / 60.0;
        let counted = limits.count.is_some_and(|count| at - first >= count);
        let timed = limits.minutes.is_some_and(|limit| minutes >= limit);
        let reached = limits.count.is_none() && sum.get(campaign.goal.0).copied().unwrap_or(0) >= goal_left;
        let stop = counted || timed || reached;
        let mut violations = Vec::new();
        if !stop {
            let batch = threads.min(limits.count.map_or(threads, |count| count - (at - first)));
            for (number, verdict) in (at..).zip(run_batch(campaign, at, batch, &limits.scratch)) {
                *unsaved.entry("cases").or_default() += 1;
                match verdict {
                    Ok(counts) => counts.into_iter().for_each(|(name, n)| *unsaved.entry(name).or_default() += n),
                    Err(what) => violations.push(violation(campaign, number, &what)),
                }
            }
            at += batch;
        }
        sound &= violations.is_empty();
        if at > unsaved_from && (stop || !violations.is_empty() || clock.monotonic() - saved_at >= SAVE) {
            ledger.add(campaign.name, unsaved_from, at - 1, &unsaved, &violations)?;
            std::mem::take(&mut unsaved).into_iter().for_each(|(name, n)| *sum.entry(name).or_default() += n);
            println!("  case {}, {:.0} s: {sum:?}", at - 1, clock.monotonic().as_secs_f64());
            (saved_at, unsaved_from) = (clock.monotonic(), at);
        }
        if stop {
            return Ok(sound);
        }
    }
}

fn violation(campaign: &Campaign, number: u64, what: &str) -> Value {
    println!("VIOLATION in case {number} of {}: {what}", campaign.name);
    let what: String = what.chars().take(2_000).collect();
    json!({"case": number, "what": what})
}

/// Cases `first..first + count`, each on a thread of its own.
fn run_batch(campaign: &Campaign, first: u64, count: u64, scratch: &Path) -> Vec<Verdict> {
    let (send, receive) = mpsc::channel();
    for number in first..first + count {
        let (send, case, scratch) = (send.clone(), campaign.case, scratch.to_path_buf());
        thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| case(number, &scratch)));
            let verdict = match outcome {
                Ok(Ok(counts)) => Ok(counts),
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(panic) => Err(format!("panic at {}: {}", last_panic(), panic_text(panic.as_ref()))),
            };
            // Nobody listens any more only if the program ends.
            drop(send.send((number, verdict)));
        });
    }
    let mut verdicts: Vec<Option<Verdict>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let Ok((number, verdict)) = receive.recv_timeout(HANG) else {
            let open: Vec<u64> = (first..).zip(&verdicts).filter(|(_, v)| v.is_none()).map(|(n, _)| n).collect();
            println!("VIOLATION: cases {open:?} of {} do not end", campaign.name);
            std::process::exit(2);
        };
        verdicts[(number - first) as usize] = Some(verdict);
    }
    verdicts.into_iter().flatten().collect()
}

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Panics are placed rather than printed: they are verdicts.
fn note_panics() {
    set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), ToString::to_string);
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
}

fn last_panic() -> String {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// For campaigns that run anywhere.
pub fn no_obstacle() -> Option<String> {
    None
}
