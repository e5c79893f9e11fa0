//! `POST /segments` and `GET /segments/{name}/count`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::SegmentName;
use crate::domain::visit_json;
use crate::estimator::Recorded;
use crate::http::AppState;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{May, Read, Write};
use crate::http::extract::body::{self, MediaType};
use crate::http::extract::prefer::{PREFERENCE_APPLIED, RETURN_REPRESENTATION, wants_representation};
use crate::http::extract::query::RawQuery;
use crate::http::json::json;
use crate::http::problem::{Problem, Result};
use crate::ingest::Ingest;

/// What became of a visit.
#[derive(Serialize, ToSchema)]
struct RecordedVisit {
    /// `accepted` once Redis has acknowledged it; `expired` if it is older than the window, and so was not kept.
    #[schema(schema_with = schemas::visit_result)]
    result: &'static str,
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The segment.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// The time that was taken for the visit: its own, or that of the request if it has none or is ahead of it. If Redis has a later
    /// visit of the user to the segment, that one stays.
    #[schema(format = DateTime)]
    seen_at: String,
}

/// Record a visit.
///
/// 204 once Redis has acknowledged it. A visit that is older than the window is acknowledged and not kept. `Prefer:
/// return=representation` answers 200 with what became of it.
///
/// A repetition does no harm if the visit has a `seen_at`. Without one, the time of the repetition counts. After the user was deleted, a
/// repetition brings the user back.
#[utoipa::path(
    post,
    path = "/segments",
    operation_id = "record_visit",
    tag = "visits",
    params((
        "prefer" = inline(Option<String>),
        Header,
        description = "`return=representation` asks for what became of the visit. Other preferences are passed over.",
        example = json!("return=representation")
    )),
    request_body(content = schemas::Visit, description = "A visit, in at most 16 KiB, not compressed.", examples(
        ("a visit" = (summary = "Seen now", value = json!({ "user_id": "u104010", "segment": "sports" }))),
        ("with a time in seconds" = (summary = "Seen at a time in Unix seconds (past the window: not kept)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": 1714557600.25 }
        ))),
        ("with a time in RFC 3339" = (summary = "Seen at a time in RFC 3339 (past the window: not kept)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": "2024-05-01T10:00:00+02:00" }
        ))),
    )),
    responses(
        (
            status = 200,
            description = "What became of the visit, if `Prefer: return=representation` asks for it.",
            body = RecordedVisit,
            headers(("preference-applied" = String, description = "`return=representation`")),
            example = json!({
                "result": "accepted", "user_id": "u104010", "segment": "sports", "seen_at": "2026-11-22T10:00:00.000Z",
            })
        ),
        (status = 204, description = "The visit is recorded, or older than the window."),
        problems::OfAVisit,
    )
)]
pub async fn record(
    _: May<Write>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    body::media_type(&headers, &[MediaType::Json])?;
    body::require_plain(&headers)?;
    let body = body::read(body, Ingest::MAX_LINE_BYTES.min(state.limits.body_bytes), state.limits.body).await?;
    let now = state.now().await?;
    let visit = visit_json::parse(&body, now);
    let visit = visit.inspect_err(|error| state.estimator.metrics().visits.rejected(error.kind()))?;
    if !wants_representation(&headers) {
        state.estimator.record(visit, now).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let (user_id, segment) = (visit.user_id.as_str().to_owned(), visit.segment.to_string());
    let seen_at = visit.seen_at.to_string();
    let result = match state.estimator.record(visit, now).await? {
        Recorded::Accepted => "accepted",
        Recorded::Expired => "expired",
    };
    let representation = json(&RecordedVisit { result, user_id, segment, seen_at });
    Ok(([(PREFERENCE_APPLIED, RETURN_REPRESENTATION)], representation).into_response())
}

/// How many users are in a segment.
#[derive(Serialize, ToSchema)]
struct Count {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// How many users were seen in it within the window.
    count: u64,
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// The moment for which this is true, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

/// How many users are in a segment now.
///
/// The count is exact. A segment nobody is in counts 0. When Redis can't answer, the answer is 503, never a guess.
#[utoipa::path(
    get,
    path = "/segments/{name}/count",
    operation_id = "count_segment",
    tag = "counts",
    params(
        (
            "name" = inline(schemas::SegmentName),
            Path,
            description = "The segment's name, percent-encoded: `a%2Fb` is the segment `a/b`. Not `.` or `..`, which most \
                           clients resolve before they send the path.",
            example = json!("sports")
        ),
        (
            "window" = inline(Option<schemas::Window>),
            Query,
            description = "Count over this window instead of the configured one. It can't be longer than that. Other \
                           parameters are errors.",
            example = json!("7d")
        ),
    ),
    responses(
        (status = 200, description = "The count.", body = Count, example = json!({
            "segment": "sports", "count": 42, "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        problems::OfACount,
    )
)]
pub async fn count(
    _: May<Read>,
    State(state): State<Arc<AppState>>,
    name: std::result::Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Result<Response> {
    let segment = segment_of(name)?;
    let window = query.knowing("a count", &["window"])?.window()?.unwrap_or(state.estimator.window());

    let now = state.now().await?;
    let count = state.estimator.estimate_within(&segment, window, now).await?;
    Ok(json(&Count { segment: segment.to_string(), count, window_seconds: window.as_secs(), as_of: now.to_string() }))
}

/// The segment that a path names.
pub(crate) fn segment_of(name: std::result::Result<Path<String>, PathRejection>) -> Result<SegmentName<'static>> {
    let Path(name) = name.map_err(|_| Problem::invalid_field("segment", "must be UTF-8, percent-encoded"))?;
    SegmentName::parse(name).map_err(Problem::from)
}
