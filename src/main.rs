//! The `segment-estimator` binary: parse the command line, call it, and say why if it failed.

use std::error::Error;
use std::io::{self, Write as _};
use std::iter;
use std::process::ExitCode;

use segment_estimator::commands::Cli;

fn main() -> ExitCode {
    match Cli::from_command_line().and_then(Cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has had enough, as `head` has, and knows.
        Err(error) if is_closed_pipe(&*error) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "segment-estimator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nobody reads what was written.
fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Requests allocate and free on different threads; this allocator is made for that. docs/benchmarks.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
