//! `DELETE /segments/{name}`: deletes a segment.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::accuracy::Accuracy;
use super::as_of::AsOf;
use super::audit::{Deleted, Deletion};
use crate::http::docs::openapi::{responses, schemas};
use crate::http::extract::auth::{Caller, DeleteSegments};
use crate::http::extract::path::SegmentPath;
use crate::http::extract::query::{Parameters, QueryParams, StrictQuery};
use crate::http::json::json;
use crate::http::problem::Result;
use crate::http::state::AppState;

const DELETION: Deletion = Deletion {
    infinitive: "delete a segment",
    past: "deleted a segment",
    aborted: "the deletion of a segment was aborted; the segment may or may not be deleted",
};

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeletionQuery {
    /// Whether the history of the segment stays. By default it is deleted, too.
    #[param(inline, value_type = Option<schemas::Flag>, example = false)]
    keep_history: bool,
}

impl QueryParams for DeletionQuery {
    const NAMES: &'static [&'static str] = &["keep_history"];

    fn parse(query: &Parameters, _: &AppState) -> Result<Self> {
        Ok(Self { keep_history: query.flag("keep_history")? })
    }
}

/// A deleted segment.
#[derive(Serialize, ToSchema)]
struct DeletedSegment {
    /// The segment's name.
    #[schema(schema_with = schemas::segment)]
    segment: String,
    /// Whether there was anything to delete: the segment had users, had some until the last pruning, or has or had a
    /// history. If false, the name is probably misspelled, or the segment was deleted before.
    known: bool,
    /// The number of users who counted in the segment when it was deleted.
    count: u64,
    #[serde(flatten)]
    accuracy: Accuracy,
    #[serde(flatten)]
    as_of: AsOf,
}

/// Delete a segment.
///
/// 200 once Redis has acknowledged that the segment has no users. Its history is deleted, too, unless `keep_history` is
/// true. An unknown segment is 200 with `known: false`. The users stay in other segments.
///
/// A visit that is recorded later creates the segment again: stop sending its visits first. A visit or a sample of the
/// history that is recorded concurrently may remain; a repetition deletes it. If the answer is lost, a repetition
/// counts what is left. While the deletion runs, other answers may count a part of the users. The deletion of a segment
/// that keeps a sample takes three seconds.
#[utoipa::path(
    delete,
    path = "/segments/{name}",
    operation_id = "delete_segment",
    tag = "segments",
    params(SegmentPath, DeletionQuery),
    responses(
        (status = 200, description = "The segment is deleted.", body = DeletedSegment, example = json!({
            "segment": "sports", "known": true, "count": 42, "exact": true, "window_seconds": 1209600, "as_of": "2026-11-22T10:00:00.000Z",
        })),
        responses::CountProblems,
    )
)]
pub async fn delete(
    caller: Caller<DeleteSegments>,
    State(state): State<Arc<AppState>>,
    headers: HeaderMap,
    segment: Result<SegmentPath>,
    query: Result<StrictQuery<DeletionQuery>>,
) -> Result<Response> {
    let name = segment.as_ref().ok().map(|SegmentPath(segment)| segment.clone());
    let deletion = async {
        caller.authorized?;
        let _admitted = state.admit()?;
        let SegmentPath(segment) = segment?;
        let StrictQuery(DeletionQuery { keep_history }) = query?;
        let now = state.synced_now().await?;
        let deleted = state.estimator.delete_segment(&segment, keep_history, now).await?;
        let response = json(&DeletedSegment {
            segment: segment.to_string(),
            known: deleted.is_known,
            count: deleted.count.count(),
            accuracy: deleted.count.into(),
            as_of: AsOf::new(state.estimator.window(), now),
        });
        Ok(Deleted { response, count: Some(deleted.count.count()), ..Deleted::default() })
    };
    DELETION.audit(&headers, caller.name.as_deref(), name.as_ref(), deletion).await
}
