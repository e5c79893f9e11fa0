//! Problems of a batch.

use std::time::Duration;

use crate::http::problem::{Problem, ProblemKind};
use crate::ingest::Ingest;
use crate::store;

/// Returns the problem of a batch that Redis did not take completely.
pub fn not_written(error: store::Error) -> Problem {
    let is_overload = matches!(error, store::Error::Overloaded(_));
    let problem = Problem::from(error);
    // The default detail says that nothing was done, which is true for a single visit only.
    if is_overload {
        problem.with_detail(
            "Too many batches are in progress. Repeat the lines after done_through_line, after the seconds in Retry-After.",
        )
    } else {
        problem
    }
}

/// Returns the problem of a batch without a valid visit. `hint` is a sentence about the likely cause.
pub fn all_rejected(hint: &str) -> Problem {
    let detail = format!("None of the visits is valid. See errors for the first ones.{hint}");
    Problem::new(ProblemKind::Invalid, detail)
}

/// Returns the problem of a strict batch with rejected visits.
pub fn some_rejected(is_dry_run: bool) -> Problem {
    let others = if is_dry_run {
        "The others are valid. Nothing was written, since dry_run is true."
    } else {
        "The others are recorded or expired, so only the rejected ones need a correction."
    };
    let detail = format!("Some visits were rejected, and strict is true. See errors for the first ones. {others}");
    Problem::new(ProblemKind::SomeRejected, detail)
}

/// Returns the problem of a batch that was aborted because of its rejected lines.
pub fn too_many_rejected() -> Problem {
    let (in_a_row, block) = (Ingest::MAX_REJECTED_IN_A_ROW, Ingest::REJECTION_BLOCK);
    let detail = format!(
        "The batch was aborted: {in_a_row} lines in a row, or most of {block}, were rejected. See errors for the first ones. \
         Correct the rejected lines, and send them and the lines after done_through_line."
    );
    Problem::new(ProblemKind::TooManyRejected, detail)
}

/// Returns the problem of a stream without a complete line for `timeout`.
pub fn too_quiet(timeout: Duration) -> Problem {
    let timeout = humantime::format_duration(timeout);
    let detail =
        format!("No line was completed within {timeout}. Send an empty line from time to time to keep a stream open.");
    Problem::new(ProblemKind::BodyTimeout, detail)
}

/// Returns the problem of a stream that the shutdown aborts.
pub fn aborted_by_shutdown() -> Problem {
    let detail = "The service is stopping and has aborted the batch. Repeat the lines after done_through_line.";
    Problem::new(ProblemKind::Stopping, detail)
}
