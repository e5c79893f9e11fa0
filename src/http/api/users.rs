//! `GET /users/{user_id}/segments` and `DELETE /users/{user_id}`: what is kept of a user, and having it deleted.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::UserId;
use crate::estimator::Membership;
use crate::http::AppState;
use crate::http::docs::openapi::{problems, schemas};
use crate::http::extract::auth::{Caller, DeleteUsers, May, ReadUsers};
use crate::http::extract::query::RawQuery;
use crate::http::json::json;
use crate::http::middleware::request_id::REQUEST_ID;
use crate::http::problem::{Problem, Result};

/// The segments of a user.
#[derive(Serialize, ToSchema)]
struct UserSegments {
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// The segments that the user is in, in name order.
    segments: Vec<UserSegment>,
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// The moment for which this is true, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

/// A segment that a user is in.
#[derive(Serialize, ToSchema)]
struct UserSegment {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// When the user was last seen in it.
    #[schema(format = DateTime)]
    last_seen: String,
    /// From when on the user no longer counts there, unless seen again.
    #[schema(format = DateTime)]
    expires: String,
}

/// A user who was forgotten.
#[derive(Serialize, ToSchema)]
struct Forgotten {
    /// The user.
    #[schema(schema_with = schemas::user_id)]
    user_id: String,
    /// How many segments the user was removed from; those where the user had expired already count, too.
    segments_removed: u64,
}

impl From<Membership> for UserSegment {
    fn from(Membership { segment, last_seen, expires }: Membership) -> Self {
        Self { segment: segment.to_string(), last_seen: last_seen.to_string(), expires: expires.to_string() }
    }
}

/// The segments that a user is in.
///
/// For support, and for who asks what is kept of a person: there is nothing else but visits that have expired and wait to be
/// pruned. A user whom nobody knows is in none.
#[utoipa::path(
    get,
    path = "/users/{user_id}/segments",
    operation_id = "list_user_segments",
    tag = "users",
    params(("user_id" = inline(schemas::UserId), Path, description = "The user's id, percent-encoded.", example = json!("u104010"))),
    responses(
        (status = 200, description = "The segments.", body = UserSegments, example = json!({
            "user_id": "u104010",
            "segments": [{
                "segment": "sports", "last_seen": "2026-11-22T09:30:00.000Z", "expires": "2026-12-06T09:30:00.000Z",
            }],
            "window_seconds": 1209600, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        problems::OfAList,
    )
)]
pub async fn segments(
    _: May<ReadUsers>,
    State(state): State<Arc<AppState>>,
    user: std::result::Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Result<Response> {
    let user = user_of(user)?;
    query.knowing("a user's segments", &[])?;
    let now = state.now().await?;
    let _permit = state.estimator.acquire_list_permit()?;
    let segments = state.estimator.segments_of(&user, now).await?;
    Ok(json(&UserSegments {
        user_id: user.as_str().to_owned(),
        segments: segments.into_iter().map(UserSegment::from).collect(),
        window_seconds: state.estimator.window().as_secs(),
        as_of: now.to_string(),
    }))
}

/// Have a user forgotten.
///
/// 200 once Redis has acknowledged that the user is in no segment any more. A repetition removes what was recorded in between, too.
/// A visit that is recorded later, or at the same time, puts the user into its segment again, and so does the repetition of an
/// earlier one: stop sending these first. Backups and exports made before have the user still.
#[utoipa::path(
    delete,
    path = "/users/{user_id}",
    operation_id = "forget_user",
    tag = "users",
    params(("user_id" = inline(schemas::UserId), Path, description = "The user's id, percent-encoded.", example = json!("u104010"))),
    responses(
        (status = 200, description = "The user is in no segment.", body = Forgotten, example = json!({
            "user_id": "u104010", "segments_removed": 3,
        })),
        problems::OfAList,
    )
)]
pub async fn forget(
    caller: Caller<DeleteUsers>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    user: std::result::Result<Path<String>, PathRejection>,
    query: RawQuery,
) -> Result<Response> {
    let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let log = DeletionLog { request_id, by: caller.name.as_deref(), is_complete: false };
    let outcome = async {
        caller.admitted?;
        let user = user_of(user)?;
        query.knowing("forgetting a user", &[])?;
        let _permit = state.estimator.acquire_list_permit()?;
        let segments_removed = state.estimator.forget(&user).await?;
        Ok(Forgotten { user_id: user.as_str().to_owned(), segments_removed })
    };
    let outcome = outcome.await;
    log.complete(&outcome);
    outcome.map(|forgotten| json(&forgotten))
}

/// One line in the log for each deletion: who asked for it and what became of it, and never which user it was.
struct DeletionLog<'a> {
    request_id: &'a str,
    /// The name of the key or the subject of the token.
    by: Option<&'a str>,
    is_complete: bool,
}

impl DeletionLog<'_> {
    fn complete(mut self, outcome: &Result<Forgotten>) {
        self.is_complete = true;
        let Self { request_id, by, .. } = self;
        match outcome {
            Ok(Forgotten { segments_removed, .. }) => {
                tracing::info!(request_id, by, status = 200, segments_removed, "deleted a user");
            }
            Err(problem) => {
                let (status, problem) = (problem.status().as_u16(), problem.type_slug());
                let outcome = if status < 500 { "refused" } else { "failed" };
                tracing::warn!(request_id, by, status, problem, "{outcome} to delete a user");
            }
        }
    }
}

impl Drop for DeletionLog<'_> {
    /// The handler is dropped when the caller hangs up, or the request takes too long.
    fn drop(&mut self) {
        if !self.is_complete {
            let Self { request_id, by, .. } = *self;
            tracing::warn!(
                request_id,
                by,
                "the deletion of a user was given up before its answer; it may have been done"
            );
        }
    }
}

/// The user that a path names.
fn user_of(user: std::result::Result<Path<String>, PathRejection>) -> Result<UserId<'static>> {
    let Path(user) = user.map_err(|_| Problem::invalid_field("user_id", "must be UTF-8, percent-encoded"))?;
    UserId::parse(user).map_err(Problem::from)
}
