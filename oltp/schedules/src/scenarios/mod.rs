//! What is tried under a scheduler of ours, each as a function that plays one history to its end and panics if something
//! in it should not have been.
//!
//! A history starts its own threads and decides what it leaves open (which sync fails, how slow the disk is) by
//! `shuttle::rand`, so that a seed repeats all of it. That nobody waits for ever is checked by shuttle: when all threads
//! wait, the history has failed.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test panics")]

pub mod campaign;

mod budget;
mod commits;
mod disk;
mod files;
mod maintenance;
mod snapshots;
mod store;

#[path = "../../../tests/harness/row_tier.rs"]
#[allow(missing_docs, clippy::cloned_instead_of_copied, reason = "test support of the row store")]
mod row_tier;

/// A history and what it proves.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line and in results.
    pub name: &'static str,
    /// Plays it once.
    pub play: fn(),
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "durable-commits", play: commits::durable },
    Scenario { name: "mixed-commits", play: commits::mixed },
    Scenario { name: "failed-sync", play: commits::failed_sync },
    Scenario { name: "conflicting-commits", play: commits::conflicting },
    Scenario { name: "closing", play: commits::closing },
    Scenario { name: "flush", play: maintenance::flush },
    Scenario { name: "sealing", play: maintenance::sealing },
    Scenario { name: "log-release", play: maintenance::log_release },
    Scenario { name: "conversion", play: maintenance::conversion },
    Scenario { name: "rewrite", play: maintenance::rewrite },
    Scenario { name: "background", play: maintenance::background },
    Scenario { name: "old-files", play: files::old_files },
    Scenario { name: "read-view", play: files::read_view },
    Scenario { name: "watermark", play: snapshots::watermark },
    Scenario { name: "old-snapshot", play: snapshots::old_snapshot },
    Scenario { name: "memory-budget", play: budget::memory_budget },
    Scenario { name: "block-cache", play: budget::block_cache },
];
