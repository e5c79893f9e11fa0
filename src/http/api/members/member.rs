//! `GET /segments/{name}/users/{user_id}`: shows whether a user is in a segment.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::api::as_of::AsOf;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, ReadUsers};
use crate::http::extract::path::MemberPath;
use crate::http::extract::query::{StrictQuery, WindowQuery};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;

/// Whether a user is in a segment.
#[derive(Serialize, ToSchema)]
struct SegmentUser {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    #[schema(schema_with = schemas::known)]
    known: bool,
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// Whether the user counts in the segment.
    in_segment: bool,
    /// The time of the user's last visit to the segment; null if the user isn't in it.
    #[schema(required, format = DateTime)]
    last_seen: Option<String>,
    /// The time from which on the user no longer counts over this window, unless seen again; null if the user isn't in
    /// the segment.
    #[schema(required, format = DateTime)]
    expires: Option<String>,
    #[serde(flatten)]
    as_of: AsOf,
}

/// Show whether a user is in a segment.
///
/// `last_seen` is the last visit: earlier ones are not stored, so it is unknown since when the user has been in the
/// segment without a gap. A user who was never seen there and one who expired get the same answer. An unknown segment
/// has `known: false`.
#[utoipa::path(
    get,
    path = "/segments/{name}/users/{user_id}",
    operation_id = "get_segment_user",
    tag = "users",
    params(MemberPath, WindowQuery),
    responses(
        (status = 200, description = "Whether the user is in the segment.", body = SegmentUser, example = json!({
            "segment": "sports", "known": true, "user_id": "u104010", "in_segment": true,
            "last_seen": "2026-11-22T09:30:00.000Z", "expires": "2026-11-29T09:30:00.000Z",
            "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        responses::CountProblems,
    )
)]
pub async fn member(
    _: Authorized<ReadUsers>,
    State(state): State<Arc<AppState>>,
    MemberPath(segment, user): MemberPath,
    StrictQuery(WindowQuery { window }): StrictQuery<WindowQuery>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let membership = state.estimator.membership(&segment, &user, window, now).await?;
    let in_segment = membership.is_some();
    let (last_seen, expires) = membership.map(|found| (found.last_seen.to_string(), found.expires.to_string())).unzip();
    Ok(json(&SegmentUser {
        segment: segment.to_string(),
        known: state.estimator.is_known(&segment, in_segment).await?,
        user_id: user.as_str().to_owned(),
        in_segment,
        last_seen,
        expires,
        as_of: AsOf::new(window, now),
    }))
}
