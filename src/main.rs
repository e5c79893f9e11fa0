//! The `segment-estimator` binary: parse the command line, call it, and say why if it failed.

use std::io::Write as _;
use std::process::ExitCode;

use segment_estimator::cli::Cli;

fn main() -> ExitCode {
    match Cli::from_command_line().and_then(Cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "segment-estimator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Requests allocate and free on different threads; this allocator is made for that. docs/benchmarks.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
