//! `POST /segments` and `GET /segments/{name}/count`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::access::{May, Read, Write};
use super::body::{self, MediaType};
use super::openapi::{problems, schemas};
use super::problem::{Problem, ProblemKind, Result};
use super::query::{RawQuery, invalid};
use super::{AppState, json};
use crate::estimator::EstimateError;
use crate::ingest::Ingest;
use crate::segment::SegmentName;
use crate::visit_json::{self, VisitError};

/// Record a visit.
///
/// 204 once Redis has acknowledged it. A visit that is older than the window is acknowledged and not kept. Repeating a
/// request never does harm.
#[utoipa::path(
    post,
    path = "/segments",
    operation_id = "record_visit",
    tag = "visits",
    request_body(content = schemas::Visit, description = "A visit, in at most 16 KiB, not compressed.", examples(
        ("a visit" = (summary = "Seen now", value = json!({ "user_id": "u104010", "segment": "sports" }))),
        ("with a time in seconds" = (summary = "Seen at a time in Unix seconds (past the window: not kept)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": 1714557600.25 }
        ))),
        ("with a time in RFC 3339" = (summary = "Seen at a time in RFC 3339 (past the window: not kept)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": "2024-05-01T10:00:00+02:00" }
        ))),
    )),
    responses((status = 204, description = "The visit is recorded, or older than the window."), problems::OfAVisit)
)]
pub async fn record(
    _: May<Write>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode> {
    body::media_type(&headers, &[MediaType::Json])?;
    body::require_plain(&headers)?;
    let json = body::read(body, Ingest::MAX_LINE_BYTES.min(state.limits.body_bytes), state.limits.body).await?;
    let now = state.now().await?;
    let visit = visit_json::parse(&json, now);
    let visit = visit.inspect_err(|error| state.estimator.metrics().visits.rejected(error.kind()))?;
    state.estimator.record(visit, now).await?;
    Ok(StatusCode::NO_CONTENT)
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

impl From<VisitError> for Problem {
    fn from(error: VisitError) -> Self {
        match error {
            VisitError::NotJson(why) => Self::new(ProblemKind::Malformed, format!("The body is {why}.")),
            VisitError::SeveralValues(_) => {
                Self::new(ProblemKind::Malformed, format!("The body is {error}. Many visits go to /segments/batch."))
            }
            VisitError::NotAnObject(_) => Self::new(ProblemKind::Invalid, format!("The body is not a visit: {error}.")),
            VisitError::Fields(errors) => Self::invalid(errors),
        }
    }
}

impl From<EstimateError> for Problem {
    fn from(error: EstimateError) -> Self {
        match error {
            EstimateError::Store(error) => error.into(),
            EstimateError::WindowTooLong(_) => invalid("window", error.to_string()),
        }
    }
}

/// The segment that a path names.
pub(super) fn segment_of(name: std::result::Result<Path<String>, PathRejection>) -> Result<SegmentName<'static>> {
    let Path(name) = name.map_err(|_| invalid("segment", "must be UTF-8, percent-encoded"))?;
    SegmentName::parse(name).map_err(|error| Problem::invalid(vec![error]))
}
