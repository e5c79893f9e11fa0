//! `POST /segments/batch`: many visits in one request, as a JSON array or as a stream of lines.

pub(crate) mod failures;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::domain::Timestamp;
use crate::http::AppState;
use crate::http::batch_report::BatchReport;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{May, Write};
use crate::http::extract::body::{self, MediaType};
use crate::http::json::json;
use crate::http::middleware::endpoint::in_time;
use crate::http::problem::{Problem, Result};
use crate::ingest::{Aborted, Ingest};

/// An array is read to its end before its first visit is looked at. More visits than this are better sent as lines.
pub(crate) const MAX_ARRAY_VISITS: usize = 1_000;
/// What happened, most likely, to lines that are none.
const ONE_LINE: &str =
    " The body is a single line: curl removes a file's line ends with -d, and keeps them with --data-binary.";

/// Record many visits.
///
/// 200 once Redis has acknowledged all visits that were not rejected, and says what became of them. A line that is not a
/// visit is named by its number, and the rest goes on; when no line is a visit, the status is 422. So it is after 10,000 rejected
/// lines in a row, or if most of 100,000 were rejected, and the lines behind are not read. Nothing at all, or `[]`,
/// is 200 with nothing accepted.
///
/// When a batch breaks off, the problem says how far it came, as `done_through_line`. A token that expires or is taken back in the
/// middle of a stream breaks it off, too. Repeating a part of a batch does no harm if its visits have a `seen_at`. The body may be
/// compressed with gzip (`content-encoding: gzip` or `x-gzip`), to a two hundredth of its size at the least.
#[utoipa::path(
    post,
    path = "/segments/batch",
    operation_id = "record_batch",
    tag = "visits",
    request_body(
        description = "An array of up to 1,000 visits and 1 MiB, or one visit a line without a limit to their number. A visit \
                       takes at most 16 KiB. Lines are written while they arrive.",
        content(
            (schemas::Visits = "application/json", examples(
                ("array" = (summary = "An array", value = json!([
                    { "user_id": "u104010", "segment": "sports" },
                    { "user_id": "u104011", "segment": "news", "seen_at": "2024-05-01T10:00:00Z" },
                ]))),
            )),
            (schemas::Lines = "application/x-ndjson", examples(
                ("lines" = (summary = "Lines", value = json!(
                    "{\"user_id\":\"u104010\",\"segment\":\"sports\"}\n{\"user_id\":\"u104011\",\"segment\":\"news\"}\n"
                ))),
            )),
        )
    ),
    responses(
        (status = 200, description = "What became of the visits.", body = BatchReport, examples(
            ("all" = (summary = "All are accepted", value = json!(
                { "accepted": 2, "expired": 0, "rejected": 0, "errors": [], "errors_truncated": false }
            ))),
            ("some" = (summary = "One is rejected", value = json!({
                "accepted": 1,
                "expired": 0,
                "rejected": 1,
                "errors": [{ "line": 2, "field": "user_id", "detail": "must not be empty" }],
                "errors_truncated": false,
            }))),
        )),
        problems::OfABatch,
    )
)]
pub async fn record(
    caller: May<Write>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let media_type = body::media_type(&headers, &[MediaType::Json, MediaType::Lines])?;
    let body = body::unpacked(&headers, body)?;
    match media_type {
        MediaType::Json => in_time(state.limits.request, record_array(&state, body)).await?,
        MediaType::Lines => record_lines(&state, caller, &headers, body).await,
    }
}

async fn record_array(state: &AppState, body: Body) -> Result<Response> {
    let json = body::read(body, state.limits.body_bytes, state.limits.body).await?;
    let mut ingest = Ingest::new(state.estimator.clone());
    let outcome = feed_array(&mut ingest, &parse_array(&json)?, state.now().await?).await;
    finish(ingest, outcome, "").await
}

async fn record_lines(
    state: &AppState,
    mut caller: May<Write>,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Response> {
    state.now().await?;
    let mut ingest = Ingest::new(state.estimator.clone());
    // A stream has no end of its own, but its token has one.
    let renew = || caller.renew(state, headers);
    let outcome = feed_lines(&mut ingest, &mut body, state, renew).await;
    let is_cut = outcome.is_err();
    let answer = finish(ingest, outcome, ONE_LINE).await;
    if is_cut {
        body::discard(body);
    }
    answer
}

/// Waits until all that was taken in is dealt with, and answers. `one_line` says what happened to a single line without a
/// visit.
async fn finish(ingest: Ingest, outcome: std::result::Result<(), Cut>, one_line: &str) -> Result<Response> {
    let (report, failure) = ingest.finish().await;
    let problem = match (failure, outcome) {
        (Some(error), _) => failures::not_written(error),
        (None, Err(Cut::Here(problem))) => problem,
        (None, Err(Cut::Redis)) => unreachable!("an ingest that failed has the reason"),
        (None, Ok(())) if report.has_only_rejected() => {
            failures::all_rejected(if report.is_one_line_without_a_visit() { one_line } else { "" })
        }
        (None, Ok(())) => return Ok(json(&BatchReport::of_complete(&report))),
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

impl From<Aborted> for Cut {
    fn from(aborted: Aborted) -> Self {
        match aborted {
            Aborted::Store => Self::Redis,
            Aborted::Rejections => Self::Here(failures::too_many_rejected()),
        }
    }
}

fn parse_array(json: &[u8]) -> Result<Vec<&RawValue>> {
    let visits: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| failures::no_array(error, json))?;
    if visits.len() > MAX_ARRAY_VISITS {
        return Err(failures::too_many(visits.len()));
    }
    Ok(visits)
}

async fn feed_array(ingest: &mut Ingest, visits: &[&RawValue], now: Timestamp) -> std::result::Result<(), Cut> {
    for (number, visit) in (1..).zip(visits) {
        ingest.feed_visit(number, visit.get().as_bytes(), now).await?;
    }
    Ok(())
}

/// Feeds the lines of `body` as they arrive. There is no limit to their number, but each must be complete within the
/// time that a body may take, and `renew` must permit each piece.
async fn feed_lines(
    ingest: &mut Ingest,
    body: &mut Body,
    state: &AppState,
    mut renew: impl FnMut() -> Result<()>,
) -> std::result::Result<(), Cut> {
    let mut deadline = Instant::now() + state.limits.body;
    loop {
        let mut lines = 0;
        tokio::select! {
            piece = timeout_at(deadline, body.frame()) => match piece {
                Ok(Some(Ok(frame))) => {
                    renew().map_err(Cut::Here)?;
                    let piece = frame.into_data().unwrap_or_default();
                    lines = ingest.feed(&piece, state.clock.now()).await?;
                    // A sender that is always ahead must not keep this thread from the other requests, nor must a short piece.
                    tokio::task::yield_now().await;
                }
                Ok(Some(Err(error))) => return Err(Cut::Here(body::unreadable(&error))),
                Ok(None) => {
                    ingest.end(state.clock.now());
                    return Ok(());
                }
                Err(_) => return Err(Cut::Here(failures::too_quiet(state.limits.body))),
            },
            outcome = ingest.progress() => outcome?,
            () = state.ending.cancelled() => return Err(Cut::Here(failures::broken_off())),
        }
        ingest.launch_if_idle().await?;
        // Now, and not before: the sender is not to blame for the time that Redis took.
        if lines > 0 {
            deadline = Instant::now() + state.limits.body;
        }
    }
}
