//! How long work shows itself: bars on a terminal, plain lines elsewhere, both on standard error.
//!
//! Standard output carries results only, so that it can be piped.

use std::fmt::Write as _;
use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use strata_oltp::env::Env;
use strata_oltp::env::os::OsEnv;

/// A stopwatch.
#[derive(Debug)]
pub struct Timer {
    env: OsEnv,
    started: Duration,
}

impl Timer {
    /// Starts now.
    #[must_use]
    pub fn start() -> Timer {
        let env = OsEnv::new();
        let started = env.monotonic();
        Timer { env, started }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.env.monotonic().saturating_sub(self.started)
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}

/// One counted piece of work. Calls from several threads are allowed.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: u64,
    timer: Timer,
    bar: Option<ProgressBar>,
    plain: Mutex<Plain>,
}

#[derive(Debug, Default)]
struct Plain {
    done: u64,
    tenths_shown: u64,
    shown_seconds: f64,
}

impl Progress {
    /// Shows `label` with 0 of `total` done.
    #[must_use]
    pub fn start(label: &str, total: u64) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            bar.set_style(style());
            bar.set_message(label.to_string());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Progress { label: label.to_string(), total, timer: Timer::start(), bar, plain: Mutex::default() }
    }

    /// Counts `count` more as done.
    pub fn add(&self, count: u64) {
        match &self.bar {
            Some(bar) => bar.inc(count),
            None => self.add_plain(count),
        }
    }

    /// Sets how much is done.
    pub fn set(&self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => {
                let before = self.plain.lock().map_or(done, |plain| plain.done);
                self.add_plain(done.saturating_sub(before));
            }
        }
    }

    /// Ends the display, leaving one line.
    pub fn finish(self, line: &str) {
        self.clear();
        note(line);
    }

    /// Ends the display.
    pub fn clear(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// A line at each tenth of the way, at most one a second, so that a log stays short.
    fn add_plain(&self, count: u64) {
        // A poisoned lock means a panic elsewhere; its message matters more than this line.
        let Ok(mut plain) = self.plain.lock() else { return };
        plain.done += count;
        let tenths = (plain.done * 10).checked_div(self.total).unwrap_or(10).min(10);
        let seconds = self.timer.seconds();
        if tenths <= plain.tenths_shown || seconds < plain.shown_seconds + 1.0 {
            return;
        }
        (plain.tenths_shown, plain.shown_seconds) = (tenths, seconds);
        let rate = plain.done as f64 / seconds.max(1e-9);
        let left = self.total.saturating_sub(plain.done) as f64 / rate.max(1e-9);
        let (percent, done) = (tenths * 10, grouped(plain.done));
        note(&format!("{}: {percent} %, {done}, {}/s, {left:.0} s left", self.label, grouped(rate as u64)));
    }
}

/// Prints one line about what is going on.
pub fn note(line: &str) {
    eprintln!("{line}");
}

fn style() -> ProgressStyle {
    let template = "{msg:24} {bar:32} {percent:>3} %  {done} of {all}  {rate}/s  {eta} left";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("done", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&grouped(state.pos()));
        })
        .with_key("all", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&grouped(state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&grouped(state.per_sec() as u64));
        })
}

/// `8661245` as `8,661,245`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        let _ = text.write_char(digit);
    }
    text
}

/// Bytes as a person reads them: `417.3 MB` (powers of ten).
#[must_use]
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(8_661_245), "8,661,245");
        assert_eq!(bytes_text(417_300_000), "417.3 MB");
    }
}
