//! `GET /segments/{name}/users/{user_id}`: shows whether a user is in a segment.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::estimator::IsMember;
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
    /// Whether the user counts in the segment; null if it isn't known, with the reason in `reason`.
    #[schema(required)]
    in_segment: Option<bool>,
    /// Whether it is known. False if the segment keeps a sample of its users, and this user isn't one of them.
    exact: bool,
    /// Why it isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// The time of the user's last visit to the segment; null if the user isn't known to be in it.
    #[schema(required, format = DateTime)]
    last_seen: Option<String>,
    /// The time from which on the user no longer counts over this window, unless seen again; null if the user isn't
    /// known to be in the segment.
    #[schema(required, format = DateTime)]
    expires: Option<String>,
    #[serde(flatten)]
    as_of: AsOf,
}

/// Show whether a user is in a segment.
///
/// `last_seen` is the last visit: earlier ones are not stored, so it is unknown since when the user has been in the
/// segment without a gap. A user who was never seen there and one who expired get the same answer. An unknown segment
/// has `known: false`. If the segment keeps a sample of its users and this user isn't one of them, `in_segment` is
/// null.
#[utoipa::path(
    get,
    path = "/segments/{name}/users/{user_id}",
    operation_id = "get_segment_user",
    tag = "users",
    params(MemberPath, WindowQuery),
    responses(
        (status = 200, description = "Whether the user is in the segment.", body = SegmentUser, examples(
            ("member" = (summary = "The user is in the segment.", value = json!({
                "segment": "sports", "known": true, "user_id": "u104010", "in_segment": true, "exact": true,
                "last_seen": "2026-11-22T09:30:00.000Z", "expires": "2026-11-29T09:30:00.000Z",
                "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
            }))),
            ("not-known" = (summary = "The segment keeps a sample without the user.", value = json!({
                "segment": "sports", "known": true, "user_id": "u104010", "in_segment": null, "exact": false,
                "reason": "the segment keeps one of 128 users, and this user isn't one of them",
                "last_seen": null, "expires": null, "window_seconds": 604800, "as_of": "2026-11-22T10:00:00.000Z",
            }))),
        )),
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
    let (in_segment, reason, membership) = match membership {
        IsMember::Yes(membership) => (Some(true), None, Some(membership)),
        IsMember::No => (Some(false), None, None),
        IsMember::NotKnown(depth) => {
            let why = format!("the segment keeps one of {} users, and this user isn't one of them", depth.weight());
            (None, Some(why), None)
        }
    };
    let (last_seen, expires) = membership.map(|found| (found.last_seen.to_string(), found.expires.to_string())).unzip();
    Ok(json(&SegmentUser {
        segment: segment.to_string(),
        // A segment that keeps a sample had users until the last pruning.
        known: state.estimator.is_known(&segment, in_segment != Some(false)).await?,
        user_id: user.as_str().to_owned(),
        in_segment,
        exact: in_segment.is_some(),
        reason,
        last_seen,
        expires,
        as_of: AsOf::new(window, now),
    }))
}
