//! The answer of a service to a batch, and its conversion to the result of a chunk.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::Deserialize;

use super::delivery::DeliveryResult;
use crate::ingest::{LineError, Origins};

/// The members of a report and of a problem that matter here.
#[derive(Deserialize)]
pub(super) struct ResponseBody {
    pub(super) accepted: Option<u64>,
    #[serde(default)]
    expired: u64,
    #[serde(default)]
    rejected: u64,
    #[serde(default)]
    errors: Vec<ReportedError>,
    #[serde(default)]
    errors_truncated: bool,
    /// The line at which the service aborted the batch.
    done_through_line: Option<u64>,
    pub(super) title: Option<String>,
    pub(super) detail: Option<String>,
}

#[derive(Deserialize)]
struct ReportedError {
    line: Option<u64>,
    field: Option<String>,
    detail: String,
}

/// The outcome of a request.
pub(super) enum PostOutcome {
    Delivered(PostedVisits),
    /// The request must be split: its report is incomplete, or its body is too large for the service or a proxy.
    TooLarge(String),
}

/// The counts of posted visits, and the errors of the rejected ones.
#[derive(Default)]
pub(super) struct PostedVisits {
    accepted: u64,
    expired: u64,
    rejected: u64,
    /// Each with the index of the visit in its chunk.
    errors: Vec<(usize, LineError)>,
}

impl ResponseBody {
    /// Returns the outcome of the `visits` of a chunk. Returns `None` if this is not a report on them.
    pub(super) fn outcome(self, origins: &Origins, visits: Range<usize>) -> Option<PostOutcome> {
        // A service limits the number of errors in a report, and aborts a batch with too many.
        let is_complete = self.done_through_line.is_none_or(|done| done >= visits.len() as u64);
        if (self.errors_truncated || !is_complete) && visits.len() > 1 {
            return Some(PostOutcome::TooLarge("the report does not cover all lines".to_owned()));
        }
        let mut posted = PostedVisits {
            accepted: self.accepted?,
            expired: self.expired,
            rejected: self.rejected,
            errors: Vec::new(),
        };
        let reported = posted.accepted.checked_add(posted.expired)?.checked_add(posted.rejected)?;
        if reported != visits.len() as u64 {
            return None;
        }
        for ReportedError { line, field, detail } in self.errors {
            let index = usize::try_from(line?.checked_sub(1)?).ok().filter(|index| *index < visits.len())?;
            let index = visits.start + index;
            let field = field.map(|field| if field == "segment" { origins.field(index) } else { field.into() });
            posted.errors.push((index, LineError { line: *origins.lines().get(index)?, field, detail }));
        }
        Some(PostOutcome::Delivered(posted))
    }
}

impl PostedVisits {
    pub(super) fn add(&mut self, Self { accepted, expired, rejected, errors }: Self) {
        self.accepted += accepted;
        self.expired += expired;
        self.rejected += rejected;
        self.errors.extend(errors);
    }

    /// Returns the result of the chunk, in which a line that was rejected as a whole counts once. The service rejected
    /// each of the line's visits, with errors that may differ in the time of its clock alone.
    pub(super) fn into_result(self) -> DeliveryResult {
        let Self { accepted, expired, mut rejected, errors } = self;
        let (mut first_of_line, mut repeated) = (HashMap::new(), HashSet::new());
        let mut kept = Vec::new();
        for (index, error) in errors {
            if error.is_of_segment() || *first_of_line.entry(error.line).or_insert(index) == index {
                kept.push(error);
            } else if repeated.insert(index) {
                rejected -= 1;
            }
        }
        DeliveryResult { accepted, expired, rejected, errors: kept }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{SegmentName, Segments};

    fn posted(body: Value, origins: &Origins, visits: Range<usize>) -> PostedVisits {
        let body: ResponseBody = serde_json::from_value(body).unwrap();
        match body.outcome(origins, visits) {
            Some(PostOutcome::Delivered(posted)) => posted,
            _ => panic!("not a complete report"),
        }
    }

    #[test]
    fn into_result_counts_a_line_rejected_as_a_whole_once_across_requests() {
        let name = || SegmentName::parse("sports").unwrap();
        let mut origins = Origins::default();
        origins.add(7, &Segments::List(vec![name(); 3].into()));
        origins.add(8, &Segments::List(vec![name(); 2].into()));
        origins.add(9, &Segments::One(name()));
        let error = |line: u64, field: &str, detail: &str| json!({ "line": line, "field": field, "detail": detail });
        let first = [error(1, "seen_at", "at 1"), error(1, "user_id", "bad"), error(2, "seen_at", "at 1")];
        let mut all = posted(json!({ "accepted": 0, "rejected": 2, "errors": first }), &origins, 0..2);
        let rest = [error(1, "seen_at", "at 2"), error(2, "segment", "full"), error(3, "segment", "full")];
        let rest = [&rest[..], &[error(4, "seen_at", "at 2")]].concat();
        all.add(posted(json!({ "accepted": 0, "rejected": 4, "errors": rest }), &origins, 2..6));
        let result = all.into_result();
        let found: Vec<_> = result.errors.iter().map(|error| (error.line, error.field.as_deref().unwrap())).collect();
        assert_eq!(found, [(7, "seen_at"), (7, "user_id"), (8, "segments[0]"), (8, "segments[1]"), (9, "seen_at")],);
        assert_eq!((result.accepted, result.expired, result.rejected), (0, 0, 4));
    }
}
