//! The handler of `POST /segments/batch`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, Ref, Type};

use super::{array, problems};
use crate::domain::Timestamp;
use crate::http::batch_report::BatchReport;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Write};
use crate::http::extract::body::{self, MediaType};
use crate::http::extract::query::{Parameters, QueryParams, StrictQuery};
use crate::http::json::json;
use crate::http::middleware::endpoint::with_timeout;
use crate::http::problem::{Problem, Result};
use crate::http::state::AppState;
use crate::ingest::{Aborted, Ingest, Report};

/// Likely cause of a batch whose only line is invalid.
const SINGLE_LINE_HINT: &str =
    " The body is a single line: curl removes a file's line ends with -d, and keeps them with --data-binary.";

/// Cause of a batch of lines without a visit that begins with a bracket.
const ARRAY_HINT: &str = " The body is a JSON array: send it with content-type: application/json.";

schemas::schema_type!(
    Visits = ArrayBuilder::new().items(Ref::from_schema_name("Visit")).max_items(Some(array::MAX_VISITS))
);
schemas::schema_type!(
    Lines = {
        let description = "One visit per line, as JSON. A line ends with LF or CR LF; empty lines are ignored.";
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        text.content_media_type("application/x-ndjson").content_schema(Some(Ref::from_schema_name("Visit")))
    }
);

/// The query parameters of a batch.
#[derive(Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BatchQuery {
    /// `true` answers 422 if a visit is rejected, for senders that look at the status only. The valid visits are recorded
    /// all the same. False by default.
    #[param(inline, value_type = Option<schemas::Flag>, example = false)]
    strict: bool,
    /// `true` validates the visits and writes nothing. The answer is that of a batch, with `dry_run: true`. False by
    /// default.
    #[param(inline, value_type = Option<schemas::Flag>, example = false)]
    dry_run: bool,
}

impl QueryParams for BatchQuery {
    const NAMES: &'static [&'static str] = &["strict", "dry_run"];

    fn parse(query: &Parameters, _: &AppState) -> Result<Self> {
        Ok(Self { strict: query.flag("strict")?, dry_run: query.flag("dry_run")? })
    }
}

/// Record many visits.
///
/// 200 once Redis has acknowledged all visits that were not rejected, with a report. An invalid line is reported by its
/// number, an invalid visit of an array by its position, both counted from 1, and the batch continues. If no line is
/// valid, the status is 422. After 10,000 rejected lines in a row, or if most of 100,000 were rejected, the batch is
/// aborted with 422. An empty body or `[]` is 200 with nothing accepted. With `strict=true` a single rejected visit makes
/// the status 422; the other visits are recorded.
///
/// A visit with `segments` counts as one visit for each name in `accepted` and `expired`. If it is not valid, none of them
/// is written, and `rejected` counts it once. An error of a name has the field `segments[0]`, `segments[1]`, ..., counted
/// from 0.
///
/// If a batch is aborted, the problem says how far it came, as `done_through_line`. A token that expires or is revoked
/// during a stream aborts it. Repeating a part of a batch is harmless if its visits have a `seen_at`. The body may be
/// compressed with gzip (`content-encoding: gzip` or `x-gzip`), by a factor of at most 200.
#[utoipa::path(
    post,
    path = "/segments/batch",
    operation_id = "record_batch",
    tag = "visits",
    params(BatchQuery),
    request_body(
        description = "An array of up to 1,000 visits and 1 MiB, or one visit per line without a limit on their number. A visit \
                       takes at most 16 KiB, and may have up to 100 `segments`. Lines are written while they arrive.",
        content(
            (Visits = "application/json", examples(
                ("array" = (summary = "An array", value = json!([
                    { "user_id": "u104010", "segment": "sports" },
                    { "user_id": "u104011", "segments": ["news", "weather"], "seen_at": "2024-05-01T10:00:00Z" },
                ]))),
            )),
            (Lines = "application/x-ndjson", examples(
                ("lines" = (summary = "Lines", value = json!(
                    "{\"user_id\":\"u104010\",\"segment\":\"sports\"}\n{\"user_id\":\"u104011\",\"segment\":\"news\"}\n"
                ))),
            )),
        )
    ),
    responses(
        (status = 200, description = "The outcome of the visits.", body = BatchReport, examples(
            ("all" = (summary = "All are accepted", value = json!(
                { "accepted": 2, "expired": 0, "rejected": 0, "errors": [], "errors_truncated": false }
            ))),
            ("dry run" = (summary = "All are valid, with `dry_run=true`", value = json!(
                { "accepted": 2, "expired": 0, "rejected": 0, "errors": [], "errors_truncated": false, "dry_run": true }
            ))),
            ("some" = (summary = "One is rejected", value = json!({
                "accepted": 1,
                "expired": 0,
                "rejected": 1,
                "errors": [{ "line": 2, "field": "user_id", "detail": "must not be empty" }],
                "errors_truncated": false,
            }))),
        )),
        responses::BatchProblems,
    )
)]
pub async fn record(
    caller: Authorized<Write>,
    State(state): State<Arc<AppState>>,
    StrictQuery(query): StrictQuery<BatchQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let media_type = body::media_type(&headers, &[MediaType::Json, MediaType::Lines])?;
    let body = body::decompressed(&headers, body)?;
    match media_type {
        MediaType::Json => with_timeout(state.limits.request, record_array(&state, query, &caller, body)).await?,
        MediaType::Lines => record_lines(&state, query, caller, &headers, body).await,
    }
}

async fn record_array(state: &AppState, query: BatchQuery, caller: &Authorized<Write>, body: Body) -> Result<Response> {
    let json = body::read(body, state.limits.body_bytes, state.limits.body).await?;
    let mut ingest = ingest(state, query, caller);
    let outcome = feed_array(&mut ingest, &array::parse(&json)?, state.synced_now().await?).await;
    finish(ingest, outcome, query, |_| "").await
}

fn ingest(state: &AppState, query: BatchQuery, caller: &Authorized<Write>) -> Ingest {
    Ingest::new(state.estimator.clone()).with_dry_run(query.dry_run).with_usage(caller.usage().cloned())
}

async fn record_lines(
    state: &AppState,
    query: BatchQuery,
    mut caller: Authorized<Write>,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Response> {
    state.synced_now().await?;
    let mut ingest = ingest(state, query, &caller);
    // A stream may outlive its token.
    let renew = || caller.renew(state, headers);
    let mut first_byte = None;
    let outcome = feed_lines(&mut ingest, &mut body, state, renew, &mut first_byte).await;
    let is_aborted = outcome.is_err();
    let hint = |report: &Report| match first_byte {
        Some(b'[') => ARRAY_HINT,
        _ if report.is_one_line_without_a_visit() => SINGLE_LINE_HINT,
        _ => "",
    };
    let answer = finish(ingest, outcome, query, hint).await;
    if is_aborted {
        body::discard(body);
    }
    answer
}

/// Waits for the outcome of all visits and answers with the report. `hint` completes the problem of a batch without a
/// valid visit.
async fn finish(
    ingest: Ingest,
    outcome: std::result::Result<(), Incomplete>,
    query: BatchQuery,
    hint: impl FnOnce(&Report) -> &'static str,
) -> Result<Response> {
    let (report, failure) = ingest.finish().await;
    let problem = match (failure, outcome) {
        (Some(error), _) => problems::not_written(error),
        (None, Err(Incomplete::Body(problem))) => problem,
        (None, Err(Incomplete::Store)) => unreachable!("a failed ingest has an error"),
        (None, Ok(())) if report.has_only_rejected() => problems::all_rejected(hint(&report)),
        (None, Ok(())) if query.strict && report.rejected > 0 => problems::some_rejected(report.dry_run),
        (None, Ok(())) => return Ok(json(&BatchReport::of_complete(&report))),
    };
    Err(problem.with_report(report))
}

/// Why the rest of a batch was not read.
enum Incomplete {
    /// The store failed. The ingest has the error.
    Store,
    /// The body could not be read, or must not be read any further.
    Body(Problem),
}

impl From<Aborted> for Incomplete {
    fn from(aborted: Aborted) -> Self {
        match aborted {
            Aborted::Store => Self::Store,
            Aborted::Rejections => Self::Body(problems::too_many_rejected()),
        }
    }
}

async fn feed_array(ingest: &mut Ingest, visits: &[&RawValue], now: Timestamp) -> std::result::Result<(), Incomplete> {
    for (number, visit) in (1..).zip(visits) {
        ingest.feed_object(number, visit.get().as_bytes(), now).await?;
    }
    Ok(())
}

/// Feeds the lines of `body` while they arrive. Their number is not limited, but each must be complete within the time
/// limit of a body. `renew` authorizes each frame. Sets `first_byte` to the first one that is no white space.
async fn feed_lines(
    ingest: &mut Ingest,
    body: &mut Body,
    state: &AppState,
    mut renew: impl FnMut() -> Result<()>,
    first_byte: &mut Option<u8>,
) -> std::result::Result<(), Incomplete> {
    let mut deadline = Instant::now() + state.limits.body;
    loop {
        let mut lines = 0;
        tokio::select! {
            frame = timeout_at(deadline, body.frame()) => match frame {
                Ok(Some(Ok(frame))) => {
                    renew().map_err(Incomplete::Body)?;
                    let bytes = frame.into_data().unwrap_or_default();
                    *first_byte = first_byte.or_else(|| bytes.trim_ascii_start().first().copied());
                    lines = ingest.feed(&bytes, state.clock.now()).await?;
                    // A fast sender, or one of short frames, must not block other requests on this thread.
                    tokio::task::yield_now().await;
                }
                Ok(Some(Err(error))) => return Err(Incomplete::Body(body::unreadable(&error))),
                Ok(None) => {
                    ingest.end(state.clock.now());
                    return Ok(());
                }
                Err(_) => return Err(Incomplete::Body(problems::too_quiet(state.limits.body))),
            },
            outcome = ingest.progress() => outcome?,
            () = state.end_streams.cancelled() => return Err(Incomplete::Body(problems::aborted_by_shutdown())),
        }
        ingest.write_if_idle().await?;
        // Reset after the write: the time that Redis takes does not count against the sender.
        if lines > 0 {
            deadline = Instant::now() + state.limits.body;
        }
    }
}
