//! The JSON array of a batch.

use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::domain::visit_json;
use crate::http::problem::{Problem, ProblemKind, Result};

/// Maximum number of visits in an array. An array is read to its end before its first visit is parsed, so larger
/// batches are better sent as lines.
pub const MAX_VISITS: usize = 1_000;

/// Splits a JSON array into its items.
///
/// # Errors
///
/// A [`Problem`] if `json` is not an array, or has too many items.
pub fn parse(json: &[u8]) -> Result<Vec<&RawValue>> {
    let visits: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| not_an_array(error, json))?;
    if visits.len() > MAX_VISITS { Err(too_many(visits.len())) } else { Ok(visits) }
}

/// Returns the problem of an array with too many items.
pub fn too_many(visits: usize) -> Problem {
    let detail = format!(
        "The array has {visits} visits; at most {MAX_VISITS} are accepted. Send more as application/x-ndjson, one visit per line."
    );
    Problem::new(ProblemKind::BodyTooLarge, detail)
}

fn not_an_array(error: serde_json::Error, json: &[u8]) -> Problem {
    const EXPECTED: &str = "it must be a JSON array of visits";
    let malformed = |detail: String| Problem::new(ProblemKind::Malformed, detail);
    if json.trim_ascii().is_empty() {
        return malformed(format!("The body is empty; {EXPECTED}."));
    }
    if let Some(why) = visit_json::misdetected_format(json) {
        return malformed(format!("The body is not JSON: {why}."));
    }
    if visit_json::second_value(json).is_some() {
        return malformed(format!(
            "The body is more than one JSON value; {EXPECTED}. Or send one visit per line as application/x-ndjson."
        ));
    }
    // serde_json stops at the first value of a wrong type. The rest may still not be JSON.
    let syntax_error = match error.classify() {
        Category::Data => serde_json::from_slice::<IgnoredAny>(json).err(),
        _ => Some(error),
    };
    match syntax_error {
        Some(error) => malformed(format!("The body is not JSON: {error}.")),
        None => Problem::new(ProblemKind::Invalid, "The body must be a JSON array of visits."),
    }
}
