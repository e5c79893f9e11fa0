//! `POST /segments/batch`: many visits in one request, as a JSON array or as a stream of lines.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::access::{May, Write};
use super::body::{self, MediaType};
use super::endpoint::in_time;
use super::problem::{Problem, ProblemKind, Result};
use super::{AppState, json};
use crate::ingest::{Failed, Ingest, LineError, Report};
use crate::time::Timestamp;

/// An array is read to its end before its first visit is looked at. More visits than this are better sent as lines.
const MAX_ARRAY_VISITS: usize = 1_000;

/// `POST /segments/batch`: records many visits. 200 once Redis has acknowledged all that were not rejected.
pub async fn record(
    _: May<Write>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let media_type = body::media_type(&headers, &[MediaType::Json, MediaType::Lines])?;
    let body = body::unpacked(&headers, body)?;
    match media_type {
        MediaType::Json => in_time(state.limits.request, record_array(&state, body)).await?,
        MediaType::Lines => record_lines(&state, body).await,
    }
}

async fn record_array(state: &AppState, body: Body) -> Result<Response> {
    let json = body::read(body, state.limits.body_bytes, state.limits.body).await?;
    let mut ingest = Ingest::new(state.estimator.clone());
    let outcome = feed_array(&mut ingest, &parse_array(&json)?).await;
    finish(ingest, outcome).await
}

async fn record_lines(state: &AppState, mut body: Body) -> Result<Response> {
    let mut ingest = Ingest::new(state.estimator.clone());
    let outcome = feed_lines(&mut ingest, &mut body, state).await;
    let is_cut = outcome.is_err();
    let answer = finish(ingest, outcome).await;
    if is_cut {
        body::discard(body);
    }
    answer
}

/// Waits until all that was taken in is dealt with, and answers.
async fn finish(ingest: Ingest, outcome: std::result::Result<(), Cut>) -> Result<Response> {
    let (report, failure) = ingest.finish().await;
    let problem = match (failure, outcome) {
        (Some(error), _) => Problem::from(error),
        (None, Err(Cut::Here(problem))) => problem,
        (None, Err(Cut::Redis)) => unreachable!("an ingest that failed has the reason"),
        (None, Ok(())) if report.has_only_rejected() => {
            Problem::new(ProblemKind::Invalid, "None of the visits is valid. See errors for the first ones.")
        }
        (None, Ok(())) => return Ok(json(&ReportDocument::of(&report))),
    };
    Err(problem.with_report(report))
}

/// Why not everything was taken in.
enum Cut {
    /// Redis failed; the ingest knows why.
    Redis,
    /// The body could not be read to its end.
    Here(Problem),
}

impl From<Failed> for Cut {
    fn from(_: Failed) -> Self {
        Self::Redis
    }
}

fn parse_array(json: &[u8]) -> Result<Vec<&RawValue>> {
    let visits: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| match error.classify() {
        // serde_json stops at the first value of a wrong type, so what follows may still not be JSON.
        Category::Data if serde_json::from_slice::<IgnoredAny>(json).is_ok() => {
            Problem::new(ProblemKind::Invalid, "The body must be a JSON array of visits.")
        }
        _ => Problem::new(ProblemKind::Malformed, format!("The body is not JSON: {error}.")),
    })?;
    if visits.len() > MAX_ARRAY_VISITS {
        let detail = format!(
            "The array has {} visits; at most {MAX_ARRAY_VISITS} are accepted. Send more as application/x-ndjson, one \
             visit a line.",
            visits.len()
        );
        return Err(Problem::new(ProblemKind::BodyTooLarge, detail));
    }
    Ok(visits)
}

async fn feed_array(ingest: &mut Ingest, visits: &[&RawValue]) -> std::result::Result<(), Cut> {
    let now = Timestamp::now();
    for (number, visit) in (1..).zip(visits) {
        ingest.feed_visit(number, visit.get().as_bytes(), now).await?;
    }
    Ok(())
}

/// Feeds the lines of `body` as they arrive. There is no limit to their number, but each must be complete within the
/// time that a body may take.
async fn feed_lines(ingest: &mut Ingest, body: &mut Body, state: &AppState) -> std::result::Result<(), Cut> {
    let mut deadline = Instant::now() + state.limits.body;
    loop {
        let mut lines = 0;
        tokio::select! {
            piece = timeout_at(deadline, body.frame()) => match piece {
                Ok(Some(Ok(frame))) => {
                    let piece = frame.into_data().unwrap_or_default();
                    lines = ingest.feed(&piece, Timestamp::now()).await?;
                    // A sender that is always ahead must not keep this thread from the other requests.
                    tokio::task::yield_now().await;
                }
                Ok(Some(Err(error))) => return Err(Cut::Here(body::unreadable(&error))),
                Ok(None) => {
                    ingest.end(Timestamp::now());
                    return Ok(());
                }
                Err(_) => return Err(Cut::Here(body::too_slow("line", state.limits.body))),
            },
            outcome = ingest.progress() => outcome?,
            () = state.ending.cancelled() => return Err(Cut::Here(Problem::stopping())),
        }
        ingest.launch_if_idle().await?;
        // Now, and not before: the sender is not to blame for the time that Redis took.
        if lines > 0 {
            deadline = Instant::now() + state.limits.body;
        }
    }
}

/// The answer to a batch, and a part of the problem when something went wrong with it.
#[derive(Serialize)]
pub struct ReportDocument<'a> {
    accepted: u64,
    expired: u64,
    rejected: u64,
    errors: Vec<LineErrorDocument<'a>>,
    errors_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_through_line: Option<u64>,
}

#[derive(Serialize)]
struct LineErrorDocument<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    detail: &'a str,
}

impl<'a> ReportDocument<'a> {
    /// The report of a batch that was taken in to its end.
    pub fn of(report: &'a Report) -> Self {
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
            done_through_line: None,
        }
    }

    /// The report of one that was not: it says also where to go on.
    pub fn of_problem(report: &'a Report) -> Self {
        Self { done_through_line: Some(report.done_through_line), ..Self::of(report) }
    }
}
