//! `cargo ci`: runs `.ci/run` from any folder of the checkout.
//!
//! The steps are a script rather than a program so that they do not wait for a program to be built, and this has no
//! dependencies so that building it never competes with what the steps build.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run");
    match Command::new(&script).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run {}: {error}", script.display());
            ExitCode::FAILURE
        }
    }
}
