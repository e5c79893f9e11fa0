//! `DELETE /segments/{name}/users/{user_id}`: removes a user from one segment.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa::IntoParams;

use super::audit::{Deleted, Deletion};
use crate::domain::Visit;
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Caller, DeleteUsers};
use crate::http::extract::path::MemberPath;
use crate::http::extract::query::{Parameters, QueryParams, StrictQuery};
use crate::http::extract::time::QueryTime;
use crate::http::problem::Result;
use crate::http::state::AppState;

const REMOVAL: Deletion = Deletion {
    infinitive: "remove a user from a segment",
    past: "completed a request to remove a user from a segment",
    aborted: "the removal of a user from a segment was aborted; the user may or may not be removed",
};

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RemovalQuery {
    /// The time of the removal, by the sender. A user who was seen in the segment after it stays. Without it, the user
    /// is removed in any case. A time up to 5 minutes ahead of the service's clock counts as now; a later one is an error.
    #[param(inline, value_type = Option<schemas::Time>, example = "2026-11-22T10:00:00Z")]
    removed_at: Option<QueryTime>,
}

impl QueryParams for RemovalQuery {
    const NAMES: &'static [&'static str] = &["removed_at"];

    fn parse(query: &Parameters, _: &AppState) -> Result<Self> {
        Ok(Self { removed_at: query.time("removed_at")? })
    }
}

/// Remove a user from a segment.
///
/// 204 once Redis has acknowledged that the user is not in the segment, also if the user wasn't before. The user's other
/// segments stay. With `removed_at`, a removal that is late or repeated keeps a later visit. Without it, a repetition
/// also removes a visit that was recorded in between. A visit that arrives after the removal counts, whatever its time.
#[utoipa::path(
    delete,
    path = "/segments/{name}/users/{user_id}",
    operation_id = "remove_user_from_segment",
    tag = "users",
    params(MemberPath, RemovalQuery),
    responses(
        (status = 204, description = "The user is not in the segment, or was seen there after `removed_at`."),
        responses::CountProblems,
    )
)]
pub async fn remove(
    caller: Caller<DeleteUsers>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    member: Result<MemberPath>,
    query: Result<StrictQuery<RemovalQuery>>,
) -> Result<Response> {
    let segment = member.as_ref().ok().map(|MemberPath(segment, _)| segment.clone());
    let removal = async {
        caller.authorized?;
        let _admitted = state.admit()?;
        let MemberPath(segment, user) = member?;
        let StrictQuery(RemovalQuery { removed_at }) = query?;
        let now = state.synced_now().await?;
        let removed_at = removed_at.map(|time| Visit::not_ahead("removed_at", time.resolve(now), now)).transpose()?;
        let removed = state.estimator.remove_user(&user, &segment, removed_at).await?;
        Ok(Deleted { response: StatusCode::NO_CONTENT, removed: Some(removed), ..Deleted::default() })
    };
    REMOVAL.audit(&headers, caller.name.as_deref(), segment.as_ref(), removal).await
}
