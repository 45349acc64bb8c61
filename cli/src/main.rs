//! `strata`: the one binary.

use std::process::ExitCode;

// The load allocates and frees a lot from several threads; the default allocator gave memory back late.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    strata_cli::args::main()
}
