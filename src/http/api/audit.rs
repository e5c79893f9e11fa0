//! The log of deletions: who deleted, and the outcome, but never which user.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use scopeguard::ScopeGuard;

use crate::domain::SegmentName;
use crate::http::middleware::request_id;
use crate::http::problem::Result;

/// A kind of deletion, in the words of the log.
pub struct Deletion {
    /// The deletion in the infinitive.
    pub infinitive: &'static str,
    /// The deletion in the past tense.
    pub past: &'static str,
    /// The message if the handler is dropped, since the outcome is unknown then.
    pub aborted: &'static str,
}

/// A completed deletion.
#[derive(Default)]
pub struct Deleted<T> {
    /// The response.
    pub response: T,
    /// The number of segments that the user was removed from.
    pub segments_removed: Option<u64>,
    /// The number of users that the segment had.
    pub count: Option<u64>,
    /// Whether the user was removed from the segment.
    pub removed: Option<bool>,
}

impl Deletion {
    /// Runs `deletion`, and logs the caller `by`, the segment if it is known, and the outcome.
    pub async fn audit<T: IntoResponse>(
        &self,
        headers: &HeaderMap,
        by: Option<&str>,
        segment: Option<&SegmentName<'_>>,
        deletion: impl Future<Output = Result<Deleted<T>>>,
    ) -> Result<Response> {
        let Self { infinitive, past, aborted } = self;
        let request_id = request_id::added(headers);
        let segment = segment.map(SegmentName::as_str);
        // The handler is dropped if the caller disconnects or the request times out.
        let guard = scopeguard::guard((), |()| tracing::warn!(request_id, by, segment, "{aborted}"));
        let outcome = deletion.await;
        ScopeGuard::into_inner(guard);
        match outcome {
            Ok(Deleted { response, segments_removed, count, removed }) => {
                let response = response.into_response();
                let status = response.status().as_u16();
                tracing::info!(request_id, by, status, segment, segments_removed, count, removed, "{past}");
                Ok(response)
            }
            Err(problem) => {
                let (status, slug) = (problem.status(), problem.type_slug());
                let outcome = if status.is_server_error() { "failed" } else { "refused" };
                let code = status.as_u16();
                // A caller without a valid token is unknown, and could fill the log. A metric counts such requests.
                if status == StatusCode::UNAUTHORIZED {
                    tracing::debug!(request_id, status = code, problem = slug, "{outcome} to {infinitive}");
                } else {
                    tracing::warn!(request_id, by, status = code, problem = slug, segment, "{outcome} to {infinitive}");
                }
                Err(problem)
            }
        }
    }
}
