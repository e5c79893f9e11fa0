//! Why a batch is not, or not all of it, taken in: the problems that say so.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::MAX_ARRAY_VISITS;
use crate::domain::visit_json;
use crate::http::problem::{Problem, ProblemKind};
use crate::ingest::Ingest;
use crate::store;

/// `json` is no array, as `error` tells.
pub fn no_array(error: serde_json::Error, json: &[u8]) -> Problem {
    const WANTED: &str = "it must be a JSON array of visits";
    let malformed = |detail: String| Problem::new(ProblemKind::Malformed, detail);
    if json.trim_ascii().is_empty() {
        return malformed(format!("The body is empty; {WANTED}."));
    }
    if let Some(why) = visit_json::misdetected_format(json) {
        return malformed(format!("The body is not JSON: {why}."));
    }
    if visit_json::second_value(json).is_some() {
        let detail = format!(
            "The body is more than one JSON value; {WANTED}. Or send one visit a line as application/x-ndjson."
        );
        return malformed(detail);
    }
    // serde_json stops at the first value of a wrong type, so what follows may still not be JSON.
    let syntax = match error.classify() {
        Category::Data => serde_json::from_slice::<IgnoredAny>(json).err(),
        _ => Some(error),
    };
    match syntax {
        Some(error) => malformed(format!("The body is not JSON: {error}.")),
        None => Problem::new(ProblemKind::Invalid, "The body must be a JSON array of visits."),
    }
}

/// The array is longer than allowed.
pub fn too_many(visits: usize) -> Problem {
    let detail = format!(
        "The array has {visits} visits; at most {MAX_ARRAY_VISITS} are accepted. Send more as application/x-ndjson, one \
         visit a line."
    );
    Problem::new(ProblemKind::BodyTooLarge, detail)
}

/// Redis failed, or was not asked for all of the visits.
pub fn not_written(error: store::Error) -> Problem {
    let is_overload = matches!(error, store::Error::Overloaded(_));
    let problem = Problem::from(error);
    // "Nothing was done" is true of a single visit alone.
    if is_overload {
        problem.with_detail("Too many batches are under way. Repeat the lines after done_through_line, after the seconds in Retry-After.")
    } else {
        problem
    }
}

/// None of the visits is one.
pub fn all_rejected(hint: &str) -> Problem {
    let detail = format!("None of the visits is valid. See errors for the first ones.{hint}");
    Problem::new(ProblemKind::Invalid, detail)
}

/// So many lines were rejected that the rest was not read.
pub fn too_many_rejected() -> Problem {
    let (in_a_row, block) = (Ingest::MAX_REJECTED_IN_A_ROW, Ingest::REJECTION_BLOCK);
    let detail = format!(
        "The batch was broken off: {in_a_row} lines in a row, or most of {block}, were rejected. See errors for the first ones. \
         Correct those that were rejected and send them again, and send those after done_through_line."
    );
    Problem::new(ProblemKind::TooManyRejected, detail)
}

/// No line came to its end within `time_limit`.
pub fn too_quiet(time_limit: Duration) -> Problem {
    let limit = humantime::format_duration(time_limit);
    let detail = format!("No line was completed within {limit}. An empty line now and then keeps a quiet stream open.");
    Problem::new(ProblemKind::BodyTimeout, detail)
}

/// The service stops before the stream does.
pub fn broken_off() -> Problem {
    let detail = "The service is stopping and has broken off the batch. Repeat the lines after done_through_line.";
    Problem::new(ProblemKind::Stopping, detail)
}
