//! `GET /metrics`: metrics for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::key_metrics::render_keys;
use crate::http::docs::openapi::responses;
use crate::http::extract::auth::{Authorized, Read};
use crate::http::state::AppState;

/// Get the metrics of the service.
///
/// The format is Prometheus's text format. A scrape does not query Redis; metrics of Redis are sampled periodically.
/// With `admin_listen`, the metrics are served there, without a token.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        responses::InternalProblem,
    )
)]
pub async fn metrics(_: Authorized<Read>, state: State<Arc<AppState>>) -> Response {
    metrics_without_token(state).await
}

/// Serves the metrics on the admin listener.
pub async fn metrics_without_token(State(state): State<Arc<AppState>>) -> Response {
    state.estimator.measure_pending();
    state.metrics.http.set_in_flight(state.limits.requests - state.in_flight.available_permits());
    let text = state.metrics.render() + &render_keys(state.authenticator.usage());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
}
