//! The command line of Strata, as a library so that tests and benchmarks can call its parts.
//!
//! [`args`] reads the command line and calls one of [`tpch`], [`shell`], [`directory`], [`tools`] and [`backup`]. Errors come back as
//! `anyhow::Error`; [`args::main`] prints them and turns them into the exit code. No query logic lives here.

pub mod args;
pub mod backup;
pub mod directory;
pub mod files;
pub mod output;
pub mod progress;
pub mod shell;
pub mod tools;
pub mod tpch;
