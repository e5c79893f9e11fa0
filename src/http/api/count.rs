//! `GET /segments/{name}/count`: counts the users of a segment.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::accuracy::Accuracy;
use super::as_of::AsOf;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Read};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{StrictQuery, WindowQuery};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;

/// The number of users in a segment.
#[derive(Serialize, ToSchema)]
struct Count {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[schema(schema_with = schemas::known)]
    known: bool,
    /// The number of users who were seen in the segment within the window.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
    #[serde(flatten)]
    as_of: AsOf,
}

/// Count the users in a segment.
///
/// The count is exact, unless the segment keeps a sample of its users: then `exact` is false, and `error_95` is the
/// error. An unknown segment counts 0 and has `known: false`. Without Redis the response is 503, never a guess.
#[utoipa::path(
    get,
    path = "/segments/{name}/count",
    operation_id = "count_segment",
    tag = "counts",
    params(SegmentPath, WindowQuery),
    responses(
        (status = 200, description = "The count.", body = Count, examples(
            ("exact" = (summary = "An exact count.", value = json!({
                "segment": "sports", "known": true, "count": 42, "exact": true, "window_seconds": 604800,
                "as_of": "2026-11-22T10:00:00.000Z",
            }))),
            ("estimate" = (summary = "An estimate from a sample: 4.78 million ± 1 %.", value = json!({
                "segment": "sports", "known": true, "count": 4779904, "exact": false, "error_95": 0.0101,
                "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
            }))),
        )),
        responses::CountProblems,
    )
)]
pub async fn count(
    _: Authorized<Read>,
    State(state): State<Arc<AppState>>,
    SegmentPath(segment): SegmentPath,
    StrictQuery(WindowQuery { window }): StrictQuery<WindowQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let count = state.estimator.estimate_within(&segment, window, now).await?;
    let known = state.estimator.is_known(&segment, count.count() > 0).await?;
    Ok(json(&Count {
        segment: segment.to_string(),
        known,
        count: count.count(),
        accuracy: count.into(),
        as_of: AsOf::new(window, now),
    }))
}
