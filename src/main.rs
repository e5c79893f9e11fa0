//! The `segment-estimator` binary: parses the command line, runs the command and prints why it failed.

use std::error::Error;
use std::io::{self, Write as _};
use std::iter;
use std::process::ExitCode;

use segment_estimator::commands::Cli;

fn main() -> ExitCode {
    match Cli::from_command_line().and_then(Cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe, such as `head`, has closed it on purpose.
        Err(error) if is_closed_pipe(&*error) => ExitCode::FAILURE,
        Err(error) => {
            // An error here means that standard error is closed.
            let _ = writeln!(io::stderr(), "segment-estimator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether `error` comes from a write into a closed pipe.
fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Requests allocate and free on different threads, which mimalloc is built for. docs/benchmarks.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
