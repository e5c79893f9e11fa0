//! `GET /metrics`: what the service measures, for Prometheus.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use crate::http::AppState;
use crate::http::docs::openapi::problems;

/// What the service measures.
///
/// In Prometheus's text format. It never asks Redis: what is known of that is sampled. With `admin_listen` it is served
/// there, without a token.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        problems::OfAnything,
    )
)]
pub async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    state.estimator.measure_pending();
    let http = &state.estimator.metrics().http;
    http.set_in_flight(state.under_way.load(Ordering::Relaxed));
    let text = state.estimator.metrics().render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
}
