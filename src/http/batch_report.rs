//! The report of a batch as JSON: the answer of a complete batch, and a part of the problem of an incomplete one.

use serde::Serialize;
use utoipa::ToSchema;

use crate::ingest::{LineError, Report};

/// The outcome of a batch.
#[derive(Serialize, ToSchema)]
pub struct BatchReport<'a> {
    /// Visits that Redis has acknowledged. A line with several segments has as many visits.
    accepted: u64,
    /// Visits older than the window, which were not stored.
    expired: u64,
    /// Lines or array items that are not valid, each counted once, and visits to segments beyond the limit.
    rejected: u64,
    /// The first 100 errors.
    #[schema(max_items = 100)]
    errors: Vec<LineErrorDocument<'a>>,
    /// Whether there were more errors.
    errors_truncated: bool,
    /// True if `dry_run=true` asked to validate only: nothing was written, and `accepted` counts valid visits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    done_through_line: Option<u64>,
}

/// An error of a line.
#[derive(Serialize, ToSchema)]
#[schema(as = LineError)]
struct LineErrorDocument<'a> {
    /// The line number, or the position of the visit in the array. Both are counted from 1.
    #[schema(minimum = 1)]
    line: u64,
    /// The invalid field, if the error is about one field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// What is wrong, as a predicate without its subject.
    detail: &'a str,
}

impl<'a> BatchReport<'a> {
    /// Returns the report of a batch that was read to its end.
    pub fn of_complete(report: &'a Report) -> Self {
        let document = |LineError { line, field, detail }: &'a LineError| LineErrorDocument {
            line: *line,
            field: field.as_deref(),
            detail,
        };
        Self {
            accepted: report.accepted,
            expired: report.expired,
            rejected: report.rejected,
            errors: report.errors.iter().map(document).collect(),
            errors_truncated: report.errors_truncated,
            dry_run: report.dry_run,
            done_through_line: None,
        }
    }

    /// Returns the report of an aborted batch, with the line to resume after.
    pub fn of_incomplete(report: &'a Report) -> Self {
        Self { done_through_line: Some(report.done_through_line), ..Self::of_complete(report) }
    }
}
