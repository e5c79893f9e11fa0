//! `GET /users/{user_id}/segments` and `DELETE /users/{user_id}`: shows and deletes the data of a user.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::as_of::AsOf;
use super::audit::{Deleted, Deletion};
use crate::domain::SegmentName;
use crate::estimator::Membership;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Authorized, Caller, DeleteUsers, ReadUsers};
use crate::http::extract::path::UserPath;
use crate::http::extract::query::{NoParams, StrictQuery};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;

const DELETION: Deletion = Deletion {
    infinitive: "delete a user",
    past: "deleted a user",
    aborted: "the deletion of a user was aborted; the user may or may not be deleted",
};

/// The segments of a user.
#[derive(Serialize, ToSchema)]
struct UserSegments {
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The segments that the user is in, in the order of their names.
    segments: Vec<UserSegment>,
    /// Whether these are all segments that the user is in. False if segments keep samples without this user.
    exact: bool,
    /// The segments that keep a sample without this user, in the order of their names, if there are any. It isn't known
    /// whether the user is in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schemas::SegmentName>, required = false, min_items = 1)]
    not_known: Vec<String>,
    #[serde(flatten)]
    as_of: AsOf,
}

/// A segment that a user is in.
#[derive(Serialize, ToSchema)]
struct UserSegment {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// The time of the user's last visit to the segment.
    #[schema(format = DateTime)]
    last_seen: String,
    /// The time from which on the user no longer counts there, unless seen again.
    #[schema(format = DateTime)]
    expires: String,
}

impl From<Membership> for UserSegment {
    fn from(Membership { segment, last_seen, expires }: Membership) -> Self {
        Self { segment: segment.to_string(), last_seen: last_seen.to_string(), expires: expires.to_string() }
    }
}

/// A deleted user.
#[derive(Serialize, ToSchema)]
#[schema(as = Forgotten)]
struct DeletedUser {
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The number of segments that the user was removed from, including those where the user had expired.
    segments_removed: u64,
}

/// List the segments of a user.
///
/// Use it for support, or to answer a person who asks for the stored data: apart from these visits, the service stores
/// only visits that have expired and wait to be pruned. An unknown user is in no segment. A segment that keeps a sample
/// of its users stores nothing of the others: `not_known` has its name if this user is one of them.
#[utoipa::path(
    get,
    path = "/users/{user_id}/segments",
    operation_id = "list_user_segments",
    tag = "users",
    params(UserPath),
    responses(
        (status = 200, description = "The segments.", body = UserSegments, example = json!({
            "user_id": "u104010",
            "segments": [{
                "segment": "sports", "last_seen": "2026-11-22T09:30:00.000Z", "expires": "2026-12-06T09:30:00.000Z",
            }],
            "exact": false, "not_known": ["visitors"],
            "window_seconds": 1209600, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        responses::ListProblems,
    )
)]
pub async fn segments(
    _: Authorized<ReadUsers>,
    State(state): State<Arc<AppState>>,
    UserPath(user): UserPath,
    _: StrictQuery<NoParams>,
) -> Result<Response> {
    let now = state.synced_now().await?;
    let _permit = state.estimator.acquire_list_permit()?;
    let segments = state.estimator.segments_of(&user, now).await?;
    Ok(json(&UserSegments {
        user_id: user.as_str().to_owned(),
        segments: segments.memberships.into_iter().map(UserSegment::from).collect(),
        exact: segments.not_known.is_empty(),
        not_known: segments.not_known.iter().map(SegmentName::to_string).collect(),
        as_of: AsOf::new(state.estimator.window(), now),
    }))
}

/// Delete a user.
///
/// 200 once Redis has acknowledged that the user is in no segment. Repeating the request also removes visits that were
/// recorded in between. A visit that is recorded later or concurrently, or a repetition of an earlier one, adds the
/// user again: stop sending the user's visits first. Earlier backups and exports still contain the user.
#[utoipa::path(
    delete,
    path = "/users/{user_id}",
    operation_id = "forget_user",
    tag = "users",
    params(UserPath),
    responses(
        (status = 200, description = "The user is in no segment.", body = DeletedUser, example = json!({
            "user_id": "u104010", "segments_removed": 3,
        })),
        responses::ListProblems,
    )
)]
pub async fn delete(
    caller: Caller<DeleteUsers>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    user: Result<UserPath>,
    query: Result<StrictQuery<NoParams>>,
) -> Result<Response> {
    let deletion = async {
        caller.authorized?;
        let _admitted = state.admit()?;
        let UserPath(user) = user?;
        query?;
        let _permit = state.estimator.acquire_list_permit()?;
        let segments_removed = state.estimator.delete_user(&user).await?;
        let response = json(&DeletedUser { user_id: user.as_str().to_owned(), segments_removed });
        Ok(Deleted { response, segments_removed: Some(segments_removed), ..Deleted::default() })
    };
    DELETION.audit(&headers, caller.name.as_deref(), None, deletion).await
}
