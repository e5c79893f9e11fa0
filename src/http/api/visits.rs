//! `POST /segments`: records a visit.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Object;

use crate::domain::visit_json;
use crate::estimator::Recorded;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Write};
use crate::http::extract::body::VisitBody;
use crate::http::extract::prefer::{PREFERENCE_APPLIED, RETURN_REPRESENTATION, WantsRepresentation};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;

/// The outcome of a visit.
#[derive(Serialize, ToSchema)]
struct RecordedVisit {
    /// `accepted` if Redis has acknowledged the visit; `expired` if it is older than the window and was not stored.
    #[schema(schema_with = result_schema)]
    result: &'static str,
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The segment.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// The time of the visit: its `seen_at`, or the time of the request if it has none or a later one. A later visit of
    /// the user to the segment that is already in Redis stays.
    #[schema(format = DateTime)]
    seen_at: String,
}

fn result_schema() -> Object {
    schemas::one_of(["accepted", "expired"])
}

/// Record a visit.
///
/// 204 once Redis has acknowledged it. A visit that is older than the window is acknowledged, but not stored. With
/// `Prefer: return=representation` the answer is 200 with the outcome.
///
/// Repeating the request is harmless if the visit has a `seen_at`. Without one, the time of the repetition counts.
/// Repeating it after the user was deleted brings the user back.
#[utoipa::path(
    post,
    path = "/segments",
    operation_id = "record_visit",
    tag = "visits",
    params((
        "prefer" = inline(Option<String>),
        Header,
        description = "`return=representation` asks for the outcome of the visit. Other preferences are ignored.",
        example = json!("return=representation")
    )),
    request_body(content = schemas::Visit, description = "A visit, in at most 16 KiB, not compressed.", examples(
        ("a visit" = (summary = "Seen now", value = json!({ "user_id": "u104010", "segment": "sports" }))),
        ("with a time in seconds" = (summary = "Seen at a time in Unix seconds (expired: not stored)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": 1714557600.25 }
        ))),
        ("with a time in RFC 3339" = (summary = "Seen at a time in RFC 3339 (expired: not stored)", value = json!(
            { "user_id": "u104010", "segment": "sports", "seen_at": "2024-05-01T10:00:00+02:00" }
        ))),
    )),
    responses(
        (
            status = 200,
            description = "The outcome of the visit, if `Prefer: return=representation` asks for it.",
            body = RecordedVisit,
            headers(("preference-applied" = String, description = "`return=representation`")),
            example = json!({
                "result": "accepted", "user_id": "u104010", "segment": "sports", "seen_at": "2026-11-22T10:00:00.000Z",
            })
        ),
        (status = 204, description = "The visit is recorded, or older than the window."),
        responses::VisitProblems,
    )
)]
pub async fn record(
    _: Authorized<Write>,
    State(state): State<Arc<AppState>>,
    WantsRepresentation(wants_representation): WantsRepresentation,
    VisitBody(body): VisitBody,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let visit = visit_json::parse(&body, now);
    let visit = visit.inspect_err(|error| state.metrics.visits.rejected(error.kind()))?.into_owned();
    // While the visit waits for Redis, the connection can reuse its read buffer, which the body is a part of.
    drop(body);
    // Boxed: keeps them out of the futures of most visits.
    let shown = wants_representation
        .then(|| Box::new((visit.user_id.as_str().to_owned(), visit.segment.to_string(), visit.seen_at.to_string())));
    let recorded = state.estimator.record(visit, now).await?;
    let Some(shown) = shown else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let (user_id, segment, seen_at) = *shown;
    let result = match recorded {
        Recorded::Accepted => "accepted",
        Recorded::Expired => "expired",
    };
    let representation = json(&RecordedVisit { result, user_id, segment, seen_at });
    Ok(([(PREFERENCE_APPLIED, RETURN_REPRESENTATION)], representation).into_response())
}
